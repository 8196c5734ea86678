r"""The figure of a sampler study: :math:`W_2` and the error of :math:`C(T)` against what each kernel costs."""

from __future__ import annotations

import textwrap

import matplotlib as mpl
import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from gaussian_test.analysis.figures.parts import MARKERS, STYLE, canvas, log_noise, names_above

FLOOR = 1e-12  # below it there is nothing but rounding, which a logarithmic axis would blow up
DASHES = ("-", "--", ":")  # kernels can coincide: one that lies over another lets it be seen


def sampler_figure(study: xr.Dataset) -> Figure:
    r"""Draw relative :math:`W_2` and :math:`|C - C_{exact}|` of each kernel against its score evaluations, both logarithmic.

    What is zero to rounding (below :data:`FLOOR`) or undefined is left out, and said above the panel. A kernel that costs the same
    at any number of steps, the exact one, is a horizontal line. Where the auto-correlation is undefined for all kernels there is
    one panel.

    Examples
    --------
    >>> from gaussian_test.analysis.theory.sampler_law import KERNELS, sampler_study
    >>> from gaussian_test.sampler import VarianceExploding
    >>> figure = sampler_figure(sampler_study([3.0, 1.0], VarianceExploding(), 80.0, KERNELS, [8, 16, 32]))
    >>> [axis.get_yscale() for axis in figure.axes]
    ['log', 'log']
    """
    with mpl.rc_context(STYLE), sns.axes_style("ticks"):  # type: ignore[arg-type] # keys are literals there
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
    """Draw one line per kernel, in the same colour and marker in each panel, and say what is not drawn."""
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
