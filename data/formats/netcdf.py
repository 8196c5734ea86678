"""Arrays in NetCDF files, opened lazily through xarray."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from gaussian_test.data.formats.rows import Array, Rows, Selection, as_images
from gaussian_test.data.samples import Samples
from gaussian_test.data.values import DataError, cause, check_shape, check_size, encode_labels
from gaussian_test.locks import NETCDF_LOCK, netcdf
from gaussian_test.machine import allowed
from gaussian_test.text import byte_size

DENSEST = 10_000  # bytes of values for each byte of a file; deflate reaches 1,032


class NetcdfRows:
    """Samples of a NetCDF variable that xarray opened lazily.

    Parameters
    ----------
    variable : xarray.Variable
        The variable, not loaded.
    dims : tuple of str
        Order of the axes to read, samples first.
    name : str
        What messages call the variable.
    """

    def __init__(self, variable: xr.Variable, dims: tuple[str, ...], name: str) -> None:
        self._variable = variable
        self._name = name
        self._sample = dims[0]
        self._axes = [variable.dims.index(dim) for dim in dims]
        self.shape: tuple[int, ...] = tuple(variable.sizes[dim] for dim in dims)
        self.dtype: np.dtype[Any] = variable.dtype

    def read(self, selection: Selection) -> Array:
        """Return the selected samples, (selected, ...)."""
        # Transpose after reading: a transposed lazy array would index the file point by point.
        with netcdf():
            try:
                block = self._variable.isel({self._sample: selection}).to_numpy()
            except (OSError, RuntimeError) as error:
                raise DataError(f"{self._name} cannot be read ({cause(error)}): the file is damaged; copy it again.") from error
        return np.transpose(block, self._axes)


def open_netcdf(path: Path, key: str | None = None, label_key: str | None = None, memory: int | None = None) -> Samples:
    """Open the variables of a NetCDF file as samples and labels.

    Dimensions called sample, channel, row and column are recognised by name; without "sample", the first dimension counts the
    samples.

    Raises
    ------
    DataError
        If the file is damaged, or a variable is missing or has the wrong shape.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     x = xr.DataArray(np.zeros((8, 9, 5)), dims=("row", "column", "sample"), name="x")
    ...     x.to_netcdf(Path(folder, "x.nc"), engine="netcdf4")
    ...     open_netcdf(Path(folder, "x.nc")).rows.shape
    (5, 1, 8, 9)
    """
    with netcdf():
        try:
            dataset = xr.open_dataset(path.absolute(), engine="netcdf4", cache=False, decode_times=False, lock=NETCDF_LOCK)
        except (OSError, ValueError, RuntimeError, TypeError) as error:  # TypeError: xarray of 2025, for invalid text
            raise DataError(f"{path} is not a readable NetCDF file ({cause(error)}): save or copy it again.") from error
    variables: dict[str, xr.Variable] = {str(name): variable for name, variable in dataset.variables.items()}
    if label_key is None and "label" in variables and key != "label":
        label_key = "label"
    key = _find_key(variables, key, label_key, path)
    variable, name = variables[key], f"{key!r} in {path}"
    if variable.ndim == 0:
        check_shape(variable.shape, name)
    if variable.dtype.kind in "OSTU":
        raise DataError(f"{name} holds strings: expected numbers; name the variable with samples by key=.")
    dims = _order(tuple(str(dim) for dim in variable.dims))
    rows: Rows = NetcdfRows(variable, dims, name)
    check_shape(rows.shape, name)
    _check_header(variable, path, name, memory)
    labels = None
    if label_key is not None:
        if label_key not in variables:
            raise DataError(f"{path} has no variable {label_key!r}: expected labels in one of {_listed(variables)}.")
        for one in (label_key, "class_name"):
            if one in variables:
                _check_header(variables[one], path, f"{one!r} in {path}", memory)
        with netcdf():
            raw = variables[label_key].to_numpy()
            names = [str(item) for item in variables["class_name"].to_numpy()] if "class_name" in variables else None
        labels = encode_labels(raw, rows.shape[0], f"the labels {label_key!r} in {path}", names)
    named = dims == ("sample", "channel", "row", "column")
    return Samples(rows if named else as_images(rows), f"NetCDF file {path.name}", labels)


def _check_header(variable: xr.Variable, path: Path, name: str, memory: int | None) -> None:
    """Raise if a variable is larger than its file can hold, or a piece that the library reads at once than the memory."""
    size = path.stat().st_size
    if variable.nbytes > DENSEST * size:
        raise DataError(f"{name} claims {byte_size(variable.nbytes)} in a file of {byte_size(size)}: most of it was never written.")
    piece = math.prod(variable.encoding.get("chunksizes") or variable.shape[1:]) * variable.dtype.itemsize
    check_size(piece, allowed(memory), name, "in memory at a time")


def _find_key(variables: Mapping[str, xr.Variable], key: str | None, label_key: str | None, path: Path) -> str:
    if key is None:
        candidates = [name for name, item in variables.items() if "sample" in item.dims and name != label_key]
        candidates = [name for name in candidates if name != "sample"]
        if "x" in variables:
            return "x"
        if len(candidates) == 1:
            return candidates[0]
        raise DataError(f"{path} holds the variables {_listed(variables)}: name the one with samples by key=.")
    if key not in variables:
        raise DataError(f"{path} has no variable {key!r}: expected one of {_listed(variables)}; give key=.")
    return key


def _order(dims: tuple[str, ...]) -> tuple[str, ...]:
    """Return the dimensions with samples first, then image dimensions in our order if they have our names."""
    sample = "sample" if "sample" in dims else dims[0]
    event = tuple(dim for dim in dims if dim != sample)
    ours = tuple(dim for dim in ("channel", "row", "column") if dim in event)
    return (sample, *(ours if len(ours) == len(event) else event))


def _listed(variables: Mapping[str, xr.Variable]) -> str:
    return ", ".join(sorted(variables)) or "(none)"
