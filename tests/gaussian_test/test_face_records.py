"""One record per measurement: what an archive holds is what its records declare, and every function that they name is there."""

import inspect
import traceback
from pathlib import Path

import netCDF4
import numpy as np
import pytest
from face_zoo import QUICK

import gaussian_test as gt
from gaussian_test.analysis.declarations import ENDINGS, Variable, declared, mask_undefined, reasons_of
from gaussian_test.analysis.observables import registry
from gaussian_test.analysis.observables.record import resolved
from gaussian_test.analysis.observables.registry import taken

EVERYTHING = QUICK | {"observables": "all", "chains": {"length": 3, "turn_times": 2}, "samples": 16, "repeats": 2, "seed": 2}
EVERYTHING |= {"turn_times": {"noise_to_signal": [0.2, 0.8, 3.0]}, "reverse": {"kind": "sde", "steps": 4}}
EVERYTHING |= {"keep": {"pictures": 2, "trajectory": True, "eigenvectors": True, "end_points": True}}
EVERYTHING["scores"] = [{"kind": "empirical"}, {"kind": "gaussian"}, {"kind": "empirical", "name": "given", "conditional": True}]
AXES = {"channel", "row", "column", "feature"}  # of a sample: `event` in a declaration


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("records") / "all.nc"
    gt.run(EVERYTHING, path, progress=False)
    return path


def groups(path):
    with netCDF4.Dataset(path) as file:
        names = list(file.groups)
    result = gt.open_archive(path)
    return {"": result} | {name: result.gaussian_test.group(name) for name in names}


def test_every_variable_of_an_archive_is_declared_and_lies_over_its_dimensions(archive):
    for group, dataset in groups(archive).items():
        known = {name: variable for variable in registry.variables(group) for name in variable.names}
        known |= {name: variable for variable in registry.variables("") for name in variable.names if name in dataset.coords}
        if group == "normality":  # its maps are over turn times too
            known |= {"turn_time": next(v for v in registry.variables() if v.name == "turn_time")}
        for name, values in dataset.variables.items():
            if name in AXES | {"mode"}:
                continue
            variable = known[name]
            dims = {"event" if dim in AXES - {*variable.dims} else dim for dim in values.dims}
            assert dims <= {*variable.dims}, (group, name)
            assert dims == {*variable.dims} or "event" in variable.dims, (group, name)
            if "{" not in variable.long_name and name in dataset.data_vars:
                assert values.attrs["long_name"] == variable.long_name + variable.names[name], (group, name)
                assert values.attrs["units"] == variable.units, (group, name)


def test_what_is_declared_is_measured(archive):
    """Nothing is declared in vain: of a run with everything each variable is there, in its group."""
    found = groups(archive)
    for group, dataset in found.items():
        for variable in registry.variables(group):
            absent = variable.name in ("class", "kept") or group == "parts"
            assert absent or set(variable.names) <= set(dataset.variables), (group, variable.name)


def test_every_function_that_a_record_names_is_there_and_takes_what_it_is_given():
    counts = {"at_turn": 1, "at_end": 1, "runs": 1, "measure": 1, "text": 2}
    for one in registry.every():
        for field, count in counts.items():
            if name := getattr(one, field):
                assert len(inspect.signature(resolved(name)).parameters) == count, (one.name, field)
        for figure in one.figures:
            assert bool(figure.draw) != bool(figure.panels), (one.name, figure.name)
            named = {panel.variable for panel in figure.panels} | {panel.closed for panel in figure.panels if panel.closed}
            declared_names = {name for variable in one.variables for name in variable.names}
            assert {figure.shown_for, *figure.curves, *named} - {""} <= declared_names, (one.name, figure.name)
            if figure.draw:
                assert callable(resolved(figure.draw))
        for variable in one.variables:
            if ":" in variable.compared:
                assert callable(resolved(variable.compared))
            elif variable.compared:
                assert variable.compared in {other.name for other in one.variables} | {"sample_denoiser_gap"}


def test_names_are_declared_once():
    """But for the end points, which are those of the pictures or of all starts."""
    seen = [(variable.group, name) for variable in registry.variables() for name in variable.names]
    assert len(seen) == len(set(seen))
    assert not any(name.endswith(ENDINGS) for name in registry.OBSERVABLES)


def test_what_is_not_declared_is_refused_and_the_order_is_that_of_the_declarations():
    known = [Variable("b", ("x",), "second"), Variable("a", ("x",), "first")]
    assert list(declared(known, {"a": [1.0], "b": [2.0]})) == ["b", "a"]
    with pytest.raises(ValueError, match="variables c are not declared"):
        declared(known, {"c": [1.0]})


@pytest.mark.parametrize("start", ["gaussian", "isotropic"])
def test_what_a_start_leaves_undefined_is_what_the_declarations_say(start):
    settings = {"start": start, "observables": ["quality"], "keep": {"pictures": 0}, "scores": [{"kind": "empirical"}]}
    result = gt.run(EVERYTHING | settings, progress=False)
    for variable in registry.variables(""):
        for name in variable.names:
            if name in result.data_vars and result[name].dtype.kind == "f":
                gone = variable.needs in ("sample", "sde") or (variable.needs == "start" and start == "isotropic")
                if gone:
                    assert np.isnan(result[name]).all(), name
                    assert list(reasons_of(result[name])) == [""], name
    assert np.isfinite(result["end_square"]).all()
    assert np.isfinite(result["autocorrelation"]).all() == (start == "gaussian")


def test_undefining_twice_is_undefining_once(archive):
    result = gt.open_archive(archive)
    once = mask_undefined(result.copy(deep=True), list(registry.variables("")), "gaussian")
    assert mask_undefined(once.copy(deep=True), list(registry.variables("")), "gaussian").identical(once)


def test_invariant_variables_are_those_that_no_choice_of_process_changes():
    """At equal noise-to-signal ratios and noise two processes are one experiment in other units: x/alpha = x0 + nu z."""
    settings = {**EVERYTHING, "observables": ["affinity"], "scores": EVERYTHING["scores"][:2], "keep": {"pictures": 0}}
    settings |= {"reverse": {"kind": "exact"}, "dtype": "float64", "samples": 64}
    first = gt.run(settings, progress=False)
    second = gt.run({**settings, "process": {"kind": "cosine", "time_min": 1e-4, "time_max": 0.99999}}, progress=False)
    changed = set()
    for variable in registry.variables(""):
        for name in {variable.name, f"{variable.name}_se"} & set(variable.names):  # a band may jump from one resample to the next
            if name in first.variables and first[name].dtype.kind == "f" and variable.dims:
                same = np.allclose(first[name], second[name], rtol=1e-5, atol=1e-7, equal_nan=True)
                if not same:
                    changed.add(variable.name)
                assert same or not variable.invariant, name
    assert {"score_norm", "sample_score_square", "turn_time", "memorization_time"} <= changed


def test_a_trace_from_a_failing_observable_is_short(monkeypatch):
    """From `gt.run` to the kernel that fails, at most 8 frames are ours."""

    def fails(*_, **__):
        raise ZeroDivisionError("here")

    monkeypatch.setattr("gaussian_test.analysis.observables.quality.quality.sample_quality", fails)
    try:
        gt.run({**EVERYTHING, "observables": ["quality"]}, progress=False)
    except ZeroDivisionError as error:
        root = Path(gt.__file__).resolve().parent.parent
        rooms = [root / room for room in ("gaussian_test", "analysis", "sampler", "data")]
        frames = [Path(frame.filename).resolve() for frame in traceback.extract_tb(error.__traceback__)]
        ours = [frame for frame in frames if any(frame.is_relative_to(room) for room in rooms)]
        assert 3 <= len(ours) <= 8, ours
    else:
        pytest.fail("it did not fail")


def test_every_name_of_an_archive_is_taken(archive):
    """Whatever a run of everything writes, in any group, and what views add, no observable can be called."""
    names = {str(name) for dataset in groups(archive).values() for name in (*dataset.variables, *dataset.dims)}
    bands = ("_se", "_low", "_high", "_pvalue")
    assert {name for name in names if not name.endswith(bands) and not name.startswith("sample_")} <= taken()
    assert {"gap", "gap_low", "moments", "feature", "archive", "run", "experiment"} <= taken()
    assert not {"", "event", "parts", "size"} & taken()
