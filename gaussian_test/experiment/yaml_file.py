"""YAML at the door: a file is read, or refused in a sentence; what has no end, or is no text, is refused as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from gaussian_test.errors import UserError
from gaussian_test.experiment.processes import shown
from gaussian_test.text import near_files

# a date that is none; brackets without end; tags such as !!float '' and !!timestamp now
NOT_YAML = (yaml.YAMLError, ValueError, RecursionError, LookupError, AttributeError, TypeError, ArithmeticError)
DEEPEST, LARGEST = 40, 100_000  # nesting and number of the values of an experiment


def check_size(key: Any, values: Any) -> None:
    """Refuse what has no end (a few lines of YAML whose parts stand for each other), and text that cannot be written.

    Raises
    ------
    ValueError
        If it has no end.
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

    Raises
    ------
    UserError
        If it cannot be read or holds something else.
    """
    name = " ".join(str(path).encode(errors="replace").decode().split())
    try:
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
