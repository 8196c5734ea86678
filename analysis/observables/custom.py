"""Custom observables: user functions of the U-Turn's start and end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gaussian_test.analysis.declarations import BAND, Variable, declared
from gaussian_test.analysis.observables.record import Column, Ended, Figure, Inputs, Observable, Panel, Table

if TYPE_CHECKING:
    import xarray as xr
    from torch import Tensor

    from gaussian_test.analysis.statistics.bootstrap import Band, ClusterBootstrap

MARK = "custom_observable"  # attribute of a custom curve in an archive: the source of its function
EARLIER = "own_observable"  # its name in version 0.1
READING = "An observable of the user's own: its mean over the U-Turns at each turn time, with its simultaneous band."
CURVE = ("score", "turn_time")


@dataclass(frozen=True)
class Custom:
    """A custom observable: its variables, the source of its function, and the function if it is to be measured."""

    name: str
    variables: tuple[Variable, ...]
    source: str
    function: Callable[[Tensor, Tensor], Tensor] | None = None


def custom_record(
    name: str, attributes: Mapping[str, str], source: str = "", function: Callable[[Tensor, Tensor], Tensor] | None = None
) -> Observable:
    """Return the record of a custom observable."""
    said = attributes["long_name"]
    comment, units = attributes.get("comment", ""), attributes.get("units", "1")
    unit = "" if units == "1" else f" ({units})"
    variables = (
        Variable(f"sample_{name}", (*CURVE, "sample", "repeat"), f"{said}, of one U-Turn", comment, units),
        Variable(name, CURVE, said, comment, units, band=BAND, title=name.replace("_", " "), compared=f"sample_{name}"),
    )
    return Observable(
        name=name,
        title=said,
        variables=variables,
        at_end="custom:at_end",
        measure="custom:measure",
        options=Custom(name, variables, source, function),
        tables=(
            Table(
                f"Custom observable {name}: {said}{unit}".replace("{", "{{").replace("}", "}}"),
                ((Column(name, "{score}", any_size=True), Column(f"{name}_se", "", "+-", any_size=True)),),
            ),
        ),
        figures=(
            Figure(
                f"own_{name}",
                name.replace("_", " ").capitalize(),
                READING,
                (name,),
                shown_for=name,
                panels=(Panel(name, f"{said}{unit}"),),
                legend=0,
                height=3.4,
            ),
        ),
    )


def in_archive(result: xr.Dataset) -> Sequence[Observable]:
    """Return the records of the custom observables in an archive."""
    return [
        custom_record(str(name), values.attrs) for name, values in result.data_vars.items() if {MARK, EARLIER} & set(values.attrs)
    ]


def at_end(ended: Ended, options: Custom) -> Iterator[tuple[str, Tensor]]:
    """Yield the value of the custom function for every U-Turn; skip scores that returned NaN."""
    if options.function is not None and bool(ended.x.isfinite().all()):
        starts = ended.x0.expand(len(ended.x), *ended.x0.shape).flatten(0, 1)
        found = options.function(starts, ended.x.flatten(0, 1))
        yield f"sample_{options.name}", found.reshape(len(ended.x), -1)


def measure(inputs: Inputs, options: Custom) -> dict[str, xr.Dataset]:
    """Return the curve of a custom observable: its mean over starts, with the usual confidence band."""
    import numpy as np

    name = options.name
    resample = inputs.resample(inputs.table.sizes["sample"])
    values = inputs.table[f"sample_{name}"].mean("repeat").transpose("score", "sample", "turn_time").values
    bands = [_band(of_score, resample).columns() for of_score in values]
    columns = {name + suffix: np.array([band[suffix] for band in bands]) for suffix in ("", *BAND)}
    result = declared(options.variables, columns)
    result[name].attrs[MARK] = options.source
    return {"": result}


def _band(values: Any, resample: ClusterBootstrap) -> Band:
    """Return the band of a curve, of fixed width in standard errors if some resamples do not vary."""
    import numpy as np

    band = resample.band(values)
    return band if np.isfinite(band.low).all() else resample.band(values, studentized=False)
