"""Auto-correlations of named arrays: against plain sums, against the closed forms of the whole U-Turn, centred and not."""

import numpy as np
import pytest
import torch
import xarray as xr

from gaussian_test.analysis import GaussianScore, autocorrelation, fit_moments, mode_autocorrelation, path_autocorrelation, two_time
from gaussian_test.analysis.theory.closed_form import forward_autocorrelation
from gaussian_test.sampler import ExactReversal, KeyedNoise, OrnsteinUhlenbeck, UTurnPlan

DIMS = ("channel", "row", "column")


@pytest.fixture(scope="module")
def uturn():
    """A U-Turn in OU with its whole way back, of 5000 skewed samples of 2 x 1 x 2 pixels off the origin."""
    rng = np.random.default_rng(0)
    x = (rng.exponential(size=(5000, 4)) * [2.0, 1.0, 0.5, 0.1] + 0.7).reshape(5000, 2, 1, 2)
    moments = fit_moments(x)
    process = OrnsteinUhlenbeck()
    score = GaussianScore.from_moments(moments, process=process, dtype=torch.float64)
    plan = UTurnPlan(process, [0.8], steps=6, seed=2, micro_batch=5000)
    states = plan.run(torch.from_numpy(x), range(5000), {"g": score}, {"g": ExactReversal()}, path=True)
    path = {state.times[0]: state.x[0].numpy() for state in states if state.phase == "path"}
    times = np.array(list(path))
    array = xr.DataArray(np.stack(list(path.values())), dims=("time", "sample", *DIMS), coords={"time": times})
    return xr.DataArray(x, dims=("sample", *DIMS), coords={"sample": np.arange(5000)}), array, moments, process


def _amplitude(process, path):
    return xr.DataArray(process.alpha(torch.tensor(path.time.values)).numpy(), dims="time")


def test_average_is_the_plain_sum(uturn):
    start, path, moments, process = uturn
    alpha = _amplitude(process, path)
    result = autocorrelation(start, path, moments, amplitude=alpha)
    mean = moments.mean
    for index in range(path.sizes["time"]):
        expected = ((start.values - mean) * (path.values[index] - alpha.values[index] * mean)).sum() / 5000 / moments.trace
        assert float(result[index]) == pytest.approx(expected, rel=1e-10)
    assert result.dims == ("time",)
    assert result.attrs["units"] == "1"


def test_sample_and_mode_versions_average_to_the_curve(uturn):
    start, path, moments, process = uturn
    alpha = _amplitude(process, path)
    curve = autocorrelation(start, path, moments, amplitude=alpha)
    per_sample = autocorrelation(start, path, moments, amplitude=alpha, per="sample")
    per_mode = autocorrelation(start, path, moments, amplitude=alpha, per="mode")
    np.testing.assert_allclose(per_sample.mean("sample"), curve, rtol=1e-10)
    np.testing.assert_allclose((per_mode * moments.eigenvalues).sum("mode") / moments.trace, curve, rtol=1e-10)
    assert per_sample.dims == ("time", "sample")
    assert (per_sample.sample == start.sample).all()


def test_uncentred_is_the_authors_ratio(uturn):
    start, path, moments, _ = uturn
    result = autocorrelation(start, path, moments, centred=False)
    expected = (start.values * path.values).sum((1, 2, 3, 4)) / (start.values**2).sum()
    np.testing.assert_allclose(result, expected, rtol=1e-10)
    assert float(autocorrelation(start, start, moments, centred=False)) == pytest.approx(1, rel=1e-12)
    with pytest.raises(ValueError, match="centred=True"):
        autocorrelation(start, path, moments, centred=False, per="mode")


def test_path_follows_the_closed_form(uturn):
    """The correlation of the start with every state of the way back, and of the end mode by mode: 4 standard errors."""
    start, path, moments, process = uturn
    per_sample = autocorrelation(start, path, moments, amplitude=_amplitude(process, path), per="sample")
    error = per_sample.std("sample") / np.sqrt(5000)
    expected = path_autocorrelation(moments.eigenvalues, process, 0.8, path.time.values)
    np.testing.assert_array_less(np.abs(per_sample.mean("sample") - expected), 4 * error)
    end = path.sel(time=0.0)
    modes = autocorrelation(start, end, moments, per="mode")
    basis = moments.eigenvectors
    products = ((start.values - moments.mean).reshape(5000, 4) @ basis) * ((end.values - moments.mean).reshape(5000, 4) @ basis)
    error = products.std(0) / np.sqrt(5000) / moments.eigenvalues
    expected = mode_autocorrelation(moments.eigenvalues, float(process.noise_to_signal(0.8)))
    np.testing.assert_array_less(np.abs(modes.values - expected), 4 * error)


def test_forward_correlation_is_alpha(uturn):
    start, _, moments, process = uturn
    noise = KeyedNoise(4, range(5000), 1, (2, 1, 2), dtype=torch.float64).draw()
    times = [0.1, 0.5, 2.0]
    states = [process.noised(torch.from_numpy(start.values), t, noise.normal).numpy() for t in times]
    path = xr.DataArray(np.stack(states), dims=("time", "sample", *DIMS), coords={"time": times})
    per_sample = autocorrelation(start, path, moments, amplitude=_amplitude(process, path), per="sample")
    error = per_sample.std("sample") / np.sqrt(5000)
    np.testing.assert_array_less(np.abs(per_sample.mean("sample") - forward_autocorrelation(process, times)), 4 * error)


def test_two_time_correlation_of_the_way_back(uturn):
    """The reversed path is the forward process run backwards: C(s, t) = alpha_t/alpha_s (alpha_s^2 + d sigma_s^2/tr)."""
    _, path, moments, process = uturn
    result = two_time(path, moments, amplitude=_amplitude(process, path))
    np.testing.assert_allclose(result, result.T, rtol=1e-10)
    times = path.time.values
    centred = path.values.reshape(len(times), 5000, 4) - (
        _amplitude(process, path).values[:, None, None] * moments.mean.reshape(-1)
    )
    for i, t in enumerate(times):
        for j, s in enumerate(times[i:], start=i):
            alpha_s = float(process.alpha(s))
            expected = float(process.alpha(t)) / alpha_s * (alpha_s**2 + 4 * float(process.sigma(s)) ** 2 / moments.trace)
            products = (centred[i] * centred[j]).sum(1) / moments.trace
            assert abs(float(result[i, j]) - expected) < 4 * products.std() / np.sqrt(5000)


def test_dimensions_that_do_not_fit_are_refused(uturn):
    start, path, moments, _ = uturn
    with pytest.raises(ValueError, match="do not fit"):
        autocorrelation(start, path.transpose("sample", "time", ...), moments)
    with pytest.raises(ValueError, match="per = 'pixel' is unknown"):
        autocorrelation(start, path, moments, per="pixel")


def test_modes_without_variance_are_undefined():
    x = np.zeros((9, 2))
    x[:, 0] = np.arange(9)
    moments = fit_moments(x)
    start = xr.DataArray(x, dims=("sample", "feature"))
    per_mode = autocorrelation(start, start, moments, per="mode")
    assert float(per_mode[0]) == pytest.approx(1)
    assert np.isnan(per_mode[1:]).all()
