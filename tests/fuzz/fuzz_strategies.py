"""What is thrown at the face: experiments, YAML, changes, arrays, and files with bytes that were not there before."""

import datetime
import decimal
import fractions
import io
import os
import pathlib
import types
import zlib
from typing import Annotated, Literal, Union, get_args, get_origin

import numpy as np
import xarray as xr
import yaml
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from gaussian_test.experiment.experiment import Experiment
from gaussian_test.experiment.processes import Arguments, Factory, Settings

# -- values of any kind --------------------------------------------------------------------------------------------------------

NUMBERS = [0, 1, 2, 3, 4, 5, -1, 2**31, 2**63 - 1, 2**63, 10**30, -(10**30), 0.0, -0.0, 0.5, 1.0, 1.5, 1e-300, 5e-324]
NUMBERS += [1e300, -1e300, float("nan"), float("inf"), float("-inf"), 1e16, 4.0, 0.95, 2.0]
WORDS = ["", " ", "auto", "all", "none", "digits", "kind", "yes", "null", "~", "1", "1e3", ".nan", "\n", "a\nb", "\0"]
WORDS += ["\ud800", "ν"]
WORDS += ["a/b", "..", "x" * 300, "0", "-1", "np:array", "os:system", "math:nan", "Traceback (most recent call last)", "\u2028"]


def bomb(levels=12):
    """Return lists that hold each other: a few lines of YAML, more values than any memory has room for."""
    value = ["lol"] * 10
    for _ in range(levels):
        value = [value] * 10
    return value


def deep(levels, inner="x"):
    for level in range(levels):
        inner = [inner] if level % 2 else {"a": inner}
    return inner


def circle():
    value = {"a": 1}
    value["b"] = value
    return value


plain = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(NUMBERS),
    st.integers(),
    st.floats(),
    st.sampled_from(WORDS),
    st.text(max_size=8),
    st.dates(),
    st.datetimes(),
    st.binary(max_size=6),
)
nested = st.recursive(
    plain,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.one_of(st.text(max_size=5), plain), inner, max_size=3)),
)
ODD = [np.float64(0.5), np.int64(4), np.arange(4.0), np.arange(4000.0).reshape(2, -1), np.array(["a"]), np.bool_(True)]
ODD += [decimal.Decimal("0.5"), fractions.Fraction(1, 3), 1j, {1, 2}, frozenset(), range(3), object(), int, len, b"\xff"]
ODD += [pathlib.Path("a"), datetime.timedelta(1), (0.5, 1.0), deep(40), deep(600), deep(3000), circle(), iter([1, 2]), "9" * 5000]
ESCAPES = ["\x1b]0;a\x07", "\x1b[31m", "a\rb", "\x9b2J", "a\u202eb", "\x7f", "../out", "/../../out", "..\\out", "\ufffe"]
WORDS += ESCAPES
BOMB = bomb()
odd = st.sampled_from([*ODD, BOMB])
junk = st.one_of(plain, nested, odd)

# -- experiments ---------------------------------------------------------------------------------------------------------------

positive = st.one_of(
    st.floats(1e-3, 1e2), st.floats(min_value=5e-324, allow_infinity=False, allow_nan=False), st.integers(1, 10**9)
)
HUGE = [1001, 10_001, 100_001, 10**6, 2 * 10**7, 10**9, 2**31 - 1, 10**20]
count = st.one_of(st.integers(1, 6), st.sampled_from(HUGE), st.integers(1, 10**20))
fraction = st.floats(0, 1, exclude_min=True, exclude_max=True)
flag = st.booleans()
optional_name = st.one_of(st.none(), st.text(min_size=1, max_size=6), st.sampled_from(WORDS))
arguments = st.one_of(st.just({}), st.dictionaries(st.text(max_size=4), nested, max_size=2))
factory = st.one_of(
    st.none(), st.sampled_from(["builtins:dict", "no.such.module:thing", "math:nothing", "bad", "a:b:c", "os:system"])
)


def keys(required=None, **optional):
    """Return dicts with the required keys and any of the others."""
    return st.fixed_dictionaries(required or {}, optional=optional)


def values_of(annotation):
    """Return values for a setting of some type: most are allowed, or nearly."""
    inner, origin = get_args(annotation), get_origin(annotation)
    if annotation is Factory:
        return factory
    if annotation is Arguments or origin is dict or annotation is dict:
        return arguments
    if origin is Annotated:
        return values_of(inner[0])
    if origin is Literal:
        return st.sampled_from(inner)
    if origin in (Union, types.UnionType):
        return st.one_of(*map(values_of, inner))
    if origin in (tuple, list):
        return st.lists(values_of(inner[0]), max_size=3)
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return settings(annotation)
    return ORDINARY.get(annotation, plain)


def settings(model):
    """Return dicts of the settings of a model; its kind is always given where it has one."""
    values = {name: values_of(field.rebuild_annotation()) for name, field in model.model_fields.items()}
    needed = {name: values.pop(name) for name, field in model.model_fields.items() if name == "kind" or field.is_required()}
    return keys(needed, **values)


ORDINARY = {
    bool: flag,
    int: st.one_of(st.integers(1, 8), st.integers(0, 300), st.integers(1, 10**20)),
    float: st.one_of(fraction, positive, st.floats(-2, 2)),
    str: optional_name,
    type(None): st.none(),
}
SECTIONS = {name: values_of(field.rebuild_annotation()) for name, field in Experiment.model_fields.items()}
process = SECTIONS["process"]


@st.composite
def spoilt(draw, values):
    """Put something of any kind in one place of a dict, or under a key that does not exist."""
    values = draw(values)
    place = values
    while True:
        name = draw(st.sampled_from(sorted(place, key=str)) if place and draw(st.integers(0, 7)) else plain)
        inner = place.get(name)
        if isinstance(inner, dict) and draw(st.booleans()):
            place[name] = place = dict(inner)
        elif isinstance(inner, list) and inner and isinstance(inner[0], dict) and draw(st.booleans()):
            place[name] = [dict(inner[0]), *inner[1:]]
            place = place[name][0]
        else:
            place[name] = draw(junk)
            return values


good_experiments = keys(**SECTIONS)
experiments = st.one_of(
    good_experiments, spoilt(good_experiments), spoilt(spoilt(good_experiments)), st.dictionaries(plain, junk, max_size=3)
)

# -- text ----------------------------------------------------------------------------------------------------------------------

SAMPLES = ["8", "!!python/object/apply:os.system ['true']", "!!binary aGVsbG8=", "!!binary a", "!!set {a, b}"]
SAMPLES += ["!!omap [a: 1]", "!!timestamp nothing", "!!int x", "!!float ''", "!local 3", "1e999", ".nan"]
SEEDS = ["2020-01-01", "2020-13-45", "12:30:45", "0x1F", "1_000", "0o17"]
SNIPPETS = [
    *(f"samples: {value}\n" for value in SAMPLES),
    *(f"seed: {value}\n" for value in SEEDS),
    "scores: [{kind: empirical}, {kind: gaussian}]\n",
    "scores: &s [{kind: empirical}]\nobservables: *s\n",
    "process: &p {kind: cosine}\nscores: [{kind: callable, factory: 'a:b', trained: *p}]\n",
    "reverse: {<<: {steps: 4}, kind: heun}\n",
    "reverse: &r\n  steps: 4\n  <<: *r\n",
    "keep: &k {pictures: *k}\n",
    "? [a, b]\n: c\n",
    "? {a: b}\n: c\n",
    "!!python/object/apply:os.system ['true']\n",
    "samples: " + "9" * 5000 + "\n",
    "%YAML 9.9\n---\nsamples: 8\n",
    "---\nsamples: 8\n---\nseed: 1\n",
    "--- |\n text\n",
    "- a list\n",
    "just text",
    "",
    "\ufeffsamples: 8\n",
    "samples: 8\nsamples: 9\n",
    "\tsamples: 8\n",
    "null: 3\n",
    "1: 3\n",
    "features: {kind: factory, factory: 'a:b', arguments: {when: 2020-01-01, what: !!binary aGVsbG8=, n: .nan}}\n",
    "classifier: {kind: factory, factory: 'a:b', arguments: &a {self: *a}}\n",
    'data: {path: "\\ud800"}\n',
    'data: {path: "a\\0b"}\n',
    "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
    "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n"
    "g: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nh: &h [*g,*g,*g,*g,*g,*g,*g,*g,*g]\nsamples: [*h,*h,*h,*h,*h,*h,*h,*h,*h]\n",
    "samples: " + "[" * 200 + "]" * 200 + "\n",
    "samples: " + "{a: " * 2000 + "\n",
]


def dumped(values):
    """Return values as YAML, or as python writes them where YAML cannot."""
    try:
        return yaml.safe_dump(values)
    except (yaml.YAMLError, RecursionError, UnicodeError, TypeError):
        return "samples: [" * 3


def insert(text, where, more):
    where %= len(text) + 1
    return text[:where] + more + text[where:]


yaml_values = st.dictionaries(st.sampled_from([*SECTIONS, "sampels"]), nested, max_size=3)
yaml_texts = st.one_of(
    st.sampled_from(SNIPPETS),
    st.lists(st.sampled_from(SNIPPETS), min_size=2, max_size=3).map("".join),
    st.one_of(good_experiments, yaml_values).map(dumped),
    st.text(max_size=60),
    st.builds(insert, good_experiments.map(dumped), st.integers(0, 10**4), st.text(max_size=3)),
)
FIELDS = [*SECTIONS, "steps", "kind", "0", "1", "-1", "9", "noise_to_signal", "time", "min", "name", "arguments", "", " "]
FIELDS += ["²", "9" * 5000]
paths = st.one_of(
    st.lists(st.sampled_from(FIELDS), min_size=1, max_size=4).map(".".join),
    st.sampled_from(["scores.0.kind", "scores.1.name", "turn_times.time", "turn_times.noise_to_signal.count", "reverse.steps"]),
    st.text(max_size=6),
)
known = st.sampled_from(sorted(SECTIONS)).flatmap(lambda name: st.tuples(st.just(name), SECTIONS[name].map(dumped)).map("=".join))
anything = st.one_of(st.sampled_from(SNIPPETS), plain.map(repr), plain.map(dumped), st.text(max_size=8))
changes = st.lists(st.one_of(known, known, st.tuples(paths, anything).map("=".join), st.text(max_size=8)), max_size=3)

# -- arrays --------------------------------------------------------------------------------------------------------------------

dtypes = st.one_of(
    st.sampled_from(["f2", "<f4", ">f4", "f8", ">f8", "u1", "u2", ">u2", "i1", "i2", "i8", ">i4", "u8", "g", "?", "c8", "c16"]),
    st.sampled_from(["S3", "U2", "M8[s]", "m8[D]", "V4", "S0", "U0", "V0"]),
    st.sampled_from([[("a", "f4"), ("b", "i2")], [("x", "f4", (2, 2))], [("a", "O")]]),
).map(np.dtype)
shapes = st.one_of(
    st.tuples(st.integers(2, 5), st.integers(1, 4)),
    st.tuples(st.integers(2, 4), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
    st.lists(st.integers(0, 4), max_size=5).map(tuple),
)
SPECIAL = [0.0, 1.0, -1.0, 0.5, 255.0, np.nan, np.inf, -np.inf, 1e300, -1e300, 1.7e308, -1.7e308, 5e-324, 1e-320, 1e38]
SPECIAL += [1 + 1e-12, 2**53]


@st.composite
def arrays(draw, dtype=dtypes, shape=shapes):
    """Return an array of any type, shape, order and values."""
    dtype, shape = draw(dtype), draw(shape)
    if dtype.hasobject:
        return np.zeros(shape, dtype)
    size = int(np.prod(shape))
    how = draw(st.sampled_from(["ordinary", "ordinary", "special", "constant", "bytes", "hypothesis"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    if dtype.kind in "fiub" and dtype.names is None:
        if how in ("special", "constant"):
            values = rng.choice(SPECIAL, size) if how == "special" else np.full(size, draw(st.sampled_from(SPECIAL)))
            if dtype.kind != "f":
                values = np.clip(np.nan_to_num(values), 0, 200)
            with np.errstate(all="ignore"):
                array = values.astype(dtype).reshape(shape)
        elif how == "hypothesis" and dtype.itemsize <= 8:
            array = draw(hnp.arrays(dtype, shape))
        elif how == "bytes":
            array = np.frombuffer(rng.bytes(size * dtype.itemsize), dtype).reshape(shape)
        else:
            array = (rng.uniform(0, 1, size) * draw(st.sampled_from([1, 100]))).astype(dtype).reshape(shape)
    elif size and dtype.itemsize:
        array = np.frombuffer(rng.bytes(size * dtype.itemsize), dtype).reshape(shape)
    else:
        array = np.zeros(shape, dtype)
    return np.asfortranarray(array) if draw(st.booleans()) else array


def saved(array):
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


@st.composite
def npz_files(draw):
    """Return the content of a .npz file."""
    names = st.sampled_from(["x", "images", "data", "label", "labels", "y", "class_name", "other", "a/b", ""])
    contents = {name: draw(arrays()) for name in draw(st.lists(names, max_size=4))}
    if "x" in contents and contents["x"].ndim and draw(st.booleans()):
        labels = st.sampled_from(["i8", "u1", "f4", "S2", "U3", "?", "M8[s]", "c8", "f2"]).map(np.dtype)
        contents["label"] = draw(arrays(labels, st.just(contents["x"].shape[:1])))
    stream = io.BytesIO()
    save = np.savez_compressed if draw(st.booleans()) else np.savez
    save(stream, **{name or "empty": array for name, array in contents.items()})
    return stream.getvalue()


# -- folders -------------------------------------------------------------------------------------------------------------------

PLACES = ["a", "b", "a/b", "."]
FILES = ["0.png", "1.png", "2.tif", "dataset.json", "x.npy", ".hidden.png", "\x1b[31m.png"]
CONTENTS = ["picture", "picture", "picture", "other size", "postscript", "bomb", "brackets", "noise", "empty", "pipe"]
TARGETS = ["..", ".", "../..", "a", "b", "../b", "../a/b", "0.png", "../a/0.png", "nowhere", "../../outside"]
NAMES = ["up", "link", "link.png", "c"]
links = st.tuples(st.sampled_from(PLACES), st.sampled_from(NAMES), st.sampled_from(TARGETS).map("->".__add__))
entries = st.tuples(st.sampled_from(PLACES), st.sampled_from(FILES), st.sampled_from(CONTENTS))
folder_entries = st.lists(st.one_of(entries, links), min_size=1, max_size=9)


def picture(size=(4, 4)):
    stream = io.BytesIO()
    Image.effect_noise(size, 50).save(stream, "PNG")
    return stream.getvalue()


def bomb_picture():
    """Return a PNG whose header claims more than any test may take."""
    content = bytearray(picture())
    content[16:24] = (30_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


HELD = {
    "picture": picture(),
    "other size": picture((5, 4)),
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\nshowpage\n",
    "bomb": bomb_picture(),
    "brackets": b"[" * 200_000,
    "noise": bytes(range(256)),
    "empty": b"",
}


def lay_out(folder, content):
    """Make a folder of pictures, links and named pipes."""
    for place, name, what in content:
        path = folder / place / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError:  # a link is there
            continue
        if os.path.lexists(path):
            continue
        if what.startswith("->"):
            path.symlink_to(what[2:])
        elif what == "pipe":
            os.mkfifo(path)
        else:
            path.write_bytes(HELD[what])


# -- bytes ---------------------------------------------------------------------------------------------------------------------


@st.composite
def damages(draw, most=3):
    """Return a function that changes some bytes: flip, overwrite, delete, insert, duplicate, swap, truncate, append."""
    kinds = st.sampled_from(["flip", "overwrite", "delete", "insert", "duplicate", "swap", "truncate", "append", "number"])
    places, lengths = st.floats(0, 1, exclude_max=True), st.one_of(st.integers(1, 8), st.integers(1, 600))
    step = st.tuples(kinds, places, places, lengths, st.binary(min_size=1, max_size=8))
    steps = draw(st.lists(step, min_size=1, max_size=most))

    def damage(content):
        data = bytearray(content)
        for kind, where, other, length, filling in steps:
            at, to = int(where * len(data)), int(other * len(data))
            if kind == "flip" and data:
                data[at] ^= 1 << (length % 8)
            elif kind == "overwrite":
                run = (filling * length)[: min(length, len(data) - at)]
                data[at : at + len(run)] = run
            elif kind == "delete":
                del data[at : at + length]
            elif kind == "insert":
                data[at:at] = filling
            elif kind == "duplicate":
                data[at:at] = data[to : to + length]
            elif kind == "swap":
                data[at : at + length], data[to : to + length] = data[to : to + length], data[at : at + length]
            elif kind == "truncate":
                del data[at:]
            elif kind == "append":
                data += filling * length
            elif kind == "number":  # a field of four or eight bytes with an extreme value
                data[at : at + 4 + 4 * (length % 2)] = (b"\xff" if length % 3 else b"\0") * (4 + 4 * (length % 2))
        return bytes(data)

    damage.__qualname__ = f"damage({steps})"
    return damage


# -- small experiments that are run, and their ground truth --------------------------------------------------------------------

share = st.floats(1e-6, 1 - 1e-6)  # nearer to 0 there is a bug that is reported, see test_fuzz_regressions.py
ratio = st.one_of(st.floats(0.05, 20), st.floats(0.05, 20), st.floats(0.05, 20), positive)
few_levels = st.one_of(
    st.lists(ratio, min_size=1, max_size=3),
    keys({"min": st.floats(0.05, 1), "max": st.floats(0.5, 20), "count": st.integers(1, 3)}),
)
sane_process = st.one_of(
    st.sampled_from(
        [{"kind": kind} for kind in ("variance_exploding", "ornstein_uhlenbeck", "variance_preserving", "cosine", "rectified")]
    ),
    st.just({"kind": "discrete_vp", "alphas_cumprod": [0.99, 0.9, 0.5, 0.1, 0.01]}),
)
small_score = st.one_of(
    keys({"kind": st.just("empirical")}, conditional=flag),
    keys(
        {"kind": st.just("gaussian")},
        conditional=flag,
        shrinkage=st.sampled_from([None, "ledoit_wolf", "oas", 0.0, 0.1, 1.0, -0.1, 1.1]),
    ),
    keys({"kind": st.just("mixture")}, conditional=flag, components=st.one_of(st.just("classes"), st.integers(1, 9))),
)
small_experiments = keys(
    {
        "turn_times": st.one_of(
            st.just({"noise_to_signal": [0.3, 2.0]}), keys({"noise_to_signal": few_levels}), keys({"time": few_levels})
        ),
        "samples": st.one_of(st.integers(4, 6), st.just("all")),
    },
    process=st.one_of(sane_process, sane_process, process),
    scores=st.lists(small_score, min_size=1, max_size=3),
    start=SECTIONS["start"],
    reverse=keys(
        {"steps": st.integers(1, 5)},
        kind=st.sampled_from(["auto", "exact", "sde", "exponential_sde", "euler", "heun", "edm", "ancestral"]),
        grid=st.sampled_from(["turn_times", "process"]),
        rho=st.floats(0.1, 1000),
        clock=st.sampled_from(["time", "variance"]),
        S_churn=st.floats(0, 100),
        S_min=st.floats(0, 10),
        S_max=positive,
        S_noise=st.one_of(st.floats(0.9, 1.1), positive),
    ),
    repeats=st.integers(1, 2),
    shard_size=st.one_of(st.integers(1, 6), st.just(2**31 - 1)),
    seed=st.one_of(st.integers(0, 9), st.integers(0, 2**63 - 1)),
    micro_batch=st.one_of(st.integers(1, 8), st.just(2**31 - 1)),
    dtype=SECTIONS["dtype"],
    observables=SECTIONS["observables"],
    features=keys(kind=st.sampled_from(["pca", "pixels"]), components=count),
    classifier=keys(
        kind=st.sampled_from(["nearest", "nearest", "knn", "svc"]), neighbors=st.integers(1, 9), folds=st.integers(2, 4)
    ),
    chains=keys({"length": st.integers(1, 3), "turn_times": st.integers(1, 3)}),
    end_points=st.integers(4, 9),
    keep=keys(
        pictures=st.integers(1, 9),
        trajectory=st.one_of(flag, st.lists(st.floats(0, 100), min_size=1, max_size=3)),
        eigenvectors=flag,
        end_points=flag,
    ),
)
statistics = keys(
    {"bootstrap": st.just(100)},
    confidence=st.one_of(st.floats(1e-6, 1 - 1e-6), st.floats(0.5, 0.99)),
    level=share,
    memorization_level=st.one_of(st.none(), share),
    speciation_level=st.one_of(st.none(), share),
    tolerance=positive,
    memorization=st.sampled_from(["own", "any"]),
    speciation=st.sampled_from(["retention", "same"]),
    affine=st.sampled_from(["one_shot", "uturn"]),
)
small_experiments = st.builds(lambda settings, more: {**settings, "statistics": more}, small_experiments, statistics)


@st.composite
def truths(draw):
    """Return a small ground truth: of full or low rank, with repeated samples, with and without classes."""
    size = draw(st.one_of(st.integers(6, 12), st.integers(4, 12)))
    dims, event = draw(
        st.sampled_from(
            [(("feature",), (1,)), (("feature",), (3,)), (("feature",), (9,)), (("channel", "row", "column"), (1, 2, 2))]
        )
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = rng.uniform(-1, 1, (size, *event))
    how = draw(st.sampled_from(["plain", "plain", "plain", "repeated", "twins", "two", "flat", "one feature", "tiny", "binary"]))
    if how == "repeated":
        values[1::2] = values[0]
    elif how == "twins":
        values[1::2] = values[: 2 * (size // 2) : 2]
    elif how == "two":
        values[:] = values[0]
        values[-1] = -values[0]
    elif how == "flat":
        values.reshape(size, -1)[:, -1] = 0.25
    elif how == "one feature":
        values.reshape(size, -1)[:, 1:] = 0
    elif how == "tiny":
        values *= 1e-6
    elif how == "binary":
        values = np.sign(values)
    truth = xr.Dataset({"x": (("sample", *dims), values.astype(np.float32))})
    labels = draw(st.sampled_from(["none", "some", "one", "each", "rare"]))
    if labels != "none":
        number = {"some": np.arange(size) % 2, "one": np.zeros(size), "each": np.arange(size), "rare": np.arange(size) == 0}[labels]
        truth["label"] = ("sample", number.astype(np.int64))
    return truth


@st.composite
def wrong_truths(draw):
    """Return what may be given for a ground truth, and is none, or hardly."""
    truth = draw(truths())
    x = truth["x"]
    dtype, shape = draw(dtypes), draw(shapes)
    dims = tuple("abcdefg"[: len(shape)])
    if dtype.hasobject or dtype.itemsize == 0:
        dtype = np.dtype("f4")
    array = draw(arrays(st.just(dtype), st.just(shape)))
    named = ("sample", "channel", "row", "column", "more")[: len(shape)]
    label = np.resize(array, len(x))
    build = draw(
        st.sampled_from(
            [
                lambda: None,
                lambda: x,
                lambda: x.values,
                lambda: {"x": x.values},
                lambda: xr.Dataset(),
                lambda: truth.drop_vars("x").assign(y=x),
                lambda: truth.rename(sample="samples"),
                lambda: truth.transpose(..., "sample"),
                *(lambda size=size: truth.isel(sample=slice(0, size)) for size in (1, 0, 3)),
                lambda: truth.assign(x=x * np.float32(100)),
                lambda: truth.assign(x=x.where(x < 0)),
                lambda: truth.assign(x=x * np.float32(np.inf)),
                lambda: truth.assign(x=x * 0),
                *(lambda kind=kind: truth.assign(x=x.astype(kind)) for kind in ("f2", ">f4", "f8", "c8", "i4", str, object)),
                lambda: truth.assign(x=x > 0),
                lambda: truth.assign(x=x.copy(data=np.asfortranarray(x.values))),
                lambda: truth.assign(x=x.isel(sample=slice(None, None, -1))),
                lambda: truth.assign_coords(sample=[f"s{n}" for n in range(len(x))]),
                lambda: truth.assign_coords(sample=np.zeros(len(x))),
                lambda: truth.assign(label=("sample", label)),
                *(lambda one=one: truth.assign(label=("sample", np.full(len(x), one))) for one in (np.nan, -1, 2**62)),
                lambda: truth.assign(label=("sample", [f"c{n}" for n in range(len(x))])),
                lambda: truth.assign(label=("other", [0, 1])),
                lambda: truth.assign(label=3),
                lambda: truth.assign(class_name=("class", ["a"])),
                lambda: xr.Dataset({"x": (named, array)}),
                lambda: xr.Dataset({"x": (dims, array)}),
                lambda: (
                    xr.Dataset({"x": (named, array), "label": (named[:1], array.reshape(len(array), -1)[:, 0])})
                    if array.size and array.ndim
                    else xr.Dataset({"x": 1.0})
                ),
            ]
        )
    )
    with np.errstate(all="ignore"):
        try:
            return build()
        except (ValueError, TypeError, OverflowError):  # types that numpy does not turn into each other
            return truth.drop_vars("x")
