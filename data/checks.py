"""What is refused at the door: shapes, numbers and values that no later step could make sense of."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from gaussian_test.data.formats.rows import Array, Rows

SCAN_BYTES = 2**24  # a block of raw values; with the one before and decoding copies, a scan stays below 64 MB


class DataError(ValueError):
    """A data source that cannot be used; the message is one sentence, on one line, for the user."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.splitlines()))  # quoted causes may span lines


def cause(error: Exception) -> str:
    """Return what a library says of a file, cut to what anybody reads: damaged files are quoted at length.

    Examples
    --------
    >>> cause(ValueError("no end"))
    'no end'
    """
    text = str(error)
    return text if len(text) <= 200 else f"{text[:200]}..."


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return the valid name that looks most like `name`.

    Examples
    --------
    >>> nearest("cifar", ["digits", "cifar10"])
    'cifar10'
    """
    return difflib.get_close_matches(name, list(valid), n=1, cutoff=0.0)[0]


def check_shape(shape: tuple[int, ...], name: str) -> None:
    """Refuse arrays that are not at least two samples of vectors or images.

    Parameters
    ----------
    shape : tuple of int
        Lengths of the axes, samples first.
    name : str
        What the message calls the source.

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


def check_dtype(dtype: np.dtype[np.generic], name: str) -> None:
    """Refuse everything but real integers and floats of up to 64 bits.

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
    """Return the sentence that refuses an array of python objects.

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
    """Return the smallest and the largest value, after refusing NaN, infinities and constant data.

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
        smallest, largest = block.min(), block.max()  # NaN and infinities surface in one of the two
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
