"""Reverse kernels: the bridge, EDM's algorithm, and the exact step against the exact law of Gaussian data.

That each keeps the laws of check_kernel (pure, rows, class, noise, marginal, flow, order, ...) is in test_face_conformance.py, and
that the steps of each are the textbook's in every process in test_theory_sampler_law.py.
"""

import math

import pytest
import torch
from sampler_zoo import KERNELS, PROCESSES, SCORES, noise_like, normal

from gaussian_test.analysis.moments.gaussian_score import GaussianScore
from gaussian_test.sampler import (
    EDMStochastic,
    EmpiricalScore,
    ExactReversal,
    Noise,
    OrnsteinUhlenbeck,
    ProbabilityFlow,
    ReverseSDE,
    VarianceExploding,
    bridge,
)

# steps that are the same in x / alpha at equal nu, whatever the process (of the SDE in its own time there is none)
UNIVERSAL = ["exact", "sde_variance", "euler", "heun", "edm", "edm_churn", "ancestral"]

SPECTRUM = torch.tensor([9.0, 1.0, 0.04, 1e-6, 0.0]).double()
MEAN = torch.tensor([0.5, -2.0, 0.0, 1.0, 3.0]).double()


def gaussian(process):
    return GaussianScore.from_moments(MEAN.numpy(), spectrum=SPECTRUM.numpy(), process=process, dtype=torch.float64)


def at(process, level):
    return process.turn_time_from_noise_to_signal(level)


STEPS = [(30.0, 20.0), (2.0, 0.5), (0.5, 0.45), (0.5, 0.0)]


def pair(process, levels):
    return at(process, levels[0]), (at(process, levels[1]) if levels[1] else 0.0)


def affine(kernel, score, t, s):
    """Offset, gain on the state and gains on the two noises of a step with a diagonal affine score, by linear probes."""

    def step(x, normal_, second):
        noise = Noise(normal_.reshape(1, -1), torch.full((1,), 0.5).double(), second.reshape(1, -1))
        return kernel.step(score, x.reshape(1, -1), t, s, noise).flatten()

    probes = torch.eye(3).double().unsqueeze(2).expand(3, 3, len(MEAN))
    origin = step(*torch.zeros_like(probes[0]))
    return origin, *(step(*probe) - origin for probe in probes)


def steps_of(process):
    """What each of the steps is given: an empirical score in a process, five states, the times and a noise."""
    x = normal(5, 3, seed=1)
    for levels in STEPS:
        yield EmpiricalScore(normal(20, 3), process=process), x, *pair(process, levels), noise_like(x)


@pytest.mark.parametrize("process", PROCESSES)
def test_bridge_is_the_conditional_gaussian(process):
    """Condition the joint law of (x_s, x_t) given x_0, of covariance [[s_s^2, a s_s^2], [a s_s^2, s_t^2]], a = alpha_t/alpha_s."""
    process = PROCESSES[process]()
    x0, x, z = normal(4, 3), normal(4, 3, seed=1), normal(4, 3, seed=2)
    for t, s in (pair(process, levels) for levels in STEPS):
        alpha_s, alpha_t = float(process.alpha(s)), float(process.alpha(t))
        sigma_s, sigma_t = float(process.sigma(s)), float(process.sigma(t))
        regression = (alpha_t / alpha_s) * sigma_s**2 / sigma_t**2
        mean = alpha_s * x0 + regression * (x - alpha_t * x0)
        variance = sigma_s**2 - regression * (alpha_t / alpha_s) * sigma_s**2
        drawn = bridge(process, x, x0, t, s, torch.zeros(4, 3).double())
        torch.testing.assert_close(drawn, mean, rtol=1e-9, atol=1e-10)
        spread = (bridge(process, x, x0, t, s, z) - drawn) / z
        torch.testing.assert_close(spread**2, torch.full((4, 3), variance).double(), rtol=1e-6, atol=1e-12)
        assert torch.equal(bridge(process, x, x0, t, 0.0, z), x0)
        assert torch.equal(bridge(process, x, x0, t, t, z), x)


@pytest.mark.parametrize("process", PROCESSES)
def test_the_exact_step_of_an_affine_score_has_the_exact_law(process):
    """Gain and mean of each mode are those of E[x_s | x_t], and the variance is kept; other kernels: test_theory_sampler_law.py."""
    process, spectrum = PROCESSES[process](), SPECTRUM
    for t, s in (pair(process, levels) for levels in [*STEPS[:2], (50.0, 0.05)]):
        origin, gain, *noises = affine(ExactReversal(), gaussian(process), t, s)
        alpha, nu_s, nu_t = process.alpha(s), process.noise_to_signal(s), process.noise_to_signal(t)
        expected = alpha / process.alpha(t) * (spectrum + nu_s**2) / (spectrum + nu_t**2)
        torch.testing.assert_close(gain, expected, rtol=1e-8, atol=1e-11)
        torch.testing.assert_close(origin + gain * process.alpha(t) * MEAN, alpha * MEAN, rtol=1e-8, atol=1e-9)
        variance, later = (process.alpha(u) ** 2 * spectrum + process.sigma(u) ** 2 for u in (s, t))
        torch.testing.assert_close(gain**2 * later + sum(n**2 for n in noises), variance, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("churn", "s_noise"), [(0.0, 1.003), (0.5, 1.0), (2.0, 1.003), (2.0, 0.0), (1000.0, 1.003)])
def test_edm_is_algorithm_two(churn, s_noise):
    for score, x, t, s, noise in steps_of(VarianceExploding()):
        gamma = min(churn / 8, math.sqrt(2) - 1)
        t_hat = t + gamma * t
        churned = x + math.sqrt(t_hat**2 - t**2) * s_noise * noise.normal
        d = (churned - score.denoise(churned, t_hat)) / t_hat
        expected = churned + (s - t_hat) * d
        if s != 0:
            expected = churned + (s - t_hat) * (d + (expected - score.denoise(expected, s)) / s) / 2
        kernel = EDMStochastic(8, S_churn=churn, S_noise=s_noise)
        torch.testing.assert_close(kernel.step(score, x, t, s, noise), expected)


@pytest.mark.parametrize("process", PROCESSES)
def test_edm_without_churn_is_heun_and_churn_does_not_leave_the_process(process):
    process, x = PROCESSES[process](), normal(3, len(MEAN))
    given = gaussian(process), x, process.time_max, at(process, 1.0), noise_like(x)
    torch.testing.assert_close(EDMStochastic(4, S_churn=1000.0).step(*given), ProbabilityFlow().step(*given))
    for given in steps_of(process):
        for kernel in (EDMStochastic(8), EDMStochastic(8, S_churn=5, S_min=40.0), EDMStochastic(8, S_churn=5, S_max=0.4)):
            assert torch.equal(kernel.step(*given), ProbabilityFlow().step(*given))


def test_exponential_step_has_no_clock_and_without_drift_is_the_step_of_the_variance_clock():
    kernels = ReverseSDE("exponential"), ReverseSDE("exponential", "variance"), ReverseSDE(clock="variance")
    for process in (VarianceExploding(), OrnsteinUhlenbeck()):
        for given in steps_of(process):
            one, same, without_drift = (kernel.step(*given) for kernel in kernels)
            assert torch.equal(one, same)
            assert torch.allclose(one, without_drift) == (process.f(1.0) == 0)


@pytest.mark.parametrize("kernel", UNIVERSAL)
@pytest.mark.parametrize("process", PROCESSES)
def test_equal_ratios_step_equally(kernel, process):
    process, kernel = PROCESSES[process](), KERNELS[kernel]()
    for t, s in (pair(process, levels) for levels in STEPS[1:]):
        nu_t, nu_s = float(process.noise_to_signal(t)), float(process.noise_to_signal(s))
        samples, y = normal(20, 3), nu_t * normal(5, 3, seed=1)
        noise = noise_like(y, second=True)
        here = kernel.step(EmpiricalScore(samples, process=process), process.alpha(t) * y, t, s, noise)
        there = kernel.step(EmpiricalScore(samples), y, nu_t, nu_s, noise)
        torch.testing.assert_close(here / process.alpha(s), there, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("score", SCORES)
def test_exact_step_to_zero_is_a_posterior_draw_row_by_row(score):
    case = SCORES[score]()
    score = case.make(VarianceExploding(), torch.float64)
    x, t = normal(4, *case.event), torch.tensor([0.1, 0.9, 3.0, 20.0]).double()
    noise, label = noise_like(x), case.labels(4, case.needs_label)
    assert torch.equal(ExactReversal().step(score, x, t, 0.0, noise, label), score.posterior(x, t, noise, label))
    with pytest.raises(ValueError, match="second normal variable"):
        ExactReversal().step(score, x, 1.0, 0.5, noise, label)


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (ReverseSDE, {"method": "milstein"}, "not a method of the reverse SDE"),
        (ReverseSDE, {"clock": "sun"}, "not a clock"),
        (ProbabilityFlow, {"method": "rk4"}, "not a method of the probability flow"),
        (EDMStochastic, {"steps": 0}, "steps = 0"),
        *(
            (EDMStochastic, {"steps": 8, name: value}, f"{name} = {value}")
            for name, value in [("S_churn", -1), ("S_churn", math.nan), ("S_min", -0.1), ("S_max", -0.1), ("S_noise", -0.1)]
        ),
    ],
)
def test_impossible_kernels_are_refused(kind, given, message):
    with pytest.raises(ValueError, match=message):
        kind(**given)


def test_repr_rebuilds_the_kernel():
    assert [name for name, make in KERNELS.items() if make().exact] == ["exact"]
    for make in KERNELS.values():
        kernel = make()
        names = {type(kernel).__name__: type(kernel), "inf": math.inf}
        assert vars(eval(repr(kernel), names)) == vars(kernel)


def test_churn_rises_by_gamma_between_its_bounds_inclusive():
    kernel, process = EDMStochastic(steps=10, S_churn=2.0, S_min=0.1, S_max=5.0), PROCESSES["cosine"]()
    for nu, gamma in ((0.01, 0.0), (0.0999, 0.0), (0.1, 0.2), (1.0, 0.2), (5.0, 0.2), (5.001, 0.0), (60.0, 0.0)):
        assert kernel.gamma(nu) == gamma
        if nu not in (0.1, 5.0):  # where rounding of the time decides
            risen = float(process.noise_to_signal(kernel.risen(process, float(process.time(nu)))))
            assert risen == pytest.approx(nu * (1 + gamma), rel=1e-9)
