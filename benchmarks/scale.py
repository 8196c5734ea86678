"""Past one machine: the driver with many shards, the table of many starts, many archives at once, in time and memory.

``driver``: shards that return at once, on a Dask scheduler and a worker in processes of their own. ``resume``: a run whose parts
are all there. ``table``: the archive of many starts from their parts (two scores, 24 turn times, no kept states). ``sweep``: many
archives in one dataset. Parts are copies of one that was computed, with other noise, so nothing but the machinery is measured.
Times are of the processor, in all threads of a process; peaks are of a process of its own, as the kernel counts them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import gaussian_test as gt
from gaussian_test.build import problem
from gaussian_test.engine import cluster, runner, shard, worker
from gaussian_test.engine.interruption import Interruption
from gaussian_test.log import Progress, to_file
from gaussian_test.store.parts import Parts

FEATURES = 4
Facts = dict[str, float]  # what was measured, by name with its unit


def experiment(starts: int, shard_size: int, turn_times: int, scores: tuple[str, ...]) -> dict[str, Any]:
    """Return the settings of a run whose parts are made up."""
    return {
        "samples": starts,
        "shard_size": shard_size,
        "scores": [{"kind": kind} for kind in scores],
        "turn_times": {"noise_to_signal": {"min": 0.05, "max": 30, "count": turn_times}},
        "observables": "none",
        "keep": {"pictures": 0},
    }


def truth(count: int) -> np.ndarray[Any, Any]:
    """Return correlated samples."""
    return np.random.default_rng(0).standard_normal((count, FEATURES), np.float32) * np.geomspace(
        1, 0.1, FEATURES, dtype=np.float32
    )


def make_parts(settings: dict[str, Any], output: Path) -> int:
    """Write the parts of a run: the first as computed, the others with its rows in another order; return their number."""
    prepared = problem.prepare(gt.Experiment.load(settings), "cpu", problem.Given(truth(settings["samples"])))
    shards = len(prepared.bounds) - 1
    parts = Parts(output, problem.shard_identity(problem.run_identity(prepared)), shards)
    parts.open()
    with shard.computing(prepared):
        first = shard.run_shard(prepared, prepared.shard(0))
    random = np.random.default_rng(0)
    fsync, os.fsync = os.fsync, lambda _: None  # these are not measured
    try:
        for number in range(shards):
            samples = prepared.shard(number)
            mixed = first.isel(sample=random.permutation(first.sizes["sample"])[: len(samples)] if number else slice(None))
            parts.write(number, mixed.assign_coords(sample=("sample", np.array(samples), first["sample"].attrs)))
    finally:
        os.fsync = fsync
    return shards


def driver(shards: int, folder: Path) -> Facts:
    """Send shards that return at once to a worker, by way of a scheduler."""
    address = folder / "scheduler.json"
    settings = gt.Experiment.load(experiment(shards, 1, 24, ("empirical", "gaussian"))).model_dump(mode="json")
    parts = Parts(folder / "run.nc", {key: str(value) for key, value in settings.items()}, shards)
    parts.open()
    order = worker.Order(settings, "cpu", {}, str(folder / "run.nc"), 1, identity=parts.identity)
    common = ["--scheduler-file", str(address), "--no-dashboard"]
    with (
        _started("dask_scheduler", "--host", "127.0.0.1", "--port", "0", *common) as scheduler,
        _started("dask_worker", "--nthreads", "2", "--no-nanny", *common),
        _returning_at_once(),
    ):
        while not address.exists():
            time.sleep(0.1)
        with cluster.connected(None, str(address), None) as client, to_file(parts.folder):
            client.wait_for_workers(1)
            before, before_there, began = time.process_time(), sum(scheduler.cpu_times()[:2]), time.monotonic()
            rss, rss_there = psutil.Process().memory_info().rss, scheduler.memory_info().rss
            with Progress(shards, 0, "", False) as progress, parts.telling() as progress._tell:
                failed = cluster.compute_on(client, order, parts, range(shards), progress, Interruption())
            assert not failed
            assert progress.done == shards
            return {
                "driver, CPU ms a shard": (time.process_time() - before) / shards * 1e3,
                "scheduler, CPU ms a shard": (sum(scheduler.cpu_times()[:2]) - before_there) / shards * 1e3,
                "wall ms a shard": (time.monotonic() - began) / shards * 1e3,
                "driver, MB more at its peak": (_peak(os.getpid()) - rss) / 1e6,
                "scheduler, MB more at its peak": (_peak(scheduler.pid) - rss_there) / 1e6,
            }


def at_once(order: worker.Order, number: int) -> worker.Receipt:
    """Stand in for a shard."""
    return worker.Receipt(number, 0.0, "benchmark")


@contextmanager
def _returning_at_once() -> Iterator[None]:
    import scale  # by the name that workers import it by

    cluster.compute, real = scale.at_once, cluster.compute
    try:
        yield
    finally:
        cluster.compute = real


@contextmanager
def _started(program: str, *options: str) -> Iterator[psutil.Process]:
    places = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    process = subprocess.Popen(
        [sys.executable, "-m", f"distributed.cli.{program}", *options], env=os.environ | places, stderr=subprocess.DEVNULL
    )
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def resume(shards: int, folder: Path) -> Facts:
    """Resume a run of shards of one start, all of which are there."""
    settings = experiment(shards, 1, 2, ("gaussian",))
    make_parts(settings, folder / "run.nc")
    return _resumed(settings, folder / "run.nc")


def table(starts: int, folder: Path) -> Facts:
    """Put the archive of many starts together."""
    settings = experiment(starts, min(starts // 4, 256), 24, ("empirical", "gaussian"))
    make_parts(settings, folder / "run.nc")
    return _resumed(settings, folder / "run.nc")


def _resumed(settings: dict[str, Any], output: Path) -> Facts:
    """Resume a run, all of whose parts are there."""
    x, opened, joined = truth(settings["samples"]), [], []
    before = time.process_time()
    runner.assemble, assemble = lambda *given: (joined.append(time.process_time()), assemble(*given))[1], runner.assemble
    runner._table, tables = lambda *given: (opened.append(time.process_time()), tables(*given))[1], runner._table
    try:
        found = gt.run(settings, output, truth=x, resume=True, progress=False, threads=1)
    finally:
        runner.assemble, runner._table = assemble, tables
    assert found.sizes["sample"] == settings["samples"]
    return {
        "CPU s before the parts": opened[0] - before,
        "CPU s for the parts": joined[0] - opened[0],
        "CPU s for statistics and archive": time.process_time() - joined[0],
        "GB of the archive": output.stat().st_size / 1e9,
    }


def sweep(archives: int, folder: Path) -> Facts:
    """Open many archives, of runs with other seeds, as one dataset, and read a curve of all."""
    gt.run(experiment(64, 64, 24, ("empirical", "gaussian")), folder / "0.nc", truth=truth(64), progress=False)
    for number in range(1, archives):
        shutil.copy(folder / "0.nc", folder / f"{number}.nc")
    before = time.process_time()
    found = gt.open_sweep(folder)
    between = time.process_time()
    assert found["autocorrelation"].load().sizes["run"] == archives
    return {
        "CPU ms an archive to open": (between - before) / archives * 1e3,
        "CPU ms an archive to read a curve": (time.process_time() - between) / archives * 1e3,
        "open files": float(psutil.Process().num_fds()),
    }


SCALES: dict[str, tuple[Callable[[int, Path], Facts], int]] = {
    "driver": (driver, 100_000),
    "resume": (resume, 100_000),
    "table": (table, 1_000_000),
    "sweep": (sweep, 1000),
}


def _peak(process: int) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def measured(name: str, size: int, folder: str | None) -> Facts:
    """Measure one of :data:`SCALES`, with the peaks of memory of this process: all of it, and without mapped files."""
    ended, held = threading.Event(), [0]

    def watch() -> None:
        while not ended.wait(0.02):
            status = Path("/proc/self/status").read_text().splitlines()
            held.append(next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon")))

    with tempfile.TemporaryDirectory(dir=folder) as place:
        watching = threading.Thread(target=watch, daemon=True)
        watching.start()
        found = SCALES[name][0](size, Path(place))
        ended.set()
        watching.join()
    return found | {"GB at its peak": _peak(os.getpid()) / 1e9, "GB at its peak without files": max(held) / 1e9}


def main() -> None:
    """Print what was measured, a line for each scale, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scales", nargs="*", choices=[*SCALES, []], help="default: all")
    parser.add_argument("--share", type=float, default=1.0, help="of the full size")
    parser.add_argument("--folder", default=None, help="where files are written")
    parser.add_argument("--limit", type=float, default=None, help="GB of private memory that a process may take (RLIMIT_DATA)")
    given = parser.parse_args()
    for name in given.scales or SCALES:
        size = int(SCALES[name][1] * given.share)
        with multiprocessing.get_context("spawn").Pool(1, _limited, (given.limit,)) as pool:
            found = pool.apply(measured, (name, size, given.folder))
        print(f"{name}, {size:,}: " + "; ".join(f"{value:.3g} {what}" for what, value in found.items()), flush=True)


def _limited(limit: float | None) -> None:
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (int(limit * 1e9), resource.RLIM_INFINITY))


if __name__ == "__main__":
    main()
