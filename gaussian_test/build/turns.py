"""Process and turn times of a run: as they are asked for, or as the spectrum of the data predicts them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr

from gaussian_test import analysis, sampler
from gaussian_test.analysis.moments.moments import Moments
from gaussian_test.build.scores import make_process
from gaussian_test.errors import UserError
from gaussian_test.experiment.experiment import Experiment, Spacing
from gaussian_test.experiment.processes import VarianceExploding
from gaussian_test.store.parts import Fits

BEYOND = 1e4  # standard deviations of the leading mode, above which a noise level is a mistake of units
BELOW, ABOVE = 1 / 64, 4  # limits of an automatic process, in its least and its largest turn time
USUAL = (0.002, 80.0)  # EDM's limits, which given turn times only widen


@dataclass(frozen=True)
class Turns:
    """A process and the turn times in its time, as asked; those of a fixed grid may fall together."""

    process: sampler.Process
    levels: tuple[float, ...]

    @property
    def noise_to_signal(self) -> Any:
        """Noise-to-signal ratios of the levels, float64."""
        return self.process.noise_to_signal(torch.tensor(self.levels, dtype=torch.float64)).numpy()


def choose_turns(settings: Experiment, moments: Moments, x: xr.DataArray, fits: Fits) -> Turns:
    """Return the process and the turn times of an experiment on data with some moments.

    Automatic ones are those of :func:`gaussian_test.analysis.pilot_levels`, fixed when a run begins: they are kept with its fits.

    Raises UserError for a level far beyond the data, and ValueError for one outside of the process.
    """
    turns = settings.turn_times
    asked = turns.noise_to_signal or turns.time
    if asked is None:
        wide = make_process(_with_limits(settings.process, (float(np.finfo(float).tiny), float(np.finfo(float).max))))
        within = (float(wide.noise_to_signal(wide.time_min)), float(wide.noise_to_signal(wide.time_max)))
        key = f"turn times {turns.count} {settings.process.model_dump_json()}"

        def pilot() -> dict[str, Any]:
            third = analysis.third_cumulant_norm(x, moments.mean)
            tolerance = settings.statistics.tolerance
            return {
                "levels": analysis.pilot_levels(
                    moments.eigenvalues, moments.count, third, tolerance=tolerance, levels=turns.count, within=within
                )
            }

        ratios = fits.arrays(key, pilot)["levels"].tolist()
    else:
        ratios = sampler.log_levels(asked.min, asked.max, asked.count).tolist() if isinstance(asked, Spacing) else list(asked)
    limits = (BELOW * min(ratios), ABOVE * max(ratios))
    if asked is not None:
        limits = (min(USUAL[0], limits[0]), max(USUAL[1], limits[1]))
    process = make_process(_with_limits(settings.process, limits))
    used = process.turn_time if turns.time else process.turn_time_from_noise_to_signal
    found = Turns(process, tuple(used(ratio) for ratio in ratios))
    largest, spread = float(found.noise_to_signal.max()), float(np.sqrt(moments.eigenvalues.max()))
    if largest > BEYOND * spread:
        raise UserError(
            f"turn_times: noise-to-signal {largest:.3g} is more than {BEYOND:,.0f} times the largest standard deviation of the "
            f"data, {spread:.3g}: give levels in the units of the samples, or leave turn_times out"
        )
    return found


def _with_limits(process: Any, limits: tuple[float, float]) -> Any:
    """Return the settings of a process with numbers for automatic limits."""
    if not isinstance(process, VarianceExploding):
        return process
    chosen = zip(("sigma_min", "sigma_max"), (process.sigma_min, process.sigma_max), limits, strict=True)
    return process.model_copy(update={name: automatic for name, given, automatic in chosen if given == "auto"})
