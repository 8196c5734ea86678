"""Closed forms against dense linear algebra, orders of convergence of every kernel, and exactness where theory promises it."""

import numpy as np
import pytest
import torch

from gaussian_test import sampler
from gaussian_test.analysis import autocorrelation_discrete, autocorrelation_exact, path_autocorrelation
from gaussian_test.analysis.theory.closed_form import path_autocorrelation_discrete

SPECTRUM = np.array([9.0, 2.0, 0.5, 0.01])
TURN = 3.0


def test_closed_form_equals_dense_matrices():
    """C_G = tr[Sigma^2 (Sigma + nu^2)^-1]/tr Sigma, and the ODE's map is the matrix square root of the same gain."""
    rng = np.random.default_rng(0)
    half = rng.normal(size=(5, 5))
    sigma = half @ half.T
    values = np.linalg.eigvalsh(sigma)
    for nu in (0.01, 0.7, 4.0):
        gain = sigma @ np.linalg.inv(sigma + nu**2 * np.eye(5))
        eigen, vectors = np.linalg.eig(gain)
        root = (vectors * np.sqrt(eigen)) @ np.linalg.inv(vectors)
        for flow, of_mode in (("sde", gain), ("ode", root)):
            expected = np.trace(sigma @ of_mode) / np.trace(sigma)
            np.testing.assert_allclose(autocorrelation_exact(values, nu, flow=flow), expected, rtol=1e-8)


def _grid(process, steps, *, in_noise):
    """Return a grid, uniform in time or in noise, from the turn to a small time, and 0."""
    if in_noise:
        return np.append(process.time(torch.linspace(TURN, 0.05, steps + 1, dtype=torch.float64)).numpy(), 0.0)
    return np.append(np.linspace(float(process.time(TURN)), float(process.time(0.05)), steps + 1), 0.0)


def test_path_closed_form_joins_the_ends():
    process, turn = sampler.Cosine(), 0.6
    ends = float(process.alpha(turn)), float(autocorrelation_exact(SPECTRUM, float(process.noise_to_signal(turn))))
    np.testing.assert_allclose(path_autocorrelation(SPECTRUM, process, turn, [turn, 0.0]), ends, rtol=1e-12)
    times, curve = path_autocorrelation_discrete(SPECTRUM, process, sampler.ExactReversal(), [turn, 0.4, 0.0], turn)
    np.testing.assert_array_equal(curve, path_autocorrelation(SPECTRUM, process, turn, times))


def test_a_score_of_other_eigenvalues_uses_its_own_gain():
    values, model = np.array([4.0, 1.0]), np.array([1.0, 3.0])
    expected = (4 * 1 / (1 + 2.25) + 1 * 3 / (3 + 2.25)) / 5
    assert autocorrelation_exact(values, 1.5, model=model) == pytest.approx(expected, rel=1e-12)
    discrete = autocorrelation_discrete(
        values, sampler.VarianceExploding(), sampler.ExactReversal(), [1.5, 0.0], [1.5], model=model
    )
    assert discrete[0] == pytest.approx(expected, rel=1e-12)


def test_a_turn_time_off_the_grid_is_refused():
    with pytest.raises(ValueError, match="turn time 2 is not on the grid"):
        autocorrelation_discrete(SPECTRUM, sampler.VarianceExploding(), sampler.Ancestral(), [3.0, 1.0, 0.0], [2.0])


@pytest.mark.parametrize(
    ("process", "kernel", "flow", "order"),
    [
        (sampler.OrnsteinUhlenbeck(), sampler.Ancestral(), "sde", None),
        (sampler.Rectified(), sampler.Ancestral(), "sde", None),
        (sampler.VarianceExploding(), sampler.ReverseSDE(), "sde", 1),
        (sampler.VariancePreserving(), sampler.ReverseSDE(), "sde", 1),
        (sampler.OrnsteinUhlenbeck(), sampler.ReverseSDE("exponential"), "sde", 1),
        (sampler.Rectified(), sampler.ProbabilityFlow("euler"), "ode", 1),
        (sampler.OrnsteinUhlenbeck(), sampler.ProbabilityFlow(), "ode", 2),
        (sampler.Cosine(), sampler.EDMStochastic(steps=1), "ode", 2),
    ],
)
def test_discretised_path_converges_to_the_continuous_one(process, kernel, flow, order):
    """At every time of the way back each kernel converges at its order (None: exact); the value at 0 is the ACF."""
    errors = []
    for steps in (100, 200):
        grid = _grid(process, steps, in_noise=not isinstance(kernel, sampler.ReverseSDE))
        times, curve = path_autocorrelation_discrete(SPECTRUM, process, kernel, grid, grid[0])
        np.testing.assert_array_equal(times, grid)
        assert curve[-1] == pytest.approx(autocorrelation_discrete(SPECTRUM, process, kernel, grid, [grid[0]])[0], rel=1e-12)
        errors.append(np.abs(curve - path_autocorrelation(SPECTRUM, process, grid[0], times, flow=flow))[:-1].max())
    if order is None:
        assert max(errors) < 1e-12
    else:
        assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)
