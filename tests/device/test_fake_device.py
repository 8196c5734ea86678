"""The pretended device catches what it is there to catch, in wrong kernels, scores and reductions, and lets pass what CUDA does."""

import pytest
import torch
from device_zoo import case_of, differences, leaving, loop_of, one_thread, other_copies, simulate, tensors_of  # noqa: F401
from fake_device import NAME, FakeDevice, MixedDevices, OnDevice, register, values

from gaussian_test.analysis.observables.gaussian_test import curves
from gaussian_test.sampler import Ancestral, ProbabilityFlow, Score, VarianceExploding

if register() is not None:
    pytest.skip(register(), allow_module_level=True)


EVENT = (2, 2)


def run_of(kernel, score=None, on_device=True, steps=4):
    score = score or case_of("mixture_shared_labels").make(VarianceExploding(), torch.float32)
    return simulate(score, kernel, torch.float32, on_device, steps=steps)


class Wrong(Ancestral):
    """A kernel that does something wrong with the state before each step."""

    def __init__(self, wrong):
        self.wrong = wrong

    def step(self, score, x, t, s, noise, label=None):
        self.wrong(x, t)
        return super().step(score, x, t, s, noise, label)


@pytest.mark.parametrize(
    "forgotten",
    [
        lambda x, t: x + torch.zeros(x.shape),
        lambda x, t: torch.cat([x, torch.zeros(x.shape)]),
        lambda x, t: torch.where(torch.ones(x.shape, dtype=torch.bool), x, x),
        lambda x, t: torch.zeros(x.shape).add_(x),
        lambda x, t: torch.zeros(x.shape)[x.flatten(1).argmax(1)],
        lambda x, t: torch.nn.Linear(2, 2)(x),
    ],
)
def test_a_forgotten_move_is_an_error(forgotten):
    """A tensor left on the CPU meets the state in a step."""
    with pytest.raises(MixedDevices, match="cpu"):
        run_of(Wrong(forgotten))


@pytest.mark.parametrize(
    "look",
    [
        lambda x, t: x.sum().item(),
        lambda x, t: 1 if (x > 0).any() else 0,
        lambda x, t: x[x.flatten(1).sum(1).argmax()],  # a scalar index is fetched
        lambda x, t: x[x.abs() > 1e6],
        lambda x, t: x.clone().index_put_((x.abs() > 1e6,), x.new_zeros(())),
        lambda x, t: x.nonzero(),
        lambda x, t: torch.equal(x, x),
        lambda x, t: x.repeat_interleave(torch.ones(len(x), dtype=torch.long, device=x.device), 0),
        lambda x, t: torch.linalg.eigvalsh(x),
        lambda x, t: x.cpu().to(x.device),
    ],
)
def test_a_look_at_the_state_is_seen(look):
    """A number read, a mask, a round trip: in every step, and blamed on the line that did it."""
    seen = [event for event in leaving(loop_of(run_of(Wrong(look)))) if event.where == f"test_fake_device.py:{look.__qualname__}"]
    assert len(seen) >= 4


@pytest.mark.parametrize(
    "copy",
    [
        lambda x, t: torch.full((len(x), 1, 1, 1), t).to(x.device),
        lambda x, t: torch.tensor([t], device=x.device),
        lambda x, t: x.clone().copy_(torch.zeros(x.shape)),
        lambda x, t: x[torch.tensor([0])],
        lambda x, t: torch.where(x > 0, x, torch.tensor(t)),
    ],
)
def test_a_copy_in_every_step_is_seen(copy):
    """Something of the host's given to the device, more of it the more steps there are."""
    few, many = (len(other_copies(run_of(Wrong(copy), steps=steps).log)) for steps in (4, 8))
    assert many >= few + 4 >= 8


def test_another_value_on_the_device_is_seen():
    """One last bit in one step."""

    class Other(Ancestral):
        def step(self, score, x, t, s, noise, label=None):
            moved = super().step(score, x, t, s, noise, label)
            return moved if s > 0 or x.device.type == "cpu" else torch.nextafter(moved, moved + 1)

    assert differences(run_of(Other(), on_device=False), run_of(Other())) == [("end", (0.0,) * 3), ("path", (0.0,) * 3)]


def test_a_reduction_on_the_cpu_is_seen(monkeypatch):
    """A table that fetches what it reduces."""
    right = curves.product
    monkeypatch.setattr(curves, "product", lambda a, b, trace: right(a.cpu(), b.cpu(), trace).to(a.device))
    assert len([event for event in leaving(loop_of(run_of(Ancestral()))) if event.kind == "to host"]) >= 2


def test_a_tensor_that_is_not_registered_stays_behind():
    """A score that holds a tensor as a plain attribute: found on the CPU after the move, and an error when it is used."""

    class Plain(Score):
        def __init__(self):
            super().__init__(VarianceExploding(), EVENT)
            self.shift = torch.zeros(EVENT)

        def denoise(self, x, t, label=None):
            return x + self.shift

    score = Plain()
    with pytest.raises(MixedDevices, match="denoise"):
        run_of(ProbabilityFlow(), score)
    assert [name for name, value in tensors_of(score).items() if not isinstance(value, OnDevice)] == [".shift"]


def test_scalars_of_the_cpu_are_welcome_where_cuda_takes_them():
    """One in an elementwise operation, never two, never a target, never in a product of matrices."""
    scalar = torch.tensor(2.0, dtype=torch.float64)
    with FakeDevice() as device:
        x = torch.arange(6.0).reshape(2, 3).to(NAME)
        device.forget()
        for got in (scalar * x, x * scalar, x / scalar, x.clone().mul_(scalar), torch.maximum(x, scalar), x.clone().fill_(scalar)):
            assert isinstance(got, OnDevice)
            assert got.dtype == torch.float32
        assert torch.equal(values(scalar * x), 2 * torch.arange(6.0).reshape(2, 3))
        wrong = (
            lambda: torch.addcmul(x, scalar.float(), torch.tensor(1.0)),
            lambda: scalar.clone().add_(x.sum()),
            lambda: torch.stack([x.sum(), scalar]),
            lambda: torch.dot(x[0], scalar.expand(3).float()),
            lambda: torch.addmm(scalar.float(), x, x.T),
        )
        for call in wrong:
            with pytest.raises(MixedDevices):
                call()
    assert not device.log


def test_what_is_made_on_the_device_is_not_copied_there():
    """Factories, views and what is written through them."""
    with FakeDevice() as device:
        made = [
            torch.zeros(2, 3, device=NAME),
            torch.arange(3, device=NAME),
            torch.full((2,), 1.5, device=NAME),
            torch.empty(2, 3, device=NAME).new_ones(3),
        ]
        assert all(isinstance(value, OnDevice) and value.device == torch.device(NAME, 0) for value in made)
        x = made[0]
        x[0, 1:] = 7.0
        x.T[2].add_(1)
        assert x.to(NAME) is x
    assert values(x).tolist() == [[0, 7, 8], [0, 0, 1]]
    assert not device.log


def test_transfers_are_logged_with_their_size_and_whether_they_wait():
    """There and back, in either type."""
    with FakeDevice() as device:
        x = torch.zeros(3, 5).to(NAME, torch.float64)
        x.to("cpu", torch.float32, non_blocking=True)
        torch.zeros(2).copy_(x[0, :2])
        x[0] = torch.ones(5)
    found = [(event.kind, event.operation, event.shape, event.size, event.blocking) for event in device.log]
    assert found == [
        ("to device", "_to_copy", (3, 5), 120, True),
        ("to host", "_to_copy", (3, 5), 60, False),
        ("to host", "copy_", (2,), 16, True),
        ("to device", "copy_", (5,), 20, True),
    ]


def test_the_device_leaves_others_alone():
    """CPU tensors pass unseen, the default device stays the CPU, gradients are as ever; off, the device computes nothing."""
    with FakeDevice() as device:
        assert bool((torch.ones(3) + 1 == 2).all())
        x = torch.ones(2).to(NAME)
    assert device.operations.total() == 1
    assert torch.get_default_device() == torch.device("cpu")
    assert torch.zeros(1).device.type == torch.tensor([1.0]).device.type == "cpu"
    assert not torch._C._only_lift_cpu_tensors()
    y = torch.ones(2, requires_grad=True)
    (y * y).sum().backward()
    assert y.grad.tolist() == [2, 2]
    with pytest.raises(RuntimeError, match="device is off"):
        x + 1
    with pytest.raises((TypeError, RuntimeError)):
        x.numpy()
