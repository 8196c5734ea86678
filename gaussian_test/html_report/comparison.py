"""The page of two results side by side: what its template is filled with."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr

from gaussian_test.analysis.figures import overview
from gaussian_test.html_report.inline_svg import inline_svg
from gaussian_test.html_report.result import provenance, warnings
from gaussian_test.result import table
from gaussian_test.result.comparison import compare
from gaussian_test.result.finding import finding
from gaussian_test.text import interval, number, pvalue_text

NO_INTERVAL = "The difference of affine times has no interval: each time has its own, from its simultaneous band."
CHANCE = (
    "Each curve and time is compared with the confidence of its own band: of many that do not differ, some are named by chance."
)
ENDS = ("", "_low", "_high")  # of an interval
READING = (
    "Above: the curve of either archive, the first one solid and the second one dashed. Below: the second less the first, with its "
    "simultaneous band; where the band does not hold zero, they differ."
)


def comparison_context(results: tuple[xr.Dataset, xr.Dataset], names: tuple[str, str]) -> dict[str, Any]:
    """Return what the template of a comparison is filled with.

    Parameters
    ----------
    results : tuple of Dataset
        Root groups of two archives.
    names : tuple of str
        What to call them.

    Returns
    -------
    dict

    Raises
    ------
    UserError
        If they have no score or no noise level in common.

    Examples
    --------
    >>> from gaussian_test.engine.runner import run
    >>> small = run({"samples": 8, "turn_times": {"noise_to_signal": [0.1, 1.0, 5.0]}, "observables": "none"})
    >>> comparison_context((small, small), ("one", "two"))["finding"]
    ['No curve of the two differs beyond its band.']
    """
    a, b = results
    compared = compare(a, b)
    how = "Paired: the same samples with the same noise." if compared.attrs["paired"] else "Independent samples."
    every = differing(compared)
    rows = [row for row in every if not row["none"]]
    drawn = overview.draw_comparison(a, b, compared, names)
    drawn = {name: figure for name, figure in drawn.items() if any(row["name"] == name for row in rows)}
    return {
        "title": f"{names[0]} and {names[1]} compared",
        "lines": [f"{name}: {table.headline(result)[0]}" for name, result in zip(names, results, strict=True)],
        "finding": _finding(compared, rows, names),
        "times": _times(compared, names),
        "differences": {
            "title": "Where each curve differs most for its error, second less first",
            "first": "curve",
            "columns": ["score", "difference", "band", "at noise-to-signal", "p-value"],
            "rows": [(row["curve"], [row[key] for key in ("score", "value", "band", "at", "pvalue")]) for row in rows],
            "notes": _equal([row for row in every if row["none"]]),
        },
        "warnings": [
            how,
            CHANCE,
            *(f"{name}: {note}" for name, side in zip(names, results, strict=True) for note in warnings(side)),
        ],
        "figures": [
            {
                "id": f"figure-{index}",
                "heading": _title(name),
                "reading": READING,
                "alt": f"{_title(name)} of {names[0]} and {names[1]}, and their difference. "
                + " ".join(f"{row['score']}: {row['value']} {row['band']}." for row in rows if row["name"] == name),
                "svg": inline_svg(figure, f"figure-{index}"),
            }
            for index, (name, figure) in enumerate(drawn.items())
        ],
        "sides": [
            {
                "name": name,
                "settings": str(result.attrs["experiment"]),
                "provenance": [*((f"finding {i + 1}", said) for i, said in enumerate(finding(result))), *provenance(result)],
            }
            for name, result in zip(names, results, strict=True)
        ],
    }


def differing(compared: xr.Dataset) -> list[dict[str, Any]]:
    """Return where each curve of each score differs most, with what its band and its p-value say there.

    Parameters
    ----------
    compared : Dataset
        From :func:`gaussian_test.compare`.

    Returns
    -------
    list of dict
        ``name``, ``curve``, ``score``, ``value``, ``band``, ``at``, ``pvalue`` as text, ``differs`` (whether there is a turn
        time at which the simultaneous band does not hold zero) and ``none`` (whether it is zero throughout).

    Examples
    --------
    >>> differing(xr.Dataset(coords={"score": ["a"]}))
    []
    """
    rows = []
    for name in [str(name).removesuffix("_difference") for name in compared.data_vars if str(name).endswith("_difference")]:
        if "noise_to_signal" not in compared[f"{name}_difference"].dims:
            continue
        for score in compared["score"].values:
            row = compared.sel(score=score)
            values, low, high = (row[f"{name}_difference{suffix}"].values for suffix in ("", "_low", "_high"))
            if np.isnan(values).all():
                continue
            at = table.most_different(compared, name, str(score))
            rows.append(
                {
                    "name": name,
                    "curve": _title(name),
                    "score": str(score),
                    "value": f"{values[at]:+.3g}",
                    "band": f"[{low[at]:+.3g}, {high[at]:+.3g}]",
                    "at": f"{float(compared['noise_to_signal'][at]):.3g}",
                    "pvalue": pvalue_text(float(row[f"{name}_difference_pvalue"][at])),
                    "differs": bool(((low > 0) | (high < 0)).any()),
                    "none": not np.nan_to_num(values).any(),
                }
            )
    return rows


def _equal(rows: list[dict[str, Any]]) -> list[str]:
    scores: dict[str, list[str]] = {}
    for row in rows:
        scores.setdefault(row["curve"], []).append(row["score"])
    return [f"No difference at all: {curve[:1].lower() + curve[1:]} of {', '.join(of)}." for curve, of in scores.items()]


def _title(curve: str) -> str:
    known = overview.CURVES.get(curve, curve.replace("_", " "))
    return known[:1].upper() + known[1:]


def _finding(compared: xr.Dataset, rows: list[dict[str, Any]], names: tuple[str, str]) -> list[str]:
    said = []
    for time in table.TIMES:
        for score in compared["score"].values:
            of_score = compared.sel(score=score)
            if f"{time}_difference_low" not in of_score:
                continue
            value, low, high = (float(of_score[f"{time}_difference{suffix}"]) for suffix in ("", "_low", "_high"))
            if low > 0 or high < 0:
                more = "larger" if value > 0 else "smaller"
                by = interval(value, low, high) if value > 0 else interval(-value, -high, -low)
                said.append(f"The {time} time of the {score} score is {more} in {names[1]} than in {names[0]}, by {by}.")
    differing_curves: dict[str, list[str]] = {}
    for row in rows:
        if row["differs"]:
            differing_curves.setdefault(row["score"], []).append(row["curve"][:1].lower() + row["curve"][1:])
    said += [f"Of the {score} score these differ: {', '.join(curves)}." for score, curves in differing_curves.items()]
    return said or ["No curve of the two differs beyond its band."]


def _times(compared: xr.Dataset, names: tuple[str, str]) -> dict[str, Any]:
    rows = []
    for time in table.TIMES:
        for score in compared["score"].values:
            row = compared.sel(score=score)
            sides = [[float(row[f"{time}{end}"].sel(archive=side)) for end in ENDS] for side in ("a", "b")]
            known = [float(row[f"{time}_difference{end}"]) for end in ENDS if f"{time}_difference{end}" in row]
            with_interval = len(known) == 3 and not math.isnan(known[1])
            rows.append(
                (
                    f"{time}, {score}",
                    [*(interval(*side) for side in sides), interval(*known) if with_interval else number(known[0])],
                )
            )
    return {
        "title": "Times, as noise-to-signal ratios",
        "columns": [*names, "second less first"],
        "rows": rows,
        "first": "time",
        "notes": [NO_INTERVAL],
    }
