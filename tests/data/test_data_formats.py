"""What a format says of its values holds: CF attributes, orientation, transparency, names of classes."""

import io
import json
import sys
import zipfile

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from gaussian_test.data import load
from gaussian_test.data.formats.variables import Coding
from gaussian_test.locks import NETCDF_LOCK

RANDOM = np.random.default_rng(5)
FLOATS = RANDOM.uniform(-1, 1, (17, 5))
FIELD = RANDOM.uniform(-0.9, 0.9, (6, 4, 5))
BYTES = RANDOM.integers(0, 250, (6, 4, 5), dtype=np.uint8)
HOLED = BYTES.copy()
HOLED[3, 1, 2] = 255


def library(name):
    return pytest.importorskip(name, reason=f"{name} is an optional part")


def array(truth):
    """Return the values in the file, from what was scaled in double precision."""
    return (truth.x.values - truth.x.attrs["offset"]) / truth.x.attrs["scale"]


# -- the same numbers ----------------------------------------------------------------------------------------------------------


def columns():
    return {f"c{number}": FLOATS[:, number] for number in range(5)}


def text(path, separator=",", header="", label=False):
    lines = [
        separator.join(repr(float(value)) for value in row) + (f"{separator}{n % 3}" if label else "")
        for n, row in enumerate(FLOATS)
    ]
    path.write_text("\n".join([header] * bool(header) + lines) + "\n")


def hdf5(path):
    with library("h5py").File(path, "w") as file:
        file["numbers"] = FLOATS


def parquet(path, **arrays):
    library("pyarrow.parquet").write_table(library("pyarrow").table(arrays), path, row_group_size=6)


def feather(path, **options):
    library("pyarrow.feather").write_feather(library("pyarrow").table(columns()), path, chunksize=4, **options)


def stream(path):
    pa = library("pyarrow")
    held = pa.table({"v": pa.FixedSizeListArray.from_arrays(FLOATS.ravel(), 5)})
    with pa.ipc.new_stream(path, held.schema) as file:
        file.write_table(held, max_chunksize=3)


def idx(path, values, code):
    lengths = np.array(values.shape, ">u4").tobytes()
    path.write_bytes(bytes([0, 0, code, values.ndim]) + lengths + values.astype(values.dtype.newbyteorder(">")).tobytes())


NUMBERS = {
    "x.npy": lambda path: np.save(path, FLOATS),
    "x.npz": lambda path: np.savez(path, some=FLOATS),
    "x.nc": lambda path: xr.Dataset({"t": (("time", "station"), FLOATS)}).to_netcdf(path, engine="netcdf4"),
    "x.idx": lambda path: idx(path, FLOATS, 14),
    "x.h5": hdf5,
    "2.zarr": lambda path: library("zarr").save_array(path, FLOATS, zarr_format=2),
    "3.zarr": lambda path: library("zarr").save_array(path, FLOATS, zarr_format=3),
    "columns.parquet": lambda path: parquet(path, **columns()),
    "lists.parquet": lambda path: parquet(path, v=FLOATS.tolist(), note=["a"] * 17),
    "lz4.feather": feather,
    "zstd.arrow": lambda path: feather(path, compression="zstd"),
    "stream.arrow": stream,
    "x.csv": lambda path: text(path),
    "header.csv": lambda path: text(path, ";", "a;b;c;d;e;class", label=True),
    "x.tsv": lambda path: text(path, "\t", "a\tb\tc\td\tlast"),
    "blanks.csv": lambda path: text(path, "  "),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_the_same_numbers_from_every_format(name, tmp_path):
    """Bit for bit, read whole, sliced and by index, from the file and in memory."""
    NUMBERS[name](tmp_path / name)
    x = load(tmp_path / name, dtype="float64").x
    for one in (x, x.copy(deep=True).load()):
        np.testing.assert_array_equal(one.values, FLOATS)
        np.testing.assert_array_equal(one[3:14:4].values, FLOATS[3:14:4])
        np.testing.assert_array_equal(one[[16, 2, 2, 9], 1:].values, FLOATS[[16, 2, 2, 9], 1:])
    np.testing.assert_array_equal(load(tmp_path / name).x.values, FLOATS.astype(np.float32))


@pytest.mark.parametrize(("code", "kind"), {9: "i1", 11: "i2", 12: "i4", 13: "f4"}.items())
def test_idx_of_every_type(code, kind, tmp_path):
    values = (FIELD * 100).astype(kind)
    idx(tmp_path / "some-images.idx3-ubyte", values, code)
    np.testing.assert_allclose(
        array(load(tmp_path / "some-images.idx3-ubyte", dtype="float64"))[:, 0], values, rtol=1e-13, atol=1e-13
    )


def test_source_file_goes_by_the_ending(tmp_path):
    text(tmp_path / "x.csv")
    np.testing.assert_array_equal(load(tmp_path / "x.csv", source="file", dtype="float64").x.values, FLOATS)


# -- labels --------------------------------------------------------------------------------------------------------------------


def test_cifar100_has_fine_and_coarse_labels(tmp_path):
    (tmp_path / "train.bin").write_bytes(b"".join(bytes([number, 99 - number]) + bytes([number] * 3072) for number in range(5)))
    (tmp_path / "coarse_label_names.txt").write_text("\n".join(f"c{number}" for number in range(20)))
    assert load(tmp_path).label.values.tolist() == [99, 98, 97, 96, 95]
    coarse = load(tmp_path, labels="coarse")
    assert coarse.class_name.values[coarse.label.values].tolist() == ["c0", "c1", "c2", "c3", "c4"]
    assert load(tmp_path, labels=[1, 0, 1, 0, 1]).label.values.tolist() == [1, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("lines", "features", "classes"),
    [
        ("a,label\n1,cat\n2,dog\n", 1, ["cat", "dog"]),
        ("Y,a,b\n0,5,6\n1,7,8\n", 2, ["0", "1"]),
        ("x,y\n1,2\n3,4\n", 2, None),  # coordinates
        ("x,y,target\n1,2,0\n3,4,1\n", 2, ["0", "1"]),
        (",a,b\n0,1,2\n1,3,4\n", 2, None),  # the index of pandas
        ("1,2\n3,4\n", 2, None),
        ("\ufeffa b\n1 2\n3 4\n", 2, None),
    ],
)
def test_a_column_of_labels_goes_by_its_name(lines, features, classes, tmp_path):
    (tmp_path / "x.csv").write_text(lines, encoding="utf-8")
    truth = load(tmp_path / "x.csv")
    assert dict(truth.x.sizes) == {"sample": 2, "feature": features}
    assert ("label" in truth) == (classes is not None)
    assert classes is None or truth.class_name.values.tolist() == classes


def test_classes_of_hugging_face_have_their_names(tmp_path):
    pa, pq = library("pyarrow"), library("pyarrow.parquet")
    about = {"info": {"features": {"label": {"names": ["cat", "dog", "owl"], "_type": "ClassLabel"}}}}
    held = pa.table({"pixel_values": FLOATS.tolist(), "label": np.arange(17) % 2}).replace_schema_metadata(
        {"huggingface": json.dumps(about)}
    )
    pq.write_table(held, tmp_path / "x.parquet")
    truth = load(tmp_path / "x.parquet")
    assert truth.class_name.values[truth.label.values[:2]].tolist() == ["cat", "dog"]


def test_text_labels_and_names_in_hdf5_and_zarr(tmp_path):
    names = ["cat", "dog"] * 8 + ["owl"]
    with library("h5py").File(tmp_path / "x.h5", "w") as file:
        file["x"], file["label"] = FLOATS, names
    assert load(tmp_path / "x.h5").class_name.values.tolist() == ["cat", "dog", "owl"]
    library("zarr")
    xr.Dataset(
        {"x": (("sample", "f"), FLOATS), "label": ("sample", np.arange(17) % 2), "class_name": ("class", ["a", "b"])}
    ).to_zarr(tmp_path / "x.zarr", zarr_format=2)
    assert load(tmp_path / "x.zarr").class_name.values.tolist() == ["a", "b"]


# -- fields and CF -------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["nc", "zarr"])
def written(request, tmp_path):
    """Return a function that writes a dataset and gives its path."""

    def write(**variables):
        dataset = xr.Dataset(variables, {"time": np.arange(6), "y": np.arange(4.0), "x": np.arange(5.0)})
        if request.param == "nc":
            dataset.to_netcdf(tmp_path / "t.nc", engine="netcdf4")
        else:
            library("zarr")
            dataset.to_zarr(tmp_path / "t.zarr", zarr_format=2)
        return tmp_path / f"t.{request.param}"

    return write


TYX = ("time", "y", "x")


@pytest.mark.parametrize(
    ("dims", "values", "shape"),
    [
        (TYX, FIELD, (6, 1, 4, 5)),
        (("y", "x", "time"), FIELD.transpose(1, 2, 0), (6, 1, 4, 5)),
        (("member", *TYX), np.stack([FIELD, -FIELD]), (12, 1, 4, 5)),
        (("time", "level", "y", "x"), np.stack([FIELD, -FIELD], 1), (6, 2, 4, 5)),
        (("time", "y", "x", "band"), np.stack([FIELD, -FIELD], -1), (6, 2, 4, 5)),
        (("time", "station"), FIELD[:, 0], (6, 5)),
        (("sample", "time"), FIELD[:4, 0, 0].repeat(6).reshape(4, 6) + np.arange(6) / 99, (4, 6)),
        (("member", "time", "station"), np.stack([FIELD[:, 0]] * 2), (12, 5)),
    ],
)
def test_fields_over_coordinates_need_no_key(dims, values, shape, written):
    path = written(T=(dims, values))
    x = load(path, dtype="float64").x
    assert x.shape == shape
    order = [dims.index(dim) for dim in ("member", "time", "level", "band", "y", "x") if dim in dims]
    expected = np.transpose(values, order) if len(order) == len(dims) else values
    np.testing.assert_array_equal(x.values, expected.reshape(shape))
    np.testing.assert_array_equal(x[[3, 0, 3]].values, expected.reshape(shape)[[3, 0, 3]])
    np.testing.assert_array_equal(x[1:4:2].values, expected.reshape(shape)[1:4:2])


def test_coordinates_are_never_the_samples(written):
    path = written(T=(TYX, FIELD, {"coordinates": "lat"}), lat=(("y", "x"), FIELD[0]))
    assert load(path).x.shape == (6, 1, 4, 5)
    for key in ("x", "lat"):
        with pytest.raises(ValueError, match=f"'{key}' in .* is a coordinate"):
            load(path, key=key)


PACKED = (FIELD * 1000).round().astype("i2")
SCALE = {"scale_factor": np.float64(0.001), "add_offset": np.float64(0.01)}


@pytest.mark.parametrize(
    ("values", "attributes", "expected"),
    [
        (BYTES, {"_FillValue": np.uint8(255)}, BYTES),  # stays bytes
        (BYTES, {"missing_value": np.array([251, 255], "u1")}, BYTES),
        (BYTES.view("i1"), {"_Unsigned": "true"}, BYTES),
        (HOLED.view("i1"), {"_Unsigned": "true", "valid_range": np.array([0, -1], "i1")}, HOLED),
        (BYTES, {"valid_range": np.array([0, 250], "u1"), "missing_value": -999.0}, BYTES),
        (PACKED, SCALE, PACKED * 0.001 + 0.01),
        (PACKED, SCALE | {"_FillValue": np.int16(-9999), "valid_min": np.float64(-0.9)}, PACKED * 0.001 + 0.01),
    ],
)
def test_values_are_what_cf_says(values, attributes, expected, written):
    truth = load(written(T=(TYX, values, attributes)), dtype="float64")
    assert (truth.x.attrs["scale"] == 1 / 127.5) == (expected.dtype == np.uint8)
    np.testing.assert_allclose(array(truth)[:, 0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("values", "attributes", "said"),
    [
        (HOLED, {"_FillValue": np.uint8(255)}, r"_FillValue = 255"),
        (HOLED, {"missing_value": np.array([251, 255], "u1")}, r"missing_value = \[251, 255\]"),
        (HOLED, {"valid_range": np.array([0, 250], "u1")}, r"valid_range = \[0, 250\]"),
        (HOLED, {"valid_max": np.uint8(254)}, "valid_max = 254"),
        (HOLED.view("i1"), {"_Unsigned": "true", "_FillValue": np.int8(-1)}, "_FillValue = -1"),
        (np.where(HOLED == 255, -9999, PACKED).astype("i2"), SCALE | {"_FillValue": np.int16(-9999)}, "_FillValue = -9999"),
        (np.where(HOLED == 255, -9999, PACKED).astype("i2"), SCALE | {"valid_min": np.float64(-1.5)}, "valid_min = -1.5"),
        (np.where(HOLED == 255, np.float32(-999.9), np.float32(FIELD)), {"missing_value": -999.9}, "missing_value = -999.9"),
        (np.where(HOLED == 255, np.nan, FIELD), {}, "nan"),
    ],
)
def test_a_masked_value_is_refused_by_name_and_sample(values, attributes, said, written):
    with pytest.raises(ValueError, match=rf"'T' in .* has a missing value \(.*{said}\), the first in sample 3:"):
        load(written(T=(TYX, values, attributes)))


def test_a_mask_far_into_bytes_is_found_before_any_work(tmp_path):
    values = np.zeros((300, 256, 256), np.uint8)  # of bytes, no more is scanned than the first 16 MB
    values[0, 0, 0], values[299, 9, 9] = 1, 255
    xr.Dataset({"T": (TYX, values, {"_FillValue": np.uint8(255)})}).to_netcdf(tmp_path / "t.nc", engine="netcdf4")
    with pytest.raises(ValueError, match="first in sample 299"):
        load(tmp_path / "t.nc")


def test_what_was_never_written_is_missing(tmp_path):
    import netCDF4

    with netCDF4.Dataset(tmp_path / "t.nc", "w") as file:
        file.createDimension("time", 4)
        file.createDimension("s", 3)
        file.createVariable("T", "f4", ("time", "s"))[:2] = FIELD[0, :2, :3]
    with pytest.raises(ValueError, match="first in sample 2"):
        load(tmp_path / "t.nc")


@pytest.mark.parametrize("attributes", [{"scale_factor": "a"}, {"valid_min": "0"}, {"_FillValue": "none"}])
def test_an_attribute_that_is_no_number_is_refused(attributes):
    with pytest.raises(ValueError, match=f"has {next(iter(attributes))} = .*: expected a number"):
        Coding(attributes, np.dtype("i2"), "t")


# -- pictures ------------------------------------------------------------------------------------------------------------------


def encode(image, kind="PNG", **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def drawn(mode="RGB"):
    return Image.fromarray(RANDOM.integers(0, 256, (4, 5, 3), dtype=np.uint8)).convert(mode)


def channels(image):
    values = np.asarray(image)
    return values[np.newaxis] if values.ndim == 2 else np.moveaxis(values, -1, 0)


def pictures(folder, *contents, suffix="png"):
    for number, content in enumerate(contents):
        (folder / f"{number}.{suffix}").write_bytes(content)
    return folder


@pytest.mark.parametrize("kind", ["png", "tiff", "webp", "jpeg"])
@pytest.mark.parametrize("orientation", [2, 3, 5, 6, 8])
def test_pictures_are_turned_as_exif_says(kind, orientation, tmp_path):
    T = Image.Transpose
    turn = {2: T.FLIP_LEFT_RIGHT, 3: T.ROTATE_180, 5: T.TRANSPOSE, 6: T.ROTATE_270, 8: T.ROTATE_90}[orientation]
    exif = Image.Exif()
    exif[0x112] = orientation
    options = {"webp": {"lossless": True}}.get(kind, {})
    images = [drawn(), drawn()]
    stored = [encode(image, kind, exif=exif, **options) for image in images]
    x = load(pictures(tmp_path, *stored, suffix=kind), dtype="float64")
    plain = [Image.open(io.BytesIO(encode(image, kind, **options))) for image in images]  # JPEG loses some
    np.testing.assert_allclose(array(x), [channels(image.transpose(turn)) for image in plain], atol=1e-9)


def layered(image, alpha):
    image = image.convert("LA" if image.mode == "L" else "RGBA")
    image.putalpha(alpha)
    return image


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_alpha_is_dropped_if_opaque_and_flattened_if_asked(mode, tmp_path):
    images = [drawn(mode), drawn(mode)]
    stored = [encode(layered(images[0], 255)), encode(images[1])]
    np.testing.assert_allclose(array(load(pictures(tmp_path, *stored), dtype="float64")), [channels(image) for image in images])
    pictures(tmp_path, encode(layered(images[0], 51)), stored[1])
    with pytest.raises(ValueError, match=r"0\.png is transparent .* alpha='white' or 'black'"):
        load(tmp_path)
    for ground, level in {"white": 255, "black": 0}.items():
        flat = array(load(tmp_path, alpha=ground, dtype="float64"))
        np.testing.assert_allclose(flat[0], 0.2 * channels(images[0]) + 0.8 * level, atol=1)
        np.testing.assert_allclose(flat[1], channels(images[1]))


def test_a_transparent_colour_is_transparent(tmp_path):
    image = drawn()
    image.putpixel((1, 2), (9, 9, 9))
    pictures(tmp_path, encode(image, transparency=(9, 9, 9)), encode(drawn()))
    with pytest.raises(ValueError, match=r"0\.png is transparent"):
        load(tmp_path)
    assert load(tmp_path, alpha="white").x.values[0, :, 2, 1].tolist() == [1] * 3


@pytest.mark.parametrize(
    ("image", "mode"), [(drawn().quantize(7), "RGB"), (drawn("P"), "RGB"), (drawn("1"), "L"), (drawn("L"), "L"), (drawn("LA"), "L")]
)
def test_palettes_and_bits_are_decoded(image, mode, tmp_path):
    x = load(pictures(tmp_path, encode(image), encode(drawn(mode))), dtype="float64")
    np.testing.assert_allclose(array(x)[0], channels(image.convert(mode)), atol=1e-9)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "big-endian TIFF"])
def test_sixteen_bits_are_kept(kind, tmp_path):
    values = RANDOM.integers(0, 2**16, (2, 4, 5), dtype=np.uint16)
    if kind.startswith("big"):
        images = [Image.frombytes("I;16B", (5, 4), one.astype(">u2").tobytes()) for one in values]
    else:
        images = [Image.fromarray(one) for one in values]
    truth = load(pictures(tmp_path, *(encode(image, kind.split()[-1]) for image in images)), dtype="float64")
    assert truth.x.attrs["scale"] == pytest.approx(2 / 65535)
    np.testing.assert_allclose(array(truth)[:, 0], values, atol=1e-6)


def test_floats_in_tiff_are_kept(tmp_path):
    values = FIELD[:2].astype(np.float32)
    truth = load(pictures(tmp_path, *(encode(Image.fromarray(one), "TIFF") for one in values), suffix="tif"))
    np.testing.assert_array_equal(truth.x.values[:, 0], values)


A, B = encode(drawn()), encode(drawn())
INDEX = json.dumps({"labels": [["0/a.png", 3], ["0/b.png", 7]]})


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    ("files", "classes"),
    [
        ({"0/a.png": A, "0/b.png": B, "dataset.json": INDEX}, ["3", "7"]),
        ({"mine/0/a.png": A, "mine/0/b.png": B, "mine/dataset.json": INDEX}, ["3", "7"]),
        (
            {"mine/0/a.png": A, "mine/0/b.png": B, "mine/dataset.json": INDEX, "__MACOSX/mine/0/a.png": b"", "mine/0/._a.png": b""},
            ["3", "7"],
        ),
        ({"mine\\0\\a.png": A, "mine\\0\\b.png": B, "mine\\dataset.json": INDEX}, ["3", "7"]),
        ({"0/a.png": A, "0/b.png": B, "dataset.json": INDEX.replace("/", "\\\\")}, ["3", "7"]),
        ({"mine/0/a.png": A, "mine/0/b.png": B, "mine/dataset.json": '{"labels": null}'}, None),
        ({"mine/cat/a.png": A, "mine/dog/b.png": B}, ["cat", "dog"]),
        ({"my/own/cat/a.png": A, "my/own/dog/b.png": B}, ["cat", "dog"]),
        ({"cat/a.png": A, "cat/b.png": B}, ["cat"]),
        ({"a.png": A, "b.png": B}, None),
    ],
)
def test_labels_are_found_under_one_folder_on_top(packed, files, classes, tmp_path):
    if packed:
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    elif any("\\" in name for name in files):
        pytest.skip("a backslash is part of a name in a folder")
    else:
        for name, content in files.items():
            (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "x" / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    truth = load(tmp_path / ("x.zip" if packed else "x"), dtype="float64")
    assert truth.sizes["sample"] == 2
    assert ("label" in truth) == (classes is not None)
    assert classes is None or truth.class_name.values.tolist() == classes
    np.testing.assert_allclose(array(truth)[1], channels(Image.open(io.BytesIO(B))), atol=1e-9)


# -- lazily, and with other libraries --------------------------------------------------------------------------------------------


def test_only_the_groups_of_the_samples_asked_for_are_decoded(tmp_path, monkeypatch):
    from gaussian_test.data.formats import tables

    parquet(tmp_path / "x.parquet", **columns())
    x, read = load(tmp_path / "x.parquet").x, []
    decode = tables.Parquet.read
    monkeypatch.setattr(
        tables.Parquet, "read", staticmethod(lambda group, names: read.append(group.number) or decode(group, names))
    )
    assert x[[3, 1, 4]].values.shape == (3, 5)
    assert x[0].values.shape == (5,)  # of the group that was decoded last
    assert read == [0]


@pytest.mark.parametrize("extension", ["h5", "zarr"])
def test_only_the_samples_asked_for_are_read(extension, tmp_path, monkeypatch):
    from gaussian_test.data.formats.variables import StoredArray

    NUMBERS["x.h5" if extension == "h5" else "3.zarr"](tmp_path / f"x.{extension}")
    x, read = load(tmp_path / f"x.{extension}").x, []
    whole = StoredArray._read
    monkeypatch.setattr(StoredArray, "_read", lambda self, key: read.append(whole(self, key)) or read[-1])
    assert x[[4, 2]].values.shape == (2, 5)
    assert sum(map(len, read)) == 2


def test_hdf5_is_called_under_the_lock_of_netcdf(tmp_path, monkeypatch):
    """Both libraries share one HDF5, or two that are no safer."""
    h5py, held = library("h5py"), []
    hdf5(tmp_path / "x.h5")
    opened = h5py.File
    monkeypatch.setattr(h5py, "File", lambda *args: held.append(NETCDF_LOCK._lock._is_owned()) or opened(*args))
    load(tmp_path / "x.h5").x[:3].load()
    assert held
    assert all(held)


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("x.h5", "h5py", "hdf5"),
        ("x.zarr.zip", "zarr", "zarr"),
        ("x.parquet", "pyarrow", "parquet"),
        ("x.feather", "pyarrow", "parquet"),
    ],
)
def test_a_missing_library_is_named_with_its_extra(name, module, extra, tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        archive.writestr("zarr.json", "{}")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        ValueError, match=rf"x\..* needs {module}, which is not installed: pip install 'gaussian-test\[{extra}\]'\."
    ):
        load(tmp_path / name)


def test_no_pickle_of_zarr_runs(tmp_path):
    import os
    import pickle

    library("zarr")

    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    (tmp_path / "x.zarr").mkdir()
    about = {"zarr_format": 2, "shape": [2, 2], "chunks": [2, 2], "fill_value": 0, "order": "C"}
    code = {"id": "pickle", "protocol": 5}
    (tmp_path / "x.zarr/0.0").write_bytes(pickle.dumps(Payload()))
    for kind, filters, compressor in (("|O", [code], None), ("|u1", [{"id": "zlib", "level": 1}, code], None), ("|u1", None, code)):
        held = about | {"dtype": kind, "filters": filters, "compressor": compressor}
        (tmp_path / "x.zarr/.zarray").write_text(json.dumps(held))
        with pytest.raises(ValueError, match=r"pickle|cannot be read"):
            load(tmp_path / "x.zarr")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("two", [False, True])
def test_coordinates_called_y_are_no_labels(two, tmp_path):
    where = {"y": (("j", "i") if two else "j", np.ones((6, 5)) if two else np.arange(6.0))}
    field = xr.Dataset({"T": (("time", "j", "i"), np.random.default_rng(0).normal(size=(48, 6, 5)))}, where)
    field.to_netcdf(tmp_path / "x.nc")
    named = field if two else xr.Dataset({"T": (("time", "y", "i"), field["T"].values)}, {"y": np.arange(6.0)})
    for given in (tmp_path / "x.nc", field, named):
        found = load(given, key="T")
        assert "label" not in found
        np.testing.assert_allclose(found["x"].values.reshape(48, 6, 5), field["T"].values, rtol=1e-6)
    assert "label" in load(field.assign(y=("time", np.arange(48) % 2)), key="T")
