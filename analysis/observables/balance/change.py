r"""Susceptibility and correlation length of the change :math:`\delta=\tilde x_0-x_0`.

With :math:`C_{ij}=\sum_c\mathrm{Cov}(\delta_{ci},\delta_{cj})` over starts and noise, for pixels i, j and channels c,

.. math:: \chi = \frac{\sum_{ij}C_{ij}}{\sum_iC_{ii}} \in [0, \text{pixels}],

the number of pixels that change together; the correlation length is the distance at which :math:`C(r)/C(0)` falls through 1/e.
The same for the magnitude :math:`m_i=(\sum_c\delta_{ci}^2)^{1/2}` shows where a picture changes, whatever the sign. Both grow where
classes change: Sclocchi, Favero, Levi & Wyart, J. Stat. Mech. 084005 (2025), arXiv 2410.13770.
"""

from functools import lru_cache

import numpy as np
import scipy.fft
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.stats import norm, rankdata

from gaussian_test.analysis.declarations import declared
from gaussian_test.analysis.observables.balance import CHANGE, ENDS, KINDS
from gaussian_test.analysis.statistics.bootstrap import NEGLIGIBLE, ClusterBootstrap, expanded

Array = NDArray[np.float64]

LEVEL = np.exp(-1)  # of the correlation at the correlation length
FEWEST_CHANGED = 8  # effective number of changed starts below which resamples are unreliable
STILL = 1e-5  # changes below this share of the largest pixel are rounding of float32 states
ROUNDING = 1e-12  # changes that differ by less, relative to the largest, are the same
BLOCK_ELEMENTS = 2**22  # of padded fields transformed at once


def susceptibility(change: ArrayLike, *, magnitude: bool = False) -> Array:
    r"""Return the susceptibility of a change field, as one pseudo-value per start.

    .. math:: \chi=\frac{\mathbb E\sum_c\big(\sum_i(\delta_{ci}-\mathbb E\delta_{ci})\big)^2}
              {\mathbb E\sum_{ci}(\delta_{ci}-\mathbb E\delta_{ci})^2}

    Parameters
    ----------
    change : array
        :math:`\delta`, shape (n, repeats, channels, rows, columns); or (n, repeats, features), a row of pixels.
    magnitude : bool
        Use :math:`m_i` instead: :math:`\mathrm{Var}(\sum_im_i)/\sum_i\mathrm{Var}(m_i)`.

    Returns
    -------
    ndarray
        The estimate plus each start's influence on it, so that their mean is the estimate; shape (n,), dimensionless. NaN where
        nothing changed.

    Raises
    ------
    ValueError
        If the shape is none of these.

    Examples
    --------
    >>> signs = np.array([1.0, -1.0, 1.0, -1.0])
    >>> susceptibility(signs[:, None, None] * np.ones(7)).tolist()  # seven pixels as one
    [7.0, 7.0, 7.0, 7.0]
    """
    above, below = _square_sums(_fields(change, magnitude))
    return _pseudo_values(above, below)


def susceptibility_gaussian(
    eigenvalues: ArrayLike, eigenvectors: ArrayLike, noise_to_signal: ArrayLike, event_shape: tuple[int, ...]
) -> Array:
    r"""Return the susceptibility of the change under the Gaussian score, for exact reversal and the reverse SDE.

    The change of mode k has variance :math:`2\lambda_k(1-W_k)=2\lambda_k\nu^2/(\lambda_k+\nu^2)`, :math:`W_k` being its
    auto-correlation, for any data with these moments; so

    .. math:: \chi_G=\frac{\sum_kg_k\sum_c(\sum_iu_{ci,k})^2}{\sum_kg_k},\qquad g_k=\frac{\lambda_k}{\lambda_k+\nu^2}.

    Parameters
    ----------
    eigenvalues : array
        Shape (modes,); directions that are not listed do not change.
    eigenvectors : array
        Orthonormal columns, shape (features, modes).
    noise_to_signal : array
        :math:`\nu` at the turn, any shape.
    event_shape : tuple of int
        (channels, rows, columns), or another shape: a row of pixels.

    Returns
    -------
    ndarray
        Shape of ``noise_to_signal``; its limit at 0.

    Raises
    ------
    ValueError
        If the event does not have as many features as the eigenvectors.

    Examples
    --------
    >>> uniform = np.full((4, 1), 0.5)
    >>> susceptibility_gaussian([3.0], uniform, [0.0, 1.0], (1, 2, 2)).tolist()
    [4.0, 4.0]
    """
    values, vectors = np.asarray(eigenvalues, dtype=np.float64), np.asarray(eigenvectors, dtype=np.float64)
    if int(np.prod(event_shape)) != len(vectors):
        raise ValueError(f"an event of shape {event_shape} does not have {len(vectors)} features: correct the shape")
    channels = event_shape[0] if len(event_shape) == 3 else 1
    together = (vectors.reshape(channels, -1, len(values)).sum(1) ** 2).sum(0)
    kept = values > 0
    gain = values[kept] / (values[kept] + np.asarray(noise_to_signal, dtype=np.float64)[..., None] ** 2)
    result: Array = gain @ together[kept] / gain.sum(-1)
    return result


def radial_correlation(change: ArrayLike, *, magnitude: bool = False) -> tuple[Array, Array]:
    r"""Return the correlation :math:`C(r)/C(0)` of a change field over the distance between pixels.

    Pairs of pixels are binned by their distance, rounded to an integer, and counted once; the picture is not periodic.

    Parameters
    ----------
    change : array
        :math:`\delta`, shape (n, repeats, channels, rows, columns).
    magnitude : bool
        Use the magnitude over channels.

    Returns
    -------
    tuple of ndarray
        Mean distance of the pairs in each bin, in pixels, shape (bins,), and one pseudo-value per start, whose mean is the
        correlation, shape (n, bins). NaN where nothing changed.

    Raises
    ------
    ValueError
        If the change has no rows and columns.

    Examples
    --------
    >>> signs = np.array([1.0, -1.0, 1.0, -1.0])
    >>> distance, correlation = radial_correlation(signs.reshape(4, 1, 1, 1, 1) * np.ones((1, 1, 1, 2)))
    >>> distance.tolist(), correlation.mean(0).round(12).tolist()  # both pixels as one
    ([0.0, 1.0], [1.0, 1.0])
    """
    shape = np.shape(change)
    if len(shape) != 5:
        raise ValueError(f"a change of shape {shape} has no distances: give (n, repeats, channels, rows, columns)")
    sums = _radial_sums(_fields(change, magnitude))
    return _distances(shape[-2], shape[-1])[0], _pseudo_values(sums, sums[:, :1])


def correlation_length(distance: ArrayLike, correlation: ArrayLike) -> Array:
    r"""Return the distance at which correlations first fall below 1/e, interpolated linearly.

    Parameters
    ----------
    distance : array
        Ascending from 0, shape (bins,).
    correlation : array
        :math:`C(r)/C(0)`, 1 at distance 0, shape (..., bins).

    Returns
    -------
    ndarray
        In the unit of the distance, shape (...); infinite where a correlation never falls below 1/e.

    Examples
    --------
    >>> r = np.arange(40.0)
    >>> correlation_length(r, [np.exp(-r / 5), np.ones(40)]).round(12).tolist()
    [5.0, inf]
    """
    r, curves = np.asarray(distance, dtype=np.float64), np.asarray(correlation, dtype=np.float64)
    below = curves < LEVEL
    after = below.argmax(-1).clip(min=1)
    upper, lower = (np.take_along_axis(curves, place[..., None], -1)[..., 0] for place in (after - 1, after))
    falls = below.any(-1)
    share = np.divide(upper - LEVEL, upper - lower, out=np.full_like(upper, np.inf), where=falls)
    result: Array = r[after - 1] + share * (r[after] - r[after - 1])
    return result


def change_field(start: xr.DataArray, end: xr.DataArray, resample: ClusterBootstrap) -> xr.Dataset:
    """Return susceptibility and correlation length of the change field over turn times.

    Parameters
    ----------
    start : DataArray
        Starts, dimensions (sample, ``*event``); an event of another kind than (channel, row, column) is a row of pixels.
    end : DataArray
        End points, dimensions (score, turn_time, sample, repeat, ``*event``), with or without score.
    resample : ClusterBootstrap
        Of the starts.

    Returns
    -------
    Dataset
        ``change_susceptibility`` with simultaneous bands, ``change_correlation_length`` with an interval at each turn time, both
        with ``_se``, ``_low`` and ``_high``, and ``change_correlation`` over distance; each also of the magnitude, as
        ``change_susceptibility_magnitude_low``. NaN with an attribute ``reason`` where nothing changed, and where correlations do
        not fall below 1/e; the bands alone are NaN where too few starts changed to be resampled.

    References
    ----------
    Sclocchi, Favero, Levi & Wyart, J. Stat. Mech. 084005 (2025). Hesterberg, Am. Stat. 69, 371 (2015), for the interval.

    Examples
    --------
    >>> from gaussian_test.analysis import reasons_of
    >>> random = np.random.default_rng(0)
    >>> start = xr.DataArray(random.normal(size=(50, 1, 4, 4)), dims=("sample", "channel", "row", "column"))
    >>> end = (start + random.normal(size=(50, 1, 1, 1))).expand_dims(turn_time=[1.0], repeat=1)
    >>> result = change_field(start, end, ClusterBootstrap(50, 200))
    >>> result.change_susceptibility.values.round(6).tolist(), reasons_of(result.change_correlation_length)
    ([16.0], {'': 'the correlation does not fall below 1/e at 1 turn time'})
    """
    lead = [name for name in ("score", "turn_time") if name in end.dims]
    event = [name for name in start.dims if name != "sample"]
    ends = end.transpose(*lead, "sample", "repeat", *event)
    x = start.transpose("sample", *event).values.astype(np.float64)
    scores = [str(name) for name in ends["score"].values] if "score" in lead else [""]
    picture = len(event) == 3
    distance = _distances(*x.shape[-2:])[0] if picture else np.empty(0)
    coords = {name: ends.coords[name] for name in lead if name in ends.coords}
    values: dict[str, xr.DataArray] = {}
    reasons: dict[str, dict[str, str]] = {}
    for kind in KINDS:
        rows = ends.shape[: len(lead)]
        above, below = np.full((2, *rows, len(x)), np.nan)
        correlation = np.full((*rows, len(distance)), np.nan)
        length = np.full((4, *rows), np.nan)
        for row in np.ndindex(rows):
            change = ends[row].values - x[:, None]
            if not np.isfinite(change).all():
                continue
            change[np.abs(change).max(tuple(range(2, change.ndim))) <= STILL * np.abs(x).max()] = 0
            fields = _fields(change if picture else change.reshape(*change.shape[:2], -1), bool(kind))
            above[row], below[row] = _square_sums(fields)
            if picture and below[row].sum() > 0:
                sums = _radial_sums(fields)
                correlation[row] = sums.mean(0) / sums[:, 0].mean()
                length[(slice(None), *row)] = _length(distance, sums, resample)
        by_score = [values.reshape(len(scores), -1, len(x)) for values in (above, below)]
        bands = np.stack([_bands(a.T, b.T, resample) for a, b in zip(*by_score, strict=True)], 1).reshape(4, *rows)
        why = _reasons(by_score[1], length[0].reshape(len(scores), -1), scores, picture)
        for name, columns in (("change_susceptibility", bands), ("change_correlation_length", length)):
            values |= {
                name + kind + suffix: xr.DataArray(column, dims=lead) for suffix, column in zip(("", *ENDS), columns, strict=True)
            }
            reasons[name + kind] = why[name]
        if picture:
            values[f"change_correlation{kind}"] = xr.DataArray(correlation, dims=(*lead, "distance"))
    return declared(CHANGE, values, coords | ({"distance": distance} if picture else {}), reasons)


def _fields(change: ArrayLike, magnitude: bool) -> Array:
    """Return the fields less their mean over starts and repeats, shape (n, repeats, channels, rows, columns)."""
    delta = np.asarray(change, dtype=np.float64)
    if delta.ndim not in (3, 5):
        wanted = "(n, repeats, channels, rows, columns) or (n, repeats, features)"
        raise ValueError(f"a change of shape {delta.shape} is no field: give {wanted}")
    if delta.ndim == 3:
        delta = delta[:, :, None, None, :]
    fields = np.linalg.norm(delta, axis=2, keepdims=True) if magnitude else delta
    centered: Array = fields - fields.mean((0, 1))
    centered[np.abs(centered) < ROUNDING * np.abs(fields).max()] = 0  # a constant field has no variance
    return centered


def _square_sums(fields: Array) -> tuple[Array, Array]:
    """Return each start's square of the sum and sum of squares over pixels, summed over channels, averaged over repeats."""
    return (fields.sum((3, 4)) ** 2).sum(2).mean(1), (fields**2).sum((2, 3, 4)).mean(1)


def _pseudo_values(above: Array, below: Array) -> Array:
    """Return the ratio of means plus each start's influence on it; NaN where the denominator is zero."""
    mean = below.mean(0)
    mean = np.where(mean > 0, mean, np.nan)
    ratio = above.mean(0) / mean
    values: Array = ratio + (above - ratio * below) / mean
    return values


@lru_cache(maxsize=8)
def _distances(rows: int, columns: int) -> tuple[Array, csr_array]:
    """Return the mean distance in each bin, and the matrix that averages padded auto-correlations over pairs of pixels."""
    offsets = [_offsets(size) for size in (rows, columns)]
    distance = np.hypot(offsets[0][:, None], offsets[1]).ravel()
    pairs = np.multiply.outer(*((size - np.abs(k)).clip(min=0) for size, k in zip((rows, columns), offsets, strict=True))).ravel()
    place = np.flatnonzero(pairs)  # no pairs at offsets beyond the picture
    bins = np.rint(distance[place]).astype(np.int64)
    count = np.bincount(bins, pairs[place])
    matrix = csr_array((1 / count[bins], (place, bins)), shape=(len(distance), len(count)))
    return np.bincount(bins, pairs[place] * distance[place]) / count, matrix


def _offsets(size: int) -> NDArray[np.int64]:
    """Return the offset at each index of a padded auto-correlation."""
    padded = scipy.fft.next_fast_len(2 * size - 1, real=True)
    return np.rint(scipy.fft.fftfreq(padded, 1 / padded)).astype(np.int64)


def _radial_sums(fields: Array) -> Array:
    """Return each start's products of pixels, averaged over pairs at a distance and over repeats, shape (n, bins)."""
    matrix = _distances(*fields.shape[3:])[1]
    shape = [len(_offsets(size)) for size in fields.shape[3:]]
    step = max(1, BLOCK_ELEMENTS // (int(np.prod(fields.shape[1:3])) * shape[0] * shape[1]))
    sums = []
    for first in range(0, len(fields), step):
        spectrum = scipy.fft.rfft2(fields[first : first + step], shape)
        power = (spectrum.real**2 + spectrum.imag**2).sum(2).mean(1)
        sums.append(scipy.fft.irfft2(power, shape).reshape(len(power), -1) @ matrix)
    return np.concatenate(sums)


def _effective(below: Array) -> Array:
    """Return the effective number of changed starts (Kish), along the last axis."""
    squares = (below**2).sum(-1)
    count: Array = np.divide(below.sum(-1) ** 2, squares, out=np.zeros_like(squares), where=squares > 0)
    return count


def _bands(above: Array, below: Array, resample: ClusterBootstrap) -> Array:
    """Return ratios of means with standard error and simultaneous band, for values (clusters, points): shape (4, points).

    Ratio and standard error are recomputed in each resample (bootstrap-t), which works even if few starts changed. The band is
    balanced: its coverage is the same at each point, so points with few changes do not widen the others.
    """
    result = np.full((4, above.shape[1]), np.nan)
    values = _pseudo_values(above, below)
    ratio = result[0] = values.mean(0)
    few = ~(_effective(below.T) >= FEWEST_CHANGED)
    if few.all():
        return result
    a, b, ratio, freedom = above[:, ~few], below[:, ~few], ratio[~few], len(above) - 1
    error = values[:, ~few].std(0) / np.sqrt(freedom)
    resampled = resample.means(np.concatenate([a, b, a**2, a * b, b**2], axis=1)).reshape(resample.resamples, 5, -1)
    mean_a, mean_b, aa, ab, bb = resampled.transpose(1, 0, 2)
    with np.errstate(divide="ignore", invalid="ignore"):  # resamples without changes, or with equal ones
        moved = mean_a / mean_b
        spread = np.sqrt((aa - 2 * moved * ab + moved**2 * bb).clip(min=0) / freedom) / mean_b
        t = np.abs(moved - ratio) / spread
    t = np.where(np.isnan(t), np.where(error > 0, np.inf, 0.0), t)
    t = np.where(error < NEGLIGIBLE * ratio, 0.0, t)
    ranks = rankdata(t, method="max", axis=0) / len(t)
    level = np.quantile(ranks.max(1), resample.confidence, method="higher")
    width = np.quantile(t, level, axis=0, method="inverted_cdf") * error
    result[1:, ~few] = error, (ratio - width).clip(min=0), ratio + width
    return result


def _length(distance: Array, sums: Array, resample: ClusterBootstrap) -> Array:
    """Return the correlation length, its standard error and its interval.

    The interval consists of percentiles of the resamples, expanded for few changed starts (Hesterberg). The standard error is half
    the width of the central 68 %, which is robust to some infinite lengths.
    """
    mean = sums.mean(0)
    estimate = float(correlation_length(distance, mean / mean[0]))
    changed = float(_effective(sums[:, 0]))
    if not np.isfinite(estimate) or changed < FEWEST_CHANGED:
        return np.array([estimate if np.isfinite(estimate) else np.nan, np.nan, np.nan, np.nan])
    moved = resample.means(sums)
    curves = np.divide(moved, moved[:, :1], out=np.ones_like(moved), where=moved[:, :1] > 0)
    lengths = correlation_length(distance, curves)
    tail = (1 - expanded(resample.confidence, changed)) / 2
    probabilities = [tail, 1 - tail, norm.cdf(-1), norm.cdf(1)]
    low, high, below, above = np.quantile(lengths, probabilities, method="inverted_cdf")
    return np.array([estimate, (above - below) / 2 if np.isfinite(above) else np.nan, low, high])


def _reasons(below: Array, length: Array, scores: list[str], picture: bool) -> dict[str, dict[str, str]]:
    """Return, as attributes of each variable, why it is undefined at some turn times of some scores."""
    total = below.sum(-1)
    infinite, nothing = ~np.isfinite(total), total == 0
    few = ~infinite & ~nothing & (_effective(below) < FEWEST_CHANGED)
    common = {
        "end points are not finite": infinite,
        "nothing changed, or all alike,": nothing,
        f"fewer than {FEWEST_CHANGED} starts' worth of change for a band": few,
    }
    endless = {"the correlation does not fall below 1/e": ~infinite & ~nothing & np.isnan(length)}
    return {
        "change_susceptibility": _by_score(common, scores),
        "change_correlation_length": _by_score(common | endless, scores)
        if picture
        else {"": "features without rows and columns have no distance"},
    }


def _by_score(places: dict[str, NDArray[np.bool_]], scores: list[str]) -> dict[str, str]:
    found = {}
    for row, score in enumerate(scores):
        counts = {text: int(where[row].sum()) for text, where in places.items()}
        found[score] = "; ".join(
            f"{text} at {count} turn time{'s' if count > 1 else ''}" for text, count in counts.items() if count
        )
    return {score: said for score, said in found.items() if said}
