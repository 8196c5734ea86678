"""The oldest versions that are tested are the lower bounds of setup.cfg, and every library that is imported is asked for."""

import ast
import configparser
import re
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
EXTRAS = (
    "cluster",
    "slurm",
    "diffusers",
    "azula",
    "hdf5",
    "zarr",
    "parquet",
)  # what a run can use; the others are for those who change the project
ROOMS = ("gaussian_test", "sampler", "analysis", "data")  # links are not followed
NOT_TRIED = {"torch"}  # of which not every index has a small build


def pins(name):
    """Return the pins of a constraints file: versions by the name of the library."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return dict(line.lower().split("==") for line in lines if line and not line.startswith("#"))


def wanted(section, option):
    return [Requirement(line) for line in SETUP[section][option].splitlines() if line.strip()]


def runtime():
    """Return what a run may need: name to lower bound."""
    every = wanted("options", "install_requires")
    every += [one for extra in EXTRAS for one in wanted("options.extras_require", extra)]
    bounds = {}
    for one in (one for one in every if one.name != "gaussian-test"):
        (bound,) = one.specifier
        assert bound.operator == ">=", f"{one} has no lower bound alone"
        assert bounds.setdefault(one.name.lower(), bound.version) == bound.version, f"{one.name} has two lower bounds"
    return bounds


def test_the_oldest_versions_are_the_lower_bounds():
    oldest, bounds, newest = pins("constraints-oldest.txt"), runtime(), pins("constraints.txt")
    for name, bound in bounds.items():
        assert oldest[name] == (newest[name] if name in NOT_TRIED else bound), name
    tools = {one.name.lower() for one in wanted("options.extras_require", "test")} - {"gaussian-test"}
    assert all(oldest[name] == newest[name] for name in tools)
    assert set(oldest) - set(bounds) - tools == {"pyparsing"}  # whatever else is held down says why
    assert "matplotlib 3.9" in (ROOT / "constraints-oldest.txt").read_text(encoding="utf-8")


def test_every_lower_bound_is_at_most_what_is_pinned():
    newest = pins("constraints.txt")
    extras = [("options.extras_require", extra) for extra in SETUP["options.extras_require"]]
    for place in [("options", "install_requires"), *extras]:
        for one in wanted(*place):
            if one.name != "gaussian-test" and one.name.lower() in newest:
                assert one.specifier.contains(Version(newest[one.name.lower()]), prereleases=True), one


def test_python_versions_agree():
    """What is asked for, what the index is told, what the linters take for the oldest, and what `make test-oldest` runs on."""
    asked = SETUP["options"]["python_requires"]
    listed = re.findall(r"Python :: (3\.\d+)", SETUP["metadata"]["classifiers"])
    assert asked == f">={listed[0]}"
    assert SETUP["mypy"]["python_version"] == listed[0]
    assert f'target-version = "py{listed[0].replace(".", "")}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f"python{listed[0]} -m venv .venv-oldest" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_every_library_that_is_imported_is_asked_for():
    """No library comes only because another one needs it today."""
    homes = metadata.packages_distributions()
    asked = {one.name.lower().replace("_", "-") for one in wanted("options", "install_requires")}
    extra = {one.name.lower() for name in EXTRAS for one in wanted("options.extras_require", name)}
    for path in sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for top in {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"gaussian_test"}:
                found = {home.lower().replace("_", "-") for home in homes.get(top, [top])}
                assert found & (asked | extra), f"{path.name} imports {top}"
