"""One run on either device, what it is shown for, and the laws of the device path, each as a function that returns what breaks it.

Scores, kernels and processes are the zoo's (sampler_zoo.py, network_zoo.py): one joins with its name in ``SCORES``.
"""

from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from itertools import cycle, product

import pytest
import torch
from fake_device import NAME, FakeDevice, OnDevice, values
from network_zoo import NETWORKS
from sampler_zoo import KERNELS, PROCESSES, SCORES as EXACT, STEPPED, normal

from gaussian_test.analysis import GaussianScore, fit_moments
from gaussian_test.analysis.observables.sample_table import SampleTable
from gaussian_test.analysis.uturn.reference import Reference
from gaussian_test.sampler import EmpiricalScore, UTurnPlan

CHOSEN, REPEATS, STEPS = (5, 0, 17, 8, 3), 2, 4
ROWS = len(CHOSEN) * REPEATS
LEVELS = (0.15, 1.0, 6.0)  # noise-to-signal ratios at the turns
SPARE = 25  # states per call: two turn times of the rows above, so that groups are merged and cut
DTYPES = {"float32": torch.float32, "float64": torch.float64}

SCORES = {  # and whether it is given classes
    "empirical_image": False,
    "empirical_labels": True,
    "empirical_bytes": False,
    "mixture": False,
    "mixture_shared_labels": True,
    "gaussian_full": False,
    "gaussian_fewer_than_features": False,
    "gaussian_classes": True,
    "network": False,
    "network_channels_last": False,
    "network_guided": True,
    "own": True,
}
WITH_POSTERIOR = [score for score in SCORES if score in EXACT]
# every score with every kernel it can have; the kernel meets every process, in either type
PAIRS = [*product(KERNELS, WITH_POSTERIOR), *product(STEPPED, NETWORKS)]
TYPES = cycle(["float32", "float64", "float64", "float32", "float32"])
CASES = [(score, kernel, process, dtype) for (kernel, score), process, dtype in zip(PAIRS, cycle(PROCESSES), TYPES)]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """On tensors this small, threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def case_of(score):
    return (EXACT | NETWORKS)[score]()


def classes_of(score):
    return case_of(score).classes if SCORES[score] else 0


@dataclass
class Run:
    """What a run gave: states and table, the events until the table is asked for, those of asking, and how much was computed."""

    states: list
    table: object
    log: list
    fetched: list
    operations: int
    plan: UTurnPlan


def data(event):
    return normal(24, *event, seed=1)


def simulate(score, kernel, dtype, on_device, classes=0, steps=STEPS, spare=SPARE, path=True):
    """Run U-Turns as the runner does, all states kept, on the device or on the CPU."""
    place, device, process = torch.device(NAME if on_device else "cpu"), FakeDevice(), score.process
    samples, label = data(score.event_shape), torch.arange(24) % (classes or 2)
    turns = [process.turn_time_from_noise_to_signal(nu) for nu in LEVELS]
    plan = UTurnPlan(process, turns, steps, REPEATS, seed=4, micro_batch=spare)
    with torch.inference_mode(), device if on_device else nullcontext():
        score = score.to(place)
        reference = Reference(
            EmpiricalScore.fit(samples, None, process, dtype).to(place),
            fit_moments(samples.numpy()),
            GaussianScore.fit(samples.numpy(), process=process, dtype=dtype).to(place),
            label.numpy(),
        )
        x0 = samples[list(CHOSEN)].to(place, dtype)
        labels = {"it": label[list(CHOSEN)].to(place)} if classes else {}
        table = SampleTable(plan, {"it": score}, reference, x0, CHOSEN, labels)
        device.forget()
        states = []
        for state in plan.run(x0, CHOSEN, {"it": score}, {"it": kernel}, labels, path):
            table.observe(state)
            states.append(state)
        log, operations = device.log, device.operations.total()
        device.forget()
        dataset = table.to_dataset()
    return Run(states, dataset, log, device.log, operations, plan)


def both(score, kernel, process, dtype, **options):
    """Return a case's run on the CPU and its run on the device."""
    case, process, dtype = case_of(score), PROCESSES[process](), DTYPES[dtype]
    return [
        simulate(case.make(process, dtype), KERNELS[kernel](), dtype, on_device, classes_of(score), **options)
        for on_device in (False, True)
    ]


# -- the laws ----------------------------------------------------------------------------------------------------------------------

# Whose copies to the device are lawful: the noise of a step, and the times of states that differ in time.
NOISE = "noise.py:KeyedNoise.draw"
TIMES = {"process.py:per_row", "adapters.py:rows_of_time"}


def is_noise(event):
    return event.kind == "to device" and event.where == NOISE


def is_times(event):
    return event.kind == "to device" and event.where in TIMES


def loop_of(run):
    """The events from the first step on: the first two draws, of two copies each, are the turn's and the exact end's.

    A run that draws no more noise shows no first step: then all events after the draws.
    """
    draws = [place for place, event in enumerate(run.log) if is_noise(event)]
    return run.log[draws[4] if len(draws) > 4 else draws[3] + 1 :]


def leaving(log):
    """Whatever the host was given, or waited for."""
    return [event for event in log if event.kind != "to device"]


def other_copies(log):
    """Whatever the device was given beside the noise and the times of the rows."""
    return [event for event in log if event.kind == "to device" and not is_noise(event) and not is_times(event)]


def differences(cpu, device):
    """The states that differ from the CPU's in any bit, in place or in description."""
    assert len(cpu.states) == len(device.states) > 0
    found = []
    for mine, theirs in zip(device.states, cpu.states, strict=True):
        here = isinstance(mine.x, OnDevice)
        described = (mine.phase, mine.score, mine.times, mine.turns) == (theirs.phase, theirs.score, theirs.times, theirs.turns)
        if not (here and described and values(mine.x).dtype == theirs.x.dtype and bits(values(mine.x)) == bits(theirs.x)):
            found.append((theirs.phase, theirs.times))
    return found


def bits(tensor):
    return tensor.contiguous().numpy().tobytes()


def tensors_of(module):
    """Every tensor that a module holds, registered or not, by name."""
    return {
        f"{prefix}.{name}": value
        for prefix, part in module.named_modules()
        for holder in (part._parameters, part._buffers, vars(part))
        for name, value in holder.items()
        if isinstance(value, torch.Tensor)
    }
