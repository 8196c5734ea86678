"""Figures of the tests of normality."""

import seaborn as sns
import xarray as xr
from matplotlib.figure import Figure

from gaussian_test.analysis.figures.parts import LEGEND, MARKERS, WIDTH, canvas, evenly_picked, log_noise


def normality(result: xr.Dataset) -> Figure:
    r"""Draw the Kolmogorov-Smirnov test of the noised data: mean distance and shares of features, with their calibrated null."""
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


def normality_map(tests: xr.Dataset, result: xr.Dataset, columns: int = 6) -> Figure | None:
    """Draw the Kolmogorov-Smirnov distance pixel by pixel at some turn times, the mean over channels."""
    if "row" not in tests.dims:
        return None
    distance = tests["ks_distance"].mean("channel")
    chosen = evenly_picked(distance.sizes["turn_time"], columns)
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
