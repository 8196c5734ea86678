"""What an observable is: one record of its variables, how they are measured, and how they are shown.

Reading records costs nothing: they name their functions as ``module:function``, below this folder, and these are imported when
they are called.
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
# what an observable asks a run for: scores to compare with, the end points of some starts all at once, features of them
Needs = Literal["references", "end points", "features"]


@dataclass(frozen=True)
class Column:
    """A column of a table over the noise levels: of which variable, under what title.

    ``{score}``, ``{reference}`` and ``{start}`` in a title make a column for each.
    """

    variable: str
    title: str
    under: str = ""
    any_size: bool = False  # numbers of any size, with three digits; else shares, with three decimals
    not_zero: bool = False  # left out where it is zero throughout, by construction


@dataclass(frozen=True)
class Table:
    """A table of text over the noise levels; the columns of a group stand side by side for each score."""

    title: str
    groups: tuple[tuple[Column, ...], ...]
    once: bool = False  # a title stands above the first of its columns alone
    networks: bool = False  # of scores that are networks, where the start is noised data
    heavy_tailed: bool = False  # few starts make its bands too narrow


@dataclass(frozen=True)
class Panel:
    """A panel of a figure: a curve with its band for every score, over the noise level."""

    variable: str
    label: str
    closed: str = ""  # variable of the Gaussian's closed form
    line: float | None = None  # where a thin line lies, such as zero
    line_label: str = ""
    log: bool = False
    limits: tuple[float, float] | None = None
    if_defined: bool = False  # left out where nothing of it is defined


@dataclass(frozen=True)
class Figure:
    """A figure, what stands under it, and what tells its course to those who cannot see it.

    Parameters
    ----------
    heading, reading : str
        What it shows, and how to read it.
    """

    name: str  # of its file; ``{score}`` makes one for each network
    heading: str
    reading: str
    curves: tuple[str, ...] = ()  # variables whose course its alternative text tells
    shown_for: str = ""  # variable that must be defined somewhere
    panels: tuple[Panel, ...] = ()  # what is drawn
    legend: int = 3  # columns of the legend above
    height: float = 5.0  # in inches
    draw: str = ""  # in place of panels ``module:function`` of a result, and of the score or the groups
    group: str = ""  # group that it is drawn from
    title: str = ""  # above the first panel; braces hold the attributes of its variable


@dataclass(frozen=True)
class Observable:
    """Everything that the product says of a measurement.

    Parameters
    ----------
    at_turn, at_end : str
        ``module:function`` that yields rows of the sample table, of turned states or of end points.
    tables, text : tuple of Table, str
        Of ``show``: tables over the noise levels, and ``module:function`` for what is none.
    """

    name: str  # as in an experiment
    title: str  # what is measured, in a line
    variables: tuple[Variable, ...]  # of the archive, of all its groups and of the parts of a run
    needs: tuple[Needs, ...] = ()  # what it asks a run for
    at_turn: str = ""
    at_end: str = ""
    runs: str = ""  # ``module:function`` that takes further reverse runs, shard by shard
    measure: str = ""  # ``module:function`` that returns its variables, by group, once all shards are there
    tables: tuple[Table, ...] = ()
    text: str = ""
    figures: tuple[Figure, ...] = ()  # in the order of a page
    options: Any = None  # what ``at_end`` and ``measure`` are handed as their last argument, where there is something
    any_start: bool = False  # whether it has a meaning where the start is no noised data
    default: bool = False  # whether it is measured unless something else is asked for

    def function(self, name: str) -> Callable[..., Any]:
        """Return a function that the record names, with its options."""
        found = resolved(name)
        return found if self.options is None else lambda *arguments: found(*arguments, self.options)


def resolved(function: str) -> Callable[..., Any]:
    """Return what is named as ``module:function`` below this folder."""
    found: Callable[..., Any] = resolve_name(f"{HOME}.{function}")
    return found


@dataclass(frozen=True)
class Turned:
    """Some turned states, and what every score says there: (turn times, samples x repeats, features), centred on the mean.

    ``x`` alone is as it was turned; ``truth`` is the exact score of the ground truth, for what else is asked of it.
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

    @cached_property
    def alpha(self) -> Tensor:
        r""":math:`\alpha` of each turn time, float64, shape (turn times, 1)."""
        return self.process.alpha(self._times).to(self.x.device)[:, None]

    @cached_property
    def sigma(self) -> Tensor:
        r""":math:`\sigma` of each turn time, float64, shape (turn times, 1)."""
        return self.process.sigma(self._times).to(self.x.device)[:, None]

    @property
    def _times(self) -> Tensor:
        import torch

        return torch.tensor(self.levels, dtype=torch.float64)

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
    """What an observable may use to take reverse runs of its own with some samples of a shard."""

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
    """What an observable may use once all shards are there."""

    table: xr.Dataset  # sample table, and over ``kept`` the states of the samples that observables look at together
    scores: Mapping[str, ScoreFacts]  # facts of each score's run
    truth: GroundTruth  # facts of the ground-truth set
    reference: Reference  # what is compared with
    plan: sampler.UTurnPlan  # what was run
    statistics: Statistics  # how
    start: StartName  # what was reversed
    together: NDArray[np.int64]  # samples that observables look at together
    states: Callable[[tuple[int, ...]], Tensor]  # starts of samples by their numbers
    x: xr.DataArray  # the ground-truth set
    features: Any  # features of samples; its ``name`` says which
    class_moments: Callable[[], list[tuple[int, Moments]]]  # moments of each class
    options: Mapping[str, Any] = field(default_factory=dict)  # settings of the experiment that have the name of an observable
    measured: xr.Dataset = field(default=None)  # type: ignore[assignment] # nothing has been measured yet

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
        """Say in the variables of a dataset on which features they are."""
        for variable in dataset.data_vars.values():
            variable.attrs["features"] = self.features.name
        return dataset

    @cached_property
    def end_features(self) -> xr.DataArray:
        """Features of the kept end points."""
        return self.features_of(self.table["end"])

    @cached_property
    def population(self) -> Population:
        """Features of the ground-truth set, as what end points are compared with."""
        from gaussian_test.analysis.observables.quality.distances import Population

        return Population(self.features(self.x))

    def noised(self, samples: NDArray[np.int64]) -> Iterator[Tensor]:
        """Yield the turned states of samples, first repeats, turn time by turn time: the very ones that were turned."""
        from gaussian_test import sampler

        index = tuple(samples.tolist())
        x0 = self.states(index)
        noise = sampler.KeyedNoise(self.plan.seed, index, 1, tuple(x0.shape[1:]), x0.device, x0.dtype).draw().normal
        for level in self.plan.levels:
            yield self.plan.process.noised(x0, level, noise).flatten(1)
