"""U-Turns without their steps: the same map of starts and means as the simulation, the same law, for every kernel and process."""

import numpy as np
import pytest
import torch

from gaussian_test.analysis import GaussianScore, fit_moments
from gaussian_test.analysis.theory.affine_ends import affine_uturns
from gaussian_test.sampler import (
    Ancestral,
    Cosine,
    EDMStochastic,
    ExactReversal,
    KeyedNoise,
    OrnsteinUhlenbeck,
    ProbabilityFlow,
    ReverseSDE,
    UTurnPlan,
    VarianceExploding,
)

KERNELS = {
    "exact": ExactReversal(),
    "sde": ReverseSDE(),
    "variance_clock": ReverseSDE(clock="variance"),
    "exponential": ReverseSDE("exponential"),
    "flow": ProbabilityFlow(),
    "edm": EDMStochastic(steps=12, S_churn=3.0),
    "ancestral": Ancestral(),
}
PROCESSES = {"ve": VarianceExploding(), "ou": OrnsteinUhlenbeck(), "cosine": Cosine()}
RANDOM = np.random.default_rng(0)
SAMPLES = RANDOM.normal(size=(300, 4)) @ RANDOM.normal(size=(4, 4)) + [3.0, -1.0, 0.5, 2.0]
MOMENTS = fit_moments(SAMPLES.reshape(300, 1, 2, 2))
FLAT = fit_moments(np.hstack([SAMPLES[:, :2], np.ones((300, 2))]).reshape(300, 1, 2, 2))  # two directions without data
FEW = fit_moments(SAMPLES[:3].reshape(3, 1, 2, 2))  # two modes in four features
X0 = torch.from_numpy(SAMPLES[:5].reshape(5, 1, 2, 2))


def plan_of(process, **settings):
    turns = [process.turn_time_from_noise_to_signal(nu) for nu in (0.5, 3.0)]
    return UTurnPlan(process, turns, steps=7, seed=3, **settings)


@pytest.mark.parametrize("moments", [MOMENTS, FLAT, FEW], ids=["full", "flat", "few"])
@pytest.mark.parametrize("process", PROCESSES)
def test_the_flow_has_the_simulations_very_ends(process, moments):
    """No noise on the way back: what is left is the map of start, forward noise and mean, and that is the simulation's."""
    plan = plan_of(PROCESSES[process])
    score = GaussianScore.from_moments(moments, process=plan.process, dtype=torch.float64)
    states = plan.run(X0, range(5), {"g": score}, {"g": ProbabilityFlow()})
    expected = next(state.x for state in states if state.phase == "end")
    ends = affine_uturns(moments, X0, range(5), plan, ProbabilityFlow())
    torch.testing.assert_close(ends, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("moments", [MOMENTS, FEW], ids=["full", "few"])
@pytest.mark.parametrize("process", PROCESSES)
def test_exact_ends_are_those_of_the_plan(process, moments):
    plan = plan_of(PROCESSES[process])
    score = GaussianScore.from_moments(moments, process=plan.process, dtype=torch.float64)
    states = plan.run(X0, range(5), {"g": score}, {"g": ExactReversal()})
    expected = torch.cat([state.x for state in states if state.phase == "end"])
    torch.testing.assert_close(affine_uturns(moments, X0, range(5), plan, ExactReversal()), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("process", PROCESSES)
def test_the_law_is_the_simulations(process, kernel):
    """Mean, variance and correlation with the start over 5,000 draws, against the simulation: 5 standard errors."""
    process, kernel = PROCESSES[process], KERNELS[kernel]
    plan, count = plan_of(process), 5_000
    normal = KeyedNoise(9, range(count), 1, (4,), dtype=torch.float64).draw().normal
    x0 = torch.from_numpy(MOMENTS.mean.reshape(-1)) + (normal * torch.from_numpy(np.sqrt(MOMENTS.eigenvalues))) @ torch.from_numpy(
        MOMENTS.eigenvectors.T
    )
    ends = affine_uturns(MOMENTS, x0.reshape(-1, 1, 2, 2), range(count), plan, kernel).reshape(2, count, 4).numpy()
    states = plan.run(
        x0.reshape(-1, 1, 2, 2),
        range(count),
        {"g": GaussianScore.from_moments(MOMENTS, process=process, dtype=torch.float64)},
        {"g": kernel},
    )
    simulated = np.concatenate([state.x.reshape(-1, count, 4).numpy() for state in states if state.phase == "end"])
    start = x0.numpy() - MOMENTS.mean.reshape(-1)
    for turn in range(2):
        for one, other in (
            (ends[turn], simulated[turn]),
            (ends[turn][:, :, None] * ends[turn][:, None], simulated[turn][:, :, None] * simulated[turn][:, None]),
            (ends[turn][:, :, None] * start[:, None], simulated[turn][:, :, None] * start[:, None]),
        ):
            difference = one - other  # start and forward noise are shared: what is left is the noise of the way back
            error = difference.std(0, ddof=1) / np.sqrt(count)
            assert (np.abs(difference.mean(0)) <= 5 * error + 1e-9).all()


def test_single_precision_and_the_noise_of_the_plan():
    plan = plan_of(VarianceExploding())
    double, single = (affine_uturns(MOMENTS, X0.to(dtype), range(5), plan, Ancestral()) for dtype in (torch.float64, torch.float32))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-5)
    alone = affine_uturns(MOMENTS, X0[3:4], [3], plan, Ancestral())
    torch.testing.assert_close(alone[:, 0], double[:, 3], rtol=1e-12, atol=1e-12)
    other = affine_uturns(MOMENTS, X0, range(5), plan_of(VarianceExploding(), stream=1), Ancestral())
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
        affine_uturns(MOMENTS, x0, samples, plan_of(VarianceExploding(), **settings), Ancestral())
