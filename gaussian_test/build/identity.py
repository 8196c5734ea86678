"""What must be the same for two runs to give the same bits, and for a part to belong to a run."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

from gaussian_test.build.problem import Prepared
from gaussian_test.errors import UserError
from gaussian_test.store import archive
from gaussian_test.store.digest import is_recognisable, kernel_digest, schedule_digest, score_digest

NOT_OF_A_RESULT = ("data", "memory")  # the data are known by their digest; how much memory they may take changes nothing
FILES = ("path", "weights", "scheduler")
NOT_OF_A_SHARD = ("statistics", "keep", "features")


def run_identity(prepared: Prepared) -> dict[str, str]:
    """Return what must be the same for two runs to give the same bits."""
    settings = prepared.settings.model_dump(mode="json")
    identity = {key: json.dumps(_without_files(value)) for key, value in settings.items() if key not in NOT_OF_A_RESULT}
    identity |= {f"score {name}": score_digest(score) for name, score in prepared.scores.items()}
    plan = prepared.plan
    if prepared.settings.process.kind == "factory":  # the same name may stand for another function meanwhile
        identity["process"] += f" {schedule_digest(plan.process)}"
    if prepared.settings.reverse.factory is not None:
        identity["reverse"] += f" {kernel_digest(next(iter(prepared.kernels.values())), plan.process)}"
    identity |= {f"own observable {one.name}": f"{one.source} {one.digest}" for one in prepared.own_observables}
    identity["classifier"] += f" {prepared.classified.name}"
    identity["features"] += f" {prepared.features.name}"
    identity["kept end points"] = str(len(prepared.kept))
    identity["data"] = prepared.data_digest
    identity["schema"] = str(archive.SCHEMA_VERSION)
    identity["device type"] = prepared.device.type
    identity["torch"] = version("torch")
    return identity


def _without_files(value: Any) -> Any:
    """Leave out where a score or a schedule is read from: what is in the files is in the digests of the scores."""
    if isinstance(value, list):
        return [_without_files(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_files(item) for key, item in value.items() if key not in FILES}
    return value


def shard_identity(identity: dict[str, str]) -> dict[str, str]:
    """Return what must be the same for parts to fit: not how they are summed up, nor what is kept beside them."""
    return {key: value for key, value in identity.items() if key not in NOT_OF_A_SHARD}


def check_recognisable(prepared: Prepared) -> None:
    """Refuse to go on with a run whose scores or observables cannot be told from others.

    Raises
    ------
    UserError
        If one has neither tensors nor an attribute ``digest``, and no factory whose file could be compared.
    """
    for name, score in prepared.scores.items():
        if not is_recognisable(score):
            raise UserError(
                f"score {name!r} has no tensors to know it by again: give it an attribute 'digest' or run without resume"
            )
    for observable in prepared.own_observables:
        if not observable.digest:
            raise UserError(
                f"own observable {observable.name!r} has nothing to know it by again: give it an attribute 'digest', name a "
                "factory in the experiment, or run without resume"
            )
