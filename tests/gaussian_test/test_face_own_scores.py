"""A score from python is checked before any work, run as in evaluation, and known again when a run is resumed."""

import numpy as np
import pytest
import torch

import gaussian_test as gt
from gaussian_test import UserError

SHAPE = (1, 8, 8)
SETTINGS = {
    "samples": 12,
    "scores": [{"kind": "gaussian"}],
    "turn_times": {"noise_to_signal": [0.3, 1.0, 4.0]},
    "reverse": {"steps": 4},
    "keep": {"pictures": 0},
}


class Own(gt.sampler.Score):
    """A score whose denoiser is any function of state and time."""

    def __init__(self, function, process=None, event_shape=SHAPE):
        super().__init__(process or gt.sampler.VarianceExploding(), event_shape)
        self.function = function

    def denoise(self, x, t, label=None):
        return self.function(x, t)


class Network(gt.sampler.Score):
    """A module with parameters and dropout."""

    def __init__(self):
        super().__init__(gt.sampler.VarianceExploding(), SHAPE)
        self.layers = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(64, 64), torch.nn.Dropout(0.5), torch.nn.Unflatten(1, SHAPE)
        )

    def denoise(self, x, t, label=None):
        return self.layers(x)


def _shrink(x, t):
    return x / 2


def test_a_network_runs_in_evaluation_without_gradients_and_is_left_in_training():
    torch.manual_seed(0)
    network = Network()
    first, second = (gt.run(SETTINGS, scores={"network": network}) for _ in range(2))
    assert first.autocorrelation.identical(second.autocorrelation)  # dropout would differ
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("score", "said"),
    [
        (Own(_shrink, event_shape=(64,)), "the data has"),
        (Own(_shrink, process=gt.sampler.Cosine()), "use the same process"),
        (Own(lambda x, t: x[:, :, :1]), "return the same shape"),
        (Own(lambda x, t: None), "returned NoneType"),
        (Own(lambda x, t: x * torch.nan), "NaN or infinite"),
        (Own(lambda x, t: x @ torch.ones(3, 3)), "fix its denoise method"),
        (torch.nn.Linear(2, 2), "derive it from gaussian_test.sampler.Score"),
    ],
)
def test_a_score_that_does_not_fit_is_refused_before_any_work(score, said, tmp_path):
    with pytest.raises(UserError, match=said) as error:
        gt.run(SETTINGS, tmp_path / "run.nc", scores={"mine": score})
    assert "mine" in str(error.value)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("some", [False, True], ids=["every sample", "one of a micro-batch"])
def test_a_score_that_fails_at_one_level_is_named_with_it(some):
    def denoise(x, t):
        hit = torch.as_tensor(t, dtype=x.dtype).reshape(-1, 1, 1, 1) == 1.0
        rows = (torch.arange(len(x)) == 4).reshape(-1, 1, 1, 1) if some else torch.tensor(True)
        return torch.where(hit & rows, torch.nan, x / 2)

    with pytest.raises(UserError, match=r"'mine' returned NaN .* noise-to-signal 1:"):
        gt.run(SETTINGS, scores={"mine": Own(denoise)})


def test_a_name_that_is_no_file_name_is_refused():
    for name in ("a/b", "../up", "", ".hidden", "line\nbreak"):
        with pytest.raises(UserError, match="cannot name a file"):
            gt.run(SETTINGS, scores={name: Own(_shrink)})


def test_a_score_without_tensors_is_not_taken_for_another_when_resumed(tmp_path):
    """Two functions cannot be told apart by tensors: resume is refused unless the score says who it is."""
    gt.run(SETTINGS, tmp_path / "run.nc", scores={"mine": Own(_shrink)})
    with pytest.raises(UserError, match="attribute 'digest'"):
        gt.run(SETTINGS, tmp_path / "run.nc", scores={"mine": Own(lambda x, t: x)}, resume=True)
    named, other = Own(_shrink), Own(_shrink)
    named.digest, other.digest = "half", "third"
    gt.run(SETTINGS, tmp_path / "named.nc", scores={"mine": named})
    assert gt.run(SETTINGS, tmp_path / "named.nc", scores={"mine": named}, resume=True).sizes["sample"] == 12
    with pytest.raises(UserError, match="score mine differs"):
        gt.run(SETTINGS, tmp_path / "named.nc", scores={"mine": other}, resume=True)


def test_own_affine_score_of_other_moments_has_its_closed_forms():
    """A Gaussian score with half the covariance, rotated away from the data's modes: simulation and closed form within 4 errors."""
    truth = gt.data.load("digits")
    moments = gt.analysis.fit_moments(truth.x)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(64, 64)))[0]
    covariance = (rotation * np.linspace(0.05, 1.0, 64)) @ rotation.T
    score = gt.analysis.GaussianScore.from_moments(moments.mean + 0.1, covariance)
    settings = SETTINGS | {
        "samples": "all",
        "reverse": {"kind": "sde", "clock": "time", "steps": 12},
        "scores": [{"kind": "gaussian"}],
        "shard_size": 600,
    }
    row = gt.run(settings, scores={"other": score}).sel(score="other")
    sigma = moments.covariance()
    for level, exact in zip((0.3, 1.0, 4.0), row.autocorrelation_exact.values, strict=True):
        gain = covariance @ np.linalg.inv(covariance + level**2 * np.eye(64))
        assert exact == pytest.approx(np.trace(sigma @ gain) / moments.trace, rel=1e-5)
    np.testing.assert_array_less(np.abs(row.autocorrelation - row.autocorrelation_discrete), 4 * row.autocorrelation_se)
    assert not np.allclose(row.autocorrelation_exact, row.autocorrelation_discrete, atol=1e-3)


def test_one_evaluation_gap_is_the_exact_one_whatever_the_kernel():
    """gap_one_shot does not depend on how the run is reversed; under exact reversal it is the gap."""
    settings = SETTINGS | {"samples": 64, "scores": [{"kind": "empirical"}]}
    exact = gt.run(settings)
    stepped = gt.run(settings | {"reverse": {"kind": "heun", "steps": 4}})
    np.testing.assert_array_equal(exact.gap, exact.gap_one_shot)
    np.testing.assert_allclose(stepped.gap_one_shot, exact.gap_one_shot, atol=1e-9)
    assert not np.allclose(stepped.gap, exact.gap, atol=1e-3)
    assert stepped.affine_noise_to_signal.equals(exact.affine_noise_to_signal)


def test_trajectories_at_chosen_levels_are_part_of_the_whole():
    whole = gt.run(SETTINGS | {"keep": {"pictures": 2, "trajectory": True}}).gaussian_test.group("trajectory")
    some = gt.run(SETTINGS | {"keep": {"pictures": 2, "trajectory": [0.3, 0.0]}}).gaussian_test.group("trajectory")
    assert some.time.values.tolist() == [0.3, 0.0]
    np.testing.assert_array_equal(some.state, whole.state.sel(time=[0.3, 0.0]))
