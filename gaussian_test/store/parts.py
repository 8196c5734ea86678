"""Parts of a run in progress: one file per shard.

Each part has its own checksum and the digest of its run, and is written atomically, possibly several times. So no list of finished
shards is needed: a valid part with the digest of this run is finished.

Fits to the ground truth are computed once per run, and shared by all its processes and resumptions.

The last digits of eigenvectors depend on the number of threads. Saved beside the parts, they are the same on every worker, and on
any machine that resumes the run.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import xarray as xr
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from gaussian_test import analysis
from gaussian_test.analysis.moments.moments import Shrinkage
from gaussian_test.errors import UserError
from gaussian_test.log import LOG
from gaussian_test.machine import regular, replaceable
from gaussian_test.store import files

MANIFEST = "manifest.json"
STATE = "state.json"  # how far a run is, for whoever asks meanwhile
STOP = "stop"  # exists while a stopped run waits for its workers
MICRO_BATCHES = "micro_batches.json"
COMPUTED = re.compile(r"shard-\d{6,}\.part|fit-[0-9a-f]{16}-[0-9a-f]{64}\.safetensors")  # which no one else writes
OURS = re.compile(rf"{COMPUTED.pattern}|{re.escape(MANIFEST)}|{re.escape(STATE)}|{STOP}|{re.escape(MICRO_BATCHES)}|{LOG}")


def parts_folder(output: Path) -> Path:
    """Return the folder of the parts of an output."""
    return output.with_name(output.name + ".parts")


def identity_digest(identity: Mapping[str, str]) -> str:
    """Return the sha256 of the identity of a run."""
    return hashlib.sha256(json.dumps(dict(sorted(identity.items()))).encode()).hexdigest()


def first_difference(mine: Mapping[str, str], theirs: Mapping[str, str]) -> str | None:
    """Return the first difference between two identities, or None."""
    return next((key for key in [*mine, *theirs] if mine.get(key) != theirs.get(key)), None)


class Parts:
    """The folder of parts beside an unfinished archive.

    Parameters
    ----------
    output : Path
        Final name of the archive; the parts live in ``<output>.parts``.
    identity : dict of str to str
        Identity of the run: every item must be the same on resume.
    shards : int
        Number of parts; 0 for a writer of single parts.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     parts = Parts(Path(folder) / "run.nc", {"seed": "0"}, 2)
    ...     parts.open()
    ...     parts.write(0, xr.Dataset({"a": 1}))
    ...     again = Parts(Path(folder) / "run.nc", {"seed": "0"}, 2)
    ...     again.open(resume=True)
    ...     int(again.read(0).a), again.read(1)
    (1, None)
    """

    def __init__(self, output: Path, identity: Mapping[str, str], shards: int = 0) -> None:
        self.folder = parts_folder(output)
        self.identity = dict(identity)
        self._shards = shards
        self.digest = identity_digest(identity)

    def open(self, resume: bool = False, overwrite: bool = False) -> None:
        """Create the folder, or take over an existing one.

        Raises UserError if there are parts and neither option is set, or they belong to another run.
        """
        replaceable(self.folder)
        if self.folder.exists():
            check_ours(self.folder)
            if overwrite:
                self.remove()
            elif not resume:
                raise UserError(
                    f"{self.folder} holds the parts of an interrupted run: add --resume to go on or --overwrite to start again"
                )
            else:
                self._check_owner()
        self.folder.mkdir(exist_ok=True)
        for left in self.folder.iterdir():  # by killed runs
            if left.name == STOP or files.TEMPORARY.fullmatch(left.name):
                left.unlink(missing_ok=True)
        self._declare()

    def _declare(self) -> None:
        text = json.dumps({"sha256": self.digest, "shards": self._shards, "identity": self.identity}, indent=1)
        files.write_text(self.folder / MANIFEST, text)

    def begin_again(self, identity: Mapping[str, str]) -> None:
        """Begin the parts of the same run with a new identity; those before are no part of it."""
        self.identity, self.digest = dict(identity), identity_digest(identity)
        self._declare()
        for shard in range(self._shards):
            self.path(shard).unlink(missing_ok=True)

    def _check_owner(self) -> None:
        """Raise for parts of another run, with the difference; without a valid manifest use the digests in the parts."""
        theirs = read_identity(self.folder)
        differs = None if theirs is None else first_difference(self.identity, theirs)
        owners = (self._owner(path) for path in self.folder.glob("shard-*.part"))
        if theirs is None and next(filter(None, owners), self.digest) != self.digest:  # a folder is of one run
            differs = "its manifest is lost, and what is in its parts"
        if differs is not None:
            raise UserError(
                f"{self.folder} belongs to another run ({differs} differs): use the same experiment to resume, "
                "another output, or --overwrite to start again"
            )

    def _owner(self, path: Path) -> str | None:
        """Return the digest of a part's run, or None if it is damaged."""
        try:
            return str(read_part(path).attrs.get("run"))
        except DAMAGE:
            return None

    def path(self, shard: int) -> Path:
        """Return the file of a shard."""
        return self.folder / f"shard-{shard:06d}.part"

    def write(self, shard: int, table: xr.Dataset) -> None:
        """Write a finished shard."""
        write_part(self.path(shard), table.assign_attrs(run=self.digest, shard=shard))

    def read(self, shard: int) -> xr.Dataset | None:
        """Return a finished shard, or None if it is missing, damaged, or not of this run."""
        try:
            table = read_part(self.path(shard))
        except DAMAGE:
            return None
        if table.attrs.pop("run", None) != self.digest or table.attrs.pop("shard", None) != shard:
            return None
        return table

    def are_there(self) -> bool:
        """Return whether there are parts of this run."""
        return read_identity(self.folder) == self.identity and self.count() > 0

    def stop(self) -> None:
        """Tell the workers to start no further shard."""
        (self.folder / STOP).touch()

    def told_to_stop(self) -> bool:
        """Return whether to start no further shard."""
        return (self.folder / STOP).exists()

    @contextmanager
    def telling(self) -> Iterator[Callable[[int, int, float], None]]:
        """Give a function that writes how far the run is, as long as it counts shards; nothing depends on it."""
        path = self.folder / STATE

        def tell(done: int, of: int, remaining: float) -> None:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            with suppress(OSError):
                files.write_text(path, json.dumps({"done": done, "of": of, "remaining_seconds": remaining, "updated": now}))

        try:
            yield tell
        finally:
            with suppress(OSError):
                path.unlink()

    def count(self) -> int:
        """Return the number of finished shards, by file name."""
        return count_parts(self.folder)[0]

    def remove(self) -> None:
        """Remove what a run has written, and the folder if nothing else is in it; in a read-only folder they stay."""
        with suppress(OSError):
            for path in self.folder.iterdir():
                if OURS.fullmatch(path.name) or files.TEMPORARY.fullmatch(path.name):
                    path.unlink(missing_ok=True)
            self.folder.rmdir()


def is_of_a_run(folder: Path) -> bool:
    """Return whether a folder holds the parts of a run: a valid manifest, or something computed."""
    try:
        return read_identity(folder) is not None or any(COMPUTED.fullmatch(path.name) for path in folder.iterdir())
    except OSError:
        return False


def check_ours(folder: Path) -> None:
    """Raise for a folder with files that no run wrote: they are neither overwritten nor removed.

    Raises UserError with the name of one; hidden files are left alone.
    """
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    known = OURS if is_of_a_run(folder) else COMPUTED
    for name in names:
        if not known.fullmatch(name):
            raise UserError(f"{folder} holds {name}, which no run wrote: move it away or choose another output")


def read_identity(folder: Path) -> dict[str, str] | None:
    """Return the identity of the run of a parts folder, or None if its manifest is lost or damaged."""
    try:
        manifest = json.loads(regular(folder / MANIFEST).read_text(encoding="utf-8"))
        identity = {str(key): str(value) for key, value in manifest["identity"].items()}
        return identity if manifest["sha256"] == identity_digest(identity) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def count_parts(folder: Path) -> tuple[int, int | None]:
    """Return the number of finished shards, by file name, and the total, None if unknown."""
    done = len(list(folder.glob("shard-*.part")))
    try:
        return done, int(json.loads(regular(folder / MANIFEST).read_text(encoding="utf-8"))["shards"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return done, None


def read_remaining(folder: Path) -> float | None:
    """Return the seconds that a run expected to need when it last told; None where it has not, or the file is damaged."""
    try:
        remaining = float(json.loads(regular(folder / STATE).read_text(encoding="utf-8"))["remaining_seconds"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return remaining if math.isfinite(remaining) and remaining >= 0 else None


DESCRIPTION = "dataset"  # reserved: no variable has this name
DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError)  # raised on damaged files


def write_part(path: Path, dataset: xr.Dataset) -> None:
    """Write a dataset atomically: see :mod:`gaussian_test.store.files`.

    Raises OSError if writing fails; nothing is left behind then.
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
    files.write_bytes(path, files.sealed(save(arrays)))


def read_part(path: Path) -> xr.Dataset:
    """Return a dataset written by :func:`write_part`, after verifying its checksum.

    Raises
    ------
    OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError
        :data:`DAMAGE`: a :class:`gaussian_test.store.files.ChecksumError` if the checksum does not match.
    """
    arrays = load(files.unsealed(regular(path).read_bytes(), path))
    description = json.loads(arrays.pop(DESCRIPTION).tobytes())
    coords = set(description["coords"])
    variables: dict[bool, dict[str, xr.Variable]] = {True: {}, False: {}}
    for name, described in description["variables"].items():
        values = np.array(described["text"]) if "text" in described else arrays[name]
        variables[name in coords][name] = xr.Variable(described["dims"], values, described["attrs"])
    return xr.Dataset(variables[False], variables[True], description["attrs"])


def _plain(value: Any) -> Any:
    """Convert numpy numbers for JSON."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"an attribute of type {type(value).__name__} is not kept")


Arrays = dict[str, NDArray[Any]]


class Fits:
    """Fitted arrays by name, in memory until they are saved, then in files.

    Parameters
    ----------
    data : str
        Digest of the ground truth that they are fitted to.
    folder : Path, optional
        Folder of earlier fits; files that are damaged or of other data are ignored.

    Examples
    --------
    >>> fits = Fits("any")
    >>> fits.arrays("answer", lambda: {"value": np.array([42.0])})["value"]
    array([42.])
    >>> fits.arrays("answer", lambda: {"value": np.array([0.0])})["value"]
    array([42.])
    """

    def __init__(self, data: str, folder: Path | None = None) -> None:
        self._data = data
        self._folder = folder
        self._known: dict[str, Arrays] = {}

    def arrays(self, what: str, fit: Callable[[], Arrays]) -> Arrays:
        """Return fitted arrays, computing them if unknown."""
        if what not in self._known:
            saved = self._read(what)
            if saved is not None:
                return saved
            self._known[what] = fit()
        return self._known[what]

    def moments(self, x: Any, shrinkage: Shrinkage = None) -> analysis.Moments:
        """Return mean and spectrum of all samples, as :func:`gaussian_test.analysis.fit_moments` does."""
        return _moments(self.arrays(f"moments {shrinkage}", lambda: _arrays(analysis.fit_moments(x, shrinkage=shrinkage))))

    def of_classes(self, x: Any, labels: Any, shrinkage: Shrinkage = None) -> list[tuple[int, analysis.Moments]]:
        """Return the moments of each class, as :func:`gaussian_test.analysis.class_moments` does."""

        def fit() -> Arrays:
            by_class = analysis.class_moments(x, labels, shrinkage=shrinkage)
            found = {f"{label} {name}": value for label, moments in by_class for name, value in _arrays(moments).items()}
            return found | {"classes": np.array([label for label, _ in by_class])}

        found = self.arrays(f"classes {shrinkage}", fit)
        return [
            (label, _moments({name: found[f"{label} {name}"] for name in ("count", "mean", "eigenvalues", "eigenvectors")}))
            for label in found["classes"].tolist()
        ]

    def save(self, folder: Path) -> None:
        """Write the fits to files, and use these from now on."""
        self._folder = folder
        for what, arrays in self._known.items():
            content = safetensors.numpy.save({name: np.ascontiguousarray(value) for name, value in arrays.items()})
            files.write_bytes(folder / f"{self._name(what)}-{hashlib.sha256(content).hexdigest()}.safetensors", content)
        self._known.clear()

    def _name(self, what: str) -> str:
        return "fit-" + hashlib.sha256(f"{self._data} {what}".encode()).hexdigest()[:16]

    def _read(self, what: str) -> Arrays | None:
        """Return the arrays of a file, if its digest matches its name."""
        for path in sorted(self._folder.glob(f"{self._name(what)}-*.safetensors")) if self._folder else ():
            try:
                if files.file_digest(path) == path.stem.rpartition("-")[2]:
                    return dict(safetensors.numpy.load_file(path))
            except (OSError, SafetensorError):
                continue
        return None


def _arrays(moments: analysis.Moments) -> Arrays:
    return {
        "count": np.array([moments.count]),
        "mean": moments.mean,
        "eigenvalues": moments.eigenvalues,
        "eigenvectors": moments.eigenvectors,
    }


def _moments(arrays: Arrays) -> analysis.Moments:
    return analysis.Moments(int(arrays["count"][0]), arrays["mean"], arrays["eigenvalues"], arrays["eigenvectors"])
