"""Raw samples in memory or files, behind one protocol."""

import math
import os
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
MAPPED_BYTES = 2**24  # mapped at once where samples are scattered through the file
Selection = slice | NDArray[np.intp]
"""Samples to read: a slice with a positive step, or a one-dimensional array of nonnegative indices."""


class Rows(Protocol):
    """Samples read by index, in their stored type."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes, samples first."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored values."""

    def read(self, selection: Selection) -> Array:
        """Return the selected samples, (selected, ...); the caller must not modify them."""


class MemoryRows:
    """Samples held in memory.

    Parameters
    ----------
    array : numpy.ndarray
        Samples along the first axis.

    Examples
    --------
    >>> MemoryRows(np.arange(6).reshape(3, 2)).read(slice(1, 2))
    array([[2, 3]])
    """

    def __init__(self, array: Array) -> None:
        self._array = array
        self.shape: tuple[int, ...] = array.shape
        self.dtype: np.dtype[Any] = array.dtype

    def read(self, selection: Selection) -> Array:
        """Return the selected samples, (selected, ...)."""
        return self._array[selection]


class MappedRows:
    """Uncompressed samples in a file; each read maps only what it needs and keeps nothing open.

    Pages touched by a map count as process memory as long as the map exists; opening one takes some 30 microseconds.

    Parameters
    ----------
    path : path-like
        The file; stored as an absolute path, because the working folder may change before a read.
    dtype : numpy.dtype
        Type of one stored element, possibly a record.
    shape : tuple of int
        Shape of the stored array.
    offset : int
        Position of the first byte.
    order : {"C", "F"}
        Order of the axes in the file.
    field : str or None
        The field of a record that holds the samples.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "raw")
    ...     _ = path.write_bytes(bytes(range(6)))
    ...     MappedRows(path, np.dtype("u1"), (3, 2)).read(slice(2, 3)).tolist()
    [[4, 5]]
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        offset: int = 0,
        order: Literal["C", "F"] = "C",
        field: str | None = None,
    ) -> None:
        self._path = os.path.abspath(path)
        self._stored = (dtype, shape, offset, "C" if len(shape) == 1 else order, field)
        part = dtype if field is None else dtype[field]
        self.shape: tuple[int, ...] = shape + part.shape
        self.dtype: np.dtype[Any] = part.base

    def read(self, selection: Selection) -> Array:
        """Return the selected samples, (selected, ...); a slice of a file in C order is a view of it, not yet read.

        Raises
        ------
        IndexError
            If there is no such sample.
        OSError
            If the file has become shorter.
        """
        _, (count, *_), _, order, field = self._stored
        if not isinstance(selection, slice) and len(selection) and not 0 <= selection.min() <= selection.max() < count:
            raise IndexError(f"samples {selection.min()} to {selection.max()} were asked for, of {count} in {self._path}")
        if order == "F":
            records = self._scattered(selection)
        elif isinstance(selection, slice):
            records = self._slice(selection)
        else:
            records = self._gathered(selection)
        return records if field is None else records[field]

    def _slice(self, selection: slice) -> Array:
        dtype, shape, offset, _, _ = self._stored
        picked = range(*selection.indices(shape[0]))
        if not picked:
            return np.empty((0, *shape[1:]), dtype)
        start = offset + picked[0] * dtype.itemsize * math.prod(shape[1:])
        part = np.memmap(self._path, dtype, "r", start, (picked[-1] + 1 - picked[0], *shape[1:]))
        return np.asarray(part[:: picked.step])

    def _gathered(self, selection: NDArray[np.intp]) -> Array:
        """Read run by run: a map would also touch the neighbourhood of every sample."""
        dtype, shape, offset, _, _ = self._stored
        row_bytes = dtype.itemsize * math.prod(shape[1:])
        out = np.empty((len(selection), *shape[1:]), dtype)
        if not len(selection):
            return out
        raw = out.reshape(-1).view(np.uint8).data
        with open(self._path, "rb") as file:
            starts = np.flatnonzero(np.diff(selection, prepend=-2) != 1)
            for first, end in zip(starts, [*starts[1:], len(selection)], strict=True):
                file.seek(offset + int(selection[first]) * row_bytes)
                if file.readinto(raw[first * row_bytes : end * row_bytes]) != (end - first) * row_bytes:
                    raise OSError(f"{self._path} has become shorter since it was opened: restore the file")
        return out

    def _scattered(self, selection: Selection) -> Array:
        """Read a file in Fortran order, which stores each feature of all samples contiguously, some features at a time."""
        dtype, shape, offset, _, _ = self._stored
        count, numbers = shape[0], math.prod(shape[1:])
        chosen = np.arange(count)[selection]
        out = np.empty((numbers, len(chosen)), dtype)
        step = max(1, MAPPED_BYTES // (count * dtype.itemsize))
        for start in range(0, numbers, step):
            stop = min(start + step, numbers)
            part = np.memmap(self._path, dtype, "r", offset + start * count * dtype.itemsize, (stop - start, count))
            out[start:stop] = part[:, selection]
        return out.reshape(*shape[:0:-1], len(chosen)).T


class JoinedRows:
    """Concatenated rows, such as the batches of a data set.

    Parameters
    ----------
    parts : sequence of Rows
        At least one, of equal type and equal shape except for the number of samples.

    Examples
    --------
    >>> parts = [MemoryRows(np.array([[1], [2]])), MemoryRows(np.array([[3]]))]
    >>> JoinedRows(parts).read(np.array([2, 0])).ravel()
    array([3, 1])
    """

    def __init__(self, parts: Sequence[Rows]) -> None:
        self._parts = list(parts)
        self._starts = np.cumsum([0] + [part.shape[0] for part in parts])
        self.shape: tuple[int, ...] = (int(self._starts[-1]), *parts[0].shape[1:])
        self.dtype: np.dtype[Any] = parts[0].dtype

    def read(self, selection: Selection) -> Array:
        """Return the selected samples, (selected, ...), reading only the parts needed, each once."""
        if isinstance(selection, slice):
            selection = np.arange(*selection.indices(self.shape[0]))
        owner = np.searchsorted(self._starts, selection, side="right") - 1
        owners = np.unique(owner)
        if len(owners) == 1:  # nothing to join: return the part's own result, which may be a view
            return self._parts[int(owners[0])].read(_as_slice(selection - self._starts[owners[0]]))
        out = np.empty((len(selection), *self.shape[1:]), self.dtype)
        for number in owners:
            places = np.flatnonzero(owner == number)
            out[_as_slice(places)] = self._parts[number].read(_as_slice(selection[places] - self._starts[number]))
        return out


def _as_slice(indices: NDArray[np.intp]) -> Selection:
    """Turn a run of consecutive indices into a slice, which files read faster."""
    if np.array_equal(indices, np.arange(indices[0], indices[0] + len(indices))):
        return slice(int(indices[0]), int(indices[0]) + len(indices))
    return indices


class ArrangedRows:
    """Samples with the axes that the package expects: (sample, channel, row, column).

    Parameters
    ----------
    rows : Rows
        Samples in their stored form.
    event : tuple of int
        Shape of one sample after rearranging.
    channels_last : bool
        Whether the stored channels are the last axis.

    Examples
    --------
    >>> ArrangedRows(MemoryRows(np.zeros((5, 8, 9, 3))), (3, 8, 9), channels_last=True).read(slice(2)).shape
    (2, 3, 8, 9)
    """

    def __init__(self, rows: Rows, event: tuple[int, ...], *, channels_last: bool = False) -> None:
        self._rows = rows
        self._channels_last = channels_last
        self.shape: tuple[int, ...] = (rows.shape[0], *event)
        self.dtype: np.dtype[Any] = rows.dtype

    def read(self, selection: Selection) -> Array:
        """Return the selected samples, (selected, ...)."""
        block = self._rows.read(selection)
        if self._channels_last:
            block = np.moveaxis(block, -1, 1)
        return block.reshape(len(block), *self.shape[1:])


def as_images(rows: Rows) -> Rows:
    """Arrange images as (sample, channel, row, column); vectors, (sample, feature), stay as they are.

    Three axes are (sample, row, column) of one channel. Four axes have their channels last if the last length is 1, 3 or 4 and the
    second is not; otherwise, including every ambiguous case, first.

    Examples
    --------
    >>> [as_images(MemoryRows(np.zeros(shape))).shape for shape in [(9, 5), (9, 8, 8), (9, 8, 8, 3), (9, 3, 8, 4)]]
    [(9, 5), (9, 1, 8, 8), (9, 3, 8, 8), (9, 3, 8, 4)]
    """
    shape = rows.shape
    if len(shape) == 3:
        return ArrangedRows(rows, (1, *shape[1:]))
    channel_counts = (1, 3, 4)
    if len(shape) == 4 and shape[3] in channel_counts and shape[1] not in channel_counts:
        return ArrangedRows(rows, (shape[3], *shape[1:3]), channels_last=True)
    return rows
