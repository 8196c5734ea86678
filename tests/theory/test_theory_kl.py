"""The area under the gap is the divergence from the Gaussian (I-MMSE): direct integration, orders, errors and bands."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from gaussian_test.analysis import ClusterBootstrap, GaussianScore
from gaussian_test.analysis.observables.gaussian_test.curves import divergence
from gaussian_test.analysis.theory.predictions import information_integral, kl_from_gaussian
from gaussian_test.sampler import GaussianComponents, MixtureScore

WEIGHTS, MEANS, VARIANCES = np.array([0.3, 0.7]), np.array([-1.4, 0.6]), np.array([0.09, 0.25])


def _density(x, nu):
    return norm.pdf(np.asarray(x)[..., None], MEANS, np.sqrt(VARIANCES + nu**2)) @ WEIGHTS


def _moments():
    mean = (WEIGHTS * MEANS).sum()
    return mean, (WEIGHTS * (VARIANCES + (MEANS - mean) ** 2)).sum()


def _direct_kl(nu):
    mean, variance = _moments()
    spread = np.sqrt(variance + nu**2)

    def integrand(x):
        return _density(x, nu) * (np.log(_density(x, nu)) - norm.logpdf(x, mean, spread))

    return quad(integrand, -12 * spread, 12 * spread, limit=400, epsabs=1e-13)[0]


def _excess(nu):
    """Return lmmse - mmse = E|D - D_G|^2 by quadrature over x, with the product's own scores."""
    mean, variance = _moments()
    components = GaussianComponents(torch.from_numpy(MEANS[:, None]), torch.from_numpy(VARIANCES[:, None]))
    mixture = MixtureScore(torch.from_numpy(WEIGHTS), components, (1,))
    gaussian = GaussianScore.from_moments([mean], [[variance]], dtype=torch.float64)
    width = 10 * np.sqrt(variance + nu**2)
    x = torch.linspace(-width, width, 8001, dtype=torch.float64)[:, None]
    squared = (mixture.denoise(x, nu) - gaussian.denoise(x, nu)).square()[:, 0].numpy()
    return float((_density(x[:, 0].numpy(), nu) * squared).sum() * (x[1] - x[0]))


def test_area_under_the_gap_is_the_divergence():
    """Within 1 % on the default grid at every level up to 4; where all of it is extrapolated, to 10 % at nu = 8, to 5 % at 16."""
    nu = np.geomspace(0.1, 20, 24)
    measured = kl_from_gaussian([_excess(level) for level in nu], nu)
    for level, value in zip(nu[nu < 4], measured, strict=False):
        assert value == pytest.approx(_direct_kl(level), rel=0.01)
    for last, error in ((8.0, 0.1), (16.0, 0.05)):
        assert kl_from_gaussian([_excess(last / 2), _excess(last)], [last / 2, last])[1] == pytest.approx(
            _direct_kl(last), rel=error
        )


NU = np.geomspace(0.5, 8, 9)


def _known(gamma):
    """Return the excess gamma^2/(1+gamma)^3 and half its area, by partial fractions."""
    return gamma**2 / (1 + gamma) ** 3, 0.5 * (np.log1p(gamma) + 2 / (1 + gamma) - 0.5 / (1 + gamma) ** 2 - 1.5)


def test_the_integral_is_of_second_order():
    errors = []
    for count in (25, 50, 100):
        nu = np.geomspace(0.5, 50, count)
        excess, truth = _known(nu**-2)
        area = information_integral(excess, nu)
        errors.append(abs(area.value[0] - truth[0]))
        assert area.error[0] == pytest.approx(3 * errors[-1], rel=0.1)
    assert np.log2(np.array(errors[:-1]) / errors[1:]) == pytest.approx(2, abs=0.15)


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


def test_the_quadrature_error_holds_the_true_one():
    """Save that of the extrapolation, which the quadrature cannot know, and whose part is said."""
    for count, share in ((5, 0.2), (9, 0.05), (17, 0.01)):
        nu = np.geomspace(0.5, 8, count)
        found = divergence(np.tile(_known(nu**-2)[0], (4, 1)), 1.0, nu, ClusterBootstrap(4, 100))
        error = np.abs(found.kl_from_gaussian - _known(nu**-2)[1])
        tail = abs(float(found.kl_from_gaussian[-1]) - _known(nu[-1] ** -2)[1])
        assert (error <= found.kl_from_gaussian_quadrature_error + tail + 1e-12).all()
        assert float(found.kl_from_gaussian_quadrature_error[0]) < share * float(found.kl_from_gaussian[0])
        attributes = found.kl_from_gaussian.attrs
        assert attributes["cut_off_noise_to_signal"] == 8
        assert attributes["beyond_largest_turn_time"] == pytest.approx(_known(8.0**-2)[0] * 8.0**-2 / 6)


def test_the_standard_error_is_that_of_repeated_experiments():
    """Excess of a lognormal sample by sample: the spread of the divergence over 100 experiments is the error that each states."""
    random = np.random.default_rng(0)

    def experiment():
        factors = random.lognormal(0, 0.5, size=(100, 1)) * random.lognormal(0, 0.5, size=(100, len(NU)))
        return divergence(factors * _known(NU**-2)[0], 1.0, NU, ClusterBootstrap(100, 100))

    found = [experiment() for _ in range(100)]
    spread = np.std([one.kl_from_gaussian.values for one in found], axis=0)
    said = np.mean([one.kl_from_gaussian_se.values for one in found], axis=0)
    np.testing.assert_allclose(said, spread, rtol=4 / np.sqrt(200) + 0.03)
    truth = kl_from_gaussian(_known(NU**-2)[0] * np.exp(0.25), NU)
    covered = np.mean([((one.kl_from_gaussian_low <= truth) & (truth <= one.kl_from_gaussian_high)).all() for one in found])
    assert 0.88 <= covered <= 0.99
