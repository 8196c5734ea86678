r"""How the cost of a whole run grows: exponents of time and memory in samples, features, turn times, steps, starts and scores.

One size is varied at a time, over more than a decade, and :math:`\log(\mathrm{cost})` is fitted by a line over the upper half of
the range, where what is constant no longer counts. Memory is what a run takes beyond its samples. Run it with
``make bench``; it writes docs/growth.png and the table of docs/benchmarks.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
import torch
from matplotlib import pyplot as plt
from measure import extra_memory, line, medians
from problem import natural_images
from run import PAGE, put

import gaussian_test as gt

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Size:
    """A run: samples of 3 x side x side, turn times, reverse steps (0: exact reversal), starts and exact scores."""

    samples: int = 4000
    side: int = 16
    turns: int = 8
    steps: int = 0
    starts: int = 64
    scores: int = 1


SWEEPS: dict[str, tuple[list[Size], Callable[[Size], int]]] = {
    "samples N": ([Size(samples=n, turns=4) for n in (2000, 4000, 8000, 16000, 32000)], lambda size: size.samples),
    "features d": ([Size(side=s) for s in (8, 12, 16, 24, 32)], lambda size: 3 * size.side**2),
    "turn times": ([Size(turns=t) for t in (4, 8, 16, 32, 64)], lambda size: size.turns),
    "reverse steps": ([Size(samples=1000, steps=s, turns=2) for s in (8, 16, 32, 64, 128)], lambda size: size.steps),
    "starts": ([Size(starts=s) for s in (32, 64, 128, 256, 512)], lambda size: size.starts),
    "scores": ([Size(scores=k) for k in (1, 2, 4, 8, 16)], lambda size: size.scores),
}


def gaussian_test(size: Size) -> Callable[[], Any]:
    """Return a run with all observables that are on by default, the samples loaded beforehand."""
    truth = gt.data.load(natural_images(size.samples, (3, size.side, size.side))).load()
    settings = {
        "samples": size.starts,
        "scores": [{"kind": "empirical", "name": f"e{index}"} for index in range(size.scores)],
        "turn_times": {"noise_to_signal": {"min": 0.1, "max": 20.0, "count": size.turns}},
        "reverse": {"kind": "sde", "steps": size.steps} if size.steps else {},
    }
    return lambda: gt.run(settings, truth=truth, progress=False)


def main() -> None:
    """Measure, draw and write."""
    torch.set_grad_enabled(False)
    mpl.use("agg")
    sns.set_theme(context="paper", style="ticks", palette="colorblind")
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    rows = []
    for name, (sizes, measure) in SWEEPS.items():
        runs = [gaussian_test(size) for size in sizes]
        memory = np.array([max(extra_memory(run, CPU)[0], 1) for run in runs]) / 1e6
        taken = medians({str(index): run for index, run in enumerate(runs)}, 3, CPU)
        seconds = np.array([taken[str(index)] for index in range(len(runs))])
        along = np.array([measure(size) for size in sizes], dtype=float)
        exponents = [float(np.polyfit(np.log(along[2:]), np.log(values[2:]), 1)[0]) for values in (seconds, memory)]
        cells = (name, f"{along[0]:,.0f} to {along[-1]:,.0f}", f"{seconds[0]:.2g} to {seconds[-1]:.2g} s", f"{exponents[0]:.2f}",
                 f"{memory[0]:.0f} to {memory[-1]:.0f} MB", f"{exponents[1]:.2f}")  # fmt: skip
        print(line(cells), flush=True)
        rows.append(line(cells))
        for axis, values in zip(axes, (seconds, memory), strict=True):
            axis.plot(along / along[0], values, "o-", markersize=4, label=name)
    for axis, label in zip(axes, ("time (s)", "memory beyond the samples (MB)"), strict=True):
        axis.set(xscale="log", yscale="log", xlabel="size, in units of the smallest", ylabel=label)
        axis.set_xticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"], minor=False)
        axis.minorticks_off()
    axes[1].legend(title="one size is varied", frameon=False, loc="upper left", bbox_to_anchor=(1.02, 1))
    sns.despine(figure)
    figure.savefig(PAGE.parent / "growth.png", dpi=150)
    header = ("one size is varied", "from, to", "time", "exponent", "memory", "exponent")
    put(PAGE, "growth", [line(header), line(("---",) * len(header)), *rows])


if __name__ == "__main__":
    main()
