r"""The U-Turn plan: noising to turn times and reversal.

All turn times of a sample share its noise (common random numbers) and one descending grid: a trajectory joins the reverse run at
its turn time and then takes the same steps as those that turned later. The plan yields states; the caller decides what to keep.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gaussian_test.sampler.noise import NO_NOISE, KeyedNoise, Noise
from gaussian_test.sampler.process import RHO, Process, process_grid, reverse_grid
from gaussian_test.sampler.reverse import ReverseKernel, bridge
from gaussian_test.sampler.scores.score import Score


@dataclass(frozen=True)
class State:
    """States of a U-Turn at one time.

    Attributes
    ----------
    phase : {"turn", "path", "end"}
        The noised sample at its turn time; a state of the reverse path; the end point.
    score : str or None
        Score of the reverse run; None for the turn, which all scores share.
    times : tuple of float
        One per turn time, in the process's time: different at the turn, equal on the reverse path, 0 at the end.
    turns : slice
        Turn times of the plan, in its order.
    x : Tensor
        Shape (turns, rows, ``*event``), rows ordered sample by sample, the repeats of a sample side by side.
    """

    phase: Literal["turn", "path", "end"]
    score: str | None
    times: tuple[float, ...]
    turns: slice
    x: Tensor


@dataclass(frozen=True)
class UTurnPlan:
    r"""A plan of U-Turns: turn times, steps, repeats and the seed of the noise.

    Parameters
    ----------
    process : Process
        The forward process.
    turn_times : sequence of float
        Requested turn times, in the process's time, in any order; :attr:`levels` are those used, ascending and distinct.
    steps : int
        Reverse steps from the largest turn time to 0.
    repeats : int
        Independent repeats of each sample.
    seed : int
        Non-negative.
    shard_size : int
        Samples per shard.
    micro_batch : int
        States per call of a score, just enough to fill the device.
    rho : float
        Warp of the grid.
    grid_of : {"turn_times", "process"}
        ``turn_times``: the grid has every turn time as a point and ``steps`` steps from the largest one. ``process``: a sampler's
        grid of ``steps`` levels over the whole process; turn times move to the nearest of its levels (in :math:`\log\nu`).
    stream : int
        Number of an independent noise stream for the same keys.
    shared_noise : bool
        Whether all scores see the same noise. Otherwise a score that acts mode by mode uses it as coordinates along its modes. The
        law is the same and no step costs a rotation, but its trajectories are no longer paired with those of other scores.

    Raises
    ------
    ValueError
        If a setting is outside its range.

    Examples
    --------
    >>> from gaussian_test.sampler import EmpiricalScore, ExactReversal, VarianceExploding
    >>> x = torch.eye(4)
    >>> plan = UTurnPlan(VarianceExploding(), [0.05, 1.0], seed=3)
    >>> (end,) = [s for s in plan.run(x, range(4), {"e": EmpiricalScore(x)}, {"e": ExactReversal()}) if s.phase == "end"]
    >>> bool((end.x[0] == x).all())  # at a noise level of 0.05 every sample is remembered
    True
    """

    process: Process
    turn_times: Sequence[float]
    steps: int = 64
    repeats: int = 1
    seed: int = 0
    shard_size: int = 64
    micro_batch: int = 1024
    rho: float = RHO
    grid_of: Literal["turn_times", "process"] = "turn_times"
    stream: int = 0
    shared_noise: bool = True
    levels: tuple[float, ...] = field(init=False)
    grid: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        for name in ("repeats", "shard_size", "micro_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} is too small: give at least 1")
        if self.seed < 0:
            raise ValueError(f"seed = {self.seed} is negative: give a whole number from 0")
        turns = sorted({self.process.turn_time(float(t)) for t in self.turn_times})
        if self.grid_of == "process":
            grid = process_grid(self.process, self.steps, self.rho)
            log_nu = self._log_noise(grid[:-1])
            turns = sorted({float(grid[np.abs(log_nu - nu).argmin()]) for nu in self._log_noise(np.array(turns))})
            grid = grid[grid <= turns[-1]]
        else:
            grid = reverse_grid(self.process, turns, self.steps, self.rho)
        object.__setattr__(self, "levels", tuple(turns))
        object.__setattr__(self, "grid", grid)

    def _log_noise(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        logs: NDArray[np.float64] = self.process.noise_to_signal(torch.from_numpy(times)).log().numpy()
        return logs

    def reverse_steps(self) -> list[int]:
        """Return the number of reverse steps taken from each turn time.

        Examples
        --------
        >>> from gaussian_test.sampler import VarianceExploding
        >>> UTurnPlan(VarianceExploding(), [10.0], steps=16).reverse_steps()
        [16]
        """
        return [int((self.grid < level).sum()) for level in self.levels]

    def shards(self, samples: Sequence[int]) -> list[tuple[int, ...]]:
        """Split the samples into shards of fixed size, the last one possibly smaller.

        Examples
        --------
        >>> from gaussian_test.sampler import VarianceExploding
        >>> UTurnPlan(VarianceExploding(), [1.0], shard_size=2).shards([5, 7, 9])
        [(5, 7), (9,)]
        """
        chosen = [int(sample) for sample in samples]
        return [tuple(chosen[start : start + self.shard_size]) for start in range(0, len(chosen), self.shard_size)]

    def run(
        self,
        x0: Tensor,
        samples: Sequence[int],
        scores: Mapping[str, Score],
        kernels: Mapping[str, ReverseKernel],
        labels: Mapping[str, Tensor] | None = None,
        path: bool | Sequence[float] = False,
    ) -> Iterator[State]:
        """Run the U-Turns of some samples and yield their states.

        Parameters
        ----------
        x0 : Tensor
            The samples, shape (n, ``*event``), on the device and in the dtype of the scores.
        samples : sequence of int
            Their indices in the ground-truth set: the key of their noise.
        scores, kernels : mapping
            With the same names; all scores see the same noise.
        labels : mapping, optional
            Class of each sample for scores that condition on it, int64, shape (n,).
        path : bool or sequence of float
            Whether to yield the states between turn and end: at every grid time, or at the grid times nearest to the given ones (in
            the process's time).

        Yields
        ------
        State
            The ``turn`` of all turn times and, for each score, their ``end``, as many at once as fill the micro-batch; with
            ``path`` also the states between.

        Raises
        ------
        ValueError
            If names or numbers of rows do not match.
        """
        if set(scores) != set(kernels) or len(x0) != len(samples):
            raise ValueError(
                f"{sorted(scores)} scores, {sorted(kernels)} kernels, {len(x0)} states and {len(samples)} indices do not match: "
                "give one kernel per score and one index per state"
            )
        for name, label in (labels or {}).items():
            if name not in scores or len(label) != len(x0):
                raise ValueError(
                    f"{len(label)} labels for {name!r} do not match {len(x0)} states of {sorted(scores)}: give one per state"
                )
        if not len(x0):
            return
        kept = self._kept_times(path)
        noise = KeyedNoise(self.seed, samples, self.repeats, tuple(x0.shape[1:]), x0.device, x0.dtype, self.stream)
        start = x0.repeat_interleave(self.repeats, 0)
        row_labels = {name: label.to(x0.device).repeat_interleave(self.repeats, 0) for name, label in (labels or {}).items()}
        forward, at_end = noise.draw(), noise.draw()  # the first two keys; every step of the grid has its own
        ends: dict[str, Tensor] = {}
        for group in _chunks(0, len(self.levels), max(1, self.micro_batch // len(start))):
            turned = self._turn(start, forward, group)
            yield State("turn", None, self.levels[group], group, turned)
            for name, kernel in kernels.items():
                if kernel.exact:
                    end = self._end(scores[name], kernel, turned, group, at_end, row_labels.get(name))
                    yield State("end", name, (0.0,) * len(end), group, end)
                    if kept:
                        ends.setdefault(name, x0.new_empty(len(self.levels), *start.shape))[group] = end
        runs = {
            name: _Run(self, scores[name], kernel, row_labels.get(name), start, ends.get(name))
            for name, kernel in kernels.items()
            if kept or not kernel.exact
        }
        if not runs:
            return
        first, step_noise = len(self.levels), None
        for t, s in pairwise(self.grid.tolist()):
            if first and math.isclose(self.levels[first - 1], t, rel_tol=1e-12):
                first -= 1
                here = slice(first, first + 1)
                turned = self._turn(start, forward, here)
                for name, run in runs.items():
                    run.join(first, turned[0])
                    if t in kept:
                        yield State("path", name, (t,), here, turned)
            active = slice(first, len(self.levels))
            if any(run.uses_noise for run in runs.values()):
                step_noise = noise.draw(step_noise)
            for name, run in runs.items():
                run.advance(active, t, s, step_noise or NO_NOISE)
                reached = (s,) * (active.stop - active.start)
                if s == 0 and run.ends is None:
                    yield State("end", name, reached, active, run.states(active))
                if s in kept:
                    yield State("path", name, reached, active, run.states(active))

    def _kept_times(self, path: bool | Sequence[float]) -> set[float]:
        """Return the times of the grid at which states are yielded."""
        if isinstance(path, bool):
            return set(self.grid.tolist()) if path else set()
        return {float(self.grid[np.abs(self.grid - time).argmin()]) for time in path}

    def row_times(self, turns: slice, rows: int) -> Tensor:
        """Return the turn time of every row of the states at some turn times, block by block: float64, on the CPU."""
        return torch.tensor(self.levels[turns], dtype=torch.float64).repeat_interleave(rows)

    def _turn(self, start: Tensor, noise: Noise, turns: slice) -> Tensor:
        """Return samples noised to some turn times, (turns, rows, *event)."""
        count = turns.stop - turns.start
        turned = self.process.noised(_repeated(start, count), self.row_times(turns, len(start)), _repeated(noise.normal, count))
        return turned.reshape(count, *start.shape)

    def _end(self, score: Score, kernel: ReverseKernel, turned: Tensor, turns: slice, noise: Noise, label: Tensor | None) -> Tensor:
        """Return end points by one exact step, with all turn times in one batch."""
        count, rows = turned.shape[:2]
        x, t, end = turned.flatten(0, 1), self.row_times(turns, rows), torch.empty_like(turned).flatten(0, 1)
        noise = Noise(_repeated(noise.normal, count), _repeated(noise.uniform, count))
        label = None if label is None else _repeated(label, count)
        for part in _chunks(0, len(x), self.micro_batch):
            end[part] = kernel.step(score, x[part], t[part], 0.0, _rows(noise, part), _label_rows(label, part))
        return end.reshape(turned.shape)


class _Run:
    """The reverse run of one score: a buffer of states, one block per turn time."""

    def __init__(
        self, plan: UTurnPlan, score: Score, kernel: ReverseKernel, label: Tensor | None, start: Tensor, ends: Tensor | None
    ) -> None:
        self.plan = plan
        self.kernel = kernel
        self.label = label
        self.ends = ends
        self.modal = None if kernel.exact else score.modal()
        self.score = self.modal.score if self.modal else score
        self.x = start.new_empty(len(plan.levels), *start.shape)

    @property
    def uses_noise(self) -> bool:
        """Whether its steps use noise: those of its kernel, or the bridges to known ends."""
        return self.ends is not None or self.kernel.uses_noise

    def join(self, turn: int, turned: Tensor) -> None:
        self.x[turn] = self.modal.rotate(turned) if self.modal else turned

    def states(self, turns: slice) -> Tensor:
        return torch.stack([self.modal.rotate_back(x) for x in self.x[turns]]) if self.modal else self.x[turns].clone()

    def advance(self, turns: slice, t: float, s: float, noise: Noise) -> None:
        """Move all states of some turn times from ``t`` to ``s``, whole turn times merged to fill the micro-batch."""
        if self.ends is not None:  # the end point is known: the path is a bridge
            self.x[turns] = bridge(self.plan.process, self.x[turns], self.ends[turns], t, s, noise.normal)
            return
        if not self.kernel.uses_noise:
            noise = NO_NOISE
        elif self.modal and self.plan.shared_noise:
            noise = noise._replace(normal=self.modal.rotate(noise.normal))
        rows_total = self.x.shape[1]
        for rows in _chunks(0, rows_total, self.plan.micro_batch):
            some = _rows(noise, rows)
            label = _label_rows(self.label, rows)
            for group in _chunks(turns.start, turns.stop, max(1, self.plan.micro_batch // rows_total)):
                block = self.x[group, rows]
                count = len(block)
                stepped = self.kernel.step(
                    self.score,
                    block.flatten(0, 1),
                    t,
                    s,
                    Noise(_repeated(some.normal, count), _repeated(some.uniform, count)),
                    None if label is None else _repeated(label, count),
                )
                self.x[group, rows] = stepped.reshape(block.shape)


def _chunks(start: int, stop: int, size: int) -> Iterator[slice]:
    return (slice(low, min(low + size, stop)) for low in range(start, stop, size))


def _rows(noise: Noise, rows: slice) -> Noise:
    return Noise(noise.normal[rows], noise.uniform[rows])


def _label_rows(label: Tensor | None, rows: slice) -> Tensor | None:
    return None if label is None else label[rows]


def _repeated(values: Tensor, times: int) -> Tensor:
    """Return the same rows for several turn times, block by block (a view if there is only one)."""
    return values if times == 1 else values.expand(times, *values.shape).flatten(0, 1)
