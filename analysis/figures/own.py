"""Figures of the observables that a user has brought: the curve of each with its band."""

from __future__ import annotations

import xarray as xr
from matplotlib.figure import Figure

from gaussian_test.analysis.figures.parts import LEGEND, canvas, curve, log_noise, plain


def draw(result: xr.Dataset) -> dict[str, Figure]:
    """Draw a figure for each observable of the user's.

    Parameters
    ----------
    result : Dataset
        Root group of an archive.

    Returns
    -------
    dict of str to Figure
        ``own_<name>``.
    """
    names = [str(name) for name, values in result.data_vars.items() if "own_observable" in values.attrs]
    return {f"own_{name}": own(result, name) for name in names}


def own(result: xr.Dataset, name: str) -> Figure:
    """Draw an observable of the user's with its band, for every score.

    Parameters
    ----------
    result : Dataset
        Root group of an archive.
    name : str
        The observable.

    Returns
    -------
    Figure
    """
    figure, axes = canvas(1, 3.4)
    for index in range(result.sizes["score"]):
        curve(axes[0], result, name, index)
    log_noise(axes[0])
    unit = result[name].attrs["units"]
    axes[0].set_ylabel(plain(result[name].attrs["long_name"] + (f" ({unit})" if unit != "1" else "")))
    axes[0].legend(**LEGEND)
    return figure
