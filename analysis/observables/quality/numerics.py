r"""Numerics of the distances: Fréchet jackknife and polynomial kernel.

Exact delete-one-start jackknife of the Fréchet distance, and its calibration where the true distance is zero.

Its formula is that of :func:`gaussian_test.analysis.frechet`.

The polynomial kernel :math:`k(a,b) = (\gamma\,a\cdot b + c_0)^d` of features, in blocks of bounded size.

Every function takes degree, gamma and coef0: :math:`d`, :math:`\gamma`, :math:`c_0`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

STEP = 0.5  # of the trapezoid rule in log(tau), whose error is exp(-pi^2/STEP), 3e-9
NODES = np.arange(-14.0, 7.01, STEP)
# tau times the integrand scales as tau below the nodes and as 1/tau above: sum these tails as geometric series
WEIGHTS = np.exp(NODES) * STEP / np.pi / np.where(np.isin(NODES, NODES[[0, -1]]), 1 - np.exp(-STEP), 1.0)
RANK_TOLERANCE = 1e-14  # an eigenvalue below this part of the largest is rounding
FEWEST = 4  # starts: the second-order variance divides by n - 3
BLOCK_ELEMENTS = 2**22  # of determinants held at once


@dataclass(frozen=True)
class Jackknife:
    """Plug-in distance, its jackknife bias, the pseudo-values of the distance without that bias, and their variance."""

    plug_in: float
    bias: float
    values: Array
    variance: float


@dataclass(frozen=True)
class Calibration:
    """Jackknife ratios where the true distance is zero: true over estimated bias, variance over squared bias."""

    bias: float
    variance: float
    plug_in: Array

    @classmethod
    def of(cls, draws: list[Jackknife]) -> Calibration:
        """Return the calibration from jackknives of sets whose true distance is zero.

        Examples
        --------
        >>> Calibration.of([Jackknife(plug_in, 0.1, np.zeros(4), 0.02) for plug_in in (0.1, 0.3)]).bias
        2.0
        """
        plug_in = np.array([draw.plug_in for draw in draws])
        bias = np.array([draw.bias for draw in draws])
        if not bias.mean() > 0:
            return cls(1.0, 0.0, plug_in)
        # a jackknife variance counts the second-order part twice, and the calibrated bias has an error too
        variance = np.mean([draw.variance for draw in draws]) / 2 * (1 + 1 / len(draws))
        return cls(float(plug_in.mean() / bias.mean()), float(variance / (bias**2).mean()), plug_in)


def one_sample(x: Array, mean: Array, root: Array, trace: float) -> Jackknife:
    """Return the jackknife of the distance of end points from a population.

    Examples
    --------
    >>> x = np.array([-1.0, 1.0, -1.0, 1.0])[:, None, None]
    >>> one_sample(x, np.array([3.0]), np.array([[1.0]]), 1.0).plug_in
    9.0
    """
    y = (x - x.mean((0, 1))) @ root
    squares, vectors = modes(covariance(y))
    singular = np.sqrt(squares)
    # in the coordinates half way between the two Gaussians both covariances are diag(singular)
    change = _change([y @ (vectors / np.sqrt(singular))], singular)
    linear = ((x - mean) ** 2).sum(2).mean(1) + trace
    return _jackknife(float(linear.mean()), linear, float(singular.sum()), change, 0.5)


def two_sample(x: Array, y: Array) -> Jackknife:
    """Return the jackknife of the distance between two sets of end points that are paired start by start.

    Examples
    --------
    >>> x = np.array([-1.0, 1.0, -1.0, 1.0])[:, None, None]
    >>> two_sample(x, x + 3).plug_in
    9.0
    """
    n, share = len(x), float((x != y).any((1, 2)).mean())
    centre = (x.mean((0, 1)) + y.mean((0, 1))) / 2
    x, y = x - centre, y - centre
    mean, other_mean = x.mean((0, 1)), y.mean((0, 1))
    variances, axes = modes(covariance(y - other_mean))
    root = axes * np.sqrt(variances)
    u = (x - mean) @ root
    squares, vectors = modes(covariance(u))
    singular = np.sqrt(squares)
    v = (y - other_mean) @ (axes / np.sqrt(variances)) @ (vectors * np.sqrt(singular))
    change = _change([u @ (vectors / np.sqrt(singular)), v], singular)
    square = ((x**2).sum(2) + (y**2).sum(2)).mean(1)
    product = n * mean @ other_mean - ((n * mean - x.mean(1)) * (n * other_mean - y.mean(1))).sum(1) / (n - 1)
    level, trace = float(square.mean() - 2 * mean @ other_mean), float(singular.sum())
    return _jackknife(level, square - 2 * product, trace, change, 1.0, share)


def _jackknife(level: float, linear: Array, trace: float, change: Array, power: float, share: float = 1.0) -> Jackknife:
    """Return the jackknife of level - 2 trace.

    ``linear`` are the pseudo-values of the level; with one start deleted the trace is :math:`(n/(n-1))^{power}` (trace + change).
    ``share`` of the starts contributes to the bias, the others are identical pairs.
    """
    n = len(linear)
    roots = n * trace - (n - 1) * (n / (n - 1)) ** power * (trace + change)
    values = linear - 2 * roots
    bias = level - 2 * trace - float(values.mean())
    # the bias varies too: to leading order with the size of the covariance, like the trace
    if trace > 0:
        values = values - bias * (roots - roots.mean()) / trace
    # each value includes its start's part of the bias: mixing identical and other pairs adds spread by itself
    mixture = bias**2 * (1 - share) / share if share > 0 else 0.0
    return Jackknife(level - 2 * trace, bias, values, max(float(values.var(ddof=1)) - mixture, 0.0) / n)


def _change(sides: list[Array], singular: Array) -> Array:
    r"""Return the change of :math:`\mathrm{tr}\,(C_1C_2)^{1/2}` when each start is deleted from one set or from both.

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
    """Return the logarithm of determinants in [0, 1], for matrices along the first two axes."""
    if len(matrix) == 1:
        determinant: Array = matrix[0, 0]
    elif len(matrix) == 2:
        determinant = matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]
    else:
        determinant = np.linalg.det(np.moveaxis(matrix, (0, 1), (-2, -1)))
    # zero if the start alone spans a direction
    return np.log(np.maximum(determinant, np.finfo(np.float64).tiny))


def modes(matrix: Array) -> tuple[Array, Array]:
    """Return the eigenvalues of a covariance above rounding, and their eigenvectors.

    Examples
    --------
    >>> modes(np.diag([0.0, 4.0]))[0].tolist()
    [4.0]
    """
    if not len(matrix):  # no direction in which both vary
        return np.zeros(0), np.zeros((0, 0))
    values, vectors = scipy.linalg.eigh(matrix, driver="evd", check_finite=False)
    kept = values > max(values[-1] * RANK_TOLERANCE, 0.0)
    return values[kept], vectors[:, kept]


def covariance(rows: Array) -> Array:
    """Return the covariance of centred rows.

    Examples
    --------
    >>> covariance(np.array([[-1.0], [1.0]])).tolist()
    [[1.0]]
    """
    flat = rows.reshape(int(np.prod(rows.shape[:-1])), rows.shape[-1])
    product: Array = flat.T @ flat / len(flat)
    return product


def dependence(x: Array) -> float:
    """Return the number of starts over the effective number of draws: 1 for equal repeats, 1/R for independent ones.

    Examples
    --------
    >>> dependence(np.repeat(np.arange(5.0)[:, None, None], 2, axis=1))
    1.0
    """
    centered = x - x.mean((0, 1))
    gram = (centered @ centered.transpose(0, 2, 1)) ** 2
    floor = (covariance(centered) ** 2).sum()
    alone = gram.diagonal(axis1=1, axis2=2).mean() - floor
    if x.shape[1] == 1 or not alone > 0:
        return 1.0
    return float(np.clip((gram.mean() - floor) / alone, 1 / x.shape[1], 1))


BLOCK_ELEMENTS = 2**22  # of the kernel matrix held at once


def polynomial(degree: int, gamma: float | None, coef0: float, features: int) -> tuple[int, float, float]:
    r"""Return the validated kernel parameters.

    Raises
    ------
    ValueError
        If the degree is less than 1.

    Examples
    --------
    >>> polynomial(3, None, 1.0, 4)
    (3, 0.25, 1.0)
    """
    if degree < 1:
        raise ValueError(f"degree {degree} makes no kernel: give a whole number of at least 1")
    return degree, 1 / features if gamma is None else gamma, coef0


def _kernel(rows: Array, columns: Array, degree: int, gamma: float, coef0: float) -> Array:
    """Return the polynomial kernel, by products: scikit-learn's array power costs ten times as much."""
    base: Array = gamma * rows @ columns.T
    base += coef0
    kernel = base.copy()
    for _ in range(degree - 1):
        kernel *= base
    return kernel


def gram_of_starts(x: Array, y: Array, degree: int, gamma: float, coef0: float) -> Array:
    """Return the kernel between the starts of two sets of end points, averaged over repeats.

    Examples
    --------
    >>> x = np.array([[[1.0], [3.0]], [[2.0], [2.0]]])
    >>> gram_of_starts(x, x, 1, 1.0, 0.0).tolist()
    [[4.0, 4.0], [4.0, 4.0]]
    """
    n, repeats, features = x.shape
    columns = y.reshape(-1, features)
    gram = np.empty((n, n))
    step = max(1, BLOCK_ELEMENTS // (repeats * len(columns)))
    for start in range(0, n, step):
        rows = x[start : start + step].reshape(-1, features)
        kernel = _kernel(rows, columns, degree, gamma, coef0)
        gram[start : start + step] = kernel.reshape(-1, repeats, n, y.shape[1]).mean((1, 3))
    return gram


def embedding(rows: Array, points: Array, degree: int, gamma: float, coef0: float) -> Array:
    """Return the mean of the kernel between each row and all points.

    Examples
    --------
    >>> embedding(np.array([[2.0]]), np.array([[1.0], [3.0]]), 2, 1.0, 0.0).tolist()
    [20.0]
    """
    step = max(1, BLOCK_ELEMENTS // len(points))
    blocks = (rows[start : start + step] for start in range(0, len(rows), step))
    return np.concatenate([_kernel(block, points, degree, gamma, coef0).mean(1) for block in blocks])


def excess_of_partners(gram: Array) -> float:
    """Return the mean excess of the kernel between partners over that between others.

    Examples
    --------
    >>> excess_of_partners(np.array([[3.0, 1.0], [1.0, 3.0]]))
    2.0
    """
    n = len(gram)
    partners = float(gram.trace()) / n
    return partners - (float(gram.sum()) - n * partners) / (n * (n - 1))


def checked(features: ArrayLike, width: int | None = None) -> Array:
    """Validate features of end points and return them as float64, shape (n, R, F).

    Examples
    --------
    >>> checked(np.ones((4, 2, 3), np.float32), 3).dtype
    dtype('float64')
    """
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 3 or (width is not None and x.shape[2] != width):
        expected = "features" if width is None else f"{width} features of the ground truth"
        raise ValueError(f"end points of shape {x.shape} do not fit: give (samples, repeats, {expected})")
    if len(x) < FEWEST:
        raise ValueError(f"{len(x)} starts are too few for a distance: give end points of at least {FEWEST}")
    check_finite(x)
    return x


def paired(a: ArrayLike, b: ArrayLike) -> tuple[Array, Array]:
    """Validate and return the features of two sets of end points paired start by start.

    Examples
    --------
    >>> [one.shape for one in paired(np.ones((4, 2, 3)), np.zeros((4, 2, 3)))]
    [(4, 2, 3), (4, 2, 3)]
    """
    x, y = checked(a), checked(b)
    if x.shape != y.shape:
        raise ValueError(f"end points of shapes {x.shape} and {y.shape} cannot be paired: give two runs of the same plan")
    return x, y


def check_finite(x: Array) -> None:
    """Raise if features are not finite."""
    if not np.isfinite(x).all():
        raise ValueError("the features hold NaN or infinite values: remove or repair them")
