"""Whatever is in a file of arrays is samples in [-1, 1] that the original can be had back from, or is refused in a sentence."""

import io
import re

import fuzz_strategies as given
import numpy as np
import pytest
import xarray as xr
from fuzz_cases import fuzz, sentence
from hypothesis import strategies as st

import gaussian_test as gt
from gaussian_test.data import DataError


def contract(path, original=None, **options):
    """Load samples that keep what the docstring of load promises; or be refused."""
    try:
        truth = gt.data.load(path, **options)
        x = truth["x"].values
    except (DataError, FileNotFoundError) as error:
        said = sentence(error)
        assert said.startswith((str(path), "'", "the labels", "labels", "key", "class_name"))
        return None
    assert x.dtype in (np.float32, np.float64)
    assert truth["x"].dims in (("sample", "feature"), ("sample", "channel", "row", "column"))
    assert x.size
    assert len(x) >= 2
    assert np.isfinite(x).all()
    low, high = truth["x"].attrs["valid_range"]
    assert low <= x.min() < x.max() <= high
    scale, offset = truth["x"].attrs["scale"], truth["x"].attrs["offset"]
    assert scale > 0
    assert np.isfinite([scale, offset]).all()
    np.testing.assert_array_equal(truth["x"][[1, 0]].values, x[[1, 0]])
    if "label" in truth:
        assert truth["label"].dtype == np.int64
        assert truth["label"].dims == ("sample",)
        assert truth["label"].min() >= 0
        assert np.isin(truth["label"], truth["class"]).all()
        assert truth["class_name"].dtype.kind == "U"
    if original is not None and original.ndim < 4:
        values = original.astype(np.float64).reshape(x.shape)
        steps = float(np.finfo(x.dtype).eps) * (max(abs(low), abs(high), 1) + abs(offset)) / scale
        np.testing.assert_allclose((x.astype(np.float64) - offset) / scale, values, rtol=1e-6, atol=2 * steps)
    return truth


def test_npy(tmp_path, long):
    def law(array):
        (tmp_path / "a.npy").write_bytes(given.saved(array))
        contract(tmp_path / "a.npy", array)

    fuzz(given.arrays(), law, 120, long)


def test_npz(tmp_path, long):
    def law(case):
        content, options = case
        (tmp_path / "a.npz").write_bytes(content)
        contract(tmp_path / "a.npz", **options)

    words = st.sampled_from([None, "x", "label", "y", "none", ""])
    fuzz(st.tuples(given.npz_files(), st.fixed_dictionaries({}, optional={"key": words, "labels": words})), law, 120, long)


def test_netcdf(tmp_path, long):
    names = ("sample", "channel", "row", "column", "more")

    def law(case):
        array, dims, label = case
        try:
            dataset = xr.Dataset({"x": (dims[: array.ndim], array)})
            if label is not None and array.ndim:
                dataset["label"] = (dims[:1], np.resize(label, len(array)))
            dataset.to_netcdf(tmp_path / "a.nc", engine="netcdf4")
        except (ValueError, TypeError, NotImplementedError, RuntimeError, OverflowError, AttributeError, UnicodeError):
            return  # types that NetCDF does not have
        contract(tmp_path / "a.nc")

    labels = st.sampled_from([None, np.arange(3), np.array(["b", "a"]), np.array([0.5]), np.array([np.nan]), np.array([True])])
    fuzz(st.tuples(given.arrays(), st.permutations(names), labels), law, 60, long)


def damaged(kind):
    """Return the content of a good file."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (6, 4)).astype(np.float32)
    if kind == "npy":
        return given.saved(x)
    stream = io.BytesIO()
    (np.savez if kind == "npz" else np.savez_compressed)(stream, x=x, label=np.arange(6) % 2, class_name=np.array(["a", "b"]))
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["npy", "npz", "compressed"])
def test_damaged_files(kind, tmp_path, long):
    content = damaged(kind)
    path = tmp_path / f"a.{kind if kind == 'npy' else 'npz'}"

    def law(damage):
        path.write_bytes(damage(content))
        truth = contract(path)
        if truth is not None and kind != "npy":  # a zip has checksums of its members
            assert truth["x"].shape == (6, 4)

    fuzz(given.damages(), law, 100, long)


@pytest.mark.parametrize("text", given.WORDS)
def test_names(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (text, f"{text}.npy", f"{text}.npz"):
        for options in ({}, {"source": text}, {"labels": text, "source": "file"}, {"key": text}, {"split": text}):
            if name != "digits":
                with pytest.raises((DataError, FileNotFoundError)) as error:
                    gt.data.load(name, **options)
                assert re.search(r"\S", str(error.value))
                assert len(str(error.value).splitlines()) == 1
