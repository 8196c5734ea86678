"""Datasets in sealed safetensors files, which are read a hundred times as fast as NetCDF: the parts of a run.

The file holds the arrays and, as the array :data:`DESCRIPTION`, JSON that says what they are; its last line is the sha256 of all
before, as that of an archive.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from safetensors import SafetensorError
from safetensors.numpy import load, save

from gaussian_test import checksum, whole_files

DESCRIPTION = "dataset"  # no variable can have this name
DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError)  # what damaged files raise


def write(path: Path, dataset: xr.Dataset) -> None:
    """Write a dataset so that it appears under its name only when it is whole: see :mod:`gaussian_test.whole_files`.

    Parameters
    ----------
    path : Path
        Final name.
    dataset : Dataset
        Variables of numbers or text, and attributes that JSON has.

    Raises
    ------
    OSError
        If the disk refuses; nothing is left behind then.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(Path(folder) / "a", xr.Dataset({"a": ("x", [1.0, 2.0])}, {"x": ["p", "q"]}))
    ...     read(Path(folder) / "a").a.sel(x="q").item()
    2.0
    """
    arrays: dict[str, Any] = {}
    variables = {}
    for name, variable in dataset.variables.items():
        values = np.asarray(variable.values)
        described: dict[str, Any] = {"dims": variable.dims, "attrs": variable.attrs}
        if values.dtype.kind == "U":
            described["text"] = values.tolist()
        else:
            arrays[str(name)] = np.asarray(values, order="C")
        variables[str(name)] = described
    description = {"variables": variables, "coords": [str(name) for name in dataset.coords], "attrs": dataset.attrs}
    arrays[DESCRIPTION] = np.frombuffer(json.dumps(description, default=_plain).encode(), dtype=np.uint8)
    whole_files.write_bytes(path, checksum.sealed(save(arrays)))


def read(path: Path) -> xr.Dataset:
    """Return a dataset written by :func:`write`; its checksum is compared first.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Dataset

    Raises
    ------
    OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError
        :data:`DAMAGE`: a :class:`gaussian_test.checksum.ChecksumError` where the checksum does not fit.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(Path(folder) / "a", xr.Dataset(attrs={"seed": 1}))
    ...     read(Path(folder) / "a").attrs["seed"]
    1
    """
    arrays = load(checksum.unsealed(path.read_bytes(), path))
    description = json.loads(arrays.pop(DESCRIPTION).tobytes())
    coords = set(description["coords"])
    variables: dict[bool, dict[str, xr.Variable]] = {True: {}, False: {}}
    for name, described in description["variables"].items():
        values = np.array(described["text"]) if "text" in described else arrays[name]
        variables[name in coords][name] = xr.Variable(described["dims"], values, described["attrs"])
    return xr.Dataset(variables[False], variables[True], description["attrs"])


def _plain(value: Any) -> Any:
    """Return numpy's numbers as JSON's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"an attribute of type {type(value).__name__} is not kept")
