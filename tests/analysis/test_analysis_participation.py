"""Participation of the posterior: closed forms, equal samples, the identity of its entropy, and values found with other code."""

import numpy as np
import pytest
import torch

import gaussian_test as gt
from gaussian_test.analysis.observables.participation import multiplicity, participation_ratio
from gaussian_test.sampler import EmpiricalScore

SETTINGS = {"samples": "all", "keep": {"pictures": 0}, "observables": ["participation"], "statistics": {"bootstrap": 200}}


def weights(samples, x, nu):
    """Return the posterior weights by their definition, equal samples added up, in float64."""
    found = np.exp(-((x[:, None] - samples) ** 2).sum(2) / (2 * nu[:, None] ** 2))
    found /= found.sum(1, keepdims=True)
    _, same = np.unique(samples, axis=0, return_inverse=True)
    return np.stack([np.bincount(same.ravel(), row) for row in found])


def test_it_is_that_of_the_weights_by_definition():
    random = np.random.default_rng(0)
    samples = random.normal(size=(300, 5)).astype(np.float32)
    samples[7] = samples[200] = samples[31]  # three of a kind
    x, nu = random.normal(size=(40, 5)), np.geomspace(0.2, 20, 40)
    score = EmpiricalScore(torch.from_numpy(samples))
    ratio, entropy = participation_ratio(score, torch.from_numpy(x), torch.from_numpy(nu))
    w = weights(samples.astype(np.float64), x, nu)
    np.testing.assert_allclose(ratio, 1 / (w**2).sum(1), rtol=1e-4)
    np.testing.assert_allclose(entropy, -(w * np.log(np.where(w > 0, w, 1))).sum(1), rtol=1e-4, atol=1e-6)
    assert (ratio <= entropy.exp() * (1 + 1e-9)).all()
    assert multiplicity(score).sum() == 300
    assert sorted(multiplicity(score)[[7, 31, 200]].tolist()) == [0, 0, 3]


@pytest.mark.parametrize("far", [1.0, 1e6])
def test_one_sample_takes_part_without_noise_and_all_in_much(far):
    score = EmpiricalScore(torch.from_numpy(np.random.default_rng(1).normal(size=(50, 3)) + far))
    x = score.originals(torch.arange(50))
    for nu, count in ((1e-3, 1), (1e6, 50)):
        ratio, entropy = participation_ratio(score, x, torch.full((50,), nu))
        np.testing.assert_allclose(ratio, count, rtol=1e-6)
        np.testing.assert_allclose(entropy, np.log(count), atol=1e-6)


def test_in_tiles_it_is_the_same(monkeypatch):
    samples = torch.from_numpy(np.random.default_rng(2).normal(size=(500, 4)))
    x, nu = samples[:20] + 0.5, torch.full((20,), 0.7)
    whole = participation_ratio(EmpiricalScore(samples), x, nu)
    score = EmpiricalScore(samples)
    whole_tiles = score.tiles
    monkeypatch.setattr(score, "tiles", lambda: (part for tile in whole_tiles() for part in tile.split(37)))
    for a, b in zip(whole, participation_ratio(score, x, nu), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.fixture(scope="module")
def digits():
    """All digits at the levels at which other code has found medians of 2, and at the spectral prediction of T_m."""
    return gt.run({**SETTINGS, "turn_times": {"noise_to_signal": [0.6612, 0.7308, 0.8889, 3.2]}}, progress=False)


def test_medians_of_the_digits_are_those_found_with_other_code(digits):
    """1/sum w^2 has the median 2 at .7308(15), e^H at .6612(13): one U-Turn a sample moves both by three such errors at most."""
    for name, level, error in (("sample_participation", 1, 0.0015), ("sample_posterior_entropy", 0, 0.0013)):
        values = digits[name].isel(repeat=0)
        values = values if name == "sample_participation" else np.exp(values)
        slope = np.log(np.median(values[1]) / np.median(values[0])) / np.log(0.7308 / 0.6612)
        off = np.log(np.median(values[level]) / 2) / slope  # in the logarithm of the noise level
        assert abs(off) < 3 * np.sqrt(8) * error / 0.7
    assert (digits["participation_low"] <= digits["participation"]).all()
    assert (digits["participation"] <= digits["participation_high"]).all()


def test_the_entropy_is_what_the_divergence_says(digits):
    """E H = log N - I_G + KL: at T_m of the spectrum E H = KL = 1.920, and everywhere within four standard errors of its band."""
    entropy, error = digits["posterior_entropy"].values, digits["posterior_entropy_se"].values
    assert abs(entropy[2] - 1.920) < 4 * error[2]
    assert (np.diff(entropy) > 0).all()
    low, high = digits["posterior_entropy_low"].values, digits["posterior_entropy_high"].values
    assert (low < entropy).all()
    assert (entropy < high).all()
    assert (high - low < 8 * error).all()  # however few starts carry the entropy at the smallest noise
    assert (high <= np.log(1797)).all()
    moments = gt.analysis.fit_moments(gt.data.load("digits")["x"])
    information = np.log1p(moments.eigenvalues / 3.2**2).sum() / 2
    assert abs(entropy[3] - (np.log(1797) - information + 0.005293)) < 4 * error[3] + 3 * 5.4e-5


def test_nothing_else_of_a_run_changes():
    small = {**SETTINGS, "samples": 12, "turn_times": {"noise_to_signal": [0.3, 2.0]}}
    plain = gt.run({**small, "observables": "none"}, progress=False)
    measured = gt.run(small, progress=False)
    width = measured["posterior_entropy_high"] - measured["posterior_entropy_low"]
    assert (width <= 8 * measured["posterior_entropy_se"]).all()  # though two starts carry the entropy at 0.3
    for name in plain.variables:
        np.testing.assert_array_equal(plain[name], measured[name], err_msg=str(name))
    assert "how many samples share" not in plain.gaussian_test.show()
    assert "number of samples that take part" in measured.gaussian_test.show()
    assert "participation" in measured.gaussian_test.plot()
