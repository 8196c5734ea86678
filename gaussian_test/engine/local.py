"""The shards of a run, computed in this process one after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
import xarray as xr

from gaussian_test import sampler
from gaussian_test.build.from_python import evaluating
from gaussian_test.build.problem import Prepared
from gaussian_test.engine.interruption import Interrupted, Interruption
from gaussian_test.engine.shard import run_shard
from gaussian_test.errors import UserError
from gaussian_test.log import Progress
from gaussian_test.store.parts import Parts


def compute_here(
    prepared: Prepared, parts: Parts | None, missing: Sequence[int], progress: Progress, interruption: Interruption
) -> dict[int, xr.Dataset]:
    """Compute the shards that are missing, and write each as a part when it is done.

    Raises
    ------
    UserError
        If a score fails, or a part cannot be written; what is finished is kept.
    Interrupted
        If a signal came.
    """
    shards = prepared.plan.shards(prepared.samples.tolist())
    tables: dict[int, xr.Dataset] = {}
    with interruption.finishing() if parts else nullcontext(), computing(prepared):
        for shard in missing:
            if interruption.asked is not None:
                break
            began = time.monotonic()
            tables[shard] = run_shard(prepared, shards[shard])
            if parts:
                try:
                    parts.write(shard, tables[shard])
                except OSError as error:
                    reason = error.strerror or error
                    raise UserError(
                        f"shard {shard} could not be written ({reason}): make room or give permission to write, and add --resume"
                    ) from error
            progress.finished(shard, time.monotonic() - began)
    if interruption.asked is not None:
        raise Interrupted(interruption.asked)
    return tables


@contextmanager
def computing(prepared: Prepared) -> Iterator[None]:
    """Put torch and the networks into the state in which shards are computed."""
    with torch.inference_mode(), evaluating(prepared.scores.values()), _precision(prepared.settings.tf32):
        yield


@contextmanager
def _precision(tf32: bool | None) -> Iterator[None]:
    """Let products and convolutions of float32 be of TF32 or not, for the time of a computation."""
    switches = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined] # a class in place of the module
    before = [switch.fp32_precision for switch in switches]
    try:
        for switch in switches if tf32 is not None else ():
            switch.fp32_precision = "tf32" if tf32 else "ieee"
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value


def settle_micro_batches(prepared: Prepared, known: dict[str, int]) -> dict[str, int]:
    """Give every network that leaves its micro-batch open the one that is known, or the fastest: it decides rounding."""
    settled = {}
    for name, score in prepared.scores.items():
        if isinstance(score, sampler.NetworkScore):
            score.micro_batch = score.asked_micro_batch or known.get(name)
            if score.micro_batch is None:
                with computing(prepared):
                    score.micro_batch = sampler.fastest_micro_batch(
                        score, prepared.plan.micro_batch, prepared.device, prepared.dtype, prepared.built[name].conditional
                    )
            settled[name] = score.micro_batch
    return settled
