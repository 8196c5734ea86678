"""The house: imports run downwards only, and everything public says what it is and shows an example that runs."""

import doctest
import graphlib
import importlib
import importlib.util
import inspect
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("rooms", ROOT / "docs" / "rooms.py")
rooms = importlib.util.module_from_spec(spec)
spec.loader.exec_module(rooms)
FACE, FOLDERS, SCRIPTS, room = rooms.FACE, rooms.FOLDERS, rooms.SCRIPTS, rooms.room
FLOOR = {room: floor for floor, names in enumerate(rooms.FLOORS) for room in names}
MODULES = rooms.modules()
IMPORTS = rooms.imports(MODULES)
# libraries that the lower rooms may import; only the adapter of diffusers opens files
LIBRARIES = {
    "sampler": {"torch", "numpy", "lazy_loader"},
    "data": {"numpy", "xarray", "sklearn", "PIL"},
    "ground": {"netCDF4", "numpy", "threadpoolctl", "tqdm"},
}
OUTSIDE_OF_FILE = {
    "gaussian_test.sampler.networks.diffusers_models": {"diffusers", "safetensors"},
    "gaussian_test.data.formats.csv": {"pandas"},
    "gaussian_test.data.formats.hdf5": {"h5py"},
    "gaussian_test.data.formats.netcdf": {"netCDF4"},
    "gaussian_test.data.formats.tables": {"pyarrow"},
    "gaussian_test.data.formats.zarr": {"zarr"},
}


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


def test_the_picture_of_the_rooms_is_that_of_the_code():
    assert rooms.PICTURE.read_text(encoding="utf-8") == rooms.picture(), "draw it again: python docs/rooms.py"


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
