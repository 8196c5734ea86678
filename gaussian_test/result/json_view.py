"""A result as JSON: what another program reads of it, from an archive alone and without torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
import yaml

from gaussian_test.result import reasons

FORMAT = 1
TIMES = ("memorization", "speciation", "affine")
UNITS = {"noise_to_signal": "noise_to_signal", "process_time": "time"}  # keys here, and the ends of the archive's names
OF_A_TIME = ("_low", "_high", "_predicted", "_predicted_within_class", "_predicted_excess_entropy")
OF_A_QUANTITY = ("_se", "_low", "_high", "_pvalue")
NOT_HERE = {"sample", "repeat", "kept"}  # axes of the sample table, which stays in the archive
ABOUT_A_SCORE = ("score_kind", "kernel", "conditional")


def to_json(result: xr.Dataset, groups: Mapping[str, xr.Dataset] | None = None) -> str:
    """Return a result as one JSON document (RFC 8259), without its sample table, pictures and maps.

    A number that is undefined (NaN) is ``null``; one without a bound is the string ``"Infinity"`` or ``"-Infinity"``, of which
    ``float`` of python and ``Number`` of JavaScript make infinity again. Every other number has all its digits. Keys of the
    document:

    ``format``
        1; another number where a key below has another meaning.
    ``scores``
        By the name of each score: ``kind``, ``kernel``, ``conditional``; ``times``, ``largest_gap``, ``curves``, ``values``.
        ``times.memorization`` (``speciation``, ``affine``) has ``reason`` and ``reason_predicted``, why something is undefined, or
        null, and ``noise_to_signal`` and ``process_time``, each with ``value``, ``low``, ``high`` and ``predicted``; the first
        also, where measured, ``predicted_within_class`` and ``predicted_excess_entropy``. ``largest_gap`` is the place at which
        the gap to the Gaussian is largest in magnitude: ``value``, ``se``, ``low``, ``high``, ``pvalue``, ``noise_to_signal``,
        ``turn_time``; null where there is no gap.
    ``curves``, ``values``
        What does not belong to a single score; within a score, what does: ``curves`` with an axis of turn times, ``values``
        without. By the name of the variable in the archive: ``value`` and, where they were found, ``se``, ``low``, ``high``,
        ``pvalue``, each a number or nested lists along ``dims``; ``units``; ``reason`` or null.
    ``coordinates``
        ``turn_time``, ``noise_to_signal`` and the other axes that ``dims`` name.
    ``chains``
        The same four keys for chains of U-Turns, or null where there are none.
    ``run``, ``data``, ``experiment``
        Seed, device, start, samples, repeats, confidence, date; source, digest and number of the ground-truth samples; every
        setting.
    ``versions``, ``digests``, ``origins``, ``networks``
        Of the libraries; of the scores (sha256); what had to be trusted to have them; settings of the networks.

    Parameters
    ----------
    result : Dataset
        Root group of an archive.
    groups : mapping of str to Dataset, optional
        Its other groups, of which ``chains`` is used.

    Returns
    -------
    str
        Bands are simultaneous, intervals of times are of single times, both at ``run.confidence``.

    Examples
    --------
    >>> from gaussian_test.engine.runner import run
    >>> small = run({"samples": 8, "turn_times": {"noise_to_signal": [0.1, 1.0, 5.0]}, "observables": "none"})
    >>> found = json.loads(to_json(small))
    >>> found["coordinates"]["noise_to_signal"], found["scores"]["gaussian"]["times"]["affine"]["reason"]
    ([0.1, 1.0, 5.0], 'the score is affine at every turn time')
    """
    attributes = result.attrs
    scores, rest = _measured(result)
    for name, found in scores.items():
        row = result.sel(score=name)
        about: dict[str, Any] = {key.removeprefix("score_"): row[key].item() for key in ABOUT_A_SCORE}
        about["conditional"] = bool(about["conditional"])
        scores[name] = about | {"times": _times(result, name), "largest_gap": _largest_gap(row)} | found
    chains = (groups or {}).get("chains")
    document = {
        "format": FORMAT,
        "scores": scores,
        **rest,
        "coordinates": _coordinates(result),
        "chains": None if chains is None else _chains(chains),
        "run": {
            "date": attributes["date_created"],
            "seed": attributes["seed"],
            "device": attributes["device"],
            "start": attributes["start"],
            "samples": result.sizes["sample"],
            "repeats": result.sizes["repeat"],
            "confidence": attributes["confidence"],
            "turn_times_asked": attributes["turn_times_asked"],
            "turn_time_moved": attributes["turn_time_moved"],
        },
        "data": {
            "source": attributes["data_source"],
            "digest": attributes["data_digest"],
            "samples": attributes["samples_in_ground_truth"],
        },
        "experiment": yaml.safe_load(attributes["experiment"]),
        "versions": json.loads(attributes["versions"]),
        "digests": json.loads(attributes["score_digest"]),
        "origins": json.loads(attributes["score_origin"]),
        "networks": json.loads(attributes["network_settings"]),
    }
    return json.dumps(plain(document), indent=1, ensure_ascii=False, allow_nan=False)


def plain(value: Any) -> Any:
    """Return a value in the types of JSON: NaN as None, infinities as text.

    Examples
    --------
    >>> plain({"a": np.array([1.5, np.nan, -np.inf]), "b": np.int64(2)})
    {'a': [1.5, None, '-Infinity'], 'b': 2}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _measured(dataset: xr.Dataset) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return curves and values by score, and those that are of no single score."""
    names = [str(name) for name in dataset.data_vars if not NOT_HERE & set(dataset[name].dims)]
    names = [name for name in names if name not in {*_names_of_times(), *ABOUT_A_SCORE}]
    scores: dict[str, Any] = {str(score): {"curves": {}, "values": {}} for score in dataset["score"].values}
    rest: dict[str, Any] = {"curves": {}, "values": {}}
    for name in names:
        if _base(dataset, name) != name:
            continue
        parts = {"": name} | {
            end: name + end for end in OF_A_QUANTITY if name + end in names and _base(dataset, name + end) == name
        }
        kind = "curves" if "turn_time" in dataset[name].dims else "values"
        for score, found in scores.items() if "score" in dataset[name].dims else [("", rest)]:
            columns = {end: dataset[part].sel(score=score) if score else dataset[part] for end, part in parts.items()}
            found[kind][name] = {
                "dims": list(columns[""].dims),
                "units": dataset[name].attrs.get("units"),
                "reason": _reason(dataset, name, score),
                **{end.removeprefix("_") or "value": column.values for end, column in columns.items()},
            }
    return scores, rest


def _names_of_times() -> set[str]:
    return {f"{time}_{unit}{end}" for time in TIMES for unit in UNITS.values() for end in ("", *OF_A_TIME)}


def _base(dataset: xr.Dataset, name: str) -> str:
    """Return the name of the quantity whose error, band or p-value a variable is; its own where it is none."""
    for end in OF_A_QUANTITY:
        base = name.removesuffix(end)
        if name.endswith(end) and base in dataset and dataset[base].dims == dataset[name].dims:
            return base
    return name


def _times(result: xr.Dataset, score: str) -> dict[str, Any]:
    times: dict[str, Any] = {}
    for time in TIMES:
        predictions = [f"{time}_noise_to_signal{end}" for end in OF_A_TIME if end.startswith("_predicted")]
        unpredicted = [why for name in predictions if name in result and (why := _reason(result, name, score))]
        times[time] = {
            "reason": _reason(result, f"{time}_noise_to_signal", score),
            "reason_predicted": "; ".join(unpredicted) or None,
        }
        for key, unit in UNITS.items():
            found = {end: result[f"{time}_{unit}{end}"] for end in ("", *OF_A_TIME) if f"{time}_{unit}{end}" in result}
            times[time][key] = {
                end.removeprefix("_") or "value": (column.sel(score=score) if "score" in column.dims else column).item()
                for end, column in found.items()
            }
    return times


def _largest_gap(row: xr.Dataset) -> dict[str, Any] | None:
    gap = np.abs(row["gap"].values)
    if np.isnan(gap).all():
        return None
    here = row.isel(turn_time=int(np.nanargmax(gap)))
    ends = {end.removeprefix("_") or "value": here["gap" + end].item() for end in ("", *OF_A_QUANTITY)}
    return ends | {name: here[name].item() for name in ("noise_to_signal", "turn_time")}


def _coordinates(dataset: xr.Dataset) -> dict[str, Any]:
    return {str(name): dataset[name].values for name in dataset.coords if not {*NOT_HERE, "score"} & set(dataset[name].dims)}


def _chains(chains: xr.Dataset) -> dict[str, Any]:
    scores, rest = _measured(chains)
    return {"scores": scores, **rest, "coordinates": _coordinates(chains)}


def _reason(dataset: xr.Dataset, name: str, score: str) -> str | None:
    """Return why something is undefined: what is said of this score and of all."""
    said = dataset[name].attrs.get("reason")
    if said is None or not score:
        return said
    return reasons.of_score(str(said), score, [str(other) for other in dataset["score"].values]) or None
