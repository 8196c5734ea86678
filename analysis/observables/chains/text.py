"""Chains of U-Turns as a table."""

from collections.abc import Mapping

import xarray as xr

from gaussian_test.analysis.declarations import parts_of, said_of
from gaussian_test.text import aligned, interval, number


def lines(_: xr.Dataset, groups: Mapping[str, xr.Dataset]) -> list[str]:
    """Return the auto-correlation time of each score, in U-Turns, by noise level."""
    table = groups["chains"]
    rows = [["noise to signal", *(str(score) for score in table["score"].values), "Gaussian, closed form"]]
    for index, level in enumerate(table["noise_to_signal"].values):
        row = table.isel(turn_time=index)
        cells = [interval(*map(float, parts)) for parts in zip(*parts_of(row, "autocorrelation_time"), strict=True)]
        rows.append([f"{level:.3f}", *cells, number(float(row["autocorrelation_time_gaussian"]))])
    lines = ["", "Chains of U-Turns: auto-correlation time, in U-Turns", *aligned(rows)]
    reason = said_of(table["autocorrelation_time"])
    return [*lines, f"  {reason}"] if reason else lines
