"""A notebook run as the docs build runs it, small: parameters replaced, in a folder of its own, and asked for values in the end."""

import json

import jupytext
import nbformat
from nbclient import NotebookClient

MARK = "answer of the notebook: "


def execute(path, folder, parameters, question="None"):
    """Return what a python expression is in the end, and the notebook with its outputs."""
    notebook = jupytext.read(path, fmt="py:percent")
    tagged = [index for index, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1, "one cell holds the parameters"
    names = {line.partition(" = ")[0] for line in notebook.cells[tagged[0]].source.splitlines()}
    assert set(parameters) <= names, f"{set(parameters) - names} are no parameters of {path.name}"
    assert all(cell.cell_type == "markdown" or "import" in cell.source for cell in notebook.cells[: tagged[0]])
    injected = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    notebook.cells.insert(tagged[0] + 1, nbformat.v4.new_code_cell(injected))
    asked = f"import json\nprint({MARK!r} + json.dumps({question}))"
    ends = [index for index, cell in enumerate(notebook.cells) if ".cleanup()" in cell.source]
    notebook.cells.insert(ends[-1] if ends else len(notebook.cells), nbformat.v4.new_code_cell(asked))  # while files are there
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    said = "".join(output.text for output in outputs(notebook, "stream") if output.name == "stdout")
    return json.loads(said.rpartition(MARK)[2]), notebook


def outputs(notebook, kind):
    return [output for cell in notebook.cells for output in cell.get("outputs", []) if output.output_type == kind]


def figures(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]


def warnings(notebook):
    return [output.text for output in outputs(notebook, "stream") if output.name == "stderr"]
