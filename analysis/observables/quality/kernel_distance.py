r"""Squared maximum mean discrepancy (MMD) of a polynomial kernel between end points and the ground truth, or between two runs.

.. math:: \mathrm{MMD}^2 = E\,k(x,x') - 2E\,k(x,y) + E\,k(y,y')

A U-statistic over pairs of different starts, so without bias.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gaussian_test.analysis.observables.quality.distances import Distance, Population, distance_from
from gaussian_test.analysis.observables.quality.numerics import (
    checked,
    embedding,
    excess_of_partners,
    gram_of_starts,
    paired,
    polynomial,
)

Array = NDArray[np.float64]


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
    x = checked(features, population.features.shape[1])
    kernel = polynomial(degree, gamma, coef0, x.shape[2])
    embedded = embedding(x.reshape(-1, x.shape[2]), population.features, *kernel).reshape(x.shape[:2]).mean(1)
    gram = gram_of_starts(x, x, *kernel)
    missing = 0.0
    if starts is not None:
        origin = population.select(starts, len(x))
        own, joint = (excess_of_partners(gram_of_starts(side, origin, *kernel)) for side in (origin, x))
        missing = population.depleted(joint, excess_of_partners(gram), own, len(x))
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
    x, y = paired(a, b)
    kernel = polynomial(degree, gamma, coef0, x.shape[2])
    cross = gram_of_starts(x, y, *kernel)
    return _u_statistic(gram_of_starts(x, x, *kernel) + gram_of_starts(y, y, *kernel) - cross - cross.T)


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
    return distance_from(values, float(values.var(ddof=1)) / n, plug_in, plug_in - float(values.mean()), second_order, missing)
