"""The pages about extending run, cell by cell in a kernel of their own, and their tables name what there is."""

import re
from pathlib import Path

import nbclient
import nbformat
import pytest
import yaml

import gaussian_test as gt
from gaussian_test.experiment.experiment import Experiment

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "extending"
PAGES = sorted(path.stem for path in FOLDER.glob("*.md") if path.stem != "index")


def notebook(page):
    """Return the code cells of a MyST notebook, in their order."""
    text = (FOLDER / f"{page}.md").read_text(encoding="utf-8")
    cells = re.findall(r"^```\{code-cell\} ipython3\n((?::\w+:[^\n]*\n)*)(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code.strip("\n")) for _, code in cells])
    made.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return made


def test_there_is_a_page_for_each_kind():
    assert PAGES == ["observable", "process", "reverse_kernel", "score"]


@pytest.mark.filterwarnings("default")  # of the client's own event loop and sockets
@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs_from_top_to_bottom(page, tmp_path):
    found = notebook(page)
    assert len(found.cells) >= 5
    nbclient.NotebookClient(found, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = "".join(output.get("text", "") for cell in found.cells for output in cell.get("outputs", []))
    assert " breaks '" in said  # each shows what a broken law looks like


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
