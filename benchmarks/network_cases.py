"""Network U-Turns: against the same loop without us and other libraries' sampling loops, at the same number of evaluations."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from azula.denoise import Denoiser, DiracPosterior
from azula.noise import VPSchedule
from azula.sample import DDIMSampler
from diffusers import DDIMScheduler, UNet2DModel
from measure import Case
from problem import Problem

from gaussian_test import data
from gaussian_test.build.networks import Opening, open_network
from gaussian_test.experiment.scores import Network
from gaussian_test.sampler import NetworkScore, ProbabilityFlow, UTurnPlan, VarianceExploding, fastest_micro_batch

BATCHES = (16, 64, 128, 256, 512, 1024)


def cases(problem: Problem) -> Iterator[Case]:
    """Yield the comparisons."""
    torch.set_grad_enabled(False)
    small = problem.counts[-1] < 5000
    for starts in (16,) if small else (512, 16, 1):
        yield _digits(problem, starts, 6 if small else 64)
    yield from _unet(problem, small)


def _digits(problem: Problem, starts: int, levels: int) -> Case:
    turns = np.geomspace(0.1, 20, 16).tolist()
    score, _ = open_network(Network(kind="network"), Opening((1, 8, 8), VarianceExploding(), {}))
    assert isinstance(score, NetworkScore)
    score = score.to(problem.device)
    net = score.network.inner
    x0 = torch.from_numpy(data.load("digits")["x"].values[:starts]).to(problem.device)
    plan = UTurnPlan(score.process, turns, steps=levels, shard_size=starts)
    score.micro_batch = fastest_micro_batch(score, 1024, problem.device)
    few = UTurnPlan(score.process, turns[7:9], steps=levels)
    sizes = sorted({min(batch, starts) for batch in BATCHES})
    best = min(sizes, key=lambda batch: _seconds(lambda: plain_loop(net, x0, few, batch)))
    images = plain_loop(net, x0, plan, best)
    x, sigma = x0.repeat(-(-score.micro_batch // starts), 1, 1, 1)[: score.micro_batch], torch.ones(score.micro_batch).to(x0)

    def ours() -> None:
        for shard in plan.shards(range(starts)):
            for _ in plan.run(x0[list(shard)], shard, {"n": score}, {"n": ProbabilityFlow()}):
                pass

    return Case(
        "network U-Turns, digits network, Heun",
        f"{starts} starts x {len(turns)} turns x {levels} levels, micro-batch {score.micro_batch}",
        ours,
        {f"a plain loop at its best batch ({best})": lambda: plain_loop(net, x0, plan, best)},
        {"the bare network at our batch": lambda: net(x, sigma)},
        rounds=min(3, problem.rounds),
        factor={"the bare network at our batch": images / score.micro_batch},
    )


def plain_loop(net: torch.nn.Module, x0: torch.Tensor, plan: UTurnPlan, batch: int) -> int:
    """Run the U-Turns as one would write it at first, and return the number of images; nothing here is ours but the grid."""
    images = 0
    for turn in plan.levels:
        levels = plan.grid[plan.grid <= turn].tolist()
        for start in range(0, len(x0), batch):
            x = x0[start : start + batch]
            x = x + turn * torch.randn_like(x)
            for t, s in pairwise(levels):
                slope = (x - net(x, torch.full((len(x),), t).to(x))) / t
                ahead = x + (s - t) * slope
                images += len(x)
                if s > 0:
                    slope = (slope + (ahead - net(ahead, torch.full((len(x),), s).to(x))) / s) / 2
                    images += len(x)
                x = x + (s - t) * slope
    return images


def _seconds(piece: object) -> float:
    import time

    start = time.perf_counter()
    piece()  # type: ignore[operator]
    return time.perf_counter() - start


class _Epsilon(Denoiser):
    """A network that predicts the noise, as azula wants it."""

    def __init__(self, net: torch.nn.Module, schedule: VPSchedule) -> None:
        super().__init__()
        self.net, self.schedule = net, schedule

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, **_: object) -> DiracPosterior:
        alpha, sigma = self.schedule(t)
        noise = self.net(x_t, t.expand(len(x_t)) * 999).sample
        return DiracPosterior((x_t - sigma * noise) / alpha)


def _unet(problem: Problem, small: bool) -> Iterator[Case]:
    side, width, steps, batch = (8, 32, 3, 2) if small else (32, 64, 12, 16)
    torch.manual_seed(0)
    net = UNet2DModel(
        sample_size=side,
        in_channels=3,
        out_channels=3,
        layers_per_block=2,
        block_out_channels=(width, 2 * width),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=16,
    )
    net = net.eval().requires_grad_(False).to(problem.device)
    scheduler = DDIMScheduler(num_train_timesteps=1000, clip_sample=False)
    process = VarianceExploding(sigma_min=0.02, sigma_max=100.0)
    x0 = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1)).to(problem.device)

    def score_of(channels_last: bool) -> NetworkScore:
        score = NetworkScore.from_diffusers(net, scheduler, process, channels_last=channels_last).to(problem.device)
        score.micro_batch = batch
        return score

    plan = UTurnPlan(process, [80.0], steps=steps)

    def ours(score: NetworkScore) -> None:
        for _ in plan.run(x0, range(batch), {"n": score}, {"n": ProbabilityFlow("euler")}):
            pass

    def diffusers_loop() -> None:
        scheduler.set_timesteps(steps)
        x = torch.randn_like(x0)
        for t in scheduler.timesteps:
            x = scheduler.step(net(x, t).sample, t, x).prev_sample

    sampler = DDIMSampler(_Epsilon(net, VPSchedule()), steps=steps, silent=True)
    calls = {"the bare network as often": steps}
    first = score_of(channels_last=False)
    t = torch.full((batch,), 500).to(problem.device)
    yield Case(
        "network U-Turns, random UNet2DModel, Euler",
        f"{batch} starts of 3 x {side} x {side}, {steps} steps",
        lambda: ours(first),
        {"diffusers, DDIMScheduler": diffusers_loop, "azula, DDIMSampler": lambda: sampler(torch.randn_like(x0))},
        {"the bare network as often": lambda: net(x0, t)},
        rounds=min(3, problem.rounds),
        factor=calls,
    )
    last = score_of(channels_last=True)
    yield Case(
        "the same with channels_last",
        f"{batch} starts of 3 x {side} x {side}, {steps} steps",
        lambda: ours(last),
        {"ours, without": lambda: ours(score_of(channels_last=False))},
        rounds=min(3, problem.rounds),
    )
