"""The README is true: its python runs, its commands exist, its YAML is an experiment."""

import re
from pathlib import Path
from typing import get_args

import pytest

from gaussian_test.cli.commands import main
from gaussian_test.experiment import scores

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("code", _blocks("python"))
def test_python_blocks_run(code, capsys):
    exec(compile(code, "README.md", "exec"), {})
    assert "Gaussian Test of digits" in capsys.readouterr().out


def test_the_first_block_is_about_ten_lines():
    assert len([line for line in _blocks("python")[0].splitlines() if line.strip()]) <= 10


def test_the_table_of_networks_is_that_of_the_settings():
    """Every kind of network with exactly its own settings; what all have in common stands below the table."""
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", README, flags=re.MULTILINE))
    kinds = {get_args(kind.model_fields["kind"].annotation)[0]: set(kind.model_fields) for kind in get_args(scores.AnyNetwork)}
    common = set.intersection(*kinds.values()) - {"kind"}
    for kind, fields in kinds.items():
        named = set(re.findall(r"`(\w+)`", rows[kind]))
        assert named & fields, kind
        assert named - {"x0", "epsilon", "v", "score", "velocity"} <= fields, kind
    assert all(f"`{name}`" in README for name in common)


def test_every_command_and_option_exists():
    commands = re.findall(r"^    gaussian-test (\w+) (.*)$", README, flags=re.MULTILINE)
    assert {name for name, _ in commands} == set(main.commands)
    for name, arguments in commands:
        known = {option for parameter in main.commands[name].params for option in parameter.opts}
        assert set(re.findall(r"(?<!\S)--?[a-z]+", arguments)) <= known


def test_every_make_target_and_linked_file_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^    make (\w+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
    for link in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / link).is_file()
