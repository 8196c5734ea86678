"""Memory limits of a run and its ground truth."""

import os
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import xarray as xr

from gaussian_test.errors import UserError
from gaussian_test.experiment.experiment import Experiment
from gaussian_test.experiment.scores import Gaussian, Mixture
from gaussian_test.machine import machine_memory
from gaussian_test.text import byte_size

LOADED = 2**30  # up to this many bytes samples are read once and kept, not re-read in each pass
ROW = 200  # bytes of the sample table for each score, sample, repeat and turn time, and of its parts
GENERATOR = 2700  # bytes of the generator of the noise of each sample and repeat
SHARE = "GAUSSIAN_TEST_WORKERS"  # number of workers sharing the machine, set for workers that this program starts


def memory_cap(settings: Experiment) -> int:
    """Return the memory cap of a process besides its libraries, in bytes; default: half of the machine's."""
    if settings.memory is not None:
        return int(settings.memory)
    return machine_memory()[0] // 2 // _workers()


def named_cap(settings: Experiment, cap: int) -> str:
    """Return the cap for a message, with the setting to change."""
    if settings.memory is not None:
        return f"memory = {byte_size(cap)}"
    share = f"a worker's share, 1 of {_workers()}, of " if _workers() > 1 else ""
    return f"{share}half of the {machine_memory()[1]}'s memory ({byte_size(cap)})"


def _workers() -> int:
    return int(os.environ.get(SHARE, 1))


def fits_in_memory(truth: xr.Dataset, itemsize: int, cap: int) -> tuple[bool, bool]:
    """Return whether ground-truth samples fit in memory, as read, and again as samples of the exact score."""
    read, of_score = int(truth["x"].nbytes), truth["x"].size * itemsize
    load = read <= min(LOADED, cap // 8)
    return load, of_score + (read if load else 0) <= cap // 2


@dataclass(frozen=True)
class Need:
    """What an experiment takes of memory at a time, and what to change to take less."""

    what: str
    size: int  # bytes
    remedy: str


def memory_needs(settings: Experiment, truth: xr.Dataset, turn_times: int, samples: int, shards_only: bool = False) -> list[Need]:
    """Return the largest needs of an experiment, estimated from its settings before anything is computed.

    They hold one after the other, not all at once. ``turn_times`` and ``samples`` are the numbers of a run; ``shards_only`` leaves
    out what is computed from all shards.
    """
    count, features = truth.sizes["sample"], int(np.prod(truth["x"].shape[1:]))
    state = features * (8 if settings.dtype == "float64" else 4)
    modes, scores, repeats = min(features, count), len(settings.scores), settings.repeats
    rows = min(settings.shard_size, samples) * repeats
    keeps = settings.keep.end_points or settings.needs("end points")
    kept = min(samples, settings.end_points) if keeps and not shards_only else 0
    pictures = min(settings.keep.pictures, samples)
    needs = [
        Need(f"the covariance of {features} features", 4 * 8 * features * modes, "give more"),
        Need(
            f"the states of a shard of {min(settings.shard_size, samples)} samples",
            4 * state * turn_times * rows,
            "give a smaller shard_size, fewer repeats or more",
        ),
        Need(f"the noise of {rows} U-Turns in a shard", GENERATOR * rows, "give a smaller shard_size, fewer repeats or more"),
        Need(
            f"the end points of {kept} samples",
            state * turn_times * kept * (repeats + 1) * scores * 2,
            "give fewer end_points, fewer observables or more",
        ),
    ]
    if "label" in truth and settings.needs("references"):
        _, of_class = np.unique(truth["label"].values, return_counts=True)
        size = 12 * features * int(np.minimum(of_class, features).sum())
        needs.append(Need(f"the moments of {len(of_class)} classes", size, "leave affinity out of observables or give more"))
    needs += [
        Need(f"a mixture of {one.components} components", 3 * 8 * one.components * (features**2 + count), "give fewer or more")
        for one in settings.scores
        if isinstance(one, Mixture) and isinstance(one.components, int)
    ]
    if shards_only:
        return needs
    if settings.keep.trajectory:
        times = (
            len(settings.keep.trajectory) if isinstance(settings.keep.trajectory, tuple) else settings.reverse.steps + turn_times
        )
        size = 2 * state * pictures * scores * turn_times * times
        needs.append(Need(f"the paths of {pictures} pictures", size, "give fewer keep.pictures, a list as keep.trajectory or more"))
    if "chains" in settings.observed:
        length, turns = settings.chains.length, min(settings.chains.turn_times, turn_times)
        size = 2 * 8 * scores * turns * kept * (length + 1) ** 2
        needs.append(Need(f"the pairs of {length} links of chains", size, "give a smaller chains.length, fewer end_points or more"))
    resamples = settings.statistics.bootstrap
    needs += [
        Need(
            f"the sample table of {samples} samples x {repeats} repeats x {turn_times} turn times",
            ROW * scores * samples * repeats * turn_times,
            "give fewer samples, repeats or turn times, or more",
        ),
        Need(
            f"{resamples} resamples",
            resamples * (8 * turn_times * (10 + 12 * scores) + samples),
            "give a smaller statistics.bootstrap, fewer turn times or more",
        ),
    ]
    if settings.needs("features") and settings.features.kind in ("pixels", "pca"):
        columns = features if settings.features.kind == "pixels" else min(settings.features.components, modes)
        needs.append(Need(f"{columns} features of {count} samples", 16 * columns * count, "use fewer, fewer observables or more"))
    return needs


def check_memory(needs: Iterable[Need], settings: Experiment, cap: int) -> None:
    """Raise if an experiment needs more than the memory cap.

    Raises UserError with the setting to change.
    """
    for need in needs:
        if need.size > cap:
            raise UserError(
                f"{named_cap(settings, cap)} is too little for {need.what}, which takes {byte_size(need.size)}: {need.remedy}"
            )


def check_streamed(settings: Experiment, given_classifier: bool, cap: int) -> None:
    """Raise if a setting needs all samples in memory while they stay in their file.

    Raises UserError with that setting.
    """
    needing = []
    if given_classifier or settings.classifier.kind != "nearest":
        needing.append(f"classifier {'from python' if given_classifier else settings.classifier.kind}")
    for score in settings.scores:
        if isinstance(score, Gaussian) and isinstance(score.shrinkage, str):
            needing.append(f"shrinkage {score.shrinkage}")
        if isinstance(score, Mixture) and isinstance(score.components, int):
            needing.append(f"a mixture of {score.components} fitted components")
    if needing:
        raise UserError(
            f"{needing[0]} needs all samples in memory, and {named_cap(settings, cap)} is too little for them: "
            "leave it out or give more memory"
        )
