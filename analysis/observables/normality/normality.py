"""Kolmogorov-Smirnov tests of noised data as named arrays and maps."""

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any, TypedDict, Unpack

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from gaussian_test.analysis.declarations import declared
from gaussian_test.analysis.moments.moments import event_dims
from gaussian_test.analysis.observables.normality import FIELDS, VARIABLES
from gaussian_test.analysis.observables.normality.lilliefors import MOST_FEATURES, KSTest, ks_test
from gaussian_test.analysis.observables.record import Inputs

Array = NDArray[np.float64]


class KSOptions(TypedDict, total=False):
    """Settings of :func:`ks_test`, documented there with their defaults."""

    threshold: float
    level: float
    replicates: int
    seed: int
    draws: int


def kolmogorov_smirnov(states: xr.DataArray, **options: Unpack[KSOptions]) -> xr.Dataset:
    """Return the Kolmogorov-Smirnov test of named states, noise level by noise level.

    Parameters
    ----------
    states : DataArray
        Dimensions (..., sample, ``*event``), the event being (feature) or (channel, row, column); leading dimensions are turn
        times, times, scores, ... Samples are independent. A lazy array is read some features of one noise level at a time. All
        noise levels use the same simulated normals and rotations, so curves do not differ by chance.
    **options
        Settings of :func:`ks_test`.

    Returns
    -------
    Dataset
        Over the leading dimensions and the event: ``ks_distance``, ``ks_pvalue``, ``ks_discovered``. Over the leading ones:
        ``ks_mean`` with ``_pvalue``, ``ks_share_above``, ``ks_share_rejected``, each with ``_null_low`` and ``_null_high``, and
        ``ks_share_discovered``. A scalar: ``ks_share_above_null``. See :class:`KSTest`.

    Raises
    ------
    ValueError
        If the dimensions do not fit, or as :func:`ks_test` does.

    Examples
    --------
    >>> x = xr.DataArray(np.random.default_rng(0).normal(size=(2, 100, 5)), dims=("turn_time", "sample", "feature"))
    >>> result = kolmogorov_smirnov(x, replicates=19)
    >>> dict(result.ks_distance.sizes), dict(result.ks_mean.sizes)
    ({'turn_time': 2, 'feature': 5}, {'turn_time': 2})
    """
    names = tuple(map(str, states.dims))
    lead, event = (names[: names.index("sample")], names[names.index("sample") + 1 :]) if "sample" in names else (names, ())
    if not event or event != event_dims(len(event)):
        raise ValueError(f"dimensions {names} do not fit: give (..., sample, feature) or (..., sample, channel, row, column)")
    shape = tuple(states.sizes[name] for name in lead)
    blocks = (_Flattened(states.isel(dict(zip(lead, index, strict=True)))) for index in np.ndindex(shape))
    result = ks_dataset(
        blocks, {name: states[name].values for name in lead}, tuple(states.sizes[name] for name in event), **options
    )
    coords = {name: coord for name, coord in states.coords.items() if "sample" not in coord.dims}
    return result.drop_vars([name for name in lead if name not in coords]).assign_coords(coords)


class _Flattened:
    """Named samples of any event as (samples, features), with columns read on demand."""

    def __init__(self, states: xr.DataArray) -> None:
        self._states = states
        self.shape = (states.shape[0], prod(states.shape[1:]))
        self.dtype = states.dtype

    def __getitem__(self, key: tuple[slice, slice | NDArray[np.int64]]) -> NDArray[Any]:
        """Return columns of all samples."""
        columns = key[1]
        count, features = self.shape
        if self._states.ndim == 2:
            return np.asarray(self._states[:, columns])
        width = len(range(*columns.indices(features))) if isinstance(columns, slice) else len(columns)
        # columns across the axes of an event require whole samples: read as many at a time as the columns' memory allows
        step = max(1, count * width // features)
        if step >= count:
            return self._states.values.reshape(count, features)[:, columns]
        out = np.empty((count, width), self.dtype)
        for start in range(0, count, step):
            out[start : start + step] = self._states[start : start + step].values.reshape(-1, features)[:, columns]
        return out


def ks_dataset(
    blocks: Iterable[Any], lead: Mapping[str, ArrayLike], event_shape: Sequence[int], **options: Unpack[KSOptions]
) -> xr.Dataset:
    """Return the Kolmogorov-Smirnov test of states that are produced one noise level at a time.

    Parameters
    ----------
    blocks : iterable of array
        States (samples, features), one block per noise level, the last leading dimension varying fastest; eager or lazy.
    lead : mapping
        Names and coordinates of the leading dimensions: ``{"turn_time": turn_times}``.
    event_shape : sequence of int
        (features,) or (channels, rows, columns).
    **options
        Settings of :func:`ks_test`.

    Returns
    -------
    Dataset
        As :func:`kolmogorov_smirnov` does.

    Raises
    ------
    ValueError
        If number or shapes of the blocks do not fit, or as :func:`ks_test` does.

    Examples
    --------
    >>> states = (np.random.default_rng(seed).normal(size=(100, 5)) for seed in range(2))
    >>> ks_dataset(states, {"turn_time": [0.1, 1.0]}, (5,), replicates=19).ks_mean.sizes["turn_time"]
    2
    """
    coords = {name: np.asarray(values) for name, values in lead.items()}
    shape = tuple(len(values) for values in coords.values())
    tests: list[KSTest] = []
    for block in blocks:
        states: Any = block if hasattr(block, "shape") else np.asarray(block)
        count = tests[0].count if tests else states.shape[0] if states.shape else 0
        if tuple(states.shape) != (count, prod(event_shape)):
            raise ValueError(
                f"a block of shape {tuple(states.shape)} does not fit: give (samples, features) = {(count, prod(event_shape))}"
            )
        tests.append(ks_test(states, **options))
    if not tests or len(tests) != prod(shape):
        raise ValueError(
            f"{len(tests)} blocks do not fill {dict(zip(coords, shape, strict=True))}: give one for each, at least one"
        )
    values: dict[str, xr.DataArray] = {}
    for name, field in FIELDS.items():
        found = np.array([getattr(test, field) for test in tests])
        dims, sizes = ((), ()) if found.ndim == 1 else (event_dims(len(event_shape)), tuple(event_shape))
        values[name] = xr.DataArray(found.reshape((*shape, *sizes)), coords, (*coords, *dims))
    values["ks_share_above_null"] = values["ks_share_above_null"].isel(dict.fromkeys(coords, 0), drop=True)  # equal at all levels
    return declared(VARIABLES, values, coords, test=tests[0], most=MOST_FEATURES)


def measure(inputs: Inputs) -> dict[str, xr.Dataset]:
    """Return the tests of the noised data of a run, and as a separate group the maps over the features."""
    tests = ks_dataset(
        (states.float().cpu().numpy() for states in inputs.noised(inputs.together)),
        {"turn_time": np.array(inputs.plan.levels)},
        inputs.reference.moments.event_shape,
        level=1 - inputs.statistics.confidence,
        seed=inputs.statistics.seed,
    )
    maps = [variable.name for variable in VARIABLES if variable.group]
    rest = tests.drop_vars(maps).drop_dims([dim for dim in tests[maps[0]].dims if dim != "turn_time"], errors="ignore")
    return {"": rest, "normality": tests[maps].astype(np.float64)}
