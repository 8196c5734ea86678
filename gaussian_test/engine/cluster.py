"""The driver's side of computing shards on a Dask cluster.

Dask runs a task at least once. Each task writes its part, which does not depend on the worker, so the effect is exactly once.
"""

import asyncio
import logging
import multiprocessing
import os
import queue
import random
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gaussian_test.build.memory import SHARE
from gaussian_test.engine.interruption import Interrupted, Interruption
from gaussian_test.engine.worker import Order, Receipt, compute
from gaussian_test.errors import UserError
from gaussian_test.experiment.experiment import Experiment
from gaussian_test.log import Progress, log
from gaussian_test.machine import machine_memory
from gaussian_test.store.parts import Parts
from gaussian_test.text import byte_size

WORKER = 200_000_000  # bytes of a worker's libraries
RETRIES = 2  # of a shard whose task raised; one that killed its worker is retried as the scheduler allows, then once more
CONNECT = 15  # seconds for a scheduler to answer
WINDOW = 2000  # shards at the scheduler at a time, which takes 100 kB for each: more than a large cluster has workers
POLL = 0.5  # seconds between checks for signals and lost connections
PATIENCE = 60.0  # seconds to wait for a worker's current shard
SILENCE = 10.0  # seconds without workers before, and between, messages about it
SETTLING = 5.0  # seconds for Dask to remove a lost worker before another takes its name
STARTING = 300.0  # seconds for a worker to start, slow if Python is on a network drive
CLOSING = 30.0  # seconds for Dask to close its workers; it can wait forever for one killed at its start
ALIVE = ("running", "connecting")  # a client connected to its scheduler, or connecting
LOST = "the connection to the scheduler was lost; finished shards are kept: start it again and add --resume"


def absolute(settings: Experiment, base: Path) -> dict[str, Any]:
    """Return an experiment with absolute paths, for workers that run in other folders."""
    values: dict[str, Any] = settings.model_dump(mode="json")
    places = [(values["data"], "path"), *((score, key) for score in values["scores"] for key in ("path", "weights"))]
    if str(values["data"]["labels"]).lower().endswith(".npy"):  # other text names an array in the file
        places.append((values["data"], "labels"))
    places += [(score, "scheduler") for score in values["scores"]]
    places += [(score["trained"], "scheduler") for score in values["scores"] if score.get("trained")]
    for score in values["scores"]:
        if score["kind"] == "diffusers":  # every text among its arguments names a file
            places += _files(score["arguments"])
    if values["process"].get("scheduler"):
        places.append((values["process"], "scheduler"))
    for holder, key in places:
        if holder.get(key) is not None:
            holder[key] = os.path.join(base, holder[key])
    return values


def _files(arguments: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield where the names of files stand in arguments."""
    for name, value in arguments.items():
        if isinstance(value, dict):
            yield from _files(value)
        elif isinstance(value, str):
            yield arguments, name


def check_may_start(workers: int) -> None:
    """Raise UserError if workers cannot be started: by a daemonic process, one whose script is no file, or for want of memory."""
    memory, whose = machine_memory()
    if workers * WORKER > memory:
        raise UserError(
            f"workers = {workers} need {byte_size(WORKER)} each for their libraries, and the {whose} has {byte_size(memory)}: "
            f"give at most {max(1, memory // WORKER)}"
        )
    if multiprocessing.current_process().daemon:
        raise UserError(
            f"workers = {workers} cannot be started from a daemonic process, such as one of a pool, which may have no processes of "
            "its own: run without workers there, or start that process with daemon=False"
        )
    script = getattr(sys.modules["__main__"], "__file__", None)
    if script is not None and not Path(script).exists():
        raise UserError(f"workers = {workers} import the script, and {script} is no file: save the script, or run without workers")


@contextmanager
def connected(workers: int | None, scheduler: str | None, threads: int | None) -> Iterator[Any]:
    """Start workers on this machine, or connect to a running scheduler.

    Raises UserError if Dask is not installed, or no scheduler answers.
    """
    try:
        import cryptography  # noqa: F401 # Dask makes certificates with it
        import distributed
        from dask import config
    except ImportError as error:
        missing = "cryptography" if error.name == "cryptography" else "dask.distributed"
        raise UserError(f"workers need {missing}, which is not installed: pip install 'gaussian-test[cluster]'") from None
    if scheduler is not None:
        try:
            with_file = {"scheduler_file": scheduler} if Path(scheduler).is_file() else {"address": scheduler}
            client = distributed.Client(**with_file, timeout=CONNECT, set_as_default=False)
        except Exception as error:  # any server may answer, even a web server, whose text Dask reads as lengths
            raise UserError(
                f"no scheduler answers at {scheduler} ({_reason(error)[:160]}): give the address that it shows"
            ) from None
        with _random_kept(), client:
            yield client
        return
    environment = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads or 1)
    # Dask sets the workers' environment in this process before they start
    with (
        _environment_kept(),
        _random_kept(),
        config.set({"distributed.nanny.pre-spawn-environ": environment}),
        ExitStack() as stack,
    ):
        before = set(multiprocessing.active_children())
        try:
            cluster = distributed.LocalCluster(
                n_workers=workers,
                threads_per_worker=1,  # Dask threads: one shard at a time
                memory_limit=0,  # the experiment's cap applies; killing workers over memory does not help
                dashboard_address="127.0.0.1:0",  # any free port: allows two runs on a machine
                silence_logs=logging.CRITICAL,
                preload=["gaussian_test.engine.worker_setup"],
                env={SHARE: str(workers)},
                security=distributed.Security.temporary(),  # whoever reaches a scheduler runs code as its owner
                death_timeout=STARTING,
            )
        except Exception as error:  # Dask also fails on a late worker, and leaves it running
            for process in set(multiprocessing.active_children()) - before:
                if process.name.startswith("Dask Worker"):  # only Dask's children
                    process.kill()
            raise UserError(
                f"the workers could not be started ({_reason(error)[:120]}): see what they said above; a "
                "script of your own must call run under if __name__ == '__main__':, as each worker imports the script"
            ) from error
        stack.callback(_close, cluster)
        stack.enter_context(_replaced(cluster))
        yield stack.enter_context(distributed.Client(cluster, timeout=60, set_as_default=False))


@contextmanager
def _replaced(cluster: Any) -> Iterator[None]:
    """Restart workers that Dask gives up: those killed again while restarting after a kill.

    Dask drops such a worker silently, or keeps it closed, but keeps its specification. Without any workers a run would wait
    forever.
    """
    asked, ended = len(cluster.worker_spec), threading.Event()

    def look() -> None:
        missing_since = None
        while not ended.wait(POLL):
            workers = cluster.workers.copy()
            closed = [name for name, nanny in workers.items() if nanny.status.name in ("closed", "failed")]
            missing = asked - len(workers) + len(closed)
            if missing <= 0:
                missing_since = None
                continue
            now = time.monotonic()
            missing_since = missing_since or now
            if now - missing_since > SETTLING:
                log("replaced", logging.WARNING, workers=missing, reason="Dask has given them up")
                for name in closed:
                    cluster.workers.pop(name, None)
                cluster.scale(asked)
                missing_since = None

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield
    finally:
        ended.set()
        looking.join()


def _close(cluster: Any) -> None:
    """Close the workers, and kill those that Dask cannot close; finished shards are already written."""
    nannies = list(cluster._created)
    try:
        cluster.close(timeout=CLOSING)
    except Exception as error:
        log("killed", logging.WARNING, reason=f"Dask has not closed its workers: {_reason(error)}")
        cluster.shutdown_on_close = False  # else Dask retries at interpreter exit
        for nanny in nannies:
            nanny.close_gracefully()  # so that it does not restart the worker
            if nanny.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(nanny.pid, signal.SIGKILL)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def _environment_kept() -> Iterator[None]:
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _random_kept() -> Iterator[None]:
    """Give Python's random numbers back as they were: Dask draws from them."""
    before = random.getstate()
    try:
        yield
    finally:
        random.setstate(before)


def ask(client: Any, question: Callable[[Order], Any], order: Order) -> Any:
    """Ask one worker a question about a run.

    Raises UserError if the worker refuses or dies, or the scheduler is lost.
    """
    done: queue.SimpleQueue[Any] = queue.SimpleQueue()
    idle_since = time.monotonic()
    while True:
        future = _submit(client, question, order, pure=False)
        future.add_done_callback(done.put)
        while True:
            try:
                done.get(timeout=POLL)
                break
            except queue.Empty:
                idle_since = _look_around(client, idle_since)
        outcome = _outcome(future)
        if isinstance(outcome, _Failed):
            raise UserError(f"no worker can load the run: {outcome.why.rstrip('.')}; fix it and run again")
        if outcome is not None:
            return outcome.value
        _look_around(client, idle_since)


def compute_on(
    client: Any, order: Order, parts: Parts, missing: Sequence[int], progress: Progress, interruption: Interruption
) -> dict[int, str]:
    """Compute the missing shards on the workers.

    Raises
    ------
    UserError
        If the scheduler is lost; finished shards are kept.
    Interrupted
        If a signal arrived.
    """
    done: queue.SimpleQueue[Any] = queue.SimpleQueue()
    pending: dict[str, tuple[int, Any]] = {}
    failures: dict[int, str] = {}
    misfits: dict[str, str] = {}  # their problems, by address
    waiting = deque(missing)
    suspects: dict[int, str] = {}  # shards whose workers were killed, perhaps by other shards: retried once, alone
    alone: set[int] = set()

    def submit(shard: int) -> None:
        """Submit a shard to the fit workers; without any it has failed."""
        fit = _workers(client) if misfits else None  # if unknown, any worker: a misfit will report itself again
        if fit is not None and not (fit := fit - misfits.keys()):
            failed(shard, next(reversed(misfits.values())))
            return
        key = f"shard-{shard}-{Path(order.output).name}-{time.time_ns()}"
        future = _submit(client, compute, order, shard, key=key, retries=RETRIES, workers=sorted(fit) if fit else None)
        pending[future.key] = (shard, future)
        future.add_done_callback(done.put)

    def failed(shard: int, why: str) -> None:
        failures[shard] = why
        log("failed", logging.ERROR, shard=shard, reason=why)

    with interruption.finishing():
        stopping, idle_since = False, time.monotonic()
        while waiting or pending or (suspects and not stopping):
            while waiting and len(pending) < WINDOW:
                submit(waiting.popleft())
            if not pending:
                if suspects and not stopping:
                    shard, _ = suspects.popitem()
                    alone.add(shard)
                    submit(shard)
                continue
            if interruption.asked is not None and not stopping:
                stopping = True
                waiting.clear()
                parts.stop()  # workers start no further shard
            try:
                future = done.get(timeout=POLL)
            except queue.Empty:
                idle_since = _look_around(client, idle_since)
                continue
            shard, _ = pending.pop(future.key)
            outcome = _outcome(future)
            if outcome is None:  # its worker died with the receipt, or the connection is lost
                _look_around(client, idle_since)
                if not stopping:
                    submit(shard)
            elif isinstance(outcome, _Failed):
                if outcome.killed and shard not in alone:
                    suspects[shard] = outcome.why
                else:
                    failed(shard, outcome.why)
            else:
                receipt: Receipt = outcome.value
                if receipt.state == "failed":
                    failed(shard, receipt.problem)
                elif receipt.state == "misfit":
                    if receipt.address not in misfits:
                        log("misfit", logging.WARNING, worker=receipt.worker, reason=receipt.problem)
                    misfits[receipt.address] = receipt.problem
                    if not stopping:
                        submit(shard)
                elif receipt.state == "written":
                    progress.finished(shard, receipt.seconds, worker=receipt.worker)
    if interruption.asked is not None:
        raise Interrupted(interruption.asked)
    return failures


def _submit(client: Any, *task: Any, **options: Any) -> Any:
    try:
        return client.submit(*task, **options)
    except Exception:
        if client.status in ALIVE:
            raise
        raise UserError(LOST) from None


@dataclass(frozen=True)
class _Answer:
    value: Any


@dataclass(frozen=True)
class _Failed:
    why: str
    killed: bool = False


def _outcome(future: Any) -> _Answer | _Failed | None:
    """Return the result of a task, why it failed, or None if neither is available."""
    if future.status == "finished":
        try:
            return _Answer(future.result(timeout=PATIENCE))
        except (OSError, KeyError, asyncio.CancelledError):
            return None
    if future.status != "error":
        return None
    error = future.exception()
    if isinstance(error, UserError):
        return _Failed(str(error))
    if type(error).__name__ == "KilledWorker":
        return _Failed(f"it has killed {error.allowed_failures + 1} workers, perhaps for want of memory", killed=True)
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
    return _Failed(f"{type(error).__name__}: {reason}")


def _workers(client: Any) -> set[str] | None:
    """Return the addresses of the workers, or None if the scheduler does not answer (its status tells whether it is lost)."""
    if client.status != "running":
        return None
    try:
        return set(client.nthreads())
    except (OSError, asyncio.CancelledError):  # lost since the line before, unnoticed by the client
        return None


def _look_around(client: Any, idle_since: float) -> float:
    """Raise if the scheduler is lost, and log if there are no workers."""
    if client.status not in ALIVE:
        raise UserError(LOST)
    now = time.monotonic()
    if _workers(client):
        return now
    if now - idle_since < SILENCE:
        return idle_since
    log("waiting", logging.WARNING, reason="the cluster has no workers")
    return now
