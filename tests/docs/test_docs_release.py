"""A release is one thing: version, change log and citation agree, and the README's figure is what `make demo` draws."""

import re
import shlex
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image, ImageFilter

import gaussian_test as gt
from gaussian_test.analysis.figures import parts
from gaussian_test.cli.commands import main
from gaussian_test.experiment.experiment import Experiment

ROOT = Path(__file__).resolve().parents[2]
CHANGES = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
ENTRIES = re.findall(r"^## (\S+) \(([^)]+)\)$", CHANGES, flags=re.MULTILINE)


def test_version_change_log_and_citation_agree():
    version, when = ENTRIES[0]
    assert version == gt.__version__ == CITATION["version"]
    assert len(ENTRIES) == len(re.findall(r"^## ", CHANGES, flags=re.MULTILINE))
    # released is what has a date, in both or in none
    if when == "unreleased":
        assert "date-released" not in CITATION
    else:
        assert date.fromisoformat(when) == CITATION["date-released"]
    assert all(date.fromisoformat(past) for _, past in ENTRIES[1:])
    numbers = [tuple(map(int, number.split("."))) for number, _ in ENTRIES]
    assert numbers == sorted(numbers, reverse=True)


def test_the_entry_has_something_to_say_by_kind():
    entry = re.split(r"^## .*$", CHANGES, flags=re.MULTILINE)[1]
    kinds = re.findall(r"^### (.*)$", entry, flags=re.MULTILINE)
    assert kinds
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert len(set(kinds)) == len(kinds)


def test_the_paper_that_is_cited_is_the_one_that_the_readme_links_to():
    assert f"https://doi.org/{CITATION['preferred-citation']['doi']}" in README
    assert CITATION["cff-version"] == "1.2.0"


# -- the figure of the first page ----------------------------------------------------------------------------------------------


def demo():
    """Return the arguments of the command line in `make demo`."""
    recipe = re.search(r"^demo:.*\n((?:\t.*\n)+)", MAKEFILE, flags=re.MULTILINE)[1].replace("\\\n", " ")
    return shlex.split(re.search(r"gaussian-test (.*)", recipe)[1])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Return a folder with the figures of the demo's own command, but for the observables, which are in other figures."""
    context = main.commands["run"].make_context("run", demo()[1:])
    assert context.params["folder"] == Path("results")  # into which the README says that it goes
    assert context.params["experiment"] is None
    folder = tmp_path_factory.mktemp("demo")
    settings = Experiment.load(None, [*context.params["changes"], "observables=none"])
    parts.save({"autocorrelation": gt.run(settings, progress=False).gaussian_test.plot()["autocorrelation"]}, folder)
    return folder


INKS = {"empirical": (1, 115, 178), "network": (222, 143, 5), "gaussian": (2, 158, 115), "closed form": (0, 0, 0)}
NEAR = 9  # pixels, of a figure of 1280: fonts, layouts and last digits differ between machines


def ink(path, colour):
    """Return where a picture has a colour, and where it has it nearby."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    here = np.abs(pixels - colour).max(-1) < 24
    grown = Image.fromarray(here.astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(NEAR))
    return here, np.asarray(grown) > 0


def missing(one, other, colour):
    """Return the share of the ink of one picture that the other does not have nearby."""
    here, _ = ink(one, colour)
    _, near = ink(other, colour)
    assert here.sum() > 500
    return float((here & ~near).sum() / here.sum())


def test_the_figure_of_the_readme_is_what_the_demo_draws(drawn):
    """Curve by curve, both ways: no ink of one without ink of that colour within four pixels in the other."""
    shown = ROOT / re.search(r"!\[[^\]]*\]\((docs/autocorrelation.png)\)", README)[1]
    made = drawn / shown.name
    with Image.open(shown) as one, Image.open(made) as other:
        assert one.size == other.size
    for name, colour in INKS.items():  # one test, so that the demo is run once
        assert missing(shown, made, colour) < 0.02, name
        assert missing(made, shown, colour) < 0.02, name
