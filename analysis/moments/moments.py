r"""Mean, covariance and spectrum of ground-truth samples, in float64.

.. math:: \mu = \frac1N\sum_n x_0^{(n)},\qquad \Sigma = \frac1N\sum_n (x_0^{(n)}-\mu)(x_0^{(n)}-\mu)^\top = U\Lambda U^\top

The division is by N: the ground-truth set *is* the population.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.linalg
import xarray as xr
from numpy.typing import NDArray

from gaussian_test.analysis.declarations import MOMENTS, declared
from gaussian_test.analysis.moments.running import CHUNK_ELEMENTS, chunks, moments_of, real

Shrinkage = Literal["ledoit_wolf", "oas"] | float | None
Array = NDArray[np.float64]

DRIVER: Literal["evd"] = "evd"  # divide and conquer: LAPACK's fastest for many modes, with or without vectors


@dataclass(frozen=True)
class Moments:
    """Mean and eigen factors of a covariance.

    Attributes
    ----------
    count : int
        Number of samples N.
    mean : ndarray
        float64, shape ``event_shape``.
    eigenvalues : ndarray
        float64, descending, nonnegative, shape (modes,); directions that are not listed have variance 0.
    eigenvectors : ndarray
        float64, orthonormal columns, shape (features, modes).
    """

    count: int
    mean: Array
    eigenvalues: Array
    eigenvectors: Array

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.mean.shape

    @property
    def trace(self) -> float:
        r"""Total variance :math:`\mathrm{tr}\,\Sigma`."""
        return float(self.eigenvalues.sum())

    def covariance(self) -> Array:
        r"""Return :math:`\Sigma = U\Lambda U^\top`, shape (features, features).

        Examples
        --------
        >>> fit_moments(np.array([[1.0, 0.0], [-1.0, 0.0]])).covariance().round(12).tolist()
        [[1.0, 0.0], [0.0, 0.0]]
        """
        product: Array = (self.eigenvectors * self.eigenvalues) @ self.eigenvectors.T
        return product

    def to_dataset(self, eigenvectors: bool = False) -> xr.Dataset:
        """Return the moments in the form of the archive.

        Parameters
        ----------
        eigenvectors : bool
            Whether to include them (features x modes numbers).

        Returns
        -------
        xarray.Dataset
            ``mean`` over the event's dimensions, ``eigenvalue(mode)``, and ``eigenvector(feature, mode)`` if requested.

        Examples
        --------
        >>> fit_moments(np.eye(3)).to_dataset().eigenvalue.sizes["mode"]
        2
        """
        values = {"mean": xr.DataArray(self.mean, dims=event_dims(len(self.event_shape))), "eigenvalue": self.eigenvalues}
        kept = values | ({"eigenvector": self.eigenvectors} if eigenvectors else {})
        return declared(MOMENTS, kept).assign_attrs(count=self.count, features=int(self.mean.size))


def evenly_spaced(count: int, most: int) -> NDArray[np.int64]:
    """Return at most ``most`` evenly spaced numbers below ``count``, including the first and the last.

    Parameters
    ----------
    count : int
        How many there are, at least 1.
    most : int
        Largest number to return, at least 1.

    Returns
    -------
    ndarray
        int64, ascending, distinct, shape (min(count, most),).

    Examples
    --------
    >>> evenly_spaced(10, 4).tolist(), evenly_spaced(2, 4).tolist()
    ([0, 3, 6, 9], [0, 1])
    """
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)


def whole_spectrum(moments: Moments) -> tuple[Array, Array]:
    r"""Return eigenvalues and mean along as many modes as features, with 0 for directions in which the data do not vary.

    Parameters
    ----------
    moments : Moments
        Mean and eigen factors, modes of variance 0 left out or not.

    Returns
    -------
    tuple of ndarray
        Eigenvalues, and coordinates of the mean along orthonormal modes, both (features,); outside the span of the listed modes
        the mean has equal coordinates.

    Examples
    --------
    >>> values, mean = whole_spectrum(Moments(2, np.array([3.0, 4.0]), np.array([2.0]), np.array([[1.0], [0.0]])))
    >>> values.tolist(), mean.tolist()
    ([2.0, 0.0], [3.0, 4.0])
    """
    center = moments.mean.reshape(-1)
    along = center @ moments.eigenvectors
    flat = center.size - len(along)
    rest = float((center**2).sum() - (along**2).sum())
    outside = np.full(flat, np.sqrt(max(rest, 0.0) / max(flat, 1)))
    return np.append(moments.eigenvalues, np.zeros(flat)), np.append(along, outside)


def event_dims(count: int) -> tuple[str, ...]:
    """Return the names of the dimensions of one sample: (feature) or (channel, row, column).

    Parameters
    ----------
    count : int
        Number of dimensions.

    Returns
    -------
    tuple of str

    Examples
    --------
    >>> event_dims(1)
    ('feature',)
    """
    named = {1: ("feature",), 3: ("channel", "row", "column")}
    return named.get(count, tuple(f"axis_{axis}" for axis in range(count)))


def fit_moments(x: Any, *, shrinkage: Shrinkage = None) -> Moments:
    r"""Return mean and spectrum of samples.

    Parameters
    ----------
    x : array
        Shape (N, ``*event``), N >= 2: numpy, torch, xarray, eager or lazy. Read once, in chunks; those of a dask array are summed
        wherever dask computes, with the same result under any of its schedulers.
    shrinkage : {None, "ledoit_wolf", "oas"} or float
        Shrink the covariance towards :math:`\frac{\mathrm{tr}\Sigma}{d}I` by scikit-learn's estimate or a given weight in
        [0, 1]. It changes the Gaussian score, so it is off by default.

    Returns
    -------
    Moments
        With ``min(features, N - 1)`` modes: where N < features the spectrum comes from the Gram matrix.

    Raises
    ------
    ValueError
        If there are fewer than two samples, they are constant or not finite, or the shrinkage is unknown.

    Examples
    --------
    >>> fit_moments(np.array([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])).eigenvalues.tolist()
    [4.5, 0.5]
    """
    count, features = _check_samples(x)
    if count <= features and shrinkage is None:
        mean, centered, values, left = _gram(x)
        vectors = _modes_of_gram(centered, values, left)
    else:
        mean, covariance = _covariance(x, features, shrinkage)
        values, vectors = scipy.linalg.eigh(covariance, driver=DRIVER, overwrite_a=True, check_finite=False)
        values, vectors = values[::-1].copy().clip(0), vectors[:, ::-1].copy()  # torch refuses negative strides
    _check_varied(values)
    return Moments(count, mean.reshape(x.shape[1:]), values, vectors)


def spectrum(x: Any, *, shrinkage: Shrinkage = None) -> Array:
    """Return only the eigenvalues of the covariance, which the Gaussian's closed forms need.

    For many features this takes about half the time of :func:`fit_moments`.

    Parameters
    ----------
    x, shrinkage
        As in :func:`fit_moments`.

    Returns
    -------
    ndarray
        As :attr:`Moments.eigenvalues`.

    Raises
    ------
    ValueError
        As :func:`fit_moments` does.

    Examples
    --------
    >>> spectrum(np.array([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])).tolist()
    [4.5, 0.5]
    """
    count, features = _check_samples(x)
    if count <= features and shrinkage is None:
        values = _gram(x, vectors=False)[2]
    else:
        covariance = _covariance(x, features, shrinkage)[1]
        ascending = scipy.linalg.eigvalsh(covariance, driver=DRIVER, overwrite_a=True, check_finite=False)
        values = np.asarray(ascending[::-1], dtype=np.float64).copy().clip(0)
    _check_varied(values)
    return values


def _check_samples(x: Any) -> tuple[int, int]:
    """Return the numbers of samples and of features."""
    count, features = int(x.shape[0]), int(np.prod(x.shape[1:]))
    if len(x.shape) < 2 or count < 2:
        raise ValueError(f"samples of shape {tuple(x.shape)} have no covariance: give (N, *event) with N >= 2")
    return count, features


def _check_varied(values: Array) -> None:
    if not values.sum() > 0:
        raise ValueError("the samples are all the same: the covariance is zero; give samples that vary")


def _covariance(x: Any, features: int, shrinkage: Shrinkage) -> tuple[Array, Array]:
    running = moments_of(x, features)
    covariance = shrink(running.covariance(), shrinkage, x)
    _check_finite(running.mean, covariance)
    return running.mean, covariance


def _check_finite(mean: Array, covariance: Array) -> None:
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise ValueError("the samples hold NaN or infinite values: remove or repair them")


def _gram(x: Any, vectors: bool = True) -> tuple[Array, Array, Array, Array]:
    """Return mean, centred samples, and the eigenvalues of their covariance with vectors of the N x N matrix of inner products."""
    count, features = _check_samples(x)
    centered, start = np.empty((count, features)), 0
    for chunk in chunks(x):
        centered[start : start + len(chunk)] = chunk
        start += len(chunk)
    mean = centered.mean(0)
    centered -= mean
    gram = centered @ centered.T / count
    _check_finite(mean, gram)
    left = np.empty((0, count))
    if vectors:
        values, left = scipy.linalg.eigh(gram, driver=DRIVER, overwrite_a=True, check_finite=False)
    else:
        values = np.asarray(scipy.linalg.eigvalsh(gram, driver=DRIVER, overwrite_a=True, check_finite=False), dtype=np.float64)
    # centring removes one direction, duplicates more: their eigenvectors would be rounding noise
    kept = np.flatnonzero(values > values[-1] * count * np.finfo(np.float64).eps)[::-1]
    return mean, centered, values[kept], left[:, kept]


def _modes_of_gram(centered: Array, values: Array, left: Array) -> Array:
    """Return the modes that samples span, largest first, in the samples' memory."""
    count, features = centered.shape
    left = left / np.sqrt(values * count)
    step = max(1, CHUNK_ELEMENTS // count)
    for first in range(0, features, step):
        centered[: len(values), first : first + step] = left.T @ centered[:, first : first + step]
    return centered[: len(values)].T


def shrink(covariance: Array, shrinkage: Shrinkage, x: Any) -> Array:
    """Return a covariance shrunk towards a multiple of the identity by scikit-learn's rules.

    Raises
    ------
    ValueError
        If the rule is unknown or the weight outside [0, 1].

    Examples
    --------
    >>> shrink(np.diag([3.0, 1.0]), 0.5, None).tolist()
    [[2.5, 0.0], [0.0, 1.5]]
    """
    if shrinkage is None:
        return covariance
    from sklearn.covariance import ledoit_wolf_shrinkage, oas, shrunk_covariance  # slow to import, and seldom used

    if isinstance(shrinkage, str):
        if shrinkage not in ("ledoit_wolf", "oas"):
            raise ValueError(f"shrinkage {shrinkage!r} is unknown: choose 'ledoit_wolf', 'oas', a number in [0, 1] or none")
        flat = real(x, np.float64).reshape(len(x), -1)
        weight = float(ledoit_wolf_shrinkage(flat) if shrinkage == "ledoit_wolf" else oas(flat)[1])
    else:
        weight = float(shrinkage)
        if not 0 <= weight <= 1:
            raise ValueError(f"shrinkage {weight:g} is not a weight: give a number in [0, 1]")
    shrunk: Array = shrunk_covariance(covariance, shrinkage=weight)
    return shrunk


def class_moments(x: Any, labels: Any, *, shrinkage: Shrinkage = None) -> list[tuple[int, Moments]]:
    """Return the moments of each class that has samples, for a class-conditional Gaussian or a mixture.

    Parameters
    ----------
    x : array
        Samples, shape (N, ``*event``), eager or lazy; read in chunks, class by class.
    labels : array
        Classes, shape (N,), integers from 0, at least two samples in each class present.
    shrinkage
        As in :func:`fit_moments`.

    Returns
    -------
    list of (int, Moments)
        Each class and its moments (``count`` is its size), in the order of the classes.

    Raises
    ------
    ValueError
        If the labels do not match or a class has fewer than two samples.

    Examples
    --------
    >>> [(label, m.count) for label, m in class_moments(np.array([[0.0], [1.0], [5.0], [6.0], [7.0]]), [0, 0, 2, 2, 2])]
    [(0, 2), (2, 3)]
    """
    classes = np.asarray(labels)
    if classes.shape != (x.shape[0],):
        raise ValueError(f"labels of shape {classes.shape} do not match {x.shape[0]} samples: give one label per sample")
    result = []
    for label in np.unique(classes):
        members = np.flatnonzero(classes == label)
        if len(members) < 2:
            raise ValueError(f"class {label} has {len(members)} samples: a covariance needs at least two; merge or drop the class")
        result.append((int(label), fit_moments(_Members(x, members), shrinkage=shrinkage)))
    return result


class _Members:
    """A subset of the samples, read on demand."""

    def __init__(self, x: Any, members: NDArray[np.int64]) -> None:
        self._x = x
        self._members = members
        self.shape: tuple[int, ...] = (len(members), *x.shape[1:])

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        return real(self._x[self._members[rows]])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)
