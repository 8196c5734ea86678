"""Archives of version 0.1 open, show, compare and make a page, and what they say of undefined times is shown as it stands."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from face_zoo import QUICK

import gaussian_test as gt
from gaussian_test.result.text import compare_text

ARCHIVES = Path(__file__).parent / "archives"


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """Return the paths of two archives of version 0.1: all observables of exact scores, and a network."""
    folder = tmp_path_factory.mktemp("earlier")
    for packed in ARCHIVES.glob("*.nc.gz"):
        (folder / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
    return folder / "exact-0.1.nc", folder / "network-0.1.nc"


def test_what_they_say_is_shown(earlier):
    results = [gt.open_archive(path) for path in earlier]
    assert {result.attrs["schema_version"] for result in results} == {1}
    exact, network = (result.gaussian_test for result in results)
    assert set(exact.group("moments")) >= {"mean", "eigenvalue"}
    said = exact.show(every=True)
    assert "Gaussian Test of digits: 12 of 1797 samples x 4 turn times x 2 repeats, seed 3" in said
    assert all(title in said for title in ("Chains of U-Turns", "Kolmogorov-Smirnov", "Change field", "Other starts", "Fréchet"))
    assert "gaussian: the score is affine at every turn time" in said
    assert "Detailed balance of network, largest" in network.show()
    document = json.loads(exact.to_json())
    # a reason that was one sentence, with the scores in it, is each score's own
    times = {name: score["times"]["affine"]["reason"] for name, score in document["scores"].items()}
    assert times["gaussian"] == "the score is affine at every turn time"
    assert "gaussian" not in times["empirical"]
    assert ":" not in times["empirical"].split(" ")[0]
    assert document["chains"]["scores"]["gaussian"]["curves"]["autocorrelation"]["value"]


def test_their_figures_and_pages_are_drawn(earlier, tmp_path):
    exact, network = (gt.open_archive(path) for path in earlier)
    assert {"gap", "times", "explained", "normality", "quality", "starts", "exchange", "chains"} <= set(exact.gaussian_test.plot())
    assert "balance_network" in network.gaussian_test.plot()
    page = gt.report(earlier[0], tmp_path / "exact.html").read_text()
    assert "The Gaussian Test" in page


def test_they_are_compared_with_each_other_and_with_a_run_of_today(earlier):
    exact, network = (gt.open_archive(path) for path in earlier)
    both = gt.compare(exact, network)
    assert set(both["score"].values) == {"empirical", "gaussian"}
    assert np.isfinite(both["autocorrelation_difference"]).all()
    said = compare_text(both, ("a", "b"))
    assert "independent samples" in said
    assert "Largest differences for their errors" in said
    # the same experiment today: sample by sample the same but for rounding, wherever this test runs
    settings = QUICK | {"samples": 12, "shard_size": 6, "seed": 3, "repeats": 2}
    today = gt.run(settings | {"turn_times": {"noise_to_signal": [0.1, 0.7, 2.0, 8.0]}}, progress=False)
    assert gt.compare(exact, today).attrs["paired"] == 1
    for name in ("autocorrelation_one_shot", "sample_denoiser_gap", "gap_one_shot", "end_square"):
        np.testing.assert_allclose(today[name], exact[name], rtol=1e-4, atol=1e-5)
    assert float((today["nearest_sample"] == exact["nearest_sample"]).mean()) > 0.98


def test_an_observable_of_a_users_stays_theirs_where_one_of_ours_has_come_by_its_name():
    """An archive may be older than an observable: that of the user's with this name is shown, and ours is not looked for."""
    settings = {"samples": 8, "turn_times": {"noise_to_signal": [0.1, 5.0]}, "keep": {"pictures": 0}, "observables": "none"}
    result = gt.run(settings, custom_observables={"size": lambda start, end: end.flatten(1).norm(dim=1)}, progress=False)
    names = {str(name): str(name).replace("size", "participation") for name in result.data_vars if "size" in str(name)}
    earlier = result.rename(names)
    assert earlier.gaussian_test.show().count("participation")
    assert "own_participation" in earlier.gaussian_test.plot()
    assert "participation" not in earlier.gaussian_test.plot()
