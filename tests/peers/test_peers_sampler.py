"""The exact scores against scikit-learn: other people's densities and probabilities."""

import copy
from functools import cache

import numpy as np
import pytest
import torch
from sampler_zoo import PROCESSES, dense_covariances, pairwise_cover
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.mixture._gaussian_mixture import _compute_precision_cholesky
from sklearn.neighbors import KernelDensity

from gaussian_test.sampler import EmpiricalScore, MixtureScore

RNG = np.random.default_rng(0)
DATA = np.concatenate([RNG.normal(size=(70, 3)) * [1, 0.4, 2] + 1.5, RNG.normal(size=(50, 3)) - 1])
KINDS = ["full", "tied", "diag", "spherical"]


@cache
def fitted(kind, bayesian=False):
    kind_of_mixture = BayesianGaussianMixture if bayesian else GaussianMixture
    settings = {"covariance_type": kind, "random_state": 0, "init_params": "random_from_data", "max_iter": 500}
    return kind_of_mixture(n_components=3, **settings).fit(DATA)


def convolved(mixture, nu):
    """The fitted mixture of data with noise of standard deviation nu added, as scikit-learn's own object."""
    wide = copy.deepcopy(mixture)
    added = np.eye(3) if mixture.covariance_type in ("full", "tied") else 1.0
    wide.covariances_ = mixture.covariances_ + nu**2 * added
    wide.precisions_cholesky_ = _compute_precision_cholesky(wide.covariances_, mixture.covariance_type)
    return wide


def gradient(function, x, h=1e-4):
    """Central differences of fourth order of a function of rows."""
    result = np.empty_like(x)
    for axis in range(x.shape[1]):
        e = np.zeros(x.shape[1])
        e[axis] = h
        result[:, axis] = (8 * (function(x + e) - function(x - e)) - (function(x + 2 * e) - function(x - 2 * e))) / (12 * h)
    return result


@pytest.mark.parametrize(("kind", "process", "nu"), pairwise_cover(KINDS, PROCESSES, [0.1, 1.0, 8.0]))
def test_mixture_score_is_the_gradient_of_sklearns_density_and_responsibilities_are_its_probabilities(kind, process, nu):
    """log p_t(x) = log p(x / alpha; covariances + nu^2) - d log alpha."""
    mixture, process = fitted(kind), PROCESSES[process]()
    t = process.turn_time_from_noise_to_signal(nu)
    nu = float(process.noise_to_signal(t))  # of a discrete process the nearest level's
    alpha = float(process.alpha(t))
    y = DATA[::20] + nu * np.random.default_rng(1).normal(size=(6, 3))
    peer, x = convolved(mixture, nu), torch.from_numpy(alpha * y)
    score = MixtureScore.from_sklearn(mixture, process=process, dtype=torch.float64)
    np.testing.assert_allclose(score(x, t), gradient(peer.score_samples, y) / alpha, rtol=1e-6, atol=1e-7 / alpha)
    np.testing.assert_allclose(score.responsibilities(x, t), peer.predict_proba(y), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bayesian_mixture_is_its_point_estimate(kind):
    bayesian = fitted(kind, bayesian=True)
    score = MixtureScore.from_sklearn(bayesian, dtype=torch.float64)
    dense = MixtureScore.from_moments(bayesian.weights_, bayesian.means_, dense_covariances(bayesian), dtype=torch.float64)
    x = torch.from_numpy(DATA[::20])
    torch.testing.assert_close(score.denoise(x, 0.6), dense.denoise(x, 0.6))


@pytest.mark.parametrize("nu", [0.3, 1.0, 5.0])
def test_empirical_score_is_the_gradient_of_a_kernel_density(nu):
    """Data noised by nu is the Gaussian kernel density estimate of bandwidth nu."""
    density = KernelDensity(bandwidth=nu, kernel="gaussian", rtol=1e-13, atol=0).fit(DATA)
    x = DATA[:8] + nu * np.random.default_rng(3).normal(size=(8, 3))
    expected = gradient(density.score_samples, x, h=1e-3 * nu)
    score = EmpiricalScore.fit(DATA, dtype=torch.float64)(torch.from_numpy(x), nu)
    np.testing.assert_allclose(score.numpy(), expected, rtol=1e-6, atol=1e-7)
