r"""Keyed noise: what a trajectory of :math:`x_t = \alpha_t x_0 + \sigma_t z` is handed, step by step.

Noise is a function of (seed, sample, repeat, step), the step counted on the plan's grid, and of nothing else: not of the
batch, the shard, the worker, the order or the device. It is drawn on the CPU, one kept generator per (sample, repeat), always in
float32, and then moved: so a run on a GPU and in float64 sees the same noise as one on the CPU in float32. The generators are
numpy's: torch's on the CPU tells only 32 bits of its seed apart, too few for ten thousand samples with repeats.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Noise(NamedTuple):
    """The noise of one step, one row per state.

    Attributes
    ----------
    normal : Tensor
        Standard normal, shape (batch, ``*event``).
    uniform : Tensor
        In [0, 1), float64, shape (batch,): for discrete choices.
    second : Tensor, optional
        Another standard normal variable like ``normal``, for the one kernel that uses two in a step.
    """

    normal: Tensor
    uniform: Tensor
    second: Tensor | None = None


NO_NOISE = Noise(torch.empty(0), torch.empty(0, dtype=torch.float64))  # what a kernel that uses none is handed


class KeyedNoise:
    """Draws the noise of every (sample, repeat), one step after the other.

    Parameters
    ----------
    seed : int
        Seed of the run, non-negative.
    samples : sequence of int
        Indices of the samples in the ground-truth set: part of the key.
    repeats : int
        Repeats per sample.
    event_shape : tuple of int
        Shape of one state.
    device, dtype
        Where the noise is handed out, and as what.
    stream : int
        Which of the independent streams of noise of the same key: 0 for trajectories, others for what comes before them.

    Examples
    --------
    >>> together = KeyedNoise(0, [3, 8], 1, (2,)).draw()
    >>> alone = KeyedNoise(0, [8], 1, (2,)).draw()
    >>> bool((together.normal[1] == alone.normal[0]).all())
    True
    """

    def __init__(
        self,
        seed: int,
        samples: Sequence[int],
        repeats: int,
        event_shape: tuple[int, ...],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        stream: int = 0,
    ) -> None:
        self.event_shape = tuple(event_shape)
        self.device = torch.device(device)
        self.dtype = dtype
        self._generators = [_generator(seed, (int(sample), repeat, stream)) for sample in samples for repeat in range(repeats)]

    def draw(self, done: Noise | None = None) -> Noise:
        """Return the next step's noise, rows ordered sample by sample, the repeats of a sample side by side.

        Parameters
        ----------
        done : Noise, optional
            Drawn here before and used up: where nothing else can still read it, it is written over.
        """
        count = len(self._generators)
        pinned = self.device.type == "cuda"
        if done is not None and self.device.type == "cpu" and self.dtype == torch.float32:
            normal = done.normal
        else:  # an asynchronous copy may still read the last buffer
            normal = torch.empty(count, *self.event_shape, dtype=torch.float32, pin_memory=pinned)
        uniform = torch.empty(count, dtype=torch.float64, pin_memory=pinned)
        rows, numbers = normal.numpy(), uniform.numpy()  # views
        for row, generator in enumerate(self._generators):
            generator.standard_normal(out=rows[row], dtype=np.float32)
            numbers[row] = generator.random()
        return Noise(
            normal.to(device=self.device, non_blocking=True).to(self.dtype), uniform.to(device=self.device, non_blocking=True)
        )


def _generator(seed: int, key: tuple[int, int, int]) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed, spawn_key=key if key[2] else key[:2])))
