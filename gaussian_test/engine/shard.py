"""One shard: its U-Turns, those from other starts and its chains, reduced to a table that is written as a part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import xarray as xr

from gaussian_test import analysis, data, sampler
from gaussian_test.analysis.observables.record import Observable, Shard
from gaussian_test.analysis.observables.run import FACTS
from gaussian_test.analysis.variable import declared
from gaussian_test.build.problem import Prepared
from gaussian_test.engine.diagnosis import first_bad_level
from gaussian_test.errors import UserError


def run_shard(prepared: Prepared, shard: tuple[int, ...]) -> xr.Dataset:
    """Run one shard.

    Raises
    ------
    UserError
        If a score fails or returns NaN, or memory runs out.
    """
    before = [score.micro_batch for score in prepared.scores.values()]
    kept = tuple(np.intersect1d(shard, prepared.kept).tolist())  # both ascend
    with _user_errors(prepared):
        result, states = _turns(prepared, shard, kept)
        _check_finite(prepared, result, shard)
        for observable in prepared.observables if kept else ():
            if observable.runs:
                states = states.merge(observable.function(observable.runs)(_shard(prepared, observable, kept)), compat="override")
    if before != [score.micro_batch for score in prepared.scores.values()]:
        return run_shard(prepared, shard)  # a micro-batch was halved on the way: all of the shard is of one size
    for name in states.data_vars:
        if not np.isfinite(states[name].values).all():
            raise UserError(
                f"{str(name).replace('_', ' ')} of a score is NaN or infinite, while its U-Turns are not: mend the model or leave "
                "'starts' and 'chains' out of observables; the shards finished before are kept"
            )
    sizes = [score.micro_batch or prepared.plan.micro_batch for score in prepared.scores.values()]
    sizes_of_rows = np.repeat(np.array(sizes, dtype=np.int64)[:, None], len(shard), axis=1)
    result = result.merge(declared(FACTS, {"micro_batch": sizes_of_rows}))
    return result.merge(states, compat="override", join="exact")


@contextmanager
def _user_errors(prepared: Prepared) -> Iterator[None]:
    """Say in a sentence that a network failed, or that memory ran out."""
    try:
        yield
    except sampler.NetworkError as error:
        name = next(name for name, score in prepared.scores.items() if score is error.score)
        raise UserError(f"score {name!r}: {error}: mend the model; the shards finished before are kept") from error
    except (OSError, data.DataError) as error:  # ground truth that is read on demand, and has gone or been cut meanwhile
        raise UserError(f"the ground truth cannot be read any more ({error}): bring it back and add --resume") from error
    except RuntimeError as error:
        if not sampler.out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"memory ran out ({reason}): give a smaller shard_size or micro_batch, or another device, and add --resume"
        ) from error


def _turns(prepared: Prepared, shard: tuple[int, ...], kept: tuple[int, ...]) -> tuple[xr.Dataset, xr.Dataset]:
    """Run the U-Turns of a shard: its rows of the sample table, and the states that are kept."""
    x0, labels = prepared.starts(shard), prepared.labels(shard)
    are_samples = prepared.settings.start == "noised_data"
    places = [shard.index(sample) for sample in kept]
    table = analysis.SampleTable(
        prepared.plan, prepared.scores, prepared.reference, x0, shard, labels, are_samples, places, prepared.observables
    )
    for state in prepared.plan.run(x0, shard, prepared.scores, prepared.kernels, labels):
        table.observe(state)
    return table.to_dataset(), table.kept_states() if kept else xr.Dataset()


def _shard(prepared: Prepared, observable: Observable, samples: tuple[int, ...]) -> Shard:
    """Return what an observable may use to take reverse runs of its own."""
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
    """Stop when a score has returned NaN: nothing computed from it means anything."""
    for name in ("sample_autocorrelation_one_shot", "sample_autocorrelation"):
        bad = ~np.isfinite(table[name].values).all(axis=(2, 3))
        if bad.any():
            index, turn = (int(place) for place in np.argwhere(bad)[0])
            score = str(table["score"].values[index])
            level = first_bad_level(prepared, shard, score) or prepared.noise_to_signal[turn]
            raise UserError(
                f"score {score!r} returned NaN or infinite values at noise-to-signal {level:.4g}: mend the model or leave out the "
                "turn times from there on; the shards finished before are kept"
            )
