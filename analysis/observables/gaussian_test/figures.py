"""Figures of the Gaussian Test: auto-correlations, gap, times, detailed balance."""

import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from gaussian_test.analysis.declarations import TIMES, reasons_of
from gaussian_test.analysis.figures.parts import LEGEND, MARKERS, band, canvas, colours, curve, log_noise, mark, names_above, plain


def autocorrelation(result: xr.Dataset) -> Figure:
    """Draw the U-Turn auto-correlation functions with their bands, and the closed forms of affine scores."""
    figure, axes = canvas(1, 3.4)
    axis = axes[0]
    nu = result["noise_to_signal"].values
    for index, score in enumerate(result["score"].values):
        row = result.sel(score=score)
        curve(axis, result, "autocorrelation", index)
        for name, style, label in (("discrete", "--", "through the steps simulated"), ("exact", "-", "closed form")):
            closed = row[f"autocorrelation_{name}"].values
            if np.isfinite(closed).any() and not (
                name == "discrete" and np.allclose(closed, row["autocorrelation_exact"], atol=1e-6)
            ):
                axis.plot(nu, closed, color="black", linestyle=style, linewidth=1, label=f"{plain(score)} score, {label}")
    log_noise(axis)
    axis.set_ylabel(r"auto-correlation $C(T)$")
    axis.set_ylim(
        min(-0.02, float(result["autocorrelation_low"].min()) - 0.02), max(1.05, float(result["autocorrelation_high"].max()) + 0.02)
    )
    axis.legend(**LEGEND)
    return figure


GAPS = {"gap": "U-Turns", "gap_one_shot": "one evaluation"}


def gap(result: xr.Dataset) -> Figure:
    r"""Draw the gaps to the Gaussian of U-Turns and of one evaluation, the tolerance and the affine time, and the divergence."""
    times = result["affine_noise_to_signal"].attrs
    read_off, tolerance = str(times.get("read_off", "gap_one_shot")), float(times.get("tolerance", np.nan))
    # under exact reversal the two gaps are one; omit the reference itself, which is zero by construction
    drawn = {
        index: [name for name in GAPS if name == read_off or (row[name].any() and not row[name].equals(row[read_off]))]
        for index, row in ((index, result.isel(score=index)) for index in range(result.sizes["score"]))
        if row["gap"].any() and not row["gap"].isnull().all()
    }
    figure, axes = canvas(2, 4.6 + 0.2 * sum(len(names) - 1 for names in drawn.values()))
    nu = result["noise_to_signal"].values
    for index, names in drawn.items():
        score, colour = colours(result)[index]
        for name in names:
            of = f", {GAPS[name]}" if len(names) > 1 else ""
            label = f"{plain(score)} score{of}, {result.attrs['confidence']:.0%} band"
            band(axes[0], nu, result.isel(score=index), name, colour, index, label, "-" if name == read_off else ":")
    for index, names in drawn.items():  # after all curves: the legend has a column of curves and one of times
        score, colour = colours(result)[index]
        said = [plain(score)] * (result.sizes["score"] > 2) + [f"({GAPS[read_off]})"] * (len(names) > 1)
        mark(axes[0], result.isel(score=index), "affine", colour, " ".join(said))
    if np.isfinite(tolerance):
        axes[0].axhspan(-tolerance, tolerance, color="0.85", zorder=-1, label=rf"tolerance $\pm${tolerance:g}")
    axes[0].axhline(0, color="0.6", linewidth=0.8, zorder=0)
    axes[0].set_ylabel(r"gap $\Delta(T)=C-C_G$")
    if drawn:
        names_above(figure, axes[0], 2)
    else:
        axes[0].text(
            0.5, 0.6, "zero by construction: the only score is the Gaussian itself", ha="center", transform=axes[0].transAxes
        )
    divergence = result["kl_from_gaussian"].values
    shown = divergence > 0
    if shown.any():
        axes[1].plot(nu[shown], divergence[shown], color="black", marker=".", linewidth=1)
        axes[1].set_yscale("log")
        axes[1].yaxis.set_major_locator(LogLocator(numticks=7))
        axes[1].yaxis.set_minor_formatter(NullFormatter())
    else:
        axes[1].text(0.5, 0.5, reasons_of(result["kl_from_gaussian"]).get("", "zero"), ha="center", transform=axes[1].transAxes)
    axes[1].set_ylabel(r"$\mathrm{KL}(p_T\,\|\,\mathcal{N}_T)$ (nat)")
    log_noise(axes[1])
    return figure


def times(result: xr.Dataset) -> Figure:
    """Draw memorized share and class retention with their bands, the measured times with intervals, and the predicted ones."""
    figure, axes = canvas(2, 5.0)
    nu = result["noise_to_signal"].values
    for axis, name, time, ylabel in (
        (axes[0], "memorized_share", "memorization", "memorized share"),
        (axes[1], "class_retention", "speciation", "class retention"),
    ):
        for index, (score, colour) in enumerate(colours(result)):
            row = result.sel(score=score)
            curve(axis, result, name, index)
            mark(axis, row, time, colour, "")
        predicted = float(result[f"{time}_noise_to_signal_predicted"][0])
        if np.isfinite(predicted) and nu[0] <= predicted <= nu[-1]:
            label = f"{TIMES[time].symbol} predicted: {predicted:.3g}"
            axis.axvline(predicted, color="black", linestyle=":", linewidth=1.2, label=label)
        axis.set_ylabel(ylabel)
        axis.set_ylim(-0.05, 1.05)
        axis.legend(loc="upper right", **LEGEND)
    log_noise(axes[1])
    return figure


def balance(result: xr.Dataset, score: str) -> Figure:
    r"""Draw the three estimators of a network's auto-correlation, and how they differ: zero for an exact score."""
    figure, axes = canvas(2, 4.8)
    row, nu = result.sel(score=score), result["noise_to_signal"].values
    colours = sns.color_palette("colorblind", 3)
    for (name, label), colour, marker in zip(
        (
            ("autocorrelation", f"simulated ({row['kernel'].item()})"),
            ("autocorrelation_one_shot", r"one evaluation, $x_0\cdot D$"),
            ("autocorrelation_one_shot_squared", r"one evaluation, $\|D\|^2$"),
        ),
        colours,
        MARKERS,
        strict=False,
    ):
        axes[0].errorbar(
            nu,
            row[name],
            2 * row[f"{name}_se"],
            color=colour,
            marker=marker,
            markersize=3.5,
            linewidth=1,
            label=rf"{label}, $\pm 2$ s.e.",
        )
    axes[0].set_ylabel(rf"$C(T)$ of the {plain(score)} score")
    axes[0].legend(**LEGEND)
    for name, label, colour, marker in (
        ("balance_squared", r"$\|D\|^2 - x_0\cdot D$", colours[2], MARKERS[2]),
        ("balance_simulated", r"simulated $- x_0\cdot D$, less the Gaussian's", colours[0], MARKERS[0]),
    ):
        if np.isfinite(row[name]).all():
            axes[1].fill_between(nu, row[f"{name}_low"], row[f"{name}_high"], color=colour, alpha=0.2, linewidth=0)
            text = f"{label}, {result.attrs['confidence']:.0%} band"
            axes[1].plot(nu, row[name], color=colour, marker=marker, markersize=3.5, linewidth=1, label=text)
    axes[1].axhline(0, color="0.6", linewidth=0.8, zorder=0)
    axes[1].set_ylabel("violation of\ndetailed balance")
    axes[1].legend(**LEGEND)
    log_noise(axes[1])
    return figure
