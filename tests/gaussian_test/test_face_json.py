"""A result as JSON: strict, with documented keys, and every number of the archive in it, digit for digit."""

import json
import re

import numpy as np
import pytest
import xarray as xr
from face_zoo import QUICK, invoke

import gaussian_test as gt
from gaussian_test.analysis.declarations import reason_of
from gaussian_test.result import json_view

ALL = QUICK | {"turn_times": {"noise_to_signal": [0.1, 0.7, 2.0, 8.0]}, "process": {"kind": "cosine"}, "samples": 12}
ALL |= {"observables": "all", "chains": {"length": 2, "turn_times": 2}}
ALL["scores"] = [{"kind": "empirical"}, {"kind": "gaussian"}, {"kind": "gaussian", "name": "a, b: c; d", "shrinkage": 0.5}]
ENDS = ("_se", "_low", "_high", "_pvalue")


def strict(text):
    """Parse as a strict reader does: the words NaN and Infinity are no JSON."""

    def refuse(word):
        raise ValueError(word)

    return json.loads(text, parse_constant=refuse)


def numbers(value):
    """Return what JSON holds as an array: null is NaN, text is infinity (or the text that it is)."""
    if isinstance(value, list):
        return np.array([numbers(item) for item in value])
    if value is None:
        return np.nan
    return float(value) if value in ("Infinity", "-Infinity") else value


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("json") / "all.nc"
    gt.run(ALL, path, progress=False)
    return path


@pytest.fixture(scope="module")
def result(archive):
    return gt.open_archive(archive)


@pytest.fixture(scope="module")
def printed(archive):
    done = invoke("show", archive, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    return strict(done.stdout)


def found(document, variable, name, kind):
    """Return the entry of a variable and the key of its numbers, by its name alone."""
    for end in ("", *ENDS):
        base = name.removesuffix(end) if end else name
        entry = document[kind].get(base)
        if name.endswith(end) and entry is not None and entry["dims"] == [d for d in variable.dims if d != "score"]:
            return entry, end.removeprefix("_") or "value"
    return None, None


def hold(document, dataset, skipped):
    """Hold every variable of a dataset against a document; return how many were held."""
    held = 0
    for name, variable in dataset.data_vars.items():
        if {"sample", "repeat", "kept"} & set(variable.dims) or name in skipped:
            continue
        kind = "curves" if "turn_time" in variable.dims else "values"
        for score in dataset["score"].values if "score" in variable.dims else [None]:
            part = document["scores"][str(score)] if score is not None else document
            entry, key = found(part, variable, str(name), kind)
            assert entry is not None, name
            column = variable.sel(score=score) if score is not None else variable
            np.testing.assert_array_equal(numbers(entry[key]), column.values, str(name))
            assert entry["units"] == variable.attrs.get("units") or key != "value"
            held += 1
    return held


def test_every_number_of_the_archive_is_in_it(printed, result):
    about = {"score_kind", "kernel", "conditional"}
    of_times = r"(memorization|speciation|affine)_(time|noise_to_signal)(?!_by_class)"
    times = {name for name in result if re.match(of_times, str(name))}
    assert hold(printed, result, about | times) > 150
    assert hold(printed["chains"], result.gaussian_test.group("chains"), set()) > 20
    for score in result["score"].values:
        row, entry = result.sel(score=score), printed["scores"][str(score)]
        assert (entry["kind"], entry["kernel"]) == (row.score_kind.item(), row.kernel.item())
        assert entry["conditional"] is bool(row.conditional)
        seen = set()
        for time, units in entry["times"].items():
            for unit, name in (("noise_to_signal", "noise_to_signal"), ("process_time", "time")):
                for key, value in units[unit].items():
                    variable = f"{time}_{name}" + ("" if key == "value" else f"_{key}")
                    np.testing.assert_array_equal(numbers(value), row[variable].values, variable)
                    seen.add(variable)
        assert seen == times
    for name in ("turn_time", "noise_to_signal", "class", "reference", "start", "distance"):
        np.testing.assert_array_equal(printed["coordinates"][name], result[name].values)


def test_process_times_are_times_and_no_ratios(printed):
    times = printed["scores"]["empirical"]["times"]["memorization"]
    assert times["process_time"]["value"] == pytest.approx(2 / np.pi * np.arctan(times["noise_to_signal"]["value"]), rel=1e-6)


def test_the_largest_gap_is_that_of_the_curve(printed):
    for entry in printed["scores"].values():
        gap, largest = entry["curves"]["gap"], entry["largest_gap"]
        at = int(np.abs(numbers(gap["value"])).argmax())
        assert [largest[key] for key in ("value", "se", "low", "high", "pvalue")] == [
            gap[key][at] for key in ("value", "se", "low", "high", "pvalue")
        ]
        for axis in ("noise_to_signal", "turn_time"):
            assert largest[axis] == printed["coordinates"][axis][at]


def test_what_made_it_is_in_it(printed, result):
    assert gt.Experiment.load(printed["experiment"]) == gt.Experiment.load({**ALL, "dtype": "float32"})
    assert printed["versions"]["gaussian_test"] == gt.__version__
    assert printed["data"] == {"source": "digits", "digest": result.attrs["data_digest"], "samples": 1797} | {
        "duplicates": 0,
        "precision": result.attrs["precision"],
        "title": "digits of 8 x 8 pixels (scikit-learn)",
        "scale": 0.125,
        "offset": -1.0,
        "classes": {str(number): str(number) for number in range(10)},
    }
    assert printed["digests"] == json.loads(result.attrs["score_digest"])
    assert (printed["run"]["samples"], printed["run"]["repeats"], printed["run"]["confidence"]) == (12, 1, 0.95)


def test_a_reason_is_of_its_own_score(printed):
    times = {name: entry["times"]["affine"] for name, entry in printed["scores"].items()}
    assert times["gaussian"]["reason"] == "the score is affine at every turn time"
    assert times["empirical"]["reason"] != times["gaussian"]["reason"]


@pytest.mark.parametrize("names", [["a", "b"], ["a", "a: b"], ["a; b", "b"], ["a.b", "axb"], ["a", "a, a2"]])
def test_reasons_are_told_apart_whatever_the_names(names):
    said = json.dumps({name: f"why {number}" for number, name in enumerate(names)})
    values = xr.DataArray([0.0] * len(names), {"score": names}, attrs={"reason": said})
    assert [reason_of(values, name) for name in names] == ["why 0", "why 1"]


def test_a_reason_for_all_is_said_of_each_and_one_for_another_of_none():
    values = xr.DataArray([0.0, 0.0], {"score": ["a", "b"]}, attrs={"reason": json.dumps({"": "there are no labels"})})
    assert reason_of(values, "a") == "there are no labels"
    values.attrs["reason"] = json.dumps({"b": "too few"})
    assert reason_of(values, "a") == ""
    values.attrs["reason"] = json.dumps({"": "no steps", "b": "too few"})
    assert [reason_of(values, name) for name in "ab"] == ["no steps", "no steps; too few"]


def test_undefined_and_infinite(tmp_path):
    """NaN is null, infinity is text, in a run that has both."""
    settings = ALL | {"process": {"kind": "variance_exploding"}, "start": "isotropic", "observables": "none"}
    text = gt.run(settings, progress=False).gaussian_test.to_json()
    entry = strict(text)["scores"]["empirical"]
    assert entry["largest_gap"] is None
    assert entry["curves"]["gap"]["value"] == [None] * 4
    assert "the start is noise alone" in entry["curves"]["gap"]["reason"]
    assert json_view.plain({"a": (np.inf, -np.inf, np.nan, True, "NaN")}) == {"a": ["Infinity", "-Infinity", None, True, "NaN"]}


def test_memory_says_what_the_archive_says(printed, result):
    """Of a result that never was a file."""
    here = strict(gt.run(ALL, progress=False).gaussian_test.to_json())
    for document in (here, printed):
        assert document["run"].pop("date", None) is not None
    assert here == printed
    printed["run"]["date"] = result.attrs["date_created"]


def test_keys_are_those_that_are_documented(printed):
    documented = set(re.findall(r"``(\w+)``", json_view.to_json.__doc__.split("Parameters\n")[0]))
    keys = {*printed, *printed["chains"]}
    for entry in printed["scores"].values():
        keys |= {*entry, *entry["largest_gap"]}
        keys |= {key for time in entry["times"].values() for key in (*time, *time["noise_to_signal"])}
        keys |= {key for kind in ("curves", "values") for quantity in entry[kind].values() for key in quantity}
    assert keys <= documented
    in_help = invoke("show", "--help").stdout
    assert all(re.search(rf"\b{key}\b", in_help) for key in printed)
