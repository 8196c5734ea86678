"""Arrays in NetCDF files, opened lazily through xarray."""

import warnings
from pathlib import Path

import xarray as xr

from gaussian_test.data.formats.variables import open_variables
from gaussian_test.data.samples import Samples
from gaussian_test.data.values import DataError, cause
from gaussian_test.locks import NETCDF_LOCK, netcdf


def open_netcdf(path: Path, key: str | None, label_key: str | None, memory: int) -> Samples:
    """Open the variables of a NetCDF file as samples and labels; see `open_variables`.

    Values that were never written are missing, as the NetCDF library says.

    Raises DataError if the file is damaged, or a variable is missing or has the wrong shape.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     x = xr.DataArray(np.zeros((8, 9, 5)), dims=("row", "column", "sample"), name="x")
    ...     x.to_netcdf(Path(folder, "x.nc"), engine="netcdf4")
    ...     open_netcdf(Path(folder, "x.nc"), None, None, 10**6).rows.shape
    (5, 1, 8, 9)
    """
    quiet = warnings.catch_warnings(action="ignore")  # a variable may name coordinates that are not there
    with netcdf(), quiet:
        from netCDF4 import default_fillvals

        try:
            dataset = xr.open_dataset(
                path.absolute(), engine="netcdf4", cache=False, decode_times=False, mask_and_scale=False, decode_coords="all",
                lock=NETCDF_LOCK,
            )  # fmt: skip
        except (OSError, ValueError, RuntimeError, TypeError) as error:  # TypeError: xarray of 2025, for invalid text
            raise DataError(f"{path} is not a readable NetCDF file ({cause(error)}): save or copy it again.") from error
    variables: dict[str, xr.Variable] = {str(name): variable for name, variable in dataset.variables.items()}
    for variable in variables.values():
        if variable.dtype.kind in "iuf" and variable.dtype.itemsize >= 4:  # single values of shorter ones may be meant
            variable.attrs.setdefault("_FillValue", variable.dtype.type(default_fillvals[variable.dtype.str[1:]]))
    found = [str(name) for name in dataset.coords]
    return open_variables(variables, path, "NetCDF file", key, label_key, memory, size=path.stat().st_size, coordinates=found)
