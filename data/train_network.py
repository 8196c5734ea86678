r"""Training of the shipped denoisers: ``python -m gaussian_test.data.train_network digits``, or a folder of Fashion-MNIST.

EDM's loss, :math:`E\,\|D(x_0 + \sigma z, \sigma) - x_0\|^2/(d\,c_{out}^2)` with a log-normal :math:`\sigma` (Karras et al., arXiv
2206.00364), on the samples that are not held out. All randomness of a step is keyed by (seed, step), so a resumed training ends in
the same bits. Regularisation must not shrink D, for an exact score has :math:`E\|D\|^2 = E\,x_0\cdot D`: use weight decay on the
matrices that features pass through, and no dropout.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import xarray as xr
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from gaussian_test.data import load
from gaussian_test.data.network_record import DRAWS, Part, draw, record, seeded
from gaussian_test.sampler.networks.edm_denoiser import EDMDenoiser
from gaussian_test.sampler.networks.residual_denoiser import ResidualDenoiser
from gaussian_test.sampler.networks.unet_denoiser import UNetDenoiser
from gaussian_test.store.digest import data_digest

DIGITS_OUTPUT, FASHION_OUTPUT = (Path(__file__).with_name(f"{name}_network.safetensors") for name in ("digits", "fashion"))
HELD_OUT = 360  # of the digits
SOME = 1000  # samples of each part that the record tries a network on
WARM_UP = 200  # steps
CHECKPOINT_EVERY = 500
PIECE = 1024  # samples of one call without gradients


@dataclass(frozen=True)
class Settings:
    """Settings that determine the weights, besides the samples."""

    network: str = "ResidualDenoiser"
    architecture: Mapping[str, int] = field(default_factory=lambda: {"width": 192, "hidden": 384, "blocks": 2})
    seed: int = 0
    steps: int = 4500
    pairs: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 3.0
    label_dropout: float = 0.6
    average_decay: float = 0.999
    log_sigma_mean: float = -0.1
    log_sigma_std: float = 1.6
    half: bool = False  # whether products are of bfloat16
    curve_every: int = 200  # steps


DIGITS = Settings()
FASHION = Settings(
    network="UNetDenoiser",
    architecture={"width": 48},
    steps=12_000,
    pairs=64,
    weight_decay=0.0,
    label_dropout=0.2,
    log_sigma_mean=0.0,
    half=True,
    curve_every=1000,
)
NETWORKS: dict[str, type[EDMDenoiser]] = {one.__name__: one for one in (ResidualDenoiser, UNetDenoiser)}


def part_of(truth: xr.Dataset, samples: Any = slice(None)) -> Part:
    """Return some samples of a data set."""
    x = torch.from_numpy(np.asarray(truth["x"][samples].values, dtype=np.float32))
    labels = torch.from_numpy(truth["label"][samples].values.astype(np.int64))
    return Part(x, nn.functional.one_hot(labels, truth.sizes["class"]).float())


def split(truth: xr.Dataset, seed: int, held_out: int) -> tuple[Part, Part]:
    """Return the samples to train on and those held out: the first ones of a permutation by the seed."""
    order = np.random.default_rng(seed).permutation(truth.sizes["sample"])
    return part_of(truth, order[held_out:]), part_of(truth, order[:held_out])


class Training:
    """A training run: :meth:`run` it to the end, from a checkpoint if there is one.

    Examples
    --------
    >>> small = Settings(steps=3, pairs=8, architecture={"width": 8, "hidden": 8, "blocks": 1})
    >>> training = Training(*split(load("digits"), 0, 360), small)
    >>> training.run()
    >>> training.step
    3
    """

    def __init__(self, training: Part, held_out: Part, settings: Settings) -> None:
        self.settings = settings
        self.training, self.held_out = training, held_out
        self.arguments: dict[str, Any] = {
            "img_channels": training.x.shape[1],
            "img_resolution": training.x.shape[2],
            "label_dim": training.classes.shape[1],
            **settings.architecture,
            "sigma_data": round(float(training.x.square().mean().sqrt()), 4),
        }
        # a checkpoint must match this to be resumed
        samples = [hashlib.sha256(part.x.numpy().tobytes()).hexdigest() for part in (training, held_out)]
        self.identity = json.dumps({"settings": asdict(settings), "samples": samples})
        self.step = 0
        self.curve: list[dict[str, float]] = []
        with seeded(settings.seed, self.step):
            self.network = NETWORKS[settings.network](**self.arguments)
        self.average = copy.deepcopy(self.network).eval()
        self.optimizer = torch.optim.AdamW(
            self._decayed_and_others(), settings.learning_rate, betas=(0.9, 0.99), weight_decay=settings.weight_decay, foreach=True
        )

    def run(self, checkpoint: Path | None = None, report: Callable[[Training], object] = lambda _: None) -> None:
        """Train from the current step to the last, and report after each step."""
        while self.step < self.settings.steps:
            self._advance()
            last = self.step == self.settings.steps
            if last or self.step % self.settings.curve_every == 0:
                parts = {"training": self.training, "held_out": self.held_out}
                self.curve.append({"step": self.step, **{name: self._mean_loss(part) for name, part in parts.items()}})
            if checkpoint and (last or self.step % CHECKPOINT_EVERY == 0):
                write(checkpoint, lambda path: torch.save(self.state(), path))
            report(self)

    def state(self) -> dict[str, Any]:
        """Return the state that determines the next steps."""
        modules = {name: getattr(self, name).state_dict() for name in ("network", "average", "optimizer")}
        return {"identity": self.identity, "step": self.step, "curve": self.curve, **modules}

    def resume(self, checkpoint: Path) -> None:
        """Restore the state of a checkpoint with the same settings and samples."""
        state = torch.load(checkpoint, weights_only=True)
        if state["identity"] != self.identity:
            raise click.UsageError(f"{checkpoint} is of other settings or samples: use those, or start again without --resume")
        self.step, self.curve = state["step"], state["curve"]
        for name in ("network", "average", "optimizer"):
            getattr(self, name).load_state_dict(state[name])

    def _decayed_and_others(self) -> list[dict[str, Any]]:
        """Split the weights: decay of biases, the last layer or the noise and class embeddings would shrink D."""
        parts: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for name, weight in self.network.named_parameters():
            parts[name.endswith(("first.weight", "up.weight", "down.weight"))].append(weight)
        return [{"params": parts[True]}, {"params": parts[False], "weight_decay": 0.0}]

    def _advance(self) -> None:
        settings, part = self.settings, self.training
        self.step += 1
        with seeded(settings.seed, self.step):
            rows = torch.randint(len(part.x), (settings.pairs,))
            kept = torch.rand(settings.pairs, 1) >= settings.label_dropout
            sigma, noise = self._levels(settings.pairs), torch.randn_like(part.x[rows])
            # use both signs of the noise: their contributions to the gradient of a linear gain at high noise cancel
            losses = self._losses(
                self.network,
                part.x[rows].repeat(2, 1, 1, 1),
                sigma.repeat(2),
                torch.cat([noise, -noise]),
                (part.classes[rows] * kept).repeat(2, 1),
            )
            self.optimizer.zero_grad()
            losses.mean().backward()  # type: ignore[no-untyped-call]
        cosine = (1 + math.cos(math.pi * self.step / settings.steps)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * min(1, self.step / WARM_UP) * cosine
        self.optimizer.step()
        decay = min(settings.average_decay, self.step / (self.step + 10))  # a short memory at first
        with torch.no_grad():
            for mean, now in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(now, 1 - decay)

    def _levels(self, count: int) -> Tensor:
        """Draw log-normal noise levels, one from each of ``count`` equally likely intervals, to reduce variance."""
        uniform = (torch.arange(count) + torch.rand(count).clamp(1e-3, 1 - 1e-3)) / count
        log_sigma: Tensor = self.settings.log_sigma_mean + self.settings.log_sigma_std * torch.special.ndtri(uniform)
        return log_sigma.exp()

    def _losses(self, network: EDMDenoiser, x0: Tensor, sigma: Tensor, noise: Tensor, classes: Tensor | None) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.settings.half):
            denoised = network(x0 + sigma.reshape(-1, 1, 1, 1) * noise, sigma, classes)
        weight: Tensor = sigma**-2 + network.sigma_data**-2  # 1/c_out^2
        losses: Tensor = weight * (denoised - x0).square().mean((1, 2, 3))
        return losses

    @torch.no_grad()
    def _mean_loss(self, part: Part) -> float:
        """Return the averaged network's loss without labels, on noise that is the same at every step."""
        with seeded(self.settings.seed, 0):
            x0 = part.x.repeat(-(-DRAWS // len(part.x)), 1, 1, 1) if len(part.x) < DRAWS else part.x[:DRAWS]
            # levels ascend: shuffle them over the samples
            sigma, noise = self._levels(len(x0))[torch.randperm(len(x0))], torch.randn_like(x0)
        pieces = zip(*(torch.split(values, PIECE) for values in (x0, sigma, noise)), strict=True)
        return float(torch.cat([self._losses(self.average, x, s, z, None) for x, s, z in pieces]).mean())


def write(path: Path, save: Callable[[Path], object]) -> None:
    """Write a file atomically."""
    temporary = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
    try:
        save(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_network(path: Path = DIGITS_OUTPUT) -> tuple[EDMDenoiser, dict[str, Any]]:
    """Load a network and its configuration from its file.

    Examples
    --------
    >>> network, config = read_network()
    >>> network.label_dim, config["held_out"]
    (10, 360)
    """
    with safe_open(path, framework="pt") as file:
        config = json.loads(file.metadata()["config"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 # not a dict
    network = NETWORKS[config["network"].rpartition(".")[2]](**config["arguments"])
    network.load_state_dict(weights)
    return network.eval(), config


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.argument("data", metavar="digits | FOLDER")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="The weights (.safetensors).")
@click.option("--figure", type=click.Path(path_type=Path, dir_okay=False), help="Also draw the record into this file.")
@click.option("--steps", type=click.IntRange(1), help="Steps of training.")
@click.option("--seed", type=click.IntRange(0), default=Settings.seed, help="Of the split, the weights and all noise.")
@click.option("--threads", type=click.IntRange(1), default=1, help="Threads of torch; they decide the last bits.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint of an interrupted training.")
def main(data: str, output: Path | None, figure: Path | None, steps: int | None, seed: int, threads: int, resume: bool) -> None:
    """Train the denoiser of the digits, or of Fashion-MNIST in a folder of its IDX files.

    Writes its weights and, beside them, its record (.json).
    """
    torch.set_num_threads(threads)
    is_digits = data == "digits"
    settings = replace(DIGITS if is_digits else FASHION, seed=seed)
    settings = replace(settings, steps=steps or settings.steps)
    output = output or (DIGITS_OUTPUT if is_digits else FASHION_OUTPUT)
    if is_digits:
        parts = split(load("digits"), seed, HELD_OUT)
        said = {"data": "digits", "data_digest": data_digest(load("digits")), "held_out": HELD_OUT}
        said["split"] = "order = numpy.random.default_rng(seed).permutation(1797); held out are the first 360 of it"
    else:
        parts = part_of(load(data, split="train")), part_of(load(data, split="test"))
        said = {
            "data": "Fashion-MNIST",
            "held_out": len(parts[1].x),
            "split": "that of Fashion-MNIST: its test images are held out",
        }
    training, checkpoint = Training(*parts, settings), output.with_suffix(".checkpoint")
    if resume and checkpoint.exists():
        training.resume(checkpoint)
    started = time.perf_counter()
    with tqdm(total=settings.steps, initial=training.step, unit="step") as bar:
        training.run(checkpoint, lambda _: bar.update())
    click.echo(f"trained in {time.perf_counter() - started:.0f} s")
    network = training.average
    config = {
        "network": f"{type(network).__module__}.{type(network).__qualname__}",
        "arguments": training.arguments,
        "label_names": [str(k) for k in range(training.arguments["label_dim"])],
        **said,
        "seed": seed,
    }
    weights = {name: weight.half() if settings.half else weight for name, weight in network.state_dict().items()}
    content = save(weights, {"config": json.dumps(config)})
    write(output, lambda path: path.write_bytes(content))
    network, _ = read_network(output)  # as it is shipped
    result = {
        "config": config,
        "settings": asdict(settings) | {"threads": threads, "torch": torch.__version__},
        "parameters": sum(weights.numel() for weights in network.parameters()),
        **record(network, *parts, None if is_digits else SOME),
        "curve": training.curve,
    }
    write(output.with_suffix(".json"), lambda path: path.write_text(json.dumps(result, indent=1) + "\n"))
    if figure:
        write(figure, lambda path: draw(result).savefig(path, dpi=200))
    checkpoint.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
