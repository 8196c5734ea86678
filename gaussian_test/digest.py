"""Digests: by what samples and scores are known again, wherever they came from."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import torch
import xarray as xr

from gaussian_test import analysis, sampler


def data_digest(truth: xr.Dataset) -> str:
    """Return the sha256 of samples and labels, whatever file they came from.

    Examples
    --------
    >>> from gaussian_test import data
    >>> len(data_digest(data.load("digits")))
    64
    """
    digest = hashlib.sha256(repr(truth["x"].shape).encode())
    for chunk in analysis.running_moments.chunks(truth["x"]):
        digest.update(np.ascontiguousarray(chunk, dtype=np.float32).tobytes())
    if "label" in truth:
        digest.update(np.ascontiguousarray(truth["label"].values, dtype=np.int64).tobytes())
    return digest.hexdigest()


def score_digest(score: sampler.Score) -> str:
    """Return the sha256 of a score: its class, its process and its numbers.

    A score that computes with something outside its tensors says what in an attribute ``digest`` (a string).

    Examples
    --------
    >>> len(score_digest(analysis.GaussianScore.from_moments([0.0], [[1.0]])))
    64
    """
    own = getattr(score, "digest", "")
    if isinstance(score, sampler.NetworkScore):
        own = f"{own} {_schedule(score.trained)} {json.dumps(score.settings, sort_keys=True)}"
    kind = f"{type(score).__module__}.{type(score).__qualname__}"
    digest = hashlib.sha256(f"{kind} {_schedule(score.process)} {score.event_shape} {own}".encode())
    state = score.state_dict()
    if isinstance(score, sampler.EmpiricalScore):  # in memory or in their file, the samples are the same
        state.pop("samples", None)
        for tile in score.tiles():
            digest.update(tile.cpu().numpy().tobytes())
    for name, value in sorted(state.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _schedule(schedule: sampler.Schedule) -> str:
    if not isinstance(schedule, sampler.Process):
        return repr(schedule)
    values = {name: value.tolist() if isinstance(value, torch.Tensor) else value for name, value in vars(schedule).items()}
    return f"{type(schedule).__name__} {values}"


def is_recognisable(score: sampler.Score) -> bool:
    """Return whether a score's digest can tell it from another: it has tensors, or says who it is.

    Examples
    --------
    >>> is_recognisable(analysis.GaussianScore.from_moments([0.0], [[1.0]]))
    True
    """
    return bool(score.state_dict()) or hasattr(score, "digest")
