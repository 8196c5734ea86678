"""Every fast path gives what its peer gives: the comparisons of the benchmarks, in small, with nothing timed."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def problem():
    sys.path.insert(0, str(BENCHMARKS))
    pytest.importorskip("azula", reason="azula, a peer, is not installed")
    pytest.importorskip("threadpoolctl", reason="the extra 'bench' is not installed")
    from problem import Problem

    with torch.no_grad():
        yield Problem(torch.device("cpu"), counts=(300, 1000), event=(3, 4, 4), batch=64, steps=128, times=6, rounds=1)
    sys.path.remove(str(BENCHMARKS))


@pytest.mark.parametrize("section", ["score", "moments", "gaussian", "states"])
def test_our_results_are_the_peers(problem, section):
    from run import SECTIONS

    compared = 0
    for case in SECTIONS[section](problem):
        mine = case.ours()
        for peer in case.peers.values() if case.agree else ():
            case.agree(mine, peer())
            with pytest.raises(AssertionError):  # and the comparison sees a difference
                case.agree(_spoiled(mine), peer())
            compared += 1
    assert compared >= 2


def _spoiled(result):
    return 2 * result + 1


def test_marks_of_the_page_are_there():
    """Each table that a benchmark writes has its place."""
    text = (BENCHMARKS.parent / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for name in ("table", "estimator", "answer", "growth", "profile"):
        assert f"<!-- {name} -->\n" in text
        assert f"<!-- end of {name} -->" in text


def test_a_median_and_a_peak_are_what_they_say(problem):
    import measure

    calls = []
    times = measure.medians({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, problem.device)
    assert calls == ["a", "b"] * 3  # in turn
    assert set(times) == {"a", "b"}
    if sys.platform == "linux":
        memory, result = measure.extra_memory(lambda: np.ones(2**23), problem.device)
        assert memory == pytest.approx(result.nbytes, rel=0.1)


@pytest.mark.parametrize(("name", "size"), [("driver", 20), ("resume", 8), ("table", 16), ("sweep", 3)])
def test_what_is_past_one_machine_runs_in_small(name, size, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    pytest.importorskip("distributed", reason="the extra 'cluster' is not installed")
    import scale

    found = scale.SCALES[name][0](size, tmp_path)
    assert all(value >= 0 for value in found.values()), found
    assert len(found) >= 3
