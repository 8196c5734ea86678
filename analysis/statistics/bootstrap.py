r"""Cluster bootstrap over ground-truth samples.

It gives standard errors, simultaneous bands and tests for whole curves. The samples are the clusters: their turn times and repeats
stay together. The resampled means are one matrix product with multinomial weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainccinv, betaincinv, ndtr, ndtri, stdtrit  # scipy.stats takes a third of a second to import

Array = NDArray[np.float64]

BLOCK_ELEMENTS = 2**22  # of resampling weights held in float64 at once
FEW = 5  # with fewer outcomes of a kind the distribution of their share is far from normal
NEGLIGIBLE = 1e-12  # a standard error below this is rounding: the statistic does not vary


@dataclass(frozen=True)
class Band:
    """A curve with its uncertainty.

    Attributes
    ----------
    estimate, standard_error, low, high : ndarray
        Mean over samples, its standard error, and the simultaneous band; shape (points,).
    pvalue : ndarray
        For each point the probability, if the curve were zero everywhere, of a deviation as large as the one at this point
        *anywhere* on the curve (max-t). Small values need no further correction.
    replicates : ndarray
        Resampled curves, shape (resamples, points).
    """

    estimate: Array
    standard_error: Array
    low: Array
    high: Array
    pvalue: Array
    replicates: Array

    def columns(self) -> dict[str, Array]:
        """Return the columns of a band, by suffix."""
        return {"": self.estimate, "_se": self.standard_error, "_low": self.low, "_high": self.high, "_pvalue": self.pvalue}


class ClusterBootstrap:
    """Bootstrap of a fixed set of clusters, with the same resamples for every statistic (so differences stay paired).

    Parameters
    ----------
    clusters : int
        Number of ground-truth samples, at least 2.
    resamples : int
        Number of bootstrap resamples.
    confidence : float
        Level of the simultaneous bands, in (0, 1).
    seed : int
        Seed of the resampling.

    Raises
    ------
    ValueError
        If a setting is outside its range.

    Examples
    --------
    >>> band = ClusterBootstrap(100, 200, 0.95, 0).band(np.ones((100, 3)))
    >>> band.estimate.tolist(), band.standard_error.tolist()
    ([1.0, 1.0, 1.0], [0.0, 0.0, 0.0])
    """

    def __init__(self, clusters: int, resamples: int = 2000, confidence: float = 0.95, seed: int = 0) -> None:
        if clusters < 2:
            raise ValueError(f"{clusters} sample cannot be resampled: start from at least 2 ground-truth samples")
        if resamples < 1 or not 0 < confidence < 1:
            raise ValueError(
                f"resamples = {resamples}, confidence = {confidence:g}: give at least 1 resample and a level in (0, 1)"
            )
        self.clusters = clusters
        self.resamples = resamples
        self.confidence = confidence
        self.seed = seed

    @cached_property
    def _counts(self) -> NDArray[np.uint8]:
        """Count of each cluster in each resample, in bytes: one of 256 has a probability below 1/256!."""
        random = np.random.default_rng(self.seed)
        counts = np.empty((self.resamples, self.clusters), dtype=np.uint8)
        for rows in self._blocks():
            # count draws: numpy's multinomial has the same law but takes ten times as long
            drawn = random.integers(self.clusters, size=(rows.stop - rows.start, self.clusters))
            drawn += np.arange(len(drawn))[:, None] * self.clusters
            counts[rows] = np.bincount(drawn.reshape(-1), minlength=drawn.size).reshape(drawn.shape)
        return counts

    def _blocks(self) -> Iterator[slice]:
        step = max(1, BLOCK_ELEMENTS // self.clusters)
        return (slice(start, min(start + step, self.resamples)) for start in range(0, self.resamples, step))

    def means(self, values: ArrayLike) -> Array:
        """Return the resampled means of values (clusters, points): shape (resamples, points).

        Examples
        --------
        >>> ClusterBootstrap(4, 10).means(np.ones((4, 2))).shape
        (10, 2)
        """
        y = np.asarray(values, dtype=np.float64)
        return np.concatenate([self._counts[rows] / np.float64(self.clusters) @ y for rows in self._blocks()])

    def band(self, values: ArrayLike, offset: ArrayLike = 0.0, fitted: int = 0, studentized: bool = True) -> Band:
        r"""Return mean, standard error and the sup-t band of a curve.

        The band is :math:`\bar y \pm c\,\mathrm{se}`, where c is the quantile of the largest deviation
        :math:`\max_T|\bar y^*_T - \bar y_T|/\mathrm{se}^*_T` over the resamples.

        Parameters
        ----------
        values : array
            One curve per sample, repeats averaged, shape (clusters, points).
        offset : array
            Constant to subtract from the estimate and the band, shape (points,): a closed form.
        fitted : int
            Coefficients fitted to the values beforehand (a control variate's): lost degrees of freedom.
        studentized : bool
            Divide by the standard error of each resample (bootstrap-t: right for few samples), or by that of the data (for
            shares, whose resamples can lose all variation).

        Returns
        -------
        Band

        Examples
        --------
        >>> values = np.random.default_rng(0).normal(size=(400, 1))
        >>> band = ClusterBootstrap(400, 500).band(values)
        >>> bool(abs(band.standard_error[0] - 0.05) < 0.01)
        True
        """
        spread = self._spread(values, fitted, studentized)
        return _sup_t(spread, np.asarray(offset, dtype=np.float64), self.confidence)

    def difference_band(self, values: ArrayLike, other: ClusterBootstrap, others: ArrayLike, studentized: bool = True) -> Band:
        """Return the band of the difference of two curves from independent sets of samples.

        Parameters
        ----------
        values : array
            One curve per sample, shape (clusters, points).
        other : ClusterBootstrap
            Resamples of the other set: as many, with another seed.
        others : array
            Curves to subtract, shape (other clusters, points).
        studentized : bool
            As in :meth:`band`.

        Returns
        -------
        Band

        Examples
        --------
        >>> random = np.random.default_rng(0)
        >>> a, b = ClusterBootstrap(200, 500, seed=1), ClusterBootstrap(300, 500, seed=2)
        >>> band = a.difference_band(random.normal(1, 1, (200, 2)), b, random.normal(0, 1, (300, 2)))
        >>> bool((band.low < 1).all() and (band.high > 1).all() and (band.low > 0.6).all())
        True
        """
        a, b = self._spread(values, 0, studentized), other._spread(others, 0, studentized)
        both = _Spread(
            a.estimate - b.estimate, np.hypot(a.error, b.error), a.deviations - b.deviations, np.hypot(a.resampled, b.resampled)
        )
        return _sup_t(both, np.zeros(len(both.estimate)), self.confidence)

    def _spread(self, values: ArrayLike, fitted: int, studentized: bool) -> _Spread:
        y = np.asarray(values, dtype=np.float64)
        freedom = len(y) - 1 - fitted
        if freedom < 1:
            raise ValueError(f"{len(y)} samples leave no degree of freedom: start from at least {2 + fitted} ground-truth samples")
        estimate = y.mean(0)
        centered = y - estimate
        error = np.sqrt((centered**2).mean(0) / freedom)
        error = np.where(error < NEGLIGIBLE, 0.0, error)
        deviations = self.means(centered)
        if studentized:
            resampled = np.sqrt((self.means(centered**2) - deviations**2).clip(min=0) / freedom)
        else:
            resampled = np.broadcast_to(error, deviations.shape)
        return _Spread(estimate, error, deviations, resampled)

    def share_band(self, values: ArrayLike) -> Band:
        r"""Return the band of a share of yes-or-no outcomes.

        A score (Wilson) interval at the width c of the sup-t band, which is valid near 0 and 1, where few outcomes differ:

        .. math:: \frac{\hat p + c^2/2m \pm c\sqrt{\hat p(1-\hat p)/m + c^2/4m^2}}{1 + c^2/m}

        with m the number of independent outcomes that would have the observed standard errors (repeats of a sample are not
        independent). Where fewer than 5 of these differ, or all samples agree, the band is the exact binomial (Clopper-Pearson)
        interval at the level of the whole curve, divided over its points.

        Parameters
        ----------
        values : array
            Share of each sample's repeats, in [0, 1], shape (clusters, points).

        Returns
        -------
        Band

        References
        ----------
        Wilson, J. Am. Stat. Assoc. 22, 209 (1927); Kish, Survey Sampling (1965), for the design effect.

        Examples
        --------
        >>> band = ClusterBootstrap(100, 200).share_band(np.ones((100, 1)))
        >>> round(float(band.low[0]), 3), float(band.high[0])
        (0.964, 1.0)
        """
        y = np.asarray(values, dtype=np.float64)
        band = self.band(y, studentized=False)
        p, variance = band.estimate, band.standard_error**2
        level = 1 - (1 - self.confidence) / y.shape[1]
        low, high = np.clip(band.low, 0, 1), np.clip(band.high, 0, 1)
        varies = band.standard_error > 0
        if varies.any():
            # with one or two differing outcomes the largest deviation is unreliable: Bonferroni bounds it
            width = (band.high - p)[varies] / band.standard_error[varies]
            c = min(float(width.max()), float(-ndtri((1 - level) / 2)))
            design = max(float(variance.sum() * self.clusters / (p * (1 - p)).sum()), 1 / y.shape[1] / self.clusters)
            m = np.minimum(self.clusters / design, (p * (1 - p))[varies] / variance[varies])
            centre, half = p[varies] + c**2 / (2 * m), c * np.sqrt(p[varies] * (1 - p[varies]) / m + c**2 / (4 * m**2))
            low[varies], high[varies] = (centre - half) / (1 + c**2 / m), (centre + half) / (1 + c**2 / m)
            # with few differing outcomes that interval is too short on one side: use the exact one, of m outcomes
            few = m * np.minimum(p[varies], 1 - p[varies]) < FEW
            kept, lost, tail = (m * p[varies])[few], (m * (1 - p[varies]))[few], (1 - level) / 2
            points = np.flatnonzero(varies)[few]
            low[points], high[points] = betaincinv(kept, lost + 1, tail), betainccinv(kept + 1, lost, tail)
        for point in np.flatnonzero(~varies):  # all agree: Clopper and Pearson's interval
            kept = round(float(p[point]) * self.clusters)
            lost, tail = self.clusters - kept, (1 - level) / 2
            low[point] = betaincinv(kept, lost + 1, tail) if kept else 0.0
            high[point] = betainccinv(kept + 1, lost, tail) if lost else 1.0
        return Band(p, band.standard_error, low.clip(0, 1), high.clip(0, 1), band.pvalue, band.replicates)

    def positive_band(self, values: ArrayLike, studentized: bool = True) -> Band:
        r"""Return the band of a positive mean of skewed values, symmetric in its logarithm.

        .. math:: \log\bar y \pm c\,\mathrm{se}/\bar y

        Parameters
        ----------
        values : array
            Shape (clusters, points).
        studentized : bool
            As in :meth:`band`.

        Returns
        -------
        Band
            ``standard_error`` is that of the mean; points whose mean is not positive have the band of :meth:`band`.

        Examples
        --------
        >>> band = ClusterBootstrap(300, 200).positive_band(np.random.default_rng(0).lognormal(0, 2, size=(300, 1)))
        >>> bool(0 < band.low[0] < np.exp(2) < band.high[0])
        True
        """
        y = np.asarray(values, dtype=np.float64)
        mean = y.mean(0)
        positive = mean > NEGLIGIBLE
        scale = np.where(positive, mean, 1.0)
        logs = self.band(np.where(positive, np.log(scale) + (y - mean) / scale, y), studentized=studentized)
        with np.errstate(over="ignore"):  # an edge beyond the float range is infinite
            low, high, replicates = (np.where(positive, np.exp(edge), edge) for edge in (logs.low, logs.high, logs.replicates))
        return Band(mean, logs.standard_error * scale, low, high, logs.pvalue, replicates)


@dataclass(frozen=True)
class _Spread:
    """A curve, its standard error, and the deviations of its resamples with their standard errors."""

    estimate: Array
    error: Array
    deviations: Array
    resampled: Array


def _sup_t(spread: _Spread, known: Array, confidence: float) -> Band:
    """Return the band around a curve minus a known one; its width is a quantile of the largest studentised deviation."""
    error, deviations = spread.error, spread.deviations
    varies = error > 0
    ratios = np.divide(np.abs(deviations), spread.resampled, out=np.full_like(deviations, np.inf), where=spread.resampled > 0)
    largest = np.where(varies & (deviations != 0), ratios, 0.0).max(1)
    # if some resamples do not vary the quantile can be infinite: constant points must keep a width of zero
    width = np.multiply(np.quantile(largest, confidence, method="higher"), error, out=np.zeros_like(error), where=varies)
    shifted: Array = spread.estimate - known
    shifted = np.where(~varies & (np.abs(shifted) < NEGLIGIBLE), 0.0, shifted)
    seen = np.divide(np.abs(shifted), error, out=np.zeros_like(error), where=varies)
    exceeded = (largest[:, None] >= seen).sum(0)
    pvalue = np.where(varies, (1 + exceeded) / (1 + len(deviations)), np.where(shifted == 0, 1.0, 0.0))
    return Band(shifted, error, shifted - width, shifted + width, pvalue, shifted + deviations)


def expanded(confidence: float, clusters: float) -> float:
    r"""Return the expanded confidence level for percentiles of resamples of few clusters.

    Resamples spread less than samples, and a normal tail is shorter than Student's: the tail :math:`\alpha/2` becomes
    :math:`\Phi\big(\sqrt{n/(n-1)}\;t_{\alpha/2,\,n-1}\big)`.

    References
    ----------
    Hesterberg, Am. Stat. 69, 371 (2015), on the expanded percentile interval.

    Examples
    --------
    >>> round(expanded(0.95, 10), 4), round(expanded(0.95, 1e9), 4)
    (0.9829, 0.95)
    """
    return float(1 - 2 * ndtr(stdtrit(clusters - 1, (1 - confidence) / 2) * np.sqrt(clusters / (clusters - 1))))


def with_control_variate(values: ArrayLike, control: ArrayLike, expectation: ArrayLike) -> Array:
    r"""Return values minus a control variate: :math:`y - \beta(k - E k)`, :math:`\beta` fitted point by point.

    Parameters
    ----------
    values, control : array
        One curve per sample, shape (clusters, points).
    expectation : array
        Known mean of the control, shape (points,).

    Returns
    -------
    ndarray
        Same mean as ``values`` (up to order 1/clusters), smaller variance; shape (clusters, points).

    Examples
    --------
    >>> k = np.array([[1.0], [3.0]])
    >>> with_control_variate(2 * k, k, [2.5]).tolist()
    [[5.0], [5.0]]
    """
    y, k = np.asarray(values, dtype=np.float64), np.asarray(control, dtype=np.float64)
    k_centered = k - k.mean(0)
    variance = (k_centered**2).sum(0)
    slope = np.divide((k_centered * (y - y.mean(0))).sum(0), variance, out=np.zeros_like(variance), where=variance > 0)
    result: Array = y - slope * (k - np.asarray(expectation, dtype=np.float64))
    return result
