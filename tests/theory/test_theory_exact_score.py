"""Consequences of the exact empirical score on the embedded digits, and THEORY's reference values."""

from pathlib import Path

import numpy as np
import pytest
import torch

import gaussian_test as gt
from gaussian_test import analysis, sampler
from gaussian_test.analysis.statistics.curves import falls_through

CIFAR = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "cifar-10-batches-bin"
BARE = {"observables": "none", "keep": {"pictures": 0}}
LEVELS = [0.1, 0.5, 0.708, 0.89, 1.251, 1.8, 2.5, 3.2, 4.5, 9.0]


@pytest.fixture(scope="module")
def digits():
    """All digits, two repeats each, exact reversal."""
    return gt.run({"samples": "all", "repeats": 2, "shard_size": 600, "turn_times": {"noise_to_signal": LEVELS}, **BARE})


def test_reference_times_of_the_digits(digits):
    """Measured while THEORY was written: T_m 0.762 (predicted 0.889), T_s 1.42 (sqrt(lambda_1) 1.672)."""
    row = digits.sel(score="empirical")
    assert float(row.memorization_noise_to_signal) == pytest.approx(0.762, abs=0.04)
    assert row.memorization_noise_to_signal_low < row.memorization_noise_to_signal < row.memorization_noise_to_signal_high
    assert float(row.memorization_noise_to_signal_predicted) == pytest.approx(0.889, abs=5e-4)
    assert float(row.speciation_noise_to_signal) == pytest.approx(1.42, abs=0.1)
    assert float(row.speciation_noise_to_signal_predicted) == pytest.approx(1.672, abs=5e-4)
    assert float(row.affine_noise_to_signal) == pytest.approx(float(row.affine_noise_to_signal_predicted), rel=0.15)


def test_reference_correlations_of_the_digits(digits):
    at = digits.sel(turn_time=1.251)
    error = float(at.autocorrelation_se.sel(score="empirical"))
    assert float(at.autocorrelation.sel(score="empirical")) == pytest.approx(0.596, abs=4 * error)
    assert float(at.autocorrelation_exact.sel(score="gaussian")) == pytest.approx(0.4094, abs=3e-4)
    assert error < 0.008
    assert float(digits.gap.sel(score="empirical").max()) == pytest.approx(0.282, abs=0.01)
    assert digits.turn_time.values[digits.gap.sel(score="empirical").values.argmax()] == 0.708


def test_three_estimators_of_an_exact_score_agree(digits):
    """The U-Turn, E[(x0-mu).(D-mu)] and E|D-mu|^2 estimate one number: paired differences within 4 standard errors."""
    row = digits.sel(score="empirical")
    one_shot = row.sample_autocorrelation_one_shot
    for other in (row.sample_autocorrelation, row.sample_autocorrelation_one_shot_squared):
        difference = (other - one_shot).mean("repeat")
        error = difference.std("sample", ddof=1) / np.sqrt(difference.sizes["sample"])
        np.testing.assert_array_less(np.abs(difference.mean("sample")), 4 * error + 1e-6)


def test_simulated_reverse_sde_agrees_with_exact_reversal(digits):
    """80 steps in the variance clock from 400 digits: what is left of the discretisation is below the sampling error."""
    reverse = {"kind": "sde", "clock": "variance", "steps": 80}
    settings = {"samples": 400, "turn_times": {"noise_to_signal": LEVELS[2:8:2]}, "reverse": reverse, "shard_size": 400}
    simulated = gt.run(settings | BARE)
    found = simulated.sel(score="empirical")
    exact = digits.sel(score="empirical", turn_time=simulated.turn_time)
    error = np.hypot(found.autocorrelation_se, exact.autocorrelation_one_shot_squared_se)
    np.testing.assert_array_less(np.abs(found.autocorrelation - exact.autocorrelation_one_shot_squared), 4 * error)


def test_gap_is_the_distance_of_the_denoisers(digits):
    """tr(Sigma) Delta = E|D - D_G|^2 >= 0: two estimators agree within 4 standard errors; the band admits no negative gap."""
    row = digits.sel(score="empirical")
    distance = row.sample_denoiser_gap.mean("repeat")
    error = np.hypot(row.gap_se, distance.std("sample") / np.sqrt(distance.sizes["sample"]))
    np.testing.assert_array_less(np.abs(row.gap - distance.mean("sample")), 4 * error)
    assert (row.gap_high >= 0).all()
    assert (row.gap_low.sel(turn_time=slice(0.4, 3.3)) > 0).all()
    assert (row.gap_pvalue.sel(turn_time=slice(0.4, 3.3)) < 0.001).all()


def test_jump_is_twice_the_mmse(digits):
    """E|end - x0|^2 = 2 mmse: a paired difference within 4 standard errors of zero."""
    truth = gt.data.load("digits")
    x, row = truth.x.values.reshape(1797, -1).astype(np.float64), digits.sel(score="empirical", turn_time=1.251)
    moments = analysis.fit_moments(truth.x)
    start, end = x[row.sample.values][:, None], x[row.nearest_sample.values]  # the exact end point is a ground-truth sample
    jump = ((end - start) ** 2).sum(-1).mean(1)
    mmse = (1 - row.sample_autocorrelation_one_shot_squared).mean("repeat").values * moments.trace
    centred = ((start - moments.mean.reshape(-1)) ** 2).sum(-1).mean(1) - moments.trace  # known mean zero: mmse = E|x0|^2 - E|D|^2
    difference = jump - 2 * (mmse + centred)
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(len(difference))


@pytest.mark.parametrize("kind", ["mixture", "empirical"])
def test_gaussian_data_gives_no_gap(kind, tmp_path):
    """One Gaussian component is affine, and 60,000 samples of a plane Gaussian are too many to remember at these noise levels."""
    x = np.random.default_rng(4).multivariate_normal([0.1, 0.2], [[0.2, 0.05], [0.05, 0.1]], size=60000)
    np.save(tmp_path / "x.npy", x.astype(np.float32))
    scores = [{"kind": kind, "components": 1} if kind == "mixture" else {"kind": kind}]
    data = {"source": "file", "path": str(tmp_path / "x.npy"), "scale": [-5, 5]}
    levels = {"noise_to_signal": [0.2, 0.5, 1.0]}
    result = gt.run({"data": data, "scores": scores, "turn_times": levels, "samples": 400, **BARE})
    assert (np.abs(result.gap) < 0.003).all()
    assert (result.gap_low <= 1e-4).all()
    if kind == "empirical":
        assert float(result.gap_pvalue.min()) > 0.01


@pytest.mark.skipif(not CIFAR.is_dir(), reason="CIFAR-10's test images are not beside the project (../shared/data): see the README")
def test_reference_times_of_cifar10():
    """THEORY: T_m 5.06 (predicted 5.05), sqrt(lambda_1) 14.84; at nu = 5.908 C = 0.68 against 0.466."""
    x = gt.data.load(CIFAR).x.values
    values, levels = analysis.spectrum(x), [4.6, 5.2, 5.908]
    assert analysis.predicted_memorization(values, len(x)) == pytest.approx(5.05, abs=0.01)
    assert np.sqrt(values[0]) == pytest.approx(14.84, abs=0.01)
    assert float(analysis.autocorrelation_exact(values, 5.908)) == pytest.approx(0.466, abs=5e-4)
    score, chosen = sampler.EmpiricalScore.fit(x), np.arange(0, len(x), 25)
    plan = sampler.UTurnPlan(score.process, levels, seed=5)
    noise = sampler.KeyedNoise(6, chosen.tolist(), 1, x.shape[1:]).draw()
    kept, products = {}, {}
    for state in plan.run(torch.from_numpy(x[chosen]), chosen.tolist(), {}, {}):
        for nu, turned in zip(plan.levels[state.turns], state.x, strict=True):
            end = score.posterior_index(turned, nu, noise).numpy()
            kept[nu] = (end == chosen).mean()
            products[nu] = ((x[end] - x.mean(0)) * (x[chosen] - x.mean(0))).sum((1, 2, 3)) / values.sum()
    assert falls_through([kept[nu] for nu in levels], levels, level=0.5) == pytest.approx(5.06, abs=0.4)
    assert products[5.908].mean() == pytest.approx(0.68, abs=4 * products[5.908].std() / np.sqrt(len(chosen)))
