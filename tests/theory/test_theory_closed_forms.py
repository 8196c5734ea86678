"""Closed forms against dense linear algebra, orders of convergence of every kernel, and exactness where theory promises it."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from gaussian_test.analysis import GaussianScore, autocorrelation_discrete, autocorrelation_exact, path_autocorrelation
from gaussian_test.analysis.theory.closed_form import discrete_law, path_autocorrelation_discrete
from gaussian_test.sampler import (
    Ancestral,
    Cosine,
    EDMStochastic,
    ExactReversal,
    Noise,
    OrnsteinUhlenbeck,
    ProbabilityFlow,
    Rectified,
    ReverseSDE,
    VarianceExploding,
    VariancePreserving,
    edm_levels,
)

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
        np.testing.assert_allclose(autocorrelation_exact(values, nu), np.trace(sigma @ gain) / np.trace(sigma), rtol=1e-10)
        np.testing.assert_allclose(
            autocorrelation_exact(values, nu, flow="ode"), np.trace(sigma @ root) / np.trace(sigma), rtol=1e-8
        )


def _grid(process, steps):
    """Return a time-uniform grid from the turn to a small time, and 0."""
    top = float(process.time(TURN))
    low = float(process.time(0.05))
    return np.append(np.linspace(top, low, steps + 1), 0.0)


def _grid_in_noise(process, steps):
    nu = np.linspace(TURN, 0.05, steps + 1)
    return np.append(process.time(torch.from_numpy(nu)).numpy(), 0.0)


def _order(process, kernel, grid_of, exact, steps=(200, 400)):
    errors = []
    for count in steps:
        grid = grid_of(process, count)
        # the last step is the same for all and exact for none: compare at its start by stopping the recursion there
        law = _factor_at(process, kernel, grid[:-1])
        errors.append(np.abs(law - exact).max())
    return np.log(errors[0] / errors[1]) / np.log(steps[1] / steps[0])


def _factor_at(process, kernel, grid):
    """Return the factor of x0 in the state at the end of a grid that stops above 0."""
    score = GaussianScore.from_moments(np.zeros(4), spectrum=SPECTRUM, process=process, dtype=torch.float64)
    factor = np.full(4, float(process.alpha(grid[0])))
    for t, s in pairwise(grid):
        noise = Noise(torch.zeros(1, 4, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
        factor = factor * kernel.step(score, torch.ones(1, 4, dtype=torch.float64), float(t), float(s), noise)[0].numpy()
    return factor


def _exact_factor(process, flow):
    """Return the continuous-time factor of x0 in the state at noise-to-signal 0.05: THEORY section 4, mode by mode."""
    nu2, end2 = TURN**2, 0.05**2
    ratio = (SPECTRUM + end2) / (SPECTRUM + nu2)
    return float(process.alpha(process.time(0.05))) * (np.sqrt(ratio) if flow == "ode" else ratio)


@pytest.mark.parametrize(
    "process", [VarianceExploding(), OrnsteinUhlenbeck(), Cosine(), Rectified(), VariancePreserving()], ids=repr
)
@pytest.mark.parametrize(
    ("kernel", "flow", "grid_of", "order"),
    [
        (ReverseSDE(), "sde", _grid, 1),
        (ProbabilityFlow("euler"), "ode", _grid_in_noise, 1),
        (ProbabilityFlow("heun"), "ode", _grid_in_noise, 2),
        (EDMStochastic(steps=1), "ode", _grid_in_noise, 2),
    ],
    ids=["euler-maruyama", "euler", "heun", "edm-without-churn"],
)
def test_order_of_convergence(process, kernel, flow, grid_of, order):
    measured = _order(process, kernel, grid_of, _exact_factor(process, flow))
    assert measured == pytest.approx(order, abs=0.1)


def test_order_of_the_exponential_integrator():
    process = OrnsteinUhlenbeck()
    assert _order(process, ReverseSDE("exponential"), _grid, _exact_factor(process, "sde")) == pytest.approx(1, abs=0.1)


def test_exponential_integrator_is_exact_in_its_linear_part():
    """Without data variance the score is -x/sigma^2; held over a step of OU it adds -2(e^h - 1) x/sigma_t^2 to e^h x."""
    process = OrnsteinUhlenbeck()
    score = GaussianScore.from_moments([0.0], spectrum=[0.0], process=process, dtype=torch.float64)
    t, s = 1.3, 0.4
    zero = Noise(torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    moved = ReverseSDE("exponential").step(score, torch.ones(1, 1, dtype=torch.float64), t, s, zero)
    growth = np.exp(t - s)
    assert moved.item() == pytest.approx(growth - 2 * (growth - 1) / (1 - np.exp(-2 * t)), rel=1e-12)


@pytest.mark.parametrize(
    "process", [VarianceExploding(), OrnsteinUhlenbeck(), Cosine(), Rectified(), VariancePreserving()], ids=repr
)
@pytest.mark.parametrize("steps", [1, 2, 7, 16])
@pytest.mark.parametrize("kernel", [ReverseSDE(clock="variance"), Ancestral(), ExactReversal()], ids=repr)
def test_exact_mean_at_any_number_of_steps(process, kernel, steps):
    """Euler-Maruyama in the variance clock, the ancestral step and the exact step telescope: no discretisation error in the ACF."""
    nu = edm_levels(steps, 0.01, TURN)
    grid = process.time(torch.from_numpy(nu)).numpy()
    discrete = autocorrelation_discrete(SPECTRUM, process, kernel, grid, [grid[0]])
    np.testing.assert_allclose(discrete, autocorrelation_exact(SPECTRUM, [TURN]), rtol=1e-12)


def test_variance_is_exact_for_the_exact_kernel_only():
    """The exact step returns the data's variance; Euler-Maruyama in the variance clock has an error that halves with the steps."""
    process = VarianceExploding()
    _, variance = discrete_law(SPECTRUM, process, ExactReversal(), [TURN, 0.0], [TURN])
    np.testing.assert_allclose(variance[0], SPECTRUM, rtol=1e-12)
    errors = []
    for steps in (400, 800):
        grid = np.sqrt(np.linspace(TURN**2, 0, steps + 1))
        _, variance = discrete_law(SPECTRUM[:3], process, ReverseSDE(clock="variance"), grid, [TURN])
        errors.append(np.abs(variance[0] - SPECTRUM[:3]).max())
    assert errors[0] > 1e-3
    assert np.log2(errors[0] / errors[1]) == pytest.approx(1, abs=0.1)


def test_telescoped_product_is_the_path_closed_form():
    """Stopping the exact chain at s gives THEORY's correlation along the reversed path, for a process with alpha != 1."""
    process = OrnsteinUhlenbeck()
    turn, s = 1.2, 0.3
    expected = path_autocorrelation(SPECTRUM, process, turn, [s])[0]
    grid = np.linspace(turn, s, 5)
    factor = _factor_at(process, Ancestral(), grid)
    assert (factor * SPECTRUM).sum() / SPECTRUM.sum() == pytest.approx(expected, rel=1e-12)


def test_path_closed_form_joins_the_ends():
    process = Cosine()
    turn = 0.6
    start, end = path_autocorrelation(SPECTRUM, process, turn, [turn, 0.0])
    assert start == pytest.approx(float(process.alpha(turn)), rel=1e-12)
    assert end == pytest.approx(float(autocorrelation_exact(SPECTRUM, float(process.noise_to_signal(turn)))), rel=1e-12)


def test_a_score_of_other_eigenvalues_uses_its_own_gain():
    values, model = np.array([4.0, 1.0]), np.array([1.0, 3.0])
    expected = (4 * 1 / (1 + 2.25) + 1 * 3 / (3 + 2.25)) / 5
    assert autocorrelation_exact(values, 1.5, model=model) == pytest.approx(expected, rel=1e-12)
    discrete = autocorrelation_discrete(values, VarianceExploding(), ExactReversal(), [1.5, 0.0], [1.5], model=model)
    assert discrete[0] == pytest.approx(expected, rel=1e-12)


def test_a_turn_time_off_the_grid_is_refused():
    with pytest.raises(ValueError, match="turn time 2 is not on the grid"):
        autocorrelation_discrete(SPECTRUM, VarianceExploding(), Ancestral(), [3.0, 1.0, 0.0], [2.0])


@pytest.mark.parametrize("process", [VarianceExploding(), OrnsteinUhlenbeck(), Rectified()], ids=repr)
@pytest.mark.parametrize(
    ("kernel", "flow", "order"), [(Ancestral(), "sde", None), (ReverseSDE(), "sde", 1), (ProbabilityFlow(), "ode", 2)]
)
def test_discretised_path_converges_to_the_continuous_one(process, kernel, flow, order):
    """All along the way back: the ancestral step is exact, Euler-Maruyama and Heun converge at their order; 0 is the ACF."""
    grid_of = _grid if kernel.__class__ is ReverseSDE else _grid_in_noise
    errors = []
    for steps in (100, 200):
        grid = grid_of(process, steps)
        times, curve = path_autocorrelation_discrete(SPECTRUM, process, kernel, grid, grid[0])
        np.testing.assert_array_equal(times, grid)
        assert curve[-1] == pytest.approx(autocorrelation_discrete(SPECTRUM, process, kernel, grid, [grid[0]])[0], rel=1e-12)
        errors.append(np.abs(curve - path_autocorrelation(SPECTRUM, process, grid[0], times, flow=flow))[:-1].max())
    if order is None:
        assert max(errors) < 1e-12
    else:
        assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


def test_exact_path_is_the_closed_form():
    times, curve = path_autocorrelation_discrete(SPECTRUM, OrnsteinUhlenbeck(), ExactReversal(), [1.0, 0.4, 0.0], 1.0)
    np.testing.assert_array_equal(curve, path_autocorrelation(SPECTRUM, OrnsteinUhlenbeck(), 1.0, times))
