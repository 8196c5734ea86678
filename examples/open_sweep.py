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
# # Open a sweep
#
# The runs of `sweep.yaml`, looked at as one dataset along `run`. Open this file as a notebook
# (`jupytext --to ipynb open_sweep.py`, or with the jupytext extension of JupyterLab), in the folder where `runs` lies.

# %%
# %matplotlib inline
# %config InlineBackend.figure_formats = ["retina"]
from pathlib import Path

import matplotlib.pyplot as plt
import seaborn as sns

import gaussian_test as gt

sns.set_theme(context="paper", style="ticks", palette="colorblind")

# %% tags=["parameters"]
FOLDER = "runs"  # where the sweep went

# %% [markdown]
# What has become of the runs, and what there is of them. Values are read when they are looked at.

# %%
for run in gt.status(FOLDER):
    print(f"{run.name}: {run.state}")
runs = gt.open_sweep(FOLDER)
runs[["autocorrelation", "memorization_noise_to_signal"]]

# %% [markdown]
# The value of each key of the sweep is a coordinate of `run`, so runs are selected by what was set in them.

# %%
frame = runs[["memorization_noise_to_signal", "speciation_noise_to_signal", "affine_noise_to_signal"]].to_dataframe()
frame = frame.dropna(how="all", subset=[name for name in frame if name.endswith("_noise_to_signal")])
frame.reset_index(level="score")[["reverse.kind", "reverse.steps", "score", *(n for n in frame if n.endswith("_noise_to_signal"))]]

# %% [markdown]
# A panel for each score, a colour for each kernel, a line for each number of steps.

# %%
scores = [str(score) for score in runs.score.values]
colours = dict(zip(sorted(set(runs["reverse.kind"].values)), sns.color_palette("colorblind"), strict=False))
lines = dict(zip(sorted(set(runs["reverse.steps"].values), key=int), (":", "-", "--", "-."), strict=False))
figure, axes = plt.subplots(1, len(scores), figsize=(6.4, 3.0), sharey=True, squeeze=False, layout="constrained")
for axis, score in zip(axes[0], scores, strict=True):
    for run in runs.run.values:
        one = runs.sel(run=run, score=score)
        if one.autocorrelation.notnull().any():  # a run has the scores that were asked of it
            kind, steps = str(one["reverse.kind"].item()), str(one["reverse.steps"].item())
            axis.plot(one.noise_to_signal, one.autocorrelation, lines[steps], color=colours[kind], label=f"{kind}, {steps} steps")
    axis.set(xscale="log", title=score, xlabel=r"noise-to-signal ratio at the turn, $\nu_T$")
axes[0, 0].set_ylabel("U-Turn auto-correlation $C(T)$")
axes[0, -1].legend(frameon=False)
sns.despine(figure)

# %% [markdown]
# Two runs that share samples and noise are compared in pairs, with a band for their difference.

# %%
first, *_, last = (str(run) for run in runs.run.values if "network" in str(run))
folder = Path(FOLDER)
comparison = gt.compare(gt.open_archive(folder / f"{first}.nc"), gt.open_archive(folder / f"{last}.nc"))
difference = comparison.sel(score="network")
at = int(abs(difference.autocorrelation_difference).argmax("noise_to_signal"))
value, low, high = (float(difference[f"autocorrelation_difference{end}"][at]) for end in ("", "_low", "_high"))
print(f"{last} less {first}:")
print(f"C differs by up to {value:+.3f} [{low:+.3f}, {high:+.3f}], at nu = {float(difference.noise_to_signal[at]):.2f}")

# %%
runs.close()
