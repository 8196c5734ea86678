"""Observables of the user's: built from their factories or from python, tried, and known again."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gaussian_test.analysis.observables.custom import custom
from gaussian_test.analysis.observables.record import Observable
from gaussian_test.analysis.observables.registry import taken
from gaussian_test.analysis.variable import ENDINGS
from gaussian_test.build.factories import call_factory, lawful, source_digest
from gaussian_test.conformance import check_observable
from gaussian_test.errors import UserError
from gaussian_test.experiment import observables

Measure = Callable[[torch.Tensor, torch.Tensor], Any]
ROWS = 256  # U-Turns per call
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,59}")


@dataclass(frozen=True)
class OwnObservable:
    """An observable of the user's.

    Attributes
    ----------
    name : str
        Under which the archive has it.
    call : callable
        Takes starts and ends (batch, ``*event``), float32, on the device of the run, and returns (batch,) numbers.
    source : str
        The factory that made it, or that it was handed in.
    attributes : dict of str to str
        ``long_name``, ``units`` and ``comment`` of the variable.
    digest : str
        By what it is known again; empty where there is nothing to know it by.
    """

    name: str
    call: Measure
    source: str
    attributes: dict[str, str]
    digest: str

    @property
    def record(self) -> Observable:
        """Its record, with which it is measured and shown like any other."""
        return custom(self.name, self.attributes, self.source, self)

    def __call__(self, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
        """Return a number for each U-Turn, float64 on the CPU, (n,), in batches."""
        values = torch.empty(len(end), dtype=torch.float64)
        for first in range(0, len(end), ROWS):
            rows = slice(first, first + ROWS)
            try:
                found = self.call(start[rows].float(), end[rows].float())
            except Exception as error:  # code of the user's: anything can happen in it
                reason = " ".join(str(error).split())[:200]
                raise UserError(f"own observable {self.name!r} failed ({type(error).__name__}: {reason}): mend it") from error
            block = torch.as_tensor(found).detach().double().cpu()
            if block.shape != values[rows].shape or not bool(torch.isfinite(block).all()):
                raise UserError(
                    f"own observable {self.name!r}: {len(values[rows])} U-Turns gave shape {tuple(block.shape)}, or NaN or "
                    "infinite values: return one finite number for each; the shards finished before are kept"
                )
            values[rows] = block
        return values


def build_own_observables(
    settings: Mapping[str, observables.OwnObservable], given: Mapping[str, Measure], device: torch.device, sample: Any
) -> tuple[OwnObservable, ...]:
    """Return the observables that an experiment names and those from python, tried on two samples.

    Parameters
    ----------
    settings : mapping of str to OwnObservable
        Of the experiment.
    given : mapping of str to callable
        From python; a name used twice means the one from python.
    device : torch.device
        Of the run.
    sample : array
        Two samples, (2, ``*event``).

    Raises
    ------
    UserError
        If a name cannot be that of a variable, or an observable cannot be had or breaks a law of observables.
    """
    built = []
    for name in (*settings, *(name for name in given if name not in settings)):
        _check_name(name)
        if name in given:
            call, source, code = given[name], "given in python", ""
        else:
            made = settings[name]
            call, source = call_factory(made.factory, made.arguments), made.factory
            code = source_digest(made.factory)  # once it is imported
        if not callable(call):
            raise UserError(
                f"own observable {name!r}: {source} gave a {type(call).__name__}, which cannot be called: give a function of "
                "the starts and the ends of U-Turns"
            )
        if isinstance(call, torch.nn.Module):
            call = call.to(device).eval()
        x = torch.from_numpy(np.array(sample)).to(device, torch.float32)
        event = tuple(x.shape[1:])
        start, end = x.clone(), x.flip(0)
        lawful(lambda c=call, e=event, a=start, b=end: check_observable(c, e, a, b), f"own observable {name!r}")  # type: ignore[misc]
        built.append(OwnObservable(name, call, source, _attributes(name, call), _digest(call, code)))
    return tuple(built)


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not NAME.fullmatch(name) or name.endswith(ENDINGS) or name.startswith("sample_"):
        raise UserError(
            f"own_observables: {name!r:.80} cannot name a variable: give letters, digits and underscores, a letter first, without "
            f"sample_ at the start or {', '.join(ENDINGS)} at the end"
        )
    if name in taken():
        raise UserError(f"own_observables: the name {name!r} is taken in the archive: give another one")


def _attributes(name: str, call: Measure) -> dict[str, str]:
    """Return what a function says of itself in attributes, else its name, no unit and the first line of its docstring."""
    own = {key: str(getattr(call, key)) for key in ("long_name", "units", "comment") if isinstance(getattr(call, key, None), str)}
    text = (call.__doc__ or "").strip() if inspect.isfunction(call) else ""
    comment = {"comment": text.splitlines()[0]} if text else {}
    return {"long_name": name.replace("_", " "), "units": "1"} | comment | own


def _digest(call: Measure, code: str) -> str:
    """Return by what an observable is known again: what it says itself, its tensors, the file of its factory."""
    digest = hashlib.sha256()
    known = [text for text in (code, str(getattr(call, "digest", ""))) if text]
    for text in known:
        digest.update(text.encode())
    state = call.state_dict() if isinstance(call, torch.nn.Module) else {}
    for key, value in sorted(state.items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest() if known or state else ""
