"""Moments of the ground truth: mean and covariance, and the spectrum."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import dask.array
import numpy as np
import scipy.linalg
import torch
from measure import Case
from problem import Problem
from scipy.linalg.blas import dsyrk, ssyrk
from sklearn.covariance import EmpiricalCovariance

from gaussian_test.analysis import fit_moments, spectrum
from gaussian_test.analysis.moments.running import RunningMoments, moments_of

BLOCK = 4096


def cases(problem: Problem) -> Iterator[Case]:
    """Yield the comparisons; these are computed on the CPU whatever the device."""
    x = problem.images.reshape(len(problem.images), -1)
    count, features = x.shape
    rows = min(BLOCK, count)
    single = x[:rows].astype(np.float32) - 120
    double, floats = single.astype(np.float64), x[: problem.counts[0]].astype(np.float32)
    into = np.zeros((features, features), dtype=np.float32, order="F"), np.zeros((features, features), order="F")

    def with_dask() -> Any:
        a = dask.array.from_array(x, chunks=(max(1, count // 10), features)).astype(np.float32)
        mean = a.mean(0)
        return (((a - mean).T @ (a - mean)) / count).compute(scheduler="threads")

    yield Case(
        "mean and covariance",
        f"{count:,} x {features} uint8",
        lambda: moments_of(x, features).covariance(),
        {
            "numpy.cov": lambda: np.cov(x.T, bias=True),
            "scikit-learn EmpiricalCovariance": lambda: EmpiricalCovariance(store_precision=False).fit(x).covariance_,
            "dask A.T @ A, float32": with_dask,
        },
        {"ssyrk": lambda: ssyrk(1.0, single.T, beta=0.0, c=into[0], lower=1, overwrite_c=1)},
        _same_covariance,
        min(3, problem.rounds),
        {"ssyrk": count / rows},
    )
    yield Case(
        "mean and covariance, summed in float64",
        f"{len(floats):,} x {features} float32",
        lambda: _summed(floats),
        {"numpy.cov": lambda: np.cov(floats.T, bias=True, dtype=np.float64)},
        {"dsyrk": lambda: dsyrk(1.0, double.T, beta=0.0, c=into[1], lower=1, overwrite_c=1)},
        _same_covariance,
        min(3, problem.rounds),
        {"dsyrk": len(floats) / rows},
    )
    covariance = _summed(floats)
    yield Case(
        "eigenvalues and eigenvectors",
        f"{features}, float64",
        lambda: scipy.linalg.eigh(covariance, driver="evd", check_finite=False),
        {
            "numpy.linalg.eigh": lambda: np.linalg.eigh(covariance),
            "torch.linalg.eigh": lambda: torch.linalg.eigh(torch.from_numpy(covariance)),
        },
        rounds=1,
    )
    yield Case(
        "eigenvalues alone (spectrum), covariance included",
        f"{len(floats):,} x {features}",
        lambda: spectrum(floats),
        {"ours, with eigenvectors (fit_moments)": lambda: fit_moments(floats).eigenvalues},
        agree=_same_values,
        rounds=1,
    )
    few = floats[: min(1000, features // 3)]
    yield Case(
        "moments of fewer samples than features (Gram route)",
        f"{len(few):,} x {features}",
        lambda: fit_moments(few).eigenvalues,
        {"numpy.cov and eigh": lambda: np.linalg.eigh(np.cov(few.T, bias=True, dtype=np.float64))[0][::-1]},
        agree=_same_leading,
        rounds=1,
    )


def _summed(x: Any) -> Any:
    running = RunningMoments(x.shape[1])
    running.update(x)
    return running.covariance()


def _same_covariance(ours: Any, theirs: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=(1e-3 if theirs.dtype == np.float32 else 1e-8) * np.abs(ours).max())


def _same_values(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10 * theirs[0])


def _same_leading(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours, theirs[: len(ours)], rtol=0, atol=1e-9 * theirs[0])
