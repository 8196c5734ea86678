"""What is fitted once: saved, taken again by workers and resumed runs; and what threads change."""

import numpy as np
import pytest
from face_zoo import QUICK

import gaussian_test as gt
from gaussian_test import Experiment
from gaussian_test.build.problem import prepare
from gaussian_test.store.parts import Fits

SETTINGS = QUICK | {"samples": 16, "shard_size": 8, "turn_times": {"noise_to_signal": [0.1, 1.0, 5.0]}}


def test_what_was_saved_is_what_is_used(tmp_path):
    """Marked moments, classes and mixtures come back in the scores of whoever prepares the run again."""
    scores = [{"kind": "gaussian"}, {"kind": "mixture"}, {"kind": "mixture", "name": "fitted", "components": 2}]
    scores += [{"kind": "gaussian", "name": "class", "conditional": True}, {"kind": "gaussian", "name": "oas", "shrinkage": "oas"}]
    settings = Experiment.load({**SETTINGS, "scores": scores})
    first = prepare(settings)
    marked = Fits(first.data_digest)
    for what in list(first.fits._known):
        marked.arrays(what, lambda: {k: v * 2 if "values" in k else v for k, v in first.fits._known[what].items()})  # noqa: B023
    marked.save(tmp_path)
    again = prepare(settings, folder=tmp_path)
    for name in first.scores:
        ours, theirs = first.scores[name].components.eigenvalues, again.scores[name].components.eigenvalues
        np.testing.assert_array_equal(theirs, 2 * ours)
        np.testing.assert_array_equal(again.scores[name].components.means, first.scores[name].components.means)
    assert not again.fits._known  # nothing was fitted


def test_fits_of_other_data_are_not_taken(tmp_path):
    fits = Fits("these")
    fits.arrays("answer", lambda: {"value": np.array([42.0])})
    fits.save(tmp_path)
    assert Fits("these", tmp_path).arrays("answer", dict)["value"].tolist() == [42.0]
    assert Fits("others", tmp_path).arrays("answer", lambda: {"value": np.array([0.0])})["value"].tolist() == [0.0]


def test_a_flipped_bit_or_a_missing_byte_is_fitted_again(tmp_path):
    """Whatever bit it is, of values or of the file's own words: never another value."""

    def arrays():
        fits = Fits("these", tmp_path)
        return fits.arrays("answer", lambda: {"value": np.array([0.0])})["value"].tolist()

    fits = Fits("these")
    fits.arrays("answer", lambda: {"value": np.array([42.0, 7.0])})
    fits.save(tmp_path)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        assert arrays() == [0.0], place
        path.write_bytes(content[:place])
        assert arrays() == [0.0], place
    path.write_bytes(content)
    assert arrays() == [42.0, 7.0]


def test_moments_survive_the_file_bit_for_bit(tmp_path):
    truth = gt.data.load("digits")
    fits = Fits("digits")
    before, classes = fits.moments(truth["x"]), fits.of_classes(truth["x"], truth["label"].values)
    fits.save(tmp_path)
    again = Fits("digits", tmp_path)
    after = again.moments(None)
    for name in ("count", "mean", "eigenvalues", "eigenvectors"):
        assert np.array_equal(getattr(before, name), getattr(after, name))
    for (label, ours), (other, theirs) in zip(classes, again.of_classes(None, None), strict=True):
        assert (label, ours.count) == (other, theirs.count)
        assert np.array_equal(ours.eigenvectors, theirs.eigenvectors)


@pytest.mark.parametrize("kind", ["empirical", "network"])
def test_threads_change_rounding_only(kind):
    score = {"kind": kind} | ({"micro_batch": 16} if kind == "network" else {})
    settings = {**SETTINGS, "scores": [score], "reverse": {"steps": 16}}
    one, two = (gt.run(settings, threads=threads, progress=False) for threads in (1, 2))
    for name in one.data_vars:
        if one[name].dtype.kind == "f":
            np.testing.assert_allclose(two[name], one[name], rtol=2e-4, atol=2e-5, err_msg=str(name))
