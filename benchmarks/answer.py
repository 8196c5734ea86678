"""The cost of one answer: score evaluations and seconds for the three times of the exact score to 5 %.

Ours is a run with automatic turn times and ``refine: 0.05``. The peer is what scripts do: a fixed grid of turn times 5 % apart over
EDM's range of noise levels, each U-Turn simulated on its own by Euler steps on EDM's grid of 256 levels, with a softmax over all
samples. Its evaluations are those of all starts; its seconds are measured with few of them. Run it with ``make bench``.
"""

from __future__ import annotations

import argparse
import time
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from measure import line
from run import PAGE, put

import gaussian_test as gt
from gaussian_test.sampler import EmpiricalScore

LOW, HIGH, LEVELS, SHARE = 0.002, 80.0, 256, 0.05
TIMES = ("memorization", "speciation", "affine")


def ours(settings: dict[str, Any]) -> tuple[int, float, Any]:
    """Return the evaluations of the exact score in a run, its seconds of CPU, and its result."""
    count, kept = [0], {name: getattr(EmpiricalScore, name) for name in ("denoise", "evaluate", "posterior_index")}

    def counted(name: str) -> Any:
        def call(self: EmpiricalScore, x: torch.Tensor, *arguments: Any) -> Any:
            count[0] += len(x)
            return kept[name](self, x, *arguments)

        return call

    for name in kept:
        setattr(EmpiricalScore, name, counted(name))
    try:
        start = time.process_time()
        result = gt.run(settings, progress=False)
        return count[0], time.process_time() - start, result
    finally:
        for name, method in kept.items():
            setattr(EmpiricalScore, name, method)


def plain(x: torch.Tensor, starts: int) -> tuple[int, float]:
    """Return the evaluations of a plain loop for each start, and its seconds of CPU for each start."""
    rho, samples = 7.0, x.flatten(1)
    steps = torch.linspace(0, 1, LEVELS)
    grid = (HIGH ** (1 / rho) + steps * (LOW ** (1 / rho) - HIGH ** (1 / rho))) ** rho
    turns = torch.from_numpy(np.geomspace(LOW, HIGH, int(np.log(HIGH / LOW) / np.log1p(SHARE)) + 1)).float()
    evaluations, start = 0, time.process_time()
    for turn in turns:
        y, levels = samples[:starts] + turn * torch.randn(starts, samples.shape[1]), [turn, *grid[grid < turn], torch.tensor(0.0)]
        for t, s in pairwise(levels):
            denoised = torch.softmax(-torch.cdist(y, samples).square() / (2 * t**2), 1) @ samples
            y = denoised + (s / t) * (y - denoised)
            evaluations += 1
    return evaluations, (time.process_time() - start) / starts


def rows(settings: dict[str, Any], starts: int, few: int = 16) -> list[str]:
    """Return the lines of the table."""
    turned = {"noise_to_signal": None, "refine": SHARE}
    used = {"samples": starts, "turn_times": turned, "observables": "none", "keep": {"pictures": 0}}
    evaluations, seconds, result = ours(settings | used)
    theirs, each = plain(torch.from_numpy(gt.data.load(settings.get("data", {}).get("path", "digits")).x.values), few)
    times = result.gaussian_test.times.loc["empirical"].estimate
    found = ", ".join(f"{name} {times[name]:.3g}" for name in TIMES)
    return [
        line(("", "evaluations of the score", "CPU")),
        line(("---", "---:", "---:")),
        line((f"ours, {result.sizes['turn_time']} turn times, {starts} starts: {found}", f"{evaluations:,}", f"{seconds:.1f} s")),
        line((f"plain loop, the same starts (CPU: from {few})", f"{theirs * starts:,}", f"{each * starts:,.0f} s")),
        line(("ratio", f"{theirs * starts / evaluations:,.0f}", f"{each * starts / seconds:,.0f}")),
    ]


def main() -> None:
    """Print and write the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--starts", type=int, default=512)
    with torch.no_grad():
        lines = rows({}, arguments.parse_args().starts)
    print("\n".join(lines))
    put(PAGE, "answer", lines)


if __name__ == "__main__":
    main()
