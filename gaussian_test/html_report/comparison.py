"""Template context for the page of two results."""

from typing import Any

import xarray as xr

from gaussian_test.analysis.figures import overview
from gaussian_test.html_report.figures import inline_svg
from gaussian_test.html_report.result import provenance, warnings
from gaussian_test.result.comparison import compare
from gaussian_test.result.differences import CurveDifference, TimeDifference, curve_differences, time_differences
from gaussian_test.result.findings import finding
from gaussian_test.result.views import view
from gaussian_test.text import number, pvalue_text

NO_INTERVAL = "The difference of affine times has no interval: each time has its own, from its simultaneous band."
CHANCE = (
    "Each curve and time is compared with the confidence of its own band: of many that do not differ, some are named by chance."
)
READING = (
    "Above: the curve of either archive, the first one solid and the second one dashed. Below: the second less the first, with its "
    "simultaneous band; where the band does not hold zero, they differ."
)


def comparison_context(results: tuple[xr.Dataset, xr.Dataset], names: tuple[str, str]) -> dict[str, Any]:
    """Return the template context of a comparison.

    Raises UserError if they have no score or no noise level in common.
    """
    a, b = results
    compared = compare(a, b)
    seen = dict(zip(names, map(view, results), strict=True))
    how = "Paired: the same samples with the same noise." if compared.attrs["paired"] else "Independent samples."
    curves, times = curve_differences(compared), time_differences(compared)
    different = [one for one in curves if not one.is_same]
    drawn = overview.draw_comparison(a, b, compared, names)
    titles = {one.name: _capital(one.title) for one in different if one.name in drawn}
    return {
        "title": f"{names[0]} and {names[1]} compared",
        "lines": [f"{name}: {side.headline[0]}" for name, side in seen.items()],
        "finding": _finding(times, different, names),
        "times": {
            "title": "Times, as noise-to-signal ratios",
            "columns": [*names, "second less first"],
            "rows": [(f"{one.name}, {one.score}", [*map(str, one.sides), str(one)]) for one in times],
            "first": "time",
            "notes": [NO_INTERVAL],
        },
        "differences": {
            "title": "Where each curve differs most for its error, second less first",
            "first": "curve",
            "columns": ["score", "difference", "band", "at noise-to-signal", "p-value"],
            "rows": [
                (_capital(one.title), [one.score, *_cells(one), number(one.at.noise_to_signal), pvalue_text(one.at.pvalue)])
                for one in different
            ],
            "notes": _equal([one for one in curves if one.is_same]),
        },
        "warnings": [how, CHANCE, *(f"{name}: {note}" for name, side in seen.items() for note in warnings(side))],
        "figures": [
            {
                "id": f"figure-{index}",
                "heading": titles[name],
                "reading": READING,
                "alt": f"{titles[name]} of {names[0]} and {names[1]}, and their difference. "
                + " ".join(f"{one.score}: {' '.join(_cells(one))}." for one in different if one.name == name),
                "svg": inline_svg(drawn[name], f"figure-{index}"),
            }
            for index, name in enumerate(name for name in drawn if name in titles)
        ],
        "sides": [
            {
                "name": name,
                "settings": str(side.result.attrs["experiment"]),
                "provenance": [*((f"finding {i + 1}", said) for i, said in enumerate(finding(side))), *provenance(side)],
            }
            for name, side in seen.items()
        ],
    }


def _cells(one: CurveDifference) -> list[str]:
    return [f"{one.at.value:+.3g}", f"[{one.at.low:+.3g}, {one.at.high:+.3g}]"]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _equal(curves: list[CurveDifference]) -> list[str]:
    """Return a sentence on the curves that are identical."""
    scores: dict[str, list[str]] = {}
    for one in curves:
        scores.setdefault(one.title, []).append(one.score)
    return [f"No difference at all: {curve} of {', '.join(of)}." for curve, of in scores.items()]


def _finding(times: list[TimeDifference], curves: list[CurveDifference], names: tuple[str, str]) -> list[str]:
    """Return sentences on times and curves that differ beyond their intervals."""
    said = []
    for one in times:
        if one.difference.excludes(0):
            more, by = ("larger", one.difference) if one.difference.value > 0 else ("smaller", one.difference.opposite)
            said.append(f"The {one.name} time of the {one.score} score is {more} in {names[1]} than in {names[0]}, by {by}.")
    scores: dict[str, list[str]] = {}
    for curve in curves:
        if curve.differs:
            scores.setdefault(curve.score, []).append(curve.title)
    said += [f"Of the {score} score these differ: {', '.join(titles)}." for score, titles in scores.items()]
    return said or ["No curve of the two differs beyond its band."]
