"""Statistics of states: correlations, norms and Kolmogorov-Smirnov distances of a path; bootstrap bands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.stats
import torch
from measure import Case
from problem import Problem

from gaussian_test.analysis import ClusterBootstrap, Moments, path_statistics
from gaussian_test.analysis.observables.normality.lilliefors import ks_distance
from gaussian_test.analysis.uturn.correlations import sample_norms, sample_products

SAMPLES = 256
CLUSTERS, POINTS, RESAMPLES = 1000, 24, 2000


def cases(problem: Problem) -> Iterator[Case]:
    """Yield the comparisons; these are computed on the CPU whatever the device."""
    times, features = problem.times, problem.features
    tensor = np.empty((times, SAMPLES, features), dtype=np.float32)
    random = np.random.default_rng(0)
    start = random.standard_normal((SAMPLES, features), dtype=np.float32)
    for index in range(times):
        random.standard_normal(out=tensor[index], dtype=np.float32)
        tensor[index] += start / (1 + index)
    size = f"{times} times, {SAMPLES} samples, {features} features"

    def loop_correlation() -> Any:
        return np.array([[float(np.dot(tensor[t, n], start[n])) for n in range(SAMPLES)] for t in range(times)])

    states, starts = torch.from_numpy(tensor), torch.from_numpy(start)

    def torch_correlation() -> Any:
        return np.array([[float((states[t, n] * starts[n]).sum()) for n in range(SAMPLES)] for t in range(times)])

    def torch_norm() -> Any:
        return np.array([[float(states[t, n].norm()) for n in range(SAMPLES)] for t in range(times)])

    def loop_norm() -> Any:
        return np.array([[float(np.linalg.norm(tensor[t, n])) for n in range(SAMPLES)] for t in range(times)])

    limits = {"reading: half of a copy": _copying(tensor)}
    half = {"reading: half of a copy": 0.5}
    yield Case(
        "correlations along a path",
        size,
        lambda: sample_products(start, tensor),
        {"a python loop over times and samples, torch": torch_correlation, "the same, numpy.dot": loop_correlation},
        limits,
        _close,
        problem.rounds,
        half,
    )
    yield Case(
        "norms along a path (SF norms)",
        size,
        lambda: sample_norms(tensor),
        {"a python loop over times and samples, torch": torch_norm, "the same, numpy.linalg.norm": loop_norm},
        limits,
        _close,
        problem.rounds,
        half,
    )
    limits.clear()
    one = tensor[0]

    def feature_by_feature() -> Any:
        standard = (one - one.mean(0)) / one.std(0, ddof=1)
        return np.array([scipy.stats.ks_1samp(standard[:, f], scipy.stats.norm.cdf).statistic for f in range(features)])

    def along_axis() -> Any:
        standard = (one - one.mean(0)) / one.std(0, ddof=1)
        return scipy.stats.ks_1samp(standard, scipy.stats.norm.cdf, axis=0, method="asymp").statistic

    yield Case(
        "Kolmogorov-Smirnov distances",
        f"one time, {SAMPLES} samples, {features} features",
        lambda: ks_distance(one),
        {"scipy.stats.ks_1samp, feature by feature": feature_by_feature, "scipy.stats.ks_1samp with axis": along_axis},
        {"numpy.sort": lambda: np.sort(np.ascontiguousarray(one.T), axis=-1)},
        _close,
        problem.rounds,
    )
    moments = Moments(SAMPLES, np.zeros(features), np.ones(1), np.eye(features, 1))
    yield Case(
        "all three, time by time (path_statistics)",
        size,
        lambda: path_statistics(iter(tensor), start, moments, np.arange(times)),
        {"their python loops and ks_1samp with axis": along_axis},
        factor={"their python loops and ks_1samp with axis": times},
        rounds=min(2, problem.rounds),
    )
    values = random.standard_normal((CLUSTERS, POINTS)) + np.linspace(0, 1, POINTS)
    yield Case(
        "bootstrap bands",
        f"{CLUSTERS:,} samples, {POINTS} times, {RESAMPLES:,} resamples",
        lambda: ClusterBootstrap(CLUSTERS, RESAMPLES).band(values),
        {
            "scipy.stats.bootstrap, BCa": lambda: scipy.stats.bootstrap(
                (values,), np.mean, axis=0, n_resamples=RESAMPLES, vectorized=True
            )
        },
        rounds=min(3, problem.rounds),
    )


def _copying(tensor: Any) -> Callable[[], None]:
    into = np.empty_like(tensor)
    return lambda: np.copyto(into, tensor)


def _close(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * max(1.0, float(np.abs(theirs).max())))
