"""Shell completion, light enough for every key press."""

import glob
import os
from pathlib import Path
from typing import Any

import click
from click import shell_completion as shells
from click.shell_completion import CompletionItem

VARIABLE = "_GAUSSIAN_TEST_COMPLETE"
PROGRAM = "gaussian-test"
DEVICES = "/dev/nvidia[0-9]*"
# by hand, since click's script takes the words as bash cuts them, at = and : too: reverse.kind=h would be three. This one reads
# the whole line, takes off what bash already has of the word, quotes what the shell would obey, and adds no space behind = and /
BASH = r"""%(complete_func)s() {
    local word="${COMP_LINE:0:COMP_POINT}" breaks="${COMP_WORDBREAKS//[^=:]/}" cut='' quote='' i type value
    for ((i = 0; i < ${#word}; i++)); do
        case $quote${word:i:1} in
            \\ | '"\') ((i++)) ;;
            \" | \') quote="${word:i:1}" ;;
            '""' | "''") quote='' ;;
        esac
    done
    word="${word##*[[:space:]]}"
    [[ $breaks ]] && cut="${word%%"${word##*[$breaks]}"}"
    COMPREPLY=()
    while IFS=',' read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain)
                [[ $value == *[=./] ]] && compopt -o nospace
                if [[ -z $quote ]]; then
                    printf -v value %%q "${value#"$cut"}"
                elif [[ $value == *[\\\"\'\$\`!]* ]]; then
                    compopt -o default  # bash itself knows what to write within quotes
                    continue
                fi
                COMPREPLY+=("$value")
                ;;
        esac
    done < <(env COMP_WORDS="${COMP_LINE:0:COMP_POINT}" %(complete_var)s=bash_complete "$1")
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class _WholeOptions(shells.ShellComplete):
    """By hand, since click offers ``cpu`` for ``--device=c``, and a shell puts it in place of the whole word."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        option, equals, _ = incomplete.partition("=")
        items = super().get_completions(args, incomplete)
        for item in items if equals and option.startswith("--") else ():
            item.value = f"{option}={item.value}"
        return items


class _Bash(_WholeOptions, shells.BashComplete):
    source_template = BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_WORDS"]
        words = [*shells.split_arg_string(line), *([""] if line[-1:].isspace() else [])]
        return words[1:-1], words[-1]


class _Zsh(_WholeOptions, shells.ZshComplete):
    # by hand, since click's script has zsh add a space behind reverse.steps= and results/
    source_template = shells.ZshComplete.source_template.replace(
        'completions+=("$key")', '[[ "$key" == *[=/] ]] && compadd -U -S "" -- "$key" || completions+=("$key")'
    )


class _Fish(_WholeOptions, shells.FishComplete):
    pass


SHELLS = {shell.name: shells.add_completion_class(shell) for shell in (_Bash, _Zsh, _Fish)}


def script(command: click.Command, shell: str) -> str:
    """Return the script that teaches one of :data:`SHELLS` to complete a command."""
    return SHELLS[shell](command, {}, PROGRAM, VARIABLE).source()


class File(click.Path):
    """A path, of which files of some kinds are offered, and folders on the way: click's offers all files or folders alone."""

    def __init__(self, *suffixes: str) -> None:
        super().__init__(path_type=Path)
        self.suffixes = suffixes

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return what begins like this; where nothing does, leave it to the shell."""
        found = sorted(glob.glob(f"{glob.escape(incomplete)}*"))
        names = [name for name in found if name.endswith(self.suffixes) and os.path.isfile(name)]
        names += [os.path.join(name, "") for name in found if os.path.isdir(name) and not name.endswith(".parts")]
        names = [name for name in names if name.isprintable()]  # a shell writes others in ways that another quote opens
        return [CompletionItem(name) for name in names] or super().shell_complete(ctx, param, incomplete)


def devices(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete devices; CUDA ones come from the driver's files, as importing torch takes seconds."""
    names = ["auto", "cpu", "cuda", *(f"cuda:{number}" for number in range(len(glob.glob(DEVICES))))]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def changes(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the keys of an experiment, and values that are one of a few names, neither of which click knows."""
    from gaussian_test.experiment.experiment import Experiment

    schema = Experiment.model_json_schema()
    keys = _keys(schema, schema["$defs"])
    key, equals, _ = incomplete.partition("=")
    offered = [f"{key}={value}" for value in keys.get(key, ())] if equals else [f"{name}=" for name in keys]
    return [CompletionItem(text) for text in offered if text.startswith(incomplete)]


def _keys(schema: dict[str, Any], named: dict[str, Any], key: str = "") -> dict[str, list[str]]:
    """Return the dotted keys of settings by their JSON schema, and the values of those that are one of a few names."""
    schema = named[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    inner = [(f"{key}.{name}".lstrip("."), part) for name, part in schema.get("properties", {}).items()]
    inner += [(key, part) for part in schema.get("anyOf", schema.get("oneOf", ())) if part.get("type") != "null"]
    if not inner:
        values = ["true", "false"] if schema.get("type") == "boolean" else [schema.get("const"), *schema.get("enum", ())]
        return {key: [value for value in values if isinstance(value, str)]}
    found: dict[str, list[str]] = {}
    for name, part in inner:  # one of several: a process of any kind
        for whole, values in _keys(part, named, name).items():
            found[whole] = list(dict.fromkeys((*found.get(whole, ()), *values)))
    return found
