"""Every kind of number is mapped to [-1, 1] and back, and every kind of label to 0..K-1."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from gaussian_test.data import load
from gaussian_test.data.formats.rows import ArrangedRows, JoinedRows, MemoryRows, as_images
from gaussian_test.data.values import choose_scaling, encode_labels


def saved(tmp_path, array, name="a.npy"):
    np.save(tmp_path / name, array)
    return tmp_path / name


@pytest.mark.parametrize("dtype", ["uint8", "<u2", ">u2"])
def test_unsigned_integers_map_from_their_type(dtype, tmp_path):
    top = np.iinfo(dtype).max
    raw = np.arange(top + 1, dtype=dtype)[1:-1].reshape(2, -1)
    truth = load(saved(tmp_path, raw))
    np.testing.assert_array_equal(truth.x.values, (raw / (top / 2) - 1).astype(np.float32))
    np.testing.assert_array_equal(np.rint((truth.x.values.astype(float) - truth.x.offset) / truth.x.scale), raw)
    assert load(saved(tmp_path, np.array([[0, top]] * 2, dtype))).x.values[0].tolist() == [-1, 1]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_floats_in_range_stay(dtype, tmp_path):
    raw = np.random.default_rng(0).uniform(-1, 1, (6, 4)).astype(dtype)
    raw[0, :2] = -1, 1
    truth = load(saved(tmp_path, raw))
    np.testing.assert_array_equal(truth.x.values, raw.astype(np.float32))
    assert (truth.x.scale, truth.x.offset) == (1, 0)
    assert truth.x.dims == ("sample", "feature")
    assert not {"label", "class_name"} & set(truth.variables)


@given(
    hnp.arrays(
        st.sampled_from([np.float64, np.float32, np.int64, np.int16, np.uint32]),
        (4, 3),
        elements={"min_value": 0, "max_value": 2**15 - 1},
    ).filter(lambda array: array.max() > 1 and array.max() - array.min() > 1e-3)
)
def test_other_numbers_map_from_their_extent_with_one_scale(raw):
    scaling = choose_scaling(MemoryRows(raw), "raw")
    x = scaling.apply(raw)
    assert (x.min(), x.max()) == (-1, 1)
    back = (x.astype(np.float64) - scaling.offset) / scaling.scale
    np.testing.assert_allclose(back, raw, atol=1e-7 * np.ptp(raw.astype(np.float64)), rtol=1e-12)


@pytest.mark.parametrize("start", [1e6, 1e9, -1e12, 1e13])
def test_rounding_never_leaves_the_interval(start):
    for seed in range(20):  # without a clip about half of these end beyond 1 when the start is large
        raw = start + np.random.default_rng(seed).uniform(0, 1, (50, 20))
        assert np.abs(choose_scaling(MemoryRows(raw), "raw").apply(raw)).max() <= 1


def test_value_range(tmp_path):
    raw = np.array([[0, 51], [102, 204]], np.int64)
    for held, top, half in ((raw, 255, 127.5), (raw.astype(np.uint8), 204, 102), (raw / 255, 1, 127.5)):
        x = load(saved(tmp_path, held), value_range=(0, top)).x
        np.testing.assert_allclose(x.values, raw / half - 1, rtol=0, atol=1e-7)
    np.testing.assert_array_equal(load("digits", value_range=(0, 32)).x.values, (load("digits").x.values - 1) / 2)


def test_grey_and_sixteen_bit_pictures(tmp_path):
    raw = np.random.default_rng(0).integers(0, 2**16, (3, 5, 7), dtype=np.uint16)
    for number, image in enumerate(raw):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    truth = load(tmp_path)
    assert truth.x.shape == (3, 1, 5, 7)
    assert "label" not in truth
    np.testing.assert_array_equal(truth.x.values[:, 0], (raw / 32767.5 - 1).astype(np.float32))


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ((9, 5), (9, 5)),
        ((9, 6, 5), (9, 1, 6, 5)),
        ((9, 3, 6, 5), (9, 3, 6, 5)),
        ((9, 6, 5, 1), (9, 1, 6, 5)),
        ((9, 6, 5, 4), (9, 4, 6, 5)),
        ((9, 3, 5, 3), (9, 3, 5, 3)),  # ambiguous: channels first
        ((9, 6, 5, 2), (9, 6, 5, 2)),
    ],
)
def test_layouts(stored, expected):
    raw = np.arange(np.prod(stored)).reshape(stored)
    rows = as_images(MemoryRows(raw))
    assert rows.shape == expected
    moved = len(stored) == 4 and stored != expected
    np.testing.assert_array_equal(rows.read(slice(None)), np.moveaxis(raw, 3, 1) if moved else raw.reshape(expected))


def test_named_dimensions_leave_nothing_to_guess(tmp_path):
    raw = np.random.default_rng(0).uniform(-1, 1, (5, 8, 9, 3))
    xr.DataArray(raw, dims=("sample", "channel", "row", "column"), name="x").to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    np.testing.assert_array_equal(load(tmp_path / "a.nc").x.values, raw.astype(np.float32))


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.lists(st.integers(0, 100), max_size=12))
def test_joined_rows_are_the_concatenation(lengths, wanted):
    raw = np.arange(sum(lengths) * 2).reshape(-1, 2)
    parts = [MemoryRows(part) for part in np.split(raw, np.cumsum(lengths)[:-1])]
    joined = JoinedRows([ArrangedRows(part, (2, 1)) for part in parts])
    indices = np.array(wanted, dtype=np.intp) % len(raw)
    np.testing.assert_array_equal(joined.read(indices)[..., 0], raw[indices])
    np.testing.assert_array_equal(joined.read(slice(1, None, 2))[..., 0], raw[1::2])


@pytest.mark.parametrize(
    ("raw", "values", "names"),
    [
        ([2, 0, 1], [2, 0, 1], ["0", "1", "2"]),
        ([7, -3, 7], [1, 0, 1], ["-3", "7"]),
        ([[2], [9], [5]], [0, 2, 1], ["2", "5", "9"]),
        ([1.0, 0.0, 1.0], [1, 0, 1], ["0", "1"]),
        *((np.array(["b", "a", "b"], dtype), [1, 0, 1], ["a", "b"]) for dtype in (str, bytes, object)),
        ([True, False, True], [1, 0, 1], ["False", "True"]),
        (np.array([3, 1, 3], np.uint8), [1, 0, 1], ["1", "3"]),
    ],
)
def test_labels_become_zero_to_k(raw, values, names):
    labels = encode_labels(raw, 3, "labels")
    assert labels.values.dtype == np.int64
    assert (labels.values.tolist(), list(labels.names)) == (values, names)


def test_known_names_keep_the_numbers(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.eye(2), label=[2, 0], class_name=["cat", "dog", "eel"])
    truth = load(tmp_path / "a.npz")
    assert truth.label.values.tolist() == [2, 0]
    assert truth.class_name.values.tolist() == ["cat", "dog", "eel"]


def test_string_labels_in_netcdf(tmp_path):
    data = xr.Dataset({"x": (("sample", "feature"), np.eye(3)), "label": ("sample", ["b", "a", "b"])})
    data.to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    truth = load(tmp_path / "a.nc")
    assert truth.class_name.values[truth.label.values].tolist() == ["b", "a", "b"]


def test_a_folder_called_digits_is_reached_by_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    for number in range(2):
        Image.new("L", (3, 2), number).save(tmp_path / "digits" / f"{number}.png")
    assert load("./digits").attrs["source"] == "folder"
    assert load("digits").attrs["source"] == "digits"
