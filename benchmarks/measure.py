"""How the benchmarks measure: medians of interleaved runs in one process, shares of a limit of the machine, peaks of memory.

Absolute times on shared machines drift by tens of per cent within minutes; ratios of runs that take turns hold.
"""

from __future__ import annotations

import ctypes
import gc
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_info

REST = 0.1  # seconds between two runs: idle threads of one BLAS spin that long, and take a core from the next

Piece = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes
    ----------
    piece, size : str
        What is computed, of what.
    ours : callable
        Our way.
    peers : mapping of str to callable
        Others' ways by name; they may be missing where there is none.
    limits : mapping of str to callable
        What no way can be faster than; the fastest of them counts.
    agree : callable, optional
        Raises where our result and a peer's differ: called with both, before anything is timed.
    rounds : int
        Runs of each.
    factor : mapping of str to float
        By how much the time of a peer or limit is multiplied, where it does only a part of the work.
    """

    piece: str
    size: str
    ours: Piece
    peers: Mapping[str, Piece] = field(default_factory=dict)
    limits: Mapping[str, Piece] = field(default_factory=dict)
    agree: Callable[[Any, Any], None] | None = None
    rounds: int = 5
    factor: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """A line of the table: seconds and bytes; NaN where there is no peer or limit."""

    piece: str
    size: str
    peer: str
    ours: float
    theirs: float
    share_of_limit: float
    memory: int
    their_memory: int

    @property
    def ratio(self) -> float:
        """How many times faster than the peer."""
        return self.theirs / self.ours


def medians(pieces: Mapping[str, Piece], rounds: int, device: torch.device) -> dict[str, float]:
    """Return the median time of each piece in seconds, run in turn; each should have been run once before."""
    times: dict[str, list[float]] = {name: [] for name in pieces}
    for _ in range(rounds):
        for name, piece in pieces.items():
            time.sleep(REST)
            start = time.perf_counter()
            piece()
            synchronize(device)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}


def synchronize(device: torch.device) -> None:
    """Wait for a device."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def extra_memory(piece: Piece, device: torch.device) -> tuple[int, Any]:
    """Return by how many bytes memory rises while a piece runs, of the process or of an accelerator, and its result."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = piece()
        return torch.cuda.max_memory_allocated(device) - before, result
    if platform.system() != "Linux":
        return 0, piece()
    ctypes.CDLL(None).malloc_trim(0)  # what is free already would hide what is taken
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _status("VmRSS")
    result = piece()
    return max(0, _status("VmHWM") - before), result


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{name} is not in /proc/self/status")


def run(cases: Iterable[Case], device: torch.device) -> Iterator[Result]:
    """Measure cases one after the other: a result for each peer."""
    for case in cases:
        pieces = {"ours": case.ours, **case.peers, **case.limits}
        memory, ours = extra_memory(case.ours, device)
        theirs = {}
        for name, peer in case.peers.items():
            theirs[name], result = extra_memory(peer, device)
            if case.agree is not None:
                case.agree(ours, result)
            del result
        del ours
        for limit in case.limits.values():
            limit()
        taken = {name: seconds * case.factor.get(name, 1.0) for name, seconds in medians(pieces, case.rounds, device).items()}
        least = min((taken[name] for name in case.limits), default=float("nan"))
        for name in case.peers or {"": None}:
            yield Result(
                case.piece,
                case.size,
                name,
                taken["ours"],
                taken.get(name, float("nan")),
                least / taken["ours"],
                memory,
                theirs.get(name, 0),
            )


HEADER = ("piece", "size", "ours", "peer", "theirs", "ratio", "of the limit", "memory", "their memory")


def cells(result: Result) -> tuple[str, ...]:
    """Return a line of the table as text."""
    return (
        result.piece,
        result.size,
        shown(result.ours),
        result.peer or "-",
        shown(result.theirs),
        f"{result.ratio:.2f}" if result.ratio < 10 else "-" if np.isnan(result.ratio) else f"{result.ratio:,.0f}",
        "-" if np.isnan(result.share_of_limit) else f"{result.share_of_limit:.2f}",
        f"{result.memory / 1e6:,.0f} MB",
        f"{result.their_memory / 1e6:,.0f} MB" if result.peer else "-",
    )


def shown(seconds: float) -> str:
    """Return a time for a reader."""
    if np.isnan(seconds):
        return "-"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def line(texts: tuple[str, ...]) -> str:
    """Return a line of a Markdown table."""
    return "| " + " | ".join(texts) + " |"


def machine(device: torch.device) -> str:
    """Return what was measured on, in a sentence."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        names = [text.split(":", 1)[1].strip() for text in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in text]
        name = f"{len(names)} cores of {names[0]}" if names else name
    libraries = ", ".join(sorted({f"{info['internal_api']} {info['version']}" for info in threadpool_info() if info["version"]}))
    where = "" if device.type == "cpu" else f"; {torch.cuda.get_device_name(device) if device.type == 'cuda' else device}"
    return (
        f"{name}{where}; python {platform.python_version()}, torch {torch.__version__} ({torch.get_num_threads()} threads), "
        f"numpy {np.__version__}, {libraries}"
    )
