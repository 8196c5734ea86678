"""Auto-correlations of named arrays: against plain sums, against the closed forms of the whole U-Turn, centred and not."""

import numpy as np
import pytest
import torch
import xarray as xr

from gaussian_test import analysis
from gaussian_test.analysis.observables.normality.lilliefors import ks_distance
from gaussian_test.analysis.theory.closed_form import forward_autocorrelation
from gaussian_test.sampler import ExactReversal, KeyedNoise, OrnsteinUhlenbeck, ReverseSDE, UTurnPlan

DIMS = ("channel", "row", "column")


@pytest.fixture(scope="module")
def uturn():
    """A U-Turn in OU with its whole way back, of 5000 skewed samples of 2 x 1 x 2 pixels off the origin."""
    rng = np.random.default_rng(0)
    x = (rng.exponential(size=(5000, 4)) * [2.0, 1.0, 0.5, 0.1] + 0.7).reshape(5000, 2, 1, 2)
    moments = analysis.fit_moments(x)
    process = OrnsteinUhlenbeck()
    score = analysis.GaussianScore.from_moments(moments, process=process, dtype=torch.float64)
    plan = UTurnPlan(process, [0.8], steps=6, seed=2, micro_batch=5000)
    states = plan.run(torch.from_numpy(x), range(5000), {"g": score}, {"g": ExactReversal()}, path=True)
    path = {state.times[0]: state.x[0].numpy() for state in states if state.phase == "path"}
    times = np.array(list(path))
    array = xr.DataArray(np.stack(list(path.values())), dims=("time", "sample", *DIMS), coords={"time": times})
    return xr.DataArray(x, dims=("sample", *DIMS), coords={"sample": np.arange(5000)}), array, moments, process


def _amplitude(process, path):
    return xr.DataArray(process.alpha(torch.tensor(path.time.values)).numpy(), dims="time")


def test_averages_over_samples_and_modes_are_the_plain_sums(uturn):
    """Also of states that are moved: a constant of all states counts per sample, and not on average."""
    start, path, moments, process = uturn
    alpha = _amplitude(process, path)
    for state in (path, path + 3.0):
        per_sample, per_mode, curve = (
            analysis.autocorrelation(start, state, moments, amplitude=alpha, per=per) for per in ("sample", "mode", "all")
        )
        centred = state.values - alpha.values[:, None, None, None, None] * moments.mean
        expected = ((start.values - moments.mean) * centred).sum((2, 3, 4)) / moments.trace
        np.testing.assert_allclose(per_sample, expected, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(curve, expected.mean(1), rtol=1e-10)
        np.testing.assert_allclose((per_mode * moments.eigenvalues).sum("mode") / moments.trace, curve, rtol=1e-10)
    assert (curve.dims, per_sample.dims, curve.attrs["units"]) == (("time",), ("time", "sample"), "1")
    assert (per_sample.sample == start.sample).all()


def test_uncentred_is_the_authors_ratio(uturn):
    start, path, moments, _ = uturn
    result = analysis.autocorrelation(start, path, moments, centred=False)
    expected = (start.values * path.values).sum((1, 2, 3, 4)) / (start.values**2).sum()
    np.testing.assert_allclose(result, expected, rtol=1e-10)
    assert float(analysis.autocorrelation(start, start, moments, centred=False)) == pytest.approx(1, rel=1e-12)


def test_path_follows_the_closed_form(uturn):
    """The correlation of the start with every state of the way back, and of the end mode by mode: 4 standard errors."""
    start, path, moments, process = uturn
    per_sample = analysis.autocorrelation(start, path, moments, amplitude=_amplitude(process, path), per="sample")
    error = per_sample.std("sample") / np.sqrt(5000)
    expected = analysis.path_autocorrelation(moments.eigenvalues, process, 0.8, path.time.values)
    np.testing.assert_array_less(np.abs(per_sample.mean("sample") - expected), 4 * error)
    end = path.sel(time=0.0)
    modes = analysis.autocorrelation(start, end, moments, per="mode")
    basis = moments.eigenvectors
    products = ((start.values - moments.mean).reshape(5000, 4) @ basis) * ((end.values - moments.mean).reshape(5000, 4) @ basis)
    error = products.std(0) / np.sqrt(5000) / moments.eigenvalues
    expected = analysis.mode_autocorrelation(moments.eigenvalues, float(process.noise_to_signal(0.8)))
    np.testing.assert_array_less(np.abs(modes.values - expected), 4 * error)


def test_forward_correlation_is_alpha(uturn):
    start, _, moments, process = uturn
    noise = KeyedNoise(4, range(5000), 1, (2, 1, 2), dtype=torch.float64).draw()
    times = [0.1, 0.5, 2.0]
    states = [process.noised(torch.from_numpy(start.values), t, noise.normal).numpy() for t in times]
    path = xr.DataArray(np.stack(states), dims=("time", "sample", *DIMS), coords={"time": times})
    per_sample = analysis.autocorrelation(start, path, moments, amplitude=_amplitude(process, path), per="sample")
    error = per_sample.std("sample") / np.sqrt(5000)
    np.testing.assert_array_less(np.abs(per_sample.mean("sample") - forward_autocorrelation(process, times)), 4 * error)


def test_two_time_correlation_of_the_way_back(uturn):
    """The reversed path is the forward process run backwards: C(s, t) = alpha_t/alpha_s (alpha_s^2 + d sigma_s^2/tr)."""
    _, path, moments, process = uturn
    result = analysis.two_time(path, moments, amplitude=_amplitude(process, path))
    np.testing.assert_allclose(result, result.T, rtol=1e-10)
    times = path.time.values
    means = _amplitude(process, path).values[:, None, None] * moments.mean.reshape(-1)
    centred = path.values.reshape(len(times), 5000, 4) - means
    for i, t in enumerate(times):
        for j, s in enumerate(times[i:], start=i):
            alpha_s = float(process.alpha(s))
            expected = float(process.alpha(t)) / alpha_s * (alpha_s**2 + 4 * float(process.sigma(s)) ** 2 / moments.trace)
            products = (centred[i] * centred[j]).sum(1) / moments.trace
            assert abs(float(result[i, j]) - expected) < 4 * products.std() / np.sqrt(5000)


def test_modes_without_variance_are_undefined():
    x = np.zeros((9, 2))
    x[:, 0] = np.arange(9)
    moments = analysis.fit_moments(x)
    start = xr.DataArray(x, dims=("sample", "feature"))
    per_mode = analysis.autocorrelation(start, start, moments, per="mode")
    assert float(per_mode[0]) == pytest.approx(1)
    assert np.isnan(per_mode[1:]).all()


X = np.random.default_rng(0).exponential(size=(60, 2, 1, 3)) * 2 + 0.7
NAMED, MOMENTS, PROCESS = xr.DataArray(X, dims=("sample", *DIMS)), analysis.fit_moments(X), OrnsteinUhlenbeck()
PLAN = UTurnPlan(PROCESS, [0.8], steps=9, seed=2)


def path_of(dtype):
    score = analysis.GaussianScore.from_moments(MOMENTS, process=PROCESS, dtype=dtype)
    x = torch.from_numpy(X).to(dtype)
    return (s for s in PLAN.run(x, range(60), {"g": score}, {"g": ReverseSDE()}, path=True) if s.phase == "path")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_stream_is_the_tensor(dtype):
    states = [state.x[0].numpy() for state in path_of(dtype)]
    amplitude = PROCESS.alpha(torch.from_numpy(PLAN.grid)).numpy()
    result = analysis.path_statistics((state.x[0].numpy() for state in path_of(dtype)), X, MOMENTS, PLAN.grid, amplitude=amplitude)
    tensor = np.stack(states).astype(np.float64)
    path = xr.DataArray(tensor, dims=("time", "sample", *DIMS))
    whole = analysis.autocorrelation(NAMED, path, MOMENTS, amplitude=xr.DataArray(amplitude, dims="time"))
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    np.testing.assert_allclose(result.autocorrelation, whole, rtol=0, atol=tolerance)
    np.testing.assert_allclose(result.norm, np.linalg.norm(tensor.reshape(10, 60, -1), axis=-1).mean(1), rtol=tolerance)
    distances = ks_distance(tensor.reshape(10, 60, -1)).mean(-1)
    np.testing.assert_allclose(result.ks_mean, distances, rtol=0, atol=max(tolerance, 1e-12))
    np.testing.assert_array_equal(result.time, PLAN.grid)


def test_features_that_do_not_vary_are_left_out():
    x = np.hstack([X.reshape(60, -1), np.ones((60, 1))])
    result = analysis.path_statistics([x, np.ones_like(x)], x, analysis.fit_moments(x), [0.0, 1.0])
    assert float(result.ks_mean[0]) == pytest.approx(ks_distance(X.reshape(60, -1)).mean())
    assert np.isnan(result.ks_mean[1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: analysis.path_statistics([X], X, MOMENTS, [0.0, 1.0]), "1 states do not match 2 times"),
        (lambda: analysis.path_statistics([X] * 3, X, MOMENTS, [0.0, 1.0]), "more states do not match 2 times"),
        (lambda: analysis.path_statistics([X[1:]], X, MOMENTS, [0.0]), r"\(59, 6\) do not fit a reference of shape \(60, 6\)"),
        (lambda: analysis.autocorrelation(NAMED, NAMED.transpose(..., "sample"), MOMENTS), "do not fit"),
        (lambda: analysis.autocorrelation(NAMED, NAMED, MOMENTS, per="pixel"), "per = 'pixel' is unknown"),
        (lambda: analysis.autocorrelation(NAMED, NAMED, MOMENTS, centred=False, per="mode"), "centred=True"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
