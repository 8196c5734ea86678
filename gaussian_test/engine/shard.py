"""Computation of one shard, writing of its part, and the table of all."""

import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from gaussian_test import data, sampler
from gaussian_test.analysis.declarations import declared
from gaussian_test.analysis.observables.record import Observable, Shard
from gaussian_test.analysis.observables.run import FACTS
from gaussian_test.analysis.observables.sample_table import SampleTable
from gaussian_test.build.problem import Prepared
from gaussian_test.build.scores import evaluating
from gaussian_test.engine.interruption import Interrupted, Interruption
from gaussian_test.errors import UserError, user_input
from gaussian_test.locks import SharedSetting
from gaussian_test.log import Progress
from gaussian_test.sampler.defaults import undisturbed
from gaussian_test.sampler.process import Time, as_time
from gaussian_test.store.parts import Parts

LARGE = 2**25  # bytes of an array of the table that is in a file, where there is a folder for it


def run_shard(prepared: Prepared, shard: tuple[int, ...]) -> xr.Dataset:
    """Run one shard.

    Raises UserError if a score fails or returns NaN, or memory runs out.
    """
    before = [score.micro_batch for score in prepared.scores.values()]
    kept = tuple(np.intersect1d(shard, prepared.kept).tolist())  # both ascend
    with _same_source(prepared), _user_errors(prepared):
        result, states = _turns(prepared, shard, kept)
        _check_finite(prepared, result, shard)
        for observable in prepared.observables if kept else ():
            if observable.runs:
                states = states.merge(observable.function(observable.runs)(_shard(prepared, observable, kept)), compat="override")
    if before != [score.micro_batch for score in prepared.scores.values()]:
        return run_shard(prepared, shard)  # a micro-batch was halved: repeat the shard with one size
    for name in states.data_vars:
        if not np.isfinite(states[name].values).all():
            raise UserError(
                f"{str(name).replace('_', ' ')} of a score is NaN or infinite, while its U-Turns are not: fix the model or leave "
                "'starts' and 'chains' out of observables; the shards finished before are kept"
            )
    sizes = [score.micro_batch or prepared.plan.micro_batch for score in prepared.scores.values()]
    sizes_of_rows = np.repeat(np.array(sizes, dtype=np.int64)[:, None], len(shard), axis=1)
    result = result.merge(declared(FACTS, {"micro_batch": sizes_of_rows}))
    return result.merge(states, compat="override", join="exact")


@contextmanager
def _same_source(prepared: Prepared) -> Iterator[None]:
    """Raise if the source of the samples has changed meanwhile, whatever else went wrong by that."""
    try:
        yield
    except Exception:
        if prepared.source is not None:
            prepared.source.check()
        raise
    if prepared.source is not None:
        prepared.source.check()


@contextmanager
def _user_errors(prepared: Prepared) -> Iterator[None]:
    """Turn a failed network, or lack of memory, into a UserError."""
    try:
        yield
    except sampler.NetworkError as error:
        name = next(name for name, score in prepared.scores.items() if score is error.score)
        raise UserError(f"score {name!r}: {error}: fix the model; the shards finished before are kept") from error
    except (OSError, data.DataError) as error:  # ground truth read on demand was removed or truncated
        raise UserError(f"the ground truth cannot be read any more ({error}): bring it back and add --resume") from error
    except RuntimeError as error:
        if not sampler.out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"memory ran out ({reason}): give a smaller shard_size or micro_batch, or another device, and add --resume"
        ) from error


def _turns(prepared: Prepared, shard: tuple[int, ...], kept: tuple[int, ...]) -> tuple[xr.Dataset, xr.Dataset]:
    """Run the U-Turns of a shard; return its rows of the sample table, and the kept states."""
    x0, labels = prepared.starts(shard), prepared.labels(shard)
    are_samples = prepared.settings.start == "noised_data"
    places = [shard.index(sample) for sample in kept]
    table = SampleTable(
        prepared.plan, prepared.scores, prepared.reference, x0, shard, labels, are_samples, places, prepared.observables
    )
    for state in prepared.plan.run(x0, shard, prepared.scores, prepared.kernels, labels):
        table.observe(state)
    return table.to_dataset(), table.kept_states() if kept else xr.Dataset()


def _shard(prepared: Prepared, observable: Observable, samples: tuple[int, ...]) -> Shard:
    """Return the inputs of an observable's further reverse runs."""
    return Shard(
        prepared.plan,
        prepared.scores,
        prepared.kernels,
        prepared.labels(samples),
        prepared.reference,
        samples,
        getattr(prepared.settings, observable.name, None),
        lambda start: prepared.starts(samples, start),
    )


def _check_finite(prepared: Prepared, table: xr.Dataset, shard: tuple[int, ...]) -> None:
    """Raise if a score returned NaN, which makes the results meaningless."""
    for name in ("sample_autocorrelation_one_shot", "sample_autocorrelation"):
        bad = ~np.isfinite(table[name].values).all(axis=(2, 3))
        if bad.any():
            index, turn = (int(place) for place in np.argwhere(bad)[0])
            score = str(table["score"].values[index])
            level = first_bad_level(prepared, shard, score) or prepared.noise_to_signal[turn]
            raise UserError(
                f"score {score!r} returned NaN or infinite values at noise-to-signal {level:.4g}: fix the model or leave out the "
                "turn times from there on; the shards finished before are kept"
            )


def compute_here(
    prepared: Prepared, parts: Parts | None, missing: Sequence[int], rows: "Rows", progress: Progress, interruption: Interruption
) -> None:
    """Compute the missing shards, write each as a part when it is done, and add it to the rows.

    Raises
    ------
    UserError
        If a score fails, or a part cannot be written; finished shards are kept.
    Interrupted
        If a signal arrived.
    """
    with interruption.finishing() if parts else nullcontext(), computing(prepared):
        for shard in missing:
            if interruption.asked is not None:
                break
            began = time.monotonic()
            table = run_shard(prepared, prepared.shard(shard))
            if parts:
                try:
                    parts.write(shard, table)
                except OSError as error:
                    reason = error.strerror or error
                    raise UserError(
                        f"shard {shard} could not be written ({reason}): make room or give permission to write, and add --resume"
                    ) from error
            rows.add(shard, table)
            progress.finished(shard, time.monotonic() - began)
    if interruption.asked is not None:
        raise Interrupted(interruption.asked)


@contextmanager
def computing(prepared: Prepared) -> Iterator[None]:
    """Set torch and the networks up for computing shards."""
    with undisturbed(), torch.inference_mode(), evaluating(prepared.scores.values()), _precision(prepared.settings.tf32):
        yield


@contextmanager
def _precision(tf32: bool | None) -> Iterator[None]:
    """Switch TF32 for float32 products and convolutions during a computation."""
    with _PRECISION.held(None if tf32 is None else ("tf32" if tf32 else "ieee",) * 2):
        yield


def _switch(values: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """Set the precision of float32 products and convolutions, and return what it was."""
    switches = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined] # a class replaces the module
    before = tuple(switch.fp32_precision for switch in switches)
    for switch, value in zip(switches, values or before, strict=True):
        switch.fp32_precision = value
    return before


_PRECISION = SharedSetting(_switch, _switch)


def settle_micro_batches(prepared: Prepared, known: dict[str, int]) -> dict[str, int]:
    """Set every open micro-batch to the known one, or to the fastest; it affects rounding."""
    settled = {}
    for name, score in prepared.scores.items():
        if isinstance(score, sampler.NetworkScore):
            score.micro_batch = score.asked_micro_batch or known.get(name)
            if score.micro_batch is None:
                with computing(prepared):
                    score.micro_batch = sampler.fastest_micro_batch(
                        score, prepared.plan.micro_batch, prepared.device, prepared.dtype, prepared.built[name].conditional
                    )
            settled[name] = score.micro_batch
    return settled


class _BadValueError(Exception):
    """A score returned NaN or infinite values at a noise-to-signal ratio."""

    def __init__(self, level: float) -> None:
        super().__init__(level)
        self.level = level


class _Watched(sampler.Score):
    """A score that raises at the first non-finite value; checks synchronise the device, so runs avoid them."""

    def __init__(self, score: sampler.Score) -> None:
        super().__init__(score.process, score.event_shape)
        self.inner = score

    def denoise(self, x: Tensor, t: Time, label: Tensor | None = None) -> Tensor:
        return self._looked_at(self.inner.denoise(x, t, label), t)

    def posterior(self, x: Tensor, t: Time, noise: sampler.Noise, label: Tensor | None = None) -> Tensor:
        return self._looked_at(self.inner.posterior(x, t, noise, label), t)

    def _looked_at(self, values: Tensor, t: Time) -> Tensor:
        finite = torch.isfinite(values.flatten(1)).all(1).cpu()
        if not bool(finite.all()):
            nu = self.process.noise_to_signal(as_time(t).cpu()).expand(len(values))
            raise _BadValueError(float(nu[~finite].max()))
        return values


def first_bad_level(prepared: Prepared, shard: tuple[int, ...], name: str) -> float | None:
    """Return the noise-to-signal ratio at which a score first returns NaN or infinite values in a shard."""
    x0, labels = prepared.starts(shard), prepared.labels(shard)
    watched = _Watched(prepared.scores[name])
    own = {name: labels[name]} if name in labels else {}
    try:
        for state in prepared.plan.run(x0, shard, {name: watched}, {name: prepared.kernels[name]}, own):
            if state.phase == "turn":
                t = prepared.plan.row_times(state.turns, state.x.shape[1])
                label = None if name not in own else own[name].repeat_interleave(prepared.plan.repeats, 0).repeat(len(state.x))
                watched.denoise(state.x.flatten(0, 1), t, label)
    except _BadValueError as error:
        return error.level
    return None


class Rows:
    """The sample table of a run, put together shard by shard, in any order.

    With a folder, large arrays are in nameless files there: the system writes them out and forgets them when it needs memory.

    Parameters
    ----------
    bounds : mapping of str to ndarray
        Where the rows of each shard begin along ``sample`` and ``kept``, and where the last ones end.
    folder : Path, optional
        Folder of the files.
    """

    def __init__(self, bounds: Mapping[str, NDArray[np.int64]], folder: Path | None = None) -> None:
        self._bounds, self._folder = bounds, folder
        self._found: dict[Any, xr.Variable] = {}
        self._first: dict[Any, tuple[int, int]] = {}  # first shard of a variable, and its place there: the order of variables
        self._rows: dict[Any, int] = {}  # of a variable, found so far
        self._coords: set[Any] = set()
        self._attrs: dict[Any, Any] = {}

    @classmethod
    def of(cls, prepared: Prepared, folder: Path | None = None) -> "Rows":
        """Return the empty table of a run."""
        bounds, ends = prepared.bounds, np.append(prepared.samples, np.iinfo(np.int64).max)
        return cls({"sample": bounds, "kept": np.searchsorted(prepared.kept, ends[bounds])}, folder)

    def add(self, shard: int, table: xr.Dataset) -> None:
        """Add the table of a shard, once.

        Raises ValueError if it differs from the others in anything but its rows, and UserError if the disk is full.
        """
        self._coords |= set(table.coords)
        self._attrs = self._attrs or table.attrs
        for place, (name, part) in enumerate(table.variables.items()):
            along = next((dim for dim in self._bounds if dim in part.dims), None)
            if name not in self._found:
                self._found[name] = part if along is None else self._empty(part, along)
            whole = self._found[name]
            self._first[name] = min(self._first.get(name, (shard, place)), (shard, place))
            if along is None:
                same = part.dims == whole.dims and part.values.tobytes() == whole.values.tobytes()
            else:
                low, high = self._bounds[along][shard : shard + 2]
                self._rows[name] = self._rows.get(name, 0) + high - low
                there = whole.values[(slice(None),) * part.dims.index(along) + (slice(low, high),)]
                same = (part.dims, part.dtype, part.shape) == (whole.dims, there.dtype, there.shape)
                if same:
                    there[...] = part.values
            if not same:
                raise ValueError(f"{name} differs between the parts of a run")

    def _empty(self, part: xr.Variable, along: str) -> xr.Variable:
        """Return zeros for all rows of a variable."""
        shape = [self._bounds[along][-1] if dim == along else size for dim, size in part.sizes.items()]
        size = int(np.prod(shape)) * part.dtype.itemsize
        if self._folder is None or size < LARGE or not hasattr(os, "posix_fallocate"):
            return xr.Variable(part.dims, np.zeros(shape, part.dtype), part.attrs)
        with user_input(), tempfile.TemporaryFile(dir=self._folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)  # a full disk is an error now, and would be the end of the process later
            return xr.Variable(part.dims, np.asarray(np.memmap(file, part.dtype, "r+", shape=tuple(shape))), part.attrs)

    def micro_batches(self) -> list[int]:
        """Return the largest micro-batch of each score so far; empty without any table."""
        return self._found["micro_batch"].values.max(1).tolist() if self._found else []

    def table(self) -> xr.Dataset:
        """Return the whole table, which shares its memory.

        Raises ValueError if rows are missing.
        """
        variables = {name: self._found[name] for name in sorted(self._found, key=self._first.__getitem__)}
        for name, rows in self._rows.items():
            if rows != max(self._found[name].sizes[dim] for dim in self._bounds if dim in self._found[name].dims):
                raise ValueError(f"{name} is not in all parts of a run")
        coords = {name: variable for name, variable in variables.items() if name in self._coords}
        rest = {name: variable for name, variable in variables.items() if name not in coords}
        return xr.Dataset(rest, coords, self._attrs)
