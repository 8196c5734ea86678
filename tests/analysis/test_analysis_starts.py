"""End points: their closed form against dense matrices, typical distances against scikit-learn, bands where little varies."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from gaussian_test import analysis
from gaussian_test.sampler import (
    Ancestral,
    EDMStochastic,
    EmpiricalScore,
    ExactReversal,
    GaussianComponents,
    OrnsteinUhlenbeck,
    ProbabilityFlow,
    ReverseSDE,
    VarianceExploding,
    reverse_grid,
)

SPECTRUM = np.array([4.0, 1.0, 0.3, 0.02, 0.0])
MEAN_SQUARE = np.array([0.5, 2.0, 0.1, 0.0, 1.5])


def dense_sde(process, grid, turn, start_covariance):
    """Second moment about the mean of Euler-Maruyama's end, by matrices in coordinates that mix the modes."""
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    sigma = rotation @ np.diag(SPECTRUM) @ rotation.T
    moment = rotation @ start_covariance @ rotation.T
    alpha, deviation = float(process.alpha(turn)), float(process.sigma(turn))
    moment = alpha**2 * moment + deviation**2 * np.eye(5)
    for t, s in pairwise(grid[grid <= turn * (1 + 1e-12)]):
        alpha, variance = float(process.alpha(t)), float(process.sigma(t)) ** 2
        f, g2 = float(process.f(t)), float(process.g2(t))
        score = -np.linalg.inv(alpha**2 * sigma + variance * np.eye(5))
        step = np.eye(5) * (1 - f * (t - s)) + g2 * (t - s) * score
        moment = step @ moment @ step.T + g2 * (t - s) * np.eye(5)
    return np.trace(moment) / np.trace(sigma)


@pytest.mark.parametrize("process", [VarianceExploding(), OrnsteinUhlenbeck()], ids=repr)
@pytest.mark.parametrize("start", [SPECTRUM, MEAN_SQUARE], ids=["data", "noise alone"])
def test_end_square_is_that_of_dense_matrices(process, start):
    turns = [process.turn_time_from_noise_to_signal(nu) for nu in (0.5, 3.0)]
    grid = reverse_grid(process, turns, 7)
    ours = analysis.end_square_discrete(SPECTRUM, process, ReverseSDE(), grid, turns, start)
    expected = [dense_sde(process, grid, turn, np.diag(start)) for turn in turns]
    np.testing.assert_allclose(ours, expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("kernel", "order"), [(ReverseSDE(), 1), (Ancestral(), 1), (ProbabilityFlow("euler"), 1), (ProbabilityFlow("heun"), 2)]
)
def test_end_square_of_the_data_converges_to_one(kernel, order):
    """The reverse process of the affine score takes the Gaussian of the noised data back to that of the data."""
    process = VarianceExploding(1e-4, 10)
    errors = []
    for steps in (100, 200, 400):
        grid = reverse_grid(process, [2.0], steps)
        errors.append(abs(analysis.end_square_discrete(SPECTRUM[:4], process, kernel, grid, [2.0])[0] - 1))
    assert errors[-1] < 0.02
    if order == 2:
        assert errors[-1] < errors[0] / 6
    else:
        assert np.log2(errors[0] / errors[1]) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("kernel", [ExactReversal(), EDMStochastic(steps=9, S_churn=3.0), ProbabilityFlow()], ids=repr)
def test_start_square_of_the_data_is_the_default(kernel):
    process = VarianceExploding()
    grid = reverse_grid(process, [1.0, 5.0], 9)
    default, given = (analysis.end_square_discrete(SPECTRUM, process, kernel, grid, [1.0, 5.0], s) for s in (None, SPECTRUM))
    np.testing.assert_array_equal(default, given)


@pytest.mark.parametrize("count", [2, 3, 50, 400])
@pytest.mark.parametrize("most", [10, 1024])
def test_typical_distance_is_the_median_nearest_neighbour(count, most):
    x = np.random.default_rng(count).normal(size=(count, 6)).astype(np.float32)
    chosen = np.linspace(0, count - 1, min(count, most)).round().astype(int)
    distances = NearestNeighbors(n_neighbors=2).fit(x).kneighbors(x[chosen])[0][:, 1]
    expected = np.sort(distances)[(len(distances) - 1) // 2]  # torch's median is the lower one
    typical = analysis.typical_nearest_distance(EmpiricalScore.fit(x), most)
    assert typical == pytest.approx(expected, rel=1e-5)


def test_duplicates_are_at_distance_zero_and_oneself_does_not_count():
    x = torch.tensor([[0.0, 0.0], [0.0, 0.0], [3.0, 4.0]])
    index, distance = EmpiricalScore(x).nearest(x, exclude=torch.tensor([0, 1, 2]))
    assert index[:2].tolist() == [1, 0]
    assert distance.tolist() == [0.0, 0.0, 5.0]


def test_prior_draws_have_the_gaussians_mean_and_covariance():
    """An affine function of normal variables: its matrix squared is the covariance, to rounding."""
    vectors = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0][None, :, :3]
    components = GaussianComponents(torch.ones(1, 5).double(), torch.tensor([[4.0, 1.0, 0.3]]).double(), vectors)
    root = components.prior(0, torch.eye(5).double()) - 1
    covariance = vectors[0] @ torch.diag(components.eigenvalues[0]) @ vectors[0].T
    torch.testing.assert_close(root.T @ root, covariance)
    torch.testing.assert_close(components.prior(0, torch.zeros(1, 5).double()), torch.ones(1, 5).double())


def test_what_does_not_vary_stays_known_beside_what_hardly_does():
    """One sample of 30 differs at one point: its band can be infinite there, but not undefined, nor anywhere else."""
    values = np.ones((30, 3))
    values[0, 1] = 2.0
    band = analysis.ClusterBootstrap(30, 500).band(values)
    assert not np.isnan(band.low).any()
    assert not np.isnan(band.high).any()
    np.testing.assert_array_equal(band.low[[0, 2]], 1)
    np.testing.assert_array_equal(band.high[[0, 2]], 1)
