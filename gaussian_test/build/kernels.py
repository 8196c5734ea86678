"""The reverse kernels of a run: made from the settings, and refused where they ask a score for what it does not know."""

from __future__ import annotations

import math

import torch

from gaussian_test import sampler
from gaussian_test.build.factories import own_kernel
from gaussian_test.conformance.kernel import times_asked
from gaussian_test.errors import UserError
from gaussian_test.experiment import experiment


def make_kernels(
    settings: experiment.Reverse, scores: dict[str, sampler.Score], plan: sampler.UTurnPlan
) -> dict[str, sampler.ReverseKernel]:
    """Return the reverse kernel of every score, once it asks none for what it does not know.

    Raises
    ------
    UserError
        If a kernel cannot be had, or does not fit its score.
    """
    if settings.factory is not None:
        one = own_kernel(settings.factory, settings.arguments, plan.process)
        kernels = dict.fromkeys(scores, one)
    else:
        kernels = {name: make_kernel(settings, name, score) for name, score in scores.items()}
    for name, kernel in kernels.items():
        check_levels(name, scores[name], plan, kernel)
    return kernels


def make_kernel(settings: experiment.Reverse, name: str, score: sampler.Score) -> sampler.ReverseKernel:
    """Return the reverse kernel for a score: the one named, or for ``auto`` exact where the score has a posterior, else the SDE."""
    kind = settings.kind
    if kind == "auto":
        kind = "exact" if score.has_posterior else "sde"
    if kind == "exact":
        if not score.has_posterior:
            raise UserError(f"reverse.kind = 'exact' needs a posterior, which score {name!r} does not have: choose sde, heun, ...")
        return sampler.ExactReversal()
    if kind == "sde":
        return sampler.ReverseSDE("euler_maruyama", settings.clock)
    if kind == "exponential_sde":
        return sampler.ReverseSDE("exponential")
    if kind in ("euler", "heun"):
        return sampler.ProbabilityFlow("euler" if kind == "euler" else "heun")
    if kind == "edm":
        churn = (settings.S_churn, settings.S_min, settings.S_max, settings.S_noise)
        return sampler.EDMStochastic(settings.steps, *churn)
    return sampler.Ancestral()


def check_levels(name: str, score: sampler.Score, plan: sampler.UTurnPlan, kernel: sampler.ReverseKernel) -> None:
    """Refuse a run that would ask a network for noise levels that it was not trained for."""
    if isinstance(kernel, sampler.EDMStochastic):
        for t in plan.grid[:-1].tolist():
            if not math.isclose(kernel.risen(plan.process, t), kernel.risen(score.process, t), rel_tol=1e-6):
                raise UserError(
                    f"score {name!r} belongs to {score.process}, the experiment runs {plan.process}, and the churn goes to the "
                    "largest time of either: use the same process"
                )
    if not isinstance(score, sampler.NetworkScore):
        return
    times = list(plan.levels) if kernel.exact else times_asked(kernel, plan.process, plan.grid.tolist())
    try:
        score.check_levels(plan.process.noise_to_signal(torch.tensor(times, dtype=torch.float64)))
    except ValueError as error:
        raise UserError(f"score {name!r}: {error}") from error


def kernel_name(settings: experiment.Reverse, kernel: sampler.ReverseKernel) -> str:
    """Return the experiment's name of a kernel, for the archive: of one of the user's that of its factory."""
    if settings.factory is not None:
        return settings.factory
    if isinstance(kernel, sampler.ReverseSDE):
        return "exponential_sde" if kernel.method == "exponential" else "sde"
    if isinstance(kernel, sampler.ProbabilityFlow):
        return kernel.method
    return {"ExactReversal": "exact", "EDMStochastic": "edm", "Ancestral": "ancestral"}[type(kernel).__name__]
