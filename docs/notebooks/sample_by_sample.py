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
# # Sample by sample
#
# The memorization time of a data set is read off a mean over samples. But does each sample forget at that time? Here the same
# U-Turn is repeated many times from the *same* start, with fresh noise, so that every sample gets curves and times of its own:
#
# $$m_n(T) = P\big(\text{the sample nearest to }\tilde x_0\text{ is }n\;\big|\;x_0 = x^{(n)}\big).$$
#
# If all $m_n$ were alike, the mean curve would be *self-averaging*: a single sample, repeated, would show it.

# %%
# %matplotlib inline
# %config InlineBackend.figure_formats = ["retina"]
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from scipy.spatial.distance import cdist
from scipy.stats import spearmanr

import gaussian_test as gt

sns.set_theme(context="paper", style="ticks", palette="colorblind")

# %% tags=["parameters"]
SAMPLES = 200  # ground-truth samples to start from
REPEATS = 16  # U-Turns of each sample at each turn time
TURN_TIMES = 24  # noise levels at which to turn
SEED = 0

# %% [markdown]
# ## The sample table
#
# The exact score of the samples is reversed without time steps, so that repeats are cheap. All end points of the first repeat are
# kept as pictures.

# %%
result = gt.run(
    {
        "scores": [{"kind": "empirical"}],
        "turn_times": {"noise_to_signal": {"min": 0.2, "max": 10, "count": TURN_TIMES}},
        "samples": SAMPLES,
        "repeats": REPEATS,
        "seed": SEED,
        "observables": "none",
        "keep": {"pictures": SAMPLES},
    }
)
row = result.sel(score="empirical")
table = row[["sample_autocorrelation", "nearest_sample", "nearest_distance", "label_after"]]
table

# %% [markdown]
# Each U-Turn is one entry over `(turn_time, sample, repeat)`, and everything else can be recomputed from these. `nearest_sample`
# is the number of the ground-truth sample next to the end point, `label_after` the class that it is put into.

# %%
remembered = row.nearest_sample == row.sample
kept = row.label_after == row.label
nu = row.noise_to_signal.values

# %% [markdown]
# ## Early and late forgetters
#
# The share of a sample's repeats that are remembered falls from 1 to 0. Its time is where that share, made monotone, falls
# through one half: `sample_memorization_noise_to_signal`. It is 0 for a sample that forgets before the smallest turn time, and
# infinite for one that does not forget up to the largest.

# %%
times = row.sample_memorization_noise_to_signal
inside = np.isfinite(times.values) & (times.values > 0)
order = np.argsort(times.values)
order = order[inside[order]]
early, late = order[0], order[-1]
quartiles = np.quantile(times.values[inside], [0.25, 0.5, 0.75])
print(f"{inside.sum()} of {len(times)} samples have a time within the turn times")
print(f"earliest {float(times[early]):.2f}, quartiles {', '.join(f'{q:.2f}' for q in quartiles)}, latest {float(times[late]):.2f}")
print(f"of the whole set: {float(row.memorization_noise_to_signal):.2f}, of one mean curve over all samples")

# %%
blue, orange, green = sns.color_palette("colorblind", 3)
figure, axis = plt.subplots(figsize=(6.4, 3.0), layout="constrained")
own = remembered.mean("repeat")
axis.plot(nu, own.isel(sample=slice(0, 40)).transpose("turn_time", "sample"), color="0.75", linewidth=0.6)
axis.plot(nu, own.mean("sample"), color="black", linewidth=2, label="mean over samples")
axis.plot(nu, own.isel(sample=early), "o-", color=orange, markersize=4, linewidth=1, label=f"earliest, a {int(row.label[early])}")
axis.plot(nu, own.isel(sample=late), "s-", color=blue, markersize=4, linewidth=1, label=f"latest, a {int(row.label[late])}")
axis.set(xscale="log", xlabel=r"noise-to-signal ratio at the turn, $\nu_T$", ylabel="share of repeats remembered")
axis.set_xticks([0.2, 0.5, 1, 2, 5, 10], ["0.2", "0.5", "1", "2", "5", "10"])
axis.legend(frameon=True, framealpha=0.9, edgecolor="none")
sns.despine(figure)

# %% [markdown]
# Grey are single samples. They fall at places of their own, so that no one of them stands for all. How much of the breadth of the
# mean curve comes from that, and how much from the noise, is the next question.

# %% [markdown]
# ## Is it self-averaging?
#
# The variance of the $\log\nu$ at which a U-Turn is lost has two parts: between samples and, over the repeats, within a sample.
# Their ratio would be 0 if all samples were alike. From it follows the share of all variance that is the sample's own, ratio /
# (1 + ratio).

# %%
for name in ("memorization", "speciation"):
    ratio, low, high = (float(row[f"{name}_self_averaging{end}"]) for end in ("", "_low", "_high"))
    share = ratio / (1 + ratio)
    print(f"{name:>12}: between / within samples = {ratio:.2f} [{low:.2f}, {high:.2f}], the sample's own share {share:.0%}")

# %% [markdown]
# Both intervals exclude 0: samples do differ. Yet most of the spread of a single U-Turn comes from its noise, and for speciation
# even more than for memorization. So one U-Turn of a sample says little about that sample; sixteen say something.

# %% [markdown]
# ## What makes a sample forget late?
#
# To forget, the end point has to come out as another sample, so the first thing to look at is how far away the others are. The
# distance to the nearest neighbour is a property of the data alone.

# %%
truth = gt.data.load("digits").load()
flat = truth.x.values.reshape(truth.sizes["sample"], -1)
distances = cdist(flat[row.sample.values], flat)
distances[np.arange(len(distances)), row.sample.values] = np.inf  # not to itself
neighbour = distances.min(1)
correlation = spearmanr(neighbour[inside], times.values[inside])
print(f"rank correlation of time and distance to the nearest neighbour: {correlation.statistic:.2f} (p = {correlation.pvalue:.1g})")

# %%
figure, axis = plt.subplots(figsize=(6.4, 3.0), layout="constrained")
axis.plot(neighbour[inside], times.values[inside], "o", color=blue, markersize=3.5, alpha=0.7)
axis.set(xlabel="distance to the nearest neighbour (data units)", ylabel=r"memorization time of the sample, $\nu$")
sns.despine(figure)

# %% [markdown]
# ## Classes
#
# The same for the classes of the digits: when does a start of each class become another sample, and when does it change its
# class? Intervals are 95 %, from the starts of the class alone.

# %%
figure, axis = plt.subplots(figsize=(6.4, 3.0), layout="constrained")
for shift, colour, marker, name in ((-0.12, blue, "o", "memorization"), (0.12, orange, "s", "speciation")):
    value, low, high = (row[f"{name}_noise_to_signal_by_class{end}"].values for end in ("", "_low", "_high"))
    low, high = np.clip(low, nu[0], nu[-1]), np.clip(high, nu[0], nu[-1])
    found = np.isfinite(value) & (value > 0)
    error = np.array([value - low, high - value])[:, found]
    style = {"color": colour, "marker": marker, "linestyle": "none", "markersize": 4, "elinewidth": 1}
    axis.errorbar(row["class"].values[found] + shift, value[found], error, label=name, **style)
axis.set(xlabel="class of the start", ylabel=r"time, noise-to-signal ratio $\nu$")
axis.set_xticks(range(10))
figure.legend(loc="outside upper center", frameon=False, ncols=2)
sns.despine(figure)

# %%
for name in ("memorization", "speciation"):
    of_class = row[f"{name}_noise_to_signal_by_class"]
    of_class = of_class[np.isfinite(of_class.values)]
    first, last = int(of_class["class"][of_class.argmin("class")]), int(of_class["class"][of_class.argmax("class")])
    print(f"{name:>12}: first the {first} at {float(of_class.min()):.2f}, last the {last} at {float(of_class.max()):.2f}")

# %% [markdown]
# ## Pictures
#
# U-Turns of two early and two late forgetters, with the same noise at all turn times. Left of each row stands the start. A frame
# is green where the end point is the start itself, orange where it is another sample of the same class, and black where the class
# has changed.

# %%
pictures = result.gaussian_test.group("pictures").sel(score="empirical")
shown = np.linspace(0, len(nu) - 1, min(9, len(nu))).astype(int)
rows = [*order[:2], *order[-2:][::-1]]
figure, axes = plt.subplots(len(rows), len(shown) + 1, figsize=(6.4, 3.0), layout="constrained")
axes[0, 0].set_title("start", fontsize=8)
for line, sample in zip(axes, rows, strict=True):
    ends = pictures.end.isel(sample=sample, turn_time=shown).values[:, 0]
    for axis, picture in zip(line, [pictures.start.isel(sample=sample).values[0], *ends], strict=True):
        axis.imshow(picture, cmap="gray_r", vmin=-1, vmax=1)
        axis.set(xticks=[], yticks=[])
    for axis, turn in zip(line[1:], shown, strict=True):
        same, of_class = (bool(what.isel(turn_time=turn, sample=sample, repeat=0)) for what in (remembered, kept))
        for spine in axis.spines.values():
            spine.set(color=green if same else orange if of_class else "black", linewidth=2)
        if sample == rows[0]:
            axis.set_title(rf"$\nu={nu[turn]:.2g}$", fontsize=8)
    line[0].set_ylabel("early" if sample in order[:2] else "late", fontsize=8)

# %% [markdown]
# ## A check: are these times of the samples, or luck?
#
# If the differences between samples were those of 16 random repeats, times from one half of the repeats would say nothing about
# times from the other half. So the table is cut into halves, the times are recomputed from each, and the two are correlated. The
# error of a correlation $r$ is taken by Fisher's $\operatorname{artanh} r \pm 1/\sqrt{n-3}$.

# %%
outcomes = remembered.transpose("turn_time", "sample", "repeat").values
halves = [gt.analysis.sample_time(outcomes[:, :, half::2], nu, level=0.5) for half in (0, 1)]
both = np.all([np.isfinite(half) & (half > 0) for half in halves], axis=0)
r = float(np.corrcoef(*(np.log(half[both]) for half in halves))[0, 1])
z = np.arctanh(r) * np.sqrt(both.sum() - 3)
print(f"correlation of log-times from odd and even repeats: {r:.3f}, {z:.1f} standard errors from none ({both.sum()} samples)")
recomputed = gt.analysis.sample_time(outcomes, nu, level=0.5)
print(f"times recomputed from the table equal the archive's: {np.array_equal(recomputed, times.values)}")

# %% [markdown]
# So the time at which a digit is forgotten is to some part its own, and the part is measured. $T_m$ of a data set is where half
# of *all* U-Turns are forgotten; samples far from their neighbours are still remembered there, and samples with a close neighbour
# have long been forgotten.
