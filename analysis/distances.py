r"""Distances between the law of end points and the ground truth, on features, with errors that cover.

Fréchet distance between the Gaussians of the same moments, and squared maximum mean discrepancy (MMD) of a polynomial kernel:

.. math:: D = |m_1-m_2|^2 + \mathrm{tr}\,[C_1 + C_2 - 2(C_1^{1/2}C_2C_1^{1/2})^{1/2}],\qquad
          \mathrm{MMD}^2 = E\,k(x,x') - 2E\,k(x,y) + E\,k(y,y')

The ground-truth set *is* the population (divide by N, no sampling error); the starts are the draws and the repeats of a start a
cluster. Both estimates are freed of their upward bias. Where the laws agree, what is linear in the sampling error vanishes and
the quadratic rest is left, so that a variance has two parts: :math:`\mathrm{var} = 4\zeta_1/n + 2\zeta_2/n^2`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

NULL_DRAWS = 200  # sets drawn from the ground truth that calibrate bias and variance
SWAPS = 8  # relabellings of a paired set that do the same
STEP = 0.5  # of the trapezoid rule in log(tau), whose error is exp(-pi^2/STEP), 3e-9
NODES = np.arange(-14.0, 7.01, STEP)
# times tau the integrand goes as tau below the nodes and as 1/tau above: geometric series
WEIGHTS = np.exp(NODES) * STEP / np.pi / np.where(np.isin(NODES, NODES[[0, -1]]), 1 - np.exp(-STEP), 1.0)
RANK_TOLERANCE = 1e-14  # an eigenvalue below this part of the largest is rounding
BLOCK_ELEMENTS = 2**22  # of kernels and determinants held at once
FEWEST = 4  # starts: the second-order variance divides by n - 3


@dataclass(frozen=True)
class Distance:
    r"""A distance between two laws, with its uncertainty.

    Attributes
    ----------
    estimate : float
        Freed of its bias: can be negative where the laws are close. In the squared unit of the features (Fréchet) or the unit
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
        By how much the variance grows with the true distance.
    """

    estimate: float
    standard_error: float
    values: Array
    plug_in: float
    null_error: float
    slope: float

    def interval(self, quantile: float = 1.96) -> tuple[float, float]:
        r"""Return the score interval: all D with :math:`|\hat D - D| \le c\,(\mathrm{se}_0^2 + g\max(D, 0))^{1/2}`.

        The variance is the one at D, not at the estimate: a small estimate comes with a small error, so that at small distances
        the estimate -+ c standard errors misses upwards too often. At large distances the two agree.

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
    """What a set of perfect draws gives for the plug-in Fréchet distance: the floor of a curve.

    Attributes
    ----------
    mean, high : float
        Mean and 95 % quantile.
    """

    mean: float
    high: float


@dataclass(frozen=True)
class _Jackknife:
    """Plug-in distance, its jackknife bias, the pseudo-values of the distance without that bias, and their variance."""

    plug_in: float
    bias: float
    values: Array
    variance: float


@dataclass(frozen=True)
class _Calibration:
    """Of the jackknife where the true distance is zero: true over estimated bias, variance over squared bias."""

    bias: float
    variance: float
    plug_in: Array

    @classmethod
    def of(cls, draws: list[_Jackknife]) -> _Calibration:
        plug_in = np.array([draw.plug_in for draw in draws])
        bias = np.array([draw.bias for draw in draws])
        if not bias.mean() > 0:
            return cls(1.0, 0.0, plug_in)
        # a jackknife variance counts the second-order part twice, and the calibrated bias has an error of its own
        variance = np.mean([draw.variance for draw in draws]) / 2 * (1 + 1 / len(draws))
        return cls(float(plug_in.mean() / bias.mean()), float(variance / (bias**2).mean()), plug_in)


class Population:
    """A ground-truth set, with all that distances from it need and that does not depend on the end points.

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
        self.features: Array = np.asarray(features, dtype=np.float64)
        if self.features.ndim != 2:
            raise ValueError(f"ground-truth features of shape {self.features.shape} are no matrix: give (samples, features)")
        _check_finite(self.features)
        self.mean: Array = self.features.mean(0)
        if (self.features == self.features[:1]).all():
            raise ValueError("the ground-truth features are all the same: give features that vary")
        variances, axes = _modes(_covariance(self.features - self.mean))
        self.root: Array = axes * np.sqrt(variances)
        self.trace = float(variances.sum())
        self._calibrations: dict[tuple[int, int, int], _Calibration] = {}
        self._kernel_means: dict[tuple[int, float, float], float] = {}

    def calibration(self, count: int, draws: int = NULL_DRAWS, seed: int = 0) -> _Calibration:
        """Return what the jackknife gives for sets of draws from the population itself, computed once.

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
            self._calibrations[key] = _Calibration.of([_one_sample(self.features[pick][:, None], self) for pick in picks])
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
            self._kernel_means[key] = float(_embedding(self.features, self.features, *key).mean())
        return self._kernel_means[key]

    def select(self, starts: ArrayLike, count: int) -> Array:
        """Return the features of some samples as end points of one repeat, shape (count, 1, F).

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
        """Return which part of the second-order variance is missing, as starts are drawn without replacement.

        The part of the population that is drawn, times the squared correlation of end points with their starts.

        Examples
        --------
        >>> Population(np.arange(5.0)[:, None]).depleted(1.0, 2.0, 2.0, 3)
        0.125
        """
        if not own * origin > 0:
            return 0.0
        return (count - 1) / (len(self.features) - 1) * min(max(joint, 0.0) ** 2 / (own * origin), 1.0)


def frechet(features: ArrayLike, truth: Population | ArrayLike, starts: ArrayLike | None = None) -> Distance:
    r"""Return the Fréchet distance of end points from the ground truth, without its bias.

    The plug-in distance less the bias of the delete-one-start jackknife, times the ratio of true to jackknife bias among sets
    of draws from the ground truth (which removes what the jackknife leaves, of order :math:`(F/n)^2`, where the laws agree).
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
        The ground-truth samples that the end points started from, if these were drawn without replacement; shape (n,). What end
        points keep of their starts then varies less: bias and second-order variance shrink, to zero for end points that are the
        whole set. By default the end points are independent draws.

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
    x = _checked(features, population.features.shape[1])
    jackknife = _one_sample(x, population)
    missing = 0.0
    if starts is not None:
        origin = np.repeat(population.select(starts, len(x)), x.shape[1], axis=1)
        biases = jackknife.bias, _one_sample(origin, population).bias
        missing = population.depleted((sum(biases) - _two_sample(x, origin).bias) / 2, *biases, len(x))
    return _corrected(jackknife, population.calibration(len(x)), _dependence(x), missing)


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
    x, y = _paired(a, b)
    random = np.random.default_rng(0)
    # the ratios hardly depend on the repeats, which cost most
    first, second = x[:, :1], y[:, :1]
    swaps = (random.random((len(x), 1, 1)) < 0.5 for _ in range(SWAPS))
    draws = [_two_sample(np.where(swap, second, first), np.where(swap, first, second)) for swap in swaps]
    return _corrected(_two_sample(x, y), _Calibration.of(draws), (_dependence(x) + _dependence(y)) / 2)


def kid(
    features: ArrayLike,
    truth: Population | ArrayLike,
    degree: int = 3,
    gamma: float | None = None,
    coef0: float = 1.0,
    starts: ArrayLike | None = None,
) -> Distance:
    r"""Return the squared MMD of end points from the ground truth for :math:`k(a,b) = (\gamma\,a\cdot b + c_0)^d`, unbiased.

    Pairs of different starts only, and the mean over the whole population: a U-statistic of the kernel

    .. math:: h(x, x') = k(x, x') - E\,k(x, y) - E\,k(x', y) + E\,k(y, y')

    Parameters
    ----------
    features : array
        Of the end points, shape (n, R, F): n starts, R repeats.
    truth : Population or array
        Features of the whole ground-truth set, shape (N, F).
    degree : int
        d.
    gamma : float, optional
        Default 1/F.
    coef0 : float
        :math:`c_0`.
    starts : array of int, optional
        As in :func:`frechet`.

    Returns
    -------
    Distance
        In the unit of the kernel.

    Raises
    ------
    ValueError
        If shapes do not fit, values are not finite or there are fewer than 4 starts.

    References
    ----------
    Bińkowski et al., arXiv 1801.01401; Gretton et al., J. Mach. Learn. Res. 13, 723 (2012).

    Examples
    --------
    >>> truth = np.array([[-1.0], [1.0]])
    >>> round(kid(np.full((5, 1, 1), 3.0), truth, degree=1).estimate, 12)  # a linear kernel sees the means alone
    9.0
    """
    population = truth if isinstance(truth, Population) else Population(truth)
    x = _checked(features, population.features.shape[1])
    kernel = _polynomial(degree, gamma, coef0, x.shape[2])
    embedded = _embedding(x.reshape(-1, x.shape[2]), population.features, *kernel).reshape(x.shape[:2]).mean(1)
    gram = _gram(x, x, *kernel)
    missing = 0.0
    if starts is not None:
        origin = population.select(starts, len(x))
        own, joint = (_excess(_gram(side, origin, *kernel)) for side in (origin, x))
        missing = population.depleted(joint, _excess(gram), own, len(x))
    return _u_statistic(gram - embedded - embedded[:, None] + population.kernel_mean(*kernel), missing)


def kid_between(a: ArrayLike, b: ArrayLike, degree: int = 3, gamma: float | None = None, coef0: float = 1.0) -> Distance:
    r"""Return the squared MMD between two sets of end points that are paired start by start (common random numbers), unbiased.

    A U-statistic over pairs of starts, so that no row meets its partner, of the kernel
    :math:`h = k(a,a') + k(b,b') - k(a,b') - k(b,a')`.

    Parameters
    ----------
    a, b : array
        Features of end points, the same noise at the same index, shape (n, R, F).
    degree, gamma, coef0
        As in :func:`kid`.

    Returns
    -------
    Distance
        In the unit of the kernel.

    Raises
    ------
    ValueError
        If shapes do not fit, values are not finite or there are fewer than 4 starts.

    Examples
    --------
    >>> a = np.random.default_rng(0).normal(size=(100, 2, 3))
    >>> round(kid_between(a, a + [3.0, 0.0, 0.0], degree=1).estimate, 12)
    3.0
    """
    x, y = _paired(a, b)
    kernel = _polynomial(degree, gamma, coef0, x.shape[2])
    cross = _gram(x, y, *kernel)
    return _u_statistic(_gram(x, x, *kernel) + _gram(y, y, *kernel) - cross - cross.T)


def null_distance(truth: Population | ArrayLike, count: int, draws: int = NULL_DRAWS, seed: int = 0) -> NullDistance:
    """Return what perfect draws (with replacement) from the ground truth give for the plug-in Fréchet distance.

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


def _check_finite(x: Array) -> None:
    if not np.isfinite(x).all():
        raise ValueError("the features hold NaN or infinite values: remove or repair them")


def _checked(features: ArrayLike, width: int | None = None) -> Array:
    """Return features as float64 (n, R, F)."""
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 3 or (width is not None and x.shape[2] != width):
        expected = "features" if width is None else f"{width} features of the ground truth"
        raise ValueError(f"end points of shape {x.shape} do not fit: give (samples, repeats, {expected})")
    if len(x) < FEWEST:
        raise ValueError(f"{len(x)} starts are too few for a distance: give end points of at least {FEWEST}")
    _check_finite(x)
    return x


def _paired(a: ArrayLike, b: ArrayLike) -> tuple[Array, Array]:
    x, y = _checked(a), _checked(b)
    if x.shape != y.shape:
        raise ValueError(f"end points of shapes {x.shape} and {y.shape} cannot be paired: give two runs of the same plan")
    return x, y


def _modes(matrix: Array) -> tuple[Array, Array]:
    """Return the eigenvalues of a covariance that are not rounding, and their eigenvectors."""
    if not len(matrix):  # no direction in which both vary
        return np.zeros(0), np.zeros((0, 0))
    values, vectors = scipy.linalg.eigh(matrix, driver="evd", check_finite=False)
    kept = values > max(values[-1] * RANK_TOLERANCE, 0.0)
    return values[kept], vectors[:, kept]


def _covariance(rows: Array) -> Array:
    flat = rows.reshape(int(np.prod(rows.shape[:-1])), rows.shape[-1])
    product: Array = flat.T @ flat / len(flat)
    return product


def _one_sample(x: Array, population: Population) -> _Jackknife:
    """Return the jackknife of the distance of x (n, R, F) from the population."""
    y = (x - x.mean((0, 1))) @ population.root
    squares, vectors = _modes(_covariance(y))
    singular = np.sqrt(squares)
    # in the coordinates half way between the two Gaussians both covariances are diag(singular)
    change = _change([y @ (vectors / np.sqrt(singular))], singular)
    linear = ((x - population.mean) ** 2).sum(2).mean(1) + population.trace
    return _jackknife(float(linear.mean()), linear, float(singular.sum()), change, 0.5)


def _two_sample(x: Array, y: Array) -> _Jackknife:
    """Return the jackknife of the distance between x and y (n, R, F), paired."""
    n, share = len(x), float((x != y).any((1, 2)).mean())
    centre = (x.mean((0, 1)) + y.mean((0, 1))) / 2
    x, y = x - centre, y - centre
    mean, other_mean = x.mean((0, 1)), y.mean((0, 1))
    variances, axes = _modes(_covariance(y - other_mean))
    root = axes * np.sqrt(variances)
    u = (x - mean) @ root
    squares, vectors = _modes(_covariance(u))
    singular = np.sqrt(squares)
    v = (y - other_mean) @ (axes / np.sqrt(variances)) @ (vectors * np.sqrt(singular))
    change = _change([u @ (vectors / np.sqrt(singular)), v], singular)
    square = ((x**2).sum(2) + (y**2).sum(2)).mean(1)
    product = n * mean @ other_mean - ((n * mean - x.mean(1)) * (n * other_mean - y.mean(1))).sum(1) / (n - 1)
    level, trace = float(square.mean() - 2 * mean @ other_mean), float(singular.sum())
    return _jackknife(level, square - 2 * product, trace, change, 1.0, share)


def _jackknife(level: float, linear: Array, trace: float, change: Array, power: float, share: float = 1.0) -> _Jackknife:
    """Return the jackknife of level - 2 trace.

    ``linear`` are the pseudo-values of the level; without a start the trace is :math:`(n/(n-1))^{power}` (trace + change).
    ``share`` of the starts contributes to the bias, the others are equal pairs.
    """
    n = len(linear)
    roots = n * trace - (n - 1) * (n / (n - 1)) ** power * (trace + change)
    values = linear - 2 * roots
    bias = level - 2 * trace - float(values.mean())
    # the bias varies as well: to leading order with the size of the covariance, as the trace does
    if trace > 0:
        values = values - bias * (roots - roots.mean()) / trace
    # each value holds its start's part of the bias: a mixture of equal and other pairs spreads by that alone
    mixture = bias**2 * (1 - share) / share if share > 0 else 0.0
    return _Jackknife(level - 2 * trace, bias, values, max(float(values.var(ddof=1)) - mixture, 0.0) / n)


def _change(sides: list[Array], singular: Array) -> Array:
    r"""Return by how much :math:`\mathrm{tr}\,(C_1C_2)^{1/2}` changes when each start is taken out of one set or of both.

    ``sides``: centred rows (n, R, modes) in coordinates in which either covariance is diag(singular).
    """
    n, repeats, _ = sides[0].shape
    if not len(singular):
        return np.zeros(n)
    # without start i a covariance is n/(n-1) (C - rows^T rows): the mean moves, which weighs a start's mean more
    size, size_of_mean = 1 / np.sqrt(n * repeats), 1 / np.sqrt((n - 1) * repeats)
    sides = [size * rows + (size_of_mean - size) * rows.mean(1, keepdims=True) for rows in sides]
    tau = singular.max() * np.exp(NODES)
    same = singular[:, None] / (singular[:, None] ** 2 + tau**2)
    cross = tau / (singular[:, None] ** 2 + tau**2)
    order = repeats * len(sides)
    step = max(1, BLOCK_ELEMENTS // (order**2 * len(tau)))
    change = np.empty(n)
    for start in range(0, n, step):
        block = [(side, rows[start : start + step, repeat]) for side, rows in enumerate(sides) for repeat in range(repeats)]
        matrix = np.empty((order, order, len(block[0][1]), len(tau)))
        for i, (side, row) in enumerate(block):
            for j, (other_side, other_row) in enumerate(block[: i + 1]):
                if side == other_side:
                    matrix[i, j] = matrix[j, i] = float(i == j) - (row * other_row) @ same
                else:
                    matrix[i, j] = (row * other_row) @ cross
                    matrix[j, i] = -matrix[i, j]
        change[start : start + step] = _log_determinant(matrix) @ (singular.max() * WEIGHTS)
    return change


def _log_determinant(matrix: Array) -> Array:
    """Return the logarithm of determinants in [0, 1], of matrices along the first two axes."""
    if len(matrix) == 1:
        determinant: Array = matrix[0, 0]
    elif len(matrix) == 2:
        determinant = matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]
    else:
        determinant = np.linalg.det(np.moveaxis(matrix, (0, 1), (-2, -1)))
    # zero where the start alone spans a direction
    return np.log(np.maximum(determinant, np.finfo(np.float64).tiny))


def _dependence(x: Array) -> float:
    """Return the number of starts over the effective number of draws: 1 for equal repeats, 1/R for independent ones."""
    centered = x - x.mean((0, 1))
    gram = (centered @ centered.transpose(0, 2, 1)) ** 2
    floor = (_covariance(centered) ** 2).sum()
    alone = gram.diagonal(axis1=1, axis2=2).mean() - floor
    if x.shape[1] == 1 or not alone > 0:
        return 1.0
    return float(np.clip((gram.mean() - floor) / alone, 1 / x.shape[1], 1))


def _corrected(jackknife: _Jackknife, calibration: _Calibration, dependence: float, missing: float = 0.0) -> Distance:
    """Return the distance with its bias taken off: what the jackknife leaves of it is of order 1/n relative to it."""
    bias = (1 + (calibration.bias - 1) * dependence) * jackknife.bias
    second_order = calibration.variance * jackknife.bias**2
    return _distance(jackknife.values, jackknife.variance, jackknife.plug_in, bias, second_order, missing)


def _distance(values: Array, variance: float, plug_in: float, bias: float, second_order: float, missing: float) -> Distance:
    """Return the distance: pseudo-values (up to their mean) and their variance, plug-in value, its bias, variance at zero.

    The variance of the pseudo-values holds the second-order part twice. The variance of the distance grows with it: far from
    zero in proportion, near zero at twice the slope of a typical direction, which is the ratio of variance to bias; the estimate
    tells far from near to within its own error.
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


def _polynomial(degree: int, gamma: float | None, coef0: float, features: int) -> tuple[int, float, float]:
    if degree < 1:
        raise ValueError(f"degree {degree} makes no kernel: give a whole number of at least 1")
    return degree, 1 / features if gamma is None else gamma, coef0


def _kernel(rows: Array, columns: Array, degree: int, gamma: float, coef0: float) -> Array:
    """Return the polynomial kernel; by products, as a power of an array (scikit-learn's way) costs ten times as much."""
    base: Array = gamma * rows @ columns.T
    base += coef0
    kernel = base.copy()
    for _ in range(degree - 1):
        kernel *= base
    return kernel


def _gram(x: Array, y: Array, degree: int, gamma: float, coef0: float) -> Array:
    """Return the kernel between the starts of x and y, each (n, any number of repeats, F), averaged over these: (n, n)."""
    n, repeats, features = x.shape
    columns = y.reshape(-1, features)
    gram = np.empty((n, n))
    step = max(1, BLOCK_ELEMENTS // (repeats * len(columns)))
    for start in range(0, n, step):
        rows = x[start : start + step].reshape(-1, features)
        kernel = _kernel(rows, columns, degree, gamma, coef0)
        gram[start : start + step] = kernel.reshape(-1, repeats, n, y.shape[1]).mean((1, 3))
    return gram


def _embedding(rows: Array, points: Array, degree: int, gamma: float, coef0: float) -> Array:
    """Return the mean of the kernel between each row and all points."""
    step = max(1, BLOCK_ELEMENTS // len(points))
    blocks = (rows[start : start + step] for start in range(0, len(rows), step))
    return np.concatenate([_kernel(block, points, degree, gamma, coef0).mean(1) for block in blocks])


def _excess(gram: Array) -> float:
    """Return by how much a kernel between partners exceeds that between others, on average."""
    n = len(gram)
    partners = float(gram.trace()) / n
    return partners - (float(gram.sum()) - n * partners) / (n * (n - 1))


def _u_statistic(kernel: Array, missing: float = 0.0) -> Distance:
    """Return the mean of a symmetric kernel over pairs of different starts; kernel (n, n)."""
    n = len(kernel)
    plug_in = float(kernel.mean())
    apart = kernel.copy()
    np.fill_diagonal(apart, 0.0)
    sums = apart.sum(0)
    values = 2 * sums / (n - 1) - sums.sum() / (n * (n - 1))
    # double centring without the diagonal: its mean square is unbiased (Székely & Rizzo 2014)
    apart -= (sums + sums[:, None]) / (n - 2) - sums.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(apart, 0.0)
    second_order = 2 * float((apart**2).sum()) / (n * (n - 3)) / (n * (n - 1))
    return _distance(values, float(values.var(ddof=1)) / n, plug_in, plug_in - float(values.mean()), second_order, missing)
