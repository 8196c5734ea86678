"""End points: typical distances against scikit-learn, bands where little varies."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from gaussian_test import analysis
from gaussian_test.analysis.uturn.classifier import typical_nearest_distance
from gaussian_test.sampler import EmpiricalScore, GaussianComponents


@pytest.mark.parametrize("count", [2, 3, 50, 400])
@pytest.mark.parametrize("most", [10, 1024])
def test_typical_distance_is_the_median_nearest_neighbour(count, most):
    x = np.random.default_rng(count).normal(size=(count, 6)).astype(np.float32)
    chosen = np.linspace(0, count - 1, min(count, most)).round().astype(int)
    distances = NearestNeighbors(n_neighbors=2).fit(x).kneighbors(x[chosen])[0][:, 1]
    expected = np.sort(distances)[(len(distances) - 1) // 2]  # torch's median is the lower one
    typical = typical_nearest_distance(EmpiricalScore.fit(x), most=most)
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
