"""Reading of experiments from YAML, and their error messages."""

import difflib
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from gaussian_test.errors import UserError
from gaussian_test.experiment.processes import Process, shown
from gaussian_test.experiment.scores import ScoreSettings
from gaussian_test.machine import regular
from gaussian_test.text import byte_size, near_files

# invalid dates, deep brackets, tags such as !!float '' and !!timestamp now
NOT_YAML = (yaml.YAMLError, ValueError, RecursionError, LookupError, AttributeError, TypeError, ArithmeticError)
DEEPEST, LARGEST = 40, 100_000  # limits on nesting and number of values of an experiment
LARGEST_FILE = 10_000_000  # bytes


def check_size(key: Any, values: Any) -> None:
    """Raise for input that is too large (YAML aliases that expand without end), and for text that cannot be encoded.

    Raises ValueError in these cases.
    """
    waiting, seen = [(key, 0), (values, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        seen += 1
        if depth > DEEPEST or seen > LARGEST:
            raise ValueError(
                f"{shown(key)} holds itself, is nested more than {DEEPEST} deep, or has more than {LARGEST} values: "
                "write out what is meant"
            )
        if isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ValueError(f"{shown(value)} is text that UTF-8 does not have: leave out half characters") from None
        elif isinstance(value, dict):
            waiting += [(item, depth + 1) for pair in value.items() for item in pair]
        elif isinstance(value, list | tuple | set | frozenset):
            waiting += [(item, depth + 1) for item in value]


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the keys of a YAML file.

    Raises UserError if it cannot be read or holds something else.
    """
    name = " ".join(str(path).split())
    try:
        if regular(path).stat().st_size > LARGEST_FILE:
            raise UserError(f"{name} has more than {byte_size(LARGEST_FILE)}: give the path of an experiment file")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = near_files(path, ".yaml", ".yml") or "give the path of an experiment file"
        raise UserError(f"{name} does not exist: {near}") from None
    except OSError as error:
        raise UserError(f"{name} cannot be read ({error.strerror}): give the path of an experiment file") from None
    except UnicodeDecodeError:
        raise UserError(f"{name} is not text in UTF-8: save it as UTF-8") from None
    except ValueError as error:  # a zero byte, half a character
        raise UserError(f"{name} cannot be a file ({error}): give the path of an experiment file") from None
    try:
        values = yaml.safe_load(text)
    except NOT_YAML as error:
        where = getattr(error, "problem_mark", None)
        place = f" near line {where.line + 1}" if where else ""
        raise UserError(f"{name} is not valid YAML{place}: correct it") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{name} holds {type(values).__name__}, not an experiment: give keys such as 'samples: 512'")
    return values


def refusal(error: ValidationError) -> str:
    """Return the first problem as one sentence: place, value, expectation."""
    problems = error.errors(include_url=False)
    # skip errors that follow from inner ones; of a union's alternatives the deepest one was meant
    places = [p["loc"] for p in problems]
    problems = [p for p in problems if not any(len(q) > len(p["loc"]) and q[: len(p["loc"])] == p["loc"] for q in places)]
    problem = max(problems, key=lambda p: (p["type"] == "value_error", p["type"] != "literal_error", len(p["loc"])))
    place = _place(problem["loc"])
    if problem["type"] == "value_error":
        return f"{place or 'experiment'}: {problem['ctx']['error']}"
    if problem["type"].startswith("union_tag"):
        known = _kinds(Process if place.endswith(("process", "trained")) else ScoreSettings)
        given = problem["ctx"].get("tag")
        near = difflib.get_close_matches(str(given), known, n=1) if given else []
        hint = f"did you mean {near[0]!r}? " if near else ""
        said = f"{place}.kind = {shown(given)} is not known" if given else f"{place}.kind is missing"
        return f"{said}: {hint}choose one of {', '.join(known)}"
    if problem["type"] == "missing":
        return f"{place} is missing: give it"
    message = " ".join(problem["msg"].split())
    said = f"{place or 'experiment'} = {shown(problem['input'])} is not valid"
    return f"{said}: {message[0].lower()}{message[1:]}; correct it and run again"


def _place(location: tuple[int | str, ...]) -> str:
    """Return a dotted key from pydantic's location, without the names of a union's alternatives."""
    alternatives = {"Spacing", "constrained-int", "constrained-float", "bool", "float"}
    kinds = {kind for union in (Process, ScoreSettings) for kind in _kinds(union)}
    parts = []
    for before, part in zip((None, *location), location, strict=False):
        # pydantic adds the kind of a process or score after its place; elsewhere the word is a key
        is_kind = part in kinds and (isinstance(before, int) or before in ("process", "trained"))
        if isinstance(part, int) or not (is_kind or part in alternatives or "[" in part):
            parts.append(str(part))
    return ".".join(parts)


def _kinds(union: Any) -> list[str]:
    return [get_args(settings.model_fields["kind"].annotation)[0] for settings in get_args(get_args(union)[0])]
