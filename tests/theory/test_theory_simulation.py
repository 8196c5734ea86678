"""Simulated U-Turns against the closed forms, within sampling error."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from gaussian_test.analysis import GaussianScore, autocorrelation_discrete, autocorrelation_exact
from gaussian_test.analysis.theory.closed_form import discrete_law
from gaussian_test.sampler import (
    Ancestral,
    EDMStochastic,
    ExactReversal,
    GaussianComponents,
    MixtureScore,
    OrnsteinUhlenbeck,
    ProbabilityFlow,
    Rectified,
    ReverseSDE,
    UTurnPlan,
    VarianceExploding,
)

SPECTRUM = np.array([4.0, 1.0, 0.25, 0.01, 0.0])
SAMPLES = 6000


def _centered_samples(rng, spectrum):
    """Draw skewed samples whose mean and covariance are exactly 0 and diag(spectrum): the map is affine, so the law holds."""
    x = rng.exponential(size=(SAMPLES, len(spectrum)))
    x -= x.mean(0)
    whiten = np.linalg.inv(np.linalg.cholesky(x.T @ x / len(x)))
    return (x @ whiten.T) * np.sqrt(spectrum)


@pytest.mark.parametrize("process", [VarianceExploding(), OrnsteinUhlenbeck(), Rectified()], ids=repr)
@pytest.mark.parametrize(
    "kernel",
    [
        ReverseSDE(),
        ReverseSDE(clock="variance"),
        ReverseSDE("exponential"),
        ProbabilityFlow("euler"),
        ProbabilityFlow("heun"),
        EDMStochastic(16, S_churn=8, S_min=0.05, S_max=50, S_noise=1.003),
        Ancestral(),
        ExactReversal(),
    ],
    ids=repr,
)
def test_simulation_follows_the_discrete_law_at_16_steps(process, kernel):
    """ACF and end variance of every kernel at 16 steps, each mode and turn time within 4 standard errors; states rotated."""
    rng = np.random.default_rng(7)
    x = _centered_samples(rng, SPECTRUM)
    rotation = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    mean = rng.normal(size=5)
    covariance = (rotation * SPECTRUM) @ rotation.T
    score = GaussianScore.from_moments(mean, covariance, process=process, dtype=torch.float64)
    times = [float(process.time(nu)) for nu in (0.3, 1.5, 6.0)]
    plan = UTurnPlan(process, times, steps=16, seed=3, micro_batch=20000)
    x0 = torch.from_numpy(x @ rotation.T + mean)
    ends = np.empty((3, SAMPLES, 5))
    for state in plan.run(x0, range(SAMPLES), {"g": score}, {"g": kernel}):
        if state.phase == "end":
            ends[state.turns] = (state.x.numpy() - mean) @ rotation
    factor, variance = discrete_law(SPECTRUM, process, kernel, plan.grid, plan.levels)
    products = x * ends
    errors = products.std(1) / np.sqrt(SAMPLES) + 1e-12
    assert np.abs(products.mean(1) - factor * SPECTRUM)[:, :4].max() > 0  # a simulation, not the formula again
    np.testing.assert_array_less(np.abs(products.mean(1) - factor * SPECTRUM) / errors, 4)
    squares = ends**2
    errors = squares.std(1) / np.sqrt(SAMPLES) + 1e-12
    np.testing.assert_array_less(np.abs(squares.mean(1) - variance) / errors, 4)
    total = products.sum(2) / SPECTRUM.sum()
    expected = autocorrelation_discrete(SPECTRUM, process, kernel, plan.grid, plan.levels)
    np.testing.assert_array_less(np.abs(total.mean(1) - expected), 4 * total.std(1) / np.sqrt(SAMPLES))


def test_exact_reversal_of_a_gaussian_has_the_continuous_law():
    process = VarianceExploding()
    plan = UTurnPlan(process, [0.5, 2.0])
    discrete = autocorrelation_discrete(SPECTRUM, process, ExactReversal(), plan.grid, plan.levels)
    np.testing.assert_allclose(discrete, autocorrelation_exact(SPECTRUM, [0.5, 2.0]), rtol=1e-12)


@pytest.mark.parametrize("features", [256, 1024, 4096, 16384])
def test_class_retention_of_two_gaussians(features):
    r"""OU, means +-1_d, unit variance: phi = E (1 + tanh^2(c^2 + c y))/2 with c^2 = d e^{-2t}, y standard normal."""
    samples = 1500
    process = OrnsteinUhlenbeck()
    components = GaussianComponents(torch.stack([torch.ones(features), -torch.ones(features)]), torch.ones(2, features))
    score = MixtureScore(torch.ones(2), components, (features,), process=process)
    strengths = [0.25, 1.0, 2.25]  # c^2 at the three turn times
    plan = UTurnPlan(process, [0.5 * np.log(features / c2) for c2 in strengths], seed=1)
    generator = torch.Generator().manual_seed(5)
    agreed = np.zeros((len(strengths), samples))
    for start in range(0, samples, 500):
        sign = 1 - 2 * torch.randint(2, (500,), generator=generator)
        x0 = sign[:, None] + torch.randn(500, features, generator=generator)
        for state in plan.run(x0, range(start, start + 500), {"m": score}, {"m": ExactReversal()}):
            if state.phase == "end":
                agreed[state.turns, start : start + 500] = (state.x.sum(2).sign() == sign).numpy()
    expected = [
        quad(lambda y, c2=c2: norm.pdf(y) * (1 + np.tanh(c2 + np.sqrt(c2) * y) ** 2) / 2, -9, 9)[0]
        for c2 in sorted(strengths, reverse=True)  # ascending turn times
    ]
    errors = np.sqrt(np.array(expected) * (1 - np.array(expected)) / samples)
    np.testing.assert_array_less(np.abs(agreed.mean(1) - expected), 4 * errors)


def test_mmse_of_two_gaussians():
    r"""The mmse of two symmetric Gaussians in closed form, by one evaluation and by the pair (half the squared jump)."""
    features, variance, nu, samples = 6, 0.3, 1.1, 40000
    m = np.full(features, 0.8)
    strength = (m**2).sum() / (variance + nu**2)
    tanh = quad(lambda y: norm.pdf(y) * np.tanh(strength + np.sqrt(strength) * y), -9, 9)[0]
    shrink = variance / (variance + nu**2)
    mmse = features * variance * nu**2 / (variance + nu**2) + (1 - shrink) ** 2 * (m**2).sum() * (1 - tanh)
    means = torch.from_numpy(np.stack([m, -m]))
    components = GaussianComponents(means, torch.full((2, features), variance, dtype=torch.float64))
    score = MixtureScore(torch.ones(2), components, (features,))
    generator = torch.Generator().manual_seed(0)
    sign = 1 - 2 * torch.randint(2, (samples, 1), generator=generator)
    x0 = sign * torch.from_numpy(m) + np.sqrt(variance) * torch.randn(samples, features, generator=generator, dtype=torch.float64)
    plan = UTurnPlan(score.process, [nu], seed=2, micro_batch=samples)
    for state in plan.run(x0, range(samples), {"m": score}, {"m": ExactReversal()}):
        if state.phase == "turn":
            error = (score.denoise(state.x[0], nu) - x0).square().sum(1).numpy()
        else:
            jump = (state.x[0] - x0).square().sum(1).numpy() / 2
    for estimate in (error, jump):
        assert abs(estimate.mean() - mmse) < 4 * estimate.std() / np.sqrt(samples)
    assert (error - jump).std() > 0.1  # two different estimators of the same number
