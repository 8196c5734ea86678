"""What a Gaussian Test costs at any size: a model of its pieces, fitted to small sizes, checked on larger ones, and extrapolated.

Each piece costs a sum of terms that are counts of what it does (operations, bytes), each with its own rate on this machine. The
rates are fitted to small sizes without negative ones, in units of the measured time; the check is on sizes that were not fitted.
Times are of the processor, on one thread. What is printed for ImageNet-64 are counts, which depend on no machine.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls

from gaussian_test import analysis, sampler

Size = dict[str, int]


@dataclass(frozen=True)
class Piece:
    """A piece of a run: what it does at a size, its terms, sizes to fit and to check."""

    prepare: Callable[[Size], Callable[[], Any]]
    terms: Callable[[Size], Mapping[str, float]]
    fitted: tuple[Size, ...]
    checked: tuple[Size, ...]


def samples(size: Size) -> Any:
    """Return bytes of a size."""
    return np.random.default_rng(0).integers(0, 256, (size["N"], size["d"]), dtype=np.uint8)


def exact_score(size: Size) -> Callable[[], Any]:
    """Evaluate the exact score of bytes at a batch of states."""
    x = samples(size)
    score = sampler.EmpiricalScore.fit(torch.from_numpy(x).float().div_(127.5).sub_(1), process=sampler.VarianceExploding())
    state = torch.randn(size["B"], size["d"])
    return lambda: score.denoise(state, 3.0)


def moments(size: Size) -> Callable[[], Any]:
    """Fit mean and spectrum to bytes."""
    x = samples(size)
    return lambda: analysis.fit_moments(x)


class Network(torch.nn.Module):
    """A network of two layers over the features, whose products are its cost."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(features, width), torch.nn.SiLU(), torch.nn.Linear(width, features))

    def forward(self, x: torch.Tensor, t: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        """Return a denoised state."""
        return self.layers(x)


def u_turns(size: Size) -> Callable[[], Any]:
    """Run the U-Turns of a network."""
    plan = plan_of(size)
    score = sampler.NetworkScore.from_callable(Network(size["d"], size["width"]), (size["d"],), process=plan.process)
    start = torch.randn(size["starts"], size["d"])

    def run() -> None:
        for _ in plan.run(start, range(size["starts"]), {"n": score}, {"n": sampler.ReverseSDE()}):
            pass

    return run


def plan_of(size: Size) -> sampler.UTurnPlan:
    """Return a plan with the turn times of a size, between 0.05 and 30."""
    levels = np.geomspace(0.05, 30, size["turns"]).tolist()
    return sampler.UTurnPlan(sampler.VarianceExploding(), levels, steps=size["steps"])


def evaluations(size: Size) -> int:
    """Return how many states a network sees: each step of each U-Turn, from its turn time down."""
    return size["starts"] * sum(plan_of(size).reverse_steps())


PIECES = {
    "exact score, a batch": Piece(
        exact_score,
        lambda s: {"products": 4.0 * s["B"] * s["N"] * s["d"], "weights": s["B"] * s["N"], "values read": s["N"] * s["d"]},
        tuple({"N": n, "d": d, "B": b} for n in (2000, 4000) for d in (192, 768) for b in (64, 256)),
        ({"N": 16000, "d": 768, "B": 256}, {"N": 8000, "d": 3072, "B": 512}, {"N": 30000, "d": 192, "B": 1024}),
    ),
    "mean and spectrum": Piece(
        moments,
        lambda s: {"products": s["N"] * s["d"] ** 2, "eigenvectors": s["d"] ** 3, "values read": s["N"] * s["d"]},
        tuple({"N": n, "d": d} for n in (2000, 4000, 8000) for d in (192, 384, 768)),
        ({"N": 20000, "d": 768}, {"N": 6000, "d": 1536}, {"N": 16000, "d": 1200}),
    ),
    "U-Turns of a network": Piece(
        u_turns,
        lambda s: {
            "products": 4.0 * evaluations(s) * s["d"] * s["width"],
            "values drawn and stepped": evaluations(s) * s["d"],
            "steps": s["steps"],
        },
        tuple(
            {"starts": n, "turns": t, "steps": k, "d": d, "width": w}
            for n, t, k, d in ((32, 4, 16, 192), (64, 8, 16, 192), (16, 4, 32, 192), (32, 8, 16, 384))
            for w in (256, 1024)
        ),
        (
            {"starts": 128, "turns": 12, "steps": 48, "d": 192, "width": 512},
            {"starts": 64, "turns": 16, "steps": 32, "d": 768, "width": 1024},
            {"starts": 96, "turns": 24, "steps": 64, "d": 192, "width": 2048},
        ),
    ),
}


def seconds(piece: Piece, size: Size, rounds: int) -> float:
    """Return the median time of the processor."""
    run = piece.prepare(size)
    run()
    taken = []
    for _ in range(rounds):
        began = time.process_time()
        run()
        taken.append(time.process_time() - began)
    return statistics.median(taken)


def fitted(piece: Piece, rounds: int) -> dict[str, float]:
    """Return seconds for one of each term, by least squares of relative errors."""
    measured = np.array([seconds(piece, size, rounds) for size in piece.fitted])
    terms = np.array([list(piece.terms(size).values()) for size in piece.fitted])
    scale = terms.max(0)
    rates = nnls(terms / scale / measured[:, None], np.ones(len(measured)))[0] / scale
    return dict(zip(piece.terms(piece.fitted[0]), rates.tolist(), strict=True))


def predicted(piece: Piece, rates: Mapping[str, float], size: Size) -> float:
    """Return the seconds of a size."""
    return sum(rates[name] * count for name, count in piece.terms(size).items())


@dataclass(frozen=True)
class Run:
    """A whole Gaussian Test of an exact score, a network and the Gaussian; the defaults are ImageNet-64."""

    samples: int = 1_281_167
    features: int = 12_288
    classes: int = 1000
    starts: int = 10_000
    turns: int = 24
    steps: int = 256
    network: float = 2.1e11  # operations of one evaluation: those of a U-Net with 300 M parameters at 64 x 64
    shard_size: int = 64
    micro_batch: int = 1024

    def counts(self) -> dict[str, float]:
        """Return operations, and bytes read from the data file of one byte a value."""
        rows = min(self.shard_size, self.starts) * self.turns
        shards, batches = math.ceil(self.starts / self.shard_size), math.ceil(rows / self.micro_batch)
        size = {"starts": self.starts, "turns": self.turns, "steps": self.steps}
        seen, turned, values = evaluations(size), self.starts * self.turns, self.samples * self.features
        # a pass: the exact score at the turn; its draw; the nearest sample to the ends of all three scores
        passes = 10 + shards * (batches + batches + 3 * batches)  # ten for moments, digest, third cumulant and other fits
        return {
            "evaluations of the network": seen + turned,
            "operations of the network": (seen + turned) * self.network,
            "normal variables drawn on the CPU": float(self.starts * (self.steps + 1) * self.features),  # shared by turn times
            "operations of the exact score": (4 + 2 + 3 * 2) * turned * values,
            "operations of the covariance": values * self.features,
            "operations of the eigenvectors": 9.0 * self.features**3,
            "passes over the data": passes,
            "bytes of a pass": values,
            "bytes read": passes * values,
            "bytes of the covariance": 8.0 * self.features**2,
            "bytes of the moments of classes": 12.0 * min(self.samples, self.classes * self.features) * self.features,
            "bytes of the sample table": 84.0 * turned * 3,
        }


def main() -> None:
    """Print rates, checks and counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each size")
    given = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    for name, piece in PIECES.items():
        rates = fitted(piece, given.rounds)
        print(f"{name}: " + ", ".join(f"{rate * 1e9:.3g} ns for one of {term}" for term, rate in rates.items()), flush=True)
        for size in piece.checked:
            found, expected = seconds(piece, size, given.rounds), predicted(piece, rates, size)
            print(f"  {size}: measured {found:.3g} s, predicted {expected:.3g} s, ratio {expected / found:.2f}", flush=True)
    for shard_size, micro_batch in ((64, 1024), (1024, 24576), (157, 4096)):
        print(f"ImageNet-64, shard_size: {shard_size}, micro_batch: {micro_batch}:")
        for term, count in Run(shard_size=shard_size, micro_batch=micro_batch).counts().items():
            print(f"  {term}: {count:.3g}")


if __name__ == "__main__":
    main()
