"""What went wrong in a shard: it is run again, this time with a look at every value that a score returns."""

from __future__ import annotations

import torch
from torch import Tensor

from gaussian_test import sampler
from gaussian_test.build.problem import Prepared
from gaussian_test.sampler.process import Time, as_time


class _BadValueError(Exception):
    """A score has returned NaN or infinite values at a noise-to-signal ratio."""

    def __init__(self, level: float) -> None:
        super().__init__(level)
        self.level = level


class _Watched(sampler.Score):
    """A score that stops at the first value that is not finite; looking waits for the device, so runs do without."""

    def __init__(self, score: sampler.Score) -> None:
        super().__init__(score.process, score.event_shape)
        self.inner = score

    def denoise(self, x: Tensor, t: Time, label: Tensor | None = None) -> Tensor:
        return self._looked_at(self.inner.denoise(x, t, label), t)

    def posterior(self, x: Tensor, t: Time, noise: sampler.Noise, label: Tensor | None = None) -> Tensor:
        return self._looked_at(self.inner.posterior(x, t, noise, label), t)

    def _looked_at(self, values: Tensor, t: Time) -> Tensor:
        finite = torch.isfinite(values.flatten(1)).all(1).cpu()
        if not bool(finite.all()):
            nu = self.process.noise_to_signal(as_time(t).cpu()).expand(len(values))
            raise _BadValueError(float(nu[~finite].max()))
        return values


def first_bad_level(prepared: Prepared, shard: tuple[int, ...], name: str) -> float | None:
    """Return the noise-to-signal ratio at which a score first returns NaN or infinite values in a shard."""
    x0, labels = prepared.starts(shard), prepared.labels(shard)
    watched = _Watched(prepared.scores[name])
    own = {name: labels[name]} if name in labels else {}
    try:
        for state in prepared.plan.run(x0, shard, {name: watched}, {name: prepared.kernels[name]}, own):
            if state.phase == "turn":
                t = prepared.plan.row_times(state.turns, state.x.shape[1])
                label = None if name not in own else own[name].repeat_interleave(prepared.plan.repeats, 0).repeat(len(state.x))
                watched.denoise(state.x.flatten(0, 1), t, label)
    except _BadValueError as error:
        return error.level
    return None
