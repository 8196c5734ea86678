"""How numbers are written: rows of aligned cells, intervals, p-values."""

from __future__ import annotations

import math


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
    '1.25 [1, inf]'
    """
    if math.isnan(value):
        return "undefined"
    return f"{number(value)} [{number(low)}, {number(high)}]"


def number(value: float) -> str:
    """Return a number with three digits; a dash where there is none.

    Examples
    --------
    >>> number(0.12345), number(float("nan"))
    ('0.123', '-')
    """
    return "-" if math.isnan(value) else f"{value:.3g}"


def fixed(value: float) -> str:
    """Return a number with three decimals; a dash where there is none.

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
