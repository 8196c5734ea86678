"""Two archives side by side: times and auto-correlations of the scores that both have."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gaussian_test.errors import UserError
from gaussian_test.table import TIMES

Array = NDArray[np.float64]


def compare(a: xr.Dataset, b: xr.Dataset) -> xr.Dataset:
    r"""Compare two results.

    Runs that share samples, noise and turn times are compared sample by sample, with paired standard errors. Else curves are
    interpolated linearly in :math:`\log\nu` to the turn times of ``a`` that ``b`` covers too, and standard errors are added in
    quadrature, as for independent runs.

    Parameters
    ----------
    a, b : Dataset
        Root groups of two archives.

    Returns
    -------
    Dataset
        ``memorization``, ``speciation``, ``affine`` (and ``_low``, ``_high``) over (archive, score), as noise-to-signal ratios,
        and ``autocorrelation_difference`` (``_se``), b minus a, over (score, noise_to_signal).

    Raises
    ------
    UserError
        If they have no score or no noise level in common.

    Examples
    --------
    >>> from gaussian_test.runner import run
    >>> small = run({"samples": 8, "turn_times": {"noise_to_signal": [0.1, 1.0, 5.0]}, "keep": {"pictures": 0}})
    >>> float(abs(compare(small, small).autocorrelation_difference).max())
    0.0
    """
    scores = [str(score) for score in a["score"].values if score in b["score"].values]
    if not scores:
        raise UserError(
            f"the archives have no score in common ({', '.join(a['score'].values)} and {', '.join(b['score'].values)}): "
            "give the scores to compare the same name"
        )
    nu, other = a["noise_to_signal"].values, b["noise_to_signal"].values
    shared = nu[(nu >= other[0] * (1 - 1e-9)) & (nu <= other[-1] * (1 + 1e-9))]
    if not len(shared):
        raise UserError(
            f"the archives share no noise level ({nu[0]:.3g} to {nu[-1]:.3g} and {other[0]:.3g} to {other[-1]:.3g}): "
            "run them on turn times that overlap"
        )
    result = xr.Dataset(coords={"score": scores, "archive": ["a", "b"], "noise_to_signal": shared})
    for name in TIMES:
        for suffix in ("", "_low", "_high"):
            values = [side[f"{name}_noise_to_signal{suffix}"].sel(score=scores).values for side in (a, b)]
            attributes = a[f"{name}_noise_to_signal{suffix}"].attrs
            result[name + suffix] = (("archive", "score"), np.array(values), {k: attributes[k] for k in ("long_name", "units")})
    if paired(a, b):
        difference, error = _paired_difference(a, b, scores)
        comment = "paired: the same samples with the same noise"
    else:
        difference, error = _independent_difference(a, b, scores, shared)
        comment = "standard errors added in quadrature, as for independent runs"
    dims = ("score", "noise_to_signal")
    result["autocorrelation_difference"] = (
        dims,
        difference,
        {"long_name": "difference of the U-Turn auto-correlations, b - a", "units": "1", "comment": comment},
    )
    result["autocorrelation_difference_se"] = (
        dims,
        error,
        {"long_name": "standard error of the difference", "units": "1", "comment": comment},
    )
    return result


def paired(a: xr.Dataset, b: xr.Dataset) -> bool:
    """Return whether two runs started from the same samples with the same noise at the same turn times.

    Examples
    --------
    >>> from gaussian_test.runner import run
    >>> small = run({"samples": 8, "turn_times": {"noise_to_signal": [0.1, 1.0, 5.0]}, "keep": {"pictures": 0}})
    >>> paired(small, small)
    True
    """
    same = all(a.attrs[name] == b.attrs[name] for name in ("seed", "data_digest", "start"))
    return same and all(
        a[name].shape == b[name].shape and np.allclose(a[name].values, b[name].values, rtol=1e-9)
        for name in ("sample", "repeat", "noise_to_signal")
    )


def _paired_difference(a: xr.Dataset, b: xr.Dataset, scores: list[str]) -> tuple[Array, Array]:
    name, dims = "sample_autocorrelation", ("sample", "score", "turn_time")
    sides = [side[name].sel(score=scores).mean("repeat").transpose(*dims).values for side in (a, b)]
    difference = sides[1] - sides[0]
    return difference.mean(0), difference.std(0, ddof=1) / np.sqrt(len(difference))


def _independent_difference(a: xr.Dataset, b: xr.Dataset, scores: list[str], nu: Array) -> tuple[Array, Array]:
    curves = [np.array([_at(side, "autocorrelation", score, nu) for score in scores]) for side in (a, b)]
    errors = [np.array([_at(side, "autocorrelation_se", score, nu) for score in scores]) for side in (a, b)]
    return curves[1] - curves[0], np.hypot(*errors)


def _at(side: xr.Dataset, name: str, score: str, nu: Array) -> Array:
    values: Array = np.interp(np.log(nu), np.log(side["noise_to_signal"].values), side[name].sel(score=score).values)
    return values
