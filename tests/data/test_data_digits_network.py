"""The trained denoiser of the digits: what its form guarantees, what its training guarantees, and how good the shipped one is."""

import itertools
import json
import math
from dataclasses import asdict, replace
from functools import cache

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from gaussian_test.analysis import GaussianScore, autocorrelation_exact, fit_moments
from gaussian_test.data import load, network_record, train_network as script
from gaussian_test.sampler import EmpiricalScore, NetworkScore, ReverseSDE, UTurnPlan, VarianceExploding
from gaussian_test.sampler.networks.residual_denoiser import ResidualDenoiser
from gaussian_test.store.digest import data_digest

SIGMAS = (0.01, 0.3, 1.0, 7.0, 80.0)
SMALL = {"img_channels": 2, "img_resolution": 3, "label_dim": 4, "width": 16, "hidden": 24, "blocks": 2, "sigma_data": 0.7}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Matrices this small are slower on two threads where other programs run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def net():
    """Return a small network in float64 with weights of unit order everywhere, also where a new one has zeros."""
    torch.manual_seed(0)
    net = ResidualDenoiser(**SMALL).double().eval().requires_grad_(False)
    torch.nn.init.normal_(net.last.weight)
    return net


@pytest.fixture
def x():
    return torch.randn(5, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


LABELS = torch.eye(SMALL["label_dim"], dtype=torch.float64)[[0, 1, 2, 3, 0]]


# -- its form ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_inner_function_has_a_target_of_unit_size_and_the_smallest_factor(sigma):
    net, x = ResidualDenoiser(**SMALL).double(), torch.ones(1, 2, 3, 3, dtype=torch.float64)
    with torch.no_grad():  # c_skip and c_out show where the inner function is 0 and 1
        skips = net(x, sigma)
        net.last.bias.fill_(1)
        out = float((net(x, sigma) - skips).mean())
    skip = float(skips.mean())
    assert torch.allclose(skips, skips.mean(), atol=1e-15)
    # the variance of x0 - c_skip (x0 + sigma z)
    target = [(1 - c) ** 2 * SMALL["sigma_data"] ** 2 + c**2 * sigma**2 for c in (skip, skip * 1.01, skip * 0.99)]
    assert out**2 == pytest.approx(target[0], rel=1e-10)
    assert target[0] < min(target[1:])


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_inner_function_sees_inputs_of_unit_size_and_a_quarter_of_the_log_of_the_noise(net, sigma):
    seen = {}
    net.first.register_forward_pre_hook(lambda _, inputs: seen.update(first=inputs[0]))
    net.noise.register_forward_pre_hook(lambda _, inputs: seen.update(noise=inputs[0]))
    z = torch.randn(2, 4000, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    net(SMALL["sigma_data"] * z[0] + sigma * z[1], sigma)
    assert float(seen["first"].square().mean()) == pytest.approx(1, abs=4 * math.sqrt(2 / z[0].numel()))  # four standard errors
    cos, sin = seen["noise"].chunk(2, 1)
    slowest = torch.atan2(sin[:, 0], cos[:, 0]) / net.frequencies[0]
    assert float(slowest) == pytest.approx(math.log(sigma) / 4, abs=1e-7)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_no_label_is_a_row_of_zeros_and_each_row_goes_by_itself(net, x, sigma):
    free, labelled = net(x, sigma), net(x, sigma, LABELS)
    assert torch.allclose(net(x, sigma, torch.zeros(5, 4)), free, atol=1e-12)
    assert float((labelled - free).abs().amax((1, 2, 3)).min()) > 1e-6
    some = LABELS * torch.tensor([[1.0], [0], [1], [0], [1]])
    expected = torch.where(some.any(1).reshape(-1, 1, 1, 1), labelled, free)
    assert torch.allclose(net(x, sigma, some), expected, atol=1e-12)


def test_classes_can_be_left_out_altogether(x):
    net = ResidualDenoiser(**{**SMALL, "label_dim": 0}).double()
    assert net.label is None
    assert net(x, 1.0, torch.zeros(5, 0)).shape == x.shape


def test_precision_is_the_states_and_the_weights_may_have_another(net, x):
    exact = net(x, 0.3, LABELS)
    single = ResidualDenoiser(**SMALL).eval()
    single.load_state_dict(net.state_dict())
    for state, dtype in ((x.float(), torch.float32), (x, torch.float64)):
        assert single(state, 0.3, LABELS).dtype == dtype
        assert torch.allclose(single(state, 0.3, LABELS).double(), exact, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        low = single(x.float(), 1e-4)
    assert low.dtype == torch.float32
    assert torch.allclose(low, x.float(), atol=2e-3)  # bfloat16 would lose 4e-3 of a state of size 1: the skip is not in it
    assert net.round_sigma(0.1).double().item() == 0.1
    assert net.round_sigma(kept := torch.tensor([0.1, 3.0])) is kept


def test_dropout_acts_in_training_only(x):
    net = ResidualDenoiser(**SMALL, dropout=0.5).double()
    torch.nn.init.normal_(net.last.weight)
    assert not torch.equal(net(x, 1.0), net(x, 1.0))
    net.eval()
    assert torch.equal(net(x, 1.0), net(x, 1.0))


# -- its training --------------------------------------------------------------------------------------------------------------

TINY = script.Settings(steps=9, pairs=16, architecture={"width": 16, "hidden": 16, "blocks": 1}, curve_every=2)
TINY_UNET = replace(TINY, network="UNetDenoiser", architecture={"width": 8}, weight_decay=0.0, half=True)


class Interrupted(Exception):
    pass


def interrupt(training):
    if training.step == 8:
        raise Interrupted


@pytest.fixture(scope="module")
def truth():
    return load("digits")


def trained_on(truth, settings):
    return script.Training(*script.split(truth, settings.seed, script.HELD_OUT), settings)


def weights(training):
    return torch.cat([value.flatten() for net in (training.network, training.average) for value in net.state_dict().values()])


@pytest.mark.parametrize("settings", [TINY, TINY_UNET], ids=["dense", "convolutional"])
def test_an_interrupted_training_that_is_resumed_ends_in_the_same_bits_and_others_keep_their_random_numbers(
    settings, truth, tmp_path, monkeypatch
):
    monkeypatch.setattr(script, "CHECKPOINT_EVERY", 3)
    monkeypatch.setattr(script, "DRAWS", 256)
    random = torch.get_rng_state()
    whole, first, second = (trained_on(truth, settings) for _ in range(3))
    whole.run()
    assert torch.equal(torch.get_rng_state(), random)
    path = tmp_path / "run.checkpoint"
    with pytest.raises(Interrupted):
        first.run(path, interrupt)
    torch.rand(7)  # what others draw must not matter
    second.resume(path)
    assert second.step == 6
    second.run(path)
    assert torch.equal(weights(second), weights(whole))
    assert second.curve == whole.curve
    assert [point["step"] for point in whole.curve] == [2, 4, 6, 8, 9]
    assert not torch.equal(weights(first), weights(whole))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_checkpoint_of_another_training_is_refused(truth, tmp_path):
    path = tmp_path / "run.checkpoint"
    trained_on(truth, replace(TINY, steps=1)).run(path)
    other = trained_on(truth, replace(TINY, steps=1, seed=1))
    assert not torch.equal(weights(other), weights(trained_on(truth, TINY)))
    with pytest.raises(click.UsageError, match="other settings"):
        other.resume(path)


def test_decay_leaves_alone_what_would_shrink_d(truth):
    training = trained_on(truth, TINY)
    names = {id(weight): name for name, weight in training.network.named_parameters()}
    groups = {group["weight_decay"]: {names[id(weight)] for weight in group["params"]} for group in training.optimizer.param_groups}
    assert groups[TINY.weight_decay] == {"first.weight", "blocks.0.up.weight", "blocks.0.down.weight"}
    assert groups[TINY.weight_decay] | groups[0.0] == set(names.values())


def test_a_file_that_cannot_be_finished_leaves_the_old_one(tmp_path):
    path = tmp_path / "old"
    path.write_text("old")

    def fail(temporary):
        temporary.write_text("half")
        raise Interrupted

    with pytest.raises(Interrupted):
        script.write(path, fail)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("old", "old")]


def test_the_command_writes_weights_record_and_figure(tmp_path, monkeypatch):
    for name, value in {"LEVELS": (1.0, 8.0), "DRAWS": 1, "U_TURNS": 4}.items():
        monkeypatch.setattr(network_record, name, value)
    monkeypatch.setattr(script, "DRAWS", 1)
    monkeypatch.setattr(script, "DIGITS", replace(script.DIGITS, curve_every=1))
    path = tmp_path / "net.safetensors"
    done = CliRunner().invoke(script.main, ["digits", "-o", str(path), "--steps", "2", "--figure", str(tmp_path / "net.png")])
    assert done.exit_code == 0, done.output
    assert sorted(file.name for file in tmp_path.iterdir()) == ["net.json", "net.png", "net.safetensors"]
    assert [row["sigma"] for row in json.loads((tmp_path / "net.json").read_text())["table"]] == [1.0, 8.0]
    assert script.read_network(path)[1]["seed"] == 0


# -- the shipped network -------------------------------------------------------------------------------------------------------


class Shipped:
    """The shipped network, its samples, and squared errors per sample, divided by the total variance and kept."""

    def __init__(self, truth):
        self.path = script.DIGITS_OUTPUT
        self.net, self.config = script.read_network()
        self.record = json.loads(self.path.with_suffix(".json").read_text())
        self.x = torch.from_numpy(truth["x"].values)
        self.training, self.held_out = script.split(truth, self.config["seed"], self.config["held_out"])
        self.moments = fit_moments(truth["x"])
        self.gaussian = GaussianScore.fit(truth["x"])
        self.empirical = EmpiricalScore(self.training.x)
        self.errors = cache(self._errors)

    def _errors(self, who, part, sigma):
        """Return the mean error of each sample, over noise that is the same whoever denoises."""
        samples = getattr(self, part)
        denoise = {
            "network": self.net,
            "labelled": lambda x, sigma: self.net(x, sigma, samples.classes),
            "gaussian": self.gaussian.denoise,
            "empirical": self.empirical.denoise,
        }[who]
        return network_record.squared_errors(denoise, samples.x, sigma, 2**13, seed=7) / self.moments.trace


@pytest.fixture(scope="module")
def shipped(truth):
    return Shipped(truth)


def standard_error(values):
    return float(values.std() / len(values) ** 0.5)


def significance(difference):
    """Return the mean of paired differences in standard errors."""
    return float(difference.mean()) / standard_error(difference)


def test_the_file_is_small_tells_where_it_comes_from_and_serves_as_a_score(shipped, truth):
    assert shipped.path.stat().st_size <= 2_000_000
    assert isinstance(shipped.net, ResidualDenoiser)
    assert not shipped.net.training
    assert {parameter.dtype for parameter in shipped.net.parameters()} == {torch.float32}
    assert (shipped.net.img_channels, shipped.net.img_resolution, shipped.net.label_dim) == (1, 8, 10)
    assert shipped.config["data_digest"] == data_digest(truth)
    assert shipped.config["label_names"] == [str(k) for k in range(10)]
    assert shipped.config == shipped.record["config"]
    defaults = asdict(script.Settings())
    assert {name: shipped.record["settings"][name] for name in defaults} == defaults  # the script as it stands made it
    order = np.random.default_rng(shipped.config["seed"]).permutation(len(shipped.x))
    assert torch.equal(shipped.held_out.x, shipped.x[order[:360]])
    assert torch.equal(shipped.training.x, shipped.x[order[360:]])
    x = shipped.held_out.x[:3]
    with torch.no_grad():
        assert torch.allclose(NetworkScore.from_edm(shipped.net).denoise(x, 1.0), shipped.net(x, 1.0), atol=1e-6)


@pytest.mark.parametrize("who", ["network", "labelled"])
@pytest.mark.parametrize("sigma", [0.51, 0.7, 1.0, 2.0, 5.0, 10.0])
def test_it_generalises(shipped, who, sigma):
    """Held-out loss within 15 % of the training loss, two standard errors of their ratio included."""
    held_out, training = shipped.errors(who, "held_out", sigma), shipped.errors(who, "training", sigma)
    ratio = float(held_out.mean() / training.mean())
    relative = math.hypot(standard_error(held_out) / float(held_out.mean()), standard_error(training) / float(training.mean()))
    assert ratio * (1 + 2 * relative) < 1.15
    assert ratio > 0.95 * (1 - 2 * relative)  # and the two are losses of the same kind of sample


@pytest.mark.parametrize("sigma", [0.3, 0.51, 0.7, 1.0, 1.5, 2.0, 3.0])
def test_on_samples_it_has_not_seen_it_is_as_large_as_an_exact_score(shipped, sigma):
    """E|D|^2 = E x0.D, to three standard errors and half a per cent of the total variance."""
    draws, x0 = 24, shipped.held_out.x
    mean = torch.from_numpy(shipped.moments.mean)
    excess = torch.zeros(len(x0), dtype=torch.float64)
    with torch.no_grad(), network_record.seeded(9):
        for _ in range(draws):
            denoised = shipped.net(x0 + sigma * torch.randn_like(x0), sigma).double()
            excess += ((denoised - mean) * (denoised - x0)).sum((1, 2, 3)) / draws / shipped.moments.trace
    assert abs(float(excess.mean())) < 0.005 + 3 * standard_error(excess)


def test_its_u_turns_remember_more_than_the_affine_ones_and_keep_the_variance(shipped):
    """On the same noise, in steps of the variance: those leave the affine auto-correlation exact, so the difference is the gap."""
    plan = UTurnPlan(VarianceExploding(), [0.1, 0.3, 0.8, 1.5, 10.0], seed=3)
    starts = shipped.x[torch.from_numpy(np.random.default_rng(3).choice(len(shipped.x), 512, replace=False))]
    scores = {"network": NetworkScore.from_edm(shipped.net), "gaussian": shipped.gaussian}
    kernel = ReverseSDE(clock="variance")
    states = [state for state in plan.run(starts, range(512), scores, dict.fromkeys(scores, kernel)) if state.phase == "end"]
    mean = torch.from_numpy(shipped.moments.mean).float()
    ends = {name: torch.cat([state.x - mean for state in states if state.score == name]) for name in scores}
    gaps = ((ends["network"] - ends["gaussian"]) * (starts - mean)).sum((2, 3, 4)) / shipped.moments.trace
    for gap in gaps[:4]:
        assert significance(gap) > 2
    assert abs(significance(gaps[4])) < 3
    variance = ends["network"].square().sum((2, 3, 4)).mean(1) / shipped.moments.trace
    assert 0.85 < float(variance[4]) < 1
    assert float(variance[0]) > 0.98


@pytest.mark.parametrize("sigma", [0.3, 0.51, 0.7, 1.0])
def test_on_samples_it_has_not_seen_it_is_better_than_any_affine_score(shipped, sigma):
    network, gaussian = shipped.errors("network", "held_out", sigma), shipped.errors("gaussian", "held_out", sigma)
    assert significance(gaussian - network) > 10
    assert float(network.mean()) < 0.95 * float(gaussian.mean())


@pytest.mark.parametrize("sigma", [0.7, 1.0, 2.0])
def test_no_network_is_better_than_the_exact_score_of_its_training_samples(shipped, sigma):
    assert significance(shipped.errors("network", "training", sigma) - shipped.errors("empirical", "training", sigma)) > 4


@pytest.mark.parametrize("sigma", [0.7, 1.0])
def test_knowing_the_class_helps(shipped, sigma):
    assert significance(shipped.errors("network", "held_out", sigma) - shipped.errors("labelled", "held_out", sigma)) > 10


@pytest.mark.parametrize("sigma", [0.3, 0.6, 1.5, 6.0, 12.0, 80.0])
def test_its_autocorrelation_lies_between_the_affine_and_the_empirical_one_and_meets_them_at_high_noise(shipped, sigma):
    gaussian = float(autocorrelation_exact(shipped.moments.eigenvalues, [sigma]).item())
    mean = torch.from_numpy(shipped.moments.mean)
    estimates = np.array(network_record.autocorrelations(shipped.net, shipped.x, sigma, mean, draws=3)) / shipped.moments.trace
    if sigma >= 6:
        assert np.abs(estimates - gaussian).max() < 0.01
    else:
        mmse = network_record.squared_errors(EmpiricalScore(shipped.x).denoise, shipped.x, sigma, 1) / shipped.moments.trace
        assert gaussian + 0.01 < estimates.min()
        assert estimates.max() < 1 - float(mmse.mean()) - 0.01


def test_its_record_is_true(shipped):
    """Other noise gives the recorded losses again, to three standard errors of both."""
    rows = {row["sigma"]: row for row in shipped.record["table"]}
    for sigma, part in itertools.product((0.7, 2.0, 10.0), ("training", "held_out")):
        again = shipped.errors("network", part, sigma)
        # most of a standard error is the choice of samples, which is the same here: a bound
        assert abs(float(again.mean()) - rows[sigma][part]) < 3 * rows[sigma][f"{part}_se"]
    assert shipped.record["curve"][-1]["step"] == shipped.record["settings"]["steps"]
    turns = shipped.record["u_turns"]
    assert turns["ends_closer"] < turns["held_out_closer"]  # its U-Turns do not end at training samples
