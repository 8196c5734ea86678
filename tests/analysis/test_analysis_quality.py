"""Sample quality: distances against closed forms and direct sums, no bias, errors that cover, clusters, pairs, refusals."""

import numpy as np
import pytest
import scipy.linalg
import xarray as xr
from scipy.stats import binomtest, norm
from sklearn.decomposition import PCA

from gaussian_test import analysis
from gaussian_test.analysis.moments.moments import fit_moments
from gaussian_test.analysis.observables.quality.distances import Distance, Population, frechet, frechet_between, null_distance
from gaussian_test.analysis.observables.quality.quality import kid_between, principal_features, sample_quality, start_sensitivity
from gaussian_test.analysis.statistics.bootstrap import ClusterBootstrap

ONE_SAMPLE = [frechet, analysis.kid]
PAIRED = [frechet_between, kid_between]
DIMS = ("score", "turn_time", "sample", "repeat", "feature")


def _skewed(rng, count, features):
    """A ground truth with unequal variances, correlated and skewed."""
    mixing = np.linalg.qr(rng.normal(size=(features, features)))[0] * np.arange(1, features + 1) ** -0.7
    return (rng.exponential(size=(count, features)) - 1) @ mixing.T


def _draws(rng, truth, *shape):
    return truth[rng.integers(len(truth), size=shape)]


def _frechet_by_matrices(x, y):
    """The textbook formula, by scipy's square roots of matrices."""
    x, y = (one.reshape(-1, one.shape[-1]) for one in (x, y))
    shift = x.mean(0) - y.mean(0)
    a, b = np.cov(x.T, bias=True), np.cov(y.T, bias=True)
    root = scipy.linalg.sqrtm(a)
    return shift @ shift + np.trace(a + b - 2 * scipy.linalg.sqrtm(root @ b @ root).real)


def _kernel(a, b):
    return (a @ b / len(a) + 1) ** 3


# the distances themselves


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.7, 1.0), (0.0, 1.5), (-0.4, 0.6)])
def test_frechet_of_a_shifted_and_scaled_population_is_its_closed_form(shift, scale):
    """|shift|^2 F + (scale - 1)^2 tr(C), exact for the plug-in value of the whole population moved."""
    truth = _skewed(np.random.default_rng(0), 300, 6)
    moved = truth.mean(0) + shift + scale * (truth - truth.mean(0))
    expected = 6 * shift**2 + (scale - 1) ** 2 * truth.var(0).sum()
    assert frechet(moved[:, None], truth).plug_in == pytest.approx(expected, abs=1e-11)
    assert frechet_between(moved[:, None], truth[:, None]).plug_in == pytest.approx(expected, abs=1e-11)


def test_plug_in_frechet_is_the_textbook_formula_for_covariances_that_do_not_commute():
    rng = np.random.default_rng(1)
    truth, x, y = _skewed(rng, 400, 5), rng.normal(size=(50, 3, 5)) @ rng.normal(size=(5, 5)), rng.normal(size=(50, 3, 5))
    for distance, other in ((frechet, truth), (frechet_between, y)):
        assert distance(x, other).plug_in == pytest.approx(_frechet_by_matrices(x, other), rel=1e-9)


def test_kid_is_the_sum_over_pairs_of_different_starts():
    """As libraries have it for the end points; over the truth the diagonal stays, for it is the population and no sample."""
    rng = np.random.default_rng(2)
    truth, x, gamma, coef0 = rng.normal(size=(20, 3)), rng.normal(size=(6, 2, 3)) + 0.3, 0.3, 0.5
    starts, rows = np.repeat(np.arange(6), 2), x.reshape(-1, 3)
    kxx, kyy, kxy = ((gamma * a @ b.T + coef0) ** 2 for a, b in ((rows, rows), (truth, truth), (rows, truth)))
    distance = analysis.kid(x, truth, degree=2, gamma=gamma, coef0=coef0)
    inside = kxx[starts[:, None] != starts].mean()
    assert distance.estimate == pytest.approx(inside + kyy.mean() - 2 * kxy.mean(), rel=1e-11)
    assert distance.plug_in == pytest.approx(kxx.mean() + kyy.mean() - 2 * kxy.mean(), rel=1e-11)


def test_kid_between_leaves_out_partners():
    x, y = np.random.default_rng(3).normal(size=(2, 6, 2, 3))
    pairs = [(i, j, r, s) for i in range(6) for j in range(6) if i != j for r in range(2) for s in range(2)]
    terms = [_kernel(x[i, r], x[j, s]) + _kernel(y[i, r], y[j, s]) - 2 * _kernel(x[i, r], y[j, s]) for i, j, r, s in pairs]
    assert kid_between(x, y).estimate == pytest.approx(np.mean(terms), rel=1e-12)


# invariances


def _assert_same(a, b, values=slice(None)):
    for name in ("estimate", "standard_error", "null_error", "slope", "plug_in"):
        assert getattr(a, name) == pytest.approx(getattr(b, name), rel=1e-6), name
    np.testing.assert_allclose(a.values, b.values[values], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("distance", [*ONE_SAMPLE, *PAIRED])
def test_rotations_orders_and_equal_repeats_change_nothing(distance):
    rng = np.random.default_rng(6)
    truth, rotation, order = _skewed(rng, 200, 4), np.linalg.qr(rng.normal(size=(4, 4)))[0], rng.permutation(30)
    x, paired = _draws(rng, truth, 30, 3) + 0.2, distance in PAIRED
    y = 1.3 * _draws(rng, truth, 30, 3) if paired else truth
    found, few = distance(x, y), y[:, :1] if paired else y
    _assert_same(distance(x @ rotation, y @ rotation), found)
    if not paired:
        _assert_same(distance(x[order][:, [2, 0, 1]], y), found, order)
    _assert_same(distance(np.repeat(x[:, :1], 3, axis=1), np.repeat(few, 3, axis=1) if paired else y), distance(x[:, :1], few))
    if distance in (frechet, frechet_between):
        _assert_same(distance(x + 50, y + 50), found)
    if paired:
        _assert_same(distance(y, x), found)
        itself = distance(x, x)
        assert (abs(itself.estimate), itself.standard_error, itself.plug_in) == pytest.approx((0, 0, 0), abs=1e-7)


@pytest.mark.parametrize("distance", ONE_SAMPLE)
def test_independent_repeats_are_as_good_as_more_starts(distance):
    """4 repeats halve the error far from the truth and quarter it at the truth (second order), to 25 %, 20 runs averaged."""
    rng = np.random.default_rng(12)
    population = Population(_skewed(rng, 500, 3))
    for shift, ratio, name in ((1.0, 2, "standard_error"), (0.0, 4, "null_error")):
        few, many = (
            np.mean([getattr(distance(_draws(rng, population.features, 100, r) + shift, population), name) for _ in range(20)])
            for r in (1, 4)
        )
        assert few / many == pytest.approx(ratio, rel=0.25)


# pseudo-values


@pytest.mark.parametrize("repeats", [1, 3])
def test_frechet_has_the_bias_and_the_values_of_leaving_one_start_or_pair_out(repeats):
    """The bias is that of the jackknife, over the truth times the calibration, which is that of single draws at most."""
    rng = np.random.default_rng(13)
    population = Population(_skewed(rng, 300, 6))
    x = 1.2 * _draws(rng, population.features, 40, repeats) + 0.3 * rng.normal(size=(40, 1, 6))
    y = 1.3 * (0.8 * x + 0.6 * rng.normal(size=x.shape)) + 0.5
    for found, others in ((frechet(x, population), None), (frechet_between(x, y), y)):
        rest = [population.features if others is None else np.delete(others, i, 0) for i in range(40)]
        left_out = np.array([_frechet_by_matrices(np.delete(x, i, 0), rest[i]) for i in range(40)])
        ratio = (found.plug_in - found.estimate) / (39 * (left_out.mean() - found.plug_in))
        if others is not None:
            assert ratio == pytest.approx(1, rel=0.15)
        elif repeats == 1:
            assert ratio == pytest.approx(population.calibration(40).bias, rel=1e-6)
        else:
            assert min(population.calibration(40).bias, 1) < ratio < max(population.calibration(40).bias, 1)
        pseudo = 40 * found.plug_in - 39 * left_out
        # the bias that is taken off varies as well, by 1/n of the values
        assert np.corrcoef(found.values, pseudo)[0, 1] > 0.99
        assert np.polyfit(pseudo, found.values, 1)[0] == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("scale", [0.5, 0.7, 1.5])
def test_values_follow_the_corrected_estimate_when_one_start_is_left_out(scale):
    """Its bias varies, too: without that the slope would be off by 10 % for a third as many features as starts."""
    rng = np.random.default_rng(38)
    population = Population(rng.normal(size=(500, 20)))
    x = scale * _draws(rng, population.features, 60, 1)
    found = frechet(x, population)
    pseudo = 60 * found.estimate - 59 * np.array([frechet(np.delete(x, i, 0), population).estimate for i in range(60)])
    assert np.polyfit(found.values, pseudo, 1)[0] == pytest.approx(1, abs=0.04)
    assert np.corrcoef(found.values, pseudo)[0, 1] > 0.98


def test_kid_has_the_values_of_leaving_one_start_out():
    """Those of a U-statistic, up to (n - 1)/(n - 2)."""
    rng = np.random.default_rng(15)
    truth, x, y = rng.normal(size=(50, 4)), rng.normal(size=(12, 2, 4)) * 1.3, rng.normal(size=(12, 2, 4))
    for found, left_out in (
        (analysis.kid(x, truth), [analysis.kid(np.delete(x, i, 0), truth).estimate for i in range(12)]),
        (kid_between(x, y), [kid_between(np.delete(x, i, 0), np.delete(y, i, 0)).estimate for i in range(12)]),
    ):
        pseudo = 12 * found.estimate - 11 * np.array(left_out)
        np.testing.assert_allclose((found.values - found.estimate) * 11 / 10, pseudo - found.estimate, rtol=1e-9, atol=1e-9)
        assert found.values.mean() == pytest.approx(found.estimate, rel=1e-10)


# no bias, and errors that cover


def _repeated(distance, truth, n, repetitions, seed):
    rng = np.random.default_rng(seed)
    population = Population(truth)
    return [distance(_draws(rng, truth, n, 1), population) for _ in range(repetitions)]


def _covered(found, truth=0.0):
    return sum(low <= truth <= high for low, high in (one.interval(1.96) for one in found))


@pytest.mark.parametrize(("n", "features"), [(100, 8), (20, 30)])
@pytest.mark.parametrize("distance", ONE_SAMPLE)
def test_draws_from_the_truth_are_at_distance_zero_on_average(distance, n, features):
    """Also for fewer draws than features; the plug-in value is not. The calibration's own 200 draws have an error, too.

    The stated error is the spread, which 200 estimates know to 4 standard errors of 5 to 6 %.
    """
    found = _repeated(distance, _skewed(np.random.default_rng(16), 1000, features), n, 200, seed=17)
    estimates = np.array([one.estimate for one in found])
    assert abs(estimates.mean()) < 4 * np.sqrt(1 / 200 + 1 / 200) * estimates.std()
    assert np.mean([one.plug_in for one in found]) > 10 * estimates.std() / np.sqrt(200)
    assert np.mean([one.null_error for one in found]) == pytest.approx(estimates.std(), rel=0.25)
    assert all(one.standard_error >= one.null_error for one in found)


@pytest.mark.parametrize("distance", PAIRED)
@pytest.mark.parametrize(("share", "pairs", "features"), [(0.0, 80, 5), (0.9, 150, 14)])
def test_paired_sets_of_one_law_are_at_distance_zero_and_their_intervals_cover(distance, share, pairs, features):
    """The share of the pairs is equal (common random numbers): unbiased all the same, covered 90 to 99.5 %, errors to 25 %."""
    rng = np.random.default_rng(22)
    found = []
    for _ in range(200):
        x, y = rng.normal(size=(2, pairs, 1, features))
        found.append(distance(x, np.where(rng.random((pairs, 1, 1)) < share, x, y)))
    estimates = np.array([one.estimate for one in found])
    assert abs(estimates.mean()) < 4 * estimates.std(ddof=1) / np.sqrt(200)
    assert np.mean([one.null_error for one in found]) == pytest.approx(estimates.std(), rel=0.25)
    assert 180 <= _covered(found) <= 199


@pytest.mark.parametrize("distance", PAIRED)
def test_paired_intervals_cover_a_distance(distance):
    """Pairs drawn from a population of pairs, whose distance is known: 200 repetitions, 90 to 99 %."""
    rng = np.random.default_rng(23)
    common, own, other = rng.normal(size=(3, 800, 1, 4))
    x, y = 0.8 * common + 0.6 * own + 0.25, 0.8 * common + 0.6 * other
    expected = distance(x, y).plug_in
    found = [distance(x[pick], y[pick]) for pick in rng.integers(800, size=(200, 80))]
    assert 180 <= _covered(found, expected) <= 198


@pytest.mark.parametrize("estimate", [0.3, -0.5])
def test_the_edges_of_an_interval_are_where_its_variance_says(estimate):
    """An infinite quantile, as few starts can have it, leaves open what varies and nothing else."""
    distance = Distance(estimate, 0.2, np.ones(2), 0.5, 0.1, 0.4)
    for quantile in (1.0, 1.96, 4.0):
        low, high = distance.interval(quantile)
        assert low < distance.estimate < high
        for edge in (low, high):
            variance = distance.null_error**2 + distance.slope * max(edge, 0)
            assert (edge - distance.estimate) ** 2 == pytest.approx(quantile**2 * variance, rel=1e-12)
    assert distance.interval(np.inf) == (-np.inf, np.inf)
    assert Distance(estimate, 0.0, np.ones(2), 0.3, 0.0, 0.0).interval(np.inf) == (estimate, estimate)


# starts without replacement


@pytest.mark.parametrize("distance", ONE_SAMPLE)
def test_the_whole_set_is_the_whole_set(distance):
    truth = _skewed(np.random.default_rng(26), 150, 5)
    found = distance(truth[:, None], truth, starts=np.arange(150))
    assert (found.estimate, found.standard_error) == pytest.approx((0, 0), abs=1e-7)
    independent = distance(truth[:, None], truth)
    assert independent.estimate < -independent.null_error


@pytest.mark.parametrize("distance", ONE_SAMPLE)
def test_starts_without_replacement_leave_no_bias(distance):
    """End points are their starts or draws from the set: zero within 4 standard errors, in 90 % of the intervals at least."""
    rng = np.random.default_rng(27)
    population = Population(_skewed(rng, 200, 8))
    found = []
    for _ in range(200):
        starts = rng.permutation(200)[:100]
        ends = np.where(rng.random(100) < 0.6, starts, rng.integers(200, size=100))
        found.append(distance(population.features[ends][:, None], population, starts=starts))
    estimates = np.array([one.estimate for one in found])
    assert abs(estimates.mean()) < 4 * np.sqrt(2 / 200) * max(estimates.std(), np.mean([one.null_error for one in found]))
    assert sum(low <= 0 <= high for low, high in (one.interval() for one in found)) >= 180


# the floor, features, curves


def test_how_much_is_held_at_once_changes_nothing(monkeypatch):
    rng = np.random.default_rng(39)
    truth, x, y = rng.normal(size=(50, 3)), *rng.normal(size=(2, 20, 2, 3))
    cases = [(distance, other) for distances, other in ((ONE_SAMPLE, truth), (PAIRED, y)) for distance in distances]
    whole = [distance(x, other) for distance, other in cases]
    monkeypatch.setattr("gaussian_test.analysis.observables.quality.numerics.BLOCK_ELEMENTS", 700)
    for before, (distance, other) in zip(whole, cases, strict=True):
        _assert_same(distance(x, other), before)


def test_the_floor_is_what_perfect_draws_give():
    rng = np.random.default_rng(28)
    population = Population(_skewed(rng, 500, 5))
    floor = null_distance(population, 60, draws=400, seed=1)
    plug_in = np.array([_frechet_by_matrices(_draws(rng, population.features, 60), population.features) for _ in range(400)])
    assert floor.mean == pytest.approx(plug_in.mean(), abs=4 * plug_in.std() * np.sqrt(2 / 400))
    assert binomtest(int((plug_in > floor.high).sum()), 400, 0.05).pvalue > 1e-4
    assert null_distance(population, 240).mean == pytest.approx(floor.mean / 4, rel=0.25)


def test_principal_features_are_scikit_learns():
    x = _skewed(np.random.default_rng(29), 100, 6) + 3
    ours = principal_features(fit_moments(x), 4)(x.astype(np.float32))
    theirs = PCA(4).fit_transform(x)
    assert ours.dtype == np.float64
    np.testing.assert_allclose(abs(ours), abs(theirs), atol=1e-5)
    pixels = principal_features(fit_moments(x), None)(x.astype(np.float32))
    np.testing.assert_array_equal(pixels, x.astype(np.float32).astype(np.float64))


def _ends(rng, samples=40, turns=3):
    """End points that move away from the truth with the turn time."""
    shifts = np.linspace(0, 1, turns)[:, None, None, None]
    return xr.DataArray(
        rng.normal(size=(2, turns, samples, 2, 4)) + shifts,
        dims=DIMS,
        coords={"score": ["empirical", "gaussian"], "turn_time": np.arange(1.0, turns + 1), "sample": rng.permutation(samples)},
    )


def _assert_curves(result, direct, resample, names):
    """Curves are the distances one by one; the edges are their intervals at the largest deviation's quantile."""
    for name, distance in names.items():
        for score in range(2):
            found = [distance(score, turn) for turn in range(3)]
            band = resample.band(np.array([one.values for one in found]).T)
            quantile = ((band.high - band.estimate) / band.standard_error)[0]
            assert quantile > norm.ppf(0.975)
            row = result.isel(score=score)
            np.testing.assert_allclose(row[name], [one.estimate for one in found], rtol=1e-10)
            np.testing.assert_allclose(row[f"{name}_se"], [one.standard_error for one in found], rtol=1e-10)
            np.testing.assert_allclose(row[f"{name}_low"], [one.interval(quantile)[0] for one in found], rtol=1e-8)
            np.testing.assert_allclose(row[f"{name}_high"], [one.interval(quantile)[1] for one in found], rtol=1e-8)
            np.testing.assert_allclose(row[f"sample_{name}"], [one.values for one in found], rtol=1e-10)
            if name.endswith("frechet"):
                np.testing.assert_allclose(row[f"{name}_plug_in"], [one.plug_in for one in found], rtol=1e-10)
        assert result[f"sample_{name}"].dims == ("score", "turn_time", "sample")
    xr.testing.assert_equal(result["sample"], direct["sample"])


def test_quality_curves_are_the_distances_one_by_one():
    rng = np.random.default_rng(30)
    features, truth, resample = _ends(rng), rng.normal(size=(200, 4)), ClusterBootstrap(40, 500, 0.95, 0)
    truth = xr.DataArray(truth, dims=("sample", "feature"))
    for starts in (None, features["sample"]):
        names = {
            distance.__name__: lambda score, turn, of=distance, starts=starts: of(
                features.values[score, turn], truth, starts=starts
            )
            for distance in ONE_SAMPLE
        }
        result = sample_quality(features.transpose(*DIMS[::-1]), truth, resample, starts=starts)
        _assert_curves(result, features, resample, names)


def test_sensitivity_curves_are_the_paired_distances_one_by_one():
    rng = np.random.default_rng(31)
    features, resample = _ends(rng), ClusterBootstrap(40, 500, 0.95, 0)
    other = features + 0.1 * rng.normal(size=features.shape)
    result = start_sensitivity(features, other.transpose(*DIMS[::-1]), resample)
    names = {
        "start_frechet": lambda score, turn: frechet_between(features.values[score, turn], other.values[score, turn]),
        "start_kid": lambda score, turn: kid_between(features.values[score, turn], other.values[score, turn]),
    }
    _assert_curves(result, features, resample, names)


# singular cases and refusals


def test_a_feature_that_is_constant_in_the_truth_counts_by_its_spread_in_the_end_points():
    """A direction without variance in the truth adds the end points' second moment there, one without in these the truth's."""
    rng = np.random.default_rng(34)
    truth, x, extra = _skewed(rng, 200, 3), rng.normal(size=(40, 1, 3)), rng.normal(size=(40, 1, 1))
    plain = frechet(x, truth).plug_in
    wider = frechet(np.concatenate([x, extra], 2), np.pad(truth, ((0, 0), (0, 1)))).plug_in
    assert wider == pytest.approx(plain + (extra**2).mean(), rel=1e-9)
    y = rng.normal(size=(200, 1)) * 2
    other = frechet(np.pad(x, ((0, 0), (0, 0), (0, 1))), np.concatenate([truth, y - y.mean()], 1)).plug_in
    assert other > plain
    assert frechet(np.zeros((40, 1, 3)) + truth.mean(0), truth).plug_in == pytest.approx(truth.var(0).sum(), rel=1e-9)


GOOD, TRUTH = np.random.default_rng(35).normal(size=(8, 1, 2)), np.random.default_rng(36).normal(size=(20, 2))
CURVES = xr.DataArray(GOOD[None, None], dims=DIMS)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: frechet(GOOD[:, 0], TRUTH), r"shape \(8, 2\).*give \(samples, repeats, 2 features"),
        (lambda: analysis.kid(GOOD, TRUTH[:, :1]), r"shape \(8, 1, 2\).*1 features of the ground truth"),
        (lambda: frechet(GOOD[:3], TRUTH), r"3 starts are too few.*at least 4"),
        (lambda: analysis.kid(np.where(GOOD > 1, np.nan, GOOD), TRUTH), r"NaN or infinite.*remove or repair"),
        (lambda: Population(TRUTH[:, 0]), r"shape \(20,\).*give \(samples, features\)"),
        (lambda: Population(np.where(TRUTH > 1, np.inf, TRUTH)), r"NaN or infinite"),
        (lambda: Population(np.full((5, 2), 0.1)), r"all the same.*that vary"),
        (lambda: analysis.kid(GOOD, TRUTH, degree=0), r"degree 0.*at least 1"),
        (lambda: frechet_between(GOOD, GOOD[:6]), r"\(8, 1, 2\) and \(6, 1, 2\) cannot be paired"),
        (lambda: kid_between(GOOD, GOOD[:6]), r"cannot be paired: give two runs of the same plan"),
        (lambda: frechet(GOOD, TRUTH, starts=[0] * 8), r"not 8 different samples of 20"),
        (lambda: analysis.kid(GOOD, TRUTH, starts=range(13, 21)), r"not 8 different samples of 20"),
        (lambda: frechet(GOOD, TRUTH, starts=[1, 2]), r"give the index of each"),
        (lambda: null_distance(TRUTH, 3), r"3 draws are too few"),
        (lambda: principal_features(fit_moments(TRUTH), 3), r"3 components are asked of 2 modes"),
        (lambda: principal_features(fit_moments(TRUTH), 0), r"give a number from 1 to 2"),
        (lambda: sample_quality(CURVES.squeeze("repeat"), TRUTH, ClusterBootstrap(8)), r"dimensions.*give them over"),
        (lambda: sample_quality(CURVES, TRUTH, ClusterBootstrap(9)), r"9 samples are resampled and 8 have end points"),
        (lambda: start_sensitivity(CURVES, CURVES.isel(feature=[0]), ClusterBootstrap(8)), r"cannot be paired"),
    ],
)
def test_what_cannot_be_computed_is_refused_in_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
