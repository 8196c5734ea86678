"""Run an experiment: shards to sample tables, tables to the result, the result to an archive."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from tqdm import tqdm

from gaussian_test import accessor, archive, sampler
from gaussian_test.assemble import assemble
from gaussian_test.digest import data_digest, is_recognisable, score_digest
from gaussian_test.errors import UserError, user_input
from gaussian_test.experiment import Experiment
from gaussian_test.from_python import evaluating
from gaussian_test.parts import Parts
from gaussian_test.prepare import Prepared, prepare
from gaussian_test.shard import run_shard


def run(
    experiment: Experiment | Mapping[str, Any] | str | Path | None = None,
    output: str | Path | None = None,
    *,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    truth: xr.Dataset | None = None,
    scores: Mapping[str, sampler.Score] | None = None,
    trust: Mapping[str, str] | None = None,
    classifier: Any = None,
    features: Callable[[torch.Tensor], Any] | None = None,
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
    trust : mapping of str to str, optional
        Files that run code when they are opened (pickles, TorchScript), and the sha256 by which they are trusted.
    classifier : scikit-learn classifier, optional
        Who says of which class an end point is, instead of the experiment's; a copy is fitted on the ground truth.
    features : torch module or callable, optional
        On what end points and ground truth are compared, instead of the experiment's: takes samples (batch, ``*event``) as a
        tensor and returns features (batch, F), for example those of an Inception network.
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
    prepared = prepare(settings, device, truth, scores, trust, classifier, features)
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
        result, groups = assemble(prepared, table, identity)
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
    identity["classifier"] += f" {prepared.classified.name}"
    identity["features"] += f" {prepared.features.name}"
    identity["kept end points"] = str(len(prepared.kept))
    identity["data"] = data_digest(prepared.truth)
    identity["schema"] = str(archive.SCHEMA_VERSION)
    identity["device type"] = prepared.device.type
    identity["torch"] = version("torch")
    return identity


def _shard_identity(identity: dict[str, str]) -> dict[str, str]:
    """Return what must be the same for parts to fit: not how they are summed up, nor what is kept beside them."""
    return {key: value for key, value in identity.items() if key not in ("statistics", "keep", "features")}


def _run_shards(prepared: Prepared, parts: Parts | None, progress: bool | None) -> xr.Dataset:
    shards = prepared.plan.shards(prepared.samples.tolist())
    tables = [parts.read(index) if parts else None for index in range(len(shards))]
    _settle_micro_batches(prepared, [table for table in tables if table is not None])
    bar = tqdm(shards, desc=f"U-Turns on {prepared.device}", unit="shard", disable=None if progress is None else not progress)
    for index, shard in enumerate(bar):
        if tables[index] is not None:
            continue
        table = tables[index] = run_shard(prepared, shard)
        if parts:
            try:
                parts.write(index, table)
            except OSError as error:
                reason = error.strerror or error
                raise UserError(f"shard {index} could not be written ({reason}): free the disk and add --resume") from error
    whole = [table for table in tables if table is not None]
    joined = [_along(whole, dim) for dim in ("sample", "kept")]
    return joined[0].merge(joined[1], compat="override", join="exact", combine_attrs="override")


def _along(tables: list[xr.Dataset], dim: str) -> xr.Dataset:
    """Join what the tables of the shards hold of all samples, or of those whose states were kept."""
    parts = [table.drop_dims({"sample", "kept"} - {dim}, errors="ignore") for table in tables if dim in table.dims]
    if not parts:
        return xr.Dataset()
    return xr.concat(parts, dim, data_vars="minimal", coords="minimal", compat="override", join="exact", combine_attrs="override")


def _settle_micro_batches(prepared: Prepared, finished: list[xr.Dataset]) -> None:
    """Give every network that leaves its micro-batch open the one of the finished shards, or the fastest: it decides rounding."""
    for name, score in prepared.scores.items():
        if isinstance(score, sampler.NetworkScore):
            score.micro_batch = score.asked_micro_batch
            if score.micro_batch is not None:
                continue
            if finished:
                score.micro_batch = int(finished[-1]["micro_batch"].sel(score=name)[-1])
            else:
                score.micro_batch = sampler.fastest_micro_batch(
                    score, prepared.plan.micro_batch, prepared.device, prepared.dtype, prepared.built[name].conditional
                )
