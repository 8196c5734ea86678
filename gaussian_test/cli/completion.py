"""Shell completion, light enough for every key press."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class, get_completion_class, split_arg_string

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_GAUSSIAN_TEST_COMPLETE"
PROGRAM = "gaussian-test"
# bash splits words at = and :, so reverse.kind=h would be three words: parse the whole line, and strip the part that bash already
# has
BASH = r"""%(complete_func)s() {
    local word="${COMP_LINE:0:COMP_POINT}" breaks="${COMP_WORDBREAKS//[^=:]/}" cut='' type value
    word="${word##*[[:space:]]}"
    [[ $breaks ]] && cut="${word%%"${word##*[$breaks]}"}"
    COMPREPLY=()
    while IFS=',' read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain)
                COMPREPLY+=("${value#"$cut"}")
                [[ $value == *[=./] ]] && compopt -o nospace
                ;;
        esac
    done < <(env COMP_WORDS="${COMP_LINE:0:COMP_POINT}" %(complete_var)s=bash_complete "$1")
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


@add_completion_class
class _WholeWords(BashComplete):
    """Bash completion that does not split words at an equals sign or a colon."""

    source_template = BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)
        if not words or line[-1:].isspace():
            return words[1:], ""
        return words[1:-1], words[-1]


def script(command: click.Command, shell: str) -> str:
    """Return the completion script of a command for a shell.

    Raises ValueError for an unknown shell.
    """
    known = get_completion_class(shell)
    if known is None:
        raise ValueError(f"shell {shell!r} is not known: choose {', '.join(SHELLS)}")
    return known(command, {}, PROGRAM, VARIABLE).source()


def files(*suffixes: str) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Return a completer for files with some suffixes, and folders on the way to them."""

    def found(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        folder, start = os.path.split(incomplete)
        try:
            entries = sorted(os.scandir(folder or "."), key=lambda entry: entry.name)
        except OSError:
            entries = []
        entries = [entry for entry in entries if entry.name.startswith(start) and (start or not entry.name.startswith("."))]
        some = [os.path.join(folder, entry.name) for entry in entries if entry.name.endswith(suffixes) and entry.is_file()]
        folders = [
            os.path.join(folder, entry.name, "") for entry in entries if entry.is_dir() and not entry.name.endswith(".parts")
        ]
        if not some and not folders:
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(name) for name in [*some, *folders]]

    return found


def folders(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete folders."""
    return [CompletionItem(incomplete, type="dir")]


def devices(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete devices; CUDA ones come from the driver's files, as importing torch takes seconds."""
    numbers = sorted(int(path.name[6:]) for path in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name))
    names = ["auto", "cpu", "cuda", *(f"cuda:{number}" for number in range(len(numbers)))]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def changes(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the keys of an experiment, and values that are one of a few names."""
    from gaussian_test.experiment.experiment import Experiment

    keys = dict(_keys(Experiment))
    key, equals, start = incomplete.partition("=")
    if equals:
        return [CompletionItem(f"{key}={value}") for value in keys.get(key, ()) if value.startswith(start)]
    return [CompletionItem(f"{name}=") for name in keys if name.startswith(incomplete)]


def _keys(model: Any, before: str = "") -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the dotted keys of settings, and their values if these are one of a few names."""
    for name, described in model.model_fields.items():
        parts = list(_parts(described.annotation))
        inner = [part for part in parts if hasattr(part, "model_fields")]
        values = tuple(value for part in parts if get_origin(part) is Literal for value in get_args(part) if isinstance(value, str))
        values += ("true", "false") if bool in parts else ()
        if not inner or name == "scores":  # a list of scores is written out
            yield f"{before}{name}", values
            continue
        found: dict[str, tuple[str, ...]] = {}
        for part in inner:  # one of several: a process of any kind
            for key, some in _keys(part, f"{before}{name}."):
                found[key] = tuple(dict.fromkeys((*found.get(key, ()), *some)))
        yield from found.items()


def _parts(annotation: Any) -> Iterator[Any]:
    """Yield the alternatives of a type, without annotations and without list items."""
    inner = get_args(annotation)
    if get_origin(annotation) in (Literal, tuple, dict) or not inner:
        yield annotation
        return
    for part in inner:
        yield from _parts(part)
