"""Registry of all observables, in order of measurement and display."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from gaussian_test.analysis.declarations import BAND, Variable
from gaussian_test.analysis.observables.affinity import AFFINITY
from gaussian_test.analysis.observables.balance import BALANCE
from gaussian_test.analysis.observables.chains import CHAINS
from gaussian_test.analysis.observables.custom import in_archive
from gaussian_test.analysis.observables.gaussian_test import GAUSSIAN_TEST
from gaussian_test.analysis.observables.normality import NORMALITY
from gaussian_test.analysis.observables.participation import PARTICIPATION
from gaussian_test.analysis.observables.predictions import PREDICTIONS
from gaussian_test.analysis.observables.quality import QUALITY
from gaussian_test.analysis.observables.record import Figure, Observable
from gaussian_test.analysis.observables.run import RUN
from gaussian_test.analysis.observables.sample_times import SAMPLE_TIMES
from gaussian_test.analysis.observables.starts import STARTS_OBSERVABLE

if TYPE_CHECKING:
    import xarray as xr

ALWAYS = (GAUSSIAN_TEST, SAMPLE_TIMES, PREDICTIONS, RUN)
# what an experiment may request, by name
OBSERVABLES: dict[str, Observable] = {
    one.name: one for one in (AFFINITY, NORMALITY, QUALITY, BALANCE, STARTS_OBSERVABLE, CHAINS, PARTICIPATION)
}


def every() -> tuple[Observable, ...]:
    """Return all observables, those that are always measured first."""
    return (*ALWAYS, *OBSERVABLES.values())


def in_result(result: xr.Dataset) -> list[Observable]:
    """Return the records of a result: all built-in ones, and its custom observables."""
    own = in_archive(result)
    theirs = {variable.name for one in own for variable in one.variables}  # may include names that a later version made built-in
    return [*(one for one in every() if not theirs & {variable.name for variable in one.variables if not variable.group}), *own]


def declared_figures(result: xr.Dataset) -> list[Figure]:
    """Return the figures that the records of a result declare, in the order of a page."""
    return [figure for one in in_result(result) for figure in one.figures]


def variables(group: str | None = None) -> Iterator[Variable]:
    """Yield the variables of all observables, of one group or of all."""
    for one in every():
        for variable in one.variables:
            if group is None or variable.group == group:
                yield variable


def titles() -> dict[str, str]:
    """Return the titles of the variables that are compared between results."""
    return {variable.name: variable.title for variable in variables() if variable.title}


def taken() -> frozenset[str]:
    """Return the names reserved from custom variables: variables, dimensions and groups, with their suffixes."""
    names = {name for variable in variables() for name in (*variable.names, *variable.dims, variable.group)}
    axes = {"channel", "row", "column", "feature", "time"}  # of a sample, and of a path
    views = {"archive", "component", "experiment", "run"}  # of two results, and of a sweep
    return frozenset(
        (axes | views | names | {name.removesuffix(ending) for name in names for ending in BAND}) - {"", "event", "parts"}
    )
