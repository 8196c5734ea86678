"""Problems with a known truth, for measuring coverage, false positives and power of every interval and test.

Each is a function of a seed that returns which statements held: ``{name: covered}`` for intervals and bands,
``{name: p-value}`` for tests. ``calibration.py`` repeats them; the tests run a small version.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm

from gaussian_test import analysis, sampler
from gaussian_test.analysis.observables.affinity.regression import affine_features
from gaussian_test.analysis.observables.affinity.scores import affinity, score_norms
from gaussian_test.analysis.observables.chains.chains import (
    chain_autocorrelation_gaussian,
    chain_products,
    chain_table,
    integrated_time_gaussian,
)
from gaussian_test.analysis.observables.sample_table import SampleTable
from gaussian_test.analysis.observables.sample_times.times import class_times, self_averaging
from gaussian_test.analysis.statistics.bootstrap import with_control_variate
from gaussian_test.analysis.statistics.curves import share_time
from gaussian_test.analysis.theory.two_modes import TwoGaussians
from gaussian_test.analysis.uturn.reference import Reference

Array = NDArray[np.float64]
Outcome = dict[str, float]

DIMENSION, VARIANCE = 8, 0.25
NU = np.geomspace(0.4, 8, 8)
STARTS, RESAMPLES = 512, 1000  # as a run has by default; half of its resamples
TOLERANCE, SEPARATION = 0.02, 2.5


@dataclass(frozen=True)
class Problem:
    """A problem: what it is, what is done for a seed, and whether it states intervals or tests."""

    what: str
    run: Callable[[int], Outcome]
    kind: str  # "coverage", "few starts" or "false positives"


def two_gaussians(
    seed: int, separation: float, kernel: sampler.ReverseKernel, repeats: int = 1, starts: int = STARTS
) -> tuple[xr.Dataset, xr.Dataset]:
    """Run U-Turns of the exact score of two symmetric Gaussians and return table and result."""
    torch.set_num_threads(1)
    process = sampler.VarianceExploding()
    random = np.random.default_rng([seed, 1])
    labels = random.integers(0, 2, starts)
    mean = np.zeros((2, DIMENSION))
    mean[:, 0] = -separation, separation
    x0 = mean[labels] + math.sqrt(VARIANCE) * random.normal(size=(starts, DIMENSION))
    spectrum = np.full(DIMENSION, VARIANCE)
    spectrum[0] += separation**2
    moments = analysis.Moments(starts, np.zeros(DIMENSION), spectrum, np.eye(DIMENSION))
    score = sampler.MixtureScore.from_moments([1, 1], mean, np.tile(VARIANCE * np.eye(DIMENSION), (2, 1, 1)), dtype=torch.float64)
    gaussian = analysis.GaussianScore.from_moments(moments, process=process, dtype=torch.float64)
    centres = sampler.EmpiricalScore.fit(mean + [[-1e-9], [1e-9]] * np.eye(DIMENSION)[0], dtype=torch.float64)
    references = {
        "isotropic": analysis.isotropic_score(moments, process=process, dtype=torch.float64),
        "gaussian": gaussian,
        "mixture": score,
    }
    reference = Reference(centres, moments, gaussian, np.array([0, 1]), references, lambda x: (x[:, 0] > 0).long())
    turns = [process.turn_time_from_noise_to_signal(nu) for nu in NU]
    plan = sampler.UTurnPlan(process, turns, steps=12, repeats=repeats, seed=seed)
    start = torch.from_numpy(x0)
    samples = list(range(starts))
    table = SampleTable(plan, {"exact": score}, reference, start, samples, starts_are_samples=False, kept=samples)
    for state in plan.run(start, samples, {"exact": score}, {"exact": kernel}):
        table.observe(state)
    rows = table.to_dataset().assign_coords(noise_to_signal=("turn_time", NU))
    # a class of the start as the classifier sees it: the pair is exchangeable then
    rows["label"] = ("sample", (x0[:, 0] > 0).astype(np.int64))
    closed = analysis.autocorrelation_discrete(spectrum, process, kernel, plan.grid, plan.levels)
    facts = analysis.ScoreFacts(kernel="exact" if kernel.exact else "sde", reference=closed)
    truth = analysis.GroundTruth(starts, spectrum, 0.0, np.array([0.5, 0.5]), 1.0)
    statistics = analysis.Statistics(bootstrap=RESAMPLES, seed=seed, tolerance=TOLERANCE)
    result = analysis.gaussian_test(rows, truth, statistics=statistics, scores={"exact": facts})
    return rows.merge(table.kept_states()), result.assign_coords(noise_to_signal=("turn_time", NU))


@cache
def known() -> TwoGaussians:
    """Return the closed forms at the noise levels of the problem."""
    return analysis.two_gaussians(NU, separation=SEPARATION, variance=VARIANCE, dimension=DIMENSION)


def gaussian_curve(nu: Array, separation: float) -> Array:
    """Return the auto-correlation of the matched Gaussian."""
    spectrum = np.full(DIMENSION, VARIANCE)
    spectrum[0] += separation**2
    return analysis.autocorrelation_exact(spectrum, nu)


@cache
def known_times() -> tuple[float, float]:
    """Return where the class retention falls through one half, and where the gap falls through the tolerance for good."""

    def retention(log_nu: float) -> float:
        seen = analysis.two_gaussians([math.exp(log_nu)], separation=SEPARATION, variance=VARIANCE, dimension=DIMENSION)
        return float(seen.same_class[0] - 0.75)  # (share - 1/2)/(1/2) = 1/2

    def gap(log_nu: float) -> float:
        nu = np.array([math.exp(log_nu)])
        seen = analysis.two_gaussians(nu, separation=SEPARATION, variance=VARIANCE, dimension=DIMENSION)
        return float((seen.autocorrelation - gaussian_curve(nu, SEPARATION))[0] - TOLERANCE)

    return math.exp(brentq(retention, -0.9, 2)), math.exp(brentq(gap, 0.6, 2))


def covered(result: xr.Dataset, name: str, truth: Array | float) -> float:
    """Return whether a band of the result holds the truth everywhere."""
    low, high = result[f"{name}_low"].values, result[f"{name}_high"].values
    return float(((low <= truth + 1e-12) & (truth - 1e-12 <= high)).all())


@cache
def known_divergence() -> np.ndarray:
    """Return the divergence of the noised two Gaussians from their Gaussian: by quadrature along the line through both."""
    found = []
    for spread in np.sqrt(VARIANCE + NU**2):
        whole = norm(0, np.hypot(spread, SEPARATION))
        both = [norm(mean, spread) for mean in (-SEPARATION, SEPARATION)]

        def integrand(x: float, whole: Any = whole, both: Any = both) -> float:
            log_density = np.logaddexp(*(one.logpdf(x) for one in both)) - np.log(2)
            return float(np.exp(log_density) * (log_density - whole.logpdf(x)))

        found.append(quad(integrand, *(whole.std() * np.array([-12, 12])), limit=400)[0])
    return np.array(found)


def exact_turns(seed: int, starts: int = STARTS) -> Outcome:
    """Exact U-Turns of two Gaussians: every band and interval that has a closed form."""
    rows, result = two_gaussians(seed, SEPARATION, sampler.ExactReversal(), starts=starts)
    seen, trace = known(), DIMENSION * VARIANCE + SEPARATION**2
    gap = seen.autocorrelation - gaussian_curve(NU, SEPARATION)
    resample = analysis.ClusterBootstrap(starts, RESAMPLES, seed=seed)
    distances = affinity(rows["sample_score_square"], rows["sample_score_distance"], rows["sample_denoiser_gap"], resample)
    spectrum = np.full(DIMENSION, VARIANCE)
    spectrum[0] += SEPARATION**2
    norms = score_norms(
        rows["sample_score_norm"], rows["sample_score_square"], sampler.VarianceExploding(), spectrum, DIMENSION, resample
    )
    square = DIMENSION / NU**2 - seen.mmse / NU**4
    explained = 1 - gap * trace / NU**4 / square
    speciation, affine = known_times()
    held = {
        "auto-correlation, U-Turns": covered(result, "autocorrelation", seen.autocorrelation),
        "gap to the Gaussian": covered(result, "gap", gap),
        "class retention": covered(result, "class_retention", 2 * seen.same_class - 1),
        "variance of the end points": covered(result, "end_square", 1.0),
        "distance from the Gaussian": covered(distances, "denoiser_gap", gap),
        "share of the score explained": covered(distances.sel(reference="gaussian"), "score_explained", explained),
        "score norm, scaled": covered(norms, "score_square_scaled", NU**2 * square / DIMENSION),
        "divergence from the Gaussian": covered(result, "likelihood_gain", known_divergence()),
        "speciation time": covered(result, "speciation_noise_to_signal", speciation),
    }
    low, high = (result[f"affine_noise_to_signal_{end}"].item() for end in ("low", "high"))
    return held | {"affine time (simultaneous: at least 95 %)": float(low <= affine <= high)}


def few_turns(seed: int) -> Outcome:
    """Run the same with fewer starts than a run has by default."""
    return exact_turns(seed, 128)


def exact_turns_tests(seed: int) -> Outcome:
    """Exact U-Turns of two Gaussians, under which detailed balance holds: p-values of everything that should be zero."""
    rows, result = two_gaussians(seed, SEPARATION, sampler.ExactReversal())
    chosen = len(NU) // 2
    ends = rows["end"].isel(turn_time=[chosen]).rename(kept="sample")
    start = xr.DataArray(_starts(seed), dims=("sample", "feature"))
    after = rows["label_after"].isel(turn_time=[chosen])
    tests = analysis.exchange_tests(start, ends, rows["label"], after, draws=199, seed=seed)
    return {
        "balance of one evaluation": float(result["balance_squared_pvalue"].min()),
        "balance of U-Turns": float(result["balance_simulated_pvalue"].min()),
        "exchange: class transitions": tests["exchange_class_pvalue"].item(),
        "exchange: antisymmetric moments": tests["exchange_moments_pvalue"].item(),
        "exchange: energy distance": tests["exchange_energy_pvalue"].item(),
    }


def _starts(seed: int) -> Array:
    """Return the starts of :func:`two_gaussians` again."""
    random = np.random.default_rng([seed, 1])
    labels = random.integers(0, 2, STARTS)
    mean = np.zeros((2, DIMENSION))
    mean[:, 0] = -SEPARATION, SEPARATION
    return np.asarray(mean[labels] + math.sqrt(VARIANCE) * random.normal(size=(STARTS, DIMENSION)))


def simulated_turns_tests(seed: int) -> Outcome:
    """U-Turns of a Gaussian by samplers that draw noise, in 12 steps: the Gaussian Test on what is truly Gaussian."""
    _, result = two_gaussians(seed, 0.0, sampler.ReverseSDE(clock="variance"))
    _, churned = two_gaussians(seed, 0.0, sampler.EDMStochastic(steps=12, S_churn=20.0))
    return {
        "Gaussian Test, U-Turns by the reverse SDE": float(result["gap_pvalue"].min()),
        "Gaussian Test, U-Turns by EDM's sampler with churn": float(churned["gap_pvalue"].min()),
        "balance of U-Turns by the reverse SDE": float(result["balance_simulated_pvalue"].min()),
    }


def affine_tests(seed: int) -> Outcome:
    """Fit the best affine map to an exact score, of which the Gaussian one is the best: the held-out gain is at most 0."""
    rows, _ = two_gaussians(seed, SEPARATION, sampler.ExactReversal())
    turn = len(NU) // 2
    moments = analysis.Moments(
        STARTS, np.zeros(DIMENSION), np.append(VARIANCE + SEPARATION**2, np.full(DIMENSION - 1, VARIANCE)), np.eye(DIMENSION)
    )
    process = sampler.VarianceExploding()
    index = list(range(STARTS))
    normal = sampler.KeyedNoise(seed, index, 1, (DIMENSION,), dtype=torch.float64).draw().normal
    noised = (torch.from_numpy(_starts(seed)) + NU[turn] * normal).numpy()
    features = affine_features(noised, moments, process, float(NU[turn]))
    fit = analysis.best_affine(features, rows["residual"].isel(score=0, turn_time=turn).values, seed=seed)
    band = analysis.ClusterBootstrap(STARTS, RESAMPLES, seed=seed).band(fit.gain[:, None])
    return {"gain of the best affine map (at most 5 %)": float(band.pvalue[0]) if band.estimate[0] > 0 else 1.0}


def normal_features(seed: int) -> Outcome:
    """Correlated normal features: the Kolmogorov-Smirnov tests on what is truly Gaussian."""
    random = np.random.default_rng([seed, 2])
    mixing = np.random.default_rng(0).normal(size=(24, 24)) * np.geomspace(1, 0.1, 24)
    test = analysis.ks_test(random.normal(size=(128, 24)) @ mixing, replicates=99, seed=seed)
    single = analysis.ks_test(random.normal(size=(128, 1)), replicates=19, seed=seed)
    return {
        "KS of one feature": float(single.pvalue[0]),
        "KS of all features, correlated": test.mean_distance_pvalue,
        "KS, any discovery (at most 5 %)": 0.0 if test.discovered.any() else 1.0,
    }


@cache
def _population() -> tuple[Array, analysis.Population]:
    random = np.random.default_rng(7)
    points = random.normal(size=(400, 8)) * np.geomspace(2, 0.5, 8) + 0.5 * random.exponential(size=(400, 8))
    return points, analysis.Population(points)


@cache
def _true_kid(shift: float) -> float:
    points, _ = _population()
    moved = points + shift * np.eye(8)[0]

    def kernel(a: Array, b: Array) -> float:
        return float(((a @ b.T / 8 + 1) ** 3).mean())

    return kernel(points, points) + kernel(moved, moved) - 2 * kernel(points, moved)


def quality(seed: int) -> Outcome:
    """Draws from a finite population, moved or not: Fréchet distance and MMD."""
    points, population = _population()
    random = np.random.default_rng([seed, 3])
    held: Outcome = {}
    for shift in (0.0, 0.5):
        drawn = points[random.integers(0, len(points), 200)] + shift * np.eye(8)[0]
        for name, found, truth in (
            ("Fréchet distance", analysis.frechet(drawn[:, None], population), shift**2),
            ("MMD", analysis.kid(drawn[:, None], population), _true_kid(shift)),
        ):
            low, high = found.interval()
            held[f"{name}, shift {shift:g}"] = float(low <= truth <= high)
    return held


def shares(seed: int) -> Outcome:
    """Yes-or-no outcomes of samples with times of their own: shares, their times, those of a class, and self-averaging."""
    random = np.random.default_rng([seed, 4])
    nu, between, within = np.geomspace(0.1, 10, 24), 0.5, 0.4
    own = between * random.normal(size=(300, 1))
    lost = own + within * random.normal(size=(300, 4))
    outcomes = np.log(nu)[:, None, None] < lost
    resample = analysis.ClusterBootstrap(300, RESAMPLES, seed=seed)
    band = resample.share_band(outcomes.mean(2).T)
    crossing = share_time(band.estimate, band.replicates, nu, level=0.5, confidence=0.95)
    truth = 0.5 * (1 + np.vectorize(math.erf)(-np.log(nu) / math.sqrt(2 * (between**2 + within**2))))
    classes = class_times(outcomes[:, :60], np.zeros(60, dtype=int), nu, classes=[0], level=0.5, resample=resample)[0]
    with np.errstate(divide="ignore"):
        _, low, high, _ = self_averaging(np.log(analysis.path_time(outcomes, nu)), resample)
    return {
        "share of U-Turns": float(((band.low <= truth) & (truth <= band.high)).all()),
        "time of a share": float(crossing.low <= 1 <= crossing.high),
        "time of a class (60 starts)": float(classes.low <= 1 <= classes.high),
        "self-averaging ratio": float(low <= (between / within) ** 2 <= high),
    }


def change(seed: int) -> Outcome:
    """Draw change fields of known covariance: their susceptibility."""
    random = np.random.default_rng([seed, 5])
    along = np.linspace(0, 1, 16)
    covariance = np.exp(-np.abs(along[:, None] - along) / 0.2)
    field = random.normal(size=(200, 1, 16)) @ np.linalg.cholesky(covariance).T
    band = analysis.ClusterBootstrap(200, RESAMPLES, seed=seed).band(analysis.susceptibility(field)[:, None])
    return {"susceptibility of the change": float(band.low[0] <= covariance.sum() / 16 <= band.high[0])}


def chain(seed: int) -> Outcome:
    """Chains of exact U-Turns of a Gaussian: their auto-correlation and its time."""
    random = np.random.default_rng([seed, 6])
    values, nu, length = np.array([4.0, 1.0, 0.25]), 2.0, 16
    gain = values / (values + nu**2)
    states = [np.sqrt(values) * random.normal(size=(200, 3))]
    for _ in range(length):
        states.append(gain * states[-1] + np.sqrt(values * (1 - gain**2)) * random.normal(size=(200, 3)))
    moments = analysis.Moments(200, np.zeros(3), values, np.eye(3))
    products = xr.DataArray(chain_products(np.array(states), moments)[None, None], dims=("score", "turn", "sample", "a", "b"))
    labels = xr.DataArray(np.full((1, 1, 200, length + 1), -1), dims=("score", "turn", "sample", "a"))
    table = chain_table(products, labels, values, [nu], None, analysis.ClusterBootstrap(200, RESAMPLES, seed=seed))
    curve = chain_autocorrelation_gaussian(values, [nu], length)[0]
    time = float(integrated_time_gaussian(values, [nu])[0])
    low, high = (table[f"autocorrelation_time_{end}"].item() for end in ("low", "high"))
    return {
        "auto-correlation of a chain": covered(table, "autocorrelation", curve),
        "auto-correlation time of a chain": float(low <= time <= high),
    }


def difference(seed: int) -> Outcome:
    """Curves of two independent sets of samples of one law: the bands of compare."""
    random = np.random.default_rng([seed, 7])
    scale = np.geomspace(1, 0.1, 8)
    a, b = (random.exponential(size=(count, 1)) * scale + 0.3 * random.normal(size=(count, 8)) for count in (150, 250))
    first = analysis.ClusterBootstrap(150, RESAMPLES, seed=2 * seed)
    second = analysis.ClusterBootstrap(250, RESAMPLES, seed=2 * seed + 1)
    return {"difference of two runs": float(first.difference_band(a, second, b).pvalue.min())}


PROBLEMS = [
    Problem("U-Turns of two Gaussians, exact score, 512 starts x 8 noise levels", exact_turns, "coverage"),
    Problem("U-Turns of two Gaussians, exact score, 128 starts x 8 noise levels", few_turns, "few starts"),
    Problem("Draws from a population of 400 points, 200 starts", quality, "coverage"),
    Problem("Outcomes of 300 samples x 4 repeats x 24 noise levels", shares, "coverage"),
    Problem("A random field of 16 pixels, 200 starts", change, "coverage"),
    Problem("Chains of 16 U-Turns of a Gaussian, 200 starts", chain, "coverage"),
    Problem("U-Turns of two Gaussians, exact score", exact_turns_tests, "false positives"),
    Problem("U-Turns of a Gaussian in 12 steps", simulated_turns_tests, "false positives"),
    Problem("The best affine map on an exact score", affine_tests, "false positives"),
    Problem("Normal features, 128 samples", normal_features, "false positives"),
    Problem("Two runs of one law", difference, "false positives"),
]


def gaussian_test_power(seed: int, separation: float, nu: float, starts: int) -> dict[str, bool]:
    """Test noised samples of two Gaussians by the Gaussian Test of their exact score, and by the samples alone."""
    variance = 1.0
    x0, noised = noised_pair(seed, separation, nu, starts)
    random = np.random.default_rng([seed, 9])
    spectrum = np.append(variance + separation**2, np.full(DIMENSION - 1, variance))
    # the exact denoiser of the mixture along the first mode, the Gaussian one along the others
    share = variance / (variance + nu**2)
    exact = share * noised
    exact[:, 0] += (1 - share) * separation * np.tanh(separation * noised[:, 0] / (variance + nu**2))
    gaussian = spectrum / (spectrum + nu**2) * noised
    one_shot, control = (x0 * exact).sum(1, keepdims=True), (x0 * gaussian).sum(1, keepdims=True)
    expectation = np.array([(spectrum**2 / (spectrum + nu**2)).sum()])
    resample = analysis.ClusterBootstrap(starts, RESAMPLES, seed=seed)
    gap = resample.band(with_control_variate(one_shot, control, expectation), expectation, fitted=1)
    ends = exact + np.sqrt(share) * nu * random.normal(size=x0.shape)
    # a U-Turn draws the class of its end from the posterior; given it, the end is Gaussian
    posterior = 1 / (1 + np.exp(-2 * separation * noised[:, 0] / (variance + nu**2)))
    side = np.where(random.random(starts) < posterior, 1, -1)
    ends[:, 0] += (1 - share) * separation * (side - np.tanh(separation * noised[:, 0] / (variance + nu**2)))
    simulated = resample.band(with_control_variate((x0 * ends).sum(1, keepdims=True), control, expectation), expectation, fitted=1)
    return {
        "Gaussian Test, one evaluation": bool(gap.pvalue[0] <= 0.05),
        "Gaussian Test, U-Turns": bool(simulated.pvalue[0] <= 0.05),
    }


def power_of_samples_alone(seed: int, separation: float, nu: float, starts: int) -> dict[str, bool]:
    """Test the same noised samples of two Gaussians without knowing anything else."""
    _, noised = noised_pair(seed, separation, nu, starts)
    ks = analysis.ks_test(noised, replicates=99, seed=seed)
    return {"KS, mean distance": bool(ks.mean_distance_pvalue <= 0.05)} | peers(noised)


def noised_pair(seed: int, separation: float, nu: float, starts: int) -> tuple[Array, Array]:
    """Draw samples of two Gaussians of unit variance and noise them."""
    random = np.random.default_rng([seed, 8])
    x0 = random.normal(size=(starts, DIMENSION))
    x0[:, 0] += separation * (2 * random.integers(0, 2, starts) - 1)
    return x0, x0 + nu * random.normal(size=x0.shape)


def peers(x: Array) -> dict[str, bool]:
    """Return whether Mardia's tests (skewness and kurtosis, asymptotic) and Henze-Zirkler's (pingouin) reject at 5 %."""
    import pingouin
    from scipy.stats import chi2, norm

    count, features = x.shape
    centered = x - x.mean(0)
    products = centered @ np.linalg.solve(centered.T @ centered / count, centered.T)
    skewness = count / 6 * (products**3).mean()
    freedom = features * (features + 1) * (features + 2) / 6
    kurtosis = ((np.diag(products) ** 2).mean() - features * (features + 2)) / math.sqrt(8 * features * (features + 2) / count)
    return {
        "Mardia, skewness": bool(chi2.sf(skewness, freedom) <= 0.05),
        "Mardia, kurtosis": bool(2 * norm.sf(abs(kurtosis)) <= 0.05),
        "Henze-Zirkler": bool(pingouin.multivariate_normality(x, alpha=0.05).pval <= 0.05),
    }
