"""Memory limits of a run and its ground truth."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import xarray as xr

from gaussian_test.errors import UserError
from gaussian_test.experiment.experiment import Experiment
from gaussian_test.experiment.scores import Gaussian, Mixture
from gaussian_test.text import byte_size

LOADED = 2**30  # up to this many bytes samples are read once and kept, not re-read in each pass
SHARE = "GAUSSIAN_TEST_WORKERS"  # number of workers sharing the machine, set for workers that this program starts
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def machine_memory() -> tuple[int, str]:
    """Return the memory of this machine, or the limit of a container or queue, and the owner of that limit."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = min(_limits(), default=physical)
    return (limit, "control group") if limit < physical else (physical, "machine")


def _limits() -> Iterator[int]:
    """Yield the memory limits of this process's control groups (v1 or v2), up to the root."""
    try:  # by hand, since psutil, which no run needs, knows the machine's memory alone
        lines = OWN_CGROUP.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root, name = (CGROUPS, "memory.max") if not controllers else (CGROUPS / "memory", "memory.limit_in_bytes")
        own = root / path.lstrip("/")
        for place in (own, *own.parents):
            if place.is_relative_to(root):
                with suppress(OSError, ValueError):
                    yield int((place / name).read_text(encoding="ascii"))


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


def check_memory(settings: Experiment, truth: xr.Dataset, turn_times: int, kept: int, cap: int, shards_only: bool = False) -> None:
    """Raise if covariance, states or features of an experiment exceed the memory cap.

    Raises UserError with the setting to change.
    """
    count, features = truth.sizes["sample"], int(np.prod(truth["x"].shape[1:]))
    itemsize = 8 if settings.dtype == "float64" else 4
    state = features * itemsize * turn_times
    modes = min(features, count)
    scores = len(settings.scores)
    needs = [
        (f"the covariance of {features} features", 4 * 8 * features * modes, "give more"),
        (
            f"the states of a shard of {settings.shard_size} samples",
            4 * state * settings.shard_size * settings.repeats,
            "give a smaller shard_size or more",
        ),
        (
            f"the end points of {kept} samples",
            state * kept * (settings.repeats + 1) * scores * 2,
            "give fewer end_points, fewer observables or more",
        ),
    ]
    compared = settings.needs("features")
    if compared and not shards_only and settings.features.kind in ("pixels", "pca"):
        columns = features if settings.features.kind == "pixels" else min(settings.features.components, modes)
        needs.append((f"{columns} features of {count} samples", 16 * columns * count, "use fewer, fewer observables or more"))
    for what, takes, remedy in needs:
        if takes > cap:
            raise UserError(f"{named_cap(settings, cap)} is too little for {what}, which takes {byte_size(takes)}: {remedy}")


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
