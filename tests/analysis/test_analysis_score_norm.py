"""Norms of the score: closed forms against special functions and the scores themselves, identities, bands."""

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings, strategies as st
from scipy.special import ellipe, gammaln
from scipy.stats import ortho_group

from gaussian_test.analysis.moments.gaussian_score import GaussianScore, class_mixture
from gaussian_test.analysis.moments.moments import fit_moments
from gaussian_test.analysis.observables.affinity.scores import score_norm_gaussian, score_norms, score_square_gaussian
from gaussian_test.analysis.statistics.bootstrap import ClusterBootstrap
from gaussian_test.sampler import Cosine, EmpiricalScore, OrnsteinUhlenbeck, VarianceExploding

VE = VarianceExploding()
PROCESSES = [(VE, 0.7), (OrnsteinUhlenbeck(), 0.6), (Cosine(), 0.3)]


def _skewed(n, d, seed=0):
    """Draw samples that are far from Gaussian: few exponential factors, mixed."""
    rng = np.random.default_rng(seed)
    return rng.exponential(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)


def _noised(start, time, process, seed=1):
    noise = np.random.default_rng(seed).normal(size=start.shape)
    return process.noised(torch.from_numpy(start), time, torch.from_numpy(noise))


def _within(values, expected=0.0):
    """Whether the mean over samples is the expected one within 4 standard errors."""
    return abs(values.mean() - expected) < 4 * values.std(ddof=1) / np.sqrt(len(values))


def _table(times, samples, repeats, rng, moments, x, turn=None):
    """Return |s| of the Gaussian score over (score, turn_time, sample, repeat), the same noise at all times."""
    score = GaussianScore.from_moments(moments, dtype=torch.float64)
    noise = rng.normal(size=(samples, repeats, x.shape[1]))
    turn = np.eye(x.shape[1]) if turn is None else turn
    columns = []
    for time in times:
        state = torch.from_numpy(((x[:, None] + time * noise) @ turn).reshape(samples * repeats, -1))
        columns.append(score(state, time).norm(dim=1).reshape(samples, repeats).numpy())
    return xr.DataArray(np.array(columns)[None], dims=("score", "turn_time", "sample", "repeat"), coords={"turn_time": times})


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


@pytest.mark.parametrize(("process", "time"), PROCESSES)
def test_mean_norm_is_that_of_the_gaussian_score_on_gaussian_data(process, time):
    """30000 noised draws, with flat directions; and by Jensen below the root of the mean square."""
    moments = fit_moments(_skewed(4, 6))
    rng = np.random.default_rng(0)
    start = moments.mean + (rng.normal(size=(30000, 3)) * np.sqrt(moments.eigenvalues)) @ moments.eigenvectors.T
    score = GaussianScore.from_moments(moments, process=process, dtype=torch.float64)
    norms = score(_noised(start, time, process), time).norm(dim=1).numpy()
    expected = score_norm_gaussian(moments.eigenvalues, 6, process, [time])[0]
    assert _within(norms, expected)
    assert norms.std() < expected
    assert expected**2 < score_square_gaussian(moments.eigenvalues, 6, process, [time])[0]


@pytest.mark.parametrize("shape", [(50, 3), (3, 7)], ids=["full rank", "fewer samples than features"])
@pytest.mark.parametrize(("process", "time"), PROCESSES)
def test_mean_square_of_the_gaussian_score_is_the_same_for_any_data(process, time, shape):
    """Few skewed samples, 30000 times noised; the mean norm is then not that of Gaussian data."""
    x = _skewed(*shape)
    moments = fit_moments(x)
    start = x[np.random.default_rng(0).integers(len(x), size=30000)]
    score = GaussianScore.from_moments(moments, process=process, dtype=torch.float64)
    square = score(_noised(start, time, process), time).square().sum(1).numpy()
    assert _within(square, score_square_gaussian(moments.eigenvalues, shape[1], process, [time])[0])


@pytest.mark.parametrize("kind", ["empirical", "mixture", "gaussian"])
@pytest.mark.parametrize(("process", "time"), PROCESSES)
def test_square_of_an_exact_score_gives_the_mmse(process, time, kind):
    r"""sigma^2 E|s|^2 = d - alpha^2/sigma^2 mmse, because -sigma s is the mean of the noise given the state."""
    x = _skewed(30, 3)
    labels = (x[:, 0] > x[:, 0].mean()).astype(int)
    rng = np.random.default_rng(0)
    chosen = rng.integers(30, size=30000)
    if kind == "empirical":
        score, start = EmpiricalScore(torch.from_numpy(x), process=process), x[chosen]
    elif kind == "mixture":
        score = class_mixture(x, labels, process=process, dtype=torch.float64)
        normal = torch.from_numpy(rng.normal(size=(30000, 3)))
        first = torch.from_numpy(labels[chosen] == 0)[:, None]
        start = torch.where(first, score.components.prior(0, normal), score.components.prior(1, normal)).numpy()
    else:
        score = GaussianScore.fit(x, process=process, dtype=torch.float64)
        start = score.components.prior(0, torch.from_numpy(rng.normal(size=(30000, 3)))).numpy()
    state = _noised(start, time, process)
    alpha, variance = float(process.alpha(time)), float(process.sigma(time)) ** 2
    square = score(state, time).square().sum(1).numpy()
    error = ((score.denoise(state, time).numpy() - start) ** 2).sum(1)
    balance = variance * square - 3 + alpha**2 / variance * error
    assert _within(balance)
    assert balance.std() / np.sqrt(30000) < 0.02
    assert variance * square.mean() < 3


def test_a_flat_direction_adds_the_noise_alone():
    """1/sigma^2 each; at large noise every direction is flat, at small noise none with variance."""
    times = [0.3, 2.0]
    plain, more = (score_square_gaussian([2.0, 0.5], d, VE, times) for d in (2, 5))
    np.testing.assert_allclose(more - plain, 3 / np.square(times), rtol=1e-12)
    np.testing.assert_allclose(score_square_gaussian([2.0, 0.5, 0.0, 0.0, 0.0], 5, VE, times), more, rtol=1e-12)
    np.testing.assert_allclose(80.0**2 * score_square_gaussian([2.0, 0.5], 2, VE, [80.0]) / 2, 1, rtol=1e-3)
    np.testing.assert_allclose(score_square_gaussian([2.0, 0.5], 2, VE, [0.002]), 1 / 2.0 + 1 / 0.5, rtol=1e-4)


def test_the_norms_do_not_depend_on_the_frame():
    """Rotated data and noise give the same table of norms, and the closed forms come from the spectrum alone."""
    x, turn = _skewed(40, 4), ortho_group.rvs(4, random_state=0)
    times = np.array([0.4, 3.0])
    plain = _table(times, 40, 1, np.random.default_rng(0), fit_moments(x), x)
    turned = _table(times, 40, 1, np.random.default_rng(0), fit_moments(x @ turn), x, turn)
    xr.testing.assert_allclose(plain, turned)


def test_bands_cover_the_closed_forms():
    """At a nominal 95 %, 200 bands over four times (80 starts, two repeats) cover the whole truth 90 to 99 % of the time."""
    moments = fit_moments(_skewed(200, 3))
    times = np.array([0.3, 1.0, 3.0, 10.0])
    norm = score_norm_gaussian(moments.eigenvalues, 3, VE, times)
    square = times**2 * score_square_gaussian(moments.eigenvalues, 3, VE, times) / 3
    truth = {"score_norm": norm, "score_norm_relative": norm / norm[0], "score_square_scaled": square}
    rng = np.random.default_rng(0)
    covered = dict.fromkeys(truth, 0)
    for seed in range(200):
        start = moments.mean + (rng.normal(size=(80, 3)) * np.sqrt(moments.eigenvalues)) @ moments.eigenvectors.T
        table = _table(times, 80, 2, rng, moments, start)
        result = score_norms(table, table**2, VE, moments.eigenvalues, 3, ClusterBootstrap(80, 300, 0.95, seed))
        for name, values in truth.items():
            low, high = result[f"{name}_low"].values, result[f"{name}_high"].values
            covered[name] += bool(((low <= values) & (values <= high)).all())
            np.testing.assert_allclose(result[f"{name}_gaussian"], values, rtol=1e-12)
    for name, count in covered.items():
        assert 180 <= count <= 198, name


def test_the_norm_is_relative_to_that_at_the_smallest_time():
    """A ratio of means over the same samples: one there without error, also where times descend; the unit cancels."""
    x = _skewed(30, 3)
    moments, times, resample = fit_moments(x), np.array([5.0, 1.0, 0.4]), ClusterBootstrap(30, 200)
    table = _table(times, 30, 2, np.random.default_rng(1), moments, x)
    result = score_norms(table, table**2, VE, moments.eigenvalues, 3, resample)
    means = table.values.mean((0, 2, 3))
    np.testing.assert_allclose(result.score_norm_relative.values[0], means / means[2], rtol=1e-12)
    last = result.isel(turn_time=2)
    assert last.score_norm_relative.item() == last.score_norm_relative_low.item() == last.score_norm_relative_high.item() == 1
    assert last.score_norm_relative_se.item() == 0
    assert last.score_norm_relative_gaussian.item() == 1
    assert (result.score_norm_relative_se.values[0, :2] > 0).all()
    scaled = score_norms(7 * table, table**2, VE, moments.eigenvalues, 3, resample)
    np.testing.assert_allclose(scaled.score_norm_relative_high, result.score_norm_relative_high, rtol=1e-9)
    np.testing.assert_allclose(scaled.score_norm_high, 7 * result.score_norm_high, rtol=1e-9)


def test_the_scale_of_the_square_is_that_of_the_noise():
    """sigma^2/d in the process's own sigma; curves by score and time, closed forms by time, all described."""
    rng = np.random.default_rng(2)
    square = xr.DataArray(
        rng.uniform(1, 2, size=(2, 3, 10, 2)),
        dims=("score", "turn_time", "sample", "repeat"),
        coords={"score": ["a", "b"], "turn_time": [0.2, 0.5, 2.0]},
    )
    process = OrnsteinUhlenbeck()
    result = score_norms(np.sqrt(square), square, process, [1.0], 4, ClusterBootstrap(10, 100))
    scale = -np.expm1(-2 * square.turn_time.values) / 4
    np.testing.assert_allclose(result.score_square_scaled, scale * square.values.mean((2, 3)), rtol=1e-12)
    np.testing.assert_allclose(result.score_norm, np.sqrt(square.values).mean((2, 3)), rtol=1e-12)
    by_sample = np.sqrt(square.values).mean(3)
    np.testing.assert_allclose(result.score_norm_se, by_sample.std(2, ddof=1) / np.sqrt(10), rtol=1e-9)
    assert set(result.data_vars) == {
        name + suffix
        for name in ("score_norm", "score_norm_relative", "score_square_scaled")
        for suffix in ("", "_se", "_low", "_high", "_gaussian")
    }
    for name, values in result.data_vars.items():
        assert values.dims == (("turn_time",) if name.endswith("_gaussian") else ("score", "turn_time"))
        assert {"long_name", "units", "comment"} <= set(values.attrs)


def test_what_has_no_norm_is_refused():
    with pytest.raises(ValueError, match=r"time 0 has no noise"):
        score_square_gaussian([1.0], 2, VE, [1.0, 0.0])
    with pytest.raises(ValueError, match=r"3 modes do not fit 2 features"):
        score_norm_gaussian([1.0, 1.0, 1.0], 2, VE, [1.0])
