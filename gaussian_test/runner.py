"""Run an experiment: shards to sample tables, tables to the result, the result to an archive."""

from __future__ import annotations

import datetime
import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from tqdm import tqdm

from gaussian_test import accessor, analysis, archive, sampler
from gaussian_test._version import __version__
from gaussian_test.digest import data_digest, is_recognisable, score_digest
from gaussian_test.errors import UserError, user_input
from gaussian_test.experiment import Experiment
from gaussian_test.from_python import evaluating
from gaussian_test.parts import Parts
from gaussian_test.prepare import Prepared, continuous_flow, is_affine, kernel_name, prepare, turn_levels

DOI = "https://doi.org/10.3390/e27040343"
LIBRARIES = ("torch", "numpy", "scipy", "xarray", "netCDF4", "scikit-learn")
Array = NDArray[np.float64]


def run(
    experiment: Experiment | Mapping[str, Any] | str | Path | None = None,
    output: str | Path | None = None,
    *,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    truth: xr.Dataset | None = None,
    scores: Mapping[str, sampler.Score] | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Run the Gaussian Test.

    Parameters
    ----------
    experiment : Experiment, dict or path of a YAML file, optional
        What to run; default: the Gaussian Test of the embedded digits.
    output : path, optional
        Where to write the archive; finished shards are kept beside it until it is whole. Default: memory only.
    device : str
        ``auto`` (a GPU where there is one), ``cpu`` or ``cuda[:i]``.
    resume : bool
        Go on with the parts of an interrupted run of the same experiment; an archive that is already whole is opened.
    overwrite : bool
        Replace an existing archive (when the new one is whole) and drop the parts of an interrupted run.
    truth : Dataset, optional
        Ground-truth samples from python, as :func:`gaussian_test.data.load` gives them, instead of the experiment's ``data``.
    scores : mapping of str to Score, optional
        Scores from python, beside those of the experiment; moved to the device and into the type of the run.
    progress : bool, optional
        Show a progress bar; default: when on a terminal.

    Returns
    -------
    Dataset
        The root group of the archive; ``.gaussian_test.group("moments")`` gives the others.

    Raises
    ------
    UserError
        If something the user gave cannot be done. Nothing is left behind then, but for the finished shards of a run that failed
        after it had begun (a score that returns NaN, a full disk).

    Examples
    --------
    >>> result = run({"samples": 8, "turn_times": {"noise_to_signal": [0.1, 5.0]}, "keep": {"pictures": 0}})
    >>> result.memorized_share.sel(score="empirical").values.tolist()
    [1.0, 0.0]
    """
    settings = experiment if isinstance(experiment, Experiment) else Experiment.load(_as_source(experiment))
    path = None if output is None else Path(output)
    if path is not None:
        with user_input():
            _check_output(path, resume, overwrite)
    prepared = prepare(settings, device, truth, scores)
    identity = _identity(prepared)
    if resume:
        for name, score in prepared.scores.items():
            if not is_recognisable(score):
                raise UserError(
                    f"score {name!r} has no tensors to know it by again: give it an attribute 'digest' or run without resume"
                )
    parts = None
    if path is not None:
        finished = _already_there(path, identity) if resume and path.exists() else None
        with user_input():
            parts = Parts(path, _shard_identity(identity), resume, overwrite)
        if finished is not None:
            _clear(path, parts)  # a run may have been killed between its last two steps
            return finished
    with torch.inference_mode(), evaluating(prepared.scores.values()):
        table = _run_shards(prepared, parts, progress)
        result, groups = _assemble(prepared, table, identity)
    if path is None or parts is None:
        accessor.attach_groups(result, groups)
        return result
    try:
        archive.write(path, result, groups)
    except OSError as error:
        raise UserError(f"{path} could not be written ({error.strerror or error}): free the disk and add --resume") from error
    _clear(path, parts)
    return archive.open_archive(path)


def _clear(path: Path, parts: Parts) -> None:
    """Remove what is not needed once the archive is there."""
    parts.remove()
    archive.sweep(path)


def _as_source(experiment: Mapping[str, Any] | str | Path | None) -> dict[str, Any] | str | Path | None:
    return dict(experiment) if isinstance(experiment, Mapping) else experiment


def _check_output(path: Path, resume: bool, overwrite: bool) -> None:
    if resume and overwrite:
        raise UserError("resume and overwrite exclude each other: go on with the parts or start again")
    if not path.parent.is_dir():
        raise UserError(f"{path.parent} is not a folder: create it or choose another output")
    if path.is_dir():
        raise UserError(f"{path} is a folder: give the name of a file in it")
    if path.exists() and not (resume or overwrite):
        raise UserError(f"{path} exists: add --overwrite to replace it or choose another output")


def _already_there(path: Path, identity: dict[str, str]) -> xr.Dataset:
    result = archive.open_archive(path)
    theirs = json.loads(result.attrs.get("identity", "{}"))
    for key, mine in identity.items():
        if theirs.get(key) != mine:
            raise UserError(f"{path} is the archive of another run ({key} differs): choose another output or --overwrite")
    return result


def _identity(prepared: Prepared) -> dict[str, str]:
    """Return what must be the same for two runs to give the same bits."""
    settings = prepared.settings.model_dump(mode="json")
    identity = {key: json.dumps(value) for key, value in settings.items() if key != "data"}
    identity |= {f"score {name}": score_digest(score) for name, score in prepared.scores.items()}
    identity["data"] = data_digest(prepared.truth)
    identity["schema"] = str(archive.SCHEMA_VERSION)
    identity["device type"] = prepared.device.type
    identity["torch"] = version("torch")
    return identity


def _shard_identity(identity: dict[str, str]) -> dict[str, str]:
    """Return what must be the same for parts to fit: not how they are summed up, nor what is kept beside them."""
    return {key: value for key, value in identity.items() if key not in ("statistics", "keep")}


def _run_shards(prepared: Prepared, parts: Parts | None, progress: bool | None) -> xr.Dataset:
    shards = prepared.plan.shards(prepared.samples.tolist())
    tables = []
    bar = tqdm(shards, desc="U-Turns", unit="shard", disable=None if progress is None else not progress)
    for index, shard in enumerate(bar):
        table = parts.read(index) if parts else None
        if table is None:
            table = _run_shard(prepared, shard)
            if parts:
                try:
                    parts.write(index, table)
                except OSError as error:
                    reason = error.strerror or error
                    raise UserError(f"shard {index} could not be written ({reason}): free the disk and add --resume") from error
        tables.append(table)
    return xr.concat(tables, "sample", data_vars="minimal", coords="minimal", compat="override", join="exact")


def _run_shard(prepared: Prepared, shard: tuple[int, ...]) -> xr.Dataset:
    x0, labels = prepared.starts(shard), prepared.labels(shard)
    table = analysis.SampleTable(prepared.plan, prepared.scores, prepared.reference, x0, shard, labels)
    for state in prepared.plan.run(x0, shard, prepared.scores, prepared.kernels, labels):
        table.observe(state)
    result = table.to_dataset()
    _check_finite(prepared, result)
    return result


def _check_finite(prepared: Prepared, table: xr.Dataset) -> None:
    """Stop when a score has returned NaN: nothing computed from it means anything."""
    for name in ("sample_autocorrelation_one_shot", "sample_autocorrelation"):
        bad = ~np.isfinite(table[name].values).all(axis=(2, 3))
        if bad.any():
            score, turn = (int(index) for index in np.argwhere(bad)[0])
            raise UserError(
                f"score {str(table['score'].values[score])!r} returned NaN or infinite values for the turn at noise-to-signal "
                f"{prepared.noise_to_signal[turn]:.4g}: mend the model or leave that turn time out"
            )


def _assemble(prepared: Prepared, table: xr.Dataset, identity: dict[str, str]) -> tuple[xr.Dataset, dict[str, xr.Dataset]]:
    """Return the root group and the others, in the types that the disk keeps."""
    settings, reference = prepared.settings, prepared.reference
    steps = prepared.plan.reverse_steps()
    taken = [[1 if kernel.exact else count for count in steps] for kernel in prepared.kernels.values()]
    table = table.assign_coords(noise_to_signal=("turn_time", prepared.noise_to_signal))
    table["noise_to_signal"].attrs = {"long_name": "noise-to-signal ratio at the turn", "units": "1", "comment": "sigma/alpha"}
    labels = np.full(len(prepared.samples), -1, dtype=np.int64) if reference.labels is None else reference.labels[prepared.samples]
    table["label"] = (
        "sample",
        labels,
        {"long_name": "class of the sample", "units": "1", "comment": "-1 where there are no classes"},
    )
    table["kernel"] = (
        "score",
        [kernel_name(kernel) for kernel in prepared.kernels.values()],
        {"long_name": "reverse kernel", "units": "1"},
    )
    table["reverse_steps"] = (
        ("score", "turn_time"),
        np.array(taken, dtype=np.int64),
        {"long_name": "reverse steps taken from the turn to 0", "units": "1"},
    )
    table["truth"] = ("score", [_kind(name, prepared) for name in prepared.scores])
    exact, discrete, of_reference = _closed_forms(prepared)
    table["reference_discrete"] = (("score", "turn_time"), of_reference)
    resampling = settings.statistics.model_dump() | {"seed": settings.seed}
    truth = analysis.GroundTruth(
        reference.moments.count,
        reference.moments.eigenvalues,
        analysis.third_cumulant_norm(prepared.truth["x"], reference.moments.mean),
        None if reference.labels is None else np.bincount(reference.labels) / len(reference.labels),
    )
    result = analysis.gaussian_test(table, truth, analysis.Statistics(**resampling))
    for name, values, comment in (
        ("autocorrelation_exact", exact, "closed form in continuous time; NaN where there is none"),
        ("autocorrelation_discrete", discrete, "closed form through the very steps simulated; NaN where there is none"),
    ):
        result[name] = (("score", "turn_time"), values, {"long_name": name.replace("_", " "), "units": "1", "comment": comment})
    _add_process_times(result, prepared)
    result = result.merge(table.drop_vars(["truth", "reference_discrete"]), combine_attrs="override")
    result.attrs = _provenance(prepared, identity)
    return archive.plain(result), {name: archive.plain(group) for name, group in _groups(prepared).items()}


def _kind(name: str, prepared: Prepared) -> str:
    score = prepared.scores[name]
    return "empirical" if score is prepared.reference.samples and name not in prepared.conditional else "other"


def _closed_forms(prepared: Prepared) -> tuple[Array, Array, Array]:
    """Return the closed forms of affine scores, continuous and discretised, and the fitted Gaussian's under each score's kernel."""
    plan, moments = prepared.plan, prepared.reference.moments
    exact, discrete, reference = [], [], []
    known: dict[str, Array] = {}
    for name, score in prepared.scores.items():
        kernel = prepared.kernels[name]
        flow = continuous_flow(kernel)
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


def _add_process_times(result: xr.Dataset, prepared: Prepared) -> None:
    """Add the three times in the process's own time, beside the noise-to-signal ratios they were found as."""
    process = prepared.plan.process
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
            result[f"{name}_time{suffix}"] = ("score", values, attributes)


def _groups(prepared: Prepared) -> dict[str, xr.Dataset]:
    keep = prepared.settings.keep
    groups = {"moments": prepared.reference.moments.to_dataset(keep.eigenvectors)}
    shown = tuple(prepared.samples[: keep.pictures].tolist())
    if not shown:
        return groups
    x0, labels = prepared.starts(shown), prepared.labels(shown)
    plan = sampler.UTurnPlan(
        prepared.plan.process,
        prepared.plan.levels,
        steps=prepared.plan.steps,
        seed=prepared.plan.seed,
        micro_batch=prepared.plan.micro_batch,
        rho=prepared.plan.rho,
    )
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
    libraries = {"python": platform.python_version(), "gaussian_test": __version__} | {name: version(name) for name in LIBRARIES}
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
        "device": str(prepared.device),
        "micro_batch": settings.micro_batch,
        "turn_times_asked": len(turn_levels(prepared.plan.process, settings.turn_times)),
        "confidence": settings.statistics.confidence,
        "versions": json.dumps(libraries),
        "data_source": str(prepared.truth.attrs.get("source", "given in python")),
        "data_digest": identity["data"],
        "score_digest": json.dumps({name: identity[f"score {name}"] for name in prepared.scores}),
        "identity": json.dumps(identity),
        "samples_in_ground_truth": int(prepared.truth.sizes["sample"]),
    }
