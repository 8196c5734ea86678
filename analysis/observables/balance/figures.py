"""Figure of the exchangeability tests."""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from gaussian_test.analysis.figures.parts import MARKERS, canvas, colours, log_noise, names_above, plain


def exchange(result: xr.Dataset) -> Figure:
    """Draw the p-values of the tests that start and end of a U-Turn are an exchangeable pair."""
    panels = [
        (name, label)
        for name, label in (("class", "class transitions"), ("moments", "antisymmetric\nmoments"), ("energy", "energy distance"))
        if np.isfinite(result[f"exchange_{name}_pvalue"]).any()
    ]
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
