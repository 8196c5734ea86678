"""Where the time of a run goes: gaussian-test on images of CIFAR-10 size, 512 starts x 24 turn times, exact score.

Matrix products are told apart by the operators of torch that do nothing else and, before and after the shards, by the functions
of numpy's and scipy's libraries. Run it with ``make bench``; it writes the table of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import line
from problem import natural_images
from run import PAGE, put
from torch.profiler import ProfilerActivity, profile

import gaussian_test as gt

PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::addmm_")
OTHER_BLAS = ("dsyrk", "ssyrk", "eigh", "eigvalsh", "dsyr")  # of scipy, called once for the moments


def measured(settings: dict[str, Any]) -> tuple[float, dict[str, float]]:
    """Return the seconds of a run, and of the operators of torch and other functions that took the most."""
    taken: dict[str, float] = defaultdict(float)
    functions = cProfile.Profile()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        with profile(activities=[ProfilerActivity.CPU]) as operators:
            functions.enable()
            gt.run(settings, Path(folder) / "run.nc", progress=False)
            functions.disable()
        seconds = time.perf_counter() - start
    for event in operators.key_averages():
        taken[event.key] += event.self_cpu_time_total / 1e6
    for (_, _, name), (_, _, own, _, _) in pstats.Stats(functions).stats.items():  # type: ignore[attr-defined]
        for known in OTHER_BLAS:
            if known in name:
                taken[f"scipy {known}"] += own
    return seconds, taken


def main() -> None:
    """Print and write the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", help="a folder of CIFAR-10 in its binary format; default: synthetic images of the same size")
    arguments.add_argument("--starts", type=int, default=512)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.data:
            source = {"source": "cifar10", "path": str(Path(given.data).absolute())}
        else:
            np.savez(Path(folder) / "x.npz", x=natural_images(10_000, (3, 32, 32)))
            source = {"source": "file", "path": str(Path(folder) / "x.npz")}
        seconds, taken = measured(
            {"data": source, "samples": given.starts, "turn_times": {"noise_to_signal": {"min": 0.5, "max": 20, "count": 24}}}
        )
    products = sum(value for name, value in taken.items() if name in PRODUCTS or name.startswith("scipy "))
    print(f"{seconds:.0f} s, {products / seconds:.0%} in BLAS and LAPACK ({torch.get_num_threads()} threads)")
    rows = [
        line((name, f"{value:.1f}", f"{value / seconds:.1%}"))
        for name, value in sorted(taken.items(), key=lambda item: -item[1])[:12]
    ]
    whole = line(("**products and factorisations**", f"{products:.1f}", f"{products / seconds:.1%}"))
    lines = [
        line(("operator or function", "seconds", "share of the run")),
        line(("---",) * 3),
        *rows,
        whole,
        line(("the run", f"{seconds:.1f}", "")),
    ]
    print("\n".join(lines))
    put(PAGE, "profile", lines)


if __name__ == "__main__":
    main()
