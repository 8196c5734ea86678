"""Observables of a run: what is in the archive follows from what was run, whatever was asked for beside it."""

import re

import numpy as np
import pytest
import torch
from face_zoo import Own, refused
from sklearn.neighbors import KNeighborsClassifier

import gaussian_test as gt
from gaussian_test import UserError, analysis
from gaussian_test.analysis.moments.moments import whole_spectrum
from gaussian_test.analysis.observables.normality.lilliefors import ks_distance
from gaussian_test.analysis.statistics.curves import falls_through
from gaussian_test.build.problem import prepare, run_identity, shard_identity
from gaussian_test.experiment.experiment import Experiment
from gaussian_test.store.parts import Parts

SETTINGS = {
    **{"turn_times": {"noise_to_signal": [0.3, 1.0, 4.0]}, "samples": 48, "repeats": 2, "shard_size": 20, "seed": 5},
    **{"keep": {"pictures": 2, "end_points": True}, "statistics": {"bootstrap": 200}},
    **{"observables": "all", "chains": {"length": 6, "turn_times": 2}},
}


def run(given=None, **changes):
    """Run with some settings changed and some things given from python."""
    return gt.run({**SETTINGS, **changes}, progress=False, **(given or {}))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("observables") / "all.nc"
    return gt.run(SETTINGS, path, progress=False)


def group(result, name):
    return result.gaussian_test.group(name)


def features(moments, x):
    return (x.reshape(*x.shape[:-3], -1) - moments.mean.reshape(-1)) @ moments.eigenvectors[:, : min(64, len(moments.eigenvalues))]


@pytest.fixture(scope="module")
def moments():
    return analysis.fit_moments(gt.data.load("digits").x)


def test_quality_is_that_of_the_kept_end_points(whole, moments):
    end = group(whole, "end_points")["end"]
    truth = features(moments, gt.data.load("digits").x.values.astype(float))
    for score in ("empirical", "gaussian"):
        for turn in range(3):
            ends = features(moments, end.sel(score=score).isel(turn_time=turn).values.astype(float))
            for name, distance in (("frechet", analysis.frechet), ("kid", analysis.kid)):
                here = whole[name].sel(score=score)[turn]
                expected = distance(ends, truth, starts=end["sample"].values).estimate
                assert float(here) == pytest.approx(expected, rel=1e-6, abs=1e-9)
    np.testing.assert_array_equal(whole["kept"], end["sample"])
    np.testing.assert_allclose(whole["sample_kid"].mean("kept"), whole["kid"], rtol=1e-9, atol=1e-12)


def test_the_end_points_are_those_of_the_sample_table(whole, moments):
    end = group(whole, "end_points")["end"].sel(sample=whole["sample"])
    square = ((end - moments.mean.astype(np.float32)).astype(float) ** 2).sum(("channel", "row", "column")) / moments.trace
    np.testing.assert_allclose(square.transpose(*whole["sample_end_square"].dims), whole["sample_end_square"], rtol=1e-4)


def test_the_change_field_is_that_of_the_kept_end_points(whole):
    end = group(whole, "end_points")["end"]
    x0 = gt.data.load("digits").x.values[end["sample"].values]
    change = end.sel(score="gaussian").isel(turn_time=1).values - x0[:, None]
    expected = analysis.susceptibility(change).mean()
    assert float(whole["change_susceptibility"].sel(score="gaussian")[1]) == pytest.approx(expected, rel=1e-5)


def test_other_starts_are_the_runs_that_begin_with_them():
    """The same keys, the same noise: end points of the Gaussian start are those of a G-Turn run, up to rounding."""
    given = {"truth": gt.data.load("digits").isel(sample=slice(0, 60))}
    settings = {"samples": "all", "keep": {"pictures": 0, "end_points": True}}
    turns = run(given, observables=["starts"], **settings)
    for start in ("gaussian", "isotropic"):
        alone = run(given, start=start, observables=["quality"], **settings)
        np.testing.assert_allclose(group(turns, "end_points")[f"end_{start}"], group(alone, "end_points")["end"], atol=2e-5)
    assert float(abs(group(turns, "end_points")["end_gaussian"] - group(turns, "end_points")["end"]).max()) > 0.5


def test_scores_are_explained_by_themselves_and_as_theory_says(whole, moments):
    """E|s_G|^2 and E|s-s_G|^2 have closed forms: for the Gaussian score isotropic noise explains what the spectrum says."""
    explained = whole["score_explained"]
    for name in ("empirical", "gaussian"):
        np.testing.assert_allclose(explained.sel(score=name, reference=name), 1, atol=1e-12)
    square = whole["sample_score_square"].mean(("sample", "repeat"))
    distance = whole["sample_score_distance"].mean(("sample", "repeat"))
    np.testing.assert_allclose(explained, (1 - distance / square).transpose(*explained.dims), rtol=1e-9, atol=1e-12)
    gap = distance.sel(score="empirical", reference="gaussian") * whole["noise_to_signal"] ** 4 / moments.trace
    np.testing.assert_allclose(gap, whole["denoiser_gap"].sel(score="empirical"), rtol=1e-3)


def test_the_best_affine_map_finds_what_an_affine_score_of_other_moments_is():
    """A shrunk Gaussian is affine and not the Gaussian one: nearly all of its distance is gained, out of sample."""
    settings = {"observables": ["affinity"], "samples": 400, "repeats": 1, "keep": {"pictures": 0}}
    result = run(scores=[{"kind": "gaussian", "name": "shrunk", "shrinkage": 0.3}], **settings)
    assert (result["affine_gap"] < 0.2 * result["denoiser_gap"]).all()
    assert (result["affine_gain_low"] > 0).all()


STEPS = {"reverse": {"kind": "sde", "steps": 8}, "chains": {"length": 2, "turn_times": 2}}


@pytest.mark.parametrize("changes", [{}, STEPS], ids=["exact", "by steps, with noise of their own in every link"])
def test_chains_of_the_gaussian_score_are_its_closed_form(changes):
    """The reverse SDE in the variance clock has the closed form's auto-correlation at any number of steps, link by link."""
    settings = {"samples": 400, "repeats": 1, "scores": [{"kind": "gaussian"}], "keep": {"pictures": 0}}
    table = group(run(observables=["chains"], **settings, **changes), "chains").sel(score="gaussian").isel(step=slice(1, None))
    assert (np.abs(table["autocorrelation"] - table["autocorrelation_gaussian"]) <= 4 * table["autocorrelation_se"]).all()
    assert (table["autocorrelation_se"] < 0.05).all()


def test_the_first_link_of_a_chain_is_a_u_turn_with_other_noise(whole):
    """C(1) of a chain estimates C of the run: independent noise, the same starts."""
    table = group(whole, "chains")
    for score in ("empirical", "gaussian"):
        for level in table["noise_to_signal"].values:
            one = table.sel(score=score).isel(turn_time=int(np.argmin(np.abs(table["noise_to_signal"].values - level))), step=1)
            other = whole.sel(score=score).isel(turn_time=int(np.argmin(np.abs(whole["noise_to_signal"].values - level))))
            error = np.hypot(float(one["autocorrelation_se"]), float(other["autocorrelation_se"]))
            assert abs(float(one["autocorrelation"]) - float(other["autocorrelation"])) <= 4 * error


def test_normality_is_of_the_very_states_that_were_turned(whole):
    index = whole["sample"].values
    x0 = torch.from_numpy(gt.data.load("digits").x.values[index])
    normal = gt.sampler.KeyedNoise(5, index.tolist(), 1, tuple(x0.shape[1:])).draw().normal
    for turn, nu in enumerate(whole["noise_to_signal"].values):
        distance = ks_distance((x0 + nu * normal).flatten(1).numpy())
        np.testing.assert_allclose(group(whole, "normality")["ks_distance"][turn].values.reshape(-1), distance, atol=1e-5)
        assert float(whole["ks_mean"][turn]) == pytest.approx(np.nanmean(distance), abs=1e-5)


def test_what_is_not_asked_for_is_not_there(whole):
    bare = run(observables="none", keep={"pictures": 0})
    for name in ("score_explained", "ks_mean", "frechet", "exchange_energy_pvalue", "start_kid"):
        assert name in whole
        assert name not in bare
    for name in ("normality", "chains", "end_points"):
        with pytest.raises(UserError, match=name):
            group(bare, name)
    # and what is there in both is the same
    for name in ("autocorrelation", "gap", "memorization_noise_to_signal", "sample_memorization_noise_to_signal"):
        np.testing.assert_array_equal(bare[name], whole[name])


def test_fewer_end_points_are_evenly_picked_and_change_no_curve_of_all_samples(whole):
    few = run(end_points=10, observables=["quality", "affinity"])
    kept = group(few, "end_points")["sample"].values
    np.testing.assert_array_equal(kept, whole["sample"].values[np.linspace(0, 47, 10).round().astype(int)])
    np.testing.assert_array_equal(few["score_explained"], whole["score_explained"])
    end = group(few, "end_points")["end"]
    np.testing.assert_array_equal(end, group(whole, "end_points")["end"].sel(sample=kept).transpose(*end.dims))


def test_an_interrupted_run_goes_on_with_its_observables(whole, tmp_path, interrupt):
    interrupt(3)
    with pytest.raises(KeyboardInterrupt):
        gt.run(SETTINGS, tmp_path / "a.nc", progress=False)
    resumed = gt.run(SETTINGS, tmp_path / "a.nc", resume=True, progress=False)
    for name in whole.variables:
        np.testing.assert_array_equal(resumed[name].values, whole[name].values, err_msg=str(name))
    for name in ("chains", "end_points"):
        assert group(resumed, name).identical(group(whole, name))


def parts_of(**changes):
    """Return what decides whether parts are those of a run."""
    return shard_identity(run_identity(prepare(Experiment.load({**SETTINGS, **changes}))))


def test_parts_without_end_points_do_not_fit_a_run_that_keeps_them():
    bare, keeping = (parts_of(observables="none", keep={"pictures": 0, "end_points": kept}) for kept in (False, True))
    assert {name for name in bare if bare[name] != keeping[name]} == {"kept end points"}


def test_features_may_change_when_a_run_is_resumed_and_the_classifier_may_not(tmp_path):
    parts = parts_of(observables=["quality"])
    assert parts_of(observables=["quality"], features={"kind": "pixels"}) == parts
    neighbours = parts_of(observables=["quality"], classifier={"kind": "knn"})
    kept = Parts(tmp_path / "run.nc", parts)
    kept.open()
    kept.write(0, gt.data.load("digits").isel(sample=[0]))
    with pytest.raises(UserError, match="classifier"):
        Parts(tmp_path / "run.nc", neighbours).open(resume=True)


class Halves(torch.nn.Module):
    """Features: the mean of the upper and of the lower half; dropout must be off."""

    def __init__(self):
        super().__init__()
        self.dropout = torch.nn.Dropout(0.9)

    def forward(self, x):
        return self.dropout(torch.stack([x[..., :4, :].mean((1, 2, 3)), x[..., 4:, :].mean((1, 2, 3))], 1))


def test_features_of_the_users_are_used_in_evaluation_mode():
    found = run({"features": Halves()}, observables=["quality"])
    truth = gt.data.load("digits").x.values
    halves = np.stack([truth[..., :4, :].mean((1, 2, 3)), truth[..., 4:, :].mean((1, 2, 3))], 1)
    end = group(found, "end_points")["end"].sel(score="empirical").isel(turn_time=2).values
    of_ends = np.stack([end[..., :4, :].mean((2, 3, 4)), end[..., 4:, :].mean((2, 3, 4))], 2)
    expected = analysis.kid(of_ends, halves, starts=group(found, "end_points")["sample"].values).estimate
    assert float(found["kid"].sel(score="empirical")[2]) == pytest.approx(expected, rel=1e-3, abs=1e-7)
    assert found["kid"].attrs["features"] == "Halves"


def test_features_get_the_type_that_networks_have_whatever_that_of_the_run():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    found = run({"features": network}, observables=["quality"], dtype="float64", keep={"pictures": 0})
    assert np.isfinite(found["kid"]).all()


def test_a_score_that_fails_is_named_whoever_classifies():
    """A classifier of scikit-learn's refuses NaN: it is the score that is at fault, and the message says so."""

    broken = Own(lambda x, t: torch.where(torch.as_tensor(t).reshape(-1, 1, 1, 1) < 0.2, torch.nan, 0.5 * x))
    given = {"scores": {"broken": broken}, "classifier": KNeighborsClassifier(1)}
    with pytest.raises(UserError, match=r"score 'broken' returned NaN"):
        run(given, scores=[{"kind": "gaussian"}], reverse={"kind": "sde", "steps": 8})


def test_a_classifier_of_the_users_decides_the_class():
    """One that always says 3: the retention follows from the share of threes alone."""
    from sklearn.dummy import DummyClassifier

    found = gt.run({**SETTINGS, "observables": "none"}, progress=False, classifier=DummyClassifier(strategy="constant", constant=3))
    assert (found["label_after"] == 3).all()
    share = float((found["label"] == 3).mean())
    labels = gt.data.load("digits").label.values
    chance = (np.bincount(labels) / len(labels) @ (np.bincount(labels) / len(labels))).item()
    np.testing.assert_allclose(found["class_retention"], (share - chance) / (1 - chance))
    assert float(found["classifier_accuracy"]) == pytest.approx((labels == 3).mean(), abs=1e-9)


def test_the_default_classifier_is_one_nearest_neighbour(whole):
    neighbours = gt.run({**SETTINGS, "observables": "none"}, progress=False, classifier=KNeighborsClassifier(1))
    assert float((neighbours["label_after"] == whole["label_after"]).mean()) > 0.999
    assert "KNeighborsClassifier" in neighbours["classifier_accuracy"].attrs["classifier"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"observables": "everything"}, "'everything' is neither all nor none"),
        ({"observables": ["affinty"]}, "affinty"),
        ({"features": {"kind": "factory"}}, "name of the factory"),
        ({"features": {"kind": "factory", "factory": "math:nothing"}}, "math:nothing failed"),
        ({"classifier": {"kind": "factory", "factory": "builtins:dict"}}, "none of scikit-learn's"),
        ({"statistics": {"memorization": "never"}}, "statistics.memorization"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(changes, said):
    with refused(re.escape(said)):
        run(**changes)


def test_features_that_fail_are_refused_before_any_work():
    def wrong(x):
        raise RuntimeError("no such thing")

    with pytest.raises(UserError, match=r"features wrong.*fix the extractor"):
        run({"features": wrong})
    with pytest.raises(UserError, match=r"return finite features"):
        run({"features": lambda x: x.mean((1, 2, 3))})


def test_levels_and_definitions_are_those_asked_for():
    plain = run(observables="none")
    levels = {"memorization_level": 0.25, "speciation": "same", "speciation_level": 0.4, "affine": "uturn"}
    changed = run(observables="none", statistics={"bootstrap": 200} | levels)
    nu = plain["noise_to_signal"].values
    shares = {
        "memorization": (plain["memorized_share"], 0.25),
        "speciation": ((plain["label_after"] == plain["label"]).mean(("sample", "repeat")), 0.4),
    }
    for time, (share, level) in shares.items():
        expected = falls_through(share.sel(score="empirical").values, nu, level=level)
        assert float(changed[f"{time}_noise_to_signal"].sel(score="empirical")) == pytest.approx(expected)


def test_the_affine_time_is_read_off_the_gap_asked_for():
    """Under a kernel with few steps the two gaps differ, and so do the times that are read off them."""
    settings = {"observables": "none", "samples": 100, "turn_times": {"noise_to_signal": [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]}}
    settings |= {"reverse": {"kind": "heun", "steps": 6}, "scores": [{"kind": "empirical"}]}
    for definition, name in (("one_shot", "gap_one_shot"), ("uturn", "gap")):
        found = run(**settings, statistics={"bootstrap": 200, "affine": definition, "tolerance": 0.1})
        row = found.sel(score="empirical")
        bands = [row[name + suffix].values for suffix in ("", "_low", "_high")]
        nu, error = row["noise_to_signal"].values, row[f"{name}_se"].values
        expected = analysis.affine_time(*bands, nu, tolerance=0.1, standard_error=error)
        assert float(row["affine_noise_to_signal"]) == pytest.approx(expected.estimate, nan_ok=True)
        assert f"|{name}| falls below" in found["affine_noise_to_signal"].attrs["comment"]
    assert float(abs(found["gap"] - found["gap_one_shot"]).max()) > 0.01


def test_remembering_any_sample_is_being_close_to_one():
    settings = {"statistics": {"bootstrap": 200, "memorization": "any"}, "scores": [{"kind": "gaussian"}]}
    found = run(observables="none", turn_times={"noise_to_signal": [0.02, 0.1, 0.3, 1.0]}, **settings)
    close = found["close_share"].sel(score="gaussian").values
    expected = falls_through(close, found["noise_to_signal"].values, level=0.5)
    assert 0 < expected < np.inf
    assert float(found["memorization_noise_to_signal"][0]) == pytest.approx(expected)


def test_a_score_that_is_given_the_class_has_no_speciation_time():
    found = run(observables="none", scores=[{"kind": "empirical", "conditional": True}, {"kind": "gaussian"}])
    assert np.isnan(float(found["speciation_noise_to_signal"].sel(score="empirical")))
    assert "given the class" in found["speciation_noise_to_signal"].attrs["reason"]
    assert np.isnan(found["sample_speciation_noise_to_signal"].sel(score="empirical")).all()
    assert np.isfinite(found["sample_speciation_noise_to_signal"].sel(score="gaussian")).any()


def test_without_labels_and_with_one_class_the_reason_is_said():
    truth = gt.data.load("digits")
    for data, reason in ((truth.isel(sample=truth.label.values == 3), "single class"), (truth.drop_vars("label"), "no labels")):
        found = gt.run({**SETTINGS, "observables": ["balance"], "samples": 32}, progress=False, truth=data)
        for name in ("speciation_noise_to_signal", "speciation_time", "class_retention"):
            assert reason in found[name].attrs["reason"]
            assert np.isnan(found[name]).all()
        assert np.isfinite(found["memorized_share"]).all()
        assert np.isnan(found["speciation_noise_to_signal_predicted_within_class"])
    assert (found[["label", "label_after"]].to_array() == -1).all()


def test_the_excess_entropy_of_the_gaussian_score_is_the_spectrums_prediction():
    times = {"noise_to_signal": {"min": 0.2, "max": 5, "count": 30}}
    found = run(observables="none", turn_times=times, scores=[{"kind": "gaussian"}])
    predicted = float(found["memorization_noise_to_signal_predicted"][0])
    crossing = float(found["memorization_noise_to_signal_predicted_excess_entropy"][0])
    assert crossing == pytest.approx(predicted, rel=0.005)


def test_show_tells_of_every_observable_and_every_turn_time_when_asked(whole):
    text = whole.gaussian_test.show()
    titles = ["Times of single samples", "Share of the squared norm", "best affine map", "Norm of the scores"]
    titles += ["Kolmogorov-Smirnov", "Distance of the end points", "Other starts", "exchangeable pair", "Change field"]
    titles += ["Chains of U-Turns", "Classes by nearest ground-truth sample", "predicted within classes"]
    assert [title for title in titles if title not in text] == []
    assert "from 48 starts the bands of shares and distances hold less often" in text
    many = run(observables=["normality"], turn_times={"noise_to_signal": {"min": 0.2, "max": 5, "count": 12}}, samples=16)
    few, every = many.gaussian_test.show(), many.gaussian_test.show(every=True)
    assert "8 of the 12 turn times" in few
    assert len(every.splitlines()) == len(few.splitlines()) + 4 - 2


def test_compare_pairs_samples_and_its_bands_hold_the_difference(whole):
    other = run(scores=[{"kind": "empirical"}, {"kind": "gaussian", "shrinkage": 0.5}], observables=["quality", "affinity"])
    found = gt.compare(whole, other)
    assert found.attrs["paired"] == 1
    for name in ("autocorrelation", "memorized_share", "class_retention", "frechet", "kid", "denoiser_gap", "end_square"):
        difference = found[f"{name}_difference"]
        np.testing.assert_allclose(difference, other[name].values - whole[name].values, rtol=1e-6, atol=1e-7, err_msg=name)
        np.testing.assert_allclose(difference.sel(score="empirical"), 0, atol=1e-12)
        assert (found[f"{name}_difference_low"] <= difference + 1e-12).all()
    assert (found["autocorrelation_difference_pvalue"].sel(score="gaussian") < 0.05).any()
    assert float(found["memorization_difference"].sel(score="empirical")) == 0


def test_samplers_are_compared_on_the_gaussian_of_the_data(moments):
    study = gt.samplers(Experiment.load({"turn_times": {"noise_to_signal": [20.0]}}), steps=[8, 32])
    values, _ = whole_spectrum(moments)
    process = gt.sampler.VarianceExploding()
    grid = gt.sampler.reverse_grid(process, [20.0], 32)
    law = analysis.sampler_law(values, process, gt.sampler.ProbabilityFlow("heun"), grid, [20.0])
    assert float(study["wasserstein"].sel(kernel="heun", steps=32)) == pytest.approx(float(law["wasserstein"][0]), rel=1e-9)
    with pytest.raises(UserError, match=r"no numbers of steps"):
        gt.samplers(steps=[0])
