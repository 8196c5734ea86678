"""Chains of U-Turns: against plain sums, auto-regressions and Markov chains of known correlation time."""

from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch
import xarray as xr
from analysis_zoo import within

from gaussian_test import analysis
from gaussian_test.analysis import ClusterBootstrap, GaussianScore, Moments, autocorrelation_exact, fit_moments
from gaussian_test.analysis.declarations import reasons_of
from gaussian_test.analysis.observables.chains.chains import (
    chain_autocorrelation_gaussian,
    chain_products,
    chain_table,
    class_persistence,
    integrated_time_gaussian,
)
from gaussian_test.sampler import ExactReversal, UTurnPlan, VarianceExploding

SPECTRUM = 4 / (1 + np.arange(10.0)) ** 1.5
MOMENTS = Moments(9, np.zeros(10), SPECTRUM, np.eye(10))
DIMS = ("score", "turn_time", "sample", "state", "other")


def _chains(rng, starts, nu, length):
    """Draw chains of exact U-Turns of a Gaussian, shape (length + 1, starts, features)."""
    gain = SPECTRUM / (SPECTRUM + nu**2)
    states = [rng.normal(size=(starts, 10)) * np.sqrt(SPECTRUM)]
    for _ in range(length):
        states.append(gain * states[-1] + np.sqrt(SPECTRUM * (1 - gain**2)) * rng.normal(size=(starts, 10)))
    return np.stack(states)


def _two_states(rng, starts, length, up, down):
    """Draw stationary chains of two classes with these rates of change, shape (length + 1, starts)."""
    labels = [(rng.random(starts) < up / (up + down)).astype(int)]
    for _ in range(length):
        changes = rng.random(starts) < np.where(labels[-1] == 0, up, down)
        labels.append(labels[-1] ^ changes)
    return np.stack(labels)


def _table(products, labels=None, nu=(1.0,), shares=None, scores=None, resamples=300):
    """Return the table of chains, products (scores, turn times, n, states, states)."""
    if labels is None:
        labels = np.full(products.shape[:-1], -1)
    coords = {"score": scores or [f"s{i}" for i in range(len(products))]}
    arrays = xr.DataArray(products, dims=DIMS, coords=coords), xr.DataArray(labels, dims=DIMS[:4], coords=coords)
    return chain_table(*arrays, SPECTRUM, np.array(nu), shares, ClusterBootstrap(products.shape[2], resamples))


def test_products_are_plain_sums(monkeypatch):
    """Of centred states over the trace, in blocks of two chains, from numpy and torch, in float32 and float64."""
    monkeypatch.setattr(import_module("gaussian_test.analysis.observables.chains.chains"), "BLOCK_ELEMENTS", 2 * 4 * 6)
    rng = np.random.default_rng(0)
    moments = Moments(5, rng.normal(size=(1, 2, 3)), np.array([3.0, 1.0]), np.eye(6)[:, :2])
    states = rng.normal(size=(4, 7, 1, 2, 3))
    centered = states - moments.mean
    expected = np.einsum("jncxy,kncxy->njk", centered, centered) / 4
    for given, tolerance in ((states, 1e-12), (torch.from_numpy(states), 1e-12), (states.astype(np.float32), 1e-5)):
        products = chain_products(given, moments)
        assert products.dtype == np.float64
        np.testing.assert_allclose(products, expected, rtol=tolerance, atol=tolerance)


def test_autocorrelation_is_the_average_over_origins():
    products = np.random.default_rng(1).normal(size=(6, 5, 5))
    products += products.swapaxes(1, 2)
    curves = analysis.chain_autocorrelation(products)
    for k in range(5):
        expected = np.mean([products[:, j, j + k] for j in range(5 - k)], axis=0)
        np.testing.assert_allclose(curves[:, k], expected, rtol=1e-12)


def test_closed_forms_agree_with_each_other():
    """C(0) = 1, C(1) is the U-Turn's own, and the time is 1 + 2 sum of C(k); a direction of variance 0 adds nothing."""
    nu = np.array([0.8, 3.0])
    curves = chain_autocorrelation_gaussian([*SPECTRUM, 0], nu, 400)
    np.testing.assert_allclose(curves[:, 0], 1, rtol=1e-12)
    np.testing.assert_allclose(curves[:, 1], autocorrelation_exact(SPECTRUM, nu), rtol=1e-12)
    np.testing.assert_allclose(integrated_time_gaussian([*SPECTRUM, 0], nu), 1 + 2 * curves[:, 1:].sum(1), rtol=1e-9)


def test_chains_of_skewed_data_follow_the_closed_form():
    """Exact U-Turns under the Gaussian score from 3000 skewed samples: all origins and the start alone, 4 standard errors."""
    rng = np.random.default_rng(2)
    x = rng.exponential(size=(3000, 4)) * [2.0, 1.0, 0.5, 0.1] + 0.7
    moments = fit_moments(x)
    process = VarianceExploding()
    score = GaussianScore.from_moments(moments, process=process, dtype=torch.float64)
    plan = UTurnPlan(process, [1.2], seed=3, micro_batch=3000)
    states = [torch.from_numpy(x)]
    for link in range(8):
        run = replace(plan, stream=link).run(states[-1], range(3000), {"g": score}, {"g": ExactReversal()})
        states += [state.x[0] for state in run if state.phase == "end" and state.score is not None]
    products = chain_products(torch.stack(states), moments)
    expected = chain_autocorrelation_gaussian(moments.eigenvalues, plan.levels[0], 8)
    assert within(analysis.chain_autocorrelation(products)[:, 1:], expected[1:])
    assert within(products[:, 0, 1:], expected[1:])


def test_time_of_an_autoregression_is_known():
    """A factor of 0.9 has time 19: from its exact curve, and within 4 standard errors from 100 chains of 500."""
    curve = 0.9 ** np.arange(200)
    time, window = analysis.integrated_time(curve)
    assert time == pytest.approx(19, rel=1e-3)
    assert window == int(np.ceil(5 * time))
    rng = np.random.default_rng(4)
    states = np.empty((501, 100, 1))
    states[0] = rng.normal(size=(100, 1))
    for k in range(500):
        states[k + 1] = 0.9 * states[k] + np.sqrt(0.19) * rng.normal(size=(100, 1))
    curves = analysis.chain_autocorrelation(chain_products(states, Moments(9, np.zeros(1), np.ones(1), np.eye(1))))
    estimate, window = analysis.integrated_time(curves.mean(0))
    single = 1 + 2 * curves[:, 1 : window + 1].sum(1)
    assert abs(estimate - 19) < 4 * single.std() / np.sqrt(100)


def test_the_window_is_the_first_that_is_wide_enough():
    """Noise behind the window does not enter; a chain of independent states needs a window of five."""
    curve = 0.5 ** np.arange(60)
    noisy = curve.copy()
    noisy[20:] += 0.3
    assert analysis.integrated_time(noisy) == analysis.integrated_time(curve)
    assert analysis.integrated_time(np.eye(1, 9)[0]) == (1.0, 5)
    assert analysis.integrated_time(np.eye(1, 5)[0]) == (pytest.approx(np.nan, nan_ok=True), 4)


def test_persistence_of_two_classes_is_geometric():
    """P(same after k) of two states is P_inf + (1 - P_inf) r^k with r = 1 - both rates: 4 standard errors."""
    labels = _two_states(np.random.default_rng(5), 3000, 10, 0.1, 0.3)
    retained = class_persistence(labels, [0.75, 0.25])
    assert (retained[:, 0] == 1).all()
    assert within(retained[:, 1:], 0.6 ** np.arange(1, 11))


def test_persistence_is_counted_over_all_origins():
    labels = np.random.default_rng(6).integers(0, 3, size=(5, 4))
    retained = class_persistence(labels, [0.5, 0.25, 0.25])
    for k in range(5):
        same = np.mean([labels[j] == labels[j + k] for j in range(5 - k)], axis=0)
        np.testing.assert_allclose(retained[:, k], (same - 0.375) / 0.625, rtol=1e-12)
    with pytest.raises(ValueError, match=r"label -1 is no class"):
        class_persistence(labels - 1, [0.5, 0.25, 0.25])
    with pytest.raises(ValueError, match=r"a single class is always retained"):
        class_persistence(0 * labels, [1.0])


@pytest.fixture(scope="module")
def runs():
    """Chains of two scores at two turn times, with classes."""
    rng = np.random.default_rng(8)
    levels, scores = (1.0, 4.0), ["a", "b"]
    states = {(s, nu): _chains(rng, 80, nu, 12).astype(np.float32) for s in scores for nu in levels}
    labels = {chain: _two_states(rng, 80, 12, 0.1, 0.3) for chain in states}
    return scores, levels, states, labels


def test_table_holds_the_statistics_of_every_chain(runs):
    scores, levels, states, labels = runs
    products = np.stack([chain_products(s, MOMENTS) for s in states.values()]).reshape(2, 2, 80, 13, 13)
    classes = np.stack([label.T for label in labels.values()]).reshape(2, 2, 80, 13)
    table = _table(products, classes, levels, [0.75, 0.25], scores)
    resample = ClusterBootstrap(80, 300)
    for i, score in enumerate(scores):
        for j in range(2):
            row = table.sel(score=score).isel(turn_time=j)
            band = resample.band(analysis.chain_autocorrelation(products[i, j]))
            np.testing.assert_allclose(row.autocorrelation, band.estimate, rtol=1e-12)
            np.testing.assert_allclose(row.autocorrelation_se, band.standard_error, rtol=1e-12)
            np.testing.assert_allclose(row.autocorrelation_high, band.high, rtol=1e-12)
            retained = class_persistence(classes[i, j].T, [0.75, 0.25])
            np.testing.assert_allclose(row.class_retention, retained.mean(0), rtol=1e-12)
            np.testing.assert_allclose(row.class_retention_se, retained.std(0, ddof=1) / np.sqrt(80), rtol=1e-12)
            of_share = resample.share_band(0.375 * retained[:, 1:] + 0.625)  # agreement by chance: 0.75^2 + 0.25^2
            for end in ("low", "high"):
                expected = np.append(1, (getattr(of_share, end) - 0.625) / 0.375)
                np.testing.assert_allclose(row[f"class_retention_{end}"], expected, rtol=1e-12)
    time, window = analysis.integrated_time(analysis.chain_autocorrelation(products[0, 1]).mean(0))
    assert table.autocorrelation_time.values[0, 1] == pytest.approx(time, rel=1e-12)
    sums = 1 + 2 * analysis.chain_autocorrelation(products[0, 1])[:, 1 : window + 1].sum(1, keepdims=True)
    band = resample.band(sums)
    assert table.autocorrelation_time_low.values[0, 1] == pytest.approx(band.low[0], rel=1e-12)
    assert table.autocorrelation_time_high.values[0, 1] == pytest.approx(band.high[0], rel=1e-12)
    np.testing.assert_allclose(table.autocorrelation_gaussian, chain_autocorrelation_gaussian(SPECTRUM, levels, 12), rtol=1e-12)
    np.testing.assert_allclose(table.autocorrelation_time_gaussian, integrated_time_gaussian(SPECTRUM, levels), rtol=1e-12)


def test_a_chain_that_is_too_short_bounds_its_time_from_below(runs):
    scores, levels, states, _ = runs
    products = np.stack([chain_products(s, MOMENTS) for s in states.values()]).reshape(2, 2, 80, 13, 13)
    table = _table(products, nu=levels, scores=scores)
    assert table.autocorrelation_time.isnull().values.tolist() == [[True, False], [True, False]]
    assert np.isinf(table.autocorrelation_time_high.values).tolist() == [[True, False], [True, False]]
    whole = 1 + 2 * analysis.chain_autocorrelation(products[0, 0])[:, 1:].sum(1, keepdims=True)
    low = ClusterBootstrap(80, 300).band(whole).low[0]
    assert table.autocorrelation_time_low.values[0, 0] == pytest.approx(low, rel=1e-12)
    assert 1 < low < float(integrated_time_gaussian(SPECTRUM, 1.0))
    said = "12 U-Turns are fewer than 5 auto-correlation times at 1 turn time"
    assert reasons_of(table.autocorrelation_time) == {"a": said, "b": said}
    assert "reason" not in table.autocorrelation_time_gaussian.attrs


def test_without_classes_there_is_a_reason(runs):
    _, _, states, _ = runs
    products = chain_products(states["a", 1.0], MOMENTS)[None, None]
    zeros = np.zeros(products.shape[:-1], dtype=int)
    for labels, shares, reason in ((None, [0.5, 0.5], "no labels"), (zeros, None, "no labels"), (zeros, [1.0], "a single class")):
        table = _table(products, labels, shares=shares)
        assert table.class_retention.isnull().all()
        assert reason in table.class_retention.attrs["reason"]
