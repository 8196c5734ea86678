r"""Participation ratio and entropy of a noised sample's posterior.

With the posterior weights of the ground-truth samples at a turned state, :math:`w_n\propto e^{-|x-\alpha x_n|^2/2\sigma^2}`, added
up over equal samples,

.. math:: \frac{1}{\sum_n w_n^2} \le e^H,\qquad H = -\sum_n w_n\log w_n,\qquad
          \mathbb E\,H = \log N - \tfrac12\sum_i\log(1+\lambda_i/\nu^2) + \mathrm{KL}(p_t\|\mathcal N_t).

At small noise one sample takes part, at large noise all N; in between, a U-Turn forgets its sample.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from gaussian_test.analysis.declarations import BAND, Variable, declared
from gaussian_test.analysis.observables.record import Column, Figure, Inputs, Observable, Panel, Rows, Table, Turned

if TYPE_CHECKING:
    import xarray as xr
    from torch import Tensor

    from gaussian_test.sampler import EmpiricalScore

ROWS, OVER = ("turn_time", "sample", "repeat"), ("turn_time",)
MIDDLE = {"_low": ", lower end of its interval at each turn time", "_high": ", upper end of its interval at each turn time"}
HASHED = 2**62  # range of the random odd multipliers of the hash that finds equal samples

VARIABLES = (
    Variable("sample_participation", ROWS, "participation ratio of the posterior of one noised sample", "1/sum w^2"),
    Variable("sample_posterior_entropy", ROWS, "entropy of the posterior of one noised sample", "-sum w log w", "nat"),
    Variable(
        "participation",
        OVER,
        "median participation ratio of the posterior",
        "1/sum w^2 over the ground-truth samples, equal ones together; first repeats",
        band=MIDDLE,
    ),
    Variable(
        "posterior_entropy",
        OVER,
        "mean entropy of the posterior",
        "log N less half the sum of log(1 + lambda/nu^2) plus the divergence of the noised data from their Gaussian",
        "nat",
        band=BAND,
    ),
)


@lru_cache(maxsize=2)
def multiplicity(truth: EmpiricalScore) -> Tensor:
    """Return how often each ground-truth sample occurs, at its first occurrence, and 0 at the others: float64, shape (N,)."""
    import numpy as np
    import torch

    factors = torch.from_numpy(np.random.default_rng(0).integers(0, HASHED, truth.center.numel()) * 2 + 1)
    # bits as integers: sums wrap, and do not depend on their order
    tiles = (tile.cpu().double().view(torch.int64) for tile in truth.tiles())
    hashed = torch.cat([(tile * factors).sum(1) for tile in tiles]).numpy()
    _, first, counts = np.unique(hashed, return_index=True, return_counts=True)
    found = np.zeros(len(hashed))
    found[first] = counts
    return torch.from_numpy(found).to(truth.center.device)


def participation_ratio(truth: EmpiricalScore, x: Tensor, noise_to_signal: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return the participation ratio and the entropy of the posterior, streamed over the samples.

    Examples
    --------
    >>> import torch
    >>> from gaussian_test.sampler import EmpiricalScore
    >>> pair = EmpiricalScore(torch.tensor([[-1.0], [1.0], [1.0]]))  # two samples, one of them twice
    >>> ratio, entropy = participation_ratio(pair, torch.zeros(1, 1), torch.tensor([1.0]))
    >>> round(ratio.item(), 6), round(entropy.exp().item(), 6)
    (1.8, 1.889882)
    """
    import torch

    y = x.double() - truth.center.double()
    precision = 1 / noise_to_signal.double()[:, None] ** 2
    logs = multiplicity(truth).log()
    largest = torch.full_like(precision, -torch.inf)
    total, squares, moment = (torch.zeros_like(precision) for _ in range(3))
    first = 0
    for tile in truth.tiles():
        samples, weight = tile.double(), logs[first : first + len(tile)]
        first += len(tile)
        logits = (y @ samples.T - samples.square().sum(1) / 2 - y.square().sum(1, keepdim=True) / 2) * precision + weight
        highest = torch.maximum(largest, logits.amax(1, keepdim=True))
        shift, relative = (largest - highest).nan_to_num(neginf=0.0), logits - highest
        scale = torch.where(torch.isinf(largest), 0.0, shift.exp())
        w = relative.exp()
        moment = scale * (moment + shift * total) + (w * relative.clamp(min=-700)).sum(1, keepdim=True)
        total = scale * total + w.sum(1, keepdim=True)
        squares = scale**2 * squares + w.square().sum(1, keepdim=True)
        largest = highest
    return (total.square() / squares)[:, 0], (total.log() - moment / total)[:, 0]


def at_turn(turned: Turned) -> Rows:
    """Yield the participation ratio and the entropy at every turned state."""
    import torch

    count, rows, _ = turned.x.shape
    nu = (turned.sigma / turned.alpha).expand(count, rows)
    found = [
        participation_ratio(turned.truth, x / alpha, level) for x, alpha, level in zip(turned.x, turned.alpha, nu, strict=True)
    ]
    for name, values in zip(("sample_participation", "sample_posterior_entropy"), zip(*found, strict=True), strict=True):
        yield name, None, torch.stack(values)


def measure(inputs: Inputs) -> dict[str, xr.Dataset]:
    """Return the median participation ratio with its interval, and the mean entropy with its band."""
    import numpy as np
    from scipy.stats import quantile_test

    table, confidence = inputs.table, inputs.statistics.confidence
    ratio = table["sample_participation"].isel(repeat=0).transpose("turn_time", "sample").values
    ends: list[Any] = [quantile_test(row, p=0.5).confidence_interval(confidence) for row in ratio]
    entropy = table["sample_posterior_entropy"].mean("repeat").transpose("sample", "turn_time").values
    # few starts carry the entropy of small noise: resamples without them would divide by an error of about zero
    band = inputs.resample(len(entropy)).band(entropy, studentized=False)
    within = {ending: edge.clip(0, np.log(inputs.truth.count)) for ending, edge in (("_low", band.low), ("_high", band.high))}
    values = {"participation": np.median(ratio, 1), "participation_low": [end.low for end in ends]}
    values["participation_high"] = [end.high for end in ends]
    values |= {f"posterior_entropy{ending}": edge for ending, edge in (band.columns() | within).items() if ending != "_pvalue"}
    return {"": declared(VARIABLES, values)}


PARTICIPATION = Observable(
    name="participation",
    title="how many ground-truth samples share the posterior of a noised sample",
    variables=VARIABLES,
    at_turn="participation:at_turn",
    measure="participation:measure",
    tables=(
        Table(
            "Posterior of the noised samples: median number of samples that take part, and mean entropy (nat)",
            (
                (Column("participation", "1/sum w^2", "median", any_size=True),),
                (Column("participation_low", "", "from", any_size=True),),
                (Column("participation_high", "", "to", any_size=True),),
                (Column("posterior_entropy", "entropy", "mean", any_size=True),),
                (Column("posterior_entropy_se", "", "+-", any_size=True),),
            ),
        ),
    ),
    figures=(
        Figure(
            "participation",
            "How many samples share the posterior",
            "The median participation ratio of the posterior weights over the ground-truth samples with its interval at each turn "
            "time, and their mean entropy with its band. At 1 a noised sample still says which one it was; where it leaves 1 "
            "memorization ends.",
            ("participation", "posterior_entropy"),
            shown_for="participation",
            panels=(
                Panel("participation", r"participation ratio $1/\sum w^2$", line=1, log=True),
                Panel("posterior_entropy", "entropy of the\nposterior (nat)", line=0),
            ),
        ),
    ),
)
