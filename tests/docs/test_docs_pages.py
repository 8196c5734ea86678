"""The documentation builds without a warning; commands of its pages and of the README exist, YAML is an experiment, python runs."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import yaml
from notebook_room import run_page

import gaussian_test as gt
from gaussian_test.cli.commands import main
from gaussian_test.experiment import scores
from gaussian_test.experiment.experiment import Experiment
from gaussian_test.sweep.sweep import Sweep

DOCS = Path(__file__).resolve().parents[2] / "docs"
README = DOCS.parent / "README.md"
TEXT = README.read_text(encoding="utf-8")
EXTENDING = DOCS / "extending"
KINDS = sorted(path.stem for path in EXTENDING.glob("*.md") if path.stem != "index")
PAGES = sorted(path for folder in (DOCS, DOCS / "how_to") for path in folder.glob("*.md"))
WITH_CODE = [path for path in PAGES if "file_format: mystnb" in path.read_text(encoding="utf-8")]

MOST = 24  # samples of a run in a page


def name(path):
    return str(path.relative_to(DOCS.parent))


def blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def test_the_documentation_builds_without_a_warning(tmp_path):
    """References, tables of contents, docstrings, settings and commands; the code of its pages is run by tests of its own."""
    options = ["-W", "--keep-going", "-q", "-b", "html", "-d", tmp_path / "trees"]
    command = [sys.executable, "-m", "sphinx", *options, DOCS, tmp_path / "html"]
    environment = os.environ | {"DOCS_EXECUTION": "off"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    built = {str(path.relative_to(tmp_path / "html").with_suffix("")) for path in (tmp_path / "html").rglob("*.html")}
    sources = {str(path.relative_to(DOCS).with_suffix("")) for kind in ("md", "rst") for path in DOCS.rglob(f"*.{kind}")}
    assert {source for source in sources if "_build" not in source} <= built
    reference = (tmp_path / "html" / "reference" / "experiment.html").read_text(encoding="utf-8")
    for key in Experiment.model_fields:
        assert f">{key}</span>" in reference
    commands = (tmp_path / "html" / "reference" / "commands.html").read_text(encoding="utf-8")
    assert all(f'id="{command}"' in commands for command in main.commands)


def commands():
    for path in PAGES:
        for block in blocks(path, "bash"):
            joined = re.sub(r"\\\n\s*", "", block)
            for line in joined.splitlines():
                if line.startswith("gaussian-test "):
                    yield pytest.param(line, id=f"{name(path)}: {line}")


@pytest.mark.parametrize("line", list(commands()))
def test_a_command_is_one_of_ours(line, tmp_path, monkeypatch):
    """Its options exist, and what it sets is a setting."""
    monkeypatch.chdir(tmp_path)
    words = [re.sub(r"\$[A-Z_]+", "1", word) for word in shlex.split(line, comments=True) if word != "&"]
    command = main.commands[words[1]]
    parsed = command.make_context(words[1], words[2:], parent=main.make_context("gaussian-test", [], resilient_parsing=True))
    if changes := parsed.params.get("changes"):
        Experiment.load(None, changes)


@pytest.mark.parametrize(("path", "text"), [pytest.param(p, t, id=name(p)) for p in [*PAGES, README] for t in blocks(p, "yaml")])
def test_yaml_is_an_experiment(path, text):
    values = yaml.safe_load(text)
    if "sweep" in values:
        assert len(Sweep.load(values).runs) > 1
    else:
        assert set(Experiment.load(values).model_dump(exclude_unset=True)) == set(values)


def small(monkeypatch):
    """Have every run be one of few samples."""
    real = gt.run

    def run(experiment, *arguments, **options):
        asked = experiment.get("samples", MOST)
        return real({**experiment, "samples": min(MOST, asked if isinstance(asked, int) else MOST)}, *arguments, **options)

    monkeypatch.setattr(gt, "run", run)


@pytest.mark.parametrize("path", WITH_CODE, ids=name)
def test_code_of_a_page_runs(path, tmp_path, monkeypatch):
    """In order, in one namespace, small; the docs build runs it as it is."""
    monkeypatch.chdir(tmp_path)
    small(monkeypatch)
    assert run_page(path.read_text(encoding="utf-8")).cells >= 3


def test_python_of_the_how_to_about_data_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small(monkeypatch)
    for code in blocks(DOCS / "how_to" / "data.md", "python"):
        exec(compile(code, "data.md", "exec"), {})
    assert Path("mine.npz").exists()


def test_the_network_of_the_how_to_is_a_score(tmp_path, monkeypatch):
    """The stand-in of the page is the exact denoiser of what it says it is: its experiment runs."""
    page = DOCS / "how_to" / "checkpoint.md"
    monkeypatch.chdir(tmp_path)
    Path("my_network.py").write_text(blocks(page, "python")[0], encoding="utf-8")
    settings = blocks(page, "yaml")[0]
    result = gt.run({**yaml.safe_load(settings), "samples": 16, "reverse": {"steps": 4}, "observables": "none"}, progress=False)
    assert result["score"].values.tolist() == ["empirical", "mine", "gaussian"]
    nu = result["noise_to_signal"].values
    one_shot = result["autocorrelation_one_shot"].sel(score="mine").values
    kept = result["autocorrelation_one_shot"].sel(score="mine") * (0.25 + nu**2)
    assert (one_shot[:-1] > one_shot[1:]).all()  # it shrinks more the more noise there is
    assert float(kept.max() / kept.min()) < 1.3  # by 0.25 / (0.25 + nu^2), up to the noise's own product with the starts


# -- the pages about extending: cell by cell, and their tables name what there is ----------------------------------------------


def test_there_is_a_page_about_extending_for_each_kind():
    assert KINDS == ["observable", "process", "reverse_kernel", "score"]


@pytest.mark.parametrize("page", KINDS)
def test_a_page_about_extending_runs_from_top_to_bottom(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")  # as in a notebook: the page goes to a folder of its own
    ran = run_page((EXTENDING / f"{page}.md").read_text(encoding="utf-8"))
    assert " breaks '" in capsys.readouterr().out + "".join(map(repr, ran.shown))  # each shows what a broken law looks like


def test_the_index_of_extending_names_what_there_is():
    text = (EXTENDING / "index.md").read_text(encoding="utf-8")
    for name in set(re.findall(r"`(?:gt\.conformance\.)?(check_\w+)`", text)):
        assert callable(getattr(gt.conformance, name))
    for page in re.findall(r"\]\((\w+)\.md\)", text):
        assert page in KINDS
    settings = re.findall(r"`((?:process|scores|reverse|custom_observables): [^`]*)`", text)
    assert len(settings) == 4
    for line in settings:
        Experiment.load(yaml.safe_load(line))


# -- the README ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", blocks(README, "python"))
def test_python_of_the_readme_runs(code, capsys):
    exec(compile(code, "README.md", "exec"), {})
    assert "Gaussian Test of digits" in capsys.readouterr().out


def test_the_first_block_of_the_readme_is_about_ten_lines():
    assert len([line for line in blocks(README, "python")[0].splitlines() if line.strip()]) <= 10


def test_the_table_of_networks_is_that_of_the_settings():
    """Every kind of network with exactly its own settings; what all have in common stands below the table."""
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", TEXT, flags=re.MULTILINE))
    kinds = {get_args(kind.model_fields["kind"].annotation)[0]: set(kind.model_fields) for kind in get_args(scores.AnyNetwork)}
    common = set.intersection(*kinds.values()) - {"kind"}
    for kind, fields in kinds.items():
        named = set(re.findall(r"`(\w+)`", rows[kind]))
        assert named & fields, kind
        assert named - {"x0", "epsilon", "v", "score", "velocity"} <= fields, kind
    assert all(f"`{name}`" in TEXT for name in common)


def test_every_command_and_option_of_the_readme_exists():
    commands = re.findall(r"^    gaussian-test (\w+) (.*)$", TEXT, flags=re.MULTILINE)
    assert {name for name, _ in commands} == set(main.commands)
    for name, arguments in commands:
        known = {option for parameter in main.commands[name].params for option in parameter.opts}
        assert set(re.findall(r"(?<!\S)--?[a-z]+", arguments)) <= known


def test_every_make_target_and_linked_file_of_the_readme_exists():
    makefile = (DOCS.parent / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^    make (\w+)", TEXT, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
    for link in re.findall(r"\]\((?!http)([^)]+)\)", TEXT):
        assert (DOCS.parent / link).is_file()
