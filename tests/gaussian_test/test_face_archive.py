"""The archive: it describes itself, it is the same on disk as in memory, and it is whole or not there at all."""

import errno
import hashlib
import io
import json
import os
import platform
import re
import shutil
import socket
import stat
import tempfile
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import scipy
import torch
import xarray as xr
import yaml
from click.testing import CliRunner
from face_zoo import QUICK
from same_archives import undated

import gaussian_test as gt
from gaussian_test import UserError, sampler
from gaussian_test.analysis.figures.parts import canvas, save
from gaussian_test.cli.commands import main
from gaussian_test.experiment.experiment import Experiment
from gaussian_test.log import log, to_file
from gaussian_test.store import archive, files
from gaussian_test.store.digest import score_digest
from gaussian_test.store.parts import Parts

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
GROUPS = (None, "moments", "pictures", "trajectory")


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """Return the path of an archive with every group and a process with a time of its own."""
    path = tmp_path_factory.mktemp("full") / "full.nc"
    settings = QUICK | {"turn_times": {"noise_to_signal": [0.3, 1.0, 4.0]}, "reverse": {"kind": "heun", "steps": 4}}
    settings |= {"keep": {"pictures": 2, "trajectory": True, "eigenvectors": True}, "process": {"kind": "cosine"}}
    gt.run(settings | {"samples": 6, "shard_size": 4}, path, progress=False)
    return path


def leaves(folder):
    """Return everything in a folder."""
    return sorted(path.name for path in Path(folder).iterdir())


# -- what is in it -------------------------------------------------------------------------------------------------------------


def test_plain_xarray_shows_the_table(disk, tiny):
    """That every variable lies over the dimensions of its declaration stands in test_face_records.py."""
    with xr.open_dataset(disk) as dataset:
        assert dict(dataset.sizes) == {"score": 2, "turn_time": 4, "sample": 12, "repeat": 2, "class": 10}
        assert dataset["score"].values.tolist() == ["empirical", "gaussian"]
        np.testing.assert_allclose(dataset["noise_to_signal"], tiny()["turn_times"]["noise_to_signal"], rtol=1e-12)
        assert not [name for name in dataset.variables if re.search("[A-Z ]", str(name))]
        assert set(BY_SCORE_AND_TIME) | set(TIMES) <= set(dataset.data_vars)


def test_statistics_are_double_and_states_single(full):
    root = archive.read(full)
    assert {root[name].dtype for name in (*BY_SCORE_AND_TIME, *TIMES, "sample_autocorrelation")} == {np.dtype("float64")}
    assert {root[name].dtype for name in ("nearest_sample", "label_after", "label", "sample")} == {np.dtype("int64")}
    assert archive.read(full, "moments")["mean"].dtype == np.float64
    assert archive.read(full, "pictures")["end"].dtype == np.float32


@pytest.mark.parametrize("group", GROUPS)
def test_every_variable_says_what_it_is_and_in_which_unit(full, group):
    for name, variable in archive.read(full, group).variables.items():
        assert str(variable.attrs.get("long_name", "")).strip(), name
        assert str(variable.attrs.get("units", "")).strip(), name


@pytest.mark.parametrize("group", GROUPS)
def test_values_are_checksummed_on_disk_and_states_are_not_compressed(full, group):
    with netCDF4.Dataset(full) as file:
        where = file if group is None else file[group]
        assert len(where.variables) > 1
        for name, variable in where.variables.items():
            filters = variable.filters()
            assert filters["fletcher32"] or not variable.ndim, name
            assert "_FillValue" not in variable.ncattrs() or variable.dtype.kind != "f", name
            if variable.ndim and variable.dtype.kind in "fi":
                assert filters["zlib"] == (variable.dtype != np.float32), name


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
    assert attributes["schema_version"] == archive.SCHEMA_VERSION == 3
    assert attributes["seed"] == tiny()["seed"]
    assert attributes["device"] == "cpu"
    assert attributes["source"].startswith("https://doi.org/10.")
    assert Experiment.load(yaml.safe_load(attributes["experiment"])) == Experiment.load(tiny(dtype="float32"))
    for key in ("title", "summary", "keywords", "date_created"):
        assert attributes[key].strip()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", attributes["date_created"])


def test_the_versions_are_those_that_run(disk):
    versions = json.loads(gt.open_archive(disk).attrs["versions"])
    assert versions["python"] == platform.python_version()
    assert versions["gaussian_test"] == gt.__version__
    # "2.13.0" and "2.13.0+cpu" are the same release: the metadata of some builds leave the suffix out
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert all(versions[library.__name__] == library.__version__ for library in (np, scipy, xr, netCDF4))


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


def test_samples_of_equal_center_and_norms_have_digests_of_their_own():
    """The buffers of a score are the same then, and only the values differ."""
    one = torch.tensor([[1.0, 2.0], [-1.0, -2.0], [3.0, 4.0], [-3.0, -4.0]])
    first, second = sampler.EmpiricalScore(one), sampler.EmpiricalScore(one * torch.tensor([1.0, -1.0]))
    assert all(torch.equal(getattr(first, name), getattr(second, name)) for name in ("center", "half_square_norm"))
    assert score_digest(first) != score_digest(second)
    assert score_digest(first) == score_digest(sampler.EmpiricalScore(one.clone()))


def test_the_attributes_tell_nothing_of_the_machine(tiny, tmp_path, monkeypatch):
    """User, host and folders are given names here that cannot be in an archive by chance."""
    home, folder = tmp_path / "home-of-zaphod", tmp_path / "folder-of-trillian"
    home.mkdir()
    folder.mkdir()
    for name in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.setenv(name, "zaphod")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("HOSTNAME", "marvin")
    monkeypatch.setattr(socket, "gethostname", lambda: "marvin")
    monkeypatch.setattr(platform, "node", lambda: "marvin")
    monkeypatch.chdir(folder)
    settings = tiny(samples=4, keep={"pictures": 1, "trajectory": True, "eigenvectors": True})
    gt.run(settings, folder / "trillian.nc", progress=False)
    content = (folder / "trillian.nc").read_bytes()
    for secret in ("zaphod", "trillian", "marvin", str(tmp_path), str(Path(gt.__file__).parent), tempfile.gettempdir() + "/"):
        assert secret.encode() not in content


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


def test_memory_equals_disk(memory, disk):
    opened = gt.open_archive(disk)
    assert undated(memory).identical(undated(opened))
    assert {n: v.dtype for n, v in memory.variables.items()} == {n: v.dtype for n, v in opened.variables.items()}
    for name in ("moments", "pictures"):
        assert memory.gaussian_test.group(name).identical(opened.gaussian_test.group(name))
    assert {type(value) for value in opened.attrs.values()} <= {str, int, float}
    assert memory.gaussian_test.show() == opened.gaussian_test.show()
    for result in (opened, memory):
        with pytest.raises(UserError, match="no group 'trajectory'"):
            result.gaussian_test.group("trajectory")


def as_written(result, name):
    """Return a group of a result with the names of dimensions that it has in a file."""
    return archive.aligned(result, {name: result.gaussian_test.group(name)})[name]


def test_full_archive_equals_memory(full):
    again = gt.run(Experiment.load(yaml.safe_load(gt.open_archive(full).attrs["experiment"])), progress=False)
    assert undated(again).identical(undated(gt.open_archive(full)))
    for name in GROUPS[1:]:
        assert as_written(again, name).identical(archive.read(full, name))


def test_names_in_any_script_survive(tiny, tmp_path):
    names = ["naïve ν", "経験", "a\u00a0b"]
    scores = [{"kind": "gaussian", "name": name} for name in names]
    result = gt.run(tiny(samples=4, scores=scores, keep={"pictures": 1}), tmp_path / "a.nc", progress=False)
    assert result["score"].values.tolist() == names
    assert result.identical(gt.open_archive(tmp_path / "a.nc"))  # what a run returns is what it wrote
    assert leaves(tmp_path) == ["a.nc"]
    assert gt.open_archive(tmp_path / "a.nc").gaussian_test.group("pictures")["score"].values.tolist() == names


# -- refusals ------------------------------------------------------------------------------------------------------------------


NOT_SEALED, DAMAGED, FOREIGN = "no checksum at its end", "is damaged (its checksum does not fit)", "not an archive"


def wrong_files(folder, disk):
    """Make bad archives; return what the refusal of each must say."""
    content, line = disk.read_bytes(), disk.read_bytes()[-files.TRAILER :]
    bad = {
        "text.nc": (b"samples: 8\n", FOREIGN),
        "empty.nc": (b"", FOREIGN),
        "short.nc": (content[:3], FOREIGN),
        "magic.nc": (content[:8], "is damaged ([Errno"),
        "half.nc": (content[: len(content) // 2], NOT_SEALED),
        "cut.nc": (content[:-1], NOT_SEALED),
        "longer.nc": (content + b"\n", NOT_SEALED),
        "bare.nc": (content[: -files.TRAILER], NOT_SEALED),
        "seal only.nc": (b"\x89HDF" + files.SEAL, "is damaged ([Errno"),
        "twice.nc": (content + line, DAMAGED),
        "other sum.nc": (content[:-2] + (b"0" if content[-2:-1] != b"0" else b"1") + content[-1:], DAMAGED),
        "hole.nc": (content[:2000] + content[2001:], DAMAGED),
    }
    for name, (data, _) in bad.items():
        (folder / name).write_bytes(data)
    expected = {name: said for name, (_, said) in bad.items()} | {"none.nc": "does not exist", "folder.nc": "folder"}
    (folder / "folder.nc").mkdir()
    for name, attribute in (("edited", ("seed", 5)), ("newer", ("schema_version", archive.SCHEMA_VERSION + 1))):
        shutil.copy(disk, folder / f"{name}.nc")
        with netCDF4.Dataset(folder / f"{name}.nc", "a") as file:
            file.setncattr(*attribute)
    # what follows has its checksum, and is refused for what it holds
    xr.Dataset({"a": ("x", [1.0])}).to_netcdf(folder / "other.nc")
    xr.Dataset({"a": ("x", [1.0])}).to_netcdf(folder / "classic.nc", format="NETCDF3_CLASSIC")
    xr.Dataset(attrs={"schema_version": "one"}).to_netcdf(folder / "wordy.nc")
    xr.Dataset(attrs={"schema_version": archive.SCHEMA_VERSION}).to_netcdf(folder / "hollow.nc")
    for name in ("other", "classic", "wordy", "hollow", "newer"):
        files.seal(folder / f"{name}.nc")
    expected |= dict.fromkeys(("other.nc", "classic.nc", "wordy.nc", "hollow.nc"), FOREIGN)
    return expected | {"newer.nc": f"has schema {archive.SCHEMA_VERSION + 1}", "edited.nc": NOT_SEALED}


@pytest.fixture
def library(monkeypatch):
    """The list of files that the NetCDF library was given."""
    given = []
    genuine = xr.open_dataset
    monkeypatch.setattr(xr, "open_dataset", lambda path, *a, **k: (given.append(Path(path).name), genuine(path, *a, **k))[1])
    return given


def test_what_is_not_an_archive_is_refused_by_name(disk, tmp_path, library):
    """A file whose checksum does not fit is not even given to the library."""
    for name, said in wrong_files(tmp_path, disk).items():
        path = tmp_path / name
        library.clear()
        with pytest.raises(UserError) as error:
            gt.open_archive(path)
        message = str(error.value)
        assert str(path) in message
        assert said in message, name
        assert len(message.splitlines()) == 1
        if "checksum" in said:
            with pytest.raises(files.ChecksumError):
                archive.read(path, "moments")
        assert library == [] or path.stem in ("other", "classic", "wordy", "hollow", "newer", "magic", "seal only")


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


def good():
    return xr.Dataset({"a": ("x", [1.0, 2.0])}, attrs={"seed": 1})


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


@pytest.mark.parametrize("engine", ["netcdf4", "h5netcdf"])
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


def resealed(source, path, change):
    """Write an archive changed by somebody who knows how to seal it."""
    shutil.copy(source, path)
    os.truncate(path, path.stat().st_size - files.TRAILER)
    with netCDF4.Dataset(path, "a") as file:
        change(file)
    files.seal(path)
    return path


ESCAPE = "\x1b]0;owned\x07\x1b[31m"


def _attribute(name, value):
    return lambda file: file.setncattr(name, value)


def _named(text):
    """Give a score another name wherever it has one."""

    def change(file):
        for group in (file, *file.groups.values()):
            for place in np.flatnonzero(group["score"][:] == "empirical") if "score" in group.variables else ():
                group["score"][int(place)] = text  # of at most nine letters
        for name in ("score_digest", "score_origin"):
            file.setncattr(name, file.getncattr(name).replace('"empirical"', json.dumps(text)))

    return change


def _setting(key, value):
    def change(file):
        settings = yaml.safe_load(file.experiment)
        settings["process"][key] = value
        file.experiment = yaml.safe_dump(settings)

    return change


@pytest.mark.parametrize(
    "change",
    [
        _named("a\x1b[31mb\x7f"),
        _named("\x1b]0;a\x07\r"),
        _attribute("data_source", "a\u202egnp\x9b31m"),
        _attribute("data_source", f"digits{ESCAPE}\r\n"),
        _attribute("device", ESCAPE),
        _setting("factory", f"a:{ESCAPE}"),  # which YAML writes in another notation
        _attribute("score_origin", json.dumps({"empirical": {"level": ESCAPE}})),
        lambda file: file["affine_noise_to_signal"].setncattr("reason", json.dumps({"gaussian": ESCAPE})),
    ],
)
def test_escapes_of_somebody_elses_archive_reach_no_terminal_and_break_no_page(change, full, tmp_path):
    path = resealed(full, tmp_path / "a.nc", change)
    result = gt.open_archive(path).gaussian_test
    page = gt.report(path, tmp_path / "a.html").read_text(encoding="utf-8")
    for text in (result.show(), result.to_json(), page):
        assert not [c for c in text if c != "\n" and (c < " " or "\x7f" <= c <= "\x9f" or c in "\u202e")]


DEEP = "{a: " * 3000 + "1" + "}" * 3000
LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [*{a},*{a},*{a},*{a},*{a},*{a},*{a},*{a},*{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "change",
    [
        *(_attribute("experiment", text) for text in ("!!python/object/apply:os.system ['true']", DEEP, "{a: [", "a", "", "\t")),
        _attribute("experiment", "start: noised_data\nprocess: {kind: cosine}\nreverse: {kind: sde}\n"),
        lambda file: file.setncattr("experiment", file.experiment + LAUGHS),
        lambda file: file.setncattr("experiment", file.experiment + "when: 2020-01-01\n"),
        *(_attribute("versions", text) for text in ("[" * 10**5, "[]", "{", "3")),
        _attribute("network_settings", "null"),
        _attribute("a\u202eb", "b"),
        lambda file: file.createVariable("a\u202eb", "f8"),
        lambda file: file["score"].__setitem__(0, "other"),
        _attribute("score_digest", "{}"),
    ],
)
def test_somebody_elses_archive_that_is_none_is_refused(change, full, tmp_path):
    path = resealed(full, tmp_path / "a.nc", change)
    with pytest.raises(UserError, match="was not written by gaussian-test") as error:
        gt.open_archive(path)
    assert str(error.value).isprintable()


def _over(name, dims):
    def change(file):
        file.renameVariable(name, "other")
        file.createVariable(name, "f8", dims)

    return change


@pytest.mark.parametrize("change", [_over("gap_low", ("score",)), _over("end_square", ()), _over("affine_time", ("turn_time",))])
def test_a_variable_over_other_dimensions_is_refused(change, full, tmp_path):
    with pytest.raises(UserError, match="was not written by gaussian-test: the dimensions of its"):
        gt.open_archive(resealed(full, tmp_path / "a.nc", change))


@pytest.mark.parametrize("name", ["gap_low", "memorization_noise_to_signal", "close_share", "sample", "score", "nearest_sample"])
def test_what_somebody_elses_archive_lacks_is_one_sentence(name, full, tmp_path):
    path = str(resealed(full, tmp_path / "a.nc", lambda file: file.renameVariable(name, "other")))
    refused = 0
    for command in (["show", "--all"], ["show", "--json"], ["compare", str(full)], ["report", "-o", str(tmp_path / "a.html")]):
        done = CliRunner().invoke(main, [command[0], path, *command[1:]])
        assert done.exit_code in (0, 2), done.exception
        assert done.exit_code == 0 or re.fullmatch(f"gaussian-test: .* lacks '?{name}.*\n", done.stderr)
        refused += done.exit_code == 2
    assert refused


def test_no_name_of_a_score_leads_out_of_the_folder_of_figures(full, tmp_path):
    path = resealed(full, tmp_path / "a.nc", _named("/../../o"))
    gt.open_archive(path).gaussian_test.plot(tmp_path / "figures")
    assert {file.parent for file in tmp_path.rglob("*") if file.is_file()} == {tmp_path, tmp_path / "figures"}


@pytest.mark.parametrize("name", ["../out", "a/../../../out", "/tmp/out", "..\\out", "a\0b"])
def test_no_name_of_a_figure_leads_out_of_its_folder(name, tmp_path):
    with pytest.raises(UserError, match="is no name of a file in"):
        save({"good": canvas(1, 1.0)[0], name: canvas(1, 1.0)[0]}, tmp_path / "figures")
    assert leaves(tmp_path) == []


def test_a_group_of_other_scores_is_refused(full, tmp_path):
    path = resealed(full, tmp_path / "a.nc", lambda file: file["pictures/score"].__setitem__(0, "other"))
    with pytest.raises(UserError, match="the scores of its group pictures are others"):
        gt.open_archive(path).gaussian_test.group("pictures")


def test_an_archive_larger_than_memory_is_refused(full, monkeypatch):
    monkeypatch.setattr("gaussian_test.store.archive.allowed", lambda _: 1000)
    with pytest.raises(UserError, match=r"full\.nc holds .*, and no more than 1\.0KB is read"):
        gt.open_archive(full)


@pytest.mark.parametrize("large", [0, 50, 200])
def test_what_is_large_is_read_when_it_is_used(full, tmp_path, large, monkeypatch):
    path = shutil.copy(full, tmp_path / "a.nc")
    whole, text = gt.open_archive(full), CliRunner().invoke(main, ["show", str(full)]).output
    monkeypatch.setattr("gaussian_test.store.archive.ON_DEMAND", large)
    found = gt.open_archive(path)
    assert not found["sample_autocorrelation"].variable._in_memory
    path.unlink()  # the file that was checked is the file that is read, whatever has its name
    assert found.identical(whole)
    assert not found["sample_autocorrelation"].variable._in_memory  # and nothing is kept
    assert CliRunner().invoke(main, ["show", str(full)]).output == text


def test_a_file_is_compared_with_memory_a_variable_at_a_time(full, tmp_path):
    whole = gt.open_archive(full)
    archive.write(tmp_path / "a.nc", whole)
    changes = [
        {"sample": whole["sample"] + 1},
        {"gap": whole["gap"] + 1e-12},
        {"gap": whole["gap"].assign_attrs(units="2")},
        {"more": 1.0},
    ]
    assert archive._is_there(tmp_path / "a.nc", None, whole.assign_attrs(checksum=archive.APPENDED))
    for change in changes:
        assert not archive._is_there(tmp_path / "a.nc", None, whole.assign_attrs(checksum=archive.APPENDED).assign(change))
    assert not archive._is_there(tmp_path / "a.nc", None, whole)
    assert not archive._is_there(tmp_path / "a.nc", None, whole.drop_vars("gap").assign_attrs(checksum=archive.APPENDED))


# -- what a file may be, and what it may be called ------------------------------------------------------------------------------

TINY = {"samples": 4, "turn_times": {"noise_to_signal": [0.3, 3.0]}, "observables": "none", "statistics": {"bootstrap": 100}}


def _fifo(path):
    os.mkfifo(path)


def _socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))


def _link(path):
    (path.parent / "precious.txt").write_text("precious")
    path.symlink_to("precious.txt")


def _dangling(path):
    path.symlink_to("nowhere.txt")


@pytest.mark.parametrize("beside", ["", ".parts"])
@pytest.mark.parametrize("make", [_fifo, _socket, _link, _dangling])
def test_only_files_are_replaced(make, beside, tmp_path, monkeypatch):
    """As root, --overwrite replaced a device by a file."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"run.nc{beside}"
    make(path)
    before = {item.name: os.lstat(item) for item in tmp_path.iterdir()}
    for again in ({"overwrite": True}, {"resume": True}):
        with pytest.raises(UserError, match=r"run\.nc(\.parts)? is a"):
            gt.run(TINY, tmp_path / "run.nc", progress=False, **again)
    assert {item.name: os.lstat(item).st_mode for item in tmp_path.iterdir()} == {n: s.st_mode for n, s in before.items()}
    with pytest.raises(UserError, match=r"is a"):
        files.write_text(path, "x")


@pytest.mark.parametrize("again", [{"resume": True}, {"overwrite": True}, {}])
@pytest.mark.parametrize("name", ["notes.txt", "manifest.json", "state.json", "stop", ".x.tmp", "log", "a.part"])
def test_what_no_run_wrote_is_not_removed(name, again, tmp_path):
    """A folder of the user's that happens to be called as that of the parts."""
    place = tmp_path / "keep.nc.parts"
    place.mkdir()
    (place / name).write_text("mine")
    if name == ".x.tmp":  # hidden files are no reason to stop
        (tmp_path / "keep.nc.parts/manifest.json").write_text("mine")
    with pytest.raises(UserError, match="which no run wrote: move it away"):
        gt.run(TINY, tmp_path / "keep.nc", progress=False, **again)
    assert (place / name).read_text() == "mine"
    assert gt.status(tmp_path)[0].state == "waiting"


def test_what_was_put_beside_the_parts_of_a_run_stays(tmp_path, monkeypatch):
    def put(_parts, *_):
        (tmp_path / "run.nc.parts/.mine").write_text("mine")
        return real(_parts, *_)

    real = Parts.write
    monkeypatch.setattr(Parts, "write", put)
    gt.run(TINY, tmp_path / "run.nc", progress=False)
    assert leaves(tmp_path / "run.nc.parts") == [".mine"]
    assert gt.status(tmp_path)[0].state == "finished"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (os.fsdecode(b"caf\xe9.nc"), r"caf\\udce9\.nc is no text in UTF-8"),
        (os.fsdecode(b"\xff\xfe/run.nc"), "is no text in UTF-8"),
        ("x" * 240 + ".nc", "is a name of 243 bytes: give one of at most 233"),
        ("\xe9" * 120 + ".nc", "is a name of 243 bytes"),
    ],
)
def test_names_that_no_archive_can_have_are_refused_before_any_work(name, said, tmp_path, monkeypatch):
    monkeypatch.setattr("gaussian_test.engine.runner.prepare", lambda *_, **__: pytest.fail("work began"))
    (tmp_path / name).parent.mkdir(exist_ok=True)
    with pytest.raises(UserError, match=said):
        gt.run(TINY, tmp_path / name, progress=False)


@pytest.mark.parametrize("name", ["d::x/run.nc", "~/run.nc", "a b\u00e9.nc", "x" * 230 + ".nc"])
def test_odd_names_are_names(name, tmp_path, monkeypatch):
    """xarray takes a::b for an address and ~ for a home."""
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(exist_ok=True)
    gt.run(TINY, name, progress=False)
    assert gt.open_archive(name).sizes["sample"] == 4
    assert len(list(tmp_path.rglob("*.nc"))) == 1


@pytest.mark.parametrize(
    "read", [gt.open_archive, gt.Experiment.load, gt.Sweep.load, gt.status, lambda path: gt.report(path, path.with_suffix(".html"))]
)
def test_a_named_pipe_is_not_waited_for(read, tmp_path):
    os.mkfifo(tmp_path / "a.nc")
    with pytest.raises(UserError, match=r"a named pipe|neither a folder nor the archive"):
        read(tmp_path / "a.nc")


@pytest.mark.parametrize("name", ["sweep.json", "run.nc.parts/manifest.json", "run.nc.parts/state.json", "run.nc.error", "log"])
def test_a_folder_with_a_named_pipe_is_not_waited_for(name, tmp_path):
    (tmp_path / "run.nc.parts").mkdir()
    (tmp_path / "run.nc.parts/shard-000000.part").touch()
    os.mkfifo(tmp_path / name)
    assert [run.name for run in gt.status(tmp_path)] == ["run"]
    with to_file(tmp_path):
        log("start")


class Full(io.StringIO):
    """A stream on a full disk."""

    def write(self, _):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("arguments", [["show"], ["show", "--json"], ["compare"], ["--help"], ["status"]])
def test_a_full_standard_output_is_one_sentence(arguments, full, monkeypatch, capsys):
    again = [str(full)] * {"show": 1, "status": 1, "compare": 2}.get(arguments[0], 0)
    monkeypatch.setattr("sys.stdout", Full())
    with pytest.raises(SystemExit) as ended:
        main([*arguments, *again])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "gaussian-test: standard output: No space left on device: make room or write elsewhere\n"


@pytest.mark.parametrize("arguments", [["plot", "-o", "figures"], ["report", "-o", "page.html"]])
def test_a_full_disk_is_one_sentence_with_the_name_of_the_file(arguments, full, tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr({"plot": "matplotlib.figure.Figure.savefig", "report": "os.fsync"}[arguments[0]], fail)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([arguments[0], str(full), *arguments[1:]])
    assert ended.value.code == 2
    assert re.fullmatch(r"gaussian-test: (figures/\w+\.png|page\.html): No space left on device\n", capsys.readouterr().err)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_every_byte_and_every_length_counts(tmp_path):
    """A flipped bit in any byte, and any bit of the checksum itself; a file cut anywhere."""
    path, content = small_file(tmp_path)
    flips = [(place, 1 << place % 8) for place in range(len(content))]
    flips += [(place, 1 << bit) for place in range(len(content) - files.TRAILER, len(content)) for bit in range(8)]
    with path.open("r+b", buffering=0) as file:
        for place, mask in flips:
            os.pwrite(file.fileno(), bytes([content[place] ^ mask]), place)
            with pytest.raises(files.ChecksumError):
                files.check(path)
            os.pwrite(file.fileno(), content[place : place + 1], place)
    assert archive.read(path, "moments").identical(good())
    for length in range(len(content) - 1, -1, -1):
        os.truncate(path, length)
        with pytest.raises(files.ChecksumError, match="no checksum at its end"):
            files.check(path)


def test_an_archive_is_hashed_once_however_much_is_read_from_it(full, hashed):
    opened = gt.open_archive(full)
    for name in GROUPS[1:]:
        opened.gaussian_test.group(name)
    opened.gaussian_test.show()
    assert hashed == [full.stat().st_size - files.TRAILER]
    with xr.open_dataset(full) as dataset:  # by plain xarray
        for name in GROUPS[1:]:
            assert as_written(dataset, name).identical(archive.read_unchecked(full, name))
    assert len(hashed) == 2


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


WRITING = [(xr.Dataset, "to_netcdf", 1), (xr.Dataset, "to_netcdf", 2), (os, "fsync", 1), (os, "replace", 1), (archive, "seal", 1)]


@pytest.mark.parametrize(("where", "name", "fails_at"), WRITING)
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("bad")])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, where, name, fails_at, error):
    path, before = small_file(tmp_path)
    calls, genuine = [], getattr(where, name)

    def failing(*args, **kwargs):
        calls.append(args)
        if len(calls) == fails_at:
            raise error
        return genuine(*args, **kwargs)

    monkeypatch.setattr(where, name, failing)
    with pytest.raises(type(error)):
        archive.write(path, good().assign(a=("x", [3.0, 4.0])), {"moments": good()})
    assert len(calls) == fails_at
    assert path.read_bytes() == before
    if where is os:
        calls.clear()
        with pytest.raises(type(error)):
            files.write_text(path, "new")
        assert path.read_bytes() == before
    assert leaves(tmp_path) == ["small.nc"]


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
