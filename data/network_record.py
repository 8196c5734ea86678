"""What a trained denoiser does: its losses beside those of exact scores, its auto-correlations, and the ends of its U-Turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import seaborn as sns
import torch
from matplotlib.figure import Figure
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from gaussian_test.analysis import GaussianScore, class_moments, fit_moments
from gaussian_test.analysis.figures.parts import LEGEND, WIDTH, drawing
from gaussian_test.analysis.moments.gaussian_score import mixture_of_classes
from gaussian_test.sampler import EmpiricalScore, NetworkScore, ProbabilityFlow, UTurnPlan, VarianceExploding
from gaussian_test.sampler.networks.edm_denoiser import EDMDenoiser

LEVELS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0, 20.0, 40.0, 80.0)  # noise levels of the record
DRAWS = 2**13  # noise draws per mean of the curve; the record uses four times as many
U_TURNS = 512
TURN_TIME = 10.0

Denoise = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class Part:
    """Samples, (n, channels, rows, columns), and their classes, one-hot."""

    x: Tensor
    classes: Tensor


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Seed torch with a key, and restore its random state afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        yield


def squared_errors(denoise: Denoise, x0: Tensor, sigma: float, count: int = 4 * DRAWS, seed: int = 1) -> Tensor:
    r"""Return :math:`\|D(x_0 + \sigma z, \sigma) - x_0\|^2` of each sample, averaged over equally many noise draws, float64.

    Examples
    --------
    >>> x0 = torch.zeros(4, 1, 8, 8)
    >>> round(float(squared_errors(lambda x, sigma: x, x0, 2.0).mean() / 64), 1)
    4.0
    """
    draws = -(-count // len(x0))
    with torch.no_grad(), seeded(seed):
        total = sum((denoise(x0 + sigma * torch.randn_like(x0), sigma) - x0).double().square().sum((1, 2, 3)) for _ in range(draws))
    return torch.as_tensor(total) / draws


def record(network: EDMDenoiser, training: Part, held_out: Part, some: int | None = None) -> dict[str, Any]:
    """Return the losses and auto-correlations of a network at all noise levels, and statistics of its U-Turn ends.

    Everything is divided by the total variance of all samples: a loss is 1 minus an auto-correlation. Networks are tried on the
    first ``some`` samples of each part, with fewer draws of noise; exact scores are those of all, or of all training samples.
    """
    count, exact, draws, draws_held_out = (4 * DRAWS, DRAWS, 8, 32) if some is None else (4 * some, some, 1, 2)
    x = torch.cat([training.x, held_out.x])
    moments = fit_moments(x)
    mean = torch.from_numpy(moments.mean)
    gaussian, of_training, of_all = GaussianScore.from_moments(moments), EmpiricalScore(training.x), EmpiricalScore(x)
    mixture = mixture_of_classes(class_moments(training.x, training.classes.argmax(1)))
    tried = Part(training.x[:some], training.classes[:some])
    unseen = Part(held_out.x[:some], held_out.classes[:some])
    both = torch.cat([tried.x, unseen.x])

    def with_labels(part: Part) -> Denoise:
        return lambda noised, sigma: network(noised, sigma, part.classes)

    table = []
    for sigma in LEVELS:
        wiener = moments.eigenvalues / (moments.eigenvalues + sigma**2)
        row = {
            "training": squared_errors(network, tried.x, sigma, count),
            "held_out": squared_errors(network, unseen.x, sigma, count),
            "training_with_labels": squared_errors(with_labels(tried), tried.x, sigma, count),
            "held_out_with_labels": squared_errors(with_labels(unseen), unseen.x, sigma, count),
            "mmse_of_training_samples": squared_errors(of_training.denoise, tried.x, sigma, exact),
            "empirical_of_held_out_samples": squared_errors(of_training.denoise, unseen.x, sigma, exact),
            "lmmse_of_held_out_samples": squared_errors(gaussian.denoise, unseen.x, sigma, count),
            "mixture_of_held_out_samples": squared_errors(mixture.denoise, unseen.x, sigma, count),
        }
        losses = {name: float(value.mean()) / moments.trace for name, value in row.items()}
        errors = {f"{name}_se": float(row[name].std()) / len(row[name]) ** 0.5 / moments.trace for name in ("training", "held_out")}
        squares, products = autocorrelations(network, both, sigma, mean, draws)
        squares_held_out, products_held_out = autocorrelations(network, unseen.x, sigma, mean, draws_held_out)
        table.append(
            {"sigma": sigma, **losses, **errors}
            | {
                "lmmse": float((moments.eigenvalues * (1 - wiener)).sum()) / moments.trace,
                "autocorrelation_gaussian": float((moments.eigenvalues * wiener).sum()) / moments.trace,
                "autocorrelation_network_squared": squares / moments.trace,
                "autocorrelation_network_product": products / moments.trace,
                "held_out_squared": squares_held_out / moments.trace,
                "held_out_product": products_held_out / moments.trace,
                "autocorrelation_empirical": 1 - float(squared_errors(of_all.denoise, both, sigma, exact).mean()) / moments.trace,
            }
        )
    return {"table": table, "u_turns": u_turn_ends(network, training.x, held_out.x)}


def autocorrelations(denoise: Denoise, x0: Tensor, sigma: float, mean: Tensor, draws: int = 8) -> tuple[float, float]:
    r"""Return :math:`E\|D-\mu\|^2` and :math:`E(x_0-\mu)\cdot(D-\mu)`: equal for an exact score."""
    squares, products = 0.0, 0.0
    with torch.no_grad(), seeded(2):
        for _ in range(draws):
            denoised = denoise(x0 + sigma * torch.randn_like(x0), sigma).double() - mean
            squares += float(denoised.square().sum() / len(x0) / draws)
            products += float((denoised * (x0 - mean)).sum() / len(x0) / draws)
    return squares, products


def u_turn_ends(network: EDMDenoiser, training: Tensor, held_out: Tensor) -> dict[str, float]:
    """Return the share of U-Turns that end closer to a training sample than half of the training samples are to each other."""
    plan = UTurnPlan(VarianceExploding(), [TURN_TIME])
    starts = training[:U_TURNS]
    states = plan.run(starts, range(len(starts)), {"network": NetworkScore.from_edm(network)}, {"network": ProbabilityFlow()})
    (end,) = (state.x[0] for state in states if state.phase == "end")
    neighbours = NearestNeighbors(n_neighbors=1).fit(training.flatten(1).numpy())
    typical = float(np.median(neighbours.kneighbors()[0]))  # without an argument, a sample is not its own neighbour
    closer = {
        name: float((neighbours.kneighbors(x.flatten(1).numpy())[0] < typical).mean())
        for name, x in (("ends_closer", end), ("held_out_closer", held_out))
    }
    return {"turn_time": TURN_TIME, "count": len(starts), "typical_distance": typical, **closer}


def draw(record: dict[str, Any]) -> Figure:
    """Draw the losses of the record against the noise level, and the training curve."""
    table = {name: np.array([row[name] for row in record["table"]]) for name in record["table"][0]}
    curve = {name: np.array([row[name] for row in record["curve"]]) for name in record["curve"][0]}
    blue, orange, green, *_ = sns.color_palette("colorblind")
    with drawing():
        figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot(table["sigma"], table["lmmse"], color="black", linewidth=1, label="affine (LMMSE)")
        left.plot(table["sigma"], table["held_out"], "o", color=orange, markersize=4, label="network, held out")
        left.plot(table["sigma"], table["training"], color=blue, label="network, training")
        left.plot(table["sigma"], table["mmse_of_training_samples"], "--", color=green, label="empirical (MMSE)")
        left.set(xscale="log", xlabel=r"noise level $\sigma$", ylabel=r"denoising loss / $\mathrm{tr}\,\Sigma$")
        left.xaxis.set_major_formatter("{x:g}")
        right.plot(curve["step"], curve["held_out"], "o-", color=orange, markersize=3, linewidth=1, label="held-out samples")
        right.plot(curve["step"], curve["training"], color=blue, label="training samples")
        right.set(xlabel="training step", ylabel="weighted loss per pixel")
        for axis in (left, right):
            axis.legend(loc="best", **LEGEND)
            sns.despine(ax=axis)
        return figure
