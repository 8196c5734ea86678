"""What is wrong with an experiment, as one plain sentence, from the many words of pydantic."""

from __future__ import annotations

import difflib
from typing import Any, get_args

from pydantic import ValidationError

from gaussian_test.experiment.processes import Process, shown
from gaussian_test.experiment.scores import ScoreSettings


def sentence(error: ValidationError) -> str:
    """Return the first problem as one sentence: where, the value, what was expected."""
    problems = error.errors(include_url=False)
    # what an error inside does to the whole is no news; of a union's alternatives, the one that went deepest was meant
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
    alternatives = {"Spacing", "constrained-int", "bool", "float"}
    kinds = {kind for union in (Process, ScoreSettings) for kind in _kinds(union)}
    parts = []
    for before, part in zip((None, *location), location, strict=False):
        # the kind of a process or a score stands behind its place; elsewhere the same word is a key
        is_kind = part in kinds and (isinstance(before, int) or before in ("process", "trained"))
        if isinstance(part, int) or not (is_kind or part in alternatives or "[" in part):
            parts.append(str(part))
    return ".".join(parts)


def _kinds(union: Any) -> list[str]:
    return [get_args(settings.model_fields["kind"].annotation)[0] for settings in get_args(get_args(union)[0])]
