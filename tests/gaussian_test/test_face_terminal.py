"""The terminal: silence where it is asked for, rates and remaining time, examples in every help, and what to do next."""

import fcntl
import os
import pty
import re
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import click
import pytest
import yaml
from face_zoo import QUICK, invoke

import gaussian_test as gt
from gaussian_test.cli.commands import main
from gaussian_test.cli.group import next_commands, resumed
from gaussian_test.engine.interruption import Interrupted
from gaussian_test.log import Progress, to_file

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error", "TERM": "xterm"}
SMALL = QUICK | {"samples": 8, "shard_size": 2, "turn_times": {"noise_to_signal": [0.1, 5]}}


@pytest.fixture
def room(tmp_path, monkeypatch):
    """The current folder, with an experiment and a sweep."""
    monkeypatch.chdir(tmp_path)
    Path("e.yaml").write_text(yaml.safe_dump(SMALL))
    Path("s.yaml").write_text(yaml.safe_dump({"sweep": {"seed": [0, 1]}} | SMALL))
    return tmp_path


# -- silence -------------------------------------------------------------------------------------------------------------------


def test_quiet_commands_print_nothing_and_write_all(room):
    """A figure is drawn once, by the run; `plot` has the same option."""
    for arguments in ("run e.yaml -o a.nc --plot figures -q", "sweep s.yaml -o runs --quiet"):
        done = invoke(*arguments.split())
        assert (done.exit_code, done.output, done.stderr) == (0, "", "")
    assert sorted(path.name for path in room.iterdir()) == ["a.nc", "e.yaml", "figures", "runs", "s.yaml"]
    assert len(list(Path("figures").iterdir())) == 5
    assert len(list(Path("runs").glob("*.nc"))) == 2
    assert "event=run_done" in Path("runs/log").read_text()  # the log is kept all the same
    refused = invoke("run", "e.yaml", "-o", "a.nc", "--quiet")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr.startswith("gaussian-test: a.nc exists")


def test_a_terminal_has_a_bar_unless_it_is_to_be_quiet(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    gt.run(SMALL)
    assert "U-Turns on cpu:" in capsys.readouterr().err
    gt.run(SMALL, progress=False)
    assert capsys.readouterr().err == ""


# -- progress ------------------------------------------------------------------------------------------------------------------


def terminal(*arguments):
    """Run a command under a pseudo terminal and return all that it showed."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 140, 0, 0))
    streams = {"stdin": slave, "stdout": slave, "stderr": slave}
    process = subprocess.Popen([sys.executable, "-m", "gaussian_test", *arguments], env=ENVIRONMENT, **streams)
    os.close(slave)
    shown, end = b"", time.monotonic() + 120
    while time.monotonic() < end:
        if select.select([master], [], [], 0.1)[0]:
            try:
                piece = os.read(master, 65536)
            except OSError:  # the other side is closed
                break
            if not piece:
                break
            shown += piece
        elif process.poll() is not None:
            break
    os.close(master)
    assert process.wait(10) == 0, shown.decode()
    return shown.decode()


RATE = r" *\d+\.\d+({unit}/s|s/{unit}), \d\d:\d\d gone, \d\d:\d\d left"


def test_a_sweep_on_a_terminal_shows_rate_remaining_time_and_unit_of_its_runs_and_their_shards(room):
    shown = terminal("sweep", "s.yaml", "-o", "runs")
    assert re.search("Sweep: .*2 of 2 runs, " + RATE.format(unit="run"), shown)
    assert len(re.findall("U-Turns on cpu: +0%", shown)) >= 2
    assert "0 of 4 shards" in shown
    assert re.search("4 of 4 shards, " + RATE.format(unit="shard"), shown)
    assert "event=" not in shown  # the lines are for logs


def test_finished_runs_of_a_sweep_do_not_count_for_its_rate(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("gaussian_test.log.time.monotonic", lambda: now[0])
    with to_file(tmp_path), Progress(10, 0, "Sweep", False, "run") as progress:
        for _ in range(6):
            progress.passed()
        now[0] += 8
        progress.finished("seed=6", 8.0)
    line = (tmp_path / "log").read_text()
    assert "event=run_done run=seed=6 done=7 of=10 seconds=8 runs_per_second=0.125 remaining_seconds=24" in line


def test_a_batch_job_has_them_in_its_lines(room):
    done = invoke("sweep", "s.yaml", "-o", "runs")
    assert done.exit_code == 0
    for event, unit, count in (("shard", "shard", 8), ("run_done", "run", 2)):
        told = [shlex.split(line) for line in done.stderr.splitlines() if f"event={event} " in line]
        lines = [dict(word.split("=", 1) for word in words) for words in told]
        assert len(lines) == count
        assert all(float(line[f"{unit}s_per_second"]) > 0 and float(line["remaining_seconds"]) >= 0 for line in lines)
        assert float(lines[-1]["remaining_seconds"]) == 0
    again = invoke("sweep", "s.yaml", "-o", "runs", "--resume")
    assert "event=run_done" not in again.stderr


# -- help ----------------------------------------------------------------------------------------------------------------------


COMMANDS = sorted(main.commands)


def example(command):
    found = re.search(r"Example: gaussian-test (.*)", command.epilog or "")
    assert found, f"{command.name} has no example"
    return shlex.split(found[1])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_an_example_that_parses(name):
    done = invoke(name, "--help")
    assert done.exit_code == 0
    assert "Example: gaussian-test" in done.stdout
    first, *arguments = example(main.commands[name])
    assert first == name
    context = main.commands[name].make_context(name, list(arguments), parent=click.Context(main))
    assert context.params
    assert all(parameter.help for parameter in main.commands[name].params if isinstance(parameter, click.Option))


def test_the_help_of_all_has_an_example_and_names_every_command():
    text = invoke("--help").stdout
    assert example(main)[0] in main.commands
    assert all(re.search(rf"^  {name} ", text, flags=re.MULTILINE) for name in COMMANDS)


# the examples of `run` and `samplers` are as long as a study is, that of `sweep` starts four workers, that of `plot` is below,
# that of `convert` is in test_face_checkpoints.py
RUN_HERE = [name for name in COMMANDS if name not in ("run", "samplers", "sweep", "plot", "convert")]


@pytest.mark.parametrize("name", RUN_HERE)
def test_the_example_runs(name, room, disk):
    for archive in ("run.nc", "empirical.nc", "mixture.nc"):
        Path(archive).write_bytes(disk.read_bytes())
    Path("experiment.yaml").write_text(Path("e.yaml").read_text())
    Path("results").mkdir()
    done = invoke(*example(main.commands[name]))
    assert done.stdout
    if name == "doctor":
        assert done.exit_code in (0, 1)  # as there is a GPU or not
    else:
        assert (done.exit_code, done.exception) == (0, None)


# -- what to do next -----------------------------------------------------------------------------------------------------------


def test_a_run_names_commands_that_work_on_its_archive(room):
    line = invoke("run", "e.yaml", "-o", "my run.nc").stdout.splitlines()[-1]
    assert line.startswith("next: ")
    commands = [shlex.split(command)[1:] for command in line.removeprefix("next: ").split(" | ")]
    assert {command[0] for command in commands} >= {"show", "plot"}
    for command in commands:
        done = invoke(*command)
        assert (done.exit_code, done.stderr) == (0, ""), command
        assert command[0] != "plot" or len(done.stdout.splitlines()) == 5  # one a figure
    for path in Path("my run_figures").iterdir():
        content = path.read_bytes()
        begin, end = {".png": (b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"), ".pdf": (b"%PDF-", b"%%EOF")}[path.suffix]
        assert len(content) > 1000
        assert content.startswith(begin)
        assert content.rstrip().endswith(end)


def test_an_interrupted_run_names_the_command_that_goes_on(room, monkeypatch):
    """Interrupted after two shards; the command that it names finishes it."""
    real, finished = Progress.finished, []

    def interrupting(self, *arguments, **fields):
        real(self, *arguments, **fields)
        finished.append(arguments)
        if len(finished) == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Progress, "finished", interrupting)
    done = invoke("run", "e.yaml", "-o", "a.nc", "--overwrite", "--set", "seed=3")
    assert done.exit_code == 130
    said, following = done.stderr.splitlines()[-2:]
    assert said.startswith("gaussian-test: interrupted: 2 of 4 shards are finished")
    assert following == "next: gaussian-test run e.yaml -o a.nc --set seed=3 --resume"
    assert "its run is not finished" in invoke("show", "a.nc").stderr
    assert invoke("status", ".").stdout.splitlines()[-1] == "next: the command that made them, with --resume"
    again = invoke(*shlex.split(following.removeprefix("next: gaussian-test ")))
    assert again.exit_code == 0
    assert len(finished) == 4
    assert gt.open_archive("a.nc").attrs["seed"] == 3


def test_what_cannot_be_resumed_is_not_said_to_be(monkeypatch):
    def stopped(*_, **__):
        raise Interrupted(signal.SIGTERM, "none of 4 shards was finished: run again")

    monkeypatch.setattr("gaussian_test.engine.runner.run", stopped)
    done = invoke("run")
    assert (done.exit_code, done.stderr) == (143, "gaussian-test: interrupted: none of 4 shards was finished: run again\n")


def test_resuming_twice_names_it_once():
    assert resumed(["sweep", "s.yaml", "-o", "my runs", "--resume"]) == "gaussian-test sweep s.yaml -o 'my runs' --resume"
    assert next_commands(["show", "a b.nc"]) == "next: gaussian-test show 'a b.nc'"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["shwo", "run.nc"], "did you mean 'show'?"),
        (["runs"], "did you mean 'run'?"),
        (["xyzzy"], "choose one of compare, completion, convert, doctor, export, plot, "),
        (["run", "--overwite"], "--overwrite"),
        (["show", "run.nc", "--jsno"], "--json"),
    ],
)
def test_a_misspelt_word_is_answered_with_the_one_that_was_meant(arguments, said):
    done = invoke(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "rnu.nc"], "did you mean run.nc?"),
        (["show", "run"], "did you mean run.nc?"),
        (["plot", "deep/digits.nc", "-o", "f"], "deep/digits.nc does not exist: there is deep/other.nc"),
        (["compare", "run.nc", "xyzzy.nc"], "there are a0.nc, a1.nc, a2.nc, a3.nc, a4.nc and 2 more"),
        (["show", "none/a.nc"], "give the path of an archive"),
        (["run", "experment.yaml"], "did you mean experiment.yaml?"),
        (["run", "deep/e.yaml"], "give the path of an experiment file"),
        (["sweep", "experment.yaml", "-o", "runs"], "did you mean experiment.yaml?"),
    ],
)
def test_a_file_that_is_not_there_is_answered_with_those_that_are(arguments, said, room, disk):
    for name in ("run.nc", "zebra.nc", *(f"a{number}.nc" for number in range(5))):
        Path(name).write_bytes(disk.read_bytes())
    Path("deep").mkdir()
    Path("deep/other.nc").touch()
    for name in ("experiment.yaml", "deep/.hidden.yaml"):
        Path(name).touch()
    done = invoke(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr


@pytest.mark.parametrize("encoding", ["latin-1", "cp437:strict", "koi8-r", "utf-8"])
def test_a_terminal_that_does_not_know_a_sign_is_shown_its_number(encoding, tmp_path):
    code = (
        "import click; from gaussian_test.cli.commands import main\n@main.command()\ndef say(): click.echo('[1, ∞]')\nmain(['say'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONIOENCODING": encoding}, capture_output=True, check=True
    )
    assert done.stdout.decode(encoding.split(":")[0]).strip() in ("[1, ∞]", "[1, \\u221e]")
