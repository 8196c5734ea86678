"""Main differences of a comparison, for text and page."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr

from gaussian_test.analysis.declarations import BAND, TIMES, parts_of
from gaussian_test.analysis.observables.registry import titles
from gaussian_test.result.views import Estimate, estimate
from gaussian_test.text import number


@dataclass(frozen=True)
class TimeDifference:
    """A time of a score in both archives, and its difference, with an interval if there is one."""

    name: str
    score: str
    sides: tuple[Estimate, Estimate]
    difference: Estimate

    def __str__(self) -> str:
        return number(self.difference.value) if math.isnan(self.difference.low) else str(self.difference)


def time_differences(comparison: xr.Dataset) -> list[TimeDifference]:
    """Return the time differences of a comparison, score by score."""
    found = []
    for name in TIMES:
        for score in map(str, comparison["score"].values):
            row = comparison.sel(score=score)
            first, second = (estimate(row.sel(archive=side), name) for side in ("a", "b"))
            difference = f"{name}_difference"
            with_interval = f"{difference}_low" in row
            between = estimate(row, difference) if with_interval else Estimate(float(row[difference]), math.nan, math.nan)
            found.append(TimeDifference(name, score, (first, second), between))
    return found


@dataclass(frozen=True)
class CurveDifference:
    """Difference of a score's curve: where it is largest relative to its error, and whether it exceeds its band or is zero."""

    name: str
    title: str
    score: str
    at: Estimate
    differs: bool
    is_same: bool


def curve_differences(comparison: xr.Dataset) -> list[CurveDifference]:
    """Return the curves of a comparison that both archives have, score by score."""
    found, called = [], titles()
    names = [str(name) for name, values in comparison.data_vars.items() if "noise_to_signal" in values.dims]
    for name in [name.removesuffix("_difference") for name in names if name.endswith("_difference")]:
        for score in map(str, comparison["score"].values):
            row = comparison.sel(score=score)
            values, error, low, high = parts_of(row, f"{name}_difference", BAND)
            if np.isnan(values).all():
                continue
            with np.errstate(divide="ignore", invalid="ignore"):
                size = np.abs(values)
                at = int(np.nanargmax(np.where(size > 0, size / error, np.where(np.isnan(size), np.nan, 0.0))))
            pvalue, nu = row[f"{name}_difference_pvalue"].values, comparison["noise_to_signal"].values
            most = Estimate(*[float(column[at]) for column in (values, low, high, error, pvalue, nu)])
            title = called.get(name, name.replace("_", " "))
            differs = bool(((low > 0) | (high < 0)).any())
            found.append(CurveDifference(name, title, score, most, differs, not np.nan_to_num(values).any()))
    return found
