"""Predictions from the data alone: closed forms, direct integration, Monte Carlo, and the laws that tie them together."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit, logsumexp

from gaussian_test import analysis
from gaussian_test.analysis import autocorrelation_exact, predicted_memorization
from gaussian_test.analysis.theory.predictions import excess_entropy, excess_entropy_crossing, information_integral
from gaussian_test.analysis.theory.two_modes import retention_signal_to_noise, two_gaussians

SPECTRUM = np.array([9.0, 2.0, 0.5, 0.01, 0.0])
IMPOSSIBLE = [{"separation": 0.0}, {"separation": -1.0, "variance": 1.0}, {"variance": -0.1}]
ONE = {"separation": 1.0, "variance": 0.0, "dimension": 1}
THREE = [SPECTRUM, [0.3, 0.2], np.geomspace(5, 1e-9, 40)]


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


@pytest.mark.parametrize(
    ("spectra", "counts"),
    [(THREE, [30, 500, 7]), (THREE, [1, 10**6, 3]), (THREE, [1, 1, 2]), ([SPECTRUM], [50]), ([[1.0], [0.0]], [20, 20])],
)
def test_the_prediction_within_classes_solves_its_equation(spectra, counts):
    nu = analysis.predicted_memorization_within_class(spectra, counts)
    share = np.array(counts) / sum(counts)
    within = [np.log1p(np.asarray(values) / nu**2).sum() / 2 for values in spectra]
    assert share @ within - share @ np.log(share) == pytest.approx(np.log(sum(counts)), rel=1e-9)
    turned = analysis.predicted_memorization_within_class(spectra[::-1], counts[::-1])
    assert turned == pytest.approx(nu, rel=1e-11)


def test_what_cannot_be_solved_is_undefined():
    assert np.isnan(analysis.predicted_memorization_within_class([SPECTRUM, SPECTRUM], [1, 1]))
    assert np.isnan(analysis.predicted_memorization_within_class([[0.0], []], [5, 6]))


@pytest.mark.parametrize("level", [1e-6, 0.5, 0.999])
def test_retention_is_the_level_at_its_signal_to_noise(level):
    """E tanh^2 by adaptive quadrature; and E tanh, which is the same for the two hypotheses of an exact posterior."""
    square = retention_signal_to_noise(level)
    for lost in (_of_square, _of_first):
        assert 1 - _expectation(lost, square) == pytest.approx(level, abs=1e-12)


@pytest.mark.parametrize(("separation", "variance", "level"), [(2.0, 0.5, 0.2), (1.0, 0.0, 0.5), (5.0, 3.0, 0.8)])
def test_speciation_of_two_gaussians_is_where_their_retention_is_the_level(separation, variance, level):
    nu = analysis.predicted_speciation_within_class(separation**2, variance, level=level)
    kept = two_gaussians([nu], separation=separation, variance=variance, dimension=3).same_class[0]
    assert (kept - 0.5) / 0.5 == pytest.approx(level, abs=1e-11)


def test_classes_that_overlap_too_much_have_no_speciation():
    """The retention without noise is below the level when v c*^2 > lambda_B."""
    limit = 1 / retention_signal_to_noise(0.5)
    assert np.isnan(analysis.predicted_speciation_within_class(1.0, limit * 1.001))
    assert analysis.predicted_speciation_within_class(1.0, limit * 0.999) < 0.05


@pytest.mark.parametrize("square", [1e-3, 1.0, 9.0, 100.0])
def test_quadrature_is_as_accurate_as_stated(square):
    """Against adaptive quadrature of the forms in the docstring, to 1e-12; v = 0, so that c^2 = |m|^2/nu^2."""
    found = two_gaussians([0.5], separation=0.5 * np.sqrt(square), variance=0.0, dimension=1)
    assert 2 * (1 - found.same_class[0]) == pytest.approx(_expectation(_of_square, square), abs=1e-12)
    lost = found.mmse[0] / (0.25 * square)
    assert lost == pytest.approx(_expectation(_of_first, square), abs=1e-12, rel=0)
    assert lost == pytest.approx(_expectation(_of_first, square), abs=0, rel=1e-3)  # however little is lost


def test_two_gaussians_in_one_place_are_one():
    nu = np.geomspace(0.1, 10, 7)
    found = two_gaussians(nu, separation=0.0, variance=0.7, dimension=4)
    np.testing.assert_allclose(found.autocorrelation, autocorrelation_exact([0.7] * 4, nu), rtol=1e-12)
    np.testing.assert_allclose(found.same_class, 0.5, rtol=1e-12)


def _excess_of_two(nu, separation, variance, dimension):
    """Return lmmse - mmse."""
    values = np.array([variance] * (dimension - 1) + [variance + separation**2])
    lmmse = (values * nu[:, None] ** 2 / (values + nu[:, None] ** 2)).sum(1)
    return lmmse - two_gaussians(nu, separation=separation, variance=variance, dimension=dimension).mmse, values


def test_separated_classes_collapse_where_predicted_within_classes():
    """Two Gaussians far apart: the information is log 2 and that of one; f^e vanishes where the within-class time says, to 1e-4."""
    nu = np.geomspace(0.05, 400, 1500)
    excess, values = _excess_of_two(nu, 30.0, 1.0, 6)
    area = information_integral(excess, nu, eigenvalues=values, third_cumulant_norm=0.0)
    curve = excess_entropy(area.value, values, nu, count=400)
    crossing, reason = excess_entropy_crossing(curve, nu, error=area.error)
    assert crossing == pytest.approx(analysis.predicted_memorization_within_class([[1.0] * 6] * 2, [200, 200]), rel=1e-4)
    assert reason == ""
    assert abs(np.log(crossing / predicted_memorization(values, 400))) > 0.05


def test_the_information_of_two_gaussians_is_that_of_their_density():
    """I = h(x_t) - h(noise), with the entropy of the one-dimensional mixture by adaptive quadrature."""
    nu = np.geomspace(0.05, 100, 1000)
    excess, values = _excess_of_two(nu, 1.5, 0.3, 1)
    information = excess_entropy(
        information_integral(excess, nu, eigenvalues=values, third_cumulant_norm=0.0).value, values, nu, count=1
    )
    for index in (200, 400, 600):
        spread = np.sqrt(0.3 + nu[index] ** 2)

        def log_density(x, spread=spread):
            logs = [-(((x - s) / spread) ** 2) / 2 for s in (1.5, -1.5)]
            return logsumexp(logs) - np.log(2 * spread * np.sqrt(2 * np.pi))

        width = 1.5 + 12 * spread
        entropy = quad(lambda x, p=log_density: -np.exp(p(x)) * p(x), -width, width, limit=400)[0]
        assert information[index] == pytest.approx(entropy - np.log(nu[index] ** 2 * 2 * np.pi * np.e) / 2, rel=2e-4)


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
    # one that does is linear in the logarithm of noise
    crossing, _ = excess_entropy_crossing([2.0, 1.0, -3.0], [1.0, 2.0, 8.0], error=[0.5, 2.0, 2.0])
    assert crossing == pytest.approx(2 * 4**0.25, rel=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: analysis.predicted_memorization_within_class([SPECTRUM], [3, 4]), "give one spectrum for each class that has"),
        (lambda: analysis.predicted_memorization_within_class([SPECTRUM] * 2, [3, 0]), "give one spectrum for each class that has"),
        *((lambda x=x: retention_signal_to_noise(x), r"level .* give a share in \(0, 1\)") for x in (0.0, 1.0, -0.2, np.nan)),
        *((lambda x=x: two_gaussians(x, **ONE), "noise-to-signal ratio .* give positive") for x in ([1, 0], [-1.0], [np.nan])),
        *((lambda x=x: two_gaussians([1.0], **(ONE | x)), "separation .* nonnegative ones, not both zero") for x in IMPOSSIBLE),
    ],
)
def test_what_predicts_nothing_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
