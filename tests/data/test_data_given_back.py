"""Files are open while they are read and not a moment longer: what was read can be given back to the system."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from gaussian_test.data import load
from gaussian_test.data.formats import rows
from gaussian_test.data.formats.rows import JoinedRows, MappedRows, MemoryRows

COUNT = 50
RECORD = np.dtype([("label", "u1"), ("pixels", ">f4", (2, 3))])
VALUES = np.random.default_rng(0).normal(size=(COUNT, 2, 3)).astype(">f4")
SELECTIONS = [
    slice(None),
    slice(7, 8),
    slice(3, 40, 7),
    slice(5, 5),
    slice(45, 90),
    np.array([], dtype=np.intp),
    np.array([49]),
    np.array([4, 5, 6, 9, 8, 7, 7, 7, 0]),
    np.arange(10, 30),
    np.random.default_rng(1).integers(0, COUNT, 80),
]


def plain(path, shift, order="C"):
    path.write_bytes(bytes(shift) + VALUES.tobytes(order) + b"tail")
    return MappedRows(path, VALUES.dtype, VALUES.shape, shift, order)


def fortran(path, shift):
    return plain(path, shift, "F")


def records(path, shift):
    held = np.zeros(COUNT, RECORD)
    held["pixels"] = VALUES
    path.write_bytes(bytes(shift) + held.tobytes())
    return MappedRows(path, RECORD, (COUNT,), shift, field="pixels")


each_kind = pytest.mark.parametrize("write", [plain, fortran, records])


@each_kind
@pytest.mark.parametrize("shift", [0, 1, 5000])
@pytest.mark.parametrize("selection", SELECTIONS, ids=str)
def test_a_read_is_the_arrays(write, shift, selection, tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "MAPPED_BYTES", 2 * COUNT * 4)  # two numbers of all samples at a time
    found = write(tmp_path / "x", shift).read(selection)
    assert found.dtype == VALUES.dtype
    np.testing.assert_array_equal(found, VALUES[selection])


def is_open(path):
    """Whether this process has the file mapped or open."""
    files = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    return str(path) in files or str(path) in Path("/proc/self/maps").read_text()


told = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not tell what a process has mapped")


@told
@each_kind
def test_nothing_stays_open(write, tmp_path):
    path = (tmp_path / "x").resolve()
    held = write(path, 3)
    for selection in SELECTIONS:
        held.read(selection)
        assert not is_open(path)
    view = held.read(slice(0, 5))
    assert is_open(path) == (write is not fortran)  # a view of the file keeps it
    np.testing.assert_array_equal(view, VALUES[:5])


@told
def test_loaded_samples_keep_no_file_open(tmp_path):
    path = (tmp_path / "x.npy").resolve()
    np.save(path, VALUES)
    truth = load(path)
    for part in (truth.x[3:7], truth.x[[5, 1]], truth.x):
        assert part.values.shape == part.shape
        assert not is_open(path)


@each_kind
def test_pickles_hold_the_path(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    held = write(Path("x"), 0)
    held.read(slice(3))
    text = pickle.dumps(held)
    monkeypatch.chdir("/")
    assert len(text) < 1000
    np.testing.assert_array_equal(pickle.loads(text).read(slice(None)), VALUES)


@each_kind
def test_samples_that_do_not_exist_are_refused(write, tmp_path):
    for index in ([0, COUNT], [-1, 3]):
        with pytest.raises(IndexError):
            write(tmp_path / "x", 9).read(np.array(index))


@pytest.mark.parametrize("write", [plain, records])
def test_a_file_that_became_shorter_is_refused(write, tmp_path):
    held = write(tmp_path / "x", 0)
    os.truncate(tmp_path / "x", VALUES.nbytes // 2)
    np.testing.assert_array_equal(held.read(np.array([4, 2])), VALUES[[4, 2]])
    with pytest.raises(OSError, match="shorter"):
        held.read(np.array([2, COUNT - 1]))


def test_joined_parts_copy_only_what_lies_in_several():
    parts = [np.arange(10).reshape(5, 2), np.arange(10, 16).reshape(3, 2)]
    joined, whole = JoinedRows([MemoryRows(part) for part in parts]), np.concatenate(parts)
    for selection, owner in ((slice(1, 4), 0), (slice(5, 8, 2), 1), (slice(5, 8), 1)):
        found = joined.read(selection)
        np.testing.assert_array_equal(found, whole[selection])
        if selection.step is None:
            assert np.shares_memory(found, parts[owner])
    for selection in (slice(None), slice(3, 7), np.array([7, 0, 7, 3]), np.array([6, 5]), np.array([], dtype=int)):
        found = joined.read(selection)
        np.testing.assert_array_equal(found, whole[selection])
        assert not any(np.shares_memory(found, part) for part in parts)
