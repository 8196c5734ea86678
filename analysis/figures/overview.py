"""Figures of several results: two side by side, and the runs of a sweep."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib.figure import Figure

from gaussian_test.analysis.declarations import TIMES
from gaussian_test.analysis.figures.parts import (
    LEGEND,
    MARKERS,
    STYLE,
    WIDTH,
    band,
    canvas,
    log_noise,
    names_above,
    plain,
)
from gaussian_test.analysis.observables.registry import titles

MOST_NAMED = 12  # runs that a legend can hold


def draw_comparison(a: xr.Dataset, b: xr.Dataset, comparison: xr.Dataset, names: tuple[str, str]) -> dict[str, Figure]:
    """Draw each curve that two results have, and below it their difference with its band."""
    called = titles()
    with mpl.rc_context(STYLE), sns.axes_style("ticks"):  # type: ignore[arg-type] # keys are literals there
        return {
            name: _compared(a, b, comparison, name, called[name], names)
            for name in called
            if f"{name}_difference" in comparison and f"{name}_low" in a and f"{name}_low" in b
        }


def _compared(a: xr.Dataset, b: xr.Dataset, comparison: xr.Dataset, name: str, title: str, names: tuple[str, str]) -> Figure:
    figure, axes = canvas(2, 5.0)
    scores = [str(score) for score in comparison["score"].values]
    for index, (score, colour) in enumerate(zip(scores, sns.color_palette("colorblind", len(scores)), strict=True)):
        for side, label, style in zip((a, b), names, ("-", "--"), strict=True):
            band(
                axes[0],
                side["noise_to_signal"].values,
                side.sel(score=score),
                name,
                colour,
                index,
                f"{plain(score)} score, {plain(label)}",
                style,
            )
        row = comparison.sel(score=score)
        if np.isfinite(row[f"{name}_difference"]).any():
            nu = comparison["noise_to_signal"].values
            band(axes[1], nu, row.rename(_without_difference(row, name)), name, colour, index, f"{plain(score)} score")
    axes[0].set_ylabel("\n".join(textwrap.wrap(title, 26)))
    names_above(figure, axes[0], 2)
    axes[1].axhline(0, color="0.6", linewidth=0.8, zorder=0)
    axes[1].set_ylabel("difference, second - first")
    if axes[1].get_legend_handles_labels()[1]:
        axes[1].legend(**LEGEND)
    log_noise(axes[1])
    return figure


def _without_difference(row: xr.Dataset, name: str) -> dict[str, str]:
    return {f"{name}_difference{suffix}": f"{name}{suffix}" for suffix in ("", "_low", "_high")}


def draw_runs(runs: Mapping[str, xr.Dataset]) -> dict[str, Figure]:
    """Draw the times of several runs with their intervals, and their auto-correlations."""
    scores = list(dict.fromkeys(str(score) for result in runs.values() for score in result["score"].values))
    with mpl.rc_context(STYLE), sns.axes_style("ticks"):  # type: ignore[arg-type] # keys are literals there
        return {"times_of_runs": _times_of_runs(runs, scores), "autocorrelation_of_runs": _curves_of_runs(runs, scores)}


def _times_of_runs(runs: Mapping[str, xr.Dataset], scores: Sequence[str]) -> Figure:
    figure = Figure(figsize=(WIDTH, 1.2 + 3 * (0.3 + 0.12 * len(runs) * (1 + len(scores)))), layout="constrained")
    axes = figure.subplots(3, 1, sharex=True)
    colours = sns.color_palette("colorblind", len(scores))
    for axis, (time, described) in zip(axes, TIMES.items(), strict=True):
        for place, result in enumerate(runs.values()):
            for index, score in enumerate(scores):
                if score not in result["score"].values:
                    continue
                row = result.sel(score=score)
                value, low, high = (float(row[f"{time}_noise_to_signal{suffix}"]) for suffix in ("", "_low", "_high"))
                if not np.isfinite(value):
                    continue
                y = place + (index + 0.5) / (len(scores) + 1) - 0.5
                nu = row["noise_to_signal"].values
                axis.plot([max(low, nu[0]), min(high, nu[-1])], [y, y], color=colours[index], linewidth=1.2)
                marker = MARKERS[index % len(MARKERS)]
                label = f"{plain(score)} score" if f"{plain(score)} score" not in axis.get_legend_handles_labels()[1] else None
                axis.plot(value, y, color=colours[index], marker=marker, markersize=4, linestyle="none", label=label)
        axis.set_yticks(range(len(runs)), [plain(name) for name in runs])
        axis.set_ylim(len(runs) - 0.5, -0.5)
        axis.tick_params(axis="y", length=0)
        axis.set_title(f"{time} time, {described.symbol}", loc="left")
        sns.despine(ax=axis, left=True)
    named = max(axes, key=lambda axis: len(axis.get_legend_handles_labels()[1]))
    names_above(figure, named, 3)
    log_noise(axes[-1])
    axes[-1].set_xlabel("noise-to-signal ratio, with intervals")
    return figure


def _curves_of_runs(runs: Mapping[str, xr.Dataset], scores: Sequence[str]) -> Figure:
    figure, axes = canvas(len(scores), 1.2 + 1.9 * len(scores))
    colours = sns.color_palette("colorblind" if len(runs) <= 8 else "viridis", len(runs))
    for axis, score in zip(axes, scores, strict=True):
        for index, (name, result) in enumerate(runs.items()):
            if score in result["score"].values:
                axis.plot(
                    result["noise_to_signal"],
                    result["autocorrelation"].sel(score=score),
                    color=colours[index],
                    marker=MARKERS[index % len(MARKERS)],
                    markersize=3,
                    linewidth=1,
                    label=plain(name),
                )
        axis.set_ylabel(f"$C(T)$ of the\n{plain(score)} score")
    if len(runs) <= MOST_NAMED:
        names_above(figure, max(axes, key=lambda axis: len(axis.get_legend_handles_labels()[1])), 2)
    log_noise(axes[-1])
    return figure
