"""Samples that are larger than memory: what is read in parts equals what is read at once, and memory stays below a bound."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import gaussian_test as gt
from gaussian_test import analysis
from gaussian_test.analysis.moments import running
from gaussian_test.analysis.observables.normality import lilliefors
from gaussian_test.analysis.observables.normality.lilliefors import ks_distance
from gaussian_test.analysis.observables.normality.normality import ks_dataset
from gaussian_test.analysis.uturn.classifier import cross_validated_accuracy, make_classifier


def data(n, d, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) * rng.uniform(0.1, 2, d) + rng.normal(size=d)


def lazily(folder, x):
    """The samples as they are in a file, mapped from [-1, 1] to itself."""
    np.save(folder / "x.npy", x)
    return gt.data.load(folder / "x.npy").x


def same(one, other):
    assert one.count == other.count
    for name in ("mean", "eigenvalues", "eigenvectors"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


# -- moments -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [np.arange(90) % 3, np.arange(90) // 50, np.where(np.arange(90) < 4, 7, 2)])
def test_class_moments_are_those_of_the_members_read_at_once(labels, monkeypatch, tmp_path):
    """Bit for bit, in chunks of any size, of arrays and of files, also with fewer members than features and shrunk ones."""
    x = np.clip(data(90, 12) / 10, -1, 1).astype(np.float32)
    for chunk in (17, 2**22):
        monkeypatch.setattr(running, "CHUNK_ELEMENTS", 12 * chunk)
        for shrinkage in (None, "oas", 0.2):
            expected = [(label, analysis.fit_moments(x[labels == label], shrinkage=shrinkage)) for label in np.unique(labels)]
            for source in (x, lazily(tmp_path, x)):
                found = analysis.class_moments(source, labels, shrinkage=shrinkage)
                assert [label for label, _ in found] == [label for label, _ in expected]
                for (_, one), (_, other) in zip(found, expected, strict=True):
                    same(one, other)


@pytest.fixture(name="dask")
def optional_dask():
    pytest.importorskip("dask.array", reason="dask is an optional extra")
    return pytest.importorskip("dask")


@pytest.mark.parametrize(
    ("shape", "chunks"), [((100, 6), (37, 6)), ((60, 6), (1, 3)), ((100, 6), (100, 6)), ((200, 1, 4, 5), (61, 1, 2, 5))]
)
def test_blocks_of_dask_are_summed_alike_by_every_scheduler(shape, chunks, dask):
    x = data(shape[0], int(np.prod(shape[1:]))).reshape(shape)
    source = dask.array.from_array(x, chunks=chunks)
    if len(shape) > 2:
        source = xr.DataArray(source, dims=("sample", "channel", "row", "column"))
    results = []
    for scheduler in ("synchronous", "threads", "threads"):
        with dask.config.set(scheduler=scheduler, num_workers=4):
            results.append(analysis.fit_moments(source))
    for other in results[1:]:
        same(other, results[0])
    expected = analysis.fit_moments(x)
    assert results[0].count == expected.count
    np.testing.assert_allclose(results[0].mean, expected.mean, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(results[0].eigenvalues, expected.eigenvalues, rtol=1e-12)
    np.testing.assert_allclose(results[0].covariance(), expected.covariance(), atol=1e-12 * expected.trace)
    few, labels = data(40, 60), np.arange(40) % 2  # and classes: read into numpy
    blocks = dask.array.from_array(few, chunks=(7, 60))
    same(analysis.fit_moments(blocks), analysis.fit_moments(few))
    for (_, one), (_, other) in zip(analysis.class_moments(blocks, labels), analysis.class_moments(few, labels), strict=True):
        same(one, other)


def test_few_sums_exist_at_a_time(monkeypatch, dask):
    """Of many blocks: as many lanes as scatter matrices are allowed, and the blocks of a lane one after the other."""
    lanes, add = [], running._with_samples

    def watched(before, x):
        lanes.extend([1] * (before.count == 0))
        return add(before, x)

    monkeypatch.setattr(running, "_with_samples", watched)
    x = data(640, 3)
    expected = analysis.fit_moments(x)
    lanes.clear()
    for allowed, number in ((9 * 4, 4), (9 * 1000, running.MOST_LANES), (1, 1)):
        monkeypatch.setattr(running, "SCATTER_ELEMENTS", allowed)
        found = analysis.fit_moments(dask.array.from_array(x, chunks=(10, 3)))
        assert len(lanes) == number
        lanes.clear()
        np.testing.assert_allclose(found.eigenvalues, expected.eigenvalues, rtol=1e-12)


def test_sums_that_dask_may_hand_out_again_are_not_written_to():
    x = data(30, 2)
    first = running._with_samples(running.RunningMoments(2), x[:10])
    mean, scatter = first.mean.copy(), first.covariance()
    second = running._with_samples(first, x[10:])
    merged = running._merged(first, second)
    assert (first.count, second.count, merged.count) == (10, 30, 40)
    np.testing.assert_array_equal(first.mean, mean)
    np.testing.assert_array_equal(first.covariance(), scatter)
    np.testing.assert_allclose(second.covariance(), np.cov(x.T, bias=True), rtol=1e-12)


def test_moments_of_other_arrays_do_without_dask(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask", None)
    assert analysis.fit_moments(np.eye(3)[:, :2]).count == 3


# -- normality ---------------------------------------------------------------------------------------------------------------


def sources(folder, x, dask):
    np.save(folder / "map.npy", x)
    yield np.load(folder / "map.npy", mmap_mode="r")
    yield lazily(folder, x)
    yield dask.array.from_array(x, chunks=(50, 19))
    yield xr.DataArray(x, dims=("sample", "feature"))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normality_read_in_columns_is_that_of_the_whole(dtype, monkeypatch, tmp_path, dask):
    """Bit for bit, whatever the blocks: distances, p-values and the replicates' ranges."""
    x = np.clip(data(120, 70) / 20, -1, 1).astype(dtype)
    x[:, 3] = 0.5  # does not vary
    options = {"replicates": 5, "draws": 200}
    # a file's samples are handed out in single precision
    expected = {kind: analysis.ks_test(x.astype(kind), **options) for kind in (dtype, np.float32)}
    monkeypatch.setattr(lilliefors, "BLOCK_ELEMENTS", 120 * 7)
    for read in (1, 120 * 30, 2**24):
        monkeypatch.setattr(lilliefors, "READ_ELEMENTS", read)
        for source in sources(tmp_path, x, dask):
            found, wanted = analysis.ks_test(source, **options), expected[source.dtype.type]
            for name in vars(wanted):
                np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name)
            np.testing.assert_array_equal(ks_distance(source), wanted.distance)


def test_named_images_read_in_columns_are_those_of_the_whole(monkeypatch, tmp_path, dask):
    x = np.clip(data(60, 48) / 20, -1, 1).astype(np.float32).reshape(60, 3, 4, 4)
    eager = xr.DataArray(x, dims=("sample", "channel", "row", "column"))
    options = {"replicates": 5, "draws": 200}
    expected = ks_dataset([x.reshape(60, -1)], {"time": [0]}, (3, 4, 4), **options).isel(time=0)
    monkeypatch.setattr(lilliefors, "BLOCK_ELEMENTS", 60 * 4)
    monkeypatch.setattr(lilliefors, "READ_ELEMENTS", 60 * 17)
    for states in (eager, lazily(tmp_path, x).drop_attrs(), eager.chunk(sample=7, row=2)):
        found = analysis.kolmogorov_smirnov(states, **options)
        for name in expected.data_vars:
            np.testing.assert_array_equal(found[name].values, expected[name].values, err_msg=name)


def test_a_read_holds_a_part_of_the_columns(monkeypatch):
    """Of a lazy array no more is asked for at once than the bound, unless a single block of columns is larger."""
    asked = []

    class Columns:
        def __init__(self, values):
            self.values, self.shape, self.dtype = values, values.shape, values.dtype

        def __getitem__(self, key):
            part = self.values[key]
            asked.append(part.size)
            return part

    monkeypatch.setattr(lilliefors, "BLOCK_ELEMENTS", 50 * 4)
    monkeypatch.setattr(lilliefors, "READ_ELEMENTS", 50 * 13)
    x = data(50, 100)
    np.testing.assert_array_equal(ks_distance(Columns(x)), ks_distance(x))
    assert max(asked) <= 50 * 13
    assert sum(asked) == x.size


def test_accuracy_is_of_the_samples_with_their_classes(monkeypatch, tmp_path):
    x, labels = np.clip(data(200, 5) / 20, -1, 1).astype(np.float32), (np.arange(200) % 7 < 2).astype(int)
    x[:, 0] = labels
    monkeypatch.setattr("gaussian_test.analysis.uturn.classifier.MOST", 50)
    for source in (lazily(tmp_path, x), x, x.tolist()):
        assert cross_validated_accuracy(make_classifier("knn"), source, labels) == (1.0, 0.0)


# -- memory ------------------------------------------------------------------------------------------------------------------

FILE_BYTES = 2**29
MANY, WIDE = (2**20, 128), (2**10, 2**17)
# the shape of the file that each action reads
ACTIONS = {"classes": MANY, "normality": WIDE}  # moments, cumulant and score: test_a_source_four_times_the_cap_stays_under_it
# getrusage's peak is inherited from the parent process: the program reads its own, and sets it back before each action
PROGRAM = """
import re, sys
from pathlib import Path
import numpy as np, torch
from gaussian_test import analysis, data
from gaussian_test.analysis.observables.normality import lilliefors
torch.set_num_threads(1)

def held(what):
    return 1024 * int(re.search(what + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

def classes(x, labels):
    analysis.class_moments(x, labels)

def normality(x, labels):
    lilliefors.READ_ELEMENTS = 2**22
    analysis.kolmogorov_smirnov(x, replicates=1, draws=100)

tiny, *actions = sys.argv[1:]
for name, path in zip(actions[::2], actions[1::2]):
    for file in (tiny, path):
        Path("/proc/self/clear_refs").write_text("5")
        before = held("VmRSS")
        x = data.load(file).x
        globals()[name](x, np.arange(len(x)) % 3)
        del x
    print(name, held("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not tell a process's peak of memory")
def test_memory_stays_below_a_quarter_of_the_file(tmp_path):
    """From loading to the result, after the same was done with a tiny file."""
    random, files = np.random.default_rng(0), {MANY: tmp_path / "many.npy", WIDE: tmp_path / "wide.npy"}
    np.save(tmp_path / "tiny.npy", random.uniform(-1, 1, (64, 32)).astype(np.float32))
    for (count, features), path in files.items():
        large = np.lib.format.open_memmap(path, "w+", np.float32, (count, features))
        assert large.nbytes == FILE_BYTES
        for start in range(0, count, count // 8):  # the rest is zero, and takes no room on the disk
            large[start : start + count // 64] = random.uniform(-1, 1, (count // 64, features))
        large.flush()
        del large
    arguments = [str(word) for name, shape in ACTIONS.items() for word in (name, files[shape])]
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "tiny.npy"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    for path in files.values():
        path.unlink()
    peaks = {name: int(bytes_) for name, bytes_ in (line.split() for line in done.stdout.splitlines())}
    assert set(peaks) == set(ACTIONS)
    for name, peak in peaks.items():
        assert 0 < peak < FILE_BYTES // 4, name
