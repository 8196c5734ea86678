"""Rooms in which runs are disturbed: experiments, a command line in a process of its own, and what is left of it."""

import hashlib
import os
import random
import resource
import signal
import time

import numpy as np
import yaml
from same_archives import assert_same

from gaussian_test.cli.commands import main
from gaussian_test.engine import shard
from gaussian_test.store import archive

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
REST = {"keep": {"pictures": 2}, "observables": "none", "statistics": {"bootstrap": 100}}
LEVELS = {"noise_to_signal": {"min": 0.1, "max": 20, "count": 12}}
# many shards, each of some 0.05 s
LONG = {"samples": 160, "shard_size": 8, "repeats": 2, "turn_times": LEVELS, "reverse": {"kind": "heun", "steps": 24}, **REST}
SHORT = {"samples": 9, "shard_size": 3, "turn_times": {"noise_to_signal": [0.1, 1.0, 5.0]}, **REST}
SHARDS = 3
# names given during a run of SHORT: the manifest, what is fitted, the micro-batches, a part for each shard, then the archive
NAMES = SHARDS + 4


# -- the command line in a process of its own, without importing everything anew ----------------------------------------------


def child(arguments, output, kill_before=None, kill_after=None, file_size=None, clock=None):
    """Run the command line; die at the n-th time a file gets its name, find the disk full, or live by a clock that jumps."""
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    named, genuine = [], os.replace

    def replace(source, target):
        if os.path.basename(target) == "state.json":  # which comes whenever half a second has gone
            genuine(source, target)
            return
        named.append(target)
        if len(named) == kill_before:
            os.kill(os.getpid(), signal.SIGKILL)
        genuine(source, target)
        if len(named) == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace
    if clock is not None:
        jumps, true_time = random.Random(clock), time.time
        time.time = lambda: true_time() + jumps.uniform(-1, 1) * 1e8
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    main(arguments, prog_name="gaussian-test")


def finish(process):
    """Return the exit code of a process."""
    process.join(120)
    assert process.exitcode is not None, "the run hangs"
    return process.exitcode


def resumes(start, folder, other, **options):
    """Assert that a run goes on from what is left of it, to the same archive as another, and leaves nothing else."""
    assert finish(start(folder, "--resume", **options)) == 0
    assert_same(folder / "run.nc", other)
    assert left(folder) == ["e.yaml", "run.nc"]


def before_shards(patch, happens=lambda number: None, stop=None):
    """Let something happen before each shard that this process computes, told its number from 1, or stop; return these shards."""
    begun, genuine = [], shard.run_shard

    def run_shard(prepared, chosen):
        begun.append(chosen)
        happens(len(begun))
        if len(begun) == stop:
            raise KeyboardInterrupt
        return genuine(prepared, chosen)

    patch.setattr(shard, "run_shard", run_shard)
    return begun


def wait(condition, what="no shard is finished"):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def serve(address):
    """Be a scheduler with a worker, and tell its address."""
    import distributed

    cluster = distributed.LocalCluster(1, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address="127.0.0.1:0")
    address.put(cluster.scheduler_address)
    time.sleep(600)


def room(folder, settings):
    folder.mkdir(exist_ok=True)
    (folder / "e.yaml").write_text(yaml.safe_dump(settings))
    return folder


def finished(folder):
    return list(folder.glob("run.nc.parts/shard-*.part"))


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def hashes(path):
    """Return the sha256 of every variable of an archive."""
    found = {}
    for group in (None, "moments", "pictures"):
        for name, variable in archive.read(path, group).variables.items():
            found[group, name] = hashlib.sha256(np.ascontiguousarray(variable.values).tobytes()).hexdigest()
    return found
