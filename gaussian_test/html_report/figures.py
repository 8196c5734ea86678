"""Figures of a page, with captions and alternative text."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from markupsafe import Markup

from gaussian_test.analysis.figures.drawing import draw
from gaussian_test.analysis.figures.parts import drawing, lay_out
from gaussian_test.analysis.observables import record
from gaussian_test.analysis.observables.gaussian_test import GAUSSIAN_TEST
from gaussian_test.analysis.observables.registry import declared_figures
from gaussian_test.result.views import View
from gaussian_test.text import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAIN = [figure.name for figure in GAUSSIAN_TEST.figures[:3]]  # figures of the Gaussian Test; all others are of further observables


def placed_figures(seen: View) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the template context of the figures: those of the Gaussian Test, and those of the observables."""
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


def alternative_text(figure: record.Figure, result: xr.Dataset, score: str = "") -> str:
    """Return the alternative text of a figure: its curves in a few numbers."""
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
    """Return the labelled curves of a variable over the turn times; none if it has other axes."""
    if "score" not in values.dims:
        return [("", values.values)] if values.ndim == 1 else []
    rows = [(f"{score} ", values.sel(score=score)) for score in map(str, values["score"].values) if only in ("", score)]
    return [(label, row.values) for label, row in rows if row.ndim == 1]


SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
# black parts of a figure take the page's text colour; meaningful colours stay
PAGE_COLOURS = {
    "#000000": "currentColor",
    "#262626": "currentColor",
    "#404040": "currentColor",
    "#ffffff": "var(--paper)",
    "#d9d9d9": "var(--shade)",
}
REFERENCE = re.compile(r"url\(#([^)]+)\)")


def inline_svg(figure: Figure, name: str) -> Markup:
    """Return a figure as an SVG element for a page of HTML."""
    buffer = io.StringIO()
    style = {"svg.fonttype": "path", "svg.hashsalt": name, "svg.image_inline": True}
    with drawing(style):
        lay_out(figure)
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    root = ET.fromstring(buffer.getvalue())  # parsing drops comments, which contain texts of the figure
    return Markup(_serialised(root, name))


def _serialised(root: ET.Element, name: str) -> str:
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag == f"{{{SVG}}}metadata":
                parent.remove(child)
    used = set()
    for element in root.iter():
        used |= {target for value in element.attrib.values() for target in REFERENCE.findall(value)}
        used |= {value[1:] for key, value in element.attrib.items() if key.endswith("href") and value.startswith("#")}
    for element in root.iter():
        for key, value in list(element.attrib.items()):
            if key == "id":
                if value in used:
                    element.set(key, f"{name}-{value}")
                else:
                    del element.attrib[key]
            elif key.endswith("href") and value.startswith("#"):
                element.set(key, f"#{name}-{value[1:]}")
            else:
                changed = REFERENCE.sub(rf"url(#{name}-\1)", value)
                for colour, of_page in PAGE_COLOURS.items():
                    changed = changed.replace(colour, of_page)
                element.set(key, changed)
    for size in ("width", "height"):
        root.attrib.pop(size, None)  # the page sets the size
    root.set("fill", "currentColor")  # else shapes without a colour are black
    root.set("aria-hidden", "true")
    ET.register_namespace("", SVG)
    ET.register_namespace("xlink", XLINK)
    return ET.tostring(root, encoding="unicode")
