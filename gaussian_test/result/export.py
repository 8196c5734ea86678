"""Results as zarr, for object stores."""

import os
import secrets
import shutil
from pathlib import Path

import xarray as xr

from gaussian_test.errors import UserError, user_input
from gaussian_test.locks import numpy_defaults
from gaussian_test.store.archive import Source, opened, plain


@numpy_defaults()
def export(source: Source, output: str | os.PathLike[str]) -> Path:
    """Write a result and the groups of its archive as zarr, format 3, and read them back.

    Parameters
    ----------
    source : path or Dataset
        An archive or a result.
    output : path
        The folder to write, which is not there yet; its name ends in ``.zarr``. It appears whole or not at all.

    Returns
    -------
    Path
        The folder; ``xarray.open_datatree(folder, engine="zarr")`` reads it.

    Raises
    ------
    UserError
        If zarr is not installed, the folder is there, or what was written is not read back equal.
    """
    path = Path(output)
    if path.suffix != ".zarr":
        raise UserError(f"output {path} is not named like a zarr folder: let it end in .zarr")
    if path.exists() or path.is_symlink():
        raise UserError(f"{path} exists: remove it or choose another output")
    if not path.parent.is_dir():
        raise UserError(f"the folder {path.parent} does not exist: create it or correct the path")
    try:
        import zarr  # noqa: F401 # which xarray writes with
    except ImportError:
        raise UserError("export needs zarr, which is not installed: pip install 'gaussian-test[zarr]'") from None
    tree = opened(source).gaussian_test.to_datatree()
    texts = tree.map_over_datasets(_of_any_length)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with user_input():
            texts.to_zarr(temporary, zarr_format=3, consolidated=False, mode="w-")
            with xr.open_datatree(temporary, engine="zarr", consolidated=False, decode_times=False) as written:
                same = (plain(written[at].to_dataset().load()).equals(node.to_dataset()) for at, node in tree.subtree_with_keys)
                if not all(same):
                    raise UserError(f"{path} did not read back as it was written: check the disk and export again")
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def _of_any_length(dataset: xr.Dataset) -> xr.Dataset:
    """Return a dataset whose texts have no length of their own, for which zarr has a type."""
    texts = {name: variable.astype(object) for name, variable in dataset.variables.items() if variable.dtype.kind == "U"}
    return dataset.assign({name: one for name, one in texts.items() if name not in dataset.coords}).assign_coords(
        {name: one for name, one in texts.items() if name in dataset.coords}
    )
