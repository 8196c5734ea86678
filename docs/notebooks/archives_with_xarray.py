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
# # Archives with plain xarray
#
# A run that is given an output writes one NetCDF4 file. Nothing but xarray is needed to read it: every variable says what it is,
# curves stand beside the table of single U-Turns that they are computed from, and the attributes hold the whole experiment. This
# notebook takes such a file apart.

# %%
# %matplotlib inline
# %config InlineBackend.figure_formats = ["retina"]
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import netCDF4
import numpy as np
import pandas as pd
import seaborn as sns
import xarray as xr
import yaml

import gaussian_test as gt

sns.set_theme(context="paper", style="ticks", palette="colorblind")

# %% tags=["parameters"]
SAMPLES = 256  # ground-truth samples to start from
REPEATS = 2  # U-Turns of each sample at each turn time
TURN_TIMES = 16  # noise levels at which to turn
STEPS = (16, 64)  # reverse steps of the sweep

# %% [markdown]
# ## A run
#
# Two seeds of the same experiment, into a folder that is removed at the end.

# %%
scratch = tempfile.TemporaryDirectory()
folder = Path(scratch.name)
settings = {
    "scores": [{"kind": "empirical"}, {"kind": "gaussian"}],
    "turn_times": {"noise_to_signal": {"min": 0.1, "max": 20, "count": TURN_TIMES}},
    "samples": SAMPLES,
    "repeats": REPEATS,
    "observables": "none",
}
for seed in (0, 1):
    gt.run({**settings, "seed": seed}, folder / f"seed_{seed}.nc")
print(*(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB" for path in sorted(folder.glob("*.nc"))), sep="\n")

# %% [markdown]
# ## Open it
#
# `xr.open_dataset` opens the root group. Curves are over `(score, turn_time)`, times over `score`, the sample table over
# `(score, turn_time, sample, repeat)`. (`gt.open_archive` does the same and compares the file's checksum first.)

# %%
result = xr.open_dataset(folder / "seed_0.nc")
print(dict(result.sizes), f"{len(result.data_vars)} variables")
result[["autocorrelation", "autocorrelation_se", "gap", "memorization_noise_to_signal", "sample_autocorrelation"]]

# %% [markdown]
# Every variable explains itself, and an undefined time says why:

# %%
for name in ("gap", "sample_autocorrelation", "affine_noise_to_signal"):
    print(name, {key: result[name].attrs[key] for key in ("long_name", "units", "comment", "reason") if key in result[name].attrs})

# %% [markdown]
# The attributes say where it came from: the whole experiment, as it can be run again, seed, digests of data and scores, versions.

# %%
experiment = yaml.safe_load(result.attrs["experiment"])
print({key: experiment[key] for key in ("samples", "repeats", "seed", "reverse")})
print(result.attrs["data_digest"][:16], result.attrs["versions"])

# %% [markdown]
# Other groups hold what has other dimensions: the moments of the data, the pictures.

# %%
with netCDF4.Dataset(folder / "seed_0.nc") as file:
    groups = list(file.groups)
print(groups)
with xr.open_dataset(folder / "seed_0.nc", group="moments") as moments:
    eigenvalues = moments.eigenvalue.values
print(f"{len(eigenvalues)} eigenvalues of the covariance, the largest {eigenvalues.max():.3f}, their sum {eigenvalues.sum():.3f}")

# %% [markdown]
# ## Recompute a curve
#
# $C(T)$ is the mean of the table over repeats and samples. Its standard error is that of a mean over *samples*: repeats of one
# sample are not independent of each other, so they are averaged first.

# %%
by_sample = result.sample_autocorrelation.mean("repeat")
curve = by_sample.mean("sample")
standard_error = by_sample.std("sample", ddof=1) / np.sqrt(SAMPLES)
print(f"largest difference from the archive: curve {float(abs(curve - result.autocorrelation).max()):.1e}", end=", ")
print(f"standard error {float(abs(standard_error - result.autocorrelation_se).max()):.1e}")

# %% [markdown]
# ## Recompute its band
#
# The band is simultaneous over the turn times: a bootstrap resamples the samples, and its width is the quantile of the largest
# studentised deviation anywhere on the curve. Settings and seed of the bootstrap are in the archive, so that the very band comes
# out.

# %%
statistics = experiment["statistics"]
resample = gt.analysis.ClusterBootstrap(SAMPLES, statistics["bootstrap"], statistics["confidence"], experiment["seed"])
score = "empirical"
band = resample.band(by_sample.sel(score=score).transpose("sample", "turn_time").values)
row = result.sel(score=score)
print(f"lower edge {np.abs(band.low - row.autocorrelation_low.values).max():.1e}", end=", ")
print(f"upper edge {np.abs(band.high - row.autocorrelation_high.values).max():.1e}")
width = float(((row.autocorrelation_high - row.autocorrelation) / row.autocorrelation_se).mean())
print(f"the band is {width:.2f} standard errors wide to each side; a pointwise one would be 1.96")

# %% [markdown]
# The closed form of the Gaussian needs nothing but the eigenvalues:
# $C_G=\sum_i\lambda_i\frac{\lambda_i}{\lambda_i+\nu^2}\big/\sum_i\lambda_i$.

# %%
nu = result.noise_to_signal.values
closed = (eigenvalues**2 / (eigenvalues + nu[:, None] ** 2)).sum(1) / eigenvalues.sum()
print(f"{np.abs(closed - result.autocorrelation_exact.sel(score='gaussian').values).max():.1e}")

# %% [markdown]
# ## Select
#
# By the name of a score; by a turn time near a value; by noise-to-signal ratio, once that is the index; by a condition on the
# samples.

# %%
near_one = result.swap_dims(turn_time="noise_to_signal").sel(noise_to_signal=1, method="nearest")
for name in result.score.values:
    print(f"{name}: C = {float(near_one.autocorrelation.sel(score=name)):.3f} at nu = {float(near_one.noise_to_signal):.3f}")
eights = result.sample_autocorrelation.sel(score="empirical").where(result.label == 8, drop=True)
there = eights.sel(turn_time=near_one.turn_time).mean()
print(f"{eights.sizes['sample']} of the starts are eights, with C = {float(there):.3f} there")

# %% [markdown]
# ## Combine two archives
#
# Two seeds start from other samples with other noise. Along a new dimension `run` their curves stand side by side; the weighted
# mean is more precise than either.

# %%
paths = sorted(folder.glob("seed_*.nc"))
curves = ["autocorrelation", "autocorrelation_se", "gap", "gap_se", "noise_to_signal"]
opened = [xr.open_dataset(path) for path in paths]
both = xr.concat([one[curves] for one in opened], xr.Variable("run", [path.stem for path in paths]), data_vars="all")
weight = 1 / both.gap_se.sel(score="empirical") ** 2
pooled = (both.gap.sel(score="empirical") * weight).sum("run") / weight.sum("run")
pooled_error = weight.sum("run") ** -0.5
at = int(pooled.argmax("turn_time"))
for run in both.run.values:
    there = both.sel(run=run, score="empirical").isel(turn_time=at)
    print(f"{run}: gap {float(there.gap):.4f} +- {float(there.gap_se):.4f}")
print(f"pooled: gap {float(pooled[at]):.4f} +- {float(pooled_error[at]):.4f}, at nu = {nu[at]:.2f}")

# %% [markdown]
# ## A check: do the two seeds agree?
#
# Two independent runs differ by chance alone, so that their difference in units of its standard error,
# $z=(\Delta_1-\Delta_0)/\sqrt{s_0^2+s_1^2}$, is about a standard normal number at each turn time. (Values at neighbouring turn
# times are correlated: they share samples and noise.)

# %%
difference = both.gap.sel(score="empirical").diff("run").squeeze("run")
error = np.sqrt((both.gap_se.sel(score="empirical") ** 2).sum("run"))
z = difference / error
print("z at every turn time:", " ".join(f"{float(value):+.1f}" for value in z))
print(f"root mean square {float((z**2).mean() ** 0.5):.2f}, largest {float(abs(z).max()):.1f}")

# %% [markdown]
# ## A sweep along `run`
#
# `gt.run_sweep` runs every combination of some keys into a folder, `gt.open_sweep` opens the folder as one dataset along `run`,
# read when it is looked at. The value of each key is a coordinate.

# %%
sweep = {
    **settings,
    "repeats": 1,
    "scores": [{"kind": "network", "micro_batch": 512}, {"kind": "gaussian"}],
    "samples": SAMPLES // 2,
    "sweep": {"reverse.kind": ["sde", "heun"], "reverse.steps": list(STEPS)},
}
gt.run_sweep(sweep, folder / "sweep")
runs = gt.open_sweep(folder / "sweep")
runs[["autocorrelation"]]

# %%
figure, axis = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
colours = dict(zip(("sde", "heun"), sns.color_palette("colorblind", 2), strict=True))
lines = dict(zip((str(steps) for steps in STEPS), (":", "-"), strict=True))
for run in runs.run.values:
    one = runs.sel(run=run, score="network")
    kind, steps = str(one["reverse.kind"].item()), str(one["reverse.steps"].item())
    axis.plot(one.noise_to_signal, one.autocorrelation, lines[steps], color=colours[kind], label=f"{kind}, {steps} steps")
axis.set(xscale="log", xlabel=r"noise-to-signal ratio at the turn, $\nu_T$", ylabel="auto-correlation of the network, $C(T)$")
axis.legend(frameon=False)
sns.despine(figure)

# %%
at = int(np.abs(nu - 1).argmin())
finest = runs.sel(run=runs["reverse.steps"] == str(STEPS[-1]), score="network").isel(turn_time=at)
for kind, value in zip(finest["reverse.kind"].values, finest.autocorrelation.values, strict=True):
    print(f"{kind}, {STEPS[-1]} steps: C = {value:.3f} at nu = {nu[at]:.2f}")

# %% [markdown]
# The probability-flow ODE (`heun`) adds no noise on the way back, so it keeps more of the start than the SDE does: that is
# another auto-correlation and no error. Both have a closed form for the Gaussian.

# %% [markdown]
# ## To pandas and CSV
#
# Any selection is a table. `to_dataframe` makes the dimensions an index, `to_csv` writes it.

# %%
frame = result[["autocorrelation", "autocorrelation_low", "autocorrelation_high", "gap"]].to_dataframe().reset_index()
frame = frame[["score", "noise_to_signal", "autocorrelation", "autocorrelation_low", "autocorrelation_high", "gap"]]
frame.to_csv(folder / "curves.csv", index=False)
read = pd.read_csv(folder / "curves.csv")
print(f"read back equal: {np.array_equal(read.select_dtypes('number'), frame.select_dtypes('number'))}")
read.head()

# %%
for dataset in (result, runs, *opened):
    dataset.close()
scratch.cleanup()
