"""Moments: one streaming pass against numpy and scikit-learn, merging in any order, the Gram route, digits that float32 loses."""

import numpy as np
import pytest
import torch
import xarray as xr
from analysis_zoo import skewed
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.covariance import OAS, LedoitWolf
from sklearn.utils.estimator_checks import check_estimator

from gaussian_test.analysis import Population, StreamingCovariance, class_moments, fit_moments, spectrum, third_cumulant_norm
from gaussian_test.analysis.moments import running as module
from gaussian_test.analysis.moments.running import RunningMoments
from gaussian_test.sampler import EmpiricalScore


@pytest.mark.parametrize("chunk", [1, 300, 2**22])
@pytest.mark.parametrize("shape", [(50, 1), (2, 1), (40, 7), (7, 7), (8, 7), (5, 40), (2, 9), (33, 200)])
def test_moments_equal_numpy(shape, chunk, monkeypatch):
    """Mean, covariance and modes, in chunks of any size, also with fewer samples than features (Gram route) and one feature."""
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", chunk)
    x = skewed(*shape)
    before = x.copy()
    moments = fit_moments(x)
    np.testing.assert_array_equal(x, before)
    covariance = np.atleast_2d(np.cov(x.T, bias=True))
    np.testing.assert_allclose(moments.mean, x.mean(0), atol=1e-12)
    np.testing.assert_allclose(moments.covariance(), covariance, atol=1e-10 * covariance.max())
    expected = np.sort(np.linalg.eigvalsh(covariance))[::-1]
    np.testing.assert_allclose(moments.eigenvalues, expected[: len(moments.eigenvalues)], atol=1e-10 * expected[0])
    assert (expected[len(moments.eigenvalues) :] < 1e-10 * expected[0]).all()
    assert len(moments.eigenvalues) <= min(shape[1], max(shape[0] - 1, shape[1] if shape[0] > shape[1] else 0))
    overlap = moments.eigenvectors.T @ moments.eigenvectors
    np.testing.assert_allclose(overlap, np.eye(len(overlap)), atol=1e-9)


def test_duplicates_and_constant_features_take_modes_away_but_no_digits():
    x = np.repeat(skewed(6, 4), 3, axis=0)[:, [0, 1, 2, 3, 3]]
    x = np.hstack([x, np.full((18, 20), 0.25)])
    moments = fit_moments(x)  # 18 samples of 25 features: Gram route of rank 4
    assert len(moments.eigenvalues) == 4
    np.testing.assert_allclose(moments.covariance(), np.cov(x.T, bias=True), atol=1e-12)


@pytest.mark.parametrize(
    "kind", [np.asarray, torch.from_numpy, lambda x: xr.DataArray(x, dims=("sample", "channel", "row", "column"))]
)
def test_any_array_gives_the_same_moments(kind):
    x = skewed(30, 12).reshape(30, 1, 3, 4)
    moments = fit_moments(kind(x))
    assert moments.event_shape == (1, 3, 4)
    np.testing.assert_allclose(moments.covariance(), np.cov(x.reshape(30, 12).T, bias=True), atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, st.tuples(st.integers(3, 30), st.just(3)), elements=st.floats(-1e3, 1e3)), st.data())
def test_merging_is_associative_and_complete(x, data):
    """Any cut into chunks, merged in any tree, sums up to the covariance of the whole."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(x)), max_size=4)))
    pieces = []
    for chunk in np.split(x, cuts):
        piece = RunningMoments(3)
        piece.update(chunk)
        pieces.append(piece)
    while len(pieces) > 1:
        first = pieces.pop(data.draw(st.integers(0, len(pieces) - 1)))
        pieces[data.draw(st.integers(0, len(pieces) - 1))].merge(first)
    scale = max(1.0, np.abs(x).max()) ** 2
    assert pieces[0].count == len(x)
    np.testing.assert_allclose(pieces[0].mean, x.mean(0), atol=1e-11 * scale)
    np.testing.assert_allclose(pieces[0].covariance(), np.cov(x.T, bias=True), atol=1e-11 * scale)


def _bytes(kind, n, d):
    """Bytes of any kind of picture, and whether blocks of all rows would overflow 24 bits."""
    rng = np.random.default_rng(3)
    return {
        "dim": rng.integers(100, 104, (n, d), dtype=np.uint8),
        "wide": rng.choice(np.array([0, 0, 0, 255, 255, 255, 3], dtype=np.uint8), (n, d)),
        "rising": (np.arange(n)[:, None] // (n // 256 + 1) + np.zeros((1, d))).astype(np.uint8),  # far from the mean at both ends
        "signed": rng.integers(-128, 128, (n, d)).astype(np.int8),
        "constant": np.hstack([rng.integers(0, 256, (n, d - 1), dtype=np.uint8), np.full((n, 1), 255, dtype=np.uint8)]),
    }[kind]


@pytest.mark.parametrize("kind", ["dim", "wide", "rising", "signed", "constant"])
@pytest.mark.parametrize("form", ["at once", "chunks", "torch"])
def test_moments_of_bytes_are_exact(kind, form, monkeypatch):
    """Against whole numbers of 64 bits: S of one chunk is within two roundings of the exact rational, whatever the bytes."""
    n, d = 9001, 5
    x = _bytes(kind, n, d)
    monkeypatch.setattr(module, "PANEL", 2)
    if form == "chunks":
        monkeypatch.setattr(module, "CHUNK_BYTES", 700 * d)
    given = {"at once": x, "chunks": xr.DataArray(x), "torch": torch.from_numpy(x)}[form]
    running = module.moments_of(given, d)
    whole = x.astype(np.int64)
    sums = whole.sum(0)
    scatter = (n * (whole.T @ whole) - np.outer(sums, sums)) / n**2  # a whole number below 2^53 before the division
    np.testing.assert_allclose(running.mean, sums / n, rtol=1e-15, atol=1e-14)
    tolerance = 1e-15 if form != "chunks" else 1e-14
    np.testing.assert_allclose(running.covariance(), scatter, rtol=0, atol=tolerance * max(1.0, np.abs(scatter).max()) * 4)
    assert running.count == n


@pytest.mark.parametrize("shape", [(50, 7), (6, 40), (300, 4)])
@pytest.mark.parametrize("shrinkage", [None, 0.3, "oas"])
def test_a_spectrum_is_that_of_the_moments(shape, shrinkage):
    x = skewed(*shape)
    moments = fit_moments(x, shrinkage=shrinkage)
    np.testing.assert_allclose(spectrum(x, shrinkage=shrinkage), moments.eigenvalues, rtol=0, atol=1e-13 * moments.eigenvalues[0])
    if shrinkage == 0.3:
        plain = np.pad(fit_moments(x).eigenvalues, (0, shape[1]))[: shape[1]]
        np.testing.assert_allclose(moments.eigenvalues, 0.7 * plain + 0.3 * plain.sum() / shape[1], rtol=1e-10)


def test_small_eigenvalues_survive_a_large_mean_and_a_large_mode():
    """float32 samples, spectrum over nine decades on an offset: the sums are float64, so the smallest is right to 1e-6."""
    rng = np.random.default_rng(1)
    scales = np.array([1.0, 1e-2, 3e-5])
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    x = ((rng.normal(size=(20000, 3)) * scales) @ rotation).astype(np.float32)
    exact = np.linalg.eigvalsh(np.cov(x.astype(np.float64).T, bias=True))[::-1]
    np.testing.assert_allclose(fit_moments(x).eigenvalues, exact, rtol=1e-6)
    shifted = x.astype(np.float64) + 1000.0
    np.testing.assert_allclose(fit_moments(shifted).eigenvalues[:2], exact[:2], rtol=1e-6)
    in_float32 = np.linalg.eigvalsh(np.asarray(x.T @ x / len(x) - np.outer(x.mean(0), x.mean(0)), np.float32))[::-1]
    assert abs(in_float32[2] / exact[2] - 1) > 1e-3  # what would be lost


@pytest.mark.parametrize("rule", ["ledoit_wolf", "oas"])
def test_shrinkage_is_scikit_learns(rule):
    x = skewed(40, 6)
    reference = {"ledoit_wolf": LedoitWolf, "oas": OAS}[rule](store_precision=False).fit(x)
    np.testing.assert_allclose(fit_moments(x, shrinkage=rule).covariance(), reference.covariance_, rtol=1e-8)
    np.testing.assert_allclose(StreamingCovariance(rule).fit(x).covariance_, reference.covariance_, rtol=1e-8)


def test_estimator_passes_scikit_learns_checks():
    records = check_estimator(StreamingCovariance(), on_fail=None, on_skip=None)
    failed = [record["check_name"] for record in records if record["status"] == "failed"]
    assert len(records) > 20
    assert failed == []


def test_partial_fit_equals_fit():
    x = skewed(60, 4)
    estimator = StreamingCovariance(0.1)
    for chunk in np.array_split(x, 7):
        estimator.partial_fit(chunk)
    whole = StreamingCovariance(0.1).fit(x)
    np.testing.assert_allclose(estimator.covariance_, whole.covariance_, rtol=1e-10)
    np.testing.assert_allclose(whole.moments().covariance(), whole.covariance_, rtol=1e-9)
    assert estimator.n_samples_seen_ == 60


def test_third_cumulant_norm_is_the_tensors():
    x = np.random.default_rng(3).exponential(size=(50, 4)) ** 2
    centred = x - x.mean(0)
    tensor = np.einsum("ni,nj,nk->ijk", centred, centred, centred) / 50
    assert third_cumulant_norm(x, x.mean(0)) == pytest.approx((tensor**2).sum(), rel=1e-10)
    assert third_cumulant_norm(np.vstack([x, 2 * x.mean(0) - x]), x.mean(0)) == pytest.approx(0, abs=1e-9 * (tensor**2).sum())


def test_third_cumulants_of_groups_or_of_a_subset_estimate_that_of_all(monkeypatch):
    """Pairs within random groups, also of samples in the order of their classes, have the mean of all pairs (4 standard errors)."""
    x = np.sort(np.random.default_rng(3).exponential(size=(600, 4)), axis=0)
    whole = third_cumulant_norm(x, x.mean(0))
    for options, elements in (({"limit": 100}, module.SUBSET_ELEMENTS), ({}, 4 * 50)):
        monkeypatch.setattr(module, "SUBSET_ELEMENTS", elements)
        some = [third_cumulant_norm(x, x.mean(0), seed=seed, **options) for seed in range(60)]
        assert np.std(some) > 0
        assert abs(np.mean(some) - whole) < 4 * np.std(some) / np.sqrt(60)


@pytest.mark.parametrize(
    ("x", "shrinkage", "message"),
    [
        (np.zeros((1, 3)), None, "no covariance"),
        (np.zeros(5), None, "no covariance"),
        (np.ones((5, 3)), None, "all the same"),
        (np.ones((5, 30)), None, "all the same"),
        (np.array([[1.0, np.nan], [0.0, 1.0], [2.0, 1.0]]), None, "NaN or infinite"),
        (np.full((3, 8), np.inf), None, "NaN or infinite"),
        *((skewed(9, 3), shrinkage, "shrinkage") for shrinkage in ("ledoit", 1.5, -0.1)),
    ],
)
@pytest.mark.parametrize("call", [fit_moments, spectrum])
def test_unusable_samples_and_shrinkage_are_refused(call, x, shrinkage, message):
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match=message):
        call(x, shrinkage=shrinkage)


X = skewed(12, 3).astype(np.float32)
TAKING = {
    "fit_moments": fit_moments,
    "spectrum": spectrum,
    "gram": lambda x: fit_moments(x[:3]),
    "classes": lambda x: class_moments(x, [0] * 6 + [1] * 6)[0][1],
    "shrinkage": lambda x: fit_moments(x, shrinkage="oas"),
    "cumulant": lambda x: third_cumulant_norm(x, np.zeros(3)),
    "empirical": lambda x: EmpiricalScore.fit(x).center,
    "streamed": lambda x: EmpiricalScore.fit(x, resident=False).center,
    "population": lambda x: Population(x).trace,
}


@pytest.mark.parametrize("name", TAKING)
def test_complex_samples_are_refused_and_gradients_are_no_hindrance(name):
    """Their imaginary part was lost, beside a warning at most."""
    for wrong in ((X + 1j * X).astype("c8"), (X + 0j).astype("c16"), torch.from_numpy(X + 1j * X)):
        with pytest.raises(ValueError, match="are complex: give real ones"):
            TAKING[name](wrong)
    expected, found = TAKING[name](X), TAKING[name](torch.from_numpy(X.copy()).requires_grad_())
    for one, other in ((getattr(expected, "eigenvalues", expected), getattr(found, "eigenvalues", found)),):
        np.testing.assert_array_equal(one, other)


def test_states_that_require_a_gradient_are_denoised():
    score, x = EmpiricalScore(torch.from_numpy(X.copy()).requires_grad_()), torch.from_numpy(X.copy())
    found = score.denoise(x.clone().requires_grad_(), 1.0)
    assert torch.equal(found, score.denoise(x, 1.0))
    assert not found.requires_grad
    assert score.nearest_index(x.clone().requires_grad_()).tolist() == list(range(12))
