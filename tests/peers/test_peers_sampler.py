"""The exact scores against scikit-learn, scipy and numpy: other people's densities, neighbours and softmax."""

import copy
from functools import cache

import numpy as np
import pytest
import scipy.special
import scipy.stats
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
def test_mixture_score_is_the_gradient_of_sklearns_density(kind, process, nu):
    """log p_t(x) = log p(x / alpha; covariances + nu^2) - d log alpha."""
    mixture, process = fitted(kind), PROCESSES[process]()
    t = process.turn_time_from_noise_to_signal(nu)
    nu = float(process.noise_to_signal(t))  # of a discrete process the nearest level's
    alpha = float(process.alpha(t))
    y = DATA[::20] + nu * np.random.default_rng(1).normal(size=(6, 3))
    expected = gradient(convolved(mixture, nu).score_samples, y) / alpha
    score = MixtureScore.from_sklearn(mixture, process=process, dtype=torch.float64)
    np.testing.assert_allclose(score(torch.from_numpy(alpha * y), t).numpy(), expected, rtol=1e-6, atol=1e-7 / alpha)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("nu", [0.1, 1.0, 8.0])
def test_responsibilities_are_sklearns(kind, nu):
    mixture = fitted(kind)
    y = DATA[::7]
    shares = MixtureScore.from_sklearn(mixture, dtype=torch.float64).responsibilities(torch.from_numpy(y), nu)
    np.testing.assert_allclose(shares.numpy(), convolved(mixture, nu).predict_proba(y), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bayesian_mixture_is_its_point_estimate(kind):
    bayesian = fitted(kind, bayesian=True)
    score = MixtureScore.from_sklearn(bayesian, dtype=torch.float64)
    dense = MixtureScore.from_moments(bayesian.weights_, bayesian.means_, dense_covariances(bayesian), dtype=torch.float64)
    x = torch.from_numpy(DATA[::20])
    torch.testing.assert_close(score.denoise(x, 0.6), dense.denoise(x, 0.6))


@pytest.mark.parametrize("nu", [0.05, 0.7, 20.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_empirical_denoiser_is_scipys_softmax(nu, dtype):
    x = DATA[:40] + nu * np.random.default_rng(2).normal(size=(40, 3))
    squares = ((x[:, None] - DATA[None]) ** 2).sum(2)
    expected = scipy.special.softmax(-squares / (2 * nu**2), axis=1) @ DATA
    denoised = EmpiricalScore.fit(DATA, dtype=dtype).denoise(torch.from_numpy(x).to(dtype), nu)
    tolerance = 1e-10 if dtype == torch.float64 else 2e-4
    np.testing.assert_allclose(denoised.double().numpy(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("nu", [0.3, 1.0, 5.0])
def test_empirical_score_is_the_gradient_of_a_kernel_density(nu):
    """Data noised by nu is the Gaussian kernel density estimate of bandwidth nu."""
    density = KernelDensity(bandwidth=nu, kernel="gaussian", rtol=1e-13, atol=0).fit(DATA)
    x = DATA[:8] + nu * np.random.default_rng(3).normal(size=(8, 3))
    expected = gradient(density.score_samples, x, h=1e-3 * nu)
    score = EmpiricalScore.fit(DATA, dtype=torch.float64)(torch.from_numpy(x), nu)
    np.testing.assert_allclose(score.numpy(), expected, rtol=1e-6, atol=1e-7)


def test_one_component_is_scipys_normal():
    mean, covariance = np.array([1.0, -2.0]), np.array([[2.0, 0.6], [0.6, 0.5]])
    x = np.random.default_rng(4).normal(size=(5, 2))
    wide = scipy.stats.multivariate_normal(mean, covariance + 0.49 * np.eye(2))
    score = MixtureScore.from_moments([1.0], mean[None], covariance[None], dtype=torch.float64)
    np.testing.assert_allclose(score(torch.from_numpy(x), 0.7).numpy(), gradient(wide.logpdf, x), rtol=1e-8, atol=1e-9)
