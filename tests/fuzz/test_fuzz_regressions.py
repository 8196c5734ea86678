"""What the fuzz found, one plain test for each."""

import contextlib
import datetime
import io
import time
import warnings

import fuzz_strategies as given
import numpy as np
import pytest
import xarray as xr
from fuzz_cases import SECONDS, Hang, limit, sentence

import gaussian_test as gt
from gaussian_test import UserError
from gaussian_test.data import DataError
from gaussian_test.experiment.experiment import Experiment

FACTORY = {"kind": "factory", "factory": "package.module:function"}


def refused(settings, changes=()):
    with pytest.raises(UserError) as error:
        Experiment.load(settings, changes)
    return sentence(error.value)


def hang():
    while True:
        with contextlib.suppress(Exception):
            time.sleep(0.01)


def test_a_case_that_hangs_fails():
    """Also where the code under test takes every ordinary exception for its own."""
    with pytest.raises(Hang, match=r"longer than 0\.2 s"), limit(0.2):
        hang()


# -- experiments ---------------------------------------------------------------------------------------------------------------


def test_arguments_of_every_plain_kind_survive():
    arguments = {"a": [1, 2.5, True, None, "text"], "b": {"c": {"d": (1, 2)}}, "e": 10**30}
    experiment = Experiment.load({"features": {**FACTORY, "arguments": arguments}})
    assert experiment.features.arguments == {**arguments, "b": {"c": {"d": [1, 2]}}}


@pytest.mark.parametrize("text", ["!!timestamp now", "!!float ''", "!!int ''", "!!bool perhaps", "!!binary a"])
def test_tags_whose_value_is_none_of_theirs(text, tmp_path):
    (tmp_path / "e.yaml").write_text(f"seed: {text}\n")
    assert "is not valid YAML" in refused(tmp_path / "e.yaml")
    assert "is not a YAML value" in refused({}, [f"seed={text}"])


@pytest.mark.parametrize("key", ["samples", "classifier", "scores", "keep"])
def test_a_few_lines_that_stand_for_more_than_memory_holds(key):
    for value in (given.BOMB, given.circle(), given.deep(5000)):
        with limit(SECONDS):
            assert f"{key!r} holds itself, is nested" in refused({key: value})


UNKEPT = [datetime.date(2020, 1, 1), b"\xff", float("nan"), {1: 2}, {"a": {None: 1}}, [float("inf")], object()]
UNKEPT += [np.arange(2000.0), {1, 2}]
BEYOND = ["micro_batch=100000000000000000000", "shard_size=2147483648", "reverse.rho=1e-8", "reverse.rho=1e9"]
BEYOND += ["statistics.confidence=1e-200", "statistics.confidence=0.99999999999999999"]  # what the mathematics cannot take
REFUSED = [
    *(({"features": {**FACTORY, "arguments": {"a": value}}}, "cannot be kept in an archive") for value in UNKEPT),
    *(
        ({"scores": [{"kind": "azula", "factory": "a:b", "arguments": {"a": value}}]}, "cannot be kept in an archive")
        for value in UNKEPT
    ),
    *(([change], change.partition("=")[0]) for change in BEYOND),
    ([f"scores.{'9' * 5000}.kind=mixture"], "none of its places"),
    ({"data": {"path": "\ud800"}}, "UTF-8"),
    ({"\ud800": 1}, "UTF-8"),
    ({"seed": 10**5000}, "cannot be shown"),
    ({"seed": np.arange(4000.0).reshape(2, -1)}, ""),
    ({"observables": np.array(["all", "none"])}, "neither all nor none"),
]


@pytest.mark.parametrize(("value", "said"), REFUSED)
def test_what_is_given_is_refused(value, said):
    """A list holds changes, all else is an experiment."""
    assert said in (refused({}, value) if isinstance(value, list) else refused(value))


def test_a_message_quotes_no_more_than_anybody_reads():
    assert len(refused({"samples": "x" * 10**6})) < 400
    assert len(refused({"x" * 10**6: 1})) < 1000
    assert len(refused({}, ["samples=" + "x" * 10**6])) < 1000


def small(values, **more):
    return xr.Dataset({"x": (("sample", "feature"), values), **more})


SETTINGS = {"samples": 4, "turn_times": {"noise_to_signal": [0.3, 3.0]}, "statistics": {"bootstrap": 100}, "keep": {"pictures": 0}}
X = np.random.default_rng(0).uniform(-1, 1, (6, 3)).astype(np.float32)


def test_more_neighbors_than_samples():
    truth = small(X, label=("sample", np.arange(6) % 2))
    with pytest.raises(UserError, match=r"classifier\.neighbors = 9 is more than the 6 ground-truth samples"):
        gt.run({**SETTINGS, "classifier": {"kind": "knn", "neighbors": 9}}, truth=truth, progress=False)


# -- arrays --------------------------------------------------------------------------------------------------------------------


def test_a_file_of_python_2_is_read_without_a_word(tmp_path):
    """Its shape is written (6L, 3L); numpy reads it, and warns that it is slower."""
    content = given.saved(X).replace(b"(6, 3), }  ", b"(6L, 3L), }")
    (tmp_path / "a.npy").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        truth = gt.data.load(tmp_path / "a.npy")
    np.testing.assert_array_equal(truth["x"], X)


def test_a_damaged_zip_is_not_quoted_at_length(tmp_path):
    stream = io.BytesIO()
    np.savez(stream, x=X)
    content = bytearray(stream.getvalue())
    content[26:28] = (2000).to_bytes(2, "little")  # the length of the member's name
    (tmp_path / "a.npz").write_bytes(bytes(content) + bytes(4000))
    with pytest.raises(DataError) as error:
        gt.data.load(tmp_path / "a.npz")
    assert len(str(error.value)) < 500


TOO_LARGE = [np.array([0, 1, 2, 3, 4, value]) for value in (1e300, -1e19, 2.0**53 + 2, np.inf, np.nan)]
FLOATS = [np.array([0, 1, 2, 3, 4, 2.0**53]), *(np.arange(6).astype(dtype) for dtype in ("f2", "f4", ">f8", "g"))]


@pytest.mark.parametrize("label", [*TOO_LARGE, *FLOATS], ids=str)
def test_labels_of_floats_that_can_be_told_apart_are_labels(label, tmp_path):
    np.savez(tmp_path / "a.npz", x=X, label=label)
    if any(label is large for large in TOO_LARGE):
        with pytest.raises(DataError, match="have dtype float64: expected integers or strings"):
            gt.data.load(tmp_path / "a.npz")
    else:
        assert gt.data.load(tmp_path / "a.npz")["label"].values.tolist() == [0, 1, 2, 3, 4, 5]


# -- runs ----------------------------------------------------------------------------------------------------------------------

REPEATED = small(np.float32([[0.27], [0.27], [0.27], [0.27], [0.27], [-0.27]]))
NONE = {**SETTINGS, "observables": "none"}


@pytest.mark.parametrize(
    ("settings", "truth"),
    [
        ({**SETTINGS, "observables": ["affinity"]}, REPEATED),  # analysis.bootstrap: exp overflows
        ({**SETTINGS, "observables": ["quality"]}, REPEATED),  # analysis.distances: no modes left to reshape
        ({**NONE, "statistics": {"bootstrap": 100, "speciation_level": 5e-324}}, small(X, label=("sample", np.arange(6) % 2))),
        ({**NONE, "scores": [{"kind": "mixture", "components": 5}]}, REPEATED),  # scores: more components than distinct samples
        (NONE, small(np.where(X > 0, np.inf, -np.inf).astype("f4"))),  # from_python.checked_truth: what load would not have given
        (NONE, small(X.astype(">f4"))),  # prepare.starts: torch takes native bytes alone
        (NONE, small(X[[0, 1, 0, 2, 0, 3]], label=("sample", np.arange(6) % 2))),  # fits: one class has a single sample, repeated
        (NONE, small(X.astype(str))),
        (NONE, small(X.astype(object))),
        (NONE, small(X.astype("c8"))),
        (NONE, small(X, label=("sample", np.full(6, 2**62)))),
    ],
)
def test_result_or_sentence(settings, truth):
    try:
        gt.run(settings, truth=truth, progress=False)
    except UserError as error:
        sentence(error)
