"""Digests that identify samples, scores, processes and kernels."""

import hashlib
import json
import math
from itertools import pairwise

import numpy as np
import torch
import xarray as xr

from gaussian_test import sampler
from gaussian_test.analysis.moments.running import chunks


def data_digest(truth: xr.Dataset, dtype: str = "float32") -> str:
    """Return the sha256 of samples, in the precision of a run, and labels, independent of their file."""
    digest = hashlib.sha256(repr(truth["x"].shape).encode())
    for chunk in chunks(truth["x"]):
        digest.update(np.ascontiguousarray(chunk, dtype=dtype).tobytes())
    if "label" in truth:
        digest.update(np.ascontiguousarray(truth["label"].values, dtype=np.int64).tobytes())
    return digest.hexdigest()


def score_digest(score: sampler.Score) -> str:
    """Return the sha256 of a score: its class, its process and its numbers.

    A score that depends on more than its tensors must identify it in an attribute ``digest`` (a string).
    """
    own = getattr(score, "digest", "")
    if isinstance(score, sampler.NetworkScore):
        own = f"{own} {_schedule(score.trained)} {json.dumps(score.settings, sort_keys=True)}"
    kind, home = type(score).__qualname__, type(score).__module__
    if not home.startswith("gaussian_test."):  # the module of a built-in class does not matter
        kind = f"{home}.{kind}"
    digest = hashlib.sha256(f"{kind} {_schedule(score.process)} {score.event_shape} {own}".encode())
    state = score.state_dict()
    if isinstance(score, sampler.EmpiricalScore):  # the same samples in memory or in their file
        state.pop("samples", None)
        for tile in score.tiles():
            digest.update(tile.cpu().numpy().tobytes())
    for name, value in sorted(state.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _schedule(schedule: sampler.Schedule) -> str:
    if not isinstance(schedule, sampler.Process):
        return repr(schedule)
    if type(schedule).__module__ != sampler.Cosine.__module__:  # custom: its attributes may be anything
        return f"{type(schedule).__qualname__} {schedule_digest(schedule)}"
    values = {name: value.tolist() if isinstance(value, torch.Tensor) else value for name, value in vars(schedule).items()}
    return f"{type(schedule).__name__} {values}"


def schedule_digest(process: sampler.Process) -> str:
    """Return the sha256 of a forward process, from its values at 64 times to 9 digits."""
    times = torch.from_numpy(np.geomspace(process.time_min, process.time_max, 64))
    schedules = (process.alpha(times), process.sigma(times), process.f(times), process.g2(times))
    weights = process.integrated_score_weight(times[:-1], times[1:])
    levels = torch.tensor([process.level(t) for t in times.tolist()], dtype=torch.float64)
    return _rounded(torch.cat([times, *schedules, weights, levels]))


def kernel_digest(kernel: sampler.ReverseKernel, process: sampler.Process) -> str:
    """Return the sha256 of a reverse kernel, from steps with the exact score of a few points to 9 digits."""
    numbers = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 8, 3)))
    uniform = torch.from_numpy(np.random.default_rng(1).uniform(size=8))
    score = sampler.EmpiricalScore(numbers[0], process=process)
    # steps between neighbouring levels, and one over the whole range
    times = sampler.process_grid(process, 12)
    steps = [(float(t), float(s)) for t, s in pairwise(times)] + [(float(times[0]), float(times[-2]))]
    states = [
        kernel.step(score, process.noised(numbers[1], t, numbers[2]), t, s, sampler.Noise(numbers[2].flip(0), uniform))
        for t, s in steps
    ]
    return _rounded(torch.cat([state.flatten() for state in states]), f"{kernel.flow} {kernel.uses_noise}")


def _rounded(values: torch.Tensor, also: str = "") -> str:
    """Return the sha256 of numbers to 9 digits, as machines differ in the last digits."""
    text = " ".join(f"{value:.8e}" if math.isfinite(value) else str(value) for value in values.tolist())
    return hashlib.sha256(f"{also} {text}".encode()).hexdigest()


def is_recognisable(score: sampler.Score) -> bool:
    """Return whether a digest identifies a score: it has tensors or an attribute ``digest``."""
    return bool(score.state_dict()) or hasattr(score, "digest")
