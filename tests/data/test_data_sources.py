"""The same pixels are the same samples whatever they are stored in, and nothing is read before it is asked for."""

import copy
import io
import json
import pickle
import subprocess
import sys
import tracemalloc
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from gaussian_test.data import load, sources
from gaussian_test.data.formats.cifar10 import RECORD
from gaussian_test.data.formats.images import ImageRows
from gaussian_test.data.formats.lazy import ScaledArray
from gaussian_test.data.formats.rows import JoinedRows, MappedRows, MemoryRows

COUNT = 23
NAMES = ["plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def pixels():
    return np.random.default_rng(1).integers(0, 256, (COUNT, 3, 32, 32), dtype=np.uint8)


@pytest.fixture
def classes():
    return np.random.default_rng(2).permutation(np.arange(COUNT) % 10)


def png(image):
    stream = io.BytesIO()
    Image.fromarray(np.moveaxis(image, 0, -1)).save(stream, "PNG")
    return stream.getvalue()


def write_npy(folder, pixels, classes):
    np.save(folder / "x.npy", pixels)
    np.save(folder / "l.npy", classes)
    return folder / "x.npy", {"labels": folder / "l.npy"}


def write_npy_channels_last(folder, pixels, classes):
    np.save(folder / "x.npy", np.moveaxis(pixels, 1, -1))
    return folder / "x.npy", {"labels": classes}


def write_npy_fortran(folder, pixels, classes):
    np.save(folder / "x.npy", np.asfortranarray(pixels))
    return folder / "x.npy", {"labels": list(classes)}


def write_npz(folder, pixels, classes):
    np.savez(folder / "x.npz", images=pixels, y=classes)
    return folder / "x.npz", {}


def write_npz_keys(folder, pixels, classes):
    np.savez_compressed(folder / "x.npz", first=pixels, second=classes)
    return folder / "x.npz", {"key": "first", "labels": "second"}


def write_npz_compressed(folder, pixels, classes):
    np.savez_compressed(folder / "x.npz", only=pixels, labels=classes)
    return folder / "x.npz", {}


def write_nc(folder, pixels, classes):
    dims = ("sample", "channel", "row", "column")
    xr.Dataset({"x": (dims, pixels), "label": ("sample", classes)}).to_netcdf(folder / "x.nc", engine="netcdf4")
    return folder / "x.nc", {}


def write_nc_other_order(folder, pixels, classes):
    dims = ("row", "channel", "column", "sample")
    data = xr.Dataset({"picture": (dims, pixels.transpose(2, 1, 3, 0)), "kind": ("sample", classes)})
    data.to_netcdf(folder / "x.nc", engine="netcdf4")
    return folder / "x.nc", {"key": "picture", "labels": "kind"}


def write_folder(folder, pixels, classes):
    for number, (image, label) in enumerate(zip(pixels, classes, strict=True)):
        place = folder / "pictures" / NAMES[label]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:04d}.png").write_bytes(png(image))
    (folder / "pictures" / "notes.txt").write_text("not a picture")
    return folder / "pictures", {}


def write_edm_folder(folder, pixels, classes):
    path, _ = write_zip(folder, pixels, classes)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked", {}


def write_zip(folder, pixels, classes):
    entries = []
    with zipfile.ZipFile(folder / "x.zip", "w") as archive:
        for number, (image, label) in enumerate(zip(pixels, classes, strict=True)):
            name = f"{number // 10:05d}/img{number:08d}.png"
            archive.writestr(name, png(image))
            entries.append([name, int(label)])
        archive.writestr("dataset.json", json.dumps({"labels": entries[::-1]}))
    return folder / "x.zip", {}


def write_cifar(folder, pixels, classes):
    records = np.zeros(COUNT, RECORD)
    records["label"], records["pixels"] = classes, pixels
    records.tofile(folder / "some.bin")
    return folder / "some.bin", {}


def write_cifar_folder(folder, pixels, classes):
    records = np.zeros(COUNT, RECORD)
    records["label"], records["pixels"] = classes, pixels
    # batch 10 sorts before batch 2 as text and after it as a number
    for name, part in {"data_batch_2": records[:5], "data_batch_10": records[5:15], "test_batch": records[15:]}.items():
        part.tofile(folder / f"{name}.bin")
    (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    return folder, {}


def write_imagenet(folder, pixels, classes):
    np.savez(folder / "val_data.npz", data=pixels.reshape(COUNT, -1), labels=classes + 1, mean=np.zeros(3072))
    return folder / "val_data.npz", {}


def write_imagenet_folder(folder, pixels, classes):
    flat = pixels.reshape(COUNT, -1)
    np.savez(folder / "train_data_batch_1.npz", data=flat[:9], labels=classes[:9] + 1)
    np.savez_compressed(folder / "train_data_batch_2.npz", data=flat[9:20], labels=classes[9:20] + 1)
    np.savez(folder / "val_data.npz", data=flat[20:], labels=classes[20:] + 1)
    return folder, {}


WRITERS = [
    write_npy,
    write_npy_channels_last,
    write_npy_fortran,
    write_npz,
    write_npz_keys,
    write_npz_compressed,
    write_nc,
    write_nc_other_order,
    write_edm_folder,
    write_zip,
    write_cifar,
    write_cifar_folder,
    write_imagenet,
    write_imagenet_folder,
]
every_source = pytest.mark.parametrize("write", [*WRITERS, write_folder], ids=lambda write: write.__name__[6:])


def originals(x):
    return np.rint((x.values.astype(np.float64) - x.attrs["offset"]) / x.attrs["scale"])


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__[6:])
def test_same_pixels_same_samples(write, tmp_path, pixels, classes):
    path, options = write(tmp_path, pixels, classes)
    truth = load(path, **options)
    assert truth.x.dims == ("sample", "channel", "row", "column")
    assert truth.x.dtype == np.float32
    np.testing.assert_array_equal(truth.x.values, (pixels / 127.5 - 1).astype(np.float32))
    np.testing.assert_array_equal(truth.label.values, classes)
    assert truth.label.dtype == np.int64
    np.testing.assert_array_equal(originals(truth.x), pixels)


def test_folder_is_ordered_by_class_name(tmp_path, pixels, classes):
    truth = load(write_folder(tmp_path, pixels, classes)[0])
    order = sorted(range(COUNT), key=lambda number: (NAMES[classes[number]], number))
    np.testing.assert_array_equal(truth.x.values, (pixels[order] / 127.5 - 1).astype(np.float32))
    np.testing.assert_array_equal(truth.class_name.values[truth.label.values], [NAMES[classes[i]] for i in order])
    assert list(truth.class_name.values) == sorted(NAMES)


@every_source
def test_dataset_describes_itself_without_the_machine(write, tmp_path, pixels, classes):
    path, options = write(tmp_path, pixels, classes)
    truth = load(path, **options)
    assert truth.attrs["source"] in sources()
    assert truth.attrs["title"]
    assert all(truth[name].attrs["long_name"] for name in truth.variables)
    assert truth.x.attrs["units"] == truth.label.attrs["units"] == "1"
    assert str(tmp_path) not in repr((truth.attrs, [(v.attrs, v.encoding) for v in truth.variables.values()]))
    assert truth.label.values.min() >= 0
    assert truth.label.values.max() < truth.sizes["class"]


@every_source
def test_indexing_equals_indexing_after_loading(write, tmp_path, pixels, classes):
    path, options = write(tmp_path, pixels, classes)
    x = load(path, **options).x
    whole = x.copy(data=x.values)
    random = np.random.default_rng(3).integers(0, COUNT, 40)
    for selection in (
        {"sample": 4},
        {"sample": -1},
        {"sample": slice(None, None, -3)},
        {"sample": slice(5, 5)},
        {"sample": random},
        {"sample": random < 7},
        {"sample": np.array([], int)},
        {"channel": 1},
        {"sample": slice(3, 17, 4), "row": [5, 1, 1], "column": slice(30, 2, -7)},
        {"sample": [2, 1], "channel": -1, "row": 3},
        {"sample": xr.DataArray([3, 9, 3], dims="point"), "row": xr.DataArray([0, 31, 5], dims="point")},
    ):
        if isinstance(selection.get("sample"), np.ndarray) and selection["sample"].dtype == bool:
            selection = {"sample": np.flatnonzero(np.resize(selection["sample"], COUNT))}
        part, expected = x.isel(selection), whole.isel(selection)
        assert part.dims == expected.dims
        np.testing.assert_array_equal(part.values, expected.values)
    np.testing.assert_array_equal(x.isel(sample=slice(2, 20)).isel(sample=[3, 0]).values, whole.values[[5, 2]])


@every_source
def test_pickled_copied_and_chunked_samples_are_equal(write, tmp_path, pixels, classes):
    path, options = write(tmp_path, pixels, classes)
    truth = load(path, **options)
    truth.x[:2].mean()  # files are open by now
    assert len(pickle.dumps(truth)) < pixels.nbytes or path.suffix == ".npz"
    expected = truth.x.values
    for other in (pickle.loads(pickle.dumps(truth)), copy.deepcopy(truth), truth.copy(deep=True)):
        np.testing.assert_array_equal(other.x.values, expected)
        xr.testing.assert_identical(other.drop_vars("x"), truth.drop_vars("x"))
    pytest.importorskip("dask.array", reason="dask is an optional part")
    chunked = truth.chunk(sample=4)
    assert chunked.x.chunks[0][0] == 4
    np.testing.assert_array_equal(chunked.x.data.compute(scheduler="threads", num_workers=2), expected)
    assert float(chunked.x.mean(dtype=np.float64)) == pytest.approx(expected.mean(dtype=np.float64), abs=1e-12)


def test_samples_are_read_in_another_process_and_folder(tmp_path, pixels, classes, monkeypatch):
    expected = []
    for number, write in enumerate([*WRITERS, write_folder]):
        (tmp_path / f"{number:02d}").mkdir()
        monkeypatch.chdir(tmp_path / f"{number:02d}")
        path, options = write(Path("."), pixels, classes)
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


def test_written_dataset_is_read_back(tmp_path, pixels, classes):
    truth = load(write_cifar_folder(tmp_path, pixels, classes)[0])
    truth.to_netcdf(tmp_path / "again.nc", engine="netcdf4")
    again = load(tmp_path / "again.nc")
    np.testing.assert_array_equal(again.x.values, truth.x.values)
    np.testing.assert_array_equal(again.label.values, truth.label.values)
    np.testing.assert_array_equal(again.class_name.values, truth.class_name.values)
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


@pytest.mark.parametrize("write", [write_npy, write_npz, write_npz_compressed, write_cifar_folder, write_imagenet])
def test_only_selected_rows_are_read(write, rows_read, tmp_path, pixels, classes):
    path, options = write(tmp_path, pixels, classes)
    x = load(path, **options).x
    for selection in (slice(0, 10), slice(20, 3, -4), [3, 3, 19], 7):
        rows_read.clear()
        values = x.isel(sample=selection).values
        assert 0 < sum(rows_read) <= np.size(np.arange(COUNT)[selection])
        np.testing.assert_array_equal(values, (pixels / 127.5 - 1).astype(np.float32)[selection])


def test_only_selected_pictures_are_decoded(monkeypatch, tmp_path, pixels, classes):
    x = load(write_zip(tmp_path, pixels, classes)[0]).x
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


@pytest.mark.parametrize("kind", ["npy", "npz", "nc"])
def test_big_file_is_never_in_memory(kind, tmp_path):
    count, size = 200_000, 1024  # 205 MB of bytes, 819 MB as float32
    path = tmp_path / f"big.{kind}"
    if kind == "npy":  # sparse: only the last page is written
        array = np.lib.format.open_memmap(path, "w+", np.uint8, (count, size))
    else:
        array = np.zeros((count, size) if kind == "npz" else (40_000, size), np.uint8 if kind == "npz" else np.float32)
    array[-1, -1] = 255 if array.dtype == np.uint8 else 1
    if kind == "npy":
        array.flush()
    elif kind == "npz":
        np.savez(path, x=array)
    else:
        data = xr.DataArray(array, dims=("sample", "feature"), name="x")
        data.to_netcdf(path, engine="netcdf4", encoding={"x": {"zlib": True, "chunksizes": (1000, size)}})
        del data
    low = -1 if array.dtype == np.uint8 else 0
    del array
    with bounded_memory():
        last = load(path).x[-10:].values
    assert last[-1, -1] == 1
    assert (last == low).sum() == last.size - 1


def test_late_nan_is_found_in_bounded_memory(tmp_path):
    path = tmp_path / "late.npy"
    array = np.lib.format.open_memmap(path, "w+", np.float32, (100_000, 500))
    array[50_000, 3] = array[-2, 7] = np.nan
    array[-1, :2] = np.inf, -np.inf
    array.flush()
    del array
    message = r"4 value\(s\) that are NaN or infinite, the first in sample 50000"
    with bounded_memory(), pytest.raises(ValueError, match=message):
        load(path)


def test_scan_ends_at_the_first_difference(tmp_path, rows_read):
    array = np.lib.format.open_memmap(tmp_path / "big.npy", "w+", np.uint8, (200_000, 1024))  # sparse
    array[0, 0] = 1
    array.flush()
    del array
    load(tmp_path / "big.npy")
    assert sum(rows_read) < 50_000


def test_scaling_is_done_in_blocks(monkeypatch):
    monkeypatch.setattr("gaussian_test.data.formats.lazy.BLOCK_VALUES", 7)
    from gaussian_test.data.values import Scaling

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


def test_splits(tmp_path, pixels, classes):
    write_cifar_folder(tmp_path, pixels, classes)
    assert [load(tmp_path, split=split).sizes["sample"] for split in ("train", "test", "all")] == [15, 8, COUNT]
    images = tmp_path / "imagenet"
    images.mkdir()
    write_imagenet_folder(images, pixels, classes)
    assert [load(images, split=split).sizes["sample"] for split in ("train", "test", "all")] == [20, 3, COUNT]
    assert load(images).class_name.values[[0, 999]].tolist() == ["1", "1000"]


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
