"""The affine Gaussian score: simulated U-Turns, closed forms, and the estimator that needs one evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.linalg
import torch
from azula.denoise import GaussianDenoiser
from azula.linalg.covariance import FullCovariance
from azula.noise import VESchedule
from azula.sample import DDPMSampler
from measure import Case
from problem import Problem

from gaussian_test.analysis import Moments, autocorrelation_discrete, autocorrelation_exact
from gaussian_test.analysis.moments.gaussian_score import GaussianScore
from gaussian_test.analysis.theory.affine_ends import affine_uturns
from gaussian_test.sampler import Ancestral, UTurnPlan, VarianceExploding

TURN, POINTS = 20.0, 24
SAMPLES = 256


def cases(problem: Problem) -> Iterator[Case]:
    """Yield the comparisons."""
    features, process = problem.features, VarianceExploding()
    values = 400.0 * np.arange(1.0, features + 1) ** -1.5
    vectors = torch.linalg.qr(torch.randn(features, features, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    moments = Moments(10**5, np.zeros(problem.event), values, vectors.numpy())
    score = GaussianScore.from_moments(moments).to(problem.device)
    x0 = torch.from_numpy(_starts(moments, SAMPLES)).to(problem.device)
    schedule = VESchedule(sigma_min=0.002, sigma_max=TURN)
    basis = vectors.float().reshape(*problem.event, features).to(problem.device)
    full = FullCovariance(basis, torch.from_numpy(values).float().to(problem.device))
    denoiser = GaussianDenoiser(torch.zeros(problem.event, device=problem.device), full, schedule)

    def ours(shared_noise: bool) -> torch.Tensor:
        plan = UTurnPlan(process, [TURN], steps=problem.steps, shared_noise=shared_noise, micro_batch=SAMPLES)
        states = plan.run(x0, range(SAMPLES), {"g": score}, {"g": Ancestral()})
        (end,) = [state.x[0] for state in states if state.phase == "end"]
        return torch.stack([x0.flatten(1), end.flatten(1)])

    def azula() -> torch.Tensor:
        torch.manual_seed(0)
        sampler = DDPMSampler(denoiser, steps=problem.steps, silent=True)
        end = sampler(x0 + TURN * torch.randn_like(x0))
        return torch.stack([x0.flatten(1), end.flatten(1)])

    def dense() -> torch.Tensor:
        covariance = (vectors * torch.from_numpy(values)) @ vectors.T
        system = (covariance + torch.eye(features, dtype=torch.float64)).float().to(problem.device)
        return torch.linalg.solve(system, covariance.float().to(problem.device) @ x0.flatten(1).T)

    def composed() -> torch.Tensor:
        plan = UTurnPlan(process, [TURN], steps=problem.steps)
        return torch.stack([x0.flatten(1), affine_uturns(moments, x0, range(SAMPLES), plan, Ancestral())[0].flatten(1)])

    size = f"{SAMPLES} samples, {problem.steps} steps"
    yield Case(
        "Gaussian U-Turns, steps composed (affine_uturns)",
        size,
        composed,
        {"azula, GaussianDenoiser with FullCovariance": azula},
        agree=_same_law if problem.steps > 100 else None,
        rounds=1,
    )
    yield Case(
        "Gaussian U-Turns, step by step, noise along the modes",
        size,
        lambda: ours(False),
        {"azula, GaussianDenoiser with FullCovariance": azula},
        {"drawing the normal variables": lambda: _normals(problem)},
        _same_law if problem.steps > 100 else None,  # of few steps each sampler makes its own error
        1,
        {"drawing the normal variables": problem.steps},
    )
    yield Case(
        "Gaussian U-Turns, step by step, noise shared with other scores",
        size,
        lambda: ours(True),
        {"azula, GaussianDenoiser with FullCovariance": azula, "torch.linalg.solve in every step": dense},
        rounds=1,
        factor={"torch.linalg.solve in every step": problem.steps},
    )
    nu = np.geomspace(0.1, 20, POINTS)
    yield Case(
        "closed-form curve from the spectrum",
        f"{POINTS} turn times, {features} modes",
        lambda: autocorrelation_exact(values, nu),
        {"scipy.linalg.solve at every turn time": lambda: _by_solving(vectors.numpy(), values, nu[0])},
        agree=_same_curve,
        rounds=1,
        factor={"scipy.linalg.solve at every turn time": POINTS},
    )
    plan = UTurnPlan(process, nu.tolist(), steps=problem.steps)
    yield Case(
        "closed form through the very steps",
        f"{POINTS} turn times, {problem.steps} steps, {features} modes",
        lambda: autocorrelation_discrete(values, process, Ancestral(), plan.grid, plan.levels),
        rounds=1,
    )


def _starts(moments: Moments, count: int) -> Any:
    normal = np.random.default_rng(0).normal(size=(count, len(moments.eigenvalues)))
    x = (normal * np.sqrt(moments.eigenvalues)) @ moments.eigenvectors.T
    return x.reshape(count, *moments.event_shape).astype(np.float32)


def _normals(problem: Problem) -> Any:
    return np.random.Generator(np.random.SFC64(0)).standard_normal((SAMPLES, problem.features), dtype=np.float32)


def _by_solving(vectors: Any, values: Any, nu: float) -> float:
    """Return the curve at one turn time."""
    covariance = (vectors * values) @ vectors.T
    gain = scipy.linalg.solve(covariance + nu**2 * np.eye(len(values)), covariance, assume_a="pos")
    return float(np.vdot(covariance, gain.T) / values.sum())


def _same_curve(ours: Any, theirs: float) -> None:
    np.testing.assert_allclose(ours[0], theirs, rtol=1e-8)


def _same_law(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """End points of two samplers: products with their starts, and squares, have the same means within 5 standard errors."""
    for one, other in ((pair[0] * pair[1]).sum(1) for pair in (ours, theirs)), (pair[1].square().sum(1) for pair in (ours, theirs)):
        error = float((one.var() / len(one) + other.var() / len(other)).sqrt())
        assert abs(float(one.mean() - other.mean())) < 5 * error, (float(one.mean()), float(other.mean()), error)
