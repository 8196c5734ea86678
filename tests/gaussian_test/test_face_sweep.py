"""Sweeps: names that stay, runs that do not stop each other, their states, and all archives as one dataset."""

import json
import sys
import threading

import dask
import numpy as np
import pytest
import yaml
from face_zoo import QUICK, invoke, refused
from same_archives import undated

import gaussian_test as gt
from gaussian_test import Sweep, UserError
from gaussian_test.engine import shard
from gaussian_test.store.files import locked

SMALL = QUICK | {"samples": 8, "shard_size": 4, "turn_times": {"noise_to_signal": [0.1, 1.0, 5.0]}}
LOOP: list = []
LOOP.append(LOOP)
AXES = {"reverse.kind": ["auto", "heun"], "scores": {"exact": [{"kind": "empirical"}], "affine": [{"kind": "gaussian"}]}}


def test_names_do_not_depend_on_other_values_nor_on_their_order():
    files = [{"source": "file", "path": f"{name}.npy"} for name in "abc"]
    few, many = ({"data": files[:2], "seed": [3]}, {"data": files[::-1], "seed": [1, 3, 2]})
    assert set(Sweep.load({"sweep": few, **SMALL}).runs) < set(Sweep.load({"sweep": many, **SMALL}).runs)
    assert len(Sweep.load({"sweep": many, **SMALL}).runs) == 9


def test_every_combination_is_the_experiment_that_it_says():
    sweep = Sweep.load({"sweep": {**AXES, "turn_times.noise_to_signal": [[0.5], [1.0, 2.0]]}, **SMALL}, ["seed=7"])
    assert len(sweep.runs) == 8
    for name, experiment in sweep.runs.items():
        labels = sweep.labels[name]
        assert experiment.reverse.kind == labels["reverse.kind"]
        assert experiment.scores[0].kind == {"exact": "empirical", "affine": "gaussian"}[labels["scores"]]
        assert experiment.seed == 7
        assert (experiment.turn_times.noise_to_signal == (0.5,)) == labels["turn_times.noise_to_signal"].startswith("0.5-")
        assert name == ",".join(f"{key}={label}" for key, label in labels.items())


def test_long_names_become_files_too():
    names = list(Sweep.load({"sweep": {"scores": {"s" * count: [{"kind": "empirical"}] for count in (200, 201)}}}).runs)
    assert [len(name) <= 120 for name in dict.fromkeys(names)] == [True, True]


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        (None, "sweep is missing"),
        ([], "holds no keys"),
        ({}, "holds no keys"),
        ({"seed": 3}, r"'seed' = 3 is no list"),
        ({"seed": []}, r"'seed' has no values"),
        ({"seed": [1, 1]}, "twice"),
        ({"scores": {"a/b": [{"kind": "empirical"}], "a:b": [{"kind": "gaussian"}]}}, "twice"),
        ({"sead": [1]}, r"run sead=1: .*unknown key 'sead': did you mean 'seed'"),
        ({"reverse.kind": ["sde", "hoin"]}, r"run reverse.kind=hoin: .*hoin"),
        ({"seed": list(range(101)), "samples": list(range(4, 105))}, "10201 combinations"),
        ({"scores.7.kind": ["empirical"]}, "none of its places"),
        ({"reverse.kind": ["heun"], "reverse": [{"kind": "sde"}]}, "set the same"),
        ({"seed": [-1, 1]}, r"run seed=-1: "),
        ({"data": [{1: 2, "a": 3}]}, "."),  # structures that YAML can hold: mixed keys, and a list that holds itself
        ({"seed": LOOP}, "."),
    ],
)
def test_what_is_no_sweep_is_refused(sweep, said):
    with refused(said):
        Sweep.load({**SMALL, **({} if sweep is None else {"sweep": sweep})})


@pytest.mark.parametrize("change", ["seed=5", "seed.x=1"])
def test_a_swept_key_is_not_set_otherwise(change):
    with pytest.raises(UserError, match="set the same"):
        Sweep.load({"sweep": {"seed": [0, 1]}, **SMALL}, [change])


def test_a_sign_is_part_of_a_label():
    names = list(Sweep.load({"sweep": {"data.scale": [[-1, 1], [1, 2]]}, **SMALL}).runs)
    assert ["-1+1" in name for name in names] == [True, False]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("sweep") / "runs"
    gt.run_sweep({"sweep": AXES, **SMALL}, place, progress=False)
    return place


def test_each_run_is_what_it_would_be_alone(folder):
    for name, experiment in Sweep.load({"sweep": AXES, **SMALL}).runs.items():
        assert undated(gt.open_archive(folder / f"{name}.nc")).identical(undated(gt.run(experiment, progress=False)))
    assert sorted(path.suffix for path in folder.iterdir()) == ["", ".json", ".nc", ".nc", ".nc", ".nc"]


def test_going_on_keeps_what_is_finished_and_runs_what_is_new(folder, monkeypatch):
    before = {path: path.read_bytes() for path in folder.glob("*.nc")}
    with pytest.raises(UserError, match=r"holds runs of this sweep .*--resume"):
        gt.run_sweep({"sweep": AXES, **SMALL}, folder, progress=False)
    computed, genuine = [], shard.run_shard
    monkeypatch.setattr(shard, "run_shard", lambda *arguments: computed.append(arguments) or genuine(*arguments))
    gt.run_sweep({"sweep": {**AXES, "reverse.kind": ["auto", "heun", "sde"]}, **SMALL}, folder, resume=True, progress=False)
    assert len(computed) == 4  # two runs of two shards
    assert {path: path.read_bytes() for path in before} == before
    for path in folder.glob("*sde*"):
        path.unlink()


def test_a_run_that_fails_does_not_stop_the_others(tmp_path):
    axes = {"data": {"none": {"source": "file", "path": str(tmp_path / "none.npy")}, "digits": {"source": "digits"}}}
    with pytest.raises(UserError, match=r"1 of 2 runs failed, data=none for one: .*none.npy does not exist.*--resume"):
        gt.run_sweep({"sweep": axes, **SMALL}, tmp_path / "runs", progress=False)
    failed, finished = gt.status(tmp_path / "runs")
    assert (failed.name, failed.state, finished.state) == ("data=none", "failed", "finished")
    assert "none.npy" in failed.reason
    np.save(tmp_path / "none.npy", np.random.default_rng(0).normal(size=(20, 3)))
    gt.run_sweep({"sweep": axes, **SMALL}, tmp_path / "runs", resume=True, progress=False)
    assert [run.state for run in gt.status(tmp_path / "runs")] == ["finished", "finished"]
    assert not list((tmp_path / "runs").glob("*.error"))


def test_the_states_of_runs(tmp_path, interrupt):
    place = tmp_path / "runs"
    sweep = {"sweep": {"seed": [0, 1, 2]}, **SMALL}
    interrupt(4)
    with pytest.raises(KeyboardInterrupt):
        gt.run_sweep(sweep, place, progress=False)
    first, second, third = gt.status(place)
    assert (first.state, second.state, third.state) == ("finished", "interrupted", "waiting")
    assert (second.done, second.of) == (1, 2)
    with locked(place / "seed=2.nc"):
        assert gt.status(place)[2].state == "running"
        # whoever else runs the sweep takes what nobody is at
        gt.run_sweep(sweep, place, resume=True, progress=False)
        assert [run.state for run in gt.status(place)] == ["finished", "finished", "running"]
    assert gt.status(place)[2].state == "waiting"
    shown = invoke("status", place)
    assert (shown.exit_code, shown.output.splitlines()[-1]) == (0, "3 runs: 2 finished, 1 waiting")
    assert gt.status(place / "seed=0.nc")[0].state == "finished"
    with pytest.raises(UserError, match="neither a folder nor the archive"):
        gt.status(tmp_path / "none")


@pytest.mark.parametrize("name", ["../outside", "a/../../outside", "/etc/outside", "..\\outside"])
def test_no_name_of_a_run_leads_out_of_the_folder(name, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "outside.nc").touch()
    (tmp_path / "results/sweep.json").write_text(json.dumps({name: {"seed": "0"}}))
    for look in (gt.status, gt.open_sweep, lambda folder: gt.report(folder, tmp_path / "a.html")):
        with pytest.raises(UserError, match="is no name of a file in"):
            look(tmp_path / "results")


@pytest.mark.parametrize("text", ["[" * 10**5, '{"a":' * 10**5, "[1]", "{", '{"a": 3}'])
def test_a_list_of_runs_that_is_none_is_none(text, tmp_path):
    (tmp_path / "sweep.json").write_text(text)
    assert gt.status(tmp_path) == []


def test_escapes_in_names_of_runs_and_reasons_reach_no_terminal(tmp_path):
    (tmp_path / "a\x1b[31m.nc.error").write_text("no \x1b]0;owned\x07\rway")
    (tmp_path / "sweep.json").write_text(json.dumps({"a\x1b[31m": {}}))
    shown = invoke("status", tmp_path).stdout
    assert "no \\x1b]0;owned\\x07" in shown
    assert "\x1b" not in shown
    (tmp_path / "b\x1b[31m.nc").touch()
    for arguments in (["show", str(tmp_path / "b.nc")], ["show", str(tmp_path / "b\x1b[31m.nc")]):  # hints and refusals
        assert "\x1b" not in (said := invoke(*arguments).stderr)
        assert "b\\x1b[31m.nc" in said


def test_an_error_of_old_does_not_hide_an_archive(tmp_path):
    (tmp_path / "a.nc.error").write_text("once")
    (tmp_path / "truth.nc").write_bytes(b"of somebody else's")
    assert gt.status(tmp_path) == []
    with pytest.raises(UserError, match="holds no finished run"):
        gt.open_sweep(tmp_path)
    gt.run(SMALL, tmp_path / "a.nc", progress=False)
    assert [(run.name, run.state) for run in gt.status(tmp_path)] == [("a", "finished")]
    assert gt.open_sweep(tmp_path)["run"].values.tolist() == ["a"]
    gt.run(SMALL, tmp_path / "plain", progress=False)
    assert gt.status(tmp_path / "plain")[0].state == "finished"


def test_the_command_line_runs_a_sweep(tmp_path, folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"sweep": AXES, **SMALL}))
    done = invoke("sweep", "sweep.yaml", "-o", "out", "--set", "seed=0")
    assert (done.exit_code, "4 runs: 4 finished" in done.output) == (0, True), done.output
    for path in (tmp_path / "out").glob("*.nc"):
        assert undated(gt.open_archive(path)).identical(undated(gt.open_archive(folder / path.name)))
    again = invoke("sweep", "sweep.yaml", "-o", "out")
    assert (again.exit_code, len(again.stderr.splitlines())) == (2, 1)


@pytest.fixture(scope="module")
def combined(folder):
    """Return all runs of the folder as one dataset, read by many threads."""
    combined = gt.open_sweep(folder)
    assert combined["autocorrelation"].chunks is not None  # not read yet
    with dask.config.set(scheduler="threads", num_workers=8):
        combined.load()
    assert threading.active_count() < 50
    return combined


def test_all_runs_as_one_dataset_hold_the_values_of_each(combined, folder):
    assert set(combined["run"].values) == {path.stem for path in folder.glob("*.nc")}
    for run in combined["run"].values:
        alone, ours = gt.open_archive(folder / f"{run}.nc"), combined.sel(run=run)
        for name in alone.data_vars:
            mine = ours[name].sel({dim: alone[dim] for dim in alone[name].dims if dim in alone.indexes})
            np.testing.assert_array_equal(mine.values.astype(alone[name].dtype), alone[name].values, err_msg=str(name))
        np.testing.assert_array_equal(ours["noise_to_signal"], alone["noise_to_signal"])
        assert yaml.safe_load(str(ours["experiment"].values)) == yaml.safe_load(alone.attrs["experiment"])
        assert f"reverse.kind={ours['reverse.kind'].item()},scores={ours['scores'].item()}" == run


def test_what_a_run_lacks_is_nan(combined):
    exact = combined.sel(run="reverse.kind=auto,scores=exact")
    assert np.isnan(exact["autocorrelation"].sel(score="gaussian")).all()
    assert (exact["nearest_sample"].sel(score="gaussian") == -1).all()
    assert np.isfinite(exact["autocorrelation"].sel(score="empirical")).all()


def test_runs_of_several_processes_lie_along_the_noise_levels(tmp_path):
    """Each level once, with the time that each process calls it; what one of them lacks is NaN."""
    kinds = [{"kind": kind} for kind in ("variance_exploding", "cosine", "rectified", "ornstein_uhlenbeck")]
    settings = {**SMALL, "observables": ["affinity"], "turn_times": {"noise_to_signal": [0.3, 1.0, 7.0]}}
    gt.run_sweep({**settings, "sweep": {"process": kinds}}, tmp_path / "a", progress=False)
    runs = gt.open_sweep(tmp_path / "a").load()
    assert dict(runs["turn_time"].sizes) == {"run": 4, "noise_to_signal": 3}
    np.testing.assert_allclose(runs["noise_to_signal"], [0.3, 1.0, 7.0], rtol=1e-6)
    assert np.isfinite(runs["autocorrelation"]).all()
    for name in runs["run"].values:
        alone = gt.open_archive(tmp_path / "a" / f"{name}.nc")
        for variable in ("turn_time", "score_norm"):
            np.testing.assert_array_equal(runs.sel(run=name)[variable].transpose(..., "noise_to_signal"), alone[variable])
    one, *others = sorted((tmp_path / "a").glob("*.nc"))
    for other in others:  # the same samples, the same noise: nothing differs but the scaling of the state
        found = gt.compare(one, other)
        assert found.attrs["paired"] == 1
        assert "denoiser_gap_difference" in found
        assert "score_norm_difference" not in found
        for name in ("autocorrelation_one_shot", "denoiser_gap", "memorization", "speciation"):
            np.testing.assert_allclose(found[f"{name}_difference"].fillna(0), 0, atol=1e-4)
            assert (found[f"{name}_difference_low"].fillna(0) <= 0).all()  # rounding is no difference
            assert (found[f"{name}_difference_high"].fillna(0) >= 0).all()
    assert "score_norm_difference" in gt.compare(one, one)


def test_levels_of_one_run_stay_apart_however_close_they_are(tmp_path):
    (tmp_path / "a").mkdir()
    near = [0.1, 1.0, 1.0000005, 5.0]
    gt.run({**SMALL, "turn_times": {"noise_to_signal": near}}, tmp_path / "a" / "near.nc", progress=False)
    gt.run({**SMALL, "process": {"kind": "cosine"}}, tmp_path / "a" / "plain.nc", progress=False)
    runs = gt.open_sweep(tmp_path / "a")
    np.testing.assert_allclose(runs["noise_to_signal"], near, rtol=1e-7)
    assert np.isfinite(runs["autocorrelation"].sel(run="near")).all()
    assert np.isfinite(runs["autocorrelation"].sel(run="plain")).sum() == 3 * runs.sizes["score"]


def test_a_damaged_archive_is_refused_by_name(folder, tmp_path):
    for path in folder.glob("*.nc"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    bad = next(tmp_path.glob("*.nc"))
    bad.write_bytes(bad.read_bytes().replace(b"CF-1.11", b"CF-1.12"))
    with pytest.raises(UserError, match=f"{bad.name} is damaged"):
        gt.open_sweep(tmp_path)


def test_without_dask_it_is_refused(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "dask.array", None)
    with pytest.raises(UserError, match="needs dask"):
        gt.open_sweep(folder)
