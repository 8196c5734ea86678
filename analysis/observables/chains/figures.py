"""Figure of chains of U-Turns."""

import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib.figure import Figure

from gaussian_test.analysis.declarations import parts_of
from gaussian_test.analysis.figures.parts import LEGEND, MARKERS, NU_LABEL, WIDTH, log_noise, names_above, plain


def chains(table: xr.Dataset, _: xr.Dataset) -> Figure:
    r"""Draw the auto-correlation along chains of U-Turns, and its integrated time."""
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
        value, low, high = parts_of(row, "autocorrelation_time")
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
