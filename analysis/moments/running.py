r"""Streaming, mergeable sums for mean and covariance.

.. math:: \mu = \frac1N\sum_n x_n,\qquad S = \sum_n (x_n-\mu)(x_n-\mu)^\top

Third cumulant of samples: the leading departure of a score from the Gaussian one at large noise.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from functools import reduce
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.linalg.blas import dsyr, dsyrk, ssyrk

Array = NDArray[np.float64]

CHUNK_ELEMENTS = 2**22  # elements read at once: 32 MB in float64
CHUNK_BYTES = 2**25  # of samples that are bytes
SCATTER_ELEMENTS, MOST_LANES = 2**25, 16  # of the partial sums of a dask array held at once
EXACT = 2**24  # float32 is exact for integers, and their sums, below it
SAFE_ROWS = EXACT // 255**2  # of differences of bytes: their squares always sum to less than EXACT
MOST_ROWS = 2**12  # rows of bytes multiplied at once
PANEL = 256  # columns of the triangle added at once


def real(values: Any, dtype: type | None = None) -> NDArray[Any]:
    """Return samples as an array: tensors without their gradients, and no complex numbers, of which numpy drops a half.

    Raises ValueError for complex numbers.

    Examples
    --------
    >>> real([1, 2], np.float64)
    array([1., 2.])
    """
    array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    if array.dtype.kind == "c":
        raise ValueError(f"samples of type {array.dtype} are complex: give real ones, such as real and imaginary part as features")
    return array if dtype is None else np.asarray(array, dtype)


class RunningMoments:
    r"""Streaming, mergeable sums for mean and covariance.

    Chunks are centred on their own mean and combined pairwise (Chan, Golub & LeVeque 1979), which avoids cancellation; only one
    triangle is computed. Samples of type uint8 or int8 are multiplied in float32, at twice the rate, in blocks so short that every
    sum is a whole number below :math:`2^{24}` and so exact.

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
        self._lower: Array = np.zeros((features, features), order="F")  # the lower triangle of S; the upper is arbitrary

    def update(self, chunk: ArrayLike) -> None:
        """Add samples, shape (n, features).

        Examples
        --------
        >>> running = RunningMoments(2); running.update(np.eye(2)); running.count
        2
        """
        values = real(chunk)
        if values.ndim != 2 or values.shape[1] != len(self.mean):
            raise ValueError(f"a chunk of shape {values.shape} does not fit {len(self.mean)} features: give (samples, features)")
        if _are_bytes(values):
            self._add_bytes(values)
            return
        step = max(1, CHUNK_ELEMENTS // max(values.shape[1], 1))
        for start in range(0, len(values), step):
            block = np.array(values[start : start + step], dtype=np.float64, order="C")
            mean = block.mean(0)
            block -= mean
            self._lower = dsyrk(1.0, block.T, beta=1.0, c=self._lower, lower=1, overwrite_c=1)
            self._combine(len(block), mean)

    def _add_bytes(self, values: NDArray[np.uint8] | NDArray[np.int8]) -> None:
        count, features = values.shape
        if not count:
            return
        # any integer is valid; one near the mean keeps sums of squares small and so blocks long
        origin = np.rint(values[:: -(-count // SAFE_ROWS)].mean(0)).astype(np.float32)
        product, sums = np.zeros((features, features), dtype=np.float32, order="F"), np.zeros(features)
        start, rows = 0, MOST_ROWS
        memory = np.empty((min(rows, count), features), dtype=np.float32)
        while start < count:
            some = values[start : start + rows]
            block = np.subtract(some, origin, out=memory[: len(some)])
            product = ssyrk(1.0, block.T, beta=0.0, c=product, lower=1, overwrite_c=1)
            # no sum of products exceeds the largest sum of squares (Cauchy-Schwarz), which may round above 2^24 but never back
            # below it
            if product.diagonal().max() >= EXACT and len(block) > SAFE_ROWS:
                rows = max(SAFE_ROWS, len(block) // 2)
                continue
            for left in range(0, features, PANEL):
                self._lower[left:, left : left + PANEL] += product[left:, left : left + PANEL]
            sums += block.sum(0)  # below 2^24 as well
            start += len(block)
        self._add_square(-1 / count, sums)
        self._combine(count, origin + sums / count)

    def merge(self, other: RunningMoments) -> None:
        """Add the sums of another pass.

        Examples
        --------
        >>> left, right = RunningMoments(1), RunningMoments(1)
        >>> left.update([[1.0]]); right.update([[3.0]]); left.merge(right)
        >>> left.covariance().tolist()
        [[1.0]]
        """
        if len(other.mean) != len(self.mean):
            raise ValueError(f"moments of {len(other.mean)} and {len(self.mean)} features cannot be merged: use the same features")
        if other.count:
            self._lower += other._lower
            self._combine(other.count, other.mean)

    def _combine(self, count: int, mean: Array) -> None:
        """Update count and mean for samples whose scatter about their own mean was added."""
        total = self.count + count
        shift = mean - self.mean
        if self.count:
            self._add_square(self.count * count / total, shift)
        self.mean = self.mean + shift * (count / total)
        self.count = total

    def _add_square(self, weight: float, vector: Array) -> None:
        self._lower = dsyr(weight, vector, lower=1, a=self._lower, overwrite_a=1)

    def copy(self) -> RunningMoments:
        """Return an independent copy.

        Examples
        --------
        >>> running = RunningMoments(1); running.copy().update([[1.0]]); running.count
        0
        """
        other = copy.copy(self)
        other._lower = self._lower.copy(order="F")  # the mean is never changed in place
        return other

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
        whole = self._lower / self.count
        for left in range(0, len(whole), PANEL):
            right = left + PANEL
            square = whole[left:right, left:right]
            square[:] = np.tril(square) + np.tril(square, -1).T
            whole[left:right, right:] = whole[right:, left:right].T
        return whole


def _are_bytes(x: Any) -> bool:
    return str(getattr(x, "dtype", "")).removeprefix("torch.") in ("uint8", "int8")


def chunks(x: Any, elements: int | None = None) -> Iterator[NDArray[Any]]:
    """Yield samples (n, features) of any array, reading lazy sources chunk by chunk.

    Examples
    --------
    >>> [chunk.shape for chunk in chunks(np.zeros((3, 1, 2, 2)))]
    [(3, 4)]
    """
    features = int(np.prod(x.shape[1:]))
    step = max(1, (elements or CHUNK_ELEMENTS) // max(features, 1))
    for start in range(0, x.shape[0], step):
        yield real(x[start : start + step]).reshape(-1, features)


def moments_of(x: Any, features: int) -> RunningMoments:
    """Sum all samples of an array; a dask array is summed on dask's workers.

    Examples
    --------
    >>> moments_of(np.eye(2), 2).mean.tolist()
    [0.5, 0.5]
    """
    dask = sys.modules.get("dask")  # a dask array implies that dask is imported
    if dask is not None and dask.is_dask_collection(x):
        return _dask_moments(x, features)
    return _with_samples(RunningMoments(features), x)


def _dask_moments(x: Any, features: int) -> RunningMoments:
    """Sum the blocks of a dask array in an order independent of the scheduler.

    Consecutive blocks are added sequentially, in as many lanes as scatter matrices may be held at once.
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
    running = before.copy()  # dask may reuse `before`
    if _are_bytes(x) and isinstance(x, np.ndarray):
        running.update(x.reshape(len(x), -1))  # update reads and converts block by block
        return running
    for chunk in chunks(x, CHUNK_BYTES if _are_bytes(x) else CHUNK_ELEMENTS):
        running.update(chunk)
    return running


def _merged(left: RunningMoments, right: RunningMoments) -> RunningMoments:
    running = left.copy()
    running.merge(right)
    return running


SUBSET_ELEMENTS = 2**25  # elements of samples in pairwise products


def third_cumulant_norm(x: Any, mean: ArrayLike, *, limit: int = 4096, seed: int = 0) -> float:
    r"""Return the squared norm of the third cumulant: :math:`\|\kappa_3\|^2 = \frac{1}{N^2}\sum_{nm}(\tilde x_n\cdot\tilde x_m)^3`.

    It determines where a score becomes affine: to leading order at large noise
    :math:`\mathrm{lmmse} - \mathrm{mmse} = \|\kappa_3\|^2/2\nu^4`.

    Parameters
    ----------
    x : array
        Samples, shape (N, ``*event``).
    mean : array
        Their mean, shape ``event``.
    limit : int
        With more samples than this, pairs come from a random subset and the diagonal from all. If the subset exceeds 2**25 numbers
        (above 8192 features), pairs come from random groups of at most that size.
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
        some = real(x[np.sort(group)]).reshape(len(group), -1) - center
        for start in range(0, len(some), 512):
            products = some[start : start + 512] @ some.T
            pairs += float((products * products * products).sum())  # numpy's power takes ten times as long
        pairs -= float(((some**2).sum(1) ** 3).sum())
        number += len(group) * (len(group) - 1)
    # on a subset, the estimate of a small norm can be negative
    return max(float(diagonal / count**2 + pairs / number * (1 - 1 / count)), 0.0)
