"""The pages about extending run, cell by cell, and their tables name what there is."""

import re
from pathlib import Path

import pytest
import yaml
from notebook_room import run_page

import gaussian_test as gt
from gaussian_test.experiment.experiment import Experiment

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "extending"
PAGES = sorted(path.stem for path in FOLDER.glob("*.md") if path.stem != "index")


def test_there_is_a_page_for_each_kind():
    assert PAGES == ["observable", "process", "reverse_kernel", "score"]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")  # as in a notebook: the page goes to a folder of its own
    ran = run_page((FOLDER / f"{page}.md").read_text(encoding="utf-8"))
    assert " breaks '" in capsys.readouterr().out + "".join(map(repr, ran.shown))  # each shows what a broken law looks like


def test_the_index_names_what_there_is():
    text = (FOLDER / "index.md").read_text(encoding="utf-8")
    for name in set(re.findall(r"`(?:gt\.conformance\.)?(check_\w+)`", text)):
        assert callable(getattr(gt.conformance, name))
    for page in re.findall(r"\]\((\w+)\.md\)", text):
        assert page in PAGES
    settings = re.findall(r"`((?:process|scores|reverse|custom_observables): [^`]*)`", text)
    assert len(settings) == 4
    for line in settings:
        Experiment.load(yaml.safe_load(line))
