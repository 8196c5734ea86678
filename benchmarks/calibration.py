"""Do the statistics hold? Coverage of every interval and band, false positives of every test, power of the Gaussian Test.

``make calibration`` runs it (some minutes on two cores) and writes docs/calibration.md; ``--repetitions`` and ``--workers`` change
how much and on how many cores. A small version is among the tests.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import scipy
import torch
from problems import DIMENSION, PROBLEMS, Outcome, gaussian_test_power, power_of_samples_alone

PAGE = Path(__file__).resolve().parents[1] / "docs" / "calibration.md"
SEPARATIONS = (0.0, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
NOISE, STARTS = 1.0, 200


def repeated(run: Callable[[int], Outcome], repetitions: int, pool: ProcessPoolExecutor) -> dict[str, list[float]]:
    """Return what every statement of a problem gave, over seeds."""
    found: dict[str, list[float]] = defaultdict(list)
    for outcome in pool.map(run, range(repetitions), chunksize=max(1, repetitions // 50)):
        for name, value in outcome.items():
            found[name].append(value)
    return found


def rows(repetitions: int, pool: ProcessPoolExecutor) -> Iterator[tuple[str, str, str, str]]:
    """Yield kind, problem, statement and its rate with a standard error."""
    for problem in PROBLEMS:
        for name, values in repeated(problem.run, repetitions, pool).items():
            hits = np.array(values) <= 0.05 if problem.kind == "false positives" else np.array(values)
            rate = float(hits.mean())
            yield problem.kind, problem.what, name, f"{rate:.1%} ± {math.sqrt(rate * (1 - rate) / len(hits)):.1%}"


def power(repetitions: int, pool: ProcessPoolExecutor) -> dict[float, dict[str, float]]:
    """Return the share of rejections of every test, by separation."""
    found: dict[float, dict[str, float]] = {}
    for separation in SEPARATIONS:
        found[separation] = {}
        for of in (gaussian_test_power, power_of_samples_alone):
            run = partial(of, separation=separation, nu=NOISE, starts=STARTS)
            found[separation] |= {name: float(np.mean(values)) for name, values in repeated(run, repetitions, pool).items()}
    return found


def page(repetitions: int, workers: int) -> str:
    """Return the page of the documentation."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        table = list(rows(repetitions, pool))
        powers = power(max(1, repetitions // 4), pool)
    lines = [
        "# Do the statistics hold?",
        "",
        f"Written by `make calibration`: {repetitions} repetitions of every problem, each with a truth that is known;",
        f"standard errors of the rates beside them. Python {platform.python_version()}, numpy {np.__version__},",
        f"scipy {scipy.__version__}, torch {torch.__version__}.",
        "The problems are in `benchmarks/problems.py`; a small version of this page is among the tests.",
        "",
        "## Coverage of intervals and bands (nominal 95 %; bands hold at all noise levels at once)",
        "",
        "| problem | interval or band | holds the truth |",
        "| --- | --- | --- |",
        *(f"| {what} | {name} | {rate} |" for kind, what, name, rate in table if kind == "coverage"),
        "",
        "The same with fewer starts than a run has by default (512). Distances from the Gaussian, shares explained and the",
        "divergence are means of heavy-tailed values at large noise, where few starts decide: their bands need more starts.",
        "",
        "| problem | interval or band | holds the truth |",
        "| --- | --- | --- |",
        *(f"| {what} | {name} | {rate} |" for kind, what, name, rate in table if kind == "few starts"),
        "",
        "## False positives of tests (nominal 5 %)",
        "",
        "| problem | test | rejects |",
        "| --- | --- | --- |",
        *(f"| {what} | {name} | {rate} |" for kind, what, name, rate in table if kind == "false positives"),
        "",
        "## Power of the Gaussian Test",
        "",
        f"Two Gaussians at ±m, variance 1 in each of {DIMENSION} directions, noised at ν = {NOISE:g}, {STARTS} starts: share of",
        f"rejections at 5 % over {max(1, repetitions // 4)} repetitions.",
        "The Gaussian Test knows the score and the moments, and asks whether the score is affine here;",
        "the other tests see the same noised samples and nothing else. Mardia's tests use their",
        "asymptotic laws, Henze-Zirkler's is pingouin's.",
        "",
        "| m | " + " | ".join(powers[0.0]) + " |",
        "| --- |" + " --- |" * len(powers[0.0]),
        *(f"| {m:g} | " + " | ".join(f"{rate:.1%}" for rate in found.values()) + " |" for m, found in powers.items()),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--output", type=Path, default=PAGE)
    chosen = parser.parse_args()
    text = page(chosen.repetitions, chosen.workers)
    chosen.output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
