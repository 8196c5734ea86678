r"""The sample table: what is kept of each U-Turn, reduced on the fly from the states that the plan yields.

One row per score, turn time, sample and repeat. With :math:`\tilde x_0` the end point, :math:`D` the score's and :math:`D_G`
the Gaussian's denoised turn, all correlations are centred and divided by :math:`\mathrm{tr}\,\Sigma`; every curve and time of
the Gaussian Test can be recomputed from the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from gaussian_test.analysis.moments.gaussian_score import GaussianScore
from gaussian_test.analysis.moments.moments import Moments, event_dims
from gaussian_test.sampler import EmpiricalScore, Score, State, UTurnPlan

COORDINATES = {
    "score": "score function",
    "turn_time": "turn time, in the time of the process",
    "time": "time of the state, in the time of the process",
    "sample": "index into the ground-truth set",
    "repeat": "repeat of the U-Turn with other noise",
    "reference": "reference score",
}
ROW_DIMS = ("score", "turn_time", "sample", "repeat")
DESCRIPTIONS = {
    "sample_autocorrelation": ("U-Turn auto-correlation of one trajectory", "(x0-mu).(end-mu)/tr(Sigma)"),
    "sample_autocorrelation_one_shot": ("one-evaluation auto-correlation of one noised sample", "(x0-mu).(D-mu)/tr(Sigma)"),
    "sample_autocorrelation_one_shot_squared": ("squared norm of the denoised turn", "|D-mu|^2/tr(Sigma)"),
    "sample_denoiser_gap": ("squared distance of the denoiser from the Gaussian one", "|D-D_G|^2/tr(Sigma)"),
    "sample_autocorrelation_gaussian": (
        "one-evaluation auto-correlation of the Gaussian score: the control variate",
        "(x0-mu).(D_G-mu)/tr(Sigma)",
    ),
    "sample_end_square": ("squared distance of the end point from the data's mean", "|end-mu|^2/tr(Sigma)"),
    "nearest_distance": ("distance of the end point to the nearest ground-truth sample", "Euclidean, in the unit of the data"),
    "nearest_sample": ("ground-truth sample nearest to the end point", "index into the ground-truth set"),
    "label_after": ("class of the end point", "as the classifier says; -1 where there are no classes"),
}
AFFINITY = {
    "sample_score_norm": ("norm of the score at the turn", "|s|"),
    "sample_score_square": ("squared norm of the score at the turn", "|s|^2"),
    "sample_score_distance": ("squared distance of the score from a reference score at the turn", "|s-s_ref|^2"),
}


@dataclass(frozen=True)
class Reference:
    """What end points are compared with.

    Attributes
    ----------
    samples : EmpiricalScore
        The ground-truth set, for the nearest sample.
    moments : Moments
        Its mean and spectrum.
    gaussian : GaussianScore
        The affine score of these moments: the control variate.
    labels : ndarray or None
        Class of each ground-truth sample, int64, shape (N,).
    scores : mapping of str to Score
        Scores whose share in the norm of every score of the run is measured; empty where it is not.
    classify : callable or None
        Gives the class of end points (batch, ``*event``) as int64 (batch,); None for that of the nearest ground-truth sample.
    """

    samples: EmpiricalScore
    moments: Moments
    gaussian: GaussianScore
    labels: NDArray[np.int64] | None
    scores: Mapping[str, Score] = field(default_factory=dict)
    classify: Callable[[Tensor], Tensor] | None = None

    def classes(self, x: Tensor) -> NDArray[np.int64]:
        """Return the class of each end point, (batch,); -1 where there are no classes."""
        if self.classify is not None:
            return self.classify(x).cpu().numpy()
        nearest: NDArray[np.int64] = self.samples.nearest_index(x).cpu().numpy()
        return np.full_like(nearest, -1) if self.labels is None else self.labels[nearest]


class SampleTable:
    """Collects the rows of one shard.

    Parameters
    ----------
    plan : UTurnPlan
        The plan whose states are observed.
    scores : mapping of str to Score
        In the order of the table.
    reference : Reference
        What end points are compared with.
    x0 : Tensor
        The samples of the shard, shape (n, ``*event``).
    samples : sequence of int
        Their indices in the ground-truth set.
    labels : mapping, optional
        Class of each sample for scores that condition on it.
    starts_are_samples : bool
        Whether ``samples`` are indices into the ground-truth set, rather than numbers of draws from something else.
    kept : sequence of int
        Positions in ``samples`` of those whose end points are kept, and with reference scores what is left of the denoised turn
        beside the Gaussian's: for observables that need those of all samples at once.
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
    ) -> None:
        self._plan = plan
        self._scores = scores
        self._reference = reference
        self._samples = np.asarray(samples, dtype=np.int64)
        self._labels = {name: label.repeat_interleave(plan.repeats, 0) for name, label in (labels or {}).items()}
        own = torch.as_tensor(self._samples, device=x0.device).repeat_interleave(plan.repeats, 0)
        self._index = own if starts_are_samples else None
        self._mean = torch.from_numpy(reference.moments.mean.reshape(-1)).to(x0)
        self._start = x0.repeat_interleave(plan.repeats, 0).flatten(1) - self._mean
        rows = (len(plan.levels), len(self._start))
        self._values: dict[str, Tensor] = {}
        for name in DESCRIPTIONS | (AFFINITY if reference.scores else {}):
            shape: tuple[int, ...] = rows if name == "sample_autocorrelation_gaussian" else (len(scores), *rows)
            if name == "sample_score_distance":
                shape = (len(scores), len(reference.scores), *rows)
            whole = name in ("nearest_sample", "label_after")
            if name != "label_after" or reference.classify:
                self._values[name] = torch.zeros(shape, dtype=torch.long if whole else torch.float64, device=x0.device)
        self._kept = list(kept)
        event = tuple(x0.shape[1:])
        # the rows of the kept samples, all repeats side by side, and their first repeats
        self._kept_rows = torch.arange(len(self._start), device=x0.device).reshape(-1, plan.repeats)[self._kept]
        self._ends = x0.new_empty(len(scores), len(plan.levels), len(self._kept), plan.repeats, *event)
        self._residuals = x0.new_empty(len(scores) if reference.scores else 0, len(plan.levels), len(self._kept), *event)

    def observe(self, state: State) -> None:
        """Reduce one state of the plan to the table; states on the path leave no trace.

        Parameters
        ----------
        state : State
            As yielded by :meth:`UTurnPlan.run`.
        """
        if state.phase == "turn":
            self._observe_turn(state)
        elif state.phase == "end" and state.score is not None:
            score = list(self._scores).index(state.score)
            count = len(state.x)
            end = state.x.flatten(0, 1)
            centered = self._centered(end, count)
            self._store("sample_autocorrelation", state.turns, self._product(self._start, centered), score)
            self._store("sample_end_square", state.turns, self._product(centered, centered), score)
            nearest, distance = self._reference.samples.nearest(end, None if self._index is None else self._index.repeat(count))
            self._store("nearest_sample", state.turns, nearest.reshape(count, -1), score)
            self._store("nearest_distance", state.turns, distance.reshape(count, -1), score)
            if self._reference.classify is not None:
                self._store("label_after", state.turns, self._reference.classify(end).reshape(count, -1), score)
            self._ends[score, state.turns] = state.x[:, self._kept_rows]

    def _observe_turn(self, state: State) -> None:
        count = len(state.x)
        x, t = state.x.flatten(0, 1), self._plan.row_times(state.turns, state.x.shape[1])
        gaussian = self._centered(self._denoise(self._reference.gaussian, x, t, None), count)
        self._store("sample_autocorrelation_gaussian", state.turns, self._product(self._start, gaussian))
        known = {id(self._reference.gaussian): gaussian}  # without labels; a score can be one of the references
        for other in self._reference.scores.values():
            if id(other) not in known:
                known[id(other)] = self._centered(self._denoise(other, x, t, None), count)
        references = [known[id(other)] for other in self._reference.scores.values()]
        for index, (name, score) in enumerate(self._scores.items()):
            label = self._labels[name].repeat(count) if name in self._labels else None
            denoised = known.get(id(score)) if label is None else None
            if denoised is None:
                denoised = self._centered(self._denoise(score, x, t, label), count)
            self._store("sample_autocorrelation_one_shot", state.turns, self._product(self._start, denoised), index)
            self._store("sample_autocorrelation_one_shot_squared", state.turns, self._product(denoised, denoised), index)
            difference = denoised - gaussian
            self._store("sample_denoiser_gap", state.turns, self._product(difference, difference), index)
            if self._reference.scores:
                self._observe_score(state, index, denoised, difference, references)

    def _observe_score(self, state: State, index: int, denoised: Tensor, difference: Tensor, references: Sequence[Tensor]) -> None:
        r"""Reduce the score, :math:`s = (\alpha D - x)/\sigma^2`: two of them differ by :math:`\alpha/\sigma^2` times denoisers."""
        process, turns = self._plan.process, state.turns
        t = torch.tensor(self._plan.levels[turns], dtype=torch.float64)
        alpha, variance = (value.to(denoised.device)[:, None] for value in (process.alpha(t), process.sigma(t) ** 2))
        raw = denoised + self._mean
        # alpha D - x in the precision of the states; squares and their scale in float64
        offset = alpha.to(raw.dtype)[..., None] * raw - state.x.reshape(len(state.x), -1, self._mean.numel())
        square = offset.square().sum(-1, dtype=torch.float64) / variance**2
        self._store("sample_score_square", turns, square, index)
        self._store("sample_score_norm", turns, square.sqrt(), index)
        for place, other in enumerate(references):
            distance = (denoised - other).square().sum(-1, dtype=torch.float64) * (alpha / variance) ** 2
            self._values["sample_score_distance"][index, place, turns] = distance
        rows = difference[:, self._kept_rows[:, 0]]
        self._residuals[index, turns] = rows.reshape(self._residuals[index, turns].shape)

    def _denoise(self, score: Score, x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        """Return denoised states, in calls of the micro-batch."""
        denoised = torch.empty_like(x)
        for start in range(0, len(x), self._plan.micro_batch):
            rows = slice(start, start + self._plan.micro_batch)
            denoised[rows] = score.denoise(x[rows], t[rows], None if label is None else label[rows])
        return denoised

    def _centered(self, x: Tensor, count: int) -> Tensor:
        """Return states less the mean as (turns, rows, features)."""
        return x.reshape(count, -1, self._mean.numel()) - self._mean

    def _store(self, name: str, turns: slice, values: Tensor, score: int | None = None) -> None:
        self._values[name][turns if score is None else (score, turns)] = values

    def _product(self, a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(-1, dtype=torch.float64) / self._reference.moments.trace

    def to_dataset(self) -> xr.Dataset:
        """Return the rows, moved off the device once.

        Returns
        -------
        xarray.Dataset
            The variables of the sample table over (score, turn_time, sample, repeat).
        """
        result = xr.Dataset(
            coords={
                "score": list(self._scores),
                "turn_time": np.array(self._plan.levels),
                "sample": self._samples,
                "repeat": np.arange(self._plan.repeats),
            }
        )
        values: dict[str, NDArray[Any]] = {name: value.cpu().numpy() for name, value in self._values.items()}
        nearest, labels = values["nearest_sample"], self._reference.labels
        if "label_after" not in values:
            values["label_after"] = np.full_like(nearest, -1) if labels is None else labels[nearest]
        described = DESCRIPTIONS
        if self._reference.scores:
            described = DESCRIPTIONS | AFFINITY
            result = result.assign_coords(reference=list(self._reference.scores))
        for name, (long_name, comment) in described.items():
            dims = {2: ROW_DIMS[1:], 3: ROW_DIMS, 4: ("score", "reference", *ROW_DIMS[1:])}[values[name].ndim]
            shaped = values[name].reshape(*values[name].shape[:-1], len(self._samples), self._plan.repeats)
            result[name] = (dims, shaped, {"long_name": long_name, "units": "1", "comment": comment})
        return _described(result)

    def kept_states(self) -> xr.Dataset:
        """Return the states of the kept samples, moved off the device once.

        Returns
        -------
        xarray.Dataset
            ``end(score, turn_time, kept, repeat, *event)`` and, with reference scores, ``residual(score, turn_time, kept,
            *event)``, what is left of the denoised first repeat beside the Gaussian's; in the type of the states, and
            ``kept_sample(kept)``, whose they are.
        """
        dims = event_dims(self._ends.ndim - 4)
        result = xr.Dataset(
            {
                "kept_sample": ("kept", self._samples[self._kept]),
                "end": (("score", "turn_time", "kept", "repeat", *dims), self._ends.cpu().numpy()),
            }
        )
        if self._reference.scores:
            result["residual"] = (("score", "turn_time", "kept", *dims), self._residuals.cpu().numpy())
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
    dims = event_dims(x0.ndim - 1)
    result = xr.Dataset(
        {
            "start": (
                ("sample", *dims),
                _picture(x0),
                {"long_name": "what was noised: ground-truth samples in a U-Turn", "units": "1"},
            ),
            "end": (
                ("score", "turn_time", "sample", *dims),
                np.stack([_picture(end) for end in ends.values()]),
                {"long_name": "end points of the U-Turn", "units": "1", "comment": "first repeat"},
            ),
        },
        coords={"score": list(ends), "turn_time": np.array(plan.levels), "sample": np.asarray(samples, dtype=np.int64)},
    )
    return _described(result)


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
    values = np.stack([_picture(path) for path in paths.values()])
    attributes = {"long_name": "states of the reverse process", "units": "1", "comment": "first repeat; NaN before the turn"}
    result = xr.Dataset(
        {"state": (("score", "turn_time", "time", "sample", *event_dims(values.ndim - 4)), values, attributes)},
        coords={
            "score": list(paths),
            "turn_time": np.array(plan.levels),
            "time": np.array(times),
            "sample": np.asarray(samples, dtype=np.int64),
        },
    )
    return _described(result)


def _described(dataset: xr.Dataset) -> xr.Dataset:
    """Say what the coordinates are."""
    for name, coordinate in dataset.coords.items():
        coordinate.attrs = {"long_name": COORDINATES[str(name)], "units": "1"}
    return dataset


def _picture(x: Tensor) -> NDArray[np.float32]:
    values: NDArray[np.float32] = x.float().cpu().numpy()
    return values
