"""Network U-Turns against the plain loop, one turn time after the other, at its own best batch: images per second, as a ratio.

An image is one state through the network once. Both sides take the same Heun steps of the same grid with the shipped digits
network, 512 starts x 16 turn times x 64 levels, and are run in turn in one process; the bare network at its best batch is the
limit. Then few starts, where merging turn times fills the batch. Run it with ``make bench``.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch

from gaussian_test import data
from gaussian_test.checkpoints import open_network
from gaussian_test.sampler import NetworkScore, ProbabilityFlow, UTurnPlan, VarianceExploding, fastest_micro_batch
from gaussian_test.score_settings import Network

ROUNDS = 5
TURNS = np.geomspace(0.1, 20, 16).tolist()
LEVELS = 64
BATCHES = (16, 64, 128, 256, 512, 1024)


def plain_loop(net: torch.nn.Module, x0: torch.Tensor, plan: UTurnPlan, batch: int) -> int:
    """Run the U-Turns as one would write it at first, and return the number of images; nothing here is ours but the grid."""
    images = 0
    generator = torch.Generator().manual_seed(0)
    for turn in plan.levels:
        levels = plan.grid[plan.grid <= turn].tolist()
        for start in range(0, len(x0), batch):
            x = x0[start : start + batch]
            x = x + turn * torch.randn(x.shape, generator=generator)
            for t, s in pairwise(levels):
                slope = (x - net(x, torch.full((len(x),), t))) / t
                ahead = x + (s - t) * slope
                images += len(x)
                if s > 0:
                    slope = (slope + (ahead - net(ahead, torch.full((len(x),), s))) / s) / 2
                    images += len(x)
                x = x + (s - t) * slope
    return images


def our_run(score: NetworkScore, x0: torch.Tensor, plan: UTurnPlan) -> None:
    """Run them all in one pass down the grid, shard by shard."""
    for shard in plan.shards(range(len(x0))):
        for _ in plan.run(x0[list(shard)], shard, {"net": score}, {"net": ProbabilityFlow()}):
            pass


def seconds(piece: Callable[[], object]) -> float:
    """Return the time of one call."""
    start = time.perf_counter()
    piece()
    return time.perf_counter() - start


def bare_rate(net: torch.nn.Module, batch: int) -> float:
    """Return images per second of the network alone."""
    x, sigma = torch.randn(batch, 1, 8, 8), torch.ones(batch)
    calls = max(1, 8192 // batch)
    net(x, sigma)
    return calls * batch / seconds(lambda: [net(x, sigma) for _ in range(calls)])


def compare(starts: int, shard_sizes: tuple[int, ...]) -> None:
    """Print a line for each shard size: ours, the plain loop at its best batch, and the bare network, in images per second."""
    score, _ = open_network(Network(kind="network"), (1, 8, 8), VarianceExploding(), {})
    assert isinstance(score, NetworkScore)
    net = score.network.inner
    x0 = torch.from_numpy(data.load("digits")["x"].values[:starts])
    plans = [UTurnPlan(score.process, TURNS, steps=LEVELS, shard_size=size) for size in shard_sizes]
    tried = sorted({min(batch, starts) for batch in BATCHES})
    few = UTurnPlan(score.process, TURNS[7:9], steps=LEVELS)  # two turn times of the sixteen
    best = min(tried, key=lambda batch: seconds(lambda: plain_loop(net, x0, few, batch)))
    score.micro_batch = fastest_micro_batch(score, 1024, torch.device("cpu"))
    images, plain, bare = 0, [], []
    ours: list[list[float]] = [[] for _ in plans]
    for _ in range(ROUNDS):
        for plan, taken in zip(plans, ours, strict=True):
            taken.append(seconds(lambda plan=plan: our_run(score, x0, plan)))  # type: ignore[misc]
        start = time.perf_counter()
        images = plain_loop(net, x0, plans[0], best)
        plain.append(time.perf_counter() - start)
        bare.append(bare_rate(net, max(score.micro_batch, best)))
    theirs, limit = images / statistics.median(plain), statistics.median(bare)
    for size, taken in zip(shard_sizes, ours, strict=True):
        mine = images / statistics.median(taken)
        row(starts, size, score.micro_batch, best, f"{statistics.median(taken):.1f}", mine, theirs, mine / theirs, mine / limit)


def row(*cells: object) -> None:
    """Print a line of the table."""
    print("".join(f"{cell:,.0f}".rjust(13) if isinstance(cell, float) and cell > 50 else _short(cell).rjust(13) for cell in cells))


def _short(cell: object) -> str:
    return f"{cell:.2f}" if isinstance(cell, float) else str(cell)


def main() -> None:
    """Print the table."""
    torch.set_grad_enabled(False)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; {len(TURNS)} turn times, Heun, {LEVELS} levels")
    print(f"median of {ROUNDS} interleaved runs\n")
    row("starts", "shard", "micro-batch", "their batch", "ours (s)", "images/s", "plain loop", "ratio", "of bare net")
    compare(512, (64, 128, 256, 512))
    for starts in (16, 4, 1):
        compare(starts, (starts,))


if __name__ == "__main__":
    main()
