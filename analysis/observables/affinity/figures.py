"""Figures of the explained share and of the affine gap."""

import seaborn as sns
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from gaussian_test.analysis.figures.parts import LEGEND, band, canvas, colours, log_noise, names_above, plain

REFERENCES = {"isotropic": "isotropic", "gaussian": "Gaussian", "mixture": "mixture of classes", "empirical": "empirical"}


def explained(result: xr.Dataset) -> Figure:
    r"""Draw the share of each score's squared norm explained by the reference scores."""
    names = [str(name) for name in result["score"].values]
    figure, axes = canvas(len(names), 1.2 + 1.9 * len(names))
    nu, palette = result["noise_to_signal"].values, sns.color_palette("colorblind", 8)
    for axis, score in zip(axes, names, strict=True):
        for index, reference in enumerate(result["reference"].values):
            row = result.sel(score=score, reference=reference)
            band(axis, nu, row, "score_explained", palette[index + 1], index + 1, f"{REFERENCES[str(reference)]} score")
        axis.axhline(1, color="0.6", linewidth=0.8, zorder=0)
        axis.set_ylabel(f"share of the {plain(score)}\nscore explained")
        # a poor reference explains a negative share: do not stretch the axis that far
        axis.set_ylim(max(-0.25, min(-0.05, float(result["score_explained_low"].min()))), 1.05)
    names_above(figure, axes[0], 4)
    log_noise(axes[-1])
    return figure


def affinity(result: xr.Dataset) -> Figure:
    r"""Draw the distance of each denoiser from the Gaussian one and from the best affine map out of sample, and the gain."""
    figure, axes = canvas(2, 4.8)
    nu = result["noise_to_signal"].values
    for index, (score, colour) in enumerate(colours(result)):
        row = result.sel(score=score)
        if not (row["denoiser_gap"].values > 0).any():
            continue  # skip the reference itself
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
