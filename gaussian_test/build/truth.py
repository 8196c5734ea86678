"""Ground truth of a run: opened, checked, and in a precision that holds its differences."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from gaussian_test import data
from gaussian_test.analysis.moments.moments import Moments
from gaussian_test.analysis.moments.running import chunks
from gaussian_test.build.memory import check_memory, check_streamed, fits_in_memory, memory_cap, memory_needs
from gaussian_test.build.space import Space, build_space
from gaussian_test.build.turns import Turns, choose_turns
from gaussian_test.data.scaling import DType, Precision
from gaussian_test.data.values import MOST_CLASSES
from gaussian_test.errors import UserError
from gaussian_test.experiment import experiment
from gaussian_test.experiment.data import Data
from gaussian_test.store.digest import data_digest
from gaussian_test.store.parts import Fits

FROM_PYTHON = "python"  # source in the archive for samples passed from Python
ROUNDING = 1 / 128  # of a state, in the smallest noise level or the spread of the data


@dataclass(frozen=True)
class Source:
    """Samples that are read on demand, as they were when a run began."""

    settings: Data
    truth: xr.Dataset
    dtype: str
    digest: str
    states: tuple[tuple[str, int, int], ...]  # of its files: name, size and time of modification

    def check(self, whole: bool = False) -> None:
        """Raise if a file has changed its size or time, or if the samples, read once more as a ``whole``, have another digest.

        Raises UserError with the source.
        """
        now = file_states(self.settings)
        if len(now) == len(self.states) and now != self.states:
            name = next(before[0] for before, after in zip(self.states, now, strict=True) if before != after)
        elif whole and data_digest(self.truth, self.dtype) != self.digest:
            name = self.settings.path or "the data set that was given"
        else:
            return  # a file that is gone is missed by who reads it
        raise UserError(f"{name} has changed since the run began: let it be until the run is done, and run again with --overwrite")


def file_states(settings: Data) -> tuple[tuple[str, int, int], ...]:
    """Return name, size and time of modification of every file of a source that is there."""
    if settings.path is None:
        return ()
    path, found = Path(settings.path), []
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        with suppress(OSError):
            state = file.stat()
            found.append((str(file), state.st_size, state.st_mtime_ns))
    return tuple(found)


@dataclass(frozen=True)
class Truth:
    """Ground truth of a run, with what follows from it before scores are built."""

    settings: experiment.Experiment  # with the source and the precision that are used
    truth: xr.Dataset
    resident: bool  # whether the samples of the exact score are held in memory
    source: Source | None  # of samples that stay in their source; None if they are held in memory
    samples: NDArray[np.int64]  # indices to start from
    digest: str
    fits: Fits
    moments: Moments
    turns: Turns
    space: Space | None = None  # whose latents the samples are


def open_truth(
    settings: experiment.Experiment,
    given: xr.Dataset | None,
    folder: Path | None,
    given_classifier: bool,
    shards_only: bool,
    device: torch.device,
) -> Truth:
    """Open the ground truth in the precision of the experiment; ``auto`` is float32 where that holds the differences of states.

    Raises UserError if the samples cannot be used, memory is too little for them, or the precision.
    """
    cap, states = memory_cap(settings), file_states(settings.data)  # before anything is read
    space = build_space(settings.space, device)
    if given is None and space is None:
        truth = load_truth(settings.data, cap, settings.dtype)
        largest = float(np.abs(truth["x"].attrs["valid_range"]).max())
        if settings.dtype == "auto" and truth["x"].dtype == np.float64:  # values that float32 does not hold
            settings = settings.model_copy(update={"dtype": "float64"})
    elif space is None:
        if settings.data.scale is not None:
            raise UserError("data.scale is for data that an experiment names: scale what you hand in, by gaussian_test.data.load")
        truth, largest = checked_truth(given, cap)
        settings = settings.model_copy(update={"data": Data(source=FROM_PYTHON)})
    else:
        pictures = load_truth(settings.data, cap) if given is None else checked_truth(given, cap)[0]
        truth, largest = checked_truth(space.encoded(pictures), cap)
        if given is not None:
            settings = settings.model_copy(update={"data": Data(source=FROM_PYTHON)})

    def opened(dtype: Precision) -> Truth:
        asked = settings.model_copy(update={"dtype": dtype})
        again = given is None and space is None and truth["x"].dtype != dtype
        used = load_truth(settings.data, cap, dtype) if again else truth
        return _open(asked, used, folder, given_classifier, shards_only, states)

    low, high = truth["x"].attrs.get("valid_range", (-np.inf, np.inf))
    dtype = precision(settings.dtype, largest, (high - low) / 2)  # no spread is larger
    found = opened(dtype)
    spread = float(np.sqrt(found.moments.trace / found.truth["x"][0].size))
    scale = float(found.turns.noise_to_signal.min())
    needed = precision(settings.dtype, largest, min(scale, spread or scale))  # equal samples are refused below
    return replace(found if needed == dtype else opened(needed), space=space)


def precision(asked: str, largest: float, scale: float) -> Precision:
    """Return the type in which values up to ``largest`` are rounded by little of ``scale``, and squares of both are normal numbers.

    Raises UserError if the one asked for, or any, is too coarse.
    """
    names: tuple[Precision, ...] = ("float32", "float64")
    fine = [name for name in names if largest * np.finfo(name).eps / 2 <= ROUNDING * scale and _has_squares(name, largest, scale)]
    for name in fine:
        if asked in ("auto", name):
            return name
    remedy = "leave dtype at auto or give float64" if fine else "subtract what all samples share, such as their mean"
    wrong = f"values of up to {largest:.3g} are rounded by more than {ROUNDING:.2g} of {scale:.3g}"
    if not _has_squares("float32" if asked == "float32" else "float64", largest, scale):
        remedy = "leave dtype at auto or give float64" if fine else "give data.scale = unit"
        wrong = f"it does not hold the squares of values of up to {largest:.3g} and of {scale:.3g}"
    raise UserError(f"dtype = {asked}: {wrong}, the smallest noise level or the spread of the data: {remedy}")


def _has_squares(name: str, largest: float, scale: float) -> bool:
    """Return whether sums of a million squares of ``largest``, and differences of squares of ``scale``, are normal numbers."""
    limits = np.finfo(name)
    return largest <= float(np.sqrt(limits.max / 1e6)) and scale >= float(np.sqrt(limits.tiny / limits.eps))


def _open(
    settings: experiment.Experiment,
    truth: xr.Dataset,
    folder: Path | None,
    given_classifier: bool,
    shards_only: bool,
    states: tuple[tuple[str, int, int], ...],
) -> Truth:
    cap = memory_cap(settings)
    load, resident = fits_in_memory(truth, 8 if settings.dtype == "float64" else 4, cap)
    samples = draw_samples(settings, truth.sizes["sample"])
    if not resident:
        check_streamed(settings, given_classifier, cap)
    check_memory(memory_needs(settings, truth, settings.turn_times.number, len(samples), shards_only), settings, cap)
    if load:
        truth = truth.assign(x=truth["x"].load().astype(settings.dtype, copy=False))  # attributes stay
    digest = data_digest(truth, settings.dtype)
    fits = Fits(digest, folder)
    source = None if load else Source(settings.data, truth, settings.dtype, digest, states)
    moments = fits.moments(truth["x"])
    turns = choose_turns(settings, moments, truth["x"], fits)
    return Truth(settings, truth, resident, source, samples, digest, fits, moments, turns)


def checked_truth(truth: Any, memory: int | None = None) -> tuple[xr.Dataset, float]:
    """Return samples from Python as a dataset, and their largest absolute value; what is no Dataset is loaded.

    Raises UserError if it is not of the form of :func:`gaussian_test.data.load`.
    """
    if not isinstance(truth, xr.Dataset):
        truth = data.load(truth, memory=memory)
    if "x" not in truth:
        raise UserError("truth is a Dataset without a variable x: give one as gaussian_test.data.load does")
    x = truth["x"]
    dims = tuple(str(dim) for dim in x.dims)
    if dims not in (("sample", "feature"), ("sample", "channel", "row", "column")):
        raise UserError(f"truth.x has the dimensions {dims}: give (sample, feature) or (sample, channel, row, column)")
    if x.dtype.kind != "f" or x.dtype.itemsize > 8:
        raise UserError(f"truth.x is of type {x.dtype}: give real numbers in float32 or float64, as gaussian_test.data.load does")
    if not x.dtype.isnative:  # torch accepts only native byte order
        truth = truth.assign(x=x.astype(x.dtype.newbyteorder("=")))
    ends = [(float(chunk.min(initial=np.inf)), float(chunk.max(initial=-np.inf))) for chunk in chunks(truth["x"])]
    low, high = min((low for low, _ in ends), default=0.0), max((high for _, high in ends), default=0.0)
    if not np.isfinite(low + high):
        raise UserError("truth.x holds NaN or infinite values: remove or repair them")
    truth = truth.assign(x=truth["x"].assign_attrs(_scaling(x.attrs, low, high)))
    if "label" in truth:
        label = truth["label"]
        if label.dims != ("sample",) or label.dtype.kind not in "iu" or int(label.min()) < 0 or int(label.max()) > MOST_CLASSES:
            raise UserError("truth.label is not one whole number from 0 to a million for each sample: correct it or leave it out")
    return truth, max(-low, high)


def _scaling(attributes: Mapping[Any, Any], low: float, high: float) -> dict[str, Any]:
    """Return scale, offset and range of samples as their attributes say, or as they are where these are not those of the values."""
    try:
        scale, offset = float(attributes["scale"]), float(attributes["offset"])
        smallest, largest = (float(end) for end in attributes.get("valid_range", (low, high)))
    except (KeyError, TypeError, ValueError):
        scale = offset = smallest = largest = np.nan
    if scale and np.isfinite([scale, offset]).all() and smallest <= low <= high <= largest < np.inf:
        return {"scale": scale, "offset": offset, "valid_range": [smallest, largest]}
    return {"scale": 1.0, "offset": 0.0, "valid_range": [low, high]}


def class_names(truth: xr.Dataset) -> dict[int, str]:
    """Return the names of the classes that samples have, by their numbers, which are their names where there are no others."""
    if "label" not in truth:
        return {}
    numbers = np.unique(truth["label"].values).tolist()
    names = {number: str(number) for number in numbers}
    if "class_name" in truth and truth["class_name"].dims == ("class",):
        named = truth["class_name"]
        known = named["class"].values.tolist() if "class" in named.coords else range(named.size)
        names |= {int(number): str(name) for number, name in zip(known, named.values, strict=True) if number in names}
    return names


def load_truth(settings: Data, memory: int, dtype: DType = "auto") -> xr.Dataset:
    """Load the ground truth of an experiment, of which no more than some bytes are read at once."""
    options: dict[str, Any] = settings.model_dump(exclude={"source", "path"}, exclude_none=True)
    if settings.path is None and settings.source == FROM_PYTHON:
        raise UserError(f"data.source = {FROM_PYTHON}: these samples were handed in from python: hand them in again, as truth")
    if settings.path is None:
        assert settings.source is not None
        return data.load(settings.source, memory=memory, dtype=dtype, **options)
    return data.load(Path(settings.path), source=settings.source, memory=memory, dtype=dtype, **options)


def draw_samples(settings: experiment.Experiment, count: int) -> NDArray[np.int64]:
    """Return the indices of the starting samples: all, or some drawn with the seed without replacement.

    Starts that are no samples are numbered from 0, and may outnumber the samples.
    """
    if settings.samples == "all":
        return np.arange(count, dtype=np.int64)
    if settings.start != "noised_data":
        return np.arange(settings.samples, dtype=np.int64)
    if settings.samples > count:
        raise UserError(
            f"samples = {settings.samples} is more than the {count} ground-truth samples: give a smaller number or 'all'"
        )
    return np.sort(np.random.default_rng(settings.seed).choice(count, settings.samples, replace=False)).astype(np.int64)
