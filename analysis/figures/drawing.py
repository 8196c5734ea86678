"""Publication-ready figures of a result."""

import itertools
from collections.abc import Iterator, Mapping

import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from gaussian_test.analysis.declarations import COMPUTED
from gaussian_test.analysis.figures.parts import (
    LEGEND,
    WIDTH,
    band,
    canvas,
    colours,
    curve,
    drawing,
    evenly_picked,
    log_noise,
    names_above,
    plain,
)
from gaussian_test.analysis.observables import record
from gaussian_test.analysis.observables.registry import declared_figures


def draw(result: xr.Dataset, groups: Mapping[str, xr.Dataset] | None = None) -> dict[str, Figure]:
    """Return all figures of a result."""
    others = groups or {}
    pictures = others.get("pictures")
    with drawing():
        figures = {name: drawn for figure in declared_figures(result) for name, drawn in _drawn(figure, result, others)}
        if pictures is not None and "row" in pictures.dims:
            figures = {"pictures": picture_grid(pictures, result), **figures}
    return figures


def _drawn(figure: record.Figure, result: xr.Dataset, groups: Mapping[str, xr.Dataset]) -> Iterator[tuple[str, Figure]]:
    """Draw a declared figure: once, once per network, or not at all if it would be empty."""
    if figure.shown_for and not (figure.shown_for in result and np.isfinite(result[figure.shown_for]).any()):
        return
    if figure.panels:
        yield figure.name, _panels(figure, result)
    elif figure.group:
        if figure.group in groups and (found := record.resolved(figure.draw)(groups[figure.group], result)) is not None:
            yield figure.name, found
    elif "{score}" in figure.name:
        for score, kind in zip(result["score"].values, result["score_kind"].values, strict=True):
            if str(kind) not in COMPUTED:
                yield figure.name.format(score=score), record.resolved(figure.draw)(result, str(score))
    else:
        yield figure.name, record.resolved(figure.draw)(result)


def _panels(declared: record.Figure, result: xr.Dataset) -> Figure:
    """Draw the curves of all scores, panel by panel."""
    panels = [one for one in declared.panels if not one.if_defined or np.isfinite(result[one.variable]).any()]
    figure, axes = canvas(len(panels), declared.height or 0.9 + 1.4 * len(panels))
    nu = result["noise_to_signal"].values
    for axis, panel in zip(axes, panels, strict=True):
        if "score" not in result[panel.variable].dims:
            band(axis, nu, result, panel.variable, colours(result)[0][1], 0, f"{result.attrs['confidence']:.0%} band")
        for index, (score, _) in enumerate(colours(result) if "score" in result[panel.variable].dims else ()):
            curve(axis, result, panel.variable, index)
            if panel.closed and "score" in result[panel.closed].dims:
                closed = result[panel.closed].sel(score=score).values
                if np.isfinite(closed).all():
                    axis.plot(nu, closed, color="black", linewidth=1, label=f"{plain(score)} score, closed form")
        if panel.closed and "score" not in result[panel.closed].dims:
            axis.plot(nu, result[panel.closed], color="black", linewidth=1, label="Gaussian, closed form")
        if panel.line is not None:
            axis.axhline(panel.line, color="0.6", linewidth=0.8, zorder=0, label=panel.line_label or None)
        axis.set_ylabel(plain(panel.label) if "$" not in panel.label else panel.label)
        if panel.log:
            axis.set_yscale("log")
        if panel.limits:
            axis.set_ylim(*panel.limits)
    log_noise(axes[-1])
    if declared.legend:
        names_above(figure, axes[0], declared.legend)
    else:
        axes[0].legend(**LEGEND)
    if declared.title:
        axes[0].set_title(declared.title.format(**result[panels[0].variable].attrs), loc="left")
    return figure


MOST_COLUMNS, MOST_ACROSS = 15, 3  # pictures of U-Turns in a row, and scores side by side
TITLE, LABEL = 0.65, 0.05  # inches above and below a grid of pictures


def picture_grid(pictures: xr.Dataset, result: xr.Dataset) -> Figure:
    """Draw ground-truth samples (rows) and where their U-Turns end (columns: turn times), the scores side by side."""
    start, ends = pictures["start"], [pictures["end"].sel(score=score) for score in pictures["score"].values]
    across = min(len(ends), MOST_ACROSS)
    down = -(-len(ends) // across)
    chosen = evenly_picked(ends[0].sizes["turn_time"], max(2, MOST_COLUMNS // across) - (across == 1) * 5)
    mosaics = [_mosaic([start, *(end.isel(turn_time=turn) for turn in chosen)], shades(result)) for end in ends]
    aspect = mosaics[0].shape[0] / mosaics[0].shape[1]
    figure = Figure(figsize=(WIDTH, down * (WIDTH / across * aspect + TITLE) + LABEL), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).ravel()
    nu, is_turn = result["noise_to_signal"].values, result.attrs["start"] == "noised_data"
    pitch = mosaics[0].shape[1] / (len(chosen) + 1)
    for axis, mosaic, score in itertools.zip_longest(axes, mosaics, map(str, pictures["score"].values)):
        axis.axis("off") if mosaic is None else axis.imshow(mosaic, interpolation="nearest", aspect="equal")
        axis.set_yticks([])
        if mosaic is not None:
            labels = ["GT" if is_turn else "start", *(f"{nu[turn]:.2g}" for turn in chosen)]
            axis.set_xticks((np.arange(len(labels)) + 0.45) * pitch, labels, fontsize="small")
            axis.set_title(f"{plain(score)} score", fontsize="medium")
        axis.tick_params(top=False, bottom=False, labeltop=True, labelbottom=False, pad=0)
        sns.despine(ax=axis, left=True, bottom=True)
    what = "ground-truth samples (GT), then end points of their U-Turns" if is_turn else "what was noised (start), then end points"
    figure.supxlabel(rf"{what}, by noise-to-signal ratio $\nu_T$", fontsize="medium")
    return figure


def _mosaic(columns: list[xr.DataArray], shown: tuple[float, float]) -> NDArray[np.float64]:
    """Return all pictures as one: laying out one axis each would take seconds."""
    height, width = columns[0].sizes["row"], columns[0].sizes["column"]
    gap = max(1, width // 8)  # white space between pictures, in pixels
    mosaic = np.ones((columns[0].sizes["sample"] * (height + gap) - gap, len(columns) * (width + gap) - gap, 3))
    for column, pictures in enumerate(columns):
        for row, picture in enumerate(as_rgb(pictures, shown)):
            top, left = row * (height + gap), column * (width + gap)
            mosaic[top : top + height, left : left + width] = picture
    return mosaic


def shades(result: xr.Dataset) -> tuple[float, float]:
    """Return the values drawn black and white: the range of the data; [-1, 1] for an archive that does not say it.

    Examples
    --------
    >>> shades(xr.Dataset(attrs={"data_low": 0.0, "data_high": 4.0}))
    (0.0, 4.0)
    """
    return float(result.attrs.get("data_low", -1.0)), float(result.attrs.get("data_high", 1.0))


def as_rgb(pictures: xr.DataArray, shown: tuple[float, float] = (-1.0, 1.0)) -> NDArray[np.float64]:
    """Convert pictures to RGB, from black to white over a range of values.

    Examples
    --------
    >>> as_rgb(xr.DataArray(np.zeros((1, 1, 1, 1)), dims=("sample", "channel", "row", "column"))).tolist()
    [[[[0.5, 0.5, 0.5]]]]
    """
    values = pictures.transpose("sample", "row", "column", "channel").values.astype(np.float64)
    values = np.clip((values - shown[0]) / ((shown[1] - shown[0]) or 1.0), 0, 1)
    return values[..., :3] if values.shape[-1] >= 3 else np.repeat(values[..., :1], 3, axis=-1)
