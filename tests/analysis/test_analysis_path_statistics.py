"""Statistics of paths that come time by time: those of the whole tensor, in any precision, of a run that keeps nothing."""

import numpy as np
import pytest
import torch
import xarray as xr

from gaussian_test.analysis import GaussianScore, autocorrelation, fit_moments, path_statistics
from gaussian_test.analysis.observables.normality.lilliefors import ks_distance
from gaussian_test.analysis.uturn.correlations import sample_norms, sample_products
from gaussian_test.sampler import OrnsteinUhlenbeck, ReverseSDE, UTurnPlan

X = np.random.default_rng(0).exponential(size=(60, 2, 1, 3)) * 2 + 0.7
MOMENTS, PROCESS = fit_moments(X), OrnsteinUhlenbeck()
PLAN = UTurnPlan(PROCESS, [0.8], steps=9, seed=2)


def path_of(dtype):
    score = GaussianScore.from_moments(MOMENTS, process=PROCESS, dtype=dtype)
    x = torch.from_numpy(X).to(dtype)
    return (s for s in PLAN.run(x, range(60), {"g": score}, {"g": ReverseSDE()}, path=True) if s.phase == "path")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_stream_is_the_tensor(dtype):
    states = [state.x[0].numpy() for state in path_of(dtype)]
    amplitude = PROCESS.alpha(torch.from_numpy(PLAN.grid)).numpy()
    result = path_statistics((state.x[0].numpy() for state in path_of(dtype)), X, MOMENTS, PLAN.grid, amplitude=amplitude)
    tensor = np.stack(states).astype(np.float64)
    dims = ("sample", "channel", "row", "column")
    whole = autocorrelation(
        xr.DataArray(X, dims=dims),
        xr.DataArray(tensor, dims=("time", *dims)),
        MOMENTS,
        amplitude=xr.DataArray(amplitude, dims="time"),
    )
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    np.testing.assert_allclose(result.autocorrelation, whole, rtol=0, atol=tolerance)
    np.testing.assert_allclose(result.norm, np.linalg.norm(tensor.reshape(10, 60, -1), axis=-1).mean(1), rtol=tolerance)
    distances = ks_distance(tensor.reshape(10, 60, -1)).mean(-1)
    np.testing.assert_allclose(result.ks_mean, distances, rtol=0, atol=max(tolerance, 1e-12))
    np.testing.assert_array_equal(result.time, PLAN.grid)


def test_states_of_single_precision_are_not_copied(monkeypatch):
    """Products are of the states as they are; what is taken off for the means costs nothing of their size."""
    seen = []
    monkeypatch.setattr(np, "vecdot", lambda b, a, _vecdot=np.vecdot: seen.append(b) or _vecdot(b, a))
    tensor = np.random.default_rng(1).normal(size=(4, 60, 2, 1, 3)).astype(np.float32) + 3
    dims = ("sample", "channel", "row", "column")
    state = xr.DataArray(tensor, dims=("time", *dims))
    found = autocorrelation(xr.DataArray(X, dims=dims), state, MOMENTS, amplitude=0.5)
    assert np.shares_memory(seen[0], tensor)
    expected = ((X - MOMENTS.mean) * (tensor - 0.5 * MOMENTS.mean)).sum((1, 2, 3, 4)) / 60 / MOMENTS.trace
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    half = autocorrelation(xr.DataArray(X, dims=dims), state.astype(np.float16), MOMENTS, amplitude=0.5)
    assert seen[1].dtype == np.float64
    np.testing.assert_allclose(half, expected, rtol=0, atol=2e-3)


def test_products_and_norms_are_plain_sums():
    b = np.random.default_rng(2).normal(size=(5, 7, 11))
    a = np.random.default_rng(3).normal(size=(7, 11))
    np.testing.assert_allclose(sample_products(a, b), (a * b).sum(-1), rtol=1e-12)
    np.testing.assert_allclose(sample_norms(b), np.linalg.norm(b, axis=-1), rtol=1e-12)


def test_features_that_do_not_vary_are_left_out():
    x = np.hstack([X.reshape(60, -1), np.ones((60, 1))])
    result = path_statistics([x, np.ones_like(x)], x, fit_moments(x), [0.0, 1.0])
    assert float(result.ks_mean[0]) == pytest.approx(ks_distance(X.reshape(60, -1)).mean())
    assert np.isnan(result.ks_mean[1])


@pytest.mark.parametrize(("states", "number"), [([X], "1"), ([X, X, X], "more")])
def test_as_many_states_as_times(states, number):
    with pytest.raises(ValueError, match=f"{number} states do not match 2 times"):
        path_statistics(states, X, MOMENTS, [0.0, 1.0])


def test_states_of_other_samples_are_refused():
    with pytest.raises(ValueError, match=r"states of shape \(59, 6\) do not fit a reference of shape \(60, 6\)"):
        path_statistics([X[1:]], X, MOMENTS, [0.0])
