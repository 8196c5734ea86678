"""Arrays in zarr stores of both formats, folders or zips, opened lazily."""

import functools
import json
import os
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.core.indexing import LazilyIndexedArray

from gaussian_test.data.formats.variables import StoredArray, open_variables, reading
from gaussian_test.data.samples import Samples, library
from gaussian_test.data.values import DataError
from gaussian_test.machine import regular, special

MARKS = frozenset({"zarr.json", ".zgroup", ".zarray", ".zmetadata"})


def is_zarr(path: Path) -> bool:
    """Return whether a folder or a zip is a zarr store, by what lies at its top."""
    if path.is_dir():
        return any((path / name).exists() for name in MARKS)
    if path.suffix.lower() not in (".zip", ".zarr"):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return not MARKS.isdisjoint(archive.namelist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return False


def open_zarr(path: Path, key: str | None, memory: int, label_key: str | None = None) -> Samples:
    """Open the arrays of a zarr store, named by their path such as "a/b", as samples and labels; see `open_variables`.

    Raises DataError if the store is damaged, holds pickles, or an array is missing or has the wrong shape.
    """
    if not is_zarr(path):
        raise DataError(f"{path} is not a zarr store: expected a folder or zip with zarr.json, .zgroup or .zarray at its top.")
    zarr = library("zarr", "zarr", path)
    size = _size(path)
    quiet = warnings.catch_warnings(action="ignore")  # of files in the folder that are no zarr
    with reading(str(path)), quiet, _store(path.absolute()) as store:
        top = zarr.open(store, mode="r")
        arrays = {"": top} if isinstance(top, zarr.Array) else dict(_arrays(top, zarr.Group))
        variables = {name or "x": _variable(path, name, array) for name, array in arrays.items()}
    indexes = {name for name, variable in variables.items() if name in variable.dims}
    listed = {one for variable in variables.values() for one in str(variable.attrs.get("coordinates", "")).split()}
    return open_variables(variables, path, "Zarr store", key, label_key, memory, size=size, coordinates=indexes | listed)


def _arrays(group: Any, kind: type) -> Iterator[tuple[str, Any]]:
    for name, member in group.members(max_depth=None):
        if not isinstance(member, kind):
            yield name, member


def _variable(path: Path, name: str, array: Any) -> xr.Variable:
    from xarray.backends.zarr import FillValueCoder

    if "pickle" in json.dumps(array.metadata.to_dict(), default=str).lower():
        raise DataError(f"{name!r} in {path} holds a pickle, which can run any code when it is read: save it as numbers.")
    attributes = dict(array.attrs)
    dims = getattr(array.metadata, "dimension_names", None) or attributes.pop("_ARRAY_DIMENSIONS", None)
    if dims and array.metadata.zarr_format == 2 and array.metadata.fill_value is not None:
        attributes["_FillValue"] = array.metadata.fill_value  # as xarray writes it
    elif isinstance(attributes.get("_FillValue"), str):
        attributes["_FillValue"] = FillValueCoder.decode(attributes["_FillValue"], array.dtype)
    text = array.dtype.kind not in "iufcb"
    dtype = np.dtype(object) if text else array.dtype
    stored = StoredArray(functools.partial(_opened, path.absolute(), name), array.shape, dtype)
    given = dims if dims and None not in dims else [f"{name} {axis}" for axis in range(array.ndim)]
    return xr.Variable(given, LazilyIndexedArray(stored), attributes, {"chunksizes": array.chunks})


@contextmanager
def _store(path: Path) -> Iterator[Any]:
    from zarr.storage import LocalStore, ZipStore

    store = LocalStore(path, read_only=True) if path.is_dir() else ZipStore(regular(path), mode="r")
    try:
        yield store
    finally:
        store.close()


@contextmanager
def _opened(path: Path, name: str) -> Iterator[Any]:
    import zarr

    with _store(path) as store:
        yield zarr.open_array(store, path=name, mode="r").oindex


def _size(path: Path) -> int:
    """Return the bytes of a store; raise for pipes, which may never end, and links to folders."""
    if not path.is_dir():
        return path.stat().st_size
    total = 0
    for folder, below, files in os.walk(path):
        for place in (Path(folder, name) for name in (*below, *files)):
            if kind := special(place) or ("a link to a folder" if place.is_symlink() and place.is_dir() else ""):
                raise DataError(f"{place} is {kind}: expected the files of a zarr store; remove it.")
        total += sum(Path(folder, name).stat().st_size for name in files)
    return total
