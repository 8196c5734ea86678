"""On a device, a run computes what the CPU computes, and neither leaves the device nor waits for it.

Shown on a device that this computer only pretends to have (fake_device.py): where tensors are and what the host waits for. A GPU's
own arithmetic, memory and speed stay unproven, and so does the pinned memory that the noise takes on "cuda" alone.
"""

from collections import Counter
from contextlib import nullcontext
from importlib import import_module

import numpy as np
import pytest
import torch
import xarray as xr
from device_laws import bits, differences, is_noise, is_times, leaving, loop_of, other_copies, tensors_of
from device_zoo import (
    CASES,
    CLASSES,
    DATA,
    DTYPES,
    EVENT,
    KERNELS,
    LEVELS,
    PAIRS,
    PROCESSES,
    ROWS,
    SCORES,
    SPARE,
    STEPS,
    both,
    has_posterior,
    one_thread,
    simulate,
)
from fake_device import NAME, FakeDevice, MixedDevices, register, values

import gaussian_test as gt
from gaussian_test.analysis import GaussianScore, fit_moments
from gaussian_test.analysis.theory.affine_ends import affine_uturns
from gaussian_test.sampler import Ancestral, NetworkError, Noise, UTurnPlan, VarianceExploding

__all__ = ["one_thread"]  # a fixture of this module too
if register() is not None:
    pytest.skip(register(), allow_module_level=True)

FEATURES = int(np.prod(EVENT))
each_case = pytest.mark.parametrize(("score", "kernel", "process", "dtype"), CASES)
each_score = pytest.mark.parametrize("score", SCORES)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)
each_pair = pytest.mark.parametrize(("score", "kernel"), PAIRS)

# a


@each_case
def test_states_and_table_are_the_cpus_bit_for_bit(score, kernel, process, dtype):
    """Turn, path and end states, and every variable of the sample table."""
    cpu, device = both(score, kernel, process, dtype)
    assert {state.phase for state in device.states} == {"turn", "path", "end"}
    assert all(torch.isfinite(state.x).all() for state in cpu.states)
    assert not differences(cpu, device)
    xr.testing.assert_identical(device.table, cpu.table)


@pytest.mark.parametrize("spare", [3, 1000])
@each_score
def test_states_are_the_cpus_however_the_batch_is_cut(score, spare, monkeypatch):
    """Rows cut within a turn time, or all at once; the empirical score in many small tiles."""
    empirical = import_module("gaussian_test.sampler.scores.empirical")
    monkeypatch.setattr(empirical, "TILE_ELEMENTS", 64)
    monkeypatch.setattr(empirical, "MAX_ROWS", 4)
    process, case = VarianceExploding(), SCORES[score]
    kernels = ["ancestral"] + ["exact"] * has_posterior(score)
    for name in kernels:
        cpu, device = (
            simulate(
                case.make(process, torch.float32),
                KERNELS[name](STEPS),
                process,
                torch.float32,
                on_device,
                case.conditional,
                spare=spare,
                path=False,
            )
            for on_device in (False, True)
        )
        assert not differences(cpu, device)
        xr.testing.assert_identical(device.table, cpu.table)
        assert not other_copies(device.log)
        assert not leaving(loop_of(device) if name == "ancestral" else device.log)


# b, c


@each_case
def test_no_step_leaves_the_device_or_waits_for_it(score, kernel, process, dtype):
    """From the first step to the last, reductions to the table included: no copy to the host of any size, nothing waited for."""
    run = both(score, kernel, process, dtype)[1]
    assert run.operations > 20 * STEPS
    if KERNELS[kernel](STEPS).uses_noise:
        assert len(loop_of(run)) >= 2 * STEPS  # the log saw the noise
    assert not leaving(loop_of(run))


@pytest.mark.parametrize(("score", "kernel", "process", "dtype"), CASES)
def test_nothing_before_the_first_step_waits_either(score, kernel, process, dtype):
    """Turning, the exact end and the preparation of the steps."""
    run = both(score, kernel, process, dtype)[1]
    assert not leaving(run.log)


@each_case
def test_the_device_is_given_the_noise_and_the_times_of_the_rows(score, kernel, process, dtype):
    """Two copies of noise for each draw: 4 bytes a number and 8 bytes a row, in float32 whatever the states are.

    A run whose kernel uses no noise draws that of the turn alone.

    Times: a number a row, at most a micro-batch or a turn's rows of them, when states turn or are denoised at the turn.
    """
    run = both(score, kernel, process, dtype)[1]
    noise = [event for event in run.log if is_noise(event)]
    steps = (len(run.plan.grid) - 1) * KERNELS[kernel](STEPS).uses_noise
    assert Counter((event.shape, event.dtype, event.size) for event in noise) == {
        ((ROWS, *EVENT), torch.float32, 4 * ROWS * FEATURES): 2 + steps,
        ((ROWS,), torch.float64, 8 * ROWS): 2 + steps,
    }
    assert not any(event.blocking for event in noise)
    assert not other_copies(run.log)
    times = [event for event in run.log if is_times(event)]
    assert times
    assert all(len(event.shape) == 1 and event.shape[0] <= SPARE and event.dtype == DTYPES[dtype] for event in times)
    # in the loop: alpha and sigma of each turn time as it joins (where the noise shows where the loop begins)
    assert not steps or len([event for event in loop_of(run) if is_times(event)]) <= 2 * len(run.plan.levels)


@each_pair
def test_more_steps_copy_more_noise_and_nothing_else(score, kernel):
    """Twice the steps: the other events are the same ones."""
    process, case = VarianceExploding(), SCORES[score]
    few = both(score, kernel, "variance_exploding", "float32")[1]
    made = case.make(process, torch.float32)
    many = simulate(made, KERNELS[kernel](2 * STEPS), process, torch.float32, True, case.conditional, 2 * STEPS)
    steps = STEPS * KERNELS[kernel](STEPS).uses_noise
    others = [Counter(event for event in run.log if not is_noise(event)) for run in (few, many)]
    assert others[0] == others[1]
    assert [len(list(filter(is_noise, run.log))) for run in (few, many)] == [2 * (2 + steps), 2 * (2 + 2 * steps)]


@each_case
def test_the_table_comes_to_the_host_once(score, kernel, process, dtype):
    """At most one copy for each of its variables, of no more bytes than it has, when it is asked for."""
    run = both(score, kernel, process, dtype)[1]
    assert {event.kind for event in run.fetched} == {"to host"}
    assert 1 <= len(run.fetched) <= len(run.table.data_vars)
    assert sum(event.size for event in run.fetched) <= sum(variable.nbytes for variable in run.table.data_vars.values())


# d


@each_score
def test_all_of_a_score_moves(score):
    """To the device, to float64 and back there, and to the CPU again: no tensor is left behind, no class number is rounded."""
    made = SCORES[score].make(VarianceExploding(), torch.float32)
    before = {name: bits(value.detach()) for name, value in tensors_of(made).items()}
    whole = {name: value.dtype for name, value in tensors_of(made).items() if not value.is_floating_point()}
    assert len(before) >= 2
    device = FakeDevice()
    with torch.no_grad(), device:
        made = made.to(NAME)
        assert len(device.of_kind("to device")) == len(before)
        device.forget()
        for move, dtype in ((made.double, torch.float64), (made.float, torch.float32)):
            move()
            now = tensors_of(made)
            assert now.keys() == before.keys()
            assert {name: values(value).dtype for name, value in now.items()} == {name: whole.get(name, dtype) for name in before}
        assert not device.log  # from type to type on the device itself
        made.cpu()
    assert {name: bits(value.detach()) for name, value in tensors_of(made).items()} == before


def inputs(process, dtype, classes):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(4, *EVENT, generator=generator, dtype=torch.float64).to(dtype)
    noise = Noise(x.flip(0), torch.rand(4, generator=generator, dtype=torch.float64))
    rows = process.time(torch.tensor([0.2, 1.0, 1.5, 4.0], dtype=torch.float64))
    return x, rows, noise, torch.arange(4) % CLASSES if classes else None


def answers(score, x, t, noise, label):
    given = {"denoise": score.denoise(x, t, label), "score": score(x, t, label)}
    return given | ({"posterior": score.posterior(x, t, noise, label)} if score.has_posterior else {})


def moved(x, noise, label, place):
    return x.to(place), Noise(noise.normal.to(place), noise.uniform.to(place)), None if label is None else label.to(place)


@pytest.mark.parametrize(
    ("process", "time"),
    [
        (process, time)
        for process in PROCESSES
        for time in ("number", "scalar", "rows", "scalar on the device", "rows on the device")
    ],
)
@each_dtype
@each_score
def test_answers_come_back_where_and_as_the_states_are(score, process, dtype, time):
    """Denoiser, score and posterior draw: on the device, in the type of the states, the CPU's bits, whatever form the time has."""
    process, dtype, case = PROCESSES[process](), DTYPES[dtype], SCORES[score]
    x, rows, noise, label = inputs(process, dtype, case.conditional)
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
    assert not leaving(device.log)
    assert given.keys() == expected.keys()
    for name in expected:
        assert given[name].device == torch.device(NAME, 0)
        assert given[name].dtype == dtype == expected[name].dtype
        assert bits(values(given[name])) == bits(expected[name])


@pytest.mark.parametrize(
    ("score", "left"),
    [
        (score, left)
        for score, case in SCORES.items()
        for left in ["score", "states"] + ["noise"] * has_posterior(score) + ["label"] * case.conditional
    ],
)
def test_what_was_left_on_the_cpu_is_an_error(score, left):
    """A score, states, noise or classes on the CPU beside the rest on the device: an error, never a silent copy."""
    process, case = VarianceExploding(), SCORES[score]
    x, _, noise, label = inputs(process, torch.float32, case.conditional)
    made = case.make(process, torch.float32)
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
            assert isinstance(error.value, MixedDevices) or isinstance(error.value.__cause__, MixedDevices)
    assert not device.log


# The runner itself


TINY = {
    "turn_times": {"noise_to_signal": [0.1, 0.7, 8.0]},
    "scores": [
        {"kind": "empirical"},
        {"kind": "gaussian"},
        {"kind": "empirical", "name": "class", "conditional": True},
        {"kind": "mixture", "components": "classes"},
    ],
    "samples": 7,
    "repeats": 2,
    "shard_size": 4,
    "keep": {"pictures": 2, "trajectory": True},
    "observables": "none",
    "statistics": {"bootstrap": 100},
}


@pytest.mark.parametrize("kind", ["auto", "heun"])
def test_a_whole_run_is_the_cpus(kind, monkeypatch):
    """From an experiment to its result, pictures and trajectories included; only the device that is named differs."""
    settings = TINY | {"reverse": {"kind": kind, "steps": 5}}
    expected = gt.run(settings, device="cpu", progress=False)
    monkeypatch.setattr(import_module("gaussian_test.build.problem"), "pick_device", lambda device: torch.device(NAME))
    with FakeDevice() as device:
        result = gt.run(settings, device=NAME, progress=False)
    assert result.attrs["device"] == NAME
    assert len([event for event in device.log if is_noise(event)]) >= 4
    xr.testing.assert_equal(result, expected)
    for group in ("moments", "pictures", "trajectory"):
        xr.testing.assert_equal(result.gaussian_test.group(group), expected.gaussian_test.group(group))


@pytest.mark.parametrize("shared_noise", [True, False])
def test_the_gaussian_stays_on_the_device_step_by_step_or_without_steps(shared_noise):
    """Noise along the modes, and no steps at all: the CPU's numbers, and nothing is waited for."""
    process = VarianceExploding()
    moments = fit_moments(DATA)
    plan = UTurnPlan(process, LEVELS, STEPS, seed=4, shared_noise=shared_noise)
    x0, ends = torch.from_numpy(DATA[:3]).float(), []
    for place in ("cpu", NAME):
        device = FakeDevice()
        with torch.inference_mode(), device if place == NAME else nullcontext():
            score = GaussianScore.from_moments(moments, process=process).to(place)
            start = x0.to(place)
            device.forget()
            states = list(plan.run(start, range(3), {"g": score}, {"g": Ancestral()}))
            found = [states[-1].x, affine_uturns(moments, start, range(3), plan, Ancestral())]
            assert not leaving(device.log)
            ends.append([values(part) if place == NAME else part for part in found])
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=0)
