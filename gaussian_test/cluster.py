"""The shards of a run, computed by the workers of a Dask cluster.

A worker loads score and data once, from their paths. A task computes one shard, writes its part, and returns a small receipt: it
may run any number of times (Dask promises at least once) and its part is the same (so the effect is exactly once).
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from gaussian_test._version import __version__
from gaussian_test.engine import computing, settle_micro_batches
from gaussian_test.errors import UserError
from gaussian_test.experiment import Experiment
from gaussian_test.identity import run_identity, shard_identity
from gaussian_test.interruption import Interrupted, Interruption
from gaussian_test.parts import Parts, first_difference, parts_folder
from gaussian_test.prepare import Prepared, pick_device, prepare
from gaussian_test.run_log import Progress, log
from gaussian_test.shard import run_shard

RETRIES = 2  # of a shard whose task raised; one that kills its worker is tried as often as the scheduler allows
POLL = 0.5  # seconds between two looks for signals and lost connections
PATIENCE = 60.0  # seconds without workers before that is said


@dataclass(frozen=True)
class Order:
    """What a worker needs to know to compute any shard of a run: settings and paths, no data.

    Attributes
    ----------
    settings : dict
        The experiment, with absolute paths.
    device : str
        ``auto``, ``cpu`` or ``cuda[:i]``, on the worker.
    trust : dict of str to str
        Files that run code, and their sha256.
    output : str
        Absolute path of the archive in the making.
    threads : int or None
        Of torch, on each worker; None: as many as the worker was given.
    version : str
        Of gaussian_test.
    identity : dict of str to str
        What the worker's samples and scores must be; empty until it is known.
    micro_batches : dict of str to int
        Of the networks.
    """

    settings: dict[str, Any]
    device: str
    trust: dict[str, str]
    output: str
    threads: int | None
    version: str = __version__
    identity: dict[str, str] = field(default_factory=dict)
    micro_batches: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Receipt:
    """What a worker says about a shard.

    Attributes
    ----------
    shard : int
        Its number.
    seconds : float
        How long it took.
    worker : str
        Process and machine.
    problem : str
        Why it cannot be computed, as one sentence; empty if it is written.
    """

    shard: int
    seconds: float
    worker: str
    problem: str = ""


LOST = "the connection to the scheduler was lost; finished shards are kept: start it again and add --resume"
LOCAL = "GAUSSIAN_TEST_LOCAL_WORKER"  # set for the workers that this program starts
_one_at_a_time = threading.Lock()  # a worker of many threads computes one shard at a time, with all of them
_loaded: dict[str, tuple[Prepared, dict[str, str]]] = {}  # the run that this worker has at hand


def _prepared(order: Order) -> tuple[Prepared, dict[str, str]]:
    """Return the run and what it is, loaded from its paths the first time, on the device of this worker."""
    if order.version != __version__:
        raise UserError(f"a worker has gaussian_test {__version__}, the driver {order.version}: install the same on both")
    key = repr(replace(order, identity={}, micro_batches={}))
    if key not in _loaded:
        if order.threads is not None:
            torch.set_num_threads(order.threads)
        _loaded.clear()
        device = worker_device(order.device, _number(), torch.cuda.device_count())
        settings = Experiment.load(order.settings)
        folder = parts_folder(Path(order.output))
        prepared = prepare(settings, device, trust=order.trust, folder=folder, shards_only=True)
        _loaded[key] = prepared, shard_identity(run_identity(prepared))
    return _loaded[key]


def _number() -> int | None:
    """Return the number of this worker, of those that this program has started; None on other clusters."""
    if LOCAL not in os.environ:
        return None
    from distributed import get_worker

    return int(get_worker().name)


def worker_device(device: str, worker: int | None, devices: int) -> str:
    """Return the device of one of several workers on a machine: they take its GPUs in turn, unless one is named.

    Parameters
    ----------
    device : str
        What was asked for.
    worker : int or None
        Its number; None on other clusters than ours, which give each worker its GPU.
    devices : int
        GPUs that the worker sees.

    Returns
    -------
    str

    Examples
    --------
    >>> worker_device("cuda", 5, 4), worker_device("auto", 1, 0), worker_device("cuda:2", 0, 4), worker_device("cuda", None, 4)
    ('cuda:1', 'auto', 'cuda:2', 'cuda')
    """
    if device in ("auto", "cuda") and worker is not None and devices > 1:
        return f"cuda:{worker % devices}"
    return device


def device_type(order: Order) -> str:
    """Return the type of the device that a worker would take."""
    return pick_device(order.device).type


def settle(order: Order) -> dict[str, int]:
    """Load a run on a worker, and return the micro-batches of its networks."""
    with _one_at_a_time:
        prepared, _ = _prepared(order)
        return settle_micro_batches(prepared, order.micro_batches)


def compute(order: Order, shard: int) -> Receipt:
    """Compute one shard on a worker and write its part."""
    began, worker = time.monotonic(), f"{os.uname().nodename}:{os.getpid()}"
    with _one_at_a_time:
        try:
            prepared, identity = _prepared(order)
            differs = first_difference(order.identity, identity)
            if differs:
                raise UserError(f"a worker ({worker}) has another {differs} than the driver: let all see the same files")
            parts = Parts(Path(order.output), order.identity)
            if parts.read(shard) is not None:  # somebody's receipt was lost
                return Receipt(shard, 0.0, worker)
            settle_micro_batches(prepared, order.micro_batches)  # an earlier shard may have halved them
            samples = prepared.plan.shards(prepared.samples.tolist())[shard]
            with computing(prepared):
                table = run_shard(prepared, samples)
        except UserError as error:  # what cannot be computed cannot be computed elsewhere: no reason to try again
            return Receipt(shard, time.monotonic() - began, worker, str(error))
        parts.write(shard, table)
    return Receipt(shard, time.monotonic() - began, worker)


def absolute(settings: Experiment, base: Path) -> dict[str, Any]:
    """Return an experiment whose files are named by absolute paths, for workers that run in other folders.

    Examples
    --------
    >>> absolute(Experiment.load({"data": {"source": "file", "path": "x.npz"}}), Path("/home"))["data"]["path"]
    '/home/x.npz'
    """
    values: dict[str, Any] = settings.model_dump(mode="json")
    places = [(values["data"], "path"), *((score, key) for score in values["scores"] for key in ("path", "weights"))]
    if str(values["data"]["labels"]).lower().endswith(".npy"):  # another text is the name of an array in the file
        places.append((values["data"], "labels"))
    places += [(score, "scheduler") for score in values["scores"]]
    if values["process"].get("scheduler"):
        places.append((values["process"], "scheduler"))
    for holder, key in places:
        if holder.get(key) is not None:
            holder[key] = os.path.join(base, holder[key])
    return values


@contextmanager
def connected(workers: int | None, scheduler: str | None, threads: int | None) -> Iterator[Any]:
    """Start workers on this machine, or find a scheduler that is running.

    Parameters
    ----------
    workers : int or None
        How many to start; each gets its share of the cores, or so many ``threads``.
    scheduler : str or None
        Address of a scheduler, or path of its file.
    threads : int or None
        As in :class:`Order`.

    Yields
    ------
    distributed.Client

    Raises
    ------
    UserError
        If Dask is not installed, or no scheduler answers.
    """
    try:
        import distributed
        from dask import config
    except ImportError:
        raise UserError("workers need dask.distributed, which is not installed: pip install 'gaussian-test[cluster]'") from None
    if scheduler is not None:
        try:
            with_file = {"scheduler_file": scheduler} if Path(scheduler).is_file() else {"address": scheduler}
            client = distributed.Client(**with_file, timeout=15, set_as_default=False)
        except (OSError, ValueError, TimeoutError, KeyError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"no scheduler answers at {scheduler} ({reason[:160]}): give the address that it shows") from None
        with client:
            yield client
        return
    environment = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads or 1)
    with (
        _environment_kept(),  # Dask sets in this process what the workers are to find before they start
        config.set({"distributed.nanny.pre-spawn-environ": environment}),
        distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,  # of Dask: one shard at a time
            memory_limit=0,  # the cap of the experiment holds; a worker that is killed for its memory helps nobody
            dashboard_address="127.0.0.1:0",  # any free port: two runs on a machine do not meet
            silence_logs=logging.CRITICAL,
            preload=["gaussian_test.worker_setup"],
            env={LOCAL: "1"},
        ) as cluster,
        distributed.Client(cluster, timeout=60, set_as_default=False) as client,
    ):
        yield client


@contextmanager
def _environment_kept() -> Iterator[None]:
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def compute_on(client: Any, order: Order, missing: Sequence[int], progress: Progress, interruption: Interruption) -> dict[int, str]:
    """Have the workers compute the shards that are missing.

    Parameters
    ----------
    client : distributed.Client
        Of the cluster.
    order : Order
        The run, with identity and micro-batches.
    missing : sequence of int
        Numbers of the shards.
    progress : Progress
        Counts them.
    interruption : Interruption
        After whose signal the workers finish what they are at.

    Returns
    -------
    dict of int to str
        Shards that could not be computed, and why.

    Raises
    ------
    UserError
        If the scheduler is lost; what is finished is kept.
    Interrupted
        If a signal came.
    """
    done: queue.SimpleQueue[Any] = queue.SimpleQueue()
    pending, failures = {}, {}

    def submit(shard: int) -> None:
        key = f"shard-{shard}-{Path(order.output).name}-{time.time_ns()}"
        future = client.submit(compute, order, shard, key=key, retries=RETRIES)
        pending[future.key] = (shard, future)
        future.add_done_callback(done.put)

    with interruption.finishing():
        for shard in missing:
            submit(shard)
        stopping, idle_since = False, time.monotonic()
        while pending:
            if interruption.asked is not None and not stopping:
                stopping = True
                at_work = {key for keys in client.processing().values() for key in keys}
                for key in [key for key in pending if key not in at_work]:
                    pending.pop(key)[1].cancel()
                continue
            try:
                future = done.get(timeout=POLL)
            except queue.Empty:
                idle_since = _look_around(client, idle_since)
                continue
            if future.key not in pending:
                continue
            shard, _ = pending.pop(future.key)
            outcome = _outcome(future)
            if outcome is None:  # its worker has died with the receipt, or the connection is gone
                _look_around(client, idle_since)
                if not stopping:
                    submit(shard)
            elif isinstance(outcome, str) or outcome.problem:
                failures[shard] = outcome if isinstance(outcome, str) else outcome.problem
                log("failed", logging.ERROR, shard=shard, reason=failures[shard])
            else:
                progress.finished(shard, outcome.seconds, worker=outcome.worker)
    if interruption.asked is not None:
        raise Interrupted(interruption.asked)
    return failures


def _outcome(future: Any) -> Receipt | str | None:
    """Return the receipt of a task, why it has failed, or None if neither can be had."""
    if future.status == "finished":
        try:
            receipt: Receipt = future.result(timeout=PATIENCE)
        except (OSError, KeyError, asyncio.CancelledError):
            return None
        return receipt
    if future.status != "error":
        return None
    error = future.exception()
    if type(error).__name__ == "KilledWorker":
        return f"it has killed {error.allowed_failures + 1} workers, perhaps for want of memory"
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {reason}"


def _look_around(client: Any, idle_since: float) -> float:
    """Stop where the scheduler is gone, and say where there are no workers."""
    if client.status not in ("running", "connecting"):
        raise UserError(LOST)
    now = time.monotonic()
    if client.status == "running" and client.nthreads():
        return now
    if now - idle_since < PATIENCE:
        return idle_since
    log("waiting", logging.WARNING, reason="the cluster has no workers")
    return now
