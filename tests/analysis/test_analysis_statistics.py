"""Bands, tests, control variates and times: their laws, on problems whose truth is known."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import binomtest, kstest, linregress, norm, t as student

from gaussian_test import analysis
from gaussian_test.analysis.statistics.bootstrap import expanded, with_control_variate
from gaussian_test.analysis.statistics.curves import falls_through, share_time

POINTS = 12
LARGEST = "not within 0.02 with confidence at the largest"


def _curves(rng, samples, correlation=0.9):
    """Draw correlated curves of standard normals: one per sample."""
    covariance = correlation ** np.abs(np.subtract.outer(np.arange(POINTS), np.arange(POINTS)))
    return rng.multivariate_normal(np.zeros(POINTS), covariance, size=samples)


def test_simultaneous_band_covers_whole_curves():
    """At a nominal 95 %, 400 bands over 12 correlated points cover the whole truth 90 to 99 % of the time; pointwise do not."""
    rng = np.random.default_rng(0)
    covered, pointwise = 0, 0
    for seed in range(400):
        band = analysis.ClusterBootstrap(150, 400, 0.95, seed).band(_curves(rng, 150))
        covered += bool(((band.low <= 0) & (band.high >= 0)).all())
        pointwise += bool((np.abs(band.estimate) <= 1.96 * band.standard_error).all())
    assert 360 <= covered <= 396
    assert pointwise < 340


def test_pvalues_are_uniform_for_the_whole_family():
    """The smallest p-value over the curve is uniform when the curve is zero (Kolmogorov-Smirnov at 1e-3)."""
    rng = np.random.default_rng(1)
    smallest = [analysis.ClusterBootstrap(200, 400, 0.95, seed).band(_curves(rng, 200)).pvalue.min() for seed in range(300)]
    assert kstest(smallest, "uniform").pvalue > 1e-3


def test_standard_error_is_that_of_the_mean_over_clusters():
    """Repeats of a cluster add nothing where they agree: the error is that of the clusters, and the resamples show the same."""
    y = np.random.default_rng(3).normal(size=(500, 1))
    band = analysis.ClusterBootstrap(500, 4000, 0.95, 0).band(y)
    assert band.standard_error[0] == pytest.approx(y.std(ddof=1) / np.sqrt(500), rel=1e-12)
    assert band.replicates.std() == pytest.approx(band.standard_error[0], rel=4 / np.sqrt(2 * 4000))


@pytest.mark.parametrize(("clusters", "resamples"), [(2, 3), (300, 50), (70_001, 100)])
def test_resampled_means_are_those_of_the_drawn_clusters(clusters, resamples):
    """Bit for bit those of weights in double precision, in the same blocks, however many clusters there are."""
    values = np.random.default_rng(3).normal(size=(clusters, 2))
    random, step, expected = np.random.default_rng(5), max(1, 2**22 // clusters), []
    for start in range(0, resamples, step):
        drawn = random.integers(clusters, size=(min(step, resamples - start), clusters))
        expected.append(np.stack([np.bincount(row, minlength=clusters) for row in drawn]) / clusters @ values)
    np.testing.assert_array_equal(analysis.ClusterBootstrap(clusters, resamples, seed=5).means(values), np.concatenate(expected))


def test_offset_moves_the_band_and_not_its_width():
    y = _curves(np.random.default_rng(4), 100)
    plain, moved = analysis.ClusterBootstrap(100).band(y), analysis.ClusterBootstrap(100).band(y, np.arange(POINTS))
    np.testing.assert_allclose(moved.estimate, plain.estimate - np.arange(POINTS), atol=1e-12)
    np.testing.assert_allclose(moved.high - moved.low, plain.high - plain.low, atol=1e-12)
    np.testing.assert_allclose(moved.replicates.mean(0), plain.replicates.mean(0) - np.arange(POINTS), atol=1e-12)


def test_where_all_samples_agree_the_interval_is_binomial():
    y = np.ones((80, 4))
    y[:40, 3] = 0
    resample = analysis.ClusterBootstrap(80, 500, 0.95, 0)
    band, expected = resample.share_band(y), binomtest(80, 80).proportion_ci(1 - 0.05 / 4, method="exact")
    np.testing.assert_allclose(band.low[:3], expected.low)
    assert band.low[3] > 0.3
    assert (band.high <= 1).all()
    assert resample.share_band(np.zeros((80, 1))).high[0] == pytest.approx(1 - 0.025 ** (1 / 80), rel=1e-9)


def test_control_variate_keeps_the_mean_and_takes_off_the_correlated_variance():
    """Over 300 repetitions: unbiased within 4 standard errors, variance down by 1 - rho^2."""
    rng = np.random.default_rng(5)
    plain, better = [], []
    for _ in range(300):
        k = rng.normal(size=(200, 1)) + 1.0
        y = 0.9 * k + np.sqrt(1 - 0.81) * rng.normal(size=(200, 1)) + 2.0
        plain.append(y.mean())
        better.append(with_control_variate(y, k, [1.0]).mean())
    assert abs(np.mean(better) - 2.9) < 4 * np.std(better) / np.sqrt(300)
    ratio = np.var(better) / np.var(plain)
    assert ratio == pytest.approx(0.19, rel=4 * np.sqrt(4 / 300))
    np.testing.assert_array_equal(with_control_variate(y, np.ones_like(y), [1.0]), y)  # a control that does not vary


@pytest.mark.parametrize(("clusters", "resamples", "confidence"), [(1, 10, 0.9), (5, 0, 0.9), (5, 10, 1.0), (5, 10, 0.0)])
def test_bootstrap_settings_are_refused(clusters, resamples, confidence):
    with pytest.raises(ValueError, match=r"give|start from"):
        analysis.ClusterBootstrap(clusters, resamples, confidence)


@pytest.mark.parametrize("clusters", [3, 20, 1000])
def test_expanded_level_has_the_percentile_at_student_s_edge(clusters):
    """A normal spread that is short by sqrt((n - 1)/n), as that of resamples is, has its percentile at Student's."""
    edge = norm.ppf((1 + expanded(0.9, clusters)) / 2, scale=np.sqrt((clusters - 1) / clusters))
    assert edge == pytest.approx(student.ppf(0.95, clusters - 1), rel=1e-9)


def test_crossing_is_found_where_a_known_curve_crosses():
    """A logistic curve in log(nu): interpolation finds its middle to the square of the spacing."""
    errors = []
    for count in (10, 20, 40):
        nu = np.geomspace(0.1, 30, count)
        errors.append(abs(np.log(falls_through(1 / (1 + (nu / 1.7) ** 3), nu, level=0.4) / (1.7 * 1.5 ** (1 / 3)))))
    assert errors[0] < 0.05
    assert errors[2] < errors[0] / 4


def test_noise_on_a_flat_part_is_no_crossing():
    """A wiggle through the level that isotonic regression averages out does not move the crossing to the wiggle."""
    nu = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    assert 8 < falls_through([0.9, 0.45, 0.8, 0.7, 0.0], nu, level=0.5) < 16


def test_affine_time_counts_both_signs_and_the_last_crossing():
    nu = np.array([1.0, 2.0, 4.0, 8.0])
    gap = np.array([0.001, -0.1, 0.001, 0.001])
    crossing = analysis.affine_time(gap, gap - 0.002, gap + 0.002, nu, tolerance=0.02, standard_error=np.full(4, 0.001))
    # a gap that falls by a factor of 100 between two turn times is not placed any closer than by the two
    assert (crossing.low, crossing.high) == (2, 4)
    assert 2 < crossing.estimate < 4
    assert "the curve falls too fast between 2 and 4" in crossing.reason


@pytest.mark.parametrize(
    ("gap", "width", "reason"),
    [
        ([0.1, 0.05], 0.001, LARGEST),
        ([-0.1, -0.015], 0.01, LARGEST),
        ([0.1, 0.001], 0.05, LARGEST),
        ([0.01, 0.001], 0.001, "within 0.02 at every turn time"),
    ],
)
def test_undefined_affine_times_have_reasons(gap, width, reason):
    crossing = analysis.affine_time(
        gap, np.subtract(gap, width), np.add(gap, width), [1.0, 2.0], tolerance=0.02, standard_error=[0.001, 0.001]
    )
    assert np.isnan(crossing.estimate)
    assert reason in crossing.reason


def test_predicted_affine_time_is_right_for_a_skewed_mixture():
    """In one dimension the gap is E|D - D_G|^2/variance by quadrature: at large noise it meets the tolerance where predicted."""
    weights, means, variance = np.array([0.2, 0.8]), np.array([2.0, -0.5]), 0.1
    total = variance + (weights * means**2).sum()
    third = (weights * (means**3 + 3 * means * variance)).sum()
    tolerance = 1e-7
    nu = analysis.predicted_affine(third**2, total, tolerance=tolerance)

    def integrand(x):
        density = weights * norm.pdf(x, means, np.sqrt(variance + nu**2))
        component = means + variance / (variance + nu**2) * (x - means)
        exact = (density * component).sum() / density.sum()
        return density.sum() * (exact - total / (total + nu**2) * x) ** 2

    gap = quad(integrand, -12 * nu, 12 * nu, limit=500, epsabs=1e-16)[0] / total
    assert gap == pytest.approx(tolerance, rel=0.05)


def test_a_fitted_coefficient_costs_a_degree_of_freedom():
    """The error after a control variate is that of a regression on it, over n - 2, as scipy's linregress has it."""
    rng = np.random.default_rng(8)
    k, e = rng.normal(size=(2, 9))
    y = 0.7 * k + e
    band = analysis.ClusterBootstrap(9, 100).band(with_control_variate(y[:, None], k[:, None], [k.mean()]), fitted=1)
    # at the mean of the regressor the intercept's error is that of the mean response
    assert band.standard_error[0] == pytest.approx(linregress(k - k.mean(), y).intercept_stderr, rel=1e-12)


def test_a_time_is_placed_no_closer_than_the_turn_times_around_a_steep_fall():
    nu = [0.1, 5.0, 10.0]
    steep = share_time([1.0, 0.1, 0.0], [[1.0, 0.1, 0.0]] * 9, nu, level=0.5, confidence=0.95)
    assert (steep.low, steep.high) == (0.1, 5.0)
    assert "too fast between 0.1 and 5" in steep.reason
    for curve, reason in (([0.4, 0.3, 0.2], "below 0.5 already at the smallest"), ([1.0, 0.9, 0.8], "above 0.5 up to the largest")):
        nowhere = share_time(curve, [curve], nu, level=0.5, confidence=0.95)
        assert np.isnan([nowhere.estimate, nowhere.low, nowhere.high]).all()
        assert reason in nowhere.reason
    gentle = share_time([0.6, 0.4, 0.2], [[0.6, 0.4, 0.2]] * 9, nu, level=0.5, confidence=0.95)
    assert gentle.low == gentle.high == gentle.estimate
    assert gentle.reason == ""


def test_the_crossing_of_a_power_law_is_exact_on_any_grid():
    nu = np.geomspace(0.5, 20, 11)
    gap = 0.5 * nu**-4.0
    crossing = analysis.affine_time(gap, 0.9 * gap, 1.1 * gap, nu, tolerance=0.02, standard_error=gap)
    found = np.array([crossing.low, crossing.estimate, crossing.high]) ** 4
    np.testing.assert_allclose(found, [22.5, 25, 27.5], rtol=1e-11)
