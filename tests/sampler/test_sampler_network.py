"""A network's score is exact whatever it predicts and wherever it was trained, and its options change rounding or what they say."""

import itertools
import logging

import numpy as np
import pytest
import torch
from network_zoo import EVENT, MEAN, Convolutional, LinearEDM, exact, predicting
from sampler_zoo import CONTINUOUS, PROCESSES, normal, pairwise_cover
from torch import nn

from gaussian_test.sampler import DiscreteVP, NetworkError, NetworkScore, NumericSchedule, VarianceExploding, fastest_micro_batch

PREDICTIONS = ["x0", "epsilon", "v", "score", "velocity"]
X = normal(6, *EVENT, seed=70)


# the rate of a discrete process jumps between its levels: its velocity has no derivative to be held against
CASES = [*pairwise_cover(PREDICTIONS[:-1], PROCESSES, PROCESSES), *pairwise_cover(PREDICTIONS[-1:], CONTINUOUS, PROCESSES)]


@pytest.mark.parametrize(("prediction", "trained", "process"), CASES)
def test_round_the_circle(prediction, trained, process):
    """D -> prediction in the scaling of the training -> D in the scaling of the experiment, at scalar times and row by row."""
    trained, process = PROCESSES[trained](), PROCESSES[process]()
    score = NetworkScore.from_callable(predicting(prediction, trained), EVENT, process, trained=trained, prediction=prediction)
    for nu in (0.05, 1.0, 20.0, torch.tensor([0.05, 0.3, 1.0, 2.0, 9.0, 40.0], dtype=torch.float64)):
        t = process.time(nu)
        x = process.noised(MEAN + X, t, normal(6, *EVENT, seed=71))
        expected = exact(process).denoise(x, t)
        torch.testing.assert_close(score.denoise(x, t), expected, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(score(x, t), exact(process)(x, t), rtol=1e-5, atol=1e-6)
        if isinstance(nu, float) and nu == 1:
            torch.testing.assert_close(score.denoise(x.float(), t), expected.float(), rtol=1e-4, atol=1e-4)


def test_v_is_the_one_of_salimans_and_ho():
    """At equal parts of signal and noise v = (z - x0) / sqrt 2: written out, so that a common sign error cannot hide."""
    process = PROCESSES["cosine"]()
    score = NetworkScore(lambda x, t, label: torch.full_like(x, 3.0), (1,), process, prediction="v")
    assert score.denoise(torch.tensor([[5.0]]), 0.5).item() == pytest.approx((5 - 3) / 2**0.5)


# -- labels and guidance -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guidance", [0.0, 0.5, 1.0, 3.0, -1.0])
def test_guidance_extrapolates_from_label_free_to_conditional(guidance):
    """Labels reach the network row by row."""
    label = torch.tensor([0, 1, 2, 2, 1, 0])
    plain, guided = (NetworkScore.from_edm(LinearEDM(label_dim=3), guidance=g) for g in (1.0, guidance))
    free, conditional = plain.denoise(X, 1.0), plain.denoise(X, 1.0, label)
    torch.testing.assert_close(free, exact(plain.process).denoise(X, 1.0), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(conditional - free, (label + 1.0).double().reshape(-1, 1, 1, 1).expand_as(X))
    torch.testing.assert_close(guided.denoise(X, 1.0, label), free + guidance * (conditional - free))
    torch.testing.assert_close(guided.denoise(X, 1.0), free)
    assert len(guided.network.inner.seen) == 1 + (1 if guidance in (0, 1) else 2)


# -- calls -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "micro_batch", "sizes"), [(6, None, [6]), (6, 6, [6]), (6, 4, [3, 3]), (7, 3, [3, 2, 2]), (5, 1, [1] * 5)]
)
def test_batches_are_cut_into_equal_parts_within_the_micro_batch(count, micro_batch, sizes):
    score, whole = (NetworkScore.from_edm(LinearEDM(label_dim=9), micro_batch=size) for size in (micro_batch, None))
    given = normal(count, *EVENT, seed=73), torch.linspace(0.5, 2, count, dtype=torch.float64), torch.arange(count)
    torch.testing.assert_close(score.denoise(*given), whole.denoise(*given))
    assert [shape[0] for shape, *_ in score.network.inner.seen] == sizes


class Counting(nn.Module):
    """Halves the state at time 1, and counts the states of each call that ``watch`` lets pass."""

    def __init__(self, watch):
        super().__init__()
        self.watch, self.sizes = watch, []

    def forward(self, x, t, label):
        self.watch(len(x))
        self.sizes.append(len(x))
        return x / (1 + t.reshape(-1, 1, 1, 1) ** 2)


def hungry(limit, error):
    """A network that runs out of memory above a number of states."""

    def watch(count):
        if count > limit:
            raise error

    return NetworkScore.from_callable(Counting(watch), EVENT, micro_batch=16)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
    ],
)
def test_out_of_memory_halves_the_micro_batch_and_says_so(error, caplog):
    score, x = hungry(3, error), normal(20, *EVENT, seed=74)
    with caplog.at_level(logging.WARNING):
        denoised = score.denoise(x, 1.0)
    torch.testing.assert_close(denoised, x / 2)
    sizes = score.network.inner.sizes
    assert (sum(sizes), max(sizes) <= 3, score.micro_batch) == (20, True, 2)  # 10 -> 5 -> 2
    assert [record.getMessage() for record in caplog.records] == [
        "out of memory with 10 states a call: going on with 5",
        "out of memory with 5 states a call: going on with 2",
    ]


def test_out_of_memory_with_one_state_and_other_errors_are_raised():
    for limit, error in ((0, torch.OutOfMemoryError("none left")), (3, RuntimeError("of its own"))):
        with pytest.raises(type(error), match=str(error)):
            hungry(limit, error).denoise(X, 1.0)


@pytest.mark.parametrize(
    ("seconds", "largest", "best"),
    [
        (lambda n: 1.0 + 0.001 * n, 256, 256),  # all overhead: the larger the better
        (lambda n: 0.001 * n, 256, 1),  # no overhead: the smallest of equals
        (lambda n: 1.0 + n / 32 + (n / 32) ** 3, 1024, 32),  # too large is slower
        (lambda n: 1.0 + 0.001 * n, 20, 20),  # never beyond the largest
    ],
)
def test_the_fastest_micro_batch_is_taken(seconds, largest, best, monkeypatch):
    clock = [0.0]

    def wait(count):
        clock[0] += seconds(count) / 1000

    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    score = NetworkScore.from_callable(Counting(wait), EVENT)
    assert fastest_micro_batch(score, largest, torch.device("cpu")) == best
    assert max(score.network.inner.sizes) <= largest
    assert score.micro_batch is None


@pytest.mark.parametrize("busy", [range(3, 9), range(9, 16), range(20, 26)])
def test_a_busy_while_does_not_change_the_micro_batch(busy, monkeypatch):
    clock, calls = [0.0], itertools.count()

    def wait(count):
        clock[0] += (1.0 + 0.001 * count) * (6 if next(calls) in busy else 1) / 1000

    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    assert fastest_micro_batch(NetworkScore.from_callable(Counting(wait), EVENT), 256, torch.device("cpu")) == 256


def test_the_fastest_micro_batch_fits_into_memory():
    assert fastest_micro_batch(hungry(20, torch.OutOfMemoryError("none left")), 1024, torch.device("cpu")) <= 20


# -- options -----------------------------------------------------------------------------------------------------------------------


def test_channels_last_is_handed_over_and_changes_rounding_only():
    plain, last = (NetworkScore.from_callable(Convolutional(), EVENT, channels_last=c) for c in (False, True))
    x = X.float()
    torch.testing.assert_close(last.denoise(x, 1.0), plain.denoise(x, 1.0))
    assert last.denoise(x, 1.0).is_contiguous()
    assert all(last.network.inner.formats)
    assert not any(plain.network.inner.formats)
    assert last.network.inner.layers[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("autocast", "dtype"), [("bfloat16", torch.bfloat16), ("float16", torch.float16)])
def test_autocast_lowers_the_network_and_not_the_state(autocast, dtype):
    plain, lower = (NetworkScore.from_callable(Convolutional(), EVENT, autocast=a) for a in (None, autocast))
    x = X.float()
    denoised = lower.denoise(x, 1.0)
    assert denoised.dtype == torch.float32
    assert lower.network.inner.dtypes == [dtype]
    difference = (denoised - plain.denoise(x, 1.0)).abs().max()
    assert 0 < difference < 64 * torch.finfo(dtype).eps
    with pytest.raises(ValueError, match="for states in float32"):
        lower.double().denoise(X, 1.0)


def test_what_autocast_returns_is_converted_in_the_type_of_the_state():
    """D = x - 3 z: with z in bfloat16 the difference is still one of float32."""
    half, x = torch.nn.Linear(8, 8), X.float()

    def network(x, t, label):
        return half(x.flatten(1)).reshape(x.shape)

    score = NetworkScore.from_callable(network, EVENT, prediction="epsilon", autocast="bfloat16")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        noise = network(x, None, None)
    assert noise.dtype == torch.bfloat16
    for t in (3.0, torch.full((6,), 3.0, dtype=torch.float64)):
        torch.testing.assert_close(score.denoise(x, t), x - 3 * noise.float(), rtol=1e-6, atol=1e-6)


def test_compile_changes_rounding_only_and_keeps_the_names_of_the_weights(monkeypatch):
    """Traced as ever, by the compiler's quickest backend: the rest is torch's."""
    whole = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda module, **given: whole(module, **given | {"backend": "eager"}))
    plain, compiled = (NetworkScore.from_callable(Convolutional(), EVENT, compile=c) for c in (False, True))
    x = X.float()
    torch.testing.assert_close(compiled.denoise(x, 1.0), plain.denoise(x, 1.0))
    assert compiled.network.inner._compiled_call_impl is not None
    assert compiled.state_dict().keys() == plain.state_dict().keys()


def test_no_gradient_and_no_dropout():
    score, x = NetworkScore.from_callable(Convolutional(), EVENT), X.float().requires_grad_()
    first = score.denoise(x, 1.0)
    assert first.is_inference()
    assert torch.equal(first, score.denoise(x, 1.0))
    assert score.double().denoise(X, 1.0).dtype == torch.float64


# -- refusals ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prediction": "eps"}, "choose one of x0"),
        ({"autocast": "float8"}, "choose one of bfloat16"),
        ({"guidance": float("nan")}, "not a weight"),
        ({"guidance": 2.0}, "with and without labels"),
        ({"guidance": 2.0, "classes": 3, "label_free": False}, "with and without labels"),
        ({"conditional": True}, "needs a network that knows classes"),
        ({"micro_batch": 0}, "too small"),
        ({"event_shape": (8,), "channels_last": True}, "for images"),
        ({"prediction": "velocity", "trained": NumericSchedule(lambda t: (1 - t, t))}, "drift"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        NetworkScore(lambda x, t, label: x, **({"event_shape": EVENT} | options))


def test_unsound_weights_are_named_and_a_mask_of_infinities_is_none():
    for value in (float("nan"), float("inf")):
        net = Convolutional()
        net.layers[3].weight.data[0, 0, 0, 0] = value
        with pytest.raises(ValueError, match=r"'layers.3.weight' holds NaN or infinite"):
            NetworkScore.from_callable(net, EVENT)
    net = Convolutional()
    net.register_buffer("mask", torch.full((3, 3), -torch.inf).triu(1))
    NetworkScore.from_callable(net, EVENT)
    net.mask[0, 0] = torch.nan
    with pytest.raises(ValueError, match="'mask' holds NaN"):
        NetworkScore.from_callable(net, EVENT)


def test_times_and_labels_that_do_not_fit_are_refused():
    score = NetworkScore.from_edm(LinearEDM(label_dim=3), micro_batch=4)
    for t, label, said in (
        (1.0, torch.tensor([-1, 0, 0, 0, 0, 0]), "are not classes 0 to 2"),
        (1.0, torch.tensor([0, 0, 3, 0, 0, 0]), "are not classes 0 to 2"),
        (torch.ones(7), None, r"time of shape \(7,\) does not fit a batch of 6"),
        (1.0, torch.zeros(7, dtype=torch.long), r"label of shape \(7,\) does not fit a batch of 6"),
        (float("nan"), None, r"outside the 0.002 to 80"),
    ):
        with pytest.raises(ValueError, match=said):
            score.denoise(X, t, label)
    with pytest.raises(ValueError, match="knows no classes"):
        NetworkScore.from_edm(LinearEDM()).denoise(X, 1.0, torch.zeros(6, dtype=torch.long))
    with pytest.raises(ValueError, match="cannot be called without labels"):
        NetworkScore.from_callable(lambda x, t, label: x, EVENT, classes=3, label_free=False).denoise(X, 1.0)
    score = NetworkScore.from_edm(LinearEDM(), VarianceExploding(1e-4, 1e3))
    for t in (0.001, 81.0, torch.tensor([1.0, 81.0] * 3)):  # beyond the training
        with pytest.raises(ValueError, match=r"outside the 0.002 to 80"):
            score.denoise(X, t)
    score.denoise(X, torch.tensor(80.0, dtype=torch.float32))  # its own ends are in


def test_a_network_that_fails_or_has_another_shape_is_named():
    def failing(x, t, label):
        raise AssertionError("of its own")

    with pytest.raises(NetworkError, match=r"fails on 6 states at noise-to-signal 2 \(AssertionError: of its own\)"):
        NetworkScore.from_callable(failing, EVENT).denoise(X, 2.0)
    score = NetworkScore.from_callable(lambda x, t, label: x[:, :1], EVENT)
    with pytest.raises(ValueError, match=r"returned \(6, 1, 2, 2\) for states of shape \(6, 2, 2, 2\)"):
        score.denoise(X, 1.0)
    with pytest.raises(ValueError, match="does not fit this score"):
        score.denoise(X[:, :1], 1.0)


class Discrete(LinearEDM):
    """Knows some noise levels only, as an EDM wrapper of a DDPM checkpoint does."""

    levels = torch.from_numpy(np.geomspace(0.01, 80, 50))

    def round_sigma(self, sigma):
        sigma = torch.as_tensor(sigma, dtype=torch.float64)
        return self.levels[(self.levels - sigma.reshape(-1, 1)).abs().argmin(1)].reshape(sigma.shape)


def test_a_network_of_discrete_levels_is_asked_for_no_other():
    net = Discrete()
    score = NetworkScore.from_edm(net, VarianceExploding(0.01, 80))
    torch.testing.assert_close(score.levels, net.levels, rtol=1e-12, atol=0)
    score.denoise(X, net.levels[:6])
    with pytest.raises(ValueError, match=r"1 lies between the 50 levels .* discrete_vp"):
        score.denoise(X, 1.0)
    process = DiscreteVP(1 / (1 + net.levels**2))  # the way out that the sentence names
    NetworkScore.from_edm(net, process).check_levels(process.noise_to_signal(torch.arange(1.0, 51).double()))


@pytest.mark.parametrize("part", ["sigma_min", "round_sigma", "label_dim", "img_resolution"])
def test_a_part_of_edms_interface_that_is_missing_is_named(part):
    net = LinearEDM()

    class Partial:
        __call__ = net.forward

    for name in {"sigma_min", "sigma_max", "round_sigma", "label_dim", "img_channels", "img_resolution"} - {part}:
        setattr(Partial, name, getattr(net, name))
    with pytest.raises(ValueError, match=f"lacks {part} of EDM's interface"):
        NetworkScore.from_edm(Partial())


@pytest.mark.parametrize(
    "schedule", [lambda t: (1 - t, t), lambda t: (torch.ones_like(t), torch.exp(3 * t)), lambda t: (1 - t**2, t)]
)
def test_numeric_schedules_are_inverted(schedule):
    """time is the inverse of sigma / alpha, for a number and for rows."""
    numeric = NumericSchedule(schedule)
    t = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)
    nu = numeric.noise_to_signal(t)
    torch.testing.assert_close(numeric.time(nu), t, rtol=1e-12, atol=1e-12)
    assert [float(numeric.time(float(value))) for value in nu] == pytest.approx(t.tolist(), rel=1e-12)
