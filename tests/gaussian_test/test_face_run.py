"""The run: the same bits every time, curves that follow from the table alone, and every setting used as it was asked for."""

import json
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
import xarray as xr
import yaml
from face_zoo import QUICK, Own
from same_archives import undated

import gaussian_test as gt
from gaussian_test import UserError
from gaussian_test.build.problem import pick_device, prepare
from gaussian_test.engine import shard
from gaussian_test.experiment.experiment import Experiment
from gaussian_test.store import archive

NU = [0.1, 0.7, 2.0, 8.0]


def run(settings, *args, **kwargs):
    return gt.run(settings, *args, progress=False, **kwargs)


def refused(settings, **kwargs):
    with pytest.raises(UserError) as error:
        run(settings, **kwargs)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


# -- the same bits -------------------------------------------------------------------------------------------------------------


def test_another_seed_gives_other_samples_and_noise(memory, tiny):
    other = run(tiny(seed=4))
    assert other["sample"].values.tolist() != memory["sample"].values.tolist()
    everyone = tiny(samples="all", keep={"pictures": 0})
    truth = gt.data.load("digits").isel(sample=slice(0, 10))
    a, b = (run({**everyone, "seed": seed}, truth=truth) for seed in (0, 1))
    assert a["sample"].equals(b["sample"])
    assert (a["sample_autocorrelation_gaussian"] != b["sample_autocorrelation_gaussian"]).mean() > 0.9


def test_the_sizes_of_shards_and_micro_batches_change_rounding_only(tiny):
    settings = tiny(samples=100, repeats=1, keep={"pictures": 0})
    few, many = (run({**settings, "shard_size": size, "micro_batch": batch}) for size, batch in ((7, 3), (1000, 1024)))
    assert few["sample"].equals(many["sample"])
    assert float((few["nearest_sample"] == many["nearest_sample"]).mean()) >= 0.995
    for name in ("sample_autocorrelation_one_shot", "sample_autocorrelation_gaussian", "sample_denoiser_gap", "gap"):
        np.testing.assert_allclose(few[name], many[name], atol=1e-4)


def test_more_turn_times_or_scores_change_nothing_for_the_others(tiny):
    few = run(tiny(keep={"pictures": 0}))
    scores = [{"kind": kind} for kind in ("mixture", "gaussian", "empirical")]
    more = run(tiny(turn_times={"noise_to_signal": sorted([*NU, 1.3])}, scores=scores, keep={"pictures": 0}))
    same = more.sel(score=few["score"]).isel(turn_time=[0, 1, 3, 4])
    np.testing.assert_allclose(same["sample_autocorrelation_one_shot"], few["sample_autocorrelation_one_shot"], atol=1e-5)
    assert float((same["nearest_sample"] == few["nearest_sample"]).mean()) >= 0.98


def test_the_settings_of_the_statistics_do_not_change_the_table(memory, tiny):
    other = run(tiny(statistics={"bootstrap": 200, "confidence": 0.8, "level": 0.3, "tolerance": 0.1}))
    for name in ("sample_autocorrelation", "nearest_sample", "autocorrelation", "gap"):
        assert other[name].identical(memory[name])
    assert not other["autocorrelation_low"].equals(memory["autocorrelation_low"])


def test_the_global_generators_are_left_alone(tiny):
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002 # the global state is what is watched here
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    run(tiny(samples=4, scores=[{"kind": "mixture", "components": 2}], reverse={"kind": "sde", "steps": 2}))
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


# -- curves from the table -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    settings = QUICK | {"turn_times": {"noise_to_signal": NU}, "samples": 24, "repeats": 2, "shard_size": 10}
    path = tmp_path_factory.mktemp("opened") / "a.nc"
    run(settings | {"reverse": {"kind": "sde", "steps": 5}}, path)
    return gt.open_archive(path)


def over(values):
    """Return the mean over samples and repeats."""
    return values.mean(("sample", "repeat")).values


def test_the_curves_follow_from_the_table_alone(opened):
    for name in ("autocorrelation", "autocorrelation_one_shot", "autocorrelation_one_shot_squared"):
        np.testing.assert_allclose(opened[name], over(opened[f"sample_{name}"]), rtol=1e-12, atol=1e-14)
    memorized = over(opened["nearest_sample"] == opened["sample"])
    np.testing.assert_allclose(opened["memorized_share"], memorized, rtol=1e-12)


def test_standard_errors_are_those_of_independent_samples(opened):
    rows = opened["sample_autocorrelation"].mean("repeat")
    expected = rows.std("sample", ddof=1) / np.sqrt(rows.sizes["sample"])
    np.testing.assert_allclose(opened["autocorrelation_se"], expected, rtol=0.05)


def test_labels_are_those_of_the_samples(opened):
    truth = gt.data.load("digits")["label"].values
    assert np.array_equal(opened["label"], truth[opened["sample"]])
    assert np.array_equal(opened["label_after"], truth[opened["nearest_sample"]])
    assert np.array_equal(np.unique(opened["sample"]), opened["sample"].values)


def test_the_divergence_is_that_of_the_rows(opened):
    """I_G less the information of the weights above 0.4 nat; it falls with noise."""
    values = archive.read(opened.encoding["source"], "moments")["eigenvalue"].values
    information = np.log1p(values / opened["noise_to_signal"].values[:, None] ** 2).sum(1) / 2
    known = information - over(opened["sample_posterior_information"].sel(score="empirical"))
    found = opened["kl_from_gaussian"].values
    np.testing.assert_allclose(found[found > 0.4], known[found > 0.4], rtol=1e-9)
    assert (np.diff(found) < 0).all()


def test_times_are_the_same_moment_in_both_units(opened):
    process = gt.sampler.VarianceExploding()
    for name in ("memorization", "speciation", "affine"):
        for suffix in ("", "_low", "_high", "_predicted"):
            nu = opened[f"{name}_noise_to_signal{suffix}"].values
            expected = [float(process.time(value)) if np.isfinite(value) else value for value in nu]
            np.testing.assert_allclose(opened[f"{name}_time{suffix}"], expected, rtol=1e-12)


# -- what is given from python -------------------------------------------------------------------------------------------------


def test_own_truth_is_used(tiny):
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (40, 3)).astype(np.float32)
    truth = xr.Dataset({"x": (("sample", "feature"), x)})
    result = run(tiny(samples="all"), truth=truth)
    assert result.attrs["samples_in_ground_truth"] == 40
    assert result.sizes["sample"] == 40
    moments = result.gaussian_test.group("moments")
    np.testing.assert_allclose(moments["mean"], x.astype(np.float64).mean(0), atol=1e-12)
    covariance = np.cov(x.astype(np.float64).T, bias=True)
    np.testing.assert_allclose(moments["eigenvalue"], np.linalg.eigvalsh(covariance)[::-1], rtol=1e-9)


def test_own_truth_equals_the_same_truth_by_name(memory, tiny):
    assert undated(run(tiny(), truth=gt.data.load("digits"))).equals(undated(memory))


def test_own_score_is_run_beside_the_others(tiny):
    result = run(tiny(reverse={"kind": "heun", "steps": 3}), scores={"zero": Own(0)})
    assert result["score"].values.tolist() == ["empirical", "gaussian", "zero"]
    # D = 0 everywhere: the flow multiplies the state by what is left of the noise and ends at 0, whatever the start
    zero, moments = result.sel(score="zero"), result.gaussian_test.group("moments")
    truth = gt.data.load("digits")["x"].values[result["sample"].values].astype(np.float64) - moments["mean"].values
    expected = -(truth * moments["mean"].values).sum((1, 2, 3)) / float(moments["eigenvalue"].sum())
    shots = zero["sample_autocorrelation_one_shot"].transpose("sample", "repeat", "turn_time").values
    np.testing.assert_allclose(shots, np.broadcast_to(expected[:, None, None], shots.shape), atol=1e-5)
    assert (zero["nearest_sample"] == zero["nearest_sample"][0, 0, 0]).all()
    assert zero["kernel"].item() == "heun"


def test_own_score_that_wraps_the_gaussian_gives_the_gaussians_curve(tiny):
    truth = gt.data.load("digits")
    gauss = gt.analysis.GaussianScore.fit(truth["x"])
    settings = tiny(reverse={"kind": "heun", "steps": 4}, scores=[{"kind": "gaussian"}], keep={"pictures": 0})
    result = run(settings, scores={"wrapped": Own(gauss.denoise)})
    a, b = (result.sel(score=name) for name in ("gaussian", "wrapped"))
    np.testing.assert_allclose(b["autocorrelation"], a["autocorrelation"], atol=1e-4)
    assert np.isnan(b["autocorrelation_exact"]).all()
    assert np.isfinite(a["autocorrelation_exact"]).all()


def test_own_score_under_a_known_name_takes_its_place(tiny):
    result = run(tiny(reverse={"kind": "heun", "steps": 2}, keep={"pictures": 0}), scores={"empirical": Own(0)})
    assert result["score"].values.tolist() == ["empirical", "gaussian"]
    assert result["nearest_sample"].sel(score="empirical").values.std() == 0


def test_auto_takes_the_sde_where_there_is_no_posterior(tiny):
    result = run(tiny(reverse={"steps": 3}, keep={"pictures": 0}), scores={"zero": Own(0)})
    assert result["kernel"].values.tolist() == ["exact", "exact", "sde"]
    assert (result["reverse_steps"].sel(score=["empirical", "gaussian"]) == 1).all()
    assert (result["reverse_steps"].sel(score="zero") >= 1).all()
    assert result["reverse_steps"].sel(score="zero").max() > 1


# -- every kind ----------------------------------------------------------------------------------------------------------------

LEVELS = np.linspace(0.9999, 0.001, 60).tolist()


def test_all_processes_are_the_same_experiment_at_equal_noise_to_signal(tiny):
    """Same noise, same nu: the one-evaluation curves agree to rounding. Times that were found may be asked for."""
    curves = []
    for kind in ("variance_exploding", "ornstein_uhlenbeck", "variance_preserving", "cosine", "rectified"):
        settings = tiny(process={"kind": kind}, keep={"pictures": 0}, dtype="float64", samples=6)
        result = run({**settings, "turn_times": {"noise_to_signal": [8.0, 0.1, 2.0, 0.7]}})
        np.testing.assert_allclose(result["noise_to_signal"], NU, rtol=1e-9)
        assert json.loads(result.attrs["identity"])["process"].startswith(f'{{"kind": "{kind}"')
        curves.append(result["sample_autocorrelation_one_shot"].values)
    for curve in curves[1:]:
        np.testing.assert_allclose(curve, curves[0], atol=1e-9)
    back = run({**settings, "turn_times": {"time": result["turn_time"].values.tolist()}})
    np.testing.assert_allclose(back["noise_to_signal"], result["noise_to_signal"], rtol=1e-12)
    assert np.array_equal(back["turn_time"], result["turn_time"])


def test_a_discrete_process_turns_at_its_nearest_level_and_says_which(tiny):
    process = {"kind": "discrete_vp", "alphas_cumprod": LEVELS}
    result = run(tiny(process=process, samples=4, keep={"pictures": 0}, turn_times={"noise_to_signal": [0.5, 1.0, 8.0]}))
    levels = np.sqrt(1 / np.array(LEVELS) - 1)
    assert np.array_equal(result["turn_time"], np.round(result["turn_time"]))
    np.testing.assert_allclose(result["noise_to_signal"], levels[result["turn_time"].values.astype(int) - 1], rtol=1e-9)
    for asked, used in zip([0.5, 1.0, 8.0], result["turn_time"].values.astype(int) - 1, strict=True):
        below, above = levels[max(used - 1, 0)], levels[min(used + 1, len(levels) - 1)]
        assert below < asked < above


@pytest.mark.parametrize("kind", ["exact", "sde", "exponential_sde", "euler", "heun", "edm", "ancestral"])
def test_every_reverse_kernel_runs_the_gaussian_score_and_says_how(kind, tiny):
    reverse = {"kind": kind, "steps": 9}
    result = run(tiny(reverse=reverse, scores=[{"kind": "gaussian"}], samples=64, repeats=4, keep={"pictures": 0}))
    assert result["kernel"].values.tolist() == [kind]
    steps = result["reverse_steps"].values[0]
    if kind == "exact":
        assert (steps == 1).all()
    else:
        assert steps[-1] == 9
        assert (np.diff(steps) >= 1).all()
    # the law through the very steps simulated, within five standard errors
    distance = np.abs(result["autocorrelation"] - result["autocorrelation_discrete"]) / result["autocorrelation_se"]
    assert float(distance.max()) < 5
    assert np.isfinite(result["autocorrelation_discrete"]).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_states_have_the_type_asked_for(dtype, tiny):
    settings = Experiment.load(tiny(dtype=dtype))
    prepared = prepare(settings)
    starts = prepared.starts((0, 1))
    assert starts.dtype == getattr(torch, dtype)
    shard = prepared.samples[:2].tolist()
    states = prepared.plan.run(prepared.starts(tuple(shard)), shard, prepared.scores, prepared.kernels)
    assert {state.x.dtype for state in states} == {getattr(torch, dtype)}


def test_conditional_scores_stay_in_the_class(tiny):
    scores = [{"kind": kind, "conditional": True, "name": f"{kind} in class"} for kind in ("empirical", "gaussian", "mixture")]
    result = run(tiny(scores=[{"kind": "empirical"}, *scores], turn_times={"noise_to_signal": [0.1, 20]}, samples=20))
    kept = result["class_retention"].isel(turn_time=-1)
    assert float(kept.sel(score="empirical in class")) == 1.0
    assert float(kept.sel(score="empirical")) < 0.5
    assert float(kept.sel(score="mixture in class")) > float(kept.sel(score="empirical"))
    # a class-conditional Gaussian and the conditioned mixture of classes are the same score
    a, b = (result["sample_autocorrelation_one_shot"].sel(score=f"{kind} in class") for kind in ("gaussian", "mixture"))
    np.testing.assert_allclose(a, b, atol=1e-4)
    assert np.isnan(result["autocorrelation_exact"]).all()


def test_the_experiment_of_samples_from_python_is_not_taken_for_another(tiny):
    """It ran without the samples that the experiment began with, and runs again with the samples alone."""
    truth = gt.data.load("digits").isel(sample=slice(0, 100))
    result = run(tiny(data={"source": "nowhere.npz"}), truth=truth)
    experiment = yaml.safe_load(result.attrs["experiment"])
    assert "handed in from python" in refused(experiment)
    assert undated(run(experiment, truth=truth)).identical(undated(result))


# -- what is kept --------------------------------------------------------------------------------------------------------------


def test_trajectories_are_kept_on_request_and_end_where_the_pictures_do(tiny):
    settings = tiny(reverse={"kind": "heun", "steps": 4}, keep={"pictures": 2, "trajectory": True})
    result = run(settings)
    path, pictures = (result.gaussian_test.group(name) for name in ("trajectory", "pictures"))
    state = path["state"]
    assert state.sizes["time"] == len(path["time"]) == int(result["reverse_steps"].max()) + 1
    assert (np.diff(path["time"]) < 0).all()
    np.testing.assert_array_equal(state.isel(time=-1).transpose(*pictures["end"].dims), pictures["end"])
    for turn in range(state.sizes["turn_time"]):
        before = path["time"].values > path["turn_time"].values[turn] * (1 + 1e-9)
        values = state.isel(turn_time=turn)
        assert np.isnan(values.isel(time=before)).all()
        assert np.isfinite(values.isel(time=~before)).all()


def test_trajectories_of_an_exact_reversal_end_where_it_does(tiny):
    result = run(tiny(keep={"pictures": 2, "trajectory": True}))
    path, pictures = (result.gaussian_test.group(name) for name in ("trajectory", "pictures"))
    ends = path["state"].isel(time=-1).transpose(*pictures["end"].dims)
    np.testing.assert_allclose(ends, pictures["end"], atol=1e-5)


def test_keeping_pictures_or_paths_changes_nothing_else(memory, tiny):
    other = run(tiny(keep={"pictures": 1, "trajectory": True, "eigenvectors": True}))
    assert dict.fromkeys(memory.variables, True) == {name: other[name].identical(memory[name]) for name in memory.variables}


def test_nothing_large_is_kept_unless_asked_for(tiny):
    result = run(tiny(keep={"pictures": 0}))
    for name in ("trajectory", "pictures"):
        with pytest.raises(UserError, match=f"no group '{name}'"):
            result.gaussian_test.group(name)
    assert set(result.gaussian_test.group("moments").data_vars) == {"mean", "eigenvalue"}
    biggest = max(variable.size for variable in result.variables.values())
    assert biggest == 2 * 4 * 12 * 2  # the sample table: no dimension of the states or of the steps


def test_eigenvectors_are_kept_on_request_and_diagonalise(tiny):
    moments = run(tiny(keep={"eigenvectors": True})).gaussian_test.group("moments")
    assert moments["eigenvector"].dims[-1] == "mode"
    x = gt.data.load("digits")["x"].values.reshape(1797, -1).astype(np.float64)
    vectors = moments["eigenvector"].values.reshape(64, -1)
    covariance = np.cov(x.T, bias=True)
    np.testing.assert_allclose(vectors.T @ covariance @ vectors, np.diag(moments["eigenvalue"]), atol=1e-8)


# -- refusals ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"samples": 1798}, ("1798", "1797")),
        ({"keep": {"pictures": 0, "trajectory": True}}, ("keep.pictures",)),
        ({"turn_times": {"time": [81]}, "process": {"sigma_max": 80}}, ("81", "80")),
        ({"turn_times": {"noise_to_signal": [100.0]}, "process": {"sigma_max": 80}}, ("100", "80")),
        ({"turn_times": {"noise_to_signal": {"min": 5, "max": 1, "count": 3}}}, ("5", "1")),
        ({"process": {"kind": "variance_exploding", "sigma_min": 5, "sigma_max": 2}}, ("sigma_min", "5", "2")),
        ({"process": {"kind": "cosine", "time_max": 1.5}}, ("time_max", "1.5")),
        ({"process": {"kind": "discrete_vp", "alphas_cumprod": []}}, ("alphas_cumprod",)),
        ({"process": {"kind": "discrete_vp", "alphas_cumprod": [0.1, 0.5]}}, ("alphas_cumprod",)),
        ({"scores": [{"kind": "gaussian"}, {"kind": "gaussian"}]}, ("gaussian", "twice")),
        ({"scores": [{"kind": "gaussian", "shrinkage": -1}]}, ("shrinkage", "-1")),
        ({"scores": [{"kind": "mixture", "components": 3, "conditional": True}]}, ("components",)),
        ({"data": {"source": "file", "path": "nowhere.npy"}}, ("nowhere.npy",)),
        ({"data": {"scale": [1, 0]}}, ("scale",)),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(changes, said, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shard, "run_shard", lambda *_: pytest.fail("work was started"))
    with pytest.raises(UserError) as error:
        run(tiny(**changes), tmp_path / "a.nc")
    assert all(word in str(error.value) for word in said)
    assert len(str(error.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("score", [{"kind": "empirical", "conditional": True}, {"kind": "mixture"}])
def test_scores_of_classes_without_labels_are_refused(score, tiny):
    assert "labels" in refused(tiny(scores=[score]), truth=gt.data.load("digits").drop_vars("label"))


def test_the_device_is_one_that_is_there(tiny, monkeypatch):
    for device in ("gpu", "cuda:x", "cuda:-1", "cpu:0", "", "CPU"):
        assert repr(device) in refused(tiny(), device=device)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "cuda:7" in (message := refused(tiny(), device="cuda:7"))
    assert "0 CUDA devices" in message
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("auto") == torch.device("cuda")
    assert pick_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UserError, match="2 CUDA devices"):
        pick_device("cuda:2")


def test_an_exact_reversal_without_a_posterior_is_refused(tiny):
    assert "'zero'" in refused(tiny(reverse={"kind": "exact"}), scores={"zero": Own(0)})


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda t: t.drop_vars("x"), "x"),
        (lambda t: t["label"].values, "shape"),
        (lambda t: t.assign(x=t["x"] * np.nan), "NaN"),
        (lambda t: t.assign(x=t["x"] * 0), "same"),
        (lambda t: t.assign(label=t["label"] - 1), "label"),
    ],
    ids=["no x", "an array", "NaN", "constant", "negative label"],
)
def test_own_truth_that_cannot_be_used_is_refused(broken, said, tiny, tmp_path):
    with pytest.raises(UserError, match=said):
        run(tiny(), tmp_path / "a.nc", truth=broken(gt.data.load("digits")))
    assert list(tmp_path.iterdir()) == []


# -- values and classes as they are ----------------------------------------------------------------------------------------------

SIGMAS = np.array([0.3, 1.0, 3.0])
NORMAL = np.random.default_rng(0).standard_normal((300, 8))
BARE = QUICK | {"samples": 32, "scores": [{"kind": "empirical"}, {"kind": "gaussian"}]}
SEEN = ["autocorrelation", "gap", "memorization_noise_to_signal", "affine_noise_to_signal", "nearest_sample"]


def of(data=None, unit=1.0, truth=None, **changes):
    process = {"sigma_min": 0.002 * unit, "sigma_max": 80 * unit}
    settings = BARE | {"turn_times": {"noise_to_signal": (SIGMAS * unit).tolist()}, "process": process} | changes
    return gt.run(settings | ({} if data is None else {"data": data}), truth=truth, progress=False)


def check_equal(a, b, unit=1.0, rtol=0.0):
    for name in SEEN:
        there, here = a[name].values, b[name].values / (unit if name.endswith("to_signal") else 1)
        np.testing.assert_allclose(here, there, rtol=rtol, atol=rtol, err_msg=name)


@pytest.mark.parametrize(("suffix", "dtype"), [("npy", "f4"), ("npy", ">f8"), ("npz", "f8"), ("npz", "f2"), ("nc", "f8")])
def test_a_file_of_floats_is_the_array_handed_in(dtype, suffix, tmp_path):
    """Standard-normal samples: they were squeezed into [-1, 1], and T_G was another."""
    x, path = NORMAL.astype(dtype), tmp_path / f"x.{suffix}"
    if suffix == "nc":
        xr.Dataset({"x": (("sample", "feature"), x)}).to_netcdf(path)
    elif suffix == "npy":
        np.save(path, x)
    else:
        np.savez(path, pixels=x, ids=np.arange(300))
    result = of({"path": str(path)})
    for truth in (x, gt.data.load(x), xr.Dataset({"x": (("sample", "feature"), x.astype("f8"))})):
        check_equal(of(truth=truth), result)
    assert result.gaussian_test.show().splitlines()[1] == "x = file, as it is"


@pytest.mark.parametrize("scale", [[-4, 4], [-1, 7], "unit", "none"])
def test_what_is_scaled_gives_the_same_at_the_scaled_noise(scale, tmp_path):
    np.save(tmp_path / "x.npy", 3 * NORMAL + 20)
    plain = of({"path": str(tmp_path / "x.npy")}, 3)
    scaled = gt.data.load(tmp_path / "x.npy", scale=scale).x
    units = {"none": 1.0, "unit": 1 / (3 * np.sqrt(NORMAL.var(0).mean()))}
    unit = units[scale] if isinstance(scale, str) else 2 / (scale[1] - scale[0])
    assert scaled.scale == pytest.approx(unit)
    result = of({"path": str(tmp_path / "x.npy"), "scale": scale}, 3 * unit)
    check_equal(plain, result, unit, rtol=1e-5)
    assert (result.attrs["data_scale"], result.attrs["data_offset"]) == (scaled.scale, scaled.offset)
    moments = result.gaussian_test.group("moments", units="file")
    np.testing.assert_allclose(moments["mean"], (3 * NORMAL + 20).mean(0), rtol=1e-6)
    np.testing.assert_allclose(moments.eigenvalue.sum(), 9 * NORMAL.var(0).sum(), rtol=1e-6)


@pytest.mark.parametrize("power", [-25, -12, 10, 25])
def test_units_in_which_squares_leave_single_precision_change_nothing(power):
    unit = 2.0 ** round(power * np.log2(10))
    result = of(truth=NORMAL * unit, unit=unit)
    check_equal(of(truth=NORMAL), result, unit, rtol=1e-6)
    assert ("float64" in result.attrs["precision"].split(",")[0]) == (abs(power) == 25)
    with pytest.raises(UserError, match="dtype = float32: it does not hold the squares"):
        of(truth=NORMAL * 1e25, unit=1e25, dtype="float32")


@pytest.mark.parametrize("largest", [1.0, 20.0, 5e3])
def test_the_largest_value_of_a_file_decides_the_precision(largest, tmp_path):
    """Files were taken to lie within [-1, 1]."""
    np.save(tmp_path / "x.npy", (largest / np.abs(NORMAL).max() * NORMAL).astype("f4"))
    levels = {"turn_times": {"noise_to_signal": [0.002, 1.0]}, "process": {"sigma_min": 0.001}}
    result = of({"path": str(tmp_path / "x.npy")}, **levels)
    assert ("float64" in result.attrs["precision"].split(",")[0]) == (largest > 0.002 * 2**24 / 128)
    check_equal(result, of(truth=np.load(tmp_path / "x.npy"), **levels))


def test_bytes_in_passes_are_bytes_in_memory(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (400, 1, 16, 16), dtype=np.uint8)
    np.save(tmp_path / "x.npy", pixels)
    whole, streamed = (of({"path": str(tmp_path / "x.npy")}, memory=memory, shard_size=8) for memory in (None, "2.2MB"))
    check_equal(whole, streamed)
    check_equal(whole, of(truth=pixels))
    assert whole.attrs["identity"] == streamed.attrs["identity"]
    assert whole.gaussian_test.show().splitlines()[1] == "x = 0.00784 · file - 1"


def test_scale_and_offset_of_samples_that_were_changed_since_are_dropped():
    truth = gt.data.load(NORMAL, scale="unit").load()
    assert of(truth=truth).attrs["data_scale"] == truth.x.scale
    with xr.set_options(keep_attrs=True):
        assert of(truth=truth.assign(x=truth.x * 3)).attrs["data_scale"] == 1
    for attributes in ({"scale": "big", "offset": 0}, {"scale": 0, "offset": 0}, {"scale": np.nan, "offset": 1}, {"scale": 2}):
        assert of(truth=xr.Dataset({"x": (("sample", "feature"), NORMAL, attributes)})).attrs["data_scale"] == 1
    with pytest.raises(UserError, match="scale what you hand in"):
        of({"scale": "unit"}, truth=NORMAL)


def test_pictures_are_in_units_of_the_file_and_have_their_own_shades(tmp_path):
    """Floats beyond [-1, 1] were drawn black and white."""
    x = 100 + 50 * NORMAL.reshape(300, 1, 2, 4)
    result = of(truth=x, unit=50.0, keep={"pictures": 3})
    file, here = (result.gaussian_test.group("pictures", units=units) for units in ("file", "x"))
    np.testing.assert_array_equal(file.start, here.start)
    mosaic = result.gaussian_test.plot()["pictures"].axes[0].images[0].get_array()
    expected = (here.start.values[0, 0] - x.min()) / np.ptp(x)
    np.testing.assert_allclose(mosaic[:2, :4, 0], expected, atol=1e-6)
    scaled = of(gt.experiment.data.Data(path=None).model_dump(), keep={"pictures": 3})
    pixels = scaled.gaussian_test.group("pictures", units="file").start.values
    np.testing.assert_array_equal(pixels, np.rint(pixels))  # 0 to 16
    for units, name in (("pixels", "pictures"), ("file", "normality")):
        with pytest.raises(UserError, match=r"units|no group"):
            scaled.gaussian_test.group(name, units=units)


DIGITS = gt.data.load("digits").load()


@pytest.mark.parametrize("classes", [(3, 7), (0, 9), (5,)])
def test_classes_reach_a_network_as_the_numbers_that_they_are(classes):
    seen = []

    def network(x, t, label):
        seen.append(label.tolist())
        return x / 2

    truth = DIGITS.isel(sample=np.isin(DIGITS.label, classes))
    score = gt.sampler.NetworkScore.from_callable(network, (1, 8, 8), classes=10, conditional=True, micro_batch=64)
    result = gt.run(BARE | {"turn_times": {"noise_to_signal": [1.0]}, "reverse": {"steps": 2}}, truth=truth, scores={"net": score})
    assert set(result.label.values.tolist()) == {label for labels in seen for label in labels} == set(classes)
    assert set(result.label_after.values.ravel().tolist()) <= set(classes)
    assert json.loads(result.attrs["class_names"]) == {str(number): str(number) for number in classes}
    assert json.loads(result.attrs["score_classes"]) == {"net": {str(number): str(number) for number in classes}}


def test_the_shipped_network_is_given_threes_and_sevens():
    """Numbered 0 and 1, they were denoised as another digit: C was smaller by .1 to .2."""
    truth = DIGITS.isel(sample=np.isin(DIGITS.label, [3, 7]))
    scores = [{"kind": "network", "name": name, "conditional": name == "told"} for name in ("told", "untold")]
    settings = BARE | {"scores": scores, "samples": 64, "turn_times": {"noise_to_signal": [1.0, 2.0]}, "reverse": {"steps": 16}}
    right = gt.run(settings, truth=truth).autocorrelation
    wrong = gt.run(settings, truth=truth.assign(label=(truth.label == 7).astype(int))).autocorrelation
    assert (right.sel(score="told") > wrong.sel(score="told") + 0.05).all()
    np.testing.assert_array_equal(right.sel(score="untold"), wrong.sel(score="untold"))


def test_the_names_of_classes_are_said_where_they_are_no_numbers():
    labels = np.where(DIGITS.label < 5, "low", "high")
    settings = BARE | {"scores": [{"kind": "network", "conditional": True}], "reverse": {"steps": 2}}
    result = gt.run(settings | {"turn_times": {"noise_to_signal": [1.0]}}, truth=gt.data.load(DIGITS.x, labels=labels))
    assert json.loads(result.attrs["score_classes"]) == {"network": {"0": "high", "1": "low"}}
    assert "network is given class high as 0, low as 1." in result.gaussian_test.show()


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (lambda label: label + 1, "does not know class 10: it has classes 0 to 9"),
        (lambda label: label * 100, "does not know class 100:"),
        (lambda label: np.array(list("abcdefghijk"))[np.arange(len(label)) % 11], "does not know class k, which is number 10:"),
        (lambda label: np.array([f"{number:02d}" for number in label + 5]), "does not know class 10:"),
    ],
)
def test_a_class_that_a_network_does_not_know_is_refused_by_its_name(labels, said):
    truth = gt.data.load(DIGITS.x, labels=labels(DIGITS.label.values))
    with pytest.raises(UserError, match=said):
        gt.run(BARE | {"scores": [{"kind": "network", "conditional": True}]}, truth=truth)


def test_a_single_class_of_any_number_is_one_class():
    truth = DIGITS.isel(sample=DIGITS.label == 7)
    result = gt.run(BARE | {"observables": ["balance"], "turn_times": {"noise_to_signal": [1.0, 2.0]}}, truth=truth)
    assert np.isnan(result.exchange_class_pvalue).all()
    assert "single class" in result.exchange_class_pvalue.attrs["reason"]


@pytest.mark.parametrize(
    ("given", "changes"),
    [
        ({"data": {"path": "x.npz"}}, []),
        ({}, ["data.path=x.npz"]),
        ({"data": {"source": "digits"}}, ["data.path=x.npz"]),
        ({"data": {"path": "digits"}}, ["data.path=x.npz"]),
        ({}, ["data={path: x.npz, scale: none}"]),
    ],
)
def test_the_source_is_known_from_the_path(given, changes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("x.npz", pixels=NORMAL, ids=np.arange(300))
    result = gt.run(gt.Experiment.load({**BARE, **given}, [*changes, "turn_times.noise_to_signal=[1]"]))
    assert result.attrs["data_source"] == "file"
    assert result.gaussian_test.show().startswith("Gaussian Test of Array file x.npz: 32 of 300 samples")
    assert result.attrs["data_title"] in repr(result.gaussian_test)
    assert gt.Experiment().data.source == "digits"


def test_resuming_a_whole_archive_opens_it(tiny, tmp_path, disk, monkeypatch):
    monkeypatch.setattr(shard, "run_shard", lambda *_: pytest.fail("work was started"))
    content = disk.read_bytes()
    (tmp_path / "a.nc").write_bytes(content)
    assert run(tiny(), tmp_path / "a.nc", resume=True).identical(gt.open_archive(disk))
    with pytest.raises(UserError, match="seed differs"):
        run(tiny(seed=4), tmp_path / "a.nc", resume=True)
    assert (tmp_path / "a.nc").read_bytes() == content


# -- beside the result ---------------------------------------------------------------------------------------------------------


def test_compare_finds_no_difference_with_itself_and_the_sign_of_one(memory):
    same = gt.compare(memory, memory)
    assert (same["autocorrelation_difference"] == 0).all()
    assert (same["autocorrelation_difference_se"] == 0).all()  # paired: the same samples with the same noise
    other = memory.assign_attrs(seed=memory.attrs["seed"] + 1)
    independent = gt.compare(memory, other)
    np.testing.assert_allclose(independent["autocorrelation_difference_se"], np.sqrt(2) * memory["autocorrelation_se"], rtol=1e-12)
    higher = memory.assign({name: memory[name] + 0.125 for name in ("autocorrelation", "sample_autocorrelation")})
    for first, second, difference in ((other, higher, 0.125), (memory, higher, 0.125), (higher, memory, -0.125)):
        np.testing.assert_allclose(gt.compare(first, second)["autocorrelation_difference"], difference, rtol=1e-12)


def test_compare_uses_the_noise_levels_that_both_cover(memory):
    inner = memory.isel(turn_time=[1, 2])
    assert gt.compare(memory, inner)["noise_to_signal"].values.tolist() == inner["noise_to_signal"].values.tolist()
    with pytest.raises(UserError, match="no noise level"):
        gt.compare(memory.isel(turn_time=[0]), memory.isel(turn_time=[3]))
    with pytest.raises(UserError, match="no score in common"):
        gt.compare(memory.sel(score=["empirical"]), memory.sel(score=["gaussian"]))


def test_the_table_shows_the_numbers_of_the_archive(memory):
    text = memory.gaussian_test.show()
    for value in memory["memorization_noise_to_signal"].values:
        assert f"{value:.3g}" in text
    rows = [line.split() for line in text.splitlines() if line.startswith(tuple(f"{nu:.3f}" for nu in NU))]
    assert len(rows) == 2 * len(NU)  # the curves, then the end points
    for name, part in (("autocorrelation", rows[: len(NU)]), ("end_square", rows[len(NU) :])):
        for row, nu, curve in zip(part, NU, memory[name].transpose("turn_time", "score").values, strict=True):
            assert row[0] == f"{nu:.3f}"
            assert [float(cell) for cell in row[1:3]] == pytest.approx(curve.tolist(), abs=5.1e-4)


def _double():
    torch.set_default_dtype(torch.float64)


WORLDS = {
    "underflow raises": lambda: np.seterr(under="raise"),
    "all raises": lambda: np.seterr(all="raise"),
    "default type": _double,
    "default device": lambda: torch.set_default_device("meta"),
    "warnings are errors": lambda: warnings.simplefilter("error"),
}


@pytest.fixture
def world():
    """Return a function that changes settings of the process; they are as before afterwards."""
    with np.errstate(), warnings.catch_warnings():
        yield lambda name: WORLDS[name]()
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)


@pytest.mark.parametrize("name", WORLDS)
def test_settings_of_the_world_around_change_no_bit(name, world, tiny, memory, tmp_path):
    world(name)
    before, filters = (np.geterr(), torch.get_default_dtype(), torch.get_default_device(), dict(os.environ)), list(warnings.filters)
    result = gt.run(tiny(), tmp_path / "run.nc", progress=False)
    assert [one for one in memory.data_vars if not result[one].equals(memory[one])] == []
    gt.compare(result, memory)
    assert result.gaussian_test.show(every=True) == memory.gaussian_test.show(every=True)
    assert gt.report(result, tmp_path / "run.html").exists()
    assert (np.geterr(), torch.get_default_dtype(), torch.get_default_device(), dict(os.environ)) == before
    assert [one for one in filters if one not in warnings.filters] == []


def test_netcdf_filters_are_not_handed_to_programs_that_are_started(disk):
    code = (
        "import os; before = dict(os.environ)\n"
        f"import gaussian_test as gt; gt.open_archive({str(disk)!r})\n"
        "assert 'HDF5_PLUGIN_PATH' not in set(os.environ) - set(before)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "HDF5_PLUGIN_PATH"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
