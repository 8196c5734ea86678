"""From an experiment to the validated objects of a run."""

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from gaussian_test import analysis, sampler
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
from gaussian_test.build.memory import check_memory, memory_cap, memory_needs
from gaussian_test.build.scores import Built, build_scores, make_kernels, open_networks, trained_ranges
from gaussian_test.build.space import Space
from gaussian_test.build.truth import Source, class_names, open_truth
from gaussian_test.build.turns import Turns, asked_turns, choose_turns, levels_around
from gaussian_test.errors import UserError, user_input
from gaussian_test.experiment import experiment
from gaussian_test.experiment.turn_times import MOST_TURN_TIMES
from gaussian_test.sampler.defaults import undisturbed
from gaussian_test.store import archive
from gaussian_test.store.digest import is_recognisable, kernel_digest, schedule_digest, score_digest
from gaussian_test.store.parts import Fits

START_STREAM, CLASS_STREAM = 1, 2  # of the keyed noise; stream 0 belongs to the trajectories
NOT_OF_A_RESULT = ("data", "memory")  # data have a digest; the memory cap does not change results
FILES = ("path", "weights", "scheduler")
NOT_OF_A_SHARD = ("statistics", "keep", "features")


@dataclass(frozen=True)
class Prepared:
    """All objects of a run, on its device."""

    settings: experiment.Experiment  # the experiment
    truth: xr.Dataset  # ground-truth samples and labels
    device: torch.device  # device of the states
    plan: sampler.UTurnPlan  # turn times, grid, repeats, seed
    built: dict[str, Built]  # scores by name, with their facts
    kernels: dict[str, sampler.ReverseKernel]  # with the same names
    reference: Reference  # ground-truth set, moments and Gaussian score
    samples: NDArray[np.int64]  # indices of the samples to start from, ascending
    noise_to_signal: NDArray[np.float64]  # of the turn times
    features: Extractor  # feature extractor for end points and ground truth
    classified: Classified  # end-point classifier
    custom_observables: tuple[BuiltObservable, ...]  # custom observables
    fits: Fits  # quantities fitted to the ground truth
    data_digest: str  # digest of the ground truth
    source: Source | None  # where samples are read on demand
    turns: Turns  # process and turn times, as asked
    space: Space | None  # latents in which the U-Turns run

    @property
    def scores(self) -> dict[str, sampler.Score]:
        """Scores by name."""
        return {name: entry.score for name, entry in self.built.items()}

    @property
    def observables(self) -> tuple[Observable, ...]:
        """Observables in order: those always measured, custom ones, those of the experiment."""
        named = (registry.OBSERVABLES[name] for name in self.settings.observed)
        return (*registry.ALWAYS, *(one.record for one in self.custom_observables), *named)

    @property
    def bounds(self) -> NDArray[np.int64]:
        """Where each shard begins among the samples, and where the last one ends."""
        return np.append(np.arange(0, len(self.samples), self.plan.shard_size), len(self.samples))

    def shard(self, number: int) -> tuple[int, ...]:
        """Return the samples of a shard, as :meth:`UTurnPlan.shards` does of all."""
        return tuple(self.samples[number * self.plan.shard_size :][: self.plan.shard_size].tolist())

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the states."""
        return torch.float64 if self.settings.dtype == "float64" else torch.float32

    @property
    def together(self) -> NDArray[np.int64]:
        """Evenly spaced samples that observables use together, limited for memory and pairwise cost."""
        return self.samples[evenly_spaced(len(self.samples), self.settings.end_points)]

    @property
    def kept(self) -> NDArray[np.int64]:
        """Samples whose states are kept until all shards are done; none unless required."""
        return self.together if _keeps(self.settings) else self.samples[:0]

    def starts(self, samples: tuple[int, ...], start: str | None = None) -> torch.Tensor:
        r"""Return the starts of the forward process by index, on the device, shape (n, ``*event``).

        ``start`` defaults to that of the experiment.

        They are ground-truth samples; draws from :math:`\mathcal N(\mu, \Sigma)`, whose noised law is :math:`\mathcal
        N(\alpha_T\mu, \alpha_T^2\Sigma + \sigma_T^2)` at every turn time; or 0, whose noised law is noise alone.
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
        """Return the class of each start: that of its sample, or of a sample drawn by the start's number."""
        known = self.reference.labels
        if known is None:
            raise ValueError("the data set has no labels: drop 'conditional' or give labels")
        if self.settings.start == "noised_data":
            return known[list(samples)]
        uniform = sampler.KeyedNoise(self.plan.seed, samples, 1, (1,), stream=CLASS_STREAM).draw().uniform
        drawn: NDArray[np.int64] = known[(uniform * len(known)).long().numpy()]
        return drawn


def _keeps(settings: experiment.Experiment) -> bool:
    """Return whether to keep states until all shards are done."""
    return settings.keep.end_points or settings.needs("end points")


@dataclass(frozen=True)
class Given:
    """Objects passed from Python besides the experiment, as the arguments of :func:`gaussian_test.run`."""

    truth: Any = None
    scores: Mapping[str, sampler.Score] = field(default_factory=dict)
    classifier: Any = None
    features: Callable[[torch.Tensor], Any] | None = None
    custom_observables: Mapping[str, Measure] = field(default_factory=dict)
    trust: Mapping[str, str] = field(default_factory=dict)

    @property
    def objects(self) -> list[str]:
        """Names of the objects passed from Python, which cannot be sent to workers."""
        there = (
            self.truth is not None,
            self.scores,
            self.classifier is not None,
            self.features is not None,
            self.custom_observables,
        )
        return [known.name for known, is_there in zip(fields(self), there, strict=False) if is_there]


@undisturbed()
def prepare(
    settings: experiment.Experiment,
    device: str = "auto",
    given: Given | None = None,
    folder: Path | None = None,
    shards_only: bool = False,
) -> Prepared:
    """Build all objects of an experiment; ``folder`` may hold earlier fits, ``shards_only`` skips the statistics.

    Raises UserError if the experiment is invalid.
    """
    given = given or Given()
    place = pick_device(device)
    with user_input():
        asked_turns(settings)  # which is wrong before anything is read, if it is
        opened = open_truth(settings, given.truth, folder, given.classifier is not None, shards_only, place)
        settings, truth, moments, fitted = opened.settings, opened.truth, opened.moments, opened.fits
        networks = open_networks(settings, moments.event_shape, opened.turns.process, given.scores, given.trust)
        from_python = {name: copy(score) for name, score in given.scores.items()}  # which stay as they are
        known = {name: entry.score for name, entry in networks.items()} | from_python
        turns = choose_turns(settings, moments, truth["x"], fitted, trained_ranges(known))
        process = turns.process
        for score in known.values():
            if isinstance(score, sampler.NetworkScore) and _is_part(process, score.process):
                score.enter(process)
        plan = sampler.UTurnPlan(
            process,
            turns.levels,
            steps=settings.reverse.steps,
            repeats=settings.repeats,
            seed=settings.seed,
            shard_size=settings.shard_size,
            micro_batch=settings.micro_batch,
            rho=settings.reverse.rho,
            grid_of=settings.reverse.grid,
        )
        dtype = torch.float64 if settings.dtype == "float64" else torch.float32
        labels = np.asarray(truth["label"].values, dtype=np.int64) if "label" in truth else None
        ground_truth = sampler.EmpiricalScore.fit(truth["x"], labels, process, dtype, opened.resident)
        reference = Reference(
            ground_truth.to(place),
            moments,
            analysis.GaussianScore.from_moments(moments, process=process, dtype=dtype).to(place),
            labels,
            class_names=class_names(truth),
        )
        decode = None if opened.space is None else opened.space.decoded
        extractor = build_features(settings.features, given.features, moments, place, truth["x"][:2].values, decode)
        classified = build_classifier(settings.classifier, given.classifier, reference, truth["x"], settings.seed, not shards_only)
        reference = replace(
            reference,
            classify=classified.classify,
            scores=_references(reference, truth["x"], fitted, process, dtype, place) if settings.needs("references") else {},
        )
        built = build_scores(settings, truth["x"], reference, fitted, plan, place, from_python, networks)
        kernels = make_kernels(settings.reverse, {name: entry.score for name, entry in built.items()}, plan)
        own = build_custom_observables(settings.custom_observables, given.custom_observables, place, truth["x"][:2].values, decode)
    nu = process.noise_to_signal(torch.tensor(plan.levels, dtype=torch.float64)).numpy()
    return Prepared(
        settings,
        truth,
        place,
        plan,
        built,
        kernels,
        reference,
        opened.samples,
        nu,
        extractor,
        classified,
        own,
        fitted,
        opened.digest,
        opened.source,
        turns,
        opened.space,
    )


@undisturbed()
def with_levels(prepared: Prepared, levels: tuple[float, ...]) -> Prepared:
    """Return a run with other turn times, in the process's time, and everything else the same.

    Raises UserError if there are too many, or a score does not support them.
    """
    settings = prepared.settings
    if len(levels) > MOST_TURN_TIMES:
        refine = settings.turn_times.refine
        raise UserError(f"turn_times.refine = {refine:g} asks for more than {MOST_TURN_TIMES} turn times: give a larger share")
    plan = replace(prepared.plan, turn_times=levels)
    with user_input():
        needs = memory_needs(settings, prepared.truth, len(plan.levels), len(prepared.samples))
        check_memory(needs, settings, memory_cap(settings))
        kernels = make_kernels(settings.reverse, prepared.scores, plan)
    nu = plan.process.noise_to_signal(torch.tensor(plan.levels, dtype=torch.float64)).numpy()
    turns = replace(prepared.turns, levels=levels, added=prepared.turns.added + len(plan.levels) - len(prepared.plan.levels))
    return replace(prepared, plan=plan, kernels=kernels, noise_to_signal=nu, turns=turns)


def refined(prepared: Prepared, crossings: Any, share: float) -> Prepared | None:
    """Return a run with levels around crossings, noise-to-signal ratios, or None if each lies between two at most a share apart."""
    added = levels_around(prepared.noise_to_signal, crossings, share)
    if not added:
        return None
    process = prepared.plan.process
    finer = with_levels(prepared, (*prepared.plan.levels, *map(process.turn_time_from_noise_to_signal, added)))
    return finer if len(finer.plan.levels) > len(prepared.plan.levels) else None


def _is_part(process: sampler.Process, of: sampler.Process) -> bool:
    """Return whether a process is another one, or one between narrower limits."""
    return type(process) is type(of) and of.time_min <= process.time_min and process.time_max <= of.time_max


def _references(
    reference: Reference, x: xr.DataArray, fits: Fits, process: sampler.Process, dtype: torch.dtype, device: torch.device
) -> dict[str, sampler.Score]:
    """Return the reference scores, with a mixture if every class has at least two samples."""
    scores: dict[str, sampler.Score] = {
        "isotropic": analysis.isotropic_score(reference.moments, process=process, dtype=dtype).to(device)
    }
    scores["gaussian"] = reference.gaussian
    counts = np.unique(reference.labels, return_counts=True)[1] if reference.labels is not None else np.zeros(1)
    if len(counts) > 1 and counts.min() > 1:
        with suppress(ValueError):  # a class of equal samples has no Gaussian
            scores["mixture"] = mixture_of_classes(fits.of_classes(x, reference.labels), process=process, dtype=dtype).to(device)
    return scores | {"empirical": reference.samples}


def pick_device(device: str) -> torch.device:
    """Return the requested device; for ``auto`` a GPU if there is one."""
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


def run_identity(prepared: Prepared) -> dict[str, str]:
    """Return the identity of a run: two runs with the same one give the same bits."""
    settings = prepared.settings.model_dump(mode="json")
    identity = {key: json.dumps(_without_files(value)) for key, value in settings.items() if key not in NOT_OF_A_RESULT}
    identity |= {f"score {name}": score_digest(score) for name, score in prepared.scores.items()}
    plan = prepared.plan
    identity["turn times used"] = json.dumps(plan.levels)
    if prepared.settings.process.kind == "factory":  # the name may refer to a changed function
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
    """Remove file paths of scores and schedules: the digests of the scores cover their content."""
    if isinstance(value, list):
        return [_without_files(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_files(item) for key, item in value.items() if key not in FILES}
    return value


def continued(prepared: Prepared, identities: Iterable[Mapping[str, str] | None]) -> Prepared:
    """Return a run whose turn times are refined with those of an identity of the same run, if one is."""
    if prepared.settings.turn_times.refine is None:
        return prepared
    mine = shard_identity(run_identity(prepared))
    for theirs in identities:
        if theirs and all(theirs.get(key) == value for key, value in mine.items() if key not in ("turn times used", "device type")):
            return with_levels(prepared, tuple(json.loads(theirs["turn times used"])))
    return prepared


def shard_identity(identity: dict[str, str]) -> dict[str, str]:
    """Return the identity of parts: that of the run without ``statistics``, ``keep`` and ``features``."""
    return {key: value for key, value in identity.items() if key not in NOT_OF_A_SHARD}


def check_recognisable(prepared: Prepared) -> None:
    """Raise on resume if scores or observables cannot be identified.

    Raises UserError if one has no tensors, no attribute ``digest``, and no factory file to compare.
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
