"""What must be the same for two runs to give the same bits, and for a part to belong to a run."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

from gaussian_test import archive
from gaussian_test.digest import score_digest
from gaussian_test.prepare import Prepared

NOT_OF_A_RESULT = ("data", "memory")  # the data are known by their digest; how much memory they may take changes nothing
FILES = ("path", "weights", "scheduler")
NOT_OF_A_SHARD = ("statistics", "keep", "features")


def run_identity(prepared: Prepared) -> dict[str, str]:
    """Return what must be the same for two runs to give the same bits.

    Examples
    --------
    >>> from gaussian_test import experiment, prepare
    >>> run_identity(prepare.prepare(experiment.Experiment(samples=4)))["seed"]
    '0'
    """
    settings = prepared.settings.model_dump(mode="json")
    identity = {key: json.dumps(_without_files(value)) for key, value in settings.items() if key not in NOT_OF_A_RESULT}
    identity |= {f"score {name}": score_digest(score) for name, score in prepared.scores.items()}
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
    """Return what must be the same for parts to fit: not how they are summed up, nor what is kept beside them.

    Examples
    --------
    >>> shard_identity({"seed": "0", "statistics": "{}"})
    {'seed': '0'}
    """
    return {key: value for key, value in identity.items() if key not in NOT_OF_A_SHARD}
