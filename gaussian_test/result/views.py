"""One view of a result for text, JSON and pages."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
import yaml

from gaussian_test.analysis.declarations import COMPUTED, PREDICTIONS, STARTS, TIMES, parts_of, reason_of
from gaussian_test.store.archive import CHECKSUM, NONE
from gaussian_test.text import interval

UNITS = ("noise_to_signal", "time")  # units of the times: noise-to-signal ratio, and the time of the process
BALANCE = ("balance_squared", "balance_simulated")
MOST_NAMED = 12  # classes that a note names
ABSURD = 2.0  # times the variance of the data; a posterior mean has at most 1


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; for a point of a curve also its standard error, p-value and position."""

    value: float
    low: float
    high: float
    se: float = math.nan
    pvalue: float = math.nan
    noise_to_signal: float = math.nan
    turn_time: float = math.nan

    def __str__(self) -> str:
        return interval(self.value, self.low, self.high)

    @property
    def opposite(self) -> Estimate:
        """The same number with the opposite sign."""
        return Estimate(-self.value, -self.high, -self.low)

    def excludes(self, value: float) -> bool:
        """Return whether a value lies outside the interval."""
        return self.low > value or self.high < value


@dataclass(frozen=True)
class TimeView:
    """One of the three times of a score by unit, with predictions by unit and kind, and reasons for undefined ones."""

    estimates: Mapping[str, Estimate]
    predicted: Mapping[str, Mapping[str, float]]
    reason: str
    reason_predicted: str


@dataclass(frozen=True)
class ScoreView:
    """Facts of a score's run, and the main features of its curves.

    Attributes
    ----------
    name, kind, kernel : str
        Of the score, its kind, and its reverse kernel.
    conditional, is_network : bool
        Whether it receives the class of the start; whether it is a network, or came from Python.
    balance, violated : mapping of str to Estimate or None
        Largest deviation of the tests of detailed balance, and the largest whose band excludes zero.
    """

    name: str
    kind: str
    kernel: str
    steps: int  # from the largest turn time
    conditional: bool
    is_network: bool
    micro_batches: tuple[int, ...]  # states per call
    times: Mapping[str, TimeView]  # by name
    gap: Estimate | None  # the largest, if any
    balance: Mapping[str, Estimate | None]
    violated: Mapping[str, Estimate | None]


@dataclass(frozen=True)
class View:
    """A result, read once."""

    result: xr.Dataset  # root group of the archive
    groups: Mapping[str, xr.Dataset]  # its further groups, as requested
    settings: dict[str, Any]  # the experiment
    scores: tuple[ScoreView, ...]  # in the order of the archive
    attributes: Mapping[str, Any] = field(default_factory=dict)  # JSON attributes, parsed

    @property
    def start(self) -> str:
        """The start of the reverse process."""
        return str(self.settings["start"])

    @property
    def confidence(self) -> str:
        """Confidence of the intervals, in percent."""
        return f"{self.settings['statistics']['confidence']:.0%}"

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of the scores that are networks."""
        return tuple(score.name for score in self.scores if score.is_network)

    @property
    def units(self) -> tuple[str, ...]:
        """Units of the shown times; a single one if the process's time is the noise level."""
        return UNITS[:1] if self.settings["process"]["kind"] == "variance_exploding" else UNITS

    @property
    def affine_by_one_evaluation(self) -> bool:
        """Whether the affine time is read off the gap of one evaluation, rather than that of the U-Turns."""
        return bool(self.settings["statistics"].get("affine", "one_shot") == "one_shot")

    @property
    def headline(self) -> tuple[str, ...]:
        """Summary of the run in three lines: its size, what was done to the data, its process."""
        sizes, attributes = self.result.sizes, self.attributes
        repeats = f"{sizes['repeat']} repeat{'s' if sizes['repeat'] > 1 else ''}"
        process = self.settings["process"].get("factory") or self.settings["process"]["kind"]
        kernels = (
            f"{one.name} {one.kernel}" + (f" ({one.steps} steps from the largest turn time)" if one.steps > 1 else "")
            for one in self.scores
        )
        limits = f" (limits of {said})" if (said := attributes.get("process_limits")) else ""
        copies = attributes.get("duplicates_in_ground_truth", 0)
        samples = f"{sizes['sample']} of {attributes['samples_in_ground_truth']} samples"
        samples += f" ({copies} of them copies of others)" if copies else ""
        return (
            f"Gaussian Test of {self.data_title}: {samples} x {sizes['turn_time']} turn times x {repeats}, "
            f"seed {attributes['seed']}, {attributes['device']}",
            *self.scaling,
            f"process {process}{limits}; {STARTS[self.start].headline}reverse: {', '.join(kernels)}",
        )

    @property
    def data_title(self) -> str:
        """Name of the data."""
        return str(self.attributes.get("data_title") or self.attributes["data_source"])

    @property
    def scaling(self) -> tuple[str, ...]:
        """What was done to the values of the data; empty for an archive that does not say it."""
        if "data_scale" not in self.attributes:
            return ()
        scale, offset = float(self.attributes["data_scale"]), float(self.attributes["data_offset"])
        of = "given" if self.attributes["data_source"] in ("python", "given in python") else "file"
        if (scale, offset) == (1, 0):
            return (f"x = {of}, as it is",)
        added = f" {'-' if offset < 0 else '+'} {abs(offset):.3g}" if offset else ""
        return (f"x = {scale:.3g} \N{MIDDLE DOT} {of}{added}",)

    def notes(self) -> Iterator[str]:
        """Yield caveats for a reader."""
        result, attributes = self.result, self.attributes
        if result.attrs.get(CHECKSUM) == NONE:
            yield "Note: this file carries no checksum, since gaussian-test did not write it: damage to it would not be noticed."
        if self.start != "noised_data":
            yield "Note: the start of this run holds no data: a correlation with it is of the sampler's noise and the score alone."
        if space := attributes.get("space"):
            yield (
                f"Note: the U-Turns ran in {space}: correlations, distances, classifier and the built-in features look at latents; "
                "pictures, and features and observables of yours, at decoded samples."
            )
        if (moved := attributes["turn_time_moved"]) > 1e-6:
            yield f"Note: turn times were moved to the nearest levels of the sampler's own grid, by up to {moved:.1%}."
        for score in self.scores:
            if score.is_network:
                yield f"{score.name}: {' and '.join(map(str, score.micro_batches))} states a call."
        for name, network in attributes["network_settings"].items():
            if moved := network.get("levels_moved"):
                yield (
                    f"Note: {name} was asked at the nearest of the whole steps that it takes, off by up to {moved:.1%} in noise: "
                    "run it in the discrete_vp process of its own levels to be asked at these alone."
                )
        for score, classes in attributes["score_classes"].items():
            if named := [f"{name} as {number}" for number, name in classes.items() if name != number]:
                yield f"{score} is given class {', '.join(named[:MOST_NAMED])}{', ...' if len(named) > MOST_NAMED else ''}."
        for score in self.scores:
            times = float(result["autocorrelation_one_shot_squared"].sel(score=score.name).max())
            if score.is_network and times > ABSURD:
                yield (
                    f"Note: {score.name} does not denoise, as |D|^2 is up to {times:.3g} times the data's variance: see that what "
                    "it predicts, its process ('trained') and the scaling of the data are those of its training."
                )
        kernels = {score.kernel for score in self.scores} - {"exact"}
        if kernels and self.start == "noised_data":
            off = "the gap of one evaluation, which holds neither" if self.affine_by_one_evaluation else "it all the same, as asked"
            yield (
                "Note: the gap of simulated U-Turns at T also holds what the score does below T and its own discretisation error; "
                f"the affine time is read off {off}."
            )
            if self.networks and "sde" in kernels and self.settings["reverse"]["clock"] == "time":
                yield "Note: the balance of the simulation also holds its discretisation error: reverse.clock=variance has less."
        if "edm" in kernels and self.settings["reverse"]["S_churn"]:
            yield "Note: with churn the auto-correlation belongs to the sampler: hold it against autocorrelation_discrete."
        if (asked := attributes["turn_times_asked"]) > result.sizes["turn_time"]:
            yield (
                f"Note: {asked} turn times were asked for, which are {result.sizes['turn_time']} different levels of this process."
            )
        if added := attributes.get("turn_times_added"):
            apart = f"{self.settings['turn_times']['refine']:.2%}".replace(".00", "")
            of = f"{added} of {result.sizes['turn_time']} turn times"
            yield f"{of} were added, for each time to lie between two at most {apart} apart."
        accuracy, error = (float(result[f"classifier_accuracy{ending}"]) for ending in ("", "_se"))
        if not math.isnan(accuracy):
            name = result["classifier_accuracy"].attrs["classifier"]
            yield f"Classes by {name}, right in {accuracy:.1%} +- {error:.1%} of samples that it was not fitted on."
        if result.sizes["sample"] < 16:
            yield f"Note: bands from {result.sizes['sample']} samples are rough: start from more."


def view(result: xr.Dataset, groups: Mapping[str, xr.Dataset] | None = None) -> View:
    """Read a result."""
    scores = tuple(_score(result.sel(score=name), str(name)) for name in result["score"].values)
    attributes = {"class_names": "{}", "score_classes": "{}"} | dict(result.attrs)
    for name in ("versions", "score_digest", "score_origin", "network_settings", "class_names", "score_classes"):
        attributes[name] = json.loads(attributes[name])
    return View(result, groups or {}, yaml.safe_load(result.attrs["experiment"]), scores, attributes)


def _score(row: xr.Dataset, name: str) -> ScoreView:
    kind = str(row["score_kind"].item())
    finite = {one: bool(np.isfinite(row[one]).all()) for one in BALANCE}
    outside = {one: np.flatnonzero((row[f"{one}_low"].values > 0) | (row[f"{one}_high"].values < 0)) for one in BALANCE}
    everywhere = np.arange(row.sizes["turn_time"])
    return ScoreView(
        name,
        kind,
        str(row["kernel"].item()),
        int(row["reverse_steps"].max()),
        bool(row["conditional"].item()),
        kind not in COMPUTED,
        tuple(np.unique(row["micro_batch"].values).tolist()),
        {time: _time(row, time, name) for time in TIMES},
        None if np.isnan(row["gap"]).all() else _largest(row, "gap", everywhere),
        {one: _largest(row, one, everywhere) if finite[one] else None for one in BALANCE},
        {one: _largest(row, one, outside[one]) if len(outside[one]) else None for one in BALANCE},
    )


def estimate(row: xr.Dataset, name: str) -> Estimate:
    """Return a number of a row with its interval."""
    return Estimate(*map(float, parts_of(row, name)))


def _largest(row: xr.Dataset, name: str, places: np.ndarray) -> Estimate:
    here = row.isel(turn_time=int(places[np.nanargmax(np.abs(row[name].values[places]))]))
    numbers = (here[f"{name}{ending}"] for ending in ("", "_low", "_high", "_se", "_pvalue"))
    return Estimate(*map(float, (*numbers, here["noise_to_signal"], here["turn_time"])))


def _time(row: xr.Dataset, time: str, score: str) -> TimeView:
    predicted = {
        unit: {kind: float(row[f"{time}_{unit}_{kind}"]) for kind in PREDICTIONS if f"{time}_{unit}_{kind}" in row}
        for unit in UNITS
    }
    unpredicted = [reason_of(row[f"{time}_noise_to_signal_{kind}"], score) for kind in predicted["noise_to_signal"]]
    return TimeView(
        {unit: estimate(row, f"{time}_{unit}") for unit in UNITS},
        predicted,
        reason_of(row[f"{time}_noise_to_signal"], score),
        "; ".join(filter(None, unpredicted)),
    )
