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
# # Which sampler, how many steps?
#
# A reverse run in steps makes two errors: the score's and the integrator's. On the Gaussian of the data the second one is known
# *exactly*, without a run. There every step of every kernel is affine in the state,
#
# $$x_s = a\,x_t + b\,z + c \quad\text{mode by mode},$$
#
# so that mean $m_i$ and variance $v_i$ of the end points follow through the very steps that a simulation takes. Their distance
# from the Gaussian that they should be drawn from is
#
# $$W_2^2 = \sum_i (m_i-\mu_i)^2 + \sum_i\big(\sqrt{v_i}-\sqrt{\lambda_i}\big)^2.$$

# %%
# %matplotlib inline
# %config InlineBackend.figure_formats = ["retina"]
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

import gaussian_test as gt
from gaussian_test.analysis.figures.overview import sampler_figure

sns.set_theme(context="paper", style="ticks", palette="colorblind")

# %% tags=["parameters"]
SAMPLES = 1024  # ground-truth samples to start from
STEPS = (4, 8, 16, 32, 64, 128, 256)  # of the study
SIMULATED_STEPS = 12  # of the simulated U-Turns
DOUBLED = (8, 16, 32, 64, 128)  # of the runs with a score that is not affine
SEED = 0

# %% [markdown]
# ## The study
#
# `gt.samplers` computes it for all kernels, here on the mean and covariance of the digits, from the largest turn time. Kernels
# are to be compared at equal numbers of *evaluations* of the score, since that is what they cost.

# %%
study = gt.samplers(gt.Experiment(), STEPS)
study

# %%
sampler_figure(study)

# %% [markdown]
# ## At equal cost
#
# The best kernel for a budget of evaluations, by the distance of its end points in units of $\sqrt{\mathrm{tr}\,\Sigma}$:

# %%
for budget in (8, 32, 128, 512):
    affordable = study.wasserstein_relative.where(study.evaluations <= budget)
    best = affordable.min("steps").to_series().dropna().sort_values()
    print(f"{budget:4d} evaluations: " + ", ".join(f"{kernel} {value:.2g}" for kernel, value in best.head(3).items()))

# %% [markdown]
# How fast the error falls with the number of steps $K$ is the order $p$ of the kernel, $W_2\sim K^{-p}$. Measured at each
# doubling of the steps:

# %%
print(f"{'steps':>16} " + " ".join(f"{f'{a}-{b}':>8}" for a, b in pairwise(STEPS)))
for kernel in study.kernel.values:
    distance = study.wasserstein.sel(kernel=kernel).values
    orders = np.log(distance[:-1] / distance[1:]) / np.log(np.divide(STEPS[1:], STEPS[:-1]))
    print(f"{kernel:>16} " + " ".join(f"{order:8.2f}" for order in orders))

# %% [markdown]
# Few steps tell nothing of the order yet. Then Heun's method has order 2 and the others order 1, until an error is as small as
# that of the last step, from the process's smallest level to 0, which is the same on all grids: there Heun's order drops. The
# kernel `edm` is Heun's with churn, whose total is spread over the steps: it has no one order.

# %% [markdown]
# ## Does a simulation show what was predicted?
#
# So far nothing was simulated. Now U-Turns are, with few steps, so that there is an error to see. gaussian_test draws U-Turns of
# its own Gaussian score from their law, without the steps, which would make this check a circle. Therefore the same affine
# function is handed in as a network of which nothing is known, `NetworkScore.from_callable`: all its steps are taken, one call of
# the function after the other.
#
# In the result `autocorrelation_exact` is the closed form in continuous time, and `autocorrelation_discrete` the one through the
# very steps. Their difference is the predicted error.

# %%
truth = gt.data.load("digits").load()
gauss = gt.analysis.GaussianScore.fit(truth.x)
affine = gt.sampler.NetworkScore.from_callable(lambda x, t, label: gauss.denoise(x, t), gauss.event_shape, micro_batch=1024)
kernels = {
    "sde": {"kind": "sde", "clock": "variance"},
    "sde, time clock": {"kind": "sde", "clock": "time"},
    "exponential_sde": {"kind": "exponential_sde"},
    "euler": {"kind": "euler"},
    "heun": {"kind": "heun"},
    "ancestral": {"kind": "ancestral"},
}
results = {}
for name, reverse in kernels.items():
    experiment = {
        "scores": [{"kind": "gaussian"}],
        "turn_times": {"noise_to_signal": [0.5, 1.0, 2.0, 5.0, 20.0]},
        "reverse": {**reverse, "steps": SIMULATED_STEPS},
        "samples": SAMPLES,
        "seed": SEED,
        "observables": "none",
        "keep": {"pictures": 0},
    }
    results[name] = gt.run(experiment, scores={"affine": affine})

# %% [markdown]
# `gap` of a simulated score is its $C$ less the Gaussian's closed form *through the same steps*, with the one-evaluation Gaussian
# on the same noised samples as control variate, which removes most of the scatter of the starts. The score is that Gaussian, so
# the gap has to be zero: all that the steps do wrong is in the closed form. `bias` is what would be left against the closed form
# in continuous time.

# %%
print("                     nu   predicted bias   simulated bias            z")
worst = {}
for name, result in results.items():
    closed, simulated = result.sel(score="gaussian"), result.sel(score="affine")
    predicted = closed.autocorrelation_discrete - closed.autocorrelation_exact
    z = simulated.gap / simulated.gap_se
    worst[name] = float(abs(z).max())
    for index in (1, 2, 3):
        seen, error = float(predicted[index] + simulated.gap[index]), float(simulated.gap_se[index])
        nu = float(result.noise_to_signal[index])
        print(f"{name:>16}  {nu:5.1f}   {float(predicted[index]):+14.4f}   {seen:+.4f} +- {error:.4f}   {float(z[index]):+.1f}")
    p = float(simulated.gap_pvalue.min())
    print(f"{'':>16}  largest |z| of all turn times {worst[name]:.1f}, p of no difference {p:.2f}")

# %%
figure, axis = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
for index, (name, result) in enumerate(results.items()):
    closed, simulated = result.sel(score="gaussian"), result.sel(score="affine")
    predicted = closed.autocorrelation_discrete - closed.autocorrelation_exact
    colour = [*sns.color_palette("colorblind", 5), (0.0, 0.0, 0.0)][index]
    nu = result.noise_to_signal.values
    axis.plot(nu, predicted, color=colour, linewidth=1)
    shifted = nu * 1.03 ** (index - 2.5)  # beside each other
    error = 2 * simulated.gap_se
    style = {"color": colour, "marker": "osD^vP"[index], "markersize": 4, "linestyle": "none", "elinewidth": 1}
    axis.errorbar(shifted, predicted + simulated.gap, error, label=name, **style)
axis.set(xscale="log", xlabel=r"noise-to-signal ratio at the turn, $\nu_T$", ylabel=r"error of $C(T)$ by the steps")
axis.set_xticks([0.5, 1, 2, 5, 20], ["0.5", "1", "2", "5", "20"])
axis.minorticks_off()
axis.legend(frameon=False, ncols=2)
axis.set_title(f"{SIMULATED_STEPS} steps: closed form (lines), simulation (points, 2 standard errors)", fontsize=9)
sns.despine(figure)

# %% [markdown]
# The points lie on the lines. So a simulated curve should be held against the closed form through its own steps, as `gap` does,
# and not against the one in continuous time: otherwise the integrator would be taken for the score.

# %% [markdown]
# ## Where the prediction ends
#
# All of this is exact for an affine score. Between the affine time and the memorization time a score is not affine, and there its
# own error has to be looked at. The SDE in the variance clock shows how far the two can be apart: for an affine score its
# auto-correlation is exact at *any* number of steps. For the empirical score it is not. The truth is known there too, from one
# evaluation, $C=\mathbb E\,(x_0-\mu)\cdot(D-\mu)/\mathrm{tr}\,\Sigma$ (`balance_simulated`):

# %%
print("steps   error of C at nu = 1.25, empirical score    affine score")
for steps in DOUBLED:
    result = gt.run(
        {
            "scores": [{"kind": "empirical"}, {"kind": "gaussian"}],
            "turn_times": {"noise_to_signal": [1.25]},
            "reverse": {"kind": "sde", "steps": steps},
            "samples": SAMPLES,
            "seed": SEED,
            "observables": "none",
            "keep": {"pictures": 0},
        }
    )
    row, closed = result.sel(score="empirical"), result.sel(score="gaussian")
    error = float(row.balance_simulated[0]), float(row.balance_simulated_se[0])
    known = float(closed.autocorrelation_discrete[0] - closed.autocorrelation_exact[0])
    print(f"{steps:5d}   {error[0]:+.4f} +- {error[1]:.4f}  ({error[0] / error[1]:+.1f} standard errors)       {known:+.1e}")

# %% [markdown]
# So the study tells which kernels and how few steps are already wrong on a Gaussian. Whether they are enough for a score that is
# not affine is told by doubling them until nothing changes beyond its standard error.
