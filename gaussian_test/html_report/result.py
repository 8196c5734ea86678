"""Template context for the page of one result."""

from collections.abc import Mapping
from typing import Any

import xarray as xr

from gaussian_test.analysis.declarations import PREDICTIONS, TIMES, reasons_of
from gaussian_test.html_report.figures import placed_figures
from gaussian_test.html_report.pictures import picture_frames
from gaussian_test.result.findings import finding
from gaussian_test.result.text import AT, show
from gaussian_test.result.views import View, view
from gaussian_test.text import number

COLUMNS = ("affine", "memorization", "speciation")  # times, in the order of the finding
PREDICTION = (
    "Predictions rest on the ground truth alone, to leading order and for no score in particular; they say where to look, and need "
    "not lie within the intervals."
)
ORIGINS = {"level": "", "sha256": "sha256 "}


def result_context(result: xr.Dataset, groups: Mapping[str, xr.Dataset]) -> dict[str, Any]:
    """Return the template context of a result's page."""
    seen = view(result, groups)
    pictures = groups.get("pictures")
    of_test, of_observables = placed_figures(seen)
    return {
        "title": f"Gaussian Test of {seen.data_title}",
        "lines": seen.headline,
        "finding": finding(seen),
        "times": [times_table(seen, unit) for unit in seen.units] if seen.start == "noised_data" else [],
        "warnings": warnings(seen),
        "figures": of_test,
        "observables": of_observables,
        "frames": picture_frames(pictures, result) if pictures is not None and "row" in pictures.dims else None,
        "start_name": "ground truth" if seen.start == "noised_data" else "start",
        "tables": show(result, groups, every=True),
        "provenance": provenance(seen),
        "settings": str(result.attrs["experiment"]),
    }


def warnings(seen: View) -> list[str]:
    """Return the warnings for a reader."""
    notes = [note.removeprefix("Note: ") for note in seen.notes()]
    return [note[:1].upper() + note[1:] for note in notes]


def times_table(seen: View, unit: str) -> dict[str, Any]:
    """Return the table of times in a unit: a row per score and kind of prediction, and why any is undefined."""
    rows = []
    for score in seen.scores:
        cells = [str(score.times[time].estimates[unit]).replace(", ", ",\N{NO-BREAK SPACE}") for time in COLUMNS]
        if score.kind == "gaussian":
            cells[0] = "everywhere"
        rows.append((f"{score.name} score", cells))
    for kind, where in PREDICTIONS.items():
        found = {
            score.name: [number(score.times[time].predicted[unit].get(kind, float("nan"))) for time in COLUMNS]
            for score in seen.scores
        }
        known = {name: cells for name, cells in found.items() if set(cells) != {"-"}}
        same = len({tuple(cells) for cells in found.values()}) == 1
        for name, cells in list(known.items())[: 1 if same else None]:
            rows.append((f"predicted {where}{'' if same else f', {name} score'}", cells))
    reasons = [
        f"{time} time{f', {score}' if score else ''}: {reason}."
        for time in COLUMNS
        for score, reason in reasons_of(seen.result[f"{time}_{unit}"]).items()
    ]
    return {
        "title": f"Times, {AT[unit]}",
        "confidence": seen.confidence,
        "columns": [TIMES[time].event for time in COLUMNS],
        "rows": rows,
        "notes": [*reasons, PREDICTION],
    }


def provenance(seen: View) -> list[tuple[str, str]]:
    """Return the provenance: date, device, seed, versions, and digests of data and scores."""
    attributes = seen.attributes
    pairs = [
        ("made", str(attributes.get("date_created", "in memory, not archived"))),
        ("device", str(attributes["device"])),
        ("seed", str(attributes["seed"])),
        ("versions", ", ".join(f"{name} {version}" for name, version in attributes["versions"].items())),
        ("ground truth", f"{seen.data_title}, {''.join(f'{said}, ' for said in seen.scaling)}sha256 {attributes['data_digest']}"),
    ]
    for score, digest in attributes["score_digest"].items():
        origin = attributes["score_origin"].get(score, {})
        said = ", ".join(f"{what}{origin[key]}" for key, what in ORIGINS.items() if origin.get(key))
        pairs.append((f"{score} score", ", ".join(filter(None, (said, f"digest {digest}")))))
    return pairs
