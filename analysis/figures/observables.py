"""Figures of the observables beside the Gaussian Test: what was measured of the score, the noised data and the end points."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from gaussian_test.analysis.figures.parts import (
    LEGEND,
    MARKERS,
    NU_LABEL,
    TIMES,
    WIDTH,
    band,
    canvas,
    colours,
    curve,
    log_noise,
    names_above,
    plain,
)

REFERENCES = {"isotropic": "isotropic", "gaussian": "Gaussian", "mixture": "mixture of classes", "empirical": "empirical"}
NAMED_CLASSES = 12  # whose intervals have room for names
STARTS = {"gaussian": "matched Gaussian", "isotropic": "noise alone"}


def draw(result: xr.Dataset, groups: Mapping[str, xr.Dataset]) -> dict[str, Figure]:
    """Draw a figure for each observable that a result has.

    Parameters
    ----------
    result : Dataset
        Root group of an archive.
    groups : mapping of str to Dataset
        Its other groups.

    Returns
    -------
    dict of str to Figure
        By name.
    """
    figures: dict[str, Figure] = {}
    if "score_explained" in result:
        figures["explained"] = explained(result)
        figures["affinity"] = affinity(result)
        figures["score_norm"] = score_norm(result)
    if "ks_mean" in result:
        figures["normality"] = normality(result)
        if "normality" in groups and "row" in groups["normality"].dims:
            figures["normality_map"] = normality_map(groups["normality"], result)
    if "frechet" in result:
        figures["quality"] = quality(result)
    if "start_kid" in result:
        figures["starts"] = starts(result)
    if "exchange_energy_pvalue" in result:
        figures["exchange"] = exchange(result)
        figures["change_field"] = change_field(result)
    if "sample_memorization_noise_to_signal" in result:
        figures["sample_times"] = sample_times(result)
    if "chains" in groups:
        figures["chains"] = chains(groups["chains"])
    return figures


def explained(result: xr.Dataset) -> Figure:
    r"""Draw the share of each score's squared norm that the reference scores explain.

    Parameters
    ----------
    result : Dataset
        Root group of an archive.

    Returns
    -------
    Figure
    """
    names = [str(name) for name in result["score"].values]
    figure, axes = canvas(len(names), 1.2 + 1.9 * len(names))
    nu, palette = result["noise_to_signal"].values, sns.color_palette("colorblind", 8)
    for axis, score in zip(axes, names, strict=True):
        for index, reference in enumerate(result["reference"].values):
            row = result.sel(score=score, reference=reference)
            band(axis, nu, row, "score_explained", palette[index + 1], index + 1, f"{REFERENCES[str(reference)]} score")
        axis.axhline(1, color="0.6", linewidth=0.8, zorder=0)
        axis.set_ylabel(f"share of the {plain(score)}\nscore explained")
        # a reference that is far off explains less than nothing: that far the axis need not go
        axis.set_ylim(max(-0.25, min(-0.05, float(result["score_explained_low"].min()))), 1.05)
    names_above(figure, axes[0], 4)
    log_noise(axes[-1])
    return figure


def affinity(result: xr.Dataset) -> Figure:
    r"""Draw the distance of each denoiser from the Gaussian one and from the best affine map out of sample, and what is gained.

    Parameters
    ----------
    result : Dataset
        Root group of an archive.

    Returns
    -------
    Figure
    """
    figure, axes = canvas(2, 4.8)
    nu = result["noise_to_signal"].values
    for index, (score, colour) in enumerate(colours(result)):
        row = result.sel(score=score)
        if not (row["denoiser_gap"].values > 0).any():
            continue  # the reference itself
        band(axes[0], nu, row, "denoiser_gap", colour, index, f"{plain(score)} from the Gaussian")
        axes[0].plot(
            nu, row["affine_gap"], color=colour, linestyle="--", linewidth=1, label=f"{plain(score)} from the best affine map"
        )
        band(axes[1], nu, row, "affine_gain", colour, index, f"{plain(score)} score, {result.attrs['confidence']:.0%} band")
    if axes[0].lines:
        axes[0].set_yscale("log")
        axes[0].yaxis.set_major_locator(LogLocator(numticks=7))
        axes[0].yaxis.set_minor_formatter(NullFormatter())
        axes[0].legend(**LEGEND)
        axes[1].legend(**LEGEND)
    axes[0].set_ylabel(r"$E\|D-D_{\mathrm{affine}}\|^2/\mathrm{tr}\,\Sigma$")
    axes[1].axhline(0, color="0.6", linewidth=0.8, zorder=0)
    axes[1].set_ylabel("gain of the best affine map\nover the Gaussian")
    log_noise(axes[1])
    return figure


def score_norm(result: xr.Dataset) -> Figure:
    r"""Draw the norm of the scores in its three normalisations, against the Gaussian's closed form.

    Parameters
    ----------
    result : Dataset
        Root group of an archive.

    Returns
    -------
    Figure
    """
    figure, axes = canvas(3, 6.2)
    nu = result["noise_to_signal"].values
    for axis, name, label in (
        (axes[0], "score_square_scaled", r"$\sigma_T^2\,E\|s\|^2/d$"),
        (axes[1], "score_norm", r"$E\|s\|$"),
        (axes[2], "score_norm_relative", r"$E\|s\|$ over that at" + "\nthe smallest noise"),
    ):
        for index in range(result.sizes["score"]):
            curve(axis, result, name, index)
        axis.plot(nu, result[f"{name}_gaussian"], color="black", linewidth=1, label="Gaussian, closed form")
        axis.set_ylabel(label)
    for axis in axes[1:]:
        axis.set_yscale("log")
    names_above(figure, axes[0], 2)
    log_noise(axes[2])
    return figure


def normality(result: xr.Dataset) -> Figure:
    r"""Draw the Kolmogorov-Smirnov test of the noised data: mean distance and shares of features, beside their calibrated null.

    Parameters
    ----------
    result : Dataset
        Root group of an archive.

    Returns
    -------
    Figure
    """
    figure, axes = canvas(2, 5.0)
    nu, palette = result["noise_to_signal"].values, sns.color_palette("colorblind", 8)
    axes[0].fill_between(
        nu, result["ks_mean_null_low"], result["ks_mean_null_high"], color="0.85", linewidth=0, label="Gaussian samples, 95 %"
    )
    axes[0].plot(nu, result["ks_mean"], color=palette[0], marker="o", markersize=3.5, linewidth=1, label="noised data")
    axes[0].set_ylabel("KS distance from the normal,\nmean over features")
    axes[0].legend(**LEGEND)
    for index, (name, label, expected) in enumerate(
        (
            ("ks_share_above", "farther than 0.06", float(result["ks_share_above_null"])),
            ("ks_share_rejected", "rejected at 5 %, calibrated", 0.05),
            ("ks_share_discovered", "false discovery rate 5 %", None),
        )
    ):
        axes[1].plot(nu, result[name], color=palette[index], marker=MARKERS[index], markersize=3.5, linewidth=1, label=label)
        if expected is not None:
            axes[1].axhline(expected, color=palette[index], linestyle=":", linewidth=1.2, label=f"normal features: {expected:.3g}")
    axes[1].set_ylabel("share of features")
    axes[1].set_ylim(-0.05, 1.05)
    axes[1].legend(ncols=2, **LEGEND)
    log_noise(axes[1])
    return figure


def normality_map(tests: xr.Dataset, result: xr.Dataset, columns: int = 6) -> Figure:
    """Draw the Kolmogorov-Smirnov distance pixel by pixel at some turn times, the mean over channels.

    Parameters
    ----------
    tests : Dataset
        Group ``normality`` of an archive.
    result : Dataset
        Its root group.
    columns : int
        Number of turn times shown, evenly picked.

    Returns
    -------
    Figure
    """
    distance = tests["ks_distance"].mean("channel")
    count = min(columns, distance.sizes["turn_time"])
    chosen = np.unique(np.linspace(0, distance.sizes["turn_time"] - 1, count).round().astype(int))
    figure = Figure(figsize=(WIDTH, WIDTH / len(chosen) + 0.7), layout="constrained")
    axes = figure.subplots(1, len(chosen), squeeze=False)[0]
    top = float(distance.isel(turn_time=chosen).max())
    for axis, turn in zip(axes, chosen, strict=True):
        image = axis.imshow(distance.isel(turn_time=turn), cmap="cividis", vmin=0, vmax=top, interpolation="nearest")
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_title(rf"$\nu_T$ = {float(result['noise_to_signal'][turn]):.3g}")
        sns.despine(ax=axis, left=True, bottom=True)
    figure.colorbar(image, ax=axes, shrink=0.8, label="KS distance")
    return figure


def quality(result: xr.Dataset) -> Figure:
    r"""Draw how far the end points are from the ground truth: Fréchet distance and polynomial MMD on features.

    Parameters
    ----------
    result : Dataset
        Root group of an archive.

    Returns
    -------
    Figure
    """
    figure, axes = canvas(2, 5.0)
    for index in range(result.sizes["score"]):
        curve(axes[0], result, "frechet", index)
        curve(axes[1], result, "kid", index)
    for axis, label in zip(axes, ("Fréchet distance,\nits bias taken off", "squared MMD,\npolynomial kernel"), strict=True):
        axis.axhline(0, color="0.6", linewidth=0.8, zorder=0)
        axis.set_ylabel(label)
    names_above(figure, axes[0], 3)
    axes[0].set_title(f"on {result['frechet'].attrs['features']}", loc="left")
    log_noise(axes[1])
    return figure


def starts(result: xr.Dataset) -> Figure:
    """Draw how far end points from other starts are from those of the U-Turns, and from the ground truth.

    Parameters
    ----------
    result : Dataset
        Root group of an archive.

    Returns
    -------
    Figure
    """
    figure, axes = canvas(2, 5.2)
    nu = result["noise_to_signal"].values
    for axis, name, label in (
        (axes[0], "start_kid", "MMD from the\nends of U-Turns"),
        (axes[1], "start_frechet_to_truth", "Fréchet distance from\nthe ground truth"),
    ):
        for index, (score, colour) in enumerate(colours(result)):
            for start, style in zip(result["start"].values, ("-", "--"), strict=False):
                row = result.sel(score=score, start=start)
                band(axis, nu, row, name, colour, index, f"{plain(score)} score from {STARTS[str(start)]}", style)
        axis.set_ylabel(label)
        axis.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    names_above(figure, axes[0], 2)
    log_noise(axes[1])
    return figure


def exchange(result: xr.Dataset) -> Figure:
    """Draw the p-values of the tests that start and end of a U-Turn are an exchangeable pair.

    Parameters
    ----------
    result : Dataset
        Root group of an archive.

    Returns
    -------
    Figure
    """
    panels = [
        (name, label)
        for name, label in (("class", "class transitions"), ("moments", "antisymmetric\nmoments"), ("energy", "energy distance"))
        if np.isfinite(result[f"exchange_{name}_pvalue"]).any()
    ]
    if not panels:
        figure, axes = canvas(1, 2.2)
        axes[0].text(0.5, 0.5, "no score is reversed by the SDE", ha="center", transform=axes[0].transAxes)
        return figure
    figure, axes = canvas(len(panels), 0.9 + 1.5 * len(panels))
    nu = result["noise_to_signal"].values
    for axis, (name, label) in zip(axes, panels, strict=True):
        for index, (score, colour) in enumerate(colours(result)):
            values = result[f"exchange_{name}_pvalue"].sel(score=score)
            axis.plot(
                nu,
                values,
                color=colour,
                marker=MARKERS[index % len(MARKERS)],
                markersize=3.5,
                linewidth=0.6,
                label=f"{plain(score)} score",
            )
        axis.axhline(0.05, color="black", linestyle=":", linewidth=1.2, label="5 %")
        axis.set_yscale("log")
        axis.set_ylim(5e-4, 1.4)
        axis.set_ylabel(f"p-value,\n{label}")
    names_above(figure, axes[0], 4)
    log_noise(axes[-1])
    return figure


def change_field(result: xr.Dataset) -> Figure:
    r"""Draw susceptibility and correlation length of the change field :math:`\tilde x_0 - x_0`.

    Parameters
    ----------
    result : Dataset
        Root group of an archive.

    Returns
    -------
    Figure
    """
    lengths = [
        name for name in ("change_correlation_length", "change_correlation_length_magnitude") if np.isfinite(result[name]).any()
    ]
    panels = ["change_susceptibility", "change_susceptibility_magnitude", *lengths]
    labels = {
        "change_susceptibility": "susceptibility,\nchange",
        "change_susceptibility_magnitude": "susceptibility,\n|change|",
        "change_correlation_length": "correlation length\n(pixel), change",
        "change_correlation_length_magnitude": "correlation length\n(pixel), |change|",
    }
    figure, axes = canvas(len(panels), 0.9 + 1.4 * len(panels))
    nu = result["noise_to_signal"].values
    for axis, name in zip(axes, panels, strict=True):
        for index in range(result.sizes["score"]):
            curve(axis, result, name, index)
        if name == "change_susceptibility":
            axis.plot(nu, result["change_susceptibility_gaussian"], color="black", linewidth=1, label="Gaussian, closed form")
        axis.set_ylabel(labels[name])
    names_above(figure, axes[0], 2)
    log_noise(axes[-1])
    return figure


def sample_times(result: xr.Dataset) -> Figure:
    """Draw the times of the samples as a histogram and those of the classes with their intervals, named if they are few.

    Parameters
    ----------
    result : Dataset
        Root group of an archive.

    Returns
    -------
    Figure
    """
    times = [name for name in ("memorization", "speciation") if np.isfinite(result[f"sample_{name}_noise_to_signal"]).any()]
    names = [str(name) for name in result["score"].values]
    classes = result["class"].values
    named = len(classes) <= NAMED_CLASSES
    height = 0.6 + len(times) * (0.5 + (1.0 if named else 0.75) * len(names))
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(max(len(times), 1), 1, sharex=True, squeeze=False)[:, 0]
    low, high = float(result["noise_to_signal"][0]), float(result["noise_to_signal"][-1])
    for axis, time in zip(axes, times, strict=False):
        for place, (score, colour) in enumerate(colours(result)):
            row = result.sel(score=score)
            values = row[f"sample_{time}_noise_to_signal"].values
            inside = values[np.isfinite(values) & (values > 0)]
            if len(inside) > 1:
                heights, edges = np.histogram(np.log(inside), bins=np.linspace(np.log(low), np.log(high), 41))
                axis.stairs(
                    place + 0.8 * heights / heights.max(), np.exp(edges), baseline=place, fill=True, color=colour, alpha=0.45
                )
            of_class, bottom, top = (row[f"{time}_noise_to_signal_by_class{suffix}"].values for suffix in ("", "_low", "_high"))
            for index in np.flatnonzero(np.isfinite(of_class)):
                y = place + 0.1 + 0.65 * index / max(len(of_class) - 1, 1)
                axis.plot([max(bottom[index], low), min(top[index], high)], [y, y], color="0.25", linewidth=1)
                axis.plot(of_class[index], y, color="0.25", marker="|", markersize=5)
                if named:
                    end = (min(top[index], high), y)
                    axis.annotate(str(classes[index]), end, (2, 0), textcoords="offset points", va="center", fontsize=5)
        axis.set_yticks(np.arange(len(names)) + 0.4, [plain(name) for name in names])
        axis.tick_params(axis="y", length=0)
        axis.set_ylim(-0.1, len(names) - 0.1)
        axis.set_title(f"{TIMES[time]}: histogram over samples; classes with intervals", loc="left")
        sns.despine(ax=axis, left=True)
    log_noise(axes[-1])
    axes[-1].set_xlabel("noise-to-signal ratio")
    return figure


def chains(table: xr.Dataset) -> Figure:
    r"""Draw the auto-correlation along chains of U-Turns, and its integrated time.

    Parameters
    ----------
    table : Dataset
        Group ``chains`` of an archive.

    Returns
    -------
    Figure
    """
    names = [str(name) for name in table["score"].values]
    levels = table["noise_to_signal"].values
    figure = Figure(figsize=(WIDTH, 1.4 + 1.9 * (len(names) + 1)), layout="constrained")
    axes = figure.subplots(len(names) + 1, 1, squeeze=False)[:, 0]
    shades = sns.color_palette("viridis", len(levels))
    for axis, score in zip(axes, names, strict=False):
        for index, level in enumerate(levels):
            row = table.sel(score=score).isel(turn_time=index)
            axis.fill_between(row["step"], row["autocorrelation_low"], row["autocorrelation_high"], color=shades[index], alpha=0.25)
            axis.plot(
                row["step"], row["autocorrelation"], color=shades[index], marker=".", linewidth=1, label=rf"$\nu_T$ = {level:.3g}"
            )
        axis.set_ylabel(f"$C(k)$, {plain(score)}")
        axis.set_ylim(-0.15, 1.05)
        sns.despine(ax=axis)
    axes[len(names) - 1].set_xlabel("number of U-Turns, $k$")
    axis = axes[-1]
    for index, (score, colour) in enumerate(zip(names, sns.color_palette("colorblind", len(names)), strict=True)):
        row = table.sel(score=score)
        value, low, high = (row[f"autocorrelation_time{suffix}"].values for suffix in ("", "_low", "_high"))
        error = np.array([value - low, high - value]).clip(min=0)
        axis.errorbar(
            levels, value, error, color=colour, marker=MARKERS[index], markersize=4, linewidth=1, label=f"{plain(score)} score"
        )
    axis.plot(levels, table["autocorrelation_time_gaussian"], color="black", linewidth=1, label="Gaussian, closed form")
    axis.set_yscale("log")
    axis.set_ylabel(r"auto-correlation time $\tau$" + "\n(U-Turns)")
    axis.legend(**LEGEND)
    sns.despine(ax=axis)
    log_noise(axis)
    axis.set_xlabel(NU_LABEL)
    names_above(figure, axes[0], 3)
    return figure
