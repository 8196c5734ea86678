"""What a user hands in from python, samples and scores, checked before any work starts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
import xarray as xr

from gaussian_test import sampler
from gaussian_test.analysis.moments.running import chunks
from gaussian_test.errors import UserError
from gaussian_test.experiment.scores import NAME

LABELS = 1_000_001


def checked_truth(truth: xr.Dataset) -> xr.Dataset:
    """Refuse a dataset from python that :func:`gaussian_test.data.load` would not have given."""
    if not isinstance(truth, xr.Dataset) or "x" not in truth:
        raise UserError("truth is not a Dataset with a variable x: give one as gaussian_test.data.load does")
    x = truth["x"]
    dims = tuple(str(dim) for dim in x.dims)
    if dims not in (("sample", "feature"), ("sample", "channel", "row", "column")):
        raise UserError(f"truth.x has the dimensions {dims}: give (sample, feature) or (sample, channel, row, column)")
    if x.dtype.kind != "f" or x.dtype.itemsize > 8:
        raise UserError(f"truth.x is of type {x.dtype}: give real numbers in float32 or float64, as gaussian_test.data.load does")
    if not x.dtype.isnative:  # torch takes the machine's own order of bytes alone
        truth = truth.assign(x=x.astype(x.dtype.newbyteorder("=")))
    if not all(bool(np.isfinite(chunk).all()) for chunk in chunks(truth["x"])):
        raise UserError("truth.x holds NaN or infinite values: remove or repair them")
    if "label" in truth:
        label = truth["label"]
        if label.dims != ("sample",) or label.dtype.kind not in "iu" or int(label.min()) < 0 or int(label.max()) >= LABELS:
            raise UserError("truth.label is not one whole number from 0 to a million for each sample: correct it or leave it out")
    return truth


def check_score(name: str, score: sampler.Score, event_shape: tuple[int, ...], plan: sampler.UTurnPlan) -> None:
    """Refuse a score from python that does not fit the experiment."""
    if not re.match(NAME, name):
        raise UserError(f"score name {name!r} cannot name a file: leave out slashes, and dots at the start")
    if not isinstance(score, sampler.Score):
        raise UserError(f"score {name!r} is a {type(score).__name__}: derive it from gaussian_test.sampler.Score")
    if score.event_shape != event_shape:
        raise UserError(f"score {name!r} takes samples of shape {score.event_shape}, the data has {event_shape}: use the same")
    levels = torch.tensor(plan.levels, dtype=torch.float64)
    for schedule in ("alpha", "sigma"):
        theirs, ours = getattr(score.process, schedule)(levels), getattr(plan.process, schedule)(levels)
        if not torch.allclose(theirs, ours, rtol=1e-6):
            raise UserError(f"score {name!r} belongs to {score.process}, the experiment runs {plan.process}: use the same process")


def probe(
    name: str, score: sampler.Score, plan: sampler.UTurnPlan, device: torch.device, dtype: torch.dtype, conditional: bool
) -> None:
    """Call a score that is not ours once, at the outermost levels, before any work starts."""
    label = torch.zeros(2, dtype=torch.long, device=device) if conditional else None
    x = torch.zeros(2, *score.event_shape, device=device, dtype=dtype)
    for level in (plan.levels[0], plan.levels[-1]):
        with torch.inference_mode(), evaluating([score]):
            try:
                result = score.denoise(x, torch.tensor([level, level], dtype=torch.float64), label)
            except (ValueError, sampler.NetworkError) as error:  # said in a sentence
                raise UserError(f"score {name!r}: {' '.join(str(error).split())}") from error
            except Exception as error:  # code of the user's: anything can happen in it
                reason = " ".join(str(error).split())[:200]
                raise UserError(
                    f"score {name!r} fails on two states of shape {tuple(x.shape)} ({reason}): mend its denoise method"
                ) from error
        if not isinstance(result, torch.Tensor) or result.shape != x.shape:
            given = tuple(result.shape) if isinstance(result, torch.Tensor) else type(result).__name__
            raise UserError(f"score {name!r} returned {given} for states of shape {tuple(x.shape)}: return the same shape")
        if not bool(torch.isfinite(result).all()):
            raise UserError(f"score {name!r} returned NaN or infinite values at time {level:g}: mend the model")


@contextmanager
def evaluating(scores: Iterable[sampler.Score]) -> Iterator[None]:
    """Put modules into evaluation mode and back again: no dropout, no batch statistics."""
    were_training = [score for score in scores if score.training]
    for score in were_training:
        score.eval()
    try:
        yield
    finally:
        for score in were_training:
            score.train()
