"""Observables of the user's: a number for the start and the end of each U-Turn, and the curve with its bands that follows."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from gaussian_test import analysis
from gaussian_test.analysis.statistics.bootstrap import SUFFIXES
from gaussian_test.build.factories import call_factory, lawful, source_digest
from gaussian_test.conformance import check_observable
from gaussian_test.errors import UserError
from gaussian_test.experiment import observables

Array = NDArray[np.float64]
Measure = Callable[[torch.Tensor, torch.Tensor], Any]
ROWS = 256  # U-Turns per call
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,59}")
OF_BANDS = ("_se", "_low", "_high", "_pvalue")
TAKEN = frozenset(
    """
    affine_gain affine_gap affine_noise_to_signal affine_noise_to_signal_predicted affine_time affine_time_predicted archive
    autocorrelation autocorrelation_discrete autocorrelation_exact autocorrelation_gaussian autocorrelation_one_shot
    autocorrelation_one_shot_squared autocorrelation_time autocorrelation_time_gaussian balance_simulated balance_squared
    chain_label chain_product chain_turn change_correlation change_correlation_length change_correlation_length_magnitude
    change_correlation_magnitude change_susceptibility change_susceptibility_gaussian change_susceptibility_magnitude
    channel class class_retention classifier_accuracy close_share column component conditional denoiser_gap distance
    eigenvalue eigenvector end end_gaussian end_isotropic end_square end_square_discrete excess_entropy
    exchange_class_statistic exchange_energy_statistic exchange_moments_largest exchange_moments_mean
    exchange_moments_statistic experiment feature flow frechet frechet_floor frechet_plug_in gap gap_one_shot kept
    kept_sample kernel kid kl_from_gaussian kl_from_gaussian_quadrature_error ks_discovered ks_distance ks_mean
    ks_share_above ks_share_above_null ks_share_discovered ks_share_rejected label label_after link link_other mean
    memorization_noise_to_signal memorization_noise_to_signal_by_class memorization_noise_to_signal_predicted
    memorization_noise_to_signal_predicted_excess_entropy memorization_noise_to_signal_predicted_within_class
    memorization_self_averaging memorization_time memorization_time_predicted memorized_share micro_batch mode
    nearest_distance nearest_sample noise_to_signal reference reference_discrete repeat residual reverse_steps row run
    sample score score_explained score_kind score_norm score_norm_gaussian score_norm_relative score_norm_relative_gaussian
    score_square_scaled score_square_scaled_gaussian speciation_noise_to_signal speciation_noise_to_signal_by_class
    speciation_noise_to_signal_predicted speciation_noise_to_signal_predicted_within_class speciation_self_averaging
    speciation_time speciation_time_predicted start start_frechet start_frechet_plug_in start_frechet_to_truth
    start_frechet_to_truth_plug_in start_kid start_kid_to_truth state step time truth turn_time typical_nearest_distance
    """.split()  # noqa: SIM905 # variables and dimensions of archives and parts
)


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

    Returns
    -------
    tuple of OwnObservable
        In the order of the experiment, those from python last.

    Raises
    ------
    UserError
        If a name cannot be that of a variable, or an observable cannot be had or breaks a law of observables.

    Examples
    --------
    >>> def moved(start, end):
    ...     return (end - start).abs().mean(1)
    >>> (found,) = build_own_observables({}, {"moved": moved}, torch.device("cpu"), np.eye(2))
    >>> found(torch.zeros(3, 2), torch.ones(3, 2)).tolist()
    [1.0, 1.0, 1.0]
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
    if not isinstance(name, str) or not NAME.fullmatch(name) or name.endswith(OF_BANDS) or name.startswith("sample_"):
        raise UserError(
            f"own_observables: {name!r:.80} cannot name a variable: give letters, digits and underscores, a letter first, without "
            f"sample_ at the start or {', '.join(OF_BANDS)} at the end"
        )
    if name in TAKEN:
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


def own_curves(observables: tuple[OwnObservable, ...], table: xr.Dataset, resample: analysis.ClusterBootstrap) -> xr.Dataset:
    """Return the curves of the user's observables: means over the starts with simultaneous bands.

    Parameters
    ----------
    observables : tuple of OwnObservable
        Of the run.
    table : Dataset
        The sample table, with ``sample_<name>`` over (score, turn_time, sample, repeat).
    resample : ClusterBootstrap
        Of the starts.

    Returns
    -------
    Dataset
        ``<name>``, ``<name>_se``, ``<name>_low`` and ``<name>_high`` over (score, turn_time).

    Examples
    --------
    >>> table = xr.Dataset({"sample_moved": (("score", "turn_time", "sample", "repeat"), np.ones((1, 2, 9, 1)))})
    >>> moved = OwnObservable("moved", lambda start, end: end, "given in python", {"long_name": "moved", "units": "1"}, "")
    >>> own_curves((moved,), table, analysis.ClusterBootstrap(9, 100)).moved.values.tolist()
    [[1.0, 1.0]]
    """
    result = xr.Dataset()
    for observable in observables:
        values = table[f"sample_{observable.name}"].mean("repeat").transpose("score", "sample", "turn_time").values
        bands = [_band(of_score, resample).columns() for of_score in values]
        for suffix in ("", "_se", "_low", "_high"):
            attributes = observable.attributes | {"long_name": f"{observable.attributes['long_name']}{SUFFIXES[suffix]}"}
            if not suffix:
                attributes["own_observable"] = observable.source
            result[observable.name + suffix] = (("score", "turn_time"), np.array([band[suffix] for band in bands]), attributes)
    return result


def _band(values: Array, resample: analysis.ClusterBootstrap) -> analysis.Band:
    """Return the band of a curve; where resamples lose all variation, as those of shares do, in units of the data's own error."""
    band = resample.band(values)
    return band if np.isfinite(band.low).all() else resample.band(values, studentized=False)


class OwnTable:
    """Collects the values of the user's observables for one shard.

    Parameters
    ----------
    observables : tuple of OwnObservable
        Of the run.
    scores : list of str
        In the order of the table.
    turn_times, repeats : int
        Numbers of them.
    x0 : Tensor
        Starts of the shard, shape (n, ``*event``).
    """

    def __init__(
        self, observables: tuple[OwnObservable, ...], scores: list[str], turn_times: int, repeats: int, x0: torch.Tensor
    ) -> None:
        self._observables = observables
        self._scores = scores
        self._start = x0.repeat_interleave(repeats, 0) if observables else x0
        self._shape = (len(scores), turn_times, len(x0), repeats)
        self._values = {
            one.name: torch.full((len(scores), turn_times, len(x0) * repeats), torch.nan).double() for one in observables
        }

    def observe(self, score: str, turns: slice, ends: torch.Tensor) -> None:
        """Measure end points of some turn times, (turns, rows, ``*event``)."""
        for observable in self._observables:
            start = self._start.expand(len(ends), *self._start.shape).flatten(0, 1)
            found = observable(start, ends.flatten(0, 1)).reshape(len(ends), -1)
            self._values[observable.name][self._scores.index(score), turns] = found

    def to_dataset(self) -> xr.Dataset:
        """Return ``sample_<name>`` over (score, turn_time, sample, repeat)."""
        result = xr.Dataset()
        for one in self._observables:
            values = self._values[one.name].numpy().reshape(self._shape)
            attributes = one.attributes | {"long_name": f"{one.attributes['long_name']}, of one U-Turn"}
            result[f"sample_{one.name}"] = (("score", "turn_time", "sample", "repeat"), values, attributes)
        return result
