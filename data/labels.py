"""Classes of the samples: integers 0 to K-1 and a name for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gaussian_test.data.checks import DataError

WHOLE = np.longdouble(2**53)  # up to here floats tell every whole number from the next; NaN compares as beyond


@dataclass(frozen=True)
class Labels:
    """Class of each sample, int64 (sample,), and the names of the classes, index by index."""

    values: NDArray[np.int64]
    names: tuple[str, ...]


def encode_labels(raw: ArrayLike, count: int, name: str, names: Sequence[str] | None = None) -> Labels:
    """Turn any integers or strings into classes 0 to K-1 with names.

    Integers that are 0 to K-1 already, or that index `names`, stay; everything else is numbered in sorted order and
    its original text becomes the name.

    Raises
    ------
    DataError
        If the number of labels is not `count`, or they are neither integers nor strings.

    Examples
    --------
    >>> encode_labels(["dog", "cat", "dog"], 3, "example")
    Labels(values=array([1, 0, 1]), names=('cat', 'dog'))
    """
    values = np.asarray(raw)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or len(values) != count:
        raise DataError(f"{name} have shape {values.shape} for {count} samples: expected one label per sample.")
    if values.dtype.kind == "O" and all(isinstance(value, str) for value in values):
        values = values.astype(str)
    elif values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    elif values.dtype.kind == "f" and (np.abs(values, dtype=np.longdouble) <= WHOLE).all() and (values == np.rint(values)).all():
        values = values.astype(np.int64)
    if values.dtype.kind not in "iubUT":
        raise DataError(f"{name} have dtype {values.dtype}: expected integers or strings, one class per sample.")
    classes, positions = np.unique(values, return_inverse=True)
    if names is not None and values.dtype.kind in "iu" and classes[0] >= 0 and classes[-1] < len(names):
        return Labels(values.astype(np.int64), tuple(names))
    return Labels(positions.astype(np.int64), tuple(str(value) for value in classes))
