"""Exact errors of reverse kernels on a data set's Gaussian."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from gaussian_test import analysis
from gaussian_test.analysis.moments.moments import whole_spectrum
from gaussian_test.analysis.theory.samplers import KERNELS
from gaussian_test.build.factories import custom_kernel
from gaussian_test.build.memory import memory_cap
from gaussian_test.build.truth import load_truth
from gaussian_test.build.turns import choose_turns
from gaussian_test.errors import UserError, user_input
from gaussian_test.experiment.experiment import MOST_STEPS, Experiment
from gaussian_test.experiment.processes import shown
from gaussian_test.sampler.defaults import undisturbed
from gaussian_test.store.parts import Fits
from gaussian_test.text import aligned

STEPS = (4, 8, 16, 32, 64, 128, 256)


@undisturbed()
def samplers(
    experiment: Experiment | Mapping[str, Any] | str | os.PathLike[str] | None = None, steps: Sequence[int] = STEPS
) -> xr.Dataset:
    r"""Return the distance of each reverse kernel from the Gaussian of a data set, at each number of steps.

    With the affine score every step is affine, so mean and covariance of the end points are known exactly; so is their
    Wasserstein-2 distance from :math:`\mathcal N(\mu, \Sigma)`.

    Parameters
    ----------
    experiment : Experiment, dict or path of a YAML file, optional
        Its data, process, largest turn time, ``start`` and ``reverse.rho`` are used, and its custom reverse kernel if any.
    steps : sequence of int
        Numbers of reverse steps.

    Returns
    -------
    Dataset
        As returned by :func:`gaussian_test.analysis.sampler_study`.

    Raises
    ------
    UserError
        If the experiment is invalid, or a number of steps is below 1.

    References
    ----------
    Pierret & Galerne, arXiv 2405.14250.

    Examples
    --------
    >>> study = samplers(steps=[8, 16])
    >>> bool((study.wasserstein.sel(kernel="heun") < study.wasserstein.sel(kernel="euler")).all())
    True
    """
    settings = Experiment.load(experiment)
    if not len(steps) or min(steps) < 1 or max(steps) > MOST_STEPS:
        said = shown(list(steps)).strip("[]") or "none"
        raise UserError(f"steps = {said} are no numbers of steps: give whole numbers from 1 to {MOST_STEPS}")
    with user_input():
        truth = load_truth(settings.data, memory_cap(settings))
        moments = analysis.fit_moments(truth["x"])
        turns = choose_turns(settings, moments, truth["x"], Fits(""))
        process, turn = turns.process, max(turns.levels)
        own, kernels = settings.reverse.factory, dict(KERNELS)
        if own is not None:
            kernels[own] = custom_kernel(own, settings.reverse.arguments, process)
    values, mean = whole_spectrum(moments)
    return analysis.sampler_study(
        values, process, turn, kernels, sorted(set(steps)), rho=settings.reverse.rho, start=settings.start, mean=mean
    ).assign_attrs(data_source=str(truth.attrs.get("source", "")))


def samplers_text(study: xr.Dataset) -> str:
    """Return a study of samplers as text."""
    lines = [
        f"Samplers on the Gaussian of {study.attrs['data_source']}, from noise-to-signal {float(study['noise_to_signal']):.4g} "
        f"({study.attrs['start']} start)",
        "",
    ]
    for name, title in (
        ("wasserstein_relative", "Wasserstein-2 distance of the end points, in units of the root of the total variance"),
        ("autocorrelation_error", "Error of the auto-correlation"),
        ("evaluations", "Evaluations of the score per sample"),
    ):
        rows = [["steps", *(str(kernel) for kernel in study["kernel"].values)]]
        for count in study["steps"].values:
            values = study[name].sel(steps=count).values
            rows.append([str(count), *("-" if np.isnan(value) else f"{value:.3g}" for value in values)])
        lines += [title, *aligned(rows), ""]
    return "\n".join(lines[:-1])
