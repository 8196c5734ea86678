"""Lazy dataset of all archives of a sweep."""

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import yaml

from gaussian_test.errors import UserError
from gaussian_test.locks import NETCDF_LOCK, netcdf, numpy_defaults
from gaussian_test.store import archive, files
from gaussian_test.sweep.states import read_runs, status

SAME = 1e-6  # relative difference of noise levels that are one


@numpy_defaults()
def open_sweep(folder: str | Path) -> xr.Dataset:
    """Open all finished runs of a folder as one dataset.

    Parameters
    ----------
    folder : path
        Of a sweep, or any folder with archives.

    Returns
    -------
    Dataset
        The root groups of the archives along ``run``, with the label of each key of the sweep as a coordinate of ``run``, and
        each run's ``experiment`` as a variable. Values are read on demand (Dask). If runs differ in scores, turn times or samples,
        missing values are NaN, -1 for integers and empty for text. Runs of several processes, whose times mean different things,
        lie along ``noise_to_signal`` instead of ``turn_time``, which is then a variable.

    Raises
    ------
    UserError
        If there is no finished run, an archive is damaged, or Dask is not installed.

    Examples
    --------
    >>> open_sweep("nowhere")
    Traceback (most recent call last):
    ...
    gaussian_test.errors.UserError: nowhere is neither a folder nor the archive of a run: give the ...
    """
    place = Path(folder)
    names = [run.name for run in status(place) if run.state == "finished"]
    if not names:
        raise UserError(f"{place} holds no finished run: see gaussian-test status {place}")
    opened = _on_noise_levels([_opened(place / f"{name}.nc") for name in names])
    experiments = [str(dataset.attrs["experiment"]) for dataset in opened]
    combined = xr.concat(
        opened,
        xr.Variable("run", names, {"long_name": "name of the run", "units": "1"}),
        data_vars="all",
        coords=[name for name in ("noise_to_signal",) if name not in opened[0].dims],
        compat="override",
        join="outer",
        fill_value=_fill_values(opened),
        combine_attrs="drop_conflicts",
    )
    combined["score"] = combined["score"].astype(str)  # concat makes names objects
    combined["experiment"] = ("run", experiments, {"long_name": "the whole configuration, YAML", "units": "1"})
    runs = read_runs(place)
    for key in dict.fromkeys(key for name in names for key in runs.get(name, {})):
        labels = [runs.get(name, {}).get(key, "") for name in names]
        coordinate = f"sweep_{key}" if key in combined.variables or key in combined.dims else key
        combined = combined.assign_coords({coordinate: ("run", labels, {"long_name": f"value of {key}", "units": "1"})})
    return combined


def _on_noise_levels(opened: list[xr.Dataset]) -> list[xr.Dataset]:
    """Return datasets of several processes along their noise-to-signal ratios, one level where they are equal to rounding."""
    processes = {str(yaml.safe_load(dataset.attrs["experiment"])["process"]) for dataset in opened}
    if len(processes) == 1:
        return opened
    known, found = np.zeros(0), []
    for dataset in opened:
        nearest = dataset["noise_to_signal"].values.copy()
        for number, own in enumerate(nearest):  # levels of one run stay apart, however close they are
            others = np.setdiff1d(known, nearest[:number])
            same = others[np.abs(others - own) <= SAME * own]
            nearest[number] = same[np.abs(same - own).argmin()] if len(same) else own
        known = np.union1d(known, nearest)
        level = xr.Variable("turn_time", nearest, dataset["noise_to_signal"].attrs)
        found.append(dataset.assign_coords(noise_to_signal=level).swap_dims(turn_time="noise_to_signal").reset_coords("turn_time"))
    return found


def _opened(path: Path) -> xr.Dataset:
    """Verify an archive's checksum, and return its root group with values read later under one lock."""
    try:
        import dask.array  # noqa: F401 # holds values not yet read
    except ImportError:
        raise UserError("open_sweep needs dask, which is not installed: pip install 'gaussian-test[cluster]'") from None
    try:
        files.check(path)
    except archive.DAMAGE as error:
        raise archive.refusal(path, error) from None
    with netcdf():  # opening and reading share the lock
        return xr.open_dataset(path, engine="netcdf4", chunks={}, decode_times=False, lock=NETCDF_LOCK)


def _fill_values(datasets: list[xr.Dataset]) -> dict[Any, Any]:
    kinds = {name: variable.dtype.kind for dataset in datasets for name, variable in dataset.variables.items()}
    return {name: {"i": -1, "u": 0, "U": "", "S": b"", "O": ""}.get(kind, np.nan) for name, kind in kinds.items()}
