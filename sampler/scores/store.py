"""Samples of an exact score: resident, bytes or streamed.

All forms return the same samples, bit for bit; they differ only in cost: memory, one conversion or one read per pass. (After a
change of dtype, a score with bytes rounds differently.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

READ_ELEMENTS = 2**20  # numbers read or summed at once: 8 MB in float64
CONVERTED_ELEMENTS = 2**17  # bytes converted at once on the CPU: with their doubles about 1 MB, to fit in a core's cache
Scaling = tuple[float, float]

BLOCK = 32  # samples per block of the two-stage draw
MOST_BLOCKS = 2**13
SAMPLE_ELEMENTS = 2**21  # elements of a tile of samples: 8 MB in float32, to stay in the last-level cache until the second product


class ResidentSamples:
    """Samples held in memory.

    Parameters
    ----------
    samples : Tensor
        Shape (N, features), on the device of the score.

    Examples
    --------
    >>> store = ResidentSamples(torch.tensor([[0.0], [1.0], [2.0]]))
    >>> store.tile(slice(1, 3)).tolist(), store.take(torch.tensor([2, 0, 2])).tolist()
    ([[1.0], [2.0]], [[2.0], [0.0], [2.0]])
    """

    def __init__(self, samples: Tensor) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def tile(self, rows: slice) -> Tensor:
        """Return consecutive samples, shape (rows, features)."""
        return self.samples[rows]

    def tiles(self, parts: Iterable[slice]) -> Iterator[Tensor]:
        """Yield consecutive samples, part by part; each is valid until the next."""
        return (self.samples[rows] for rows in parts)

    def take(self, index: Tensor) -> Tensor:
        """Return samples in any order and number, shape (``*index.shape``, features)."""
        return self.samples[index]


@dataclass(frozen=True)
class ByteSamples:
    r"""Samples held in memory as bytes v, a quarter of float32: :math:`x = \mathrm{scale}\cdot v + \mathrm{offset}`.

    Parameters
    ----------
    values : Tensor
        uint8, shape (N, ``*event``), on the device of the score; not copied, and must not change while in use.
    dtype : torch.dtype
        float32 or float64, of the returned samples.
    scaling : tuple of float
        (scale, offset), applied in double precision, so each x is the nearest to the exact value.
    center : Tensor, optional
        What is subtracted, in this type and on this device, shape (features,). Default: nothing.

    Examples
    --------
    >>> store = ByteSamples(torch.tensor([[0], [51], [255]], dtype=torch.uint8), scaling=(2 / 255, -1.0))
    >>> store.tile(slice(0, 3)).tolist()
    [[-1.0], [-0.6000000238418579], [1.0]]
    """

    values: Tensor
    dtype: torch.dtype = torch.float32
    scaling: Scaling = (1.0, 0.0)
    center: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the samples: (N, ``*event``)."""
        return tuple(self.values.shape)

    def centered(self, center: Tensor) -> ByteSamples:
        """Return the same samples relative to a center, shape (features,)."""
        return replace(self, center=center)

    def tile(self, rows: slice) -> Tensor:
        """Return consecutive samples, shape (rows, features)."""
        return next(self.tiles([rows]))

    def tiles(self, parts: Iterable[slice]) -> Iterator[Tensor]:
        """Yield consecutive samples, part by part; each is valid until the next."""
        memory = self._memory(0)
        for rows in parts:
            values = self.values[rows].flatten(1)
            if len(memory) < len(values):
                memory = self._memory(len(values))
            yield self._converted(values, memory[: len(values)])

    def take(self, index: Tensor) -> Tensor:
        """Return samples in any order and number, shape (``*index.shape``, features)."""
        values = self.values.flatten(1)[index.reshape(-1)]
        return self._converted(values, self._memory(len(values))).reshape(*index.shape, -1)

    def _memory(self, count: int) -> Tensor:
        return torch.empty(count, math.prod(self.shape[1:]), dtype=self.dtype, device=self.values.device)

    def _converted(self, values: Tensor, out: Tensor) -> Tensor:
        """Convert bytes (n, features), on the CPU in parts that stay in cache."""
        scale, offset = self.scaling
        step = max(1, CONVERTED_ELEMENTS // out.shape[1]) if out.device.type == "cpu" else max(1, len(out))
        exact = None if self.scaling == (1.0, 0.0) else torch.empty_like(out[:step], dtype=torch.float64)
        for start in range(0, len(out), step):
            part, some = out[start : start + step], values[start : start + step]
            part.copy_(some if exact is None else exact[: len(part)].copy_(some).mul_(scale).add_(offset))
            if self.center is not None:
                part -= self.center
        return out


@dataclass(frozen=True)
class StreamedSamples:
    """Samples that stay in their source and are read on demand.

    A copy shares the source. A pickle contains the pickled source: the path of a lazily opened xarray object, but all numbers of a
    numpy memory map.

    Parameters
    ----------
    source : array
        Shape (N, ``*event``), indexed by slices and integer arrays: a memory map, a lazily indexed xarray object, a dask array.
        It must not change while in use.
    dtype : torch.dtype
        float32 or float64: what the samples are converted to before they are centred.
    center : Tensor, optional
        What is subtracted, in this type and on the CPU, shape (features,). Default: nothing.
    device : torch.device
        Device of the returned samples.
    given_as : torch.dtype, optional
        Their dtype. Default: the dtype of centring.

    Examples
    --------
    >>> store = StreamedSamples(np.array([[0], [1], [2]], "uint8"), torch.float32)
    >>> store.tile(slice(1, 3)).tolist(), store.take(torch.tensor([2, 0, 2])).tolist()
    ([[1.0], [2.0]], [[2.0], [0.0], [2.0]])
    """

    source: Any
    dtype: torch.dtype
    center: Tensor | None = None
    device: torch.device | str = "cpu"
    given_as: torch.dtype | None = None

    def __len__(self) -> int:
        return int(self.source.shape[0])

    def __deepcopy__(self, memo: dict[int, Any]) -> StreamedSamples:
        return self  # it is never modified, nor is its source

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the source: (N, ``*event``)."""
        return tuple(int(size) for size in self.source.shape)

    def centered(self, center: Tensor) -> StreamedSamples:
        """Return the same samples relative to a center, shape (features,)."""
        return replace(self, center=center.cpu())

    def to(self, device: torch.device, dtype: torch.dtype) -> StreamedSamples:
        """Return the same samples for another device and dtype, converted after centring, as in a moved score."""
        return replace(self, device=device, given_as=dtype)

    def tile(self, rows: slice) -> Tensor:
        """Return consecutive samples, shape (rows, features)."""
        return next(self.tiles([rows]))

    def tiles(self, parts: Iterable[slice]) -> Iterator[Tensor]:
        """Yield consecutive samples, part by part; each is valid until the next."""
        memory = self._memory(0)
        for rows in parts:
            numbers = np.arange(*rows.indices(len(self)))
            if len(memory) < len(numbers):
                memory = self._memory(len(numbers))
            yield self._read(numbers, memory[: len(numbers)])

    def take(self, index: Tensor) -> Tensor:
        """Return samples in any order and number, shape (``*index.shape``, features); each is read once."""
        wanted, place = np.unique(index.cpu().numpy(), return_inverse=True)
        return self._read(wanted, self._memory(len(wanted)))[torch.from_numpy(place.reshape(index.shape)).to(self.device)]

    def _memory(self, count: int) -> Tensor:
        return torch.empty(count, math.prod(self.shape[1:]), dtype=self.dtype)

    def _read(self, rows: NDArray[np.int64], out: Tensor) -> Tensor:
        """Read samples by ascending index into memory of the same size."""
        features, target = out.shape[1], out.numpy()
        for part in row_slices(len(rows), features):
            piece = to_tensor(self.source[_run(rows[part])]).cpu().numpy().reshape(-1, features)
            with np.errstate(over="ignore"):  # the score rejects infinities
                np.copyto(target[part], piece, casting="unsafe")
        if self.center is not None:
            out -= self.center
        return out.to(self.device, self.given_as)


@dataclass(frozen=True)
class ListedSamples:
    """Some samples of another form, taken when asked for.

    Examples
    --------
    >>> store = ListedSamples(ResidentSamples(torch.tensor([[0.0], [1.0], [2.0]])), torch.tensor([0, 2]))
    >>> store.tile(slice(1, 2)).tolist(), store.take(torch.tensor([1, 0])).tolist()
    ([[2.0]], [[2.0], [0.0]])
    """

    store: ResidentSamples | ByteSamples | StreamedSamples
    index: Tensor  # int64

    def __len__(self) -> int:
        return len(self.index)

    def tile(self, rows: slice) -> Tensor:
        """Return consecutive samples of the list, shape (rows, features)."""
        return self.store.take(self.index[rows])

    def tiles(self, parts: Iterable[slice]) -> Iterator[Tensor]:
        """Yield consecutive samples, part by part."""
        return map(self.tile, parts)

    def take(self, index: Tensor) -> Tensor:
        """Return samples in any order and number, shape (``*index.shape``, features)."""
        return self.store.take(self.index[index])


Store = ResidentSamples | ByteSamples | StreamedSamples | ListedSamples


def row_slices(count: int, features: int) -> Iterator[slice]:
    """Yield slices of samples to read or sum at once, the same for every form.

    Examples
    --------
    >>> [part.start for part in row_slices(1200, 2048)]
    [0, 512, 1024]
    """
    step = max(1, READ_ELEMENTS // max(features, 1))
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def mean_of(store: Store, features: int) -> Tensor:
    """Return the mean of samples, summed in float64.

    Examples
    --------
    >>> mean_of(ResidentSamples(torch.tensor([[0.0], [1.0]])), 1)
    tensor([0.5000], dtype=torch.float64)
    """
    parts = (part.sum(0) for part in _in_float64(store, features))
    total = next(parts)
    for part in parts:
        total += part
    return total / len(store)


def half_square_norm(store: Store, features: int) -> Tensor:
    r"""Return :math:`|x_n|^2/2` of every sample, summed in float64.

    Examples
    --------
    >>> half_square_norm(ResidentSamples(torch.tensor([[3.0, 4.0]])), 2)
    tensor([12.5000], dtype=torch.float64)
    """
    return torch.cat([part.square_().sum(1) / 2 for part in _in_float64(store, features)])


def _in_float64(store: Store, features: int) -> Iterator[Tensor]:
    """Yield all samples in float64; each part is valid until the next, and may be modified."""
    memory = torch.empty(0)
    for tile in store.tiles(row_slices(len(store), features)):
        if len(memory) < len(tile):
            memory = torch.empty(tile.shape, dtype=torch.float64, device=tile.device)
        yield memory[: len(tile)].copy_(tile)


def _run(rows: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """Turn consecutive ascending indices into a slice, which every source reads faster."""
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def _check_real(dtype: object) -> None:
    if "complex" in str(dtype):
        raise ValueError(f"samples of type {dtype} are complex: give real ones, such as real and imaginary part as features")


def to_tensor(values: Any) -> Tensor:
    """Return any array as a CPU tensor; return tensors unchanged, without their gradients.

    Raises ValueError for complex numbers, of which torch drops a half.
    """
    if isinstance(values, Tensor):
        _check_real(values.dtype)
        return values.detach()
    array = np.asarray(values)
    _check_real(array.dtype)
    # torch rejects foreign byte order, and warns for read-only arrays
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=not array.flags.writeable))


def row_chunks(count: int, size: int) -> Iterator[slice]:
    """Yield slices of at most ``size`` rows."""
    return (slice(start, start + size) for start in range(0, count, size))


def rows_of(variance: Tensor, rows: slice | Tensor) -> Tensor:
    """Return the values of some rows, or the common value."""
    return variance if variance.ndim == 0 else variance[rows]


def block_size(count: int, features: int) -> int:
    """Return the block size of the draw: larger for many samples, so that the number of blocks stays small."""
    size = BLOCK
    while count > MOST_BLOCKS * size and 2 * size * features <= SAMPLE_ELEMENTS:
        size *= 2
    return size


def joined(parts: list[tuple[slice | Tensor, Tensor]], count: int) -> Tensor:
    """Put the values of all rows, given part by part, into one tensor."""
    if len(parts) == 1:
        return parts[0][1]
    out = parts[0][1].new_empty(count, *parts[0][1].shape[1:])
    for rows, values in parts:
        out[rows] = values
    return out
