"""What a worker does: it loads a run once, from paths, computes one shard at a time, writes its part and returns a receipt."""

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
from gaussian_test.build.problem import Given, Prepared, pick_device, prepare, run_identity, shard_identity
from gaussian_test.engine.shard import computing, run_shard, settle_micro_batches
from gaussian_test.errors import UserError
from gaussian_test.experiment.experiment import Experiment
from gaussian_test.store.parts import Parts, first_difference, parts_folder


@dataclass(frozen=True)
class Order:
    """What a worker needs to know to compute any shard of a run: settings and paths, no data."""

    settings: dict[str, Any]  # the experiment, with absolute paths
    device: str  # ``auto``, ``cpu`` or ``cuda[:i]``, on the worker
    trust: dict[str, str]  # files that run code, and their sha256
    output: str  # absolute path of the archive in the making
    threads: int | None  # of torch, on each worker; None: as many as the worker was given
    # of the driver's process: what a worker has loaded for one is not used for another
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    version: str = __version__  # of gaussian_test
    identity: dict[str, str] = field(default_factory=dict)  # what the worker's samples and scores must be; empty until it is known
    micro_batches: dict[str, int] = field(default_factory=dict)  # of the networks


@dataclass(frozen=True)
class Receipt:
    """What a worker says about a shard."""

    shard: int  # its number
    seconds: float  # how long it took
    worker: str  # process and machine
    # the part is there; the shard cannot be computed, here or elsewhere; this worker is not fit for the run; the run was
    # told to stop before the shard was begun
    state: Literal["written", "failed", "misfit", "stopped"] = "written"
    problem: str = ""  # what is wrong, as one sentence
    address: str = ""  # of the worker, for Dask


_one_at_a_time = threading.Lock()  # a worker of many threads computes one shard at a time, with all of them
_loaded: dict[str, tuple[Prepared, dict[str, str]]] = {}  # the run that this worker has at hand


_own_threads = 0  # of torch, before a run asked for others


def _prepared(order: Order) -> tuple[Prepared, dict[str, str]]:
    """Return the run and what it is, loaded from its paths the first time, on the device of this worker."""
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
        _loaded[order.token] = prepared, shard_identity(run_identity(prepared))
    return _loaded[order.token]


def _number() -> int | None:
    """Return the number of this worker, of those that this program has started; None on other clusters."""
    from distributed import get_worker

    return int(get_worker().name) if SHARE in os.environ else None


def _address() -> str:
    from distributed import get_worker

    try:
        return str(get_worker().address)
    except ValueError:  # called without Dask
        return ""


def worker_device(device: str, worker: int | None, devices: int) -> str:
    """Return the device of one of several workers on a machine: they take its GPUs in turn, unless one is named."""
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
        except UserError as error:  # others may be fit
            return Receipt(shard, time.monotonic() - began, worker, "misfit", str(error), address)
        if parts.read(shard) is not None:  # somebody's receipt was lost
            return Receipt(shard, 0.0, worker)
        settle_micro_batches(prepared, order.micro_batches)  # an earlier shard may have halved them
        samples = prepared.shards[shard]
        try:
            with computing(prepared):
                table = run_shard(prepared, samples)
        except UserError as error:  # what cannot be computed here cannot be computed elsewhere: no reason to try again
            return Receipt(shard, time.monotonic() - began, worker, "failed", str(error))
        parts.write(shard, table)
    return Receipt(shard, time.monotonic() - began, worker)
