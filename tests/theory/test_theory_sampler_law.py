"""The exact law of every kernel against dense matrices written from the textbook, against simulation, and against its orders."""

import math
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch

from gaussian_test import sampler
from gaussian_test.analysis import GaussianScore
from gaussian_test.analysis.figures.overview import FLOOR, sampler_figure
from gaussian_test.analysis.theory.samplers import KERNELS, sampler_law, sampler_study

SPECTRUM = np.array([6.0, 1.5, 0.4, 0.05, 0.0])
MEAN = np.array([2.0, -1.0, 0.7, 0.3, -1.5])
SHRUNK = 0.7 * SPECTRUM + 0.3 * SPECTRUM.mean()
BETAS = np.linspace(1e-4, 0.02, 1000)


def _linear_beta(t):
    return 0.1 * t + 9.95 * t**2


def _discrete_log(t):
    return np.interp(t, np.arange(1001), np.append(0, np.cumsum(np.log1p(-BETAS))))


def _preserving(log_alpha, drift):
    return lambda t: np.exp(log_alpha(t)), lambda t: np.sqrt(-np.expm1(2 * log_alpha(t))), drift, lambda t: -2 * drift(t)


# the textbook's alpha, sigma, f and g^2 of each process, written out once more
SCHEDULES = {
    "variance_exploding": (sampler.VarianceExploding(), (lambda t: 1.0, lambda t: t, lambda t: 0.0, lambda t: 2 * t)),
    "ornstein_uhlenbeck": (sampler.OrnsteinUhlenbeck(), _preserving(lambda t: -t, lambda t: -1.0)),
    "variance_preserving": (
        sampler.VariancePreserving(),
        _preserving(lambda t: -_linear_beta(t) / 2, lambda t: -(0.1 + 19.9 * t) / 2),
    ),
    "cosine": (
        sampler.Cosine(),
        _preserving(lambda t: np.log(np.cos(np.pi * t / 2)), lambda t: -np.pi / 2 * np.tan(np.pi * t / 2)),
    ),
    "rectified": (sampler.Rectified(), (lambda t: 1 - t, lambda t: t, lambda t: -1 / (1 - t), lambda t: 2 * t / (1 - t))),
    "discrete_vp": (
        sampler.DiscreteVP(np.cumprod(1 - BETAS)),
        _preserving(lambda t: _discrete_log(t) / 2, lambda t: np.log1p(-BETAS[np.ceil(t).astype(int) - 1]) / 2),
    ),
}
CHURN = sampler.EDMStochastic(7, S_churn=2.5, S_min=0.2, S_max=30, S_noise=1.1)
ALL_KERNELS = [
    sampler.ReverseSDE(),
    sampler.ReverseSDE(clock="variance"),
    sampler.ReverseSDE("exponential"),
    sampler.ProbabilityFlow("euler"),
    sampler.ProbabilityFlow("heun"),
    CHURN,
    sampler.Ancestral(),
    sampler.ExactReversal(),
]


def _integral(of, low, high):
    """Gauss-Legendre on pieces, cut at whole numbers as well, where the rate of a discrete process jumps."""
    whole = np.arange(math.ceil(low), math.ceil(high))
    edges = np.unique(np.concatenate([np.linspace(low, high, 40), whole[whole > low]]))
    nodes, weights = np.polynomial.legendre.leggauss(10)
    half = np.diff(edges)[:, None] / 2
    return float((half * weights * of(edges[:-1, None] + half * (1 + nodes))).sum())


class Dense:
    """Mean, covariance, and covariance with x0, of d coordinates pushed through x -> A x + c + B z with full matrices."""

    def __init__(self, schedule, process, mean, covariance, model):
        self.alpha, self.sigma, self.f, self.g2 = schedule
        self.process, self.mu, self.data, self.model = process, mean, covariance, model
        self.eye = np.eye(len(mean))

    def nu(self, t):
        return self.sigma(t) / self.alpha(t)

    def noised_precision(self, t):
        return np.linalg.inv(self.alpha(t) ** 2 * self.model + self.sigma(t) ** 2 * self.eye)

    def score(self, t):
        """grad log p_t(x) = S x + r."""
        precision = self.noised_precision(t)
        return -precision, self.alpha(t) * precision @ self.mu

    def denoiser(self, t):
        """E[x0 | x_t = x] = G x + r: conditioning of jointly normal variables."""
        gain = self.alpha(t) * self.model @ self.noised_precision(t)
        return gain, self.mu - self.alpha(t) * gain @ self.mu

    def run(self, kernel, times, start):
        top = times[0]
        from_data = start != "isotropic"
        self.m = self.alpha(top) * self.mu if from_data else 0 * self.mu
        self.cross = self.alpha(top) * self.data
        self.cov = self.alpha(top) ** 2 * self.data * from_data + self.sigma(top) ** 2 * self.eye
        if isinstance(kernel, sampler.ExactReversal):
            gain, rest = self.denoiser(top)
            self._push(gain, rest, self.model - self.alpha(top) * gain @ self.model)
            return self
        for t, s in pairwise(times):
            self._step(kernel, t, s)
        return self

    def _push(self, matrix, shift, noise):
        self.m = matrix @ self.m + shift
        self.cov = matrix @ self.cov @ matrix.T + noise
        self.cross = matrix @ self.cross

    def _step(self, kernel, t, s):
        eye, (score, rest) = self.eye, self.score(t)
        alpha_t, alpha_s, sigma_t, sigma_s = self.alpha(t), self.alpha(s), self.sigma(t), self.sigma(s)
        if isinstance(kernel, sampler.ReverseSDE) and kernel.method == "exponential":
            # dx = f x dt - g^2 score dt + g dw, the score held: variation of constants
            weight, variance = (_integral(lambda r, p=p: (alpha_s / self.alpha(r)) ** p * self.g2(r), s, t) for p in (1, 2))
            self._push(alpha_s / alpha_t * eye + weight * score, weight * rest, variance * eye)
        elif isinstance(kernel, sampler.ReverseSDE) and kernel.clock == "time":
            h, f, g2 = t - s, self.f(t), self.g2(t)
            self._push((1 - f * h) * eye + g2 * h * score, g2 * h * rest, g2 * h * eye)
        elif isinstance(kernel, sampler.ReverseSDE):
            # y = x / alpha has the noise variance v = nu^2 as its time: dy = -(score of y) dv + dw
            fallen = self.nu(t) ** 2 - self.nu(s) ** 2
            ratio = alpha_s / alpha_t
            self._push(ratio * (eye + fallen * alpha_t**2 * score), alpha_s * fallen * alpha_t * rest, alpha_s**2 * fallen * eye)
        elif isinstance(kernel, sampler.Ancestral):
            forward = alpha_t / alpha_s
            added = sigma_t**2 - forward**2 * sigma_s**2
            on_x, on_x0 = forward * sigma_s**2 / sigma_t**2, alpha_s * added / sigma_t**2
            gain, shift = self.denoiser(t)
            self._push(on_x * eye + on_x0 * gain, on_x0 * shift, added * sigma_s**2 / sigma_t**2 * eye)
        elif isinstance(kernel, sampler.ProbabilityFlow):
            self._flow(self.nu(t), t, s, kernel.method == "heun")
        else:
            nu = self.nu(t)
            gamma = min(kernel.S_churn / kernel.steps, math.sqrt(2) - 1) if kernel.S_min <= nu <= kernel.S_max else 0.0
            risen = min((1 + gamma) * nu, self.nu(self.process.time_max))
            self.cov = self.cov + (alpha_t * kernel.S_noise) ** 2 * (risen**2 - nu**2) * eye
            self._flow(risen, t, s, True)

    def _flow(self, nu, t, s, second_order):
        """Step y = x / alpha along dy/dnu = nu (Sigma + nu^2)^-1 (y - mu), from nu at t (or what the churn made of it)."""
        slope = nu * np.linalg.inv(self.model + nu**2 * self.eye)
        h = self.nu(s) - nu
        matrix = self.eye + h * slope
        if second_order and s > 0:
            ahead = self.nu(s) * np.linalg.inv(self.model + self.nu(s) ** 2 * self.eye)
            matrix = self.eye + h / 2 * (slope + ahead @ matrix)
        self._push(self.alpha(s) / self.alpha(t) * matrix, self.alpha(s) * (self.mu - matrix @ self.mu), np.zeros_like(matrix))


def _root(covariance):
    values, vectors = np.linalg.eigh(covariance)
    values = np.where(values > 1e-13 * values.max(), values, 0)
    return (vectors * np.sqrt(values)) @ vectors.T


def _bures(mean_a, cov_a, mean_b, cov_b):
    """W2 of two normal laws; tr (A^1/2 B A^1/2)^1/2 is the nuclear norm of A^1/2 B^1/2, free of roots of rounding errors."""
    coupled = np.linalg.norm(_root(cov_a) @ _root(cov_b), "nuc")
    return math.sqrt(max(0.0, ((mean_a - mean_b) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * coupled))


def _grid(process, steps=7, top=12.0):
    """Uneven levels from the top to 0, with a turn time in the middle; whole ones where the process has no others."""
    nu = np.append(np.geomspace(top, 0.05, steps), 0.0)
    times = process.time(torch.from_numpy(nu)).tolist()
    return [process.level(t) for t in times]


@pytest.mark.parametrize(("start", "model"), [("noised_data", SPECTRUM), ("gaussian", SHRUNK), ("isotropic", SHRUNK)])
@pytest.mark.parametrize("kernel", ALL_KERNELS, ids=repr)
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_law_is_that_of_dense_matrices(name, kernel, start, model):
    """From two turn times, with a flat direction; W2 is from the data's Gaussian, also where the score has other moments."""
    process, schedule = SCHEDULES[name]
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(5, 5)))[0]
    covariance, of_score = ((rotation * values) @ rotation.T for values in (SPECTRUM, model))
    grid = _grid(process)
    turns = [grid[0], grid[2]]
    law = sampler_law(SPECTRUM, process, kernel, grid, turns, start=start, mean=MEAN, model=model)
    for index, first in enumerate((0, 2)):
        dense = Dense(schedule, process, rotation @ MEAN, covariance, of_score).run(kernel, grid[first:], start)
        row = law.isel(turn_time=index)
        scale = max(1.0, float(np.abs(dense.cov).max()))
        np.testing.assert_allclose(rotation @ row.mean_offset.values, dense.m - rotation @ MEAN, atol=1e-10 * scale)
        np.testing.assert_allclose((rotation * row.variance.values) @ rotation.T, dense.cov, atol=1e-10 * scale)
        np.testing.assert_allclose((rotation * (row.factor.values * SPECTRUM)) @ rotation.T, dense.cross, atol=1e-10 * scale)
        expected = _bures(dense.m, dense.cov, rotation @ MEAN, covariance)
        if kernel.exact and start == "noised_data":
            assert float(row.wasserstein) < 1e-14
        else:
            assert float(row.wasserstein) == pytest.approx(expected, rel=1e-10, abs=1e-10)
            assert expected > 1e-3
        assert float(row.wasserstein_relative) == pytest.approx(float(row.wasserstein) / math.sqrt(SPECTRUM.sum()), rel=1e-12)
        if start == "isotropic":
            assert np.isnan(row.autocorrelation)
        else:
            assert float(row.autocorrelation) == pytest.approx(np.trace(dense.cross) / SPECTRUM.sum(), rel=1e-10)
        square = np.trace(dense.cov) + ((dense.m - rotation @ MEAN) ** 2).sum()
        assert float(row.end_square) == pytest.approx(square / SPECTRUM.sum(), rel=1e-10)
        assert float(row.noise_to_signal) == pytest.approx(dense.nu(grid[first]), rel=1e-12)


def _centered_samples(rng, count):
    """Draw skewed samples whose mean and covariance are exactly 0 and diag(SPECTRUM): the map is affine, so the law holds."""
    x = rng.exponential(size=(count, 5))
    x -= x.mean(0)
    whiten = np.linalg.inv(np.linalg.cholesky(x.T @ x / count))
    return (x @ whiten.T) * np.sqrt(SPECTRUM)


@pytest.mark.parametrize(
    ("name", "kernel"),
    [*zip(["ornstein_uhlenbeck", "rectified", "variance_preserving", "variance_exploding"] * 2, ALL_KERNELS, strict=True)],
)
def test_simulation_follows_the_law(name, kernel):
    """Mean, variance and correlation with the start, each mode and turn time within 4 standard errors; states rotated."""
    process, count, rng = SCHEDULES[name][0], 4000, np.random.default_rng(7)
    x, rotation = _centered_samples(rng, count), np.linalg.qr(rng.normal(size=(5, 5)))[0]
    covariance = (rotation * SPECTRUM) @ rotation.T
    score = GaussianScore.from_moments(rotation @ MEAN, covariance, process=process, dtype=torch.float64)
    plan = sampler.UTurnPlan(process, [float(process.time(nu)) for nu in (0.3, 1.5, 6.0)], steps=7, seed=3, micro_batch=20000)
    ends = np.empty((3, count, 5))
    for state in plan.run(torch.from_numpy((x + MEAN) @ rotation.T), range(count), {"g": score}, {"g": kernel}):
        if state.phase == "end":
            ends[state.turns] = state.x.numpy() @ rotation - MEAN
    law = sampler_law(SPECTRUM, process, kernel, plan.grid, plan.levels, mean=MEAN)
    offset, factor = law.mean_offset.values, law.factor.values
    for drawn, expected in (
        (ends, offset),
        (x * ends, factor * SPECTRUM),
        (ends**2, law.variance.values + offset**2),
        ((x * ends).sum(2, keepdims=True) / SPECTRUM.sum(), law.autocorrelation.values[:, None]),
    ):
        error = drawn.std(1) / np.sqrt(count) + 1e-12
        np.testing.assert_array_less(np.abs(drawn.mean(1) - expected), 4 * error)


@pytest.mark.parametrize("name", KERNELS)
def test_order_of_convergence_of_the_distance(name):
    """Levels equally spaced in nu from 2 to (nearly) 0: each kernel converges to the data's Gaussian at its order."""
    process = sampler.OrnsteinUhlenbeck(1e-14)
    settings = {"kernels": {name: KERNELS[name]}, "steps": (250, 500), "rho": 1, "mean": [1.0, 0.5, -1.0]}
    study, order = sampler_study([4.0, 1.0, 0.5], process, float(process.time(2.0)), **settings), 1 + (name in ("heun", "edm"))
    coarse, fine = study.wasserstein.values[0]
    assert np.log2(coarse / fine) == pytest.approx(order, abs=0.12)
    assert fine < 0.02
    if name in ("euler", "heun"):
        coarse, fine = np.abs(study.autocorrelation_error.values[0])
        assert np.log2(coarse / fine) == pytest.approx(order, abs=0.12)


@pytest.mark.parametrize("process", [sampler.VarianceExploding(), sampler.Cosine(), sampler.Rectified()], ids=repr)
def test_the_exact_kernel_has_no_distance_and_telescoping_ones_no_error_of_the_correlation(process):
    """W2 = 0 for the exact posterior; Euler-Maruyama in the variance clock and the ancestral step keep C(T) at any steps."""
    kernels = {"exact": sampler.ExactReversal(), **KERNELS}
    study = sampler_study(SPECTRUM, process, float(process.time(20.0)), kernels, [1, 2, 9])
    assert (study.wasserstein.sel(kernel="exact") < 1e-14).all()
    assert (study.wasserstein.sel(kernel=["sde", "ancestral"]) > 0.01).all()
    assert (np.abs(study.autocorrelation_error.sel(kernel=["exact", "sde", "ancestral"])) < 1e-12).all()
    assert (np.abs(study.autocorrelation_error.sel(kernel=["euler", "heun", "sde, time clock"])) > 1e-4).all()


def test_noise_alone_is_forgotten_as_its_share_or_along_the_flow_as_the_root_of_it():
    """W2 of exact reversal falls as nu^-2; along the flow with a mean as 1/nu, without as nu^-2; a start from data has none."""
    process, levels = sampler.VarianceExploding(1e-5, 1e4), np.array([25.0, 50.0])
    spectrum, mean = np.array([4.0, 1.0]), np.array([2.0, 1.0])
    kernels = {"exact": sampler.ExactReversal(), "heun": sampler.ProbabilityFlow()}
    share = spectrum / (spectrum + levels[:, None] ** 2)
    lacking = {"exact": share, "heun": np.sqrt(share)}
    for center, order in ((mean, {"exact": 2, "heun": 1}), (0 * mean, {"exact": 4, "heun": 2})):
        settings = {"start": "isotropic", "mean": center, "rho": 3}
        study = [sampler_study(spectrum, process, nu, kernels, [700], **settings).wasserstein.squeeze() for nu in levels]
        for name, left in lacking.items():
            found = np.array([float(one.sel(kernel=name)) for one in study])
            expected = np.sqrt(((center * left) ** 2 + spectrum * (1 - np.sqrt(1 - left**2)) ** 2).sum(1))
            np.testing.assert_allclose(found, expected, rtol=0.03)
            assert np.log2(found[0] / found[1]) == pytest.approx(order[name], abs=0.05)
    from_data = sampler_study(spectrum, process, 25.0, {"heun": kernels["heun"]}, [700], rho=3, mean=mean)
    assert float(from_data.wasserstein.item()) < 1e-4


def test_every_evaluation_of_the_score_is_counted():
    """One per step; two with Heun's correction, save in the last step; one alone for the exact posterior; churn is free."""
    kernels = {**KERNELS, "exact": sampler.ExactReversal()}
    study = sampler_study([3.0, 1.0], sampler.VariancePreserving(), 1.0, kernels, [1, 2, 18])
    for name, expected in {"heun": [1, 3, 35], "edm": [1, 3, 35], "exact": [1, 1, 1]}.items():
        assert study.evaluations.sel(kernel=name).values.tolist() == expected
    for name in ("sde", "sde, time clock", "exponential_sde", "euler", "ancestral"):
        assert study.evaluations.sel(kernel=name).values.tolist() == [1, 2, 18]
    law = sampler_law([3.0], sampler.VarianceExploding(), sampler.ProbabilityFlow(), [8.0, 4.0, 2.0, 1.0, 0.0], [2.0, 8.0])
    assert law.evaluations.values.tolist() == [3, 7]


def test_the_study_is_the_law_on_the_plans_own_grid():
    """At the number of steps of a plan with this turn time, for a kernel that knows its number of steps."""
    process = sampler.DiscreteVP(np.cumprod(1 - BETAS))
    plan = sampler.UTurnPlan(process, [700.3], steps=12, rho=2.5)
    kernel = sampler.EDMStochastic(12, S_churn=3)
    kernels = {"edm": lambda steps: sampler.EDMStochastic(steps, S_churn=3)}
    study = sampler_study(SPECTRUM, process, 700.3, kernels, [5, 12], rho=2.5, mean=MEAN)
    law = sampler_law(SPECTRUM, process, kernel, plan.grid, plan.levels, start="gaussian", mean=MEAN)
    assert float(study.wasserstein[0, 1]) == float(law.wasserstein[0])
    assert float(study.turn_time) == plan.levels[0] == 700
    assert np.isnan(study.autocorrelation_error).all()
    assert "edm: with churn" in study.autocorrelation_error.attrs["reason"]


def test_every_variable_says_what_it_is():
    law = sampler_law(SPECTRUM, sampler.Cosine(), sampler.Ancestral(), [0.9, 0.3, 0.0], [0.9], start="isotropic")
    study = sampler_study(SPECTRUM, sampler.Cosine(), 0.9, KERNELS, [4], start="isotropic")
    for dataset in (law, study):
        for name, variable in dataset.variables.items():
            assert {"long_name", "units"} <= set(variable.attrs), name
        assert dataset.attrs["start"] == "isotropic"
    for variable in (law.autocorrelation, study.autocorrelation_error):
        assert "noise alone" in variable.attrs["reason"]
        assert np.isnan(variable).all()
    defined = sampler_law(SPECTRUM, sampler.Cosine(), sampler.Ancestral(), [0.9, 0.3, 0.0], [0.9])
    assert "reason" not in defined.autocorrelation.attrs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eigenvalues": [[1.0]]}, r"eigenvalues \(1, 1\).* do not fit: give one number per mode"),
        ({"mean": [1.0]}, r"mean \(1,\) .* do not fit"),
        ({"model": [1.0]}, r"model \(1,\) do not fit"),
        ({"eigenvalues": [1.0, -1.0]}, "negative or infinite"),
        ({"eigenvalues": [1.0, math.inf]}, "negative or infinite"),
        ({"eigenvalues": [0.0, 0.0]}, "no positive one"),
        ({"start": "noise"}, "start = 'noise' is unknown: choose noised_data, gaussian, isotropic"),
        ({"grid": [2.0, 1.0]}, "does not descend to 0"),
        ({"grid": [1.0, 2.0, 0.0]}, "does not descend to 0"),
        ({"grid": [0.0]}, "does not descend to 0"),
        ({"turn_times": []}, "there is no turn time"),
        ({"turn_times": [1.5]}, "turn time 1.5 is not on the grid"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    settings = {"eigenvalues": [2.0, 1.0], "grid": [2.0, 1.0, 0.0], "turn_times": [2.0], "kernel": sampler.Ancestral()} | change
    with pytest.raises(ValueError, match=message):
        sampler_law(process=sampler.VarianceExploding(), **settings)
    for kernels, steps in (({}, [4]), (KERNELS, [])):
        with pytest.raises(ValueError, match="make no study: give at least one of each"):
            sampler_study(SPECTRUM, sampler.VarianceExploding(), 80.0, kernels, steps)


def test_the_figure_shows_the_numbers_of_the_study_and_nothing_is_clipped_or_covered():
    kernels = {**KERNELS, "exact": sampler.ExactReversal()}
    study = sampler_study(SPECTRUM, sampler.VariancePreserving(), 1.0, kernels, [4, 16, 64], mean=MEAN)
    figure = sampler_figure(study)
    figure.draw_without_rendering()
    above, below = figure.axes
    for axis, name in ((above, "wasserstein_relative"), (below, "autocorrelation_error")):
        lines = {line.get_label(): line for line in axis.lines}
        for kernel in KERNELS:
            values = np.abs(study[name].sel(kernel=kernel).values)
            np.testing.assert_array_equal(lines[kernel].get_xdata(), study.evaluations.sel(kernel=kernel))
            np.testing.assert_array_equal(lines[kernel].get_ydata(), np.where(values > FLOOR, values, np.nan))
        assert axis.get_xscale() == axis.get_yscale() == "log"
        assert axis.get_ylabel()
        assert axis.get_ylim()[0] > FLOOR
    for of in ("color", "marker"):
        assert len({line.properties()[of] for line in above.lines if line.get_label() in KERNELS}) == len(KERNELS)
    assert "score evaluations" in below.get_xlabel()
    assert "W_2" in above.get_ylabel()
    assert above.get_title(loc="left") == "not drawn: exact (zero to rounding)"
    assert below.get_title(loc="left") == "not drawn: sde, ancestral, exact (zero to rounding); edm (undefined with churn)"
    page, (legend,) = figure.bbox, figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [*KERNELS, "exact"]
    parts = [legend.get_window_extent(), above.get_tightbbox(), below.get_tightbbox()]
    assert not any(one.overlaps(other) for one, other in combinations(parts, 2))
    labels = [label.get_window_extent() for axis in figure.axes for label in (axis.yaxis.label, axis.xaxis.label)]
    for box in (box for box in (parts[0], *labels) if box.width):
        assert page.x0 - 1 <= box.x0 <= box.x1 <= page.x1 + 1
        assert page.y0 - 1 <= box.y0 <= box.y1 <= page.y1 + 1


def test_a_start_from_noise_alone_is_drawn_in_one_panel_with_what_it_lacks_at_least():
    """Without an auto-correlation there is one panel; the exact kernel is the line that no other can fall below for long."""
    kernels = {"heun": sampler.ProbabilityFlow(), "exact": sampler.ExactReversal()}
    study = sampler_study(SPECTRUM, sampler.VarianceExploding(), 80.0, kernels, [8, 32], start="isotropic", mean=MEAN)
    (axis,) = sampler_figure(study).axes
    flat = next(line for line in axis.lines if line.get_label() == "exact")
    assert flat.get_ydata() == pytest.approx([study.wasserstein_relative.sel(kernel="exact").values[0]] * 2)
    assert axis.get_xlim()[0] > 5
    assert "isotropic start" in axis.get_xlabel()
