"""Validated scores of a run, from the experiment and Python."""

import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from gaussian_test import analysis, sampler
from gaussian_test.analysis.moments.gaussian_score import mixture_of_classes, stack_components
from gaussian_test.analysis.moments.moments import evenly_spaced
from gaussian_test.analysis.uturn.reference import Reference
from gaussian_test.build.conventions import STATES, check_convention
from gaussian_test.build.factories import custom_kernel, custom_process, source_digest
from gaussian_test.build.networks import COMPUTED, GIVEN, Opening, Origin, open_network
from gaussian_test.conformance.kernel import times_asked
from gaussian_test.errors import UserError, user_input
from gaussian_test.experiment import experiment, scores
from gaussian_test.experiment.experiment import Experiment
from gaussian_test.experiment.processes import CustomProcess, DiscreteVP
from gaussian_test.experiment.scores import NAME
from gaussian_test.sampler import kernels
from gaussian_test.store.digest import is_recognisable
from gaussian_test.store.parts import Fits
from gaussian_test.text import printable


@dataclass(frozen=True)
class Built:
    """A score with its facts."""

    score: sampler.Score  # on the device of the run
    origin: Origin  # its origin and level of trust
    kind: str  # as in the experiment, or ``python`` if passed from there
    conditional: bool  # whether it receives the class of the sample


def open_networks(
    settings: Experiment,
    event_shape: tuple[int, ...],
    process: sampler.Process,
    given: Mapping[str, sampler.Score],
    trust: Mapping[str, str],
) -> dict[str, Built]:
    """Open the networks of an experiment but for those given in python.

    Raises UserError with the name of one that cannot be opened.
    """
    opened = {Path(str(file)).resolve() for wanted in settings.scores for file in _files(wanted)}
    for file in trust:
        if Path(file).resolve() not in opened:
            raise UserError(f"{file} is trusted, but no score of the experiment opens it: correct its path or leave --trust out")
    names = [wanted.name or wanted.kind for wanted in settings.scores]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"scores: the name {twice[0]!r} is used twice: give one of them another name")
    networks: dict[str, Built] = {}
    for name, wanted in zip(names, settings.scores, strict=True):
        if name in given or not isinstance(wanted, scores.AnyNetwork):
            continue
        with _named(name):
            trained = getattr(wanted, "trained", None)
            opening = Opening(event_shape, process, trust, partial(make_process, trained) if trained else lambda: None)
            score, origin = open_network(wanted, opening)
            factory = getattr(wanted, "factory", None)
            if factory is not None and not is_recognisable(score) and (code := source_digest(factory)):
                score.digest = code  # type: ignore[assignment] # only its code identifies it
            networks[name] = Built(score, origin, wanted.kind, wanted.conditional or score.conditional)
    return networks


def build_scores(
    settings: Experiment,
    x: xr.DataArray,
    reference: Reference,
    fits: Fits,
    plan: sampler.UTurnPlan,
    device: torch.device,
    given: Mapping[str, sampler.Score],
    networks: Mapping[str, Built],
) -> dict[str, Built]:
    """Build all scores of a run, on its device and in its dtype, from those that are opened and the ground truth.

    Raises UserError with the name of a score that cannot be built or does not fit.
    """
    shape, process = reference.moments.event_shape, plan.process
    dtype = torch.float64 if settings.dtype == "float64" else torch.float32
    ground = Ground(x, reference, fits, process, dtype)
    built: dict[str, Built] = {}
    for wanted in settings.scores:
        name = wanted.name or wanted.kind
        if wanted.conditional and reference.labels is None:
            raise UserError(f"scores: {name!r} is conditional, but the data set has no labels: drop 'conditional' or give labels")
        if name in given:
            built[name] = _given(given[name], wanted.conditional)
        elif name in networks:
            built[name] = networks[name]
        else:
            built[name] = Built(BUILDERS[wanted.kind](wanted, ground), COMPUTED, wanted.kind, wanted.conditional)
    built |= {name: _given(score, False) for name, score in given.items() if name not in built}
    for name, entry in built.items():
        if entry.origin is not COMPUTED:
            try_score(name, entry.score, shape, plan)
            _check_classes(name, entry, reference)
        entry.score.to(device, dtype)
        if entry.origin is not COMPUTED:
            label = min(reference.class_names, default=0) if entry.conditional else None
            probe(name, entry.score, plan, device, dtype, label)
            check_convention(name, entry.score, *_few(ground, device, entry.conditional))
    return built


def _files(settings: scores.ScoreSettings) -> list[str]:
    return [file for name in ("path", "weights") if (file := getattr(settings, name, None)) is not None]


def _given(score: sampler.Score, conditional: bool) -> Built:
    return Built(score, GIVEN, "python", conditional or getattr(score, "conditional", False))


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Add the name of the score to an error."""
    try:
        with user_input():
            yield
    except UserError as error:
        raise UserError(f"score {name!r}: {error}") from error
    except Exception as error:  # user objects may raise anything
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"score {name!r} cannot be wrapped ({type(error).__name__}: {reason}): fix it") from error


def _check_classes(name: str, entry: Built, reference: Reference) -> None:
    """Raise if a network does not know a class of the data, by its name, or has guidance without classes."""
    if isinstance(entry.score, sampler.NetworkScore) and entry.score.guidance != 1 and not entry.conditional:
        raise UserError(f"score {name!r} has guidance {entry.score.guidance:g} and is given no classes: add conditional: true")
    if entry.conditional and isinstance(entry.score, sampler.NetworkScore):
        known = entry.score.classes
        if not reference.class_names:
            raise UserError(f"score {name!r} is conditional, but the data set has no labels: drop 'conditional' or give labels")
        unknown = [number for number in reference.class_names if number >= known]
        if unknown:
            said = reference.class_names[unknown[0]]
            as_number = "" if said == str(unknown[0]) else f", which is number {unknown[0]}"
            raise UserError(
                f"score {name!r} does not know class {said}{as_number}: it has classes 0 to {known - 1}; drop 'conditional' or "
                "give data, or labels, of the classes that it was trained on"
            )


@dataclass(frozen=True)
class Ground:
    """Inputs of a computed score: samples, fits, process and dtype."""

    x: xr.DataArray
    reference: Reference
    fits: Fits
    process: sampler.Process
    dtype: torch.dtype


def _few(ground: Ground, device: torch.device, conditional: bool) -> tuple[torch.Tensor, torch.Tensor | None, float]:
    """Return a few samples, their classes where a score is given these, and the standard deviation of a feature."""
    x, moments = ground.x, ground.reference.moments
    kept = evenly_spaced(len(x), STATES)
    labels = None if ground.reference.labels is None or not conditional else torch.from_numpy(ground.reference.labels[kept])
    spread = math.sqrt(moments.trace / math.prod(moments.event_shape))
    few = torch.from_numpy(np.array(x[kept].values)).to(device, ground.dtype)
    return few, None if labels is None else labels.to(device), spread


def _empirical(_: scores.Empirical, ground: Ground) -> sampler.Score:
    return ground.reference.samples


def _gaussian(settings: scores.Gaussian, ground: Ground) -> sampler.Score:
    if settings.shrinkage is None and not settings.conditional:
        return ground.reference.gaussian
    process, dtype = ground.process, ground.dtype
    if not settings.conditional:
        fitted = ground.fits.moments(ground.x, settings.shrinkage)
        return analysis.GaussianScore.from_moments(fitted, process=process, dtype=dtype)
    classes, moments = zip(*ground.fits.of_classes(ground.x, ground.reference.labels, settings.shrinkage), strict=True)
    components = stack_components(list(moments), dtype)
    return analysis.GaussianScore(components, moments[0].event_shape, process, torch.tensor(classes))


def _mixture(settings: scores.Mixture, ground: Ground) -> sampler.Score:
    if settings.components == "classes":
        if ground.reference.labels is None:
            raise UserError("scores: a mixture of classes needs labels, and the data set has none: give a number of components")
        of_classes = ground.fits.of_classes(ground.x, ground.reference.labels)
        return mixture_of_classes(of_classes, process=ground.process, dtype=ground.dtype)
    if settings.conditional:
        raise UserError("scores: a fitted mixture has no classes to condition on: use components: classes")
    count = settings.components
    fitted = ground.fits.arrays(f"mixture {count}", lambda: _fit_mixture(ground.x, count))
    means, values, vectors = (torch.from_numpy(fitted[name]).to(ground.dtype) for name in ("means", "eigenvalues", "eigenvectors"))
    components = sampler.GaussianComponents(means, values, vectors)
    shape = ground.reference.moments.event_shape
    return sampler.MixtureScore(torch.from_numpy(fitted["weights"]), components, shape, process=ground.process)


# scores computed from the samples, by kind; all others are networks
BUILDERS: dict[str, Callable[[Any, Ground], sampler.Score]] = {"empirical": _empirical, "gaussian": _gaussian, "mixture": _mixture}


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


def make_kernels(
    settings: experiment.Reverse, scores: dict[str, sampler.Score], plan: sampler.UTurnPlan
) -> dict[str, sampler.ReverseKernel]:
    """Return the reverse kernel of every score, after checking that the score supports its levels.

    Raises UserError if a kernel cannot be built, or does not fit its score.
    """
    if settings.factory is not None:
        found = dict.fromkeys(scores, custom_kernel(settings.factory, settings.arguments, plan.process))
    else:
        found = {name: make_kernel(settings, name, score) for name, score in scores.items()}
    for name, kernel in found.items():
        check_levels(name, scores[name], plan, kernel)
    return found


def make_kernel(settings: experiment.Reverse, name: str, score: sampler.Score) -> sampler.ReverseKernel:
    """Return the named reverse kernel for a score; ``auto`` is exact if the score has a posterior, else the SDE."""
    kind = settings.kind
    if kind == "auto":
        kind = "exact" if score.has_posterior else "sde"
    if kind == "exact" and not score.has_posterior:
        raise UserError(f"reverse.kind = 'exact' needs a posterior, which score {name!r} does not have: choose sde, heun, ...")
    return kernels.make_kernel(kind, dict(settings))


def check_levels(name: str, score: sampler.Score, plan: sampler.UTurnPlan, kernel: sampler.ReverseKernel) -> None:
    """Raise if a run would evaluate a network at noise levels outside its training."""
    if isinstance(kernel, sampler.EDMStochastic):
        for t in plan.grid[:-1].tolist():
            if not math.isclose(kernel.risen(plan.process, t), kernel.risen(score.process, t), rel_tol=1e-6):
                raise UserError(
                    f"score {name!r} belongs to {score.process}, the experiment runs {plan.process}, and the churn goes to the "
                    "largest time of either: use the same process"
                )
    if not isinstance(score, sampler.NetworkScore):
        return
    try:
        score.check_levels(levels_asked(plan, kernel))
    except ValueError as error:
        raise UserError(f"score {name!r}: {error}") from error


def levels_asked(plan: sampler.UTurnPlan, kernel: sampler.ReverseKernel) -> torch.Tensor:
    """Return the noise-to-signal ratios at which a run evaluates a score."""
    times = list(plan.levels) if kernel.exact else times_asked(kernel, plan.process, plan.grid.tolist())
    return plan.process.noise_to_signal(torch.tensor(times, dtype=torch.float64))


def kernel_name(settings: experiment.Reverse, kernel: sampler.ReverseKernel) -> str:
    """Return the experiment's name of a kernel, for the archive; a custom kernel has that of its factory."""
    return settings.factory or kernels.kernel_kind(kernel)


def try_score(name: str, score: sampler.Score, event_shape: tuple[int, ...], plan: sampler.UTurnPlan) -> None:
    """Raise if a score from Python does not fit the experiment."""
    if not re.match(NAME, name) or printable(name) != name:
        raise UserError(f"score name {name!r} cannot name a file: leave out slashes, control characters, and dots at the start")
    if not isinstance(score, sampler.Score):
        raise UserError(f"score {name!r} is a {type(score).__name__}: derive it from gaussian_test.sampler.Score")
    if score.event_shape != event_shape:
        raise UserError(f"score {name!r} takes samples of shape {score.event_shape}, the data has {event_shape}: use the same")
    levels = torch.tensor(plan.levels, dtype=torch.float64)
    for schedule in ("alpha", "sigma"):
        theirs, ours = getattr(score.process, schedule)(levels), getattr(plan.process, schedule)(levels)
        if not torch.allclose(theirs, ours, rtol=1e-6):
            raise UserError(f"score {name!r} belongs to {score.process}, the experiment runs {plan.process}: use the same process")


def probe(
    name: str, score: sampler.Score, plan: sampler.UTurnPlan, device: torch.device, dtype: torch.dtype, of_class: int | None
) -> None:
    """Call a custom score once at the outermost levels, before any work starts."""
    label = None if of_class is None else torch.full((2,), of_class, dtype=torch.long, device=device)
    x = torch.zeros(2, *score.event_shape, device=device, dtype=dtype)
    for level in (plan.levels[0], plan.levels[-1]):
        with torch.inference_mode(), evaluating([score]):
            try:
                result = score.denoise(x, torch.tensor([level, level], dtype=torch.float64), label)
            except (ValueError, sampler.NetworkError) as error:  # already one sentence
                raise UserError(f"score {name!r}: {' '.join(str(error).split())}") from error
            except Exception as error:  # user code may raise anything
                reason = " ".join(str(error).split())[:200]
                raise UserError(
                    f"score {name!r} fails on two states of shape {tuple(x.shape)} ({reason}): fix its denoise method"
                ) from error
        if not isinstance(result, torch.Tensor) or result.shape != x.shape:
            given = tuple(result.shape) if isinstance(result, torch.Tensor) else type(result).__name__
            raise UserError(f"score {name!r} returned {given} for states of shape {tuple(x.shape)}: return the same shape")
        if not bool(torch.isfinite(result).all()):
            raise UserError(f"score {name!r} returned NaN or infinite values at time {level:g}: fix the model")


@contextmanager
def evaluating(scores: Iterable[sampler.Score]) -> Iterator[None]:
    """Put modules into evaluation mode (no dropout, no batch statistics), and restore it afterwards."""
    were_training = [score for score in scores if score.training]
    for score in were_training:
        score.eval()
    try:
        yield
    finally:
        for score in were_training:
            score.train()


def make_process(settings: Any, ranges: Mapping[str, tuple[float, float]] | None = None) -> sampler.Process:
    """Return the process of an experiment, whose automatic limits lie within the noise-to-signal ranges of scores.

    Raises UserError if the scores leave nothing.
    """
    if isinstance(settings, CustomProcess):
        return custom_process(settings.factory, settings.arguments)
    if isinstance(settings, DiscreteVP) and settings.scheduler is not None:
        return sampler.DiscreteVP(sampler.alphas_cumprod_of(settings.scheduler))
    values = settings.model_dump(exclude={"kind", "scheduler"})
    asked = {name: value for name, value in values.items() if value != "auto"}
    process: sampler.Process = getattr(sampler, type(settings).__name__)(**asked)
    names = [name for name in values if name in ("sigma_min", "sigma_max", "time_min", "time_max")]
    if not ranges or all(name in asked for name in names):
        return process
    ends = process.noise_to_signal(torch.tensor([process.time_min, process.time_max], dtype=torch.float64)).tolist()
    times = process.time(torch.tensor(noise_limits(ends[0], ends[1], ranges), dtype=torch.float64)).tolist()
    return getattr(sampler, type(settings).__name__)(**(dict(zip(names, times, strict=True)) | asked))  # type: ignore[no-any-return]


def noise_limits(low: float, high: float, ranges: Mapping[str, tuple[float, float]]) -> tuple[float, float]:
    """Return the part of the noise-to-signal ratios from ``low`` to ``high`` that all scores were trained for.

    Raises UserError if they share none.
    """
    within = max([low, *(ends[0] for ends in ranges.values())]), min([high, *(ends[1] for ends in ranges.values())])
    if not within[0] < within[1]:
        known = ", ".join(f"{name} {ends[0]:.4g} to {ends[1]:.4g}" for name, ends in ranges.items())
        raise UserError(
            f"scores: no noise-to-signal ratio from {low:.4g} to {high:.4g} is one that all networks were trained for ({known}): "
            "run them in experiments of their own, or give the process's limits"
        )
    return within


def trained_ranges(built: Mapping[str, sampler.Score]) -> dict[str, tuple[float, float]]:
    """Return the noise-to-signal ranges of the networks that were trained in a process of their own, by name."""
    networks = {name: score for name, score in built.items() if isinstance(score, sampler.NetworkScore)}
    return {name: score.trained_range for name, score in networks.items() if score.trained_range is not None}
