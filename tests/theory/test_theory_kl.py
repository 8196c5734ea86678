"""The divergence of the noised data from their Gaussian: reference values, densities by quadrature, and I-MMSE as a check."""

import numpy as np
import pytest
import xarray as xr
from scipy.integrate import quad
from scipy.special import logsumexp, xlogy
from scipy.stats import norm

import gaussian_test as gt
from gaussian_test.analysis import ClusterBootstrap, GaussianScore, GroundTruth, Moments, ScoreFacts, fit_moments
from gaussian_test.analysis.observables.gaussian_test.divergence import likelihood_gain
from gaussian_test.analysis.theory.predictions import information_integral, inner_area
from gaussian_test.sampler import EmpiricalScore, Score

PLAIN = {"observables": "none", "statistics": {"bootstrap": 200}}
DIGITS = {0.1: (61.175326, 7e-6), 0.398: (13.4216, 6e-4), 1.0: (1.2840, 2.6e-3), 2.0: (0.0633, 7e-4)}
DIGITS |= {3.2: (0.005293, 5.4e-5), 10.0: (6.97e-6, 8e-8)}
LEVELS = [0.05, 0.2, 0.5, 1.0, 2.0, 6.0]
SETS = {
    "two points": [-1.0, 1.0],
    "symmetric": [-3.0, -1.0, 1.0, 3.0],
    "skewed": [0.0, 0.0, 0.0, 4.0],
    "offset": [1000.0, 1001.0, 1004.0, 1004.0],
}


def _run(x, nu, classes=None, scores=("empirical",), repeats=30, **settings):
    truth = xr.Dataset({"x": (("sample", "feature"), np.asarray(x, dtype=np.float64).reshape(len(x), -1))})
    if classes is not None:
        truth = truth.assign(label=("sample", np.asarray(classes)))
    wanted = {"samples": "all", "repeats": repeats, "turn_times": {"noise_to_signal": list(nu)}, "dtype": "float64"} | settings
    return gt.run(
        PLAIN | wanted | {"scores": [{"kind": s} if isinstance(s, str) else s for s in scores]}, progress=False, truth=truth
    )


def _log_mixture(t, means, variances, shares):
    return logsumexp(norm.logpdf(np.asarray(t)[..., None], means, np.sqrt(variances)), b=shares, axis=-1)


def _gain(x, nu, means, variances, shares):
    """Return E[log q_t - log N_t] over the noised points x, of the mixture q of some Gaussians."""
    x, means, spread = np.asarray(x), np.asarray(means), np.hypot(np.std(x), nu)

    def integrand(t):
        ratio = _log_mixture(t, means, variances + nu**2, shares) - norm.logpdf(t, x.mean(), spread)
        return norm.pdf(t, x[:, None], nu).mean() * ratio

    places = np.unique(x).tolist()
    return quad(integrand, x.min() - 9 * nu, x.max() + 9 * nu, points=places, limit=2000, epsabs=1e-12)[0]


@pytest.fixture(scope="module")
def digits():
    levels = sorted({*DIGITS, *np.geomspace(0.15, 20, 23).round(6).tolist()})
    return gt.run(PLAIN | {"samples": "all", "turn_times": {"noise_to_signal": levels}, "scores": [{"kind": "empirical"}]})


@pytest.mark.parametrize("level", DIGITS)
def test_the_divergence_of_the_digits_is_the_reference(digits, level):
    """To four standard errors, the product's and the reference's; the band holds it, and the direct value needs no other level."""
    at = digits.sel(turn_time=level, method="nearest")
    known, error = DIGITS[level]
    found = float(at["kl_from_gaussian"])
    assert abs(found - known) < 4 * np.hypot(float(at["kl_from_gaussian_se"]), error)
    assert float(at["kl_from_gaussian_low"]) - 4 * error <= known <= float(at["kl_from_gaussian_high"]) + 4 * error
    assert found == float(at["likelihood_gain"].sel(score="empirical"))


def test_the_integral_is_a_check(digits):
    """The integral over 29 levels and the direct divergence agree within their errors, and no value is left out."""
    row = digits.sel(score="empirical")
    error = 3 * np.hypot(row["kl_from_gaussian_se"], row["likelihood_gain_integral_se"])
    off = np.abs(row["likelihood_gain_integral"] - row["kl_from_gaussian"])
    assert (off <= error + row["likelihood_gain_integral_quadrature_error"]).all()
    assert np.isnan(row["memorization_noise_to_signal_predicted_excess_entropy"])
    assert (row["excess_entropy"] < 1e-9).all()


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_few_turn_times_are_right_or_say_why_not(count, dtype):
    """The integral stopped at the largest turn time: 55.2 at .1 where 61.2 is true, 3.0 at .5 where 8.8 is, with an error of 0."""
    levels = [0.5, 0.1, 0.2][:count]
    settings = PLAIN | {"samples": 512, "turn_times": {"noise_to_signal": sorted(levels)}, "dtype": dtype}
    found = gt.run(settings, progress=False).sel(score="empirical")
    known, error = {0.1: 61.175326, 0.2: 33.4067, 0.5: 8.785}, {0.1: 1e-5, 0.2: 0.001, 0.5: 0.05}
    for level in levels:
        at = found.sel(turn_time=level, method="nearest")
        assert float(at["kl_from_gaussian"]) == pytest.approx(known[level], abs=4 * float(at["kl_from_gaussian_se"]) + error[level])
    assert np.isnan(found["likelihood_gain_integral"]).all()
    assert f"{count} turn times are too few" in found["likelihood_gain_integral"].attrs["reason"]
    assert np.isnan(found["memorization_noise_to_signal_predicted_excess_entropy"])


@pytest.mark.parametrize("points", SETS)
def test_of_points_it_is_that_by_quadrature(points):
    """Points and their copies, some symmetric, one set far from the origin: in the band, with three standard errors more."""
    x = np.tile(SETS[points], 16)
    found = _run(x, LEVELS)
    known = np.array([_gain(x, nu, x, 0.0, np.full(len(x), 1 / len(x))) for nu in LEVELS])
    more = 3 * found["kl_from_gaussian_se"] + 1e-7
    assert (found["kl_from_gaussian_low"] - more <= known).all()
    assert (known <= found["kl_from_gaussian_high"] + more).all()
    assert (found["kl_from_gaussian_se"] < 0.06).all()


def test_of_scores_told_the_class_and_of_a_mixture_it_is_that_by_quadrature():
    """E[log q - log N]: conditional, log q of the class; a mixture of classes, whose law is not that of the points."""
    x, label = np.tile([-3.0, -2.5, -1.0, 1.0, 2.0, 5.0], 20), np.tile([0, 0, 0, 1, 1, 1], 20)
    scores = ({"kind": "empirical", "conditional": True}, "mixture", {"kind": "mixture", "conditional": True, "name": "m"})
    scores = (*scores, {"kind": "gaussian", "conditional": True})
    found = _run(x, LEVELS, label, scores)
    of = [x[label == k] for k in (0, 1)]
    means, variances, shares = np.array([o.mean() for o in of]), np.array([o.var() for o in of]), np.full(2, 0.5)
    wide = [norm(x.mean(), np.hypot(x.std(), nu)) for nu in LEVELS]

    def by_class(log_density):
        """Return the mean over classes of E[log q_k - log N] over the noised points of the class."""
        out = []
        for nu, whole in zip(LEVELS, wide, strict=True):
            integrals = [
                quad(
                    lambda t, k=k, nu=nu, whole=whole: (
                        norm.pdf(t, of[k][:, None], nu).mean() * (log_density(t, k, nu) - whole.logpdf(t))
                    ),
                    of[k].min() - 9 * nu,
                    of[k].max() + 9 * nu,
                    points=np.unique(of[k]).tolist(),
                    limit=2000,
                )[0]
                for k in (0, 1)
            ]
            out.append(np.mean(integrals))
        return np.array(out)

    gaussians = by_class(lambda t, k, nu: norm.logpdf(t, means[k], np.hypot(np.sqrt(variances[k]), nu)))
    known = {
        "empirical": by_class(lambda t, k, nu: _log_mixture(t, of[k], nu**2, np.full(len(of[k]), 1 / len(of[k])))),
        "mixture": np.array([_gain(x, nu, means, variances, shares) for nu in LEVELS]),
        "m": gaussians,
        "gaussian": gaussians,
    }
    for name, value in known.items():
        row = found.sel(score=name)
        unseen = np.log(2) * np.log(20) / len(x)  # as many pairs of neighbours as none may have been seen of
        assert (np.abs(row["likelihood_gain"].values - value) < 4 * row["likelihood_gain_se"].values + unseen).all(), name
    assert np.isnan(found["kl_from_gaussian"]).all()
    assert "no unconditional empirical score" in found["kl_from_gaussian"].attrs["reason"]
    # the entropy of the weights within the class, with its sign; copies are one point
    assert (found["excess_entropy"].sel(score="empirical") < 1e-9).all()
    assert float(found["excess_entropy"].sel(score="empirical")[0]) == pytest.approx(0, abs=1e-6)


class _Unknown(Score):
    """The exact score, of which nothing but the denoiser is known: a network that has learned all."""

    def __init__(self, exact):
        super().__init__(exact.process, exact.event_shape)
        self.exact = exact

    def denoise(self, x, t, label=None):
        return self.exact.denoise(x, t, label)


class _Other(EmpiricalScore):
    """An exact score with another denoiser, which has not its density."""

    def denoise(self, x, t, label=None):
        return 0.9 * super().denoise(x, t, label)


@pytest.mark.parametrize(
    ("low", "high", "count", "reason"),
    [(0.1, 20, 24, ""), (0.1, 0.5, 12, "ends at the largest turn time 0.5"), (0.5, 20, 4, "too few"), (0.05, 40, 6, "not small")],
)
def test_of_a_network_it_is_the_integral_or_why_not(low, high, count, reason):
    x = gt.data.load("digits")["x"]
    score = _Unknown(EmpiricalScore.fit(x))
    settings = {
        "samples": 256,
        "turn_times": {"noise_to_signal": {"min": low, "max": high, "count": count}},
        "scores": ["empirical"],
    }
    settings |= {"scores": [{"kind": "empirical"}], "reverse": {"kind": "sde", "steps": 2}}
    found = gt.run(PLAIN | settings, progress=False, scores={"net": score})
    net, exact = found.sel(score="net"), found["kl_from_gaussian"]
    defined = np.isfinite(net["likelihood_gain"].values)
    error = 4 * np.hypot(net["likelihood_gain_se"], found["kl_from_gaussian_se"]) + net["likelihood_gain_integral_quadrature_error"]
    assert (np.abs(net["likelihood_gain"] - exact) < error).values[defined].all()
    assert defined.all() == (not reason)
    assert reason in net["likelihood_gain"].attrs.get("reason", "") + net["excess_entropy"].attrs.get("reason", "")
    assert np.isnan(net["memorization_noise_to_signal_predicted_excess_entropy"])


@pytest.mark.parametrize(("off", "larger", "top"), [(0.3, 1.0, 20), (1.0, 1.0, 20), (1.0, 1.0, 2.4), (0.0, 0.5, 4), (0.0, 2.0, 20)])
def test_of_a_wrong_gaussian_it_is_minus_its_divergence_from_the_right_one_or_undefined(off, larger, top):
    """A mean or a variance that is off: the excess falls more slowly than that of the exact score, or not at all."""
    x = np.random.default_rng(0).normal(size=(1000, 16))
    moments = fit_moments(x)
    wrong = Moments(moments.count, moments.mean + off, larger * moments.eigenvalues, moments.eigenvectors)
    nu = np.geomspace(0.05, top, 30)
    truth = xr.Dataset({"x": (("sample", "feature"), x)})
    score = _Unknown(GaussianScore.from_moments(wrong))
    settings = {"samples": 500, "turn_times": {"noise_to_signal": nu.tolist()}, "reverse": {"kind": "sde", "steps": 1}}
    settings = PLAIN | settings | {"scores": [{"kind": "gaussian"}]}
    found = gt.run(settings, truth=truth, scores={"net": score}, progress=False).sel(score="net")
    shift = (moments.eigenvectors.T @ np.full(16, off)) ** 2
    ours, theirs = (spectrum[:, None] + nu**2 for spectrum in (larger * moments.eigenvalues, moments.eigenvalues))
    true = -((theirs + shift[:, None]) / ours - 1 + np.log(ours / theirs)).sum(0) / 2
    error = 5 * found["likelihood_gain_se"] + found["likelihood_gain_integral_quadrature_error"]
    defined = np.isfinite(found["likelihood_gain"].values)
    assert (np.abs(found["likelihood_gain"] - true) <= error)[defined].all()
    assert defined.any() or found["likelihood_gain"].attrs["reason"]
    assert defined.sum() >= (10 if top == 20 else 0)


def test_the_divergence_is_never_beyond_what_the_entropy_of_the_posterior_allows():
    """A single sample apart, or two: few starts see it, and a resample without them has no bound of its own."""
    for some in ([[1.0, 0.0, 0.0]], [[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]]):
        x = np.concatenate([np.zeros((48, 3)), some])
        found = _run(x, [0.05, 0.2, 1.0, 4.0, 30.0], repeats=2)
        nu, values = found["noise_to_signal"].values, fit_moments(x).eigenvalues
        most = np.log1p(values[:, None] / nu**2).sum(0) / 2
        assert (found["kl_from_gaussian_high"] <= most + 1e-12).all()
        assert (found["kl_from_gaussian_low"] >= np.maximum(most - np.log(len(x)), 0) - 1e-12).all()


def test_the_gaussian_gains_nothing_over_itself_at_any_noise():
    found = gt.run(PLAIN | {"samples": 16, "turn_times": {"noise_to_signal": [0.002, 0.01, 1.0]}}, progress=False)
    assert (found["likelihood_gain"].sel(score="gaussian") == 0).all()


@pytest.mark.parametrize("copies", [[3] * 60, [1, 20] * 30])
def test_predictions_of_memorization_do_not_count_copies(copies):
    """The information about a point: log N without copies, its entropy if some have more."""
    x = np.random.default_rng(1).normal(size=(60, 4))
    nu, classes = np.geomspace(0.1, 6, 16), np.arange(60) % 2
    once, often = (
        _run(np.repeat(x, n, 0), nu, np.repeat(classes, n), ("empirical", "gaussian", {"kind": "mixture"}), repeats=1)
        for n in (1, copies)
    )
    shares = np.array(copies) / np.sum(copies)
    values = fit_moments(np.repeat(x, copies, 0)).eigenvalues
    information = np.log1p(values / float(often["memorization_noise_to_signal_predicted"][0]) ** 2).sum() / 2
    assert information == pytest.approx(-(shares @ np.log(shares)), rel=1e-9)
    for name in ("", "_within_class", "_excess_entropy"):
        ratio = often[f"memorization_noise_to_signal_predicted{name}"] / once[f"memorization_noise_to_signal_predicted{name}"]
        np.testing.assert_allclose(np.nan_to_num(ratio, nan=1), 1, rtol=0.02 if len(set(copies)) == 1 else 0.4)


def test_a_score_with_another_denoiser_has_no_density():
    x = gt.data.load("digits")["x"][:64]
    about = np.zeros(64)
    found = _Other.fit(x).evaluate(EmpiricalScore.fit(x).originals(_index([0, 1])), 1.0, _tensor(about))
    assert found.log_ratio is None
    assert found.information is None


def _index(values):
    import torch

    return torch.tensor(values)


def _tensor(values):
    import torch

    return torch.from_numpy(values).float()


@pytest.mark.parametrize(("dtype", "resolved"), [("float32", 100), ("float64", 1e4)])
def test_where_precision_ends_it_says_so(dtype, resolved):
    """At large noise the divergence is |kappa_3|^2/12 nu^6: 7e-12 at 100, 7e-24 at 1e4."""
    levels = [60.0, 100.0, 1000.0, 1e4]
    wide = {"kind": "variance_exploding", "sigma_max": 1e5}
    found = gt.run(
        PLAIN | {"samples": 256, "turn_times": {"noise_to_signal": levels}, "dtype": dtype, "process": wide}, progress=False
    )
    x = gt.data.load("digits")["x"]
    leading = gt.analysis.third_cumulant_norm(x, x.mean("sample").values) / 12 / np.array(levels) ** 6
    for level, value, error, known in zip(levels, found["kl_from_gaussian"], found["kl_from_gaussian_se"], leading, strict=True):
        if level <= resolved:
            assert abs(float(value) - known) < 4 * float(error) + 0.01 * known
            assert 0 < error < 0.3 * known
        else:
            assert np.isnan(value)
            assert "single precision does not resolve" in found["kl_from_gaussian"].attrs["reason"]


def test_the_band_holds_the_truth():
    """Two points, 1024 starts: in at least 50 of 60 experiments the whole curve lies in the 95 % band."""
    x, held = np.tile([-1.0, 1.0], 512), 0
    nu = np.array([0.2, 0.35, 0.5, 0.8, 1.5, 3.0])
    known = np.array([_gain([-1.0, 1.0], level, [-1.0, 1.0], 0.0, np.full(2, 0.5)) for level in nu])
    random = np.random.default_rng(0)
    values, moments = np.unique(x), fit_moments(x[:, None])
    truth = GroundTruth(1024, moments.eigenvalues, 0.0, None, precision=2e-16)
    for _ in range(60):
        y = x + nu[:, None] * random.normal(size=(6, 1024))
        logits = y[..., None] * values / nu[:, None, None] ** 2
        total = logsumexp(logits, axis=-1) - np.log(2) - 0.5 / nu[:, None] ** 2
        weights = np.exp(logits - logsumexp(logits, axis=-1, keepdims=True))
        entropy = -xlogy(weights, weights).sum(-1)
        gaussian = y**2 / (1 + nu[:, None] ** 2) / nu[:, None] ** 2 / 2 - np.log1p(nu[:, None] ** -2.0) / 2
        rows = ("score", "turn_time", "sample", "repeat")
        made = {"sample_likelihood_gain": total - gaussian, "sample_posterior_information": np.log(2) - entropy}
        zeros = ("sample_denoiser_gap", "sample_autocorrelation_one_shot", "sample_autocorrelation_one_shot_squared")
        made |= dict.fromkeys(zeros, 0 * y)
        table = xr.Dataset({name: (rows, value[None, :, :, None]) for name, value in made.items()})
        table["sample_autocorrelation_gaussian"] = table["sample_denoiser_gap"].isel(score=0)
        table = table.assign_coords(score=["empirical"], noise_to_signal=("turn_time", nu))
        found, _ = likelihood_gain(table, truth, {"empirical": ScoreFacts(is_truth=True)}, ClusterBootstrap(1024, 300))
        held += bool(((found["kl_from_gaussian_low"] <= known) & (known <= found["kl_from_gaussian_high"])).all())
    assert held >= 50


FACTS = {"eigenvalues": [1.0], "third_cumulant_norm": 2.0}


def _known(gamma):
    """Return the excess gamma^2/(1+gamma)^3 and half its area, by partial fractions."""
    return gamma**2 / (1 + gamma) ** 3, 0.5 * (np.log1p(gamma) + 2 / (1 + gamma) - 0.5 / (1 + gamma) ** 2 - 1.5)


def test_the_integral_is_of_fourth_order_and_its_error_holds_the_true_one():
    errors = []
    for count in (12, 24, 48):
        nu = np.geomspace(0.3, 20, count)
        excess, truth = _known(nu**-2.0)
        area = information_integral(excess, nu, **FACTS)
        errors.append(np.abs(inner_area(excess, nu) - (truth - truth[-1])).max())
        off = np.abs(area.value - truth)
        assert (off <= 3 * area.error + 1e-3 * truth)[np.isfinite(area.value)].all()  # the error can vanish by chance
        assert np.isfinite(area.value[: count // 2]).all()
    assert np.log2(errors[0] / errors[2]) / 2 > 3


def test_the_integral_is_linear_and_of_the_last_axis(monkeypatch):
    rng = np.random.default_rng(2)
    nu, excess = np.geomspace(0.2, 9, 10), rng.normal(size=(5, 4, 10))
    weights = rng.normal(size=5)
    summed = inner_area(np.tensordot(weights, excess, 1), nu)
    np.testing.assert_allclose(summed, np.tensordot(weights, inner_area(excess, nu), 1), rtol=1e-9, atol=1e-10)
    assert information_integral(excess, nu, **FACTS).tail.shape == (5, 4)
    np.testing.assert_array_equal(inner_area(excess, nu)[2, 1], inner_area(excess[2, 1], nu))
    at_once = inner_area(excess, nu)
    monkeypatch.setattr("gaussian_test.analysis.theory.predictions.BLOCK", 3)
    for order in "CF":  # curves over samples are often transposed
        np.testing.assert_array_equal(inner_area(np.array(excess, order=order), nu), at_once)


@pytest.mark.parametrize("separation", [4.0, 30.0])
@pytest.mark.parametrize("largest", [0.3, 1.0, 3.0])
def test_a_part_beyond_that_cannot_be_bounded_is_not_left_out(separation, largest):
    """Two symmetric points, whose third cumulant vanishes: the excess looks like a power law long before it is one."""
    nu = np.geomspace(0.01, largest, 40)
    x = np.array([-separation, separation])
    lmmse = separation**2 * nu**2 / (separation**2 + nu**2)  # the mmse is negligible at these noise levels, or smaller
    found = information_integral(lmmse, nu, eigenvalues=[x.var()], third_cumulant_norm=0.0)
    assert np.isnan(found.value).all()
    assert "add larger turn times" in found.reason
