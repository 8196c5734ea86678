"""The figures of a page: drawn, placed, with what stands under each and what tells its course to those who cannot see it."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from gaussian_test.analysis.figures.draw import draw
from gaussian_test.analysis.observables.gaussian_test import GAUSSIAN_TEST
from gaussian_test.analysis.observables.record import Figure
from gaussian_test.analysis.observables.registry import declared_figures
from gaussian_test.html_report.inline_svg import inline_svg
from gaussian_test.result.view import View
from gaussian_test.text import number

MAIN = [figure.name for figure in GAUSSIAN_TEST.figures[:3]]  # the Gaussian Test itself; the others are observables beside it


def placed_figures(seen: View) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return what a template needs of every figure: those of the Gaussian Test, and those of the observables."""
    drawn = draw(seen.result, {name: group for name, group in seen.groups.items() if name != "pictures"})
    declared = {}
    for figure in declared_figures(seen.result):
        for score in seen.networks if "{score}" in figure.name else [""]:
            declared[figure.name.format(score=score)] = (figure, score)
    placed: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for name in [name for name in declared if name in drawn]:
        figure, score = declared[name]
        of_test = name in MAIN
        identity = f"{'test' if of_test else 'observable'}-{len(placed[not of_test])}"
        placed[not of_test].append(
            {
                "name": name,
                "id": identity,
                "heading": figure.heading.replace("{score}", score),
                "reading": figure.reading,
                "alt": alternative_text(figure, seen.result, score),
                "svg": inline_svg(drawn[name], identity),
            }
        )
    return placed


def alternative_text(figure: Figure, result: xr.Dataset, score: str = "") -> str:
    """Return what a figure shows for those who cannot see it: the course of its curves in a few numbers."""
    nu = result["noise_to_signal"].values
    said = []
    for name in figure.curves:
        if name not in result or "turn_time" not in result[name].dims:
            continue
        rows = []
        for label, values in _rows(result[name], score):
            if np.isfinite(values).all():
                middle = len(nu) // 2
                rows.append(
                    f"{label}{number(values[0])}, {number(values[middle])} at {number(nu[middle])}, {number(values[-1])} at the end"
                )
        if rows:
            said.append(f"{name.replace('_', ' ')} over noise-to-signal {number(nu[0])} to {number(nu[-1])}: {'; '.join(rows)}.")
    heading = figure.heading.replace("{score}", score).rstrip("?.")
    return " ".join([f"{heading}.", *(said or ["Its numbers are in the tables at the end of the page."])])


def _rows(values: xr.DataArray, only: str) -> list[tuple[str, np.ndarray]]:
    """Return the curves of a variable over the turn times, with their labels; none where it has other axes."""
    if "score" not in values.dims:
        return [("", values.values)] if values.ndim == 1 else []
    rows = [(f"{score} ", values.sel(score=score)) for score in map(str, values["score"].values) if only in ("", score)]
    return [(label, row.values) for label, row in rows if row.ndim == 1]
