"""The rooms of the house, the order of its floors, and who imports whom: read from the code, drawn as docs/rooms.svg.

Run it (``python docs/rooms.py``) after files or imports have changed; a test holds the picture against the code.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "rooms.svg"
FACE = "gaussian_test"
FOLDERS = ("sampler", "analysis", "data")  # that stand beside the face and are links in it
# the house from its roof to its ground: a room may import from those below it, not from its own floor's other rooms
FLOORS = (
    ("roof",),
    ("cli",),
    ("html_report",),
    ("sweep",),
    ("engine",),
    ("result",),
    ("build",),
    ("experiment", "data"),
    ("store",),
    ("conformance",),
    ("analysis",),
    ("sampler",),
    ("ground",),
)
ROOMS = tuple(room for floor in FLOORS for room in floor)
# a script that is run and never imported: it stands above all rooms, in the folder of what it makes
SCRIPTS = {f"{FACE}.data.train_network", f"{FACE}.data.network_record"}
ROOF, GROUND = {"__init__", "__main__", "accessor"}, {"errors", "locks", "log", "machine", "paths", "text", "_version"}
WHAT = {
    "roof": "Public names, and what a dataset can do.",
    "ground": "The user's error, locks, log lines, paths, memory, how numbers are written.",
}


def modules() -> dict[str, Path]:
    """Return every module of the product and its file."""
    found = {}
    for folder in (FACE, *FOLDERS):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if folder == FACE and len(parts) > 1 and parts[1] in FOLDERS:
                continue  # through a link
            found[".".join(part for part in (FACE,) * (folder != FACE) + parts if part != "__init__")] = path
    return found


def room(module: str) -> str:
    """Return the room of a module."""
    first = [*module.split("."), "__init__"][1]
    return "roof" if first in ROOF else "ground" if first in GROUND else first


def imports(found: dict[str, Path]) -> dict[str, set[str]]:
    """Return every module that each file imports anywhere in it; lazy packages name theirs in a stub."""
    return {
        module: {name for file in {path, path.with_suffix(".pyi")} if file.exists() for name in _imported(file, module, found)}
        for module, path in found.items()
    }


def _imported(path: Path, module: str, found: dict[str, Path]) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 or path.suffix == ".pyi", f"{path}: a relative import"
            source = ".".join(part for part in (module if node.level else "", node.module or "") if part)
            full = {f"{source}.{alias.name}" for alias in node.names}
            names |= {name if name in found else source for name in full}
    return names - {module}


def picture() -> str:
    """Return the house as SVG: a row a room, with its files, and how many of them import from each room below."""
    found = modules()
    imported = imports(found)
    between: Counter[tuple[str, str]] = Counter()
    for module in found.keys() - SCRIPTS:
        names = imported[module]
        for below in {room(name) for name in names & set(found)} - {room(module)}:
            between[room(module), below] += 1
    left, top, high, wide, cell = 8, 92, 46, 660, 26
    size = (left + wide + 16 + cell * len(ROOMS) + 8, top + high * len(ROOMS) + 8)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}" width="{size[0]}" height="{size[1]}" '
        'font-family="sans-serif">',
        f'<rect width="{size[0]}" height="{size[1]}" fill="white"/>',
        _text(left, 24, "The rooms, from the roof to the ground", 15, weight="bold"),
        _text(left, 44, "A room imports from those below it only: no number stands below the diagonal.", 12),
        _text(left, 62, "Right: how many files of a row import from a column. The rooms experiment and data share a floor.", 12),
    ]
    for row, name in enumerate(ROOMS):
        y = top + high * row
        in_room = [path for module, path in found.items() if room(module) == name]
        lines.append(f'<rect x="{left}" y="{y}" width="{wide}" height="{high - 4}" rx="4" fill="#eef2f7" stroke="#b8c4d2"/>')
        folder = {"roof": "gaussian_test", "ground": "gaussian_test"}.get(
            name, name if name in FOLDERS else f"gaussian_test/{name}"
        )
        lines.append(_text(left + 10, y + 17, f"{folder}/", 12, weight="bold"))
        what = WHAT.get(name) or (ast.get_docstring(ast.parse(_package(in_room).read_text(encoding="utf-8"))) or "").split("\n")[0]
        lines.append(_text(left + 208, y + 17, _short(what.replace("``", ""), 74), 11))
        lines.append(_text(left + 10, y + 34, _short(_contents(name, in_room), 108), 11, "#5a6675"))
        for column, below in enumerate(ROOMS):
            x = left + wide + 16 + cell * column
            count = between[name, below]
            fill = "#3b5b8c" if column == row else "#cfe0f5" if count else "#f7f8fa"
            lines.append(f'<rect x="{x}" y="{y}" width="{cell - 2}" height="{high - 4}" fill="{fill}"/>')
            if count:
                lines.append(_text(x + cell / 2 - 1, y + 25, str(count), 11, anchor="middle"))
    for column, below in enumerate(ROOMS):
        x = left + wide + 16 + cell * column + cell / 2
        lines.append(f'<g transform="translate({x},{top - 6}) rotate(-60)">{_text(0, 0, below, 11)}</g>')
    return "\n".join([*lines, "</svg>", ""])


def _package(paths: list[Path]) -> Path:
    return min((path for path in paths if path.name == "__init__.py"), key=lambda path: len(path.parts))


def _contents(name: str, paths: list[Path]) -> str:
    """Return the files of a room, and its folders with a stroke, as a listing shows them."""
    base = ROOT / (name if name in FOLDERS else FACE if name in WHAT else f"{FACE}/{name}")
    inside = [path.relative_to(base).parts for path in paths]
    folders = sorted({parts[0] + "/" for parts in inside if len(parts) > 1})
    files = sorted(Path(parts[0]).stem for parts in inside if len(parts) == 1 and (name == "roof" or parts[0] != "__init__.py"))
    return " · ".join([*folders, *files])


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1].rsplit(" ", 1)[0] + " …"


def _text(x: float, y: float, text: str, size: int, fill: str = "#1c2530", weight: str = "normal", anchor: str = "start") -> str:
    style = f'font-size="{size}" fill="{fill}" font-weight="{weight}" text-anchor="{anchor}"'
    return f'<text x="{x:g}" y="{y:g}" {style}>{escape(text)}</text>'


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
