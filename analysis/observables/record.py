"""Observable records: variables, how to measure and show them.

Records name their functions as ``module:function``, below this folder; a function is imported only when it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Literal

from gaussian_test.analysis.declarations import StartName, Statistics, Variable

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr
    from numpy.typing import NDArray
    from torch import Tensor

    from gaussian_test import sampler
    from gaussian_test.analysis.moments.moments import Moments
    from gaussian_test.analysis.observables.quality.distances import Population
    from gaussian_test.analysis.statistics.bootstrap import ClusterBootstrap
    from gaussian_test.analysis.uturn.reference import GroundTruth, Reference, ScoreFacts

HOME = "gaussian_test.analysis.observables"
# what an observable requires of a run: reference scores, the end points of some starts together, or their features
Needs = Literal["references", "end points", "features"]


@dataclass(frozen=True)
class Column:
    """A column of a table over the noise levels: a variable and a title.

    ``{score}``, ``{reference}`` and ``{start}`` in a title create one column each.
    """

    variable: str
    title: str
    under: str = ""
    any_size: bool = False  # numbers of any size, three digits; else shares, three decimals
    not_zero: bool = False  # omitted if zero throughout, by construction
    unlike: str = ""  # omitted if it equals this variable throughout


@dataclass(frozen=True)
class Table:
    """A text table over the noise levels; columns of a group stand side by side for each score."""

    title: str
    groups: tuple[tuple[Column, ...], ...]
    once: bool = False  # print a title above the first of its columns only
    networks: bool = False  # only for network scores, and noised data as start
    heavy_tailed: bool = False  # bands are too narrow with few starts


@dataclass(frozen=True)
class Panel:
    """A panel of a figure: the curve of each score with its band, over the noise level."""

    variable: str
    label: str
    closed: str = ""  # variable of the Gaussian's closed form
    line: float | None = None  # level of a thin line, such as zero
    line_label: str = ""
    log: bool = False
    limits: tuple[float, float] | None = None
    if_defined: bool = False  # omitted if it is undefined throughout


@dataclass(frozen=True)
class Figure:
    """A figure with its caption and the variables of its alternative text.

    Parameters
    ----------
    heading, reading : str
        What it shows, and how to read it.
    """

    name: str  # of its file; ``{score}`` creates one per network
    heading: str
    reading: str
    curves: tuple[str, ...] = ()  # variables described by its alternative text
    shown_for: str = ""  # variable that must be defined somewhere
    panels: tuple[Panel, ...] = ()  # its panels
    legend: int = 3  # columns of the legend above
    height: float = 5.0  # in inches
    draw: str = ""  # instead of panels: ``module:function`` of a result and of the score or the groups
    group: str = ""  # group with its data
    title: str = ""  # above the first panel; attributes of its variable replace names in braces


@dataclass(frozen=True)
class Observable:
    """Declaration of one measurement: variables, functions, tables and figures.

    Parameters
    ----------
    at_turn, at_end : str
        ``module:function`` that yields rows of the sample table, of turned states or of end points.
    tables, text : tuple of Table, str
        Output of ``show``: tables over the noise levels, and ``module:function`` for other text.
    """

    name: str  # as in an experiment
    title: str  # what it measures, in one line
    variables: tuple[Variable, ...]  # in all groups of the archive and in the parts of a run
    needs: tuple[Needs, ...] = ()  # what it requires of a run
    at_turn: str = ""
    at_end: str = ""
    runs: str = ""  # ``module:function`` for further reverse runs, shard by shard
    measure: str = ""  # ``module:function`` that returns its variables, by group, after all shards
    tables: tuple[Table, ...] = ()
    text: str = ""
    figures: tuple[Figure, ...] = ()  # in the order of a page
    options: Any = None  # last argument of ``at_end`` and ``measure``, if any
    any_start: bool = False  # whether it is defined for starts other than noised data
    default: bool = False  # whether it is measured by default

    def function(self, name: str) -> Callable[..., Any]:
        """Return a named function of the record, with its options bound."""
        found = resolved(name)
        return found if self.options is None else lambda *arguments: found(*arguments, self.options)


def resolved(function: str) -> Callable[..., Any]:
    """Import the object named ``module:function`` below this folder."""
    found: Callable[..., Any] = resolve_name(f"{HOME}.{function}")
    return found


@dataclass(frozen=True)
class Turned:
    """Turned states and denoised states of every score: (turn times, samples x repeats, features), centred on the mean.

    Only ``x`` is not centred; ``truth`` is the exact score of the ground truth; ``evaluated`` holds the densities of the
    scores that know them, relative to noise about the mean.
    """

    x: Tensor
    process: sampler.Process
    levels: tuple[float, ...]
    start: Tensor
    mean: Tensor
    trace: float
    gaussian: Tensor
    denoised: Mapping[str, Tensor]
    references: Mapping[str, Tensor]
    truth: sampler.EmpiricalScore
    evaluated: Mapping[str, sampler.Evaluated]
    alpha: Tensor  # of each turn time, float64, (turn times, 1)
    sigma: Tensor
    eigenvalues: Tensor

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """Return inner products over the features, in units of the total variance."""
        return product(a, b, self.trace)


@dataclass(frozen=True)
class Ended:
    """The end points of one score at some turn times: states, the same centred, and their nearest ground-truth samples."""

    x: Tensor
    x0: Tensor
    end: Tensor
    start: Tensor
    trace: float
    nearest: Tensor
    distance: Tensor
    classify: Callable[[Tensor], Tensor] | None


def product(a: Tensor, b: Tensor, trace: float) -> Tensor:
    """Return inner products over the last axis, in float64, in units of the total variance."""
    import torch

    return (a * b).sum(-1, dtype=torch.float64) / trace


Rows = Iterator[tuple[str, "str | None", "Tensor"]]  # variable, score, values of its rows


@dataclass(frozen=True)
class Shard:
    """Inputs for an observable's further reverse runs with some samples of a shard."""

    plan: sampler.UTurnPlan
    scores: Mapping[str, sampler.Score]
    kernels: Mapping[str, sampler.ReverseKernel]
    labels: Mapping[str, Tensor]
    reference: Reference
    samples: tuple[int, ...]
    options: Any
    starts: Callable[[StartName], Tensor]

    def ends(self, plan: sampler.UTurnPlan, x0: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
        """Run a plan for some scores and return their end points, (turn times, rows, *event)."""
        scores, kernels = {name: self.scores[name] for name in names}, {name: self.kernels[name] for name in names}
        given = {name: label for name, label in self.labels.items() if name in names}
        found = {name: x0.new_empty(len(plan.levels), len(x0) * plan.repeats, *x0.shape[1:]) for name in names}
        for state in plan.run(x0, self.samples, scores, kernels, given):
            if state.phase == "end" and state.score is not None:
                found[state.score][state.turns] = state.x
        return found


@dataclass
class Inputs:
    """Inputs for measuring an observable after all shards."""

    table: xr.Dataset  # sample table, and over ``kept`` the states of the samples used together
    scores: Mapping[str, ScoreFacts]  # facts of each score's run
    truth: GroundTruth  # facts of the ground-truth set
    reference: Reference  # reference for comparisons
    plan: sampler.UTurnPlan  # plan of the run
    statistics: Statistics  # how
    start: StartName  # start of the reverse process
    together: NDArray[np.int64]  # samples that observables use together
    states: Callable[[tuple[int, ...]], Tensor]  # starts of samples by their numbers
    x: xr.DataArray  # the ground-truth set
    features: Any  # feature extractor, with a ``name``
    class_moments: Callable[[], list[tuple[int, Moments]]]  # moments of each class
    options: Mapping[str, Any] = field(default_factory=dict)  # settings of the experiment named after an observable
    measured: xr.Dataset = field(default=None)  # type: ignore[assignment] # set later

    @property
    def noise_to_signal(self) -> NDArray[np.float64]:
        """Noise-to-signal ratios of the turn times."""
        found: NDArray[np.float64] = self.table["noise_to_signal"].values
        return found

    def resample(self, clusters: int) -> ClusterBootstrap:
        """Return the bootstrap of a number of starts."""
        from gaussian_test.analysis.statistics.bootstrap import ClusterBootstrap

        return ClusterBootstrap(clusters, self.statistics.bootstrap, self.statistics.confidence, self.statistics.seed)

    def features_of(self, states: xr.DataArray) -> xr.DataArray:
        """Return the features of end points, over (score, turn_time, sample, repeat, feature)."""
        import numpy as np
        import xarray as xr

        lead = ("score", "turn_time")
        shape = (states.sizes["kept"], states.sizes["repeat"])
        ordered = states.transpose(*lead, "kept", "repeat", ...)
        blocks = [
            self.features(ordered[place].values.reshape(-1, *states.shape[4:])).reshape(*shape, -1)
            for place in np.ndindex(ordered.shape[:2])
        ]
        values = np.stack(blocks).reshape(*ordered.shape[:2], *blocks[0].shape)
        return xr.DataArray(values, dims=(*lead, "sample", "repeat", "feature"), coords={name: states[name] for name in lead})

    def on_features(self, dataset: xr.Dataset) -> xr.Dataset:
        """Record the feature extractor in the variables of a dataset."""
        for variable in dataset.data_vars.values():
            variable.attrs["features"] = self.features.name
        return dataset

    @cached_property
    def end_features(self) -> xr.DataArray:
        """Features of the kept end points."""
        return self.features_of(self.table["end"])

    @cached_property
    def population(self) -> Population:
        """Features of the ground-truth set, the reference for end points."""
        from gaussian_test.analysis.observables.quality.distances import Population

        return Population(self.features(self.x))

    def start_and_noise(self, samples: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return the starts of samples, and the noise of their first repeats, exactly as in the run."""
        from gaussian_test import sampler

        index = tuple(samples.tolist())
        x0 = self.states(index)
        return x0, sampler.KeyedNoise(self.plan.seed, index, 1, tuple(x0.shape[1:]), x0.device, x0.dtype).draw().normal

    def noised(self, samples: NDArray[np.int64]) -> Iterator[Tensor]:
        """Yield the turned states of samples, first repeats, turn time by turn time, exactly as in the run."""
        x0, noise = self.start_and_noise(samples)
        for level in self.plan.levels:
            yield self.plan.process.noised(x0, level, noise).flatten(1)
