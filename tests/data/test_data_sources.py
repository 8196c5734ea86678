"""The same pixels are the same samples whatever they are stored in, and nothing is read before it is asked for."""

import copy
import gzip
import io
import json
import pickle
import subprocess
import sys
import tracemalloc
import zipfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import dask.array
import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

from gaussian_test.data import load, sources
from gaussian_test.data.formats.cifar import RECORD, RECORD_100
from gaussian_test.data.formats.images import ImageRows
from gaussian_test.data.formats.lazy import ScaledArray
from gaussian_test.data.formats.rows import JoinedRows, MappedRows, MemoryRows
from gaussian_test.data.scaling import Scaling

COUNT = 23
NAMES = ["plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


PIXELS = np.random.default_rng(1).integers(0, 256, (COUNT, 3, 32, 32), dtype=np.uint8)
CLASSES = np.random.default_rng(2).permutation(np.arange(COUNT) % 10)
FLAT = PIXELS.reshape(COUNT, -1)
SCALED = (PIXELS / 127.5 - 1).astype(np.float32)
RECORDS = np.zeros(COUNT, RECORD)
RECORDS["label"], RECORDS["pixels"] = CLASSES, PIXELS


def save(how, path, **arrays):
    how(path, **arrays)
    return path


def netcdf(path, **variables):
    xr.Dataset(variables).to_netcdf(path, engine="netcdf4")


def write_folder(folder):
    for number, (image, label) in enumerate(zip(PIXELS, CLASSES, strict=True)):
        place = folder / "pictures" / NAMES[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.moveaxis(image, 0, -1)).save(place / f"{number:04d}.png")
    (folder / "pictures" / "notes.txt").write_text("not a picture")
    return folder / "pictures", {}


def write_zip(folder):
    entries = []
    with zipfile.ZipFile(folder / "x.zip", "w") as archive:
        for number, (image, label) in enumerate(zip(PIXELS, CLASSES, strict=True)):
            name, stream = f"{number // 10:05d}/img{number:08d}.png", io.BytesIO()
            Image.fromarray(np.moveaxis(image, 0, -1)).save(stream, "PNG")
            archive.writestr(name, stream.getvalue())
            entries.append([name, int(label)])
        archive.writestr("dataset.json", json.dumps({"labels": entries[::-1]}))
    return folder / "x.zip", {}


def write_edm_folder(folder):
    with zipfile.ZipFile(write_zip(folder)[0]) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked", {}


def write_cifar(folder):
    RECORDS.tofile(folder / "some.bin")
    return folder / "some.bin", {}


def write_cifar_folder(folder):
    # batch 10 sorts before batch 2 as text and after it as a number
    for name, part in {"data_batch_2": RECORDS[:5], "data_batch_10": RECORDS[5:15], "test_batch": RECORDS[15:]}.items():
        part.tofile(folder / f"{name}.bin")
    (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    return folder, {}


def write_imagenet_folder(folder):
    np.savez(folder / "train_data_batch_1.npz", data=FLAT[:9], labels=CLASSES[:9] + 1)
    np.savez_compressed(folder / "train_data_batch_2.npz", data=FLAT[9:20], labels=CLASSES[9:20] + 1)
    np.savez(folder / "val_data.npz", data=FLAT[20:], labels=CLASSES[20:] + 1)
    return folder, {}


def png(picture):
    stream = io.BytesIO()
    Image.fromarray(np.moveaxis(picture, 0, -1)).save(stream, "PNG")
    return stream.getvalue()


def idx(path, array, opened=open):
    with opened(path, "wb") as file:
        file.write(bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes())
    return path


def write_idx(folder):
    idx(folder / "train-images-idx4-ubyte", PIXELS[:15])
    for name in ("train-images-idx4-ubyte.gz", "train-labels-idx1-ubyte.gz"):  # torchvision keeps both
        idx(folder / name, PIXELS[:15] if "images" in name else CLASSES[:15], gzip.open)
    idx(folder / "t10k-images-idx4-ubyte.gz", PIXELS[15:], gzip.open)
    idx(folder / "t10k-labels-idx1-ubyte", CLASSES[15:])
    return folder, {}


def write_cifar100(folder):
    records = np.zeros(COUNT, RECORD_100)
    records["coarse"], records["fine"], records["pixels"] = CLASSES[::-1], CLASSES, PIXELS
    records[:15].tofile(folder / "train.bin")
    records[15:].tofile(folder / "test.bin")
    return folder, {}


def write_hdf5(folder):
    h5py = pytest.importorskip("h5py", reason="h5py is an optional part")
    with h5py.File(folder / "x.h5", "w") as file:
        file.create_dataset("a/b", data=PIXELS, chunks=(4, 3, 32, 32), compression="gzip")
        file["a/label"], file["mean"] = CLASSES, np.zeros((3, 32))
    return folder / "x.h5", {"key": "a/b"}


def write_zarr(version, folder):
    zarr = pytest.importorskip("zarr", reason="zarr is an optional part")
    group = zarr.open_group(folder / "x.zarr", mode="w", zarr_format=version)
    group.create_array("a/b", data=PIXELS, chunks=(5, 3, 16, 32))
    group.create_array("a/y", data=CLASSES)
    return folder / "x.zarr", {"key": "/a/b"}


def write_zarr_field(folder):
    pytest.importorskip("zarr", reason="zarr is an optional part")
    x = xr.Dataset({"T": (("time", "channel", "y", "x"), PIXELS), "label": ("time", CLASSES)}, {"x": np.arange(32.0)})
    x.to_zarr(folder / "some", zarr_format=2)
    return folder / "some", {}


def write_zarr_zip(folder):
    zarr = pytest.importorskip("zarr", reason="zarr is an optional part")
    with zarr.storage.ZipStore(folder / "x.zip", mode="w") as store:
        group = zarr.open_group(store, mode="w")
        group.create_array("images", data=PIXELS, chunks=(5, 3, 32, 32))
        group.create_array("labels", data=CLASSES)
    return folder / "x.zip", {}


def table(pictures, **columns):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is an optional part")
    held = pictures if isinstance(pictures, list) else pa.FixedShapeTensorArray.from_numpy_ndarray(pictures)
    return pa.table({"image": held, "label": CLASSES, **columns})


def nested():
    pa = pytest.importorskip("pyarrow", reason="pyarrow is an optional part")
    kind = pa.list_(pa.list_(pa.list_(pa.uint8())))
    return table(PIXELS, text=["a"] * COUNT).set_column(0, "image", pa.array(PIXELS.tolist(), kind))


def write_parquet(make, folder, **options):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an optional part")
    (folder / "data").mkdir()
    whole = make()
    for part, rows in {
        "test-00000-of-00001": whole[15:],
        "train-00000-of-00002": whole[:6],
        "train-00001-of-00002": whole[6:15],
    }.items():
        parquet.write_table(rows, folder / "data" / f"{part}.parquet", row_group_size=4, **options)
    return folder, {}


def write_arrow_folder(folder):
    whole = nested()
    import pyarrow as pa

    for part, rows in {"train": whole[:15], "test": whole[15:]}.items():  # as datasets.DatasetDict.save_to_disk
        (folder / part).mkdir()
        with pa.ipc.new_stream(folder / part / "data-00000-of-00001.arrow", rows.schema) as file:
            file.write_table(rows, max_chunksize=4)
        (folder / part / "cache-12ab.arrow").write_bytes(b"what datasets.map left")
    (folder / "dataset_dict.json").write_text("{}")
    return folder, {}


def write_feather(make, folder, **options):
    whole = make()
    import pyarrow.feather

    pyarrow.feather.write_feather(whole, folder / "x.feather", chunksize=5, **options)
    return folder / "x.feather", {}


def encoded():
    return table([{"bytes": png(picture), "path": None} for picture in PIXELS])


DIMS = ("sample", "channel", "row", "column")
LABELS = ("sample", CLASSES)
SAME_ORDER = {
    "npy": lambda at: (save(np.save, at / "x.npy", arr=PIXELS), {"labels": save(np.save, at / "l.npy", arr=CLASSES)}),
    "npy_channels_last": lambda at: (save(np.save, at / "x.npy", arr=np.moveaxis(PIXELS, 1, -1)), {"labels": CLASSES}),
    "npy_fortran": lambda at: (save(np.save, at / "x.npy", arr=np.asfortranarray(PIXELS)), {"labels": list(CLASSES)}),
    "npz": lambda at: (save(np.savez, at / "x.npz", images=PIXELS, y=CLASSES), {}),
    "npz_keys": lambda at: (save(np.savez, at / "x.npz", one=PIXELS, two=CLASSES), {"key": "one", "labels": "two"}),
    "npz_compressed": lambda at: (save(np.savez_compressed, at / "x.npz", only=PIXELS, labels=CLASSES), {}),
    "nc": lambda at: (save(netcdf, at / "x.nc", x=(DIMS, PIXELS), label=LABELS), {}),
    "nc_other_order": lambda at: (
        save(netcdf, at / "x.nc", picture=(("row", "channel", "column", "sample"), PIXELS.transpose(2, 1, 3, 0)), kind=LABELS),
        {"key": "picture", "labels": "kind"},
    ),
    "imagenet": lambda at: (save(np.savez, at / "val_data.npz", data=FLAT, labels=CLASSES + 1, mean=np.zeros(3072)), {}),
    "edm_folder": write_edm_folder,
    "zip": write_zip,
    "cifar": write_cifar,
    "cifar_folder": write_cifar_folder,
    "imagenet_folder": write_imagenet_folder,
    "idx_folder": write_idx,
    "cifar100": write_cifar100,
    "hdf5": write_hdf5,
    "zarr_2": partial(write_zarr, 2),
    "zarr_3": partial(write_zarr, 3),
    "zarr_field": write_zarr_field,
    "zarr_zip": write_zarr_zip,
    "parquet_lists": partial(write_parquet, nested),
    "parquet_tensors": partial(write_parquet, partial(table, PIXELS), use_dictionary=False),
    "parquet_pictures": partial(write_parquet, encoded),
    "arrow_folder": write_arrow_folder,
    "feather_lz4": partial(write_feather, nested),
    "feather_pictures": partial(write_feather, encoded, compression="uncompressed"),
}
WRITERS = SAME_ORDER | {"folder": write_folder}
every_source = pytest.mark.parametrize("write", WRITERS)


@pytest.fixture
def truth(write, tmp_path):
    path, options = WRITERS[write](tmp_path)
    return load(path, **options)


def originals(x):
    return np.rint((x.values.astype(np.float64) - x.attrs["offset"]) / x.attrs["scale"])


@pytest.mark.parametrize("write", SAME_ORDER)
def test_same_pixels_same_samples(truth):
    assert truth.x.dims == DIMS
    assert (truth.x.dtype, truth.label.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(truth.x.values, SCALED)
    np.testing.assert_array_equal(truth.label.values, CLASSES)
    np.testing.assert_array_equal(originals(truth.x), PIXELS)


def test_folder_is_ordered_by_class_name(tmp_path):
    truth = load(write_folder(tmp_path)[0])
    order = sorted(range(COUNT), key=lambda number: (NAMES[CLASSES[number]], number))
    np.testing.assert_array_equal(truth.x.values, SCALED[order])
    np.testing.assert_array_equal(truth.class_name.values[truth.label.values], [NAMES[CLASSES[i]] for i in order])
    assert list(truth.class_name.values) == sorted(NAMES)


@every_source
def test_dataset_describes_itself_without_the_machine(truth, tmp_path):
    assert truth.attrs["source"] in sources()
    assert truth.attrs["title"]
    assert all(truth[name].attrs["long_name"] for name in truth.variables)
    assert truth.x.attrs["units"] == truth.label.attrs["units"] == "1"
    assert str(tmp_path) not in repr((truth.attrs, [(v.attrs, v.encoding) for v in truth.variables.values()]))
    assert 0 <= truth.label.values.min() <= truth.label.values.max() < truth.sizes["class"]


@every_source
def test_indexing_equals_indexing_after_loading(truth):
    x, whole = truth.x, truth.x.copy(data=truth.x.values)
    random = np.random.default_rng(3).integers(0, COUNT, 40)
    for selection in (
        {"sample": 4},
        {"sample": -1},
        {"sample": slice(None, None, -3)},
        {"sample": slice(5, 5)},
        {"sample": random},
        {"sample": np.flatnonzero(random[:COUNT] < 7)},
        {"sample": np.array([], int)},
        {"channel": 1},
        {"sample": slice(3, 17, 4), "row": [5, 1, 1], "column": slice(30, 2, -7)},
        {"sample": [2, 1], "channel": -1, "row": 3},
        {"sample": xr.DataArray([3, 9, 3], dims="point"), "row": xr.DataArray([0, 31, 5], dims="point")},
    ):
        part, expected = x.isel(selection), whole.isel(selection)
        assert part.dims == expected.dims
        np.testing.assert_array_equal(part.values, expected.values)
    np.testing.assert_array_equal(x.isel(sample=slice(2, 20)).isel(sample=[3, 0]).values, whole.values[[5, 2]])


@every_source
def test_pickled_copied_and_chunked_samples_are_equal(truth, write):
    truth.x[:2].mean()  # files are open by now
    assert len(pickle.dumps(truth)) < PIXELS.nbytes or write.startswith(("npz", "imagenet", "idx"))
    expected = truth.x.values
    for other in (pickle.loads(pickle.dumps(truth)), copy.deepcopy(truth), truth.copy(deep=True)):
        np.testing.assert_array_equal(other.x.values, expected)
        xr.testing.assert_identical(other.drop_vars("x"), truth.drop_vars("x"))
    pytest.importorskip("dask.array", reason="dask is an optional part")
    chunked = truth.chunk(sample=4)
    assert chunked.x.chunks[0][0] == 4
    np.testing.assert_array_equal(chunked.x.data.compute(scheduler="threads", num_workers=2), expected)
    assert float(chunked.x.mean(dtype=np.float64)) == pytest.approx(expected.mean(dtype=np.float64), abs=1e-12)


def test_samples_are_read_in_another_process_and_folder(tmp_path, monkeypatch):
    expected = []
    for number, write in enumerate(WRITERS.values()):
        (tmp_path / f"{number:02d}").mkdir()
        monkeypatch.chdir(tmp_path / f"{number:02d}")
        try:
            path, options = write(Path("."))
        except pytest.skip.Exception:
            continue
        truth = load(path, **options)
        Path("kept.pkl").write_bytes(pickle.dumps(truth))
        monkeypatch.chdir("/")
        assert originals(truth.x)[0].shape == (3, 32, 32)
        expected.append(truth.x.values.astype(np.float64).sum())
    code = (
        "import pathlib, pickle, sys\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).glob('*/kept.pkl')):\n"
        "    print(float(pickle.loads(path.read_bytes()).x.values.astype('f8').sum()))"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, cwd="/", check=True)
    np.testing.assert_allclose([float(line) for line in done.stdout.split()], expected, rtol=0, atol=1e-6)


def test_written_dataset_is_read_back(tmp_path):
    truth = load(write_cifar_folder(tmp_path)[0])
    truth.to_netcdf(tmp_path / "again.nc", engine="netcdf4")
    again = load(tmp_path / "again.nc")
    for name in ("x", "label", "class_name"):
        np.testing.assert_array_equal(again[name].values, truth[name].values)
    assert list(again.class_name.values) == NAMES


@pytest.fixture
def rows_read(monkeypatch):
    """Return a list of how many rows each read of a file has given."""
    lengths = []
    for holder in (MappedRows, MemoryRows):

        def counting(self, chosen, read=holder.read):
            out = read(self, chosen)
            lengths.append(len(out))
            return out

        monkeypatch.setattr(holder, "read", counting)
    return lengths


@pytest.mark.parametrize("write", ["npy", "npz", "npz_compressed", "cifar_folder", "imagenet"])
def test_only_selected_rows_are_read(truth, rows_read):
    for selection in (slice(0, 10), slice(20, 3, -4), [3, 3, 19], 7):
        rows_read.clear()
        values = truth.x.isel(sample=selection).values
        assert 0 < sum(rows_read) <= np.size(np.arange(COUNT)[selection])
        np.testing.assert_array_equal(values, SCALED[selection])


def test_only_selected_pictures_are_decoded(monkeypatch, tmp_path):
    x = load(write_zip(tmp_path)[0]).x
    decoded = []
    picture = ImageRows._picture
    monkeypatch.setattr(ImageRows, "_picture", lambda self, name: decoded.append(name) or picture(self, name))
    assert x.isel(sample=slice(4, 6), channel=0).values.shape == (2, 32, 32)
    assert decoded == [f"00000/img{number:08d}.png" for number in (4, 5)]


@contextmanager
def bounded_memory():
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 64e6
    finally:
        tracemalloc.stop()


def sparse(path, dtype, shape, values):
    """Write zeros, of which the disk holds only the pages of the given values."""
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    for place, value in values.items():
        array[place] = value
    array.flush()
    return path


@pytest.mark.parametrize("kind", ["npy", "npz", "nc"])
def test_big_file_is_never_in_memory(kind, tmp_path):
    path = tmp_path / f"big.{kind}"
    array = np.load(sparse(tmp_path / "big.npy", np.uint8, (200_000, 1024), {(-1, -1): 255}), "r")  # 819 MB as float32
    if kind == "npz":
        np.savez(path, x=array)
    elif kind == "nc":
        data = xr.DataArray(array[-40_000:].astype(np.float32) / 255, dims=("sample", "feature"), name="x")
        data.to_netcdf(path, engine="netcdf4", encoding={"x": {"zlib": True, "chunksizes": (1000, 1024)}})
    with bounded_memory():
        last = load(path).x[-10:].values
    assert last[-1, -1] == 1
    assert (last == (0 if kind == "nc" else -1)).sum() == last.size - 1


def test_late_nan_is_found_in_bounded_memory(tmp_path):
    values = {(50_000, 3): np.nan, (-2, 7): np.nan, (-1, 0): np.inf, (-1, 1): -np.inf}
    path = sparse(tmp_path / "late.npy", np.float32, (100_000, 500), values)
    message = r"4 value\(s\) that are NaN or infinite, the first in sample 50000"
    with bounded_memory(), pytest.raises(ValueError, match=message):
        load(path)


def test_scan_ends_at_the_first_difference(tmp_path, rows_read):
    load(sparse(tmp_path / "big.npy", np.uint8, (200_000, 1024), {(0, 0): 1}))
    assert sum(rows_read) < 50_000


def test_scaling_is_done_in_blocks(monkeypatch):
    monkeypatch.setattr("gaussian_test.data.formats.lazy.BLOCK_VALUES", 7)
    raw = np.random.default_rng(4).integers(0, 256, (20, 3), dtype=np.uint8)
    array = ScaledArray(JoinedRows([MemoryRows(raw[:9]), MemoryRows(raw[9:])]), Scaling.of_range(0, 255, "raw"))
    expected = (raw / 127.5 - 1).astype(np.float32)
    np.testing.assert_array_equal(array._read((slice(None), slice(None))), expected)
    np.testing.assert_array_equal(
        array._read((np.array([19, 0, 9, 9, 8]), np.array([2, 0]))), expected[[19, 0, 9, 9, 8]][:, [2, 0]]
    )


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    truth = load("digits")
    np.testing.assert_array_equal(originals(truth.x)[:, 0], load_digits().images)
    np.testing.assert_array_equal(truth.x.values[:, 0], load_digits().images / 8 - 1)
    np.testing.assert_array_equal(truth.label, load_digits().target)
    assert list(truth.class_name.values) == list("0123456789")
    assert truth.attrs["source"] == "digits"
    xr.testing.assert_identical(load("digits", source="digits"), truth)


@pytest.mark.parametrize(
    ("write", "train", "test"),
    [
        ("cifar_folder", 15, 8),
        ("imagenet_folder", 20, 3),
        ("idx_folder", 15, 8),
        ("cifar100", 15, 8),
        ("parquet_pictures", 15, 8),
        ("arrow_folder", 15, 8),
    ],
)
def test_splits(write, train, test, tmp_path):
    folder, _ = WRITERS[write](tmp_path)
    assert [load(folder, split=split).sizes["sample"] for split in ("train", "test", "all")] == [train, test, COUNT]
    assert write != "imagenet_folder" or load(folder).class_name.values[[0, 999]].tolist() == ["1", "1000"]


def test_real_cifar10(request):
    folder = request.config.rootpath / ".." / "shared" / "data" / "cifar-10-batches-bin"
    if not (folder / "test_batch.bin").is_file():
        pytest.skip("the CIFAR-10 binaries do not lie beside the repository in ../shared/data")
    truth = load(folder, split="test")
    assert dict(truth.x.sizes) == {"sample": 10_000, "channel": 3, "row": 32, "column": 32}
    assert np.bincount(truth.label.values).tolist() == [1000] * 10
    assert truth.class_name.values[[0, 9]].tolist() == ["airplane", "truck"]
    raw = np.fromfile(folder / "test_batch.bin", np.uint8).reshape(-1, 3073)
    np.testing.assert_array_equal(originals(truth.x[-5:]).reshape(5, -1), raw[-5:, 1:])
    # neighbouring pixels of photographs are alike, which fails as soon as planes or rows are mixed up
    x = truth.x[:500].values
    assert np.abs(np.diff(x, axis=-1)).mean() < 0.4 * np.abs(x - x[:, :, :, ::-1]).mean()


# -- handed in from python -----------------------------------------------------------------------------------------------------


class Pairs(torch.utils.data.Dataset):
    """A data set of torch, whose items are made by a function of picture and class."""

    def __init__(self, item, classes=None):
        self.item = item
        if classes:
            self.classes = classes

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        return self.item(PIXELS[index], int(CLASSES[index]))


class Columns(Pairs):
    """A data set with named columns, as Hugging Face's are."""

    features = {"label": SimpleNamespace(names=NAMES)}


def hwc(pixels):
    return np.moveaxis(pixels, 0, -1)


IMAGES = xr.DataArray(np.moveaxis(PIXELS, 1, 3), dims=("sample", "row", "column", "channel"), name="x")
OBJECTS = {
    "array": lambda: (PIXELS, CLASSES),
    "channels last": lambda: (np.moveaxis(PIXELS, 1, 3), CLASSES.tolist()),
    "tensor": lambda: (torch.from_numpy(PIXELS), torch.from_numpy(CLASSES)),
    "DataArray": lambda: (IMAGES, CLASSES),
    "DataArray with classes": lambda: (IMAGES.assign_coords(kind=("sample", CLASSES)), "kind"),
    "Dataset": lambda: (xr.Dataset({"pixels": IMAGES, "y": ("sample", CLASSES)}), None),
    "Dataset with names": lambda: (xr.Dataset({"p": IMAGES, "kind": ("sample", CLASSES)}), "kind"),
    "dask": lambda: (dask.array.from_array(PIXELS, chunks=(5, 3, 32, 32)), CLASSES),
    "lazy Dataset": lambda: (xr.Dataset({"p": IMAGES, "label": ("sample", CLASSES)}).chunk(sample=4), None),
    "pairs of tensors": lambda: (Pairs(lambda x, y: (torch.from_numpy(x), y)), None),
    "pictures": lambda: (Pairs(lambda x, y: (Image.fromarray(hwc(x)), torch.tensor(y))), None),
    "named pictures": lambda: (Pairs(lambda x, y: (Image.fromarray(hwc(x)), y), NAMES), None),
    "columns": lambda: (Columns(lambda x, y: {"image": Image.fromarray(hwc(x)), "label": y, "id": "a"}), None),
    "other columns": lambda: (Pairs(lambda x, y: {"bild": x, "art": y}), "art"),
    "no classes": lambda: (Pairs(lambda x, y: x), CLASSES),
    "other classes": lambda: (Pairs(lambda x, y: (x, 0.5)), CLASSES),
    "DataLoader": lambda: (torch.utils.data.DataLoader(Pairs(lambda x, y: (x, y)), batch_size=4, shuffle=True), None),
    "TensorDataset": lambda: (torch.utils.data.TensorDataset(torch.from_numpy(PIXELS), torch.from_numpy(CLASSES)), None),
    "own Dataset": lambda: (load(PIXELS, labels=CLASSES, scale="none"), None),
}


@pytest.mark.parametrize("what", OBJECTS)
def test_the_same_samples_in_every_object(what):
    given, labels = OBJECTS[what]()
    scale = (0, 255) if what == "own Dataset" else None
    truth = load(given, labels=labels, scale=scale)
    np.testing.assert_array_equal(truth.x.values, SCALED)
    np.testing.assert_array_equal(truth.label, CLASSES)
    np.testing.assert_array_equal(truth.x[[5, 2]].values, SCALED[[5, 2]])
    assert truth.attrs["source"] == "python"
    assert truth.class_name.values.tolist() == (NAMES if what in ("named pictures", "columns") else list("0123456789"))


def test_arrays_of_dask_are_computed_where_they_are_read():
    def block(part, block_info=None):
        read.append(block_info[None]["chunk-location"][0])
        return part

    read = []
    lazy = dask.array.from_array(PIXELS, chunks=(5, 3, 32, 32)).map_blocks(block, dtype=np.uint8, meta=np.empty(0, np.uint8))
    truth = load(lazy)  # looks whether all are the same, which the first block tells
    read.clear()
    assert truth.x[7:9].values.shape == (2, 3, 32, 32)
    assert read == [1]


def test_random_items_are_read_once():
    rng = np.random.default_rng(0)
    truth = load(Pairs(lambda x, y: (x * rng.uniform(), y)))
    np.testing.assert_array_equal(truth.x.values, truth.x.values)


@pytest.mark.parametrize("held", [np.savez, np.savez_compressed])
def test_the_only_array_that_fits_needs_no_key(held, tmp_path):
    held(tmp_path / "a.npz", pixels=FLAT, ids=np.arange(COUNT), y=CLASSES, files=np.array([["a"]] * COUNT), s=np.float64(3))
    np.testing.assert_array_equal(load(tmp_path / "a.npz").x.values, SCALED.reshape(COUNT, -1))
