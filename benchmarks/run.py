"""Speed against named peers: medians of interleaved runs in one process, as ratios, beside the limit of the machine.

Run it with ``make bench``. Absolute times on shared machines drift; ratios of interleaved runs hold.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_info

from gaussian_test.analysis import autocorrelation_discrete, fit_moments
from gaussian_test.sampler import EmpiricalScore, ExactReversal, ReverseSDE, UTurnPlan, VarianceExploding

ROUNDS = 5
FEATURES = 3072


def medians(*pieces: Callable[[], object]) -> list[float]:
    """Return the median time of each piece, run in turn after one warm-up."""
    for piece in pieces:
        piece()
    times: list[list[float]] = [[] for _ in pieces]
    for _ in range(ROUNDS):
        for piece, taken in zip(pieces, times, strict=True):
            start = time.perf_counter()
            piece()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]


def natural_images(count: int) -> torch.Tensor:
    """Return synthetic samples with a power-law spectrum like that of natural images."""
    generator = torch.Generator().manual_seed(0)
    scale = 15 * torch.arange(1, FEATURES + 1).float() ** -0.9
    return torch.randn(count, FEATURES, generator=generator) * scale


def naive_denoise(samples: torch.Tensor, x: torch.Tensor, nu: float) -> torch.Tensor:
    """Return the posterior mean as one would write it at first, with a batch x N temporary."""
    logits = (x @ samples.T - samples.square().sum(1) / 2) / nu**2
    return logits.softmax(1) @ samples


def main() -> None:
    """Print one table."""
    libraries = ", ".join(sorted({str(info.get("internal_api")) for info in threadpool_info()}))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; numpy {np.__version__}; {libraries}")
    print(f"median of {ROUNDS} interleaved runs\n")
    print(f"{'piece':44s} {'ours (s)':>9s} {'peer (s)':>9s} {'peer/ours':>9s}  peer")

    samples = natural_images(10000)
    score = EmpiricalScore.fit(samples)
    x = samples[:512] + 3 * torch.randn(512, FEATURES, generator=torch.Generator().manual_seed(1))
    ours, naive, gemm = medians(
        lambda: score.denoise(x, 3.0), lambda: naive_denoise(samples, x, 3.0), lambda: (x @ samples.T) @ samples
    )
    row("EmpiricalScore.denoise, 512 of 10,000", ours, naive, "naive torch softmax")
    row("  against the machine's limit", ours, gemm, "the two bare matrix products")

    array = samples.numpy()
    neighbours = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(array)
    ours, peer = medians(lambda: score.nearest_index(x), lambda: neighbours.kneighbors(x))
    row("nearest of 10,000 samples to 512 states", ours, peer, "scikit-learn, brute force")

    small = array[:, :1024].copy()
    ours, peer = medians(lambda: fit_moments(small).eigenvalues, lambda: np.linalg.eigh(np.cov(small.T, bias=True)))
    row("moments and spectrum, 10,000 x 1024", ours, peer, "np.cov and np.linalg.eigh")

    process = VarianceExploding()
    plan = UTurnPlan(process, np.geomspace(0.1, 20, 24).tolist(), steps=256)
    spectrum = fit_moments(small).eigenvalues
    (law,) = medians(lambda: autocorrelation_discrete(spectrum, process, ReverseSDE(), plan.grid, plan.levels))
    print(f"{'closed form through 256 steps, 24 turns':44s} {law:9.4f}")

    few = EmpiricalScore.fit(small[:2000])
    starts = torch.from_numpy(small[:64].copy())
    short = UTurnPlan(process, [1.0, 4.0, 10.0], steps=64)

    def uturns(kernel: object) -> Callable[[], object]:
        return lambda: [None for _ in short.run(starts, range(64), {"e": few}, {"e": kernel})]  # type: ignore[dict-item]

    ours, peer = medians(uturns(ExactReversal()), uturns(ReverseSDE()))
    row("exact reversal, 64 starts x 3 turns", ours, peer, "our reverse SDE, 64 steps")


def row(piece: str, ours: float, peer: float, name: str) -> None:
    """Print a line."""
    print(f"{piece:44s} {ours:9.3f} {peer:9.3f} {peer / ours:9.2f}  {name}")


if __name__ == "__main__":
    main()
