"""Archives of anybody: names without escapes, attributes that can be parsed, variables as they are declared."""

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
import yaml

from gaussian_test.analysis.observables.registry import variables
from gaussian_test.text import printable

LONGEST, DEEPEST, LARGEST = 1_000_000, 50, 200_000  # characters, nesting and number of values of a structured attribute
OBJECTS = ("versions", "score_digest", "score_origin", "network_settings")  # attributes in JSON
LATER_OBJECTS = ("class_names", "score_classes")  # the same, of schema 2 but for its first archives
NUMBERS = ("data_scale", "data_offset", "data_low", "data_high")  # attributes that are finite numbers, where they are
NEEDED = ("start", "process.kind", "reverse.kind", "statistics.confidence")  # keys of an experiment that everything shown needs


def cleaned(dataset: xr.Dataset) -> xr.Dataset:
    """Return a dataset whose text holds nothing that a terminal or a page would obey.

    Raises ValueError for such a name of a variable, a dimension or an attribute, which could not be found again.
    """
    holders: list[Any] = [dataset, *dataset.variables.values()]
    for name in (*dataset.variables, *dataset.dims, *(key for holder in holders for key in holder.attrs)):
        if printable(str(name)) != name:
            raise ValueError(f"it names something {printable(str(name))!r}")
    for holder in holders:
        holder.attrs = {key: _clean(value, "\n\t" if key == "experiment" else "") for key, value in holder.attrs.items()}
    for name, variable in list(dataset.variables.items()):
        if variable.dtype.kind == "U":
            values = np.array([printable(text) for text in variable.values.ravel().tolist()], dtype=str).reshape(variable.shape)
            if not np.array_equal(values, variable.values):
                dataset[name] = (variable.dims, values, variable.attrs)
    return dataset


def _clean(value: Any, keep: str = "") -> Any:
    if isinstance(value, str):
        return printable(value, keep)
    return [_clean(item, keep) for item in value] if isinstance(value, list) else value


def checked(dataset: xr.Dataset) -> xr.Dataset:
    """Return the root of an archive, whose structured attributes hold what they should, and no escapes in another notation.

    Raises ValueError if they do not, or if a dimension is empty or a variable has others than are declared.
    """
    if lacking := {"score", "turn_time", "sample", "seed", "start", "data_digest"} - {*dataset.variables, *dataset.attrs}:
        raise ValueError(f"it lacks {min(lacking)}")
    if empty := [name for name, size in dataset.sizes.items() if not size]:
        raise ValueError(f"its dimension {empty[0]} is empty")
    for variable in variables(""):
        for name in variable.names:
            if name in dataset.variables and dataset[name].dims != variable.dims:
                raise ValueError(f"the dimensions of its {name} are not {', '.join(variable.dims) or 'none'}")
    for name in NUMBERS:
        if not (isinstance(value := dataset.attrs.get(name, 0.0), float | int) and math.isfinite(value)):
            raise ValueError(f"its {name} is no finite number")
    parsers: dict[str, Callable[[str], Any]] = dict.fromkeys((*OBJECTS, *LATER_OBJECTS), json.loads)
    parsers["experiment"] = yaml.safe_load
    for name, parse in parsers.items():
        text = str(dataset.attrs.get(name, "{}" if name in LATER_OBJECTS else ""))
        given = _parsed(text, parse, name)
        if name == "experiment" and any(_at(given, key) is None for key in NEEDED):
            raise ValueError("its experiment is none")
        clean = _plain(given, name, [LARGEST])
        if clean != given:
            dump = yaml.safe_dump if name == "experiment" else json.dumps
            dataset.attrs[name] = dump(clean)
        if name == "score_digest" and not set(clean) >= set(dataset["score"].values.tolist()):
            raise ValueError("its scores have other names than their digests")
    return dataset


def _parsed(text: str, parse: Callable[[str], Any], name: str) -> dict[str, Any]:
    try:
        found = parse(text) if len(text) <= LONGEST else None
    except Exception as error:  # a parser may raise anything for text of anybody
        raise ValueError(f"its {name} cannot be read ({type(error).__name__})") from None
    if not isinstance(found, dict):
        raise ValueError(f"its {name} is no mapping")
    return found


def _at(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _plain(value: Any, name: str, left: list[int], depth: int = 0) -> Any:
    """Return values without escapes; a few lines of YAML may stand for more values than any memory holds."""
    left[0] -= 1
    if depth > DEEPEST or left[0] < 0:
        raise ValueError(f"its {name} is nested too deep or too large")
    if isinstance(value, dict):
        return {printable(str(key)): _plain(item, name, left, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, name, left, depth + 1) for item in value]
    if isinstance(value, str):
        return printable(value, "\n\t")
    if value is None or isinstance(value, bool | int | float):
        return value
    raise ValueError(f"its {name} holds a {type(value).__name__}")
