"""Kill it, cut it short, flip its bits, fill its disk: the archive is whole and right in the end, or it is not there."""

import functools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from click.testing import CliRunner
from fault_rooms import ENVIRONMENT, LONG, NAMES, SHARDS, SHORT, before_shards, finish, finished, hashes, left, resumes, room, wait
from same_archives import assert_same, undated

import gaussian_test as gt
from gaussian_test import UserError
from gaussian_test.cli.commands import main
from gaussian_test.engine import runner, shard
from gaussian_test.store import archive, files
from gaussian_test.store.parts import read_part, write_part

# -- killed --------------------------------------------------------------------------------------------------------------------


SCORES = [{"kind": "network", "micro_batch": 48}, {"kind": "gaussian"}]
NETWORK = {**LONG, "samples": 96, "scores": SCORES, "observables": ["quality", "balance"]}


@pytest.mark.parametrize(("settings", "kills"), [(LONG, (5, 50)), (NETWORK, (2, 10))], ids=["exact", "network"])
def test_killed_at_random_moments_and_resumed_it_is_the_same_archive(settings, kills, long, tmp_path, start, undisturbed):
    """Half of the kills come after a new shard, so that each gets further; the others whenever they come."""
    if settings is NETWORK and not long:
        pytest.skip("with --long: the exact score is killed in the same way")
    if settings is LONG:
        expected, took = undisturbed["long"]
    else:
        began = time.monotonic()
        assert finish(start(room(tmp_path / "alone", settings))) == 0
        expected, took = tmp_path / "alone" / "run.nc", time.monotonic() - began
    rng, rooms, folder, done, killed = random.Random(20), 0, None, [], 0
    while killed < kills[long]:
        if folder is None:
            rooms, folder, done = rooms + 1, room(tmp_path / str(rooms), settings), []
        process = start(folder, "--resume")
        deadline = time.monotonic() + (60 if killed % 2 == 0 else rng.uniform(0, took))
        while len(finished(folder)) <= len(done) and time.monotonic() < deadline and process.exitcode is None:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, took / 20))
        process.kill()
        if finish(process) == 0:  # it was faster than the kill
            assert hashes(folder / "run.nc") == hashes(expected)
            folder = None
            continue
        killed += 1
        if not (folder / "run.nc").exists():  # not killed between its last two steps
            assert set(done) <= set(finished(folder))  # nothing that was finished is lost
            done = finished(folder)
    if folder is not None:
        resumes(start, folder, expected)
        assert hashes(folder / "run.nc") == hashes(expected)


MOMENTS = [(when, n) for when in ("kill_before", "kill_after") for n in (1, 2, 4, NAMES)]


@pytest.mark.parametrize(("when", "n"), MOMENTS, ids=[f"{when} {n}" for when, n in MOMENTS])
def test_killed_around_the_moment_a_file_gets_its_name(when, n, tmp_path, start, undisturbed):
    """Before and after the manifest, what is fitted, a part, and the archive appear under their names."""
    expected, _ = undisturbed["short"]
    folder = room(tmp_path, SHORT)
    assert finish(start(folder, **{when: n})) == -signal.SIGKILL
    assert (folder / "run.nc").exists() == ((when, n) == ("kill_after", NAMES))
    if (folder / "run.nc").exists():
        assert_same(folder / "run.nc", expected)
    resumes(start, folder, expected)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_lets_the_shard_in_work_finish_and_says_what_is_left(number, code, tmp_path, start, undisturbed):
    folder = room(tmp_path, LONG)
    process = start(folder)
    wait(lambda: len(finished(folder)) >= 2)
    os.kill(process.pid, number)
    assert finish(process) == code
    done = len(finished(folder))
    *log, said, following = start.log.read_text().splitlines()
    assert all(line.startswith("time=") for line in log)
    assert len([line for line in log if " event=shard " in line]) == done  # all that was begun is there
    assert f"interrupted: {done} of 20 shards are finished" in said
    assert following.startswith("next: gaussian-test run ")
    assert following.endswith(" --resume")
    assert f"event=interrupted signal={number} done={done} of=20" in (folder / "run.nc.parts" / "log").read_text()
    assert not [path for path in folder.rglob("*") if path.name.endswith((".tmp", ".lock"))]
    assert not (folder / "run.nc").exists()
    resumes(start, folder, undisturbed["long"][0])


def test_a_signal_before_the_first_shard_leaves_nothing(tmp_path, monkeypatch):
    def told_to_stop(*_):
        signal.raise_signal(signal.SIGTERM)
        return {}

    monkeypatch.setattr(runner, "settle_micro_batches", told_to_stop)
    with pytest.raises(KeyboardInterrupt, match="none of 3 shards was finished: run again") as stopped:
        gt.run(SHORT, tmp_path / "run.nc", progress=False)
    assert stopped.value.exit_code == 143
    assert left(tmp_path) == []


def test_a_second_signal_ends_the_run_at_once(tmp_path, monkeypatch):
    def impatient(number):
        if number == 2:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            pytest.fail("it went on")

    began = before_shards(monkeypatch, impatient)
    with pytest.raises(KeyboardInterrupt, match="1 of 3 shards are finished"):
        gt.run(SHORT, tmp_path / "run.nc", progress=False)
    assert len(began) == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # given back


def test_a_signal_while_the_archive_is_put_together_keeps_all_shards(tmp_path, monkeypatch):
    def told_to_stop(*_):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(runner, "assemble", told_to_stop)
    with pytest.raises(KeyboardInterrupt, match="3 of 3 shards are finished"):
        gt.run(SHORT, tmp_path / "run.nc", progress=False)
    assert len(finished(tmp_path)) == 3


@pytest.mark.parametrize("same", [False, True], ids=["another run's", "this run's"])
def test_an_interrupted_run_that_replaces_an_archive_goes_on(same, tmp_path, monkeypatch):
    """The old archive stays until the new one is whole, and does not stand in the way of its parts."""
    gt.run(SHORT if same else {**SHORT, "seed": 5}, tmp_path / "run.nc", progress=False)
    before = (tmp_path / "run.nc").read_bytes()
    computed = before_shards(monkeypatch, stop=3)
    with pytest.raises(KeyboardInterrupt):
        gt.run(SHORT, tmp_path / "run.nc", overwrite=True, progress=False)
    assert (tmp_path / "run.nc").read_bytes() == before
    assert len(finished(tmp_path)) == 2
    with pytest.raises(UserError, match="seed differs"):
        gt.run({**SHORT, "seed": 7}, tmp_path / "run.nc", resume=True, progress=False)
    resumed = gt.run(SHORT, tmp_path / "run.nc", resume=True, progress=False)
    assert len(computed) == (3 if same else 4)
    assert undated(resumed).identical(undated(gt.run(SHORT, progress=False)))
    assert left(tmp_path) == ["run.nc"]


def test_a_log_that_cannot_be_written_ends_no_run(tmp_path):
    (tmp_path / "run.nc.parts").mkdir()
    (tmp_path / "run.nc.parts" / "shard-000000.part").touch()  # a folder of a run, and no one else's
    (tmp_path / "run.nc.parts" / "log").symlink_to("/dev/full")
    gt.run(SHORT, tmp_path / "run.nc", resume=True, progress=False)
    assert left(tmp_path) == ["run.nc"]


# -- two writers, and other things that change meanwhile -----------------------------------------------------------------------


THREADS = """
import sys, threading
from pathlib import Path
import gaussian_test as gt
from gaussian_test.analysis.figures import drawing, parts

folder, threads, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
settings = {"samples": 6, "shard_size": 3, "turn_times": {"noise_to_signal": [0.1, 1.0, 5.0]}, "observables": "none"}
settings |= {"statistics": {"bootstrap": 100}, "keep": {"pictures": 2}}
first, wrong = gt.run(settings, f"{folder}/first.nc", progress=False), []


def work(number):
    try:
        for turn in range(rounds):
            path = f"{folder}/{number}-{turn}.nc"
            gt.run(settings, path, progress=False, threads=1 + number % 2)
            result = gt.open_archive(path)
            assert all(result[name].shape == first[name].shape for name in first)
            assert (result.memorized_share == first.memorized_share).all()
            assert result.gaussian_test.group("pictures").sizes["sample"] == 2
            if turn % 4 == number % 4:
                figure = drawing.draw(result)["autocorrelation"]
                parts.save({"figure": figure}, Path(folder, str(number)))
    except BaseException as error:
        wrong.append(repr(error))


working = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
for thread in working:
    thread.start()
for thread in working:
    thread.join()
sys.exit("; ".join(wrong) or 0)
"""


def test_runs_in_threads_neither_crash_nor_disturb_each_other(long, tmp_path):
    """Without the locks an interpreter crashes in nearly every run of six threads (a process of its own, since it is killed)."""
    runs, threads, rounds = (8, 6, 20) if long else (1, 6, 2)
    for run in range(runs):
        room(tmp_path / str(run), SHORT)
        command = [sys.executable, "-c", THREADS, str(tmp_path / str(run)), str(threads), str(rounds)]
        done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr[-2000:]


def test_of_two_writers_one_is_refused_and_a_crash_leaves_no_lock(tmp_path, start, undisturbed):
    folder = room(tmp_path, LONG)
    first = start(folder)
    wait(lambda: finished(folder))
    for option in ("resume", "overwrite"):
        with pytest.raises(UserError, match="another run is writing"):
            gt.run(LONG, folder / "run.nc", progress=False, **{option: True})
    assert gt.status(folder)[0].state == "running"
    first.kill()
    first.join()
    assert (folder / ".run.nc.lock").exists()  # the file is left, the lock is not
    assert gt.status(folder)[0].state == "interrupted"
    resumes(start, folder, undisturbed["long"][0])


def test_a_clock_that_jumps_changes_nothing(tmp_path, start, undisturbed):
    folder = room(tmp_path, LONG)
    process = start(folder, clock=7)
    wait(lambda: len(finished(folder)) >= 5)
    process.terminate()
    assert finish(process) == 143
    resumes(start, folder, undisturbed["long"][0], clock=8)


def test_data_that_vanish_are_one_sentence_and_cost_no_shard(tmp_path, start):
    """Streamed from a file that is gone in the middle of a run; when it is back, the run goes on."""
    np.save(tmp_path / "x.npy", gt.data.load("digits")["x"].values)
    settings = {**LONG, "data": {"source": "file", "path": str(tmp_path / "x.npy")}, "samples": 80, "memory": "800KB"}
    whole = gt.run(settings, progress=False)

    def vanishing(number):
        if number == 4:
            (tmp_path / "x.npy").rename(tmp_path / "elsewhere.npy")

    with pytest.MonkeyPatch.context() as patch:
        before_shards(patch, vanishing)
        with pytest.raises(UserError, match=r"ground truth cannot be read any more .*x\.npy"):
            gt.run(settings, tmp_path / "run.nc", progress=False)
    kept = contents(tmp_path / "run.nc.parts")
    assert len(finished(tmp_path)) == 3
    with pytest.raises(UserError, match=r"x\.npy does not exist"):
        gt.run(settings, tmp_path / "run.nc", resume=True, progress=False)
    assert contents(tmp_path / "run.nc.parts") == kept
    (tmp_path / "elsewhere.npy").rename(tmp_path / "x.npy")
    assert undated(gt.run(settings, tmp_path / "run.nc", resume=True, progress=False)).identical(undated(whole))


def other_values(path):
    np.lib.format.open_memmap(path, "r+")[:] *= 0.5


def back_dated(path):
    before = path.stat()
    other_values(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES = {
    "other values": other_values,
    "other values at the same time": back_dated,
    "cut short": lambda path: os.truncate(path, path.stat().st_size // 2),
    "longer": lambda path: os.truncate(path, path.stat().st_size + 8),
    "NaN": lambda path: np.lib.format.open_memmap(path, "r+").fill(np.nan),
    "another file": lambda path: (np.save(path.with_name("y.npy"), np.load(path)[::-1]), os.replace(path.with_name("y.npy"), path)),
}


@pytest.mark.parametrize("output", ["run.nc", None], ids=["disk", "memory"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_source_that_changes_under_a_run_ends_it(change, output, tmp_path):
    """Streamed: the shard that was being computed is not kept, no score is blamed, and no archive is sealed; nor on resuming."""
    path = tmp_path / "x.npy"
    np.save(path, gt.data.load("digits")["x"].values)
    settings = {**LONG, "data": {"source": "file", "path": str(path)}, "samples": 40, "memory": "800KB"}
    output = output and tmp_path / output
    with pytest.MonkeyPatch.context() as patch:
        before_shards(patch, lambda number: CHANGES[change](path) if number == 3 else None)
        with pytest.raises(UserError, match=r"x\.npy has changed since the run began: let it be") as error:
            gt.run(settings, output, progress=False)
    assert len(str(error.value).splitlines()) == 1
    if output:
        assert not output.exists()
        assert len(finished(tmp_path)) == (5 if change == "other values at the same time" else 2)
        if change != "longer":  # its samples are the same: the run goes on
            with pytest.raises(UserError):
                gt.run(settings, output, resume=True, progress=False)
            assert not output.exists()


# -- damaged parts -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parts(tmp_path_factory, start):
    """Return a folder with all parts of SHORT, killed just before the archive got its name."""
    folder = room(tmp_path_factory.mktemp("parts") / "room", SHORT)
    assert finish(start(folder, kill_before=NAMES)) == -signal.SIGKILL
    for temporary in folder.glob(".run.nc.*"):
        temporary.unlink()
    fitted = [path.name for path in (folder / "run.nc.parts").glob("fit-*")]
    own = [*fitted, "log", "manifest.json", "micro_batches.json"]
    assert left(folder / "run.nc.parts") == [*own, *(f"shard-{i:06d}.part" for i in range(SHARDS))]
    assert len(fitted) == 1
    return folder


@pytest.fixture
def interrupted(parts, tmp_path, monkeypatch):
    """A copy of those parts, and the list of shards that are computed on resuming."""
    folder = shutil.copytree(parts, tmp_path / "room")
    return folder, folder / "run.nc.parts", before_shards(monkeypatch)


def flip(path, place=None):
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 4
    path.write_bytes(content)


def swap(a, b):
    spare = a.with_suffix(".spare")
    a.rename(spare)
    b.rename(a)
    spare.rename(b)


def of_another_run(path):
    """Put a part in place that is whole, of this shard and these samples, with other results, of another run."""
    table = read_part(path)
    table["sample_autocorrelation"] = table["sample_autocorrelation"] + 1
    write_part(path, table.assign_attrs(run=table.attrs["run"][::-1]))


DAMAGE = {
    "none": (lambda p: None, 0),
    "truncated part": (lambda p: os.truncate(p / "shard-000001.part", 3000), 1),
    "part with a byte more": (lambda p: os.truncate(p / "shard-000001.part", (p / "shard-000001.part").stat().st_size + 1), 1),
    "flipped first bit": (lambda p: flip(p / "shard-000002.part", 0), 1),
    "flipped last bit": (lambda p: flip(p / "shard-000002.part", -1), 1),
    "lost part": (lambda p: (p / "shard-000001.part").unlink(), 1),
    "swapped parts": (lambda p: swap(p / "shard-000000.part", p / "shard-000001.part"), 2),
    "part of another run": (lambda p: of_another_run(p / "shard-000001.part"), 1),
    "lost manifest": (lambda p: (p / "manifest.json").unlink(), 0),
    "half a manifest": (lambda p: os.truncate(p / "manifest.json", 200), 0),
    "flipped bit in the manifest": (lambda p: flip(p / "manifest.json"), 0),
    "manifest that is no text": (lambda p: (p / "manifest.json").write_bytes(b"\xff\xfe"), 0),
    "manifest that is a list": (lambda p: (p / "manifest.json").write_text("[]"), 0),
    "manifest without a digest": (lambda p: (p / "manifest.json").write_text('{"identity": {}}'), 0),
    "flipped bit in what is fitted": (lambda p: flip(next(p.glob("fit-*"))), 0),
    "lost fit": (lambda p: next(p.glob("fit-*")).unlink(), 0),
    "lost micro-batches": (lambda p: (p / "micro_batches.json").unlink(), 0),
    "lost log": (lambda p: (p / "log").unlink(), 0),
    "forgotten temporary files": (lambda p: (p / ".shard-000000.part.0123456789abcdef.tmp").write_bytes(b"half"), 0),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_parts_are_computed_again_and_only_those(case, interrupted, undisturbed):
    folder, place, computed = interrupted
    damage, shards = DAMAGE[case]
    damage(place)
    gt.run(folder / "e.yaml", folder / "run.nc", resume=True, progress=False)
    assert len(computed) == shards
    assert_same(folder / "run.nc", undisturbed["short"][0])
    assert left(folder) == ["e.yaml", "run.nc"]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"shard_size": 4}, "shard_size"),
        ({"reverse": {"kind": "heun"}}, "reverse"),
        ({"turn_times": {"noise_to_signal": [0.1, 1.0, 6.0]}}, "turn_times"),
        ({"process": {"sigma_max": 70}}, "process"),
        ({"scores": [{"kind": "gaussian"}]}, "scores"),
        ({"dtype": "float64"}, "dtype"),
        ({"micro_batch": 7}, "micro_batch"),
        ({"data": {"scale": [0, 20]}}, "(data|score empirical)"),
    ],
)
def test_parts_of_another_experiment_are_refused_by_name(changes, named, interrupted):
    folder, place, computed = interrupted
    before = contents(place)
    with pytest.raises(UserError, match=rf"\b{named}\b.* differs"):
        gt.run({**SHORT, **changes}, folder / "run.nc", resume=True, progress=False)
    assert contents(place) == before
    assert computed == []


def test_parts_serve_other_statistics_and_other_pictures(interrupted, undisturbed):
    """They change nothing of what was simulated: the table is the same, the rest is computed anew."""
    folder, _, computed = interrupted
    changes = {"statistics": {"bootstrap": 150, "confidence": 0.8}, "keep": {"pictures": 0}}
    resumed = gt.run({**SHORT, **changes}, folder / "run.nc", resume=True, progress=False)
    assert computed == []
    assert undated(resumed).identical(undated(gt.run({**SHORT, **changes}, progress=False)))
    assert resumed["sample_autocorrelation"].identical(gt.open_archive(undisturbed["short"][0])["sample_autocorrelation"])


def test_parts_of_another_truth_are_refused(interrupted):
    folder, place, _ = interrupted
    before = contents(place)
    truth = gt.data.load("digits").copy(deep=True)
    truth["x"][5, 0, 0, 0] += 0.125
    with pytest.raises(UserError, match=r"(data|score empirical) differs"):
        gt.run(SHORT, folder / "run.nc", resume=True, progress=False, truth=truth)
    assert contents(place) == before


def test_parts_are_neither_used_nor_lost_unless_asked(interrupted, undisturbed):
    folder, place, computed = interrupted
    before = contents(place)
    with pytest.raises(UserError, match="--resume"):
        gt.run(SHORT, folder / "run.nc", progress=False)
    assert contents(place) == before
    assert computed == []
    gt.run(SHORT, folder / "run.nc", overwrite=True, progress=False)
    assert len(computed) == SHARDS
    assert_same(folder / "run.nc", undisturbed["short"][0])
    assert left(folder) == ["e.yaml", "run.nc"]


def test_parts_whose_manifest_is_lost_still_belong_to_their_run(interrupted):
    folder, place, computed = interrupted
    (place / "manifest.json").unlink()
    before = contents(place)
    with pytest.raises(UserError, match="belongs to another run"):
        gt.run({**SHORT, "seed": 1}, folder / "run.nc", resume=True, progress=False)
    assert contents(place) == before
    assert computed == []


# -- a disk that refuses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "why"), [(300, "manifest.json: File too large"), (12_000, "File too large"), (100_000, "run.nc could not be written")]
)
def test_a_full_disk_is_one_sentence_and_resumable(limit, why, tmp_path, start, undisturbed):
    """No file may grow beyond the limit: a part or the archive cannot be written."""
    expected, _ = undisturbed["short"]
    assert expected.stat().st_size > limit
    folder = room(tmp_path, SHORT)
    assert finish(start(folder, file_size=limit)) == 2
    said = [line for line in start.log.read_text().splitlines() if not line.startswith("time=")]
    assert len(said) == 1
    assert re.match(rf"gaussian-test: .*{why}", said[0])
    assert not (folder / "run.nc").exists()
    assert not [path for path in folder.rglob("*") if path.name.endswith(".tmp")]
    for path in folder.glob("run.nc.parts/shard-*.part"):
        assert read_part(path).sizes["sample"] == 3
    assert bool(finished(folder)) == (limit == 100_000)
    if finished(folder):
        assert json.loads((folder / "run.nc.parts" / "manifest.json").read_text())["identity"]["samples"] == "9"
    resumes(start, folder, expected)


def test_a_full_disk_leaves_the_archive_that_is_to_be_replaced(tmp_path, start, undisturbed):
    expected, _ = undisturbed["short"]
    folder = room(tmp_path, {**SHORT, "seed": 1})
    shutil.copy(expected, folder / "run.nc")
    assert finish(start(folder, "--overwrite", file_size=100_000)) == 2
    assert (folder / "run.nc").read_bytes() == expected.read_bytes()


@pytest.mark.parametrize("shards", [None, 0, 1, SHARDS], ids=["before", "meanwhile, none", "meanwhile, one", "meanwhile, all"])
def test_a_read_only_folder_is_one_sentence(shards, tmp_path, undisturbed, without_privileges, monkeypatch):
    """From the start, or from when so many shards are finished: the lock, the parts and the archive are in it."""
    folder = room(tmp_path / "closed", SHORT)

    def allow(mode):
        for place in (folder, folder / "run.nc.parts"):
            if place.exists():
                place.chmod(mode)

    def closing(*arguments, genuine):
        if len(finished(folder)) == shards:
            allow(0o555)
        return genuine(*arguments)

    for module, name in ((shard, "run_shard"), (archive, "write")):
        monkeypatch.setattr(module, name, functools.partial(closing, genuine=getattr(module, name)))
    if shards is None:
        allow(0o555)
    try:
        outcome = CliRunner().invoke(main, ["run", str(folder / "e.yaml"), "-o", str(folder / "run.nc")])
    finally:
        allow(0o755)
    said = [line for line in outcome.stderr.splitlines() if not line.startswith("time=")]
    assert (outcome.exit_code, len(said)) == (2, 1), outcome.exception
    assert re.match(r"gaussian-test: .*Permission denied", said[0])
    assert len(finished(folder)) == (shards or 0)
    if shards is None:
        assert left(folder) == ["e.yaml"]
    assert not (folder / "run.nc").exists()
    monkeypatch.undo()
    gt.run(SHORT, folder / "run.nc", resume=True, progress=False)
    assert_same(folder / "run.nc", undisturbed["short"][0])
    assert left(folder) == ["e.yaml", "run.nc"]


# -- flipped bits in an archive ------------------------------------------------------------------------------------------------


def test_a_flipped_bit_anywhere_is_found_out_and_never_another_value(undisturbed, tmp_path, long):
    """Values, attributes, the book-keeping of the library, the checksum itself: each bit of the file counts."""
    path, _ = undisturbed["short"]
    content, bad = path.read_bytes(), tmp_path / "bad.nc"
    bad.write_bytes(content)
    opened = gt.open_archive(bad)  # its groups are read after the damage
    rng = random.Random(1)
    places = rng.sample(range(len(content)), 20_000 if long else 500)
    places += [*range(64), *range(len(content) - files.TRAILER, len(content))]  # the superblock, the checksum
    said = set()
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.randrange(8)
        (tmp_path / "new.nc").write_bytes(damaged)
        os.replace(tmp_path / "new.nc", bad)
        for attempt in (lambda: gt.open_archive(bad), lambda: opened.gaussian_test.group("pictures"), opened.gaussian_test.show):
            with pytest.raises(UserError) as error:
                attempt()
            said.add(str(error.value).removeprefix(str(bad)).partition(":")[0])
    assert said == {" is damaged (its checksum does not fit)", " has no checksum at its end", " is not an archive of gaussian_test"}


def test_a_restored_archive_opens_in_the_same_process(undisturbed, tmp_path):
    """A damaged file must not stay open behind our back."""
    path, _ = undisturbed["short"]
    content, place = path.read_bytes(), tmp_path / "a.nc"
    pictures = archive.read(path, "pictures")["end"].values.tobytes()
    damaged = bytearray(content)
    damaged[content.index(pictures)] ^= 1
    place.write_bytes(damaged)
    with pytest.raises((UserError, RuntimeError, OSError)):
        gt.open_archive(place).gaussian_test.group("pictures")
    before = len(os.listdir("/proc/self/fd"))
    place.write_bytes(content)
    assert gt.open_archive(place).gaussian_test.group("pictures").identical(gt.open_archive(path).gaussian_test.group("pictures"))
    assert len(os.listdir("/proc/self/fd")) <= before
