"""What the tests of the face share: one tiny experiment on the embedded digits, run once in memory and once to disk."""

import copy

import pytest

import gaussian_test as gt

# As long as a module has the name of a function, the first to be imported wins: here it is the function.
# (test_face_command_line.py asks for more: that the order does not matter.)
assert callable(gt.run)
assert callable(gt.compare)

TINY = {
    "turn_times": {"noise_to_signal": [0.1, 0.7, 2.0, 8.0]},
    "samples": 12,
    "repeats": 2,
    "shard_size": 5,
    "seed": 3,
    "keep": {"pictures": 3},
    "observables": "none",
    "statistics": {"bootstrap": 100},
}


@pytest.fixture
def tiny():
    """Return a function that gives the tiny experiment with some top-level keys changed."""
    return lambda **changes: copy.deepcopy({**TINY, **changes})


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
