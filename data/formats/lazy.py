"""Lazy xarray arrays of scaled samples."""

from typing import Any

import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing

from gaussian_test.data.formats.rows import Array, Rows, Selection
from gaussian_test.data.scaling import Precision, Scaling

BLOCK_VALUES = 2**20  # values read and scaled at a time; bounds the double-precision copy to 8 MB


class ScaledArray(BackendArray):
    """Scaled samples; indexing reads the selected samples only.

    Parameters
    ----------
    rows : Rows
        Raw samples, (sample, feature) or (sample, channel, row, column).
    scaling : Scaling
        The map of the values.
    dtype : {"float32", "float64"}
        Of the scaled samples.

    Examples
    --------
    >>> from gaussian_test.data.formats.rows import MemoryRows
    >>> import xarray
    >>> rows = MemoryRows(np.array([[0, 255], [255, 0], [51, 204]], "uint8"))
    >>> array = ScaledArray(rows, Scaling.of_range(0, 255, "pixels"))
    >>> x = xarray.Variable(("sample", "feature"), indexing.LazilyIndexedArray(array))
    >>> x.isel(sample=1).values
    array([ 1., -1.], dtype=float32)
    """

    def __init__(self, rows: Rows, scaling: Scaling, dtype: Precision = "float32") -> None:
        self._rows = rows
        self._scaling = scaling
        self.shape: tuple[int, ...] = rows.shape
        self._precision: Precision = dtype
        self.dtype: np.dtype[Any] = np.dtype(dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> Array:
        samples, event = key[0], key[1:]
        if isinstance(samples, (int, np.integer)):
            return np.asarray(self._read((slice(int(samples), int(samples) + 1), *event))[0])
        count = len(range(*samples.indices(self.shape[0]))) if isinstance(samples, slice) else len(samples)
        step = max(1, BLOCK_VALUES // max(1, int(np.prod(self.shape[1:]))))
        out = np.empty((count, *_outer(np.empty((0, *self.shape[1:]), np.bool_), event).shape[1:]), self.dtype)
        for start in range(0, count, step):
            stop = min(start + step, count)
            block = self._rows.read(_part(samples, start, stop, self.shape[0]))
            out[start:stop] = self._scaling.apply(_outer(block, event), self._precision)
        return out


def _part(samples: Selection, start: int, stop: int, length: int) -> Selection:
    """Return the selected samples from number `start` to `stop`."""
    if isinstance(samples, slice):
        picked = range(*samples.indices(length))[start:stop]
        return slice(picked.start, picked.stop, picked.step)
    return samples[start:stop]


def _outer(block: Array, event: tuple[Any, ...]) -> Array:
    """Index each axis after the first independently (orthogonally)."""
    for axis in reversed(range(len(event))):  # last axis first: an integer drops its axis and must not shift the others
        block = block[(slice(None),) * (axis + 1) + (event[axis],)]
    return block
