"""Figures of the Gaussian Test, fit for a paper: bands, closed forms, units, a palette that the colour-blind can read."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from gaussian_test.analysis.figures import observables, own
from gaussian_test.analysis.figures.parts import (
    COMPUTED,
    LEGEND,
    MARKERS,
    STYLE,
    TIMES,
    WIDTH,
    canvas,
    colours,
    curve,
    log_noise,
    mark,
    names_above,
    plain,
)


def draw(result: xr.Dataset, groups: Mapping[str, xr.Dataset] | None = None) -> dict[str, Figure]:
    """Draw all figures of a result.

    Parameters
    ----------
    result : Dataset
        Root group of an archive.
    groups : mapping of str to Dataset, optional
        Its other groups: ``pictures``, ``normality``, ``chains`` are drawn.

    Returns
    -------
    dict of str to Figure
        ``end_points``; ``autocorrelation``, ``gap`` and ``times`` where the start of the run leaves them defined, and then
        ``balance_<score>`` for every network; one for each observable that was measured; ``pictures_<score>`` where there are
        pictures of two-dimensional samples.
    """
    others = groups or {}
    pictures = others.get("pictures")
    with mpl.rc_context(STYLE), sns.axes_style("ticks"):  # type: ignore[arg-type] # keys are literals there
        figures = {"end_points": end_points(result)}
        if np.isfinite(result["autocorrelation"]).any():
            figures["autocorrelation"] = autocorrelation(result)
        if np.isfinite(result["gap"]).any():
            figures |= {"gap": gap(result), "times": times(result)}
            figures |= {f"balance_{score}": balance(result, score) for score in _networks(result)}
        figures |= observables.draw(result, others) | own.draw(result)
        if pictures is not None and "row" in pictures.dims:
            for score in pictures["score"].values:
                figures[f"pictures_{score}"] = picture_grid(pictures, result, str(score))
    return figures


def autocorrelation(result: xr.Dataset) -> Figure:
    """Draw the U-Turn auto-correlation functions with their bands, and the closed forms of affine scores.

    Parameters
    ----------
    result : Dataset
        Root group of an archive.

    Returns
    -------
    Figure
    """
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


def gap(result: xr.Dataset) -> Figure:
    r"""Draw the gap to the Gaussian with its band and the affine time, and the divergence from the Gaussian.

    Parameters
    ----------
    result : Dataset
        Root group of an archive.

    Returns
    -------
    Figure
    """
    figure, axes = canvas(2, 4.6)
    nu = result["noise_to_signal"].values
    # not the reference itself, which is zero by construction
    drawn = [index for index, values in enumerate(result["gap"].transpose("score", ...).values) if values.any()]
    for index in drawn:
        curve(axes[0], result, "gap", index)
    for index in drawn:  # after all curves: names are a column of curves and one of times
        score, colour = colours(result)[index]
        mark(axes[0], result.sel(score=score), "affine", colour, plain(score) if result.sizes["score"] > 2 else "")
    axes[0].axhline(0, color="0.6", linewidth=0.8, zorder=0)
    axes[0].set_ylabel(r"gap $\Delta(T)=C-C_G$")
    if axes[0].lines[1:]:
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
        axes[1].text(0.5, 0.5, result["kl_from_gaussian"].attrs.get("reason", "zero"), ha="center", transform=axes[1].transAxes)
    axes[1].set_ylabel(r"$\mathrm{KL}(p_T\,\|\,\mathcal{N}_T)$ (nat)")
    log_noise(axes[1])
    return figure


def times(result: xr.Dataset) -> Figure:
    """Draw memorized share and class retention with their bands, the measured times with intervals, and the predicted ones.

    Parameters
    ----------
    result : Dataset
        Root group of an archive.

    Returns
    -------
    Figure
    """
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
            axis.axvline(predicted, color="black", linestyle=":", linewidth=1.2, label=f"{TIMES[time]} predicted: {predicted:.3g}")
        axis.set_ylabel(ylabel)
        axis.set_ylim(-0.05, 1.05)
        axis.legend(loc="upper right", **LEGEND)
    log_noise(axes[1])
    return figure


def balance(result: xr.Dataset, score: str) -> Figure:
    r"""Draw the three estimators of a network's auto-correlation, and how they differ: zero for an exact score.

    Parameters
    ----------
    result : Dataset
        Root group of an archive.
    score : str
        The network.

    Returns
    -------
    Figure
    """
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


def end_points(result: xr.Dataset) -> Figure:
    r"""Draw the variance of the end points, and the share of them that lies closer to a ground-truth sample than is typical.

    Parameters
    ----------
    result : Dataset
        Root group of an archive.

    Returns
    -------
    Figure
    """
    figure, axes = canvas(2, 5.0)
    nu = result["noise_to_signal"].values
    for index, score in enumerate(result["score"].values):
        curve(axes[0], result, "end_square", index)
        curve(axes[1], result, "close_share", index)
        closed = result["end_square_discrete"].sel(score=score).values
        if np.isfinite(closed).all():
            axes[0].plot(nu, closed, color="black", linewidth=1, label=f"{plain(score)} score, closed form")
    axes[0].axhline(1, color="0.6", linewidth=0.8, zorder=0, label="the data")
    axes[0].set_ylabel(r"$E\|\tilde x_0-\mu\|^2/\mathrm{tr}\,\Sigma$")
    names_above(figure, axes[0], 3)
    axes[1].set_ylabel("share closer to a sample\nthan samples to each other")
    axes[1].set_ylim(-0.05, 1.05)
    log_noise(axes[1])
    return figure


def _networks(result: xr.Dataset) -> list[str]:
    return [str(score) for score in result["score"].values if str(result["score_kind"].sel(score=score).item()) not in COMPUTED]


def picture_grid(pictures: xr.Dataset, result: xr.Dataset, score: str, columns: int = 10) -> Figure:
    """Draw ground-truth samples (rows) and where their U-Turns end (columns: turn times).

    Parameters
    ----------
    pictures : Dataset
        Group of pictures.
    result : Dataset
        Root group of the archive, for the noise levels.
    score : str
        Whose end points.
    columns : int
        Number of turn times shown, evenly picked.

    Returns
    -------
    Figure
    """
    start, end = pictures["start"], pictures["end"].sel(score=score)
    chosen = np.unique(np.linspace(0, end.sizes["turn_time"] - 1, min(columns, end.sizes["turn_time"])).round().astype(int))
    grid = [start, *(end.isel(turn_time=turn) for turn in chosen)]
    height, width = start.sizes["row"], start.sizes["column"]
    gap_width = max(1, width // 8)  # white space between pictures, in pixels
    # one image for all pictures: an axis for each would take seconds to lay out
    mosaic = np.ones((start.sizes["sample"] * (height + gap_width) - gap_width, len(grid) * (width + gap_width) - gap_width, 3))
    for column, pictures_of_column in enumerate(grid):
        values = as_rgb(pictures_of_column)
        left = column * (width + gap_width)
        for row, picture in enumerate(values):
            top = row * (height + gap_width)
            mosaic[top : top + height, left : left + width] = picture
    aspect = mosaic.shape[0] / mosaic.shape[1]
    figure = Figure(figsize=(WIDTH, WIDTH * aspect + 0.5), layout="constrained")
    axis = figure.subplots()
    axis.imshow(mosaic, interpolation="nearest", aspect="equal")
    nu = result["noise_to_signal"].values
    is_turn = result.attrs["start"] == "noised_data"
    centres = np.arange(len(grid)) * (width + gap_width) + (width - 1) / 2
    first = "GT" if is_turn else "start"
    axis.set_xticks(centres, [first, *(f"{nu[turn]:.3g}" for turn in chosen)])
    axis.set_yticks([])
    axis.tick_params(top=False, bottom=False, labeltop=True, labelbottom=False)
    sns.despine(ax=axis, left=True, bottom=True)
    what = "ground-truth sample (GT), then end points of its U-Turns" if is_turn else "what was noised (start), then end points"
    axis.set_xlabel(rf"{plain(score)} score: {what} by noise-to-signal ratio $\nu_T$")
    return figure


def as_rgb(pictures: xr.DataArray) -> NDArray[np.float64]:
    """Return pictures as red, green and blue.

    Parameters
    ----------
    pictures : DataArray
        Dimensions sample, channel, row and column, values in [-1, 1]; a fourth channel is left out, a single one is grey.

    Returns
    -------
    array
        Shape (sample, row, column, 3), values in [0, 1].

    Examples
    --------
    >>> as_rgb(xr.DataArray(np.zeros((1, 1, 1, 1)), dims=("sample", "channel", "row", "column"))).tolist()
    [[[[0.5, 0.5, 0.5]]]]
    """
    values = np.clip((pictures.transpose("sample", "row", "column", "channel").values.astype(np.float64) + 1) / 2, 0, 1)
    return values[..., :3] if values.shape[-1] >= 3 else np.repeat(values[..., :1], 3, axis=-1)
