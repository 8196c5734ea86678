"""The page of one result: what its template is filled with."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
import yaml
from matplotlib.figure import Figure

from gaussian_test.analysis.figures import draw
from gaussian_test.html_report.captions import MAIN, alternative_text, caption_of, shown_order
from gaussian_test.html_report.inline_svg import inline_svg
from gaussian_test.html_report.pictures import picture_frames
from gaussian_test.result import finding, table
from gaussian_test.text import number

EVENTS = {"affine": "affine beyond", "memorization": "sample forgotten at", "speciation": "class changes at"}
PREDICTED = {
    "predicted": "predicted from the data",
    "predicted_within_class": "predicted within classes",
    "predicted_excess_entropy": "excess entropy vanishes",
}
PREDICTIONS = (
    "Predictions rest on the ground truth alone, to leading order and for no score in particular; they say where to look, and need "
    "not lie within the intervals."
)
ORIGINS = {"level": "", "sha256": "sha256 "}


def result_context(result: xr.Dataset, groups: Mapping[str, xr.Dataset]) -> dict[str, Any]:
    """Return what the template of a result's page is filled with.

    Parameters
    ----------
    result : Dataset
        Root group of an archive.
    groups : mapping of str to Dataset
        Its other groups.

    Returns
    -------
    dict

    Examples
    --------
    >>> from gaussian_test.engine.runner import run
    >>> small = run({"samples": 8, "turn_times": {"noise_to_signal": [0.1, 1.0, 5.0]}, "observables": "none"})
    >>> context = result_context(small, {})
    >>> context["title"], [figure["name"] for figure in context["figures"]]
    ('Gaussian Test of digits', ['autocorrelation', 'gap', 'times'])
    """
    settings = yaml.safe_load(result.attrs["experiment"])
    start = str(result.attrs["start"])
    drawn = draw.draw(result, {name: group for name, group in groups.items() if name != "pictures"})
    pictures = groups.get("pictures")
    times = [times_table(result, "noise_to_signal", "Times, as noise-to-signal ratios")]
    if settings["process"]["kind"] != "variance_exploding":
        times.append(times_table(result, "time", "Times, in the time of the process"))
    return {
        "title": f"Gaussian Test of {result.attrs['data_source']}",
        "lines": table.headline(result),
        "finding": finding.finding(result),
        "times": times if start == "noised_data" else [],
        "warnings": warnings(result),
        "figures": placed_figures({name: drawn[name] for name in MAIN if name in drawn}, result, "test"),
        "observables": placed_figures({name: drawn[name] for name in drawn if name not in MAIN}, result, "observable"),
        "frames": picture_frames(pictures, result) if pictures is not None and "row" in pictures.dims else None,
        "start_name": "ground truth" if start == "noised_data" else "start",
        "tables": table.show(result, groups, every=True),
        "provenance": provenance(result),
        "settings": str(result.attrs["experiment"]),
    }


def warnings(result: xr.Dataset) -> list[str]:
    """Return what a reader of a result is to keep in mind.

    Parameters
    ----------
    result : Dataset
        Root group of an archive.

    Returns
    -------
    list of str

    Examples
    --------
    >>> from gaussian_test.engine.runner import run
    >>> small = run({"samples": 8, "turn_times": {"noise_to_signal": [0.1, 1.0, 5.0]}, "observables": "none"})
    >>> warnings(small)[-1]
    'Bands from 8 samples are rough: start from more.'
    """
    notes = [note.removeprefix("Note: ") for note in table.notes(result)]
    return [note[:1].upper() + note[1:] for note in notes]


def placed_figures(drawn: Mapping[str, Figure], result: xr.Dataset, prefix: str = "figure") -> list[dict[str, Any]]:
    """Return figures as a template shows them, in order: name, heading, reading, alternative text and SVG.

    Parameters
    ----------
    drawn : mapping of str to Figure
        By name.
    result : Dataset
        Root group of the archive, for what stands for a figure in words.
    prefix : str
        Of the ids.

    Returns
    -------
    list of dict

    Examples
    --------
    >>> placed_figures({}, xr.Dataset())
    []
    """
    placed = []
    for index, name in enumerate(shown_order(drawn)):
        caption = caption_of(name)
        placed.append(
            {
                "name": name,
                "id": f"{prefix}-{index}",
                "heading": caption.heading,
                "reading": caption.reading,
                "alt": alternative_text(name, result),
                "svg": inline_svg(drawn[name], f"{prefix}-{index}"),
            }
        )
    return placed


def times_table(result: xr.Dataset, unit: str, title: str) -> dict[str, Any]:
    """Return the table of times: a row for each score and each prediction, and why times are undefined.

    Parameters
    ----------
    result : Dataset
        Root group of an archive.
    unit : str
        ``noise_to_signal`` or ``time``.
    title : str
        Of the table.

    Returns
    -------
    dict
        ``title``, ``columns``, ``rows`` (name and cells) and ``notes``.

    Examples
    --------
    >>> from gaussian_test.engine.runner import run
    >>> small = run({"samples": 8, "turn_times": {"noise_to_signal": [0.1, 1.0, 5.0]}, "observables": "none"})
    >>> found = times_table(small, "noise_to_signal", "Times")
    >>> found["columns"], found["rows"][1][0]
    (['affine beyond', 'sample forgotten at', 'class changes at'], 'gaussian score')
    """
    scores = [str(score) for score in result["score"].values]
    rows = []
    for score in scores:
        cells = [
            finding.time_with_interval(result, f"{time}_{unit}", score).replace(", ", ",\N{NO-BREAK SPACE}") for time in EVENTS
        ]
        cells = [cell or "undefined" for cell in cells]
        if str(result["score_kind"].sel(score=score).item()) == "gaussian":
            cells[0] = "everywhere"
        rows.append((f"{score} score", cells))
    for key, what in PREDICTED.items():
        for of, cells in _predictions(result, f"{unit}_{key}", scores):
            rows.append((f"{what}{of}", cells))
    return {
        "title": title,
        "confidence": f"{result.attrs['confidence']:.0%}",
        "columns": list(EVENTS.values()),
        "rows": rows,
        "notes": [*finding.lines_of_reasons(result, {f"{time}_{unit}": f"{time} time" for time in EVENTS}), PREDICTIONS],
    }


def _predictions(result: xr.Dataset, suffix: str, scores: list[str]) -> list[tuple[str, list[str]]]:
    """Return a row of predictions, or one for each score where these differ."""
    columns = []
    for time in EVENTS:
        name = f"{time}_{suffix}"
        values = np.atleast_1d(result[name].values) if name in result else np.array([math.nan])
        columns.append(np.broadcast_to(values, len(scores)))
    values = np.array(columns).T
    if np.isnan(values).all():
        return []
    same = all((np.isnan(column).all() or np.ptp(column) == 0) for column in values.T)
    rows = [("", values[0])] if same else [(f", {score} score", row) for score, row in zip(scores, values, strict=True)]
    return [(of, [number(float(value)) for value in row]) for of, row in rows if not np.isnan(row).all()]


def provenance(result: xr.Dataset) -> list[tuple[str, str]]:
    """Return where a result comes from, as pairs of what and which.

    Parameters
    ----------
    result : Dataset
        Root group of an archive.

    Returns
    -------
    list of tuple of str

    Examples
    --------
    >>> from gaussian_test.engine.runner import run
    >>> small = run({"samples": 8, "turn_times": {"noise_to_signal": [0.1, 1.0, 5.0]}, "observables": "none"})
    >>> dict(provenance(small))["seed"]
    '0'
    """
    attributes = result.attrs
    pairs = [
        ("made", str(attributes.get("date_created", "in memory, not archived"))),
        ("device", str(attributes["device"])),
        ("seed", str(attributes["seed"])),
        ("versions", ", ".join(f"{name} {version}" for name, version in json.loads(attributes["versions"]).items())),
        ("ground truth", f"{attributes['data_source']}, sha256 {attributes['data_digest']}"),
    ]
    origins = json.loads(attributes["score_origin"])
    for score, digest in json.loads(attributes["score_digest"]).items():
        origin = origins.get(score, {})
        said = ", ".join(f"{what}{origin[key]}" for key, what in ORIGINS.items() if origin.get(key))
        pairs.append((f"{score} score", ", ".join(filter(None, (said, f"digest {digest}")))))
    return pairs
