"""The laws of the device path, each as a function that returns what breaks it."""

import torch
from fake_device import OnDevice, values

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
