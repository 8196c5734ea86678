r"""Curves with bands, and their crossing times.

Pseudo-values are one value per sample: their mean is the curve, their spread its error. For a functional F of the samples they are
F plus the influence of each sample. So one bootstrap gives all bands, and two runs are compared sample by sample.

The three times of a U-Turn (memorization, speciation and the time from which the score is affine) are found in
:math:`\log\nu`, the logarithm of the noise-to-signal ratio, in which curves are smooth. An undefined time is NaN, with a reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq, isotonic_regression

from gaussian_test.analysis.declarations import BAND, TESTED
from gaussian_test.analysis.statistics.bootstrap import ClusterBootstrap

Array = NDArray[np.float64]


def with_bands(
    values: xr.DataArray,
    resample: ClusterBootstrap,
    *,
    suffixes: Sequence[str] = ("", *BAND),
    bounded: Literal["", "positive", "below one"] = "",
) -> xr.Dataset:
    """Return curves with standard errors and simultaneous bands from pseudo-values.

    Parameters
    ----------
    values : DataArray
        Pseudo-values with a name, over (sample, turn_time) and any others; each curve has its own band.
    resample : ClusterBootstrap
        Of the samples.
    suffixes : sequence of {"", "_se", "_low", "_high", "_pvalue"}
        Columns to return of each band.
    bounded : {"", "positive", "below one"}
        Bound of the curve, whose values are then skewed towards the other side: the band is symmetric in the logarithm of the
        distance from the bound.

    Returns
    -------
    Dataset
        The name with each suffix, over the dimensions of ``values`` without sample; attributes as those of ``values``.

    Raises
    ------
    ValueError
        If the number of samples is not that of the bootstrap.

    Examples
    --------
    >>> values = xr.DataArray(np.eye(4)[:, :2], dims=("sample", "turn_time"), name="share", attrs={"long_name": "share"})
    >>> result = with_bands(values, ClusterBootstrap(4, 100))
    >>> result.share.values.tolist(), result.share_se.attrs["long_name"]
    ([0.25, 0.25], 'share, standard error')
    """
    if values.sizes["sample"] != resample.clusters:
        raise ValueError(
            f"{values.sizes['sample']} samples do not fit a bootstrap of {resample.clusters}: make it with the number of samples"
        )
    ordered = values.transpose(..., "sample", "turn_time")
    curves = ordered.values.reshape(-1, *ordered.shape[-2:])
    columns: dict[str, list[Array]] = {suffix: [] for suffix in suffixes}
    for curve in curves:
        if bounded == "below one":
            missing = resample.positive_band(1 - curve)
            band = replace(missing, estimate=1 - missing.estimate, low=1 - missing.high, high=1 - missing.low)
        else:
            band = resample.positive_band(curve) if bounded else resample.band(curve)
        found = band.columns()
        for suffix in suffixes:
            columns[suffix].append(found[suffix])
    like = ordered.isel(sample=0, drop=True)
    return xr.Dataset(
        {
            f"{values.name}{suffix}": like.copy(data=np.reshape(column, like.shape)).assign_attrs(
                {"long_name": f"{values.attrs['long_name']}{TESTED.get(suffix, '')}"} if "long_name" in values.attrs else {}
            )
            for suffix, column in columns.items()
        }
    )


def ratio_of_means(numerator: ArrayLike, denominator: ArrayLike) -> Array:
    r"""Return pseudo-values of a ratio of means: :math:`y_i = R + (a_i - R\,b_i)/\bar b`, where :math:`R = \bar a/\bar b`.

    Parameters
    ----------
    numerator, denominator : array
        Of the same samples, shapes (..., samples, points), broadcast against each other.

    Returns
    -------
    ndarray
        Shape (..., samples, points): mean R, and the spread that the ratio has to leading order. NaN where
        :math:`\bar b = 0`.

    Examples
    --------
    >>> ratio_of_means([[1.0], [3.0]], [[2.0], [2.0]]).tolist()
    [[0.5], [1.5]]
    """
    a, b = np.broadcast_arrays(np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64))
    below = b.mean(-2, keepdims=True)
    below = np.where(below == 0, np.nan, below)
    ratio = a.mean(-2, keepdims=True) / below
    result: Array = ratio + (a - ratio * b) / below
    return result


STEEP = 0.3  # a share that falls by more between two turn times has no precise time
STEEP_RATIO = 8.0  # likewise a gap that falls by a larger factor


@dataclass(frozen=True)
class Crossing:
    r"""A noise-to-signal ratio at which a curve crosses its level, with a confidence interval.

    Attributes
    ----------
    estimate, low, high : float
        :math:`\nu`; NaN where undefined. An interval can be open: ``high`` is infinite where the curve may not cross on the
        grid at all, ``low`` is 0 where it may have crossed before it.
    reason : str
        Why the time is undefined or its interval open; empty otherwise.
    """

    estimate: float
    low: float
    high: float
    reason: str = ""


def falls_through(curve: ArrayLike, noise_to_signal: ArrayLike, *, level: float) -> float:
    r"""Return the :math:`\nu` at which a decreasing curve falls through a level.

    The curve is made decreasing by isotonic regression (the true shares are) and interpolated linearly in :math:`\log\nu`.

    Parameters
    ----------
    curve : array
        Shape (points,).
    noise_to_signal : array
        Ascending, positive, shape (points,).
    level : float
        The level.

    Returns
    -------
    float
        :math:`\nu`; 0 where the curve starts below the level, infinity where it ends above it.

    Examples
    --------
    >>> round(falls_through([1.0, 0.75, 0.25], [0.1, 1.0, 10.0], level=0.5), 4)
    3.1623
    """
    return _fall(noise_levels(noise_to_signal), np.asarray(curve, dtype=np.float64), level)[0]


def noise_levels(noise_to_signal: ArrayLike) -> Array:
    """Return noise levels as an array.

    Raises ValueError unless they are positive and increasing along one axis.
    """
    nu = np.asarray(noise_to_signal, dtype=np.float64)
    if nu.ndim != 1 or not (nu > 0).all() or not (np.diff(nu) > 0).all():
        raise ValueError(
            "noise_to_signal is not positive and increasing along one axis: give the data first, then the noise levels"
        )
    return nu


def _fall(nu: Array, curve: Array, level: float) -> tuple[float, int, float]:
    """Return where a curve falls through a level, the point after it, and by how much it falls between the two points."""
    y = isotonic_regression(curve, increasing=False).x
    if y[0] < level:
        return 0.0, 0, 0.0
    if y[-1] >= level:
        return np.inf, len(y), 0.0
    after = int(np.argmax(y < level))
    fall = y[after - 1] - y[after]
    return _between(nu, after - 1, (y[after - 1] - level) / fall), after, float(fall)


def _between(nu: Array, before: int, share: float) -> float:
    """Return the point a share of the way in log(nu) from one noise level to the next."""
    logs = np.log(nu[before : before + 2])
    return float(np.exp(logs[0] + share * (logs[1] - logs[0])))


def share_time(curve: ArrayLike, replicates: ArrayLike, noise_to_signal: ArrayLike, *, level: float, confidence: float) -> Crossing:
    r"""Return where a share falls through a level, with the percentile interval of its resamples.

    If the curve falls by more than :data:`STEEP` between two turn times, the interval spans both, and the reason says so.

    Parameters
    ----------
    curve : array
        Estimated share, shape (points,).
    replicates : array
        Resampled shares, shape (resamples, points).
    noise_to_signal : array
        Ascending, shape (points,).
    level, confidence : float
        Level to fall through; confidence of the interval.

    Returns
    -------
    Crossing

    Examples
    --------
    >>> share_time([0.6, 0.5, 0.4], [[0.6, 0.5, 0.4]], [1.0, 2.0, 4.0], level=0.5, confidence=0.95).estimate
    2.0
    """
    nu = noise_levels(noise_to_signal)
    estimate, after, fall = _fall(nu, np.asarray(curve, dtype=np.float64), level)
    if estimate == 0.0:
        return Crossing(np.nan, np.nan, np.nan, f"the curve is below {level:g} already at the smallest turn time: add smaller ones")
    if np.isinf(estimate):
        return Crossing(np.nan, np.nan, np.nan, f"the curve stays above {level:g} up to the largest turn time: add larger")
    resampled = np.array([_fall(nu, curve, level)[0] for curve in np.asarray(replicates, dtype=np.float64)])
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail], method="inverted_cdf")
    reason = "" if low > 0 and np.isfinite(high) else "the interval reaches beyond the turn times: add more of them"
    if fall > STEEP:
        low, high, reason = min(low, nu[after - 1]), max(high, nu[after]), _coarse(nu, after)
    return Crossing(estimate, float(low), float(high), reason)


def _coarse(nu: Array, after: int) -> str:
    between = f"between {nu[after - 1]:.3g} and {nu[after]:.3g}"
    said = f"the curve falls too fast {between} to locate the crossing, and the interval spans both"
    return f"{said}: add turn times there, or refine them"


def affine_time(
    gap: ArrayLike, low: ArrayLike, high: ArrayLike, noise_to_signal: ArrayLike, *, tolerance: float, standard_error: ArrayLike
) -> Crossing:
    r"""Return the noise-to-signal ratio above which the gap to the Gaussian stays within a tolerance.

    ``estimate`` is the last crossing of :math:`|\Delta| = ` tolerance by the estimated gap. ``high`` is the last crossing by
    the outer edge of the simultaneous band: beyond it :math:`|\Delta|` stays below the tolerance with the band's confidence.
    ``low`` is the last crossing by the inner edge: up to it :math:`|\Delta|` surely exceeds the tolerance.

    Parameters
    ----------
    gap, low, high : array
        The gap and its simultaneous band, shape (points,).
    noise_to_signal : array
        Ascending, shape (points,).
    tolerance : float
        Positive.
    standard_error : array
        Standard error of the gap, shape (points,): zero everywhere for a score that is affine by construction.

    Returns
    -------
    Crossing

    Examples
    --------
    >>> gap = np.array([0.04, 0.01])
    >>> crossing = affine_time(gap, gap - 0.001, gap + 0.001, [1.0, 4.0], tolerance=0.02, standard_error=[1e-4, 1e-4])
    >>> bool(1 < crossing.low < crossing.estimate < crossing.high < 4)
    True
    """
    nu = noise_levels(noise_to_signal)
    delta, bottom, top = (np.asarray(value, dtype=np.float64) for value in (gap, low, high))
    outer = np.maximum(np.abs(bottom), np.abs(top))
    inner = np.where((bottom <= 0) & (top >= 0), 0.0, np.minimum(np.abs(bottom), np.abs(top)))
    if not np.asarray(standard_error).any() and np.abs(delta).max() < tolerance:
        return Crossing(np.nan, np.nan, np.nan, "the score is affine at every turn time")
    if not outer[-1] < tolerance:
        advice = "add larger turn times, more samples or repeats"
        reason = f"the gap is not within {tolerance:g} with confidence at the largest turn time: {advice}"
        return Crossing(np.nan, np.nan, np.nan, reason)
    estimate, surely_above, surely_below = (_last_crossing(nu, np.abs(value), tolerance) for value in (delta, inner, outer))
    if estimate == 0.0:
        return Crossing(np.nan, np.nan, np.nan, f"the gap is within {tolerance:g} at every turn time: the score is affine there")
    reason = "" if surely_above > 0 else "the interval reaches below the turn times: add samples or smaller turn times"
    after = int(np.searchsorted(nu, estimate))
    if np.abs(delta[after - 1]) > STEEP_RATIO * np.abs(delta[after]):
        surely_above, surely_below = min(surely_above, nu[after - 1]), max(surely_below, nu[after])
        reason = _coarse(nu, after)
    return Crossing(estimate, float(surely_above), float(surely_below), reason)


def _last_crossing(nu: Array, values: Array, level: float) -> float:
    """Return where values last fall through a level (0 if they are never above it; the last value is below).

    Interpolate as a power law, the law of a gap at large noise; linearly where it reaches zero.
    """
    above = np.flatnonzero(values >= level)
    if not len(above):
        return 0.0
    last = above[-1]
    before, after = values[last], values[last + 1]
    share = np.log(before / level) / np.log(before / after) if after > 0 else (before - level) / before
    return _between(nu, last, float(share))


def predicted_memorization(eigenvalues: ArrayLike, count: float) -> float:
    r"""Return the :math:`\nu` at which the Gaussian's information about the sample falls to :math:`\log N`.

    .. math:: \tfrac12\sum_i\log(1 + \lambda_i/\nu^2) = \log N

    Parameters
    ----------
    eigenvalues : array
        Of the ground-truth covariance, shape (modes,).
    count : float
        Number of ground-truth samples N, without copies, more than 1.

    Returns
    -------
    float

    Examples
    --------
    >>> round(predicted_memorization([3.0, 3.0], 4), 12)
    1.0
    """
    values = np.asarray(eigenvalues, dtype=np.float64)
    values = values[values > 0]

    def excess(log_nu: float) -> float:
        return float(np.log1p(values / np.exp(2 * log_nu)).sum() / 2 - np.log(count))

    # Information is at least that of the largest mode alone and at most the trace over twice the variance.
    low = np.log(values.max() / count**2) / 2 - 1
    high = np.log(values.sum() / np.log(count)) / 2 + 1
    return float(np.exp(brentq(excess, low, high, xtol=1e-13)))


def predicted_speciation(eigenvalues: ArrayLike) -> float:
    r"""Return :math:`\nu_s = \sqrt{\lambda_1}`, where the noise exceeds the leading mode (all channels, in the data's scale).

    Parameters
    ----------
    eigenvalues : array
        Of the ground-truth covariance, shape (modes,).

    Returns
    -------
    float

    References
    ----------
    Biroli, Bonnaire, de Bortoli & Mézard, Nat. Commun. 15, 9957 (2024), at leading order.

    Examples
    --------
    >>> predicted_speciation([4.0, 1.0])
    2.0
    """
    return float(np.sqrt(np.max(np.asarray(eigenvalues, dtype=np.float64))))


def predicted_affine(third_cumulant_norm: float, trace: float, *, tolerance: float) -> float:
    r"""Return the :math:`\nu` where the gap's leading term :math:`\|\kappa_3\|^2/(2\nu^4\mathrm{tr}\Sigma)` is the tolerance.

    Parameters
    ----------
    third_cumulant_norm : float
        :math:`\|\kappa_3\|^2` of the data.
    trace : float
        :math:`\mathrm{tr}\,\Sigma`.
    tolerance : float
        Tolerance on :math:`|\Delta|`.

    Returns
    -------
    float
        The leading order only: not yet exact where :math:`\nu^2` is comparable to the leading eigenvalue; 0 for symmetric
        data, whose third cumulant vanishes.

    Examples
    --------
    >>> predicted_affine(2.0, 1.0, tolerance=1.0)
    1.0
    """
    return float((third_cumulant_norm / (2 * trace * tolerance)) ** 0.25)
