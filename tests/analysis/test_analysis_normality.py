"""Kolmogorov-Smirnov test: distances against scipy, the calibrated null, and a global test that is exact at any correlation."""

import dataclasses

import numpy as np
import pytest
import xarray as xr
from scipy.stats import ks_1samp, monte_carlo_test, norm, ttest_1samp

from gaussian_test.analysis.observables.normality import lilliefors as module
from gaussian_test.analysis.observables.normality.lilliefors import gaussian_replicates, ks_distance, ks_null, ks_pvalue, ks_test
from gaussian_test.analysis.observables.normality.normality import kolmogorov_smirnov, ks_dataset


def _correlated(rng, n, d, correlation=0.95):
    """Draw Gaussian samples whose neighbouring features are strongly correlated, as pixels are."""
    covariance = correlation ** np.abs(np.subtract.outer(np.arange(d), np.arange(d)))
    return rng.standard_normal((n, d)) @ np.linalg.cholesky(covariance).T


def _by_scipy(x, ddof=1):
    """Return the distances of (samples, features), one feature after the other."""
    return np.array([ks_1samp((f - f.mean()) / f.std(ddof=ddof), norm.cdf).statistic for f in np.asarray(x, np.float64).T])


@pytest.mark.parametrize(
    ("dtype", "tolerance", "ddof", "n"),
    [
        (np.float64, 1e-12, 0, 4),
        (np.float32, 1e-6, 0, 5),
        (np.float32, 1e-6, 1, 101),
        (int, 1e-12, 1, 5),
        (np.float16, 1e-6, 1, 40),
    ],
)
def test_distances_are_those_of_scipy(dtype, tolerance, ddof, n):
    """Skewed, heavy-tailed, discrete (tied), two-point and far-off features, over two leading dimensions."""
    rng = np.random.default_rng(0)
    x = rng.exponential(size=(2, 3, n, 5))
    x[..., 1] = rng.standard_t(2, size=(2, 3, n))
    x[..., 2] = rng.integers(0, 3, size=(2, 3, n)) + np.arange(n) % 2
    x[..., 3] = np.arange(n) < 2
    x[..., 4] = 1000 + rng.normal(size=(2, 3, n))
    x = x.astype(dtype)
    distances = ks_distance(x, ddof=ddof)
    assert distances.shape == (2, 3, 5)
    assert distances.dtype == np.float64
    for index in np.ndindex(2, 3):
        np.testing.assert_allclose(distances[index], _by_scipy(x[index], ddof), rtol=0, atol=tolerance)


def test_states_are_left_as_they_are_and_blocks_do_not_matter(monkeypatch):
    x = np.random.default_rng(2).normal(size=(3, 50, 11))
    before = x.copy()
    whole = ks_distance(x)
    null = module._simulated_null.__wrapped__(50, 37, 0)
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", 4 * 50)
    np.testing.assert_array_equal(ks_distance(x), whole)
    np.testing.assert_array_equal(module._simulated_null.__wrapped__(50, 37, 0), null)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize(
    ("n", "share", "tolerance", "point"),
    [(256, 0.0267, 0.002, 0.0562), (200, 0.0795, 0.003, np.nan), (512, 0.00015, 0.0001, 0.0400)],
)
def test_null_has_the_known_shares_and_quantiles(n, share, tolerance, point):
    """Share above 0.06 and 95 % point of 60000 draws (100000 at 512); tolerances are 2.5 standard errors, of both simulations."""
    draws = 100000 if n == 512 else 60000
    null = ks_null(n, draws=draws, seed=1)
    assert null.shape == (draws,)
    assert (np.diff(null) >= 0).all()
    assert (null > 0.06).mean() == pytest.approx(share, abs=tolerance)
    if not np.isnan(point):
        assert np.quantile(null, 0.95) == pytest.approx(point, abs=5e-4)


def test_null_agrees_with_a_monte_carlo_test_of_scipy():
    """p-values of skewed features of 30 samples by scipy's own simulation, within 4 standard errors of its 2000 draws."""

    def distance(x, axis):
        standard = (x - x.mean(axis, keepdims=True)) / x.std(axis, ddof=1, keepdims=True)
        return ks_1samp(standard, norm.cdf, axis=axis).statistic

    rng = np.random.default_rng(4)
    for shape in (20.0, 5.0):
        x = rng.gamma(shape, size=30)
        reference = monte_carlo_test(x, rng.standard_normal, distance, n_resamples=2000, alternative="greater").pvalue
        mine = ks_pvalue(ks_distance(x[:, None]), ks_null(30))[0]
        assert 0.01 < mine < 0.99
        assert mine == pytest.approx(reference, abs=4 * np.sqrt(reference * (1 - reference) * (1 / 2000 + 1 / 20000)))


def test_null_is_made_once_and_cannot_be_written_to():
    null = ks_null(16, draws=100)
    assert ks_null(count=16, draws=100, seed=0) is null
    assert not np.array_equal(ks_null(16, draws=100, seed=1), null)
    with pytest.raises(ValueError, match=r"read-only"):
        null[0] = 0


def test_pvalues_count_the_null_that_is_as_far():
    null = np.array([0.1, 0.2, 0.2, 0.4])
    expected = [1.0, 1.0, 0.8, 0.4, 0.2, np.nan]
    np.testing.assert_array_equal(ks_pvalue([[0.0, 0.1, 0.2], [0.3, 0.5, np.nan]], null).ravel(), expected)


@pytest.mark.parametrize(("n", "d"), [(30, 4), (9, 8), (9, 9), (5, 40)])
def test_replicates_have_the_mean_and_the_covariance_of_the_samples(n, d):
    x = 5 + _correlated(np.random.default_rng(6), n, d) * np.geomspace(0.1, 10, d)
    x[:, d - 1] = x[:, 0]
    replicates = list(gaussian_replicates(x, 3))
    assert len(replicates) == 3
    assert not np.allclose(replicates[0], replicates[1], atol=0.01)
    for replicate in replicates:
        scale = x.std(0, ddof=1)
        np.testing.assert_allclose(replicate.mean(0), x.mean(0), atol=2e-5 * scale.max())
        np.testing.assert_allclose(np.cov(replicate.T) / np.outer(scale, scale), np.corrcoef(x.T), atol=2e-5)


def test_replicates_are_rotated_evenly():
    """Each sample's deviation averages to zero over replicates and has variance (n-1)/n, within 4.5 standard errors."""
    x = np.random.default_rng(7).normal(size=(6, 3))
    x = (x - x.mean(0)) / x.std(0, ddof=1)
    replicates = np.array(list(gaussian_replicates(x, 1000)))
    assert (np.abs(ttest_1samp(replicates, 0).statistic) < 4.5).all()
    squared = replicates**2 - 5 / 6
    assert (np.abs(ttest_1samp(squared, 0).statistic) < 4.5).all()


@pytest.mark.parametrize(("n", "d", "correlation"), [(64, 16, 0.95), (12, 30, 0.9)])
def test_global_test_is_exact_whatever_the_correlation(n, d, correlation):
    """Of 200 jointly Gaussian sets 5 % are rejected at 5 % (1 to 10 %) and 40 % at 40 % (within 4 standard errors)."""
    rng = np.random.default_rng(8)
    tests = [ks_test(_correlated(rng, n, d, correlation), replicates=39, draws=199, seed=seed) for seed in range(200)]
    pvalues = np.array([test.mean_distance_pvalue for test in tests])
    assert 0.01 <= (pvalues <= 0.05).mean() <= 0.1
    assert (pvalues <= 0.4).mean() == pytest.approx(0.4, abs=4 * np.sqrt(0.4 * 0.6 / 200))
    for name in ("mean_distance", "share_rejected"):  # a share is discrete: its closed range holds at least 95 %
        inside = [getattr(t, f"{name}_null_low") <= getattr(t, name) <= getattr(t, f"{name}_null_high") for t in tests]
        assert np.mean(inside) >= 0.95 - 4 * np.sqrt(0.95 * 0.05 / 200)
    outside = [t.mean_distance > t.mean_distance_null_high for t in tests]
    assert np.mean(outside) == pytest.approx(0.025, abs=4 * np.sqrt(0.025 * 0.975 / 200))


def test_global_test_sees_two_clusters():
    """Features that share the signs of two clusters, 1.3 standard deviations off, are found in 20 of 20 sets of 100 samples."""
    rng = np.random.default_rng(10)
    for seed in range(20):
        signs = np.where(rng.random((100, 1)) < 0.5, -1.3, 1.3)
        test = ks_test(0.7 * signs + 0.5 * _correlated(rng, 100, 20, 0.9), draws=999, seed=seed)
        assert test.mean_distance_pvalue == pytest.approx(0.01)
        assert test.mean_distance > test.mean_distance_null_high


def test_false_discoveries_are_a_share_of_the_discoveries():
    """40 features of 200 are skewed: false among all discovered, on average of 60 sets, at most 5 % of 160/200; most are found."""
    rng = np.random.default_rng(11)
    false_shares, found = [], []
    for _ in range(60):
        x = rng.normal(size=(128, 200))
        x[:, :40] = rng.exponential(size=(128, 40))
        test = ks_test(x, replicates=1, level=0.2)
        assert test.share_discovered == pytest.approx(test.discovered.mean())
        false_shares.append(test.discovered[40:].sum() / max(test.discovered.sum(), 1))
        found.append(test.discovered[:40].mean())
    expected, error = 0.2 * 160 / 200, np.std(false_shares) / np.sqrt(60)
    assert np.mean(false_shares) == pytest.approx(expected, abs=4 * error)
    assert np.mean(found) > 0.95


def test_shares_are_those_of_the_features_ranked_among_the_replicates():
    """With 39 replicates the central 95 % reach from the least to the largest of them."""
    x = np.random.default_rng(13).gamma(60, size=(80, 100)) * np.geomspace(0.01, 100, 100)
    test = ks_test(x, threshold=0.09, level=0.1, replicates=39, seed=4)
    null = ks_null(80, seed=4)
    np.testing.assert_array_equal(test.distance, ks_distance(x))
    np.testing.assert_array_equal(test.pvalue, ks_pvalue(test.distance, null))
    distances = np.array([ks_distance(replicate) for replicate in gaussian_replicates(x, 39, 4)])
    for name, values, of_replicates in (
        ("mean_distance", test.distance, distances),
        ("share_above", test.distance > 0.09, distances > 0.09),
        ("share_rejected", test.pvalue <= 0.1, ks_pvalue(distances, null) <= 0.1),
    ):
        found, low, high = (getattr(test, name + suffix) for suffix in ("", "_null_low", "_null_high"))
        edges = of_replicates.mean(1).min(), of_replicates.mean(1).max()
        assert (found, low, high) == pytest.approx((values.mean(), *edges), abs=1e-5)
    assert test.mean_distance_pvalue == (1 + (distances.mean(1) >= test.distance.mean()).sum()) / 40
    assert test.share_above_null == pytest.approx((null > 0.09).mean())
    assert 0 < test.share_above_null < test.share_above < 1
    assert 1 / 40 < test.mean_distance_pvalue < 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        test.count = 1


def test_more_features_than_fit_are_taken_evenly(monkeypatch):
    """Where every third feature is looked at, the p-value is that of those alone; the mean is that of all."""
    x = _correlated(np.random.default_rng(15), 60, 28)
    few = ks_test(x[:, ::3], replicates=49)
    monkeypatch.setattr(module, "MOST_FEATURES", 10)
    all_features = ks_test(x, replicates=49)
    assert all_features.mean_distance_pvalue == few.mean_distance_pvalue
    assert all_features.mean_distance_null_high == few.mean_distance_null_high
    assert all_features.mean_distance == pytest.approx(ks_distance(x).mean())


def test_features_that_do_not_vary_are_left_out():
    """Constants that float32 or a mean cannot hold exactly give NaN; all else is as if they were not there."""
    x = np.random.default_rng(16).exponential(size=(50, 12))
    padded = np.insert(x, [0, 5, 12], 0.1, axis=1)
    test, plain = ks_test(padded), ks_test(x)
    constant = np.isnan(test.distance)
    assert np.flatnonzero(constant).tolist() == [0, 6, 14]
    assert np.isnan(test.pvalue[constant]).all()
    assert not test.discovered[constant].any()
    np.testing.assert_array_equal(test.discovered[~constant], plain.discovered)
    assert np.isnan(ks_distance(padded.astype(np.float32))[constant]).all()
    for field in dataclasses.fields(test):
        if field.name not in ("distance", "pvalue", "discovered"):
            assert getattr(test, field.name) == getattr(plain, field.name), field.name
    assert plain.share_discovered > 0
    nothing = ks_test(np.ones((10, 3)))
    assert not nothing.discovered.any()
    for name in ("distance", "share_above", "share_rejected", "share_discovered", "mean_distance", "mean_distance_pvalue"):
        assert np.isnan(getattr(nothing, name)).all(), name
    assert np.isnan([nothing.mean_distance_null_low, nothing.share_above_null_high]).all()


def _states(shape, dims, **coords):
    return xr.DataArray(np.random.default_rng(17).gamma(9, size=shape), dims=dims, coords=coords)


def test_named_states_give_named_results():
    """Two leading dimensions and pictures, constant corner: each variable is the test's own, in its place, with attributes."""
    dims = ("score", "turn_time", "sample", "channel", "row", "column")
    states = _states((2, 3, 40, 1, 2, 4), dims, turn_time=[0.1, 1.0, 7.0], noise_to_signal=("turn_time", [1.0, 2.0, 3.0]))
    states = states.assign_coords(sample=np.arange(40), label=("sample", np.arange(40)))
    states[1, 2, :, 0, 0, 0] = 0.3
    result = kolmogorov_smirnov(states, threshold=0.1, level=0.2, replicates=19, seed=3, draws=500)
    assert set(result.coords) == {"turn_time", "noise_to_signal"}
    ranges = ["_null_low", "_null_high"]
    shares = [f"share_{of}{end}" for of in ("above", "rejected") for end in ("", *ranges)]
    same = ["distance", "pvalue", "discovered", "share_above_null", "share_discovered", *shares]
    names = {f"ks_{name}": name for name in same} | {f"ks_mean{end}": f"mean_distance{end}" for end in ("", "_pvalue", *ranges)}
    assert set(result.data_vars) == set(names)
    for i, j in np.ndindex(2, 3):
        test = ks_test(states.values[i, j].reshape(40, 8), threshold=0.1, level=0.2, replicates=19, seed=3, draws=500)
        one = result.isel(score=i, turn_time=j)
        for name, field in names.items():
            np.testing.assert_array_equal(one[name].values.ravel(), getattr(test, field), err_msg=name)
    for name in ("ks_distance", "ks_pvalue", "ks_discovered"):
        assert result[name].dims == ("score", "turn_time", "channel", "row", "column")
    assert result["ks_share_above_null"].dims == ()
    assert result["ks_mean"].dims == ("score", "turn_time")
    assert result["ks_discovered"].dtype == bool
    assert len({variable.attrs["long_name"] for variable in result.data_vars.values()}) == len(names)
    blocks = (block for block in states.values.reshape(6, 40, 8))
    leading = {"score": [0, 1], "turn_time": states.turn_time.values}
    streamed = ks_dataset(blocks, leading, (1, 2, 4), threshold=0.1, level=0.2, replicates=19, seed=3, draws=500)
    for name in names:
        np.testing.assert_array_equal(streamed[name], result[name], err_msg=name)
    single = kolmogorov_smirnov(_states((30, 5), ("sample", "feature"), feature=list("abcde")), replicates=9)
    assert single["ks_mean"].dims == ()
    assert single["ks_distance"].sel(feature="c") == single["ks_distance"][2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ks_distance(np.ones(5)), r"shape \(5,\) have no features: give"),
        (lambda: ks_distance(np.eye(3)), r"3 samples .* give at least 4"),
        (lambda: ks_distance(np.where(np.eye(9) == 1, np.nan, 0)), r"NaN or infinite values: remove or repair"),
        (lambda: ks_null(3), r"3 samples .* give at least 4"),
        (lambda: ks_null(10, draws=0), r"draws = 0 .* simulate at least 1"),
        (lambda: ks_test(np.ones((2, 9, 3))), r"shape \(2, 9, 3\) are not those of one noise level: give"),
        (lambda: ks_test(np.eye(5), level=0.0), r"level = 0, replicates = 99: give"),
        (lambda: ks_test(np.eye(5), replicates=0), r"replicates = 0: give"),
        (lambda: ks_dataset([], {"time": []}, (5,)), r"0 blocks do not fill \{'time': 0\}: give"),
        (lambda: ks_dataset([np.eye(5)], {"time": [0, 1]}, (5,)), r"1 blocks do not fill \{'time': 2\}: give"),
        (lambda: ks_dataset([np.eye(5)], {"time": [0]}, (1, 2, 2)), r"shape \(5, 5\) does not fit: give .* = \(5, 4\)"),
        (lambda: ks_dataset([np.eye(5), np.eye(6)[:, :5]], {"t": [0, 1]}, (5,)), r"shape \(6, 5\) .* = \(5, 5\)"),
        (lambda: kolmogorov_smirnov(_states((9, 3), ("time", "feature"))), r"\('time', 'feature'\) do not fit: give"),
        (lambda: kolmogorov_smirnov(_states((9, 3), ("feature", "sample"))), r"\('feature', 'sample'\) do not fit: give"),
    ],
)
def test_what_cannot_be_tested_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
