"""Where samples are kept: the protocol "read these samples as they are", and its holders for memory and plain files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Selection = slice | NDArray[np.intp]
"""Samples to read: a slice with a positive step, or a one-dimensional array of indices that are not negative."""


class Rows(Protocol):
    """Samples that are read by index, in the type they are stored in."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes, samples first."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored values."""

    def read(self, selection: Selection) -> Array:
        """Return the selected samples, (selected, ...); the caller must not write into them."""


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
    """Samples that lie uncompressed in a file, mapped into memory and so read page by page.

    The map is opened on first use and is left out of pickles and copies, which open it again from the path.

    Parameters
    ----------
    path : path-like
        The file; remembered as an absolute path, because the working folder may change before the samples are read.
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
        self._stored = (dtype, shape, offset, order, field)
        part = dtype if field is None else dtype[field]
        self.shape: tuple[int, ...] = shape + part.shape
        self.dtype: np.dtype[Any] = part.base
        self._map: Array | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_map": None}

    def read(self, selection: Selection) -> Array:
        """Return the selected samples, (selected, ...); a slice is a view of the file, not yet read."""
        if self._map is None:
            dtype, shape, offset, order, field = self._stored
            whole = np.memmap(self._path, dtype, "r", offset, shape, order)
            self._map = np.asarray(whole if field is None else whole[field])
        return self._map[selection]


class JoinedRows:
    """Several holders one after the other, such as the batches of a data set.

    Parameters
    ----------
    parts : sequence of Rows
        At least one, of equal type and equal shape but for the number of samples.

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
        """Return the selected samples, (selected, ...), reading each part at most once."""
        if isinstance(selection, slice):
            selection = np.arange(*selection.indices(self.shape[0]))
        out = np.empty((len(selection), *self.shape[1:]), self.dtype)
        owner = np.searchsorted(self._starts, selection, side="right") - 1
        for number in np.unique(owner):
            chosen = owner == number
            out[chosen] = self._parts[number].read(_as_slice(selection[chosen] - self._starts[number]))
        return out


def _as_slice(indices: NDArray[np.intp]) -> Selection:
    """Turn a run of consecutive indices into a slice, which files read faster."""
    if np.array_equal(indices, np.arange(indices[0], indices[0] + len(indices))):
        return slice(int(indices[0]), int(indices[0]) + len(indices))
    return indices


class ArrangedRows:
    """Samples in the order of axes that the rest of the package expects: (sample, channel, row, column).

    Parameters
    ----------
    rows : Rows
        Samples as they are stored.
    event : tuple of int
        Shape of one sample afterwards.
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

    Three axes are (sample, row, column) of one channel. Four axes have their channels last where the last length is
    1, 3 or 4 and the second is not; otherwise, and so in every ambiguous case, they have them first.

    Parameters
    ----------
    rows : Rows
        Samples with 2, 3 or 4 axes.

    Returns
    -------
    Rows
        Samples with 2 or 4 axes.

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
