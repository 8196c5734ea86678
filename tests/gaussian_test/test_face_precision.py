"""In which precision: TF32 as the experiment says; types that hold the differences of the data; copies counted once."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import xarray as xr
import yaml
from threadpoolctl import threadpool_info, threadpool_limits

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


def test_small_matrices_are_multiplied_on_one_thread_while_a_run_computes_and_only_then():
    def threads():
        return {one["num_threads"] for one in threadpool_info() if one["internal_api"] == "openblas"}

    def look(start, end):
        seen.append(threads())
        return end.flatten(1).sum(1)

    with threadpool_limits(2, "blas"):
        seen, before = [], threads()
        gt.run({"samples": 4, "observables": "none", "turn_times": {"noise_to_signal": [1.0]}}, custom_observables={"look": look})
        assert seen[-1] <= {1}  # the first calls try the function out, before any shard
        assert threads() == before


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


RANDOM = np.random.default_rng(0)
SETTINGS = {
    "samples": "all",
    "scores": [{"kind": "empirical"}],
    "observables": "none",
    "keep": {"pictures": 0},
    "statistics": {"bootstrap": 100},
}


def execute(x, levels, **changes):
    truth = xr.Dataset({"x": (("sample", "feature"), np.asarray(x))})
    return gt.run({**SETTINGS, "turn_times": {"noise_to_signal": levels}, **changes}, truth=truth, progress=False)


def remembered(x, levels, draws=8):
    """Return the mean posterior weight of the own sample, in float64 by differences, and what C is then."""
    centred, random = x - x.mean(0), np.random.default_rng(1)
    shares, correlations = [], []
    for level in levels:
        noise = random.normal(size=(draws, *x.shape))
        square = ((x[:, None] - x[None]) ** 2).sum(2) / 2 + level * np.einsum("rni,nmi->rnm", noise, x[:, None] - x[None])
        logits = -square / level**2
        weights = np.exp(logits - logits.max(2, keepdims=True))
        weights /= weights.sum(2, keepdims=True)
        shares.append(np.einsum("rnn->", weights) / draws / len(x))
        correlations.append((centred * (weights.mean(0) @ centred)).sum() / (centred**2).sum())
    return np.array(shares), np.array(correlations)


PRECISE = {  # samples, noise levels, the type that auto takes
    "two clusters": (np.c_[0.1 * RANDOM.normal(size=(200, 4)), (np.arange(200) % 2) * 1000.0], [0.01, 0.02, 0.03, 0.04], "float32"),
    "offset": (1e6 + 0.3 * RANDOM.normal(size=(200, 4)), [0.03, 0.1, 0.3], "float64"),
    "heavy tails": (np.exp(4 * RANDOM.normal(size=(200, 3))), [0.03, 0.1, 0.3], "float64"),
    "tiny": (1e-5 * RANDOM.normal(size=(200, 4)), [1e-6, 3e-6, 1e-5], "float32"),
}


@pytest.mark.parametrize("kind", PRECISE)
def test_the_share_that_is_remembered_is_right_however_far_apart_the_samples_are(kind):
    """Within five standard errors of the mean weight of the own sample; the archive says in which precision."""
    x, levels, dtype = PRECISE[kind]
    process = {"kind": "variance_exploding", "sigma_min": min(levels) / 10}
    result = execute(x, levels, repeats=8, process=process)
    expected, correlation = remembered(x, levels)
    error = np.sqrt(expected * (1 - expected) / (8 * len(x)) * 2) + 1e-3  # both are drawn
    assert (np.abs(result["memorized_share"].sel(score="empirical") - expected) <= 5 * error).all()
    one_shot = result["autocorrelation_one_shot"].sel(score="empirical")
    assert (np.abs(one_shot - correlation) <= 5 * result["autocorrelation_one_shot_se"].sel(score="empirical") + 1e-3).all()
    assert yaml.safe_load(result.attrs["experiment"])["dtype"] == dtype
    assert result.attrs["precision"].startswith(f"states {dtype}, weights of the exact score float64 below")
    if kind == "two clusters":
        assert float(result["memorization_noise_to_signal"][0]) == pytest.approx(0.039, abs=0.002)


@pytest.mark.parametrize(
    ("x", "dtype", "said"),
    [
        (1e6 + 0.3 * RANDOM.normal(size=(50, 2)), "float32", "leave dtype at auto or give float64"),
        (RANDOM.normal(size=(50, 2)) + 1e5 * (np.arange(100).reshape(50, 2) % 7 == 0), "float32", "leave dtype at auto"),
        (1e16 + 100 * RANDOM.normal(size=(50, 2)).round(), "auto", "subtract what all samples share"),
        (1e17 + 1e3 * RANDOM.normal(size=(50, 2)), "float64", "subtract what all samples share"),
    ],
)
def test_a_type_that_cannot_hold_the_differences_is_refused_before_any_work(x, dtype, said):
    with pytest.raises(gt.UserError, match=f"dtype = {dtype}: .*{said}") as error:
        execute(x, [0.1, 1.0], dtype=dtype)
    assert len(str(error.value).splitlines()) == 1


def test_a_file_in_float64_is_read_in_it_where_that_is_needed(tmp_path):
    """Values within a millionth of 0.9: in float32 a tenth of them would be equal."""
    np.save(tmp_path / "x.npy", 0.9 + 1e-6 * np.random.default_rng(2).normal(size=(60, 3)))
    settings = SETTINGS | {"data": {"source": "file", "path": str(tmp_path / "x.npy")}, "process": {"kind": "variance_exploding"}}
    settings["process"] = {"kind": "variance_exploding", "sigma_min": 1e-9}
    result = gt.run({**settings, "turn_times": {"noise_to_signal": [1e-8, 1e-6]}}, progress=False)
    assert yaml.safe_load(result.attrs["experiment"])["dtype"] == "float64"
    assert float(result["memorized_share"][0, 0]) == 1
    assert float(result.gaussian_test.group("moments")["eigenvalue"].sum()) == pytest.approx(3e-12, rel=0.3)


@pytest.mark.parametrize("copies", [2, 9])
def test_copies_are_counted_and_change_neither_distances_nor_shares(copies):
    """Spins and gaussian samples, each several times: the typical distance is that of the set without them."""
    random = np.random.default_rng(3)
    spins = np.array(np.meshgrid(*[[-1.0, 1.0]] * 5)).reshape(5, -1).T
    for points in (spins, random.normal(size=(40, 3)).astype(np.float32)):
        once, often = execute(points, [0.01, 2.0]), execute(np.repeat(points, copies, 0), [0.01, 2.0])
        assert once.attrs["duplicates_in_ground_truth"] == 0
        assert often.attrs["duplicates_in_ground_truth"] == (copies - 1) * len(points)
        assert (
            f"{copies * len(points)} samples ({(copies - 1) * len(points)} of them copies of others) x"
            in often.gaussian_test.show()
        )
        for result in (once, often):
            near = result.sel(score="empirical")
            assert float(near["memorized_share"][0]) == 1  # any copy is the own sample
            assert (near["close_share"] == 1).all()  # every end point is a sample
        assert often["typical_nearest_distance"].item() == pytest.approx(once["typical_nearest_distance"].item(), rel=1e-6)
