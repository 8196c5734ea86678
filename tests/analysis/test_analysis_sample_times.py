"""Times of samples and classes: against brute force, the analysis of variance of scipy, and laws whose times are known."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import f as f_law, f_oneway, kstest

from gaussian_test import analysis
from gaussian_test.analysis.declarations import reasons_of
from gaussian_test.analysis.observables.sample_times.times import class_times, sample_times, self_averaging
from gaussian_test.analysis.statistics.bootstrap import ClusterBootstrap, expanded
from gaussian_test.analysis.statistics.curves import falls_through, share_time

NU = np.geomspace(0.1, 20, 13)
CROSSINGS = np.concatenate([[0.0], np.sqrt(NU[1:] * NU[:-1]), [np.inf]])
RESAMPLE = ClusterBootstrap(60, 400, 0.9, 3)


def _paths(seed, samples=60, repeats=4, wrong=0.1, spread=(0.5, 0.3)):
    """Draw paths lost at lognormal times around 1.5, in which some outcomes are wrong."""
    rng = np.random.default_rng(seed)
    times = np.log(1.5) + spread[0] * rng.normal(size=(samples, 1)) + spread[1] * rng.normal(size=(samples, repeats))
    outcomes = np.log(NU)[:, None, None] < times
    return outcomes ^ (rng.random(outcomes.shape) < wrong)


@pytest.mark.parametrize(("chance", "ties"), [(0.0, True), (0.1, False), (1 / 3, True), (0.5, True)])
def test_a_path_time_is_the_step_of_least_squares(chance, ties):
    """Against every step from 1 to chance in turn: of the best ones, the middle of the two middle ones (or the only one)."""
    outcomes = np.random.default_rng(0).random((13, 40, 5)) < 0.5
    steps = np.where(np.arange(13) < np.arange(14)[:, None], 1.0, chance)
    squares = ((outcomes - steps[:, :, None, None]) ** 2).sum(1)
    found = analysis.path_time(outcomes, NU, chance=chance)
    several = 0
    for sample, repeat in np.ndindex(40, 5):
        best = np.flatnonzero(np.isclose(squares[:, sample, repeat], squares[:, sample, repeat].min(), rtol=0, atol=1e-9))
        middle = (best[(len(best) - 1) // 2] + best[len(best) // 2]) // 2
        assert found[sample, repeat] == CROSSINGS[middle]
        several += len(best) > 1
    assert (several > 3) == ties


@pytest.mark.parametrize(
    ("repeats", "level", "below"),
    [(1, 0.5, 0), (2, 0.5, 0), (4, 0.25, 0), (8, 0.5, 0), (3, 0.4, 1e-11), (3, 1 / 3, 1e-11), (5, 0.4, 1e-11), (7, 0.61, 1e-11)],
)
def test_sample_times_are_those_of_the_general_function(repeats, level, below):
    """falls_through one sample at a time, at a level lower by 1e-11 where rounding takes shares off it; both kinds of censoring."""
    outcomes = np.random.default_rng(repeats).random((13, 400, repeats)) < np.linspace(0.95, 0.05, 13)[:, None, None]
    outcomes[:, 0], outcomes[:, 1] = False, True
    found = analysis.sample_time(outcomes, NU, level=np.full(400, level))  # every sample can have its level
    expected = [falls_through(curve, NU, level=level - below) for curve in outcomes.mean(-1).T]
    np.testing.assert_allclose(found, expected, rtol=1e-8 if below else 1e-12)
    np.testing.assert_array_equal(found, analysis.sample_time(outcomes, NU, level=level))
    assert (found[0], found[1]) == (0, np.inf)
    assert len(np.unique(found)) > 12


def test_a_fit_that_stays_at_the_level_is_lost_at_its_end():
    """Three repeats, pooled shares of exactly one half: no rounding moves the time to the other end of the flat part."""
    outcomes = (np.arange(3) < np.array([3, 1, 2, 1, 2, 1, 2, 0])[:, None])[:, None, :]
    assert analysis.sample_time(outcomes, NU[:8], level=0.5)[0] == pytest.approx(NU[6], rel=1e-12)


def test_ratio_and_interval_are_those_of_scipys_analysis_of_variance():
    """Every sample left out in turn, the pseudo-values of the logarithm of scipy's F under the bootstrap give the interval."""
    times = np.random.default_rng(6).normal(size=(60, 1)) + np.random.default_rng(7).normal(size=(60, 5))
    whole = f_oneway(*times).statistic
    logs = np.log([f_oneway(*np.delete(times, i, 0)).statistic for i in range(60)])
    band = RESAMPLE.band((60 * np.log(whole) - 59 * logs)[:, None])
    *found, reason = self_averaging(times, RESAMPLE)
    assert found == pytest.approx([(f - 1) / 5 for f in (whole, np.exp(band.low[0]), np.exp(band.high[0]))], rel=1e-9)
    assert reason == ""


@pytest.mark.parametrize("truth", [0.0, 0.5, 3.0])
def test_lognormal_times_give_their_ratio(truth):
    """(1 + R ratio)/(1 + R truth) is an F variate (Kolmogorov-Smirnov at 1e-3); 200 intervals at 95 % cover 90 to 99 %."""
    rng = np.random.default_rng(8)
    resample = ClusterBootstrap(100, 300, 0.95, 0)
    ratios, covered = [], 0
    for _ in range(200):
        times = 0.7 * (np.sqrt(truth) * rng.normal(size=(100, 1)) + rng.normal(size=(100, 4))) - 1.3
        ratio, low, high, _ = self_averaging(times, resample)
        assert 0 <= low <= high
        ratios.append(ratio)
        covered += low <= truth <= high
    assert 180 <= covered <= 198
    statistics = (1 + 4 * np.array(ratios)) / (1 + 4 * truth)
    if truth:
        assert kstest(statistics, f_law(99, 300).cdf).pvalue > 1e-3
    else:
        assert np.mean(statistics > 1) == pytest.approx(f_law(99, 300).sf(1), abs=4 * np.sqrt(0.25 / 200))


@pytest.mark.parametrize("count", [3, 4, 6])
def test_few_samples_have_an_open_interval_and_no_false_one(count):
    """Truth 1; the interval is open where some resamples hardly vary, and 95 % intervals cover it in at least 80 % of 100 tries."""
    rng = np.random.default_rng(17)
    covered = 0
    for _ in range(100):
        times = rng.normal(size=(count, 1)) + rng.normal(size=(count, 3))
        ratio, low, high, _ = self_averaging(times, ClusterBootstrap(count, 100))
        assert 0 <= low <= high
        assert np.isfinite(ratio)
        covered += low <= 1 <= high
    assert covered >= 80


def test_samples_with_a_censored_path_are_left_out_and_counted():
    rng = np.random.default_rng(12)
    times = rng.normal(size=(400, 1)) + rng.normal(size=(400, 3))
    cut = times.copy()
    cut[:60, 1] = np.inf
    cut[60:80, 2] = -np.inf
    ratio, low, high, reason = self_averaging(cut, ClusterBootstrap(400, 4000, 0.95, 0))
    others = self_averaging(times[80:], ClusterBootstrap(320, 4000, 0.95, 0))
    assert ratio == pytest.approx(others[0], rel=1e-12)
    # other resamples of the same samples: each end of a 95 % interval varies by about 3 % of the width, and F by 1/sqrt(n)
    assert [low, high] == pytest.approx(others[1:3], abs=0.06 * (others[2] - others[1]))
    assert reason.startswith("0.2 of the samples are left out")
    cut[80, 0] = np.inf
    *numbers, reason = self_averaging(cut, ClusterBootstrap(400))
    assert np.isnan(numbers).all()
    assert "0.2 are" in reason


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        (np.zeros((60, 1)), "needs repeats of at least 2"),
        (np.tile([0.1, 0.3, 0.2, 0.7], (60, 1)), "have the same time"),
        (np.repeat(np.arange(60.0)[:, None], 2, 1), "the repeats agree in all samples but one"),
        (np.stack([np.arange(60.0), np.append(np.arange(59.0), 1.0)], 1), "the repeats agree in all samples but one"),
        (np.stack([np.arange(2.0), np.array([1.0, 0.5])], 1), "2 samples are lost within the turn times"),
    ],
)
def test_undefined_ratios_have_reasons(times, reason):
    *numbers, said = self_averaging(times, ClusterBootstrap(len(times)))
    ratio = numbers.pop(0)
    assert ratio == 0 if "same time" in reason else np.isnan(ratio)
    assert np.isnan(numbers).all()
    assert reason in said


def test_class_times_are_those_of_the_share_within_the_class():
    """share_time with every resample of the class's own starts, at a level that no share is at: the same, for 20 starts."""
    level = 0.5 - 1e-8
    outcomes, labels = _paths(13), np.arange(60) % 3
    chance = np.array([0.0, 0.3, 0.5])
    found = class_times(outcomes, labels, NU, classes=range(3), level=level, resample=RESAMPLE, chance=chance)
    for name, crossing in enumerate(found):
        share = outcomes[:, labels == name].mean(-1).T
        retention = (share - chance[name]) / (1 - chance[name])
        replicates = ClusterBootstrap(20, 400, 0.9, 3).means(retention)
        assert crossing == share_time(retention.mean(0), replicates, NU, level=level, confidence=expanded(0.9, 20))
        assert crossing.low < crossing.estimate < crossing.high
    assert class_times(outcomes, labels, NU, classes=[0], level=level, resample=RESAMPLE) == found[:1]


def test_a_class_of_few_starts_has_no_time():
    found = class_times(_paths(15)[:, :7], [0] * 3 + [1] * 4, NU, classes=[0, 1, 2], level=0.5, resample=RESAMPLE)
    assert [crossing.reason[:15] for crossing in found[::2]] == ["it has 3 starts", "it has 0 starts"]
    assert np.isnan([found[0].estimate, found[2].estimate]).all()
    assert found[1].estimate > 0


def _arrays(scores=2, labels=3):
    rows = ("score", "turn_time", "sample", "repeat")
    coords = {"score": list("ab")[:scores], "sample": np.arange(100, 160), "noise_to_signal": ("turn_time", NU)}
    memorized = xr.DataArray(np.stack([_paths(20 + i, wrong=0.02, spread=(0.7, 0.3)) for i in range(scores)]), coords, rows)
    kept = xr.DataArray(np.stack([_paths(30 + i, spread=(0.2, 0.6)) for i in range(scores)]), coords, rows)
    return memorized, kept, xr.DataArray(np.arange(60) % labels, dims="sample"), xr.DataArray([False] * scores, dims="score")


def test_the_data_set_holds_what_the_arrays_give():
    memorized, kept, label, conditional = _arrays()
    shares = np.array([0.5, 0.3, 0.2])
    found = sample_times(memorized, kept, label, shares, conditional, (0.4, 0.6), RESAMPLE)
    turned = memorized.transpose("repeat", "sample", "score", "turn_time"), kept.transpose()
    xr.testing.assert_identical(sample_times(*turned, label, shares, conditional, (0.4, 0.6), RESAMPLE), found)
    chance = shares[label.values]
    for i, score in enumerate("ab"):
        row = found.sel(score=score)
        # the retention of a sample falls through 0.6 where its share does through chance + 0.6 (1 - chance)
        for name, outcomes, level in (("memorization", memorized, 0.4), ("speciation", kept, chance + 0.6 * (1 - chance))):
            expected = analysis.sample_time(outcomes.values[i], NU, level=level)
            np.testing.assert_allclose(row[f"sample_{name}_noise_to_signal"], expected, rtol=1e-12)
        for name, outcomes, level, by_chance in (("memorization", memorized, 0.4, [0] * 3), ("speciation", kept, 0.6, shares)):
            options = {"classes": range(3), "level": level, "resample": RESAMPLE, "chance": by_chance}
            classes = class_times(outcomes.values[i], label.values, NU, **options)
            paths = analysis.path_time(outcomes.values[i], NU, chance=np.asarray(by_chance)[label.values])
            with np.errstate(divide="ignore"):
                ratio = self_averaging(np.log(paths), RESAMPLE)
            for place, (suffix, field) in enumerate((("", "estimate"), ("_low", "low"), ("_high", "high"))):
                times = row[f"{name}_noise_to_signal_by_class{suffix}"]
                np.testing.assert_array_equal(times, [getattr(crossing, field) for crossing in classes])
                assert row[f"{name}_self_averaging{suffix}"] == ratio[place]
    assert found["class"].values.tolist() == [0, 1, 2]
    assert (found.memorization_self_averaging > 1).all()
    assert (found.speciation_self_averaging < 1).all()


def test_classes_that_the_data_do_not_have_are_left_out():
    memorized, kept, label, conditional = _arrays(labels=2)
    found = sample_times(memorized, kept, 2 * label, [0.25, 0.0, 0.25, 0.5], conditional, (0.5, 0.5), RESAMPLE)
    assert found["class"].values.tolist() == [0, 2, 3]
    for name in ("memorization", "speciation"):
        times = found[f"{name}_noise_to_signal_by_class"]
        assert np.isfinite(times.sel({"class": [0, 2]})).all()
        assert np.isnan(times.sel({"class": 3})).all()
        assert times.attrs["reason"].count("class 3: it has 0 starts: needs at least 4") == 2


@pytest.mark.parametrize(
    ("shares", "conditional", "reason"),
    [
        (None, [False, False], "the data set has no labels"),
        ([1.0], [False, False], "the data set has a single class"),
        ([0.5, 0.25, 0.25], [False, True], "the score is given the class of the start, which it cannot forget"),
    ],
)
def test_undefined_speciation_has_a_reason(shares, conditional, reason):
    memorized, kept, label, _ = _arrays(labels=1 if shares == [1.0] else 3)
    found = sample_times(memorized, kept, label, shares, xr.DataArray(conditional, dims="score"), (0.5, 0.5), RESAMPLE)
    defined = [score for score, given in zip("ab", conditional, strict=True) if any(conditional) and not given]
    speciation = [name for name in found if "speciation" in name]
    assert len(speciation) == 7
    for name in speciation:
        assert np.isfinite(found[name].sel(score=defined)).all()
        assert np.isnan(found[name].drop_sel(score=defined)).all()
        assert reasons_of(found[name]) == {score: reason for score in "ab" if score not in defined}
    assert np.isfinite(found.sample_memorization_noise_to_signal).all()
    assert np.isfinite(found.memorization_self_averaging).all()
    by_class = found.memorization_noise_to_signal_by_class
    if shares is None:
        assert found["class"].values.tolist() == [-1]
        assert np.isnan(by_class).all()
        assert reasons_of(by_class) == dict.fromkeys("ab", "the data set has no labels")
    else:
        assert np.isfinite(by_class).all()


def test_what_is_undefined_says_why_and_everything_what_it_is():
    """One repeat, and a class that never loses its sample: NaN with a reason there, none where all is well."""
    memorized, kept, label, conditional = _arrays()
    memorized, kept = memorized.isel(repeat=[0]), kept.isel(repeat=[0])
    memorized.loc[{"score": "b", "sample": memorized.sample[label.values == 1]}] = True
    found = sample_times(memorized, kept, label, [0.4, 0.3, 0.3], conditional, (0.5, 0.5), RESAMPLE)
    for values in found.data_vars.values():
        assert set(values.attrs) >= {"long_name", "units", "comment"}
        assert not np.isnan(values).any() or values.attrs["reason"]
    assert reasons_of(found.memorization_self_averaging) == dict.fromkeys("ab", "needs repeats of at least 2")
    times = found.memorization_noise_to_signal_by_class
    assert np.argwhere(np.isnan(times.values)).tolist() == [[1, 1]]
    assert "class 1: the curve stays above 0.5 up to the largest turn time" in reasons_of(times)["b"]
    censored = found.sample_memorization_noise_to_signal.sel(score="b")[label.values == 1]
    assert np.isinf(censored).all()
    assert "infinite where it is not at the largest" in censored.attrs["comment"]
