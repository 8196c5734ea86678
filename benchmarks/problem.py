"""What is measured on: images with the spectrum of natural ones, or real ones where a folder of CIFAR-10 is given."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from gaussian_test import data

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Problem:
    """Sizes, device and samples.

    Attributes
    ----------
    device : torch.device
        Where scores and states live.
    counts : tuple of int
        Numbers of ground-truth samples, ascending.
    event : tuple of int
        Shape of a sample.
    batch, steps, times : int
        States at once, reverse steps, and times of a path.
    rounds : int
        Runs of each piece; those that take long have fewer.
    source : str or None
        A folder of CIFAR-10 in its binary format, whose images are repeated with noise of one grey level where they are too few.
    """

    device: torch.device
    counts: tuple[int, ...] = (10_000, 50_000)
    event: tuple[int, ...] = (3, 32, 32)
    batch: int = 512
    steps: int = 256
    times: int = 256
    rounds: int = 5
    source: str | None = None

    @property
    def features(self) -> int:
        """Numbers in a sample."""
        return int(np.prod(self.event))

    @cached_property
    def images(self) -> Bytes:
        """As many as the largest count, uint8, (samples, channels, rows, columns)."""
        if self.source is None:
            return natural_images(self.counts[-1], self.event)
        x = data.load(self.source, source="cifar10")["x"]
        pixels = np.rint((x.values - x.attrs["offset"]) / x.attrs["scale"])
        random = np.random.default_rng(0)
        chosen = pixels[np.arange(self.counts[-1]) % len(pixels)]
        chosen[len(pixels) :] += random.integers(-1, 2, chosen[len(pixels) :].shape)
        return chosen.clip(0, 255).astype(np.uint8)

    def samples(self, count: int) -> torch.Tensor:
        """Return so many of them as float32 in [-1, 1], on the device."""
        return torch.from_numpy(self.images[:count]).to(self.device, torch.float32).div_(127.5).sub_(1)

    def states(self, batch: int, nu: float) -> torch.Tensor:
        """Return noised samples at a noise-to-signal ratio."""
        generator = torch.Generator().manual_seed(1)
        noise = torch.randn(batch, *self.event, generator=generator).to(self.device)
        return self.samples(batch) + nu * noise


def natural_images(count: int, event: tuple[int, ...]) -> Bytes:
    r"""Return Gaussian fields with the power spectrum :math:`1/k^2` of natural images and correlated channels, as bytes."""
    channels, rows, columns = event
    random = np.random.default_rng(0)
    k = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)[None])
    amplitude = 1 / np.maximum(k, 0.5 / rows)
    mixing = 0.9 + 0.1 * np.eye(channels)  # most of the variation is grey
    result = np.empty((count, *event), dtype=np.uint8)
    for start in range(0, count, 1000):
        some = result[start : start + 1000]
        white = random.standard_normal((len(some), channels, rows, columns), dtype=np.float32)
        fields = np.fft.irfft2(np.fft.rfft2(white) * amplitude, s=(rows, columns))
        fields = np.einsum("ij,njrc->nirc", mixing, fields)
        np.clip(np.rint(fields * (60 / fields.std()) + 120), 0, 255, out=fields)
        some[:] = fields
    return result
