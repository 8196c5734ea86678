"""Figures as SVG that lives inside a page: in its colours, light or dark, with ids of their own, and nothing but shapes."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

from gaussian_test.analysis.figures.parts import STYLE, lay_out

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
# what is ink on paper in a figure is text on the page; colours that mean something stay
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
    style = STYLE | {"svg.fonttype": "path", "svg.hashsalt": name, "svg.image_inline": True}
    with mpl.rc_context(style):  # type: ignore[arg-type] # keys are literals there
        lay_out(figure)
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    root = ET.fromstring(buffer.getvalue())  # comments, which hold texts of the figure, are left behind here
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
        root.attrib.pop(size, None)  # the page decides
    root.set("fill", "currentColor")  # shapes without a colour of their own are black else
    root.set("aria-hidden", "true")
    ET.register_namespace("", SVG)
    ET.register_namespace("xlink", XLINK)
    return ET.tostring(root, encoding="unicode")
