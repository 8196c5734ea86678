"""TF32: set while shards are computed, by the experiment, and never left behind."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import gaussian_test as gt
from gaussian_test.sampler import NetworkScore

SWITCHES = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)


@pytest.mark.parametrize(("tf32", "expected"), [(True, ["tf32"] * 2), (False, ["ieee"] * 2), (None, None)])
def test_products_are_of_tf32_where_the_experiment_says_so(tf32, expected):
    before, seen = [switch.fp32_precision for switch in SWITCHES], []

    def watched(x, t, label):
        seen.append([switch.fp32_precision for switch in SWITCHES])
        return x / 2

    score = NetworkScore.from_callable(watched, (1, 8, 8))
    settings = {"samples": 4, "turn_times": {"noise_to_signal": [1.0]}, "reverse": {"steps": 2}, "tf32": tf32}
    gt.run(settings, scores={"watched": score}, progress=False)
    assert len(seen) > 3
    assert seen[-1] == (expected or before)  # the first calls try the network out, before any shard
    assert [switch.fp32_precision for switch in SWITCHES] == before


def test_a_run_that_fails_leaves_nothing_behind():
    before = [switch.fp32_precision for switch in SWITCHES]

    def broken(x, t, label):
        raise RuntimeError("broken")

    score = NetworkScore.from_callable(broken, (1, 8, 8))
    with pytest.raises(gt.UserError, match="broken"):
        gt.run({"samples": 4, "tf32": True}, scores={"broken": score}, progress=False)
    assert [switch.fp32_precision for switch in SWITCHES] == before


@pytest.mark.parametrize("others", [(False,), (None,), (False, None, True, False)])
def test_runs_in_threads_that_differ_in_it_wait_for_one_another(others):
    before, seen = [switch.fp32_precision for switch in SWITCHES], {}
    expected = {True: ["tf32"] * 2, False: ["ieee"] * 2, None: before}

    def run(number, tf32):
        def watched(x, t, label):
            seen.setdefault(number, []).append([switch.fp32_precision for switch in SWITCHES])
            return x / 2

        score = NetworkScore.from_callable(watched, (1, 8, 8))
        settings = {"samples": 8, "shard_size": 2, "turn_times": {"noise_to_signal": [1.0]}, "reverse": {"steps": 8}, "tf32": tf32}
        gt.run(settings, scores={"watched": score}, progress=False)
        computing = [found for found in seen[number] if found == expected[tf32]]
        assert len(computing) >= 8 * 4

    asked = dict(enumerate((True, *others)))
    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(run, number, tf32) for number, tf32 in asked.items()]:
            done.result()
    assert all(found[-1] == expected[asked[number]] for number, found in seen.items())
    assert [switch.fp32_precision for switch in SWITCHES] == before
