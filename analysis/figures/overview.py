"""Figures that compare results, sweep runs or samplers."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from gaussian_test.analysis.declarations import INTERVAL, TIMES, parts_of
from gaussian_test.analysis.figures.parts import LEGEND, MARKERS, STYLE, WIDTH, band, canvas, drawing, log_noise, names_above, plain
from gaussian_test.analysis.observables.registry import titles

MOST_NAMED = 12  # runs that a legend can hold


def draw_comparison(a: xr.Dataset, b: xr.Dataset, comparison: xr.Dataset, names: tuple[str, str]) -> dict[str, Figure]:
    """Draw each curve that two results have, and below it their difference with its band."""
    called = titles()
    with drawing():
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
    return {f"{name}_difference{suffix}": f"{name}{suffix}" for suffix in ("", *INTERVAL)}


def draw_runs(runs: Mapping[str, xr.Dataset]) -> dict[str, Figure]:
    """Draw the times of several runs with their intervals, and their auto-correlations."""
    scores = list(dict.fromkeys(str(score) for result in runs.values() for score in result["score"].values))
    with drawing():
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
                value, low, high = map(float, parts_of(row, f"{time}_noise_to_signal"))
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


FLOOR = 1e-12  # values below are rounding, which a logarithmic axis would magnify
DASHES = ("-", "--", ":")  # kernels can coincide: dashes show the line underneath


def sampler_figure(study: xr.Dataset) -> Figure:
    r"""Draw relative :math:`W_2` and :math:`|C - C_{exact}|` of each kernel against its score evaluations, both logarithmic.

    Values that are undefined or zero to rounding (below :data:`FLOOR`) are omitted; a note above the panel says so. A kernel whose
    cost does not depend on the steps, the exact one, is a horizontal line. If the auto-correlation is undefined for all kernels,
    there is one panel.

    Examples
    --------
    >>> from gaussian_test.analysis.theory.samplers import KERNELS, sampler_study
    >>> from gaussian_test.sampler import VarianceExploding
    >>> figure = sampler_figure(sampler_study([3.0, 1.0], VarianceExploding(), 80.0, KERNELS, [8, 16, 32]))
    >>> [axis.get_yscale() for axis in figure.axes]
    ['log', 'log']
    """
    with drawing():
        panels = [("wasserstein_relative", "distance of the end points\n" + r"$W_2/\sqrt{\mathrm{tr}\,\Sigma}$")]
        if np.isfinite(study["autocorrelation_error"]).any():
            panels.append(("autocorrelation_error", "error of the auto-correlation\n" + r"$|C(T)-C_{\mathrm{exact}}(T)|$"))
        figure, axes = canvas(len(panels), 1.0 + 2.3 * len(panels))
        for axis, (name, label) in zip(axes, panels, strict=True):
            _curves(axis, study, name)
            axis.set_ylabel(label)
        log_noise(axes[-1])
        start = study.attrs["start"].replace("_", " ")
        axes[-1].set_xlabel(rf"score evaluations per sample, from $\nu_T$ = {float(study['noise_to_signal']):.4g} ({start} start)")
        names_above(figure, axes[0], 4)
    return figure


def _curves(axis: Axes, study: xr.Dataset, name: str) -> None:
    """Draw one line per kernel, with the same colour and marker in each panel, and name what is omitted."""
    colours = [*sns.color_palette("colorblind", 6), (0.0, 0.0, 0.0)]  # the seventh of the palette is too pale for a line
    left_out: dict[str, list[str]] = {}
    for index, kernel in enumerate(study["kernel"].values):
        row = study.sel(kernel=kernel)
        values, evaluations = np.abs(row[name].values), row["evaluations"].values
        if not (values > FLOOR).any():
            why = "zero to rounding" if np.isfinite(values).any() else "undefined with churn"
            left_out.setdefault(why, []).append(str(kernel))
        drawn = np.where(values > FLOOR, values, np.nan)
        if len(evaluations) > 1 and (evaluations == evaluations[0]).all():
            axis.axhline(drawn[0], color="0.5", linestyle="-.", linewidth=1, label=kernel)
            continue
        axis.plot(
            evaluations,
            drawn,
            color=colours[index % len(colours)],
            linestyle=DASHES[index % len(DASHES)],
            linewidth=1,
            marker=MARKERS[index % len(MARKERS)],
            markersize=4,
            markerfacecolor="none",
            label=kernel,
        )
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(numticks=7))
    axis.yaxis.set_minor_formatter(NullFormatter())
    if left_out:
        text = "not drawn: " + "; ".join(f"{', '.join(kernels)} ({why})" for why, kernels in left_out.items())
        axis.set_title(textwrap.fill(text, 100), loc="left", fontsize=STYLE["legend.fontsize"])
