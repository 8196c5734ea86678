"""Reverse kernels: pure steps, each held against its formula and against the exact law of Gaussian data."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from sampler_zoo import ALPHAS_CUMPROD, BETAS, PROCESSES, SCORES, noise_like, normal

from gaussian_test.analysis.moments.gaussian_score import GaussianScore
from gaussian_test.sampler import (
    Ancestral,
    DiscreteVP,
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
from gaussian_test.sampler.noise import NO_NOISE
from gaussian_test.sampler.reverse import ReverseKernel

KERNELS = {
    "exact": ExactReversal,
    "sde": ReverseSDE,
    "sde_variance": lambda: ReverseSDE(clock="variance"),
    "sde_exponential": lambda: ReverseSDE("exponential"),
    "flow_heun": ProbabilityFlow,
    "flow_euler": lambda: ProbabilityFlow("euler"),
    "edm": lambda: EDMStochastic(steps=10),
    "edm_churn": lambda: EDMStochastic(steps=10, S_churn=4.0, S_noise=1.007),
    "ancestral": Ancestral,
}
DETERMINISTIC = ["flow_heun", "flow_euler", "edm"]
# steps that are the same in x / alpha at equal nu, whatever the process (of the SDE in its own time there is none)
UNIVERSAL = ["exact", "sde_variance", "flow_heun", "flow_euler", "edm", "edm_churn", "ancestral"]

SPECTRUM = torch.tensor([9.0, 1.0, 0.04, 1e-6, 0.0]).double()
MEAN = torch.tensor([0.5, -2.0, 0.0, 1.0, 3.0]).double()


def gaussian(process, dtype=torch.float64):
    return GaussianScore.from_moments(MEAN.numpy(), spectrum=SPECTRUM.numpy(), process=process, dtype=dtype)


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

    zero, one = torch.zeros(len(MEAN)).double(), torch.ones(len(MEAN)).double()
    origin = step(zero, zero, zero)
    return origin, *(step(*probe) - origin for probe in ((one, zero, zero), (zero, one, zero), (zero, zero, one)))


def pushed(kernel, score, t, s):
    """Mean and variance of each mode after the step, when the state at t has the exact Gaussian marginal."""
    process = score.process
    origin, gain, *noises = affine(kernel, score, t, s)
    mean, variance = process.alpha(t) * MEAN, process.alpha(t) ** 2 * SPECTRUM + process.sigma(t) ** 2
    return origin + gain * mean, gain**2 * variance + sum(n**2 for n in noises)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("score", ["empirical", "mixture", "gaussian_full", "gaussian_fewer_than_features"])
@pytest.mark.parametrize("s", [0.0, 0.4])
@pytest.mark.parametrize("batch", [1, 5])
def test_a_step_is_pure(kernel, score, s, batch):
    case = SCORES[score]()
    score, kernel = case.make(VarianceExploding(), torch.float32), KERNELS[kernel]()
    x = normal(batch, *case.event, dtype=torch.float32)
    noise = noise_like(x, second=True)
    kept = [value.clone() for value in (x, *noise, *score.buffers())]
    state = torch.get_rng_state()
    first = kernel.step(score, x, 1.0, s, noise)
    torch.rand(3)
    assert torch.equal(kernel.step(score, x, 1.0, s, noise), first)
    torch.set_rng_state(state)
    kernel.step(score, x, 1.0, s, noise)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(kept, (x, *noise, *score.buffers()), strict=True))
    assert first.dtype == torch.float32
    assert first.shape == x.shape
    assert first.data_ptr() != x.data_ptr()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("levels", STEPS)
def test_a_step_of_many_is_each_of_them(kernel, levels):
    process, kernel = VarianceExploding(), KERNELS[kernel]()
    score = EmpiricalScore(normal(30, 3))
    t, s = pair(process, levels)
    x = normal(6, 3, seed=1)
    noise = noise_like(x, second=True)
    together = kernel.step(score, x, t, s, noise)
    for row in range(6):
        alone = kernel.step(score, x[row : row + 1], t, s, Noise(*(value[row : row + 1] for value in noise)))
        torch.testing.assert_close(together[row : row + 1], alone)


@pytest.mark.parametrize("kernel", KERNELS)
def test_labels_reach_the_score(kernel):
    case, kernel = SCORES["empirical_labels"](), KERNELS[kernel]()
    score = case.make(VarianceExploding(), torch.float64)
    x = normal(4, 3)
    noise = noise_like(x, second=True)
    for label in range(case.classes):
        alone = kernel.step(case.refit(label, VarianceExploding(), torch.float64), x, 1.0, 0.4, noise)
        torch.testing.assert_close(kernel.step(score, x, 1.0, 0.4, noise, torch.full((4,), label)), alone)


@pytest.mark.parametrize("kernel", DETERMINISTIC)
def test_the_flow_ignores_the_noise(kernel):
    kernel, score, x = KERNELS[kernel](), EmpiricalScore(normal(9, 2)), normal(3, 2, seed=1)
    one, other = (kernel.step(score, x, 1.0, 0.3, noise_like(x, seed)) for seed in (1, 2))
    assert torch.equal(one, other)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("levels", STEPS)
def test_bridge_is_the_conditional_gaussian(process, levels):
    """Condition the joint law of (x_s, x_t) given x_0, of covariance [[s_s^2, a s_s^2], [a s_s^2, s_t^2]], a = alpha_t/alpha_s."""
    process = PROCESSES[process]()
    t, s = pair(process, levels)
    alpha_s, alpha_t = float(process.alpha(s)), float(process.alpha(t))
    sigma_s, sigma_t = float(process.sigma(s)), float(process.sigma(t))
    x0, x = normal(4, 3), normal(4, 3, seed=1)
    regression = (alpha_t / alpha_s) * sigma_s**2 / sigma_t**2
    mean = alpha_s * x0 + regression * (x - alpha_t * x0)
    variance = sigma_s**2 - regression * (alpha_t / alpha_s) * sigma_s**2
    drawn = bridge(process, x, x0, t, s, torch.zeros(4, 3).double())
    torch.testing.assert_close(drawn, mean, rtol=1e-9, atol=1e-10)
    z = normal(4, 3, seed=2)
    spread = (bridge(process, x, x0, t, s, z) - drawn) / z
    torch.testing.assert_close(spread**2, torch.full((4, 3), variance).double(), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("process", PROCESSES)
def test_bridge_ends_at_its_ends(process):
    process = PROCESSES[process]()
    x0, x, z = normal(4, 3), normal(4, 3, seed=1), normal(4, 3, seed=2)
    t = at(process, 2.0)
    assert torch.equal(bridge(process, x, x0, t, 0.0, z), x0)
    assert torch.equal(bridge(process, x, x0, t, t, z), x)


@pytest.mark.parametrize("process", PROCESSES)
def test_bridges_compose(process):
    """From t to u to s is from t to s: mean by probes, variance by the sum of squares."""
    process = PROCESSES[process]()
    t, u, s = at(process, 3.0), at(process, 1.0), at(process, 0.4)
    x, x0, zero, one = normal(2, 3), normal(2, 3, seed=1), torch.zeros(2, 3).double(), torch.ones(2, 3).double()

    def twice(first, second):
        return bridge(process, bridge(process, x, x0, t, u, first), x0, u, s, second)

    mean = twice(zero, zero)
    torch.testing.assert_close(mean, bridge(process, x, x0, t, s, zero), rtol=1e-11, atol=1e-12)
    variance = (twice(one, zero) - mean) ** 2 + (twice(zero, one) - mean) ** 2
    direct = (bridge(process, x, x0, t, s, one) - bridge(process, x, x0, t, s, zero)) ** 2
    torch.testing.assert_close(variance, direct, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("levels", [(30.0, 20.0), (2.0, 0.5), (50.0, 0.05)])
def test_exact_step_keeps_the_marginal(process, levels):
    process = PROCESSES[process]()
    t, s = pair(process, levels)
    mean, variance = pushed(ExactReversal(), gaussian(process), t, s)
    torch.testing.assert_close(mean, process.alpha(s) * MEAN, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(variance, process.alpha(s) ** 2 * SPECTRUM + process.sigma(s) ** 2, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kernel", ["exact", "ancestral", "sde_variance"])
@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("levels", [(30.0, 20.0), (2.0, 0.5), (50.0, 0.05)])
def test_mean_of_an_affine_score_is_exact(kernel, process, levels):
    """Gain and mean of each mode are those of the conditional expectation E[x_s | x_t]."""
    process = PROCESSES[process]()
    t, s = pair(process, levels)
    origin, gain, *_ = affine(KERNELS[kernel](), gaussian(process), t, s)
    nu_s, nu_t = process.noise_to_signal(s), process.noise_to_signal(t)
    expected = process.alpha(s) / process.alpha(t) * (SPECTRUM + nu_s**2) / (SPECTRUM + nu_t**2)
    torch.testing.assert_close(gain, expected, rtol=1e-8, atol=1e-11)
    torch.testing.assert_close(origin + gain * process.alpha(t) * MEAN, process.alpha(s) * MEAN, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("kernel", [name for name in KERNELS if name != "edm_churn"])  # whose rise does not shrink with the step
def test_small_steps_keep_the_marginal(kernel, process):
    """Whatever the kernel: halving a small step halves the error per unit of time of mean and variance, or there is none."""
    process, kernel = PROCESSES[process](), KERNELS[kernel]()
    if isinstance(process, DiscreteVP):
        t, steps = 400.0, [0.8, 0.4]  # inside one interval
    else:
        t = at(process, 1.0)
        steps = [0.02 * t, 0.01 * t]
    score, errors = gaussian(process), []
    for h in steps:
        mean, variance = pushed(kernel, score, t, t - h)
        exact = process.alpha(t - h) * MEAN, process.alpha(t - h) ** 2 * SPECTRUM + process.sigma(t - h) ** 2
        errors.append((float((mean - exact[0]).abs().max()), float((variance - exact[1]).abs().max()) / h))
    assert errors[1][0] <= 0.3 * errors[0][0] + 1e-12  # the mean's local error is at least of second order
    assert errors[1][1] <= 0.6 * errors[0][1] + 1e-9


@pytest.mark.parametrize("second_order", [False, True])
@pytest.mark.parametrize("levels", STEPS)
def test_flow_is_edms_algorithm(second_order, levels):
    score, (t, s) = EmpiricalScore(normal(20, 3)), levels
    x = 3 * normal(5, 3, seed=1)
    d = (x - score.denoise(x, t)) / t
    expected = x + (s - t) * d
    if second_order and s != 0:
        ahead = (expected - score.denoise(expected, s)) / s
        expected = x + (s - t) * (d / 2 + ahead / 2)
    kernel = ProbabilityFlow("heun" if second_order else "euler")
    torch.testing.assert_close(kernel.step(score, x, t, s, noise_like(x)), expected)


@pytest.mark.parametrize("levels", STEPS)
def test_euler_flow_is_ddim(levels):
    process = DiscreteVP(ALPHAS_CUMPROD)
    score = EmpiricalScore(normal(20, 3), process=process)
    t, s = pair(process, levels)
    x = normal(5, 3, seed=1)
    bar_t, bar_s = ALPHAS_CUMPROD[int(t) - 1], ALPHAS_CUMPROD[int(s) - 1] if s else 1.0
    x0 = score.denoise(x, t)
    epsilon = (x - math.sqrt(bar_t) * x0) / math.sqrt(1 - bar_t)
    expected = math.sqrt(bar_s) * x0 + math.sqrt(1 - bar_s) * epsilon
    torch.testing.assert_close(ProbabilityFlow("euler").step(score, x, t, s, noise_like(x)), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2)])
def test_flow_converges_at_its_order(method, order):
    """Towards sqrt((lambda + nu_s^2)/(lambda + nu_t^2)), the exact flow of each mode."""
    score, kernel, errors = gaussian(VarianceExploding()), ProbabilityFlow(method), []
    for count in (64, 128):
        gain = torch.ones(len(SPECTRUM)).double()
        grid = np.linspace(4.0, 0.5, count + 1)
        for t, s in pairwise(grid):
            gain = gain * affine(kernel, score, t, s)[1]
        exact = ((SPECTRUM + 0.25) / (SPECTRUM + 16)).sqrt()
        errors.append((gain - exact).abs()[:3])
    rate = (errors[0] / errors[1]).log2()
    assert bool(((rate - order).abs() < 0.1).all())


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("levels", STEPS)
def test_edm_without_churn_is_heun(process, levels):
    process = PROCESSES[process]()
    score = EmpiricalScore(normal(20, 3), process=process)
    t, s = pair(process, levels)
    x = normal(5, 3, seed=1)
    noise = noise_like(x)
    for kernel in (EDMStochastic(8), EDMStochastic(8, S_churn=5, S_min=40.0), EDMStochastic(8, S_churn=5, S_max=0.4)):
        assert torch.equal(kernel.step(score, x, t, s, noise), ProbabilityFlow().step(score, x, t, s, noise))


@pytest.mark.parametrize("churn", [0.5, 2.0, 1000.0])
@pytest.mark.parametrize("s_noise", [1.0, 1.003, 0.0])
@pytest.mark.parametrize("levels", STEPS)
def test_edm_is_algorithm_two(churn, s_noise, levels):
    score, (t, s) = EmpiricalScore(normal(20, 3)), levels
    x = 3 * normal(5, 3, seed=1)
    noise = noise_like(x)
    gamma = min(churn / 8, math.sqrt(2) - 1)
    t_hat = t + gamma * t
    churned = x + math.sqrt(t_hat**2 - t**2) * s_noise * noise.normal
    d = (churned - score.denoise(churned, t_hat)) / t_hat
    expected = churned + (s - t_hat) * d
    if s != 0:
        expected = churned + (s - t_hat) * (d + (expected - score.denoise(expected, s)) / s) / 2
    kernel = EDMStochastic(8, S_churn=churn, S_noise=s_noise)
    torch.testing.assert_close(kernel.step(score, x, t, s, noise), expected)


def test_churn_acts_between_its_bounds_inclusive():
    kernel = EDMStochastic(steps=10, S_churn=2.0, S_min=0.1, S_max=5.0)
    gammas = [kernel.gamma(nu) for nu in (0.0999, 0.1, 1.0, 5.0, 5.001)]
    assert gammas == [0.0, 0.2, 0.2, 0.2, 0.0]


@pytest.mark.parametrize("process", PROCESSES)
def test_churn_does_not_leave_the_process(process):
    process = PROCESSES[process]()
    score = gaussian(process)
    x = normal(3, len(MEAN))
    noise = noise_like(x)
    t, s = process.time_max, at(process, 1.0)
    churned = EDMStochastic(4, S_churn=1000.0).step(score, x, t, s, noise)
    torch.testing.assert_close(churned, ProbabilityFlow().step(score, x, t, s, noise))


@pytest.mark.parametrize("k", [1, 2, 30, 500, 1000])
def test_ancestral_is_ddpm(k):
    """Ho et al., equation 7: mean from beta, alpha-bar; variance beta-tilde."""
    process = DiscreteVP(ALPHAS_CUMPROD)
    score = EmpiricalScore(normal(20, 3), process=process)
    x = normal(5, 3, seed=1)
    noise = noise_like(x)
    beta, bar, before = BETAS[k - 1], ALPHAS_CUMPROD[k - 1], ALPHAS_CUMPROD[k - 2] if k > 1 else 1.0
    x0 = score.denoise(x, float(k))
    mean = math.sqrt(before) * beta / (1 - bar) * x0 + math.sqrt(1 - beta) * (1 - before) / (1 - bar) * x
    beta_tilde = (1 - before) / (1 - bar) * beta
    expected = mean + math.sqrt(beta_tilde) * noise.normal
    torch.testing.assert_close(Ancestral().step(score, x, float(k), float(k - 1), noise), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("levels", STEPS)
def test_time_clock_is_euler_maruyama(process, levels):
    process = PROCESSES[process]()
    score = EmpiricalScore(normal(20, 3), process=process)
    t, s = pair(process, levels)
    x = normal(5, 3, seed=1)
    noise = noise_like(x)
    h, f, g2 = t - s, float(process.f(t)), float(process.g2(t))
    expected = x - h * (f * x - g2 * score(x, t)) + math.sqrt(g2 * h) * noise.normal
    torch.testing.assert_close(ReverseSDE().step(score, x, t, s, noise), expected)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("levels", STEPS)
def test_variance_clock_moves_each_mode_towards_the_mean(process, levels):
    process = PROCESSES[process]()
    t, s = pair(process, levels)
    nu_s, nu_t = float(process.noise_to_signal(s)), float(process.noise_to_signal(t))
    x = normal(5, len(MEAN), seed=1)
    noise = noise_like(x)
    y = x / process.alpha(t)
    gain = (SPECTRUM + nu_s**2) / (SPECTRUM + nu_t**2)
    expected = MEAN + gain * (y - MEAN) + math.sqrt(nu_t**2 - nu_s**2) * noise.normal
    stepped = ReverseSDE(clock="variance").step(gaussian(process), x, t, s, noise)
    torch.testing.assert_close(stepped / process.alpha(s), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("levels", STEPS)
@pytest.mark.parametrize("clock", ["time", "variance"])
def test_exponential_step_of_ornstein_uhlenbeck(levels, clock):
    process = OrnsteinUhlenbeck()
    score = EmpiricalScore(normal(20, 3), process=process)
    t, s = pair(process, levels)
    x, h = normal(5, 3, seed=1), t - s
    noise = noise_like(x)
    expected = math.exp(h) * x + 2 * math.expm1(h) * score(x, t) + math.sqrt(math.expm1(2 * h)) * noise.normal
    torch.testing.assert_close(ReverseSDE("exponential", clock).step(score, x, t, s, noise), expected)


@pytest.mark.parametrize("levels", STEPS)
def test_exponential_step_of_variance_exploding_is_the_variance_clock(levels):
    """Without drift there is nothing to integrate but the noise."""
    score, (t, s) = EmpiricalScore(normal(20, 3)), levels
    x = normal(5, 3, seed=1)
    noise = noise_like(x)
    one, other = (kernel.step(score, x, t, s, noise) for kernel in (ReverseSDE("exponential"), ReverseSDE(clock="variance")))
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kernel", UNIVERSAL)
@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("levels", [(20.0, 10.0), (2.0, 0.5), (0.5, 0.0)])
def test_equal_ratios_step_equally(kernel, process, levels):
    process, kernel = PROCESSES[process](), KERNELS[kernel]()
    t, s = pair(process, levels)
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


def test_exact_kernel_says_it_is_exact():
    assert [name for name, make in KERNELS.items() if make().exact] == ["exact"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ReverseSDE("milstein"), "not a method of the reverse SDE"),
        (lambda: ReverseSDE(clock="sun"), "not a clock"),
        (lambda: ProbabilityFlow("rk4"), "not a method of the probability flow"),
        (lambda: EDMStochastic(0), "steps = 0"),
        (lambda: EDMStochastic(8, S_churn=-1), "S_churn = -1"),
        (lambda: EDMStochastic(8, S_churn=math.nan), "S_churn = nan"),
        (lambda: EDMStochastic(8, S_min=-0.1), "S_min = -0.1"),
        (lambda: EDMStochastic(8, S_max=-0.1), "S_max = -0.1"),
        (lambda: EDMStochastic(8, S_noise=-0.1), "S_noise = -0.1"),
    ],
)
def test_impossible_kernels_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_exact_step_above_zero_needs_a_second_variable():
    x = torch.zeros(1, 2)
    with pytest.raises(ValueError, match="second normal variable"):
        ExactReversal().step(EmpiricalScore(x), x, 1.0, 0.5, noise_like(x))


def test_a_kernel_must_step():
    with pytest.raises(TypeError, match="abstract"):
        ReverseKernel()


def test_repr_rebuilds_the_kernel():
    for make in KERNELS.values():
        kernel = make()
        names = {type(kernel).__name__: type(kernel), "inf": math.inf}
        assert vars(eval(repr(kernel), names)) == vars(kernel)


@pytest.mark.parametrize("nu", [0.01, 0.5, 60.0])
def test_churn_rises_by_gamma_within_the_process(nu):
    kernel, process = EDMStochastic(steps=10, S_churn=3.0, S_min=0.05, S_max=50.0), PROCESSES["cosine"]()
    t = float(process.time(nu))
    risen = float(process.noise_to_signal(kernel.risen(process, t)))
    assert risen == pytest.approx(nu * (1 + (0.3 if 0.05 <= nu <= 50 else 0)), rel=1e-9)


@pytest.mark.parametrize("make", [ProbabilityFlow, lambda: ProbabilityFlow("euler"), lambda: EDMStochastic(steps=9)])
def test_a_kernel_that_says_so_does_not_look_at_its_noise(make):
    kernel, score = make(), EmpiricalScore(normal(9, 3, seed=1))
    assert not kernel.uses_noise
    x = 2 * normal(4, 3, seed=2)
    assert torch.equal(kernel.step(score, x, 2.0, 1.0, NO_NOISE), kernel.step(score, x, 2.0, 1.0, noise_like(x)))
    assert EDMStochastic(steps=9, S_churn=1.0).uses_noise
