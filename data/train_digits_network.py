r"""Training of the shipped digits denoiser: ``python -m gaussian_test.data.train_digits_network``.

EDM's loss, :math:`E\,\|D(x_0 + \sigma z, \sigma) - x_0\|^2/(d\,c_{out}^2)` with a log-normal :math:`\sigma` (Karras et al., arXiv
2206.00364), on the samples that are not held out. All randomness of a step is keyed by (seed, step), so a resumed training ends in
the same bits. Regularisation must not shrink D, for an exact score has :math:`E\|D\|^2 = E\,x_0\cdot D`: use weight decay on the
matrices that features pass through, and no dropout.
"""

from __future__ import annotations

import copy
import json
import math
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import seaborn as sns
import torch
import xarray as xr
from matplotlib.figure import Figure
from safetensors import safe_open
from safetensors.torch import save
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn
from tqdm import tqdm

from gaussian_test.analysis import GaussianScore, fit_moments
from gaussian_test.analysis.figures.parts import LEGEND, WIDTH, drawing
from gaussian_test.data import load
from gaussian_test.sampler import EmpiricalScore, NetworkScore, ProbabilityFlow, UTurnPlan, VarianceExploding
from gaussian_test.sampler.networks.residual_denoiser import ResidualDenoiser
from gaussian_test.store.digest import data_digest

OUTPUT = Path(__file__).with_name("digits_network.safetensors")
LEVELS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0, 20.0, 40.0, 80.0)  # noise levels of the record
WARM_UP = 200  # steps
CURVE_EVERY = 200
CHECKPOINT_EVERY = 500
DRAWS = 2**13  # noise draws per mean of the curve; the record uses four times as many
U_TURNS = 512
TURN_TIME = 10.0

Denoise = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class Settings:
    """Settings that determine the weights, besides the samples."""

    seed: int = 0
    held_out: int = 360
    steps: int = 4500
    pairs: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 3.0
    dropout: float = 0.0  # dropout shrinks D: it is learnt with features missing
    label_dropout: float = 0.6
    average_decay: float = 0.999
    log_sigma_mean: float = -0.1
    log_sigma_std: float = 1.6
    width: int = 192
    hidden: int = 384
    blocks: int = 2


@dataclass(frozen=True)
class Part:
    """Samples, (n, channels, rows, columns), and their classes, one-hot."""

    x: Tensor
    classes: Tensor


def split(truth: xr.Dataset, settings: Settings) -> tuple[Part, Part]:
    """Return the samples to train on and those held out: the first ones of a permutation by the seed."""
    order = torch.from_numpy(np.random.default_rng(settings.seed).permutation(truth.sizes["sample"]))
    x = torch.from_numpy(np.asarray(truth["x"].values, dtype=np.float32))
    classes = nn.functional.one_hot(torch.from_numpy(truth["label"].values.astype(np.int64))).float()
    held_out, training = order[: settings.held_out], order[settings.held_out :]
    return Part(x[training], classes[training]), Part(x[held_out], classes[held_out])


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Seed torch with a key, and restore its random state afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        yield


class Training:
    """A training run: :meth:`run` it to the end, from a checkpoint if there is one.

    Examples
    --------
    >>> small = Settings(steps=3, pairs=8, width=8, hidden=8, blocks=1)
    >>> training = Training(load("digits"), small)
    >>> training.run()
    >>> training.step
    3
    """

    def __init__(self, truth: xr.Dataset, settings: Settings) -> None:
        self.settings = settings
        self.training, self.held_out = split(truth, settings)
        self.arguments: dict[str, Any] = {
            "img_channels": self.training.x.shape[1],
            "img_resolution": self.training.x.shape[2],
            "label_dim": self.training.classes.shape[1],
            "width": settings.width,
            "hidden": settings.hidden,
            "blocks": settings.blocks,
            "sigma_data": round(float(self.training.x.square().mean().sqrt()), 4),
            "dropout": settings.dropout,
        }
        # a checkpoint must match this to be resumed
        self.identity = json.dumps({"settings": asdict(settings), "data": data_digest(truth)})
        self.step = 0
        self.curve: list[dict[str, float]] = []
        with seeded(settings.seed, self.step):
            self.network = ResidualDenoiser(**self.arguments)
        self.average = copy.deepcopy(self.network).eval()
        self.optimizer = torch.optim.AdamW(
            self._decayed_and_others(), settings.learning_rate, betas=(0.9, 0.99), weight_decay=settings.weight_decay, foreach=True
        )

    def run(self, checkpoint: Path | None = None, report: Callable[[Training], object] = lambda _: None) -> None:
        """Train from the current step to the last, and report after each step."""
        while self.step < self.settings.steps:
            self._advance()
            last = self.step == self.settings.steps
            if last or self.step % CURVE_EVERY == 0:
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

    def _losses(self, network: ResidualDenoiser, x0: Tensor, sigma: Tensor, noise: Tensor, classes: Tensor | None) -> Tensor:
        denoised = network(x0 + sigma.reshape(-1, 1, 1, 1) * noise, sigma, classes)
        weight: Tensor = sigma**-2 + network.sigma_data**-2  # 1/c_out^2
        losses: Tensor = weight * (denoised - x0).square().mean((1, 2, 3))
        return losses

    @torch.no_grad()
    def _mean_loss(self, part: Part) -> float:
        """Return the averaged network's loss without labels, on noise that is the same at every step."""
        with seeded(self.settings.seed, 0):
            x0 = part.x.repeat(-(-DRAWS // len(part.x)), 1, 1, 1)
            # levels ascend: shuffle them over the samples
            sigma = self._levels(len(x0))[torch.randperm(len(x0))]
            return float(self._losses(self.average, x0, sigma, torch.randn_like(x0), None).mean())


def write(path: Path, save: Callable[[Path], object]) -> None:
    """Write a file atomically."""
    temporary = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
    try:
        save(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_network(path: Path = OUTPUT) -> tuple[ResidualDenoiser, dict[str, Any]]:
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
    network = ResidualDenoiser(**config["arguments"])
    network.load_state_dict(weights)
    return network.eval(), config


def squared_errors(denoise: Denoise, x0: Tensor, sigma: float, count: int = 4 * DRAWS, seed: int = 1) -> Tensor:
    r"""Return :math:`\|D(x_0 + \sigma z, \sigma) - x_0\|^2` of each sample, averaged over equally many noise draws, float64.

    Examples
    --------
    >>> x0 = torch.zeros(4, 1, 8, 8)
    >>> round(float(squared_errors(lambda x, sigma: x, x0, 2.0).mean() / 64), 1)
    4.0
    """
    draws = -(-count // len(x0))
    with torch.no_grad(), seeded(seed):
        total = sum((denoise(x0 + sigma * torch.randn_like(x0), sigma) - x0).double().square().sum((1, 2, 3)) for _ in range(draws))
    return torch.as_tensor(total) / draws


def record(truth: xr.Dataset, network: ResidualDenoiser, settings: Settings) -> dict[str, Any]:
    """Return the losses and auto-correlations of a network at all noise levels, and statistics of its U-Turn ends.

    Everything is divided by the total variance of all samples: a loss is 1 minus an auto-correlation.
    """
    training, held_out = split(truth, settings)
    x = torch.from_numpy(truth["x"].values)
    moments = fit_moments(truth["x"])
    mean = torch.from_numpy(moments.mean)
    gaussian, of_training, of_all = GaussianScore.fit(truth["x"]), EmpiricalScore(training.x), EmpiricalScore(x)

    def with_labels(part: Part) -> Denoise:
        return lambda noised, sigma: network(noised, sigma, part.classes)

    table = []
    for sigma in LEVELS:
        wiener = moments.eigenvalues / (moments.eigenvalues + sigma**2)
        row = {
            "training": squared_errors(network, training.x, sigma),
            "held_out": squared_errors(network, held_out.x, sigma),
            "training_with_labels": squared_errors(with_labels(training), training.x, sigma),
            "held_out_with_labels": squared_errors(with_labels(held_out), held_out.x, sigma),
            "mmse_of_training_samples": squared_errors(of_training.denoise, training.x, sigma, DRAWS),
            "lmmse_of_held_out_samples": squared_errors(gaussian.denoise, held_out.x, sigma),
        }
        losses = {name: float(value.mean()) / moments.trace for name, value in row.items()}
        errors = {f"{name}_se": float(row[name].std()) / len(row[name]) ** 0.5 / moments.trace for name in ("training", "held_out")}
        squares, products = autocorrelations(network, x, sigma, mean)
        squares_held_out, products_held_out = autocorrelations(network, held_out.x, sigma, mean, draws=32)
        table.append(
            {"sigma": sigma, **losses, **errors}
            | {
                "lmmse": float((moments.eigenvalues * (1 - wiener)).sum()) / moments.trace,
                "autocorrelation_gaussian": float((moments.eigenvalues * wiener).sum()) / moments.trace,
                "autocorrelation_network_squared": squares / moments.trace,
                "autocorrelation_network_product": products / moments.trace,
                "held_out_squared": squares_held_out / moments.trace,
                "held_out_product": products_held_out / moments.trace,
                "autocorrelation_empirical": 1 - float(squared_errors(of_all.denoise, x, sigma, DRAWS).mean()) / moments.trace,
            }
        )
    return {"table": table, "u_turns": u_turn_ends(network, training.x, held_out.x)}


def autocorrelations(denoise: Denoise, x0: Tensor, sigma: float, mean: Tensor, draws: int = 8) -> tuple[float, float]:
    r"""Return :math:`E\|D-\mu\|^2` and :math:`E(x_0-\mu)\cdot(D-\mu)`: equal for an exact score."""
    squares, products = 0.0, 0.0
    with torch.no_grad(), seeded(2):
        for _ in range(draws):
            denoised = denoise(x0 + sigma * torch.randn_like(x0), sigma).double() - mean
            squares += float(denoised.square().sum() / len(x0) / draws)
            products += float((denoised * (x0 - mean)).sum() / len(x0) / draws)
    return squares, products


def u_turn_ends(network: ResidualDenoiser, training: Tensor, held_out: Tensor) -> dict[str, float]:
    """Return the share of U-Turns that end closer to a training sample than half of the training samples are to each other."""
    plan = UTurnPlan(VarianceExploding(), [TURN_TIME])
    starts = training[:U_TURNS]
    states = plan.run(starts, range(len(starts)), {"network": NetworkScore.from_edm(network)}, {"network": ProbabilityFlow()})
    (end,) = (state.x[0] for state in states if state.phase == "end")
    neighbours = NearestNeighbors(n_neighbors=1).fit(training.flatten(1).numpy())
    typical = float(np.median(neighbours.kneighbors()[0]))  # without an argument, a sample is not its own neighbour
    closer = {
        name: float((neighbours.kneighbors(x.flatten(1).numpy())[0] < typical).mean())
        for name, x in (("ends_closer", end), ("held_out_closer", held_out))
    }
    return {"turn_time": TURN_TIME, "count": len(starts), "typical_distance": typical, **closer}


def draw(record: dict[str, Any]) -> Figure:
    """Draw the losses of the record against the noise level, and the training curve."""
    table = {name: np.array([row[name] for row in record["table"]]) for name in record["table"][0]}
    curve = {name: np.array([row[name] for row in record["curve"]]) for name in record["curve"][0]}
    blue, orange, green, *_ = sns.color_palette("colorblind")
    with drawing():
        figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot(table["sigma"], table["lmmse"], color="black", linewidth=1, label="affine (LMMSE)")
        left.plot(table["sigma"], table["held_out"], "o", color=orange, markersize=4, label="network, held out")
        left.plot(table["sigma"], table["training"], color=blue, label="network, training")
        left.plot(table["sigma"], table["mmse_of_training_samples"], "--", color=green, label="empirical (MMSE)")
        left.set(xscale="log", xlabel=r"noise level $\sigma$", ylabel=r"denoising loss / $\mathrm{tr}\,\Sigma$")
        left.xaxis.set_major_formatter("{x:g}")
        right.plot(curve["step"], curve["held_out"], "o-", color=orange, markersize=3, linewidth=1, label="held-out samples")
        right.plot(curve["step"], curve["training"], color=blue, label="training samples")
        right.set(xlabel="training step", ylabel="weighted loss per pixel")
        for axis in (left, right):
            axis.legend(loc="lower right" if axis is left else "upper right", **LEGEND)
            sns.despine(ax=axis)
        return figure


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), default=OUTPUT, help="The weights (.safetensors).")
@click.option("--figure", type=click.Path(path_type=Path, dir_okay=False), help="Also draw the record into this file.")
@click.option("--steps", type=click.IntRange(1), default=Settings.steps, help="Steps of training.")
@click.option("--seed", type=click.IntRange(0), default=Settings.seed, help="Of the split, the weights and all noise.")
@click.option("--threads", type=click.IntRange(1), default=1, help="Threads of torch; they decide the last bits.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint of an interrupted training.")
def main(output: Path, figure: Path | None, steps: int, seed: int, threads: int, resume: bool) -> None:
    """Train the denoiser of the embedded digits; write its weights and, beside them, its record (.json)."""
    torch.set_num_threads(threads)
    truth, settings = load("digits"), Settings(steps=steps, seed=seed)
    training, checkpoint = Training(truth, settings), output.with_suffix(".checkpoint")
    if resume and checkpoint.exists():
        training.resume(checkpoint)
    started = time.perf_counter()
    with tqdm(total=steps, initial=training.step, unit="step") as bar:
        training.run(checkpoint, lambda _: bar.update())
    click.echo(f"trained in {time.perf_counter() - started:.0f} s")
    config = {
        "network": "gaussian_test.sampler.networks.residual_denoiser.ResidualDenoiser",
        "arguments": training.arguments,
        "label_names": [str(k) for k in range(training.arguments["label_dim"])],
        "data": "digits",
        "data_digest": data_digest(truth),
        "seed": seed,
        "held_out": settings.held_out,
        "split": "order = numpy.random.default_rng(seed).permutation(1797); held out are the first 360, the rest is trained on",
    }
    weights = save(training.average.state_dict(), {"config": json.dumps(config)})
    write(output, lambda path: path.write_bytes(weights))
    result = {
        "config": config,
        "settings": asdict(settings) | {"threads": threads, "torch": torch.__version__},
        "parameters": sum(weights.numel() for weights in training.average.parameters()),
        **record(truth, training.average, settings),
        "curve": training.curve,
    }
    write(output.with_suffix(".json"), lambda path: path.write_text(json.dumps(result, indent=1) + "\n"))
    if figure:
        write(figure, lambda path: draw(result).savefig(path, dpi=200))
    checkpoint.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
