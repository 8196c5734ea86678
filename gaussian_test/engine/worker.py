"""The worker's side: load a run, compute shards, write parts."""

import os
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from gaussian_test._version import __version__
from gaussian_test.build.memory import SHARE
from gaussian_test.build.problem import Given, Prepared, pick_device, prepare, run_identity, shard_identity, with_levels
from gaussian_test.engine.shard import computing, run_shard, settle_micro_batches
from gaussian_test.errors import UserError
from gaussian_test.experiment.experiment import Experiment
from gaussian_test.store.parts import Parts, first_difference, parts_folder


@dataclass(frozen=True)
class Order:
    """A worker's instructions for any shard of a run: settings and paths, no data."""

    settings: dict[str, Any]  # the experiment, with absolute paths
    device: str  # ``auto``, ``cpu`` or ``cuda[:i]``, on the worker
    trust: dict[str, str]  # files that run code, and their sha256
    output: str  # absolute path of the unfinished archive
    threads: int | None  # of torch, on each worker; None: the worker's own number
    # of the driver's process: a run loaded for one driver is not used for another
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    version: str = __version__  # of gaussian_test
    identity: dict[str, str] = field(default_factory=dict)  # required identity of samples and scores; empty at first
    micro_batches: dict[str, int] = field(default_factory=dict)  # of the networks
    levels: tuple[float, ...] = ()  # turn times that were refined; empty at first


@dataclass(frozen=True)
class Receipt:
    """A worker's report on a shard."""

    shard: int  # its number
    seconds: float  # computing time
    worker: str  # process and machine
    # the part is written; the shard fails on any worker; this worker is unfit for the run; the run was stopped before the shard
    state: Literal["written", "failed", "misfit", "stopped"] = "written"
    problem: str = ""  # the problem, as one sentence
    address: str = ""  # of the worker, for Dask


_one_at_a_time = threading.Lock()  # a worker with many threads computes one shard at a time, with all of them
_loaded: dict[str, tuple[Prepared, dict[str, str]]] = {}  # the run loaded on this worker


_own_threads = 0  # of torch, before a run changed them


def _prepared(order: Order) -> tuple[Prepared, dict[str, str]]:
    """Return the run and its identity, on this worker's device; load it from its paths at first use."""
    global _own_threads
    if order.version != __version__:
        raise UserError(f"a worker has gaussian_test {__version__}, the driver {order.version}: install the same on both")
    _own_threads = _own_threads or torch.get_num_threads()
    torch.set_num_threads(order.threads or _own_threads)  # of this thread
    if order.token not in _loaded:
        _loaded.clear()
        device = worker_device(order.device, _number(), torch.cuda.device_count())
        settings = Experiment.load(order.settings)
        folder = parts_folder(Path(order.output))
        prepared = prepare(settings, device, Given(trust=order.trust), folder, shards_only=True)
        if order.levels:
            prepared = with_levels(prepared, order.levels)
        _loaded[order.token] = prepared, shard_identity(run_identity(prepared))
    return _loaded[order.token]


def _number() -> int | None:
    """Return the number of this worker if this program started it; None on other clusters."""
    from distributed import get_worker

    return int(get_worker().name) if SHARE in os.environ else None


def _address() -> str:
    from distributed import get_worker

    try:
        return str(get_worker().address)
    except ValueError:  # called without Dask
        return ""


def worker_device(device: str, worker: int | None, devices: int) -> str:
    """Return the device of one of several workers on a machine: they use its GPUs in turn, unless one is named."""
    if device in ("auto", "cuda") and worker is not None and devices > 1:
        return f"cuda:{worker % devices}"
    return device


def device_type(order: Order) -> str:
    """Return the device type that a worker would use."""
    return pick_device(order.device).type


def settle(order: Order) -> dict[str, int]:
    """Load a run on a worker, and return the micro-batches of its networks."""
    with _one_at_a_time:
        prepared, _ = _prepared(order)
        return settle_micro_batches(prepared, order.micro_batches)


def compute(order: Order, shard: int) -> Receipt:
    """Compute one shard on a worker and write its part."""
    began = time.monotonic()
    worker, address = f"{os.uname().nodename}:{os.getpid()}", _address()
    parts = Parts(Path(order.output), order.identity)
    with _one_at_a_time:
        if parts.told_to_stop():
            return Receipt(shard, 0.0, worker, "stopped")
        try:
            prepared, identity = _prepared(order)
            differs = first_difference(order.identity, identity)
            if differs:
                raise UserError(f"a worker ({worker}) has another {differs} than the driver: let all see the same files")
        except UserError as error:  # other workers may be fit
            return Receipt(shard, time.monotonic() - began, worker, "misfit", str(error), address)
        if parts.read(shard) is not None:  # an earlier receipt was lost
            return Receipt(shard, 0.0, worker)
        settle_micro_batches(prepared, order.micro_batches)  # an earlier shard may have halved them
        samples = prepared.shard(shard)
        try:
            with computing(prepared):
                table = run_shard(prepared, samples)
        except UserError as error:  # it would fail on any worker: do not retry
            return Receipt(shard, time.monotonic() - began, worker, "failed", str(error))
        parts.write(shard, table)
    return Receipt(shard, time.monotonic() - began, worker)
