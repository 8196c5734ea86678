"""Every kind of number stays as it is or is scaled and back, and every class keeps its number or has a name."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from gaussian_test.data import load
from gaussian_test.data.formats.rows import ArrangedRows, JoinedRows, MemoryRows, as_images
from gaussian_test.data.values import encode_labels


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


def loaded(array, **options):
    x = load(array, **options).x
    np.testing.assert_allclose((x.values.astype(float) - x.offset) / x.scale, array, rtol=1e-6, atol=1e-6 * np.ptp(array / 1.0))
    low, high = x.attrs["valid_range"]
    assert low <= float(x.min()) <= float(x.max()) <= high
    return x


@pytest.mark.parametrize("dtype", ["float16", "f4", ">f8", "int8", "i2", "i8", "u4", "u8"])
@pytest.mark.parametrize("held", ["python", "file"])
def test_floats_and_other_whole_numbers_stay_as_they_are(dtype, held, tmp_path):
    raw = np.arange(24).reshape(6, 4).astype(dtype) * 5
    x = load(raw if held == "python" else saved(tmp_path, raw)).x
    np.testing.assert_array_equal(x.values, raw)
    assert (x.scale, x.offset, x.attrs["valid_range"]) == (1, 0, [0, 115])


@given(
    hnp.arrays(
        st.sampled_from([np.float64, np.float32, np.int64, np.int16, np.uint32, np.uint8]),
        (4, 3),
        elements={"min_value": 0, "max_value": 255},
    ).filter(lambda array: array.max() > 1 and np.ptp(array) > 1e-3)
)
def test_scales_are_what_they_say(raw):
    exact = raw.astype(float)
    assert np.ptp(loaded(raw, scale=(float(raw.min()), float(raw.max()))).values.astype(float)) == pytest.approx(2, abs=1e-6)
    x = loaded(raw, scale="unit", dtype="float64").values
    assert x.mean() == pytest.approx(0, abs=1e-9)
    assert x.var(0).mean() == pytest.approx(1)
    np.testing.assert_array_equal(load(raw, scale="none", dtype="float64").x.values, exact)


@pytest.mark.parametrize(
    ("raw", "scale", "offset"),
    [
        (np.array([[0.0, 0.25], [1, 0.5]]), 2, -1),
        (np.array([[-0.5, 0.25], [1, 0.5]]), 1, 0),
        (np.array([[0.0, 64], [255, 3]], "f4"), 2 / 255, -1),
        (np.array([[0, 64], [255, 3]], "i8"), 2 / 255, -1),
        (np.array([[0, 64], [25, 3]], "u1"), 2 / 255, -1),
        (np.array([[0, 64], [60000, 3]], "u2"), 2 / 65535, -1),
    ],
)
def test_pictures_are_recognised(raw, scale, offset):
    x = loaded(raw, scale="pictures")
    assert (x.scale, x.offset) == (pytest.approx(scale), offset)


@pytest.mark.parametrize("start", [1e6, 1e9, -1e12, 1e13])
def test_rounding_never_leaves_the_interval(start):
    for seed in range(20):
        raw = start + np.random.default_rng(seed).uniform(0, 1, (50, 20))
        for dtype in ("float32", "float64"):
            assert np.abs(load(raw, scale=(float(raw.min()), float(raw.max())), dtype=dtype).x.values).max() <= 1


@pytest.mark.parametrize(
    ("raw", "dtype"),
    [
        (1e6 + np.linspace(0, 1, 12).reshape(4, 3), "float64"),  # float32 would round it to sixteenths
        (1e200 * np.eye(3), "float64"),
        (1e6 * np.eye(3), "float32"),
        (1e-30 * np.eye(3), "float32"),
    ],
)
def test_values_that_single_precision_does_not_hold_are_double(raw, dtype):
    x = loaded(raw)
    assert x.dtype == dtype


def test_low_and_high_become_minus_one_and_one(tmp_path):
    raw = np.array([[0, 51], [102, 204]], np.int64)
    for held, top, half in ((raw, 255, 127.5), (raw.astype(np.uint8), 204, 102), (raw / 255, 1, 127.5), (raw, 102, 51)):
        x = load(saved(tmp_path, held), scale=(0, top)).x  # and what lies beyond goes on along the same line
        np.testing.assert_allclose(x.values, raw / half - 1, rtol=0, atol=1e-7)
    np.testing.assert_array_equal(load("digits", scale=(0, 32)).x.values, (load("digits").x.values - 1) / 2)
    with pytest.deprecated_call(match="write scale"):
        assert load("digits", value_range=(0, 32)).x.scale == 1 / 16


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
        ([2, 0, 1], [2, 0, 1], {0: "0", 1: "1", 2: "2"}),
        ([7, 3, 7], [7, 3, 7], {3: "3", 7: "7"}),
        ([7, -3, 7], [1, 0, 1], {0: "-3", 1: "7"}),  # no class of a network is negative
        ([7, 2 * 10**6, 7], [0, 1, 0], {0: "7", 1: "2000000"}),
        ([[2], [9], [5]], [2, 9, 5], {2: "2", 5: "5", 9: "9"}),
        ([1.0, 0.0, 4.0], [1, 0, 4], {0: "0", 1: "1", 4: "4"}),
        *((np.array(["b", "a", "b"], dtype), [1, 0, 1], {0: "a", 1: "b"}) for dtype in (str, bytes, object)),
        ([True, False, True], [1, 0, 1], {0: "False", 1: "True"}),
        (np.array([3, 1, 3], np.uint8), [3, 1, 3], {1: "1", 3: "3"}),
        (["10", "2", "0"], [10, 2, 0], {0: "0", 2: "2", 10: "10"}),
        (["02", "10", "02"], [2, 10, 2], {2: "02", 10: "10"}),
        (["2", "02", "x"], [1, 0, 2], {0: "02", 1: "2", 2: "x"}),
        (["2", "02", "1"], [2, 0, 1], {0: "02", 1: "1", 2: "2"}),  # one number, two classes
    ],
)
def test_classes_keep_their_numbers(raw, values, names):
    labels = encode_labels(raw, 3, "labels")
    assert labels.values.dtype == np.int64
    assert labels.values.tolist() == values
    truth = load(np.eye(3), labels=raw)
    assert dict(zip(truth["class"].values.tolist(), truth.class_name.values.tolist(), strict=True)) == names
    assert truth.label.values.tolist() == values


@pytest.mark.parametrize("folders", [range(12), range(3, 8, 4), [0, 100]])
def test_class_folders_that_are_numbers_keep_them(folders, tmp_path):
    for name in folders:
        (tmp_path / str(name)).mkdir()
        Image.new("L", (3, 2), 2 * name).save(tmp_path / str(name) / "0.png")
    truth = load(tmp_path)
    assert truth["class"].values.tolist() == list(folders)
    assert truth.class_name.values.tolist() == list(map(str, folders))
    np.testing.assert_array_equal(((truth.x[:, 0, 0, 0] + 1) * 127.5).round(), 2 * truth.label)


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
