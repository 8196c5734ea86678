"""Affinity: reference scores, the share that they explain, and the best affine map, on scores whose truth is known."""

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import ortho_group
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import GroupKFold, LeaveOneGroupOut, cross_val_predict

from gaussian_test.analysis.moments.gaussian_score import GaussianScore, class_mixture, isotropic_score
from gaussian_test.analysis.moments.moments import fit_moments
from gaussian_test.analysis.observables.affinity.regression import affine_features, best_affine
from gaussian_test.analysis.observables.affinity.scores import affinity, best_affine_gap, explained_share
from gaussian_test.analysis.statistics.bootstrap import ClusterBootstrap
from gaussian_test.analysis.statistics.curves import ratio_of_means, with_bands
from gaussian_test.sampler import EmpiricalScore, MixtureScore, OrnsteinUhlenbeck, VarianceExploding

ROWS = ("score", "turn_time", "sample", "repeat")
VE = VarianceExploding()


def _skewed(n, d, seed=0):
    """Draw samples that are far from Gaussian: few exponential factors, mixed."""
    rng = np.random.default_rng(seed)
    return rng.exponential(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)


def _gaussian(x, process=VE):
    return GaussianScore.fit(x, process=process, dtype=torch.float64)


def _noised(x, n, time, process=VE, seed=0):
    rng = np.random.default_rng(seed)
    start = x[rng.integers(len(x), size=n)]
    return start, process.noised(torch.from_numpy(start), time, torch.from_numpy(rng.normal(size=start.shape)))


def _rows(values):
    """Return arrays (turn_time, sample, repeat) of one score as a table."""
    return xr.DataArray(np.asarray(values)[None], dims=ROWS)


def _within(values, expected=0.0, errors=4.0):
    """Whether the mean over samples is the expected one within standard errors."""
    error = values.std(ddof=1) / np.sqrt(len(values))
    return abs(values.mean() - expected) < errors * error


@pytest.mark.parametrize("shape", [(60, 4), (5, 12)])
def test_isotropic_score_is_the_gaussian_of_equal_variances(shape):
    """From the dense covariance tr(Sigma)/d I, and the same in any rotated frame; also with fewer samples than features."""
    x = _skewed(*shape)
    d = shape[1]
    moments = fit_moments(x)
    rotation = ortho_group.rvs(d, random_state=1)
    score = isotropic_score(moments, process=OrnsteinUhlenbeck(), dtype=torch.float64)
    dense = np.eye(d) * np.trace(np.cov(x.T, bias=True)) / d
    expected = GaussianScore.from_moments(x.mean(0), dense, process=OrnsteinUhlenbeck(), dtype=torch.float64)
    rotated = isotropic_score(fit_moments(x @ rotation), process=OrnsteinUhlenbeck(), dtype=torch.float64)
    state = torch.from_numpy(3 * _skewed(7, d, 2))
    torch.testing.assert_close(score.denoise(state, 0.4), expected.denoise(state, 0.4), rtol=1e-10, atol=1e-10)
    turned = rotated.denoise(state @ torch.from_numpy(rotation), 0.4)
    torch.testing.assert_close(turned, score.denoise(state, 0.4) @ torch.from_numpy(rotation), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "counts", [(40, 90), (4, 7), (3, 60), (60, 3, 2), (5, 9, 30)], ids=["full", "low", "mixed", "mixed three", "at the edge"]
)
def test_class_mixture_is_the_mixture_of_the_classes_moments(counts):
    """Dense covariances of the classes make the same responsibilities and denoiser, whatever the rank of each class."""
    d = 9
    x = np.concatenate([_skewed(n, d, seed) + 2 * seed for seed, n in enumerate(counts)]).reshape(-1, 1, 3, 3)
    labels = np.repeat(2 * np.arange(len(counts)), counts)  # classes 0, 2, 4
    score = class_mixture(x, labels, process=OrnsteinUhlenbeck(), dtype=torch.float64)
    members = [x[labels == label].reshape(-1, d) for label in np.unique(labels)]
    expected = MixtureScore.from_moments(
        counts,
        np.array([m.mean(0).reshape(1, 3, 3) for m in members]),
        np.array([np.cov(m.T, bias=True) for m in members]),
        labels=np.unique(labels),
        process=OrnsteinUhlenbeck(),
        dtype=torch.float64,
    )
    # between two classes, and off the span of each
    rng = np.random.default_rng(3)
    state = torch.from_numpy(
        (x[rng.integers(len(x), size=12)] + x[rng.integers(len(x), size=12)]) / 2 + rng.normal(size=(12, 1, 3, 3))
    )
    for time in (0.3, 2.0, 4.0):
        shares = expected.responsibilities(state, time)
        torch.testing.assert_close(score.responsibilities(state, time), shares, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(score.denoise(state, time), expected.denoise(state, time), rtol=1e-7, atol=1e-7)
        label = torch.full((12,), 2)
        torch.testing.assert_close(score.denoise(state, time, label), expected.denoise(state, time, label), rtol=1e-7, atol=1e-7)
    assert shares.amax(1).min() < 0.99


def test_class_mixture_of_one_class_is_the_gaussian_score():
    x = _skewed(30, 4)
    state = torch.from_numpy(_skewed(6, 4, 1))
    torch.testing.assert_close(
        class_mixture(x, np.zeros(30, int), process=VE, dtype=torch.float64).denoise(state, 1.0), _gaussian(x).denoise(state, 1.0)
    )


@settings(deadline=None, max_examples=50)
@given(arrays(float, (2, 9, 3), elements=st.floats(0.1, 10)), st.floats(0.01, 100))
def test_share_explained_is_the_ratio_of_the_sums(values, unit):
    """Whatever the unit; and its pseudo-values are those of the jackknife to the second order in the influence of one sample."""
    distance, square = values
    pseudo = explained_share(unit * square, unit * distance)
    ratio = distance.sum(0) / square.sum(0)
    np.testing.assert_allclose(pseudo.mean(0), 1 - ratio, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(pseudo, explained_share(square, distance), rtol=1e-7, atol=1e-7)
    left_out = 1 - (distance.sum(0) - distance) / (square.sum(0) - square)
    jackknife = 9 * (1 - ratio) - 8 * left_out
    influence = square / square.mean(0)
    second = np.abs(pseudo - (1 - ratio)) * np.abs(influence - 1) / (9 - influence)
    np.testing.assert_array_less(np.abs(jackknife - pseudo), second * (1 + 1e-6) + 1e-8)


def test_ratio_of_means_is_undefined_where_nothing_is_below():
    assert np.isnan(ratio_of_means(np.ones((4, 2)), np.array([[0.0, 1.0]] * 4))[:, 0]).all()
    assert (ratio_of_means(np.ones((4, 2)), np.array([[0.0, 1.0]] * 4))[:, 1] == 1).all()


@pytest.mark.parametrize(("process", "time"), [(VE, 0.7), (OrnsteinUhlenbeck(), 0.5)])
def test_share_that_an_isotropic_score_explains_of_the_gaussian_one(process, time):
    r"""In closed form for any data: 1 - sum v (1/v - 1/u)^2 / sum 1/v, v = alpha^2 lambda + sigma^2, u its mean over features.

    Scores differ by alpha/sigma^2 times their denoisers.
    """
    x = _skewed(5, 8)  # four directions of eight
    moments = fit_moments(x)
    gaussian, isotropic = _gaussian(x, process), isotropic_score(moments, process=process, dtype=torch.float64)
    _, state = _noised(x, 20000, time, process)
    a, b = gaussian(state, time), isotropic(state, time)
    alpha, variance = float(process.alpha(time)), float(process.sigma(time)) ** 2
    gap = (gaussian.denoise(state, time) - isotropic.denoise(state, time)) * alpha / variance
    torch.testing.assert_close(a - b, gap, rtol=1e-9, atol=1e-9)
    v = alpha**2 * np.append(moments.eigenvalues, np.zeros(4)) + variance
    expected = 1 - (v * (1 / v - 1 / v.mean()) ** 2).sum() / (1 / v).sum()
    pseudo = explained_share(a.square().sum(1).numpy()[:, None], gap.square().sum(1).numpy()[:, None])
    assert _within(pseudo[:, 0], expected)
    assert pseudo.std() / np.sqrt(20000) < 0.02 * abs(1 - expected)


@pytest.mark.parametrize("kind", ["empirical", "mixture"])
def test_what_the_gaussian_leaves_of_an_exact_score_is_the_excess_of_its_norm(kind):
    """Orthogonality: E|s - s_G|^2 = E|s|^2 - E|s_G|^2, a paired difference within 4 standard errors of zero."""
    x = _skewed(40, 3)
    if kind == "empirical":
        score = EmpiricalScore(torch.from_numpy(x))
        gaussian = _gaussian(x)
        start = x[np.random.default_rng(1).integers(40, size=20000)]
    else:
        labels = (x[:, 0] > x[:, 0].mean()).astype(int)
        score = class_mixture(x, labels, process=VE, dtype=torch.float64)
        gaussian = _gaussian(x)  # the mixture of the classes' moments has the moments of the whole
        rng = np.random.default_rng(1)
        component = labels[rng.integers(40, size=20000)]
        draws = score.components.prior(0, torch.from_numpy(rng.normal(size=(20000, 3))))
        other = score.components.prior(1, torch.from_numpy(rng.normal(size=(20000, 3))))
        start = torch.where(torch.from_numpy(component == 0)[:, None], draws, other).numpy()
    state = torch.from_numpy(start + 0.8 * np.random.default_rng(2).normal(size=start.shape))
    s, g = score(state, 0.8).numpy(), gaussian(state, 0.8).numpy()
    left = ((s - g) ** 2).sum(1)
    assert _within(left - (s**2).sum(1) + (g**2).sum(1))
    assert left.mean() > 0.05 * (s**2).sum(1).mean()


def _isotropic_table(n, repeats, rng, x, moments, times):
    """Return |s|^2, |s - s_iso|^2 and |D - D_iso|^2/tr(Sigma) of the Gaussian score, the same noise at all times."""
    gaussian, isotropic = (
        GaussianScore.from_moments(moments, dtype=torch.float64),
        isotropic_score(moments, process=VE, dtype=torch.float64),
    )
    start = x[rng.integers(len(x), size=n)]
    noise = rng.normal(size=(n, repeats, x.shape[1]))
    columns = []
    for time in times:
        state = torch.from_numpy((start[:, None] + time * noise).reshape(n * repeats, -1))
        s, difference = gaussian(state, time), gaussian(state, time) - isotropic(state, time)
        columns.append([s.square().sum(1), difference.square().sum(1), time**4 * difference.square().sum(1) / moments.trace])
    return [_rows(values) for values in np.array(columns).reshape(len(times), 3, n, repeats).swapaxes(0, 1)]


def test_bands_cover_the_closed_forms():
    """At a nominal 95 %, 200 bands over four times (80 starts, two repeats) cover the whole truth 90 to 99 % of the time."""
    x = _skewed(200, 3)
    moments, times = fit_moments(x), np.array([0.3, 1.0, 3.0, 10.0])
    v = moments.eigenvalues + times[:, None] ** 2
    square = v * (1 / v - 1 / v.mean(1, keepdims=True)) ** 2
    truth = {"score_explained": 1 - square.sum(1) / (1 / v).sum(1), "denoiser_gap": times**4 * square.sum(1) / moments.trace}
    rng = np.random.default_rng(0)
    covered = dict.fromkeys(truth, 0)
    for seed in range(200):
        s, distance, gap = _isotropic_table(80, 2, rng, x, moments, times)
        result = affinity(s, distance.expand_dims("reference", 1), gap, ClusterBootstrap(80, 300, 0.95, seed))
        for name, values in truth.items():
            low, high = result[f"{name}_low"].values, result[f"{name}_high"].values
            covered[name] += bool(((low <= values) & (values <= high)).all())
    for name, count in covered.items():
        assert 180 <= count <= 198, name


def test_a_score_that_is_its_reference_is_explained_exactly():
    """One with zero error and a band of no width, beside a reference that explains less, and no gap to the Gaussian."""
    x = _skewed(50, 3)
    square, distance, gap = _isotropic_table(30, 2, np.random.default_rng(0), x, fit_moments(x), [0.5, 2.0])
    both = xr.concat([0 * distance, distance], dim="reference").assign_coords(reference=["gaussian", "isotropic"])
    result = affinity(square, both, 0 * gap, ClusterBootstrap(30, 200))
    own = result.sel(reference="gaussian")
    assert (own.score_explained == 1).all()
    assert (own.score_explained_low == 1).all()
    assert (own.score_explained_high == 1).all()
    assert (own.score_explained_se == 0).all()
    assert (result.denoiser_gap == 0).all()
    other = result.sel(reference="isotropic")
    assert (other.score_explained_low < other.score_explained).all()
    assert (other.score_explained < 1).all()
    assert result.score_explained.dims == ("score", "reference", "turn_time")
    assert result.denoiser_gap_high.dims == ("score", "turn_time")
    for values in result.data_vars.values():
        assert {"long_name", "units", "comment"} <= set(values.attrs)


def test_repeats_are_averaged_and_the_order_of_dimensions_is_free():
    """A table of two repeats gives the curves of its averages; the error is that of the starts."""
    rng = np.random.default_rng(4)
    square, distance = (_rows(rng.uniform(1, 2, size=(3, 20, 2))) for _ in range(2))
    resample = ClusterBootstrap(20, 100)
    plain = affinity(square, distance.expand_dims("reference", 1), distance, resample)
    shuffled = affinity(
        square.transpose("repeat", "sample", "score", "turn_time"), distance.expand_dims("reference"), distance, resample
    )
    xr.testing.assert_allclose(shuffled.transpose(*plain.dims), plain)
    doubled = affinity(
        xr.concat([square, square], dim="repeat"), distance.expand_dims("reference", 1), distance.mean("repeat"), resample
    )
    xr.testing.assert_allclose(doubled, plain)


def test_a_band_does_not_leave_what_is_possible():
    """One sample in 30 carries all of the distance: the shares stay at most 1, the gaps at least 0."""
    heavy = np.zeros((1, 30, 1))
    heavy[0, 0] = 1.0
    result = affinity(_rows(np.ones((1, 30, 1))), _rows(heavy).expand_dims("reference", 1), _rows(heavy), ClusterBootstrap(30, 200))
    assert result.score_explained_high.item() == 1
    assert result.denoiser_gap_low.item() == 0
    assert best_affine_gap(_rows(heavy), _rows(heavy), 1.0, ClusterBootstrap(30, 200)).affine_gap_low.item() == 0


def test_the_bootstrap_has_to_know_the_samples():
    values = xr.DataArray(np.ones((5, 2)), dims=("sample", "turn_time"), name="any", attrs={"long_name": "any"})
    with pytest.raises(ValueError, match=r"5 samples do not fit a bootstrap of 6"):
        with_bands(values, ClusterBootstrap(6))


@pytest.mark.parametrize("shape", [(80, 3), (6, 10)], ids=["full rank", "fewer samples than features"])
def test_features_have_the_covariances_that_they_promise(shape):
    """The map is affine: on the covariance of x_t the first gives the identity, the second the shares W of the signal."""
    x = _skewed(*shape)
    moments, process, time = fit_moments(x), OrnsteinUhlenbeck(), 0.6
    alpha, sigma = float(process.alpha(time)), float(process.sigma(time))
    d = shape[1]
    origin = affine_features(alpha * moments.mean[None], moments, process, time)
    np.testing.assert_allclose(origin, 0, atol=1e-12)
    maps = affine_features(alpha * moments.mean + np.eye(d), moments, process, time).swapaxes(1, 2)
    covariance = alpha**2 * np.cov(x.T, bias=True) + sigma**2 * np.eye(d)
    np.testing.assert_allclose(maps[0] @ covariance @ maps[0].T, np.eye(d), atol=1e-9)
    shares = np.append(moments.eigenvalues, np.zeros(d - len(moments.eigenvalues)))
    shares = alpha**2 * shares / (alpha**2 * shares + sigma**2)
    np.testing.assert_allclose(maps[1] @ covariance @ maps[1].T, np.diag(shares), atol=1e-9)


@pytest.mark.parametrize("shape", [(70, 5), (40, 90)], ids=["tall", "wide"])
def test_best_affine_is_sklearns_ridge_with_generalised_cross_validation(shape):
    """Penalty and out-of-sample distances in every fold, for independent states."""
    n, d = shape
    rng = np.random.default_rng(0)
    w = rng.normal(size=shape)
    residual = w @ rng.normal(size=(d, d)) / d + 1.0 + 0.3 * rng.normal(size=shape)
    penalties = [10.0, 1.0, 0.1, 0.01]
    fit = best_affine(w[None], residual, folds=4, penalties=penalties, seed=3)
    design = np.column_stack([np.ones(n), w])
    folds = GroupKFold(4, shuffle=True, random_state=3).split(w, groups=np.arange(n))
    for (train, test), penalty in zip(folds, fit.penalty, strict=True):
        ridge = RidgeCV(np.array(penalties) * len(train), fit_intercept=False).fit(design[train], residual[train])
        assert ridge.alpha_ == pytest.approx(penalty * len(train))
        expected = ((residual[test] - ridge.predict(design[test])) ** 2).sum(1)
        np.testing.assert_allclose(fit.values[test], expected, rtol=1e-8)
    np.testing.assert_allclose(fit.baseline, (residual**2).sum(1), rtol=1e-12)
    assert fit.gain.mean() > 0


@pytest.mark.parametrize(("slope", "corrected"), [(2.0, 3), (0.6, 2), (0.0, 0)])
def test_penalties_and_scalings_are_chosen_by_leaving_out_whole_samples(slope, corrected):
    """Refitting without each sample in turn finds the same, over two scalings and repeats of unequal number.

    No correction where the best one is better by less than a standard error over the samples.
    """
    rng = np.random.default_rng(1)
    own = rng.permutation(np.repeat(np.arange(24), rng.integers(1, 4, size=24)))
    n, penalties = len(own), [1.0, 0.1, 0.01]
    start = rng.normal(size=(24, 3))[own]
    w = start + 0.3 * rng.normal(size=(n, 3))
    scalings = np.stack([w, w * [1.0, 0.1, 0.01]])
    residual = slope * w * [1.0, 0.0, 0.0] + np.sin(5 * start)  # common to the repeats of a sample
    fit = best_affine(scalings, residual, groups=own, folds=3, penalties=penalties, seed=5)
    assert np.isfinite(fit.penalty).sum() == corrected
    for (train, test), penalty in zip(GroupKFold(3, shuffle=True, random_state=5).split(w, groups=own), fit.penalty, strict=True):
        found = []
        for scaling in range(2):
            design = np.column_stack([np.ones(n), scalings[scaling]])
            for kappa in penalties:
                # the weight is that of all training rows, also where some are left out
                ridge = Ridge(kappa * len(train), fit_intercept=False)
                guess = cross_val_predict(ridge, design[train], residual[train], groups=own[train], cv=LeaveOneGroupOut())
                better = (residual[train] ** 2 - (residual[train] - guess) ** 2).sum(1)
                by_sample = np.bincount(own[train], better)[np.unique(own[train])]
                found.append((by_sample.mean(), by_sample.std() / len(by_sample) ** 0.5, kappa, ridge, design))
        gain, error, kappa, ridge, design = max(found, key=lambda one: one[0])
        guess = ridge.fit(design[train], residual[train]).predict(design[test]) if gain > error else 0
        assert penalty == (kappa if gain > error else np.inf)
        np.testing.assert_allclose(fit.values[test], ((residual[test] - guess) ** 2).sum(1), rtol=1e-8)


@pytest.mark.parametrize("shape", [(60, 4), (30, 50)])
def test_infinite_penalty_is_the_gaussian(shape):
    rng = np.random.default_rng(2)
    w = rng.normal(size=shape)
    fit = best_affine(w[None], 2 * w + 1, penalties=[np.inf])
    np.testing.assert_array_equal(fit.values, fit.baseline)
    nothing = best_affine(w[None], 0 * w)
    assert np.isinf(nothing.penalty).all()
    assert (nothing.values == 0).all()


def test_no_affine_map_beats_the_gaussian_on_an_exact_score():
    """Orthogonality: over 100 runs of the empirical score a gain is claimed at most 6 times (nominal: 2.5), and little is lost."""
    x = _skewed(60, 3)
    moments, score, gaussian = fit_moments(x), EmpiricalScore(torch.from_numpy(x)), _gaussian(x)
    claimed, gained = 0, []
    for seed in range(100):
        values, baseline = [], []
        for time in (0.5, 2.0):
            _, state = _noised(x, 150, time, seed=seed)
            residual = score.denoise(state, time) - gaussian.denoise(state, time)
            fit = best_affine(affine_features(state.numpy(), moments, VE, time), residual.numpy(), seed=seed)
            values.append(fit.values[:, None])
            baseline.append(fit.baseline[:, None])
        result = best_affine_gap(_rows(values), _rows(baseline), moments.trace, ClusterBootstrap(150, 300, 0.95, seed))
        claimed += bool((result.affine_gain_low > 0).any())
        gained.append(1 - np.mean(values) / np.mean(baseline))
    assert claimed <= 6
    assert -0.03 < np.mean(gained) < 4 * np.std(gained) / np.sqrt(100)


@pytest.mark.parametrize("kind", ["shrunk covariance", "shifted mean", "other data"])
@pytest.mark.parametrize("singular", [False, True])
def test_an_affine_score_of_other_moments_is_found(kind, singular):
    """Out of sample nothing is left of its distance from the Gaussian score, and the p-value is the smallest there is."""
    x = _skewed(90, 4)
    if singular:
        x = np.hstack([x, np.full((90, 2), 0.5)])
    moments, covariance = fit_moments(x), np.cov(x.T, bias=True)
    mean, d = x.mean(0), x.shape[1]
    if kind == "shrunk covariance":
        covariance = 0.8 * covariance + 0.2 * moments.trace / d * np.eye(d)
    elif kind == "shifted mean":
        mean = mean + 0.3
    else:
        mean, covariance = x[:20].mean(0), np.cov(x[:20].T, bias=True)
    score = GaussianScore.from_moments(mean, covariance, process=OrnsteinUhlenbeck(), dtype=torch.float64)
    _, state = _noised(x, 200, 0.4, OrnsteinUhlenbeck())
    residual = (score.denoise(state, 0.4) - _gaussian(x, OrnsteinUhlenbeck()).denoise(state, 0.4)).numpy()
    fit = best_affine(affine_features(state.numpy(), moments, OrnsteinUhlenbeck(), 0.4), residual)
    assert fit.values.mean() < 1e-9 * fit.baseline.mean()
    result = best_affine_gap(_rows(fit.values[None, :, None]), _rows(fit.baseline[None, :, None]), 2.0, ClusterBootstrap(200, 99))
    assert result.affine_gain_pvalue.item() <= 1 / 100
    assert result.affine_gain.item() == pytest.approx(fit.baseline.mean() / 2, rel=1e-6)


def test_most_is_found_with_fewer_samples_than_features():
    """40 states of 150 features: a wrong gain in the modes of the signal is found for the most part, by the second scaling."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(400, 150)) * np.append([5.0, 4.0, 3.0, 2.0], np.full(146, 0.1))
    moments = fit_moments(x)
    _, state = _noised(x, 40, 1.0)
    score = GaussianScore.from_moments(moments.mean, 0.7 * moments.covariance(), dtype=torch.float64)
    residual = (score.denoise(state, 1.0) - _gaussian(x).denoise(state, 1.0)).numpy()
    features = affine_features(state.numpy(), moments, VE, 1.0)
    both, white = best_affine(features, residual), best_affine(features[:1], residual)
    assert both.gain.mean() > 0.8 * both.baseline.mean()
    assert white.gain.mean() < 0.5 * white.baseline.mean()


def test_the_frame_does_not_matter_nor_the_unit():
    """Rotations of the states, of each scaling and of the denoiser change nothing; twice the unit is four times the squares."""
    x = _skewed(50, 4)
    _, state = _noised(x, 60, 0.7)
    moments = fit_moments(x)
    score = EmpiricalScore(torch.from_numpy(x[:10]))
    residual = (score.denoise(state, 0.7) - _gaussian(x).denoise(state, 0.7)).numpy()
    features = affine_features(state.numpy(), moments, VE, 0.7)
    plain = best_affine(features, residual)
    assert plain.gain.mean() > 0
    a, b, c = (ortho_group.rvs(4, random_state=seed) for seed in range(3))
    turned = best_affine(np.stack([features[0] @ a, features[1] @ b]), 2 * residual @ c)
    np.testing.assert_allclose(turned.values, 4 * plain.values, rtol=1e-9)
    np.testing.assert_allclose(turned.baseline, 4 * plain.baseline, rtol=1e-12)
    rotated = affine_features(state.numpy() @ c, fit_moments(x @ c), VE, 0.7)
    np.testing.assert_allclose(best_affine(rotated, residual @ c).values, plain.values, rtol=1e-7)


def test_repeats_of_a_sample_do_not_give_it_away():
    """A residual that belongs to the sample and not to any map is learned from its repeats, unless they are left out with it."""
    rng = np.random.default_rng(6)
    own = np.repeat(np.arange(40), 4)
    w = (3 * rng.normal(size=(40, 60)))[own] + 0.1 * rng.normal(size=(160, 60))
    residual = rng.normal(size=(40, 7))[own]
    apart, together = best_affine(w[None], residual), best_affine(w[None], residual, groups=own)
    assert apart.gain.mean() > 0.9 * apart.baseline.mean()
    assert together.gain.mean() < 0.02 * together.baseline.mean()


def test_a_map_that_is_worse_is_no_evidence():
    """A loss, however certain, has p-value 1; a gain of the same size the smallest one."""
    rng = np.random.default_rng(7)
    near, far = rng.uniform(1, 1.1, size=(2, 50, 1)), rng.uniform(2, 2.1, size=(2, 50, 1))
    worse = best_affine_gap(_rows(far), _rows(near), 4.0, ClusterBootstrap(50, 199))
    better = best_affine_gap(_rows(near), _rows(far), 4.0, ClusterBootstrap(50, 199))
    assert (worse.affine_gain_high < 0).all()
    assert (worse.affine_gain_pvalue == 1).all()
    np.testing.assert_allclose(better.affine_gain_pvalue, 1 / 200)
    np.testing.assert_allclose(better.affine_gain.values[0], (far - near).mean((1, 2)) / 4, rtol=1e-12)
    np.testing.assert_allclose(better.affine_gap.values[0], near.mean((1, 2)) / 4, rtol=1e-12)
    # paired: the error of the difference, not that of either
    error = (far - near).std(axis=(1, 2), ddof=1) / 4 / np.sqrt(50)
    np.testing.assert_allclose(better.affine_gain_se.values[0], error, rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"residual": np.ones((9, 2))}, r"do not fit: give \(scalings, n, features\)"),
        ({"features": np.ones((10, 2))}, r"do not fit: give \(scalings, n, features\)"),
        ({"residual": np.full((10, 2), np.nan)}, r"NaN or infinite"),
        ({"groups": np.arange(9)}, r"9 groups do not match 10 states"),
        ({"groups": np.arange(10) // 2}, r"5 samples do not make 5 folds"),
        ({"folds": 1}, r"10 samples do not make 1 folds"),
        ({"penalties": [1.0, 0.0]}, r"not all positive"),
        ({"penalties": []}, r"not all positive"),
    ],
)
def test_what_cannot_be_fitted_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        best_affine(**({"features": np.ones((1, 10, 2)), "residual": np.ones((10, 2))} | change))
