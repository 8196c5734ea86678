"""From an experiment to what will run: samples, moments, scores, kernels and the plan, all checked before any work starts."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from gaussian_test import analysis, data, sampler
from gaussian_test.analysis.moments.gaussian_score import mixture_of_classes
from gaussian_test.analysis.moments.moments import evenly_spaced
from gaussian_test.analysis.observables import registry
from gaussian_test.analysis.observables.record import Observable
from gaussian_test.analysis.uturn.reference import Reference
from gaussian_test.build.features import (
    BuiltObservable,
    Classified,
    Extractor,
    Measure,
    build_classifier,
    build_custom_observables,
    build_features,
)
from gaussian_test.build.memory import check_memory, check_streamed, fits_in_memory, memory_cap
from gaussian_test.build.scores import Built, build_scores, checked_truth, make_kernels, make_process
from gaussian_test.errors import UserError, user_input
from gaussian_test.experiment import experiment
from gaussian_test.store import archive
from gaussian_test.store.digest import data_digest, is_recognisable, kernel_digest, schedule_digest, score_digest
from gaussian_test.store.parts import Fits

FROM_PYTHON = "python"  # the source that an archive names for samples that were handed in
START_STREAM, CLASS_STREAM = 1, 2  # of the keyed noise: stream 0 is the trajectories'
NOT_OF_A_RESULT = ("data", "memory")  # the data are known by their digest; how much memory they may take changes nothing
FILES = ("path", "weights", "scheduler")
NOT_OF_A_SHARD = ("statistics", "keep", "features")


@dataclass(frozen=True)
class Prepared:
    """What a run needs, on its device."""

    settings: experiment.Experiment  # the experiment
    truth: xr.Dataset  # ground-truth samples and labels
    device: torch.device  # where states live
    plan: sampler.UTurnPlan  # turn times, grid, repeats, seed
    built: dict[str, Built]  # scores by name, and what is known about them
    kernels: dict[str, sampler.ReverseKernel]  # by the same names
    reference: Reference  # ground-truth set, moments and Gaussian score
    samples: NDArray[np.int64]  # indices of the samples to start from, ascending
    noise_to_signal: NDArray[np.float64]  # of the turn times
    features: Extractor  # on what end points and ground truth are compared
    classified: Classified  # the classifier of end points
    custom_observables: tuple[BuiltObservable, ...]  # observables of the user's
    fits: Fits  # what has been fitted to the ground truth
    data_digest: str  # by which the ground truth is known again

    @property
    def scores(self) -> dict[str, sampler.Score]:
        """Scores by name."""
        return {name: entry.score for name, entry in self.built.items()}

    @property
    def observables(self) -> tuple[Observable, ...]:
        """What is measured, in this order: what always is, what is the user's, what the experiment names."""
        named = (registry.OBSERVABLES[name] for name in self.settings.observed)
        return (*registry.ALWAYS, *(one.record for one in self.custom_observables), *named)

    @property
    def shards(self) -> list[tuple[int, ...]]:
        """Samples of each shard."""
        return self.plan.shards(self.samples.tolist())

    @property
    def dtype(self) -> torch.dtype:
        """Type of the states."""
        return torch.float64 if self.settings.dtype == "float64" else torch.float32

    @property
    def together(self) -> NDArray[np.int64]:
        """Samples, evenly picked, that observables look at together: memory and pairs of samples have their limits."""
        return self.samples[evenly_spaced(len(self.samples), self.settings.end_points)]

    @property
    def kept(self) -> NDArray[np.int64]:
        """Samples whose states are kept until all shards are done: none where nothing asks for them."""
        return self.together if _keeps(self.settings) else self.samples[:0]

    def starts(self, samples: tuple[int, ...], start: str | None = None) -> torch.Tensor:
        r"""Return what the forward process noises, by index, on the device, shape (n, ``*event``).

        ``start`` is that of the experiment unless another one is named.

        Ground-truth samples; or draws from :math:`\mathcal N(\mu, \Sigma)`, which noised are those of
        :math:`\mathcal N(\alpha_T\mu, \alpha_T^2\Sigma + \sigma_T^2)` at every turn time; or 0, which noised is noise alone.
        """
        start = start or self.settings.start
        if start == "noised_data":
            return torch.from_numpy(np.array(self.truth["x"][list(samples)].values)).to(self.device, self.dtype)
        shape = self.reference.moments.event_shape
        if start == "isotropic":
            return torch.zeros(len(samples), *shape, device=self.device, dtype=self.dtype)
        noise = sampler.KeyedNoise(self.plan.seed, samples, 1, shape, self.device, self.dtype, stream=START_STREAM).draw()
        return self.reference.gaussian.components.prior(0, noise.normal.flatten(1)).reshape(len(samples), *shape)

    def labels(self, samples: tuple[int, ...]) -> dict[str, torch.Tensor]:
        """Return the classes of samples for the scores that condition on them."""
        conditional = [name for name, entry in self.built.items() if entry.conditional]
        return dict.fromkeys(conditional, torch.from_numpy(self.classes(samples)).to(self.device)) if conditional else {}

    def classes(self, samples: tuple[int, ...]) -> NDArray[np.int64]:
        """Return the class of each start: the sample's own, or that of a sample drawn with the number of the start."""
        known = self.reference.labels
        if known is None:
            raise ValueError("the data set has no labels: drop 'conditional' or give labels")
        if self.settings.start == "noised_data":
            return known[list(samples)]
        uniform = sampler.KeyedNoise(self.plan.seed, samples, 1, (1,), stream=CLASS_STREAM).draw().uniform
        drawn: NDArray[np.int64] = known[(uniform * len(known)).long().numpy()]
        return drawn


def _keeps(settings: experiment.Experiment) -> bool:
    """Return whether states are to be kept until all shards are done."""
    return settings.keep.end_points or settings.needs("end points")


@dataclass(frozen=True)
class Given:
    """What a user hands in from python, beside the experiment; as the arguments of :func:`gaussian_test.run`."""

    truth: xr.Dataset | None = None
    scores: Mapping[str, sampler.Score] = field(default_factory=dict)
    classifier: Any = None
    features: Callable[[torch.Tensor], Any] | None = None
    custom_observables: Mapping[str, Measure] = field(default_factory=dict)
    trust: Mapping[str, str] = field(default_factory=dict)

    @property
    def objects(self) -> list[str]:
        """Names of the objects handed in, which no worker can be sent."""
        there = (
            self.truth is not None,
            self.scores,
            self.classifier is not None,
            self.features is not None,
            self.custom_observables,
        )
        return [known.name for known, is_there in zip(fields(self), there, strict=False) if is_there]


def prepare(
    settings: experiment.Experiment,
    device: str = "auto",
    given: Given | None = None,
    folder: Path | None = None,
    shards_only: bool = False,
) -> Prepared:
    """Build everything that an experiment names; ``folder`` may hold what was fitted before, ``shards_only`` needs no statistics.

    Raises UserError if anything in the experiment cannot be done.
    """
    given = given or Given()
    truth = given.truth
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
            grid_of=settings.reverse.grid,
        )
        if truth is None:
            truth = load_truth(settings.data)
        else:
            truth = checked_truth(truth)
            settings = settings.model_copy(update={"data": experiment.Data(source=FROM_PYTHON)})
        cap = memory_cap(settings)
        load, resident = fits_in_memory(truth, 8 if settings.dtype == "float64" else 4, cap)
        if load:
            truth = truth.assign(x=truth["x"].load())
        if not resident:
            check_streamed(settings, given.classifier is not None, cap)
        samples = draw_samples(settings, truth.sizes["sample"])
        if settings.memory is not None or not resident:
            kept = min(len(samples), settings.end_points) if _keeps(settings) and not shards_only else 0
            check_memory(settings, truth, len(plan.levels), kept, cap, shards_only)
        dtype = torch.float64 if settings.dtype == "float64" else torch.float32
        labels = np.asarray(truth["label"].values, dtype=np.int64) if "label" in truth else None
        digest = data_digest(truth)
        fitted = Fits(digest, folder)
        moments = fitted.moments(truth["x"])
        ground_truth = sampler.EmpiricalScore.fit(truth["x"], labels, process, dtype, resident)
        reference = Reference(
            ground_truth.to(place),
            moments,
            analysis.GaussianScore.from_moments(moments, process=process, dtype=dtype).to(place),
            labels,
        )
        extractor = build_features(settings.features, given.features, moments, place, truth["x"][:2].values)
        classified = build_classifier(settings.classifier, given.classifier, reference, truth["x"], settings.seed, not shards_only)
        reference = replace(
            reference,
            classify=classified.classify,
            scores=_references(reference, truth["x"], fitted, process, dtype, place) if settings.needs("references") else {},
        )
        built = build_scores(settings, truth["x"], reference, fitted, plan, place, given.scores, given.trust)
        kernels = make_kernels(settings.reverse, {name: entry.score for name, entry in built.items()}, plan)
        own = build_custom_observables(settings.custom_observables, given.custom_observables, place, truth["x"][:2].values)
    nu = process.noise_to_signal(torch.tensor(plan.levels, dtype=torch.float64)).numpy()
    return Prepared(
        settings, truth, place, plan, built, kernels, reference, samples, nu, extractor, classified, own, fitted, digest
    )


def _references(
    reference: Reference, x: xr.DataArray, fits: Fits, process: sampler.Process, dtype: torch.dtype, device: torch.device
) -> dict[str, sampler.Score]:
    """Return the scores by which others are explained; a mixture where there are classes of at least two samples each."""
    scores: dict[str, sampler.Score] = {
        "isotropic": analysis.isotropic_score(reference.moments, process=process, dtype=dtype).to(device)
    }
    scores["gaussian"] = reference.gaussian
    counts = np.unique(reference.labels, return_counts=True)[1] if reference.labels is not None else np.zeros(1)
    if len(counts) > 1 and counts.min() > 1:
        with suppress(ValueError):  # a class whose samples are all the same has no Gaussian
            scores["mixture"] = mixture_of_classes(fits.of_classes(x, reference.labels), process=process, dtype=dtype).to(device)
    return scores | {"empirical": reference.samples}


def pick_device(device: str) -> torch.device:
    """Return the device asked for, or for ``auto`` the GPU where there is one."""
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
    """Load the ground truth that an experiment names."""
    options: dict[str, Any] = settings.model_dump(exclude={"source", "path"}, exclude_none=True)
    if settings.path is None and settings.source == FROM_PYTHON:
        raise UserError(f"data.source = {FROM_PYTHON}: these samples were handed in from python: hand them in again, as truth")
    if settings.path is None:
        return data.load(settings.source, **options)
    return data.load(settings.path, source=settings.source, **options)


def turn_levels(process: sampler.Process, settings: experiment.TurnTimes) -> list[float]:
    """Return the turn times used, in the process's time, for those that were asked for."""
    asked = settings.noise_to_signal or settings.time
    if isinstance(asked, experiment.Spacing):
        asked = tuple(sampler.log_levels(asked.min, asked.max, asked.count).tolist())
    used = process.turn_time_from_noise_to_signal if settings.noise_to_signal else process.turn_time
    return [used(value) for value in asked or ()]


def draw_samples(settings: experiment.Experiment, count: int) -> NDArray[np.int64]:
    """Return the indices of the samples to start from: all, or some drawn with the seed, without replacement.

    Starts that are no samples are numbered from 0, and there may be more of them.
    """
    if settings.samples == "all":
        return np.arange(count, dtype=np.int64)
    if settings.start != "noised_data":
        return np.arange(settings.samples, dtype=np.int64)
    if settings.samples > count:
        raise UserError(
            f"samples = {settings.samples} is more than the {count} ground-truth samples: give a smaller number or 'all'"
        )
    return np.sort(np.random.default_rng(settings.seed).choice(count, settings.samples, replace=False)).astype(np.int64)


def run_identity(prepared: Prepared) -> dict[str, str]:
    """Return what must be the same for two runs to give the same bits."""
    settings = prepared.settings.model_dump(mode="json")
    identity = {key: json.dumps(_without_files(value)) for key, value in settings.items() if key not in NOT_OF_A_RESULT}
    identity |= {f"score {name}": score_digest(score) for name, score in prepared.scores.items()}
    plan = prepared.plan
    if prepared.settings.process.kind == "factory":  # the same name may stand for another function meanwhile
        identity["process"] += f" {schedule_digest(plan.process)}"
    if prepared.settings.reverse.factory is not None:
        identity["reverse"] += f" {kernel_digest(next(iter(prepared.kernels.values())), plan.process)}"
    identity |= {f"custom observable {one.name}": f"{one.source} {one.digest}" for one in prepared.custom_observables}
    identity["classifier"] += f" {prepared.classified.name}"
    identity["features"] += f" {prepared.features.name}"
    identity["kept end points"] = str(len(prepared.kept))
    identity["data"] = prepared.data_digest
    identity["schema"] = str(archive.SCHEMA_VERSION)
    identity["device type"] = prepared.device.type
    identity["torch"] = version("torch")
    return identity


def _without_files(value: Any) -> Any:
    """Leave out where a score or a schedule is read from: what is in the files is in the digests of the scores."""
    if isinstance(value, list):
        return [_without_files(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_files(item) for key, item in value.items() if key not in FILES}
    return value


def shard_identity(identity: dict[str, str]) -> dict[str, str]:
    """Return what must be the same for parts to fit: not how they are summed up, nor what is kept beside them."""
    return {key: value for key, value in identity.items() if key not in NOT_OF_A_SHARD}


def check_recognisable(prepared: Prepared) -> None:
    """Refuse to go on with a run whose scores or observables cannot be told from others.

    Raises UserError if one has neither tensors nor an attribute ``digest``, and no factory whose file could be compared.
    """
    for name, score in prepared.scores.items():
        if not is_recognisable(score):
            raise UserError(
                f"score {name!r} has no tensors to know it by again: give it an attribute 'digest' or run without resume"
            )
    for observable in prepared.custom_observables:
        if not observable.digest:
            raise UserError(
                f"custom observable {observable.name!r} has nothing to know it by again: give it an attribute 'digest', name a "
                "factory in the experiment, or run without resume"
            )
