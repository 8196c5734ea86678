"""The exact score of the samples: its denoiser, and the nearest samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from measure import Case
from problem import Problem
from sklearn.neighbors import NearestNeighbors

from gaussian_test.sampler import EmpiricalScore

NU = 3.0


def cases(problem: Problem) -> Iterator[Case]:
    """Yield the comparisons."""
    for count in problem.counts:
        yield from _denoise(problem, count)
    yield from _low_noise(problem)
    yield from _nearest(problem)


def _denoise(problem: Problem, count: int) -> Iterator[Case]:
    samples = problem.samples(count)
    flat, half = samples.flatten(1), samples.flatten(1).square().sum(1) / 2
    score = EmpiricalScore.fit(samples).to(problem.device)
    largest = count == problem.counts[-1]
    batches = [problem.batch, 32, 1] if largest else [problem.batch]
    for batch in batches:
        x = problem.states(batch, NU)
        y = x.flatten(1)

        def naive(y: torch.Tensor = y) -> torch.Tensor:
            return ((y @ flat.T - half) / NU**2).softmax(1) @ flat

        def by_distance(y: torch.Tensor = y) -> torch.Tensor:
            return (torch.cdist(y, flat).square() / (-2 * NU**2)).softmax(1) @ flat

        def attention(y: torch.Tensor = y) -> torch.Tensor:
            bias = (-half / NU**2).expand(len(y), -1)[None]
            return torch.nn.functional.scaled_dot_product_attention(y[None], flat[None], flat[None], bias, scale=1 / NU**2)[0]

        yield Case(
            "EmpiricalScore.denoise",
            f"{batch} of {count:,}",
            lambda x=x: score.denoise(x, NU),  # type: ignore[misc]
            {"naive torch softmax": naive, "torch.cdist, softmax": by_distance, "torch attention with bias": attention}
            if batch == problem.batch
            else {"naive torch softmax": naive},
            _products(problem, y, flat) if batch == problem.batch else {},
            _close,
            problem.rounds,
        )
    if largest:
        of_floats = score
        of_bytes = EmpiricalScore.fit(problem.images[:count], scaling=(2 / 255, -1.0)).to(problem.device)
        x = problem.states(problem.batch, NU)
        yield Case(
            "EmpiricalScore.denoise, samples kept as bytes",
            f"{problem.batch} of {count:,}",
            lambda: of_bytes.denoise(x, NU),
            {"ours, samples in float32": lambda: of_floats.denoise(x, NU)},
            _products(problem, x.flatten(1), flat),
            _close,
            problem.rounds,
        )


def _low_noise(problem: Problem) -> Iterator[Case]:
    """Yield the levels at which the posterior is on few samples, and one at which it is not."""
    samples = problem.samples(problem.counts[-1])
    flat, half = samples.flatten(1), samples.flatten(1).square().sum(1) / 2
    score = EmpiricalScore.fit(samples).to(problem.device)
    small = torch.nn.functional.adaptive_avg_pool2d(samples, 8).flatten(1)
    theirs = _deepinv(samples)
    for nu in (0.1, 0.3, 1.0, 5.0):
        x = problem.states(problem.batch, nu)
        y = x.flatten(1)

        def naive(y: torch.Tensor = y, nu: float = nu) -> torch.Tensor:
            return ((y @ flat.T - half) / nu**2).softmax(1) @ flat

        def subset(x: torch.Tensor = x, nu: float = nu) -> torch.Tensor:
            """Weigh only the samples whose thumbnails are nearest: fast, and right only where these hold the weight."""
            thumbnails = torch.nn.functional.adaptive_avg_pool2d(x, 8).flatten(1)
            near = (thumbnails @ small.T - small.square().sum(1) / 2).topk(64, sorted=False).indices
            means = []
            for one, index in zip(x.flatten(1), near, strict=True):
                some = flat[index]
                means.append(((some @ one - half[index]) / nu**2).softmax(0) @ some)
            return torch.stack(means)

        peers: dict[str, Callable[[], object]] = {"naive torch softmax": naive}
        if nu <= 1 and problem.features >= 1024:  # where it is right
            peers["64 nearest by thumbnails, uncertified"] = subset
        if theirs is not None:
            peers["deepinv, MMSE"] = lambda x=x, nu=nu: theirs(x, nu)  # type: ignore[misc]
        yield Case(
            f"EmpiricalScore.denoise, noise-to-signal {nu:g}",
            f"{problem.batch} of {len(samples):,}",
            lambda x=x, nu=nu: score.denoise(x, nu),  # type: ignore[misc]
            peers,
            _products(problem, y, flat),
            _close,
            problem.rounds,
        )


def _deepinv(samples: torch.Tensor) -> Callable[..., torch.Tensor] | None:
    """Return deepinv's posterior mean of a data set, if it is installed."""
    try:
        from deepinv.models import MMSE
    except ImportError:
        return None
    model: Callable[..., torch.Tensor] = MMSE(samples, device=samples.device)
    return model


def _products(problem: Problem, y: torch.Tensor, flat: torch.Tensor) -> dict[str, Callable[[], object]]:
    """Return the two matrix products alone, into memory that is there, with the libraries of torch and numpy."""
    first, second = y.new_empty(len(y), len(flat)), torch.empty_like(y)
    limits: dict[str, Callable[[], object]] = {
        "products with torch": lambda: (torch.mm(y, flat.T, out=first), torch.mm(first, flat, out=second))
    }
    if problem.device.type == "cpu":
        a, b, c, d = (tensor.numpy() for tensor in (y, flat, first, second))
        limits["products with numpy"] = lambda: (np.matmul(a, b.T, out=c), np.matmul(c, b, out=d))
    return limits


def _nearest(problem: Problem) -> Iterator[Case]:
    count = problem.counts[-1]
    ends = problem.states(min(10_000, count // 5), 0.3)
    samples = problem.samples(count)
    score = EmpiricalScore.fit(samples).to(problem.device)
    flat, queries = samples.flatten(1), ends.flatten(1)

    def by_distance() -> torch.Tensor:
        return torch.cat([torch.cdist(part, flat).topk(1, largest=False).indices[:, 0] for part in queries.split(1024)])

    peers: dict[str, Callable[[], object]] = {"torch.cdist, topk": by_distance}
    if problem.device.type == "cpu":
        brute = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(flat.numpy())
        peers["scikit-learn, brute force"] = lambda: torch.from_numpy(
            brute.kneighbors(queries.numpy(), return_distance=False)[:, 0]
        )
    yield Case(
        "nearest samples",
        f"{len(ends):,} among {count:,}",
        lambda: score.nearest_index(ends),
        peers,
        agree=_same_neighbours,
        rounds=1,
    )


def _close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours.flatten(1), theirs.flatten(1), rtol=0, atol=2e-3)


def _same_neighbours(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert (ours == theirs).double().mean() > 0.999  # products in single precision take a near tie the other way
