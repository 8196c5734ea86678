r"""Keyed noise for each step of a trajectory.

Noise depends only on (seed, sample, repeat, step), with steps counted on the plan's grid: not on batch, shard, worker, order or
device. It is drawn on the CPU in float32, with one generator per (sample, repeat), and then moved. So a run on a GPU in float64
sees the same noise as one on the CPU in float32. The generators are numpy's: torch's CPU generator uses only 32 bits of its seed,
too few for ten thousand samples with repeats.
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


NO_NOISE = Noise(torch.empty(0, device="cpu"), torch.empty(0, dtype=torch.float64, device="cpu"))  # passed to kernels that use none


class KeyedNoise:
    """Generator of the noise of every (sample, repeat), step by step.

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
        Device and dtype of the returned noise.
    stream : int
        Number of an independent noise stream for the same key: 0 for trajectories, others for other draws.

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
            Earlier noise that is no longer needed: its memory is reused if nothing else can still read it.
        """
        count = len(self._generators)
        pinned = self.device.type == "cuda"
        if done is not None and self.device.type == "cpu" and self.dtype == torch.float32:
            normal = done.normal
        else:  # an asynchronous copy may still read the last buffer
            normal = torch.empty(count, *self.event_shape, dtype=torch.float32, device="cpu", pin_memory=pinned)
        uniform = torch.empty(count, dtype=torch.float64, device="cpu", pin_memory=pinned)
        rows, numbers = normal.numpy(), uniform.numpy()  # views
        for row, generator in enumerate(self._generators):
            generator.standard_normal(out=rows[row], dtype=np.float32)
            numbers[row] = generator.random()
        return Noise(
            normal.to(device=self.device, non_blocking=True).to(self.dtype), uniform.to(device=self.device, non_blocking=True)
        )


def _generator(seed: int, key: tuple[int, int, int]) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed, spawn_key=key if key[2] else key[:2])))
