"""From an experiment to what will run: samples, moments, scores, kernels and the plan, all checked before any work starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from gaussian_test import analysis, data, experiment, sampler
from gaussian_test.errors import UserError, user_input
from gaussian_test.from_python import check_score, checked_truth, probe

IN_MEMORY = 2**30  # bytes up to which samples are read once and kept, rather than read again by each pass over them


@dataclass(frozen=True)
class Prepared:
    """What a run needs, on its device.

    Attributes
    ----------
    settings : Experiment
        The experiment.
    truth : Dataset
        Ground-truth samples and labels.
    device : torch.device
        Where states live.
    plan : UTurnPlan
        Turn times, grid, repeats, seed.
    scores, kernels : dict
        By name.
    conditional : frozenset of str
        Scores that are given the class of the sample.
    reference : Reference
        Ground-truth set, moments and Gaussian score.
    samples : ndarray
        Indices of the samples to start from, ascending.
    noise_to_signal : ndarray
        Of the turn times.
    """

    settings: experiment.Experiment
    truth: xr.Dataset
    device: torch.device
    plan: sampler.UTurnPlan
    scores: dict[str, sampler.Score]
    kernels: dict[str, sampler.ReverseKernel]
    conditional: frozenset[str]
    reference: analysis.Reference
    samples: NDArray[np.int64]
    noise_to_signal: NDArray[np.float64]

    @property
    def dtype(self) -> torch.dtype:
        """Type of the states."""
        return torch.float64 if self.settings.dtype == "float64" else torch.float32

    def starts(self, samples: tuple[int, ...]) -> torch.Tensor:
        """Return ground-truth samples by index, on the device, shape (n, ``*event``)."""
        return torch.from_numpy(np.array(self.truth["x"][list(samples)].values)).to(self.device, self.dtype)

    def labels(self, samples: tuple[int, ...]) -> dict[str, torch.Tensor]:
        """Return the classes of samples for the scores that condition on them."""
        if not self.conditional or self.reference.labels is None:
            return {}
        label = torch.from_numpy(self.reference.labels[list(samples)]).to(self.device)
        return dict.fromkeys(self.conditional, label)


def prepare(
    settings: experiment.Experiment,
    device: str = "auto",
    truth: xr.Dataset | None = None,
    scores: Mapping[str, sampler.Score] | None = None,
) -> Prepared:
    """Build everything that an experiment names.

    Parameters
    ----------
    settings : Experiment
        The experiment.
    device : str
        ``auto``, ``cpu`` or ``cuda[:i]``.
    truth : Dataset, optional
        Ground-truth samples from python instead of ``settings.data``.
    scores : mapping of str to Score, optional
        Scores from python, beside those that ``settings`` names; a name used twice means the one from python.

    Returns
    -------
    Prepared

    Raises
    ------
    UserError
        If anything in the experiment cannot be done.

    Examples
    --------
    >>> prepare(experiment.Experiment(samples=4)).samples.shape
    (4,)
    """
    place = pick_device(device)
    with user_input():
        process = make_process(settings.process)
        levels = turn_levels(process, settings.turn_times)
        plan = sampler.UTurnPlan(
            process,
            levels,
            steps=settings.reverse.steps,
            repeats=settings.repeats,
            seed=settings.seed,
            shard_size=settings.shard_size,
            micro_batch=settings.micro_batch,
            rho=settings.reverse.rho,
        )
        truth = load_truth(settings.data) if truth is None else checked_truth(truth)
        if truth["x"].nbytes <= IN_MEMORY:
            truth = truth.assign(x=truth["x"].load())
        samples = draw_samples(settings, truth.sizes["sample"])
        dtype = torch.float64 if settings.dtype == "float64" else torch.float32
        labels = np.asarray(truth["label"].values, dtype=np.int64) if "label" in truth else None
        moments = analysis.fit_moments(truth["x"])
        ground_truth = sampler.EmpiricalScore.fit(truth["x"], labels, process, dtype)
        reference = analysis.Reference(
            ground_truth.to(place),
            moments,
            analysis.GaussianScore.from_moments(moments, process=process, dtype=dtype).to(place),
            labels,
        )
        built: dict[str, sampler.Score] = {}
        conditional = set()
        for score_settings in settings.scores:
            name = score_settings.name or score_settings.kind
            if name in built:
                raise UserError(f"scores: the name {name!r} is used twice: give one of them another name")
            if score_settings.conditional:
                conditional.add(name)
                if labels is None:
                    raise UserError(
                        f"scores: {name!r} is conditional, but the data set has no labels: drop 'conditional' or give labels"
                    )
            built[name] = make_score(score_settings, truth["x"], reference, process, dtype).to(place)
        for name, score in (scores or {}).items():
            check_score(name, score, moments.event_shape, plan)
            built[name] = score.to(place, dtype)
            probe(name, built[name], plan, place, dtype)
        kernels = {name: make_kernel(settings.reverse, name, score) for name, score in built.items()}
    nu = process.noise_to_signal(torch.tensor(plan.levels, dtype=torch.float64)).numpy()
    return Prepared(settings, truth, place, plan, built, kernels, frozenset(conditional), reference, samples, nu)


def pick_device(device: str) -> torch.device:
    """Return the device asked for, or for ``auto`` the GPU where there is one.

    Examples
    --------
    >>> pick_device("cpu")
    device(type='cpu')
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda") or (index and not (kind == "cuda" and index.isdecimal())):
        raise UserError(f"device {device!r} is not known: choose auto, cpu, cuda or cuda:0, cuda:1, ...")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(index or 0) >= count:
            raise UserError(f"device {device!r} is not there: this machine has {count} CUDA devices; use --device auto or cpu")
    return torch.device(device)


def load_truth(settings: experiment.Data) -> xr.Dataset:
    """Load the ground truth that an experiment names.

    Examples
    --------
    >>> load_truth(experiment.Data()).sizes["sample"]
    1797
    """
    options: dict[str, Any] = settings.model_dump(exclude={"source", "path"}, exclude_none=True)
    if settings.path is None:
        return data.load(settings.source, **options)
    return data.load(settings.path, source=settings.source, **options)


def make_process(settings: Any) -> sampler.Process:
    """Return the process of an experiment.

    Examples
    --------
    >>> make_process(experiment.VarianceExploding(sigma_max=10))
    VarianceExploding(time_min=0.002, time_max=10)
    """
    kinds = {
        "variance_exploding": sampler.VarianceExploding,
        "ornstein_uhlenbeck": sampler.OrnsteinUhlenbeck,
        "variance_preserving": sampler.VariancePreserving,
        "cosine": sampler.Cosine,
        "rectified": sampler.Rectified,
        "discrete_vp": sampler.DiscreteVP,
    }
    process: sampler.Process = kinds[settings.kind](**settings.model_dump(exclude={"kind"}))
    return process


def turn_levels(process: sampler.Process, settings: experiment.TurnTimes) -> list[float]:
    """Return the turn times used, in the process's time, for those that were asked for.

    Examples
    --------
    >>> turn_levels(sampler.Cosine(), experiment.TurnTimes(noise_to_signal=(1.0,)))
    [0.5]
    """
    asked = settings.noise_to_signal or settings.time
    if isinstance(asked, experiment.Spacing):
        asked = tuple(sampler.log_levels(asked.min, asked.max, asked.count).tolist())
    used = process.turn_time_from_noise_to_signal if settings.noise_to_signal else process.turn_time
    return [used(value) for value in asked or ()]


def draw_samples(settings: experiment.Experiment, count: int) -> NDArray[np.int64]:
    """Return the indices of the samples to start from: all, or some drawn with the seed, without replacement.

    Examples
    --------
    >>> draw_samples(experiment.Experiment(samples="all"), 3).tolist()
    [0, 1, 2]
    """
    if settings.samples == "all":
        return np.arange(count, dtype=np.int64)
    if settings.samples > count:
        raise UserError(
            f"samples = {settings.samples} is more than the {count} ground-truth samples: give a smaller number or 'all'"
        )
    return np.sort(np.random.default_rng(settings.seed).choice(count, settings.samples, replace=False)).astype(np.int64)


def make_score(
    settings: Any, x: xr.DataArray, reference: analysis.Reference, process: sampler.Process, dtype: torch.dtype
) -> sampler.Score:
    """Return a score of an experiment, made from the ground truth."""
    if isinstance(settings, experiment.Empirical):
        return reference.samples
    labels = reference.labels
    if isinstance(settings, experiment.Gaussian):
        if settings.shrinkage is None and not settings.conditional:
            return reference.gaussian
        return analysis.GaussianScore.fit(x, labels if settings.conditional else None, process, settings.shrinkage, dtype)
    shape = reference.moments.event_shape
    if settings.components == "classes":
        if labels is None:
            raise UserError("scores: a mixture of classes needs labels, and the data set has none: give a number of components")
        moments = analysis.class_moments(x, labels)
        weights = torch.tensor([m.count for _, m in moments], dtype=torch.float64)
        components = analysis.stack_components([m for _, m in moments], dtype)
        return sampler.MixtureScore(weights, components, shape, torch.tensor([label for label, _ in moments]), process)
    if settings.conditional:
        raise UserError("scores: a fitted mixture has no classes to condition on: use components: classes")
    from sklearn.mixture import GaussianMixture

    flat = np.asarray(x.values, dtype=np.float64).reshape(len(x), -1)
    fitted = GaussianMixture(settings.components, random_state=0).fit(flat)
    return sampler.MixtureScore.from_sklearn(fitted, shape, process, dtype)


def make_kernel(settings: experiment.Reverse, name: str, score: sampler.Score) -> sampler.ReverseKernel:
    """Return the reverse kernel for a score: the one named, or for ``auto`` exact where the score has a posterior, else the SDE.

    Examples
    --------
    >>> make_kernel(experiment.Reverse(kind="heun"), "any", analysis.GaussianScore.from_moments([0.0], [[1.0]]))
    ProbabilityFlow(method='heun')
    """
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


def kernel_name(kernel: sampler.ReverseKernel) -> str:
    """Return the experiment's name of a kernel, for the archive.

    Examples
    --------
    >>> kernel_name(sampler.ProbabilityFlow("euler"))
    'euler'
    """
    if isinstance(kernel, sampler.ReverseSDE):
        return "exponential_sde" if kernel.method == "exponential" else "sde"
    if isinstance(kernel, sampler.ProbabilityFlow):
        return kernel.method
    return {"ExactReversal": "exact", "EDMStochastic": "edm", "Ancestral": "ancestral"}[type(kernel).__name__]


def continuous_flow(kernel: sampler.ReverseKernel) -> Literal["sde", "ode"] | None:
    """Return which continuous-time law a kernel converges to: ``sde``, ``ode``, or None (churn is neither).

    Examples
    --------
    >>> continuous_flow(sampler.Ancestral())
    'sde'
    """
    if isinstance(kernel, sampler.ProbabilityFlow):
        return "ode"
    if isinstance(kernel, sampler.EDMStochastic):
        return "ode" if kernel.S_churn == 0 else None
    return "sde"


def is_affine(score: sampler.Score) -> bool:
    """Return whether a score is the unconditional affine one, for which closed forms exist.

    Examples
    --------
    >>> is_affine(analysis.GaussianScore.from_moments([0.0], [[1.0]]))
    True
    """
    return isinstance(score, analysis.GaussianScore) and score.labels is None
