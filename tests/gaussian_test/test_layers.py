"""The house: imports run downwards only, and everything public says what it is and shows an example that runs."""

import ast
import doctest
import graphlib
import importlib
import inspect
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FACE = "gaussian_test"
FOLDERS = ("sampler", "analysis", "data")  # that stand beside the face and are links in it
# the house from its roof to its ground: a room may import from those below it, not from its own floor's other rooms
FLOORS = (
    ("roof",),
    ("cli",),
    ("html_report",),
    ("sweep",),
    ("engine",),
    ("result",),
    ("build",),
    ("experiment", "data"),
    ("store",),
    ("conformance",),
    ("analysis",),
    ("sampler",),
    ("ground",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
ROOF, GROUND = {"__init__", "__main__", "accessor"}, {"errors", "log", "text", "_version"}
# libraries that the lower rooms may import; only the adapters hand a folder to another library
LIBRARIES = {"sampler": {"torch", "numpy", "lazy_loader"}, "data": {"numpy", "xarray", "sklearn", "PIL"}, "ground": {"tqdm"}}
OUTSIDE_OF_FILE = {"gaussian_test.sampler.networks.adapters": {"diffusers"}}
# a script that is run and never imported: it stands above all rooms, in the folder of what it makes
SCRIPTS = {"gaussian_test.data.train_digits_network"}


def modules():
    """Return every module of the product and its file."""
    found = {}
    for folder in (FACE, *FOLDERS):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if folder == FACE and len(parts) > 1 and parts[1] in FOLDERS:
                continue  # through a link
            found[".".join(part for part in (FACE,) * (folder != FACE) + parts if part != "__init__")] = path
    return found


MODULES = modules()


def imported(path):
    """Return every module that a file imports anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            full = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in MODULES else str(node.module) for name in full.values()}
    return names


IMPORTS = {module: imported(path) for module, path in MODULES.items()}


def room(module):
    first = [*module.split("."), "__init__"][1]
    return "roof" if first in ROOF else "ground" if first in GROUND else first


def test_every_file_is_in_a_room():
    assert {room(module) for module in MODULES} == set(FLOOR)


@pytest.mark.parametrize("module", [module for module in MODULES if module not in SCRIPTS])
def test_imports_run_downwards_only(module):
    here = room(module)
    own = (IMPORTS[module] & set(MODULES)) - {FACE}
    assert not {name for name in own if room(name) != here and FLOOR[room(name)] <= FLOOR[here]}
    assert not own & SCRIPTS
    assert not {name for name in IMPORTS[module] if name.split(".")[0] in FOLDERS}  # by its bare name
    if here in LIBRARIES:
        others = {name.split(".")[0] for name in IMPORTS[module]} - set(sys.stdlib_module_names) - {FACE}
        assert others <= LIBRARIES[here] | OUTSIDE_OF_FILE.get(module, set())


def test_no_file_imports_in_a_circle():
    """Not within a room either: what a file imports can be read without it."""
    list(graphlib.TopologicalSorter({module: names & set(MODULES) - {FACE} for module, names in IMPORTS.items()}).static_order())


def test_a_folder_fits_on_a_screen_and_a_file_has_one_subject():
    for folder in {path.parent for path in MODULES.values()}:
        assert len(list(folder.iterdir())) <= 24, folder
    assert {module: lines for module, path in MODULES.items() if (lines := len(path.read_text().splitlines())) > 400} == {}


def test_the_folders_are_one_package_each_under_one_name():
    """The links point to the folders, so that a module exists once and not twice."""
    for folder in FOLDERS:
        module = importlib.import_module(f"{FACE}.{folder}")
        assert Path(module.__file__).resolve().parent == ROOT / folder
        link = ROOT / FACE / folder
        assert link.is_symlink()
        assert not link.readlink().is_absolute()
    assert not set(FOLDERS) & set(sys.modules)


# -- what is public ------------------------------------------------------------------------------------------------------------


PACKAGES = (FACE, f"{FACE}.conformance", *(f"{FACE}.{folder}" for folder in FOLDERS))


def public():
    found = []
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isfunction(value) or inspect.isclass(value):
                found.append(pytest.param(value, id=f"{package}.{name}"))
    return found


PUBLIC = public()


def test_all_lists_are_sorted_and_true():
    for package in PACKAGES:
        module = importlib.import_module(package)
        assert list(module.__all__) == sorted(set(module.__all__))
        assert all(hasattr(module, name) for name in module.__all__)
    assert len(PUBLIC) > 50


@pytest.mark.parametrize("thing", PUBLIC)
def test_everything_public_has_a_docstring_of_its_own(thing):
    text = thing.__doc__ or ""
    assert len(text.split()) >= 3
    if inspect.isclass(thing):
        assert all(text != (base.__doc__ or "") for base in thing.__mro__[1:])
    for name, method in vars(thing).items() if inspect.isclass(thing) else ():
        if inspect.isfunction(method) and not name.startswith("_"):
            assert inspect.getdoc(getattr(thing, name)), name


@pytest.mark.parametrize("thing", [case for case in PUBLIC if inspect.isfunction(case.values[0])])
def test_every_public_function_shows_an_example(thing):
    text = inspect.getdoc(thing)
    assert "Examples\n--------" in text
    assert doctest.DocTestParser().get_examples(text)
    documented = text.split("Examples\n--------")[0]
    for parameter in inspect.signature(thing).parameters:
        assert parameter in documented, f"{parameter} is not described"
    if inspect.signature(thing).parameters:
        assert "Parameters\n----------" in text
    assert "Returns\n-------" in text
