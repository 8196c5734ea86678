"""Assembly of the archive's groups from the sample table."""

import datetime
import json
import platform
from dataclasses import asdict, replace
from functools import cache, partial
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from gaussian_test import analysis, sampler
from gaussian_test._version import __version__
from gaussian_test.analysis.declarations import TIMES, declared, described, mask_undefined
from gaussian_test.analysis.moments.moments import whole_spectrum
from gaussian_test.analysis.observables import registry
from gaussian_test.analysis.observables.record import Inputs
from gaussian_test.analysis.observables.run import FACTS
from gaussian_test.analysis.observables.sample_table import path_table, picture_table
from gaussian_test.analysis.theory.predictions import distinct_count
from gaussian_test.analysis.uturn.classifier import typical_nearest_distance
from gaussian_test.build.problem import Prepared
from gaussian_test.build.scores import kernel_name, levels_asked
from gaussian_test.store import archive
from gaussian_test.text import printable

DOI = "https://doi.org/10.3390/e27040343"
LIBRARIES = ("torch", "numpy", "scipy", "xarray", "netCDF4", "scikit-learn", "safetensors")
Array = NDArray[np.float64]

_version = cache(version)  # a millisecond for each library


def assemble(prepared: Prepared, table: xr.Dataset, identity: dict[str, str]) -> tuple[xr.Dataset, dict[str, xr.Dataset]]:
    """Return the root group and the others, with the dtypes of the archive."""
    inputs = _inputs(prepared, table)
    result, groups = xr.Dataset(), _groups(prepared, inputs.table)
    for observable in prepared.observables:
        for group, found in observable.function(observable.measure)(inputs).items() if observable.measure else ():
            if group:
                groups[group] = found
            else:
                result = inputs.measured = result.merge(found, compat="override", join="override", combine_attrs="override")
    rows = inputs.table.drop_dims("kept", errors="ignore")
    for part in (_run_facts(prepared), rows):
        result = result.merge(part, compat="override", combine_attrs="override")
    declarations = [variable for observable in prepared.observables for variable in observable.variables]
    mask_undefined(result, declarations, prepared.settings.start)
    result.attrs = _provenance(prepared, identity)
    return archive.plain(result), {name: archive.plain(group) for name, group in groups.items()}


def crossings(prepared: Prepared, table: xr.Dataset) -> Array:
    """Return the noise-to-signal ratios of all times of a sample table, shape (times, scores)."""
    record = registry.ALWAYS[0]  # the Gaussian Test
    found = record.function(record.measure)(_inputs(prepared, table))[""]
    return np.array([found[f"{name}_noise_to_signal"].values for name in TIMES])


def _inputs(prepared: Prepared, table: xr.Dataset) -> Inputs:
    """Return the inputs of the observables."""
    settings, reference = prepared.settings, prepared.reference
    labels = np.full(len(prepared.samples), -1, dtype=np.int64)
    if reference.labels is not None and (settings.start == "noised_data" or any(e.conditional for e in prepared.built.values())):
        labels = prepared.classes(tuple(prepared.samples.tolist()))
    table = table.assign_coords(noise_to_signal=("turn_time", prepared.noise_to_signal)).assign(label=("sample", labels))
    return Inputs(
        described(table, FACTS),
        _score_facts(prepared),
        analysis.GroundTruth(
            reference.moments.count,
            reference.moments.eigenvalues,
            analysis.third_cumulant_norm(prepared.truth["x"], reference.moments.mean),
            None if reference.labels is None else np.bincount(reference.labels) / len(reference.labels),
            typical_nearest_distance(reference.samples),
            torch.finfo(prepared.dtype).eps,
            distinct_count(reference.samples.points.cpu()),
        ),
        reference,
        prepared.plan,
        analysis.Statistics(**settings.statistics.model_dump(), seed=settings.seed),
        settings.start,
        prepared.together,
        prepared.starts,
        prepared.truth["x"],
        prepared.features,
        lambda: prepared.fits.of_classes(prepared.truth["x"], reference.labels),
        dict(settings),
    )


def _score_facts(prepared: Prepared) -> dict[str, analysis.ScoreFacts]:
    """Return the facts of each score's run, with closed forms for affine scores."""
    plan, moments, found = prepared.plan, prepared.reference.moments, {}
    known: dict[str, Array] = {}  # closed forms of the fitted Gaussian, by kernel
    for name, entry in prepared.built.items():
        kernel, score = prepared.kernels[name], entry.score
        through = partial(
            analysis.autocorrelation_discrete, process=plan.process, kernel=kernel, grid=plan.grid, turn_times=plan.levels
        )
        if repr(kernel) not in known:
            known[repr(kernel)] = through(moments.eigenvalues)
        facts = analysis.ScoreFacts(
            kernel_name(prepared.settings.reverse, kernel),
            kernel.flow or "none",
            entry.conditional,
            score is prepared.reference.samples,
            known[repr(kernel)],
        )
        if isinstance(score, analysis.GaussianScore) and score.labels is None:
            is_reference = score is prepared.reference.gaussian
            along, model = (moments.eigenvalues, None) if is_reference else _along_model(score, moments)
            if kernel.flow is not None:
                exact = analysis.autocorrelation_exact(along, prepared.noise_to_signal, flow=kernel.flow, model=model)
                facts = replace(facts, exact=exact)
            if is_reference:
                values, mean = whole_spectrum(moments)
                law = analysis.sampler_law(
                    values, plan.process, kernel, plan.grid, plan.levels, start=prepared.settings.start, mean=mean
                )
                facts = replace(facts, discrete=facts.reference, end_square=law["end_square"].values)
            else:
                facts = replace(facts, discrete=through(along, model=model))
        found[name] = facts
    return found


def _along_model(score: analysis.GaussianScore, moments: analysis.Moments) -> tuple[Array, Array]:
    """Return the variances of the data and of a Gaussian score with other moments, along the score's modes.

    The rest of the space is one more mode, which the score maps to its mean.
    """
    values = score.components.eigenvalues[0].double().cpu().numpy()
    vectors = score.components.eigenvectors
    basis = np.eye(len(values)) if vectors is None else vectors[0].double().cpu().numpy()
    along = (basis.T @ moments.eigenvectors) ** 2 @ moments.eigenvalues
    rest = max(moments.trace - float(along.sum()), 0.0)
    return np.append(along, rest), np.append(values, 0.0)


def _run_facts(prepared: Prepared) -> xr.Dataset:
    """Return the reverse kernel of each score, and the accuracy of the end-point classifier."""
    kernels, entries, steps = prepared.kernels.values(), prepared.built.values(), prepared.plan.reverse_steps()
    values = {
        "kernel": [kernel_name(prepared.settings.reverse, kernel) for kernel in kernels],
        "reverse_steps": np.array([[1 if kernel.exact else count for count in steps] for kernel in kernels], dtype=np.int64),
        "score_kind": [entry.kind for entry in entries],
        "conditional": np.array([entry.conditional for entry in entries], dtype=np.int8),
        "classifier_accuracy": prepared.classified.accuracy,
        "classifier_accuracy_se": prepared.classified.error,
    }
    result = declared(FACTS, values)
    for name in ("classifier_accuracy", "classifier_accuracy_se"):
        result[name].attrs["classifier"] = prepared.classified.name or "none"
    return result


def _end_points(table: xr.Dataset) -> xr.Dataset:
    """Return the kept end points, of the U-Turns and of other starts."""
    known = [variable for variable in registry.variables("end_points") if variable.name in table]
    result = table[[variable.name for variable in known]].rename(kept="sample").drop_vars("sample", errors="ignore")
    return described(result.assign_coords(sample=("sample", table["kept_sample"].values)), known)


def _groups(prepared: Prepared, table: xr.Dataset) -> dict[str, xr.Dataset]:
    keep = prepared.settings.keep
    groups = {"moments": prepared.reference.moments.to_dataset(keep.eigenvectors)}
    if keep.end_points:
        groups["end_points"] = _end_points(table)
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
    groups["pictures"] = _pictures(prepared, ends, plan, x0, shown)
    if keep.trajectory:
        states = torch.stack(paths, 2)
        groups["trajectory"] = path_table(dict(zip(prepared.scores, states, strict=True)), plan, times, shown)
    return groups


def _pictures(
    prepared: Prepared, ends: dict[str, torch.Tensor], plan: sampler.UTurnPlan, x0: torch.Tensor, shown: tuple[int, ...]
) -> xr.Dataset:
    """Return the start and the end points of the samples that are shown, decoded if they are latents."""
    space = prepared.space
    if space is None:
        return picture_table(ends, plan, x0, shown)
    decoded = {name: torch.stack([space.decoded(of_turn) for of_turn in end]) for name, end in ends.items()}
    return picture_table(decoded, plan, space.decoded(x0), shown)


def _path_times(prepared: Prepared) -> bool | list[float]:
    """Return the times of the reverse grid to keep: all, none, or those nearest to the requested noise levels."""
    wanted = prepared.settings.keep.trajectory
    if isinstance(wanted, bool):
        return wanted
    process = prepared.plan.process
    return [float(process.time(level)) if level else 0.0 for level in wanted]


def _moved(prepared: Prepared, name: str, score: sampler.NetworkScore) -> dict[str, float]:
    """Return by how much the levels of a run were moved to a network's whole steps, if they were."""
    moved = score.levels_moved(levels_asked(prepared.plan, prepared.kernels[name]))
    return {"levels_moved": moved} if moved > 1e-6 else {}


def _provenance(prepared: Prepared, identity: dict[str, str]) -> dict[str, Any]:
    settings = prepared.settings
    networks = {name: score for name, score in prepared.scores.items() if isinstance(score, sampler.NetworkScore)}
    used = [*LIBRARIES, *sorted({score.network.library for score in networks.values()} - {""})]
    libraries = {"python": platform.python_version(), "gaussian_test": __version__} | {name: _version(name) for name in used}
    asked = prepared.turns.noise_to_signal
    x, classes = prepared.truth["x"].attrs, prepared.reference.class_names
    # largest distance of the levels of a fixed grid from the requested ones, as a ratio minus 1
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
        "turn_times_added": prepared.turns.added,
        "turn_time_moved": moved,
        "process_limits": prepared.turns.limits,
        "space": "" if prepared.space is None else f"{prepared.space.name}, shape {prepared.reference.moments.event_shape}",
        "confidence": settings.statistics.confidence,
        "versions": json.dumps(libraries),
        "data_source": str(prepared.truth.attrs.get("source", "given in python")),
        "data_title": printable(str(prepared.truth.attrs.get("title", ""))) or "samples given in python",
        "data_scale": float(x["scale"]),
        "data_offset": float(x["offset"]),
        "data_low": float(x["valid_range"][0]),
        "data_high": float(x["valid_range"][1]),
        "data_digest": identity["data"],
        "class_names": json.dumps(classes),
        "score_classes": json.dumps({name: classes for name, entry in prepared.built.items() if entry.conditional}),
        "score_digest": json.dumps({name: identity[f"score {name}"] for name in prepared.scores}),
        "score_origin": json.dumps({name: asdict(entry.origin) for name, entry in prepared.built.items()}),
        "network_settings": json.dumps({name: score.settings | _moved(prepared, name, score) for name, score in networks.items()}),
        "identity": json.dumps(identity),
        "samples_in_ground_truth": int(prepared.truth.sizes["sample"]),
        "duplicates_in_ground_truth": prepared.reference.samples.duplicates,
        "precision": f"states {settings.dtype}, weights of the exact score float64 below a noise-to-signal of "
        f"{prepared.reference.samples.float64_below:.3g}",
    }
