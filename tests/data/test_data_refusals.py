"""Whatever cannot be used is refused in one sentence that names it, and no pickle ever runs."""

import io
import json
import os
import pickle
import re
import struct
import zipfile
import zlib
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr
from PIL import Image

from gaussian_test.data import DataError, load, sources
from gaussian_test.data.formats.images import FolderStore, ImageRows

GOOD = np.random.default_rng(0).integers(0, 256, (4, 3, 8, 8), dtype=np.uint8)


def raw(name, content, **options):
    def write(folder):
        (folder / name).write_bytes(content)
        return folder / name, options

    return write


def content(save, *array, **arrays):
    """Return what a function writes to a stream."""
    stream = io.BytesIO()
    save(stream, *array, **arrays)
    return stream.getvalue()


def npy(array, **options):
    return raw("a.npy", content(np.save, array), **options)


def npz(arrays, **options):
    return raw("a.npz", content(np.savez, **arrays), **options)


def name(text, **options):
    return lambda folder: (text, options)


def netcdf(variables, **options):
    def write(folder):
        xr.Dataset(variables).to_netcdf(folder / "a.nc", engine="netcdf4")
        return folder / "a.nc", options

    return write


def png(size=(4, 4), mode="RGB", noise=50):
    return content(Image.effect_noise(size, noise).convert(mode).save, "PNG")


def folder(files, **options):
    def write(place):
        (place / "d").mkdir()
        for file, held in files.items():
            (place / "d" / file).parent.mkdir(exist_ok=True)
            (place / "d" / file).write_bytes(held)
        return place / "d", options

    return write


def packed(files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for file, held in files.items():
            archive.writestr(file, held)
    return stream.getvalue()


def zipped(files, **options):
    return raw("a.zip", packed(files), **options)


def edm(labels):
    return zipped({"0/a.png": png(), "0/b.png": png(), "dataset.json": json.dumps({"labels": labels})})


def fifo(place, **options):
    """A named pipe that nobody writes to: whoever opens it waits for ever."""

    def write(folder):
        (folder / place).parent.mkdir(exist_ok=True)
        os.mkfifo(folder / place)
        return folder / (Path(place).parts[0]), options

    return write


def both(*writers):
    """Write several things, and load the last."""
    return lambda folder: [write(folder) for write in writers][-1]


def claiming(size, member, held=b"x" * 100):
    """A zip whose directory claims that a compressed member has this many bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, held)
    data = bytearray(stream.getvalue())
    data[22:26] = data[data.rindex(b"PK\1\2") + 24 : data.rindex(b"PK\1\2") + 28] = struct.pack("<I", size)
    return bytes(data)


def npy_claiming(shape, version=1):
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(header)) + header.encode()


def wide(folder):
    """A NetCDF file of which most was never written."""
    with netCDF4.Dataset(folder / "a.nc", "w") as file:
        file.createDimension("sample", 10**6)
        file.createDimension("feature", 10**4)
        file.createVariable("x", "f4", ("sample", "feature"), zlib=True, chunksizes=(1, 1000))[0, :9] = range(9)
    return folder / "a.nc", {}


def one_chunk(folder):
    """A NetCDF file whose single compressed chunk is read at once."""
    values = xr.Dataset({"x": (("sample", "feature"), np.arange(200_000.0).reshape(100, -1) % 7)})
    values.to_netcdf(folder / "a.nc", engine="netcdf4", encoding={"x": {"zlib": True, "chunksizes": (100, 2000)}})
    return folder / "a.nc", {"memory": 10**6}


GIGABYTES = 4_000_000_000
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\nshowpage\n%%EOF\n"


def flipped(content, position):
    position %= len(content)
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


def sixteen_bit_rgb():
    """A PNG of 16-bit colours, which Pillow cannot write: two filtered rows of two pixels."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    rows = (b"\0" + bytes(range(12))) * 2
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


FLAT = {"data": GOOD.reshape(4, -1), "labels": [1, 2, 3, 4]}
CIFAR = b"".join(bytes([label]) + bytes([label] * 3072) for label in (3, 9, 0))
ARCHIVE = packed({"0/a.png": png(), "0/b.png": png()})
BIG_HEADER = content(np.save, np.zeros((2, 3))).replace(b"(2, 3)", b"(9, 9)")
FORGED = content(np.save, np.zeros((2, 3))).replace(b"(2, 3), }" + b" " * 17, b"(3000000000, 3000000000), }")

REFUSED = {
    "missing": (lambda folder: (folder / "none.npy", {}), "none.npy does not exist"),
    "too long": (lambda folder: (folder / ("a" * 5000), {}), "cannot be read"),
    "missing folder": (name("some/where"), "some/where does not exist"),
    "missing labels": (npy(GOOD, labels="no.npy"), "no.npy does not exist"),
    "unknown name": (name("digitz"), "'digitz' is neither a source nor a file", "'digits'"),
    "unknown source": (npy(GOOD, source="cifar"), "source is 'cifar'", "'cifar10'"),
    "source without path": (name("cifar10"), "'cifar10' needs a file or folder"),
    "digits with path": (npy(GOOD, source="digits"), "a.npy", "load('digits')"),
    "digits split": (name("digits", split="train"), "split='train'"),
    "digits key": (name("digits", key="x"), "key='x'"),
    "file split": (npy(GOOD, split="test"), "split='test'"),
    "npy key": (npy(GOOD, key="y"), "key='y'"),
    "zip key": (zipped({"a.png": png()}, key="k"), "key='k'"),
    "unknown suffix": (raw("a.csv", b"1,2"), "'.csv'"),
    "one image": (raw("a.png", png()), "a.png is a single image"),
    "folder as file": (folder({}, source="file"), "is a folder"),
    "file as folder": (npy(GOOD, source="folder"), "is a file"),
    **{
        f"pickle {suffix}": (raw(f"a{suffix}", pickle.dumps(GOOD)), f"a{suffix} is a pickle", ".npz")
        for suffix in (".pkl", ".pt", ".pth")
    },
    "pickle as file": (raw("a.pkl", b"", source="file"), "a.pkl is a pickle"),
    "object npy": (npy(np.array([[1, None]] * 2, object)), "a.npy holds python objects", "pickle"),
    "object npz": (npz({"x": np.array([[1, None]] * 2, object)}), "'x'", "pickle"),
    "object labels": (npz({"x": GOOD, "y": np.array([1, None, 2, 3], object)}), "'y'", "pickle"),
    "object labels in memory": (npy(GOOD, labels=[1, None, 2, 3]), "the labels given have dtype object"),
    "bool": (npy(GOOD > 100), "dtype bool"),
    "long double": (npy(GOOD.astype(np.longdouble)), str(np.dtype(np.longdouble))),
    "netcdf strings": (netcdf({"x": (("sample", "feature"), [["a", "b"]] * 2)}), "'x'", "strings"),
    "1 axis": (npy(np.arange(5.0)), "(5,)"),
    "scalar": (npy(np.float32(3)), "single value"),
    "scalar npz": (npz({"x": 3.0}), "single value"),
    "scalar netcdf": (netcdf({"x": 3.0}), "()"),
    "5 axes": (npy(np.zeros((2, 2, 2, 2, 2))), "(2, 2, 2, 2, 2)"),
    "empty axis": (npy(np.zeros((3, 0))), "(3, 0)"),
    "no sample": (npy(np.zeros((0, 3))), "0 sample"),
    "one sample": (npy(GOOD[:1]), "1 sample"),
    "one digit picture": (folder({"a.png": png()}), "1 sample"),
    "nan": (npy(np.array([[0, 1], [np.nan, np.nan], [np.nan, 0]])), "3 value(s)", "sample 1"),
    "nan netcdf": (netcdf({"x": (("feature", "sample"), [[0.5, 1, np.nan]] * 2)}), "2 value(s)", "sample 2"),
    "constant bytes": (npy(np.full((3, 4), 77, np.uint8)), "every value is 77"),
    "constant floats": (npy(np.full((3, 4), 0.25)), "every value is 0.25"),
    "constant in float32": (npy(np.array([[0.5, 0.5 + 1e-12]] * 2), dtype="float32"), "constant in float32"),
    "constant pictures": (folder({f"{i}.png": png(mode="L", noise=0) for i in "ab"}), "every value is 128"),
    "no scale": (npy(GOOD, scale="picture"), "scale is 'picture'", "none, pictures, unit"),
    "scale order": (npy(GOOD, scale=(1, 0)), "scale is (1, 0)"),
    "scale nan": (npy(GOOD, scale=(0, np.nan)), "scale is (0, nan)"),
    "scale length": (npy(GOOD, scale=(0, 1, 2)), "scale is (0, 1, 2)"),
    "scale width": (npy(GOOD, scale=(-1.5e308, 1.5e308)), "-1.5e+308"),
    "scale number": (npy(GOOD, scale=3), "scale is 3"),
    "pictures beyond": (npy(GOOD * 10.0, scale="pictures"), "2550", "[low, high]"),
    "pictures below": (npy(GOOD - 1.0, scale="pictures"), "from -1 to 254", "[low, high]"),
    "dark pictures": (npy(np.array([[0, 1.0000001]] * 2), scale="pictures"), "[0, 255]", "[low, high]"),
    "unit overflow": (npy(1e200 * np.eye(3), scale="unit"), "64-bit floats do not hold it"),
    "single overflow": (npy(1e200 * np.eye(3), dtype="float32"), "1e+200", "give dtype float64"),
    "few labels": (npz({"x": GOOD, "label": [1, 2, 3]}), "(3,) for 4 samples"),
    "many labels": (npy(GOOD, labels=np.zeros(5, int)), "(5,) for 4 samples"),
    "digits labels": (name("digits", labels=[1, 2]), "(2,) for 1797 samples"),
    "one-hot": (npy(GOOD, labels=np.eye(4, 3)), "(4, 3) for 4 samples"),
    "fractions": (npy(GOOD, labels=[0.5, 1, 2, 3]), "dtype float64"),
    "label suffix": (npy(GOOD, labels="a.txt"), "'a.txt'"),
    "npz label key": (npz({"x": GOOD}, labels="kind"), "no array 'kind'"),
    "npz key": (npz({"x": GOOD}, key="z"), "no array 'z'", "x"),
    "npz ambiguous": (npz({"a": GOOD, "b": GOOD}), "a, b", "key="),
    "nc label key": (netcdf({"x": (("sample", "f"), np.eye(3))}, labels="kind"), "no variable 'kind'"),
    "nc key": (netcdf({"x": (("sample", "f"), np.eye(3))}, key="z"), "no variable 'z'"),
    "nc ambiguous": (netcdf({k: (("sample", "f"), np.eye(3)) for k in "ab"}), "a, b", "key="),
    "bad npy": (raw("a.npy", b"not an array at all"), "a.npy is not a readable .npy"),
    "empty npy": (raw("a.npy", b""), "a.npy is not a readable .npy"),
    "cut header": (raw("a.npy", content(np.save, GOOD)[:40]), "a.npy is not a readable .npy"),
    "cut npy": (raw("a.npy", content(np.save, GOOD)[:-1]), "truncated", "767 bytes"),
    "shape too big": (raw("a.npy", BIG_HEADER), "truncated", "(9, 9)"),
    "forged shape": (raw("a.npy", FORGED), "truncated", "3000000000"),
    "unreadable header": (raw("a.npy", content(np.save, GOOD).replace(b"'shape'", b"[shape'")), "a.npy is not a readable .npy"),
    "bad npz": (raw("a.npz", b"PK\3\4 not a zip"), "a.npz is not a readable .npz"),
    "cut npz": (raw("a.npz", content(np.savez, x=GOOD)[:-60]), "a.npz is not a readable .npz"),
    "flipped bit": (raw("a.npz", flipped(content(np.savez, x=np.tile(GOOD, (99, 1, 1, 1))), -9999)), "'x' in", "damaged"),
    "flipped compressed": (raw("a.npz", flipped(content(np.savez_compressed, x=GOOD), 500)), "'x' in", "damaged"),
    "bad nc": (raw("a.nc", b"not netcdf" * 99), "a.nc is not a readable NetCDF"),
    "cifar size": (raw("a.bin", CIFAR[:-1]), "9218 bytes", "3073"),
    "cifar empty": (raw("a.bin", b""), "0 bytes"),
    "cifar label": (raw("a.bin", CIFAR + bytes([10]) + bytes(3072)), "label 10 at sample 3"),
    "cifar one": (raw("a.bin", CIFAR[:3073]), "1 sample"),
    "cifar meta": (folder({"test_batch.bin": CIFAR, "batches.meta.txt": b"a b"}), "2 names"),
    "cifar split": (folder({"test_batch.bin": CIFAR}, split="train"), "split='train'"),
    "cifar split name": (folder({"test_batch.bin": CIFAR}, split="tests"), "split is 'tests'", "'test'"),
    "cifar file split": (raw("a.bin", CIFAR, split="test"), "split='test'"),
    "cifar folder": (folder({}, source="cifar10"), "holds no batch"),
    "imagenet folder": (folder({}, source="imagenet"), "holds no batch"),
    "imagenet shape": (npz({**FLAT, "data": GOOD}, source="imagenet"), "(4, 3, 8, 8)"),
    "imagenet dtype": (npz({**FLAT, "data": FLAT["data"] / 255}, source="imagenet"), "float64"),
    "imagenet side": (npz({**FLAT, "data": FLAT["data"][:, :-3]}, source="imagenet"), "(4, 189)"),
    "imagenet zero": (npz({**FLAT, "labels": [0, 1, 2, 3]}, source="imagenet"), "range from 0 to 3"),
    "imagenet high": (npz({**FLAT, "labels": [1, 1, 2, 1001]}, source="imagenet"), "range from 1 to 1001"),
    "imagenet count": (npz({**FLAT, "labels": [1]}, source="imagenet"), "(1,)"),
    "imagenet text": (npz({**FLAT, "labels": list("abcd")}, source="imagenet"), "<U1"),
    "imagenet no labels": (npz({"data": FLAT["data"]}, source="imagenet"), "no array 'labels'"),
    "imagenet sizes": (
        folder(
            {
                "train_data_batch_1.npz": content(np.savez, **FLAT),
                "val_data.npz": content(np.savez, **{**FLAT, "data": FLAT["data"][:, :48]}),
            }
        ),
        "val_data.npz has images of 4 x 4",
    ),
    "empty folder": (folder({}), "holds no images"),
    "no pictures": (folder({"a.txt": b"hello"}), "holds no images"),
    "hidden pictures": (folder({".a/a.png": png(), ".b.png": png()}), "holds no images"),
    "sizes": (folder({"a.png": png(), "b.png": png((4, 5))}), "b.png has 4 x 5 pixels"),
    "modes": (folder({"a.png": png(), "b.png": png(mode="L")}), "b.png", "mode L"),
    "depths": (folder({"a.png": png(mode="L"), "b.png": png(mode="I;16")}), "b.png", "mode I;16"),
    "palette": (folder({"a.png": png(mode="P"), "b.png": png(mode="P")}), "a.png has mode P", "convert"),
    "one bit": (folder({"a.png": png(mode="1"), "b.png": png()}), "a.png has mode 1"),
    "16-bit colour": (folder({"a.png": sixteen_bit_rgb(), "b.png": sixteen_bit_rgb()}), "a.png has 16-bit colours"),
    "cut picture": (folder({"a.png": png(), "b.png": png((40, 40))[:-300]}), "b.png is not a readable image"),
    "cut first picture": (folder({"a.png": png()[:50], "b.png": png()}), "a.png is not a readable image"),
    "no picture": (folder({"a.png": png(), "b.png": b"hello"}), "b.png is not a readable image"),
    "stray picture": (folder({"c/a.png": png(), "b.png": png()}), "b.png lies beside"),
    "bad zip": (raw("a.zip", b"hello"), "a.zip is not a readable zip"),
    "cut zip": (raw("b.zip", ARCHIVE[:-30]), "b.zip is not a readable zip"),
    "damaged zip": (raw("b.zip", flipped(ARCHIVE, 70)), "0/a.png in"),
    "empty zip": (zipped({}), "holds no images"),
    "cut zipped picture": (zipped({"a.png": png(), "b.png": png((40, 40))[:-300]}), "b.png in", "not a readable image"),
    "edm count": (edm([["0/a.png", 1]]), "1 labels for 2 images", "0/b.png"),
    "edm more": (edm([["0/a.png", 1], ["0/b.png", 1], ["0/c.png", 1]]), "3 labels for 2 images"),
    "edm vector": (edm([["0/a.png", [0, 1]], ["0/b.png", 1]]), "[0, 1]", "0/a.png"),
    "edm form": (edm([1, 2]), "dataset.json"),
    "edm json": (zipped({"a.png": png(), "b.png": png(), "dataset.json": "{"}), "dataset.json"),
    "fifo npy": (fifo("a.npy"), "a.npy is a named pipe"),
    "fifo npz": (fifo("a.npz"), "a.npz is a named pipe"),
    "fifo zip": (fifo("a.zip"), "a.zip is a named pipe"),
    "fifo netcdf": (fifo("a.nc"), "a.nc is a named pipe"),
    "fifo picture": (both(folder({"a.png": png()}), fifo("d/b.png")), "d/b.png cannot be read (it is a named pipe"),
    "fifo index": (both(folder({"a.png": png()}), fifo("d/dataset.json")), "dataset.json cannot be read (it is a named pipe"),
    "fifo batch": (fifo("d/data_batch_1.bin"), "data_batch_1.bin is a named pipe"),
    "fifo labels": (both(fifo("l.npy"), lambda folder: npy(GOOD, labels=folder / "l.npy")(folder)), "l.npy cannot be read (it is"),
    "bomb zip": (raw("a.zip", claiming(GIGABYTES, "0.png"), memory=10**9), "0.png in", "takes 4.0GB in memory", "1.0GB given"),
    "bomb index": (raw("a.zip", claiming(GIGABYTES, "dataset.json"), memory=10**9), "holds no images"),
    "bomb npz": (
        raw("a.npz", claiming(GIGABYTES + 128, "x.npy", npy_claiming((4, 10**9))), memory=2 * 10**8),
        "'x' in",
        "takes 4.0GB in memory, since it is compressed",
        "200.0MB given",
    ),
    "bomb labels": (
        raw("a.npz", claiming(GIGABYTES + 128, "labels.npy", npy_claiming((4, 10**9))), key="labels", memory=10**8),
        "takes 4.0GB",
    ),
    "bomb header": (raw("a.npz", packed({"x.npy": b"\x93NUMPY\x02\0\xff\xff\xff\xff" + b" " * 2000})), "not a readable .npy"),
    "bomb picture": (folder({"a.png": png((40, 40)), "b.png": png((40, 40))}, memory=4000), "a.png takes 4.8KB in memory"),
    "bomb file": (folder({"a.png": png() + bytes(5000), "b.png": png()}, memory=4000), "a.png takes 5.", "in memory"),
    "bomb sample": (npy(np.arange(2e4).reshape(2, -1), memory=1000), "a sample of", "takes 80.0KB in memory"),
    "bomb netcdf": (wide, "'x' in", "claims 40.0GB"),
    "bomb chunk": (one_chunk, "'x' in", "takes 1.6MB in memory at a time"),
    "deep index": (zipped({"a.png": png(), "b.png": png(), "dataset.json": "[" * 200_000}), "dataset.json in", "cannot be read"),
    "deep labels": (zipped({"a.png": png(), "dataset.json": '{"labels":' + "[" * 10**5}), "dataset.json in"),
    "postscript": (folder({"a.png": POSTSCRIPT, "b.png": POSTSCRIPT}), "a.png is not a readable image"),
    "postscript tif": (zipped({"a.tif": POSTSCRIPT, "b.tif": POSTSCRIPT}), "a.tif in", "is not a readable image"),
    "gif": (folder({"a.png": content(Image.new("L", (4, 4)).save, "GIF")}), "a.png is not a readable image"),
    "escapes": (npz({"\x1b[31mx": GOOD, "b": GOOD}), "\\x1b[31mx"),
    "edm no labels": (zipped({"a.png": png(), "b.png": png(), "dataset.json": "{}"}), "dataset.json"),
}


OBJECTS = {
    "None": (None, "the NoneType given is nothing that holds samples"),
    "number": (5, "the int given"),
    "dict": ({"x": GOOD}, "the dict given"),
    "bytes": (b"abc", "the bytes given"),
    "iterator": (iter([GOOD]), "the list_iterator given"),
    "nothing": ([], "0 sample(s)"),
    "ragged": ([np.eye(2), np.eye(3)], "item 1", "(3, 3)", "like item 0"),
    "no class": ([(np.eye(2), 0.5)] * 3, "dtype float64", "give labels="),
    "no class but pictures": ([(np.eye(2), np.eye(2))] * 3, "(3, 2, 2)", "give labels="),
    "masked": (np.ma.masked_less(GOOD, 9), "masked values"),
    "complex": (GOOD + 1j, "complex128"),
    "objects": (GOOD.astype(object), "dtype object"),
    "two variables": (xr.Dataset({k: (("a", "b"), np.eye(3)) for k in "pq"}), "p, q", "key="),
    "no variable": (xr.Dataset(), "(none)"),
    "one axis": (np.arange(5.0), "(5,)"),
    "palette": ([Image.new("P", (3, 3))] * 2, "item 0", "mode P", "convert"),
    "columns": ([{"a": GOOD[0], "b": GOOD[0]}] * 2, "a, b", "key="),
    "NaN": (np.array([[0, np.nan], [1, 2]]), "NaN"),
}


@pytest.mark.parametrize("case", OBJECTS)
def test_an_object_that_cannot_be_used_is_refused(case):
    given, *expected = OBJECTS[case]
    with pytest.raises(DataError) as caught:
        load(given)
    assert "\n" not in str(caught.value)
    assert all(text in str(caught.value) for text in expected), str(caught.value)


@pytest.mark.parametrize("options", [{"source": "file"}, {"split": "train"}, {"key": "x"}, {"labels": "kind"}, {"memory": 10}])
def test_options_of_paths_are_refused_beside_objects(options):
    given = [GOOD[0], GOOD[1]] if options.keys() & {"labels", "memory"} else GOOD
    with pytest.raises(ValueError, match="|".join([*options, "10B given"])):
        load(given, **options)


def test_postscript_starts_no_program(tmp_path, monkeypatch):
    monkeypatch.setattr("subprocess.Popen.__init__", lambda *_, **__: pytest.fail("a program was started"))
    path, _ = folder({"a.png": POSTSCRIPT, "b.png": POSTSCRIPT})(tmp_path)
    with pytest.raises(ValueError, match="not a readable image"):
        load(path)


@pytest.mark.parametrize("links", [{"up": ".."}, {"self": "."}, {"a/up": "../.."}, {"up": "..", "a/top": "../../imgs"}])
def test_links_back_are_not_followed(links, tmp_path):
    """A link to the folder that holds it made 4,100 pictures of 100, and two never ended."""
    (tmp_path / "imgs/a").mkdir(parents=True)
    Image.effect_noise((4, 4), 50).save(tmp_path / "other.png")
    for number in range(5):
        Image.effect_noise((4, 4), 50).save(tmp_path / f"imgs/a/{number}.png")
    os.symlink(tmp_path / "other.png", tmp_path / "imgs/a/linked.png")  # a link to a file is that file
    for link, target in links.items():
        os.symlink(target, tmp_path / "imgs" / link)
    assert load(tmp_path / "imgs").sizes["sample"] == 6


def test_links_to_folders_are_followed_once(tmp_path):
    (tmp_path / "imgs").mkdir()
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.effect_noise((4, 4), 50).save(tmp_path / name / "0.png")
        os.symlink(tmp_path / name, tmp_path / "imgs" / name)
    assert load(tmp_path / "imgs")["class_name"].values.tolist() == ["a", "b"]
    os.symlink(tmp_path / "a", tmp_path / "imgs" / "c")
    with pytest.raises(ValueError, match="holds a and c, which are one folder by a link"):
        load(tmp_path / "imgs")


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_sentence(case, tmp_path):
    write, *expected = REFUSED[case]
    path, options = write(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        load(path, **options)
    message = str(caught.value)
    assert all(text in message for text in expected), message
    assert "\n" not in message
    assert message.endswith((".", "?"))
    assert isinstance(caught.value, FileNotFoundError) == ("does not exist" in message)
    assert isinstance(caught.value, FileNotFoundError) or type(caught.value).__name__ == "DataError"


def test_unreadable_file_is_refused(tmp_path, without_privileges):
    path, _ = npy(GOOD)(tmp_path)
    path.chmod(0)
    with pytest.raises(ValueError, match=r"a\.npy cannot be read"):
        load(path)


def test_every_picture_is_decoded_before_any_is_used(tmp_path):
    path, _ = folder({"a.png": png(), "b.png": png(), "c.png": png((40, 40))[:-300]})(tmp_path)
    with pytest.raises(ValueError, match=r"c\.png"):
        ImageRows(FolderStore(path, 2**30), ["a.png", "b.png", "c.png"], 2**30)


def test_libraries_are_imported_where_they_are_needed(request):
    """Which ones may be imported at all is in test_layers.py."""
    for file in (request.config.rootpath / "data").rglob("*.py"):
        early = re.search(r"^(from|import) (sklearn|PIL)", file.read_text(), re.MULTILINE)
        assert early is None or file.name == "train_digits_network.py", file


class Payload:
    """Creates a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_no_pickle_runs(tmp_path):
    trace = str(tmp_path / "ran")
    bomb = np.empty((2, 2), object)
    bomb[:] = Payload(trace)
    payload = pickle.dumps(Payload(trace))
    np.save(tmp_path / "a.npy", bomb)
    np.savez(tmp_path / "b.npz", x=bomb)
    np.savez(tmp_path / "c.npz", x=GOOD, label=bomb[:, 0])
    np.savez(tmp_path / "train_data_batch_1.npz", data=bomb, labels=bomb)
    for suffix in (".pkl", ".pt", ".npy", ".npz", ".zip", ".nc", ".bin"):
        (tmp_path / f"d{suffix}").write_bytes(payload)
    for path in [file for file in tmp_path.iterdir() if file.is_file()]:
        for source in (None, *sources()):
            with pytest.raises(ValueError, match=r"."):
                load(path, source=source)
    for labels in (tmp_path / "a.npy", tmp_path / "d.npy", tmp_path / "d.pkl"):
        with pytest.raises(ValueError, match=r"."):
            load("digits", labels=labels)
    assert not Path(trace).exists()
    pickle.loads(payload)  # the payload does work
    assert Path(trace).exists()


def test_members_not_asked_for_are_not_read(tmp_path):
    np.savez(tmp_path / "a.npz", x=GOOD, other=np.array([[None]]))
    assert load(tmp_path / "a.npz").sizes["sample"] == len(GOOD)
