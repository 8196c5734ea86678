"""A sweep: named runs for all combinations of some keys."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gaussian_test.errors import UserError, user_input
from gaussian_test.experiment.experiment import Experiment, with_value
from gaussian_test.experiment.reading import check_size, read_yaml

MOST = 10_000  # runs
LONGEST = 120  # characters of a name, which becomes a file name


@dataclass(frozen=True)
class Sweep:
    """Experiments by the names of their runs.

    Attributes
    ----------
    runs : dict of str to Experiment
        Every combination of the values.
    labels : dict of str to dict of str to str
        By run: the label of its value for every key.

    Examples
    --------
    >>> sweep = Sweep.load({"sweep": {"reverse.kind": ["sde", "heun"], "seed": [0, 1]}, "samples": 64})
    >>> list(sweep.runs)
    ['reverse.kind=sde,seed=0', 'reverse.kind=sde,seed=1', 'reverse.kind=heun,seed=0', 'reverse.kind=heun,seed=1']
    >>> sweep.runs["reverse.kind=heun,seed=1"].reverse.kind
    'heun'
    """

    runs: dict[str, Experiment]
    labels: dict[str, dict[str, str]]

    @classmethod
    def load(cls, source: str | Path | Mapping[str, Any], changes: Iterable[str] = ()) -> Sweep:
        """Read a sweep: an experiment with a key ``sweep``, which maps dotted keys to their values.

        Values are a list, or a mapping of labels to values. The name of a run consists of labels: numbers and words themselves,
        anything else by its name or kind and a digest. So it does not depend on the other values.

        Parameters
        ----------
        source : path or mapping
            A YAML file or its content.
        changes : iterable of str
            As for :meth:`Experiment.load`, in all runs.

        Returns
        -------
        Sweep

        Raises
        ------
        UserError
            If it is no sweep, or one of its experiments is invalid.

        Examples
        --------
        >>> list(Sweep.load({"sweep": {"scores": {"exact": [{"kind": "empirical"}]}}}).runs)
        ['scores=exact']
        >>> Sweep.load({"samples": 64})
        Traceback (most recent call last):
        ...
        gaussian_test.errors.UserError: sweep is missing: give it keys and their values, such as 'sweep: {seed: [0, 1, 2]}'
        """
        values = dict(source) if isinstance(source, Mapping) else read_yaml(Path(source))
        changes = list(changes)
        axes = values.pop("sweep", None)
        if not isinstance(axes, dict) or not axes:
            said = "is missing" if axes is None else f"= {axes!r:.60} holds no keys"
            raise UserError(f"sweep {said}: give it keys and their values, such as 'sweep: {{seed: [0, 1, 2]}}'")
        with user_input():
            check_size("sweep", axes)
        keys = [str(key) for key in axes] + [change.partition("=")[0].strip() for change in changes]
        for one, other in itertools.combinations(keys, 2):
            if f"{other}.".startswith(f"{one}.") or f"{one}.".startswith(f"{other}."):
                raise UserError(f"sweep {one!r} and {other!r} set the same: leave one of them out")
        labelled = {str(key): _labelled(str(key), choices) for key, choices in axes.items()}
        count = math.prod(map(len, labelled.values()))
        if count > MOST:
            raise UserError(f"sweep has {count} combinations: give at most {MOST}")
        runs, labels = {}, {}
        for combination in itertools.product(*(choices.items() for choices in labelled.values())):
            of_run = dict(zip(labelled, (label for label, _ in combination), strict=True))
            name, changed = _name(of_run), values
            for key, (_, value) in zip(labelled, combination, strict=True):
                changed = with_value(changed, key, value, f"sweep {key!r}")
            try:
                runs[name] = Experiment.load(changed, changes)
            except UserError as error:
                raise UserError(f"run {name}: {error}") from None
            labels[name] = of_run
        return cls(runs, labels)


def _labelled(key: str, choices: Any) -> dict[str, Any]:
    """Return the values of a key by their labels."""
    if isinstance(choices, dict):
        pairs = [(_slug(str(label)), value) for label, value in choices.items()]
    elif isinstance(choices, list):
        pairs = [(_label(value), value) for value in choices]
    else:
        raise UserError(f"sweep {key!r} = {choices!r:.60} is no list: give a list of values, or labels and their values")
    if not pairs:
        raise UserError(f"sweep {key!r} has no values: give at least one or leave it out")
    labelled = dict(pairs)
    if len(labelled) < len(pairs) or "" in labelled:
        raise UserError(f"sweep {key!r} has the same value or label twice, or an empty one: leave one out or name them apart")
    return labelled


def _label(value: Any) -> str:
    """Return the label of a value: itself, or for a structure its names and a digest."""
    if isinstance(value, str | int | float | bool) or value is None:
        return _slug(json.dumps(value) if not isinstance(value, str) else value)
    digest = hashlib.sha256(json.dumps(_sorted(value), default=str).encode()).hexdigest()[:6]
    return "-".join(filter(None, [_slug(_called(value)), digest]))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return sorted(([str(key), _sorted(item)] for key, item in value.items()), key=lambda pair: str(pair[0]))
    return [_sorted(item) for item in value] if isinstance(value, list | tuple) else value


def _called(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(filter(None, map(_called, value)))
    if isinstance(value, dict):
        return str(next((value[key] for key in ("name", "kind", "preset", "source") if key in value), ""))
    return str(value)


def _slug(text: str) -> str:
    slug = re.sub(r"[^A-Za-z0-9._+-]+", "-", text).rstrip("-.").lstrip(".")
    return slug if re.match(r"-\d", slug) else slug.lstrip("-.")  # keep the sign of a number


def _name(labels: Mapping[str, str]) -> str:
    """Return the name of a run: its labels, shortened if too long for a file."""
    name = ",".join(f"{_slug(key)}={label}" for key, label in labels.items())
    if len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST - 13]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
