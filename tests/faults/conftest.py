"""A run in a process of its own, and what it gives when nothing disturbs it."""

import multiprocessing
import time

import pytest
from fault_rooms import LONG, SHORT, child, finish, left, room

PRELOAD = ["distributed", "gaussian_test.engine.worker", "gaussian_test.accessor"]


@pytest.fixture(scope="session", autouse=True)
def forked_workers():
    """Fork Dask's workers from a process that has imported all: a start takes 0.3 s. The command of its own spawns them."""
    import dask
    import distributed.utils

    with pytest.MonkeyPatch.context() as patch, dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        patch.setattr(distributed.utils, "_forkserver_preload_set", True)
        multiprocessing.set_forkserver_preload(PRELOAD)
        yield


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    """Return a function that starts a run of an experiment file in a fresh process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    log = tmp_path_factory.mktemp("log") / "output.txt"

    def begin(folder, *options, **faults):
        arguments = ["run", str(folder / "e.yaml"), "-o", str(folder / "run.nc"), *options]
        process = context.Process(target=child, args=(arguments, str(log)), kwargs=faults)
        process.start()
        return process

    begin.log = log
    return begin


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, start):
    """Return, for each experiment, its archive from a run that nothing disturbed, and how long it took."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = {}
    for name, settings in (("short", SHORT), ("long", LONG)):  # the first also waits for the imports
        began = time.monotonic()
        assert finish(start(room(folder / name, settings))) == 0
        done[name] = folder / name / "run.nc", time.monotonic() - began
        assert left(folder / name) == ["e.yaml", "run.nc"]
    return done
