"""The archive: it describes itself, it is the same on disk as in memory, and it is whole or not there at all."""

import hashlib
import json
import os
import platform
import random
import re
import shutil
import socket
import stat
import tempfile
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr
import yaml

import gaussian_test as gt
from gaussian_test import UserError
from gaussian_test.experiment.experiment import Experiment
from gaussian_test.store import archive, files

BANDS = ("", "_se", "_low", "_high")
BY_SCORE_AND_TIME = (
    *(f"autocorrelation{band}" for band in BANDS),
    "autocorrelation_exact",
    "autocorrelation_discrete",
    "autocorrelation_one_shot",
    "autocorrelation_one_shot_se",
    "gap",
    "gap_low",
    "gap_high",
    "gap_pvalue",
    *(f"memorized_share{band}" for band in BANDS),
    *(f"class_retention{band}" for band in BANDS),
)
TIMES = tuple(
    f"{name}_time{suffix}" for name in ("memorization", "speciation", "affine") for suffix in ("", *BANDS[2:], "_predicted")
)
TABLE = dict.fromkeys(BY_SCORE_AND_TIME, ("score", "turn_time"))
TABLE |= dict.fromkeys(TIMES, ("score",))
TABLE |= dict.fromkeys(("sample_autocorrelation", "nearest_sample", "label_after"), ("score", "turn_time", "sample", "repeat"))
TABLE |= {"turn_time": ("turn_time",), "noise_to_signal": ("turn_time",), "kl_from_gaussian": ("turn_time",)}
TABLE |= {"sample": ("sample",), "label": ("sample",)}
GROUPS = (None, "moments", "pictures", "trajectory")


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """Return the path of an archive with every group and a process with a time of its own."""
    path = tmp_path_factory.mktemp("full") / "full.nc"
    settings = {
        "process": {"kind": "cosine"},
        "turn_times": {"noise_to_signal": [0.3, 1.0, 4.0]},
        "reverse": {"kind": "heun", "steps": 4},
        "samples": 6,
        "shard_size": 4,
        "keep": {"pictures": 2, "trajectory": True, "eigenvectors": True},
        "observables": "none",
        "statistics": {"bootstrap": 100},
    }
    gt.run(settings, path, progress=False)
    return path


def leaves(folder):
    """Return everything in a folder."""
    return sorted(path.name for path in Path(folder).iterdir())


# -- what is in it -------------------------------------------------------------------------------------------------------------


def test_plain_xarray_shows_the_table_of_the_design(disk, tiny):
    with xr.open_dataset(disk) as dataset:
        found = {str(name): variable.dims for name, variable in dataset.variables.items()}
        assert {name: found.get(name) for name in TABLE} == TABLE
        assert dict(dataset.sizes) == {"score": 2, "turn_time": 4, "sample": 12, "repeat": 2, "class": 10}
        assert dataset["score"].values.tolist() == ["empirical", "gaussian"]
        np.testing.assert_allclose(dataset["noise_to_signal"], tiny()["turn_times"]["noise_to_signal"], rtol=1e-12)
        assert not [name for name in found if re.search("[A-Z ]", name)]


def test_the_groups_are_there(full):
    sizes = {}
    for name in GROUPS[1:]:
        with xr.open_dataset(full, group=name) as group:
            sizes[name] = {str(variable): group[variable].dims for variable in group.data_vars}
    assert sizes["moments"]["mean"] == ("channel", "row", "column")
    assert sizes["moments"]["eigenvalue"] == ("mode",)
    assert sizes["moments"]["eigenvector"][0] != sizes["moments"]["eigenvector"][-1]
    assert sizes["pictures"]["end"] == ("score", "turn_time", "sample", "channel", "row", "column")
    assert sizes["trajectory"]["state"][:4] == ("score", "turn_time", "time", "sample")


def test_statistics_are_double_and_states_single(full):
    root = archive.read(full)
    assert {root[name].dtype for name in (*BY_SCORE_AND_TIME, *TIMES, "sample_autocorrelation")} == {np.dtype("float64")}
    assert {root[name].dtype for name in ("nearest_sample", "label_after", "label", "sample")} == {np.dtype("int64")}
    assert archive.read(full, "moments")["mean"].dtype == np.float64
    assert archive.read(full, "pictures")["end"].dtype == np.float32


@pytest.mark.parametrize("group", GROUPS)
def test_every_variable_says_what_it_is_and_in_which_unit(full, group):
    dataset = archive.read(full, group)
    silent = {
        str(name): missing
        for name, variable in dataset.variables.items()
        if (missing := [key for key in ("long_name", "units") if not str(variable.attrs.get(key, "")).strip()])
    }
    assert silent == {}


@pytest.mark.parametrize("group", GROUPS)
def test_values_are_checksummed_on_disk_and_floats_have_no_fill_value(full, group):
    unprotected, filled, uncompressed = [], [], []
    with netCDF4.Dataset(full) as file:
        where = file if group is None else file[group]
        assert len(where.variables) > 1
        for name, variable in where.variables.items():
            filters = variable.filters()
            if variable.ndim and not filters["fletcher32"]:
                unprotected.append(name)
            if variable.dtype.kind == "f" and "_FillValue" in variable.ncattrs():
                filled.append(name)
            if variable.ndim and variable.dtype.kind in "fi" and variable.dtype != np.float32 and not filters["zlib"]:
                uncompressed.append(name)
    assert unprotected == []
    assert filled == []
    assert uncompressed == []


def test_pictures_are_not_compressed(full):
    with netCDF4.Dataset(full) as file:
        assert not file["pictures"]["end"].filters()["zlib"]
        assert not file["trajectory"]["state"].filters()["zlib"]


def test_undefined_times_say_why(disk):
    result = gt.open_archive(disk)
    for name in TIMES:
        if np.isnan(result[name]).any():
            assert result[name].attrs["reason"].strip()
    # the Gaussian score has no affine time of its own: the law that there is something to explain here
    assert np.isnan(result["affine_time"].sel(score="gaussian"))


# -- attributes ----------------------------------------------------------------------------------------------------------------


def test_the_attributes_tell_how_to_run_it_again(disk, tiny):
    with xr.open_dataset(disk) as dataset:
        attributes = dict(dataset.attrs)
    assert {"CF-1.11", "ACDD-1.3"} <= set(re.split("[, ]+", attributes["Conventions"]))
    assert attributes["schema_version"] == archive.SCHEMA_VERSION == 2
    assert attributes["seed"] == tiny()["seed"]
    assert attributes["device"] == "cpu"
    assert attributes["source"].startswith("https://doi.org/10.")
    assert Experiment.load(yaml.safe_load(attributes["experiment"])) == Experiment.load(tiny())
    for key in ("title", "summary", "keywords", "date_created"):
        assert attributes[key].strip()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", attributes["date_created"])


def test_the_versions_are_those_that_run(disk):
    import scipy
    import torch

    versions = json.loads(gt.open_archive(disk).attrs["versions"])
    assert versions["python"] == platform.python_version()
    assert versions["gaussian_test"] == gt.__version__
    # "2.13.0" and "2.13.0+cpu" are the same release: the metadata of some builds leave the suffix out
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert versions["numpy"] == np.__version__
    assert versions["scipy"] == scipy.__version__
    assert versions["xarray"] == xr.__version__
    assert versions["netCDF4"] == netCDF4.__version__


def test_the_digests_follow_data_and_scores(tiny):
    truth = gt.data.load("digits").isel(sample=slice(0, 60))
    other = truth.copy(deep=True)
    other["x"][0, 0, 0, 0] += 0.125
    relabelled = truth.copy(deep=True)
    relabelled["label"][0] = (int(truth["label"][0]) + 1) % 10
    settings = tiny(samples=4, keep={"pictures": 0})
    first, again, changed, labels = (
        gt.run(settings, truth=t, progress=False).attrs for t in (truth, truth.copy(), other, relabelled)
    )
    assert re.fullmatch("[0-9a-f]{64}", first["data_digest"])
    assert set(json.loads(first["score_digest"])) == {"empirical", "gaussian"}
    assert (first["data_digest"], first["score_digest"]) == (again["data_digest"], again["score_digest"])
    assert first["data_digest"] != changed["data_digest"]
    assert first["data_digest"] != labels["data_digest"]
    ours, theirs = json.loads(first["score_digest"]), json.loads(changed["score_digest"])
    assert all(ours[name] != theirs[name] for name in ours)


def test_the_attributes_tell_nothing_of_the_machine(tiny, tmp_path, monkeypatch):
    """User, host and folders are given names here that cannot be in an archive by chance."""
    home, folder = tmp_path / "home-of-zaphod", tmp_path / "folder-of-trillian"
    home.mkdir()
    folder.mkdir()
    for name, value in {
        "USER": "zaphod",
        "LOGNAME": "zaphod",
        "USERNAME": "zaphod",
        "HOME": str(home),
        "HOSTNAME": "marvin",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(socket, "gethostname", lambda: "marvin")
    monkeypatch.setattr(platform, "node", lambda: "marvin")
    monkeypatch.chdir(folder)
    settings = tiny(samples=4, keep={"pictures": 1, "trajectory": True, "eigenvectors": True})
    gt.run(settings, folder / "trillian.nc", progress=False)
    content = (folder / "trillian.nc").read_bytes()
    for secret in ("zaphod", "trillian", "marvin", str(tmp_path)):
        assert secret.encode() not in content
    texts = []
    for group in GROUPS:
        dataset = archive.read(folder / "trillian.nc", group)
        texts += [json.dumps([dataset.attrs, *(variable.attrs for variable in dataset.variables.values())], default=str)]
    assert min(len(text) for text in texts) > 50
    for text in texts:
        assert not re.search(r"zaphod|trillian|marvin", text)
        assert str(Path(gt.__file__).parent) not in text
        assert tempfile.gettempdir() + "/" not in text


def test_the_path_of_the_data_stays_out_but_for_the_experiment(tiny, tmp_path):
    """The experiment is kept as it was given; nothing else repeats the path or makes it absolute."""
    rng = np.random.default_rng(0)
    (tmp_path / "secret").mkdir()
    np.save(tmp_path / "secret" / "x.npy", rng.uniform(-1, 1, (40, 3)).astype(np.float32))
    path = str(tmp_path / "secret" / "x.npy")
    result = gt.run(tiny(data={"source": "file", "path": path}, samples=4), progress=False)
    attributes = {key: str(value) for key, value in result.attrs.items() if key != "experiment"}
    assert [key for key, value in attributes.items() if "secret" in value] == []
    assert result.attrs["data_source"] == "file"


# -- memory and disk -----------------------------------------------------------------------------------------------------------


def undated(dataset):
    return dataset.drop_attrs(deep=False).assign_attrs({k: v for k, v in dataset.attrs.items() if k != "date_created"})


def test_memory_equals_disk(memory, disk):
    opened = gt.open_archive(disk)
    assert undated(memory).identical(undated(opened))
    assert {n: v.dtype for n, v in memory.variables.items()} == {n: v.dtype for n, v in opened.variables.items()}
    for name in ("moments", "pictures"):
        assert memory.gaussian_test.group(name).identical(opened.gaussian_test.group(name))
    assert {type(value) for value in opened.attrs.values()} <= {str, int, float}
    assert memory.gaussian_test.show() == opened.gaussian_test.show()


def test_what_run_returns_is_what_it_wrote(tiny, tmp_path):
    returned = gt.run(tiny(), tmp_path / "a.nc", progress=False)
    assert returned.identical(gt.open_archive(tmp_path / "a.nc"))
    assert leaves(tmp_path) == ["a.nc"]


def test_full_archive_equals_memory(full):
    again = gt.run(Experiment.load(yaml.safe_load(gt.open_archive(full).attrs["experiment"])), progress=False)
    assert undated(again).identical(undated(gt.open_archive(full)))
    for name in GROUPS[1:]:
        assert again.gaussian_test.group(name).identical(archive.read(full, name))


def test_names_in_any_script_survive(tiny, tmp_path):
    names = ["naïve ν", "経験", "a\u00a0b"]
    scores = [{"kind": "gaussian", "name": name} for name in names]
    result = gt.run(tiny(samples=4, scores=scores, keep={"pictures": 1}), tmp_path / "a.nc", progress=False)
    assert result["score"].values.tolist() == names
    assert gt.open_archive(tmp_path / "a.nc").gaussian_test.group("pictures")["score"].values.tolist() == names


def test_an_archive_can_be_moved_and_its_folder_renamed(disk, tmp_path):
    (tmp_path / "b").mkdir()
    shutil.copy(disk, tmp_path / "b" / "other.nc")
    moved = gt.open_archive(tmp_path / "b" / "other.nc")
    assert moved.identical(gt.open_archive(disk))
    assert moved.gaussian_test.group("moments").identical(archive.read(disk, "moments"))


def test_open_archive_leaves_no_file_open(disk, tmp_path):
    copy = Path(shutil.copy(disk, tmp_path / "a.nc"))
    opened = gt.open_archive(copy)
    before = len(os.listdir("/proc/self/fd"))
    gt.open_archive(copy)
    assert len(os.listdir("/proc/self/fd")) == before
    copy.unlink()
    assert float(opened["autocorrelation"].sum()) == float(gt.open_archive(disk)["autocorrelation"].sum())


def test_a_group_that_is_not_there_is_refused(disk, memory):
    for result in (gt.open_archive(disk), memory):
        with pytest.raises(UserError, match="no group 'trajectory'"):
            result.gaussian_test.group("trajectory")


# -- refusals ------------------------------------------------------------------------------------------------------------------


def wrong_files(folder, disk):
    """Return bad archives: path and what the refusal must say."""
    content = disk.read_bytes()
    bad = {"text.nc": b"samples: 8\n", "empty.nc": b"", "short.nc": content[:3], "magic.nc": content[:8]}
    bad |= {"half.nc": content[: len(content) // 2], "cut.nc": content[:-1], "longer.nc": content + b"\n"}
    bad |= {"bare.nc": content[: -files.TRAILER], "twice.nc": content + content[-files.TRAILER :]}
    bad |= {"other sum.nc": content[:-2] + (b"0" if content[-2:-1] != b"0" else b"1") + content[-1:]}
    bad |= {"seal only.nc": b"\x89HDF" + files.SEAL, "hole.nc": content[:2000] + content[2001:]}
    for name, data in bad.items():
        (folder / name).write_bytes(data)
    (folder / "folder.nc").mkdir()
    xr.Dataset({"a": ("x", [1.0])}).to_netcdf(folder / "plain.nc")
    shutil.copy(disk, folder / "edited.nc")
    with netCDF4.Dataset(folder / "edited.nc", "a") as file:
        file.seed = 5
    # what follows has its checksum, and is refused for what it holds
    xr.Dataset({"a": ("x", [1.0])}).to_netcdf(folder / "other.nc")
    xr.Dataset({"a": ("x", [1.0])}).to_netcdf(folder / "classic.nc", format="NETCDF3_CLASSIC")
    xr.Dataset(attrs={"schema_version": "one"}).to_netcdf(folder / "wordy.nc")
    xr.Dataset(attrs={"schema_version": archive.SCHEMA_VERSION}).to_netcdf(folder / "hollow.nc")
    shutil.copy(disk, folder / "newer.nc")
    with netCDF4.Dataset(folder / "newer.nc", "a") as file:
        file.schema_version = archive.SCHEMA_VERSION + 1
    for name in ("other", "classic", "wordy", "hollow", "newer"):
        files.seal(folder / f"{name}.nc")
    return {
        "none.nc": "does not exist",
        "text.nc": "not an archive",
        "empty.nc": "not an archive",
        "short.nc": "not an archive",
        "magic.nc": "no checksum at its end",
        "half.nc": "no checksum at its end",
        "cut.nc": "no checksum at its end",
        "longer.nc": "no checksum at its end",
        "bare.nc": "no checksum at its end",
        "plain.nc": "no checksum at its end",
        "edited.nc": "no checksum at its end",
        "seal only.nc": "no checksum at its end",
        "twice.nc": "is damaged (its checksum does not fit)",
        "other sum.nc": "is damaged (its checksum does not fit)",
        "hole.nc": "is damaged (its checksum does not fit)",
        "folder.nc": "folder",
        "other.nc": "not an archive",
        "classic.nc": "not an archive",
        "wordy.nc": "not an archive",
        "hollow.nc": "not an archive",
        "newer.nc": f"has schema {archive.SCHEMA_VERSION + 1}",
    }


@pytest.fixture(scope="module")
def wrong(disk, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wrong")
    return folder, wrong_files(folder, disk)


WRONG = ["none", "text", "empty", "short", "magic", "half", "cut", "folder", "other", "classic", "wordy", "hollow", "newer"]
WRONG += ["longer", "bare", "twice", "other sum", "seal only", "hole", "plain", "edited"]


@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_an_archive_is_refused_by_name(wrong, name):
    folder, expected = wrong
    path = folder / f"{name}.nc"
    with pytest.raises(UserError) as error:
        gt.open_archive(path)
    message = str(error.value)
    assert str(path) in message
    assert expected[path.name] in message
    assert len(message.splitlines()) == 1


def test_a_name_too_long_for_the_disk_is_refused():
    with pytest.raises(UserError, match="too long"):
        gt.open_archive("y" * 300)


def test_an_unreadable_archive_is_refused(disk, tmp_path, without_privileges):
    copy = Path(shutil.copy(disk, tmp_path / "a.nc"))
    copy.chmod(0)
    with pytest.raises(UserError, match="permissions"):
        gt.open_archive(copy)


# -- the checksum of the file --------------------------------------------------------------------------------------------------


@pytest.fixture
def library(monkeypatch):
    """The list of files that the NetCDF library was given."""
    given = []
    genuine = xr.open_dataset
    monkeypatch.setattr(xr, "open_dataset", lambda path, *a, **k: (given.append(Path(path).name), genuine(path, *a, **k))[1])
    return given


@pytest.fixture
def hashed(monkeypatch):
    """The list of sizes of what was hashed."""
    sizes = []
    genuine = hashlib.sha256

    class Counting:
        def __init__(self):
            self._genuine = genuine()
            sizes.append(0)

        def update(self, data):
            sizes[-1] += len(data)
            self._genuine.update(data)

        def hexdigest(self):
            return self._genuine.hexdigest()

    monkeypatch.setattr(files.hashlib, "sha256", Counting)
    return sizes


def small_file(folder):
    """Return the path of a small file with a checksum, and its content."""
    path = folder / "small.nc"
    archive.write(path, good(), {"moments": good()})
    return path, path.read_bytes()


def test_the_last_line_is_the_sha256_of_the_rest(disk):
    content = disk.read_bytes()
    rest, line = content[: -files.TRAILER], content[-files.TRAILER :]
    assert line == b"\nsha256 of all before, by gaussian_test: " + hashlib.sha256(rest).hexdigest().encode() + b"\n"
    assert files.SEAL not in rest


@pytest.mark.parametrize("engine", ["netcdf4", "h5netcdf", None])
def test_others_open_an_archive_as_if_there_were_no_checksum(engine, full, recwarn):
    if engine == "h5netcdf":
        pytest.importorskip("h5netcdf")
    for group in GROUPS:
        with xr.open_dataset(full, engine=engine, group=group, decode_times=False) as dataset:
            assert archive.plain(dataset.load()).identical(archive.read(full, group))
    with netCDF4.Dataset(full) as file:
        assert file.seed == 0
        assert set(file.groups) == {"moments", "pictures", "trajectory"}
    assert len(recwarn) == 0


@pytest.mark.parametrize("name", [name for name in WRONG if name not in ("other", "classic", "wordy", "hollow", "newer")])
def test_the_library_is_not_given_a_file_whose_checksum_does_not_fit(name, wrong, library):
    folder, _ = wrong
    with pytest.raises(UserError):
        gt.open_archive(folder / f"{name}.nc")
    if (folder / f"{name}.nc").is_file():
        with pytest.raises(files.ChecksumError):
            archive.read(folder / f"{name}.nc", "moments")
    assert library == []


def test_every_byte_counts(tmp_path):
    """A flipped bit in any byte, and any bit of the checksum itself."""
    path, content = small_file(tmp_path)
    rng = random.Random(3)
    flips = [(place, 1 << rng.randrange(8)) for place in range(len(content))]
    flips += [(place, 1 << bit) for place in range(len(content) - files.TRAILER, len(content)) for bit in range(8)]
    unnoticed = []
    with path.open("r+b", buffering=0) as file:
        for place, mask in flips:
            os.pwrite(file.fileno(), bytes([content[place] ^ mask]), place)
            try:
                files.check(path)
                unnoticed.append((place, mask))
            except files.ChecksumError:
                pass
            os.pwrite(file.fileno(), content[place : place + 1], place)
    assert unnoticed == []
    assert archive.read(path).identical(good())


def test_every_length_counts(tmp_path):
    path, content = small_file(tmp_path)
    for length in range(len(content) - 1, -1, -1):
        os.truncate(path, length)
        with pytest.raises(files.ChecksumError, match="no checksum at its end"):
            files.check(path)


@pytest.mark.parametrize("more", [b"\0", b"\n", b"\0" * 4096, b"x" * 105, b"sha256"])
def test_appended_bytes_are_found_out(more, disk, tmp_path, library):
    (tmp_path / "a.nc").write_bytes(disk.read_bytes() + more)
    with pytest.raises(UserError, match="no checksum at its end"):
        gt.open_archive(tmp_path / "a.nc")
    assert library == []


def test_an_archive_is_hashed_once_however_much_is_read_from_it(full, hashed, tmp_path):
    opened = gt.open_archive(full)
    for name in GROUPS[1:]:
        opened.gaussian_test.group(name)
    opened.gaussian_test.show()
    opened.gaussian_test.plot(tmp_path)
    assert hashed == [full.stat().st_size - files.TRAILER]


def test_a_dataset_of_plain_xarray_is_hashed_once_for_its_groups(full, hashed):
    with xr.open_dataset(full) as dataset:
        for name in GROUPS[1:]:
            assert dataset.gaussian_test.group(name).identical(archive.read_unchecked(full, name))
    assert len(hashed) == 1


def test_a_written_file_is_hashed_once(tmp_path, hashed):
    small_file(tmp_path)
    assert hashed == []  # by hashlib.file_digest, once, in seal
    archive.read(tmp_path / "small.nc")
    assert len(hashed) == 1


@pytest.mark.parametrize("change", ["replaced", "flipped"])
def test_a_file_that_changes_after_it_was_opened_is_found_out_by_its_groups(change, disk, tmp_path, library):
    path = Path(shutil.copy(disk, tmp_path / "a.nc"))
    opened = gt.open_archive(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    library.clear()
    if change == "replaced":
        (tmp_path / "b.nc").write_bytes(content)
        os.replace(tmp_path / "b.nc", path)
    else:
        before = path.stat()
        path.write_bytes(content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))  # clocks of files are coarse
    with pytest.raises(UserError, match=r"a\.nc is damaged \(its checksum does not fit\)"):
        opened.gaussian_test.group("moments")
    assert library == []


def test_groups_of_a_file_without_a_checksum_are_refused(disk, tmp_path):
    (tmp_path / "a.nc").write_bytes(disk.read_bytes()[: -files.TRAILER])
    with xr.open_dataset(tmp_path / "a.nc") as dataset:
        assert float(dataset["autocorrelation"].sum()) == float(gt.open_archive(disk)["autocorrelation"].sum())
        for attempt in (lambda: dataset.gaussian_test.group("moments"), dataset.gaussian_test.show):
            with pytest.raises(UserError, match="no checksum at its end"):
                attempt()


def test_a_changed_archive_can_be_sealed_again_by_who_stands_for_it(disk, tmp_path):
    path = Path(shutil.copy(disk, tmp_path / "a.nc"))
    with netCDF4.Dataset(path, "a") as file:
        file.comment = "mine"
    files.seal(path)
    assert gt.open_archive(path).attrs["comment"] == "mine"
    assert gt.open_archive(path).gaussian_test.group("moments").identical(archive.read(disk, "moments"))


# -- writing -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_an_archive_has_the_permissions_of_an_ordinary_file(tmp_path, umask):
    before = os.umask(umask)
    try:
        archive.write(tmp_path / "a.nc", xr.Dataset({"a": ("x", [1.0])}))
        (tmp_path / "ordinary").touch()
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a.nc", "ordinary")]
    assert modes == [0o666 & ~umask] * 2


def good():
    return xr.Dataset({"a": ("x", [1.0, 2.0])}, attrs={"seed": 1})


@pytest.mark.parametrize("fails_at", [1, 2])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("bad")])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, fails_at, error):
    path = tmp_path / "a.nc"
    archive.write(path, good())
    before = path.read_bytes()
    calls = []
    genuine = xr.Dataset.to_netcdf

    def failing(self, target, *args, **kwargs):
        calls.append(target)
        if len(calls) == fails_at:
            Path(target).write_bytes(b"half")
            raise error
        return genuine(self, target, *args, **kwargs)

    monkeypatch.setattr(xr.Dataset, "to_netcdf", failing)
    with pytest.raises(type(error)):
        archive.write(path, good().assign(a=("x", [3.0, 4.0])), {"moments": good()})
    assert len(calls) == fails_at
    assert path not in [Path(call) for call in calls]
    assert path.read_bytes() == before
    assert leaves(tmp_path) == ["a.nc"]


def test_a_disk_that_gives_back_other_values_is_found_out(tmp_path, monkeypatch):
    path = tmp_path / "a.nc"
    archive.write(path, good())
    before = path.read_bytes()
    genuine = xr.Dataset.to_netcdf
    monkeypatch.setattr(xr.Dataset, "to_netcdf", lambda self, *a, **k: genuine(self.assign(a=self["a"] + 1e-15), *a, **k))
    with pytest.raises(OSError, match="read back"):
        archive.write(path, good())
    assert path.read_bytes() == before
    assert leaves(tmp_path) == ["a.nc"]


@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_a_failure_of_the_last_steps_leaves_the_old_file(tmp_path, monkeypatch, step):
    path = tmp_path / "a.nc"
    archive.write(path, good())
    before = path.read_bytes()

    def failing(*_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, step, failing)
        with pytest.raises(OSError, match="Input/output"):
            archive.write(path, good().assign(a=("x", [3.0, 4.0])))
    assert path.read_bytes() == before
    assert leaves(tmp_path) == ["a.nc"]


def test_the_file_is_synced_before_it_gets_its_name_and_the_folder_after(tmp_path, monkeypatch):
    events = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(("sync", os.readlink(f"/proc/self/fd/{fd}"))), sync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append(("replace", str(a), str(b))), replace(a, b))[1])
    archive.write(tmp_path / "a.nc", good())
    (temporary,) = [event[1] for event in events if event[0] == "replace"]
    assert Path(temporary).parent == tmp_path
    replaced = ("replace", temporary, str(tmp_path / "a.nc"))
    assert events == [("sync", temporary), ("sync", temporary), replaced, ("sync", str(tmp_path))]


def test_the_checksum_is_there_before_the_file_has_its_name(tmp_path, monkeypatch):
    found = []
    genuine = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (found.append(files.check(Path(a))), genuine(a, b))[1])
    archive.write(tmp_path / "a.nc", good())
    assert found == [files.check(tmp_path / "a.nc")]


def test_a_disk_that_is_full_at_the_checksum_leaves_the_old_file(tmp_path, monkeypatch):
    path, before = small_file(tmp_path)

    def failing(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive, "seal", failing)
    with pytest.raises(OSError, match="No space left"):
        archive.write(path, good().assign(a=("x", [3.0, 4.0])))
    assert path.read_bytes() == before
    assert leaves(tmp_path) == ["small.nc"]


def test_an_overwritten_archive_stays_until_the_new_one_is_whole(disk, tiny, tmp_path, monkeypatch):
    path = Path(shutil.copy(disk, tmp_path / "a.nc"))
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", refuse_over(path))
    with pytest.raises(UserError, match=r"a\.nc could not be written"):
        gt.run(tiny(seed=4), path, overwrite=True, progress=False)
    assert path.read_bytes() == before
    monkeypatch.undo()
    assert gt.run(tiny(seed=4), path, overwrite=True, progress=False).attrs["seed"] == 4
    assert leaves(tmp_path) == ["a.nc"]


def refuse_over(final):
    """Return an os.replace that fails for one target."""
    genuine = os.replace

    def replace(source, target):
        if Path(target) == final:
            raise OSError(28, "No space left on device")
        genuine(source, target)

    return replace


def test_a_result_can_be_written_again_by_plain_xarray(disk, tmp_path):
    """Nothing in the dataset (attributes, encodings) keeps a user from saving a copy."""
    opened = gt.open_archive(disk)
    opened.to_netcdf(tmp_path / "copy.nc")
    with xr.open_dataset(tmp_path / "copy.nc") as copy:
        assert archive.plain(copy.load()).identical(opened)
    files.seal(tmp_path / "copy.nc")
    assert gt.open_archive(tmp_path / "copy.nc").identical(opened)


@pytest.mark.parametrize(
    "error", [OSError(-101, "NetCDF: HDF error"), RuntimeError("NetCDF: HDF error"), AttributeError("NetCDF: attribute")]
)
def test_whatever_the_library_says_of_a_damaged_file_is_one_sentence(error, disk, monkeypatch):
    """The NetCDF library has a kind of error for each place that a flipped bit can be in (all three were seen)."""

    def failing(*_, **__):
        raise error

    opened = gt.open_archive(disk)
    monkeypatch.setattr(xr, "open_dataset", failing)
    for attempt in (lambda: gt.open_archive(disk), lambda: opened.gaussian_test.group("moments")):
        with pytest.raises(UserError, match=r"tiny\.nc is damaged"):
            attempt()


@pytest.mark.parametrize("moment", ["fsync", "replace"])
@pytest.mark.parametrize("kind", ["archive", "text"])
def test_an_interruption_while_writing_leaves_nothing_and_the_old_file(kind, moment, tmp_path, monkeypatch):
    """Ctrl-C before the file has its name: no temporary file, and what stood there still stands."""
    path = tmp_path / "a"
    path.write_text("old")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, moment, interrupt)
    with pytest.raises(KeyboardInterrupt):
        archive.write(path, xr.Dataset({"a": 1})) if kind == "archive" else files.write_text(path, "new")
    monkeypatch.undo()
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
    assert path.read_text() == "old"
