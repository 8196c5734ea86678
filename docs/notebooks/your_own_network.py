# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own network
#
# A network of yours is a score like any other once it is told what it returns: the denoised state, the noise, a velocity, in the
# scaling that it was trained in. Here a tiny one is trained on the digits in a few seconds, wrapped, and tested; beside it a
# second one whose training was stopped much too early, to see what a failing test looks like.

# %%
# %matplotlib inline
# %config InlineBackend.figure_formats = ["retina"]
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
import xarray as xr
import yaml
from safetensors.torch import save_file
from torch import nn

import gaussian_test as gt
from gaussian_test.experiment.scores import Callable

sns.set_theme(context="paper", style="ticks", palette="colorblind")

# %% tags=["parameters"]
SAMPLES = 512  # ground-truth samples to start from
TURN_TIMES = 12  # noise levels at which to turn
STEPS = 128  # reverse steps, from the largest turn time
TRAINING = 2000  # steps of the training
STOPPED = 30  # steps of the training that was stopped too early
SEED = 0

# %% [markdown]
# ## A network
#
# It is a small residual network on the 64 pixels, in the preconditioning of EDM: the state is scaled to unit variance, and the
# network $F$ predicts what a linear denoiser of white data would leave,
#
# $$D(x,\sigma)=c_{skip}\,x+c_{out}\,F(c_{in}\,x,\ln\sigma).$$
#
# The code goes into a file of its own, since an experiment in YAML will ask for it by name.

# %%
scratch = tempfile.TemporaryDirectory()
folder = Path(scratch.name)
code = '''
import torch
from torch import nn

SPREAD = 0.55  # standard deviation of a pixel


class Tiny(nn.Module):
    """Denoiser of 8 x 8 images at noise level sigma: D(x, sigma)."""

    def __init__(self, width=256):
        super().__init__()
        self.first = nn.Linear(64, width)
        self.level = nn.Sequential(nn.Linear(1, 64), nn.SiLU(), nn.Linear(64, 2 * width))
        self.second = nn.Linear(width, width)
        self.last = nn.Linear(width, 64)

    def forward(self, x, sigma, label=None):
        sigma = sigma.reshape(-1, 1).to(x)
        total = (sigma**2 + SPREAD**2).sqrt()
        flat = x.flatten(1)
        scale, shift = self.level(sigma.log() / 2).chunk(2, 1)
        hidden = nn.functional.silu(self.first(flat / total) * (1 + scale) + shift)
        hidden = hidden + nn.functional.silu(self.second(hidden))
        denoised = (SPREAD / total) ** 2 * flat + sigma * SPREAD / total * self.last(hidden)
        return denoised.reshape(x.shape)


def build(width=256):
    return Tiny(width)
'''
(folder / "tiny_network.py").write_text(code)
specification = importlib.util.spec_from_file_location("tiny_network", folder / "tiny_network.py")
tiny_network = importlib.util.module_from_spec(specification)
specification.loader.exec_module(tiny_network)

# %% [markdown]
# ## Training
#
# The loss is the weighted denoising loss, $\mathbb E\,\|D(x_0+\sigma z,\sigma)-x_0\|^2/c_{out}^2$, with $\sigma$ from 0.01 to 20
# evenly in its logarithm. Nothing of it is specific to gaussian_test.

# %%
truth = gt.data.load("digits").load()
x = torch.from_numpy(truth.x.values)


def train(steps: int) -> nn.Module:
    """Return a network after so many steps of training."""
    torch.manual_seed(SEED)
    random = torch.Generator().manual_seed(SEED)
    network = tiny_network.build()
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(steps):
        batch = x[torch.randint(len(x), (256,), generator=random)]
        sigma = (7.6 * torch.rand(len(batch), generator=random) - 4.6).exp().reshape(-1, 1, 1, 1)
        noisy = batch + sigma * torch.randn(batch.shape, generator=random)
        weight = (sigma**2 + tiny_network.SPREAD**2) / (sigma * tiny_network.SPREAD) ** 2
        loss = (weight * (network(noisy, sigma) - batch).square()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    print(f"{steps} steps: loss of the last batch {loss.item():.3f}")
    return network


trained, stopped = train(TRAINING), train(STOPPED)

# %% [markdown]
# ## Wrap it
#
# `NetworkScore.from_callable` takes a function or module `(x, t, label)`. What has to be said is the shape of a sample, what it
# returns (`prediction`: `x0`, `epsilon`, `v`, `score`, `velocity`) and, where it is not the process of the experiment, the
# scaling that it was trained in (`trained`). Ours returns $x_0$ and was trained as the default process noises,
# $x_t=x_0+\sigma z$. EDM, diffusers and azula networks have adapters that find this out for themselves.

# %%
scores = {
    name: gt.sampler.NetworkScore.from_callable(network, (1, 8, 8), prediction="x0", micro_batch=512)
    for name, network in (("trained", trained), ("stopped", stopped))
}

# %% [markdown]
# ## The test
#
# The exact score of the samples is run beside the networks.

# %%
settings = {
    "scores": [{"kind": "empirical"}],
    "turn_times": {"noise_to_signal": {"min": 0.2, "max": 10, "count": TURN_TIMES}},
    "reverse": {"steps": STEPS},
    "samples": SAMPLES,
    "seed": SEED,
    "observables": "none",
    "keep": {"pictures": 8},
}
result = gt.run(settings, scores=scores)
figures = result.gaussian_test.plot()
figures["autocorrelation"]

# %% [markdown]
# ## Read detailed balance first
#
# Before any time is read off a network: is it a score? For an exact one $\mathbb E\,x_0\cdot D=\mathbb E\,\|D\|^2$ and simulated
# U-Turns agree with both. `balance_squared` and `balance_simulated` are the differences, over $\mathrm{tr}\,\Sigma$, with
# simultaneous bands.

# %%
for name in scores:
    row = result.sel(score=name)
    for balance, what in (("balance_squared", "|D|^2 - x0.D"), ("balance_simulated", "simulated - x0.D")):
        at = int(np.abs(row[balance].values).argmax())
        value, error, p = (float(row[balance + end][at]) for end in ("", "_se", "_pvalue"))
        nu = float(row.noise_to_signal[at])
        print(f"{name}: {what:>16} largest {value:+.4f} +- {error:.4f} ({value / error:+.1f}) at nu = {nu:.2f}, p = {p:.2g}")

# %%
figure, axes = plt.subplots(2, 1, figsize=(6.4, 5.2), sharex=True, layout="constrained")
for axis, balance, label in zip(
    axes, ("balance_squared", "balance_simulated"), (r"$\|D\|^2-x_0\cdot D$", r"simulated $-\,x_0\cdot D$"), strict=True
):
    for marker, colour, name in zip("os", sns.color_palette("colorblind", 2), scores, strict=True):
        row = result.sel(score=name)
        axis.fill_between(row.noise_to_signal, row[f"{balance}_low"], row[f"{balance}_high"], color=colour, alpha=0.2, linewidth=0)
        axis.plot(row.noise_to_signal, row[balance], marker=marker, color=colour, markersize=4, linewidth=1, label=name)
    axis.axhline(0, color="0.4", linewidth=0.8)
    axis.set(xscale="log", ylabel=label + r", over $\mathrm{tr}\,\Sigma$")
axes[1].set_xlabel(r"noise-to-signal ratio at the turn, $\nu_T$")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False, title="95 % bands")
sns.despine(figure)

# %% [markdown]
# A small network that was trained for seconds is not an exact score, and with this many samples the test sees it. What counts is
# the size: a violation is in units of the total variance, like $C$ itself. The trained network's is largest at small noise, and
# vanishes at large noise, where $D$ has to become the mean of the data. The other network's is larger at every turn time, and
# does not vanish there.

# %% [markdown]
# ## The affine time
#
# The affine time of a network is where *its* score becomes the Gaussian's, read off one evaluation:
# $\mathbb E\,(x_0-\mu)\cdot(D-D_G)/\mathrm{tr}\,\Sigma$ stays within the tolerance from there on. Held against the exact score's
# it says whether the network has seen what is not Gaussian in the data, at each noise level.

# %%
for name in ("empirical", "trained", "stopped"):
    row = result.sel(score=name)
    time, low, high = (float(row[f"affine_noise_to_signal{end}"]) for end in ("", "_low", "_high"))
    at = int(np.abs(row.gap_one_shot.values).argmax())
    print(
        f"{name:>9}: affine time {time:.2f} [{low:.2f}, {high:.2f}], largest gap of one evaluation "
        f"{float(row.gap_one_shot[at]):+.3f} +- {float(row.gap_one_shot_se[at]):.3f}"
    )
print("why, where it is undefined:", result.affine_noise_to_signal.attrs.get("reason", "it is not"))

# %% [markdown]
# The trained network has found part of what is not Gaussian in the digits. A negative gap, as the other one has, is impossible
# for an exact score: there it denoises *worse* than an affine map would.

# %% [markdown]
# ## What to look at if it fails
#
# - **`balance_squared` away from 0 at large noise**: $D$ must shrink to the mean of the data there. Look at the preconditioning,
#   at the scaling of the data, and at `prediction` and `trained`: a network that predicts the noise but is wrapped as `x0` shows
#   at once.
# - **`balance_squared` away from 0 at some noise levels only**: these were seen too rarely in the training.
# - **`balance_simulated` alone**: too few reverse steps (double `reverse.steps`: what is the integrator's goes), or the network
#   is wrong *below* the turn time, where the reverse run passes and one evaluation does not.
# - **the gap of one evaluation below 0**: worse than affine at this noise level, not trained enough.
#
# The first mistake, made on purpose: the same weights, wrapped as if they predicted the noise. Before a run each network is tried
# on a few noised samples; one that does not denoise, but would if it were read in another way, is refused.

# %%
mistaken = gt.sampler.NetworkScore.from_callable(trained, (1, 8, 8), prediction="epsilon", micro_batch=512)
try:
    gt.run({**settings, "keep": {"pictures": 0}, "scores": [{"kind": "gaussian"}]}, scores={"mistaken": mistaken})
except gt.UserError as error:
    print(error)

# %% [markdown]
# ## The same from the command line
#
# In an experiment file the network is named by the function that makes it, in a module that can be imported or lies in the
# current folder, and by the file of its weights. These are all settings of a `callable`:

# %%
for name, field in Callable.model_fields.items():
    print(f"{name}: {'required' if field.is_required() else field.get_default(call_default_factory=True)}")

# %%
save_file(trained.state_dict(), folder / "tiny.safetensors")
network = {"kind": "callable", "name": "trained", "factory": "tiny_network:build", "arguments": {"width": 256}}
network |= {"weights": "tiny.safetensors", "prediction": "x0", "micro_batch": 512}
experiment = {**settings, "scores": [*settings["scores"], network]}
(folder / "experiment.yaml").write_text(yaml.safe_dump(experiment, sort_keys=False))
print((folder / "experiment.yaml").read_text())

# %%
command = [sys.executable, "-m", "gaussian_test", "run", "experiment.yaml", "-o", "run.nc"]
said = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
print("\n".join(said.splitlines()[:7]))

# %% [markdown]
# ## A check
#
# The two routes are one computation: the same samples, the same noise, the same network. So the tables of single U-Turns are to
# agree, not within errors but digit by digit. And what distinguishes the two networks is to be far beyond its error.

# %%
with xr.open_dataset(folder / "run.nc") as archive:
    there = archive.sample_autocorrelation.sel(score="trained").load()
difference = float(abs(there - result.sample_autocorrelation.sel(score="trained")).max())
print(f"largest difference of a U-Turn between python and the command line: {difference}")
violated = (result.sample_autocorrelation_one_shot_squared - result.sample_autocorrelation_one_shot).mean("repeat")
paired = (violated.sel(score="stopped") - violated.sel(score="trained")).isel(turn_time=-1)
mean, error = float(paired.mean()), float(paired.std(ddof=1)) / SAMPLES**0.5
print(f"|D|^2 - x0.D of the stopped network less that of the trained one, at the largest noise: {mean:.3f} +- {error:.3f}")

# %%
scratch.cleanup()
