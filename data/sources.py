"""The table of sources: what each is, by what it is recognised, what opens it and with which options."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gaussian_test.data.formats import cifar, idx, imagenet
from gaussian_test.data.formats.arrays import open_npy, open_npz
from gaussian_test.data.formats.csv import open_csv
from gaussian_test.data.formats.embedded import open_digits, open_fashion
from gaussian_test.data.formats.hdf5 import open_hdf5
from gaussian_test.data.formats.images import SUFFIXES, open_folder, open_zip
from gaussian_test.data.formats.netcdf import open_netcdf
from gaussian_test.data.formats.tables import open_arrow, open_parquet
from gaussian_test.data.formats.zarr import is_zarr, open_zarr
from gaussian_test.data.samples import Samples
from gaussian_test.data.values import DataError

Recognises = Callable[[Path, Collection[str]], bool]


def _like(*patterns: str | re.Pattern[str], file: str = "", below: str = "") -> Recognises:
    """Return a test of names: of a file, or of what lies in a folder; some count for files, or one folder further down, alone."""

    def recognises(path: Path, names: Collection[str]) -> bool:
        if path.is_dir() and below and any(re.fullmatch(below, entry.name) for entry in path.glob("[!.]*/*")):
            return True
        wanted = patterns if path.is_dir() or not file else (*patterns, file)
        return any(re.fullmatch(pattern, name) for pattern in wanted for name in names)

    return recognises


@dataclass(frozen=True)
class Source:
    """One source: `recognises` is told a path and its name in lower case, or those of what lies in a folder."""

    description: str
    recognises: Recognises
    opens: Callable[..., Samples]
    takes: frozenset[str]  # options of `load` that it is called with, after the path
    holds: str = "file or folder"


def _source(description: str, recognises: Recognises, opens: Callable[..., Samples], takes: str, holds: str = "") -> Source:
    return Source(description, recognises, opens, frozenset(takes.split()), holds or "file or folder")


def _open_file(path: Path, key: str | None, memory: int, label_key: str | None = None) -> Samples:
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return open_npz(path, key, label_key, memory)
    if suffix != ".npy":
        return open_netcdf(path, key, label_key, memory)
    if label_key is not None:
        raise DataError(f"labels is {label_key!r}: a .npy file holds a single array; give a .npy file with labels, or an array.")
    return open_npy(path, key)


ARRAY = r".*\.(npy|npz|nc|nc4|cdf|netcdf)"
PARQUET, ARROW = r"[^.].*\.(parquet|pq)", r"[^.].*\.arrow"
SOURCES = {
    "digits": _source("handwritten digits of 8 x 8 pixels that come with scikit-learn; needs no file", _like(), open_digits, ""),
    "fashion": _source("5,000 images of Fashion-MNIST, 28 x 28 pixels; needs no file", _like(), open_fashion, ""),
    "cifar10": _source(
        "CIFAR-10 in the binary format: a .bin file, or a folder of data_batch_*.bin and test_batch.bin",
        _like(cifar.TRAIN, cifar.TEST, file=r"(?!(train|test)\.bin).*\.bin"), cifar.open_cifar10, "split",
    ),
    "cifar100": _source(
        "CIFAR-100 in the binary format: train.bin or test.bin, or their folder; labels fine (the default) or coarse",
        _like(cifar.TRAIN_100, cifar.TEST_100), cifar.open_cifar100, "split labels",
    ),
    "idx": _source(
        "MNIST's format: a file of images, or a folder of train-images-idx3-ubyte and t10k-images-idx3-ubyte, .gz or not",
        _like(idx.TRAIN, idx.TEST, file=idx.FILE), idx.open_idx, "split memory",
    ),
    "imagenet": _source(
        "downsampled ImageNet: a .npz batch, or a folder of train_data_batch_*.npz and val_data.npz",
        _like(imagenet.TRAIN, imagenet.TEST), imagenet.open_imagenet, "split memory",
    ),
    "hdf5": _source("an array in an HDF5 file", _like(file=r".*\.(h5|hdf5|hdf|he5)"), open_hdf5, "key labels memory", "file"),
    "zarr": _source("an array in a zarr store, a folder or a .zip", lambda path, _: is_zarr(path), open_zarr, "key labels memory"),
    "parquet": _source(
        "pictures, lists or columns of numbers in a Parquet file, or a folder of them",
        _like(PARQUET, below=PARQUET), open_parquet, "split key labels alpha memory",
    ),
    "arrow": _source(
        "the same in an Arrow or Feather file, or in a folder that datasets.save_to_disk wrote",
        _like(ARROW, file=r".*\.(feather|ipc)", below=ARROW), open_arrow, "split key labels alpha memory",
    ),
    "csv": _source("columns of numbers, with a header or not, in a .csv or .tsv file", _like(file=r".*\.(csv|tsv)"), open_csv,
                   "key labels memory", "file"),
    "file": _source("an array in a .npy, .npz or .nc file", _like(file=ARRAY), _open_file, "key labels memory", "file"),
    "zip": _source("a zip of images, with dataset.json (the EDM data format) or sub-folders as classes", _like(file=r".*\.zip"),
                   open_zip, "alpha memory", "file"),
    "folder": _source("a folder of images, with sub-folders as classes if there are any", lambda path, _: path.is_dir(),
                      open_folder, "alpha memory", "folder"),
}  # fmt: skip
OF_FILES = frozenset({"hdf5", "zarr", "parquet", "arrow", "csv", "file"})  # what is meant by source="file", too


def recognise(path: Path) -> str:
    """Return the source that a file or folder is by its name or contents.

    Raises DataError if it is none.

    Examples
    --------
    >>> recognise(Path("x.npy")), recognise(Path("train-images-idx3-ubyte.gz"))
    ('file', 'idx')
    """
    names = [entry.name for entry in path.iterdir() if entry.name[0] != "."] if path.is_dir() else [path.name.lower()]
    found = next((name for name, source in SOURCES.items() if source.recognises(path, names)), None)
    if found is not None:
        return found
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        raise DataError(f"{path} is a single image: expected a folder or zip of images; give its folder.")
    raise DataError(
        f"{path} ends in {suffix!r}: expected .npy, .npz, .nc, .h5, .zarr, .parquet, .arrow, .csv, .bin, .zip or a folder; convert "
        "it or give source=."
    )


def open_source(path: Path | None, name: str, labels: Any, **options: Any) -> tuple[Samples, Any]:
    """Open a source with the options that it takes, and return it with the labels that are still to be read.

    Raises DataError for options that it does not take, and for a file in place of a folder.
    """
    source = SOURCES[name]
    for option, value in options.items():
        if value is not None and option not in source.takes | {"memory"}:
            fits = ", ".join(one for one, other in SOURCES.items() if option in other.takes)
            raise DataError(f"{option}={value!r} was given with source {name!r}: it is for {fits}; drop {option}.")
    if path is None:
        return source.opens(), labels
    if (path.is_dir() and source.holds == "file") or (path.is_file() and source.holds == "folder"):
        is_, other = ("folder", "file") if path.is_dir() else ("file", "folder")
        raise DataError(f"{path} is a {is_}: expected a {other} for source={name!r}; give the {other} or another source.")
    given = {option: value for option, value in options.items() if option in source.takes}
    if "labels" in source.takes and isinstance(labels, str) and not labels.lower().endswith(".npy"):
        given["label_key"], labels = labels, None
    return source.opens(path, **given), labels
