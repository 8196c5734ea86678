"""Kill it, cut it short, flip its bits, fill its disk: the archive is whole and right in the end, or it is not there."""

import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml

import gaussian_test as gt
from gaussian_test import UserError, archive, engine
from gaussian_test.command_line import main

assert callable(gt.run)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
# many shards, each of some 0.05 s
LONG = {
    "samples": 320,
    "shard_size": 8,
    "repeats": 2,
    "turn_times": {"noise_to_signal": {"min": 0.1, "max": 20, "count": 12}},
    "reverse": {"kind": "heun", "steps": 24},
    "keep": {"pictures": 2},
    "observables": "none",
    "statistics": {"bootstrap": 100},
}
SHORT = {
    "samples": 9,
    "shard_size": 3,
    "turn_times": {"noise_to_signal": [0.1, 1.0, 5.0]},
    "keep": {"pictures": 2},
    "observables": "none",
    "statistics": {"bootstrap": 100},
}
SHARDS = 3
# names given during a run of SHORT: the manifest, what is fitted, the micro-batches, a part for each shard, then the archive
NAMES = SHARDS + 4


# -- the command line in a process of its own, without importing everything anew ----------------------------------------------


def child(arguments, output, kill_before=None, kill_after=None, file_size=None):
    """Run the command line; die at the n-th time a file gets its name, or find the disk full."""
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    named, genuine = [], os.replace

    def replace(source, target):
        named.append(target)
        if len(named) == kill_before:
            os.kill(os.getpid(), signal.SIGKILL)
        genuine(source, target)
        if len(named) == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    main(arguments, prog_name="gaussian-test")


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Return a function that starts a run of an experiment file in a fresh process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gaussian_test.prepare", "gaussian_test.accessor", "gaussian_test.experiment"])
    log = tmp_path_factory.mktemp("log") / "output.txt"

    def begin(folder, *options, **faults):
        arguments = ["run", str(folder / "e.yaml"), "-o", str(folder / "run.nc"), *options]
        process = context.Process(target=child, args=(arguments, str(log)), kwargs=faults)
        process.start()
        return process

    begin.log = log
    return begin


def finish(process):
    """Return the exit code of a process."""
    process.join(120)
    assert process.exitcode is not None, "the run hangs"
    return process.exitcode


def room(folder, settings):
    folder.mkdir(exist_ok=True)
    (folder / "e.yaml").write_text(yaml.safe_dump(settings))
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, start):
    """Return, for each experiment, its archive from a run that nothing disturbed, and how long it took."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = {}
    for name, settings in (("short", SHORT), ("long", LONG)):  # the first also waits for the imports
        began = time.monotonic()
        assert finish(start(room(folder / name, settings))) == 0
        done[name] = folder / name / "run.nc", time.monotonic() - began
        assert left(folder / name) == ["e.yaml", "run.nc"]
    return done


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def undated(dataset):
    return dataset.drop_attrs(deep=False).assign_attrs({k: v for k, v in dataset.attrs.items() if k != "date_created"})


def assert_same(path, other):
    assert undated(gt.open_archive(path)).identical(undated(gt.open_archive(other)))
    for group in ("moments", "pictures"):
        assert archive.read(path, group).identical(archive.read(other, group))


def whole_or_absent(folder, other):
    """Assert that whatever stands under the archive's name is the archive."""
    if (folder / "run.nc").exists():
        assert_same(folder / "run.nc", other)


# -- killed --------------------------------------------------------------------------------------------------------------------


def test_killed_at_random_moments_and_resumed_it_is_the_same_archive(tmp_path, start, undisturbed):
    expected, took = undisturbed["long"]
    rng, folder, counts = random.Random(20), room(tmp_path, LONG), [0]
    for _ in range(5):
        process = start(folder, "--resume")
        deadline = time.monotonic() + 60
        while len(finished(folder)) <= counts[-1] and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, took / 40))  # somewhere within the next shard or two, of forty
        assert process.exitcode is None
        os.kill(process.pid, signal.SIGKILL)
        assert finish(process) == -signal.SIGKILL
        counts.append(len(finished(folder)))
        assert not (folder / "run.nc").exists()
    assert counts == sorted(set(counts))  # each got further, and nothing that was finished is lost
    assert finish(start(folder, "--resume")) == 0
    assert_same(folder / "run.nc", expected)
    assert left(folder) == ["e.yaml", "run.nc"]


def finished(folder):
    return list(folder.glob("run.nc.parts/shard-*.nc"))


MOMENTS = [(when, n) for when in ("kill_before", "kill_after") for n in (1, 2, 4, NAMES - 1, NAMES)]


@pytest.mark.parametrize(("when", "n"), MOMENTS, ids=[f"{when} {n}" for when, n in MOMENTS])
def test_killed_around_the_moment_a_file_gets_its_name(when, n, tmp_path, start, undisturbed):
    """Before and after the manifest, what is fitted, a part, and the archive appear under their names."""
    expected, _ = undisturbed["short"]
    folder = room(tmp_path, SHORT)
    assert finish(start(folder, **{when: n})) == -signal.SIGKILL
    whole_or_absent(folder, expected)
    assert (folder / "run.nc").exists() == ((when, n) == ("kill_after", NAMES))
    assert finish(start(folder, "--resume")) == 0
    assert_same(folder / "run.nc", expected)
    assert left(folder) == ["e.yaml", "run.nc"]


def test_killed_from_outside_and_interrupted_by_hand(tmp_path, start, undisturbed):
    """The real command: killed once, then Ctrl-C, then resumed."""
    expected, _ = undisturbed["long"]
    folder = room(tmp_path, LONG)
    command = [sys.executable, "-m", "gaussian_test", "run", "e.yaml", "-o", "run.nc", "--resume"]
    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)):
        before, forgotten = len(finished(folder)), set(folder.glob("run.nc.parts/.*"))
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
        deadline = time.monotonic() + 60
        while len(finished(folder)) < before + 2 and time.monotonic() < deadline:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        process.send_signal(number)
        output, error = process.communicate(timeout=60)
        assert process.returncode == code, (output, error)
        assert output == ""
        if number == signal.SIGINT:
            assert re.search(r"interrupted: \d+ of 40 shards are finished .* --resume", error.splitlines()[-1])
            assert not [name for name in left(folder) if name.endswith(".tmp")]
            assert set(folder.glob("run.nc.parts/.*")) <= forgotten  # but for what the earlier kill left
        assert not (folder / "run.nc").exists()
    assert finish(start(folder, "--resume")) == 0
    assert_same(folder / "run.nc", expected)
    assert left(folder) == ["e.yaml", "run.nc"]


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
    assert left(folder / "run.nc.parts") == [*own, *(f"shard-{i:06d}.nc" for i in range(SHARDS))]
    assert len(fitted) == 1
    return folder


@pytest.fixture
def interrupted(parts, tmp_path, monkeypatch):
    """A copy of those parts, and the list of shards that are computed on resuming."""
    folder = shutil.copytree(parts, tmp_path / "room")
    computed, genuine = [], engine.run_shard

    def counted(prepared, shard):
        computed.append(shard)
        return genuine(prepared, shard)

    monkeypatch.setattr(engine, "run_shard", counted)
    return folder, folder / "run.nc.parts", computed


def flip(path, place=None):
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 4
    path.write_bytes(content)


def swap(a, b):
    spare = a.with_suffix(".spare")
    a.rename(spare)
    b.rename(a)
    spare.rename(b)


DAMAGE = {
    "none": (lambda p: None, 0),
    "truncated part": (lambda p: os.truncate(p / "shard-000001.nc", 3000), 1),
    "empty part": (lambda p: os.truncate(p / "shard-000001.nc", 0), 1),
    "part with a byte more": (lambda p: os.truncate(p / "shard-000001.nc", (p / "shard-000001.nc").stat().st_size + 1), 1),
    "flipped bit in a part": (lambda p: flip(p / "shard-000000.nc"), 1),
    "flipped first bit": (lambda p: flip(p / "shard-000002.nc", 0), 1),
    "flipped last bit": (lambda p: flip(p / "shard-000002.nc", -1), 1),
    "lost part": (lambda p: (p / "shard-000001.nc").unlink(), 1),
    "swapped parts": (lambda p: swap(p / "shard-000000.nc", p / "shard-000001.nc"), 2),
    "lost manifest": (lambda p: (p / "manifest.json").unlink(), 0),
    "empty manifest": (lambda p: os.truncate(p / "manifest.json", 0), 0),
    "half a manifest": (lambda p: os.truncate(p / "manifest.json", 200), 0),
    "flipped bit in the manifest": (lambda p: flip(p / "manifest.json"), 0),
    "manifest that is no text": (lambda p: (p / "manifest.json").write_bytes(b"\xff\xfe"), 0),
    "manifest that is a list": (lambda p: (p / "manifest.json").write_text("[]"), 0),
    "manifest without a digest": (lambda p: (p / "manifest.json").write_text('{"identity": {}}'), 0),
    "manifest of words": (lambda p: (p / "manifest.json").write_text('{"identity": "abc", "sha256": 3}'), 0),
    "flipped bit in what is fitted": (lambda p: flip(next(p.glob("fit-*"))), 0),
    "lost fit": (lambda p: next(p.glob("fit-*")).unlink(), 0),
    "lost micro-batches": (lambda p: (p / "micro_batches.json").unlink(), 0),
    "lost log": (lambda p: (p / "log").unlink(), 0),
    "forgotten temporary files": (lambda p: (p / ".shard-000000.nc.abc.tmp").write_bytes(b"half"), 0),
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
        ({"samples": 10}, "samples"),
        ({"reverse": {"kind": "heun"}}, "reverse"),
        ({"turn_times": {"noise_to_signal": [0.1, 1.0, 6.0]}}, "turn_times"),
        ({"process": {"sigma_max": 70}}, "process"),
        ({"scores": [{"kind": "gaussian"}]}, "scores"),
        ({"dtype": "float64"}, "dtype"),
        ({"micro_batch": 7}, "micro_batch"),
        ({"data": {"value_range": [0, 20]}}, "(data|score empirical)"),
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


@pytest.mark.parametrize("limit", [100, 12_000, 100_000])
def test_a_full_disk_is_one_sentence_and_resumable(limit, tmp_path, start, undisturbed):
    """No file may grow beyond the limit: a part or the archive cannot be written."""
    expected, _ = undisturbed["short"]
    assert expected.stat().st_size > limit
    folder = room(tmp_path, SHORT)
    assert finish(start(folder, file_size=limit)) == 2
    said = start.log.read_text()
    said = [line for line in said.splitlines() if not line.startswith("time=")]
    assert len(said) == 1
    assert said[0].startswith("gaussian-test: ")
    assert "could not be written" in said[0] or "large" in said[0]
    assert not (folder / "run.nc").exists()
    assert not [path for path in folder.rglob("*") if path.name.endswith(".tmp")]
    for path in folder.glob("run.nc.parts/shard-*.nc"):
        assert archive.read(path).sizes["sample"] == 3
    assert bool(finished(folder)) == (limit == 100_000)
    if finished(folder):
        assert json.loads((folder / "run.nc.parts" / "manifest.json").read_text())["identity"]["samples"] == "9"
    assert finish(start(folder, "--resume")) == 0
    assert_same(folder / "run.nc", expected)
    assert left(folder) == ["e.yaml", "run.nc"]


def test_a_full_disk_leaves_the_archive_that_is_to_be_replaced(tmp_path, start, undisturbed):
    expected, _ = undisturbed["short"]
    folder = room(tmp_path, {**SHORT, "seed": 1})
    shutil.copy(expected, folder / "run.nc")
    assert finish(start(folder, "--overwrite", file_size=100_000)) == 2
    assert (folder / "run.nc").read_bytes() == expected.read_bytes()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere: run as another user to see this")
def test_a_read_only_folder_is_one_sentence(tmp_path, start):
    folder = room(tmp_path / "closed", SHORT)
    folder.chmod(0o555)
    try:
        assert finish(start(folder)) == 2
        assert len(start.log.read_text().splitlines()) == 1
        assert left(folder) == ["e.yaml"]
    finally:
        folder.chmod(0o755)


# -- flipped bits in an archive ------------------------------------------------------------------------------------------------


def test_a_flipped_bit_anywhere_is_found_out_and_never_another_value(undisturbed, tmp_path, long):
    """Values, attributes, the book-keeping of the library, the checksum itself: each bit of the file counts."""
    path, _ = undisturbed["short"]
    content, bad = path.read_bytes(), tmp_path / "bad.nc"
    bad.write_bytes(content)
    opened = gt.open_archive(bad)  # its groups are read after the damage
    rng = random.Random(1)
    places = rng.sample(range(len(content)), 20_000 if long else 500)
    places += [*range(64), *range(len(content) - archive.TRAILER, len(content))]  # the superblock, the checksum
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
    assert said == {
        " is damaged (its checksum does not fit)",
        " has no checksum at its end",
        " is not an archive of gaussian_test",
    }


def test_an_archive_cut_short_or_with_more_behind_is_found_out(undisturbed, tmp_path):
    path, _ = undisturbed["short"]
    content, bad = path.read_bytes(), tmp_path / "bad.nc"
    lengths = [*range(300), *range(300, len(content), 97), *range(len(content) - 300, len(content))]
    for damaged in [*(content[:length] for length in lengths), content + b"\0", content + content, content + content[-300:]]:
        bad.write_bytes(damaged)
        with pytest.raises(UserError, match=r"bad\.nc (has no checksum|is damaged|is not an archive)"):
            gt.open_archive(bad)


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
    assert gt.open_archive(place).gaussian_test.group("pictures").identical(archive.read(path, "pictures"))
    assert len(os.listdir("/proc/self/fd")) <= before
