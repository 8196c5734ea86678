r"""Curves with bands from pseudo-values: one value for each sample, whose mean is the curve and whose spread is its error.

Of a functional F of the samples the pseudo-values are F plus the influence of each sample; so one bootstrap gives all bands, and
two runs are compared sample by sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from gaussian_test.analysis.statistics.bootstrap import SUFFIXES, ClusterBootstrap

Array = NDArray[np.float64]


def banded(
    values: xr.DataArray,
    resample: ClusterBootstrap,
    suffixes: Sequence[str] = ("", "_se", "_low", "_high"),
    bounded: Literal["", "positive", "below one"] = "",
) -> xr.Dataset:
    """Return curves with standard errors and simultaneous bands from pseudo-values.

    Parameters
    ----------
    values : DataArray
        Pseudo-values with a name, over (sample, turn_time) and any others; each curve has a band of its own.
    resample : ClusterBootstrap
        Of the samples.
    suffixes : sequence of {"", "_se", "_low", "_high", "_pvalue"}
        What to give of each band.
    bounded : {"", "positive", "below one"}
        Where the curve cannot go beyond a bound, its values are skewed towards the other side: the band is then symmetric in the
        logarithm of the distance from the bound.

    Returns
    -------
    Dataset
        The name with each suffix, over the dimensions of ``values`` without sample; attributes as those of ``values``.

    Raises
    ------
    ValueError
        If the number of samples is not that of the bootstrap.

    Examples
    --------
    >>> values = xr.DataArray(np.eye(4)[:, :2], dims=("sample", "turn_time"), name="share", attrs={"long_name": "share"})
    >>> result = banded(values, ClusterBootstrap(4, 100))
    >>> result.share.values.tolist(), result.share_se.attrs["long_name"]
    ([0.25, 0.25], 'share, standard error')
    """
    if values.sizes["sample"] != resample.clusters:
        raise ValueError(
            f"{values.sizes['sample']} samples do not fit a bootstrap of {resample.clusters}: make it with the number of samples"
        )
    ordered = values.transpose(..., "sample", "turn_time")
    curves = ordered.values.reshape(-1, *ordered.shape[-2:])
    columns: dict[str, list[Array]] = {suffix: [] for suffix in suffixes}
    for curve in curves:
        if bounded == "below one":
            missing = resample.positive_band(1 - curve)
            band = replace(missing, estimate=1 - missing.estimate, low=1 - missing.high, high=1 - missing.low)
        else:
            band = resample.positive_band(curve) if bounded else resample.band(curve)
        found = band.columns()
        for suffix in suffixes:
            columns[suffix].append(found[suffix])
    like = ordered.isel(sample=0, drop=True)
    return xr.Dataset(
        {
            f"{values.name}{suffix}": like.copy(data=np.reshape(column, like.shape)).assign_attrs(
                {"long_name": f"{values.attrs['long_name']}{SUFFIXES[suffix]}"} if "long_name" in values.attrs else {}
            )
            for suffix, column in columns.items()
        }
    )


def ratio_of_means(numerator: ArrayLike, denominator: ArrayLike) -> Array:
    r"""Return pseudo-values of a ratio of means: :math:`y_i = R + (a_i - R\,b_i)/\bar b`, where :math:`R = \bar a/\bar b`.

    Parameters
    ----------
    numerator, denominator : array
        Of the same samples, shapes (..., samples, points), broadcast against each other.

    Returns
    -------
    ndarray
        Shape (..., samples, points): mean R, and the spread that the ratio has to leading order. NaN where
        :math:`\bar b = 0`.

    Examples
    --------
    >>> ratio_of_means([[1.0], [3.0]], [[2.0], [2.0]]).tolist()
    [[0.5], [1.5]]
    """
    a, b = np.broadcast_arrays(np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64))
    below = b.mean(-2, keepdims=True)
    below = np.where(below == 0, np.nan, below)
    ratio = a.mean(-2, keepdims=True) / below
    result: Array = ratio + (a - ratio * b) / below
    return result
