"""Runner of a sweep, with one archive per run."""

import logging
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from gaussian_test.engine import cluster
from gaussian_test.engine.runner import run
from gaussian_test.errors import UserError, user_input
from gaussian_test.log import Progress, log, to_file
from gaussian_test.store import files
from gaussian_test.store.files import LockedError
from gaussian_test.store.parts import is_of_a_run, parts_folder
from gaussian_test.sweep.states import error_path, save_runs
from gaussian_test.sweep.sweep import Sweep


def run_sweep(
    sweep: Sweep | Mapping[str, Any] | str | Path,
    folder: str | Path,
    *,
    device: str = "auto",
    workers: int | None = None,
    scheduler: str | None = None,
    threads: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    trust: Mapping[str, str] | None = None,
    progress: bool | None = None,
) -> list[Path]:
    """Run every experiment of a sweep.

    Several processes may run the same sweep into one folder with ``resume``: each takes runs that no other is computing.

    Parameters
    ----------
    sweep : Sweep, mapping or path
        The sweep to run.
    folder : path
        Folder of the archives, ``<name of the run>.nc``; created if needed.
    device, workers, scheduler, threads, trust, progress
        As for :func:`gaussian_test.run`.
    resume : bool
        Resume a sweep in the folder: finished runs are kept, interrupted ones resumed, added ones run.
    overwrite : bool
        Repeat all runs.

    Returns
    -------
    list of Path
        The archives.

    Raises
    ------
    UserError
        If the sweep cannot be run, or after all others are done, if some runs failed.

    Examples
    --------
    >>> import tempfile
    >>> small = {"samples": 8, "turn_times": {"noise_to_signal": [0.1, 5.0]}, "observables": "none"}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in run_sweep({"sweep": {"seed": [0, 1]}, **small}, folder, progress=False)]
    ['seed=0.nc', 'seed=1.nc']
    """
    chosen = sweep if isinstance(sweep, Sweep) else Sweep.load(sweep)
    place = Path(folder)
    with user_input():
        place.mkdir(parents=True, exist_ok=True)
    outputs = {name: place / f"{name}.nc" for name in chosen.runs}
    if resume and overwrite:
        raise UserError("resume and overwrite exclude each other: go on with the sweep or run all of it again")
    there = [path for path in outputs.values() if path.exists() or is_of_a_run(parts_folder(path))]
    if there and not (resume or overwrite):
        raise UserError(
            f"{place} holds runs of this sweep ({there[0].name}): add --resume to go on or --overwrite to run them again"
        )
    with user_input():
        save_runs(place, chosen)
    failures: dict[str, str] = {}
    # one set of workers for all runs, as starting takes seconds
    connected = cluster.connected(workers, None, threads) if workers else nullcontext()
    with to_file(place), connected as client, Progress(len(outputs), 0, "Sweep", progress, "run") as counter:
        address = client.scheduler.address if client else scheduler
        share = threads or (1 if workers else None)
        for number, (name, settings) in enumerate(chosen.runs.items()):
            log("run", run=name, number=number + 1, of=len(chosen.runs))
            began, is_there = time.monotonic(), resume and outputs[name].exists() and not is_of_a_run(parts_folder(outputs[name]))
            try:
                run(
                    settings,
                    outputs[name],
                    device=device,
                    scheduler=address,
                    threads=share,
                    resume=resume,
                    overwrite=overwrite,
                    trust=trust,
                    progress=progress,
                )
                error_path(outputs[name]).unlink(missing_ok=True)
            except LockedError as error:
                log("skipped", run=name, reason=error)
                is_there = True  # another process is computing it
            except UserError as error:
                failures[name] = str(error)
                log("failed", logging.ERROR, run=name, reason=error)
                with user_input():
                    files.write_text(error_path(outputs[name]), f"{error}\n")
            if is_there:
                counter.passed()
            else:
                counter.finished(name, time.monotonic() - began)
    if failures:
        name = next(iter(failures))
        raise UserError(
            f"{len(failures)} of {len(outputs)} runs failed, {name} for one: {failures[name].rstrip('.')}; the others are done: "
            f"see gaussian-test status {place}, fix it and add --resume"
        )
    return [path for path in outputs.values() if path.exists()]  # other processes may be computing some
