r"""Kolmogorov-Smirnov test of normality with fitted moments (Lilliefors).

With :math:`z_{(1)}\le\dots\le z_{(n)}` the samples of a feature, centred and scaled by their own mean and standard deviation,

.. math:: D = \sup_z|F_n(z)-\Phi(z)| = \max_i\left|\Phi(z_{(i)})-\frac{i-1/2}{n}\right| + \frac1{2n}.

As mean and scale come from the same samples, D is much smaller than under Kolmogorov's law. Its quantiles (Lilliefors') are
simulated at the actual number of samples. Features are correlated: the chance variation of a *share* of features, or of their mean
distance, is simulated on Gaussian samples with exactly the observed mean and covariance (a rotation test).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control

from gaussian_test.analysis.moments.moments import evenly_spaced
from gaussian_test.analysis.moments.running import real

Array = NDArray[np.float64]

States = NDArray[np.float32] | NDArray[np.float64]
BLOCK_ELEMENTS = 2**18  # states standardised at once: a few MB, to fit in cache
KEPT_ELEMENTS = 2**24  # of the rotations of all replicates, to keep them: 64 MB
READ_ELEMENTS = 2**24  # states read at once from a lazy array: 64 MB in single precision
FEWEST = 4  # samples: with 3, centred and scaled features form a one-parameter family
MOST_FEATURES = 256  # tested in each Gaussian replicate
RANGE = (0.025, 0.975)  # of a statistic over the replicates


def ks_distance(x: ArrayLike, *, ddof: int = 1) -> Array:
    r"""Return the Kolmogorov-Smirnov distance of each feature, centred and scaled, from the standard normal.

    .. math:: D = \max_i\left|\Phi(z_{(i)})-\tfrac{i-1/2}{n}\right| + \tfrac1{2n},\qquad z = (x-\bar x)/s

    Parameters
    ----------
    x : array
        Samples, shape (..., samples, features), in any unit; single precision is kept for sorting and :math:`\Phi`. A lazy array
        (xarray, dask) is read some columns at a time.
    ddof : int
        The squared standard deviation :math:`s^2` is divided by n - ``ddof``.

    Returns
    -------
    ndarray
        Shape (..., features), dimensionless; NaN where a feature does not vary.

    Raises
    ------
    ValueError
        If there are fewer than 4 samples, or some are not finite.

    References
    ----------
    Lilliefors, J. Am. Stat. Assoc. 62, 399 (1967).

    Examples
    --------
    >>> ks_distance(np.repeat([[-1.0, 7.0], [1.0, 7.0]], 50, axis=0), ddof=0).round(4).tolist()  # 1/2 - Phi(-1)
    [0.3413, nan]
    """
    values = _columnwise(x)
    if len(values.shape) < 2:
        raise ValueError(f"states of shape {values.shape} have no features: give (..., samples, features)")
    count, features = values.shape[-2:]
    _check_count(count)
    dtype = np.dtype(np.float32 if np.result_type(values.dtype, np.float32) == np.float32 else np.float64)
    step = max(1, BLOCK_ELEMENTS // count)
    width = step * max(1, READ_ELEMENTS // (step * count))
    result = np.empty((*values.shape[:-2], features))
    for index in np.ndindex(values.shape[:-2]):
        for first in range(0, features, width):
            columns = np.asarray(values[(*index, slice(None), slice(first, first + width))]).T
            for start in range(0, len(columns), step):
                block = np.array(columns[start : start + step], dtype=dtype, order="C")
                result[index][first + start : first + start + len(block)] = _fitted_distance(block, ddof)
            del columns  # free memory before reading the next
    return result


def _columnwise(x: Any) -> Any:
    """Return an array that supports column access: a lazy one unchanged, anything else as numpy."""
    lazy = hasattr(x, "shape") and isinstance(getattr(x, "dtype", None), np.dtype)
    return x if lazy else np.asarray(x)


def _fitted_distance(columns: States, ddof: int) -> Array:
    """Return the distances of rows (features, samples), which are sorted in place."""
    columns.sort(axis=-1)
    if not np.isfinite(columns[:, [0, -1]]).all():  # sorting moves non-finite values to the ends
        raise ValueError("the states hold NaN or infinite values: remove or repair them")
    standard = columns - columns.mean(-1, dtype=np.float64, keepdims=True)
    scale = np.sqrt(np.einsum("fn,fn->f", standard, standard) / (columns.shape[-1] - ddof))
    # rounding of the mean gives even a constant feature a scale: detect it by equal ends of the sorted row
    standard /= np.where(columns[:, 0] < columns[:, -1], scale, np.nan)[:, None]
    return _normal_distance(standard.astype(columns.dtype, copy=False))


def _normal_distance(ordered: States) -> Array:
    """Return the distances of sorted rows (features, samples) from the standard normal."""
    count = ordered.shape[-1]
    deviation = torch.special.ndtr(torch.from_numpy(ordered)).numpy()
    deviation -= ((np.arange(count) + 0.5) / count).astype(ordered.dtype)
    np.abs(deviation, out=deviation)
    distance: Array = deviation.max(-1).astype(np.float64) + 0.5 / count
    return distance


def _check_count(count: int) -> None:
    if count < FEWEST:
        raise ValueError(f"{count} samples have no shape to test: give at least {FEWEST}")


def ks_null(count: int, *, draws: int = 20000, seed: int = 0) -> Array:
    """Simulate the null of :func:`ks_distance`: distances of normal features with fitted mean and scale.

    Parameters
    ----------
    count : int
        Samples of a feature, n.
    draws : int
        Number of simulated features.
    seed : int
        Seed of the simulation.

    Returns
    -------
    ndarray
        Ascending, read-only, the same object for the same arguments; shape (draws,).

    Raises
    ------
    ValueError
        If there are fewer than 4 samples, or no draw.

    Examples
    --------
    >>> round(float(np.quantile(ks_null(256), 0.95)), 3)  # 5 % of normal features are farther off
    0.056
    """
    _check_count(count)
    if draws < 1:
        raise ValueError(f"draws = {draws} leaves nothing to compare with: simulate at least 1 feature, better 20000")
    return _simulated_null(int(count), int(draws), int(seed))


@lru_cache(maxsize=64)
def _simulated_null(count: int, draws: int, seed: int) -> Array:
    random = np.random.default_rng(seed)
    step = max(1, BLOCK_ELEMENTS // count)
    sizes = (min(step, draws - start) for start in range(0, draws, step))
    null = np.concatenate([_fitted_distance(random.standard_normal((size, count), dtype=np.float32), 1) for size in sizes])
    null.sort()
    null.flags.writeable = False  # all callers share the cached array
    return null


def ks_pvalue(distance: ArrayLike, null: ArrayLike) -> Array:
    r"""Return the Monte Carlo p-value of distances: :math:`(1+\#\{D_0\ge D\})/(1+\mathrm{draws})`.

    Parameters
    ----------
    distance : array
        Observed distances D, any shape.
    null : array
        Simulated distances :math:`D_0`, ascending, shape (draws,): of :func:`ks_null` at the same number of samples.

    Returns
    -------
    ndarray
        Shape of ``distance``; NaN where the distance is.

    References
    ----------
    Phipson & Smyth, Stat. Appl. Genet. Mol. Biol. 9, 39 (2010), for the added 1.

    Examples
    --------
    >>> ks_pvalue([0.3, 0.5, np.nan], [0.1, 0.2, 0.3]).tolist()
    [0.5, 0.25, nan]
    """
    observed, simulated = np.asarray(distance, dtype=np.float64), np.asarray(null, dtype=np.float64)
    farther = len(simulated) - np.searchsorted(simulated, observed, side="left")
    return np.where(np.isnan(observed), np.nan, (1 + farther) / (1 + len(simulated)))


def gaussian_replicates(x: ArrayLike, replicates: int, seed: int = 0) -> Iterator[NDArray[np.float32]]:
    r"""Yield Gaussian samples with exactly the mean and covariance of the given ones.

    With :math:`X - \bar X = Q_0R`, a replicate is :math:`\bar X + QR`, where Q is uniform (Haar) on the matrices with
    orthonormal columns orthogonal to the vector of ones. As mean and covariance are sufficient for a Gaussian, this is the
    exact law of Gaussian samples given the two, for any number of samples and features: unlike draws from
    :math:`\mathcal N(\bar X, \hat\Sigma)`, which they approach for many samples, replicates and Gaussian data are exchangeable.

    References
    ----------
    Langsrud, Rotation tests, Stat. Comput. 15, 53 (2005).

    Examples
    --------
    >>> x = np.random.default_rng(0).exponential(size=(50, 3))
    >>> replicate = next(gaussian_replicates(x, 1))
    >>> bool(np.allclose(np.cov(replicate.T), np.cov(x.T), atol=1e-5))
    True
    """
    values = real(x, np.float64)
    count, features = values.shape
    mean = values.mean(0)
    # a first column of ones makes all others of Q orthogonal to it, even if they are as many as samples
    joined = np.column_stack([np.ones(count), values - mean])
    factor_t = torch.linalg.qr(torch.from_numpy(joined), mode="r").R[:, 1:].mT.float()
    center = mean.astype(np.float32)
    columns = min(count, features + 1)
    is_small = replicates * count * columns <= KEPT_ELEMENTS
    for q in (_kept_rotations if is_small else _rotations)(count, columns, replicates, seed):
        yield (factor_t @ q.mT).numpy().T + center


def _rotations(count: int, columns: int, replicates: int, seed: int) -> Iterator[torch.Tensor]:
    """Yield uniform Q, (count, columns), whose first column is constant."""
    random = np.random.default_rng([seed, 1])  # a different stream from the null's
    matrix = np.ones((count, columns), dtype=np.float32)
    for _ in range(replicates):
        matrix[:, 1:] = random.standard_normal((count, columns - 1), dtype=np.float32)
        q, r = torch.linalg.qr(torch.from_numpy(matrix))
        # LAPACK's signs depend on the entries: without them Q is not uniform
        yield q * torch.sign(torch.diagonal(r))


@lru_cache(maxsize=1)  # all turn times of a run use the same
def _kept_rotations(count: int, columns: int, replicates: int, seed: int) -> list[torch.Tensor]:
    return list(_rotations(count, columns, replicates, seed))


@dataclass(frozen=True)
class KSTest:
    """Test of normality of all features at one noise level.

    Features that do not vary have distance and p-value NaN, are never discovered, and are excluded from all shares and means.

    Attributes
    ----------
    count : int
        Number of samples.
    threshold, level : float
        As given to :func:`ks_test`.
    distance, pvalue : ndarray
        Of each feature, shape (features,).
    discovered : ndarray
        bool: not normal, with the false discovery rate over all features controlled at ``level``; shape (features,).
    share_above, share_above_null : float
        Share of features farther from the normal than ``threshold``, and its expectation for normal features.
    share_rejected : float
        Share of features with a p-value of at most ``level``; its expectation for normal features is ``level``.
    share_discovered : float
        Share of features discovered.
    mean_distance : float
        Mean distance of the features.
    mean_distance_pvalue : float
        p-value of all features being jointly Gaussian, whatever their correlation, by the mean distance.
    share_above_null_low, share_above_null_high : float
        Central 95 % of ``share_above`` over the Gaussian replicates.
    share_rejected_null_low, share_rejected_null_high : float
        Of ``share_rejected``.
    mean_distance_null_low, mean_distance_null_high : float
        Of ``mean_distance``.
    """

    count: int
    threshold: float
    level: float
    distance: Array
    pvalue: Array
    discovered: NDArray[np.bool_]
    share_above: float
    share_above_null: float
    share_rejected: float
    share_discovered: float
    mean_distance: float
    mean_distance_pvalue: float
    share_above_null_low: float
    share_above_null_high: float
    share_rejected_null_low: float
    share_rejected_null_high: float
    mean_distance_null_low: float
    mean_distance_null_high: float


def ks_test(
    x: ArrayLike, *, threshold: float = 0.06, level: float = 0.05, replicates: int = 99, seed: int = 0, draws: int = 20000
) -> KSTest:
    r"""Test samples at one noise level for normality: each feature, and all features together.

    Parameters
    ----------
    x : array
        Independent samples (repeats of one start are not), shape (samples, features); eager or lazy.
    threshold : float
        Distance above which features are counted; 0.06 in the scripts of the paper's authors.
    level : float
        Of the tests and of the false discovery rate, in (0, 1).
    replicates : int
        Gaussian replicates with the sample's own covariance, for the test of all features together.
    seed : int
        Of null and replicates.
    draws : int
        Simulated features for the p-value of one feature.

    Returns
    -------
    KSTest

    Raises
    ------
    ValueError
        If there are fewer than 4 samples, some are not finite, or a setting is outside its range.

    Notes
    -----
    p-values come in steps of 1/(1 + draws): for any discovery, at least features/(draws level) features must reach the smallest
    one. Replicates use at most 256 features, evenly spaced among those that vary. Their ranges are too wide (conservative) for the
    mean of many more, nearly independent features; the p-value compares like with like, the mean distance of the same features.

    References
    ----------
    Behjoo & Chertkov, arXiv 2308.07421, for the test; Benjamini & Hochberg, J. R. Stat. Soc. B 57, 289 (1995).

    Examples
    --------
    >>> normal = np.random.default_rng(0).normal(size=(256, 20))
    >>> ks_test(normal).share_discovered, ks_test(np.sign(normal) + normal / 2).share_discovered
    (0.0, 1.0)
    """
    values = _columnwise(x)
    if len(values.shape) != 2:
        raise ValueError(f"states of shape {values.shape} are not those of one noise level: give (samples, features)")
    if not 0 < level < 1 or replicates < 1:
        raise ValueError(f"level = {level:g}, replicates = {replicates}: give a level in (0, 1) and at least 1 replicate")
    distance = ks_distance(values)
    count = int(values.shape[0])
    null = ks_null(count, draws=draws, seed=seed)
    pvalue = ks_pvalue(distance, null)
    discovered = np.zeros(distance.shape, dtype=np.bool_)
    varying = np.flatnonzero(~np.isnan(distance))
    of_all, of_replicates = np.full(3, np.nan), np.full((replicates, 3), np.nan)
    mean_pvalue = share_discovered = np.nan
    if len(varying):
        discovered[varying] = false_discovery_control(pvalue[varying]) <= level
        share_discovered = float(discovered[varying].mean())
        chosen = varying[evenly_spaced(len(varying), MOST_FEATURES)]
        standard = np.asarray(values[:, chosen]).astype(np.float64, order="F")  # numpy's column order, so that sums round alike
        standard = (standard - standard.mean(0)) / standard.std(0, ddof=1)
        # a rotation keeps mean and scale: replicates are already standardised
        simulated = [_normal_distance(np.sort(replicate.T)) for replicate in gaussian_replicates(standard, replicates, seed)]
        of_all = _statistics(distance[varying], null, threshold, level)
        of_replicates = _statistics(np.array(simulated), null, threshold, level)
        mean_pvalue = float((1 + (of_replicates[:, 0] >= distance[chosen].mean()).sum()) / (1 + replicates))
    # one more draw stays below rank (replicates + 1) q with probability q
    low, high = np.quantile(of_replicates, RANGE, axis=0, method="weibull")
    return KSTest(
        count=count,
        threshold=threshold,
        level=level,
        distance=distance,
        pvalue=pvalue,
        discovered=discovered,
        share_above=float(of_all[1]),
        share_above_null=float((null > threshold).mean()),
        share_rejected=float(of_all[2]),
        share_discovered=share_discovered,
        mean_distance=float(of_all[0]),
        mean_distance_pvalue=mean_pvalue,
        share_above_null_low=float(low[1]),
        share_above_null_high=float(high[1]),
        share_rejected_null_low=float(low[2]),
        share_rejected_null_high=float(high[2]),
        mean_distance_null_low=float(low[0]),
        mean_distance_null_high=float(high[0]),
    )


def _statistics(distances: Array, null: Array, threshold: float, level: float) -> Array:
    """Return mean distance, share above the threshold and share rejected of distances (..., features): shape (..., 3)."""
    rejected = ks_pvalue(distances, null) <= level
    return np.stack([distances.mean(-1), (distances > threshold).mean(-1), rejected.mean(-1)], axis=-1)
