"""On a device, a run computes what the CPU computes, and neither leaves the device nor waits for it.

Shown on a device that this computer only pretends to have (fake_device.py): where tensors are and what the host waits for. A GPU's
own arithmetic, memory and speed stay unproven, and so does the pinned memory that the noise takes on "cuda" alone.
"""

import math
from collections import Counter
from contextlib import nullcontext
from importlib import import_module
from itertools import cycle

import device_zoo as zoo
import pytest
import torch
import xarray as xr
from device_zoo import one_thread  # noqa: F401
from fake_device import NAME, FakeDevice, MixedDevices, register, values
from sampler_zoo import KERNELS, PROCESSES, STEPPED, noise_like, normal, pairwise_cover

import gaussian_test as gt
from gaussian_test.analysis import GaussianScore, fit_moments
from gaussian_test.analysis.theory.affine_ends import affine_uturns
from gaussian_test.sampler import Ancestral, NetworkError, Noise, UTurnPlan, VarianceExploding


@pytest.fixture(autouse=True)
def all_rows(monkeypatch):
    """On the CPU a mixture leaves out rows without weight, and rounds otherwise: here it computes all, as a device does."""
    monkeypatch.setattr(import_module("gaussian_test.sampler.scores.gaussian"), "_where", lambda chosen: slice(None))


if register() is not None:
    pytest.skip(register(), allow_module_level=True)

each_score = pytest.mark.parametrize("score", zoo.SCORES)


@pytest.mark.parametrize(("score", "kernel", "process", "dtype"), zoo.CASES)
def test_a_run_is_the_cpus_and_neither_leaves_the_device_nor_waits_for_it(score, kernel, process, dtype):
    """Bit for bit in turn, path and end states and in every variable of the sample table.

    To the host: nothing of any size before the table is asked for, and then at most one copy of each of its variables.

    To the device: two copies of noise for each draw, 4 bytes a number and 8 bytes a row, in float32 whatever the states are (a run
    whose kernel uses no noise draws that of the turn alone); and times, a number a row, at most a micro-batch or a turn's rows of
    them, when states turn or are denoised at the turn.
    """
    cpu, run = zoo.both(score, kernel, process, dtype)
    assert {state.phase for state in run.states} == {"turn", "path", "end"}
    assert all(torch.isfinite(state.x).all() for state in cpu.states)
    assert not zoo.differences(cpu, run)
    xr.testing.assert_identical(run.table, cpu.table)

    assert run.operations > 20 * zoo.STEPS
    assert not zoo.leaving(run.log)
    assert {event.kind for event in run.fetched} == {"to host"}
    assert 1 <= len(run.fetched) <= len(run.table.data_vars)
    assert sum(event.size for event in run.fetched) <= sum(variable.nbytes for variable in run.table.data_vars.values())

    noise = [event for event in run.log if zoo.is_noise(event)]
    steps = (len(run.plan.grid) - 1) * KERNELS[kernel]().uses_noise
    event = zoo.case_of(score).event
    assert Counter((event.shape, event.dtype, event.size) for event in noise) == {
        ((zoo.ROWS, *event), torch.float32, 4 * zoo.ROWS * math.prod(event)): 2 + steps,
        ((zoo.ROWS,), torch.float64, 8 * zoo.ROWS): 2 + steps,
    }
    assert not any(event.blocking for event in noise)
    assert not zoo.other_copies(run.log)
    times = [event for event in run.log if zoo.is_times(event)]
    assert times
    assert all(len(event.shape) == 1 and event.shape[0] <= zoo.SPARE and event.dtype == zoo.DTYPES[dtype] for event in times)
    # in the loop: alpha and sigma of each turn time as it joins (where the noise shows where the loop begins)
    assert not steps or len([event for event in zoo.loop_of(run) if zoo.is_times(event)]) <= 2 * len(run.plan.levels)


@pytest.mark.parametrize(("score", "spare"), [*((score, 3) for score in zoo.SCORES), ("empirical_labels", 1000), ("own", 1000)])
def test_states_are_the_cpus_however_the_batch_is_cut(score, spare, monkeypatch):
    """Rows cut within a turn time, or all at once; the empirical score in many small tiles."""
    for module, constant, value in (("products", "TILE_ELEMENTS", 64), ("empirical", "MAX_ROWS", 4)):
        monkeypatch.setattr(import_module(f"gaussian_test.sampler.scores.{module}"), constant, value)
    kernel = "exact" if score in zoo.WITH_POSTERIOR else "ancestral"
    cpu, device = zoo.both(score, kernel, "variance_exploding", "float32", spare=spare, path=False)
    assert not zoo.differences(cpu, device)
    xr.testing.assert_identical(device.table, cpu.table)
    assert not zoo.other_copies(device.log)
    assert not zoo.leaving(device.log)


@pytest.mark.parametrize(("score", "kernel"), list(zip(zoo.SCORES, cycle(STEPPED))))
def test_more_steps_copy_more_noise_and_nothing_else(score, kernel):
    """Twice the steps: the other events are the same ones."""
    made, uses_noise = zoo.case_of(score).make(VarianceExploding(), torch.float32), KERNELS[kernel]().uses_noise
    runs = [
        zoo.simulate(made, KERNELS[kernel](), torch.float32, True, zoo.classes_of(score), steps)
        for steps in (zoo.STEPS, 2 * zoo.STEPS)
    ]
    others = [Counter(event for event in run.log if not zoo.is_noise(event)) for run in runs]
    assert others[0] == others[1]
    assert [len(list(filter(zoo.is_noise, run.log))) for run in runs] == [2 * (2 + k * zoo.STEPS * uses_noise) for k in (1, 2)]


@each_score
def test_all_of_a_score_moves(score):
    """To the device, to float64 and back there, and to the CPU again: no tensor is left behind, no class number is rounded."""
    made = zoo.case_of(score).make(VarianceExploding(), torch.float32)
    before = {name: zoo.bits(value.detach()) for name, value in zoo.tensors_of(made).items()}
    whole = {name: value.dtype for name, value in zoo.tensors_of(made).items() if not value.is_floating_point()}
    assert len(before) >= 2
    device = FakeDevice()
    with torch.no_grad(), device:
        made = made.to(NAME)
        assert len(device.of_kind("to device")) == len(before)
        device.forget()
        for move, dtype in ((made.double, torch.float64), (made.float, torch.float32)):
            move()
            now = zoo.tensors_of(made)
            assert now.keys() == before.keys()
            assert {name: values(value).dtype for name, value in now.items()} == {name: whole.get(name, dtype) for name in before}
        assert not device.log  # from type to type on the device itself
        made.cpu()
    assert {name: zoo.bits(value.detach()) for name, value in zoo.tensors_of(made).items()} == before


def inputs(score, process, dtype):
    x = normal(4, *zoo.case_of(score).event, seed=3, dtype=dtype)
    rows = process.time(torch.tensor([0.2, 1.0, 1.5, 4.0], dtype=torch.float64))
    return x, rows, noise_like(x), torch.arange(4) % zoo.classes_of(score) if zoo.SCORES[score] else None


def answers(score, x, t, noise, label):
    given = {"denoise": score.denoise(x, t, label), "score": score(x, t, label)}
    return given | ({"posterior": score.posterior(x, t, noise, label)} if score.has_posterior else {})


def moved(x, noise, label, place):
    return x.to(place), Noise(noise.normal.to(place), noise.uniform.to(place)), None if label is None else label.to(place)


TIMES = ("number", "scalar", "rows", "scalar on the device", "rows on the device")


@pytest.mark.parametrize(("score", "process", "time", "dtype"), pairwise_cover(zoo.SCORES, PROCESSES, TIMES, zoo.DTYPES))
def test_answers_come_back_where_and_as_the_states_are(score, process, time, dtype):
    """Denoiser, score and posterior draw: on the device, in the type of the states, the CPU's bits, whatever form the time has."""
    process, dtype, case = PROCESSES[process](), zoo.DTYPES[dtype], zoo.case_of(score)
    x, rows, noise, label = inputs(score, process, dtype)
    t = float(rows[1]) if time == "number" else rows[1] if time.startswith("scalar") else rows
    other = torch.float64 if dtype == torch.float32 else torch.float32
    made = case.make(process, other)
    device = FakeDevice()
    with torch.inference_mode():
        expected = answers(case.make(process, other).to(dtype), x, t, noise, label)
        with device:
            made = made.to(NAME).to(dtype)
            x, noise, label = moved(x, noise, label, NAME)
            t = t.to(NAME) if time.endswith("on the device") else t
            device.forget()
            given = answers(made, x, t, noise, label)
    assert not zoo.leaving(device.log)
    assert given.keys() == expected.keys()
    for name in expected:
        assert given[name].device == torch.device(NAME, 0)
        assert given[name].dtype == dtype == expected[name].dtype
        if score.startswith("empirical") and time.endswith("on the device"):  # not waited for: float64 where any time may need it
            torch.testing.assert_close(values(given[name]), expected[name])
        else:
            assert zoo.bits(values(given[name])) == zoo.bits(expected[name])


PLACED = [(score, left) for score in zoo.SCORES for left in ("score", "states", "noise", "label")]


@pytest.mark.parametrize(
    ("score", "left"),
    [(s, left) for s, left in PLACED if (left != "noise" or s in zoo.WITH_POSTERIOR) and (left != "label" or zoo.SCORES[s])],
)
def test_what_was_left_on_the_cpu_is_an_error(score, left):
    """A score, states, noise or classes on the CPU beside the rest on the device: an error, never a silent copy."""
    process = VarianceExploding()
    x, _, noise, label = inputs(score, process, torch.float32)
    made = zoo.case_of(score).make(process, torch.float32)
    device = FakeDevice()
    with torch.inference_mode(), device:
        if left != "score":
            made = made.to(NAME)
        on_x, on_noise, on_label = moved(x, noise, label, NAME)
        x, noise = x if left == "states" else on_x, noise if left == "noise" else on_noise
        label = label if left == "label" else on_label
        calls = [lambda: made.denoise(x, 1.0, label), lambda: made(x, 1.0, label)] if left != "noise" else []
        if made.has_posterior:
            calls.append(lambda: made.posterior(x, 1.0, noise, label))
        device.forget()
        for call in calls:
            with pytest.raises((MixedDevices, NetworkError)) as error:
                call()
            assert MixedDevices in {type(error.value), type(error.value.__cause__)}
    assert not device.log


# The runner itself

SCORES = [{"kind": "empirical"}, {"kind": "gaussian"}, {"kind": "empirical", "name": "class", "conditional": True}]
SCORES += [{"kind": "mixture", "components": "classes"}]
TINY = {"turn_times": {"noise_to_signal": [0.1, 0.7, 8.0]}, "scores": SCORES, "reverse": {"kind": "auto", "steps": 5}}
TINY |= {"samples": 7, "repeats": 2, "shard_size": 4, "keep": {"pictures": 2, "trajectory": True}}
TINY |= {"observables": "none", "statistics": {"bootstrap": 100}}


def test_a_whole_run_is_the_cpus(monkeypatch):
    """From an experiment to its result, pictures and trajectories included; only the device that is named differs."""
    expected = gt.run(TINY, device="cpu", progress=False)
    monkeypatch.setattr(import_module("gaussian_test.build.problem"), "pick_device", lambda device: torch.device(NAME))
    with FakeDevice() as device:
        result = gt.run(TINY, device=NAME, progress=False)
    assert result.attrs["device"] == NAME
    assert len([event for event in device.log if zoo.is_noise(event)]) >= 4
    xr.testing.assert_equal(result, expected)
    for group in ("moments", "pictures", "trajectory"):
        xr.testing.assert_equal(result.gaussian_test.group(group), expected.gaussian_test.group(group))


@pytest.mark.parametrize("shared_noise", [True, False])
def test_the_gaussian_stays_on_the_device_step_by_step_or_without_steps(shared_noise):
    """Noise along the modes, and no steps at all: the CPU's numbers, and nothing is waited for."""
    process, samples, ends = VarianceExploding(), zoo.data((1, 2, 2)), []
    moments, x0 = fit_moments(samples.numpy()), samples[:3].float()
    plan = UTurnPlan(process, zoo.LEVELS, zoo.STEPS, seed=4, shared_noise=shared_noise)
    for place in ("cpu", NAME):
        device = FakeDevice()
        with torch.inference_mode(), device if place == NAME else nullcontext():
            score = GaussianScore.from_moments(moments, process=process).to(place)
            start = x0.to(place)
            device.forget()
            states = list(plan.run(start, range(3), {"g": score}, {"g": Ancestral()}))
            found = [states[-1].x, affine_uturns(moments, start, range(3), plan, Ancestral())]
            assert not zoo.leaving(device.log)
            ends.append([values(part) if place == NAME else part for part in found])
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=0)
