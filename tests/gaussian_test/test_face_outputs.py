"""What people do with a result: trees, zarr, xarray's own files, selections."""

import json
from contextlib import suppress

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from face_zoo import QUICK

import gaussian_test as gt
from gaussian_test import UserError
from gaussian_test.accessor import GROUPS
from gaussian_test.cli.commands import main
from gaussian_test.store.archive import plain

SETTINGS = QUICK | {"turn_times": {"noise_to_signal": [0.2, 0.5, 1.0, 3.0, 6.0]}, "samples": 24, "observables": "all"}
SETTINGS |= {"keep": {"pictures": 2, "trajectory": True, "end_points": True, "eigenvectors": True}}
SETTINGS |= {"chains": {"length": 2, "turn_times": 2}, "reverse": {"kind": "heun", "steps": 4}}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("outputs") / "run.nc"
    gt.run(SETTINGS, path, progress=False)
    return path


def test_a_file_is_a_tree_and_so_is_its_result(archive):
    result = gt.open_archive(archive)
    tree = result.gaussian_test.to_datatree()
    with xr.open_datatree(archive, decode_times=False) as opened:
        assert set(opened.children) == set(tree.children) == set(GROUPS)
        assert opened.attrs.pop("checksum").startswith("sha256")
        for name in ("/", *GROUPS):
            assert opened[name].to_dataset(inherit=False).load().identical(tree[name].to_dataset(inherit=False)), name
    assert dict(tree["pictures"].sizes)["pictures_sample"] == 2
    assert dict(result.gaussian_test.group("pictures").sizes)["sample"] == 2  # as it was before it was a tree
    assert tree["chains"]["chains_turn_time"].size == 2


def test_zarr_reads_back_equal_and_appears_whole(archive, tmp_path, monkeypatch):
    pytest.importorskip("zarr", reason="zarr is not installed: pip install 'gaussian-test[zarr]'")
    done = CliRunner().invoke(main, ["export", str(archive), "-o", str(tmp_path / "run.zarr")])
    assert (done.exit_code, done.stdout) == (0, f"zarr: {tmp_path / 'run.zarr'}\n"), done.output
    assert json.loads((tmp_path / "run.zarr" / "zarr.json").read_text())["zarr_format"] == 3
    tree = gt.open_archive(archive).gaussian_test.to_datatree()
    with xr.open_datatree(tmp_path / "run.zarr", engine="zarr", decode_times=False, consolidated=False) as opened:
        for name in ("/", *GROUPS):
            found = plain(opened[name].to_dataset().load())
            assert found.equals(tree[name].to_dataset())
            assert found.attrs.keys() == tree[name].attrs.keys()
        shown = opened.to_dataset().load().gaussian_test.show()
        assert gt.open_archive(archive).gaussian_test.show().split("\n")[:20] == shown.split("\n")[:20]
    for place, said in (("run.zarr", "exists"), ("run.nc", "let it end in .zarr"), ("none/a.zarr", "does not exist")):
        done = CliRunner().invoke(main, ["export", str(archive), "-o", str(tmp_path / place)])
        assert done.exit_code == 2
        assert said in done.stderr
    monkeypatch.setattr("xarray.DataTree.to_zarr", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    done = CliRunner().invoke(main, ["export", str(archive), "-o", str(tmp_path / "b.zarr")])
    assert (done.exit_code, [path.name for path in tmp_path.iterdir()]) == (2, ["run.zarr"])


def test_what_xarray_writes_of_a_result_is_opened_with_a_note(archive, tmp_path):
    result = gt.open_archive(archive)
    result.to_netcdf(tmp_path / "a.nc")
    opened = gt.open_archive(tmp_path / "a.nc")
    assert "carries no checksum" in opened.gaussian_test.show()
    assert "checksum" not in result.gaussian_test.show()
    assert opened.drop_attrs(deep=False).equals(result.drop_attrs(deep=False))
    result.gaussian_test.to_datatree().to_netcdf(tmp_path / "b.nc")
    for name in GROUPS:
        assert gt.open_archive(tmp_path / "b.nc").gaussian_test.group(name).equals(result.gaussian_test.group(name))
    assert gt.compare(archive, tmp_path / "b.nc").attrs["paired"] == 1
    content = archive.read_bytes()
    for cut in (1, 50, 106, 200, len(content) // 2):  # but an archive of ours that is cut is none
        (tmp_path / "c.nc").write_bytes(content[:-cut])
        with pytest.raises(UserError, match=r"no checksum at its end|is damaged|not an archive"):
            gt.open_archive(tmp_path / "c.nc")


@pytest.mark.parametrize("selected", [{"score": "empirical"}, {"score": ["gaussian"]}, {"turn_time": 1.0}, {"repeat": 0}])
def test_a_selection_shows_what_it_holds(selected, archive):
    result = gt.open_archive(archive)
    some = result.sel(selected)
    names = ["empirical"] if selected == {"score": "empirical"} else selected.get("score", result["score"].values.tolist())
    expected, found = result.gaussian_test.times, some.gaussian_test.times
    assert found.equals(expected.loc[names]) or "turn_time" in selected
    assert some.gaussian_test.show()
    assert some.gaussian_test.plot()
    assert json.loads(some.gaussian_test.to_json())["scores"].keys() == set(names)
    assert str(found["estimate"].round(4).iloc[0]) in repr(some.gaussian_test)


def test_without_what_it_needs_it_is_one_sentence(archive):
    result = gt.open_archive(archive)
    several = xr.concat([result, result], "run", data_vars="all")
    for dataset, said in (
        (result[["gap"]], "which a selection or another program has left out"),
        (result.drop_vars("autocorrelation"), "lacks 'autocorrelation'"),
        (several, r"several results along run: choose one with \.sel\(run=\.\.\.\)"),
        (xr.Dataset({"a": 1}), "is no result of the Gaussian Test"),
        (result.drop_attrs(), "is no result of the Gaussian Test"),
    ):
        for method in ("show", "to_json", "plot"):
            with pytest.raises(UserError, match=said) if method == "show" else suppress(UserError):
                getattr(dataset.gaussian_test, method)()
        assert repr(dataset.gaussian_test).startswith("<gaussian_test")
    assert several.isel(run=0).gaussian_test.show() == result.gaussian_test.show()
    assert np.isfinite(result.gaussian_test.times["estimate"]).any()
