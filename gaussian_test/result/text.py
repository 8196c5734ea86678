"""Results as text, from an archive without torch."""

import math
from collections.abc import Iterator, Mapping

import numpy as np
import xarray as xr

from gaussian_test.analysis.declarations import PREDICTIONS, TIMES, said_of
from gaussian_test.analysis.observables.registry import in_result
from gaussian_test.analysis.observables.tables import observable_text
from gaussian_test.result.differences import curve_differences, time_differences
from gaussian_test.result.views import Estimate, View, view
from gaussian_test.text import aligned, number, pvalue_text

AT = {"noise_to_signal": "as noise-to-signal ratios", "time": "in the time of the process"}
COMPARED = {"balance_squared": "|D|^2 against x0.D", "balance_simulated": "simulated against x0.D"}
SHOWN = 8  # turn times of the observables, unless all are requested


def show(result: xr.Dataset, groups: Mapping[str, xr.Dataset] | None = None, every: bool = False) -> str:
    """Return the times, the test and the observables as tables of text."""
    seen = view(result, groups)
    lines = [*seen.headline]
    for unit in seen.units:
        said = f" [{seen.confidence} interval]" if unit == "noise_to_signal" else ""
        lines += ["", f"Times, {AT[unit]}{said}", *_times(seen, unit)]
    if seen.start == "noised_data":
        gaps = (f"{one.name} largest {_point(one.gap, '.3f')}" for one in seen.scores if one.gap is not None)
        lines += ["", "Gap to the Gaussian: " + "; ".join(gaps), *_balance(seen)]
    main, *others = in_result(result)
    networks = seen.networks if seen.start == "noised_data" else ()
    lines += [*seen.notes(), *observable_text(main, result, result, seen.groups, networks)]
    count = result.sizes["turn_time"]
    chosen = np.arange(count) if every else np.unique(np.linspace(0, count - 1, min(count, SHOWN)).round().astype(int))
    if len(chosen) < count:
        lines += ["", f"Observables at {len(chosen)} of the {count} turn times (all of them: --all)"]
    some = result.isel(turn_time=chosen)
    return "\n".join([*lines, *(line for one in others for line in observable_text(one, result, some, seen.groups))])


def _point(found: Estimate, spec: str) -> str:
    return (
        f"{found.value:{spec}} [{found.low:{spec}}, {found.high:{spec}}] at {found.noise_to_signal:.3g} "
        f"({pvalue_text(found.pvalue)})"
    )


def _times(seen: View, unit: str) -> list[str]:
    """Return a row for each time, reasons for undefined ones, and further predictions."""
    rows, notes = [["", *(one.name for one in seen.scores), "predicted"]], []
    for name in TIMES:
        times = {one.name: one.times[name] for one in seen.scores}
        predicted = next(iter(times.values())).predicted[unit]
        rows.append([name, *(str(time.estimates[unit]) for time in times.values()), number(predicted["predicted"])])
        if reason := said_of(seen.result[f"{name}_{unit}"]):
            notes.append(f"  {name}: {reason}")
        for kind in list(predicted)[1:]:
            values = {score: time.predicted[unit][kind] for score, time in times.items()}
            found = {score: number(value) for score, value in values.items() if math.isfinite(value)}
            if found:
                of_all = "score" not in seen.result[f"{name}_{unit}_{kind}"].dims
                said = next(iter(found.values())) if of_all else ", ".join(f"{score} {value}" for score, value in found.items())
                notes.append(f"  {name} predicted {PREDICTIONS[kind]}: {said}")
    return [*aligned(rows), *notes]


def _balance(seen: View) -> Iterator[str]:
    """Yield the largest violation of detailed balance of every network."""
    for one in seen.scores:
        if one.is_network:
            said = (
                f"{COMPARED[name]} {_point(found, '+.4f') if found else 'undefined (no reverse SDE)'}"
                for name, found in one.balance.items()
            )
            yield f"Detailed balance of {one.name}, largest: " + "; ".join(said)


def compare_text(comparison: xr.Dataset, names: tuple[str, str]) -> str:
    """Return a comparison as text: times, and the largest difference of every curve relative to its error."""
    how = "paired: the same samples with the same noise" if comparison.attrs["paired"] else "independent samples"
    lines = [f"a = {names[0]}", f"b = {names[1]}", f"{how}; b - a with intervals", "", "Times, as noise-to-signal ratios"]
    rows = [["", "score", "a", "b", "b - a"]]
    for one in time_differences(comparison):
        rows.append([one.name, one.score, *map(str, one.sides), str(one)])
    lines += aligned(rows)
    rows = [["Largest differences for their errors", "score", "b - a", "band", "at noise/signal", ""]]
    for curve in curve_differences(comparison):
        at = curve.at
        band, place = f"[{at.low:+.4g}, {at.high:+.4g}]", f"{at.noise_to_signal:.3g}"
        rows.append([curve.name.replace("_", " "), curve.score, f"{at.value:+.4g}", band, place, pvalue_text(at.pvalue)])
    return "\n".join([*lines, "", *(aligned(rows) if len(rows) > 1 else ["No curve is defined in both."])])
