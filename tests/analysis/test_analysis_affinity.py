"""Norms of scores, the share of them that reference scores explain, and the best affine map, where the truth is known."""

import numpy as np
import pytest
import torch
import xarray as xr
from analysis_zoo import exact_score, noised, skewed, within
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import ellipe, gammaln
from scipy.stats import ortho_group
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold, LeaveOneGroupOut, cross_val_predict

from gaussian_test.analysis.moments.gaussian_score import GaussianScore, class_mixture, isotropic_score
from gaussian_test.analysis.moments.moments import fit_moments
from gaussian_test.analysis.observables.affinity.regression import affine_features, best_affine, features_along
from gaussian_test.analysis.observables.affinity.scores import (
    affinity,
    best_affine_gap,
    explained_share,
    score_norm_gaussian,
    score_norms,
    score_square_gaussian,
)
from gaussian_test.analysis.statistics.bootstrap import ClusterBootstrap
from gaussian_test.analysis.statistics.curves import ratio_of_means, with_bands
from gaussian_test.sampler import Cosine, EmpiricalScore, MixtureScore, OrnsteinUhlenbeck, VarianceExploding

ROWS = ("score", "turn_time", "sample", "repeat")
VE = VarianceExploding()
PROCESSES = [(VE, 0.7), (OrnsteinUhlenbeck(), 0.6), (Cosine(), 0.3)]


def _gaussian(x, process=VE):
    return GaussianScore.fit(x, process=process, dtype=torch.float64)


def _states(x, n, time, process=VE):
    """Noise n samples drawn with replacement."""
    return noised(x[np.random.default_rng(0).integers(len(x), size=n)], time, process)


def _rows(values):
    """Return arrays (turn_time, sample, repeat) of one score as a table."""
    return xr.DataArray(np.asarray(values)[None], dims=ROWS)


@pytest.mark.parametrize("shape", [(60, 4), (5, 12)])
def test_isotropic_score_is_the_gaussian_of_equal_variances(shape):
    """From the dense covariance tr(Sigma)/d I, and the same in any rotated frame; also with fewer samples than features."""
    x = skewed(*shape)
    d = shape[1]
    moments = fit_moments(x)
    rotation = ortho_group.rvs(d, random_state=1)
    score = isotropic_score(moments, process=OrnsteinUhlenbeck(), dtype=torch.float64)
    dense = np.eye(d) * np.trace(np.cov(x.T, bias=True)) / d
    expected = GaussianScore.from_moments(x.mean(0), dense, process=OrnsteinUhlenbeck(), dtype=torch.float64)
    rotated = isotropic_score(fit_moments(x @ rotation), process=OrnsteinUhlenbeck(), dtype=torch.float64)
    state = torch.from_numpy(3 * skewed(7, d, 2))
    torch.testing.assert_close(score.denoise(state, 0.4), expected.denoise(state, 0.4), rtol=1e-10, atol=1e-10)
    turned = rotated.denoise(state @ torch.from_numpy(rotation), 0.4)
    torch.testing.assert_close(turned, score.denoise(state, 0.4) @ torch.from_numpy(rotation), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "counts", [(40, 90), (4, 7), (3, 60), (60, 3, 2), (5, 9, 30)], ids=["full", "low", "mixed", "mixed three", "at the edge"]
)
def test_class_mixture_is_the_mixture_of_the_classes_moments(counts):
    """Dense covariances of the classes make the same responsibilities and denoiser, whatever the rank of each class."""
    d = 9
    x = np.concatenate([skewed(n, d, seed) + 2 * seed for seed, n in enumerate(counts)]).reshape(-1, 1, 3, 3)
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
    state = torch.from_numpy(x[rng.integers(len(x), size=(2, 12))].mean(0) + rng.normal(size=(12, 1, 3, 3)))
    for time in (0.3, 2.0, 4.0):
        shares = expected.responsibilities(state, time)
        torch.testing.assert_close(score.responsibilities(state, time), shares, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(score.denoise(state, time), expected.denoise(state, time), rtol=1e-7, atol=1e-7)
        label = torch.full((12,), 2)
        torch.testing.assert_close(score.denoise(state, time, label), expected.denoise(state, time, label), rtol=1e-7, atol=1e-7)
    assert shares.amax(1).min() < 0.99


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


@pytest.mark.parametrize(("process", "time"), [(VE, 0.7), (OrnsteinUhlenbeck(), 0.5)])
def test_share_that_an_isotropic_score_explains_of_the_gaussian_one(process, time):
    """1 - sum v (1/v - 1/u)^2 / sum 1/v for any data, v = alpha^2 lambda + sigma^2, u its mean over features."""
    x = skewed(5, 8)  # four directions of eight
    moments = fit_moments(x)
    gaussian, isotropic = _gaussian(x, process), isotropic_score(moments, process=process, dtype=torch.float64)
    state = _states(x, 20000, time, process)
    a, b = gaussian(state, time), isotropic(state, time)
    alpha, variance = float(process.alpha(time)), float(process.sigma(time)) ** 2
    gap = (gaussian.denoise(state, time) - isotropic.denoise(state, time)) * alpha / variance
    torch.testing.assert_close(a - b, gap, rtol=1e-9, atol=1e-9)
    v = alpha**2 * np.append(moments.eigenvalues, np.zeros(4)) + variance
    expected = 1 - (v * (1 / v - 1 / v.mean()) ** 2).sum() / (1 / v).sum()
    pseudo = explained_share(a.square().sum(1).numpy()[:, None], gap.square().sum(1).numpy()[:, None])
    assert within(pseudo[:, 0], expected)
    assert pseudo.std() / np.sqrt(20000) < 0.02 * abs(1 - expected)


@pytest.mark.parametrize("kind", ["empirical", "mixture"])
def test_what_the_gaussian_leaves_of_an_exact_score_is_the_excess_of_its_norm(kind):
    """Orthogonality: E|s - s_G|^2 = E|s|^2 - E|s_G|^2, a paired difference within 4 standard errors of zero."""
    x = skewed(40, 3)
    score, start = exact_score(kind, x, VE, 20000)
    state = noised(start, 0.8, VE)
    s, g = score(state, 0.8).numpy(), _gaussian(x)(state, 0.8).numpy()  # the mixture has the moments of the whole
    left = ((s - g) ** 2).sum(1)
    assert within(left - (s**2).sum(1) + (g**2).sum(1))
    assert left.mean() > 0.05 * (s**2).sum(1).mean()


def test_a_score_that_is_its_reference_is_explained_exactly():
    """One with zero error and a band of no width, beside a reference that explains less, and no gap to the Gaussian."""
    square, distance = (_rows(np.random.default_rng(0).uniform(*edges, size=(2, 30, 2))) for edges in ((1, 2), (0.1, 0.9)))
    both = xr.concat([0 * distance, distance], dim="reference").assign_coords(reference=["gaussian", "isotropic"])
    result = affinity(square, both, 0 * distance, ClusterBootstrap(30, 200))
    own, other = (result.sel(reference=reference) for reference in both.reference.values)
    for suffix in ("", "_low", "_high"):
        assert (own[f"score_explained{suffix}"] == 1).all()
    assert (own.score_explained_se == 0).all()
    assert (result.denoiser_gap == 0).all()
    assert (other.score_explained_low < other.score_explained).all()
    assert (other.score_explained < 1).all()
    assert result.score_explained.dims == ("score", "reference", "turn_time")
    assert result.denoiser_gap_high.dims == ("score", "turn_time")
    # shares of nothing are undefined, and alone
    np.testing.assert_array_equal(ratio_of_means(np.ones((4, 2)), np.array([[0.0, 1.0]] * 4)), [[np.nan, 1]] * 4)


def test_repeats_are_averaged_and_the_order_of_dimensions_is_free():
    """A table of two repeats gives the curves of its averages; the error is that of the starts."""
    rng, resample = np.random.default_rng(4), ClusterBootstrap(20, 100)
    square, distance = (_rows(rng.uniform(1, 2, size=(3, 20, 2))) for _ in range(2))
    plain = affinity(square, distance.expand_dims("reference", 1), distance, resample)
    turned = square.transpose("repeat", "sample", "score", "turn_time")
    for squares, gap in ((turned, distance), (xr.concat([square, square], dim="repeat"), distance.mean("repeat"))):
        found = affinity(squares, distance.expand_dims("reference"), gap, resample)
        xr.testing.assert_allclose(found.transpose(*plain.dims), plain)


def test_a_band_does_not_leave_what_is_possible():
    """One sample in 30 carries all of the distance: the shares stay at most 1, the gaps at least 0."""
    heavy = np.zeros((1, 30, 1))
    heavy[0, 0] = 1.0
    result = affinity(_rows(np.ones((1, 30, 1))), _rows(heavy).expand_dims("reference", 1), _rows(heavy), ClusterBootstrap(30, 200))
    assert result.score_explained_high.item() == 1
    assert result.denoiser_gap_low.item() == 0
    assert best_affine_gap(_rows(heavy), _rows(heavy), 1.0, ClusterBootstrap(30, 200)).affine_gap_low.item() == 0


@pytest.mark.parametrize("shape", [(80, 3), (6, 10)], ids=["full rank", "fewer samples than features"])
def test_features_have_the_covariances_that_they_promise(shape):
    """The map is affine: on the covariance of x_t the first gives the identity, the second the shares W of the signal."""
    x = skewed(*shape)
    moments, process, time = fit_moments(x), OrnsteinUhlenbeck(), 0.6
    alpha, sigma = float(process.alpha(time)), float(process.sigma(time))
    d = shape[1]
    origin = affine_features(alpha * moments.mean[None], moments, process, time)
    np.testing.assert_allclose(origin, 0, atol=1e-12)
    maps = affine_features(alpha * moments.mean + np.eye(d), moments, process, time).swapaxes(1, 2)
    covariance = alpha**2 * np.cov(x.T, bias=True) + sigma**2 * np.eye(d)
    np.testing.assert_allclose(maps[0].T @ maps[0], np.linalg.inv(covariance), atol=1e-9)
    shares = alpha**2 * moments.eigenvalues / (alpha**2 * moments.eigenvalues + sigma**2)
    along = maps[1] @ covariance @ maps[1].T
    np.testing.assert_allclose(along, np.diag(np.append(shares, np.zeros(len(along) - len(shares)))), atol=1e-9)
    noise = np.random.default_rng(5).normal(size=x.shape)
    for at, found in zip((0.1, 0.6), features_along(x, noise, moments, process, (0.1, 0.6)), strict=True):
        states = float(process.alpha(at)) * x + float(process.sigma(at)) * noise
        np.testing.assert_allclose(found, affine_features(states, moments, process, at), atol=1e-12)


@pytest.mark.parametrize(("slope", "features", "corrected"), [(2.0, 3, 3), (0.6, 3, 2), (0.0, 3, 0), (2.0, 90, 2)])
def test_penalties_and_scalings_are_chosen_by_leaving_out_whole_samples(slope, features, corrected):
    """Refits of scikit-learn's ridge, over two scalings; none where the best is better by less than a standard error."""
    rng = np.random.default_rng(1)
    own = rng.permutation(np.repeat(np.arange(24), rng.integers(1, 4, size=24)))
    n, penalties = len(own), [1.0, 0.1, 0.01]
    start = rng.normal(size=(24, features))[own]
    w = start + 0.3 * rng.normal(size=(n, features))
    scalings = np.stack([w, w * np.append(1.0, np.geomspace(0.1, 0.01, features - 1))])
    residual = slope * w * np.eye(features)[0] + np.sin(5 * start)  # common to the repeats of a sample
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
    np.testing.assert_allclose(fit.baseline, (residual**2).sum(1), rtol=1e-12)
    np.testing.assert_array_equal(best_affine(scalings, residual, penalties=[np.inf]).values, fit.baseline)
    nothing = best_affine(scalings, 0 * residual)
    assert np.isinf(nothing.penalty).all()
    assert (nothing.values == 0).all()


@pytest.mark.parametrize(("kind", "singular"), [("shrunk covariance", True), ("shifted mean", False), ("other data", True)])
def test_an_affine_score_of_other_moments_is_found(kind, singular):
    """Out of sample nothing is left of its distance from the Gaussian score, and the p-value is the smallest there is."""
    x = skewed(90, 4)
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
    state = _states(x, 200, 0.4, OrnsteinUhlenbeck())
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
    state = _states(x, 40, 1.0)
    score = GaussianScore.from_moments(moments.mean, 0.7 * moments.covariance(), dtype=torch.float64)
    residual = (score.denoise(state, 1.0) - _gaussian(x).denoise(state, 1.0)).numpy()
    features = affine_features(state.numpy(), moments, VE, 1.0)
    both, white = best_affine(features, residual), best_affine(features[:1], residual)
    assert both.gain.mean() > 0.8 * both.baseline.mean()
    assert white.gain.mean() < 0.5 * white.baseline.mean()


def test_the_frame_does_not_matter_nor_the_unit():
    """Rotations of the states, of each scaling and of the denoiser change nothing; twice the unit is four times the squares."""
    x = skewed(50, 4)
    state = _states(x, 60, 0.7)
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


def _fit(**change):
    return best_affine(**({"features": np.ones((1, 10, 2)), "residual": np.ones((10, 2))} | change))


NAMED = xr.DataArray(np.ones((5, 2)), dims=("sample", "turn_time"), name="any", attrs={"long_name": "any"})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: _fit(residual=np.ones((9, 2))), r"do not fit: give \(scalings, n, features\)"),
        (lambda: _fit(features=np.ones((10, 2))), r"do not fit: give \(scalings, n, features\)"),
        (lambda: _fit(residual=np.full((10, 2), np.nan)), "NaN or infinite"),
        (lambda: _fit(groups=np.arange(9)), "9 groups do not match 10 states"),
        (lambda: _fit(groups=np.arange(10) // 2), "5 samples do not make 5 folds"),
        (lambda: _fit(folds=1), "10 samples do not make 1 folds"),
        (lambda: _fit(penalties=[1.0, 0.0]), "not all positive"),
        (lambda: score_square_gaussian([1.0], 2, VE, [1.0, 0.0]), "time 0 has no noise"),
        (lambda: score_norm_gaussian([1.0, 1.0, 1.0], 2, VE, [1.0]), "3 modes do not fit 2 features"),
        (lambda: with_bands(NAMED, ClusterBootstrap(6)), "5 samples do not fit a bootstrap of 6"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("d", [1, 2, 3, 7, 64, 3072])
def test_mean_norm_of_white_noise_is_that_of_the_chi_law(d):
    """sqrt(2) Gamma((d+1)/2)/Gamma(d/2) over sigma, flat directions listed or not."""
    expected = np.sqrt(2) * np.exp(gammaln((d + 1) / 2) - gammaln(d / 2)) / 0.5
    for listed in (0, 1, d):
        assert score_norm_gaussian(np.zeros(listed), d, VE, [0.5])[0] == pytest.approx(expected, rel=1e-11)
    isotropic = score_norm_gaussian(np.full(d, 2.0), d, VE, [0.5])[0]
    assert isotropic == pytest.approx(expected * 0.5 / 1.5, rel=1e-11)


@settings(deadline=None)
@given(st.floats(-9, 9), st.floats(-3, 2))
def test_mean_norm_in_two_directions_is_an_elliptic_integral(eigenvalue, time):
    """Of weights a >= b it is sqrt(2 a/pi) E(1 - b/a), over 18 orders of magnitude of their ratio."""
    eigenvalue, time = 10**eigenvalue, 10**time
    a, b = time**-2, 1 / (eigenvalue + time**2)
    process = VarianceExploding(1e-4, 1e3)
    expected = np.sqrt(2 * a / np.pi) * ellipe(1 - b / a)
    assert score_norm_gaussian([eigenvalue], 2, process, [time])[0] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("shape", [(50, 3), (3, 7)], ids=["full rank", "fewer samples than features"])
@pytest.mark.parametrize(("process", "time"), PROCESSES)
def test_mean_square_of_the_gaussian_score_is_the_same_for_any_data_and_the_mean_norm_for_gaussian_data(process, time, shape):
    """30000 noised draws of the few skewed samples, and of their Gaussian; by Jensen the norm is below the root of the square."""
    x, rng, d = skewed(*shape), np.random.default_rng(0), shape[1]
    moments = fit_moments(x)
    score = GaussianScore.from_moments(moments, process=process, dtype=torch.float64)
    normal = rng.normal(size=(30000, len(moments.eigenvalues)))
    gaussian = moments.mean + (normal * np.sqrt(moments.eigenvalues)) @ moments.eigenvectors.T
    norm, square = (of(moments.eigenvalues, d, process, [time])[0] for of in (score_norm_gaussian, score_square_gaussian))
    assert within(score(noised(x[rng.integers(len(x), size=30000)], time, process), time).square().sum(1).numpy(), square)
    assert within(score(noised(gaussian, time, process), time).norm(dim=1).numpy(), norm)
    assert norm**2 < square


@pytest.mark.parametrize("kind", ["empirical", "mixture", "gaussian"])
@pytest.mark.parametrize(("process", "time"), PROCESSES)
def test_square_of_an_exact_score_gives_the_mmse(process, time, kind):
    r"""sigma^2 E|s|^2 = d - alpha^2/sigma^2 mmse, because -sigma s is the mean of the noise given the state."""
    score, start = exact_score(kind, skewed(30, 3), process, 30000)
    state = noised(start, time, process, seed=2)
    alpha, variance = float(process.alpha(time)), float(process.sigma(time)) ** 2
    square = score(state, time).square().sum(1).numpy()
    error = ((score.denoise(state, time).numpy() - start) ** 2).sum(1)
    balance = variance * square - 3 + alpha**2 / variance * error
    assert within(balance)
    assert balance.std() / np.sqrt(30000) < 0.02
    assert variance * square.mean() < 3


def test_a_flat_direction_adds_the_noise_alone():
    """1/sigma^2 each; at large noise every direction is flat, at small noise none with variance."""
    times = np.array([0.002, 0.3, 80.0])
    plain, more = (score_square_gaussian([2.0, 0.5], d, VE, times) for d in (2, 5))
    np.testing.assert_allclose(more - plain, 3 / times**2, rtol=1e-9)
    np.testing.assert_allclose(score_square_gaussian([2.0, 0.5, 0.0, 0.0, 0.0], 5, VE, times), more, rtol=1e-12)
    np.testing.assert_allclose([80.0**2 * plain[2] / 2, plain[0]], [1, 1 / 2.0 + 1 / 0.5], rtol=1e-3)


def test_norms_are_means_over_rows_relative_to_the_smallest_time_and_squares_in_units_of_the_noise():
    """Relative is a ratio of means over the same samples: one there without error, also where times descend; the unit cancels."""
    process, times, resample = OrnsteinUhlenbeck(), np.array([2.0, 0.5, 0.2]), ClusterBootstrap(30, 200)
    values = np.random.default_rng(2).uniform(1, 2, size=(2, 3, 30, 2)) / times[:, None, None]
    norms = xr.DataArray(values, dims=ROWS, coords={"score": ["a", "b"], "turn_time": times})
    result = score_norms(norms, norms**2, process, [1.0], 4, resample)
    means, variance = values.mean((2, 3)), -np.expm1(-2 * times)
    np.testing.assert_allclose(result.score_norm, means, rtol=1e-12)
    np.testing.assert_allclose(result.score_norm_se, values.mean(3).std(2, ddof=1) / np.sqrt(30), rtol=1e-9)
    np.testing.assert_allclose(result.score_norm_relative, means / means[:, 2:], rtol=1e-12)
    np.testing.assert_allclose(result.score_square_scaled, variance / 4 * (values**2).mean((2, 3)), rtol=1e-12)
    last = result.isel(turn_time=2)
    for suffix, expected in (("", 1), ("_low", 1), ("_high", 1), ("_se", 0)):
        assert (last[f"score_norm_relative{suffix}"] == expected).all()
    assert (result.score_norm_relative_se[:, :2] > 0).all()
    norm = score_norm_gaussian([1.0], 4, process, times)
    square = variance * score_square_gaussian([1.0], 4, process, times) / 4
    for name, closed in (("norm", norm), ("norm_relative", norm / norm[2]), ("square_scaled", square)):
        np.testing.assert_allclose(result[f"score_{name}_gaussian"], closed, rtol=1e-12)
        assert result[f"score_{name}_gaussian"].dims == ("turn_time",)
        for suffix in ("", "_se", "_low", "_high"):
            assert result[f"score_{name}{suffix}"].dims == ("score", "turn_time")
    scaled = score_norms(7 * norms, norms**2, process, [1.0], 4, resample)
    np.testing.assert_allclose(scaled.score_norm_relative_high, result.score_norm_relative_high, rtol=1e-9)
    np.testing.assert_allclose(scaled.score_norm_high, 7 * result.score_norm_high, rtol=1e-9)
