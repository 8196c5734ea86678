"""A result as JSON, from an archive without torch."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import xarray as xr

from gaussian_test.analysis.declarations import ENDINGS, TIMES, reason_of
from gaussian_test.result.views import ScoreView, TimeView, view

FORMAT = 1
UNITS = {"noise_to_signal": "noise_to_signal", "time": "process_time"}  # of the times, and their keys here
OF_A_TIME = re.compile(rf"({'|'.join(TIMES)})_({'|'.join(UNITS)})(_low|_high|_predicted.*)?$")
NOT_HERE = {"sample", "repeat", "kept"}  # axes of the sample table, which stays in the archive
ABOUT_A_SCORE = ("score_kind", "kernel", "conditional")


def to_json(result: xr.Dataset, groups: Mapping[str, xr.Dataset] | None = None) -> str:
    """Return a result as one JSON document (RFC 8259), without its sample table, pictures and maps.

    An undefined number (NaN) is ``null``; an infinite one is the string ``"Infinity"`` or ``"-Infinity"``, which ``float`` of
    Python and ``Number`` of JavaScript convert back. Every other number has all its digits. Keys of the document:

    ``format``
        1; changes when a key below changes its meaning.
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
        Seed, device, start, samples, repeats, confidence, date; source, title, digest and number of the ground-truth samples, their
        ``scale`` and ``offset`` (x = scale * file + offset) and the names of their classes; every setting.
    ``versions``, ``digests``, ``origins``, ``networks``
        Of the libraries; of the scores (sha256); what had to be trusted to have them; settings of the networks.
    """
    seen = view(result, groups)
    scores, rest = _measured(result)
    for one in seen.scores:
        about: dict[str, Any] = {"kind": one.kind, "kernel": one.kernel, "conditional": one.conditional}
        about |= {"times": _times(one), "largest_gap": None if one.gap is None else asdict(one.gap)}
        scores[one.name] = about | scores[one.name]
    chains, attributes = seen.groups.get("chains"), seen.attributes
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
            "turn_times_added": attributes.get("turn_times_added", 0),
            "turn_time_moved": attributes["turn_time_moved"],
            "process_limits": attributes.get("process_limits", ""),
        },
        "data": {
            "source": attributes["data_source"],
            "title": seen.data_title,
            "scale": attributes.get("data_scale"),
            "offset": attributes.get("data_offset"),
            "classes": attributes["class_names"],
            "digest": attributes["data_digest"],
            "samples": attributes["samples_in_ground_truth"],
            "duplicates": attributes.get("duplicates_in_ground_truth"),
            "precision": attributes.get("precision"),
        },
        "experiment": seen.settings,
        "versions": attributes["versions"],
        "digests": attributes["score_digest"],
        "origins": attributes["score_origin"],
        "networks": attributes["network_settings"],
    }
    return json.dumps(plain(document), indent=1, ensure_ascii=False, allow_nan=False)


def plain(value: Any) -> Any:
    """Convert a value to JSON types: NaN to None, infinities to text."""
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
    """Return curves and values by score, and those of no single score."""
    names = [str(name) for name in dataset.data_vars if not NOT_HERE & set(dataset[name].dims)]
    names = [name for name in names if name not in ABOUT_A_SCORE and not OF_A_TIME.match(name)]
    scores: dict[str, Any] = {str(score): {"curves": {}, "values": {}} for score in dataset["score"].values}
    rest: dict[str, Any] = {"curves": {}, "values": {}}
    for name in names:
        if _base(dataset, name) != name:
            continue
        parts = {"": name} | {end: name + end for end in ENDINGS if name + end in names and _base(dataset, name + end) == name}
        kind = "curves" if "turn_time" in dataset[name].dims else "values"
        for score, found in scores.items() if "score" in dataset[name].dims else [("", rest)]:
            columns = {end: dataset[part].sel(score=score) if score else dataset[part] for end, part in parts.items()}
            found[kind][name] = {
                "dims": list(columns[""].dims),
                "units": dataset[name].attrs.get("units"),
                "reason": reason_of(dataset[name], score) or None,
                **{end.removeprefix("_") or "value": column.values for end, column in columns.items()},
            }
    return scores, rest


def _base(dataset: xr.Dataset, name: str) -> str:
    """Return the quantity whose error, band or p-value a variable is, or else its own name."""
    for end in ENDINGS:
        base = name.removesuffix(end)
        if name.endswith(end) and base in dataset and dataset[base].dims == dataset[name].dims:
            return base
    return name


def _times(score: ScoreView) -> dict[str, Any]:
    return {
        name: {"reason": time.reason or None, "reason_predicted": time.reason_predicted or None}
        | {key: _numbers(time, unit) for unit, key in UNITS.items()}
        for name, time in score.times.items()
    }


def _numbers(time: TimeView, unit: str) -> dict[str, float]:
    found = time.estimates[unit]
    return {"value": found.value, "low": found.low, "high": found.high, **time.predicted[unit]}


def _coordinates(dataset: xr.Dataset) -> dict[str, Any]:
    return {str(name): dataset[name].values for name in dataset.coords if not {*NOT_HERE, "score"} & set(dataset[name].dims)}


def _chains(chains: xr.Dataset) -> dict[str, Any]:
    scores, rest = _measured(chains)
    return {"scores": scores, **rest, "coordinates": _coordinates(chains)}
