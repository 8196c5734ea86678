"""Reference pages that are written from the code while the documentation is built: settings, commands, variables."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
from docutils import nodes
from docutils.statemachine import StringList
from numpydoc.docscrape import NumpyDocString
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.rst import escape

from gaussian_test import analysis
from gaussian_test.analysis.declarations import Variable
from gaussian_test.analysis.observables import registry
from gaussian_test.cli.commands import main
from gaussian_test.experiment import processes, scores
from gaussian_test.experiment.experiment import Experiment


def experiment_page() -> Iterator[str]:
    """Yield the settings of an experiment: a section for each key that has keys of its own, a table of keys in each."""
    yield from _settings(Experiment, "Experiment", "experiment")
    for name, field in Experiment.model_fields.items():
        kinds = [kind for kind in _models(field.annotation) if kind.model_fields]
        if name == "process":
            yield from _kinds(_models(processes.Process), name)
        elif name == "scores":
            yield from _kinds(_models(scores.ScoreSettings), name)
        else:
            for kind in kinds:
                yield from _settings(kind, name if len(kinds) == 1 else f"{name}: {kind.__name__}", name)


def _kinds(kinds: list[type[BaseModel]], name: str) -> Iterator[str]:
    for kind in kinds:
        (tag,) = get_args(kind.model_fields["kind"].annotation)
        yield from _settings(kind, f"{name}, kind: {tag}", name)


def _settings(model: type[BaseModel], title: str, name: str) -> Iterator[str]:
    yield from [title, "-" * len(title), ""]
    if model is not Experiment:
        yield from [*inspect.cleandoc(model.__doc__ or "").splitlines(), ""]
    meanings = _meanings(model)
    columns = ["key", *(["meaning"] if meanings else []), "values", "default"]
    yield from [".. list-table::", "   :header-rows: 1", f"   :widths: {'16 44 22 18' if meanings else '22 48 30'}", ""]
    yield from [f"   {'*' if column == 'key' else ' '} - {column}" for column in columns]
    for key, field in model.model_fields.items():
        if key == "kind" and name in ("process", "scores"):
            continue
        cells = [f"``{key}``", *([meanings.get(key, "")] if meanings else []), _values(field), _default(field)]
        yield from (f"   {' ' if place else '*'} - {cell}" for place, cell in enumerate(cells))
    yield ""


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """Return what a docstring says of each key, where it does."""
    listed = NumpyDocString(inspect.cleandoc(model.__doc__ or ""))["Attributes"]
    return {name.strip(): " ".join(entry.desc) for entry in listed for name in entry.name.split(",")}


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Return the models that an annotation names, in order."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _values(field: FieldInfo) -> str:
    bounds = [str(part) for part in field.metadata]
    return _named(field.annotation) + (f" ({said})" if (said := _bounds(bounds)) else "")


BOUNDS = {"Ge(ge=": "at least ", "Gt(gt=": "above ", "Le(le=": "at most ", "Lt(lt=": "below ", "MinLen(min_length=": "at least "}


def _bounds(parts: list[str]) -> str:
    found = [
        (words, part.removeprefix(start).rstrip(")")) for part in parts for start, words in BOUNDS.items() if part.startswith(start)
    ]
    return ", ".join(
        f"{words}{value}" for words, value in found if len(value) < 10
    )  # larger ones are those of the machine's numbers


def _named(annotation: Any) -> str:
    """Return what values an annotation stands for, in words."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        bounds = _bounds([str(part) for part in parts[1:]])
        return _named(parts[0]) + (f" ({bounds})" if bounds else "")
    if origin in (Union, types.UnionType):
        if all(_models(part) for part in parts):
            return "see below"
        return " or ".join(_named(part) for part in parts if part is not type(None))
    if origin is Literal:
        return ", ".join(f"``{part}``" for part in parts)
    if origin is tuple:
        if len(parts) == 2 and parts[1] is not Ellipsis:
            return f"a pair of {_named(parts[0])}s"
        return "a list, see below" if _models(parts[0]) else f"a list of {_named(parts[0])}"
    if origin is dict:
        return "a mapping of names"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "``min``, ``max``, ``count``" if annotation.__name__ == "Spacing" else "see below"
    names = {
        "int": "whole number",
        "float": "number",
        "str": "text",
        "bool": "``true``, ``false``",
        "ByteSize": "bytes, as in ``4GB``",
    }
    return names.get(getattr(annotation, "__name__", ""), "any")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "*(required)*"
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined or value is None or value == {}:
        return "none"
    if isinstance(value, BaseModel):
        return "its defaults"
    if isinstance(value, tuple):
        return ", ".join(f"``{part.kind if isinstance(part, BaseModel) else part}``" for part in value)
    return f"``{str(value).lower() if isinstance(value, bool) else value}``"


def command_page() -> Iterator[str]:
    """Yield the help of every command, as the terminal shows it."""
    size = {"terminal_width": 72, "max_content_width": 72}
    context = main.make_context("gaussian-test", [], resilient_parsing=True, **size)
    yield from _help("gaussian-test", main, context)
    for name in sorted(main.commands):
        command = main.commands[name]
        yield from _help(name, command, command.make_context(name, [], parent=context, resilient_parsing=True, **size))


def _help(title: str, command: click.Command, context: click.Context) -> Iterator[str]:
    yield from [title, "-" * len(title), "", ".. code-block:: text", ""]
    yield from (f"   {line}" for line in command.get_help(context).splitlines())
    yield ""


NEEDS = {
    "sample": "undefined where a start is no ground-truth sample",
    "start": "undefined where noise alone is reversed",
    "sde": "undefined where the start is no ground-truth sample or the kernel does not follow the reverse SDE",
}


def archive_page() -> Iterator[str]:
    """Yield the variables of an archive: a section for each observable, a table in each, from their declarations."""
    for one in registry.every():
        title = one.name.replace("_", " ")
        asked = "always measured" if one in registry.ALWAYS else "measured by default" if one.default else "measured on request"
        yield from [title, "-" * len(title), "", escape(f"{one.title[0].upper()}{one.title[1:]}; {asked}."), ""]
        yield from [".. list-table::", "   :header-rows: 1", "   :widths: 40 60", ""]
        yield from ["   * - variable (over its dimensions)", "     - meaning"]
        for variable in one.variables:
            over = f" ({', '.join(variable.dims)})" if variable.dims else ""
            yield from [f"   * - {_names(variable)}{over}", f"     - {_meaning(variable)}"]
        yield ""


def _names(variable: Variable) -> str:
    group = f"{variable.group}: " if variable.group else ""
    return group + " ".join(f"``{name}``" for name in (variable.name, *variable.band))


def _meaning(variable: Variable) -> str:
    units = "" if variable.units == "1" else f", in {variable.units}"
    said = [variable.long_name + units, variable.comment, NEEDS.get(variable.needs, "")]
    text = "; ".join(part for part in said if part)
    # a fact of the run, by the last part of its name
    return escape(re.sub(r"\{(?:\w+\.)?(\w+?)(?:s\[\d\])?(?::\w+)?\}", r"<\1>", text))


def analysis_page() -> Iterator[str]:
    """Yield what ``analysis`` has beside its public names, room by room: functions and classes whose parameters are described."""
    for found in pkgutil.walk_packages(analysis.__path__, f"{analysis.__name__}."):
        module = importlib.import_module(found.name)
        here = [
            (name, value)
            for name, value in vars(module).items()
            if getattr(value, "__module__", "") == found.name and name not in analysis.__all__ and not name.startswith("_")
        ]
        described = [
            (name, value) for name, value in here if re.search(r"^ *(Parameters|Attributes)\n *--", value.__doc__ or "", re.M)
        ]
        if described:
            room = found.name.removeprefix(f"{analysis.__name__}.")
            yield from (f"``{room}``", "-" * (len(room) + 4), "")
        for name, value in described:
            yield from (f".. auto{'class' if inspect.isclass(value) else 'function'}:: {found.name}.{name}", "")


PAGES = {"experiment": experiment_page, "commands": command_page, "archive": archive_page, "analysis": analysis_page}


class FromTheCode(SphinxDirective):
    """``from-the-code:: experiment``, ``commands``, ``archive`` or ``analysis``: a reference that is what the code says."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        lines = StringList(list(PAGES[self.arguments[0]]()), source="the code")
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, bool]:
    """Make the directive known to Sphinx."""
    app.add_directive("from-the-code", FromTheCode)
    return {"parallel_read_safe": True}
