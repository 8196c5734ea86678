"""Process and turn times of a run: as they are asked for, or as the spectrum of the data predicts them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr

from gaussian_test import analysis, sampler
from gaussian_test.analysis.moments.moments import Moments
from gaussian_test.build.scores import make_process, noise_limits
from gaussian_test.errors import UserError
from gaussian_test.experiment.experiment import DEFAULTS, Experiment
from gaussian_test.experiment.processes import VarianceExploding
from gaussian_test.experiment.turn_times import Spacing
from gaussian_test.store.parts import Fits

BEYOND = 1e4  # standard deviations of the leading mode, above which a noise level is a mistake of units
BELOW, ABOVE = 1 / 64, 4  # limits of an automatic process, in its least and its largest turn time
# runs on the same data share the grid of the usual tolerance, down to one whose predicted T_G is three times as large
LEAST_TOLERANCE = DEFAULTS.tolerance / 3**4
USUAL = (0.002, 80.0)  # EDM's limits, which given turn times beyond them widen

Range = tuple[float, float]


@dataclass(frozen=True)
class Turns:
    """A process and the turn times in its time, as asked; those of a fixed grid may fall together."""

    process: sampler.Process
    levels: tuple[float, ...]
    limits: str = ""  # what narrowed the process's automatic limits
    added: int = 0  # how many of the levels refine the grid

    @property
    def noise_to_signal(self) -> Any:
        """Noise-to-signal ratios of the levels, float64."""
        return self.process.noise_to_signal(torch.tensor(self.levels, dtype=torch.float64)).numpy()


def choose_turns(
    settings: Experiment, moments: Moments, x: xr.DataArray, fits: Fits, ranges: Mapping[str, Range] | None = None
) -> Turns:
    """Return the process and the turn times of an experiment on data with some moments, for scores of some ranges.

    Automatic turn times are those of :func:`gaussian_test.analysis.pilot_levels`, fixed when a run begins: they are kept with its
    fits. Automatic limits of a process lie within the noise-to-signal ranges of the scores, unless a turn time that is given lies
    beyond these: it is refused later, by the name of the score.

    Raises UserError for a level far beyond the data, and ValueError for one outside of the process.
    """
    ranges = ranges or {}
    found = asked_turns(settings)
    if found is None:
        ratios = _pilot(settings, moments, x, fits, ranges)
        found = _turns(settings, ratios, (BELOW * ratios[0], ABOVE * ratios[-1]))
    levels = found.noise_to_signal
    if levels.max() > BEYOND * (spread := float(np.sqrt(moments.eigenvalues.max()))):
        raise UserError(
            f"turn_times: noise-to-signal {levels.max():.3g} is more than {BEYOND:,.0f} times the largest standard deviation of "
            f"the data, {spread:.3g}: give levels in the units of the samples, or leave turn_times out"
        )
    return _narrowed(found, settings.process, ranges, (float(levels.min()), float(levels.max())))


def asked_turns(settings: Experiment) -> Turns | None:
    """Return the turn times that are given, or None for automatic ones.

    Raises ValueError for one outside of the process.
    """
    asked = settings.turn_times.noise_to_signal or settings.turn_times.time
    if asked is None:
        return None
    ratios = sampler.log_levels(asked.min, asked.max, asked.count).tolist() if isinstance(asked, Spacing) else list(asked)
    low, high = USUAL
    return _turns(
        settings, ratios, (low if min(ratios) >= low else BELOW * min(ratios), high if max(ratios) <= high else ABOVE * max(ratios))
    )


def _turns(settings: Experiment, asked: list[float], limits: Range) -> Turns:
    """Return turn times that are noise-to-signal ratios, or times if the experiment gives these."""
    process = make_process(_with_limits(settings.process, limits))
    used = process.turn_time if settings.turn_times.time else process.turn_time_from_noise_to_signal
    return Turns(process, tuple(used(one) for one in asked))


def _pilot(settings: Experiment, moments: Moments, x: xr.DataArray, fits: Fits, ranges: Mapping[str, Range]) -> list[float]:
    count, asked = settings.turn_times.count, settings.statistics.tolerance
    tolerance = DEFAULTS.tolerance if asked > LEAST_TOLERANCE else asked
    wide = make_process(_with_limits(settings.process, (float(np.finfo(float).tiny), float(np.finfo(float).max))))
    low, high = noise_limits(*noise_range(wide), ranges)
    ends = f"{low:.17g} {high:.17g}" if ranges or not isinstance(settings.process, VarianceExploding) else ""

    def pilot() -> dict[str, Any]:
        third = analysis.third_cumulant_norm(x, moments.mean)
        levels = analysis.pilot_levels(
            moments.eigenvalues, moments.count, third, tolerance=tolerance, levels=count, within=(low, high)
        )
        return {"levels": levels}

    found: list[float] = fits.arrays(f"turn times {count} {settings.process.model_dump_json()} {ends}", pilot)["levels"].tolist()
    return found


def _narrowed(turns: Turns, settings: Any, ranges: Mapping[str, Range], levels: Range) -> Turns:
    """Return turns whose process has its automatic limits within the ranges of the scores."""
    before = noise_range(turns.process)
    within = noise_limits(*before, ranges)
    process = make_process(_with_limits(settings, within), ranges)
    now = noise_range(process)
    by = [name for name, ends in ranges.items() if ends[0] > before[0] or ends[1] < before[1]]
    if not by or not now[0] * (1 - 1e-9) <= levels[0] <= levels[1] <= now[1] * (1 + 1e-9):
        return turns
    said = f"noise-to-signal {now[0]:.4g} to {now[1]:.4g}, which {' and '.join(by)} was trained for"
    return Turns(process, turns.levels, said)


def levels_around(noise_to_signal: Any, crossings: Any, share: float) -> list[float]:
    """Return the levels that divide each step of a grid with a crossing evenly, into ratios of at most 1 + share.

    Examples
    --------
    >>> levels_around([1.0, 2.0, 8.0], [3.0, float("nan")], 1.0)
    [4.0]
    """
    nu, found = np.asarray(noise_to_signal), np.asarray(crossings, dtype=np.float64).ravel()
    added: list[float] = []
    for above in sorted({max(1, int(np.searchsorted(nu, one))) for one in found[np.isfinite(found)]}):
        parts = int(np.ceil(np.log(nu[above] / nu[above - 1]) / np.log1p(share) - 1e-6))
        added += np.geomspace(nu[above - 1], nu[above], parts + 1)[1:-1].tolist() if parts > 1 else []
    return added


def noise_range(process: sampler.Process) -> Range:
    """Return the least and the largest noise-to-signal ratio of a process."""
    low, high = process.noise_to_signal(torch.tensor([process.time_min, process.time_max], dtype=torch.float64)).tolist()
    return low, high


def _with_limits(process: Any, limits: Range) -> Any:
    """Return the settings of a process with numbers for automatic limits."""
    if not isinstance(process, VarianceExploding):
        return process
    chosen = zip(("sigma_min", "sigma_max"), (process.sigma_min, process.sigma_max), limits, strict=True)
    return process.model_copy(update={name: automatic for name, given, automatic in chosen if given == "auto"})
