"""The house: imports run downwards only, and everything public says what it is and shows an example that runs."""

import ast
import doctest
import importlib
import inspect
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("sampler", "analysis", "data")
FACE = "gaussian_test"
OWN = {"gaussian_test": "face", **{f"gaussian_test.{room}": room for room in ROOMS}}
STANDARD = set(sys.stdlib_module_names)
# what each room may import besides python's own library
OUTSIDE = {
    "sampler": {"torch", "numpy", "gaussian_test.sampler"},
    "data": {"numpy", "xarray", "sklearn", "PIL", "gaussian_test.data"},
}
# the adapters may hand a folder to diffusers; nothing else in the sampler opens anything
OUTSIDE_OF_FILE = {"sampler/adapters.py": {"diffusers"}}
# a script that is run and never imported: it stands above all rooms, in the folder of what it makes
SCRIPTS = {"data/train_digits_network.py"}
FORBIDDEN_IN_ANALYSIS = {"gaussian_test.data"}


def files(room):
    folder = ROOT / (FACE if room == "face" else room)
    return sorted(folder.glob("*.py"))


ALL = [(room, path) for room in ("face", *ROOMS) for path in files(room) if str(path.relative_to(ROOT)) not in SCRIPTS]
IDS = [str(path.relative_to(ROOT)) for _, path in ALL]


def imported(path):
    """Return every name that a file imports anywhere in it: modules, and ``module.name`` for ``from module import name``."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in (
            "import_module",
            "__import__",
        ):
            first = node.args[0]
            names.add(first.value if isinstance(first, ast.Constant) else "gaussian_test.*")
    return names


def within(name, allowed):
    return any(name == one or name.startswith(one + ".") for one in allowed)


def test_the_files_are_found():
    assert {room for room, _ in ALL} == {"face", *ROOMS}
    assert all(len(files(room)) > 5 for room in ("face", *ROOMS))


@pytest.mark.parametrize(("room", "path"), ALL, ids=IDS)
def test_nobody_imports_a_room_by_its_bare_name(room, path):
    assert not {name for name in imported(path) if name.split(".")[0] in ROOMS}


@pytest.mark.parametrize(
    ("room", "path"), [(r, p) for r, p in ALL if r in OUTSIDE], ids=[i for (r, _), i in zip(ALL, IDS, strict=True) if r in OUTSIDE]
)
def test_the_lower_rooms_import_only_what_they_may(room, path):
    allowed = OUTSIDE[room] | OUTSIDE_OF_FILE.get(str(path.relative_to(ROOT)), set())
    others = {name for name in imported(path) if name.split(".")[0] not in STANDARD and not within(name, allowed)}
    assert others == set()


def test_nobody_imports_a_script():
    assert all((ROOT / script).is_file() for script in SCRIPTS)
    modules = {f"gaussian_test.{script.removesuffix('.py').replace('/', '.')}" for script in SCRIPTS}
    assert not [path for _, path in ALL if any(within(name, modules) for name in imported(path))]


@pytest.mark.parametrize("path", sorted((ROOT / FACE / "conformance").glob("*.py")), ids=lambda path: path.name)
def test_the_suites_of_laws_import_neither_data_nor_the_face(path):
    own = {name for name in imported(path) if name.split(".")[0] == FACE}
    allowed = {f"{FACE}.{room}" for room in ("analysis", "sampler", "conformance")}
    assert {name for name in own if not within(name, allowed)} == set()


@pytest.mark.parametrize("path", files("analysis"), ids=lambda path: path.name)
def test_analysis_imports_neither_data_nor_the_face(path):
    own = {name for name in imported(path) if name.split(".")[0] == FACE}
    assert {name for name in own if not within(name, {"gaussian_test.analysis", "gaussian_test.sampler"})} == set()


def test_the_rooms_are_one_package_each_under_one_name():
    """The links point to the folders, so that a module exists once and not twice."""
    for room in ROOMS:
        module = importlib.import_module(f"{FACE}.{room}")
        assert Path(module.__file__).resolve().parent == ROOT / room
        link = ROOT / FACE / room
        assert link.is_symlink()
        assert not link.readlink().is_absolute()
    assert not set(ROOMS) & set(sys.modules)


# -- what is public ------------------------------------------------------------------------------------------------------------


PACKAGES = (FACE, f"{FACE}.conformance", *(f"{FACE}.{room}" for room in ROOMS))


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
