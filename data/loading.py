"""Loader of named data sets, files and folders."""

import math
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from xarray.core.indexing import LazilyIndexedArray

from gaussian_test.data.formats.arrays import npy_rows
from gaussian_test.data.formats.lazy import ScaledArray
from gaussian_test.data.sources import OF_FILES, SOURCES, open_source, recognise
from gaussian_test.data.values import DataError, DType, cause, check_shape, check_size, choose_scaling, encode_labels, nearest
from gaussian_test.locks import numpy_defaults
from gaussian_test.machine import allowed, special

_PICKLES = frozenset({".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib"})


def sources() -> dict[str, str]:
    """Return the sources that `load` supports, each with a one-line description.

    Returns
    -------
    dict of str to str
        Description by name.

    Examples
    --------
    >>> list(sources())
    ['digits', 'cifar10', 'cifar100', 'idx', 'imagenet', 'hdf5', 'zarr', 'parquet', 'arrow', 'csv', 'file', 'zip', 'folder']
    """
    return {name: source.description for name, source in SOURCES.items()}


@numpy_defaults()
def load(
    name_or_path: str | os.PathLike[str],
    *,
    source: str | None = None,
    split: Literal["train", "test", "all"] | None = None,
    labels: Any = None,
    key: str | None = None,
    value_range: tuple[float, float] | None = None,
    alpha: Literal["refuse", "white", "black"] | None = None,
    dtype: DType = "float32",
    memory: int | None = None,
) -> xr.Dataset:
    r"""Load ground-truth samples as $x = \mathrm{scale} \cdot v + \mathrm{offset}$ in [-1, 1], read on demand.

    Raw values $v$ of unsigned 8-bit integers map from 0..255, 16-bit from 0..65535, the digits from 0..16; floats
    within [-1, 1] stay as they are; any other numbers map from their smallest and largest value, with one scale for all features.
    Files stay on disk: indexing ``x`` reads only the selected samples and caches nothing, so call ``x.load()`` if you use them
    often. Arrays with four axes have their channels last if the last length is 1, 3 or 4 and the second is not, otherwise first.

    Parameters
    ----------
    name_or_path : str or path-like
        "digits", or a file or folder; a folder called digits is written "./digits".
    source : str or None
        One of `sources`; by default recognised from the path.
    split : {"train", "test", "all"} or None
        Which files of a folder of cifar10, cifar100, idx, imagenet, parquet or arrow; by default all present, train before test.
    labels : str, path-like, array_like or None
        Classes instead of those found: a name in the file, such as a column's, "coarse" for CIFAR-100, a ``.npy`` file, or one per
        sample.
    key : str or None
        Name of the samples in the file: an array, such as "a/b" in HDF5 and zarr, or a column; by default "x", "images" or "data",
        or the only one that fits.
    value_range : tuple of float or None
        Raw values, in the units of the source, that map to -1 and 1.
    alpha : {"refuse", "white", "black"} or None
        What transparent pictures are flattened on; by default they are refused. An opaque alpha channel is dropped.
    dtype : {"float32", "float64"}
        Of ``x``.
    memory : int or None
        Most bytes that what is read at once may take, by what its header says: a compressed array, a picture, a sample; by default
        half of the machine's memory.

    Returns
    -------
    xarray.Dataset
        ``x`` (sample, channel, row, column) or (sample, feature): in [-1, 1], dimensionless, with attributes
        ``scale`` and ``offset`` so that the original is (x - offset) / scale. Where classes are known, ``label``
        (sample): int64 from 0, and ``class_name`` (class). Attributes ``source`` and ``title``.

    Raises
    ------
    FileNotFoundError
        If the path does not exist.
    DataError
        A ValueError whose message is one sentence: an unknown source, a damaged file, a pickle, wrong shapes or types,
        NaN, infinite or constant values, fewer than two samples, labels that do not fit, or more than ``memory``.

    Examples
    --------
    >>> truth = load("digits")
    >>> dict(truth.x.sizes)
    {'sample': 1797, 'channel': 1, 'row': 8, 'column': 8}
    >>> float(truth.x.min()), float(truth.x.max()), truth.x.attrs["scale"]
    (-1.0, 1.0, 0.125)
    """
    try:
        return _load(name_or_path, source, split, labels, key, value_range, alpha, dtype, allowed(memory))
    except FileNotFoundError as error:
        raise FileNotFoundError(" ".join(str(error).splitlines())) from None  # a path may span lines
    except OSError as error:
        what, why = (error.filename, error.strerror) if error.filename and error.strerror else (name_or_path, cause(error))
        raise DataError(f"{what} cannot be read ({why}): check the file and its permissions.") from error


def _load(
    name_or_path: str | os.PathLike[str],
    source: str | None,
    split: Literal["train", "test", "all"] | None,
    labels: Any,
    key: str | None,
    value_range: tuple[float, float] | None,
    alpha: str | None,
    dtype: DType,
    memory: int,
) -> xr.Dataset:
    path, source = _recognise(name_or_path, source)
    name = source if path is None else str(path)
    samples, labels = open_source(path, source, labels, split=split, key=key, alpha=alpha, memory=memory)
    rows = samples.rows
    check_shape(rows.shape, name)
    check_size(math.prod(rows.shape[1:]) * rows.dtype.itemsize, memory, f"a sample of {name}")
    scaling = choose_scaling(rows, name, samples.value_range if value_range is None else value_range, dtype)
    found = samples.labels if labels is None else encode_labels(_label_array(labels), rows.shape[0], "the labels given")

    dims = ("sample", "feature") if len(rows.shape) == 2 else ("sample", "channel", "row", "column")
    attributes = {
        "long_name": "ground-truth samples",
        "units": "1",
        "scale": scaling.scale,
        "offset": scaling.offset,
        "comment": "x = scale * original + offset",
    }
    data = scaling.apply(rows.read(slice(None)), dtype) if path is None else LazilyIndexedArray(ScaledArray(rows, scaling, dtype))
    truth = xr.Dataset({"x": xr.Variable(dims, data, attributes)}, attrs={"source": source, "title": samples.title})
    if found is not None:
        truth["label"] = xr.Variable("sample", found.values, {"long_name": "class of the sample", "units": "1"})
        truth["class_name"] = xr.Variable("class", np.array(found.names, dtype=str), {"long_name": "name of the class"})
    return truth


def _recognise(name_or_path: str | os.PathLike[str], source: str | None) -> tuple[Path | None, str]:
    """Return the path, or None for the embedded data, and the name of the source."""
    if source is not None and source not in SOURCES:
        raise DataError(
            f"source is {source!r}: expected one of {', '.join(SOURCES)}; did you mean {nearest(str(source), SOURCES)!r}?"
        )
    if name_or_path == "digits" and source in (None, "digits"):
        return None, "digits"
    if source == "digits":
        raise DataError(f"source='digits' was given with {str(name_or_path)!r}: it needs no file; use load('digits').")
    path = Path(name_or_path)
    if path.suffix.lower() in _PICKLES:
        raise DataError(
            f"{path} is a pickle, and reading a pickle runs the code inside it: convert it to .npz, where you trust it, with "
            "numpy.savez(file, x=..., label=...)."
        )
    if not path.exists():
        text = str(name_or_path)
        if text in SOURCES:
            raise DataError(f"{text!r} needs a file or folder: expected load(path, source={text!r}).")
        if path.suffix or os.sep in text:
            raise FileNotFoundError(f"{path} does not exist: expected a file or folder with samples; check the path.")
        if source is not None:
            raise FileNotFoundError(f"{path} does not exist: expected a file or folder with samples; check the path.")
        raise DataError(
            f"{text!r} is neither a source nor a file: expected one of {', '.join(SOURCES)} or a path; did you mean "
            f"{nearest(text, SOURCES)!r}?"
        )
    if kind := special(path):
        raise DataError(f"{path} is {kind}: expected a file or folder with samples; save them to a file.")
    if source is None or (source == "file" and recognise(path) in OF_FILES):
        source = recognise(path)
    return path, source


def _label_array(labels: Any) -> Any:
    """Read labels from a ``.npy`` file, or return them as they are."""
    if not isinstance(labels, (str, os.PathLike)):
        return labels
    path = Path(labels)
    if path.suffix.lower() != ".npy":
        raise DataError(f"labels is {str(labels)!r}: expected a .npy file, a name in a file that has several, or an array.")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: expected a .npy file with labels; check the path.")
    return np.array(npy_rows(path).read(slice(None)))
