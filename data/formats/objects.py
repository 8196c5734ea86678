"""Samples handed in from python: arrays, tensors, xarray and dask, and data sets of torch."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from gaussian_test.data.formats.arrays import LABEL_KEYS, NAMES_KEY, X_KEYS
from gaussian_test.data.formats.images import MODES
from gaussian_test.data.formats.rows import Array, MemoryRows, Rows, Selection, as_images
from gaussian_test.data.formats.variables import is_label
from gaussian_test.data.samples import Samples
from gaussian_test.data.values import DataError, Labels, cause, check_shape, check_size, encode_labels

EVENT = ("channel", "row", "column")
PICTURES = (*X_KEYS, "image", "img", "pixel_values")  # names of samples in a data set
EXPECTED = "a numpy array, a tensor, an xarray or dask array, a Dataset of xarray or torch, or a path"


class LazyRows:
    """Samples of an array of dask or xarray, computed when they are read.

    Parameters
    ----------
    array : dask array or DataArray
        Samples along the first axis.

    Examples
    --------
    >>> LazyRows(xr.DataArray(np.eye(3))).read(slice(1, 2))
    array([[0., 1., 0.]])
    """

    def __init__(self, array: Any) -> None:
        self._array = array
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.dtype: np.dtype[Any] = array.dtype

    def read(self, selection: Selection) -> Array:
        """Return the selected samples, (selected, ...)."""
        return np.asarray(self._array[selection])


def open_object(given: Any, key: str | None, labels: Any, memory: int) -> tuple[Samples, Any]:
    """Open what was handed in, and return it with the labels still to be encoded.

    Dimensions of xarray called sample, channel, row and column are recognised by name. A data set of torch (or anything else with a
    length whose items are samples, pairs of sample and class, or dicts) is read into memory once; of a DataLoader its data set is.

    Raises
    ------
    DataError
        If it is none of these, ``key`` or ``labels`` name nothing in it, or it takes more than ``memory`` bytes.

    Examples
    --------
    >>> open_object(np.zeros((5, 8, 8)), None, None, 10**6)[0].rows.shape
    (5, 1, 8, 8)
    >>> open_object([(np.zeros(3), 7), (np.ones(3), 3)], None, None, 10**6)[0].labels.values.tolist()
    [7, 3]
    """
    what = f"the {type(given).__name__} given"
    if isinstance(given, xr.Dataset):
        return _of_dataset(given, key, labels, what)
    if hasattr(given, "dataset") and hasattr(given, "batch_size"):  # a DataLoader
        given = given.dataset
    is_set = not hasattr(given, "__array__") and not isinstance(given, str | bytes | Mapping | set | frozenset)
    if is_set and hasattr(given, "__getitem__") and hasattr(given, "__len__"):
        return _of_items(given, key, labels, f"the {type(given).__name__} given", memory)
    if not hasattr(given, "__array__"):
        raise DataError(f"{what} is nothing that holds samples: expected {EXPECTED}.")
    if key is not None:
        raise DataError(f"key={key!r} was given with {what}, which holds a single array; drop key.")
    if isinstance(given, xr.DataArray):
        return _of_variable(given, what), _named(labels, given.coords, what)
    rows = LazyRows(given) if hasattr(given, "dask") else MemoryRows(_plain(given, what))
    if any(not isinstance(length, int) for length in rows.shape):
        raise DataError(f"{what} has a length that dask does not know: call its compute_chunk_sizes().")
    check_shape(rows.shape, what)
    return Samples(as_images(rows), "array given in python"), labels


def _of_dataset(given: xr.Dataset, key: str | None, labels: Any, what: str) -> tuple[Samples, Any]:
    if key is None:
        fit = [str(name) for name, one in given.data_vars.items() if 2 <= one.ndim <= 4 and name != labels]
        key = next((name for name in X_KEYS if name in fit), fit[0] if len(fit) == 1 else None)
    if key is None or key not in given:
        raise DataError(f"{what} holds the variables {_listed(given.data_vars)}: name the one with samples by key=.")
    samples = _of_variable(given[key], what)
    count = samples.rows.shape[0]
    labelled = next((name for name in LABEL_KEYS if name != key and is_label(given.variables.get(name), name, count)), None)
    if labels is None and labelled is not None and given[labelled].ndim == 1:
        names = _class_names(given)
        found = encode_labels(given[labelled].values, samples.rows.shape[0], f"the labels {labelled!r} in {what}", names)
        return Samples(samples.rows, samples.title, found), None
    return samples, _named(labels, given, what)


def _class_names(given: xr.Dataset) -> list[str] | None:
    """Return the names of classes 0 to K-1, or None if there are none, or other classes."""
    if NAMES_KEY not in given or given[NAMES_KEY].ndim != 1:
        return None
    names = given[NAMES_KEY]
    numbered = names.dims[0] in names.coords and not np.array_equal(names[names.dims[0]].values, np.arange(len(names)))
    return None if numbered else [str(name) for name in names.values]


def _of_variable(given: xr.DataArray, what: str) -> Samples:
    dims = [str(dim) for dim in given.dims]
    sample = "sample" if "sample" in dims else dims[0] if dims else ""
    event = [dim for dim in dims if dim != sample]
    ours = [dim for dim in EVENT if dim in event]
    rows: Rows = LazyRows(given.transpose(sample, *(ours if len(ours) == len(event) else event)))
    check_shape(rows.shape, what)
    title = f"{given.name or type(given).__name__} given in python"
    return Samples(rows if tuple(ours) == EVENT else as_images(rows), title)


def _of_items(given: Any, key: str | None, labels: Any, what: str, memory: int) -> tuple[Samples, Any]:
    """Read a data set once: its items may be drawn anew at every look, and cost a call each."""
    count = len(given)
    if count < 2:
        raise DataError(f"{what} holds {count} sample(s): expected at least 2.")
    try:
        first = given[0]
    except Exception as error:  # code of the user's, which may raise anything
        raise DataError(f"{what} cannot be read (item 0: {type(error).__name__}: {cause(error)}): expected {EXPECTED}.") from error
    names = _names_of(first, key, labels, what)
    sample = _sample(_parts(first, names)[0], f"item 0 of {what}")
    check_size(count * sample.nbytes, memory, what)
    out, found = np.empty((count, *sample.shape), sample.dtype), []
    for index in range(count):
        try:
            x, label = _parts(given[index] if index else first, names)
        except Exception as error:
            raise DataError(f"{what} cannot be read (item {index}: {type(error).__name__}: {cause(error)}).") from error
        one = _sample(x, f"item {index} of {what}")
        if one.shape != sample.shape or one.dtype != sample.dtype:
            raise DataError(
                f"item {index} of {what} has shape {one.shape} and dtype {one.dtype}: expected {sample.shape} and {sample.dtype} "
                "like item 0; make the samples equal."
            )
        out[index] = one
        found.append(label)
    rows = as_images(MemoryRows(out))
    check_shape(rows.shape, what)
    known = None
    if (labels is None or isinstance(labels, str)) and found[0] is not None:
        plain = [label if isinstance(label, str) else np.asarray(_detached(label)) for label in found]
        ragged = len({np.shape(label) for label in plain}) > 1
        known = _encoded(np.array([0.5]) if ragged else np.array(plain), count, what, _class_names_of(given, names[1]))
        labels = None
    return Samples(rows, f"{type(given).__name__} given in python", known), labels


def _encoded(values: Array, count: int, what: str, names: Sequence[str] | None) -> Labels:
    try:
        return encode_labels(values, count, f"the second parts of the items of {what}", names)
    except DataError as error:
        raise DataError(f"{str(error).rstrip('.')}; or give labels=.") from None


def _names_of(item: Any, key: str | None, labels: Any, what: str) -> tuple[str, str | None]:
    """Return the names of sample and class in items that are dicts; of others, empty ones."""
    if not isinstance(item, Mapping):
        if key is not None or isinstance(labels, str):
            raise DataError(f"key and labels name columns, and the items of {what} have none: give labels as an array, drop key.")
        return "", None
    columns = [str(name) for name in item]
    label = labels if isinstance(labels, str) else next((name for name in LABEL_KEYS if name in columns and name != key), None)
    if key is None:
        fit = [name for name in columns if name != label and np.ndim(_detached(item[name])) and not isinstance(item[name], str)]
        key = next((name for name in PICTURES if name in columns), fit[0] if len(fit) == 1 else None)
    if key not in columns or (label is not None and label not in columns):
        raise DataError(
            f"{what} has the columns {', '.join(columns)}: name the one with samples by key=, that of classes by labels=."
        )
    return key, label


def _parts(item: Any, names: tuple[str, str | None]) -> tuple[Any, Any]:
    """Return sample and class of an item; None where it has no class."""
    if isinstance(item, Mapping):
        return item[names[0]], None if names[1] is None else item[names[1]]
    if isinstance(item, tuple):
        return item[0], item[1] if len(item) > 1 else None
    return item, None


def _class_names_of(given: Any, label: str | None) -> list[str] | None:
    """Return the names of classes as torchvision (``classes``) and Hugging Face (``features``) keep them."""
    named = getattr(getattr(given, "features", None) or {}, "get", lambda _: None)(label)
    found = getattr(named, "names", None) or getattr(given, "classes", None)
    return [str(name) for name in found] if isinstance(found, list | tuple) else None


def _sample(value: Any, what: str) -> Array:
    mode = getattr(value, "mode", None)
    if isinstance(mode, str) and hasattr(value, "getbands") and mode not in MODES:
        raise DataError(f"{what} has mode {mode}: expected one of {', '.join(MODES)}; convert it, as with image.convert('RGB').")
    return _plain(value, what)


def _detached(value: Any) -> Any:
    """Return a tensor of torch on the CPU, in a type that numpy has."""
    if not hasattr(value, "detach"):
        return value
    value = value.detach().cpu()
    return value.float() if str(value.dtype) == "torch.bfloat16" else value


def _plain(value: Any, what: str) -> Array:
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise DataError(f"{what} has masked values: fill them in or leave out their samples.")
    try:
        return np.asarray(_detached(value))
    except Exception as error:  # sparse or ragged things, and objects of anybody
        raise DataError(
            f"{what} is not an array ({type(error).__name__}: {cause(error)}): expected numbers of one shape."
        ) from error


def _named(labels: Any, given: Mapping[Any, xr.DataArray] | xr.Dataset, what: str) -> Any:
    """Return labels, by their name in a Dataset or among coordinates; a path stays one."""
    if not isinstance(labels, str) or labels.lower().endswith(".npy"):
        return labels
    if labels not in given:
        raise DataError(f"{what} has no {labels!r}: expected labels in one of {_listed(given)}, or an array.")
    return given[labels].values


def _listed(names: Any) -> str:
    return ", ".join(sorted(map(str, names))) or "(none)"


def is_path(given: Any) -> bool:
    """Return whether something is the name of a source or a path.

    Examples
    --------
    >>> is_path("digits"), is_path(np.eye(2))
    (True, False)
    """
    return isinstance(given, str | os.PathLike)
