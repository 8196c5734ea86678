"""From an experiment through shards to a result and archive."""

import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
import xarray as xr

from gaussian_test import sampler
from gaussian_test.build.features import Measure
from gaussian_test.build.problem import (
    Given,
    Prepared,
    check_recognisable,
    continued,
    prepare,
    refined,
    run_identity,
    shard_identity,
)
from gaussian_test.engine import cluster, worker
from gaussian_test.engine.interruption import Interrupted, Interruption
from gaussian_test.engine.shard import Rows, compute_here, computing, settle_micro_batches
from gaussian_test.errors import UserError, user_input
from gaussian_test.experiment.experiment import Experiment
from gaussian_test.log import Progress, log, to_file
from gaussian_test.machine import nameable, regular, replaceable
from gaussian_test.result.assembly import assemble, crossings
from gaussian_test.sampler.defaults import torch_threads
from gaussian_test.store import archive, files
from gaussian_test.store.files import locked
from gaussian_test.store.parts import (
    MICRO_BATCHES,
    STATE,
    Parts,
    check_ours,
    first_difference,
    is_of_a_run,
    parts_folder,
    read_identity,
)

MOST_THREADS = 1024  # which OpenMP can start anywhere
AFTER = "statistics and observables of all shards"


def run(
    experiment: Experiment | Mapping[str, Any] | str | Path | None = None,
    output: str | Path | None = None,
    *,
    device: str = "auto",
    workers: int | None = None,
    scheduler: str | None = None,
    threads: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    truth: Any = None,
    scores: Mapping[str, sampler.Score] | None = None,
    trust: Mapping[str, str] | None = None,
    classifier: Any = None,
    features: Callable[[torch.Tensor], Any] | None = None,
    custom_observables: Mapping[str, Measure] | None = None,
    progress: bool | None = None,
    own_observables: Mapping[str, Measure] | None = None,
) -> xr.Dataset:
    """Run the Gaussian Test.

    Parameters
    ----------
    experiment : Experiment, dict or path of a YAML file, optional
        The experiment; default: the Gaussian Test of the embedded digits.
    output : path, optional
        Path of the archive; finished shards are kept beside it until it is complete. Default: memory only.
    device : str
        ``auto`` (a GPU if there is one), ``cpu`` or ``cuda[:i]``.
    workers : int, optional
        Compute the shards in this many processes of this machine (Dask), which share its cores. Default: in this process.
    scheduler : str, optional
        Compute the shards on the workers of a running Dask cluster: the address of its scheduler, or its scheduler file.
    threads : int, optional
        Threads of torch in each process, which affect the last digits. Default: all cores here, 1 for each of ``workers``, and on a
        cluster the worker's threads.
    resume : bool
        Resume an interrupted run of the same experiment from its parts; a complete archive is opened.
    overwrite : bool
        Replace an existing archive (when the new one is complete) and drop the parts of an interrupted run.
    truth : Dataset or object, optional
        Ground-truth samples from Python, as returned by :func:`gaussian_test.data.load` or as it takes them, instead of the
        experiment's ``data``. A Dataset with ``x`` over (sample, feature) or (sample, channel, row, column) is taken as it is.
    scores : mapping of str to Score, optional
        Scores from Python, besides those of the experiment; moved to the device and dtype of the run.
    trust : mapping of str to str, optional
        Files that can run code when opened (pickles, TorchScript), each with the sha256 that you trust.
    classifier : scikit-learn classifier, optional
        End-point classifier, instead of the experiment's; a copy is fitted on the ground truth.
    features : torch module or callable, optional
        Feature extractor for end points and ground truth, instead of the experiment's: takes samples (batch, ``*event``) as a
        tensor and returns features (batch, F), for example those of an Inception network.
    custom_observables : mapping of str to callable, optional
        Custom observables, besides those of the experiment: each takes starts and ends of U-Turns (batch, ``*event``), float32
        tensors on the device of the run, and returns one number per U-Turn, (batch,). The archive stores its curve under this name.
    progress : bool, optional
        Show a progress bar; default: only on a terminal.
    own_observables : mapping of str to callable, optional
        Deprecated name of ``custom_observables``.

    Returns
    -------
    Dataset
        The root group of the archive; ``.gaussian_test.group("moments")`` returns the others.

    Raises
    ------
    UserError
        If an input is invalid. Nothing is left on disk then, except the finished shards of a run that failed later (a score that
        returns NaN, a full disk).
    Interrupted
        A KeyboardInterrupt, after Ctrl-C or SIGTERM. With an output the current shards are finished first; a second signal ends the
        run at once.

    Examples
    --------
    >>> result = run({"samples": 8, "turn_times": {"noise_to_signal": [0.1, 5.0]}, "keep": {"pictures": 0}})
    >>> result.memorized_share.sel(score="empirical").values.tolist()
    [1.0, 0.0]
    """
    settings = Experiment.load(experiment)
    path = None if output is None else Path(output)
    if own_observables is not None:
        warnings.warn("own_observables is deprecated: give custom_observables", DeprecationWarning, stacklevel=2)
        custom_observables = {**own_observables, **(custom_observables or {})}
    given = Given(truth, scores or {}, classifier, features, custom_observables or {}, trust or {})
    _check_engine(workers, scheduler, threads, path, given.objects)
    if path is None:
        with torch_threads(threads), Interruption().listening() as interruption:
            return _in_memory(prepare(settings, device, given), progress, interruption)
    with user_input():
        _check_output(path, resume, overwrite)
    # bits depend on threads: each of our workers has one, and so has the assembly here
    share = threads or (1 if workers else None)
    with torch_threads(share), Interruption().listening() as interruption, locked(path):
        if is_of_a_run(parts_folder(path)):
            with suppress(OSError):  # what a run that was killed told of itself
                (parts_folder(path) / STATE).unlink()
        with user_input():
            _check_output(path, resume, overwrite)  # check again: another run may just have finished
        # on a cluster the driver may lack the workers' GPU
        here = device if scheduler is None else "auto"
        prepared = prepare(settings, here, given, parts_folder(path) if resume else None)
        if resume:
            check_recognisable(prepared)
            prepared = continued(prepared, _identities(path))
        order = None
        if workers is not None or scheduler is not None:
            trusted = {os.path.abspath(file): digest for file, digest in given.trust.items()}
            order = worker.Order(cluster.absolute(settings, Path.cwd()), device, trusted, str(path.absolute()), share)
        return _to_archive(path, prepared, order, (workers, scheduler), (resume, overwrite), progress, interruption)


def _identities(path: Path) -> Iterator[dict[str, str] | None]:
    """Return the identities of an unfinished and of a finished run of an output."""
    yield read_identity(parts_folder(path))
    with suppress(UserError):
        yield json.loads(archive.open_archive(path).attrs.get("identity", "{}"))


def _in_memory(prepared: Prepared, progress: bool | None, interruption: Interruption) -> xr.Dataset:
    finer: Prepared | None = prepared
    settled: dict[str, int] = {}
    while finer is not None:
        prepared, shards, rows = finer, len(finer.bounds) - 1, Rows.of(finer)
        settled = settle_micro_batches(prepared, settled)
        with Progress(shards, 0, f"U-Turns on {prepared.device}", progress) as counter:
            compute_here(prepared, None, range(shards), rows, counter, interruption)
            counter.then(AFTER)
        with computing(prepared):
            table = rows.table()
            finer = _finer(prepared, table)
    with computing(prepared):
        result, groups = _assembled(prepared, table, run_identity(prepared))
    return archive.attach(result, groups)


def _finer(prepared: Prepared, table: xr.Dataset) -> Prepared | None:
    """Return the run with more turn times that ``turn_times.refine`` asks for, if there is one."""
    share = prepared.settings.turn_times.refine
    found = refined(prepared, crossings(prepared, table), share) if share else None
    if found is not None:
        log("refine", turn_times=len(found.plan.levels), before=len(prepared.plan.levels))
    return found


def _assembled(prepared: Prepared, table: xr.Dataset, identity: dict[str, str]) -> tuple[xr.Dataset, dict[str, xr.Dataset]]:
    """Put the archive together, of samples that are still those the run began with."""
    result = assemble(prepared, table, identity)
    if prepared.source is not None:
        prepared.source.check(whole=True)
    return result


def _to_archive(
    path: Path,
    prepared: Prepared,
    order: worker.Order | None,
    where: tuple[int | None, str | None],
    again: tuple[bool, bool],
    progress: bool | None,
    interruption: Interruption,
) -> xr.Dataset:
    """Run with parts beside the unfinished archive."""
    resume, overwrite = again
    identity = run_identity(prepared)
    shards = len(prepared.bounds) - 1
    with nullcontext() if order is None else cluster.connected(*where, order.threads) as client:
        if order is not None:
            # the workers know the device type of the shards
            identity["device type"] = cluster.ask(client, worker.device_type, order)
        parts = Parts(path, shard_identity(identity), shards)
        finished = _already_there(path, identity, parts) if resume and path.exists() else None
        if finished is not None:
            parts.remove()  # a run may have been killed before this cleanup
            files.remove_leftovers(path)
            return finished
        with user_input():
            parts.open(resume, overwrite)
        try:
            with to_file(parts.folder), _said(parts, shards):
                finer: Prepared | None = prepared
                while finer is not None:
                    if finer is not prepared:
                        prepared, identity = finer, run_identity(finer) | {"device type": identity["device type"]}
                        parts.begin_again(shard_identity(identity))
                        order = order and replace(order, levels=finer.plan.levels, token=uuid4().hex)
                    table = _table(prepared, parts, order, client, progress, interruption)
                    with computing(prepared):
                        finer = _finer(prepared, table)
                with computing(prepared):
                    result, groups = _assembled(prepared, table, identity)
                _write(path, result, groups)
        finally:
            if not parts.count():
                parts.remove()  # no finished shard to lose
    parts.remove()
    files.remove_leftovers(path)
    return archive.open_archive(path)


def _table(
    prepared: Prepared, parts: Parts, order: worker.Order | None, client: Any, progress: bool | None, interruption: Interruption
) -> xr.Dataset:
    """Return the table of all shards, from finished parts or computed now."""
    total, rows = len(prepared.bounds) - 1, Rows.of(prepared, parts.folder)
    with user_input():
        prepared.fits.save(parts.folder)
    missing = _read(parts, rows, range(total))
    known = _known_micro_batches(parts, prepared, rows)
    where = str(prepared.device) if order is None else f"workers ({client.scheduler.address})"
    log("start", shards=total, finished=total - len(missing), on=where, samples=len(prepared.samples), seed=prepared.settings.seed)
    if missing:
        if order is None:
            settled = settle_micro_batches(prepared, known)
        else:
            order = replace(order, identity=parts.identity, micro_batches=known)
            # measure an open micro-batch where it is used
            is_open = any(
                isinstance(score, sampler.NetworkScore) and not score.asked_micro_batch for score in prepared.scores.values()
            )
            settled = cluster.ask(client, worker.settle, order) if is_open else settle_micro_batches(prepared, known)
            order = replace(order, micro_batches=settled)
        with user_input():
            files.write_text(parts.folder / MICRO_BATCHES, json.dumps(settled))
        what = f"U-Turns on {where}"
        with parts.telling() as tell, Progress(total, total - len(missing), what, progress, tell=tell) as counter:
            if order is None:
                compute_here(prepared, parts, missing, rows, counter, interruption)
                missing = []
            else:
                failures = cluster.compute_on(client, order, parts, missing, counter, interruption)
                if failures:
                    raise UserError(_failed(failures, total))
                missing = _read(parts, rows, missing)
            counter.then(AFTER)
    if missing:
        raise UserError(f"{len(missing)} parts written by workers are not in {parts.folder}: let all machines see the same folder")
    return rows.table()


def _read(parts: Parts, rows: Rows, shards: Iterable[int]) -> list[int]:
    """Add the finished ones of some shards to the rows, and return the others."""
    missing = []
    for shard in shards:
        table = parts.read(shard)
        if table is None:
            missing.append(shard)
        else:
            rows.add(shard, table)
    return missing


def _failed(failures: dict[int, str], total: int) -> str:
    shard = min(failures)
    return (
        f"{len(failures)} of {total} shards failed, shard {shard} for one: {failures[shard].rstrip('.')}; "
        "the others are kept: fix it and add --resume"
    )


@contextmanager
def _said(parts: Parts, total: int) -> Iterator[None]:
    """Log why a run ended early, and add the remaining work to an interruption."""
    try:
        yield
    except Interrupted as error:
        done = parts.count()
        log("interrupted", logging.WARNING, signal=error.number, done=done, of=total)
        left = f"{done} of {total} shards are finished and kept in {parts.folder}: add --resume to go on"
        raise Interrupted(error.number, left if done else f"none of {total} shards was finished: run again") from None
    except UserError as error:
        log("failed", logging.ERROR, reason=error)
        raise


def _known_micro_batches(parts: Parts, prepared: Prepared, rows: Rows) -> dict[str, int]:
    """Return the micro-batches at the start of the run, for networks without a fixed one."""
    names = [name for name, score in prepared.scores.items() if isinstance(score, sampler.NetworkScore)]
    try:
        known = json.loads(regular(parts.folder / MICRO_BATCHES).read_text(encoding="utf-8"))
        return {name: int(known[name]) for name in names}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # a memory shortage may have halved it in some parts
        found = dict(zip(prepared.scores, rows.micro_batches(), strict=False))
        return {name: found[name] for name in names if name in found}


def _write(path: Path, result: xr.Dataset, groups: Mapping[str, xr.Dataset]) -> None:
    began = time.monotonic()
    try:
        archive.write(path, result, groups)
    except OSError as error:
        raise UserError(
            f"{path} could not be written ({error.strerror or error}): make room or give permission to write, and add --resume"
        ) from error
    log("archive", bytes=path.stat().st_size, seconds=time.monotonic() - began)


def _check_engine(workers: int | None, scheduler: str | None, threads: int | None, path: Path | None, given: list[str]) -> None:
    for name, value in (("workers", workers), ("threads", threads)):
        if value is not None and value < 1:
            raise UserError(f"{name} = {value} is too few: give at least 1")
    if threads is not None and threads > MOST_THREADS:
        raise UserError(f"threads = {threads} is too many: give at most {MOST_THREADS}, such as the number of cores")
    if workers is None and scheduler is None:
        return
    if workers is not None and scheduler is not None:
        raise UserError("workers and scheduler exclude each other: start workers here or use those of a running cluster")
    if workers is not None:
        cluster.check_may_start(workers)
    if path is None:
        raise UserError("workers write their shards beside the archive: give an output")
    if given:
        raise UserError(
            f"{' and '.join(given)} from python cannot be sent to workers: name files and factories (package.module:function) in "
            "the experiment, or run without workers"
        )


def _check_output(path: Path, resume: bool, overwrite: bool) -> None:
    if resume and overwrite:
        raise UserError("resume and overwrite exclude each other: go on with the parts or start again")
    if not path.parent.is_dir():
        raise UserError(f"{path.parent} is not a folder: create it or choose another output")
    if path.is_dir():
        raise UserError(f"{path} is a folder: give the name of a file in it")
    parts = replaceable(parts_folder(replaceable(nameable(path))))
    if parts.is_dir():
        check_ours(parts)
    if path.exists() and not (resume or overwrite):
        raise UserError(f"{path} exists: add --overwrite to replace it or choose another output")


def _already_there(path: Path, identity: dict[str, str], parts: Parts) -> xr.Dataset | None:
    """Return the archive of this run; None if an interrupted run is about to replace the existing one."""
    try:
        result = archive.open_archive(path)
        differs = first_difference(identity, json.loads(result.attrs.get("identity", "{}")))
        if differs is not None:
            raise UserError(f"{path} is the archive of another run ({differs} differs): choose another output or --overwrite")
    except UserError:
        if parts.are_there():
            return None
        raise
    return result
