"""The experiment file: it comes back as it was written, and every mistake in it is one sentence that names the place."""

import copy

import face_zoo
import pytest
import yaml
from hypothesis import given, settings, strategies as st

import gaussian_test as gt
from gaussian_test import Experiment, UserError

KINDS = {
    "variance_exploding": {"sigma_min": 0.01, "sigma_max": 50.0},
    "ornstein_uhlenbeck": {"time_min": 1e-4, "time_max": 5.0},
    "variance_preserving": {"beta_min": 0.2, "beta_max": 10.0, "time_min": 1e-4, "time_max": 0.9},
    "cosine": {"time_min": 0.002, "time_max": 0.99},
    "rectified": {"time_min": 0.002, "time_max": 0.99},
    "discrete_vp": {"alphas_cumprod": [0.9, 0.5, 0.1]},
}


def refused(source=None, *changes):
    """Return the one sentence with which an experiment is refused."""
    with face_zoo.refused(r"\w") as error:
        Experiment.load(source, changes)
    return str(error.value)


# -- round trips ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_yaml_gives_the_same_experiment_back(kind, tmp_path):
    original = Experiment.load(
        {
            "data": {"source": "file", "path": "x.npz", "key": "images", "scale": [0, 255]},
            "process": {"kind": kind, **KINDS[kind]},
            "scores": [
                {"kind": "gaussian", "name": "shrunk", "shrinkage": "oas"},
                {"kind": "gaussian", "name": "a little", "shrinkage": 0.1},
                {"kind": "mixture", "components": 3},
                {"kind": "empirical", "conditional": True, "name": "per class: ν"},
            ],
            "turn_times": {"time": [0.25, 0.5]},
            "reverse": {"kind": "edm", "steps": 5, "S_churn": 1.5, "clock": "variance"},
            "samples": "all",
            "seed": 2**40,
            "keep": {"trajectory": True},
            "statistics": {"level": 1 / 3},
        }
    )
    (tmp_path / "e.yaml").write_text(original.to_yaml(), encoding="utf-8")
    assert Experiment.load(tmp_path / "e.yaml") == original
    assert Experiment.load(yaml.safe_load(original.to_yaml())) == original


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    levels=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6),
    spacing=st.booleans(),
    seed=st.integers(0, 2**62),
    level=st.floats(0, 1, exclude_min=True, exclude_max=True),
    tolerance=st.floats(1e-12, 1e12),
)
def test_yaml_keeps_every_number_exactly(levels, spacing, seed, level, tolerance):
    turn = {"min": min(levels), "max": max(levels), "count": len(levels)} if spacing else levels
    statistics = {"level": level, "tolerance": tolerance}
    original = Experiment.load({"turn_times": {"noise_to_signal": turn}, "seed": seed, "statistics": statistics})
    again = Experiment.load(yaml.safe_load(original.to_yaml()))
    assert again == original
    assert (again.seed, again.statistics.level, again.statistics.tolerance) == (seed, level, tolerance)


def test_the_documented_defaults_are_the_defaults():
    documented = """
    data: {source: digits}
    process: {kind: variance_exploding, sigma_min: auto, sigma_max: auto}
    scores: [{kind: empirical}, {kind: gaussian}]
    turn_times: {noise_to_signal: null, time: null, count: 24}
    reverse: {kind: auto, steps: 64}
    samples: 512
    repeats: 1
    shard_size: 64
    seed: 0
    keep: {pictures: 8, trajectory: false}
    statistics: {confidence: 0.95, bootstrap: 2000, level: 0.5, tolerance: 0.02}
    """
    assert Experiment.load(yaml.safe_load(documented)) == Experiment()
    assert set(yaml.safe_load(Experiment().to_yaml())) == set(Experiment.model_fields)  # every default is written


@pytest.mark.parametrize("text", ["", "# only a remark\n", "{}", "---\n"])
def test_an_empty_file_is_the_default(text, tmp_path):
    (tmp_path / "e.yaml").write_text(text)
    assert Experiment.load(tmp_path / "e.yaml") == Experiment()


def test_an_experiment_cannot_be_changed_by_accident():
    with pytest.raises(ValueError, match="frozen"):
        Experiment().seed = 1


# -- --set ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "read", "expected"),
    [
        ("samples=all", lambda e: e.samples, "all"),
        ("reverse.steps=16", lambda e: e.reverse.steps, 16),
        (" reverse.steps =16", lambda e: e.reverse.steps, 16),
        ("data.scale=[0, 16]", lambda e: e.data.scale, (0.0, 16.0)),
        ("data.alpha=white", lambda e: e.data.alpha, "white"),
        ("data.path=a=b.npy", lambda e: e.data.path, "a=b.npy"),
        ("scores.0.name=mine", lambda e: (e.scores[0].name, e.scores[0].kind, e.scores[1].kind), ("mine", "empirical", "gaussian")),
        ("scores.1.kind=mixture", lambda e: [s.kind for s in e.scores], ["empirical", "mixture"]),
        ("scores.1={kind: mixture, components: 3}", lambda e: e.scores[1].components, 3),
        ("process.sigma_max=10", lambda e: (e.process.sigma_min, e.process.sigma_max), ("auto", 10.0)),
        ("turn_times.count=5", lambda e: (e.turn_times.noise_to_signal, e.turn_times.count), (None, 5)),
        ("turn_times=auto", lambda e: (e.turn_times.noise_to_signal, e.turn_times.count), (None, 24)),
        ("turn_times={noise_to_signal: {min: 1, max: 2, count: 5}}", lambda e: e.turn_times.noise_to_signal.count, 5),
        ("turn_times.noise_to_signal=[0.5, 1]", lambda e: e.turn_times.noise_to_signal, (0.5, 1.0)),
    ],
)
def test_a_change_reaches_its_key_and_no_other(change, read, expected):
    changed = Experiment.load(changes=[change])
    assert read(changed) == expected
    key = change.split("=")[0].strip().split(".")[0]
    untouched = set(Experiment.model_fields) - {key}
    assert {name: getattr(changed, name) for name in untouched} == {name: getattr(Experiment(), name) for name in untouched}


def test_time_takes_the_place_of_noise_to_signal_and_back():
    timed = Experiment.load(changes=["turn_times.time=[1, 2]"])
    assert (timed.turn_times.time, timed.turn_times.noise_to_signal) == ((1.0, 2.0), None)
    back = Experiment.load({"turn_times": {"time": [3]}}, ["turn_times.noise_to_signal=[4]"])
    assert (back.turn_times.time, back.turn_times.noise_to_signal) == (None, (4.0,))


def test_changes_apply_in_order_and_another_kind_drops_the_settings_of_the_old_one():
    assert Experiment.load(changes=["seed=1", "seed=2"]).seed == 2
    source = {"process": {"kind": "variance_exploding", "sigma_max": 9}, "scores": [{"kind": "gaussian", "shrinkage": 0.2}]}
    changed = Experiment.load(source, ["process.kind=rectified", "scores.0.kind=empirical"])
    assert (changed.process.kind, changed.scores[0].kind) == ("rectified", "empirical")
    assert Experiment.load(changes=["process.kind=cosine", "process.time_max=0.5"]).process.time_max == 0.5


def test_a_change_leaves_what_the_caller_gave_alone():
    source = {"reverse": {"steps": 4}, "scores": [{"kind": "gaussian"}], "turn_times": {"time": [1]}}
    kept = copy.deepcopy(source)
    Experiment.load(source, ["reverse.steps=5", "scores.0.kind=mixture", "turn_times.noise_to_signal=[1]", "seed=4"])
    assert source == kept


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("samples", "key=value"),
        (" =3", "key=value"),
        ("scores.5.kind=gaussian", "'5'"),
        ("scores.-1.kind=gaussian", "'-1'"),
        ("scores.2={kind: gaussian}", "'2'"),
        ("reverse.steps=[", "reverse.steps"),
        ("reverse.=1", "reverse"),
        ("samples.x=3", "samples"),
        ("seed=2020-13-45", "seed"),  # yaml takes it for a date
        ("scores.².kind=gaussian", "²"),  # a digit that is no number
    ],
)
def test_a_bad_change_is_refused(change, said):
    assert said in refused(None, change)


# -- unknown keys --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "place", "unknown", "nearest"),
    [
        ({"sampels": 16}, "experiment", "sampels", "samples"),
        ({"reverse": {"s_churn": 4}}, "reverse", "s_churn", "S_churn"),
        ({"process": {"kind": "variance_preserving", "betamin": 4}}, "process", "betamin", "beta_min"),
        ({"scores": [{"kind": "gaussian", "shrink": 0.1}]}, "scores.0", "shrink", "shrinkage"),
        ({"scores": [{"kind": "empirical"}, {"kind": "mixture", "component": 4}]}, "scores.1", "component", "components"),
        ({"turn_times": {"noise_to_signa": [1]}}, "turn_times", "noise_to_signa", "noise_to_signal"),
        ({"turn_times": {"noise_to_signal": {"minimum": 1, "max": 2, "count": 3}}}, "turn_times.noise_to_signal", "minimum", "min"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest(source, place, unknown, nearest):
    message = refused(source)
    assert message.startswith(f"{place}: unknown key {unknown!r}: did you mean {nearest!r}?")


@pytest.mark.parametrize("key", ["zzzz", None, "a\nb", ("a", "b")])
def test_a_key_far_from_all_is_answered_with_the_list(key):
    message = refused({key: 1})
    assert repr(key) in message
    assert "turn_times" in message
    assert "did you mean" not in message


# -- bad values ----------------------------------------------------------------------------------------------------------------

SIMPLE = """
    samples=1 samples=2.5 samples=every repeats=0 shard_size=0 seed=-1 micro_batch=0 dtype=float16 data=digits data.path=3
    process.sigma_max=.inf process.sigma_min=0 process.kind=cosin scores=[] scores.0.kind=empirica
    scores.0.conditional=perhaps scores.1.shrinkage=foo turn_times.noise_to_signal=[] turn_times.count=0
    turn_times.noise_to_signal.min=-1 reverse.kind=hein reverse.steps=0 reverse.rho=0 reverse.clock=sun reverse.S_churn=-1
    reverse.S_noise=0 keep.pictures=-1 keep.trajectory=7 statistics.confidence=1 statistics.level=0 statistics.bootstrap=99
    statistics.tolerance=0
"""
BAD = [
    *((change, "{} = {!r}".format(*map(yaml.safe_load, change.split("=")))) for change in SIMPLE.split()),
    ("repeats=true", "repeats = True"),  # true is not a number of repeats
    ("seed=99999999999999999999", "seed = 99999999999999999999"),  # does not fit the archive's 64 bits
    ("data.scale=[0, x]", "data.scale.1 = 'x'"),
    ("data.scale=[0, .inf]", "data.scale.1 = inf"),
    ("process={kind: discrete_vp}", "exactly one of alphas_cumprod and scheduler"),
    ("process={kind: discrete_vp, alphas_cumprod: [0.5, x]}", "process.alphas_cumprod.1 = 'x'"),
    ("scores.0={}", "scores.0.kind"),
    ("scores.1={kind: mixture, components: 0}", "scores.1.components = 0 is not valid: input should be greater than or equal to 1"),
    ("turn_times={noise_to_signal: [1], count: 5}", "turn_times has noise_to_signal and count"),
    ("turn_times=often", "turn_times"),
    ("turn_times={time: [1], noise_to_signal: [1]}", "turn_times"),
    ("turn_times.noise_to_signal=[1, -1]", "turn_times.noise_to_signal.1 = -1"),
    ("turn_times.time=[.nan]", "turn_times.time.0 = nan"),
    ("turn_times.noise_to_signal={min: 1, max: 5}", "turn_times.noise_to_signal.count"),
]


@pytest.mark.parametrize(("change", "said"), BAD, ids=[change for change, _ in BAD])
def test_a_bad_value_is_one_sentence_with_its_key_and_value(change, said):
    assert said in refused(None, change)


@pytest.mark.parametrize("change", ["scores.0={}", "process.kind=[1]", "process.kind=null"])
def test_a_bad_kind_is_answered_with_the_kinds_there_are(change):
    message = refused(None, change)
    known = ("empirical", "gaussian", "mixture") if change.startswith("scores") else tuple(KINDS)
    assert all(kind in message for kind in known)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"[1, 2]", "list"),
        (b"samples: 8\nreverse: {steps: 4", "line 2"),
        (b"\x00", "not valid YAML"),
        (b"\xff\xfe\x00", "e.yaml"),  # not UTF-8
        (b"!!python/object/apply:os.system [true]", "not valid YAML"),
        (b"[" * 3000, "e.yaml"),
        (b"seed: &a [*a]", "seed"),
    ],
)
def test_a_file_that_is_no_experiment_is_refused(text, said, tmp_path):
    (tmp_path / "e.yaml").write_bytes(text)
    assert said in refused(tmp_path / "e.yaml")


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    assert "none.yaml" in refused(tmp_path / "none.yaml")
    assert str(tmp_path) in refused(tmp_path)


HUGE = [
    *(f"reverse.steps={value}" for value in (10**9, 10_001, 1e6)),
    *(f"turn_times.noise_to_signal={{min: 0.1, max: 20, count: {value}}}" for value in (2**31 - 1, 100_000, 1001)),
    "turn_times.time=[" + ", ".join(str(number + 1) for number in range(1001)) + "]",
    *(f"statistics.bootstrap={value}" for value in (100_001, 10**6, 2 * 10**7, 10**9)),
    *(f"classifier={{kind: svc, folds: {value}}}" for value in (10**9, 21)),
    *(f"chains.length={value}" for value in (10**9, 10_001)),
    *(f"statistics.confidence={value}" for value in (0.999999, 0.9999, 0.9996)),  # of 2000 resamples
    "statistics={confidence: 0.995, bootstrap: 100}",
]


@pytest.mark.parametrize("change", HUGE, ids=lambda change: change[:40])
def test_what_would_take_minutes_or_gigabytes_is_refused(change):
    said = refused(None, change)
    assert change.replace("={", ".").split("=")[0].split(".")[0] in said
    assert len(said) < 400


@pytest.mark.parametrize("count", [10**5, 10**9, 10**18])
@pytest.mark.parametrize("name", ["workers", "threads"])
def test_more_processes_or_threads_than_a_machine_can_start_are_refused(name, count, tmp_path):
    with pytest.raises(UserError, match=f"{name} = {count} .*: give at most"):
        gt.run(None, tmp_path / "a.nc", **{name: count})
    assert list(tmp_path.iterdir()) == []


def test_what_is_large_and_allowed_is_allowed():
    changes = ["reverse.steps=10000", "statistics={bootstrap: 100000, confidence: 0.99999}", "chains.length=10000"]
    assert Experiment.load(None, [*changes, "turn_times.count=1000"]).reverse.steps == 10_000


@pytest.mark.parametrize("name", ["a\x1b[31m", "a\u202eb", "a\x9bb", "a\x7f"])
def test_names_that_a_terminal_obeys_are_refused(name):
    assert "scores.0.name" in refused({"scores": [{"kind": "empirical", "name": name}]})
