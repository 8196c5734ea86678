"""Validation of values and labels.

Checks reject shapes, dtypes and values that no later step can use.

Classes of the samples are the numbers that they have, with a name for each.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gaussian_test.data.formats.rows import Array, Rows
from gaussian_test.text import byte_size, printable

SCAN_BYTES = 2**24  # a block of raw values; with the one before and decoding copies, a scan stays below 64 MB


class DataError(ValueError):
    """An unusable data source; the message is one sentence on one line, for the user."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(" ".join(message.splitlines())))  # causes may span lines, names hold escapes of a terminal


def cause(error: Exception) -> str:
    """Return a library's message about a file, shortened: libraries may quote damaged files at length.

    Examples
    --------
    >>> cause(ValueError("no end"))
    'no end'
    """
    text = str(error)
    return text if len(text) <= 200 else f"{text[:200]}..."


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return the valid name most similar to `name`.

    Examples
    --------
    >>> nearest("cifar", ["digits", "cifar10"])
    'cifar10'
    """
    return difflib.get_close_matches(name, list(valid), n=1, cutoff=0.0)[0]


def check_shape(shape: tuple[int, ...], name: str) -> None:
    """Raise unless an array holds at least two samples of vectors or images.

    Raises
    ------
    DataError
        If the number of axes is not 2, 3 or 4, an axis is empty, or there are fewer than two samples.

    Examples
    --------
    >>> check_shape((1797, 8, 8), "digits")
    """
    if len(shape) not in (2, 3, 4):
        raise DataError(
            f"{name} has shape {shape}: expected (sample, feature), (sample, row, column) or "
            "(sample, channel, row, column); reshape the array."
        )
    if shape[0] < 2:
        raise DataError(f"{name} holds {shape[0]} sample(s): expected at least 2; give a file with more samples.")
    if 0 in shape:
        raise DataError(f"{name} has shape {shape} with an empty axis: expected at least one value per sample.")


def check_size(size: int, memory: int, name: str, what: str = "in memory") -> None:
    """Raise if something that is read at once, by what its header says, takes more than a number of bytes.

    Raises DataError with both.

    Examples
    --------
    >>> check_size(6 * 10**9, 10**8, "0.png in bomb.zip")
    Traceback (most recent call last):
    ...
    gaussian_test.data.values.DataError: 0.png in bomb.zip takes 6.0GB in memory, more than the 100.0MB given: give more memory...
    """
    if size > memory:
        raise DataError(
            f"{name} takes {byte_size(size)} {what}, more than the {byte_size(memory)} given: give more memory or less data."
        )


def check_dtype(dtype: np.dtype[np.generic], name: str) -> None:
    """Raise unless values are real integers or floats of up to 64 bits.

    Raises
    ------
    DataError
        For python objects, complex numbers, strings, booleans, dates, records and extended precision.

    Examples
    --------
    >>> check_dtype(np.dtype("uint8"), "digits")
    """
    if dtype.hasobject:
        raise DataError(object_refusal(name))
    if dtype.kind == "b":
        raise DataError(f"{name} has dtype bool: expected integers or real floats; store 2.0 * array - 1 instead.")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise DataError(f"{name} has dtype {dtype}: expected integers or real floats of up to 64 bits; convert the array first.")


def object_refusal(name: str) -> str:
    """Return the error message for an array of python objects.

    Examples
    --------
    >>> object_refusal("x.npy").startswith("x.npy holds python objects")
    True
    """
    return (
        f"{name} holds python objects (dtype object), which are stored as a pickle that can run any code when it is "
        "read: expected an array of plain numbers; save it again with a numeric dtype."
    )


def blocks(rows: Rows, size: int = SCAN_BYTES) -> Iterator[tuple[int, Array]]:
    """Yield consecutive blocks of samples in their raw type, each of about `size` bytes.

    Examples
    --------
    >>> from gaussian_test.data.formats.rows import MemoryRows
    >>> [start for start, block in blocks(MemoryRows(np.zeros((5, 2), "uint8")), size=4)]
    [0, 2, 4]
    """
    row_bytes = max(1, int(np.prod(rows.shape[1:])) * rows.dtype.itemsize)
    step = max(1, size // row_bytes)
    for start in range(0, rows.shape[0], step):
        yield start, rows.read(slice(start, min(start + step, rows.shape[0])))


@dataclass(frozen=True)
class Extent:
    """Smallest and largest raw value, in the units of the source."""

    low: float
    high: float


def extent(rows: Rows, name: str, *, stop_early: bool = False) -> Extent:
    """Return the smallest and the largest value; raise for NaN, infinities and constant data.

    Raises
    ------
    DataError
        If values are not finite or all equal.

    Examples
    --------
    >>> from gaussian_test.data.formats.rows import MemoryRows
    >>> extent(MemoryRows(np.array([[1, 5], [2, 3]])), "example")
    Extent(low=1.0, high=5.0)
    """
    low, high = np.inf, -np.inf
    bad, first = 0, -1
    for start, block in blocks(rows):
        smallest, largest = block.min(), block.max()  # NaN and infinities show in one of the two
        if rows.dtype.kind == "f" and not (np.isfinite(smallest) and np.isfinite(largest)):
            wrong = ~np.isfinite(block.reshape(len(block), -1))
            if first < 0:
                first = start + int(wrong.any(axis=1).argmax())
            bad += int(wrong.sum())
        low, high = min(low, float(smallest)), max(high, float(largest))
        if stop_early and low < high:
            break
    if bad:
        raise DataError(
            f"{name} holds {bad} value(s) that are NaN or infinite, the first in sample {first}: expected finite "
            "numbers; remove or repair these samples."
        )
    if low == high:
        raise DataError(f"{name} is constant, every value is {low:g}: expected data that vary; check the file.")
    return Extent(low, high)


WHOLE = np.longdouble(2**53)  # floats are exact for integers up to here; NaN compares as beyond


MOST_CLASSES = 10**6  # a class is a number up to here; tables of classes have an entry for each


@dataclass(frozen=True)
class Labels:
    """Class of each sample, int64 (sample,), and the names of the classes; their numbers, if these are not 0 to K-1."""

    values: NDArray[np.int64]
    names: tuple[str, ...]
    numbers: tuple[int, ...] | None = None


def encode_labels(raw: ArrayLike, count: int, name: str, names: Sequence[str] | None = None) -> Labels:
    """Turn any integers or strings into classes with names.

    Whole numbers from 0 to a million keep their value, also where they are written as text. Anything else is numbered from 0 in
    sorted order, and its original text becomes the name.

    Raises
    ------
    DataError
        If the number of labels is not `count`, or they are neither integers nor strings.

    Examples
    --------
    >>> encode_labels(["dog", "cat", "dog"], 3, "example")
    Labels(values=array([1, 0, 1]), names=('cat', 'dog'), numbers=None)
    >>> encode_labels(["7", "11", "7"], 3, "example")
    Labels(values=array([ 7, 11,  7]), names=('7', '11'), numbers=(7, 11))
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
    numbers = _numbers(classes)
    if numbers is None:
        return Labels(positions.astype(np.int64), tuple(printable(str(value)) for value in classes))
    kept = numbers[positions]
    if names is not None and numbers.max() < len(names):
        return Labels(kept, tuple(map(printable, names)))
    order = numbers.argsort()
    found = tuple(numbers[order].tolist())
    return Labels(kept, tuple(str(classes[place]) for place in order), None if found == tuple(range(len(found))) else found)


def _numbers(classes: NDArray[Any]) -> NDArray[np.int64] | None:
    """Return the numbers that different classes have, or None if these are not whole numbers from 0 to the most there may be."""
    if classes.dtype.kind in "UT":
        texts = classes.tolist()
        if not all(text.isascii() and text.isdecimal() and len(text) <= len(str(MOST_CLASSES)) for text in texts):
            return None
        classes = np.array(texts, dtype=object).astype(np.int64)
        if len(set(classes.tolist())) < len(texts):  # 7 and 07
            return None
    return classes.astype(np.int64) if bool(((classes >= 0) & (classes <= MOST_CLASSES)).all()) else None
