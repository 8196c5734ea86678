"""Pictures of starts and end points, and reverse paths, as groups of an archive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from gaussian_test.analysis.moments.moments import event_dims
from gaussian_test.analysis.observables.run import COORDINATES, KEPT
from gaussian_test.analysis.variable import declared, described
from gaussian_test.sampler import UTurnPlan


def picture_table(ends: Mapping[str, Tensor], plan: UTurnPlan, x0: Tensor, samples: Sequence[int]) -> xr.Dataset:
    """Return ground-truth samples and end points as pictures.

    Parameters
    ----------
    ends : mapping of str to Tensor
        By score: end points of the first repeat, shape (turn times, n, ``*event``).
    plan : UTurnPlan
        Gives the turn times.
    x0 : Tensor
        The samples, shape (n, ``*event``).
    samples : sequence of int
        Their indices in the ground-truth set.

    Returns
    -------
    xarray.Dataset
        ``start(sample, *event)`` and ``end(score, turn_time, sample, *event)``, float32.

    Examples
    --------
    >>> from gaussian_test.sampler import VarianceExploding
    >>> plan = UTurnPlan(VarianceExploding(), [1.0, 2.0])
    >>> picture_table({"any": torch.zeros(2, 3, 5)}, plan, torch.zeros(3, 5), [4, 6, 8])["end"].dims
    ('score', 'turn_time', 'sample', 'feature')
    """
    values = {"start": _picture(x0), "end": np.stack([_picture(end) for end in ends.values()])}
    return _kept(values, "pictures", {"score": list(ends), "turn_time": np.array(plan.levels), "sample": np.asarray(samples)})


def path_table(paths: Mapping[str, Tensor], plan: UTurnPlan, times: Sequence[float], samples: Sequence[int]) -> xr.Dataset:
    """Return reverse paths.

    Parameters
    ----------
    paths : mapping of str to Tensor
        By score: states of the first repeat, shape (turn times, times, n, ``*event``), NaN before the turn.
    plan : UTurnPlan
        Gives the turn times.
    times : sequence of float
        Times of the states, descending.
    samples : sequence of int
        Indices of the samples in the ground-truth set.

    Returns
    -------
    xarray.Dataset
        ``state(score, turn_time, time, sample, *event)``, float32.

    Examples
    --------
    >>> from gaussian_test.sampler import VarianceExploding
    >>> plan = UTurnPlan(VarianceExploding(), [1.0, 2.0])
    >>> path_table({"any": torch.zeros(2, 1, 3, 5)}, plan, [0.5], [4, 6, 8])["state"].sizes["time"]
    1
    """
    values = {"state": np.stack([_picture(path) for path in paths.values()])}
    coords = {"score": list(paths), "turn_time": np.array(plan.levels), "time": np.array(times), "sample": np.asarray(samples)}
    return _kept(values, "trajectory", coords)


def _kept(values: Mapping[str, NDArray[np.float32]], group: str, coords: Mapping[str, Any]) -> xr.Dataset:
    variables = [variable for variable in KEPT if variable.group == group]
    dims = {variable.name: variable.dims[:-1] for variable in variables}
    arrays = {
        name: xr.DataArray(value, dims=(*dims[name], *event_dims(value.ndim - len(dims[name])))) for name, value in values.items()
    }
    return described(declared(variables, arrays, coords), COORDINATES)


def _picture(x: Tensor) -> NDArray[np.float32]:
    values: NDArray[np.float32] = x.float().cpu().numpy()
    return values
