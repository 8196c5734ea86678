r"""Distances of end points from the ground truth.

The Fréchet distance between the Gaussians of the same moments,

.. math:: D = |m_1-m_2|^2 + \mathrm{tr}\,[C_1 + C_2 - 2(C_1^{1/2}C_2C_1^{1/2})^{1/2}],

and what it shares with the kernel distance of :mod:`~gaussian_test.analysis.observables.quality.quality`. The ground-truth set *is*
the population (divide by N, no sampling error); the starts are the draws and the repeats of a start a cluster. Both estimates are
corrected for their upward bias. Where the laws agree, the linear term in the sampling error vanishes and the quadratic one remains,
so a variance has two parts: :math:`\mathrm{var} = 4\zeta_1/n + 2\zeta_2/n^2`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gaussian_test.analysis.moments.running import real
from gaussian_test.analysis.observables.quality.numerics import (
    FEWEST,
    Calibration,
    Jackknife,
    check_finite,
    checked,
    covariance,
    dependence,
    embedding,
    modes,
    one_sample,
    paired,
    two_sample,
)

Array = NDArray[np.float64]

NULL_DRAWS = 200  # sets drawn from the ground truth that calibrate bias and variance
SWAPS = 8  # relabellings of a paired set for the same calibration


@dataclass(frozen=True)
class Distance:
    r"""A distance between two laws, with its uncertainty.

    Attributes
    ----------
    estimate : float
        Bias-corrected: can be negative where the laws are close. In the squared unit of the features (Fréchet) or the unit
        of the kernel.
    standard_error : float
        Of the estimate, with the second-order part.
    values : ndarray
        Jackknife pseudo-values, one per start, whose mean is the estimate; shape (n,).
    plug_in : float
        The distance of the empirical laws themselves: never negative, too large by order 1/n.
    null_error : float
        The standard error if the true distance were zero.
    slope : float
        Growth rate of the variance with the true distance.
    """

    estimate: float
    standard_error: float
    values: Array
    plug_in: float
    null_error: float
    slope: float

    def interval(self, quantile: float = 1.96) -> tuple[float, float]:
        r"""Return the score interval: all D with :math:`|\hat D - D| \le c\,(\mathrm{se}_0^2 + g\max(D, 0))^{1/2}`.

        The variance is taken at D, not at the estimate. A small estimate comes with a small error, so the estimate -+ c standard
        errors would miss larger true values too often. At large distances the two agree.

        Parameters
        ----------
        quantile : float
            c, of the normal law or of the largest deviation over a curve.

        Returns
        -------
        tuple of float
            Lower and upper end.

        Examples
        --------
        >>> Distance(1.0, 0.5, np.ones(2), 1.0, null_error=0.25, slope=0.0).interval(2.0)
        (0.5, 1.5)
        """
        return self._edge(-quantile), self._edge(quantile)

    def _edge(self, quantile: float) -> float:
        if self.standard_error == 0:
            return self.estimate
        if np.isinf(quantile):
            return quantile
        at_zero = self.estimate + quantile * self.null_error
        if at_zero <= 0:
            return at_zero
        half = quantile * self.slope / 2
        variance = self.null_error**2 + self.slope * self.estimate + half**2
        return self.estimate + quantile * (half + float(np.sqrt(max(variance, 0.0))))


@dataclass(frozen=True)
class NullDistance:
    """Plug-in Fréchet distance of a set of perfect draws: the floor of a curve.

    Attributes
    ----------
    mean, high : float
        Mean and 95 % quantile.
    """

    mean: float
    high: float


class Population:
    """A ground-truth set, with all quantities for distances from it that do not depend on the end points.

    Parameters
    ----------
    features : array
        Features of every ground-truth sample, shape (N, F).

    Raises
    ------
    ValueError
        If the features are not a finite matrix that varies.

    Examples
    --------
    >>> Population(np.array([[0.0, 1.0], [2.0, 1.0]])).trace
    1.0
    """

    def __init__(self, features: ArrayLike) -> None:
        self.features: Array = real(features, np.float64)
        if self.features.ndim != 2:
            raise ValueError(f"ground-truth features of shape {self.features.shape} are no matrix: give (samples, features)")
        check_finite(self.features)
        self.mean: Array = self.features.mean(0)
        if (self.features == self.features[:1]).all():
            raise ValueError("the ground-truth features are all the same: give features that vary")
        variances, axes = modes(covariance(self.features - self.mean))
        self.root: Array = axes * np.sqrt(variances)
        self.trace = float(variances.sum())
        self._calibrations: dict[tuple[int, int, int], Calibration] = {}
        self._kernel_means: dict[tuple[int, float, float], float] = {}

    def calibration(self, count: int, draws: int = NULL_DRAWS, seed: int = 0) -> Calibration:
        """Return the calibration of the jackknife on draws from the population itself, computed once.

        Examples
        --------
        >>> population = Population(np.random.default_rng(0).normal(size=(500, 2)))
        >>> bool(0.9 < population.calibration(200).bias < 1.1)
        True
        """
        key = (count, draws, seed)
        if key not in self._calibrations:
            random = np.random.default_rng(seed)
            picks = (random.integers(len(self.features), size=count) for _ in range(draws))
            self._calibrations[key] = Calibration.of([_one_sample(self.features[pick][:, None], self) for pick in picks])
        return self._calibrations[key]

    def kernel_mean(self, degree: int, gamma: float, coef0: float) -> float:
        """Return the mean of the polynomial kernel over all pairs, computed once.

        Examples
        --------
        >>> Population(np.array([[1.0], [-1.0]])).kernel_mean(2, 1.0, 0.0)
        1.0
        """
        key = (degree, gamma, coef0)
        if key not in self._kernel_means:
            self._kernel_means[key] = float(embedding(self.features, self.features, *key).mean())
        return self._kernel_means[key]

    def select(self, starts: ArrayLike, count: int) -> Array:
        """Return the features of selected samples as end points of one repeat, shape (count, 1, F).

        Examples
        --------
        >>> Population(np.array([[1.0], [-1.0]])).select([1], 1).tolist()
        [[[-1.0]]]
        """
        index = np.asarray(starts)
        if index.shape != (count,) or len(np.intersect1d(index, np.arange(len(self.features)))) < count:
            raise ValueError(
                f"the starts are not {count} different samples of {len(self.features)}: give the index of each, or none if they "
                "were drawn with replacement"
            )
        chosen: Array = self.features[index][:, None]
        return chosen

    def depleted(self, joint: float, own: float, origin: float, count: int) -> float:
        """Return the missing fraction of the second-order variance for starts drawn without replacement.

        It is the drawn fraction of the population times the squared correlation of end points with their starts.

        Examples
        --------
        >>> Population(np.arange(5.0)[:, None]).depleted(1.0, 2.0, 2.0, 3)
        0.125
        """
        if not own * origin > 0:
            return 0.0
        return (count - 1) / (len(self.features) - 1) * min(max(joint, 0.0) ** 2 / (own * origin), 1.0)


def frechet(features: ArrayLike, truth: Population | ArrayLike, *, starts: ArrayLike | None = None) -> Distance:
    r"""Return the Fréchet distance of end points from the ground truth, without its bias.

    The plug-in distance less the bias of the delete-one-start jackknife, times the ratio of true to jackknife bias among sets
    of draws from the ground truth (which removes the remainder, of order :math:`(F/n)^2`, where the laws agree).
    The pseudo-values are exact: with :math:`M = C_2^{1/2}C_1C_2^{1/2}`, taking out :math:`y` (a start's rows, suitably weighted,
    times :math:`C_2^{1/2}`) changes the last trace by

    .. math:: \mathrm{tr}(M - y^\top y)^{1/2} - \mathrm{tr}\,M^{1/2}
              = \frac1\pi\int_0^\infty\log\det\left(1 - y\,(M+\tau^2)^{-1}y^\top\right)d\tau

    Parameters
    ----------
    features : array
        Of the end points, shape (n, R, F): n starts, R repeats.
    truth : Population or array
        Features of the whole ground-truth set, shape (N, F).
    starts : array of int, optional
        The ground-truth samples that the end points started from, if these were drawn without replacement; shape (n,). Bias and
        second-order variance then shrink with the correlation of end points and starts, to zero for end points that are the whole
        set. By default the end points are independent draws.

    Returns
    -------
    Distance

    Raises
    ------
    ValueError
        If shapes do not fit, values are not finite or there are fewer than 4 starts.

    References
    ----------
    Dowson & Landau, J. Multivariate Anal. 12, 450 (1982); Heusel et al., arXiv 1706.08500.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.normal(size=(1000, 3))
    >>> distance = frechet(truth[rng.integers(1000, size=(400, 1))] + [2.0, 0.0, 0.0], truth)
    >>> bool(abs(distance.estimate - 4) < 3 * distance.standard_error)
    True
    """
    population = truth if isinstance(truth, Population) else Population(truth)
    x = checked(features, population.features.shape[1])
    jackknife = _one_sample(x, population)
    missing = 0.0
    if starts is not None:
        origin = np.repeat(population.select(starts, len(x)), x.shape[1], axis=1)
        biases = jackknife.bias, _one_sample(origin, population).bias
        missing = population.depleted((sum(biases) - two_sample(x, origin).bias) / 2, *biases, len(x))
    return _corrected(jackknife, population.calibration(len(x)), dependence(x), missing)


def frechet_between(a: ArrayLike, b: ArrayLike) -> Distance:
    """Return the Fréchet distance between two sets of end points that are paired start by start (common random numbers).

    As :func:`frechet`, with both rows of a pair taken out together; the bias is calibrated on the same pairs with random ones
    swapped, for which the true distance is zero and the dependence within pairs is the same.

    Parameters
    ----------
    a, b : array
        Features of end points, the same noise at the same index, shape (n, R, F).

    Returns
    -------
    Distance

    Raises
    ------
    ValueError
        If shapes do not fit, values are not finite or there are fewer than 4 starts.

    Examples
    --------
    >>> a = np.random.default_rng(0).normal(size=(100, 2, 3))
    >>> round(frechet_between(a, a + [2.0, 0.0, 0.0]).estimate, 6)
    4.0
    """
    x, y = paired(a, b)
    random = np.random.default_rng(0)
    # use one repeat: the ratios hardly depend on repeats, which dominate the cost
    first, second = x[:, :1], y[:, :1]
    swaps = (random.random((len(x), 1, 1)) < 0.5 for _ in range(SWAPS))
    draws = [two_sample(np.where(swap, second, first), np.where(swap, first, second)) for swap in swaps]
    return _corrected(two_sample(x, y), Calibration.of(draws), (dependence(x) + dependence(y)) / 2)


def null_distance(truth: Population | ArrayLike, count: int, *, draws: int = NULL_DRAWS, seed: int = 0) -> NullDistance:
    """Return the plug-in Fréchet distance of perfect draws (with replacement) from the ground truth.

    Parameters
    ----------
    truth : Population or array
        Features of the whole ground-truth set, shape (N, F).
    count : int
        Draws in a set, at least 4.
    draws : int
        Number of sets.
    seed : int
        Of the draws.

    Returns
    -------
    NullDistance

    Raises
    ------
    ValueError
        If there are fewer than 4 draws in a set.

    Examples
    --------
    >>> floor = null_distance(np.random.default_rng(0).normal(size=(500, 2)), 100)
    >>> bool(0 < floor.mean < floor.high < 0.2)
    True
    """
    if count < FEWEST:
        raise ValueError(f"{count} draws are too few for a distance: give at least {FEWEST}")
    population = truth if isinstance(truth, Population) else Population(truth)
    plug_in = population.calibration(count, draws, seed).plug_in
    return NullDistance(float(plug_in.mean()), float(np.quantile(plug_in, 0.95)))


def _one_sample(x: Array, population: Population) -> Jackknife:
    return one_sample(x, population.mean, population.root, population.trace)


def _corrected(jackknife: Jackknife, calibration: Calibration, dependence: float, missing: float = 0.0) -> Distance:
    """Return the bias-corrected distance; the jackknife leaves a relative bias of order 1/n."""
    bias = (1 + (calibration.bias - 1) * dependence) * jackknife.bias
    second_order = calibration.variance * jackknife.bias**2
    return distance_from(jackknife.values, jackknife.variance, jackknife.plug_in, bias, second_order, missing)


def distance_from(values: Array, variance: float, plug_in: float, bias: float, second_order: float, missing: float) -> Distance:
    """Return the distance from pseudo-values (up to their mean), their variance, plug-in value, bias and variance at zero.

    The variance of the pseudo-values counts the second-order part twice. The variance of the distance grows with it: far from
    zero in proportion, near zero at twice the slope of a typical direction, which is the ratio of variance to bias; the estimate
    tells far from near to within its own error.

    Examples
    --------
    >>> distance_from(np.ones(4), 0.25, 1.5, bias=0.5, second_order=0.0, missing=0.0).interval(2.0)[0] < 1
    True
    """
    estimate = plug_in - (1 - missing) * bias
    first_order = max(variance - 2 * second_order, 0.0)
    second_order *= (1 - missing) ** 2
    reach = 2 * float(np.sqrt(second_order))
    typical = 2 * second_order / ((1 - missing) * bias) if second_order > 0 and bias > 0 else 0.0
    scale = max(estimate, 0.0) + reach
    return Distance(
        estimate=estimate,
        standard_error=float(np.sqrt(first_order + second_order)),
        values=values - values.mean() + estimate,
        plug_in=max(plug_in, 0.0),
        null_error=reach / 2,
        slope=(first_order + 2 * typical * reach) / scale if scale > 0 else 0.0,
    )
