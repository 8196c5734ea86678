"""The experiment: the validated settings of a run."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import yaml
from pydantic import ByteSize, Field, PositiveFloat, ValidationError, ValidatorFunctionWrapHandler, field_validator, model_validator

from gaussian_test.analysis.declarations import Affine, Memorization, Speciation, StartName, Statistics
from gaussian_test.analysis.observables.record import Needs
from gaussian_test.analysis.observables.registry import OBSERVABLES
from gaussian_test.errors import UserError
from gaussian_test.experiment.data import Data
from gaussian_test.experiment.observables import CHEAP, Chains, Classifier, CustomObservable, Features, Observable, factory_of_kind
from gaussian_test.experiment.processes import Arguments, Factory, Process, Settings, Space, VarianceExploding, shown
from gaussian_test.experiment.reading import NOT_YAML, check_size, read_yaml, refusal
from gaussian_test.experiment.scores import Count, Empirical, Gaussian, ScoreSettings
from gaussian_test.experiment.turn_times import TurnTimes
from gaussian_test.sampler.kernels import KERNELS

DEFAULTS = Statistics()
MOST_STEPS = 10_000
Fraction = Annotated[float, Field(gt=0, lt=1)]
Confidence = Annotated[float, Field(ge=1e-6, le=1 - 1e-6)]  # so that 1 minus it rounds to neither 1 nor 0
Level = Annotated[float, Field(ge=0)]
Rho = Annotated[float, Field(ge=0.1, le=1000)]  # powers 1/rho of noise levels stay distinct floats


if TYPE_CHECKING:
    Kernel = str
else:
    Kernel = Literal["auto", *KERNELS, "factory"]
PRESETS: dict[str, dict[str, Any]] = {
    # Behjoo & Chertkov's sampler: EDM's stochastic one on its own grid of 256 levels
    "paper": {
        "kind": "edm",
        "grid": "process",
        "steps": 256,
        "rho": 7.0,
        "S_churn": 40.0,
        "S_min": 0.05,
        "S_max": 50.0,
        "S_noise": 1.003,
    }
}


class Reverse(Settings):
    """The reverse kernel and its steps.

    ``preset: paper`` selects the paper's sampler; explicit settings override it. ``grid: turn_times`` puts every turn time on the
    grid, ``grid: process`` moves turn times to the nearest level of a grid over the whole process. ``kind: factory`` calls a custom
    function with ``arguments``, which returns a :class:`gaussian_test.sampler.ReverseKernel`.
    """

    preset: Literal["paper"] | None = None
    kind: Kernel = "auto"
    factory: Factory | None = None
    arguments: Arguments = Field(default_factory=dict)
    steps: Annotated[int, Field(strict=True, ge=1, le=MOST_STEPS)] = 64
    grid: Literal["turn_times", "process"] = "turn_times"
    rho: Rho = 7.0
    clock: Literal["time", "variance"] = "variance"
    S_churn: Annotated[float, Field(ge=0)] = 0.0
    S_min: Annotated[float, Field(ge=0)] = 0.0
    S_max: PositiveFloat = 1e9
    S_noise: PositiveFloat = 1.0
    _belong_together = model_validator(mode="after")(factory_of_kind)

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("preset"), str):
            return {**PRESETS.get(values["preset"], {}), **values}
        return values


class Keep(Settings):
    """Data kept besides the sample table: end points of the first samples as pictures, and optionally their paths.

    ``end_points`` keeps those of all starts that the observables use.

    ``trajectory`` is true for all times of the reverse grid, or a list of noise-to-signal ratios to keep at the nearest grid times.
    """

    pictures: Annotated[int, Field(strict=True, ge=0)] = 8
    trajectory: bool | Annotated[tuple[Level, ...], Field(min_length=1)] = False
    eigenvectors: bool = False
    end_points: bool = False

    @model_validator(mode="after")
    def _trajectories_of_the_pictures(self) -> Self:
        if self.trajectory and not self.pictures:
            raise ValueError("keep.trajectory keeps the paths of the pictures' samples, and keep.pictures = 0: give their number")
        return self


class StatisticsSettings(Settings):
    """Settings of the statistics; they do not affect the simulation.

    Memorized share and class retention fall through ``level``; ``memorization_level`` and ``speciation_level`` set one of them
    alone. A U-Turn counts as memorized if the nearest sample is its ``own`` start, or if ``any`` sample is closer than samples
    typically are to each other. A class is kept as the ``retention`` over chance, or as the plain share of the ``same`` class. The
    affine time is read off the gap of one evaluation (``one_shot``) or of the U-Turns (``uturn``).
    """

    confidence: Confidence = DEFAULTS.confidence
    bootstrap: Annotated[int, Field(strict=True, ge=100, le=100_000)] = DEFAULTS.bootstrap
    level: Fraction = DEFAULTS.level
    memorization_level: Fraction | None = DEFAULTS.memorization_level
    speciation_level: Fraction | None = DEFAULTS.speciation_level
    tolerance: PositiveFloat = DEFAULTS.tolerance
    memorization: Memorization = DEFAULTS.memorization
    speciation: Speciation = DEFAULTS.speciation
    affine: Affine = DEFAULTS.affine

    @model_validator(mode="after")
    def _resamples_of_the_tail(self) -> Self:
        if self.bootstrap * (1 - self.confidence) < 1 - 1e-9:
            raise ValueError(
                f"confidence = {self.confidence} is an event of less than one in bootstrap = {self.bootstrap} resamples, whose "
                "bands would be too short: give less confidence or more resamples"
            )
        return self


class Experiment(Settings):
    """Everything that defines a run of the Gaussian Test; every key has a default.

    Attributes
    ----------
    data : Data
        Ground-truth samples.
    space : Space, optional
        Latents in which the U-Turns run, as factories ``encode`` and ``decode``; pictures, custom feature extractors and custom
        observables see decoded samples. Default: the samples themselves.
    process : Process
        Forward process.
    scores : tuple of ScoreSettings
        Scores to run, named by their kind or by ``name``.
    turn_times : TurnTimes
        Times at which to turn.
    start : {"noised_data", "gaussian", "isotropic"}
        Start of the reverse process: noised ground-truth samples (the U-Turn); the Gaussian of the noised data's mean and
        covariance (the G-Turn); noise alone.
    reverse : Reverse
        Reverse kernel; default: exact if the score has a posterior, else the SDE.
    samples : int or "all"
        Ground-truth samples to start from, drawn with the seed.
    repeats : int
        U-Turns of each sample at each turn time.
    shard_size : int
        Samples per shard, the unit of computing and saving.
    seed : int
        Of noise, choice of samples and resampling.
    micro_batch : int
        States per call of a score.
    dtype : {"auto", "float32", "float64"}
        Of the states. ``auto``: float32, or float64 where float32 rounds the values of the data by more than 1/128 of the smallest
        noise level or of their spread. The archive has the one that was used.
    tf32 : bool, optional
        Whether float32 products and convolutions on a CUDA device use TF32: three digits instead of seven, several times as fast.
        Default: torch's setting.
    observables : tuple of str, "all" or "none"
        Observables besides the Gaussian Test: ``affinity`` of the score, ``normality`` of the noised data, ``quality`` of the
        end points, detailed ``balance``; with further reverse runs, other ``starts`` and ``chains`` of U-Turns.
    custom_observables : dict of str to CustomObservable
        Custom observables by name: functions that return one number per U-Turn from its start and end.
    features : Features
        Feature extractor for comparing end points with the ground truth.
    classifier : Classifier
        End-point classifier.
    chains : Chains
        Length and turn times of chains.
    end_points : int
        Number of evenly spaced starts for observables that use their end points together.
    keep : Keep
        Pictures, trajectories, eigenvectors, end points.
    memory : int or str, optional
        Memory cap of a process, such as 4GB: ground truth that does not fit stays in its file and is read in passes. Default: half
        of the machine's. It does not change results.
    statistics : StatisticsSettings
        Confidence, resamples, levels, tolerance, definitions of the times.

    Examples
    --------
    >>> Experiment(samples=16).reverse.steps
    64
    >>> Experiment.load({"sampels": 16})
    Traceback (most recent call last):
    ...
    gaussian_test.errors.UserError: experiment: unknown key 'sampels': did you mean 'samples'? (valid keys: ...)
    """

    data: Data = Data()
    space: Space | None = None
    process: Process = VarianceExploding()
    scores: Annotated[tuple[ScoreSettings, ...], Field(min_length=1)] = (Empirical(kind="empirical"), Gaussian(kind="gaussian"))
    turn_times: TurnTimes = TurnTimes()
    start: StartName = "noised_data"
    reverse: Reverse = Reverse()
    samples: Annotated[int, Field(strict=True, ge=4)] | Literal["all"] = 512
    repeats: Count = 1
    shard_size: Count = 64
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 0
    micro_batch: Count = 1024
    dtype: Literal["auto", "float32", "float64"] = "auto"
    tf32: bool | None = None
    observables: tuple[Observable, ...] | Literal["all", "none"] = CHEAP
    custom_observables: dict[str, CustomObservable] = Field(default_factory=dict)
    features: Features = Features()
    classifier: Classifier = Classifier()
    chains: Chains = Chains()
    end_points: Annotated[int, Field(strict=True, ge=4)] = 1024
    keep: Keep = Keep()
    memory: ByteSize | None = None
    statistics: StatisticsSettings = StatisticsSettings()

    @model_validator(mode="before")
    @classmethod
    def _default_kinds(cls, values: Any) -> Any:
        """Use the default kind for a process without one, after checking the size of the whole."""
        for key, value in values.items() if isinstance(values, dict) else ():
            check_size(key, value)
        if isinstance(values, dict) and "own_observables" in values:
            warnings.warn("own_observables is deprecated: write custom_observables", DeprecationWarning, stacklevel=2)
            values = {("custom_observables" if key == "own_observables" else key): value for key, value in values.items()}
        if isinstance(values, dict) and isinstance(values.get("process"), dict) and "kind" not in values["process"]:
            return {**values, "process": {"kind": VarianceExploding().kind, **values["process"]}}
        return values

    @model_validator(mode="after")
    def _a_grid_that_takes_levels(self) -> Self:
        if self.turn_times.refine is not None and self.reverse.grid == "process":
            raise ValueError(
                "turn_times.refine adds levels, and those of reverse.grid = 'process' are fixed: leave one of them out"
            )
        return self

    @field_validator("observables", mode="before")
    @classmethod
    def _known_observables(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple) and not (isinstance(value, str) and value in ("all", "none")):
            raise ValueError(f"{shown(value)} is neither all nor none: give one of them or a list of {', '.join(OBSERVABLES)}")
        return value

    @field_validator("memory", mode="wrap")
    @classmethod
    def _some_memory(cls, value: Any, check: ValidatorFunctionWrapHandler) -> Any:
        try:
            return check(value)
        except OverflowError:  # not caught by pydantic before 2.14
            raise ValueError(f"{shown(value)} is more than there is: write for example 4GB") from None

    @property
    def observed(self) -> tuple[Observable, ...]:
        """Observables to measure; those of U-Turns are omitted for other starts.

        Examples
        --------
        >>> Experiment(start="gaussian").observed
        ('quality',)
        """
        named = {"all": tuple(OBSERVABLES), "none": ()}
        wanted = named[self.observables] if isinstance(self.observables, str) else self.observables
        return tuple(name for name, one in OBSERVABLES.items() if name in wanted and (self.start == "noised_data" or one.any_start))

    def needs(self, what: Needs) -> bool:
        """Return whether any observable to measure has a requirement.

        Examples
        --------
        >>> Experiment(observables="none").needs("end points")
        False
        """
        return any(what in OBSERVABLES[name].needs for name in self.observed)

    @classmethod
    def load(
        cls, source: Experiment | Mapping[str, Any] | str | os.PathLike[str] | None = None, changes: Iterable[str] = ()
    ) -> Self:
        """Read an experiment from a YAML file or a dict and change some of its keys.

        Parameters
        ----------
        source : Experiment, dict or path of a YAML file, optional
            Default: all defaults.
        changes : iterable of str
            Each ``key=value`` with a dotted key (``reverse.steps=16``, ``scores.0.kind=mixture``) and a value in YAML.

        Returns
        -------
        Experiment

        Raises
        ------
        UserError
            If the file cannot be read or is invalid.

        Examples
        --------
        >>> Experiment.load(changes=["reverse.steps=16", "turn_times.noise_to_signal=[0.5, 1]"]).reverse.steps
        16
        """
        if isinstance(source, Experiment):
            source = source.model_dump(mode="json")
        values = {} if source is None else dict(source) if isinstance(source, Mapping) else read_yaml(Path(source))
        for change in changes:
            values = _changed(values, change)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise UserError(refusal(error)) from None

    def to_yaml(self) -> str:
        """Return the whole configuration as YAML, defaults included.

        Examples
        --------
        >>> Experiment.load(yaml.safe_load(Experiment().to_yaml())) == Experiment()
        True
        """
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def _changed(values: dict[str, Any], change: str) -> dict[str, Any]:
    key, equals, text = change.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {shown(change)} is not of the form key=value: write for example reverse.steps=16")
    try:
        value = yaml.safe_load(text)
    except NOT_YAML:
        raise UserError(f"--set {shown(change)}: {shown(text)} is not a YAML value: quote or correct it") from None
    return with_value(values, key.strip(), value, f"--set {shown(change)}")


def with_value(values: dict[str, Any], key: str, value: Any, where: str) -> dict[str, Any]:
    """Return the keys of an experiment with one changed.

    Raises UserError if the key has an invalid list index.
    """
    parts = key.split(".")
    changed = dict(values)
    place: Any = changed
    for depth, (part, following) in enumerate(pairwise(parts)):
        inner = place[int(part)] if isinstance(place, list) else place.get(part)
        if inner is None and depth == 0 and part in ("scores", "turn_times"):
            # change omitted values within their defaults; the others have defaults key by key
            inner = Experiment().model_dump(mode="json", exclude_none=True)[part]
        inner = inner.copy() if isinstance(inner, dict | list) else {}
        if isinstance(inner, list) and following not in map(str, range(len(inner))):
            raise UserError(f"{where}: {part} is a list of {len(inner)}, and {shown(following)} is none of its places")
        place[int(part) if isinstance(place, list) else part] = inner
        place = inner
    last = parts[-1]
    if isinstance(place, dict):
        if last == "kind" and parts[0] in ("process", "scores"):
            place.clear()  # another kind has other settings
        if key == "data.path" and place.get("source") == "digits":
            del place["source"]  # which has no path
        if parts[0] == "turn_times":
            place.pop({"noise_to_signal": "time", "time": "noise_to_signal"}.get(last, ""), None)
    place[int(last) if isinstance(place, list) else last] = value
    return changed
