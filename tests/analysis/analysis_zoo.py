"""Data far from Gaussian, exact scores with draws of their starts, and the test of a mean in standard errors."""

import numpy as np
import torch

from gaussian_test.analysis.moments.gaussian_score import GaussianScore, class_mixture
from gaussian_test.sampler import EmpiricalScore


def skewed(n, d, seed=0):
    """Draw samples that are far from Gaussian: few exponential factors, mixed."""
    rng = np.random.default_rng(seed)
    return rng.exponential(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)


def noised(start, time, process, seed=1):
    noise = np.random.default_rng(seed).normal(size=start.shape)
    return process.noised(torch.from_numpy(start), time, torch.from_numpy(noise))


def within(values, expected=0.0, errors=4.0):
    """Whether the mean over the first axis is the expected one within standard errors."""
    error = values.std(0, ddof=1) / np.sqrt(len(values))
    return (np.abs(values.mean(0) - expected) < errors * error).all()


def exact_score(kind, x, process, count):
    """Return a score that is exact for its own data, and starts drawn from these: samples, two classes or one Gaussian."""
    rng = np.random.default_rng(1)
    chosen, normal = rng.integers(len(x), size=count), torch.from_numpy(rng.normal(size=(count, x.shape[1])))
    if kind == "empirical":
        return EmpiricalScore(torch.from_numpy(x), process=process), x[chosen]
    if kind == "gaussian":
        score = GaussianScore.fit(x, process=process, dtype=torch.float64)
        return score, score.components.prior(0, normal).numpy()
    labels = (x[:, 0] > x[:, 0].mean()).astype(int)
    score = class_mixture(x, labels, process=process, dtype=torch.float64)
    first = torch.from_numpy(labels[chosen] == 0)[:, None]
    return score, torch.where(first, score.components.prior(0, normal), score.components.prior(1, normal)).numpy()
