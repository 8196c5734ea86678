"""Comparison of the times and curves of two archives."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
import yaml
from numpy.typing import NDArray

from gaussian_test import analysis
from gaussian_test.analysis.declarations import BAND, INTERVAL, TESTED, TIMES, Variable
from gaussian_test.analysis.observables.custom import in_archive
from gaussian_test.analysis.observables.record import resolved
from gaussian_test.analysis.observables.registry import in_result
from gaussian_test.analysis.statistics.curves import falls_through
from gaussian_test.errors import UserError
from gaussian_test.locks import numpy_defaults
from gaussian_test.store.archive import Source, opened

Array = NDArray[np.float64]
# curve of each time, by definition
ROUNDED = 8  # units of the last place of the states, below which a difference between paired runs is rounding
CROSSED = {"memorization": {"own": "memorized_share", "any": "close_share"}, "speciation": {"retention": "class_retention"}}


@numpy_defaults()
def compare(a: Source, b: Source) -> xr.Dataset:
    r"""Compare two results: two models, two data sets, two checkpoints in training.

    Runs that share samples, noise and turn times are compared sample by sample, with bands and p-values of the paired differences.
    Otherwise the values of every sample are interpolated linearly in :math:`\log\nu` to the turn times of ``a`` that ``b`` also
    covers, and the two sets of samples are resampled independently. Runs of two processes are compared in what does not depend on
    the scaling of the state: the norm of the score, for one, is left out.

    Parameters
    ----------
    a, b : path or Dataset
        Two archives or results.

    Returns
    -------
    Dataset
        ``memorization``, ``speciation``, ``affine`` (and ``_low``, ``_high``) over (archive, score), as noise-to-signal ratios, and
        their ``_difference`` (``_low``, ``_high`` for the first two), b minus a; for every curve that both have
        ``<curve>_difference`` (``_se``, ``_low``, ``_high``, ``_pvalue``) over (score, noise_to_signal). The settings of the
        statistics are those of ``a``.

    Raises
    ------
    UserError
        If they have no score or no noise level in common, or an archive cannot be read.

    Examples
    --------
    >>> from gaussian_test.engine.runner import run
    >>> small = run({"samples": 8, "turn_times": {"noise_to_signal": [0.1, 1.0, 5.0]}, "keep": {"pictures": 0}})
    >>> float(abs(compare(small, small).autocorrelation_difference).max())
    0.0
    """
    a, b = opened(a), opened(b)
    scores = [str(score) for score in a["score"].values if score in b["score"].values]
    if not scores:
        raise UserError(
            f"the archives have no score in common ({', '.join(a['score'].values)} and {', '.join(b['score'].values)}): "
            "give the scores to compare the same name"
        )
    if (fewest := min(a.sizes["sample"], b.sizes["sample"])) < 2:
        raise UserError(f"{fewest} sample has no band: compare results of at least 2 samples")
    nu, other = a["noise_to_signal"].values, b["noise_to_signal"].values
    shared = nu[(nu >= other[0] * (1 - 1e-9)) & (nu <= other[-1] * (1 + 1e-9))]
    if not len(shared):
        raise UserError(
            f"the archives share no noise level ({nu[0]:.3g} to {nu[-1]:.3g} and {other[0]:.3g} to {other[-1]:.3g}): "
            "run them on turn times that overlap"
        )
    experiments = [yaml.safe_load(side.attrs["experiment"]) for side in (a, b)]
    dtype = "float64" if all(one.get("dtype") == "float64" for one in experiments) else "float32"
    settings = experiments[0]["statistics"] | {"precision": float(np.finfo(dtype).eps)}
    one_process = experiments[0]["process"] == experiments[1]["process"]
    together = paired(a, b)
    result = xr.Dataset(coords={"score": scores, "archive": ["a", "b"], "noise_to_signal": shared}, attrs={"paired": int(together)})
    for name in TIMES:
        for suffix in ("", *INTERVAL):
            values = [side[f"{name}_noise_to_signal{suffix}"].sel(score=scores).values for side in (a, b)]
            attributes = a[f"{name}_noise_to_signal{suffix}"].attrs
            result[name + suffix] = (("archive", "score"), np.array(values), {k: attributes[k] for k in ("long_name", "units")})
        first, second = result[name].values
        result[f"{name}_difference"] = (
            "score",
            _beyond_rounding(second - first, first, settings),
            {"long_name": f"difference of the {name} times as noise-to-signal ratios, b - a", "units": "1"},
        )
    variables = (variable for one in (*in_result(a), *in_archive(b)) for variable in one.variables)
    compared = {variable.name: variable for variable in variables if variable.compared and (variable.invariant or one_process)}
    for name, variable in compared.items():
        bands = [_difference(a, b, variable, score, shared, together, settings) for score in scores]
        if all(band is None for band in bands):
            continue
        nothing = np.full(len(shared), np.nan)
        for suffix, of_suffix in {"": "", **TESTED}.items():
            result[f"{name}_difference{suffix}"] = (
                ("score", "noise_to_signal"),
                np.array([nothing if band is None else band.columns()[suffix] for band in bands]),
                {
                    "long_name": f"difference of {name.replace('_', ' ')}, b - a{of_suffix}",
                    "units": str(a[name].attrs.get("units", "1")) if name in a else "1",
                    "comment": "paired: the same samples with the same noise" if together else "independent samples",
                },
            )
    for name, curves in CROSSED.items():
        curve = curves.get(settings[name], "")
        _add_time_intervals(
            result, name, [_replicates(a, b, compared.get(curve), score, settings, together) for score in scores], settings
        )
    return result


def paired(a: xr.Dataset, b: xr.Dataset) -> bool:
    """Return whether two runs started from the same samples with the same noise at the same turn times."""
    same = all(a.attrs[name] == b.attrs[name] for name in ("seed", "data_digest", "start"))
    return same and all(
        a[name].shape == b[name].shape and np.allclose(a[name].values, b[name].values, rtol=1e-9)
        for name in ("sample", "repeat", "noise_to_signal")
    )


def _values(result: xr.Dataset, variable: Variable, score: str) -> Array | None:
    """Return a curve's values per sample, averaged over repeats, (samples, points); None if undefined."""
    name, by = variable.name, variable.compared
    if name not in result.data_vars or not np.isfinite(result[name].sel(score=score)).any():
        return None
    of_score = result.sel(score=score)
    values: xr.DataArray = resolved(by)(of_score) if ":" in by else of_score[by]
    if "repeat" in values.dims:
        values = values.mean("repeat")
    (sample,) = set(values.dims) - {"turn_time"}
    found: Array = values.transpose(sample, "turn_time").values.astype(np.float64)
    return found


def _difference(
    a: xr.Dataset, b: xr.Dataset, variable: Variable, score: str, nu: Array, together: bool, settings: dict[str, float]
) -> analysis.Band | None:
    first, second = (_values(side, variable, score) for side in (a, b))
    if first is None or second is None:
        return None
    resamples, confidence = int(settings["bootstrap"]), settings["confidence"]
    if together and first.shape == second.shape:
        chosen = np.isin(a["noise_to_signal"].values, nu)
        return analysis.ClusterBootstrap(len(first), resamples, confidence).band(
            _beyond_rounding(second - first, first, settings)[:, chosen], studentized=not variable.is_share
        )
    first, second = _at(a, first, nu), _at(b, second, nu)
    resample = [analysis.ClusterBootstrap(len(v), resamples, confidence, seed) for seed, v in enumerate((second, first))]
    return resample[0].difference_band(second, resample[1], first, studentized=not variable.is_share)


def _beyond_rounding(difference: Any, of: Any, settings: Mapping[str, float]) -> Array:
    """Return a difference, with 0 where it is rounding of the states."""
    largest = np.abs(of[np.isfinite(of)]).max(initial=0)
    found: Array = np.where(np.abs(difference) <= ROUNDED * settings["precision"] * largest, 0.0, difference)
    return found


def _at(side: xr.Dataset, values: Array, nu: Array) -> Array:
    known = np.log(side["noise_to_signal"].values)
    return np.array([np.interp(np.log(nu), known, row) for row in values])


def _replicates(
    a: xr.Dataset, b: xr.Dataset, curve: Variable | None, score: str, settings: dict[str, float], together: bool
) -> list[tuple[Array, Array]] | None:
    """Return the noise levels and resampled curves of both sides, with common resamples for paired runs."""
    found = []
    for seed, side in enumerate((a, b)):
        values = None if curve is None else _values(side, curve, score)
        if values is None:
            return None
        resample = analysis.ClusterBootstrap(
            len(values), int(settings["bootstrap"]), settings["confidence"], 0 if together else seed
        )
        found.append((side["noise_to_signal"].values, resample.means(values)))
    return found


def _add_time_intervals(
    result: xr.Dataset, name: str, replicates: list[list[tuple[Array, Array]] | None], settings: dict[str, float]
) -> None:
    """Add the percentile interval of the difference of a time, open (infinite) if a resample does not cross."""
    level = settings.get(f"{name}_level") or settings["level"]
    tail = (1 - settings["confidence"]) / 2
    edges = []
    for sides, known in zip(replicates, result[f"{name}_difference"].values, strict=True):
        if sides is None or not np.isfinite(known):
            edges.append((np.nan, np.nan))
            continue
        crossings = [np.array([falls_through(curve, nu, level=level) for curve in curves]) for nu, curves in sides]
        with np.errstate(invalid="ignore"):  # infinity minus infinity: neither side crosses
            difference = _beyond_rounding(crossings[1] - crossings[0], crossings[0], settings)
        low, high = np.nanquantile(difference, [tail, 1 - tail], method="inverted_cdf")
        edges.append((float(low), float(high)))
    for suffix, column in zip(("_low", "_high"), np.array(edges).T, strict=True):
        result[f"{name}_difference{suffix}"] = (
            "score",
            column,
            {"long_name": f"difference of the {name} times{BAND[suffix].replace('simultaneous band', 'interval')}", "units": "1"},
        )
