"""Text tables of observables, from an archive without torch."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import xarray as xr

from gaussian_test.analysis.observables.record import Column, Observable, Table, resolved
from gaussian_test.text import aligned, fixed, number

ENOUGH = 256  # starts, for the bands of heavy-tailed curves: see docs/calibration.md


def observable_text(
    one: Observable, result: xr.Dataset, some: xr.Dataset, groups: Mapping[str, xr.Dataset], networks: Sequence[str] = ()
) -> list[str]:
    """Return the lines of an observable: its text, then its tables at some turn times."""
    here = any(variable.name in (groups.get(variable.group, ()) if variable.group else result) for variable in one.variables)
    lines = resolved(one.text)(result, groups) if one.text and here else []
    for table in one.tables if here else ():
        lines += _table(table, some, networks)
    return lines


def _table(table: Table, result: xr.Dataset, networks: Sequence[str]) -> list[str]:
    if table.networks and not networks:
        return []
    scores = list(networks) if table.networks else [str(score) for score in result["score"].values]
    facts = {str(name): _Attributes(values) for name, values in result.data_vars.items()}
    shown = [["noise to", "signal", *(f"{value:.3f}" for value in result["noise_to_signal"].values)]]
    omitted = False
    for group in table.groups:
        first = ""
        for score in scores if any("{score}" in column.title + column.under for column in group) else scores[:1]:
            if group[0].not_zero and not result[group[0].variable].sel(score=score).values.any():
                omitted = True
                continue  # skip the reference itself
            if (other := group[0].unlike) and result[other].sel(score=score).equals(result[group[0].variable].sel(score=score)):
                continue
            for column, titles, values in _columns(group, result, score, facts):
                if not np.isnan(values).all():
                    title = "" if table.once and titles[0] == first else titles[0]
                    first = titles[0]
                    written = (number(value) if column.any_size else fixed(value) for value in values.tolist())
                    shown.append([title, titles[1], *written])
    if len(shown) == 1 and omitted and table.title:
        return []
    lines = aligned([list(row) for row in zip(*shown, strict=True)]) if len(shown) > 1 else ["(undefined for this start)"]
    few = table.heavy_tailed and result.sizes["sample"] < ENOUGH
    said = f"  from {result.sizes['sample']} starts the bands of shares and distances hold less often than they say: take more"
    return ["", *([table.title.format(**facts)] if table.title else []), *lines, *([said] if few else [])]


def _columns(
    group: Sequence[Column], result: xr.Dataset, score: str, facts: Mapping[str, Any]
) -> Iterator[tuple[Column, list[str], Any]]:
    """Yield the columns of a group for a score, their titles, and their values over the noise levels."""
    others = [dim for dim in ("reference", "start") if any("{" + dim + "}" in column.title + column.under for column in group)]
    for place in product(*(result[dim].values for dim in others)):
        at = dict(zip(others, map(str, place), strict=True))
        if at.get("reference") == score:
            continue  # 1 by construction
        for column in group:
            values = result[column.variable]
            here = {dim: where for dim, where in {"score": score, **at}.items() if dim in values.dims}
            titles = [title.format(**facts, score=score, **at) for title in (column.title, column.under)]
            yield column, titles, np.asarray(values.sel(here).values, dtype=np.float64)


class _Attributes:
    """Attributes and value of a variable, for the titles of tables."""

    def __init__(self, values: xr.DataArray) -> None:
        self._values = values

    def __getattr__(self, name: str) -> Any:
        return self._values.attrs[name]

    def __format__(self, spec: str) -> str:
        return format(float(self._values), spec)
