"""Whatever lies in a folder or a zip of pictures is samples, each file once, or is refused in a sentence; nothing hangs."""

import shutil
import zipfile

import fuzz_strategies as given
from fuzz_cases import fuzz, sentence

import gaussian_test as gt
from gaussian_test.data import DataError

MEMORY = 10**6


def loads(path):
    try:
        return gt.data.load(path, memory=MEMORY)["x"].values
    except (DataError, FileNotFoundError) as error:
        said = sentence(error)
    assert said.isprintable()
    return None


def test_folders(tmp_path, long, monkeypatch):
    monkeypatch.setattr("subprocess.Popen.__init__", None)  # no program is started
    place = tmp_path / "some" / "imgs"

    def law(entries):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        given.lay_out(place, entries)
        x = loads(place)
        assert x is None or len(x) <= len(entries)

    fuzz(given.folder_entries, law, 120, long)


def test_zips(tmp_path, long):
    def law(entries):
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for place, name, what in {entry[:2]: entry for entry in entries}.values():
                archive.writestr(f"{place}/{name}", given.HELD.get(what, b""))
        loads(tmp_path / "a.zip")

    fuzz(given.folder_entries, law, 60, long)
