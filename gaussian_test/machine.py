"""Memory of this machine."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def machine_memory() -> tuple[int, str]:
    """Return the memory of this machine, or the limit of a container or queue, and the owner of that limit."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = min(_limits(), default=physical)
    return (limit, "control group") if limit < physical else (physical, "machine")


def allowed(memory: int | None) -> int:
    """Return how many bytes may be taken: those given, else half of the machine's."""
    return machine_memory()[0] // 2 if memory is None else memory


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
