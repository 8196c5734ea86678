"""Loader of named data sets, files and folders."""

import math
import os
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from xarray.core.indexing import LazilyIndexedArray

from gaussian_test.data.formats.arrays import npy_rows
from gaussian_test.data.formats.lazy import ScaledArray
from gaussian_test.data.formats.objects import is_path, open_object
from gaussian_test.data.samples import Samples
from gaussian_test.data.scaling import DType, Scale, choose_scaling
from gaussian_test.data.sources import OF_FILES, SOURCES, open_source, recognise
from gaussian_test.data.values import DataError, Labels, cause, check_shape, check_size, encode_labels, nearest
from gaussian_test.locks import numpy_defaults
from gaussian_test.machine import allowed, special

EMBEDDED = ("digits", "fashion")  # sources without a file
_PICKLES = frozenset({".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib"})


def sources() -> dict[str, str]:
    """Return the sources that `load` supports, each with a one-line description.

    Returns
    -------
    dict of str to str
        Description by name.

    Examples
    --------
    >>> list(sources())[:6]
    ['digits', 'fashion', 'cifar10', 'cifar100', 'idx', 'imagenet']
    """
    return {name: source.description for name, source in SOURCES.items()}


@numpy_defaults()
def load(
    name_or_path: Any,
    *,
    source: str | None = None,
    split: Literal["train", "test", "all"] | None = None,
    labels: Any = None,
    key: str | None = None,
    scale: Scale | None = None,
    alpha: Literal["refuse", "white", "black"] | None = None,
    dtype: DType = "auto",
    memory: int | None = None,
    value_range: tuple[float, float] | None = None,
) -> xr.Dataset:
    r"""Load ground-truth samples as $x = \mathrm{scale} \cdot v + \mathrm{offset}$, read on demand.

    Pictures of whole numbers go to [-1, 1]: raw values $v$ of unsigned 8-bit integers from 0..255, 16-bit from 0..65535, the digits
    from 0..16. Floats, and all other whole numbers, stay as they are.
    Files stay on disk: indexing ``x`` reads only the selected samples and caches nothing, so call ``x.load()`` if you use them
    often. Arrays with four axes have their channels last if the last length is 1, 3 or 4 and the second is not, otherwise first.

    Parameters
    ----------
    name_or_path : str, path-like or object
        "digits" or "fashion", or a file or folder; a folder called digits is written "./digits". Or what holds samples: an array, a
        tensor,
        an array of xarray or dask (lazily), a Dataset of xarray, a map-style data set of torch or Hugging Face, or a DataLoader,
        whose data set is read once, in its order.
    source : str or None
        One of `sources`; by default recognised from the path.
    split : {"train", "test", "all"} or None
        Which files of a folder of cifar10, cifar100, idx, imagenet, parquet or arrow; by default all present, train before test.
    labels : str, path-like, array_like or None
        Classes instead of those found: a name in the file, Dataset or data set, such as a column's, "coarse" for CIFAR-100, a
        ``.npy`` file, or one per sample.
    key : str or None
        Name of the samples in the file, Dataset or data set: an array, such as "a/b" in HDF5 and zarr, or a column; by default
        "x", "images" or "data", or the only one that fits.
    scale : {"none", "pictures", "unit"}, tuple of float or None
        "none": values stay as they are. "pictures": the range that is known of type or source goes to [-1, 1], or for other numbers
        [0, 1], [-1, 1] or [0, 255] as recognised. "unit": the mean of all values goes to 0, and the root of the mean variance per
        feature, $\sqrt{\mathrm{tr}\,\Sigma / d}$, to 1. (low, high): raw values that go to -1 and 1. Default: as above.
    alpha : {"refuse", "white", "black"} or None
        What transparent pictures are flattened on; by default they are refused. An opaque alpha channel is dropped.
    dtype : {"auto", "float32", "float64"}
        Of ``x``; "auto" is float32 unless it would round by more than a thousandth of the range of the values.
    memory : int or None
        Most bytes that what is read at once may take, by what its header says: a compressed array, a picture, a sample, a data set
        of torch; by default half of the machine's memory.
    value_range : tuple of float or None
        Deprecated name of ``scale=(low, high)``.

    Returns
    -------
    xarray.Dataset
        ``x`` (sample, channel, row, column) or (sample, feature), dimensionless, with attributes ``scale`` and ``offset`` so that
        the original is (x - offset) / scale, and ``valid_range``, which no value leaves: drop them if you change x. Where classes
        are known, ``label`` (sample): int64, the numbers that they have, or where they have none from 0; and ``class_name``
        (class), with the numbers as coordinate. Attributes ``source`` and ``title``.

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
    >>> load(np.array([[3.0, 4.0], [5.0, 9.0]]), labels=[3, 7]).label.values.tolist()
    [3, 7]
    """
    if value_range is not None:
        warnings.warn("value_range is deprecated: write scale", DeprecationWarning, stacklevel=3)
        scale = value_range
    room = allowed(memory)
    if not is_path(name_or_path):
        for option, value in (("source", source), ("split", split)):
            if value is not None:
                raise DataError(
                    f"{option}={value!r} was given with the {type(name_or_path).__name__}: it is for paths; drop {option}."
                )
        return _scaled(*open_object(name_or_path, key, labels, room), "python", scale, dtype, room)
    try:
        return _load(name_or_path, source, split, labels, key, scale, alpha, dtype, room)
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
    scale: Scale | None,
    alpha: str | None,
    dtype: DType,
    memory: int,
) -> xr.Dataset:
    path, source = _recognise(name_or_path, source)
    samples, labels = open_source(path, source, labels, split=split, key=key, alpha=alpha, memory=memory)
    truth = _scaled(samples, labels, source, scale, dtype, memory, "" if path is None else str(path))
    return truth.assign(x=truth["x"].load()) if path is None else truth


def _scaled(
    samples: Samples, labels: Any, source: str, scale: Scale | None, dtype: DType, memory: int, name: str = ""
) -> xr.Dataset:
    """Return samples with their scaling and classes."""
    rows, name = samples.rows, name or samples.title
    check_shape(rows.shape, name)
    check_size(math.prod(rows.shape[1:]) * rows.dtype.itemsize, memory, f"a sample of {name}")
    scaled = choose_scaling(rows, name, scale, dtype, samples.value_range)
    found = samples.labels if labels is None else encode_labels(_label_array(labels), rows.shape[0], "the labels given")

    dims = ("sample", "feature") if len(rows.shape) == 2 else ("sample", "channel", "row", "column")
    attributes = {
        "long_name": "ground-truth samples",
        "units": "1",
        "scale": scaled.scaling.scale,
        "offset": scaled.scaling.offset,
        "valid_range": [scaled.low, scaled.high],
        "comment": "x = scale * original + offset",
    }
    data = LazilyIndexedArray(ScaledArray(rows, scaled.scaling, scaled.dtype))
    truth = xr.Dataset({"x": xr.Variable(dims, data, attributes)}, attrs={"source": source, "title": samples.title})
    return truth if found is None else _with_classes(truth, found)


def _with_classes(truth: xr.Dataset, found: Labels) -> xr.Dataset:
    truth["label"] = xr.Variable("sample", found.values, {"long_name": "class of the sample", "units": "1"})
    truth["class_name"] = xr.Variable("class", np.array(found.names, dtype=str), {"long_name": "name of the class"})
    numbers = np.arange(len(found.names)) if found.numbers is None else np.array(found.numbers)
    return truth.assign_coords({"class": ("class", numbers, {"long_name": "class of the ground-truth samples"})})


def _recognise(name_or_path: str | os.PathLike[str], source: str | None) -> tuple[Path | None, str]:
    """Return the path, or None for the embedded data, and the name of the source."""
    if source is not None and source not in SOURCES:
        raise DataError(
            f"source is {source!r}: expected one of {', '.join(SOURCES)}; did you mean {nearest(str(source), SOURCES)!r}?"
        )
    if isinstance(name_or_path, str) and name_or_path in EMBEDDED and source in (None, name_or_path):
        return None, name_or_path
    if source in EMBEDDED:
        raise DataError(f"source={source!r} was given with {str(name_or_path)!r}: it needs no file; use load({source!r}).")
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
    """Read labels from a ``.npy`` file, or return them as they are; tensors on the CPU."""
    if not is_path(labels):
        return labels.detach().cpu() if hasattr(labels, "detach") else labels
    path = Path(labels)
    if path.suffix.lower() != ".npy":
        raise DataError(f"labels is {str(labels)!r}: expected a .npy file, a name in a file that has several, or an array.")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: expected a .npy file with labels; check the path.")
    return np.array(npy_rows(path).read(slice(None)))
