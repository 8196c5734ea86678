"""What is measured beside the Gaussian Test: from a run's sample table and kept states to variables and groups of its archive."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from gaussian_test import analysis, sampler
from gaussian_test.build.own_observables import own_curves
from gaussian_test.build.problem import OTHER_STARTS, Prepared, chain_levels

Array = NDArray[np.float64]


def observe(prepared: Prepared, table: xr.Dataset, truth: analysis.GroundTruth) -> tuple[xr.Dataset, dict[str, xr.Dataset]]:
    """Return the observables of a run.

    Parameters
    ----------
    prepared : Prepared
        What was run.
    table : Dataset
        The sample table and the kept states of all shards, with ``noise_to_signal``, ``label`` and ``conditional``.
    truth : GroundTruth
        Facts of the ground-truth set.

    Returns
    -------
    tuple of Dataset and dict of str to Dataset
        Variables of the root group, and further groups.
    """
    settings, wanted = prepared.settings.statistics, prepared.settings.observed
    parts = [
        _times(prepared, table, truth),
        own_curves(prepared.own_observables, table, _resample(prepared, table.sizes["sample"])),
    ]
    groups: dict[str, xr.Dataset] = {}
    if "affinity" in wanted:
        parts += _affinity(prepared, table)
    if "normality" in wanted:
        tests = analysis.ks_dataset(
            _noised(prepared),
            {"turn_time": np.array(prepared.plan.levels)},
            prepared.reference.moments.event_shape,
            level=1 - settings.confidence,
            seed=prepared.settings.seed,
        )
        maps = ["ks_distance", "ks_pvalue", "ks_discovered"]
        groups["normality"] = tests[maps].astype(np.float64)
        parts.append(tests.drop_vars(maps).drop_dims([d for d in tests[maps[0]].dims if d != "turn_time"], errors="ignore"))
    if len(table.get("kept_sample", ())):
        parts += _ends(prepared, table, wanted)
    if "chains" in wanted:
        groups["chains"] = _chains(prepared, table)
    if prepared.settings.keep.end_points:
        groups["end_points"] = _end_points(table)
    return xr.merge(parts, compat="override", join="override", combine_attrs="drop_conflicts"), groups


def _resample(prepared: Prepared, clusters: int) -> analysis.ClusterBootstrap:
    settings = prepared.settings.statistics
    return analysis.ClusterBootstrap(clusters, settings.bootstrap, settings.confidence, prepared.settings.seed)


def _times(prepared: Prepared, table: xr.Dataset, truth: analysis.GroundTruth) -> xr.Dataset:
    """Return the times of samples and classes."""
    settings = prepared.settings.statistics
    own = table["nearest_sample"] == table["sample"]
    return analysis.sample_times(
        own if settings.memorization == "own" else table["nearest_distance"] < truth.typical_distance,
        table["label_after"] == table["label"],
        table["label"].clip(min=0),  # where a start has no class nothing of this is defined
        truth.class_shares,
        table["conditional"].astype(bool),
        (settings.memorization_level or settings.level, settings.speciation_level or settings.level),
        _resample(prepared, table.sizes["sample"]),
    )


def _noised(prepared: Prepared) -> Iterator[NDArray[np.float32]]:
    """Yield the noised data, first repeats, turn time by turn time: the very states that were turned."""
    x0, normal = _starts_and_noise(prepared, prepared.together)
    for level in prepared.plan.levels:
        yield prepared.plan.process.noised(x0, level, normal).flatten(1).float().cpu().numpy()


def _starts_and_noise(prepared: Prepared, samples: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
    index = tuple(samples.tolist())
    x0 = prepared.starts(index)
    shape = tuple(x0.shape[1:])
    return x0, sampler.KeyedNoise(prepared.plan.seed, index, 1, shape, x0.device, x0.dtype).draw().normal


def _affinity(prepared: Prepared, table: xr.Dataset) -> list[xr.Dataset]:
    """Return how much of each score others explain, its norm, and the best affine map beside the Gaussian."""
    resample, moments, plan = _resample(prepared, table.sizes["sample"]), prepared.reference.moments, prepared.plan
    explained = analysis.affinity(
        table["sample_score_square"], table["sample_score_distance"], table["sample_denoiser_gap"], resample
    )
    norms = analysis.score_norms(
        table["sample_score_norm"], table["sample_score_square"], plan.process, moments.eigenvalues, moments.mean.size, resample
    )
    x0, normal = _starts_and_noise(prepared, table["kept_sample"].values)
    residual = table["residual"]
    values = np.zeros((2, *residual.shape[:3]))
    for turn, level in enumerate(plan.levels):
        noised = plan.process.noised(x0, level, normal).flatten(1).double().cpu().numpy()
        features = analysis.affine_features(noised, moments, plan.process, level)
        for score in range(residual.sizes["score"]):
            rest = residual.isel(score=score, turn_time=turn).values.reshape(len(noised), -1).astype(np.float64)
            if rest.any():
                fit = analysis.best_affine(features, rest, folds=min(5, len(rest) - 1), seed=prepared.settings.seed)
                values[:, score, turn] = fit.values, fit.baseline
    dims = ("score", "turn_time", "sample")
    coords = {name: residual[name] for name in dims[:2]}
    of_fit, of_gaussian = (xr.DataArray(distances, dims=dims, coords=coords) for distances in values)
    fits = analysis.best_affine_gap(of_fit, of_gaussian, moments.trace, _resample(prepared, table.sizes["kept"]))
    return [explained, norms, fits]


def _features(prepared: Prepared, states: xr.DataArray) -> xr.DataArray:
    """Return the features of kept states, one score and turn time after the other."""
    lead = ("score", "turn_time")
    event = analysis.event_dims(states.ndim - 4)
    shape = (states.sizes["kept"], states.sizes["repeat"])
    blocks = [
        prepared.features(
            states.isel(score=score, turn_time=turn).transpose("kept", "repeat", *event).values.reshape(-1, *states.shape[4:])
        ).reshape(*shape, -1)
        for score in range(states.sizes["score"])
        for turn in range(states.sizes["turn_time"])
    ]
    values = np.stack(blocks).reshape(states.sizes["score"], states.sizes["turn_time"], *blocks[0].shape)
    return xr.DataArray(values, dims=(*lead, "sample", "repeat", "feature"), coords={name: states[name] for name in lead})


def _ends(prepared: Prepared, table: xr.Dataset, wanted: tuple[str, ...]) -> list[xr.Dataset]:
    """Return what is measured of end points together: their quality, other starts, detailed balance and the change field."""
    parts: list[xr.Dataset] = []
    if not {"quality", "starts", "balance"} & set(wanted):
        return parts
    resample = _resample(prepared, table.sizes["kept"])
    ends = _features(prepared, table["end"])
    about = {"features": prepared.features.name}
    if {"quality", "starts"} & set(wanted):
        truth = analysis.Population(prepared.features(prepared.truth["x"]))
    if "quality" in wanted:
        # the starts of U-Turns are drawn without replacement, and what ends keep of them is spread more evenly than free draws
        starts = table["kept_sample"].values if prepared.settings.start == "noised_data" else None
        found = analysis.sample_quality(ends, truth, resample, starts).rename(sample="kept")
        number = {"long_name": "sample whose end points are looked at together, index into the ground-truth set", "units": "1"}
        found = found.assign_coords(kept=("kept", table["kept_sample"].values, number))
        floor = analysis.null_distance(truth, table.sizes["kept"], seed=prepared.settings.seed)
        for suffix, value, long_name in (("", floor.mean, "mean"), ("_high", floor.high, "95 % quantile")):
            comment = {"long_name": f"Fréchet distance, plug-in, of as many perfect draws: {long_name}", "units": "1"}
            found[f"frechet_floor{suffix}"] = ((), value, comment)
        parts.append(_named(found, about))
    if "starts" in wanted:
        of_starts = []
        for start in OTHER_STARTS:
            others = _features(prepared, table[f"end_{start}"])
            from_truth = analysis.sample_quality(others, truth, resample)
            renamed = {
                str(name): f"start_{kind}_to_truth{str(name).removeprefix(kind)}"
                for kind in ("frechet", "kid")
                for name in from_truth.data_vars
                if str(name).startswith(kind)
            }
            of_start = analysis.start_sensitivity(ends, others, resample).merge(
                from_truth[list(renamed)].rename(renamed), compat="override"
            )
            of_starts.append(of_start.drop_dims("sample"))
        parts.append(_named(xr.concat(of_starts, xr.Variable("start", list(OTHER_STARTS)), combine_attrs="override"), about))
    if "balance" in wanted:
        parts += _balance(prepared, table, ends, resample)
    return parts


def _balance(prepared: Prepared, table: xr.Dataset, ends: xr.DataArray, resample: analysis.ClusterBootstrap) -> list[xr.Dataset]:
    kept = table["kept_sample"].values
    x0 = prepared.starts(tuple(kept.tolist())).cpu().numpy()
    event = analysis.event_dims(x0.ndim - 1)
    of_kept = table.sel(sample=kept)
    tests = analysis.exchange_tests(
        xr.DataArray(prepared.features(x0), dims=("sample", "feature")),
        ends,
        of_kept["label"],
        of_kept["label_after"],
        seed=prepared.settings.seed,
    )
    others = [name for name, kernel in prepared.kernels.items() if kernel.flow != "sde"]
    conditional = [name for name, entry in prepared.built.items() if entry.conditional]
    for name in map(str, tests.data_vars):
        _undefine(tests, name, others, "detailed balance holds for the reverse SDE alone")
        if name.startswith("exchange_class"):
            _undefine(tests, name, conditional, "the score is given the class of the start")
    starts = xr.DataArray(x0, dims=("sample", *event))
    field = analysis.change_field(starts, table["end"].rename(kept="sample"), resample)
    moments = prepared.reference.moments
    closed = analysis.susceptibility_gaussian(
        moments.eigenvalues, moments.eigenvectors, prepared.noise_to_signal, moments.event_shape
    )
    field["change_susceptibility_gaussian"] = (
        "turn_time",
        closed,
        {
            "long_name": "susceptibility of the change field of the Gaussian score",
            "units": "1",
            "comment": "closed form, reverse SDE",
        },
    )
    return [tests, field]


def _undefine(dataset: xr.Dataset, name: str, scores: list[str], why: str) -> None:
    """Leave out what has no meaning for some scores, and say why beside the reasons that are there."""
    if scores:
        values = dataset[name]
        nothing = "" if values.dtype.kind == "U" else np.nan
        reasons = [values.attrs["reason"]] if "reason" in values.attrs else []
        dataset[name] = values.where(~dataset["score"].isin(scores), nothing).astype(values.dtype)
        dataset[name].attrs = values.attrs | {"reason": "; ".join([*reasons, f"{', '.join(scores)}: {why}"])}


def _chains(prepared: Prepared, table: xr.Dataset) -> xr.Dataset:
    levels = chain_levels(prepared)
    nu = prepared.noise_to_signal[levels]
    shares = None
    if prepared.reference.labels is not None:
        shares = np.bincount(prepared.reference.labels) / len(prepared.reference.labels)
    result = analysis.chain_table(
        table["chain_product"],
        table["chain_label"],
        prepared.reference.moments.eigenvalues,
        nu,
        shares,
        _resample(prepared, table.sizes["kept"]),
    )
    return result.assign_coords(turn_time=("turn_time", np.array(prepared.plan.levels)[levels]), noise_to_signal=("turn_time", nu))


def _end_points(table: xr.Dataset) -> xr.Dataset:
    """Return the kept end points as a group of the archive."""
    named = {"end": ("end points", "of the samples that observables look at together")} | {
        f"end_{start}": (f"end points of runs that start from {start}", "with the same noise") for start in OTHER_STARTS
    }
    result = table[[name for name in named if name in table]].rename(kept="sample").drop_vars("sample", errors="ignore")
    result = result.assign_coords(sample=("sample", table["kept_sample"].values))
    for name in result.data_vars:
        long_name, comment = named[str(name)]
        result[name].attrs = {"long_name": long_name, "units": "1", "comment": comment}
    return result


def _named(dataset: xr.Dataset, attributes: dict[str, str]) -> xr.Dataset:
    for variable in dataset.data_vars.values():
        variable.attrs |= attributes
    return dataset
