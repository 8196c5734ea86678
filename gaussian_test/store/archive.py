"""The archive: a self-describing NetCDF4 file, schema 3.

NetCDF4 has no checksum for attributes and internal structures, and a flipped bit there can change a value, or hang or crash the
library. So every file ends with its own checksum (:mod:`gaussian_test.store.files`), verified in plain Python before the library
opens the file.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from gaussian_test.analysis.declarations import split_reasons
from gaussian_test.errors import UserError
from gaussian_test.locks import NETCDF_LOCK, netcdf, numpy_defaults
from gaussian_test.machine import allowed, special
from gaussian_test.store import foreign
from gaussian_test.store.files import ChecksumError, State, atomic_path, check, holds, is_sealed, seal, sync
from gaussian_test.text import byte_size, near_files

SCHEMA_VERSION = 3  # 1: version 0.1, with reasons as sentences; 2: groups whose coordinates are not those of the root
CHECKSUM = "checksum"  # attribute of a file that ends with its checksum; of a result that came without one
ON_DEMAND = 2**26  # bytes of a variable that is read from its file whenever it is used, and not kept
APPENDED, NONE = "sha256, after the last byte of the NetCDF file", "none"
Source = str | os.PathLike[str] | xr.Dataset  # an archive, or a result
GROUPS = "groups"  # key of the groups of a result in memory
DAMAGE = (OSError, RuntimeError, ValueError, AttributeError)  # raised by the NetCDF library on damaged files
MAGIC = (b"\x89HDF", b"CDF")


def write(path: Path, root: xr.Dataset, groups: Mapping[str, xr.Dataset] | None = None) -> None:
    """Write a dataset and its groups atomically.

    Steps: temporary file in the same folder, fsync, re-open and compare with memory, append the checksum of the whole file, fsync,
    rename, fsync of the folder.

    Raises OSError if writing fails; nothing is left behind then.
    """
    marked = root.assign_attrs({CHECKSUM: APPENDED})
    contents: list[tuple[str | None, xr.Dataset]] = [(None, marked), *aligned(root, groups or {}).items()]
    with atomic_path(path) as temporary:
        try:
            with netcdf():
                for group, dataset in contents:
                    mode: Literal["a", "w"] = "a" if group else "w"
                    dataset.to_netcdf(temporary.absolute(), mode=mode, group=group, engine="netcdf4", encoding=_encoding(dataset))
            sync(temporary)
            whole = all(_is_there(temporary, group, dataset) for group, dataset in contents)
        except RuntimeError as error:  # raised by the NetCDF library if the disk is full or fails
            raise OSError(" ".join(str(error).split())) from error
        if not whole:
            raise OSError(f"{path} did not read back as it was written: check the disk and run again")
        seal(temporary)


def _is_there(path: Path, group: str | None, dataset: xr.Dataset) -> bool:
    """Return whether a group of a file is a dataset, with one variable of it in memory at a time."""
    with netcdf(), _opened(path, group) as there:
        names = list(there.variables)
        return set(names) == set(dataset.variables) and all(
            plain(there[[name]].compute()).identical(dataset[[name]]) for name in names
        )


def aligned(root: xr.Dataset, groups: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Return groups whose dimensions have other names where their coordinates are not those of the root, as a DataTree needs."""
    found = {}
    for name, group in groups.items():
        other = [dim for dim in group.indexes if dim in root.indexes and not group.indexes[dim].equals(root.indexes[dim])]
        found[name] = group.rename({dim: f"{name}_{dim}" for dim in other})
    return found


def _as_in_memory(name: str, group: xr.Dataset, root: xr.Dataset) -> xr.Dataset:
    """Return a group with its own names of dimensions, and with the coordinates that a DataTree keeps in the root alone."""
    of_root = {dim: root[dim].variable for dim in group.dims if dim in root.indexes and dim not in group.variables}
    own = {dim: str(dim).removeprefix(f"{name}_") for dim in group.dims if str(dim).startswith(f"{name}_")}
    return group.assign_coords(of_root).rename(own)


def read(path: Path, group: str | None = None, known: State | None = None) -> xr.Dataset:
    """Load a group of a file written by :func:`write` after verifying its checksum, and close the file.

    Raises
    ------
    OSError, RuntimeError, ValueError, AttributeError
        :data:`DAMAGE`: a :class:`~gaussian_test.store.files.ChecksumError` if the checksum does not match, else the error of the
        NetCDF library.
    """
    check(path, known)
    return read_unchecked(path, group)


def read_unchecked(path: Path, group: str | None = None) -> xr.Dataset:
    """Load a group of a NetCDF file whose sha256 is already verified, but for what is large, and close the file if that is all."""
    with netcdf():
        dataset = _opened(path, group)
        try:
            small = [variable for variable in dataset.variables.values() if variable.nbytes <= ON_DEMAND]
            at_once = (sum(variable.nbytes for variable in small), *(variable.nbytes for variable in dataset.variables.values()))
            if (size := max(at_once)) > (most := allowed(None)):
                raise UserError(f"{path} holds {byte_size(size)}, and no more than {byte_size(most)} is read on this machine")
            for variable in small:
                variable.load()
            for variable in dataset.variables.values():
                variable.encoding = {}
            found = plain(dataset)
        except BaseException:
            dataset.close()
            raise
        if len(small) == len(dataset.variables):
            dataset.close()
        return found


def _opened(path: Path, group: str | None) -> xr.Dataset:
    options: dict[str, Any] = {"lock": NETCDF_LOCK, "cache": False}
    return xr.open_dataset(Path(path).absolute(), group=group, engine="netcdf4", decode_times=False, **options)


def refusal(path: str | Path, error: Exception) -> UserError:
    """Return the UserError for an archive that could not be read."""
    if isinstance(error, ChecksumError | UserError):
        return UserError(str(error))
    return UserError(f"{path} is damaged ({' '.join(str(error).split())}): restore it or run again")


@numpy_defaults()
def open_archive(path: str | os.PathLike[str]) -> xr.Dataset:
    r"""Open an archive, after checking its format and its checksum.

    Parameters
    ----------
    path : path
        A file written by :func:`gaussian_test.run`.

    Returns
    -------
    Dataset
        The root group, loaded; ``.gaussian_test.group("moments")`` returns the others. Variables of more than 64 MiB, such as the
        rows of a million starts, are read from the file whenever they are used.

    Raises
    ------
    UserError
        If the file is missing, is not an archive, is damaged (wrong checksum), truncated or modified (no checksum), has a newer
        schema, or holds what no archive of this program does. Characters that a terminal obeys are written out (``\x1b``).

    Examples
    --------
    >>> open_archive("nowhere/nowhere.nc")
    Traceback (most recent call last):
    ...
    gaussian_test.errors.UserError: nowhere/nowhere.nc does not exist: give the path of an archive
    """
    path = Path(path)
    try:
        there = path.exists()
    except OSError as error:
        raise UserError(f"{str(path)[:60]}... cannot be a file ({error.strerror}): give the path of an archive") from None
    if not there:
        raise UserError(f"{path} does not exist: {near_files(path, '.nc') or 'give the path of an archive'}")
    if path.is_dir():
        raise UserError(f"{path} is a folder: give the path of an archive in it")
    if kind := special(path):
        raise UserError(f"{path} is {kind}: give the path of an archive")
    no_archive = UserError(f"{path} is not an archive of gaussian_test: give a file written by 'gaussian-test run'")
    try:
        with path.open("rb") as file:
            if not file.read(4).startswith(MAGIC):
                raise no_archive
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check its permissions") from None
    try:
        # a file that xarray wrote of a result has no checksum; one of ours that lost it is not shown to the NetCDF library
        sealed = is_sealed(path) or holds(path, APPENDED.encode())
        state = check(path) if sealed else None
        dataset = read_unchecked(path)
    except DAMAGE as error:
        raise refusal(path, error) from None
    dataset.attrs.pop(CHECKSUM, None)
    if not sealed:
        dataset.attrs[CHECKSUM] = NONE
    version = dataset.attrs.get("schema_version")
    if not isinstance(version, int | np.integer):
        raise no_archive
    if version > SCHEMA_VERSION:
        raise UserError(f"{path} has schema {version}, newer than the {SCHEMA_VERSION} known here: update gaussian-test")
    if not {"experiment", "data_source"} <= set(dataset.attrs) or not {"autocorrelation", "noise_to_signal"} <= set(
        dataset.variables
    ):
        raise no_archive
    if "classifier_accuracy" not in dataset.variables:
        raise UserError(f"{path} was written by an earlier gaussian-test, without what is shown now: run again")
    dataset.encoding |= {"source": str(path), "checked": state}  # for the groups, read on demand
    try:
        dataset = foreign.checked(foreign.cleaned(dataset))
        dataset.encoding["scores"] = set(dataset["score"].values.tolist())
        return _of_today(dataset, dataset)
    except ValueError as error:
        raise UserError(f"{path} was not written by gaussian-test: {error}; give an archive of 'gaussian-test run'") from None


def opened(source: Source) -> xr.Dataset:
    """Return a result unchanged, or the one in an archive.

    Raises UserError as :func:`open_archive` does, and for anything else.
    """
    if not isinstance(source, str | os.PathLike | xr.Dataset):
        raise UserError(f"{type(source).__name__} is no result: give the path of an archive or a Dataset")
    return source if isinstance(source, xr.Dataset) else open_archive(source)


def _of_today(dataset: xr.Dataset, root: xr.Dataset) -> xr.Dataset:
    """Convert the reasons of an archive of schema 1 to reasons by score."""
    if root.attrs.get("schema_version") == 1:
        scores = [str(score) for score in root["score"].values]
        for values in dataset.variables.values():
            if sentence := values.attrs.get("reason"):
                values.attrs["reason"] = json.dumps(split_reasons(sentence, scores), ensure_ascii=False)
    return dataset


def groups(result: xr.Dataset, *names: str) -> dict[str, xr.Dataset]:
    """Return those of the named groups that a result has, read on demand from its file.

    The checksum of the whole file is verified, unless :func:`open_archive` did so and the file is unchanged.

    Raises UserError if the archive is damaged.
    """
    found = {name: group for name, group in result.encoding.get(GROUPS, {}).items() if name in names}
    source = Path(str(result.encoding.get("source", "")))
    for name in names if source.is_file() else ():
        try:
            if result.attrs.get(CHECKSUM) != NONE:
                result.encoding["checked"] = check(source, result.encoding.get("checked"))
            group = _of_today(foreign.cleaned(read_unchecked(source, name)), result)
            group = _as_in_memory(name, group, result)
            scores = set(group["score"].values.tolist()) if "score" in group.coords else set()
            if not scores <= result.encoding.get("scores", scores):
                raise UserError(f"{source} was not written by gaussian-test: the scores of its group {name} are others")
            found.setdefault(name, group)
        except DAMAGE as error:
            if "group not found" not in str(error) or isinstance(error, ChecksumError):
                raise refusal(source, error) from None
    return found


def attach(result: xr.Dataset, further: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Attach its groups to a result in memory."""
    result.encoding[GROUPS] = dict(further)
    return result


def _encoding(dataset: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Return checksums for every variable and compression for statistics (pictures and paths are noise: they do not compress)."""
    encoding: dict[str, dict[str, Any]] = {}
    for name, variable in dataset.variables.items():
        settings: dict[str, Any] = {"fletcher32": True}
        if variable.dtype.kind in "UO":
            settings |= {"dtype": "S1"}  # variable-length strings cannot have a checksum
        else:
            settings["_FillValue"] = None
            if variable.dtype != np.float32 and variable.ndim:
                settings |= {"zlib": True, "complevel": 1, "shuffle": True}
        if not variable.ndim:
            settings.pop("fletcher32")
        encoding[str(name)] = settings
    return encoding


def plain(dataset: xr.Dataset) -> xr.Dataset:
    """Return a dataset with plain Python and numpy types for strings and attributes, as on disk."""
    for name, variable in dataset.variables.items():
        if variable.dtype.kind in "SO":
            strings = np.asarray(variable.values).astype(str)
            dataset[name] = (variable.dims, strings, variable.attrs)
    holders: list[Any] = [dataset, *dataset.variables.values()]
    for holder in holders:
        holder.attrs = {
            key: value.item() if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.size == 1) else value
            for key, value in holder.attrs.items()
        }
    return dataset
