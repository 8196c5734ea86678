r"""Mean, covariance and spectrum of ground-truth samples: one streaming pass, float64, any number of samples.

.. math:: \mu = \frac1N\sum_n x_0^{(n)},\qquad \Sigma = \frac1N\sum_n (x_0^{(n)}-\mu)(x_0^{(n)}-\mu)^\top = U\Lambda U^\top

The division is by N: the ground-truth set *is* the population.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

import numpy as np
import scipy.linalg
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from sklearn.covariance import ledoit_wolf_shrinkage, oas, shrunk_covariance

Shrinkage = Literal["ledoit_wolf", "oas"] | float | None
Array = NDArray[np.float64]

CHUNK_ELEMENTS = 2**22  # elements read at once: 32 MB in float64
SUBSET_ELEMENTS = 2**25  # elements of samples that are compared pair by pair
SCATTER_ELEMENTS, MOST_LANES = 2**25, 16  # of the sums that a dask array is reduced to at a time


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
        """Return the moments as the archive keeps them.

        Parameters
        ----------
        eigenvectors : bool
            Whether to include them (features x modes numbers).

        Returns
        -------
        xarray.Dataset
            ``mean`` over the event's dimensions, ``eigenvalue(mode)``, and ``eigenvector(feature, mode)`` where asked for.

        Examples
        --------
        >>> fit_moments(np.eye(3)).to_dataset().eigenvalue.sizes["mode"]
        2
        """
        dims = event_dims(len(self.event_shape))
        result = xr.Dataset(
            {
                "mean": (dims, self.mean, {"long_name": "mean of the ground-truth samples", "units": "1"}),
                "eigenvalue": (
                    "mode",
                    self.eigenvalues,
                    {"long_name": "eigenvalues of the ground-truth covariance", "units": "1", "comment": "divided by N"},
                ),
            },
            attrs={"count": self.count, "features": int(self.mean.size)},
        )
        if eigenvectors:
            result["eigenvector"] = (("feature", "mode"), self.eigenvectors, {"long_name": "eigenvectors", "units": "1"})
        return result


def evenly(count: int, most: int) -> NDArray[np.int64]:
    """Return at most so many of the numbers below a count, evenly spaced, the first and the last among them.

    Parameters
    ----------
    count : int
        How many there are, at least 1.
    most : int
        How many are wanted, at least 1.

    Returns
    -------
    ndarray
        int64, ascending, distinct, shape (min(count, most),).

    Examples
    --------
    >>> evenly(10, 4).tolist(), evenly(2, 4).tolist()
    ([0, 3, 6, 9], [0, 1])
    """
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)


def whole_spectrum(moments: Moments) -> tuple[Array, Array]:
    r"""Return eigenvalues and mean along as many modes as there are features, with 0 for directions in which the data do not vary.

    Parameters
    ----------
    moments : Moments
        Mean and eigen factors, modes of variance 0 left out or not.

    Returns
    -------
    tuple of ndarray
        Eigenvalues, and coordinates of the mean along orthonormal modes, both (features,); outside the span of the listed modes
        these are such that the mean has equal coordinates.

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


class RunningMoments:
    """Streaming, mergeable sums for mean and covariance.

    Chunks are centred on their own mean and combined pairwise (Chan, Golub & LeVeque 1979), so nothing cancels.

    Parameters
    ----------
    features : int
        Number of features.

    Examples
    --------
    >>> running = RunningMoments(1)
    >>> running.update(np.array([[0.0], [2.0]])); running.update(np.array([[4.0]]))
    >>> running.mean.tolist(), running.count
    ([2.0], 3)
    """

    def __init__(self, features: int) -> None:
        self.count = 0
        self.mean: Array = np.zeros(features)
        self.scatter: Array = np.zeros((features, features))

    def update(self, chunk: ArrayLike) -> None:
        """Add samples, shape (n, features).

        Examples
        --------
        >>> running = RunningMoments(2); running.update(np.eye(2)); running.count
        2
        """
        block = np.array(chunk, dtype=np.float64)
        if block.ndim != 2 or block.shape[1] != len(self.mean):
            raise ValueError(f"a chunk of shape {block.shape} does not fit {len(self.mean)} features: give (samples, features)")
        if not len(block):
            return
        mean = block.mean(0)
        block -= mean
        # numpy sees the product of a matrix with its own transpose and computes one triangle only
        self._combine(len(block), mean, block.T @ block)

    def merge(self, other: RunningMoments) -> None:
        """Add what another pass has summed.

        Examples
        --------
        >>> left, right = RunningMoments(1), RunningMoments(1)
        >>> left.update([[1.0]]); right.update([[3.0]]); left.merge(right)
        >>> left.covariance().tolist()
        [[1.0]]
        """
        if len(other.mean) != len(self.mean):
            raise ValueError(f"moments of {len(other.mean)} and {len(self.mean)} features cannot be merged: use the same features")
        self._combine(other.count, other.mean, other.scatter.copy())

    def _combine(self, count: int, mean: Array, scatter: Array) -> None:
        if not count:
            return
        total = self.count + count
        shift = mean - self.mean
        scatter += self.scatter
        if self.count:
            scatter += np.outer(shift, shift * (self.count * count / total))
        self.scatter = scatter
        self.mean = self.mean + shift * (count / total)
        self.count = total

    def covariance(self) -> Array:
        r"""Return :math:`\Sigma`, divided by the count.

        Raises
        ------
        ValueError
            If no sample has been added.

        Examples
        --------
        >>> running = RunningMoments(1); running.update([[0.0], [2.0]]); running.covariance().tolist()
        [[1.0]]
        """
        if not self.count:
            raise ValueError("no sample has been added: update with samples first")
        return self.scatter / self.count


def chunks(x: Any) -> Iterator[NDArray[Any]]:
    """Yield samples (n, features) from any array, lazily read sources chunk by chunk.

    Examples
    --------
    >>> [chunk.shape for chunk in chunks(np.zeros((3, 1, 2, 2)))]
    [(3, 4)]
    """
    features = int(np.prod(x.shape[1:]))
    step = max(1, CHUNK_ELEMENTS // max(features, 1))
    for start in range(0, x.shape[0], step):
        yield np.asarray(x[start : start + step]).reshape(-1, features)


def fit_moments(x: Any, shrinkage: Shrinkage = None) -> Moments:
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
    count, features = x.shape[0], int(np.prod(x.shape[1:]))
    if len(x.shape) < 2 or count < 2:
        raise ValueError(f"samples of shape {tuple(x.shape)} have no covariance: give (N, *event) with N >= 2")
    if count <= features and shrinkage is None:
        mean, values, vectors = _gram_route(x, count, features)
    else:
        running = _dask_moments(x, features) if _is_dask(x) else _with_samples(RunningMoments(features), x)
        mean = running.mean
        covariance = shrink(running.covariance(), shrinkage, x)
        _check_finite(mean, covariance)
        values, vectors = scipy.linalg.eigh(covariance, driver="evd", overwrite_a=True, check_finite=False)
        order = np.argsort(values)[::-1]
        values, vectors = np.clip(values[order], 0, None), np.ascontiguousarray(vectors[:, order])
    if not values.sum() > 0:
        raise ValueError("the samples are all the same: the covariance is zero; give samples that vary")
    return Moments(count, mean.reshape(x.shape[1:]), values, vectors)


def _check_finite(mean: Array, covariance: Array) -> None:
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise ValueError("the samples hold NaN or infinite values: remove or repair them")


def _gram_route(x: Any, count: int, features: int) -> tuple[Array, Array, Array]:
    """Return mean and the N - 1 modes that N samples span, largest first, from the N x N matrix of their inner products.

    The modes are as many numbers as the samples, and take their place: nothing else of that size is held.
    """
    centered, start = np.empty((count, features)), 0
    for chunk in chunks(x):
        centered[start : start + len(chunk)] = chunk
        start += len(chunk)
    mean = centered.mean(0)
    centered -= mean
    gram = centered @ centered.T / count
    _check_finite(mean, gram)
    values, left = scipy.linalg.eigh(gram, driver="evd", overwrite_a=True, check_finite=False)
    # centring takes one direction away, and duplicates more: their eigenvectors would be rounding noise
    kept = np.flatnonzero(values > values[-1] * count * np.finfo(np.float64).eps)[::-1]
    values, left = values[kept], left[:, kept] / np.sqrt(values[kept] * count)
    step = max(1, CHUNK_ELEMENTS // count)
    for first in range(0, features, step):
        centered[: len(values), first : first + step] = left.T @ centered[:, first : first + step]
    return mean, values, centered[: len(values)].T


def _is_dask(x: Any) -> bool:
    dask = sys.modules.get("dask")  # who has a dask array has imported it
    return dask is not None and bool(dask.is_dask_collection(x))


def _dask_moments(x: Any, features: int) -> RunningMoments:
    """Sum the blocks of a dask array, in an order that depends on its blocks and on no scheduler.

    Consecutive blocks are added one after the other, in as many lanes as there may be scatter matrices at a time.
    """
    from dask.delayed import delayed

    array = x.data if isinstance(x, xr.DataArray) else x
    blocks, start = [], 0
    for size in array.chunks[0]:
        blocks.append(array[start : start + size])
        start += size
    count = min(len(blocks), int(np.clip(SCATTER_ELEMENTS // features**2, 1, MOST_LANES)))
    lanes = []
    for numbers in np.array_split(np.arange(len(blocks)), count):
        lane = delayed(RunningMoments)(features)
        for number in numbers:
            lane = delayed(_with_samples)(lane, blocks[number])
        lanes.append(lane)
    total: RunningMoments = reduce(delayed(_merged), lanes).compute()
    return total


def _with_samples(before: RunningMoments, x: Any) -> RunningMoments:
    running = copy.copy(before)  # whose arrays are replaced and never written to: dask may hand `before` out again
    for chunk in chunks(x):
        running.update(chunk)
    return running


def _merged(left: RunningMoments, right: RunningMoments) -> RunningMoments:
    running = copy.copy(left)
    running.merge(right)
    return running


def shrink(covariance: Array, shrinkage: Shrinkage, x: Any) -> Array:
    """Return a covariance shrunk towards a multiple of the identity by scikit-learn's rules.

    Parameters
    ----------
    covariance : ndarray
        Shape (features, features).
    shrinkage : {None, "ledoit_wolf", "oas"} or float
        Rule or weight.
    x : array
        The samples, which the rules look at; shape (N, ``*event``).

    Returns
    -------
    ndarray
        Shape (features, features).

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
    if isinstance(shrinkage, str):
        if shrinkage not in ("ledoit_wolf", "oas"):
            raise ValueError(f"shrinkage {shrinkage!r} is unknown: choose 'ledoit_wolf', 'oas', a number in [0, 1] or none")
        flat = np.asarray(x, dtype=np.float64).reshape(len(x), -1)
        weight = float(ledoit_wolf_shrinkage(flat) if shrinkage == "ledoit_wolf" else oas(flat)[1])
    else:
        weight = float(shrinkage)
        if not 0 <= weight <= 1:
            raise ValueError(f"shrinkage {weight:g} is not a weight: give a number in [0, 1]")
    shrunk: Array = shrunk_covariance(covariance, shrinkage=weight)
    return shrunk


def third_cumulant_norm(x: Any, mean: ArrayLike, limit: int = 4096, seed: int = 0) -> float:
    r"""Return the squared norm of the third cumulant: :math:`\|\kappa_3\|^2 = \frac{1}{N^2}\sum_{nm}(\tilde x_n\cdot\tilde x_m)^3`.

    It governs where a score becomes affine: to leading order at large noise
    :math:`\mathrm{lmmse} - \mathrm{mmse} = \|\kappa_3\|^2/2\nu^4`.

    Parameters
    ----------
    x : array
        Samples, shape (N, ``*event``).
    mean : array
        Their mean, shape ``event``.
    limit : int
        Above this number of samples the pairs are taken among a random subset, the diagonal among all. Where even these are more
        than 2**25 numbers (above 8192 features), they are the pairs within random groups of as many as that.
    seed : int
        Seed of the subset.

    Returns
    -------
    float
        In units of the data to the sixth power.

    References
    ----------
    Guo, Shamai & Verdú, IEEE Trans. Inf. Theory 51(4) (2005), on the expansion of the mmse at small signal-to-noise ratio.

    Examples
    --------
    >>> round(third_cumulant_norm(np.array([[2.0], [-1.0], [-1.0]]), [0.0]), 12)
    4.0
    """
    count = x.shape[0]
    center = np.asarray(mean, dtype=np.float64).reshape(-1)
    diagonal = sum(float((((chunk - center) ** 2).sum(1) ** 3).sum()) for chunk in chunks(x))
    random = np.random.default_rng(seed)
    chosen = np.arange(count) if count <= limit else random.choice(count, limit, replace=False)
    groups = -(-len(chosen) // max(2, SUBSET_ELEMENTS // len(center)))
    if groups > 1:
        random.shuffle(chosen)
    pairs, number = 0.0, 0
    for group in np.array_split(chosen, groups):
        some = np.asarray(x[np.sort(group)]).reshape(len(group), -1) - center
        for start in range(0, len(some), 512):
            pairs += float(((some[start : start + 512] @ some.T) ** 3).sum())
        pairs -= float(((some**2).sum(1) ** 3).sum())
        number += len(group) * (len(group) - 1)
    # of a subset, the estimate of a small norm can come out negative
    return max(float(diagonal / count**2 + pairs / number * (1 - 1 / count)), 0.0)
