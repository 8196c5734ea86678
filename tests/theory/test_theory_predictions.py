"""Predictions from the data alone: closed forms, direct integration, Monte Carlo, and the laws that tie them together."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.ndimage import maximum_filter1d
from scipy.special import expit, logsumexp, softmax

from gaussian_test.analysis import autocorrelation_exact, predicted_memorization
from gaussian_test.analysis.observables.sample_times.times import class_times
from gaussian_test.analysis.statistics.bootstrap import ClusterBootstrap
from gaussian_test.analysis.theory.predictions import (
    excess_entropy,
    excess_entropy_crossing,
    information_integral,
    kl_from_gaussian,
    predicted_memorization_within_class,
    predicted_speciation_within_class,
)
from gaussian_test.analysis.theory.two_modes import retention_signal_to_noise, two_gaussians

SPECTRUM = np.array([9.0, 2.0, 0.5, 0.01, 0.0])


def _expectation(function, square):
    """E f(c^2 + c y) over y ~ N(0, 1), by adaptive quadrature on either side of the point where the argument vanishes."""
    c = np.sqrt(square)

    def density(y):
        return function(square + c * y) * np.exp(-(y**2) / 2) / np.sqrt(2 * np.pi)

    pieces = [(-c - 12, -c), (-c, 0), (0, 12)]
    return sum(quad(density, *ends, limit=400, epsabs=1e-17, epsrel=1e-12)[0] for ends in pieces)


def _of_square(u):
    """1 - tanh^2(u)."""
    return 4 * expit(2 * u) * expit(-2 * u)


def _of_first(u):
    """1 - tanh(u)."""
    return 2 * expit(-2 * u)


def _within(difference, errors=4):
    """Assert that the mean over rows is zero within so many standard errors."""
    error = difference.std(0, ddof=1) / np.sqrt(len(difference))
    np.testing.assert_array_less(np.abs(difference.mean(0)), errors * error + 1e-15)


@pytest.mark.parametrize("count", [2, 50, 10000])
def test_one_class_is_remembered_as_by_the_plain_prediction(count):
    found = predicted_memorization_within_class([SPECTRUM], [count])
    assert found == pytest.approx(predicted_memorization(SPECTRUM, count), rel=1e-11)


def test_equal_classes_are_remembered_as_one_alone():
    """k classes of one spectrum and N/k samples each: H = log k, so that each is on its own."""
    found = predicted_memorization_within_class([SPECTRUM] * 5, [300] * 5)
    assert found == pytest.approx(predicted_memorization(SPECTRUM, 300), rel=1e-11)


@pytest.mark.parametrize("counts", [[30, 500, 7], [1, 10**6, 3], [1, 1, 2], [10**6, 1, 1]])
def test_the_prediction_within_classes_solves_its_equation(counts):
    spectra = [SPECTRUM, [0.3, 0.2], np.geomspace(5, 1e-9, 40)]
    nu = predicted_memorization_within_class(spectra, counts)
    share = np.array(counts) / sum(counts)
    within = [np.log1p(np.asarray(values) / nu**2).sum() / 2 for values in spectra]
    assert share @ within - share @ np.log(share) == pytest.approx(np.log(sum(counts)), rel=1e-9)
    turned = predicted_memorization_within_class(spectra[::-1], counts[::-1])
    assert turned == pytest.approx(nu, rel=1e-11)


def test_one_class_that_varies_has_to_tell_all_samples_of_the_other_apart():
    """Half of log(1 + 1/nu^2)/2 is log 20."""
    found = predicted_memorization_within_class([[1.0], [0.0]], [20, 20])
    assert found == pytest.approx((20.0**4 - 1) ** -0.5, rel=1e-11)


def test_more_samples_are_remembered_less_and_more_variance_more():
    times = [predicted_memorization_within_class([SPECTRUM, 2 * SPECTRUM], [n, 2 * n]) for n in (2, 20, 200, 2000)]
    assert (np.diff(times) < 0).all()
    scaled = predicted_memorization_within_class([4 * SPECTRUM, 8 * SPECTRUM], [20, 40])
    assert scaled == pytest.approx(2 * times[1], rel=1e-10)


def test_what_cannot_be_solved_is_undefined():
    assert np.isnan(predicted_memorization_within_class([SPECTRUM, SPECTRUM], [1, 1]))
    assert np.isnan(predicted_memorization_within_class([[0.0], []], [5, 6]))


@pytest.mark.parametrize(("spectra", "counts"), [([SPECTRUM], [3, 4]), ([SPECTRUM, SPECTRUM], [3, 0])])
def test_spectra_without_samples_are_refused(spectra, counts):
    with pytest.raises(ValueError, match=r"give one spectrum for each class that has samples"):
        predicted_memorization_within_class(spectra, counts)


@pytest.mark.parametrize("level", [1e-6, 0.01, 0.3, 0.5, 0.9, 0.999])
def test_retention_is_the_level_at_its_signal_to_noise(level):
    """E tanh^2 by adaptive quadrature; and E tanh, which is the same for the two hypotheses of an exact posterior."""
    square = retention_signal_to_noise(level)
    for lost in (_of_square, _of_first):
        assert 1 - _expectation(lost, square) == pytest.approx(level, abs=1e-12)


def test_little_retention_needs_as_little_signal():
    """E tanh^2(c^2 + c y) = c^2 + O(c^4)."""
    assert retention_signal_to_noise(1e-4) == pytest.approx(1e-4, rel=5e-4)


@pytest.mark.parametrize("level", [0.0, 1.0, -0.2, np.nan])
def test_a_level_that_is_no_share_is_refused(level):
    with pytest.raises(ValueError, match=r"level .* give a share in \(0, 1\)"):
        retention_signal_to_noise(level)


@pytest.mark.parametrize("level", [0.2, 0.5, 0.8])
@pytest.mark.parametrize(("separation", "variance"), [(2.0, 0.5), (1.0, 0.0), (5.0, 3.0)])
def test_speciation_of_two_gaussians_is_where_their_retention_is_the_level(separation, variance, level):
    nu = predicted_speciation_within_class(separation**2, variance, level=level)
    kept = two_gaussians([nu], separation=separation, variance=variance, dimension=3).same_class[0]
    assert (kept - 0.5) / 0.5 == pytest.approx(level, abs=1e-11)


def test_classes_that_overlap_too_much_have_no_speciation():
    """The retention without noise is below the level when v c*^2 > lambda_B."""
    limit = 1 / retention_signal_to_noise(0.5)
    assert np.isnan(predicted_speciation_within_class(1.0, limit * 1.001))
    assert predicted_speciation_within_class(1.0, limit * 0.999) < 0.05


@pytest.mark.parametrize("square", [1e-3, 0.3, 1.0, 3.0, 9.0, 16.0, 40.0, 100.0])
def test_quadrature_is_as_accurate_as_stated(square):
    """Against adaptive quadrature of the forms in the docstring, to 1e-12; v = 0, so that c^2 = |m|^2/nu^2."""
    found = two_gaussians([0.5], separation=0.5 * np.sqrt(square), variance=0.0, dimension=1)
    assert 2 * (1 - found.same_class[0]) == pytest.approx(_expectation(_of_square, square), abs=1e-12)
    lost = found.mmse[0] / (0.25 * square)
    assert lost == pytest.approx(_expectation(_of_first, square), abs=1e-12, rel=0)
    assert lost == pytest.approx(_expectation(_of_first, square), abs=0, rel=1e-3)  # however little is lost


def test_two_gaussians_by_monte_carlo():
    """Posterior means, and classes drawn from the posterior, of 100,000 noised samples: within 4 standard errors."""
    rng = np.random.default_rng(0)
    m, variance, count = np.array([1.2, -0.5, 0.3]), 0.4, 100_000
    nu = np.array([0.3, 0.8, 1.5, 4.0])
    side = rng.choice([-1.0, 1.0], count)
    x0 = side[:, None] * m + np.sqrt(variance) * rng.normal(size=(count, 3))
    squared, kept = [], []
    for level in nu:
        x = x0 + level * rng.normal(size=(count, 3))
        total = variance + level**2
        weights = np.stack([np.exp(-((x - s * m) ** 2).sum(1) / (2 * total)) for s in (1, -1)])
        right = weights[0] / weights.sum(0)
        mean = np.outer(2 * right - 1, m)
        squared.append(((mean + variance / total * (x - mean) - x0) ** 2).sum(1))
        kept.append(side == np.where(rng.random(count) < right, 1, -1))
    closed = two_gaussians(nu, separation=float(np.linalg.norm(m)), variance=variance, dimension=3)
    _within(np.array(squared).T - closed.mmse)
    _within(np.array(kept).T - closed.same_class)
    np.testing.assert_allclose(closed.autocorrelation, 1 - closed.mmse / (3 * variance + m @ m), rtol=1e-12)


def test_two_gaussians_in_one_place_are_one():
    nu = np.geomspace(0.1, 10, 7)
    found = two_gaussians(nu, separation=0.0, variance=0.7, dimension=4)
    np.testing.assert_allclose(found.autocorrelation, autocorrelation_exact([0.7] * 4, nu), rtol=1e-12)
    np.testing.assert_allclose(found.same_class, 0.5, rtol=1e-12)


def test_two_gaussians_know_the_limits_of_noise():
    small, large = (
        two_gaussians([1e-3, 1e3], separation=1.0, variance=0.1, dimension=2),
        two_gaussians([1e3], separation=1.0, variance=0.1, dimension=2),
    )
    assert small.mmse[0] == pytest.approx(2e-6 + 0.0, rel=0.05)  # d nu^2, and the class is all but sure: c^2 = 10
    assert small.same_class[0] > 0.99
    assert large.mmse[0] == pytest.approx(1.2, rel=1e-5)
    assert large.same_class[0] == pytest.approx(0.5, abs=1e-6)
    nu = np.geomspace(1e-2, 1e2, 60)
    found = two_gaussians(nu, separation=1.0, variance=0.1, dimension=2)
    for falling in (-found.mmse, found.same_class, found.autocorrelation):
        assert (np.diff(falling) < 0).all()
    assert (found.autocorrelation > autocorrelation_exact([1.1, 0.1], nu)).all()


@pytest.mark.parametrize("nu", [[1.0, 0.0], [-1.0], [np.nan]])
def test_noise_that_is_none_is_refused(nu):
    with pytest.raises(ValueError, match=r"noise-to-signal ratio .* give positive ones"):
        two_gaussians(nu, separation=1.0, variance=0.0, dimension=1)


@pytest.mark.parametrize(("separation", "variance"), [(0.0, 0.0), (-1.0, 1.0), (1.0, -0.1)])
def test_data_that_cannot_be_are_refused(separation, variance):
    with pytest.raises(ValueError, match=r"separation .* give nonnegative ones, not both zero"):
        two_gaussians([1.0], separation=separation, variance=variance, dimension=2)


def _excess_of_two(nu, separation, variance, dimension):
    """Return lmmse - mmse."""
    values = np.array([variance] * (dimension - 1) + [variance + separation**2])
    lmmse = (values * nu[:, None] ** 2 / (values + nu[:, None] ** 2)).sum(1)
    return lmmse - two_gaussians(nu, separation=separation, variance=variance, dimension=dimension).mmse, values


def test_separated_classes_collapse_where_predicted_within_classes():
    """Two Gaussians far apart: the information is log 2 and that of one; f^e vanishes where the within-class time says, to 1e-4."""
    nu = np.geomspace(0.05, 400, 1500)
    excess, values = _excess_of_two(nu, 30.0, 1.0, 6)
    area = information_integral(excess, nu)
    curve = excess_entropy(area.value, values, nu, count=400)
    crossing, reason = excess_entropy_crossing(curve, nu, error=area.error)
    assert crossing == pytest.approx(predicted_memorization_within_class([[1.0] * 6] * 2, [200, 200]), rel=1e-4)
    assert reason == ""
    assert abs(np.log(crossing / predicted_memorization(values, 400))) > 0.05


def test_the_information_of_two_gaussians_is_that_of_their_density():
    """I = h(x_t) - h(noise), with the entropy of the one-dimensional mixture by adaptive quadrature."""
    nu = np.geomspace(0.05, 100, 1000)
    excess, values = _excess_of_two(nu, 1.5, 0.3, 1)
    information = excess_entropy(information_integral(excess, nu).value, values, nu, count=1)
    for index in (200, 400, 600):
        spread = np.sqrt(0.3 + nu[index] ** 2)

        def log_density(x, spread=spread):
            logs = [-(((x - s) / spread) ** 2) / 2 for s in (1.5, -1.5)]
            return logsumexp(logs) - np.log(2 * spread * np.sqrt(2 * np.pi))

        width = 1.5 + 12 * spread
        entropy = quad(lambda x, p=log_density: -np.exp(p(x)) * p(x), -width, width, limit=400)[0]
        assert information[index] == pytest.approx(entropy - np.log(nu[index] ** 2 * 2 * np.pi * np.e) / 2, rel=2e-4)


def test_excess_entropy_of_a_finite_set_is_that_of_its_posterior():
    """I - log N = -E H(w) for the empirical score: 4000 noised samples of a set of 20, the same in both, within 4 errors.

    The standard error is that of the differences, one by one; to it comes the error of the quadrature.
    """
    rng = np.random.default_rng(1)
    samples = rng.gamma(1.0, size=(20, 3)) * [2.0, 1.0, 0.3]
    samples -= samples.mean(0)
    values, vectors = np.linalg.eigh(samples.T @ samples / 20)
    nu = np.geomspace(0.05, 60, 120)
    start, noise = samples[np.tile(np.arange(20), 200)], rng.normal(size=(4000, 3))
    excess, entropy = np.empty((4000, 120)), np.empty((4000, 120))
    for point, level in enumerate(nu):
        x = start + level * noise
        logs = -((x[:, None] - samples) ** 2).sum(-1) / (2 * level**2)
        weights = softmax(logs, 1)
        gaussian = (x @ vectors * (values / (values + level**2))) @ vectors.T
        excess[:, point] = ((weights @ samples - gaussian) ** 2).sum(1)
        entropy[:, point] = logsumexp(logs, axis=1) - (weights * logs).sum(1)
    area = information_integral(excess, nu)
    curve = excess_entropy(area.value, values, nu, count=20)
    quadrature = information_integral(excess.mean(0), nu).error
    difference = curve + entropy
    error = difference.std(0, ddof=1) / np.sqrt(4000)
    assert (np.abs(difference.mean(0)) < 4 * error + quadrature).all()
    assert (error + quadrature)[0] < 0.1  # of log 20 = 3: the law is tested, not drowned
    crossing, reason = excess_entropy_crossing(curve.mean(0), nu, error=4 * error + quadrature)
    assert np.isnan(crossing)
    assert "the information of a finite set never exceeds log N" in reason


def test_excess_entropy_of_gaussian_data_vanishes_at_the_predicted_memorization():
    nu = np.geomspace(0.1, 10, 400)
    curve = excess_entropy(np.zeros(400), SPECTRUM, nu, count=100)
    assert (np.diff(curve) < 0).all()
    assert excess_entropy_crossing(curve, nu)[0] == pytest.approx(predicted_memorization(SPECTRUM, 100), rel=1e-4)
    np.testing.assert_allclose(excess_entropy(np.ones((2, 400)), SPECTRUM, nu, count=100), np.tile(curve - 1, (2, 1)), rtol=1e-12)


@pytest.mark.parametrize(
    ("curve", "error", "reason"),
    [
        ([-0.1, -0.5, -2.0], 0.0, "never exceeds log N"),
        ([0.01, -0.5, -2.0], [0.02, 0.1, 0.1], "never exceeds log N"),
        ([-0.1, 0.05, -2.0], 0.0, "below 0 at the smallest"),
        ([3.0, 2.0, 1.0], 0.0, "above 0 up to the largest"),
    ],
)
def test_an_excess_entropy_that_does_not_cross_says_why(curve, error, reason):
    crossing, said = excess_entropy_crossing(curve, [1.0, 2.0, 4.0], error=error)
    assert np.isnan(crossing)
    assert reason in said


def test_the_crossing_is_linear_in_the_logarithm_of_noise():
    assert excess_entropy_crossing([2.0, 1.0, -3.0], [1.0, 2.0, 8.0], error=[0.5, 2.0, 2.0])[0] == pytest.approx(
        2 * 4**0.25, rel=1e-12
    )


def _known(gamma):
    """Return the excess gamma^2/(1+gamma)^3 and half its area, by partial fractions."""
    return gamma**2 / (1 + gamma) ** 3, 0.5 * (np.log1p(gamma) + 2 / (1 + gamma) - 0.5 / (1 + gamma) ** 2 - 1.5)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_integral_of_a_known_excess_is_right_within_its_error(sign):
    for count in (12, 24, 48):
        nu = np.geomspace(0.1, 20, count)
        excess, truth = _known(nu**-2)
        area = information_integral(sign * excess, nu)
        assert (np.abs(area.value - sign * truth)[:-1] < area.error[:-1] + 0.01 * truth[-1]).all()
        assert area.value[-1] == area.tail == pytest.approx(sign * truth[-1], rel=0.01)
        assert area.error[0] < 20 / count**2 * truth[0]


def test_the_integral_is_of_second_order():
    errors = []
    for count in (25, 50, 100):
        nu = np.geomspace(0.5, 50, count)
        excess, truth = _known(nu**-2)
        area = information_integral(excess, nu)
        errors.append(abs(area.value[0] - truth[0]))
        assert area.error[0] == pytest.approx(3 * errors[-1], rel=0.1)
    assert np.log2(np.array(errors[:-1]) / errors[1:]) == pytest.approx(2, abs=0.15)


def test_the_integral_agrees_with_that_of_cubics_for_a_positive_excess():
    """Two Gaussians: within the errors stated at a level and beside it, and at the largest level, where both are the tail."""
    nu = np.geomspace(0.1, 20, 24)
    excess, _ = _excess_of_two(nu, 1.0, 0.05, 2)
    area, cubics = information_integral(excess, nu), kl_from_gaussian(excess, nu)
    assert (np.abs(area.value - cubics)[:-1] < maximum_filter1d(area.error, 3)[:-1]).all()
    assert area.value[-1] == pytest.approx(cubics[-1], rel=1e-12)
    assert area.value[0] == pytest.approx(cubics[0], rel=0.01)


def test_the_integral_is_linear_and_of_the_last_axis():
    rng = np.random.default_rng(2)
    nu, excess = np.geomspace(0.2, 9, 10), rng.normal(size=(5, 4, 10))
    area = information_integral(excess, nu)
    weights = rng.normal(size=5)
    summed = information_integral(np.tensordot(weights, excess, 1), nu)
    np.testing.assert_allclose(summed.value, np.tensordot(weights, area.value, 1), rtol=1e-9, atol=1e-12)
    assert area.tail.shape == (5, 4)
    np.testing.assert_allclose(area.tail, excess[..., -1] * nu[-1] ** -2 / 6, rtol=1e-12)
    np.testing.assert_array_equal(area.error[2, 1], information_integral(excess[2, 1], nu).error)


def test_the_error_is_the_move_without_every_second_level():
    rng = np.random.default_rng(3)
    nu, excess = np.geomspace(0.2, 9, 9), rng.normal(size=9)
    area = information_integral(excess, nu)
    for level in range(9):
        coarse = information_integral(excess[level::2], nu[level::2]).value[0]
        assert area.error[level] == pytest.approx(abs(area.value[level] - coarse), rel=1e-9, abs=1e-12)
    assert area.error[-1] == 0 < area.error[-2]


def test_one_level_has_its_tail():
    area = information_integral([6.0 / 16], [2.0])
    assert (area.value.item(), area.error.item(), area.tail.item()) == (0.015625, 0.0, 0.015625)


def test_two_samples_forget_their_class_where_predicted():
    """U-Turns of +-m by exact reversal, one noise and one draw for all turn times: the interval of either class has the time."""
    rng = np.random.default_rng(4)
    nu, side = np.geomspace(0.3, 6, 24), np.repeat([1, -1], 1000)
    noise, draw = rng.normal(size=(2000, 4)), rng.random((2000, 4))
    posterior = 1 / (1 + np.exp(-2 * (side[:, None] + nu[:, None, None] * noise) / nu[:, None, None] ** 2))
    kept = (draw < posterior) == (side[:, None] > 0)
    truth = predicted_speciation_within_class(1.0, 0.0)
    for crossing in class_times(
        kept, side, nu, classes=[1, -1], level=0.5, resample=ClusterBootstrap(2000, 1000, 0.999, 0), chance=[0.5, 0.5]
    ):
        assert crossing.low < truth < crossing.high
        assert crossing.estimate == pytest.approx(truth, rel=0.06)
