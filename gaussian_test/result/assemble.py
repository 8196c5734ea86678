"""From the sample table to the archive's groups: statistics, closed forms, pictures, and where everything came from."""

from __future__ import annotations

import datetime
import json
import platform
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from gaussian_test import analysis, sampler
from gaussian_test._version import __version__
from gaussian_test.build.kernels import kernel_name
from gaussian_test.build.problem import Prepared, is_affine, turn_levels
from gaussian_test.result.observables import observe
from gaussian_test.result.predicted import predictions
from gaussian_test.store import archive

DOI = "https://doi.org/10.3390/e27040343"
LIBRARIES = ("torch", "numpy", "scipy", "xarray", "netCDF4", "scikit-learn", "safetensors")
Array = NDArray[np.float64]


def assemble(prepared: Prepared, table: xr.Dataset, identity: dict[str, str]) -> tuple[xr.Dataset, dict[str, xr.Dataset]]:
    """Return the root group and the others, in the types that the disk keeps.

    Parameters
    ----------
    prepared : Prepared
        What was run.
    table : Dataset
        The sample table of all shards.
    identity : dict of str to str
        By what the run is known again.

    Returns
    -------
    tuple of Dataset and dict of str to Dataset
    """
    settings, reference = prepared.settings, prepared.reference
    steps = prepared.plan.reverse_steps()
    taken = [[1 if kernel.exact else count for count in steps] for kernel in prepared.kernels.values()]
    table = table.assign_coords(noise_to_signal=("turn_time", prepared.noise_to_signal))
    table["noise_to_signal"].attrs = {"long_name": "noise-to-signal ratio at the turn", "units": "1", "comment": "sigma/alpha"}
    labels = np.full(len(prepared.samples), -1, dtype=np.int64)
    if reference.labels is not None and (settings.start == "noised_data" or any(e.conditional for e in prepared.built.values())):
        labels = prepared.classes(tuple(prepared.samples.tolist()))
    table["label"] = (
        "sample",
        labels,
        {"long_name": "class of the sample, or that a start which is none was given", "units": "1", "comment": "-1: none"},
    )
    table["kernel"] = (
        "score",
        [kernel_name(settings.reverse, kernel) for kernel in prepared.kernels.values()],
        {"long_name": "reverse kernel", "units": "1"},
    )
    table["reverse_steps"] = (
        ("score", "turn_time"),
        np.array(taken, dtype=np.int64),
        {"long_name": "reverse steps taken from the turn to 0", "units": "1"},
    )
    table["score_kind"] = (
        "score",
        [entry.kind for entry in prepared.built.values()],
        {"long_name": "kind of the score, as in the experiment; python for one that was handed in", "units": "1"},
    )
    table["conditional"] = (
        "score",
        np.array([entry.conditional for entry in prepared.built.values()], dtype=np.int8),
        {"long_name": "whether the score is given the class of the start", "units": "1"},
    )
    table["flow"] = ("score", [kernel.flow or "none" for kernel in prepared.kernels.values()])
    table["truth"] = ("score", [_kind(name, prepared) for name in prepared.scores])
    exact, discrete, of_reference = _closed_forms(prepared)
    table["reference_discrete"] = (("score", "turn_time"), of_reference)
    resampling = settings.statistics.model_dump() | {"seed": settings.seed}
    truth = analysis.GroundTruth(
        reference.moments.count,
        reference.moments.eigenvalues,
        analysis.third_cumulant_norm(prepared.truth["x"], reference.moments.mean),
        None if reference.labels is None else np.bincount(reference.labels) / len(reference.labels),
        analysis.typical_nearest_distance(reference.samples),
    )
    result = analysis.gaussian_test(table, truth, analysis.Statistics(**resampling))
    observed, groups = observe(prepared, table, truth)
    for part in (observed, predictions(prepared, result, truth)):
        result = result.merge(part, compat="override", join="override", combine_attrs="override")
    added: dict[str, Any] = {}  # at once in the end: xarray takes each assignment for a merge of all
    for name, values, comment in (
        ("autocorrelation_exact", exact, "closed form in continuous time; NaN where there is none"),
        ("autocorrelation_discrete", discrete, "closed form through the very steps simulated; NaN where there is none"),
    ):
        added[name] = (("score", "turn_time"), values, {"long_name": name.replace("_", " "), "units": "1", "comment": comment})
    added |= _process_times(result, prepared)
    added["end_square_discrete"] = (
        ("score", "turn_time"),
        _end_squares(prepared),
        {
            "long_name": "mean squared distance of the end points from the data's mean, closed form",
            "units": "1",
            "comment": "of the Gaussian score, through the very steps simulated; NaN where there is none",
        },
    )
    added["typical_nearest_distance"] = (
        (),
        truth.typical_distance,
        {
            "long_name": "median distance of a ground-truth sample to its nearest neighbour",
            "units": "1",
            "comment": "in data units",
        },
    )
    accuracy = {"units": "1", "comment": "on samples that it was not fitted on", "classifier": prepared.classified.name or "none"}
    for suffix, value in (("", prepared.classified.accuracy), ("_se", prepared.classified.error)):
        long_name = "accuracy of the classifier of end points" + (", standard error" if suffix else "")
        added[f"classifier_accuracy{suffix}"] = ((), value, {"long_name": long_name, **accuracy})
    result.update(added)
    rows = table.drop_vars(["truth", "flow", "reference_discrete"]).drop_dims("kept", errors="ignore")
    result = result.merge(rows, compat="override", combine_attrs="override")
    result = analysis.undefine(result, settings.start)
    result.attrs = _provenance(prepared, identity)
    groups = _groups(prepared) | groups
    return archive.plain(result), {name: archive.plain(group) for name, group in groups.items()}


def _kind(name: str, prepared: Prepared) -> str:
    entry = prepared.built[name]
    return "empirical" if entry.score is prepared.reference.samples and not entry.conditional else "other"


def _closed_forms(prepared: Prepared) -> tuple[Array, Array, Array]:
    """Return the closed forms of affine scores, continuous and discretised, and the fitted Gaussian's under each score's kernel."""
    plan, moments = prepared.plan, prepared.reference.moments
    exact, discrete, reference = [], [], []
    known: dict[str, Array] = {}
    for name, score in prepared.scores.items():
        kernel = prepared.kernels[name]
        flow = kernel.flow
        if repr(kernel) not in known:
            known[repr(kernel)] = analysis.autocorrelation_discrete(
                moments.eigenvalues, plan.process, kernel, plan.grid, plan.levels
            )
        reference.append(known[repr(kernel)])
        nothing = np.full(len(plan.levels), np.nan)
        if not is_affine(score):
            exact.append(nothing)
            discrete.append(nothing)
            continue
        is_reference = score is prepared.reference.gaussian
        along, model = (moments.eigenvalues, None) if is_reference else _along_model(score, moments)
        exact.append(nothing if flow is None else analysis.autocorrelation_exact(along, prepared.noise_to_signal, flow, model))
        discrete.append(
            reference[-1]
            if is_reference
            else analysis.autocorrelation_discrete(along, plan.process, kernel, plan.grid, plan.levels, model)
        )
    return np.array(exact), np.array(discrete), np.array(reference)


def _end_squares(prepared: Prepared) -> Array:
    """Return the mean squared distance of the ends from the mean in closed form, for the fitted Gaussian: (score, turn_time)."""
    plan = prepared.plan
    values, mean = analysis.whole_spectrum(prepared.reference.moments)
    result = np.full((len(prepared.scores), len(plan.levels)), np.nan)
    for index, (name, score) in enumerate(prepared.scores.items()):
        if score is prepared.reference.gaussian:
            kernel, start = prepared.kernels[name], prepared.settings.start
            law = analysis.sampler_law(values, plan.process, kernel, plan.grid, plan.levels, start, mean)
            result[index] = law["end_square"].values
    return result


def _along_model(score: sampler.Score, moments: analysis.Moments) -> tuple[Array, Array]:
    """Return the data's variance along the modes of a Gaussian score of other moments, and the score's own.

    What the modes do not cover is one more mode, which the score sends to its mean.
    """
    assert isinstance(score, analysis.GaussianScore)
    values = score.components.eigenvalues[0].double().cpu().numpy()
    vectors = score.components.eigenvectors
    basis = np.eye(len(values)) if vectors is None else vectors[0].double().cpu().numpy()
    along = (basis.T @ moments.eigenvectors) ** 2 @ moments.eigenvalues
    rest = max(moments.trace - float(along.sum()), 0.0)
    return np.append(along, rest), np.append(values, 0.0)


def _process_times(result: xr.Dataset, prepared: Prepared) -> dict[str, tuple[str, Array, dict[str, Any]]]:
    """Return the three times in the process's own time, beside the noise-to-signal ratios they were found as."""
    process, times = prepared.plan.process, {}
    for name in ("memorization", "speciation", "affine"):
        for suffix in ("", "_low", "_high", "_predicted"):
            nu = result[f"{name}_noise_to_signal{suffix}"]
            values = nu.values.copy()
            inside = np.isfinite(values) & (values > 0)
            values[inside] = process.time(torch.from_numpy(values[inside])).numpy()
            attributes = dict(nu.attrs)
            attributes["long_name"] = attributes["long_name"].replace(
                "as a noise-to-signal ratio sigma/alpha", "in the process's time"
            )
            times[f"{name}_time{suffix}"] = ("score", values, attributes)
    return times


def _groups(prepared: Prepared) -> dict[str, xr.Dataset]:
    keep = prepared.settings.keep
    groups = {"moments": prepared.reference.moments.to_dataset(keep.eigenvectors)}
    shown = tuple(prepared.samples[: keep.pictures].tolist())
    if not shown:
        return groups
    x0, labels = prepared.starts(shown), prepared.labels(shown)
    plan = replace(prepared.plan, repeats=1)
    ends = {name: x0.new_full((len(plan.levels), *x0.shape), torch.nan) for name in prepared.scores}
    wanted = _path_times(prepared)
    times: list[float] = []
    paths: list[torch.Tensor] = []
    for state in plan.run(x0, shown, prepared.scores, prepared.kernels, labels, path=wanted):
        if state.phase == "end" and state.score:
            ends[state.score][state.turns] = state.x
        elif state.phase == "path" and state.score:
            if not times or times[-1] != state.times[0]:
                times.append(state.times[0])
                paths.append(x0.new_full((len(prepared.scores), len(plan.levels), *x0.shape), torch.nan))
            paths[-1][list(prepared.scores).index(state.score), state.turns] = state.x
    groups["pictures"] = analysis.picture_table(ends, plan, x0, shown)
    if keep.trajectory:
        states = torch.stack(paths, 2)
        groups["trajectory"] = analysis.path_table(dict(zip(prepared.scores, states, strict=True)), plan, times, shown)
    return groups


def _path_times(prepared: Prepared) -> bool | list[float]:
    """Return which times of the reverse grid to keep: all, none, or those nearest to the noise levels asked for."""
    wanted = prepared.settings.keep.trajectory
    if isinstance(wanted, bool):
        return wanted
    process = prepared.plan.process
    return [float(process.time(level)) if level else 0.0 for level in wanted]


def _provenance(prepared: Prepared, identity: dict[str, str]) -> dict[str, Any]:
    settings = prepared.settings
    networks = {name: score for name, score in prepared.scores.items() if isinstance(score, sampler.NetworkScore)}
    used = [*LIBRARIES, *sorted({score.network.library for score in networks.values()} - {""})]
    libraries = {"python": platform.python_version(), "gaussian_test": __version__} | {name: version(name) for name in used}
    asked = prepared.plan.process.noise_to_signal(
        torch.tensor(turn_levels(prepared.plan.process, settings.turn_times), dtype=torch.float64)
    ).numpy()
    # how far the nearest level of a fixed grid is from what was asked for, as a ratio less 1
    moved = float(np.expm1(np.abs(np.log(asked[:, None] / prepared.noise_to_signal)).min(1).max()))
    return {
        "Conventions": "CF-1.11, ACDD-1.3",
        "title": "Gaussian Test of a score function by U-Turn diffusion",
        "summary": "U-Turn auto-correlations of score functions, their gap to the affine Gaussian score, and the memorization, "
        "speciation and affine times",
        "keywords": "diffusion models, score function, U-Turn, auto-correlation, Gaussian test",
        "date_created": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "source": DOI,
        "schema_version": archive.SCHEMA_VERSION,
        "experiment": settings.to_yaml(),
        "seed": settings.seed,
        "device": str(prepared.device) if prepared.device.type == identity["device type"] else identity["device type"],
        "start": settings.start,
        "turn_times_asked": len(asked),
        "turn_time_moved": moved,
        "confidence": settings.statistics.confidence,
        "versions": json.dumps(libraries),
        "data_source": str(prepared.truth.attrs.get("source", "given in python")),
        "data_digest": identity["data"],
        "score_digest": json.dumps({name: identity[f"score {name}"] for name in prepared.scores}),
        "score_origin": json.dumps({name: asdict(entry.origin) for name, entry in prepared.built.items()}),
        "network_settings": json.dumps({name: score.settings for name, score in networks.items()}),
        "identity": json.dumps(identity),
        "samples_in_ground_truth": int(prepared.truth.sizes["sample"]),
    }
