"""The cap on memory: what does not fit stays in its file, the result is the same, and what cannot fit is refused."""

import subprocess
import sys

import numpy as np
import pytest

import gaussian_test as gt
from gaussian_test import Experiment, UserError, machine
from gaussian_test.build import memory
from gaussian_test.build.problem import prepare
from gaussian_test.store.digest import score_digest

SETTINGS = {
    "samples": 24,
    "shard_size": 8,
    "turn_times": {"noise_to_signal": [0.1, 1.0, 5.0]},
    "keep": {"pictures": 2},
    "statistics": {"bootstrap": 100},
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "x.npz"
    truth = gt.data.load("digits")
    np.savez(path, x=truth["x"].values, label=truth["label"].values)
    return {"source": "file", "path": str(path)}


def same(a, b):
    for name in a.variables:
        np.testing.assert_array_equal(a[name].values, b[name].values, err_msg=str(name))


@pytest.mark.parametrize("changes", [{}, {"reverse": {"kind": "heun", "steps": 4}, "dtype": "float64"}])
def test_streamed_and_in_memory_are_the_same_run(changes, source, tmp_path):
    settings = {**SETTINGS, "data": source, **changes}
    scores = [{"kind": "empirical"}, {"kind": "empirical", "name": "class", "conditional": True}, {"kind": "gaussian"}]
    settings |= {"scores": scores, "observables": ["affinity", "normality"]}
    whole = gt.run(settings, tmp_path / "a.nc", progress=False)
    streamed = gt.run({**settings, "memory": "900KB"}, tmp_path / "b.nc", progress=False)
    same(whole, streamed)
    assert whole.attrs["identity"] == streamed.attrs["identity"]


def test_a_run_may_be_resumed_with_another_cap(source):
    wide, narrow = (
        prepare(Experiment.load({**SETTINGS, "observables": "none", "data": source, "memory": cap})) for cap in ("1GB", "900KB")
    )
    assert wide.scores["empirical"].samples is not None
    assert narrow.scores["empirical"].samples is None  # the switch did something
    assert score_digest(wide.scores["empirical"]) == score_digest(narrow.scores["empirical"])
    assert score_digest(wide.scores["empirical"]) != score_digest(
        gt.sampler.EmpiricalScore.fit(wide.truth["x"].values[::-1].copy())
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"memory": "100KB"}, r"memory = 100.0KB is too little for the covariance of 64 features"),
        (  # 4 copies of 64 features x 3 turn times x 24 samples x 20 repeats, of 4 or 8 bytes each
            {"memory": "300KB", "shard_size": 24, "repeats": 20},
            r"states of a shard of 24 samples, which takes 1\.5MB: give a smaller shard_size",
        ),
        ({"memory": "300KB", "shard_size": 24, "repeats": 20, "dtype": "float64"}, r"shard of 24 samples, which takes 2\.9MB"),
        ({"memory": "900KB", "samples": 1000, "observables": ["affinity"]}, r"end points of 1000 samples.*end_points"),
        (  # eigenvectors of 10 classes x 64 features, in double and single precision
            {"memory": "450KB", "end_points": 4, "observables": ["affinity"]},
            r"the moments of 10 classes, which takes 491\.5KB: leave affinity out of observables or give more",
        ),
        ({"memory": "900KB", "observables": ["quality"]}, r"64 features of 1797 samples"),
        (
            {"memory": "900KB", "classifier": {"kind": "knn"}},
            r"classifier knn needs all samples in memory, and memory = 900.0KB is too little",
        ),
        ({"memory": "900KB", "scores": [{"kind": "gaussian", "shrinkage": "oas"}]}, r"shrinkage oas needs all samples"),
        ({"memory": "900KB", "scores": [{"kind": "mixture", "components": 3}]}, r"a mixture of 3 fitted components needs"),
        ({"memory": "3MB", "samples": 24, "repeats": 10**6}, r"the states of a shard of 8 samples, which takes"),
        ({"memory": "8MB", "samples": 24, "shard_size": 1, "repeats": 3000}, r"the states of a shard of 1 samples, which takes 9"),
        ({"memory": "3MB", "samples": 24, "shard_size": 1, "repeats": 120}, r"the sample table of 24 samples x 120 repeats"),
        ({"memory": "3MB", "statistics": {"bootstrap": 100_000}}, r"100000 resamples, which takes .*a smaller statistics"),
        ({"memory": "3MB", "observables": ["chains"], "chains": {"length": 2000}}, r"the pairs of 2000 links of chains"),
        ({"memory": "3MB", "keep": {"pictures": 24, "trajectory": True}, "reverse": {"steps": 5000}}, r"the paths of 24 pictures"),
        ({"memory": "lots"}, r"memory"),
        ({"memory": 0}, r"memory"),
    ],
)
def test_what_cannot_fit_is_refused_before_any_work(changes, said, source, tmp_path):
    with pytest.raises(UserError, match=said) as error:
        gt.run({**SETTINGS, "observables": "none", "data": source, **changes}, tmp_path / "a.nc", progress=False)
    assert len(str(error.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_without_a_cap_half_of_the_machine_is_taken(monkeypatch, source):
    monkeypatch.setattr(memory, "machine_memory", lambda: (1_600_000, "machine"))
    prepared = prepare(Experiment.load({**SETTINGS, "observables": "none", "data": source}))
    assert prepared.scores["empirical"].samples is None
    with pytest.raises(UserError, match=r"half of the machine's memory \(800.0KB\) is too little for the end points"):
        prepare(Experiment.load({**SETTINGS, "samples": 1000, "observables": ["affinity"], "data": source}))


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/job/step\n", {"job/memory.max": "1048576", "job/step/memory.max": "max"}, 1048576),
        ("0::/\n", {"memory.max": "2097152\n"}, 2097152),
        ("5:cpu:/a\n4:memory:/a/b\n", {"memory/a/b/memory.limit_in_bytes": "4194304\n", "memory.max": "1"}, 4194304),
        ("0::/job\n", {"job/memory.max": "max"}, None),
        ("0::/gone\n", {}, None),
        (None, {"memory.max": "1"}, None),
    ],
)
def test_a_container_or_a_job_counts_as_the_machine(own, files, expected, tmp_path, monkeypatch):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    if own is not None:
        (tmp_path / "own").write_text(own)
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "OWN_CGROUP", tmp_path / "own")
    found, whose = machine.machine_memory()
    assert found == (expected or found)
    assert (found > 2**28) == (expected is None)
    assert whose == ("control group" if expected else "machine")
    assert memory.named_cap(Experiment(), 1000) == f"half of the {whose}'s memory (1.0KB)"


def test_workers_share_the_machine(monkeypatch):
    whole = memory.memory_cap(Experiment())
    monkeypatch.setenv(memory.SHARE, "4")
    assert memory.named_cap(Experiment(), 1000).startswith("a worker's share, 1 of 4, of half of the ")
    assert memory.named_cap(Experiment(memory="1GB"), 10**9) == "memory = 1.0GB"
    assert memory.memory_cap(Experiment()) == whole // 4
    assert memory.memory_cap(Experiment(memory="1GB")) == 10**9


PEAK = """
import sys
import gaussian_test as gt

def peak():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

small = {"samples": 24, "turn_times": {"noise_to_signal": [1.0]}, "observables": ["affinity"]}
gt.run(small, progress=False)  # libraries, and what they keep
before = peak()
gt.run({**small, "data": {"source": "file", "path": sys.argv[1]}, "memory": "128MB"}, sys.argv[2], progress=False)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_a_source_four_times_the_cap_stays_under_it(tmp_path):
    """A whole run, of the exact score and the Gaussian one, on 512 MB with a cap of 128."""
    random = np.random.default_rng(0)
    file = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (500_000, 256))
    block = random.normal(size=(50_000, 1)) + random.normal(size=(50_000, 256))
    for start in range(0, len(file), 50_000):
        file[start : start + 50_000] = block + 0.1 * random.normal(size=256)
    file.flush()
    del file
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path / "x.npy"), str(tmp_path / "run.nc")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert 0 < int(done.stdout) < 128e6
