"""Parts in files: what was written is what is read, to the type and the bit; any change of the bytes is seen."""

import numpy as np
import pytest
import xarray as xr

import gaussian_test as gt
from gaussian_test.build.problem import prepare
from gaussian_test.engine import shard as of_shards
from gaussian_test.store import files, parts


def dataset(shard=0):
    random = np.random.default_rng(shard)
    result = xr.Dataset(
        {
            "a": (("score", "sample"), random.normal(size=(2, 3)), {"units": "1", "level": 0.5}),
            "whole": ("sample", random.integers(0, 2**62, 3), {"count": np.int64(3)}),
            "single": (("kept", "row"), random.normal(size=(1, 4)).astype(np.float32).T.reshape(1, 4)),
            "flag": ("score", np.array([1, 0], dtype=np.int8)),
            "nothing": ("none", np.empty(0)),
            "bad": ("score", [np.nan, -np.inf]),
            "scalar": ((), 2.5),
        },
        coords={"score": ["exact", "naïve"], "sample": np.arange(3) + 3 * shard, "second": ("sample", np.arange(3.0))},
        attrs={"run": "abc", "shard": shard, "title": "ü\n"},
    )
    result["strided"] = ("score", np.arange(4.0)[::2])
    return result


def test_a_part_is_what_was_written(tmp_path):
    parts.write_part(tmp_path / "p", dataset())
    found = parts.read_part(tmp_path / "p")
    assert found.identical(dataset())
    assert list(found.coords) == list(dataset().coords)
    for name, variable in dataset().variables.items():
        assert found.variables[name].dtype == variable.dtype
        assert found.variables[name].attrs == variable.attrs
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_every_flipped_bit_and_every_cut_is_seen(tmp_path):
    path = tmp_path / "p"
    parts.write_part(path, dataset().drop_vars(["whole", "bad", "single"]))
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        with pytest.raises(files.ChecksumError, match="is damaged"):
            parts.read_part(path)
    for length in (0, 1, 100, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(files.ChecksumError, match="is damaged"):
            parts.read_part(path)


@pytest.mark.parametrize("content", [b"", b"{}", b"\x00" * 50, b"\x02\x00\x00\x00\x00\x00\x00\x00{}"])
def test_what_is_sealed_and_no_part_is_damage(tmp_path, content):
    (tmp_path / "p").write_bytes(files.sealed(content))
    with pytest.raises(parts.DAMAGE):
        parts.read_part(tmp_path / "p")


def test_attributes_that_are_not_kept_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(TypeError, match="an attribute of type ndarray is not kept"):
        parts.write_part(tmp_path / "p", dataset().assign_attrs(bad=np.arange(3)))
    assert not list(tmp_path.iterdir())


BOUNDS = {"sample": np.array([0, 3, 6, 9]), "kept": np.array([0, 1, 1, 2])}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("large", [0, 2**25], ids=["in files", "in memory"])
def test_the_table_of_all_parts_is_that_of_xarray(order, large, tmp_path, monkeypatch):
    monkeypatch.setattr(of_shards, "LARGE", large)
    tables = [dataset(shard).drop_attrs() for shard in range(3)]
    tables[1] = tables[1].drop_dims(["kept"])
    rows = of_shards.Rows(BOUNDS, tmp_path)
    for shard in order:
        rows.add(shard, tables[shard])
    found = rows.table()
    assert not list(tmp_path.iterdir())  # the files have no names: nothing is left of a killed run
    assert (list(found), list(found.coords)) == (list(tables[0]), list(tables[0].coords))  # whatever the order
    options = {"data_vars": "minimal", "coords": "minimal", "join": "exact", "compat": "equals"}
    along = xr.concat([table.drop_dims("kept", errors="ignore") for table in tables], "sample", **options)
    kept = xr.concat([tables[0][["single"]], tables[2][["single"]]], "kept")
    kept = kept.drop_vars(["score", "sample", "second"], errors="ignore")
    xr.testing.assert_identical(found[sorted(found.variables)], along.merge(kept)[sorted(found.variables)])


@pytest.mark.parametrize(
    "change",
    [
        {"scalar": 3.0},
        {"flag": ("score", np.array([1, 1], dtype=np.int8))},
        {"whole": ("sample", np.zeros(3, dtype=np.float32))},
        {"a": (("sample", "score"), np.zeros((3, 2)))},
    ],
)
def test_tables_that_differ_in_what_they_share_are_refused(change):
    rows = of_shards.Rows(BOUNDS)
    rows.add(0, dataset(0))
    with pytest.raises(ValueError, match="differs between the parts of a run"):
        rows.add(1, dataset(1).drop_vars([*change, "single"]).assign(change))


@pytest.mark.parametrize("lacking", ["a", "single", "second"])
def test_a_table_with_missing_rows_is_refused(lacking):
    rows = of_shards.Rows(BOUNDS)
    for shard in range(3):
        rows.add(shard, dataset(shard).drop_vars("single" if shard == 1 else lacking if shard == 2 else []))
    with pytest.raises(ValueError, match=f"{lacking} is not in all parts of a run"):
        rows.table()


def test_a_lost_manifest_costs_one_part_more_to_resume(tmp_path, monkeypatch):
    run = parts.Parts(tmp_path / "run.nc", {"seed": "0"}, 5)
    run.open()
    for shard in range(5):
        run.write(shard, dataset(shard))
    run.path(0).write_bytes(b"damaged")
    (run.folder / parts.MANIFEST).unlink()
    read, real = [], parts.read_part
    monkeypatch.setattr(parts, "read_part", lambda path: (read.append(path), real(path))[1])
    run.open(resume=True)
    assert len(read) <= 2
    (run.folder / parts.MANIFEST).unlink()
    with pytest.raises(gt.UserError, match="its manifest is lost"):
        parts.Parts(tmp_path / "run.nc", {"seed": "1"}, 5).open(resume=True)


@pytest.mark.parametrize(("samples", "shard_size"), [(8, 3), (8, 4), (5, 64), (7, 1)])
def test_a_shard_is_that_of_the_plan(samples, shard_size):
    prepared = prepare(gt.Experiment(samples=samples, shard_size=shard_size), "cpu")
    found = [prepared.shard(number) for number in range(len(prepared.bounds) - 1)]
    assert found == prepared.plan.shards(prepared.samples.tolist())
    assert np.diff(prepared.bounds).tolist() == [len(shard) for shard in found]
