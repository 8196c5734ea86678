"""Whatever happens to the bytes of an archive, it shows what it showed before, or is refused in a sentence."""

import fuzz_strategies as given
import pytest
from click.testing import CliRunner
from fuzz_cases import SECONDS, fuzz, limit, sentence
from hypothesis import strategies as st

import gaussian_test as gt
from gaussian_test import UserError
from gaussian_test.cli.commands import main

SETTINGS = {"samples": 6, "turn_times": {"noise_to_signal": [0.2, 1.0, 5.0]}, "reverse": {"kind": "heun", "steps": 3}}
SETTINGS |= {"observables": ["quality", "chains"], "chains": {"length": 2, "turn_times": 2}}
SETTINGS |= {"keep": {"pictures": 2, "trajectory": True}, "statistics": {"bootstrap": 100}}
GROUPS = ("moments", "pictures", "chains", "trajectory")


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The path of an archive, its content, what it shows, and its groups."""
    path = tmp_path_factory.mktemp("good") / "a.nc"
    with limit(4 * SECONDS):
        result = gt.run(SETTINGS, path, progress=False)
    return path, path.read_bytes(), result, {name: result.gaussian_test.group(name) for name in GROUPS}


def test_python(good, tmp_path, long):
    """In this process: a library that ends the interpreter ends the test run, and is seen."""
    _, content, result, groups = good
    bad = tmp_path / "a.nc"

    def law(damage):
        bad.write_bytes(changed := damage(content))
        try:
            opened = gt.open_archive(bad)
        except UserError as error:
            assert changed != content
            said = sentence(error)
            assert str(bad) in said
        else:
            assert changed == content
            assert opened.identical(result)
            assert opened.gaussian_test.show() == result.gaussian_test.show()
            assert all(opened.gaussian_test.group(name).identical(group) for name, group in groups.items())

    fuzz(st.one_of(given.damages(), st.just(bytes)), law, 100, long)


def test_command_line(good, tmp_path, long):
    path, content, _, _ = good
    bad = tmp_path / "a.nc"
    commands = [["show", bad], ["show", "--all", bad], ["compare", bad, path], ["compare", path, bad]]
    commands += [["plot", bad, "-o", tmp_path / "figures"]]

    def law(case):
        damage, arguments = case
        bad.write_bytes(changed := damage(content))
        if changed == content:
            return  # see the next test
        done = CliRunner().invoke(main, list(map(str, arguments)))
        assert done.exit_code == 2, done.exception
        assert done.stdout == ""
        assert done.stderr.startswith("gaussian-test: ")
        sentence(done.stderr.strip())
        assert not (tmp_path / "figures").exists()

    fuzz(st.tuples(given.damages(), st.sampled_from(commands)), law, 60, long)


def test_the_good_archive_on_the_command_line(good):
    path, _, result, _ = good
    assert CliRunner().invoke(main, ["show", str(path)]).stdout == result.gaussian_test.show() + "\n"
    for arguments in (["show", "--all", str(path)], ["compare", str(path), str(path)]):
        assert CliRunner().invoke(main, arguments).exit_code == 0
