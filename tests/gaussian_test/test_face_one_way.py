"""One way in: functions on results take paths and datasets alike, experiments come as dicts, files or settings; the accessor."""

import numpy as np
import pytest
import xarray as xr

import gaussian_test as gt
from gaussian_test import UserError

SMALL = {"samples": 8, "turn_times": {"noise_to_signal": [0.1, 1.0, 5.0]}, "observables": "none"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("one_way") / "run.nc"
    gt.run(SMALL, path, progress=False)
    return path


def test_results_are_taken_as_paths_text_and_datasets(archive):
    """Pages of either: test_face_report.py."""
    result = gt.open_archive(archive)
    wanted = gt.compare(result, result)
    for a, b in ((archive, str(archive)), (result, archive)):
        assert gt.compare(a, b).identical(wanted)
    assert result.gaussian_test.compare(archive).identical(wanted)
    with pytest.raises(UserError, match="int is no result: give the path of an archive or a Dataset"):
        gt.compare(3, result)


def test_experiments_are_taken_as_dicts_files_and_settings(tmp_path):
    settings = gt.Experiment.load(SMALL)
    (tmp_path / "small.yaml").write_text(settings.to_yaml(), encoding="utf-8")
    wanted = gt.samplers(SMALL, steps=[4])
    for source in (settings, tmp_path / "small.yaml", str(tmp_path / "small.yaml")):
        assert gt.samplers(source, steps=[4]).identical(wanted)
        assert gt.Experiment.load(source) == settings
    assert gt.Experiment.load(settings, ["seed=3"]).seed == 3


def test_the_accessor_has_the_times_of_the_archive(archive):
    result = xr.open_dataset(archive)
    times = result.gaussian_test.times
    assert times.index.names == ["score", "time"]
    for score, name in times.index:
        row, here = times.loc[(score, name)], result.sel(score=score)
        for column, ending in (("estimate", ""), ("low", "_low"), ("high", "_high"), ("predicted", "_predicted")):
            np.testing.assert_equal(row[column], here[f"{name}_noise_to_signal{ending}"].item())
        assert ((score, name) in times.attrs["reasons"]) >= bool(np.isnan(row["estimate"]))


def test_the_accessor_says_what_a_result_holds(archive):
    accessor = gt.open_archive(archive).gaussian_test
    said = repr(accessor)
    name = "digits of 8 x 8 pixels (scikit-learn)"
    for part in (f"{name}, 8 samples", "3, noise-to-signal 0.1 to 5", "empirical, gaussian", "moments, pictures"):
        assert part in said
    assert all(
        hasattr(accessor, name) for name in said.split("methods:")[1].splitlines()[0].strip(" >").replace(";", ",").split(", ")
    )
    assert "no result of the Gaussian Test" in repr(xr.Dataset().gaussian_test)
