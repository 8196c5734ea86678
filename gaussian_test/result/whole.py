"""What is left of a result after a selection, as far as the methods of a result need it."""

import xarray as xr

from gaussian_test.analysis.observables.registry import in_result
from gaussian_test.errors import UserError

SELECTED = ("score", "turn_time", "sample", "repeat", "reference")  # dimensions that a selection of one value takes away
NO_RESULT = "this dataset is no result of the Gaussian Test: give what gaussian_test.run or open_archive returns"


def whole(dataset: xr.Dataset) -> xr.Dataset:
    """Return a result with the dimensions that ``.sel`` or ``.isel`` of a single value took away.

    Raises UserError for anything else than a result, and for several of them in one dataset.
    """
    if "experiment" not in dataset.attrs or "data_source" not in dataset.attrs:
        raise UserError(NO_RESULT)
    for dim in ("run", "archive"):
        if dim in dataset.dims:
            raise UserError(f"this dataset holds several results along {dim}: choose one with .sel({dim}=...)")
    lost = [dim for dim in SELECTED if dim in dataset.coords and not dataset[dim].ndim]
    if not lost:
        return dataset
    declared = {name: variable.dims for one in in_result(dataset) for variable in one.variables for name in variable.names}
    declared["noise_to_signal"] = ("turn_time",)
    found = {}
    for name, variable in dataset.variables.items():
        dims = declared.get(str(name), (name,) if name in lost else variable.dims)
        missing = {dim: 1 for dim in lost if dim in dims and dim not in variable.dims}
        found[name] = variable.set_dims({**missing, **dict(variable.sizes)})  # type: ignore[no-untyped-call]
        if missing and set(dims) == set(found[name].dims):
            found[name] = found[name].transpose(*dims)
    result = xr.Dataset(
        {name: variable for name, variable in found.items() if name not in dataset.coords},
        {name: variable for name, variable in found.items() if name in dataset.coords},
        dataset.attrs,
    )
    result.encoding = dataset.encoding
    return result
