"""One shard: its U-Turns, those from other starts and its chains, reduced to a table that is written as a part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
import xarray as xr

from gaussian_test import analysis, data, sampler
from gaussian_test.build.own_observables import OwnTable
from gaussian_test.build.problem import OTHER_STARTS, Prepared, chain_levels
from gaussian_test.engine.diagnosis import first_bad_level
from gaussian_test.errors import UserError

CHAIN_STREAM = 16  # of the keyed noise: that of the first U-Turn of a chain; each has a stream of its own


def run_shard(prepared: Prepared, shard: tuple[int, ...]) -> xr.Dataset:
    """Run one shard.

    Parameters
    ----------
    prepared : Prepared
        The run.
    shard : tuple of int
        Its samples.

    Returns
    -------
    Dataset
        Its rows of the sample table over ``sample``, and over ``kept`` the states of the samples that observables look at
        together.

    Raises
    ------
    UserError
        If a score fails or returns NaN, or memory runs out.

    Examples
    --------
    >>> from gaussian_test.experiment import experiment
    >>> from gaussian_test.build import problem
    >>> run_shard(problem.prepare(experiment.Experiment(samples=4)), (0, 1)).sizes["sample"]
    2
    """
    before = [score.micro_batch for score in prepared.scores.values()]
    kept = tuple(np.intersect1d(shard, prepared.kept).tolist())  # both ascend
    with _user_errors(prepared):
        result, states = _turns(prepared, shard, kept)
        _check_finite(prepared, result, shard)
        if kept and "starts" in prepared.settings.observed:
            states = states.merge(_other_starts(prepared, kept), compat="override")
        if kept and "chains" in prepared.settings.observed:
            states = states.merge(_chains(prepared, kept), compat="override")
    if before != [score.micro_batch for score in prepared.scores.values()]:
        return run_shard(prepared, shard)  # a micro-batch was halved on the way: all of the shard is of one size
    for name in states.data_vars:
        if not np.isfinite(states[name].values).all():
            raise UserError(
                f"{str(name).replace('_', ' ')} of a score is NaN or infinite, while its U-Turns are not: mend the model or leave "
                "'starts' and 'chains' out of observables; the shards finished before are kept"
            )
    sizes = [score.micro_batch or prepared.plan.micro_batch for score in prepared.scores.values()]
    result["micro_batch"] = (
        ("score", "sample"),
        np.repeat(np.array(sizes, dtype=np.int64)[:, None], len(shard), axis=1),
        {"long_name": "states per call of the score", "units": "1", "comment": "decides the last bits of what is computed"},
    )
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
    table = analysis.SampleTable(prepared.plan, prepared.scores, prepared.reference, x0, shard, labels, are_samples, places)
    plan = prepared.plan
    own = OwnTable(prepared.own_observables, list(prepared.scores), len(plan.levels), plan.repeats, x0)
    for state in plan.run(x0, shard, prepared.scores, prepared.kernels, labels):
        table.observe(state)
        if state.phase == "end" and state.score is not None and bool(torch.isfinite(state.x).all()):
            own.observe(state.score, state.turns, state.x)  # of others the score is to blame, which is said below
    rows = table.to_dataset()
    return rows.assign(own.to_dataset().data_vars), table.kept_states() if kept else xr.Dataset()


def _ends(
    prepared: Prepared,
    plan: sampler.UTurnPlan,
    x0: torch.Tensor,
    samples: tuple[int, ...],
    labels: Mapping[str, torch.Tensor],
    names: Sequence[str],
) -> dict[str, torch.Tensor]:
    """Run a plan for some scores and return their end points, (turn times, rows, *event)."""
    scores, kernels = {name: prepared.scores[name] for name in names}, {name: prepared.kernels[name] for name in names}
    given = {name: label for name, label in labels.items() if name in names}
    ends = {name: x0.new_empty(len(plan.levels), len(x0) * plan.repeats, *x0.shape[1:]) for name in names}
    for state in plan.run(x0, samples, scores, kernels, given):
        if state.phase == "end" and state.score is not None:
            ends[state.score][state.turns] = state.x
    return ends


def _other_starts(prepared: Prepared, samples: tuple[int, ...]) -> xr.Dataset:
    """Reverse other starts with the same noise: the Gaussian of the noised data, and noise alone."""
    plan, labels, result = prepared.plan, prepared.labels(samples), xr.Dataset()
    names = list(prepared.scores)
    for start in OTHER_STARTS:
        ends = _ends(prepared, plan, prepared.starts(samples, start), samples, labels, names)
        values = torch.stack([ends[name] for name in names]).cpu().numpy()
        shape = (len(names), len(plan.levels), len(samples), plan.repeats, *values.shape[3:])
        dims = ("score", "turn_time", "kept", "repeat", *analysis.event_dims(values.ndim - 3))
        result[f"end_{start}"] = (dims, values.reshape(shape))
    return result


def _chains(prepared: Prepared, samples: tuple[int, ...]) -> xr.Dataset:
    """Run chains of U-Turns, each from the end of the last: inner products of their states, and their classes."""
    reference, levels = prepared.reference, chain_levels(prepared)
    names, x0, labels = list(prepared.scores), prepared.starts(samples), prepared.labels(samples)
    products, classes = [], []
    for name in names:
        states = [x0.expand(len(levels), *x0.shape)]
        for link in range(prepared.settings.chains.length):
            states.append(_next_link(prepared, name, states[-1], samples, labels, CHAIN_STREAM + link))
        chain = torch.stack(states, 1)
        products.append([analysis.chain_products(of_level, reference.moments) for of_level in chain])
        found = [reference.classes(state.flatten(0, 1)).reshape(len(levels), -1) for state in states]
        classes.append(np.stack(found, -1))
    dims = ("score", "chain_turn", "kept", "link")
    return xr.Dataset({"chain_product": ((*dims, "link_other"), np.array(products)), "chain_label": (dims, np.array(classes))})


def _next_link(
    prepared: Prepared, name: str, states: torch.Tensor, samples: tuple[int, ...], labels: Mapping[str, torch.Tensor], stream: int
) -> torch.Tensor:
    """Return the ends of one U-Turn from the states of every chain, (levels, n, *event); all levels share its noise."""
    plan, kernel, score = prepared.plan, prepared.kernels[name], prepared.scores[name]
    levels, steps = chain_levels(prepared), plan.reverse_steps()
    if not kernel.exact:
        ends = []
        for turn, x0 in zip(levels, states, strict=True):
            count = steps[turn] if plan.grid_of == "turn_times" else plan.steps
            link = replace(plan, turn_times=[plan.levels[turn]], steps=count, repeats=1, stream=stream)
            ends.append(_ends(prepared, link, x0, samples, labels, [name])[name][0])
        return torch.stack(ends)
    # one exact step from every level: merged, they fill the device
    noise = sampler.KeyedNoise(plan.seed, samples, 1, tuple(states.shape[2:]), states.device, states.dtype, stream)
    forward, at_end = noise.draw(), noise.draw()
    t = torch.tensor([plan.levels[turn] for turn in levels], dtype=torch.float64).repeat_interleave(len(samples))
    normal, end_normal, uniform = (
        value.repeat(len(levels), *(1,) * (value.ndim - 1)) for value in (forward.normal, at_end.normal, at_end.uniform)
    )
    x = plan.process.noised(states.flatten(0, 1), t, normal)
    label = labels[name].repeat(len(levels)) if name in labels else None
    end = torch.empty_like(x)
    for start in range(0, len(x), plan.micro_batch):
        rows = slice(start, start + plan.micro_batch)
        given = sampler.Noise(end_normal[rows], uniform[rows])
        end[rows] = kernel.step(score, x[rows], t[rows], 0.0, given, None if label is None else label[rows])
    return end.reshape(states.shape)


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
