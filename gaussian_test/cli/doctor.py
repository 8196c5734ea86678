"""A dry run: installation, machine, preparation and the time of each score."""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from packaging.requirements import Requirement

from gaussian_test._version import __version__
from gaussian_test.errors import UserError, user_input
from gaussian_test.text import byte_size, duration

if TYPE_CHECKING:
    from gaussian_test.build.problem import Prepared
    from gaussian_test.experiment.experiment import Experiment

PACKAGE = "gaussian-test"
DIGITS = {"scores": [{"kind": "empirical"}, {"kind": "network"}, {"kind": "gaussian"}]}
OF_DEVELOPERS = ("dev", "test")  # extras that neither runs nor readers need
CALLS, SECONDS = 5, 10.0  # timed calls of a score, and a time limit for them


@dataclass(frozen=True)
class Check:
    """A finding about the machine."""

    name: str  # what
    state: Literal["ok", "absent", "problem"]  # ``absent`` is an extra that is not installed
    found: str  # the finding, or the problem
    advice: str = ""  # the fix; empty if none is needed
    numbers: dict[str, Any] | None = None  # values for programs, in seconds and bytes


def diagnose(source: str | Path | dict[str, Any] | None = None, changes: Iterable[str] = (), device: str = "auto") -> list[Check]:
    """Check everything that a run needs.

    Raises UserError if the experiment cannot be read: that is no problem of the machine.
    """
    missing = [check for name in _needed() if (check := _requirement(name)) is not None]
    checks = [_versions(missing), *missing, *map(_extra, _extras())]
    if any(check.found.endswith("is not installed") for check in missing):
        return checks  # the rest would only repeat it
    from gaussian_test.experiment.experiment import Experiment

    settings = Experiment.load(DIGITS if source is None else source, changes)
    # any error of a library is a finding here
    place = _guarded("device", lambda: _device(device))
    checks += [place, _guarded("threads", _threads), _guarded("BLAS", _blas), _guarded("memory", lambda: _memory(settings))]
    checks += [_guarded("folder", lambda: _folder(Path()))]
    if place.state == "ok":
        checks += _scores(settings, device)
    return checks


def as_text(checks: list[Check]) -> str:
    """Return the findings as text."""
    width = max(len(check.name) for check in checks)
    lines = [f"{check.name:<{width}}  {check.state:<7}  {': '.join(filter(None, [check.found, check.advice]))}" for check in checks]
    problems = sum(check.state == "problem" for check in checks)
    return "\n".join([*lines, "", f"{problems} problem{'s' * (problems > 1)}" if problems else "all is well"])


def as_json(checks: list[Check]) -> str:
    """Return the findings as JSON: ``ok``, and ``checks`` with the attributes of :class:`Check`."""
    ok = not any(check.state == "problem" for check in checks)
    listed = [asdict(check) | {"numbers": check.numbers or {}} for check in checks]
    return json.dumps({"ok": ok, "checks": listed}, indent=1, ensure_ascii=False, allow_nan=False)


# -- what is installed ---------------------------------------------------------------------------------------------------------


def _needed(extra: str = "") -> list[Requirement]:
    """Return the requirements of the installed package, or those of one of its extras."""
    try:
        every = map(Requirement, metadata.requires(PACKAGE) or [])
    except metadata.PackageNotFoundError:
        return [Requirement(f"{PACKAGE}=={__version__}")]
    wanted = [one for one in every if (one.marker.evaluate({"extra": extra}) if one.marker else not extra)]
    inner = [name for one in wanted if one.name == PACKAGE for name in one.extras]  # which pip alone resolves
    return [one for one in wanted if one.name != PACKAGE] + [one for name in inner for one in _needed(name)]


def _extras() -> list[str]:
    try:
        return [name for name in metadata.metadata(PACKAGE).get_all("Provides-Extra") or [] if name not in OF_DEVELOPERS]
    except metadata.PackageNotFoundError:
        return []


def _requirement(wanted: Requirement) -> Check | None:
    """Return the problem of a library, or None."""
    asked = f"{wanted.name}{wanted.specifier}"
    try:
        version = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return Check(wanted.name, "problem", f"{wanted.name} is not installed", f"pip install '{asked}'")
    if not wanted.specifier.contains(version, prereleases=True):
        return Check(wanted.name, "problem", f"{wanted.name} {version} is none of {wanted.specifier}", f"pip install '{asked}'")
    return None


def _versions(missing: list[Check]) -> Check:
    names = [wanted.name for wanted in _needed() if wanted.name not in {check.name for check in missing}]
    versions = {"python": platform.python_version(), PACKAGE: __version__} | {name: metadata.version(name) for name in names}
    return Check("versions", "ok", ", ".join(f"{name} {version}" for name, version in versions.items()), numbers=versions)


def _extra(extra: str) -> Check:
    wanted = _needed(extra)
    lacking = [check for requirement in wanted if (check := _requirement(requirement)) is not None]
    if lacking:
        return Check(f"extra {extra}", "absent", "; ".join(c.found for c in lacking), f"pip install '{PACKAGE}[{extra}]'")
    return Check(f"extra {extra}", "ok", ", ".join(f"{r.name} {metadata.version(r.name)}" for r in wanted))


# -- the machine ---------------------------------------------------------------------------------------------------------------


def _guarded(name: str, look: Callable[[], Check]) -> Check:
    try:
        return look()
    except UserError as error:
        return Check(name, "problem", str(error))
    except Exception as error:  # a broken library may raise anything
        reason = " ".join(str(error).split())[:200]
        found = f"{type(error).__name__}: {reason}"
        return Check(name, "problem", found, "install what it names again, in an environment of its own")


def _device(asked: str) -> Check:
    import torch

    from gaussian_test.build.problem import pick_device

    taken = pick_device(asked)
    if taken.type == "cuda":
        properties = torch.cuda.get_device_properties(taken)
        found = f"{taken} ({properties.name}, {byte_size(properties.total_memory)})"
    else:
        found = str(taken)
    if asked == "auto":
        found += ", taken by --device auto"
        if taken.type == "cpu":
            build = f"is for CUDA {torch.version.cuda}" if torch.version.cuda else "is a CPU build"
            found += f": torch finds no CUDA device (it {build})"
    return Check("device", "ok", found, numbers={"device": str(taken)})


def _threads() -> Check:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    found, numbers = f"{threads} of torch on {cores} cores", {"threads": threads, "cores": cores}
    if threads > cores:
        return Check("threads", "problem", f"{found}: they wait for each other", f"run with --threads {cores}", numbers)
    return Check("threads", "ok", found, numbers=numbers)


def _blas() -> Check:
    import torch
    from threadpoolctl import threadpool_info

    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    loaded = [f"{library['internal_api']} {library['version']} with {library['num_threads']} threads" for library in libraries]
    own = "MKL" if torch.backends.mkl.is_available() else "no MKL"  # type: ignore[no-untyped-call] # in it, so not seen from outside
    return Check("BLAS", "ok", f"{', '.join(loaded) or 'none'}; torch: {own}")


def _memory(settings: Experiment) -> Check:
    from gaussian_test.build.memory import memory_cap
    from gaussian_test.machine import machine_memory

    (whole, whose), cap, free = machine_memory(), memory_cap(settings), _free()
    numbers = {"bytes": whole, "cap_bytes": cap} | ({} if free is None else {"free_bytes": free})
    found = f"{byte_size(whole)} of the {whose}, a run may take {byte_size(cap)}"
    found += "" if free is None else f", {byte_size(free)} are free now"
    if free is not None and cap > free and settings.memory is not None:
        return Check("memory", "problem", found, "free some, or give less than that as memory in the experiment", numbers)
    return Check("memory", "ok", found, numbers=numbers)


def _free() -> int | None:
    """Return the available memory in bytes, None if unknown; by hand, since psutil is no dependency."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return None


def _folder(folder: Path) -> Check:
    from gaussian_test.store.files import locked, write_bytes

    tried = folder.absolute() / f".gaussian-test-doctor-{os.getpid()}"
    with user_input(), locked(tried):
        write_bytes(tried, b"x")
        tried.unlink()
    free = shutil.disk_usage(tried.parent).free
    return Check("folder", "ok", f"{tried.parent} can be written, {byte_size(free)} are free", numbers={"free_bytes": free})


# -- the scores ----------------------------------------------------------------------------------------------------------------


def _scores(settings: Experiment, device: str) -> Iterator[Check]:
    """Yield the time of a call of each score, and the resulting time of the reverse runs."""
    from gaussian_test.build.problem import prepare
    from gaussian_test.engine.shard import computing, settle_micro_batches

    try:
        prepared = prepare(settings, device)
        settle_micro_batches(prepared, {})
    except UserError as error:
        yield Check("experiment", "problem", str(error))
        return
    yield _needs(prepared)
    total = 0.0
    with computing(prepared):
        for name in prepared.scores:
            size, seconds = _time_of_a_call(prepared, name)
            states = _states(prepared, name)
            total += states * seconds / size
            found = f"{seconds * 1e3:.3g} ms a call of {size} states, {size / seconds:.2g} states a second"
            numbers = {"seconds": seconds, "states": size, "states_of_the_run": states}
            yield Check(f"score {name}", "ok", found, numbers=numbers)
    count, levels = len(prepared.samples), len(prepared.plan.levels)
    yield Check(
        "run",
        "ok",
        f"about {duration(total)} for the scores alone ({count} samples x {levels} turn times x {settings.repeats}); draws, "
        "observables and statistics come on top",
        numbers={"seconds": total},
    )


def _needs(prepared: Prepared) -> Check:
    """Return what takes the most memory, which :func:`prepare` has held against the cap."""
    from gaussian_test.build.memory import memory_cap, memory_needs, named_cap

    settings = prepared.settings
    needs = memory_needs(settings, prepared.truth, len(prepared.plan.levels), len(prepared.samples))
    most = max(needs, key=lambda need: need.size)
    found = f"up to {byte_size(most.size)}, for {most.what}; {named_cap(settings, memory_cap(settings))}"
    return Check("needs", "ok", found, numbers={need.what: need.size for need in needs})


def _time_of_a_call(prepared: Prepared, name: str) -> tuple[int, float]:
    """Return the number of states per call of a score in the run, and the median time in seconds."""
    import torch

    plan, score = prepared.plan, prepared.scores[name]
    samples = tuple(prepared.samples[: plan.shard_size].tolist())
    rows = len(samples) * plan.repeats
    size = min(
        plan.micro_batch, rows * min(len(plan.levels), max(1, plan.micro_batch // rows)), score.micro_batch or plan.micro_batch
    )
    level = plan.levels[len(plan.levels) // 2]
    x0 = prepared.starts(samples)
    x0 = x0.repeat(-(-size // len(x0)), *(1,) * (x0.ndim - 1))[:size]
    x = plan.process.noised(x0, level, torch.randn(x0.shape, generator=torch.Generator().manual_seed(0)).to(x0))
    label = prepared.labels(samples).get(name)
    label = None if label is None else label.repeat(-(-size // len(label)))[:size]
    taken: list[float] = []
    began = time.perf_counter()
    # by hand, since torch.utils.benchmark calls at least three times, of which each may take minutes
    while len(taken) <= CALLS and not (taken and time.perf_counter() - began > SECONDS):
        start = time.perf_counter()
        score.denoise(x, level, label)
        if x.device.type == "cuda":
            torch.cuda.synchronize(x.device)
        taken.append(time.perf_counter() - start)
    return size, statistics.median(taken[1:] or taken)  # the first one warms up


def _states(prepared: Prepared, name: str) -> int:
    """Return the total number of states for a score, in the U-Turns of the run and in one evaluation at each turn time."""
    from gaussian_test import analysis

    plan = prepared.plan
    law = analysis.sampler_law([1.0], plan.process, prepared.kernels[name], plan.grid, plan.levels)
    return int((law["evaluations"].values + 1).sum()) * len(prepared.samples) * plan.repeats
