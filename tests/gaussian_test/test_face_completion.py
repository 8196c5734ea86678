"""Completion: what click offers, and what a real shell makes of the script that the command prints."""

import os
import pty
import re
import select
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from face_zoo import invoke

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
    """Return what is offered for the last word."""
    shell = completion.SHELLS["fish"](main, {}, completion.PROGRAM, completion.VARIABLE)
    items = shell.get_completions(list(arguments[:-1]), arguments[-1])
    return [item.value for item in items if item.type == "plain"]


CASES = {
    "sh": "show",
    "show ": "ring.nc run.nc results/",
    "show ru": "run.nc",
    "show results/": "results/digits.nc results/deep/",
    "show nothing": "",
    "plot run.nc --ou": "--output",
    "compare run.nc ri": "ring.nc",
    "run ": "one.yaml two.yml results/",
    "run --device c": "cpu cuda",
    "run --device=c": "--device=cpu --device=cuda",
    "run --set reverse.st": "reverse.steps=",
    "run --set reverse.kind=e": "reverse.kind=exact reverse.kind=exponential_sde reverse.kind=euler reverse.kind=edm",
    "run --set process.sigma": "process.sigma_min= process.sigma_max=",
    "run --set observables=": "observables=all observables=none",
    "completion ": "bash zsh fish",
}


def test_click_offers_what_is_there(room, monkeypatch):
    monkeypatch.setattr(completion, "DEVICES", str(room / "nvidia[0-9]*"))
    assert {line: " ".join(offered(*line.split(" "))) for line in CASES} == CASES


def test_devices_are_those_of_the_driver(room, monkeypatch):
    monkeypatch.setattr(completion, "DEVICES", str(room / "nvidia[0-9]*"))
    for name in ("nvidia0", "nvidia-uvm", "nvidiactl", "nvidia1", "nvidia10"):
        (room / name).touch()
    assert offered("run", "--device", "cuda:") == ["cuda:0", "cuda:1", "cuda:2"]


def test_every_key_offered_is_one_of_an_experiment_and_every_value_is_valid():
    keys = offered("run", "--set", "")
    assert {key.split(".")[0].removesuffix("=") for key in keys} == set(Experiment.model_fields)
    known = Experiment().model_dump()
    for key in keys:
        for change in offered("run", "--set", key):
            # these need a further key, times of a process its kind
            if change.partition("=")[2] not in ("discrete_vp", "factory", "true") and not change.startswith("process.time"):
                assert Experiment.load(changes=[change])
        first, *inner = key.removesuffix("=").split(".")
        # of a process, features and a classifier other kinds have other keys; a space is none by default
        assert first in ("process", "features", "classifier", "space") or not inner or inner[0] in known[first]


SETUP = 'eval "$(gaussian-test completion {})"; PS1=@@'
REAL = {
    "bash": ("bash --norc --noprofile -i", SETUP.format("bash")),
    "bash that cuts no words": ("bash --norc --noprofile -i", "COMP_WORDBREAKS=' '; " + SETUP.format("bash")),
    "zsh": ("zsh -f -i", "autoload -U compinit; compinit -u -D; " + SETUP.format("zsh")),
    "fish": ("fish --no-config -i", "gaussian-test completion fish | source; function fish_prompt; echo @@; end"),
}
TYPED = {  # after the Tab key a plus, which shows where the shell has added a space
    "sho": "show +",
    "show results/di": "show results/digits.nc +",
    "show re": "show results/+",
    "show a": "show 'a b.nc' +",
    "show no": "show notes.txt +",  # no archive begins like this: the shell offers what it has
    "plot run.nc -o re": "plot run.nc -o results/+",
    "run --set reverse.ste": "run --set reverse.steps=+",
    "run --set seed=1 --set reverse.kind=he": "run --set seed=1 --set reverse.kind=heun +",
    "run --set=reverse.ste": "run --set=reverse.steps=+",
    "run --device=cp": "run --device=cpu +",
}


def until(end, terminal):
    """Return what a shell writes up to an end, without its colours, and answer what fish asks of its terminal."""
    text = ""
    while end not in text:
        assert select.select([terminal], [], [], 30)[0], text
        new = os.read(terminal, 65536).decode(errors="replace")
        if "\x1b[c" in new or "\x1b[0c" in new:
            os.write(terminal, b"\x1b[?62c")
        text += re.sub(r"\x1b\[[0-9;?<>=]*[a-zA-Z]", "", new)
    return text


HOSTILE = {  # what is typed, and the file that is meant
    "a": "a$(touch PWNED).nc",
    "b": "b`touch PWNED`.nc",
    "c": "c;touch PWNED;.nc",
    "d": "d'$(touch PWNED)'.nc",
    '"a': "a$(touch PWNED).nc",
    "'b": "b`touch PWNED`.nc",
    "e": "e\x01$(touch PWNED).nc",
    '"e': "e\x01$(touch PWNED).nc",
}


def completed(shell, room, typed):
    """Return the words that a real shell makes of each line that is typed and completed, after the program's name."""
    command, setup = REAL[shell]
    if shutil.which(shell.split()[0]) is None:
        pytest.skip(f"there is no {shell} on this machine")
    ours, theirs = pty.openpty()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "TERM": "xterm", "COLUMNS": "200", "HOME": str(room / "results" / "deep")}
    options = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "env": environment, "start_new_session": True}
    with subprocess.Popen(["setsid", "-c", *command.split()], **options) as process:
        os.write(ours, f"{setup}\n".encode())
        until("\n@@" if shell == "fish" else "\r@@", ours)
        for line in typed:
            os.write(ours, f"gaussian-test {line}\x01printf '<%s>' \x05 end\n".encode())
            yield re.findall("<([^<>%]*)>", until("<end>", ours))[1:-1]
        process.kill()
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize("shell", REAL)
def test_a_real_shell_completes(shell, room):
    (room / "a b.nc").touch()
    lines = [f"{line}\t+" for line in TYPED]
    assert list(completed(shell, room, lines)) == [shlex.split(wanted) for wanted in TYPED.values()]


def test_names_that_bash_would_obey_are_completed_and_not_obeyed(room):
    for name in HOSTILE.values():
        (room / name).touch()
    found = list(completed("bash", room, [f"show {line}\t" for line in HOSTILE]))
    assert not (room / "PWNED").exists()
    assert found == [["show", name] for name in HOSTILE.values()]


@pytest.mark.parametrize(("shell", "sign"), [("bash", "complete -o nosort -F"), ("zsh", "#compdef"), ("fish", "complete ")])
def test_the_script_is_that_of_the_shell(shell, sign):
    done = invoke("completion", shell)
    assert (done.exit_code, done.stderr) == (0, "")
    assert sign in done.stdout
    assert completion.VARIABLE in done.stdout
