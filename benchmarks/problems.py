"""Problems with a known truth, for measuring coverage, false positives and power of every interval and test.

Each is a function of a seed that returns which statements held: ``{name: covered}`` for intervals and bands,
``{name: p-value}`` for tests. ``calibration.py`` repeats them; the tests run a small version.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from scipy.optimize import brentq

from gaussian_test import analysis, sampler

Array = NDArray[np.float64]
Outcome = dict[str, float]

DIMENSION, VARIANCE = 8, 1.0
NU = np.geomspace(0.4, 8, 8)
STARTS, RESAMPLES = 200, 400


@dataclass(frozen=True)
class Problem:
    """A problem: what it is, what is done for a seed, and whether it states intervals or tests."""

    what: str
    run: Callable[[int], Outcome]
    kind: str  # "coverage" or "false positives"


def two_gaussians(seed: int, separation: float, kernel: sampler.ReverseKernel, repeats: int = 1) -> tuple[xr.Dataset, xr.Dataset]:
    """Run U-Turns of the exact score of two symmetric Gaussians and return table and result."""
    torch.set_num_threads(1)
    process = sampler.VarianceExploding()
    random = np.random.default_rng([seed, 1])
    labels = random.integers(0, 2, STARTS)
    mean = np.zeros((2, DIMENSION))
    mean[:, 0] = -separation, separation
    x0 = mean[labels] + math.sqrt(VARIANCE) * random.normal(size=(STARTS, DIMENSION))
    spectrum = np.full(DIMENSION, VARIANCE)
    spectrum[0] += separation**2
    moments = analysis.Moments(STARTS, np.zeros(DIMENSION), spectrum, np.eye(DIMENSION))
    score = sampler.MixtureScore.from_moments([1, 1], mean, np.tile(VARIANCE * np.eye(DIMENSION), (2, 1, 1)), dtype=torch.float64)
    gaussian = analysis.GaussianScore.from_moments(moments, process=process, dtype=torch.float64)
    centres = sampler.EmpiricalScore.fit(mean + [[-1e-9], [1e-9]] * np.eye(DIMENSION)[0], dtype=torch.float64)
    references = {"isotropic": analysis.isotropic_score(moments, process, torch.float64), "gaussian": gaussian, "mixture": score}
    reference = analysis.Reference(centres, moments, gaussian, np.array([0, 1]), references, lambda x: (x[:, 0] > 0).long())
    turns = [process.turn_time_from_noise_to_signal(nu) for nu in NU]
    plan = sampler.UTurnPlan(process, turns, steps=12, repeats=repeats, seed=seed)
    start = torch.from_numpy(x0)
    samples = list(range(STARTS))
    table = analysis.SampleTable(plan, {"exact": score}, reference, start, samples, kept=samples)
    for state in plan.run(start, samples, {"exact": score}, {"exact": kernel}):
        table.observe(state)
    rows = table.to_dataset().assign_coords(noise_to_signal=("turn_time", NU))
    # a class of the start as the classifier sees it: the pair is exchangeable then
    rows["label"] = ("sample", (x0[:, 0] > 0).astype(np.int64))
    rows = rows.assign(conditional=("score", [False]), truth=("score", ["other"]))
    exact = kernel.exact
    rows = rows.assign(kernel=("score", ["exact" if exact else "sde"]), flow=("score", ["sde"]))
    closed = analysis.autocorrelation_discrete(spectrum, process, kernel, plan.grid, plan.levels)
    rows["reference_discrete"] = (("score", "turn_time"), closed[None])
    truth = analysis.GroundTruth(STARTS, spectrum, 0.0, np.array([0.5, 0.5]), 1.0)
    result = analysis.gaussian_test(rows, truth, analysis.Statistics(bootstrap=RESAMPLES, seed=seed, tolerance=TOLERANCE))
    return rows.merge(table.kept_states()), result.assign_coords(noise_to_signal=("turn_time", NU))


TOLERANCE = 0.02
SEPARATION = 2.5


@cache
def known() -> analysis.TwoGaussians:
    """Return the closed forms at the noise levels of the problem."""
    return analysis.two_gaussians(NU, SEPARATION, VARIANCE, DIMENSION)


def gaussian_curve(nu: Array, separation: float) -> Array:
    """Return the auto-correlation of the matched Gaussian."""
    spectrum = np.full(DIMENSION, VARIANCE)
    spectrum[0] += separation**2
    return analysis.autocorrelation_exact(spectrum, nu)


@cache
def known_times() -> tuple[float, float]:
    """Return where the class retention falls through one half, and where the gap falls through the tolerance for good."""

    def retention(log_nu: float) -> float:
        seen = analysis.two_gaussians([math.exp(log_nu)], SEPARATION, VARIANCE, DIMENSION)
        return float(kept_share(seen)[0] - 0.75)  # (share - 1/2)/(1/2) = 1/2

    def gap(log_nu: float) -> float:
        nu = np.array([math.exp(log_nu)])
        seen = analysis.two_gaussians(nu, SEPARATION, VARIANCE, DIMENSION)
        return float((seen.autocorrelation - gaussian_curve(nu, SEPARATION))[0] - TOLERANCE)

    return math.exp(brentq(retention, -0.9, 2)), math.exp(brentq(gap, 0.6, 2))


def kept_share(seen: analysis.TwoGaussians) -> Array:
    """Return the share of U-Turns that keep the class of their component."""
    return np.asarray(seen.retention)


def covered(result: xr.Dataset, name: str, truth: Array | float) -> float:
    """Return whether a band of the result holds the truth everywhere."""
    low, high = result[f"{name}_low"].values, result[f"{name}_high"].values
    return float(((low <= truth + 1e-12) & (truth - 1e-12 <= high)).all())
