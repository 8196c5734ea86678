"""A notebook run in this process as its kernel would: cell by cell, small, in a folder of its own; then asked for values."""

import ast
import importlib
import re
from dataclasses import dataclass, field
from pathlib import Path

import jupytext
import matplotlib.pyplot as plt
from matplotlib.figure import Figure


@dataclass
class Ran:
    """What the cells left: their names, the values that they show, how many figures they drew, and how many they are."""

    names: dict = field(default_factory=lambda: {"__name__": "__main__"})
    shown: list = field(default_factory=list)
    figures: int = 0
    cells: int = 0

    def cell(self, code):
        self.cells += 1
        if "matplotlib_inline" in code:  # how a notebook shows its figures
            return
        first, _, rest = code.strip("\n").partition("\n")
        if first.startswith("%%writefile "):
            Path(first.split()[1]).write_text(rest, encoding="utf-8")
            importlib.invalidate_caches()
            return
        tree = ast.parse(re.sub(r"^%.*$", "", code, flags=re.MULTILINE))  # what is said to the notebook alone
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "<cell>", "exec"), self.names)
        value = None if last is None else eval(compile(ast.Expression(last.value), "<cell>", "eval"), self.names)
        self.shown += [] if value is None else [value]
        drawn = {plt.figure(number) for number in plt.get_fignums()} | ({value} if isinstance(value, Figure) else set())
        self.figures += len(drawn)
        plt.close("all")


def run_notebook(path, parameters, question="None"):
    """Return what a python expression is at the end, while temporary files are still there, and what the cells left."""
    cells = jupytext.read(path, fmt="py:percent").cells
    (place,) = [index for index, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", [])]
    names = {line.partition(" = ")[0] for line in cells[place].source.splitlines()}
    assert set(parameters) <= names, f"{set(parameters) - names} are no parameters of {path.name}"
    assert all(cell.cell_type == "markdown" or "import" in cell.source for cell in cells[:place])
    ran, answer = Ran(), None
    for index, cell in enumerate(cells):
        if cell.cell_type != "code":
            continue
        if ".cleanup()" in cell.source:
            answer = eval(question, ran.names)
        ran.cell(cell.source)
        if index == place:
            ran.names |= parameters
    return eval(question, ran.names) if answer is None else answer, ran


def run_page(text):
    """Run the code cells of a MyST page, and return what they left."""
    ran = Ran()
    for code in re.findall(r"^```\{code-cell\} ipython3\n(?::\w+:[^\n]*\n)*(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        ran.cell(code)
    return ran
