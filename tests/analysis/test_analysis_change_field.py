"""The change field: susceptibility and correlation length against closed forms, plain sums and known random fields."""

from importlib import import_module
from itertools import product

import numpy as np
import pytest
import torch
import xarray as xr
from analysis_zoo import within
from scipy.signal import correlate2d

from gaussian_test import analysis
from gaussian_test.analysis import ClusterBootstrap, GaussianScore, fit_moments
from gaussian_test.analysis.declarations import reasons_of
from gaussian_test.analysis.observables.balance.change import correlation_length, radial_correlation, susceptibility_gaussian
from gaussian_test.sampler import ExactReversal, UTurnPlan, VarianceExploding

DIMS = ("channel", "row", "column")
SIZE = 8
PLACES = np.stack(np.mgrid[:SIZE, :SIZE], -1).reshape(-1, 2)
DISTANCE = np.hypot(*(PLACES[:, None] - PLACES).transpose(2, 0, 1))


def _field(rng, covariance, *shape):
    """Draw Gaussian fields over SIZE x SIZE pixels, shape (*shape, SIZE, SIZE)."""
    root = np.linalg.cholesky(covariance + 1e-9 * np.eye(SIZE**2))
    return (rng.normal(size=(*shape, SIZE**2)) @ root.T).reshape(*shape, SIZE, SIZE)


def _binned(covariance):
    """Return mean distance and mean covariance of all pairs of pixels by rounded distance."""
    bins = np.rint(DISTANCE).astype(int).ravel()
    count = np.bincount(bins)
    return np.bincount(bins, DISTANCE.ravel()) / count, np.bincount(bins, covariance.ravel()) / count


def _observed(change, resamples=200, **coords):
    """Return the change field's statistics for changes (turn times, n, repeats, channels, rows, columns) of starts of zero."""
    start = xr.DataArray(np.zeros((change.shape[1], *change.shape[3:])), dims=("sample", *DIMS))
    end = xr.DataArray(change, dims=("turn_time", "sample", "repeat", *DIMS))
    return analysis.change_field(start, end.assign_coords(coords), ClusterBootstrap(change.shape[1], resamples))


def test_susceptibility_is_the_sum_of_all_covariances_over_that_of_variances():
    change = np.random.default_rng(1).normal(size=(40, 3, 2, 3, 4)).cumsum(-1)
    magnitude = np.sqrt((change**2).sum(2, keepdims=True))
    for fields, of_magnitude in ((change, False), (magnitude, True)):
        matrices = [np.cov(fields[:, :, c].reshape(120, 12).T) for c in range(fields.shape[2])]
        expected = sum(m.sum() for m in matrices) / sum(np.trace(m) for m in matrices)
        assert analysis.susceptibility(change, magnitude=of_magnitude).mean() == pytest.approx(expected, rel=1e-12)


def test_closed_form_is_that_of_the_covariance_of_the_change():
    """2 Sigma nu^2/(Sigma + nu^2) by dense algebra, with fewer samples than features."""
    x = np.random.default_rng(2).normal(size=(9, 2, 3, 4)).cumsum(-1)
    moments = fit_moments(x)
    sigma = moments.covariance()
    ones = np.kron(np.eye(2), np.ones(12))
    for nu in (0.3, 2.0):
        change = 2 * nu**2 * np.linalg.solve(sigma + nu**2 * np.eye(24), sigma)
        expected = (ones @ change @ ones.T).trace() / change.trace()
        closed = susceptibility_gaussian(moments.eigenvalues, moments.eigenvectors, nu, (2, 3, 4))
        assert closed == pytest.approx(expected, rel=1e-10)
    as_row = susceptibility_gaussian(moments.eigenvalues, moments.eigenvectors, [0.3], (24,))
    assert as_row.shape == (1,)
    assert as_row[0] != pytest.approx(susceptibility_gaussian(moments.eigenvalues, moments.eigenvectors, 0.3, (2, 3, 4)), rel=0.01)
    with pytest.raises(ValueError, match=r"\(2, 3\) does not have 24 features"):
        susceptibility_gaussian(moments.eigenvalues, moments.eigenvectors, 0.3, (2, 3))


def test_exact_uturns_of_skewed_data_follow_the_closed_form():
    """Under the Gaussian score, 4000 skewed samples of 2 x 2 x 3 pixels, one of which never varies: 4 standard errors."""
    rng = np.random.default_rng(3)
    x = (rng.exponential(size=(4000, 12)) @ rng.normal(size=(12, 12)) + 1).reshape(4000, 2, 2, 3)
    x[:, 0, 0, 0] = 0.5
    moments = fit_moments(x)
    process = VarianceExploding()
    score = GaussianScore.from_moments(moments, process=process, dtype=torch.float64)
    plan = UTurnPlan(process, [0.5, 3.0], seed=4, micro_batch=4000)
    for state in plan.run(torch.from_numpy(x), range(4000), {"g": score}, {"g": ExactReversal()}):
        if state.phase == "end" and state.score is not None:
            for turn, end in zip(plan.levels[state.turns], state.x.numpy(), strict=True):
                closed = susceptibility_gaussian(moments.eigenvalues, moments.eigenvectors, turn, (2, 2, 3))
                assert within(analysis.susceptibility((end - x)[:, None]), closed)


def test_magnitude_of_a_gaussian_field_is_the_folded_normal():
    """Cov(|a|, |b|) = 2/pi (sqrt(1 - r^2) + r asin r - 1) for unit variances."""
    correlation = np.exp(-((DISTANCE / 3) ** 2))
    folded = 2 / np.pi * (np.sqrt(1 - correlation**2) + correlation * np.arcsin(correlation) - 1)
    change = _field(np.random.default_rng(5), correlation, 4000, 1, 1)
    assert within(analysis.susceptibility(change, magnitude=True), folded.sum() / folded.trace())
    distance, curve = radial_correlation(change, magnitude=True)
    expected = _binned(folded)[1]
    np.testing.assert_allclose(distance, _binned(folded)[0], rtol=1e-12)
    assert within(curve[:, 1:], (expected / expected[0])[1:])


def test_radial_correlation_is_the_plain_sum_over_pairs(monkeypatch):
    """Scipy's full correlation of every field, in blocks of a few starts."""
    monkeypatch.setattr(import_module("gaussian_test.analysis.observables.balance.change"), "BLOCK_ELEMENTS", 1000)
    change = np.random.default_rng(6).normal(size=(30, 2, 3, 4, 7)).cumsum(-1).cumsum(-2)
    centered = change - change.mean((0, 1))
    total = sum(correlate2d(f, f) for f in centered.reshape(-1, 4, 7))
    pairs = correlate2d(np.ones((4, 7)), np.ones((4, 7)))
    r = np.hypot(*np.meshgrid(np.arange(-3, 4), np.arange(-6, 7), indexing="ij"))
    bins = np.rint(r).astype(int).ravel()
    expected = np.bincount(bins, total.ravel()) / np.bincount(bins, pairs.ravel())
    distance, curve = radial_correlation(change)
    np.testing.assert_allclose(curve.mean(0), expected / expected[0], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(distance, np.bincount(bins, (r * pairs).ravel()) / np.bincount(bins, pairs.ravel()), rtol=1e-12)
    with pytest.raises(ValueError, match=r"\(30, 2, 84\) has no distances"):
        radial_correlation(change.reshape(30, 2, 84))


def test_influence_is_that_of_leaving_one_start_out():
    """The pseudo-values agree with the jackknife's to first order in 1/n."""
    change = np.random.default_rng(8).normal(size=(300, 1, 1, 4, 4)).cumsum(-1)
    values = analysis.susceptibility(change)
    whole = values.mean()
    left_out = np.array([analysis.susceptibility(np.delete(change, i, 0)).mean() for i in range(0, 300, 15)])
    jackknife = 300 * whole - 299 * left_out
    np.testing.assert_allclose(values[::15] - whole, jackknife - whole, rtol=0.05, atol=0.05 * values.std())


@pytest.mark.parametrize(
    ("covariance", "length"), [(np.exp(-DISTANCE / 2), 2.0), (np.exp(-((DISTANCE / 3) ** 2)), 3.0)], ids=["exponential", "gaussian"]
)
def test_correlation_length_of_a_known_field(covariance, length):
    """Within 4 standard errors of the covariance binned as pixels are, and within 5 % of the continuous length."""
    change = _field(np.random.default_rng(9), covariance, 1, 3000, 1, 1)
    result = _observed(change)
    distance, curve = _binned(covariance)
    expected = float(correlation_length(distance, curve))
    estimate, error = float(result.change_correlation_length[0]), float(result.change_correlation_length_se[0])
    assert expected == pytest.approx(length, rel=0.05)
    assert abs(estimate - expected) < 4 * error < 0.4
    assert result.change_correlation_length_low < expected < result.change_correlation_length_high


def test_correlation_length_is_the_first_crossing():
    r = np.arange(6.0)
    assert correlation_length(r, [1, 0.8, 0.3, 0.5, 0.1, 0]) == pytest.approx(1 + (0.8 - np.exp(-1)) / 0.5, rel=1e-12)
    assert correlation_length(r, [1, -1, 0, 0, 0, 0]) == pytest.approx((1 - np.exp(-1)) / 2, rel=1e-12)
    assert correlation_length(r, np.ones((3, 6))).tolist() == [np.inf] * 3


def test_unit_order_mean_and_orientation_do_not_matter():
    rng = np.random.default_rng(10)
    change = _field(rng, np.exp(-DISTANCE / 2), 1, 60, 1, 2)
    plain = _observed(change)
    order = rng.permutation(60)
    for other in (7 * change, change[:, order], change.swapaxes(-1, -2), change[..., ::-1]):
        moved = _observed(other)
        for name in plain.data_vars:
            if not str(name).endswith(("_se", "_low", "_high")):
                np.testing.assert_allclose(moved[name], plain[name], rtol=1e-9, atol=1e-12)
    shifted = _observed(change + rng.normal(size=(2, 8, 8)))
    for name in ("change_susceptibility", "change_susceptibility_low", "change_correlation_length", "change_correlation"):
        np.testing.assert_allclose(shifted[name], plain[name], rtol=1e-9)


def test_repeats_of_a_start_are_one_cluster():
    """Repeats that agree add nothing, neither to the estimate nor to its error."""
    change = _field(np.random.default_rng(11), np.exp(-DISTANCE / 2), 2, 60, 1, 1)
    plain, repeated = _observed(change), _observed(change.repeat(3, 2))
    for name in plain.data_vars:
        np.testing.assert_allclose(repeated[name], plain[name], rtol=1e-9, atol=1e-12)


def test_intervals_cover_also_where_few_starts_changed():
    """Susceptibility at all turn times at once, lengths one by one: 90 to 99 % cover; of 120 starts a part changes."""
    covariance = np.exp(-DISTANCE / 2)
    chi = covariance.sum() / covariance.trace()
    length = float(correlation_length(*_binned(covariance)))
    together, lengths, defined = 0, np.zeros(3), np.zeros(3)
    for seed in range(200):
        rng = np.random.default_rng([12, seed])
        change = _field(rng, covariance / 2, 120, 1, 1) + _field(rng, covariance / 2, 120, 2, 1)
        changed = np.stack([change * (rng.random((120, 1, 1, 1, 1)) < share) for share in (0.15, 0.4, 1.0)])
        result = _observed(changed, 300)
        low, high = result.change_susceptibility_low.values, result.change_susceptibility_high.values
        together += bool((np.isnan(low) | ((low <= chi) & (chi <= high))).all())
        low, high = result.change_correlation_length_low.values, result.change_correlation_length_high.values
        lengths += (low <= length) & (length <= high)
        defined += ~np.isnan(low)
    assert 180 <= together <= 198
    assert defined[0] > 150
    assert ((lengths >= 0.9 * defined) & (lengths <= 0.99 * defined)).all()


def test_a_turn_time_with_few_changes_does_not_widen_the_band_of_the_others():
    change = _field(np.random.default_rng(13), np.exp(-DISTANCE / 2), 2, 400, 1, 1)
    few = change.copy()
    few[0, 14:] = 0
    alone, beside = _observed(change, 2000), _observed(few, 2000)
    width = [float((r.change_susceptibility_high - r.change_susceptibility_low)[1]) for r in (alone, beside)]
    assert width[1] < 1.05 * width[0]
    assert float(beside.change_susceptibility_se[0]) > 3 * float(beside.change_susceptibility_se[1])
    least = _observed(few[:, :60] * (np.arange(60) < 11)[:, None, None, None, None], 1000).change_susceptibility_low
    assert (least >= 0).all()
    assert (least == 0).any()


def test_where_nothing_or_little_changed_there_are_reasons():
    change = _field(np.random.default_rng(14), np.exp(-DISTANCE / 2), 5, 100, 1, 1)
    change[0] = 0
    change[1, 3:] = 0
    change[2] = 0.1
    change[3] = np.random.default_rng(0).normal(size=(100, 1, 1, 1, 1))
    start = xr.DataArray(np.zeros((100, 1, 8, 8)), dims=("sample", *DIMS))
    ends = np.stack([change, change])
    ends[1, 4, 5, 0, 0, 2, 2] = np.inf
    end = xr.DataArray(ends, dims=("score", "turn_time", "sample", "repeat", *DIMS), coords={"score": ["a", "b"]})
    result = analysis.change_field(start, end, ClusterBootstrap(100, 200))
    chi, low, length = (result[f"change_{n}"].values for n in ("susceptibility", "susceptibility_low", "correlation_length_low"))
    np.testing.assert_array_equal(np.isnan(chi), [[1, 0, 1, 0, 0], [1, 0, 1, 0, 1]])
    np.testing.assert_array_equal(np.isnan(low), [[1, 1, 1, 0, 0], [1, 1, 1, 0, 1]])
    np.testing.assert_array_equal(np.isnan(length), [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])
    assert chi[0, 3] == pytest.approx(64, rel=1e-12)
    assert low[0, 3] == pytest.approx(64, rel=1e-9)
    of_both = "nothing changed, or all alike, at 2 turn times; fewer than 8 starts' worth of change for a band at 1 turn time"
    expected = {"a": of_both, "b": f"end points are not finite at 1 turn time; {of_both}"}
    assert reasons_of(result.change_susceptibility) == expected
    never = "; the correlation does not fall below 1/e at 1 turn time"
    assert reasons_of(result.change_correlation_length) == {score: reason + never for score, reason in expected.items()}


def test_rounding_is_no_change():
    """Of 60 pictures 20 change, the others come back in float32."""
    rng = np.random.default_rng(18)
    x = rng.normal(size=(60, 1, 8, 8))
    moved = np.zeros((60, 1, 1, 8, 8))
    moved[:20] = _field(rng, np.exp(-DISTANCE / 2), 20, 1, 1)
    start, dims = xr.DataArray(x, dims=("sample", *DIMS)), ("turn_time", "sample", "repeat", *DIMS)
    exact, rounded = (
        analysis.change_field(start, xr.DataArray((x[:, None] * factor + moved)[None], dims=dims), ClusterBootstrap(60, 200))
        for factor in (1, 1 + 1e-6)
    )
    nothing = analysis.change_field(start, xr.DataArray((x[:, None] * (1 + 1e-6))[None], dims=dims), ClusterBootstrap(60, 200))
    np.testing.assert_allclose(rounded.change_susceptibility, exact.change_susceptibility, rtol=1e-4)
    np.testing.assert_allclose(rounded.change_susceptibility_high, exact.change_susceptibility_high, rtol=1e-4)
    assert reasons_of(nothing.change_susceptibility) == {"": "nothing changed, or all alike, at 1 turn time"}


def test_the_length_of_a_few_wide_fields_has_an_open_interval():
    """Where resamples never fall below 1/e the interval has no upper end; a few of them do not upset the error."""
    change = _field(np.random.default_rng(0), np.exp(-((DISTANCE / 7) ** 2)), 1, 20, 1, 1)
    result = _observed(change, 500).isel(turn_time=0)
    assert result.change_correlation_length_high == np.inf
    assert 0 < result.change_correlation_length_low < result.change_correlation_length
    assert 0.5 < result.change_correlation_length_se < 2


def test_every_score_and_turn_time_is_that_of_its_own_change():
    """Of pictures, and of features, which are pixels without distance."""
    rng, resample = np.random.default_rng(16), ClusterBootstrap(40, 100)
    start = xr.DataArray(rng.normal(size=(40, 2, 4, 5)), dims=("sample", *DIMS))
    values = rng.normal(size=(2, 3, 40, 2, 2, 4, 5)).cumsum(-1).astype(np.float32)
    coords = {"score": ["a", "b"], "turn_time": [1.0, 2.0, 3.0]}
    end = xr.DataArray(values, dims=("score", "turn_time", "sample", "repeat", *DIMS), coords=coords)
    result = analysis.change_field(start, end.transpose("sample", ...), resample)
    flat, ends = (x.stack(feature=DIMS).drop_vars(["feature", *DIMS]) for x in (start, end))
    features = analysis.change_field(flat, ends, resample)
    assert result.change_correlation.dims == ("score", "turn_time", "distance")
    assert result.turn_time.values.tolist() == [1.0, 2.0, 3.0]
    for (score, turn), kind in product(np.ndindex(2, 3), ("", "_magnitude")):
        change, row = values[score, turn].astype(float) - start.values[:, None], result.isel(score=score, turn_time=turn)
        distance, curve = radial_correlation(change, magnitude=bool(kind))
        influences = analysis.susceptibility(change, magnitude=bool(kind))
        assert float(row[f"change_susceptibility{kind}"]) == pytest.approx(influences.mean())
        assert float(row[f"change_susceptibility{kind}_se"]) == pytest.approx(influences.std(ddof=1) / np.sqrt(40))
        np.testing.assert_allclose(row[f"change_correlation{kind}"], curve.mean(0), rtol=1e-9)
        expected = float(correlation_length(distance, curve.mean(0)))
        assert float(row[f"change_correlation_length{kind}"]) == pytest.approx(expected, rel=1e-9)
        alone = analysis.susceptibility(change.reshape(40, 2, 40)).mean()
        assert float(features.change_susceptibility[score, turn]) == pytest.approx(alone, rel=1e-9)
    assert features.change_correlation_length.isnull().all()
    assert reasons_of(features.change_correlation_length) == {"": "features without rows and columns have no distance"}
    assert "change_correlation" not in features
    with pytest.raises(ValueError, match=r"\(40, 40\) is no field"):
        analysis.susceptibility(flat.values)
