"""Completion: what click offers, and what a real shell makes of the script that the command prints."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from gaussian_test.cli import completion
from gaussian_test.cli.commands import main
from gaussian_test.experiment.experiment import Experiment

FOLDERS = ("results", "results/deep", "run.nc.parts", ".hidden")
FILES = ("run.nc", "ring.nc", "notes.txt", "one.yaml", "two.yml", "results/digits.nc", ".run.nc.lock")


@pytest.fixture
def room(tmp_path, monkeypatch):
    for name in FOLDERS:
        (tmp_path / name).mkdir()
    for name in FILES:
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def offered(*arguments):
    """Return what click offers for the last word."""
    items = ShellComplete(main, {}, completion.PROGRAM, completion.VARIABLE).get_completions(list(arguments[:-1]), arguments[-1])
    return [item.value for item in items if item.type == "plain"]


CASES = [
    (["sh"], ["show"]),
    (["show", ""], ["ring.nc", "run.nc", "results/"]),
    (["show", "ru"], ["run.nc"]),
    (["show", "results/"], ["results/digits.nc", "results/deep/"]),
    (["plot", "run.nc", "--ou"], ["--output"]),
    (["compare", "run.nc", "ri"], ["ring.nc"]),
    (["run", ""], ["one.yaml", "two.yml", "results/"]),
    (["run", "--device", "c"], ["cpu", "cuda"]),
    (["run", "--set", "reverse.st"], ["reverse.steps="]),
    (
        ["run", "--set", "reverse.kind=e"],
        ["reverse.kind=exact", "reverse.kind=exponential_sde", "reverse.kind=euler", "reverse.kind=edm"],
    ),
    (["run", "--set", "process.sigma"], ["process.sigma_min=", "process.sigma_max="]),
    (["run", "--set", "observables="], ["observables=all", "observables=none"]),
    (["completion", ""], ["bash", "zsh", "fish"]),
    (["show", "nothing"], []),
]


@pytest.mark.parametrize(("words", "wanted"), CASES, ids=lambda case: " ".join(case) if isinstance(case, list) else None)
def test_click_offers_what_is_there(words, wanted, room, monkeypatch):
    monkeypatch.setattr(completion.Path, "glob", lambda *_: [])  # no CUDA device
    assert offered(*words) == wanted


def test_devices_are_those_of_the_driver(monkeypatch):
    shown = [Path("/dev") / name for name in ("nvidia0", "nvidia-uvm", "nvidiactl", "nvidia1", "nvidia10")]
    monkeypatch.setattr(completion.Path, "glob", lambda *_: shown)
    assert offered("run", "--device", "cuda:") == ["cuda:0", "cuda:1", "cuda:2"]


@pytest.mark.parametrize("key", [key for key in offered("run", "--set", "") if not key.startswith(("scores", "turn_times"))])
def test_every_key_offered_is_one_of_an_experiment_and_every_value_is_valid(key):
    """A key that is unknown is refused as such; any other refusal is of the value 'nonsense'."""
    name = key.removesuffix("=")
    values = [item.partition("=")[2] for item in offered("run", "--set", key)]
    for value in values:
        if value not in ("discrete_vp", "factory", "true"):  # these need a further key
            assert Experiment.load(changes=[f"{name}={value}"])
    part = name.split(".")
    known = Experiment().model_dump()
    inside = known[part[0]]
    if part[0] not in ("process", "features", "classifier"):  # of which other kinds have other keys
        assert len(part) == 1 or part[1] in inside


def bash(line, cwd, breaks=None):
    """Return what a real bash would put in place of the last word of a line, by the script that the command prints."""
    program = Path(sys.executable).with_name("gaussian-test")
    code = f"""
        PATH={program.parent}:$PATH
        eval "$(gaussian-test completion bash)" || exit 1
        compopt() {{ OPTIONS+="$* "; }}
        {"COMP_WORDBREAKS=" + repr(breaks) if breaks is not None else ""}
        COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}
        complete -p gaussian-test >/dev/null || exit 1
        _gaussian_test_completion gaussian-test
        printf '%s\\n' "options $OPTIONS" "${{COMPREPLY[@]}}"
    """
    # COMP_WORDBREAKS is set in an interactive shell alone
    done = subprocess.run(
        ["bash", "--norc", "--noprofile", "-i", "-c", code],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # an interactive shell in the background of a terminal would stop itself, and the tests with it
    )
    assert done.returncode == 0, done.stderr
    options, *words = done.stdout.splitlines()
    return options.split()[1:], [word for word in words if word]


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash on this machine")
@pytest.mark.parametrize(
    ("line", "words", "options"),
    [
        ("gaussian-test sho", ["show"], []),
        ("gaussian-test show ", ["ring.nc", "run.nc", "results/"], ["-o", "nospace"]),
        ("gaussian-test show results/di", ["results/digits.nc"], []),
        ("gaussian-test show nothing", [], ["-o", "default"]),
        ("gaussian-test plot run.nc -o ", [], ["-o", "dirnames"]),
        ("gaussian-test run --set reverse.ste", ["reverse.steps="], ["-o", "nospace"]),
        ("gaussian-test run --set reverse.grid=", ["turn_times", "process"], []),  # bash has the key already
        ("gaussian-test run --set seed=1 --set reverse.kind=he", ["heun"], []),
        ("gaussian-test run --device=cp", ["cpu"], []),
    ],
)
def test_a_real_bash_completes(line, words, options, room):
    assert bash(line, room) == (options, words)


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash on this machine")
def test_a_bash_that_cuts_no_words_gets_whole_ones(room):
    assert bash("gaussian-test run --set reverse.grid=p", room, breaks=" \t\n") == ([], ["reverse.grid=process"])


@pytest.mark.parametrize(
    ("shell", "sign"), [("bash", "complete -o nosort -F"), ("zsh", "#compdef gaussian-test"), ("fish", "complete ")]
)
def test_the_script_is_the_one_that_click_knows(shell, sign):
    done = CliRunner().invoke(main, ["completion", shell])
    assert (done.exit_code, done.stderr) == (0, "")
    assert sign in done.stdout
    assert completion.VARIABLE in done.stdout
    if shutil.which(shell):
        assert subprocess.run([shell, "-n"], input=done.stdout, text=True, capture_output=True, check=False).returncode == 0


def test_the_tab_key_waits_for_nothing_heavy(tmp_path):
    """The keys of --set need the settings, and nothing of what computes."""
    code = (
        "import sys; from gaussian_test.cli.commands import main\n"
        "try: main(prog_name='gaussian-test')\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'xarray', 'pandas', 'scipy', 'sklearn'} & set(sys.modules)\n"
    )
    asked = {completion.VARIABLE: "bash_complete", "COMP_WORDS": "gaussian-test run --set reverse.st"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | asked, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "plain,reverse.steps=\n"), done.stderr
