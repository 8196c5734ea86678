"""Shared parts of figures: style, noise axes, bands, files."""

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib import font_manager, style as styles
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.mathtext import MathTextParser
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from gaussian_test.analysis.declarations import TIMES, parts_of
from gaussian_test.locks import FIGURE_LOCK
from gaussian_test.machine import inside, replaceable

WIDTH = 6.4  # inches; figures are drawn at print size
STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.titlesize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "lines.linewidth": 1.6,
    "pdf.fonttype": 42,  # text stays text
    "savefig.dpi": 200,
    "figure.autolayout": False,  # a figure is laid out once, by lay_out
    "figure.constrained_layout.use": False,
}
MARKERS = "osD^vPX"
LEGEND: dict[str, Any] = {"frameon": True, "framealpha": 0.9, "edgecolor": "none"}  # readable where lines pass behind it
NU_LABEL = r"noise-to-signal ratio at the turn, $\nu_T=\sigma_T/\alpha_T$"


@contextmanager
def drawing(further: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Draw or write figures in their style, whatever a matplotlibrc says, one thread at a time.

    Examples
    --------
    >>> with drawing({"svg.fonttype": "path"}):
    ...     figure, _ = canvas(1, 2.0)
    """
    with FIGURE_LOCK, styles.context(["default", STYLE | dict(further or {})]), sns.axes_style("ticks"):
        try:
            yield
        finally:  # matplotlib keeps the files of fonts open, for each thread anew, and offers no other way to close them
            for cached in (getattr(font_manager, "_get_font", None), getattr(MathTextParser, "_parse_cached", None)):
                if cached is not None:
                    cached.cache_clear()


def save(figures: Mapping[str, Figure], folder: Path, pdf: bool = False) -> list[Path]:
    """Write figures as PNG, and as PDF if asked, each file atomically.

    Raises UserError if a name leads out of the folder or is that of a link or special file, OSError with a file that fails.
    """
    paths = {name: [inside(folder, f"{name}.{kind}") for kind in ("png", *("pdf",) * pdf)] for name in figures}
    folder.mkdir(parents=True, exist_ok=True)
    with drawing():
        for name, figure in figures.items():
            lay_out(figure)
            for path in paths[name]:
                kind = path.suffix[1:]
                temporary = folder / f".{name}.{secrets.token_hex(8)}.{kind}"
                try:
                    # no creation date: the same result gives the same file
                    figure.savefig(temporary, metadata={"CreationDate": None} if kind == "pdf" else None)
                    os.replace(temporary, replaceable(path))
                except OSError as error:  # a full disk names no file
                    raise OSError(error.errno, error.strerror, str(path)) from error
                finally:
                    temporary.unlink(missing_ok=True)
    return [path for both in paths.values() for path in both]


def lay_out(figure: Figure) -> None:
    """Lay out a figure once; a second layout would start from the result of the first.

    Examples
    --------
    >>> figure, _ = canvas(1, 2.0)
    >>> lay_out(figure)
    >>> place = figure.axes[0].get_position().bounds
    >>> lay_out(figure)
    >>> figure.axes[0].get_position().bounds == place
    True
    """
    if (engine := figure.get_layout_engine()) is not None:
        # minor ticks without labels, shorter than the others, are most of the time of a layout, and none of its room
        sides = [one for axes in figure.axes for one in (axes.xaxis, axes.yaxis)]
        minor = {one: one.get_minor_locator() for one in sides if isinstance(one.get_minor_formatter(), NullFormatter)}
        for one in minor:
            one.set_minor_locator(NullLocator())
        engine.execute(figure)
        for one, locator in minor.items():
            one.set_minor_locator(locator)
        figure.set_layout_engine(None)  # with any other, saving would draw once more, to lay out


def canvas(panels: int, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure outside pyplot: no window to close, no memory leak."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
    for axis in axes:
        sns.despine(ax=axis)
    return figure, list(axes)


def evenly_picked(count: int, most: int) -> NDArray[np.int64]:
    """Return at most ``most`` evenly spaced indices below ``count``."""
    places: NDArray[np.int64] = np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))
    return places


def log_noise(axis: Axes) -> None:
    """Set up the x axis for noise-to-signal ratios: logarithmic, with plain numbers."""
    axis.set_xscale("log")
    axis.set_xlabel(NU_LABEL)
    low, high = axis.get_xlim()
    # within two decades, ticks at powers of ten alone would label only two numbers
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())


def plain(name: str) -> str:
    r"""Escape a name so that a figure shows it literally and a legend does not skip it.

    Examples
    --------
    >>> plain("5 $")
    '5 \\$'
    """
    return ("\u200b" if name.startswith("_") else "") + name.replace("$", r"\$")


def colours(result: xr.Dataset) -> list[tuple[str, Any]]:
    """Return each score with its colour."""
    scores = [str(score) for score in result["score"].values]
    return list(zip(scores, sns.color_palette("colorblind", len(scores)), strict=True))


def curve(axis: Axes, result: xr.Dataset, name: str, index: int) -> None:
    """Draw one score's curve with its band."""
    score, colour = colours(result)[index]
    label = f"{plain(score)} score, {result.attrs['confidence']:.0%} band"
    row = result[[name, f"{name}_low", f"{name}_high"]].sel(score=score)  # a selection of all variables is slow
    band(axis, result["noise_to_signal"].values, row, name, colour, index, label)


def band(axis: Axes, nu: Any, row: xr.Dataset, name: str, colour: Any, index: int, label: str, style: str = "-") -> None:
    """Draw a curve with its band and the marker of its index."""
    axis.fill_between(nu, row[f"{name}_low"], row[f"{name}_high"], color=colour, alpha=0.2, linewidth=0)
    marker = MARKERS[index % len(MARKERS)]
    axis.plot(nu, row[name], color=colour, marker=marker, markersize=3.5, linewidth=1, linestyle=style, label=label)


def names_above(figure: Figure, axis: Axes, columns: int) -> None:
    """Put the legend of an axis above the figure, clear of the curves."""
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=columns, **LEGEND)


def mark(axis: Axes, row: xr.Dataset, time: str, colour: Any, of: str) -> None:
    """Mark a time and its interval on the axis."""
    value, low, high = map(float, parts_of(row, f"{time}_noise_to_signal"))
    if not np.isfinite(value):
        return
    left, right = max(low, float(row["noise_to_signal"][0])), min(high, float(row["noise_to_signal"][-1]))
    axis.axvspan(left, right, color=colour, alpha=0.2, linewidth=0)
    label = f"{TIMES[time].symbol}{' ' + of if of else ''} = {value:.3g} [{low:.3g}, {high:.3g}]"
    axis.axvline(value, color=colour, linestyle="--", linewidth=1.2, label=label)
