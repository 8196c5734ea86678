"""Named arrays of a file: which are samples and labels, and what CF attributes say."""

import math
import struct
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from gaussian_test.data.formats.arrays import LABEL_KEYS, NAMES_KEY, X_KEYS
from gaussian_test.data.formats.rows import Array, Rows, Selection, as_images
from gaussian_test.data.samples import Samples
from gaussian_test.data.values import DataError, blocks, cause, check_shape, check_size, encode_labels
from gaussian_test.locks import netcdf
from gaussian_test.text import byte_size

DENSEST = 10_000  # bytes of values for each byte of a file; deflate reaches 1,032
SAMPLE_DIMS = ("sample", "time", "member", "realization", "ensemble", "number")
SPATIAL = frozenset({"row", "column", "y", "x", "lat", "lon", "latitude", "longitude"})
FAULTS = (OSError, RuntimeError, ValueError, TypeError, KeyError, EOFError, OverflowError, MemoryError, ImportError, struct.error)
FILLS, BOUNDS, PACKING = ("_FillValue", "missing_value"), ("valid_min", "valid_max", "valid_range"), ("scale_factor", "add_offset")
CODING = (*FILLS, *BOUNDS, *PACKING, "_Unsigned")


class StoredArray(BackendArray):
    """An array of a library that is opened for each read, so that nothing stays open and copies can be sent elsewhere.

    Parameters
    ----------
    opened : callable
        Returns a context that gives the library's array; it can be pickled.
    shape, dtype
        Of the array.
    """

    def __init__(self, opened: Callable[[], Any], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._opened = opened
        self.shape, self.dtype = shape, dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER_1VECTOR, self._read)

    def _read(self, key: tuple[Any, ...]) -> Any:
        with netcdf(), self._opened() as array:
            return np.asarray(array[key])


class Coding:
    """What the CF attributes of a variable say of its values: packed numbers, and which ones are missing.

    Parameters
    ----------
    attributes : mapping
        Of the variable: ``_FillValue``, ``missing_value``, ``valid_min``, ``valid_max``, ``valid_range``, ``scale_factor``,
        ``add_offset``, ``_Unsigned``; others are left out.
    dtype : numpy.dtype
        Of the values in the file.
    name : str
        What messages call the variable.

    Examples
    --------
    >>> coding = Coding({"scale_factor": 0.5, "_FillValue": -1}, np.dtype("int16"), "t")
    >>> coding.values(np.array([2, 3], "int16"), np.arange(2))
    array([1. , 1.5])
    """

    def __init__(self, attributes: Mapping[str, Any], dtype: np.dtype[Any], name: str) -> None:
        self._name = name
        self._attributes = dict(attributes)
        sign = str(attributes.get("_Unsigned", "")).lower()
        change = dtype.kind in "iu" and sign in ("true", "false")
        self._raw = np.dtype(f"{dtype.byteorder}{'u' if sign == 'true' else 'i'}{dtype.itemsize}") if change else dtype
        for one in (*FILLS, *BOUNDS, *PACKING):
            if one in attributes and np.asarray(attributes[one]).dtype.kind not in "iuf":
                raise DataError(f"{name} has {one} = {attributes[one]!r}: expected a number; correct the attribute or remove it.")
        self._packing = {one: attributes[one] for one in PACKING if one in attributes}
        self._missing = {one: self._comparable(attributes[one]) for one in FILLS if one in attributes}
        low, high = np.ravel(attributes.get("valid_range", (None, None)))
        self._bounds = [
            (one, below, bound.astype(self._raw) if bound.dtype.kind == "i" and self._raw.kind == "u" else bound)
            for one, below, given in (
                ("valid_min", True, attributes.get("valid_min")), ("valid_max", False, attributes.get("valid_max")),
                ("valid_range", True, low), ("valid_range", False, high),
            )
            if given is not None
            for bound in (np.asarray(given),)
        ]  # fmt: skip
        self.dtype: np.dtype[Any] = self._unpack(np.empty(0, self._raw)).dtype

    @property
    def incomplete(self) -> bool:
        """Whether values may be missing that are finite numbers."""
        return bool(self._bounds) or any(len(given) for given in self._missing.values())

    def values(self, block: Array, samples: NDArray[np.intp]) -> Array:
        """Return the values that are meant by those of a file, (sample, ...), with the numbers of these samples.

        Raises DataError if one of them is missing.
        """
        raw = block.view(self._raw)
        unpacked = self._unpack(raw)
        for attribute, given in self._missing.items():
            self._refuse(np.isin(raw, given, kind="sort"), samples, attribute)
            if np.isnan(self._attributes[attribute]).any():
                self._refuse(np.isnan(raw), samples, attribute)
        for attribute, below, bound in self._bounds:  # in the units of the file, unless it is of the type of what is unpacked
            held = unpacked if bound.dtype.kind == "f" else raw
            self._refuse(held < bound if below else held > bound, samples, attribute)
        return unpacked

    def _unpack(self, raw: Array) -> Array:
        if not self._packing:
            return raw
        packed = xr.Variable([f"d{axis}" for axis in range(raw.ndim)], raw, self._packing)
        return np.asarray(xr.conventions.decode_cf_variable(self._name, packed, decode_times=False).to_numpy())

    def _comparable(self, given: Any) -> Array:
        """Return the values that stand for a missing one, in the type of the file; NaN is found as such."""
        values = np.ravel(given)
        values = values[np.isfinite(values)]
        with np.errstate(all="ignore"):
            stored = values.astype(self._raw)  # a fill of -1 is 255 where bytes are unsigned
        whole = self._raw.kind in "iu" and values.dtype.kind == "f"
        return stored[stored == values] if whole else stored

    def _refuse(self, bad: NDArray[np.bool_], samples: NDArray[np.intp], attribute: str) -> None:
        if bad.any():
            first = samples[bad.reshape(len(bad), -1).any(axis=1).argmax()]
            given = np.asarray(self._attributes[attribute]).tolist()
            raise DataError(
                f"{self._name} has a missing value ({attribute} = {given}), the first in sample {first}: "
                "expected values everywhere; fill the gaps or leave these samples out."
            )


class VariableRows:
    """Samples of a variable that is read lazily.

    Parameters
    ----------
    variable : xarray.Variable
        The variable, not loaded.
    lead, event : tuple of str
        The dimensions, one or two, that count the samples, and those of a sample, in the order to read.
    name : str
        What messages call the variable.
    """

    def __init__(self, variable: xr.Variable, lead: tuple[str, ...], event: tuple[str, ...], name: str) -> None:
        self._variable = variable
        self._name = name
        self._sample = lead[0]
        self._inner = variable.sizes[lead[1]] if len(lead) == 2 else 1
        self._axes = [variable.dims.index(dim) for dim in (*lead, *event)]
        self._coding = Coding(variable.attrs, variable.dtype, name)
        self.shape: tuple[int, ...] = (math.prod(variable.sizes[dim] for dim in lead), *(variable.sizes[dim] for dim in event))
        self.dtype: np.dtype[Any] = self._coding.dtype
        if self.dtype.kind in "iu" and self._coding.incomplete and min(self.shape):
            for _ in blocks(self):  # refuses a missing value now: that of floats is found when they are scanned
                pass

    def read(self, selection: Selection) -> Array:
        """Return the selected samples, (selected, ...)."""
        chosen = np.arange(self.shape[0])[selection]
        outer, place = np.unique(chosen // self._inner, return_inverse=True)
        # Transpose after reading: a transposed lazy array would index the file point by point.
        with netcdf(), reading(self._name):
            block = self._variable.isel({self._sample: selection if self._inner == 1 else outer}).to_numpy()
        block = np.transpose(block, self._axes)
        if self._inner > 1:
            block = block.reshape(-1, *self.shape[1:])[place * self._inner + chosen % self._inner]
        return self._coding.values(block, chosen)


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn what a library says of a damaged file into a DataError.

    Examples
    --------
    >>> with reading("x.h5"):
    ...     raise OSError("no such object")
    Traceback (most recent call last):
    ...
    gaussian_test.data.values.DataError: x.h5 cannot be read (no such object): the file is damaged; copy it again.
    """
    try:
        yield
    except DataError:
        raise
    except FAULTS as error:
        raise DataError(f"{name} cannot be read ({cause(error)}): the file is damaged; copy it again.") from error


def open_variables(
    variables: Mapping[str, xr.Variable],
    path: Path,
    kind: str,
    key: str | None,
    label_key: str | None,
    memory: int,
    *,
    size: int,
    coordinates: Collection[str] = (),
) -> Samples:
    """Return the samples and labels among the arrays of a file of ``size`` bytes.

    The samples are ``key``, else x, images or data, else the only array of 2 to 5 axes that is no coordinate. They lie along the
    dimension sample, else along those called time, member, realization, ensemble or number, else along the first.

    Raises DataError if there is no such array, or several, or it claims more than the file or the memory can hold.
    """
    key = _find_key(variables, key, label_key, path, coordinates)
    variable, name = variables[key], f"{key!r} in {path}"
    if variable.ndim == 0:
        check_shape(variable.shape, name)
    if variable.dtype.kind in "OSTU":
        raise DataError(f"{name} holds strings: expected numbers; name the variable with samples by key=.")
    if variable.dtype.kind not in "iuf":
        raise DataError(f"{name} has dtype {variable.dtype}: expected integers or real floats; convert the array first.")
    _check_claim(variable, size, name, memory)
    lead, event = order(tuple(str(dim) for dim in variable.dims))
    check_shape((math.prod(variable.sizes[dim] for dim in lead), *(variable.sizes[dim] for dim in event)), name)
    rows: Rows = VariableRows(variable, lead, event, name)
    if label_key is None:
        count = rows.shape[0]
        label_key = next((one for one in _beside(LABEL_KEYS, key) if one != key and is_label(variables.get(one), one, count)), None)
    labels = None
    if label_key is not None:
        if label_key not in variables:
            raise DataError(f"{path} has no variable {label_key!r}: expected labels in one of {_listed(variables)}.")
        names_key = next((one for one in _beside((NAMES_KEY,), key) if one in variables), None)
        raw = _whole(variables[label_key], size, f"{label_key!r} in {path}", memory)
        names = None
        if names_key is not None:
            stored = _whole(variables[names_key], size, f"{names_key!r} in {path}", memory).ravel()
            names = [one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in stored.tolist()]
        labels = encode_labels(raw, rows.shape[0], f"the labels {label_key!r} in {path}", names)
    named = len(event) == 3 and SPATIAL.issuperset(event[1:])
    return Samples(rows if named else as_images(rows), f"{kind} {path.name}", labels)


def _whole(variable: xr.Variable, size: int, name: str, memory: int) -> Array:
    _check_claim(variable, size, name, memory)
    check_size(variable.nbytes, memory, name)
    with netcdf(), reading(name):
        return np.asarray(variable.to_numpy())


def _check_claim(variable: xr.Variable, size: int, name: str, memory: int) -> None:
    """Raise if a variable is larger than its file can hold, or a piece that the library reads at once than the memory."""
    if variable.nbytes > DENSEST * size:
        raise DataError(f"{name} claims {byte_size(variable.nbytes)} in a file of {byte_size(size)}: most of it was never written.")
    piece = math.prod(variable.encoding.get("chunksizes") or variable.shape[1:]) * variable.dtype.itemsize
    check_size(piece, memory, name, "in memory at a time")


def _find_key(
    variables: Mapping[str, xr.Variable], key: str | None, label_key: str | None, path: Path, coordinates: Collection[str]
) -> str:
    if key is not None:
        key = key.strip("/")
        if key not in variables:
            raise DataError(f"{path} has no variable {key!r}: expected one of {_listed(variables)}; give key=.")
        if key in coordinates:
            raise DataError(f"{key!r} in {path} is a coordinate: expected a variable with samples; give another key=.")
        return key
    held = {name: item for name, item in variables.items() if name not in (*coordinates, label_key)}
    fits = [name for name, item in held.items() if 2 <= item.ndim <= 5 and item.dtype.kind in "iuf"]
    found = [name for name in X_KEYS if name in held][:1] or fits
    if len(found) != 1:
        raise DataError(f"{path} holds the variables {_listed(variables)}: name the one with samples by key=.")
    return found[0]


def is_label(variable: Any, name: str, samples: int) -> bool:
    """Return whether a variable of such a name holds the labels of samples: y may be a coordinate of a field."""
    there = variable is not None and variable.ndim > 0 and name not in variable.dims
    return there and (name.rpartition("/")[2] != "y" or variable.size == samples)


def _beside(names: Collection[str], key: str) -> Iterator[str]:
    """Yield the names in the group of another array, then those at the top."""
    group, slash, _ = key.rpartition("/")
    yield from (group + slash + name for name in names)
    yield from names


def order(dims: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the dimensions that count samples, one or two, and the others: channels before rows and columns.

    Examples
    --------
    >>> order(("time", "y", "x")), order(("member", "time", "lat", "lon")), order(("row", "column", "channel", "sample"))
    ((('time',), ('y', 'x')), (('member', 'time'), ('lat', 'lon')), (('sample',), ('channel', 'row', 'column')))
    """
    lead = next((dims[:count] for count in (2, 1) if len(dims) > count and set(dims[:count]) <= set(SAMPLE_DIMS)), dims[:1])
    if "sample" in dims:
        lead = ("sample",)
    elif lead[0] not in SAMPLE_DIMS:
        lead = next(((dim,) for dim in SAMPLE_DIMS if dim in dims), lead)
    event = tuple(dim for dim in dims if dim not in lead)
    if set(event) == {"channel", "row", "column"} or set(event) == {"row", "column"}:
        return lead, tuple(dim for dim in ("channel", "row", "column") if dim in event)
    return lead, tuple(sorted(event, key=lambda dim: dim in SPATIAL)) if len(event) == 3 else event


def _listed(variables: Mapping[str, xr.Variable]) -> str:
    return ", ".join(sorted(variables)) or "(none)"
