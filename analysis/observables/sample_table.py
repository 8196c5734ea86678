r"""Sample table: per-U-Turn statistics, reduced as the plan yields states.

One row per score, turn time, sample and repeat; the records of the observables declare its columns. Every curve and time of the
Gaussian Test can be recomputed from the table.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from gaussian_test.analysis.declarations import declared, described
from gaussian_test.analysis.moments.moments import event_dims
from gaussian_test.analysis.observables.affinity import AFFINITY
from gaussian_test.analysis.observables.gaussian_test import GAUSSIAN_TEST
from gaussian_test.analysis.observables.record import Ended, Observable, Turned
from gaussian_test.analysis.observables.run import COORDINATES, KEPT
from gaussian_test.analysis.uturn.reference import Reference
from gaussian_test.sampler import Evaluated, Score, State, UTurnPlan


class SampleTable:
    """Collector for the rows of one shard.

    Parameters
    ----------
    plan : UTurnPlan
        The plan whose states are observed.
    scores : mapping of str to Score
        In the order of the table.
    reference : Reference
        Reference for the end points.
    x0 : Tensor
        The samples of the shard, shape (n, ``*event``).
    samples : sequence of int
        Their indices in the ground-truth set.
    labels : mapping, optional
        Class of each sample for scores that condition on it.
    starts_are_samples : bool
        Whether ``samples`` are indices into the ground-truth set, rather than numbers of draws from another law.
    kept : sequence of int
        Positions in ``samples`` whose end points are kept, for observables that need those of all samples together. With reference
        scores, also keep the denoised turn minus the Gaussian's.
    observables : sequence of Observable, optional
        Observables whose rows are collected. Default: the Gaussian Test and, with reference scores, the affinity.
    """

    def __init__(
        self,
        plan: UTurnPlan,
        scores: Mapping[str, Score],
        reference: Reference,
        x0: Tensor,
        samples: Sequence[int],
        labels: Mapping[str, Tensor] | None = None,
        starts_are_samples: bool = True,
        kept: Sequence[int] = (),
        observables: Sequence[Observable] | None = None,
    ) -> None:
        self._plan = plan
        self._scores = scores
        self._reference = reference
        default = (GAUSSIAN_TEST, AFFINITY) if reference.scores else (GAUSSIAN_TEST,)
        observables = default if observables is None else observables
        self._at_turn = [one.function(one.at_turn) for one in observables if one.at_turn]
        self._at_end = [one.function(one.at_end) for one in observables if one.at_end]
        self._variables = {variable.name: variable for one in observables for variable in one.variables}
        self._samples = np.asarray(samples, dtype=np.int64)
        self._labels = {name: label.repeat_interleave(plan.repeats, 0) for name, label in (labels or {}).items()}
        own = torch.as_tensor(self._samples, device=x0.device).repeat_interleave(plan.repeats, 0)
        self._index = own if starts_are_samples else None
        self._mean = torch.from_numpy(reference.moments.mean.reshape(-1)).to(x0)
        levels = torch.tensor(plan.levels, dtype=torch.float64)
        self._alpha, self._sigma = (of(levels).to(x0.device)[:, None] for of in (plan.process.alpha, plan.process.sigma))
        self._eigenvalues = torch.from_numpy(reference.moments.eigenvalues).to(x0.device)
        self._x0 = x0.repeat_interleave(plan.repeats, 0)
        self._start = self._x0.flatten(1) - self._mean
        self._values: dict[str, Tensor] = {}
        self._kept = list(kept)
        # rows of the kept samples, with all repeats, and with their first repeats only
        self._kept_rows = torch.arange(len(self._start), device=x0.device).reshape(-1, plan.repeats)[self._kept]
        self._ends = x0.new_empty(len(scores), len(plan.levels), len(self._kept), plan.repeats, *x0.shape[1:])

    def observe(self, state: State) -> None:
        """Reduce one state of the plan to the table; states on the path are ignored.

        Parameters
        ----------
        state : State
            As yielded by :meth:`UTurnPlan.run`.
        """
        if state.phase == "turn" and self._at_turn:
            turned = self._turned(state)
            for rows in self._at_turn:
                for name, score, values in rows(turned):
                    self._store(name, state.turns, values, score)
        elif state.phase == "end" and state.score is not None:
            count = len(state.x)
            end = state.x.flatten(0, 1)
            nearest, distance = self._reference.samples.nearest(end, None if self._index is None else self._index.repeat(count))
            ended = Ended(
                state.x,
                self._x0,
                self._centered(end, count),
                self._start,
                self._reference.moments.trace,
                nearest.reshape(count, -1),
                distance.reshape(count, -1),
                self._reference.classify,
            )
            for rows in self._at_end:
                for name, values in rows(ended):
                    self._store(name, state.turns, values, state.score)
            self._ends[list(self._scores).index(state.score), state.turns] = state.x[:, self._kept_rows]

    def _turned(self, state: State) -> Turned:
        """Evaluate every score and reference score on turned states, each once."""
        count = len(state.x)
        x, t = state.x.flatten(0, 1), self._plan.row_times(state.turns, state.x.shape[1])
        known: dict[int, Evaluated] = {}  # without labels; a score can also be a reference

        def said(score: Score, label: Tensor | None = None, density: bool = False) -> Evaluated:
            if label is not None:
                return self._evaluate(score, x, t, label, density)
            if id(score) not in known:
                known[id(score)] = self._evaluate(score, x, t, None, density)
            return known[id(score)]

        gaussian = said(self._reference.gaussian).denoised
        labels = {name: label.repeat(count) for name, label in self._labels.items()}
        evaluated = {name: said(score, labels.get(name), density=True) for name, score in self._scores.items()}
        return Turned(
            state.x.reshape(count, -1, self._mean.numel()),
            self._plan.process,
            tuple(self._plan.levels[state.turns]),
            self._start,
            self._mean,
            self._reference.moments.trace,
            gaussian,
            {name: found.denoised for name, found in evaluated.items()},
            {name: said(score).denoised for name, score in self._reference.scores.items()},
            self._reference.samples,
            evaluated,
            self._alpha[state.turns],
            self._sigma[state.turns],
            self._eigenvalues,
        )

    def _evaluate(self, score: Score, x: Tensor, t: Tensor, label: Tensor | None, density: bool) -> Evaluated:
        """Evaluate in micro-batches; return centred states, and the density if it is asked for and known."""
        denoised, count = torch.empty_like(x), len(x) // len(self._start)
        ratios: list[Tensor] = []
        informations: list[Tensor] = []
        for start in range(0, len(x), self._plan.micro_batch):
            rows = slice(start, start + self._plan.micro_batch)
            of_rows = None if label is None else label[rows]
            if density:
                found = score.evaluate(x[rows], t[rows], self._mean, of_rows)
                ratios += [] if found.log_ratio is None else [found.log_ratio]
                informations += [] if found.information is None else [found.information]
                denoised[rows] = found.denoised
            else:
                denoised[rows] = score.denoise(x[rows], t[rows], of_rows)
        joined = (torch.cat(parts).reshape(count, -1) if parts else None for parts in (ratios, informations))
        return Evaluated(self._centered(denoised, count), *joined)

    def _centered(self, x: Tensor, count: int) -> Tensor:
        return x.reshape(count, -1, self._mean.numel()) - self._mean

    def _store(self, name: str, turns: slice, values: Tensor, score: str | None) -> None:
        """Store rows; of kept states, store only the first repeats of the kept samples."""
        if "kept" in self._variables[name].dims:
            values = values[:, self._kept_rows[:, 0]]
        lead = () if score is None else (len(self._scores),)
        inner = values.shape[:-2] if "reference" in self._variables[name].dims else ()
        if name not in self._values:
            shape = (*lead, *inner, len(self._plan.levels), *values.shape[len(inner) + 1 :])
            self._values[name] = values.new_zeros(shape)
        place: tuple[Any, ...] = (*(slice(None),) * len(inner), turns)
        self._values[name][place if score is None else (list(self._scores).index(score), *place)] = values

    def to_dataset(self) -> xr.Dataset:
        """Return the rows, in one transfer from the device.

        Returns
        -------
        xarray.Dataset
            The variables of the sample table over (score, turn_time, sample, repeat).
        """
        values = {name: value.cpu().numpy() for name, value in self._values.items() if "kept" not in self._variables[name].dims}
        nearest, labels = values.get("nearest_sample"), self._reference.labels
        if "label_after" not in values and nearest is not None:
            values["label_after"] = np.full_like(nearest, -1) if labels is None else labels[nearest]
        shaped = {name: value.reshape(*value.shape[:-1], len(self._samples), self._plan.repeats) for name, value in values.items()}
        coords = {
            "score": list(self._scores),
            "turn_time": np.array(self._plan.levels),
            "sample": self._samples,
            "repeat": np.arange(self._plan.repeats),
        } | ({"reference": list(self._reference.scores)} if self._reference.scores else {})
        ordered = {name: shaped[name] for name in self._variables if name in shaped}
        return described(declared(self._variables.values(), ordered, coords), COORDINATES)

    def kept_states(self) -> xr.Dataset:
        """Return the states of the kept samples, in one transfer from the device.

        Returns
        -------
        xarray.Dataset
            ``end(score, turn_time, kept, repeat, *event)``, data that observables keep of the turned states over ``kept``, in the
            dtype of the states, and the sample indices ``kept_sample(kept)``.
        """
        dims = event_dims(self._ends.ndim - 4)
        result = xr.Dataset(
            {
                "kept_sample": ("kept", self._samples[self._kept]),
                "end": (("score", "turn_time", "kept", "repeat", *dims), self._ends.cpu().numpy()),
            }
        )
        for name, value in self._values.items():
            if "kept" in self._variables[name].dims:
                states = value.reshape(*value.shape[:-1], *self._ends.shape[4:]).cpu().numpy()
                result[name] = (("score", "turn_time", "kept", *dims), states)
        return result


def picture_table(ends: Mapping[str, Tensor], plan: UTurnPlan, x0: Tensor, samples: Sequence[int]) -> xr.Dataset:
    """Return ground-truth samples and end points as pictures.

    Parameters
    ----------
    ends : mapping of str to Tensor
        By score: end points of the first repeat, shape (turn times, n, ``*event``).
    plan : UTurnPlan
        Gives the turn times.
    x0 : Tensor
        The samples, shape (n, ``*event``).
    samples : sequence of int
        Their indices in the ground-truth set.

    Returns
    -------
    xarray.Dataset
        ``start(sample, *event)`` and ``end(score, turn_time, sample, *event)``, float32.

    Examples
    --------
    >>> from gaussian_test.sampler import VarianceExploding
    >>> plan = UTurnPlan(VarianceExploding(), [1.0, 2.0])
    >>> picture_table({"any": torch.zeros(2, 3, 5)}, plan, torch.zeros(3, 5), [4, 6, 8])["end"].dims
    ('score', 'turn_time', 'sample', 'feature')
    """
    values = {"start": _picture(x0), "end": np.stack([_picture(end) for end in ends.values()])}
    return _kept(values, "pictures", {"score": list(ends), "turn_time": np.array(plan.levels), "sample": np.asarray(samples)})


def path_table(paths: Mapping[str, Tensor], plan: UTurnPlan, times: Sequence[float], samples: Sequence[int]) -> xr.Dataset:
    """Return reverse paths.

    Parameters
    ----------
    paths : mapping of str to Tensor
        By score: states of the first repeat, shape (turn times, times, n, ``*event``), NaN before the turn.
    plan : UTurnPlan
        Gives the turn times.
    times : sequence of float
        Times of the states, descending.
    samples : sequence of int
        Indices of the samples in the ground-truth set.

    Returns
    -------
    xarray.Dataset
        ``state(score, turn_time, time, sample, *event)``, float32.

    Examples
    --------
    >>> from gaussian_test.sampler import VarianceExploding
    >>> plan = UTurnPlan(VarianceExploding(), [1.0, 2.0])
    >>> path_table({"any": torch.zeros(2, 1, 3, 5)}, plan, [0.5], [4, 6, 8])["state"].sizes["time"]
    1
    """
    values = {"state": np.stack([_picture(path) for path in paths.values()])}
    coords = {"score": list(paths), "turn_time": np.array(plan.levels), "time": np.array(times), "sample": np.asarray(samples)}
    return _kept(values, "trajectory", coords)


def _kept(values: Mapping[str, NDArray[np.float32]], group: str, coords: Mapping[str, Any]) -> xr.Dataset:
    variables = [variable for variable in KEPT if variable.group == group]
    dims = {variable.name: variable.dims[:-1] for variable in variables}
    arrays = {
        name: xr.DataArray(value, dims=(*dims[name], *event_dims(value.ndim - len(dims[name])))) for name, value in values.items()
    }
    return described(declared(variables, arrays, coords), COORDINATES)


def _picture(x: Tensor) -> NDArray[np.float32]:
    values: NDArray[np.float32] = x.float().cpu().numpy()
    return values
