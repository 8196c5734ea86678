"""The parts of a run in progress: one NetCDF file per finished shard, checked by the digests in a manifest.

A part is written like an archive: whole under its name or not at all. ``--resume`` takes the parts whose digest is right and
recomputes the others; a manifest of another experiment is refused, naming the difference.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import xarray as xr

from gaussian_test import archive
from gaussian_test.errors import UserError

MANIFEST = "manifest.json"


class Parts:
    """The folder of parts beside an archive in the making.

    Parameters
    ----------
    output : Path
        Final name of the archive; the parts live in ``<output>.parts``.
    identity : dict of str to str
        What the run is: every item must be the same when it is resumed.
    resume, overwrite : bool
        What to do with parts that are there already.

    Raises
    ------
    UserError
        If there are parts and neither is asked for, or they belong to another run.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     parts = Parts(Path(folder) / "run.nc", {"seed": "0"})
    ...     parts.write(0, xr.Dataset({"a": 1}))
    ...     again = Parts(Path(folder) / "run.nc", {"seed": "0"}, resume=True)
    ...     int(again.read(0).a), again.read(1)
    (1, None)
    """

    def __init__(self, output: Path, identity: dict[str, str], resume: bool = False, overwrite: bool = False) -> None:
        self.folder = output.with_name(output.name + ".parts")
        self._identity = identity
        self._digests: dict[str, str] = {}
        if self.folder.exists():
            if overwrite:
                shutil.rmtree(self.folder)
            elif not resume:
                raise UserError(
                    f"{self.folder} holds the parts of an interrupted run: add --resume to go on or --overwrite to start again"
                )
            else:
                self._adopt()

    def _adopt(self) -> None:
        try:
            manifest = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))
            theirs, digests = dict(manifest["identity"]), dict(manifest["sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            return  # the manifest is lost or damaged: no part can be trusted, all are computed again
        for key, mine in self._identity.items():
            if theirs.get(key) != mine:
                raise UserError(
                    f"{self.folder} belongs to another run ({key} differs): use the same experiment to resume, "
                    "another output, or --overwrite to start again"
                )
        self._digests = digests

    def _save(self) -> None:
        archive.write_text(self.folder / MANIFEST, json.dumps({"identity": self._identity, "sha256": self._digests}, indent=1))

    def _path(self, shard: int) -> Path:
        return self.folder / f"shard-{shard:06d}.nc"

    def write(self, shard: int, table: xr.Dataset) -> None:
        """Write a finished shard and enter its digest into the manifest."""
        self.folder.mkdir(exist_ok=True)
        path = self._path(shard)
        archive.write(path, table)
        self._digests[path.name] = archive.file_digest(path)
        self._save()

    def read(self, shard: int) -> xr.Dataset | None:
        """Return a finished shard, or None if it is missing or damaged."""
        path = self._path(shard)
        try:
            if self._digests.get(path.name) != archive.file_digest(path):
                return None
            return archive.read(path)
        except archive.DAMAGE:
            return None

    def remove(self) -> None:
        """Remove the parts, once the archive is there."""
        if self.folder.exists():
            shutil.rmtree(self.folder)
