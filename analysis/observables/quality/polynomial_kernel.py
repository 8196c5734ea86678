r"""The polynomial kernel :math:`k(a,b) = (\gamma\,a\cdot b + c_0)^d` of features, in blocks of bounded size.

Every function takes degree, gamma and coef0: :math:`d`, :math:`\gamma`, :math:`c_0`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

BLOCK_ELEMENTS = 2**22  # of the kernel held at once


def polynomial(degree: int, gamma: float | None, coef0: float, features: int) -> tuple[int, float, float]:
    r"""Return the three numbers of the kernel, checked.

    Parameters
    ----------
    degree, gamma, coef0
        As given; None for a gamma of :math:`1/F`.
    features : int
        F.

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
    """Return the polynomial kernel; by products, as a power of an array (scikit-learn's way) costs ten times as much."""
    base: Array = gamma * rows @ columns.T
    base += coef0
    kernel = base.copy()
    for _ in range(degree - 1):
        kernel *= base
    return kernel


def gram_of_starts(x: Array, y: Array, degree: int, gamma: float, coef0: float) -> Array:
    """Return the kernel between the starts of two sets of end points, averaged over repeats.

    Parameters
    ----------
    x, y : ndarray
        Features, shape (n, R, F); the numbers of repeats may differ.
    degree, gamma, coef0
        Of the kernel.

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

    Parameters
    ----------
    rows, points : ndarray
        Features, shapes (n, F) and (N, F).
    degree, gamma, coef0
        Of the kernel.

    Examples
    --------
    >>> embedding(np.array([[2.0]]), np.array([[1.0], [3.0]]), 2, 1.0, 0.0).tolist()
    [20.0]
    """
    step = max(1, BLOCK_ELEMENTS // len(points))
    blocks = (rows[start : start + step] for start in range(0, len(rows), step))
    return np.concatenate([_kernel(block, points, degree, gamma, coef0).mean(1) for block in blocks])


def excess_of_partners(gram: Array) -> float:
    """Return by how much a kernel between partners exceeds that between others, on average.

    Parameters
    ----------
    gram : ndarray
        The kernel between two sets of starts, shape (n, n); partners are on the diagonal.

    Examples
    --------
    >>> excess_of_partners(np.array([[3.0, 1.0], [1.0, 3.0]]))
    2.0
    """
    n = len(gram)
    partners = float(gram.trace()) / n
    return partners - (float(gram.sum()) - n * partners) / (n * (n - 1))
