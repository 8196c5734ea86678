"""What the tests of the face share: one tiny experiment on the embedded digits, run once in memory and once to disk."""

import copy

import pytest
from face_zoo import QUICK
from report_zoo import HOSTILE, hostile_run

import gaussian_test as gt
from gaussian_test.engine import shard

# As long as a module has the name of a function, the first to be imported wins: here it is the function.
# (test_face_command_line.py asks for more: that the order does not matter.)
assert callable(gt.run)
assert callable(gt.compare)

TINY = QUICK | {"turn_times": {"noise_to_signal": [0.1, 0.7, 2.0, 8.0]}, "keep": {"pictures": 3}}
TINY |= {"samples": 12, "repeats": 2, "shard_size": 5, "seed": 3}


@pytest.fixture
def tiny():
    """Return a function that gives the tiny experiment with some top-level keys changed."""
    return lambda **changes: copy.deepcopy({**TINY, **changes})


@pytest.fixture
def interrupt(monkeypatch):
    """Return a function that has the n-th shard from now on be interrupted, and gives the list of those that were begun."""

    def at(number):
        def run_shard(prepared, samples):
            begun.append(samples)
            if len(begun) == number:
                raise KeyboardInterrupt
            return genuine(prepared, samples)

        genuine, begun = shard.run_shard, []
        monkeypatch.setattr(shard, "run_shard", run_shard)
        return begun

    return at


@pytest.fixture(scope="session")
def disk(tmp_path_factory):
    """Return the path of the tiny experiment's archive: not to be written to."""
    path = tmp_path_factory.mktemp("disk") / "tiny.nc"
    gt.run(TINY, path, progress=False)
    return path


@pytest.fixture(scope="session")
def memory():
    """Return the tiny experiment's result from a run without output: not to be changed."""
    return gt.run(TINY, progress=False)


@pytest.fixture(scope="session")
def rich(tmp_path_factory):
    """Return the archive of a run with a network, another process and all observables, and the path of its page."""
    folder = tmp_path_factory.mktemp("rich")
    settings = QUICK | {"observables": "all", "chains": {"length": 2, "turn_times": 2}, "keep": {"pictures": 4}, "samples": 16}
    settings |= {"process": {"kind": "cosine", "time_min": 0.002, "time_max": 0.99}, "reverse": {"steps": 4}}
    settings |= {"scores": [{"kind": "empirical"}, {"kind": "network", "micro_batch": 16}, {"kind": "gaussian"}]}
    settings |= {"turn_times": {"noise_to_signal": [0.1, 0.4, 0.8, 1.5, 3.0, 8.0]}}
    gt.run(settings, folder / "rich.nc", progress=False)
    return folder / "rich.nc", gt.report(folder / "rich.nc", folder / "rich.html")


@pytest.fixture(scope="session")
def tiny_page(disk, tmp_path_factory):
    """Return the path of the page of the tiny experiment."""
    return gt.report(disk, tmp_path_factory.mktemp("page") / "tiny.html")


@pytest.fixture(scope="session")
def hostile(tmp_path_factory):
    """Return a result in which all names are hostile, and the path of its page."""
    output = tmp_path_factory.mktemp("hostile") / f"{HOSTILE[1:-1]}.nc"
    return hostile_run(output), gt.report(output, output.with_suffix(".html"))


@pytest.fixture(scope="session")
def hostile_folder(disk, tmp_path_factory):
    """Return a folder of two archives, folder and files of hostile names, and its page."""
    folder = tmp_path_factory.mktemp("runs") / "<b onclick=alert(1)>"
    folder.mkdir()
    for name in ("<script>alert(1)", '"><i>' + "a" * 60):
        (folder / f"{name}.nc").write_bytes(disk.read_bytes())
    return folder, gt.report(folder, folder.parent / "runs.html")
