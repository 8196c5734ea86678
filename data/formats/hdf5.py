"""Arrays in HDF5 files, opened lazily through h5py."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.core.indexing import LazilyIndexedArray

from gaussian_test.data.formats.variables import CODING, StoredArray, open_variables, reading
from gaussian_test.data.samples import Samples, library
from gaussian_test.data.values import DataError
from gaussian_test.locks import netcdf
from gaussian_test.machine import regular


def open_hdf5(path: Path, key: str | None, memory: int, label_key: str | None = None) -> Samples:
    """Open the arrays of an HDF5 file, named by their path such as "a/b", as samples and labels; see `open_variables`.

    What lies in other files is left out: external links, external storage and virtual arrays.

    Raises DataError if the file is damaged, or an array is missing or has the wrong shape.
    """
    with netcdf():
        h5py = library("h5py", "hdf5", path)
        variables: dict[str, xr.Variable] = {}
        elsewhere: list[str] = []

        def visit(name: str, item: Any) -> None:  # follows neither soft nor external links
            if not isinstance(item, h5py.Dataset) or item.shape is None:
                return
            if item.is_virtual or item.external:
                elsewhere.append(name)
                return
            text = h5py.check_string_dtype(item.dtype) is not None
            dtype = np.dtype(object) if text else item.dtype
            array = StoredArray(functools.partial(_opened, path.absolute(), name, text), item.shape, dtype)
            dims = [f"{name} {axis}" for axis in range(item.ndim)]
            attributes = {one: item.attrs[one] for one in CODING if one in item.attrs}
            variables[name] = xr.Variable(dims, LazilyIndexedArray(array), attributes, {"chunksizes": item.chunks})

        with reading(str(path)), h5py.File(regular(path.absolute()), "r") as file:
            file.visititems(visit)
    if key is not None and key.strip("/") in elsewhere:
        raise DataError(f"{key!r} in {path} lies in other files: expected an array in the file itself; copy it there.")
    return open_variables(variables, path, "HDF5 file", key, label_key, memory, size=path.stat().st_size)


@contextmanager
def _opened(path: Path, name: str, text: bool) -> Iterator[Any]:
    import h5py

    with h5py.File(regular(path), "r") as file:
        yield file[name].asstr() if text else file[name]
