"""Self-contained page of a result, a comparison or a sweep."""

import base64
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import xarray as xr
from markupsafe import Markup

from gaussian_test._version import __version__
from gaussian_test.errors import UserError, user_input
from gaussian_test.html_report.comparison import comparison_context
from gaussian_test.html_report.overview import sweep_context
from gaussian_test.html_report.result import result_context
from gaussian_test.locks import numpy_defaults
from gaussian_test.store import archive, files
from gaussian_test.store.archive import Source

GROUPS = ("pictures", "normality", "chains")
SECTIONS = {
    "runs": "Runs",
    "times": "Times",
    "differences": "Largest differences",
    "warnings": "What to keep in mind",
    "figures": "Figures",
    "frames": "Pictures",
    "observables": "Observables",
    "provenance": "Provenance",
}
ANCHORS = {"frames": "pictures"}


@numpy_defaults()
def report(source: Source | Sequence[Source], output: str | os.PathLike[str]) -> Path:
    """Write a self-contained HTML page of a result: finding, times, figures, pictures, settings and provenance.

    Parameters
    ----------
    source : path, Dataset, or sequence of them
        An archive or a result; two of them for a comparison; a folder, of a sweep or with archives, for an overview.
    output : path
        The page; its name ends in ``.html`` or ``.htm``. It is written atomically, and replaces an earlier one.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    UserError
        If there is nothing to report, an archive is damaged, or the page cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from gaussian_test.engine.runner import run
    >>> small = run({"samples": 8, "turn_times": {"noise_to_signal": [0.1, 1.0, 5.0]}, "observables": "none"})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = report(small, Path(folder) / "small.html")
    ...     "Gaussian Test of digits" in page.read_text(encoding="utf-8")
    True
    """
    path = Path(output)
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"output {path} is not named like a page: let it end in .html")
    sources = [source] if isinstance(source, str | os.PathLike | xr.Dataset) else list(source)
    if len(sources) not in (1, 2):
        raise UserError(f"{len(sources)} archives cannot be put on one page: give one, two to compare, or the folder of a sweep")
    if not path.parent.is_dir():
        raise UserError(f"the folder {path.parent} of the page does not exist: create it or correct the path")
    template, context = _filled(sources)
    page = _environment().get_template(template).render(**_common(context), **context)
    with user_input():
        files.write_text(path, page)
    return path


def _filled(sources: list[Source]) -> tuple[str, dict[str, Any]]:
    """Return the template for the sources, and its context."""
    folders = [entry for entry in sources if not isinstance(entry, xr.Dataset) and Path(entry).is_dir()]
    if folders and len(sources) > 1:
        raise UserError(f"{folders[0]} is a folder and cannot be compared: give two archives")
    if folders:
        return "sweep.html", sweep_context(Path(folders[0]))
    results = [archive.opened(entry) for entry in sources]
    if len(results) == 2:
        names = [_name(entry, letter) for entry, letter in zip(sources, "ab", strict=True)]
        if names[0] == names[1]:
            names = [str(entry) if not isinstance(entry, xr.Dataset) else name for entry, name in zip(sources, names, strict=True)]
        return "comparison.html", comparison_context((results[0], results[1]), (names[0], names[1]))
    found = archive.groups(results[0], *GROUPS)
    return "result.html", result_context(results[0], found)


def _name(source: Source, otherwise: str) -> str:
    return otherwise if isinstance(source, xr.Dataset) else Path(source).name.removesuffix(".nc")


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("gaussian_test.html_report"),
        autoescape=True,  # names come from files and users
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _common(context: dict[str, Any]) -> dict[str, Any]:
    """Return the context of all pages: style, script, and the digest that permits the script."""
    folder = Path(__file__).parent / "templates"
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("style.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    sections = SECTIONS | ({"figures": "The Gaussian Test"} if "observables" in context else {})
    return {
        "version": __version__,
        "style": Markup(style),
        "script": Markup(script),
        "script_digest": Markup(f"sha256-{digest}"),
        "contents": [(ANCHORS.get(key, key), name) for key, name in sections.items() if key == "provenance" or context.get(key)],
    }
