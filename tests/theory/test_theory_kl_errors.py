"""Errors of the divergence from the Gaussian: coverage of its band, and a quadrature error that holds the true one."""

import numpy as np
import pytest

from gaussian_test.analysis import ClusterBootstrap
from gaussian_test.analysis.observables.gaussian_test.curves import divergence
from gaussian_test.analysis.theory.predictions import kl_from_gaussian

NU = np.geomspace(0.5, 8, 9)


def excess(nu):
    """lmmse - mmse of a skewed law with a scale of its own: gamma^2/(1+gamma)^3, whose integral is known."""
    gamma = nu**-2.0
    return gamma**2 / (1 + gamma) ** 3


def area(nu):
    gamma = nu**-2.0
    return 0.5 * (np.log1p(gamma) + 2 / (1 + gamma) - 0.5 / (1 + gamma) ** 2 - 1.5)


def test_the_quadrature_error_holds_the_true_one():
    for count, share in ((5, 0.2), (9, 0.05), (17, 0.01)):
        nu = np.geomspace(0.5, 8, count)
        found = divergence(np.tile(excess(nu), (4, 1)), 1.0, nu, ClusterBootstrap(4, 100))
        error = np.abs(found.kl_from_gaussian - area(nu))
        tail = abs(float(found.kl_from_gaussian[-1]) - area(nu[-1]))  # of the extrapolation, which the quadrature cannot know
        assert (error <= found.kl_from_gaussian_quadrature_error + tail + 1e-12).all()
        assert float(found.kl_from_gaussian_quadrature_error[0]) < share * float(found.kl_from_gaussian[0])


def test_the_part_beyond_the_largest_noise_level_is_said():
    found = divergence(np.tile(excess(NU), (4, 1)), 1.0, NU, ClusterBootstrap(4, 100))
    attributes = found.kl_from_gaussian.attrs
    assert attributes["cut_off_noise_to_signal"] == 8
    assert attributes["beyond_largest_turn_time"] == pytest.approx(excess(8.0) * 8.0**-2 / 6)


def test_the_standard_error_is_that_of_repeated_experiments():
    """Excess of a lognormal sample by sample: the spread of the divergence over 400 experiments is the error that each states."""
    random = np.random.default_rng(0)

    def experiment():
        factors = random.lognormal(0, 0.5, size=(100, 1)) * random.lognormal(0, 0.5, size=(100, len(NU)))
        return divergence(factors * excess(NU), 1.0, NU, ClusterBootstrap(100, 100))

    found = [experiment() for _ in range(200)]
    spread = np.std([one.kl_from_gaussian.values for one in found], axis=0)
    said = np.mean([one.kl_from_gaussian_se.values for one in found], axis=0)
    np.testing.assert_allclose(said, spread, rtol=4 / np.sqrt(400) + 0.03)
    truth = kl_from_gaussian(excess(NU) * np.exp(0.25), NU)
    covered = np.mean([((one.kl_from_gaussian_low <= truth) & (truth <= one.kl_from_gaussian_high)).all() for one in found])
    assert 0.9 <= covered <= 0.99


def test_without_an_empirical_score_there_is_none():
    found = divergence(None, 1.0, NU, ClusterBootstrap(4, 100))
    assert np.isnan(found.kl_from_gaussian_high).all()
    assert "no unconditional empirical score" in found.kl_from_gaussian.attrs["reason"]
