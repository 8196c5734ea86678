"""States of the runs in a folder."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gaussian_test.errors import UserError
from gaussian_test.machine import inside, regular
from gaussian_test.store import files
from gaussian_test.store.files import is_locked
from gaussian_test.store.parts import count_parts, is_of_a_run, parts_folder, read_remaining
from gaussian_test.sweep.sweep import Sweep
from gaussian_test.text import aligned, duration, printable

RUNS = "sweep.json"  # in the folder of a sweep: the labels of its runs, by name
STATES = ("finished", "running", "interrupted", "failed", "waiting")


@dataclass(frozen=True)
class RunStatus:
    """The state of a run."""

    name: str  # of the run
    state: str  # one of ``finished``, ``running``, ``interrupted``, ``failed``, ``waiting``
    done: int | None = None  # finished shards of an unfinished run
    of: int | None = None  # total number of shards
    remaining: float | None = None  # estimated seconds left, when it last told
    reason: str = ""  # why it failed


def save_runs(folder: Path, sweep: Sweep) -> None:
    """Add the runs of a sweep to the planned runs of a folder."""
    files.write_text(folder / RUNS, json.dumps(read_runs(folder) | sweep.labels, indent=1) + "\n")


def read_runs(folder: Path) -> dict[str, dict[str, str]]:
    """Return the labels of the planned runs of a folder, by name; empty without a sweep."""
    try:
        runs = json.loads(regular(folder / RUNS).read_text(encoding="utf-8"))
        return {str(name): {str(key): str(label) for key, label in labels.items()} for name, labels in runs.items()}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


def error_path(output: Path) -> Path:
    """Return the file with the reason why a run of a sweep failed."""
    return output.with_name(output.name + ".error")


def status(folder: str | Path) -> list[RunStatus]:
    """Return the states of the runs of a folder.

    Parameters
    ----------
    folder : path
        Of a sweep, or any folder with archives and parts of runs; or the archive of one run, finished or not.

    Returns
    -------
    list of RunStatus
        Those of its sweep first, in their order.

    Raises
    ------
    UserError
        If it is neither, or its list of runs names a file outside.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_runs(Path(folder), Sweep.load({"sweep": {"seed": [0]}}))
    ...     status(folder)[0].state
    'waiting'
    """
    place = Path(folder)
    if not place.is_dir() and (files.is_sealed(place) or parts_folder(place).is_dir() or is_locked(place)):
        return [_of_run(place.name.removesuffix(".nc"), place)]
    if not place.is_dir():
        raise UserError(f"{place} is neither a folder nor the archive of a run: give the folder of a sweep")
    names = dict.fromkeys(read_runs(place))
    # other NetCDF files, such as the ground truth, may be in the folder
    names |= dict.fromkeys(sorted(path.name.removesuffix(".nc") for path in place.glob("*.nc") if files.is_sealed(path)))
    names |= dict.fromkeys(sorted(path.name.removesuffix(".nc.parts") for path in place.glob("*.nc.parts") if path.is_dir()))
    return [_of_run(name, inside(place, f"{name}.nc")) for name in names]


def _of_run(name: str, output: Path) -> RunStatus:
    parts = parts_folder(output)
    done, of = count_parts(parts) if is_of_a_run(parts) else (None, None)
    if is_locked(output):
        return RunStatus(name, "running", done, of, read_remaining(parts))
    reason = ""
    if error_path(output).exists() and not _is_newer(output, error_path(output)):
        with suppress(OSError):
            reason = regular(error_path(output)).read_text(encoding="utf-8", errors="replace").strip()
        return RunStatus(name, "failed", done, of, reason=reason)
    if done is not None:
        return RunStatus(name, "interrupted", done, of)
    return RunStatus(name, "finished" if output.exists() else "waiting")


def _is_newer(path: Path, other: Path) -> bool:
    return path.exists() and path.stat().st_mtime_ns >= other.stat().st_mtime_ns


def status_text(found: list[RunStatus]) -> str:
    """Return the states of runs as a table."""
    if not found:
        return "no runs"
    rows = [["run", "state", "shards", "remaining"]]
    for run in found:
        shards = "-" if run.done is None else f"{run.done} of {run.of or '?'}"
        rows.append([printable(run.name), run.state, shards, "-" if run.remaining is None else duration(run.remaining)])
    counts = [(sum(run.state == state for run in found), state) for state in STATES]
    total = ", ".join(f"{count} {state}" for count, state in counts if count)
    reasons = [printable(f"{run.name}: {run.reason}", keep="\n") for run in found if run.reason]
    return "\n".join([*aligned(rows), *reasons, "", f"{len(found)} run{'s' * (len(found) != 1)}: {total}"])
