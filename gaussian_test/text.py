"""Formatting of numbers, and suggestions for missing files."""

import difflib
import math
import re
from pathlib import Path

# control characters, which a terminal obeys; marks that turn the direction of text; halves and non-characters, which XML lacks
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def printable(text: str, keep: str = "") -> str:
    r"""Return text with the characters written out that a terminal or a page would obey, but for those to keep.

    Examples
    --------
    >>> printable("caf\xe9 \x1b[31m")
    'café \\x1b[31m'
    """
    return UNSAFE.sub(lambda found: found[0] if found[0] in keep else found[0].encode("unicode_escape").decode(), text)


def aligned(rows: list[list[str]]) -> list[str]:
    """Return rows of cells as lines, the first column flush left and the others flush right.

    Examples
    --------
    >>> aligned([["a", "12"], ["bc", "3"]])
    ['a   12', 'bc   3']
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def interval(value: float, low: float, high: float) -> str:
    """Return an estimate with its interval.

    Examples
    --------
    >>> interval(1.25, 1, float("inf"))
    '1.25 [1, ∞]'
    """
    if math.isnan(value):
        return "undefined"
    return f"{number(value)} [{number(low)}, {number(high)}]"


def number(value: float) -> str:
    """Return a number with three digits, a dash for NaN, ∞ for infinity.

    Examples
    --------
    >>> number(0.12345), number(float("nan"))
    ('0.123', '-')
    """
    return "-" if math.isnan(value) else f"{value:.3g}".replace("inf", "∞")


def fixed(value: float) -> str:
    """Return a number with three decimals, a dash for NaN.

    Examples
    --------
    >>> fixed(-1e-9)
    '0.000'
    """
    return "-" if math.isnan(value) else f"{round(value, 3) + 0.0:.3f}"  # no negative zero


def pvalue_text(value: float) -> str:
    """Return a p-value, small ones as a bound.

    Examples
    --------
    >>> pvalue_text(0.0001)
    'p < 0.001'
    """
    return f"p {'=' if value > 0.001 else '<'} {max(value, 0.001):.2g}"


def duration(seconds: float) -> str:
    """Return a time in a unit that suits it, in two digits; tqdm's clock, 1:02:05, does not say of which unit it is.

    Examples
    --------
    >>> duration(0.25), duration(150), duration(360000)
    ('0.25 s', '2.5 min', '100 h')
    """
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.2g} {unit}" if seconds < 100 * length else f"{seconds / length:.0f} {unit}"
    return f"{seconds:.2g} s"


def byte_size(count: float) -> str:
    """Return a number of bytes as an experiment takes it for ``memory``.

    Examples
    --------
    >>> byte_size(4e9)
    '4.0GB'
    """
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.1f}{unit}"
        count /= 1000
    return f"{count:.1f}TB"


PARTS = ".parts"
MOST = 5  # largest number of named files


def near_files(path: Path, *suffixes: str) -> str:
    """Return a suggestion for a file that does not exist; empty if there is none similar.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (Path(folder) / "run.nc").touch()
    ...     near_files(Path(folder) / "rnu.nc", ".nc")
    'did you mean .../run.nc?'
    """
    try:
        if path.with_name(path.name + PARTS).is_dir():
            return (
                f"its run is not finished: see 'gaussian-test status {path}', and if it was interrupted, repeat its command with "
                "--resume"
            )
        there = sorted(file.name for file in path.parent.glob("[!.]*") if file.name.endswith(suffixes) and file.is_file())
    except (OSError, ValueError):
        return ""
    near = difflib.get_close_matches(path.name, there, n=1) or [name for name in there if Path(name).stem == path.name]
    if near:
        return f"did you mean {path.with_name(near[0])}?"
    if not there:
        return ""
    more = f" and {len(there) - MOST} more" if len(there) > MOST else ""
    names = ", ".join(str(path.with_name(name)) for name in there[:MOST])
    return f"there {'are' if len(there) > 1 else 'is'} {names}{more}"
