"""The scores of a run: those that the experiment names and those from python, built and checked before any work starts."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from gaussian_test import analysis, sampler
from gaussian_test.build.factories import source_digest
from gaussian_test.build.from_python import check_score, probe
from gaussian_test.build.networks import COMPUTED, GIVEN, Origin, open_network
from gaussian_test.errors import UserError, user_input
from gaussian_test.experiment import scores
from gaussian_test.experiment.experiment import Experiment
from gaussian_test.store.digest import is_recognisable
from gaussian_test.store.fits import Fits


@dataclass(frozen=True)
class Built:
    """A score and what is known about it.

    Attributes
    ----------
    score : Score
        On the device of the run.
    origin : Origin
        What had to be trusted to have it.
    kind : str
        As in the experiment, or ``python`` for one that was handed in.
    conditional : bool
        Whether it is given the class of the sample.
    """

    score: sampler.Score
    origin: Origin
    kind: str
    conditional: bool


def build_scores(
    settings: Experiment,
    x: xr.DataArray,
    reference: analysis.Reference,
    fits: Fits,
    plan: sampler.UTurnPlan,
    device: torch.device,
    given: Mapping[str, sampler.Score],
    trust: Mapping[str, str],
) -> dict[str, Built]:
    """Build all scores of a run, on its device and in its type.

    Raises
    ------
    UserError
        If one cannot be had or does not fit, by its name.
    """
    shape, process = reference.moments.event_shape, plan.process
    opened = {Path(str(file)).resolve() for wanted in settings.scores for file in _files(wanted)}
    for file in trust:
        if Path(file).resolve() not in opened:
            raise UserError(f"{file} is trusted, but no score of the experiment opens it: correct its path or leave --trust out")
    dtype = torch.float64 if settings.dtype == "float64" else torch.float32
    built: dict[str, Built] = {}
    for wanted in settings.scores:
        name = wanted.name or wanted.kind
        if name in built:
            raise UserError(f"scores: the name {name!r} is used twice: give one of them another name")
        if wanted.conditional and reference.labels is None:
            raise UserError(f"scores: {name!r} is conditional, but the data set has no labels: drop 'conditional' or give labels")
        if name in given:
            built[name] = _given(given[name], wanted.conditional)
        elif isinstance(wanted, scores.AnyNetwork):
            with _named(name):
                score, origin = open_network(wanted, shape, process, trust)
                factory = getattr(wanted, "factory", None)
                if factory is not None and not is_recognisable(score) and (code := source_digest(factory)):
                    score.digest = code  # type: ignore[assignment] # nothing but its code tells it from another
                built[name] = Built(score, origin, wanted.kind, wanted.conditional or score.conditional)
        else:
            score = make_score(wanted, x, reference, fits, process, dtype)
            built[name] = Built(score, COMPUTED, wanted.kind, wanted.conditional)
    built |= {name: _given(score, False) for name, score in given.items() if name not in built}
    for name, entry in built.items():
        if entry.origin is not COMPUTED:
            check_score(name, entry.score, shape, plan)
            _check_classes(name, entry, reference)
        entry.score.to(device, dtype)
        if entry.origin is not COMPUTED:
            probe(name, entry.score, plan, device, dtype, entry.conditional)
    return built


def _files(settings: scores.ScoreSettings) -> list[str]:
    return [file for name in ("path", "weights") if (file := getattr(settings, name, None)) is not None]


def _given(score: sampler.Score, conditional: bool) -> Built:
    return Built(score, GIVEN, "python", conditional or getattr(score, "conditional", False))


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Say which score a refusal is about."""
    try:
        with user_input():
            yield
    except UserError as error:
        raise UserError(f"score {name!r}: {error}") from error
    except Exception as error:  # objects of the user's are looked at: anything can happen in them
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"score {name!r} cannot be wrapped ({type(error).__name__}: {reason}): mend it") from error


def _check_classes(name: str, entry: Built, reference: analysis.Reference) -> None:
    """Refuse a network that does not know as many classes as the data has, or whose guidance has no classes to go by."""
    if isinstance(entry.score, sampler.NetworkScore) and entry.score.guidance != 1 and not entry.conditional:
        raise UserError(f"score {name!r} has guidance {entry.score.guidance:g} and is given no classes: add conditional: true")
    if entry.conditional and isinstance(entry.score, sampler.NetworkScore):
        needed = 1 + int(reference.labels.max()) if reference.labels is not None else 0
        if not 0 < needed <= entry.score.classes:
            raise UserError(
                f"score {name!r} knows {entry.score.classes} classes, the data has {needed}: drop 'conditional' or give data of "
                "the classes that it was trained on"
            )


def make_score(
    settings: Any, x: xr.DataArray, reference: analysis.Reference, fits: Fits, process: sampler.Process, dtype: torch.dtype
) -> sampler.Score:
    """Return a score of an experiment, made from the ground truth."""
    if isinstance(settings, scores.Empirical):
        return reference.samples
    labels = reference.labels
    if isinstance(settings, scores.Gaussian):
        if settings.shrinkage is None and not settings.conditional:
            return reference.gaussian
        if not settings.conditional:
            return analysis.GaussianScore.from_moments(fits.moments(x, settings.shrinkage), process=process, dtype=dtype)
        classes, moments = zip(*fits.of_classes(x, labels, settings.shrinkage), strict=True)
        components = analysis.stack_components(list(moments), dtype)
        return analysis.GaussianScore(components, moments[0].event_shape, process, torch.tensor(classes))
    if settings.components == "classes":
        if labels is None:
            raise UserError("scores: a mixture of classes needs labels, and the data set has none: give a number of components")
        return analysis.mixture_of_classes(fits.of_classes(x, labels), process, dtype)
    if settings.conditional:
        raise UserError("scores: a fitted mixture has no classes to condition on: use components: classes")
    fitted = fits.arrays(f"mixture {settings.components}", lambda: _fit_mixture(x, settings.components))
    shape = reference.moments.event_shape
    means, values, vectors = (torch.from_numpy(fitted[name]).to(dtype) for name in ("means", "eigenvalues", "eigenvectors"))
    components = sampler.GaussianComponents(means, values, vectors)
    return sampler.MixtureScore(torch.from_numpy(fitted["weights"]), components, shape, process=process)


def _fit_mixture(x: xr.DataArray, components: int) -> dict[str, NDArray[np.float64]]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            fitted = GaussianMixture(components, random_state=0).fit(np.asarray(x.values, dtype=np.float64).reshape(len(x), -1))
        except ConvergenceWarning as error:
            raise UserError(
                f"scores: a mixture of {components} components cannot be fitted ({' '.join(str(error).split())[:160]}): give fewer"
            ) from None
    values, vectors = sampler.eigen_factors(torch.from_numpy(fitted.covariances_))
    factors = {"eigenvalues": values.numpy(), "eigenvectors": vectors.numpy()}
    return {"weights": fitted.weights_, "means": fitted.means_} | factors
