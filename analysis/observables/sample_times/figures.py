"""Figure of the times of samples and classes."""

import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib.figure import Figure

from gaussian_test.analysis.declarations import TIMES, parts_of
from gaussian_test.analysis.figures.parts import WIDTH, colours, log_noise, plain

NAMED_CLASSES = 12  # largest number of classes with room for names


def sample_times(result: xr.Dataset) -> Figure:
    """Draw a histogram of the sample times, and the class times with intervals, named if they are few."""
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
            if len(inside) > 1 and low < high:
                heights, edges = np.histogram(np.log(inside), bins=np.linspace(np.log(low), np.log(high), 41))
                axis.stairs(
                    place + 0.8 * heights / heights.max(), np.exp(edges), baseline=place, fill=True, color=colour, alpha=0.45
                )
            of_class, bottom, top = parts_of(row, f"{time}_noise_to_signal_by_class")
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
        axis.set_title(f"{TIMES[time].symbol}: histogram over samples; classes with intervals", loc="left")
        sns.despine(ax=axis, left=True)
    log_noise(axes[-1])
    axes[-1].set_xlabel("noise-to-signal ratio")
    return figure
