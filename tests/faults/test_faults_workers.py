"""Workers that die, shards that cannot be computed, a scheduler that is lost: the same archive in the end, and no shard lost."""

import asyncio
import dataclasses
import logging
import multiprocessing
import os
import random
import signal
import socketserver
import subprocess
import sys
import threading
import time
from contextlib import suppress
from importlib import import_module

import dask
import distributed
import numpy as np
import pytest
import safetensors.torch
import torch
from fault_rooms import ENVIRONMENT, LONG, SHORT, before_shards, finished, hashes, left, room, serve, wait
from same_archives import assert_same

import gaussian_test as gt
from gaussian_test import UserError
from gaussian_test.engine import cluster, worker
from gaussian_test.engine.interruption import Interruption
from gaussian_test.log import Progress
from gaussian_test.store.parts import Parts, parts_folder

MODULE = '''
import os, signal
from pathlib import Path

import torch

BAD = 7


def _mean(x, t):
    return x / (1 + torch.as_tensor(t).reshape(-1, 1, 1, 1).to(x) ** 2)


def nan():
    """A score that knows nothing of sevens."""
    return lambda x, t, label: torch.where((label == BAD).reshape(-1, 1, 1, 1), torch.nan, _mean(x, t))


def deadly():
    """A score whose process is killed with sevens: once for each file in a folder, or always where there is no folder."""

    def score(x, t, label):
        kills = list(Path("kills").glob("*"))
        if (label == BAD).any() and (kills or not Path("kills").exists()):
            for kill in kills[:1]:
                kill.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return _mean(x, t)

    return score


class Linear(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(1.0))

    def forward(self, x, t, label=None):
        return self.gain * _mean(x, t)


def fatal():
    """A network that kills the worker that makes it."""
    if "GAUSSIAN_TEST_WORKERS" in os.environ:
        os._exit(9)
    return Linear()
'''


# Dask leaves sockets to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def workers():
    """Two workers with a thread each, for all tests of this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        with cluster.connected(2, None, 1) as client:
            yield client


def certificates(security):
    """Return Dask's own configuration of somebody who has the certificates of a cluster."""
    names = {"ca-file": security.tls_ca_file, "client.cert": security.tls_client_cert, "client.key": security.tls_client_key}
    return dask.config.set({f"distributed.comm.tls.{name}": value for name, value in names.items()})


def run_there(settings, output, client, **options):
    with certificates(client.security):
        return gt.run(settings, output, scheduler=client.scheduler.address, threads=1, progress=False, **options)


def test_one_and_two_workers_give_the_bits_of_this_process(workers, tmp_path):
    scores = [{"kind": "empirical"}, {"kind": "network", "micro_batch": 16}, {"kind": "mixture"}, {"kind": "gaussian"}]
    settings = {**SHORT, "samples": 12, "observables": "all", "chains": {"length": 2}, "scores": scores}
    gt.run(settings, tmp_path / "here.nc", progress=False, threads=1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)  # as a driver on two cores has: what it puts together must not depend on that
    try:
        run_there(settings, tmp_path / "two.nc", workers)
        gt.run(settings, tmp_path / "one.nc", workers=1, progress=False)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    for name in ("one", "two"):
        assert_same(tmp_path / f"{name}.nc", tmp_path / "here.nc")
        assert hashes(tmp_path / f"{name}.nc") == hashes(tmp_path / "here.nc")
    assert left(tmp_path) == ["here.nc", "one.nc", "two.nc"]


@pytest.mark.parametrize(("window", "state"), [(1, "written"), (3, "failed"), (2000, "failed"), (3, "misfit")])
def test_the_scheduler_has_a_window_of_shards_at_a_time(window, state, workers, tmp_path, monkeypatch):
    def compute(order, shard):
        return worker.Receipt(shard, 0.0, "w", state if shard % 3 == 2 or state == "misfit" else "written", "no", worker._address())

    def counted(change, function):
        return lambda *given, **options: (at_once.append(at_once[-1] + change), function(*given, **options))[1]

    at_once = [0]
    monkeypatch.setattr(cluster, "WINDOW", window)
    monkeypatch.setattr(cluster, "compute", compute)
    monkeypatch.setattr(cluster, "_submit", counted(1, cluster._submit))
    monkeypatch.setattr(cluster, "_outcome", counted(-1, cluster._outcome))
    order = worker.Order({}, "cpu", {}, str(tmp_path / "run.nc"), 1)
    with Progress(8, 0, "", False) as progress:
        failed = cluster.compute_on(workers, order, Parts(tmp_path / "run.nc", {}), range(8), progress, Interruption())
    assert failed == dict.fromkeys({"written": (), "failed": (2, 5), "misfit": range(8)}[state], "no")
    assert progress.done == 8 - len(failed)
    assert max(at_once) <= window
    assert at_once[-1] == 0


def test_nobody_else_runs_code_on_the_workers_of_a_run(workers, tmp_path, monkeypatch):
    address = workers.scheduler.address
    assert address.startswith("tls://127.0.0.1:")
    monkeypatch.setattr(cluster, "CONNECT", 2)
    strangers = [distributed.Security(), distributed.Security.temporary(), distributed.Security(require_encryption=True)]
    for stranger in strangers:
        with pytest.raises((OSError, TypeError, ValueError)):
            distributed.Client(address, security=stranger, timeout=2, set_as_default=False)
    with pytest.raises(OSError, match=r"imed out|onnect"):
        distributed.Client(address.replace("tls", "tcp"), timeout=2, set_as_default=False)
    with pytest.raises(UserError, match=f"no scheduler answers at {address}"):
        gt.run(SHORT, tmp_path / "run.nc", scheduler=address, progress=False)
    assert left(tmp_path) == []


def test_workers_draw_none_of_the_random_numbers_of_the_program_around(workers, tmp_path):
    random.seed(5)
    before, environment = random.getstate(), dict(os.environ)
    run_there(SHORT, tmp_path / "run.nc", workers)
    assert random.getstate() == before
    assert dict(os.environ) == environment


def asked_for_workers(output, said):
    try:
        gt.run(SHORT, output, workers=2, progress=False)
    except UserError as error:
        said.put(str(error))


@pytest.mark.parametrize("sort", ["process", "pool", "thread of a process", "no file"])
def test_who_cannot_start_workers_is_told_so_at_once(sort, tmp_path, monkeypatch):
    said, output = multiprocessing.SimpleQueue(), tmp_path / "run.nc"
    why = "workers = 2 cannot be started from a daemonic process"
    with monkeypatch.context() as patch:
        if sort == "no file":
            patch.setattr(sys.modules["__main__"], "__file__", "<stdin>", raising=False)
            asked_for_workers(output, said)
            why = "workers = 2 import the script, and <stdin> is no file"
        elif sort == "pool":
            with multiprocessing.get_context("fork").Pool(1, lambda: asked_for_workers(output, said)):
                why = why if said.get().startswith(why) else ""
                said.put(why)
        else:
            target = asked_for_workers if sort == "process" else in_a_thread
            process = multiprocessing.get_context("fork").Process(target=target, args=(output, said), daemon=True)
            process.start()
            process.join(60)
    assert said.get().startswith(why)
    assert left(tmp_path) == []


def in_a_thread(output, said):
    thread = threading.Thread(target=asked_for_workers, args=(output, said))
    thread.start()
    thread.join()


def test_the_order_in_which_shards_come_in_does_not_matter(workers, tmp_path, undisturbed):
    """Two workers take twenty shards as they can; some are there already, written by this process."""
    folder = room(tmp_path, LONG)
    with pytest.MonkeyPatch.context() as patch:
        before_shards(patch, stop=6)
        with pytest.raises(KeyboardInterrupt):
            gt.run(LONG, folder / "run.nc", progress=False)
    before = {path: path.stat().st_mtime_ns for path in finished(folder)}
    assert len(before) == 5
    seen = {}

    def look():
        while not (folder / "run.nc").exists():
            for path in finished(folder):
                try:
                    seen[path] = path.stat().st_mtime_ns
                except FileNotFoundError:
                    return
            time.sleep(0.01)

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    run_there(LONG, folder / "run.nc", workers, resume=True)
    looking.join()
    assert len(seen) > 14
    assert {path: seen[path] for path in before} == before  # not computed again
    assert_same(folder / "run.nc", undisturbed["long"][0])


def test_workers_killed_at_random_moments(long, tmp_path):
    """Each kill comes within a shard or while a worker loads; the others go on, and the archive is that of an undisturbed run."""
    kills, rng = (50 if long else 3), random.Random(3)
    settings = {**LONG, "samples": 160 * kills if long else 320, "shard_size": 8, "repeats": 1}
    settings |= {"start": "gaussian"}  # as many starts as are wanted
    gt.run(settings, tmp_path / "alone.nc", progress=False, threads=1)
    killed = []
    with cluster.connected(2, None, 1) as client:

        def kill():
            seen = 0
            while len(killed) < kills:
                done = len(list(parts_folder(tmp_path / "run.nc").glob("shard-*.part")))
                if done < seen + 3:
                    time.sleep(0.01)
                    continue
                seen = done
                time.sleep(rng.uniform(0, 0.3))
                process = rng.choice([nanny.pid for nanny in client.cluster.workers.values() if nanny.pid])
                os.kill(process, signal.SIGKILL)
                killed.append(process)

        killing = threading.Thread(target=kill, daemon=True)
        killing.start()
        run_there(settings, tmp_path / "run.nc", client)
    assert len(killed) == kills
    assert hashes(tmp_path / "run.nc") == hashes(tmp_path / "alone.nc")
    assert left(tmp_path) == ["alone.nc", "run.nc"]


def test_workers_that_dask_has_given_up_are_started_anew(tmp_path, monkeypatch):
    """Dask gives up whoever takes too long to come back from a kill, as it is killed again, and when it starts anew, too."""
    monkeypatch.setattr(cluster, "SETTLING", 1.0)
    others = {process.pid for process in multiprocessing.active_children()}
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "200ms"}), cluster.connected(2, None, 1) as client:

        def kill():
            for process in multiprocessing.active_children():
                if process.pid not in others and process.name.startswith("Dask Worker"):
                    with suppress(ProcessLookupError):  # it is dead, and Dask has not noticed
                        os.kill(process.pid, signal.SIGKILL)

        wait(lambda: kill() or not client.cluster.workers, "Dask keeps workers that are gone")
        kill_until = time.monotonic() + 2.5
        while time.monotonic() < kill_until:
            kill()
            time.sleep(0.02)
        wait(lambda: len(client.nthreads()) == 2, "no workers come back")
        run_there(SHORT, tmp_path / "run.nc", client)


def test_workers_that_do_not_start_are_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "STARTING", 0.1)  # nobody imports torch in that time
    others = multiprocessing.active_children()
    spawned = dask.config.set({"distributed.worker.multiprocessing-method": "spawn"})
    with spawned, pytest.raises(UserError, match="the workers could not be started"):
        gt.run(SHORT, tmp_path / "run.nc", workers=1, progress=False)
    wait(lambda: set(multiprocessing.active_children()) <= set(others), "workers are left over")
    assert left(tmp_path) == []


@pytest.mark.parametrize("fault", ["waits", "raises"])
def test_workers_that_dask_does_not_close_are_killed(fault, tmp_path, monkeypatch, caplog, undisturbed):
    """Whatever keeps Dask from its end, the run comes to its own."""

    async def close(self, **options):
        if fault == "raises":
            raise AssertionError("a status that nobody thought of")
        await asyncio.sleep(3600)

    monkeypatch.setattr(cluster, "CLOSING", 0.5)
    monkeypatch.setattr(distributed.Nanny, "close", close)
    others = multiprocessing.active_children()
    gt.run(SHORT, tmp_path / "run.nc", workers=1, progress=False)
    wait(lambda: set(multiprocessing.active_children()) <= set(others), "workers are left over")
    assert ("killed", logging.WARNING) in [(record.getMessage(), record.levelno) for record in caplog.records]
    assert_same(tmp_path / "run.nc", undisturbed["short"][0])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_driver_that_goes_takes_no_finished_shard_with_it(number, long, tmp_path, start, undisturbed):
    """Terminals and queues send their signals to the workers as well: they finish what they are at."""
    if number != signal.SIGTERM and not long:
        pytest.skip("on SIGINT it does what it does on SIGTERM, and Dask closes later; killed, it leaves parts as any run")
    folder = room(tmp_path, LONG)
    command = [sys.executable, "-m", "gaussian_test", "run", "e.yaml", "-o", "run.nc", "--workers", "2"]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, start_new_session=True
    )
    wait(lambda: len(finished(folder)) >= 4 or process.poll() is not None)
    if number == signal.SIGKILL:
        process.send_signal(number)
    else:
        os.killpg(process.pid, number)
    output, error = process.communicate(timeout=60)
    done = set(finished(folder))
    assert 4 <= len(done) < 16  # in the midst of it: what had not begun did not begin
    assert output == ""
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 128 + number, error
        said, following = error.splitlines()[-2:]
        assert f"interrupted: {len(done)} of 20 shards are finished" in said
        assert following == "next: gaussian-test run e.yaml -o run.nc --workers 2 --resume"
        assert "Traceback" not in error
    assert not (folder / "run.nc").exists()
    gt.run(LONG, folder / "run.nc", resume=True, progress=False)
    assert_same(folder / "run.nc", undisturbed["long"][0])
    assert left(folder) == ["e.yaml", "run.nc"]


def test_workers_leave_signals_to_the_driver(workers):
    """Ctrl-C in a terminal and a queue's SIGTERM reach all processes of a job."""
    before = workers.run(os.getpid)
    for process in before.values():
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(process, number)
    time.sleep(0.5)  # for whoever would follow them
    assert workers.run(os.getpid) == before


KILLS = 2  # after which Dask blames a task, here


@pytest.fixture
def poisoned(tmp_path, monkeypatch):
    """An experiment of whose eight shards some hold a seven; and which these are. Dask waits for fewer kills than it does."""
    (tmp_path / "poison.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    base = {**SHORT, "samples": 16, "shard_size": 2, "reverse": {"kind": "heun", "steps": 2}}
    sample = gt.run(base, progress=False)
    bad = [shard for shard in range(8) if (sample["label"].values[2 * shard : 2 * shard + 2] == 7).any()]
    assert 0 < len(bad) < 4

    def settings(factory):
        score = {"kind": "callable", "name": "own", "factory": f"poison:{factory}", "classes": 10, "label_free": False}
        return {**base, "scores": [{**score, "conditional": True, "micro_batch": 2}]}

    with dask.config.set({"distributed.scheduler.allowed-failures": KILLS - 1}):
        yield settings, bad


@pytest.mark.parametrize(("factory", "said"), [("nan", "returned NaN"), ("deadly", f"has killed {KILLS} workers")])
def test_a_shard_that_cannot_be_computed_is_reported_and_the_rest_goes_on(factory, said, poisoned, tmp_path):
    settings, bad = poisoned
    with pytest.raises(UserError, match=rf"{len(bad)} of 8 shards failed, shard {bad[0]} for one: .*{said}.*--resume"):
        gt.run(settings(factory), tmp_path / "run.nc", workers=1, progress=False)
    assert len(finished(tmp_path)) == 8 - len(bad)
    log = (tmp_path / "run.nc.parts" / "log").read_text()
    assert all(f"level=error event=failed shard={shard} " in log for shard in bad)
    # fixed, the run is another one, and says so
    with pytest.raises(UserError, match="belongs to another run"):
        gt.run(SHORT, tmp_path / "run.nc", resume=True, progress=False)


def test_a_shard_that_was_killed_by_chance_is_computed_when_it_is_alone(poisoned, tmp_path):
    """Random kills that hit all attempts with the same shards: nothing is wrong with these."""
    settings, bad = poisoned
    (tmp_path / "kills").mkdir()
    for number in range(KILLS * len(bad)):
        (tmp_path / "kills" / str(number)).touch()
    gt.run(settings("deadly"), tmp_path / "run.nc", workers=1, progress=False)
    assert left(tmp_path / "kills") == []
    gt.run(settings("deadly"), tmp_path / "here.nc", threads=1, progress=False)
    assert_same(tmp_path / "run.nc", tmp_path / "here.nc")


def test_paths_may_be_relative(poisoned, tmp_path):
    """Weights beside the experiment: the same run here and on workers, and from another folder."""
    safetensors.torch.save_file({"gain": torch.tensor(0.5)}, tmp_path / "gain.safetensors")
    score = {"kind": "callable", "factory": "poison:Linear", "weights": "gain.safetensors", "micro_batch": 8, "name": "own"}
    settings = {**SHORT, "scores": [score]}
    here = gt.run(settings, progress=False, threads=1)
    there = gt.run(settings, "run.nc", workers=1, progress=False)
    np.testing.assert_array_equal(there["sample_autocorrelation"], here["sample_autocorrelation"])


def test_workers_of_a_running_cluster_read_changed_files_again(workers, tmp_path):
    random = np.random.default_rng(0)
    settings = {**SHORT, "data": {"source": "file", "path": str(tmp_path / "x.npy")}}
    for _ in range(2):
        np.save(tmp_path / "x.npy", random.normal(size=(30, 4)))
        there = run_there(settings, tmp_path / "run.nc", workers, overwrite=True)
        here = gt.run(settings, progress=False, threads=1)
        np.testing.assert_array_equal(there["sample_autocorrelation"], here["sample_autocorrelation"])


def test_threads_of_one_run_do_not_stick_to_the_workers_of_another(workers, tmp_path):
    def threads(shard_threads):
        order = worker.Order(settings, "cpu", {}, str(tmp_path / "run.nc"), shard_threads)
        return workers.submit(lambda order: (worker.settle(order) and None) or torch.get_num_threads(), order, pure=False).result()

    settings = cluster.absolute(gt.Experiment.load(SHORT), tmp_path)
    assert [threads(1), threads(2), threads(None)] == [1, 2, 1]


def test_a_worker_that_is_not_fit_leaves_the_shards_to_others(workers, tmp_path):
    settings = {**SHORT, "shard_size": 1}
    one = min(workers.nthreads())
    gt.run(settings, tmp_path / "here.nc", threads=1, progress=False)

    def be(version):
        name = "gaussian_test.engine.worker"
        workers.run(lambda: setattr(import_module(name), "__version__", version), workers=[one])

    be("0.0.1")
    try:
        run_there(settings, tmp_path / "run.nc", workers)
    finally:
        be(gt.__version__)
    assert_same(tmp_path / "run.nc", tmp_path / "here.nc")


def test_a_score_that_kills_whoever_loads_it_is_one_sentence(poisoned, tmp_path):
    score = {"kind": "callable", "factory": "poison:fatal", "name": "own"}
    for micro_batch, said in ((8, "2 of 2 shards failed, shard 0 for one"), ("auto", "no worker can load the run")):
        settings = {**SHORT, "samples": 6, "scores": [{**score, "micro_batch": micro_batch}]}
        with pytest.raises(UserError, match=f"{said}: it has killed {KILLS} workers"):
            gt.run(settings, tmp_path / "run.nc", workers=1, progress=False)
    assert not (tmp_path / "run.nc.parts").exists()


def test_a_scheduler_that_is_lost_costs_no_finished_shard(tmp_path, undisturbed, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT", 2)  # so long does the client look for it, too
    folder, context = room(tmp_path, LONG), multiprocessing.get_context("forkserver")
    address = context.SimpleQueue()
    process = context.Process(target=serve, args=(address,), daemon=True)
    process.start()

    def kill():
        wait(lambda: len(finished(folder)) >= 3)
        process.kill()

    killing = threading.Thread(target=kill, daemon=True)
    killing.start()
    with pytest.raises(UserError, match=r"connection to the scheduler was lost.*--resume"):
        gt.run(LONG, folder / "run.nc", scheduler=address.get(), progress=False)
    process.join()
    assert len(finished(folder)) >= 3
    gt.run(LONG, folder / "run.nc", resume=True, progress=False)
    assert_same(folder / "run.nc", undisturbed["long"][0])


def test_a_scheduler_that_is_lost_between_two_calls_is_said_to_be(monkeypatch):
    """Each call that asks the scheduler can be the one that finds it gone: before Dask knows, which looks for it, and after."""
    with distributed.Client(processes=False, n_workers=1, dashboard_address="127.0.0.1:0") as client:
        now = time.monotonic()
        assert cluster._look_around(client, now - 1) > now - 1

        def gone(*_, **__):
            raise distributed.comm.CommClosedError("in <TCP>: ConnectionResetError: [Errno 104] Connection reset by peer")

        monkeypatch.setattr(client, "nthreads", gone)
        assert cluster._look_around(client, now - 1) == now - 1  # no worker has been seen since
        monkeypatch.setattr(client, "submit", gone)
        with pytest.raises(distributed.comm.CommClosedError):
            cluster._submit(client, abs, 1)
        monkeypatch.setattr(client, "status", "closed")
        for call in (lambda: cluster._look_around(client, now), lambda: cluster._submit(client, abs, 1)):
            with pytest.raises(UserError, match=r"connection to the scheduler was lost.*--resume"):
                call()
        monkeypatch.undo()


# -- what is refused -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"workers": 0}, "workers = 0"),
        ({"threads": 0}, "threads = 0"),
        ({"workers": 2, "scheduler": "tcp://127.0.0.1:1"}, "exclude each other"),
        ({"scheduler": "tcp://127.0.0.1:1"}, "no scheduler answers at tcp://127.0.0.1:1"),
        ({"scheduler": "nowhere"}, "no scheduler answers at nowhere"),
        ({"workers": 1, "truth": gt.data.load("digits")}, "truth from python cannot be sent to workers"),
        ({"workers": 1, "features": lambda x: x}, "features from python cannot be sent to workers"),
    ],
)
def test_what_workers_cannot_do_is_refused(options, said, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT", 2)
    with pytest.raises(UserError, match=said):
        gt.run(SHORT, tmp_path / "run.nc", progress=False, **options)
    assert left(tmp_path) == []


def test_what_answers_and_is_no_scheduler_is_refused(tmp_path, monkeypatch):
    """A web server: Dask takes the letters of its answer for the length of a message."""
    monkeypatch.setattr(cluster, "CONNECT", 2)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n" * 20)

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"tcp://127.0.0.1:{server.server_address[1]}"
        with pytest.raises(UserError, match=f"no scheduler answers at {address}"):
            gt.run(SHORT, tmp_path / "run.nc", progress=False, scheduler=address)
        server.shutdown()
    assert left(tmp_path) == []


def test_workers_without_dask_are_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r"dask.distributed, which is not installed: pip install 'gaussian-test\[cluster\]'"):
        gt.run(SHORT, tmp_path / "run.nc", workers=1, progress=False)
    assert left(tmp_path) == []


def test_workers_need_an_output():
    with pytest.raises(UserError, match="give an output"):
        gt.run(SHORT, workers=1)


def test_a_worker_with_other_samples_computes_nothing(tmp_path):
    """Its receipt names the difference; nothing is written."""
    settings = gt.Experiment.load(SHORT)
    identity = {"seed": "0", "data": "another"}
    order = worker.Order(cluster.absolute(settings, tmp_path), "cpu", {}, str(tmp_path / "run.nc"), None, identity=identity)
    receipt = worker.compute(order, 0)
    assert "has another data than the driver" in receipt.problem
    assert left(tmp_path) == []
    older = worker.compute(dataclasses.replace(order, version="0.0.1"), 0)
    assert "install the same on both" in older.problem
