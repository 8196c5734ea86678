"""Whatever cannot be used is refused in one sentence that names it, and no pickle ever runs."""

import gzip
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


def idx_of(shape, body, opened=bytes):
    return opened(bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes() + body)


def optional(module):
    return pytest.importorskip(module, reason=f"{module} is an optional part")


def hdf5(make, change=bytes, **options):
    """An HDF5 file whose bytes are changed."""

    def write(folder):
        with optional("h5py").File(folder / "a.h5", "w") as file:
            make(file)
        (folder / "a.h5").write_bytes(change((folder / "a.h5").read_bytes()))
        return folder / "a.h5", options

    return write


def virtual(file):
    import h5py

    layout = h5py.VirtualLayout((4, 3), "f8")
    layout[:] = h5py.VirtualSource("b.h5", "x", (4, 3))
    file.create_virtual_dataset("x", layout)


def zarred(name, change, **options):
    """A zarr array of which one file is changed."""

    def write(folder):
        at = folder / "a.zarr"
        optional("zarr").create_array(at, data=np.arange(24.0).reshape(6, 4), chunks=(3, 4), filters=None, compressors=None)
        change(at / name)
        return at, options

    return write


def rewrite(change):
    return lambda path: path.write_bytes(change(path.read_bytes()))


def pipe_instead(path):
    path.unlink()
    os.mkfifo(path)


def tabled(columns, change=bytes, kind="parquet", written=(), **options):
    def write(folder):
        table = optional("pyarrow").table(columns)
        module = optional({"parquet": "pyarrow.parquet", "feather": "pyarrow.feather"}[kind])
        getattr(module, {"parquet": "write_table", "feather": "write_feather"}[kind])(table, folder / f"a.{kind}", **dict(written))
        (folder / f"a.{kind}").write_bytes(change((folder / f"a.{kind}").read_bytes()))
        return folder / f"a.{kind}", options

    return write


TWO = {"a": np.arange(9.0), "b": np.arange(9.0)}
ZEROS = {"x": np.zeros(10**6, np.uint8)}
PAIR = [[0.5, 1.0], [0.0, 2.0], [1.0, 3.0]]
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
    "unknown suffix": (raw("a.dat", b"1,2"), "'.dat'"),
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
    "nan netcdf": (netcdf({"x": (("feature", "sample"), [[0.5, 1, np.nan]] * 2)}), "'x' in", "missing value", "sample 2"),
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
    "cifar100 size": (raw("train.bin", bytes(3074 * 2 + 1)), "6149 bytes", "3074", "CIFAR-100"),
    "cifar100 label": (raw("test.bin", bytes([0, 100]) + bytes(3072)), "label 100 at sample 0", "0 to 99"),
    "cifar100 coarse": (raw("test.bin", (bytes([20, 1]) + bytes(3072)) * 2, labels="coarse"), "label 20", "0 to 19"),
    "cifar100 names": (raw("test.bin", bytes(6148), labels="rough"), "'rough'", "'fine' and 'coarse'"),
    "idx magic": (raw("a.idx", b"\0\0\7\3" + bytes(99)), "does not begin as an IDX file"),
    "idx empty": (raw("a.idx", b""), "does not begin as an IDX file"),
    "idx cut": (raw("a.idx", idx_of((4, 3, 2), bytes(23))), "23 bytes", "says 24"),
    "idx long": (raw("a.idx.gz", idx_of((4, 3, 2), bytes(25), gzip.compress)), "24 bytes of values or more", "says 24"),
    "idx cut gz": (raw("a.idx.gz", idx_of((9, 9), os.urandom(81), gzip.compress)[:60]), "a.idx.gz is damaged"),
    "idx flipped gz": (raw("a.idx.gz", flipped(idx_of((9, 9), os.urandom(81), gzip.compress), 50)), "a.idx.gz"),
    "idx no gz": (raw("a.idx.gz", idx_of((9, 9), bytes(81))), "a.idx.gz is damaged"),
    "idx bomb": (raw("a.idx.gz", idx_of((60000, 9999, 9999), bytes(9), gzip.compress), memory=10**9), "takes 6.0TB", "1.0GB given"),
    "idx labels alone": (raw("train-labels-idx1-ubyte", idx_of((5,), bytes(5))), "(5,)"),
    "idx one without labels": (
        folder(
            {
                "train-images-idx2-ubyte": idx_of((2, 2), b"abcd"),
                "train-labels-idx1-ubyte": idx_of((2,), b"ab"),
                "t10k-images-idx2-ubyte": idx_of((2, 2), b"abcd"),
            }
        ),
        "labels for 1 of 2 files",
    ),
    "idx label count": (
        folder({"train-images-idx2-ubyte": idx_of((2, 2), b"abcd"), "train-labels-idx1-ubyte": idx_of((3,), b"abc")}),
        "(3,) for 2 samples",
    ),
    "idx label axes": (
        folder({"train-images-idx2-ubyte": idx_of((2, 2), b"abcd"), "train-labels-idx1-ubyte": idx_of((2, 2), b"abcd")}),
        "(2, 2): expected one label per sample",
    ),
    "idx sizes": (
        folder({"train-images-idx2-ubyte": idx_of((2, 2), b"abcd"), "t10k-images-idx2-ubyte": idx_of((2, 1), b"ab")}),
        "different shapes",
    ),
    "fifo idx labels": (
        both(folder({"train-images-idx2-ubyte": idx_of((2, 2), b"abcd")}), fifo("d/train-labels-idx1-ubyte")),
        "a named pipe",
    ),
    "hdf5 no file": (raw("a.h5", b"no" * 99), "a.h5 cannot be read"),
    "hdf5 cut": (hdf5(lambda file: file.update(x=np.arange(9e3).reshape(9, -1)), lambda held: held[:-5000]), "cannot be read"),
    "hdf5 key": (hdf5(lambda file: file.update({"a/b": PAIR}), key="a/c"), "no variable 'a/c'", "a/b"),
    "hdf5 several": (hdf5(lambda file: file.update({"a/b": PAIR, "c": PAIR})), "a/b, c", "key="),
    "hdf5 nothing": (hdf5(lambda file: file.update({"a": [1.0, 2.0]})), "holds the variables a"),
    "hdf5 strings": (hdf5(lambda file: file.update(x=[["a", "b"]] * 2)), "'x'", "strings"),
    "hdf5 complex": (hdf5(lambda file: file.update(x=np.ones((2, 2), complex))), "'x'", "complex128"),
    "hdf5 records": (hdf5(lambda file: file.update(x=np.zeros((2, 2), "i4, f4"))), "'x'", "dtype"),
    "hdf5 elsewhere": (hdf5(virtual, key="x"), "'x' in", "lies in other files"),
    "hdf5 link": (
        hdf5(lambda file: file.update(x=__import__("h5py").ExternalLink("/dev/zero", "/x"))),
        "holds the variables (none)",
    ),
    "hdf5 claim": (hdf5(lambda file: file.create_dataset("x", (10**6, 10**5), "f4", chunks=(1, 1000))), "claims 400.0GB"),
    "hdf5 chunk": (
        hdf5(lambda file: file.create_dataset("x", data=np.zeros((9, 10**5)), chunks=(9, 10**5), compression=9), memory=10**6),
        "takes 7.2MB in memory at a time",
    ),
    "fifo hdf5": (fifo("a.h5"), "a.h5 is a named pipe"),
    "zarr damaged": (zarred("zarr.json", rewrite(lambda held: held[:-30])), "a.zarr cannot be read"),
    "zarr cut chunk": (zarred("c/1/0", rewrite(lambda held: held[:-3])), "cannot be read"),
    "zarr claim": (zarred("zarr.json", rewrite(lambda held: held.replace(b"6,", b"6000000000,"))), "claims 192.0GB"),
    "zarr chunk": (
        zarred("zarr.json", rewrite(lambda held: re.sub(rb'(chunk_shape": \[\s*)3', rb"\g<1>3000", held)), memory=10**4),
        "takes 96.0KB in memory at",
    ),
    "fifo zarr": (zarred("c/1/0", pipe_instead), "c/1/0 is a named pipe"),
    "link in zarr": (zarred("linked", lambda path: path.symlink_to("/")), "linked is a link to a folder"),
    "zarr no store": (folder({"a.txt": b""}, source="zarr"), "is not a zarr store"),
    "zarr zip": (zipped({"zarr.json": b"{"}), "a.zip cannot be read"),
    "parquet cut": (tabled(TWO, lambda held: held[:-9]), "a.parquet cannot be read"),
    "parquet flipped": (tabled(TWO, lambda held: held[:4] + os.urandom(60) + held[64:]), "cannot be read"),
    "parquet text": (tabled(TWO | {"name": ["a"] * 9}), "'name'", "holds string", "labels="),
    "parquet gap": (tabled({"a": [1.0, None, 3.0], "b": [1, 2, 3]}), "'a' in", "no value in sample 1"),
    "parquet gap in list": (tabled({"a": [[1, 2], [3, None]]}), "'a' in", "no value in sample 1"),
    "parquet no label": (tabled({"a": [1.0, 2.0], "label": ["a", None]}), "'label' in", "no value in sample 1"),
    "parquet ragged": (tabled({"a": [[1.0], [2.0, 3.0]]}), "'a' in", "lists of 1 to 2"),
    "parquet ragged groups": (tabled({"a": [[1.0], [2.0, 3.0]]}, written={"row_group_size": 1}), "'a' in", "from sample 1"),
    "parquet several": (tabled({"a": PAIR, "b": PAIR}), "a, b", "key="),
    "parquet key": (tabled(TWO, key="c"), "no column 'c'", "a, b"),
    "parquet dates": (tabled({"a": np.arange(3).astype("M8[s]")}), "'a' in", "timestamp"),
    "parquet no rows": (tabled({"a": np.zeros(0)}), "0 samples"),
    "parquet path alone": (tabled({"image": [{"bytes": None, "path": "a.png"}] * 2}), "sample 0 of 'image'", "holds no bytes"),
    "parquet damaged picture": (
        tabled({"image": [{"bytes": png()}, {"bytes": png()[:50]}]}),
        "sample 1 of",
        "not a readable image",
    ),
    "parquet bomb": (tabled(ZEROS, memory=10**5), "a group of 1000000 samples", "takes 4.0MB in memory at a time"),
    "parquet split": (tabled(TWO, split="train"), "split='train'"),
    "parquet partitions": (
        both(tabled(TWO), lambda at: folder({"label=3/a.parquet": b""})(at)),
        "label=3/a.parquet is partitioned",
    ),
    "parquet folder split": (folder({"train-0.parquet": b""}, split="test"), "holds no Parquet file for split='test'"),
    "fifo parquet": (both(folder({}), fifo("d/b.parquet")), "b.parquet", "a named pipe"),
    "arrow no file": (raw("a.arrow", b"no" * 99), "a.arrow cannot be read"),
    "arrow empty": (raw("a.arrow", b""), "a.arrow cannot be read"),
    "arrow cut": (tabled(TWO, lambda held: held[:-200], "feather"), "a.feather cannot be read"),
    "arrow flipped": (tabled(TWO, lambda held: held[:200] + os.urandom(99) + held[299:], "feather"), "a.feather"),
    "arrow bomb": (
        tabled(ZEROS, kind="feather", written={"compression": "zstd", "chunksize": 10**6}, memory=10**5),
        "a group of 1000000 samples",
        "takes 1.0MB in memory at a time",
    ),
    "csv text": (raw("a.csv", b"a,b\n1,2\n3,cat\n"), "'cat' in column 'b' of sample 1"),
    "csv gap": (raw("a.csv", b"a,b\n1,2\n,4\n"), "no value in column 'a' of sample 1"),
    "csv no label": (raw("a.csv", b"a,label\n1,x\n3,\n"), "no label in column 'label' of sample 1"),
    "csv ragged": (raw("a.csv", b"1,2\n3,4,5\n"), "a.csv is not a readable table"),
    "csv empty": (raw("a.csv", b""), "a.csv is not a readable table"),
    "csv column": (raw("a.csv", b"a,b\n1,2\n3,4\n", labels="c"), "no column 'c'", "a, b"),
    "csv one column short": (raw("a.csv", b"a,b,c\n1,2,3\n3,4\n"), "no value in column 'c' of sample 1"),
    "csv nan": (raw("a.csv", b"a,b\n1,2\n3,inf\n"), "NaN or infinite"),
    "csv bytes": (raw("a.csv", b"\xff\xfe\0" * 50 + b"\n\0\n"), "a.csv"),
    "csv memory": (raw("a.csv", b"1,2\n" * 5000, memory=10**5), "a.csv takes", "100.0KB given"),
    "fifo csv": (fifo("a.csv"), "a.csv is a named pipe"),
    "alpha": (folder({"a.png": png()}, alpha="grey"), "alpha is 'grey'", "'white'"),
    "alpha of numbers": (npy(GOOD, alpha="white"), "alpha='white'", "folder"),
    "transparent 16 bits": (
        folder({"a.png": content(Image.new("I;16", (4, 4)).save, "PNG", transparency=3)}),
        "a.png has 16 bits and",
    ),
    "index below": (
        zipped({"m/0/a.png": png(), "n/0/b.png": png(), "m/dataset.json": "{}"}),
        "m/dataset.json",
        "does not lie on top",
    ),
    "one name twice": (zipped({"m/a.png": png(), "m\\a.png": png()}), "several files of one name"),
    "empty folder": (folder({}), "holds no images"),
    "no pictures": (folder({"a.txt": b"hello"}), "holds no images"),
    "hidden pictures": (folder({".a/a.png": png(), ".b.png": png()}), "holds no images"),
    "sizes": (folder({"a.png": png(), "b.png": png((4, 5))}), "b.png has 4 x 5 pixels"),
    "modes": (folder({"a.png": png(), "b.png": png(mode="L")}), "b.png", "mode L"),
    "depths": (folder({"a.png": png(mode="L"), "b.png": png(mode="I;16")}), "b.png", "mode I;16"),
    "print colours": (folder({f"{i}.tif": content(Image.new("CMYK", (4, 4)).save, "TIFF") for i in "ab"}), "a.tif has mode CMYK"),
    "one bit beside colours": (folder({"a.png": png(mode="1"), "b.png": png()}), "b.png has 4 x 4 pixels of mode RGB", "mode L"),
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
    if "which is not installed" in message:
        pytest.skip(message)
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
        assert early is None or file.name == "network_record.py", file


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
