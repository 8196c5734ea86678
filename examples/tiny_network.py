"""A small denoiser of the digits and its training, which leaves checkpoints: ``python tiny_network.py -o checkpoints``."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import gaussian_test as gt

SPREAD = 0.55  # standard deviation of a pixel of the digits in [-1, 1]


class TinyNetwork(nn.Module):
    """Denoiser of 8 x 8 images: called with states, their noise levels and no labels, it returns the posterior mean."""

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.first = nn.Linear(64, width)
        self.level = nn.Sequential(nn.Linear(1, 64), nn.SiLU(), nn.Linear(64, 2 * width))
        self.second = nn.Linear(width, width)
        self.last = nn.Linear(width, 64)

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        """Return D(x, sigma)."""
        sigma = sigma.reshape(-1, 1).to(x)
        total = (sigma**2 + SPREAD**2).sqrt()
        flat = x.flatten(1)
        scale, shift = self.level(sigma.log() / 2).chunk(2, 1)
        hidden = nn.functional.silu(self.first(flat / total) * (1 + scale) + shift)
        hidden = hidden + nn.functional.silu(self.second(hidden))
        denoised = (SPREAD / total) ** 2 * flat + sigma * SPREAD / total * self.last(hidden)
        return denoised.reshape(x.shape)


def build(width: int = 256) -> TinyNetwork:
    """Return a network for an experiment: ``factory: tiny_network:build``."""
    return TinyNetwork(width)


def train(folder: Path, checkpoints: list[int], seed: int) -> None:
    """Train up to the last of the checkpoints and write each of them."""
    x = torch.from_numpy(gt.data.load("digits").load().x.values)
    torch.manual_seed(seed)
    network = build()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0)
    for step in range(1, max(checkpoints) + 1):
        batch = x[torch.randint(len(x), (256,))]
        sigma = (7.6 * torch.rand(len(batch)) - 4.6).exp().reshape(-1, 1, 1, 1)  # 0.01 to 20
        weight = (sigma**2 + SPREAD**2) / (sigma * SPREAD) ** 2
        noisy = batch + sigma * torch.randn_like(batch)
        loss = (weight * (network(noisy, sigma) - batch).square()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step in checkpoints:
            save_file(network.state_dict(), folder / f"step_{step:06d}.safetensors")
            print(f"step {step}: loss {loss.item():.3f}", flush=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("checkpoints"), help="folder for the checkpoints")
    parser.add_argument("--checkpoints", type=int, nargs="+", default=[30, 300, 3000], help="steps after which to write one")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    train(arguments.output, arguments.checkpoints, arguments.seed)


if __name__ == "__main__":
    main()
