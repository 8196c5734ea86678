"""Where the time of a run goes: gaussian-test on images of CIFAR-10 size, 512 starts x 16 turn times, with the default scores.

First the CPU time of the whole run over that of its floor, the least that any method must do for these turned states: two products
with all samples (weights, mean), one for the nearest sample, two rotations into the modes, one covariance, one eigendecomposition.
Then the own time of functions, by python's profiler. Products and factorisations are torch's and scipy's functions of that name,
and those of our functions that do little but multiply matrices with ``@``, which no python profiler sees. Run it with
``make bench``; it writes the table of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import resource
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
import torch
from measure import line
from problem import natural_images
from run import PAGE, put

import gaussian_test as gt
from gaussian_test.analysis.observables import registry

PRODUCTS = {
    "scipy.linalg.eigh": ("eigh",),
    "torch.mm, addmm, addmm_, bmm": ("mm>", "addmm>", "'addmm_'", "bmm>"),
    "torch.linalg.qr": ("linalg_qr",),
    "rotations into modes and back": ("to_modes", "from_modes", "_in_modes"),
    "ridge regressions (best affine map)": ("left_out", "_factors", "regression.py __init__", "coefficients"),
    "third cumulant": ("third_cumulant_norm",),
    "moments": ("running.py update",),
    "polynomial kernels": ("_kernel",),
}


TURNS = {"min": 1.0, "max": 60.0, "count": 16}


def floor(x: np.ndarray, states: int) -> float:
    """Return the CPU seconds of what cannot be left out."""
    points = torch.from_numpy(x.reshape(len(x), -1).astype(np.float32))
    turned, basis = points[torch.arange(states) % len(points)], torch.randn(points.shape[1], points.shape[1])
    start = time.process_time()
    for part in turned.split(1024):
        weights = part @ points.T
        weights @ points
        part @ points.T
        part @ basis
        part @ basis.T
    values = points.double().numpy()
    scipy.linalg.eigh(values.T @ values, driver="evd", overwrite_a=True, check_finite=False)
    return time.process_time() - start


def whole(settings: dict[str, Any], x: np.ndarray) -> str:
    """Return the CPU time of a run over its floor, and its largest memory, as a sentence."""
    start, began = time.process_time(), time.perf_counter()
    gt.run(settings, progress=False)
    taken, seconds = time.process_time() - start, time.perf_counter() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    least = floor(x, settings["samples"] * TURNS["count"])
    return (
        f"The whole run takes {taken:.0f} s of CPU ({seconds:.0f} s by the clock), its floor {least:.0f} s: {taken / least:.1f} "
        f"times as much. Largest memory of the process: {memory:.1f} GB."
    )


def of_observables(stats: dict[Any, Any]) -> dict[str, float]:
    """Return the seconds in the functions of each observable, with all that they call."""
    found = {}
    for one in registry.every():
        functions = [function for function in (one.at_turn, one.at_end, one.runs, one.measure) if function]
        places = [(function.partition(":")[0].replace(".", "/") + ".py", function.partition(":")[2]) for function in functions]
        found[one.name] = sum(
            cumulative
            for (path, _, function), (_, _, _, cumulative, _) in stats.items()
            if any(path.endswith(f"observables/{place}") and function == name for place, name in places)
        )
    return found


def measured(settings: dict[str, Any]) -> tuple[float, dict[str, float], dict[str, float], dict[str, float]]:
    """Return the seconds of a run, and those of products, of other functions and of observables, by name."""
    profiler = cProfile.Profile()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        profiler.enable()
        gt.run(settings, Path(folder) / "run.nc", progress=False)
        profiler.disable()
        seconds = time.perf_counter() - start
    products: dict[str, float] = defaultdict(float)
    others: dict[str, float] = defaultdict(float)
    stats: dict[Any, Any] = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    for (path, _, function), (_, _, own, _, _) in stats.items():
        name = f"{Path(path).name} {function}".removeprefix("~ ")
        of = [
            product
            for product, parts in PRODUCTS.items()
            if any(f" {name} ".find(f" {part} ") >= 0 or _builtin(name, part) for part in parts)
        ]
        if of:
            products[of[0]] += own
        else:
            others[name] += own
    return seconds, products, others, of_observables(stats)


def _builtin(name: str, part: str) -> bool:
    """Return whether a name is that of a function of torch: <built-in method torch.mm>, <method 'addmm_' of ...>."""
    return (part.endswith(">") and name.endswith(f"torch.{part}")) or (part in ("'addmm_'", "linalg_qr") and part in name)


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
        settings = {"data": source, "samples": given.starts, "turn_times": {"noise_to_signal": TURNS}}
        over_floor = whole(settings, gt.data.load(source["path"]).x.values)
        print(over_floor, flush=True)
        seconds, products, others, observables = measured(settings)
    share = sum(products.values()) / seconds
    print(f"{seconds:.0f} s, {share:.0%} in products and factorisations ({torch.get_num_threads()} threads)")
    lines = [line(("own time of", "seconds", "share of the run")), line(("---", "---:", "---:"))]
    for name, value in sorted(products.items(), key=lambda item: -item[1]):
        lines.append(line((name, f"{value:.1f}", f"{value / seconds:.1%}")))
    lines.append(line(("**all products and factorisations**", f"**{sum(products.values()):.1f}**", f"**{share:.0%}**")))
    for name, value in sorted(others.items(), key=lambda item: -item[1])[:6]:
        lines.append(line((f"`{name}`", f"{value:.1f}", f"{value / seconds:.1%}")))
    for name, value in sorted(observables.items(), key=lambda item: -item[1]):
        if value:
            lines.append(line((f"of the observable `{name}`, with all it calls", f"{value:.1f}", f"{value / seconds:.1%}")))
    lines.append(line(("the run", f"{seconds:.1f}", "")))
    print("\n".join(lines))
    put(PAGE, "profile", [over_floor, "", *lines])


if __name__ == "__main__":
    main()
