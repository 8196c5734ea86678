"""U-Turns without their steps: the same map of starts and means as the simulation, the same law, for every kernel and process."""

import numpy as np
import pytest
import torch

from gaussian_test import sampler
from gaussian_test.analysis import GaussianScore, fit_moments
from gaussian_test.analysis.theory.affine_ends import affine_uturns

RANDOM = np.random.default_rng(0)
SAMPLES = RANDOM.normal(size=(300, 4)) @ RANDOM.normal(size=(4, 4)) + [3.0, -1.0, 0.5, 2.0]
MOMENTS = fit_moments(SAMPLES.reshape(300, 1, 2, 2))
FLAT = fit_moments(np.hstack([SAMPLES[:, :2], np.ones((300, 2))]).reshape(300, 1, 2, 2))  # two directions without data
FEW = fit_moments(SAMPLES[:3].reshape(3, 1, 2, 2))  # two modes in four features
X0 = torch.from_numpy(SAMPLES[:5].reshape(5, 1, 2, 2))


def plan_of(process, **settings):
    turns = [process.turn_time_from_noise_to_signal(nu) for nu in (0.5, 3.0)]
    return sampler.UTurnPlan(process, turns, steps=7, seed=3, **settings)


def simulated(moments, x0, samples, plan, kernel):
    score = GaussianScore.from_moments(moments, process=plan.process, dtype=torch.float64)
    states = plan.run(x0, samples, {"g": score}, {"g": kernel})
    return torch.cat([state.x for state in states if state.phase == "end"])


@pytest.mark.parametrize(
    ("process", "moments", "kernel"),
    [
        (sampler.VarianceExploding(), MOMENTS, sampler.ProbabilityFlow()),
        (sampler.OrnsteinUhlenbeck(), FLAT, sampler.ProbabilityFlow()),
        (sampler.Cosine(), FEW, sampler.ProbabilityFlow()),
        (sampler.OrnsteinUhlenbeck(), MOMENTS, sampler.ExactReversal()),
        (sampler.Cosine(), FEW, sampler.ExactReversal()),
    ],
)
def test_ends_without_noise_on_the_way_are_the_simulations(process, moments, kernel):
    """What is left is the map of start, forward noise and mean, and for the exact kernel the plan's one draw."""
    plan = plan_of(process)
    ends = affine_uturns(moments, X0, range(5), plan, kernel)
    torch.testing.assert_close(ends, simulated(moments, X0, range(5), plan, kernel), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("process", "kernel"),
    [
        (sampler.VarianceExploding(), sampler.ExactReversal()),
        (sampler.OrnsteinUhlenbeck(), sampler.ReverseSDE()),
        (sampler.Cosine(), sampler.ReverseSDE(clock="variance")),
        (sampler.OrnsteinUhlenbeck(), sampler.ReverseSDE("exponential")),
        (sampler.Cosine(), sampler.EDMStochastic(steps=12, S_churn=3.0)),
        (sampler.OrnsteinUhlenbeck(), sampler.Ancestral()),
    ],
    ids=repr,
)
def test_the_law_is_the_simulations(process, kernel):
    """Mean, variance and correlation with the start over 2,000 draws, against the simulation: 5 standard errors."""
    plan, count = plan_of(process), 2_000
    normal = sampler.KeyedNoise(9, range(count), 1, (4,), dtype=torch.float64).draw().normal.numpy()
    start = (normal * np.sqrt(MOMENTS.eigenvalues)) @ MOMENTS.eigenvectors.T
    x0 = torch.from_numpy(start + MOMENTS.mean.reshape(-1)).reshape(-1, 1, 2, 2)
    ends, drawn = (of(MOMENTS, x0, range(count), plan, kernel).reshape(2, count, 4).numpy() for of in (affine_uturns, simulated))
    for a, b in zip(ends, drawn, strict=True):
        for one, other in (
            (a, b),
            (a[:, :, None] * a[:, None], b[:, :, None] * b[:, None]),
            (a[:, :, None] * start[:, None], b[:, :, None] * start[:, None]),
        ):
            difference = one - other  # start and forward noise are shared: what is left is the noise of the way back
            error = difference.std(0, ddof=1) / np.sqrt(count)
            assert (np.abs(difference.mean(0)) <= 5 * error + 1e-9).all()


def test_single_precision_and_the_noise_of_the_plan():
    plan = plan_of(sampler.VarianceExploding())
    double, single = (
        affine_uturns(MOMENTS, X0.to(dtype), range(5), plan, sampler.Ancestral()) for dtype in (torch.float64, torch.float32)
    )
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-5)
    alone = affine_uturns(MOMENTS, X0[3:4], [3], plan, sampler.Ancestral())
    torch.testing.assert_close(alone[:, 0], double[:, 3], rtol=1e-12, atol=1e-12)
    other = affine_uturns(MOMENTS, X0, range(5), plan_of(sampler.VarianceExploding(), stream=1), sampler.Ancestral())
    assert not torch.isclose(other, double).any()


@pytest.mark.parametrize(
    ("x0", "samples", "settings", "message"),
    [
        (X0, range(4), {}, "4 indices and states of shape"),
        (X0.flatten(1), range(5), {}, "do not match a Gaussian on"),
        (X0, range(5), {"repeats": 2}, "a plan of 2 repeats"),
    ],
)
def test_what_does_not_match_is_refused(x0, samples, settings, message):
    with pytest.raises(ValueError, match=message):
        affine_uturns(MOMENTS, x0, samples, plan_of(sampler.VarianceExploding(), **settings), sampler.Ancestral())
