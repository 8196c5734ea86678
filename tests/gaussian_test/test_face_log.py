"""The log of a run: lines that a program can read, rates and remaining time of this run, and a logger that is as it was after."""

import errno
import functools
import json
import logging
import os
import shlex
import sys
import time
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

import pytest

import gaussian_test as gt
from gaussian_test.engine import shard
from gaussian_test.log import LOGGER, Progress, log, to_file, to_stderr
from gaussian_test.store import files
from gaussian_test.store.files import locked
from gaussian_test.store.parts import Parts, parts_folder
from gaussian_test.sweep.states import status_text


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    now = [100.0]
    monkeypatch.setattr("gaussian_test.log.time.monotonic", lambda: now[0])
    return now


def fields(line):
    return dict(part.split("=", 1) for part in shlex.split(line))


def lines(folder):
    return [fields(line) for line in (folder / "log").read_text().splitlines()]


def test_rates_and_remaining_time_are_of_the_shards_of_this_run(tmp_path, clock):
    with to_file(tmp_path), Progress(10, 4, "cpu", bar=False) as progress:
        for shard, now in ((7, 102.0), (4, 108.0)):
            clock[0] = now
            progress.finished(shard, 1.5, worker="here:1")
    first, second = lines(tmp_path)
    said = {"event": "shard", "shard": "7", "done": "5", "of": "10", "seconds": "1.5", "worker": "here:1"}
    assert said.items() <= first.items()
    assert [float(first[key]) for key in ("shards_per_second", "remaining_seconds")] == [0.5, 10.0]  # one in 2 s, five are left
    assert second["done"] == "6"
    assert [float(second[key]) for key in ("shards_per_second", "remaining_seconds")] == [0.25, 16.0]  # two in 8 s, four are left


WRITTEN = {
    **{"word": "word", "two words": '"two words"', "": '""', "lines\nand\ttabs": '"lines and tabs"'},
    **{'say "no" now': "\"say 'no' now\"", 3: "3", 0.123456: "0.1235", 1180.2: "1180", None: "None"},
    gt.UserError("x = 1 is wrong"): '"x = 1 is wrong"',
}


def test_a_value_is_one_word_or_quoted(tmp_path):
    with to_file(tmp_path):
        for value in WRITTEN:
            log("event", reason=value, last=1)
    text = (tmp_path / "log").read_text().splitlines()
    for line, written in zip(text, WRITTEN.values(), strict=True):
        assert line.endswith(f" level=info event=event reason={written} last=1")
        assert list(fields(line)) == ["time", "level", "event", "reason", "last"]


def test_a_line_has_its_moment_and_its_level(tmp_path, monkeypatch, request):
    request.addfinalizer(time.tzset)
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "EST+5")
        time.tzset()
        with to_file(tmp_path):
            log("failed", logging.ERROR, shard=3)
    text = (tmp_path / "log").read_text()
    moment = datetime.strptime(fields(text)["time"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs(datetime.now(UTC) - moment) < timedelta(minutes=1)
    assert text.endswith(" level=error event=failed shard=3\n")


@pytest.mark.parametrize("level", [logging.NOTSET, logging.DEBUG, logging.ERROR])
@pytest.mark.parametrize("fault", [None, KeyboardInterrupt])
def test_the_logger_is_as_it_was_after_a_run(level, fault, tmp_path, capsys, request):
    request.addfinalizer(functools.partial(LOGGER.setLevel, LOGGER.level))
    LOGGER.setLevel(level)
    handlers = list(LOGGER.handlers)
    with pytest.raises(fault) if fault else nullcontext():  # noqa: SIM117 - the logger is looked at outside of both
        with to_stderr(), to_file(tmp_path):
            log("seen")
            assert LOGGER.isEnabledFor(logging.DEBUG) == (level == logging.DEBUG)  # who wants more gets more
            if fault:
                raise fault
    assert (LOGGER.level, LOGGER.handlers) == (level, handlers)
    log("unseen", logging.CRITICAL)
    for text in ((tmp_path / "log").read_text(), capsys.readouterr().err):
        assert "event=seen" in text
        assert "event=unseen" not in text


def test_a_terminal_gets_no_lines_and_a_lost_folder_no_log(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with to_stderr(), to_file(tmp_path / "lost"):
        log("start")
    assert capsys.readouterr().err == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("seconds", "said"), [(8, "8 s"), (75, "1.2 min"), (3725, "1 h")])
def test_status_says_how_long_a_running_one_still_takes(seconds, said, tmp_path, clock):
    parts = Parts(tmp_path / "a.nc", {}, 3)
    parts.open()
    with parts.telling() as tell, Progress(3, 0, "cpu", bar=False, tell=tell) as progress:
        for shard, now in enumerate((1, 2 * seconds)):  # what counts is the last state
            clock[0] = 100.0 + now
            progress.finished(shard, 1.0)
        with locked(tmp_path / "a.nc"):
            (run,) = gt.status(tmp_path)
        assert (run.state, run.remaining) == ("running", pytest.approx(seconds))
        assert said in status_text([run])
        (run,) = gt.status(tmp_path)
        assert (run.state, run.of, run.remaining) == ("interrupted", 3, None)
    assert not list(parts.folder.glob("*state*"))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", *(f'{{"remaining_seconds": {x}}}' for x in ('"soon"', "NaN", -1, "null", 10**400))]
)
def test_a_state_that_is_damaged_or_missing_says_nothing(text, tmp_path):
    folder = parts_folder(tmp_path / "a.nc")
    folder.mkdir()
    (folder / "state.json" if text else folder / "other").write_text(text)
    with locked(tmp_path / "a.nc"):
        (run,) = gt.status(tmp_path)
    assert (run.state, run.remaining) == ("running", None)


def test_many_small_shards_tell_the_first_and_then_twice_a_second(clock):
    told = []
    with Progress(101, 0, "cpu", bar=False, tell=lambda *state: told.append(state)) as progress:
        progress.finished(100, 0.0)  # a shard in no time has a rate too
        for shard in range(100):
            clock[0] += 1 / 64
            progress.finished(shard, 0.01)
    assert [done for done, _, _ in told] == [1, 33, 65, 97]
    assert told[1] == (33, 101, pytest.approx(68 / 66))


SMALL = {"samples": 8, "shard_size": 4, "turn_times": {"noise_to_signal": [0.5]}, "observables": "none", "keep": {"pictures": 0}}


def test_a_run_tells_its_state_forgets_that_of_a_killed_one_and_leaves_none(tmp_path, monkeypatch):
    output, seen = tmp_path / "run.nc", []
    genuine = shard.run_shard

    def watched(*arguments):
        path = parts_folder(output) / "state.json"
        seen.append(json.loads(path.read_text()) if path.exists() else None)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return genuine(*arguments)

    monkeypatch.setattr(shard, "run_shard", watched)
    with pytest.raises(KeyboardInterrupt):
        gt.run(SMALL, output, progress=False)
    (parts_folder(output) / "state.json").write_text(json.dumps(seen[1]))  # as if it had been killed
    assert seen[0] is None
    assert (seen[1]["done"], seen[1]["of"]) == (1, 2)
    assert seen[1]["remaining_seconds"] > 0
    assert datetime.now(UTC) - datetime.fromisoformat(seen[1]["updated"]) < timedelta(minutes=1)
    gt.run(SMALL, output, progress=False, resume=True)
    assert seen[2:] == [None]
    assert list(tmp_path.iterdir()) == [output]


def test_a_state_that_cannot_be_written_stops_no_run(tmp_path, monkeypatch):
    genuine = files.write_text

    def refused(path, text):
        if path.name == "state.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        genuine(path, text)

    monkeypatch.setattr(files, "write_text", refused)
    gt.run(SMALL, tmp_path / "run.nc", progress=False)
    assert list(tmp_path.iterdir()) == [tmp_path / "run.nc"]
