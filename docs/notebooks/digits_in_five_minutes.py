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
# # The digits in five minutes
#
# A *U-Turn* noises a sample $x_0$ up to a turn time $T$, $x_T = \alpha_T x_0 + \sigma_T z$, and runs the reverse diffusion back
# to 0, where it ends at some $\tilde x_0$. How much of $x_0$ is left in $\tilde x_0$ is measured by the auto-correlation
#
# $$C(T) = \frac{\mathbb E\,(x_0-\mu)\cdot(\tilde x_0-\mu)}{\mathrm{tr}\,\Sigma},$$
#
# with the mean $\mu$ and the covariance $\Sigma$ of the data. It is 1 where nothing is forgotten and 0 where everything is.
#
# The **Gaussian Test** holds $C(T)$ against the auto-correlation of the affine score, the one of a Gaussian with the same $\mu$
# and $\Sigma$. That one is known in closed form, whatever the data:
#
# $$C_G(T) = \sum_i \lambda_i\,\frac{\lambda_i}{\lambda_i+\nu_T^2}\Big/\sum_i\lambda_i,$$
#
# with the eigenvalues $\lambda_i$ of $\Sigma$ and the noise-to-signal ratio $\nu_T=\sigma_T/\alpha_T$.

# %%
# %matplotlib inline
# %config InlineBackend.figure_formats = ["retina"]
import matplotlib.pyplot as plt
import numpy as np

import gaussian_test as gt

# %% tags=["parameters"]
SAMPLES = 512  # ground-truth samples to start from, of 1797
TURN_TIMES = 24  # noise levels at which to turn
SEED = 0

# %% [markdown]
# ## The data
#
# The handwritten digits of scikit-learn come with it: 8 x 8 pixels, scaled to $[-1, 1]$ as pictures of whole
# numbers are. Any other data has the same form: a variable `x` with samples first, and `label` where there are classes.

# %%
truth = gt.data.load("digits").load()
truth

# %%
figure, axes = plt.subplots(1, 10, figsize=(6.4, 0.9), layout="constrained")
for axis, picture, label in zip(axes, truth.x.values[:10, 0], truth.label.values[:10], strict=True):
    axis.imshow(picture, cmap="gray_r", vmin=-1, vmax=1)
    axis.set_title(f"{label}", fontsize=9)
    axis.set_axis_off()

# %% [markdown]
# ## The run
#
# Two scores are run. The *empirical* score is the exact score of the samples themselves: $D(x, T) = \mathbb E[x_0\mid x_T=x]$ is
# a weighted mean of all samples, and the reverse diffusion can be drawn without time steps. The *gaussian* score knows $\mu$ and
# $\Sigma$ alone. Every key of an experiment that is not given is its default.

# %%
experiment = gt.Experiment.load(
    {
        "data": {"source": "digits"},
        "scores": [{"kind": "empirical"}, {"kind": "gaussian"}],
        "turn_times": {"noise_to_signal": {"min": 0.1, "max": 20, "count": TURN_TIMES}},
        "samples": SAMPLES,
        "seed": SEED,
    }
)
result = gt.run(experiment)

# %% [markdown]
# ## The three times
#
# The result is one xarray dataset. Three times are read off the curves, as noise-to-signal ratios, with 95 % intervals:
#
# - the **memorization time** $T_m$: beyond it, less than half of the U-Turns end nearest to the sample that they started from;
# - the **speciation time** $T_s$: beyond it, the class of the start is kept in less than half of the U-Turns, chance taken off;
# - the **affine time** $T_G$: beyond it, $|C - C_G|$ stays below the tolerance of 0.02, so that the score acts like the affine
#   one.
#
# The predictions come from the data's spectrum and third cumulant alone, before anything is simulated.

# %%
row = result.sel(score="empirical")
for name in ("memorization", "speciation", "affine"):
    value, low, high, predicted = (float(row[f"{name}_noise_to_signal{end}"]) for end in ("", "_low", "_high", "_predicted"))
    print(f"{name:>12}: {value:.3g} [{low:.3g}, {high:.3g}], predicted {predicted:.3g}")

# %% [markdown]
# ## The figure
#
# Points are simulated U-Turns with their simultaneous 95 % bands, the black line is the closed form $C_G$. At small noise the
# exact score remembers more than the Gaussian, since it knows every sample. At large noise the two are one.

# %%
figures = result.gaussian_test.plot()
figures["autocorrelation"]

# %% [markdown]
# ## The gap
#
# $\Delta(T) = C(T) - C_G(T)$ is not just a difference of two curves. For the exact score it is the mean squared distance of the
# two posterior means,
#
# $$\Delta(T) = \frac{\mathbb E\,\|D(x_T,T) - D_G(x_T,T)\|^2}{\mathrm{tr}\,\Sigma} \ge 0,$$
#
# which vanishes exactly where the score is affine.

# %%
figures["gap"]

# %%
at = int(row.gap.argmax("turn_time"))
print(
    f"largest gap: {float(row.gap[at]):.3f} +- {float(row.gap_se[at]):.3f} at noise-to-signal {float(row.noise_to_signal[at]):.3g}"
)
print(f"p-value of no gap at all: {float(row.gap_pvalue.min()):.2g}")

# %% [markdown]
# Both sides of that identity are measured, from different things: the left one from what $D$ has in common with the start $x_0$,
# the right one from the distance of the two scores. So they can be held against each other, sample by sample (the left side then
# without the control variate that `gap` has). With $z$ the difference in units of its standard error, an exact score has $|z|$ of
# order one at each turn time.

# %%
distance = row.sample_denoiser_gap.mean(("sample", "repeat"))
product = row.sample_autocorrelation_one_shot - row.sample_autocorrelation_gaussian  # (x0-mu).(D-D_G)/tr(Sigma) of each U-Turn
difference = (product - row.sample_denoiser_gap).mean("repeat")
standard_error = difference.std("sample", ddof=1) / np.sqrt(difference.sizes["sample"])
z = (difference.mean("sample") / standard_error).where(standard_error > 1e-9)
print("   nu   gap   |D-D_G|^2/tr    z of the difference")
for index in range(0, TURN_TIMES, max(TURN_TIMES // 8, 1)):
    nu, left, right = (float(values[index]) for values in (row.noise_to_signal, row.gap, distance))
    print(f"{nu:5.2f}  {left:5.3f}  {right:5.3f}          {float(z[index]):+.1f}")
print(f"largest |z| of {int(z.notnull().sum())} turn times: {float(abs(z).max()):.1f}")

# %% [markdown]
# ## What it means
#
# The area under the gap is a distance too, from the noised data to the Gaussian with their mean and covariance (I-MMSE, with
# $\gamma=1/\nu^2$):
#
# $$\mathrm{KL}(p_T\,\|\,\mathcal N_T) = \tfrac12\,\mathrm{tr}\,\Sigma\int_0^{1/\nu_T^2}\Delta\;d\gamma.$$
#
# It says in nats how far the noised data are from a Gaussian when the reverse diffusion passes each of the three times.

# %%
divergence = result.kl_from_gaussian
for name in ("memorization", "speciation", "affine"):
    nu = float(row[f"{name}_noise_to_signal"])
    nats = np.exp(np.interp(np.log(nu), np.log(divergence.noise_to_signal), np.log(divergence)))
    print(f"at the {name} time, noise-to-signal {nu:.3g}: {nats:.2g} nats")

# %% [markdown]
# So, from large noise down: as long as the noise is above $T_G$ the score is that of a Gaussian to within the tolerance, and no
# learned network is needed for this part of the reverse diffusion. Between $T_G$ and $T_s$ it is not Gaussian any more, but the
# class is still open. Below $T_s$ the class is settled, and below $T_m$ so is the sample itself.
#
# `print(result.gaussian_test.show())` prints all of this as tables, `result.gaussian_test.plot("figures")` writes all figures as
# PNG (`pdf=True`: as PDF as well), and `gt.run(experiment, "run.nc")` keeps the result as an archive. On the command line it is
# `gaussian-test run -o run.nc --plot figures`.
