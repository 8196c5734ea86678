"""One conformance suite for all exact scores: density, posterior mean, posterior draws, units, precision, module behaviour."""

import math
from itertools import cycle

import numpy as np
import pytest
import torch
from sampler_zoo import PROCESSES, SCORES, Case, noise_like, normal, pairwise_cover
from sklearn.mixture import GaussianMixture

from gaussian_test.analysis.moments.gaussian_score import GaussianScore
from gaussian_test.sampler import (
    EmpiricalScore,
    GaussianComponents,
    MixtureScore,
    Noise,
    ReverseKernel,
    Score,
    VarianceExploding,
    eigen_factors,
)
from gaussian_test.sampler.scores.score import pick

USES = [
    pytest.param(name, conditional, id=f"{name}{'-conditional' if conditional else ''}")
    for name, make in SCORES.items()
    for conditional in make().modes_of_use
]
CONDITIONAL = [param.values[0] for param in USES if param.values[1] and SCORES[param.values[0]]().refit]
VE = VarianceExploding(1e-6, 1e4)
# each use at one noise level, the processes in turn
LAW_OF_DRAWS = list(zip(range(len(USES)), cycle(PROCESSES), cycle([0.8, 2.0, 0.3, 1.2])))


def states(case: Case, process, t, count=6, conditional=False, dtype=torch.float64):
    labels = case.labels(count, conditional)
    x = case.truth.states(process, t, count, labels).reshape(count, *case.event)
    return x.to(dtype), labels


@pytest.mark.parametrize(("name", "conditional"), USES)
def test_denoise_is_the_dense_posterior_mean_and_float32_is_near(name, conditional):
    case = SCORES[name]()
    score, single = (case.make(VE, dtype) for dtype in (torch.float64, torch.float32))
    for level in (1e-3, 0.2, 1.0, 30.0, 1e4):
        x, labels = states(case, VE, level, conditional=conditional)
        expected = case.truth.rows(case.truth.denoise, x, 1.0, level, labels)
        # a density of width nu has its digits divided by nu^2 in the logarithm
        torch.testing.assert_close(score.denoise(x, level, labels), expected, rtol=1e-8, atol=1e-8)
        if 0.1 < level < 100:
            near, scale = single.denoise(x.float(), level, labels), float(case.truth.means.abs().max()) + float(x.abs().max())
            exact = score.denoise(x.float().double(), level, labels)
            torch.testing.assert_close(near, exact.float(), rtol=0, atol=3e-5 * scale / min(level, 1.0))


@pytest.mark.parametrize(("use", "process", "level"), pairwise_cover(range(len(USES)), PROCESSES, [0.05, 0.3, 2.0, 20.0]))
def test_score_is_the_gradient_of_the_log_density_in_every_process(use, process, level):
    (name, conditional), process = USES[use].values, PROCESSES[process]()
    case, t = SCORES[name](), process.turn_time_from_noise_to_signal(level)
    x, labels = states(case, process, t, 3, conditional)
    score, alpha, sigma = case.make(process, torch.float64), process.alpha(t), process.sigma(t)
    expected = case.truth.rows(case.truth.score, x, alpha, sigma, labels)
    torch.testing.assert_close(score(x, t, labels), expected, rtol=1e-8, atol=1e-9 / min(level, 1.0) ** 2)
    ratio = float(process.noise_to_signal(t))  # equal ratios denoise equally
    there = case.make(VE, torch.float64).denoise(x / alpha, ratio, labels)
    torch.testing.assert_close(score.denoise(x, t, labels), there, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(("name", "conditional"), USES)
def test_score_and_draw_at_a_time_per_row_are_row_by_row(name, conditional):
    """The denoiser is in check_score."""
    case = SCORES[name]()
    score = case.make(PROCESSES["cosine"](), torch.float64)
    t = torch.tensor([0.1, 0.5, 0.05, 0.9], dtype=torch.float64)
    x, labels = normal(4, *case.event, seed=8), case.labels(4, conditional)
    noise = noise_like(x)
    together, drawn = score(x, t, labels), score.posterior(x, t, noise, labels)
    assert together.shape == drawn.shape == x.shape
    for row in range(4):
        one = slice(row, row + 1)
        label = None if labels is None else labels[one]
        torch.testing.assert_close(together[one], score(x[one], float(t[row]), label), rtol=1e-9, atol=1e-9)
        alone = score.posterior(x[one], float(t[row]), Noise(noise.normal[one], noise.uniform[one]), label)
        torch.testing.assert_close(drawn[one], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", CONDITIONAL)
def test_a_class_is_the_score_fitted_on_it_alone(name):
    case, level = SCORES[name](), 0.4
    score = case.make(VE, torch.float64)
    for label in range(case.classes):
        labels = torch.full((5,), label)
        x = case.truth.states(VE, level, 5, labels).reshape(5, *case.event)
        alone = case.refit(label, VE, torch.float64)
        torch.testing.assert_close(score.denoise(x, level, labels), alone.denoise(x, level), rtol=1e-9, atol=1e-9)
        noise = noise_like(x)
        torch.testing.assert_close(score.posterior(x, level, noise, labels), alone.posterior(x, level, noise), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("use", "process", "level"), LAW_OF_DRAWS)
def test_posterior_draws_have_the_posterior_moments(use, process, level):
    """Mean D and covariance (sigma^2/alpha) dD/dx, both from the dense truth, within four standard errors."""
    name, conditional = USES[use].values
    case, process, count = SCORES[name](), PROCESSES[process](), 10_000
    t = process.turn_time_from_noise_to_signal(level)
    one, labels = states(case, process, t, 1, conditional)
    alpha, sigma = process.alpha(t), process.sigma(t)
    label = None if labels is None else int(labels[0])

    def denoise(x):
        return case.truth.denoise(x, alpha, sigma, label)

    mean = denoise(one.flatten())
    covariance = torch.autograd.functional.jacobian(denoise, one.flatten()) * sigma**2 / alpha
    x = one.expand(count, *case.event)
    score = case.make(process, torch.float64)
    drawn = score.posterior(x, t, noise_like(x, seed=3), None if labels is None else labels.expand(count))
    assert drawn.shape == x.shape
    deviation = drawn.flatten(1) - mean
    error = (covariance.diagonal().clamp(min=0) / count).sqrt()
    assert bool((deviation.mean(0).abs() <= 4 * error + 1e-9).all())
    products = deviation.unsqueeze(2) * deviation.unsqueeze(1)
    fourth = case.truth.posterior_fourth_moments(one.flatten(), alpha, sigma, label)
    error = ((fourth - covariance**2).clamp(min=0) / count).sqrt()
    assert bool(((products.mean(0) - covariance).abs() <= 4 * error + 1e-9).all())


@pytest.mark.parametrize(("name", "conditional"), USES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_overflows(name, conditional, dtype):
    case = SCORES[name]()
    score, labels = case.make(VE, dtype), case.labels(4, conditional)
    for level, distance in [(1e-6, 1.0), (1e-3, 1e4), (1.0, 1e6), (1e4, 1e6), (1e4, 0.0)]:
        x = (distance * normal(4, *case.event, seed=9)).to(dtype)
        for result in (score.denoise(x, level, labels), score(x, level, labels), score.posterior(x, level, noise_like(x), labels)):
            assert result.dtype == dtype
            assert bool(torch.isfinite(result).all())


@pytest.mark.parametrize(("name", "conditional"), USES)
def test_a_score_is_a_module_whose_state_is_all_of_it(name, conditional):
    """It moves to float64 whole, and its state makes another module the same score."""
    case = SCORES[name]()
    x, labels = states(case, VE, 1.0, conditional=conditional)
    exact = case.make(VE, torch.float64).denoise(x, 1.0, labels)
    for score in (case.make(VE, torch.float32).double(), case.make(VE, torch.float32).to(torch.float64)):
        assert {buffer.dtype for buffer in score.buffers() if buffer.is_floating_point()} == {torch.float64}
        torch.testing.assert_close(score.denoise(x, 1.0, labels), exact, rtol=1e-4, atol=1e-4)
    assert not list(score.parameters())  # nothing to train
    fresh, kept = case.make(VE, torch.float64), {key: value.clone() for key, value in score.state_dict().items()}
    for buffer in fresh.buffers():
        buffer.copy_(torch.zeros_like(buffer))
    fresh.load_state_dict(kept)
    assert torch.equal(fresh.denoise(x, 1.0, labels), score.denoise(x, 1.0, labels))


@pytest.mark.parametrize("name", SCORES)
def test_wrong_shapes_are_refused(name):
    case = SCORES[name]()
    score = case.make(VE, torch.float64)
    assert score.event_shape == case.event
    for shape in ((3, *case.event, 1), (3,), (3, case.event[0] + 1, *case.event[1:])):
        with pytest.raises(ValueError, match="does not fit this score"):
            score.denoise(torch.zeros(shape), 1.0, case.labels(3, case.needs_label))
    with pytest.raises(ValueError, match="does not fit a batch of 3"):
        score.denoise(normal(3, *case.event), torch.ones(2), case.labels(3, case.needs_label))


def test_pick_at_the_ends_of_the_unit_interval():
    weights = torch.tensor([[0.0, 0.0, 1.0, 0.0, 3.0, 0.0]]).double()
    for scale, uniform, column in ((1, 0.0, 2), (1, 1 - 2**-53, 4), (3e300, 1 - 2**-53, 4)):
        assert pick(weights / scale, torch.tensor([uniform]).double())[0].tolist() == [column]


def test_a_score_without_posterior_says_so():
    class Zero(Score):
        def denoise(self, x, t, label=None):
            return torch.zeros_like(x)

    score = Zero(VE, (2,))
    assert not score.has_posterior
    assert score.modal() is None
    x = normal(3, 2)
    torch.testing.assert_close(score(x, 2.0), -x / 4)
    with pytest.raises(TypeError, match="Zero cannot draw from its posterior"):
        score.posterior(x, 1.0, noise_like(x))
    for abstract in (lambda: Score(VE, (2,)), ReverseKernel):
        with pytest.raises(TypeError, match="abstract"):
            abstract()


@pytest.mark.parametrize("name", ["gaussian_full", "gaussian_fitted"])
def test_modal_form_is_the_score_rotated(name):
    case = SCORES[name]()
    score = case.make(VE, torch.float64)
    form = score.modal()
    x = normal(5, *case.event, seed=12)
    torch.testing.assert_close(form.rotate_back(form.rotate(x)), x)
    torch.testing.assert_close(form.rotate_back(form.score.denoise(form.rotate(x), 0.7)), score.denoise(x, 0.7))
    torch.testing.assert_close(form.rotate(x).flatten(1).norm(dim=1), x.flatten(1).norm(dim=1))
    # mode by mode: the answer to one coordinate does not depend on the others
    other = form.rotate(x).flatten(1)
    other[:, 1:] = 0
    here = form.score.denoise(other.reshape(x.shape), 0.7).flatten(1)[:, 0]
    torch.testing.assert_close(here, form.score.denoise(form.rotate(x), 0.7).flatten(1)[:, 0])
    for other in ("gaussian_spectrum", "gaussian_fewer_than_features", "gaussian_classes"):  # without a full basis
        assert SCORES[other]().make(VE, torch.float64).modal() is None


def test_responsibilities_of_other_classes_vanish():
    case = SCORES["mixture_shared_labels"]()
    score = case.make(VE, torch.float64)
    x = normal(6, *case.event)
    labels = torch.arange(6) % 2
    shares = score.responsibilities(x, 1.0, labels)
    torch.testing.assert_close(shares.sum(1), torch.ones(6).double())
    assert bool((shares[case.truth.labels != labels.unsqueeze(1)] == 0).all())
    everywhere = score.responsibilities(x, 1.0)
    kept = everywhere * (case.truth.labels == labels.unsqueeze(1))
    torch.testing.assert_close(shares, kept / kept.sum(1, keepdim=True))


def test_a_low_rank_gaussian_does_not_depend_on_the_basis_of_its_plane_in_float32():
    """Twice the same isotropic Gaussian on a plane, in two bases of it: each is responsible for half, at any noise level.

    Weights need not be normalised: of thrice the weight, three quarters.
    """
    d, r, nu = 64, 8, 0.002
    plane, turn = (torch.linalg.qr(normal(*shape, r, seed=1))[0] for shape in ((d,), (r,)))
    mean = normal(d, dtype=torch.float32)
    components = GaussianComponents(mean.expand(2, d).clone(), torch.ones(2, r), torch.stack([plane, plane @ turn]).float())
    x = mean + (normal(20, r, seed=2) @ plane.T).float() + nu * normal(20, d, seed=3, dtype=torch.float32)
    for weights in (torch.ones(2), torch.tensor([40.0, 120.0])):
        shares = MixtureScore(weights, components, (d,)).responsibilities(x, nu)
        torch.testing.assert_close(shares, (weights / weights.sum()).expand(20, 2), rtol=0, atol=0.05)


def test_eigen_factors_give_the_covariance_back():
    a = normal(3, 5, 5)
    for covariance in (a @ a.mT, a[:, :, :2] @ a[:, :, :2].mT, torch.zeros(1, 4, 4).double()):
        values, vectors = eigen_factors(covariance)
        assert bool((values >= 0).all())
        torch.testing.assert_close((vectors * values.unsqueeze(1)) @ vectors.mT, covariance)
        torch.testing.assert_close(vectors.mT @ vectors, torch.eye(covariance.shape[-1]).double().expand_as(covariance))
    for wrong in ([[1.0, 0.5], [0.0, 1.0]], [[1.0, 2.0], [2.0, 1.0]], [[-1.0, 0.0], [0.0, 1.0]]):
        with pytest.raises(ValueError, match="positive semidefinite"):
            eigen_factors(torch.tensor(wrong))


# -- what is the caller's, and classes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_a_mixture_leaves_sklearn_alone(kind):
    x = np.random.default_rng(0).normal(size=(60, 3))
    one, two = (GaussianMixture(2, covariance_type=kind, random_state=s).fit(x * (1 + s)) for s in (0, 1))
    means, covariances = one.means_.copy(), one.covariances_.copy()
    score, other = (MixtureScore.from_sklearn(m, dtype=torch.float64) for m in (one, two))
    score.load_state_dict(other.state_dict())
    assert np.array_equal(one.means_, means)
    assert np.array_equal(one.covariances_, covariances)


def test_what_is_given_stays_the_users_and_the_scores():
    mean, spectrum = np.zeros(3), np.ones(3)
    score = GaussianScore.from_moments(mean, spectrum=spectrum, dtype=torch.float64)
    mean += 5
    spectrum *= 4
    assert score.denoise(torch.zeros(1, 3).double(), 1.0).tolist() == [[0.0, 0.0, 0.0]]
    x, labels = normal(4, 2), torch.tensor([0, 0, 1, 1])
    samples, given = x.clone(), labels.clone()
    score = EmpiricalScore(samples, given)
    before = score.denoise(x, 1.0, labels)
    assert torch.equal(samples, x)
    samples += 100
    given[:] = 0
    assert torch.equal(score.denoise(x, 1.0, labels), before)
    score.load_state_dict(EmpiricalScore(x, torch.tensor([1, 1, 0, 0])).state_dict())
    assert given.tolist() == [0, 0, 0, 0]


def test_classes_may_have_gaps_and_an_unknown_one_is_not_class_zero():
    """Labels may live on a device, where looking at them would wait: an unknown class gives NaN, which a run then reports."""
    x, labels, state = normal(20, 3).numpy(), np.arange(20) % 2, torch.ones(2, 3)
    apart, together = GaussianScore.fit(x, 4 * labels), GaussianScore.fit(x, labels)
    assert torch.equal(apart.denoise(state, 1.0, torch.tensor([4, 0])), together.denoise(state, 1.0, torch.tensor([1, 0])))
    for score in (together, EmpiricalScore.fit(x, labels)):
        denoised = score.denoise(state, 1.0, torch.tensor([7, 1]))
        assert denoised[0].isnan().all()
        assert denoised[1].isfinite().all()


ONE, TWO = torch.zeros(1, 2), (torch.zeros(2, 1), torch.ones(2, 1, 1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EmpiricalScore(torch.zeros(3)), "not a set of samples"),
        (lambda: EmpiricalScore(torch.zeros(2, 3, dtype=torch.int64)), "are not states"),
        (lambda: EmpiricalScore(torch.tensor([[math.nan]])), "NaN or infinite"),
        (lambda: EmpiricalScore(torch.zeros(3, 2), torch.zeros(2)), "do not match 3 samples"),
        (lambda: EmpiricalScore(ONE).denoise(ONE, 1.0, torch.zeros(1).long()), "made without labels"),
        (lambda: EmpiricalScore(ONE).posterior(ONE, 1.0, noise_like(ONE), torch.zeros(1).long()), "made without labels"),
        (lambda: GaussianComponents(torch.zeros(1, 2), torch.zeros(1, 3)), "do not fit"),
        (lambda: GaussianComponents(torch.zeros(1, 2), torch.zeros(2, 2)), "do not fit"),
        (lambda: GaussianComponents(torch.zeros(1, 2), torch.zeros(1, 1), torch.zeros(1, 1, 2)), "do not fit"),
        (lambda: GaussianComponents(torch.zeros(1, 2), torch.tensor([[1.0, -1.0]])), "negative"),
        (lambda: GaussianComponents(torch.tensor([[math.nan]]), torch.ones(1, 1)), "NaN or infinite"),
        (lambda: GaussianComponents(torch.zeros(1, 1), torch.tensor([[math.inf]])), "NaN or infinite"),
        (lambda: MixtureScore.from_moments([1.0], *TWO), "do not fit 2 components"),
        (lambda: MixtureScore.from_moments([1.0, 0.0], *TWO), "positive weight"),
        (lambda: MixtureScore.from_moments([1.0, -1.0], *TWO), "positive weight"),
        (lambda: MixtureScore.from_moments([1.0, math.nan], *TWO), "positive weight"),
        (lambda: MixtureScore.from_moments([1, 1], *TWO, labels=[0]), "do not match 2 components"),
        (lambda: MixtureScore.from_moments([1], torch.zeros(1, 2), -torch.eye(2)[None]), "negative"),
        (lambda: MixtureScore.from_sklearn(GaussianMixture(2)), "not fitted"),
        (lambda: MixtureScore.from_sklearn(GaussianMixture(1).fit(np.eye(4)), (3,)), "does not have the 4 features"),
        (lambda: GaussianScore.from_moments([0.0]), "either a covariance or a spectrum"),
        (lambda: GaussianScore.from_moments([0.0], [[1.0]], spectrum=[1.0]), "either a covariance or a spectrum"),
        (lambda: GaussianScore.from_moments([0.0, 0.0], spectrum=[1.0]), "do not fit"),
        (lambda: GaussianScore.from_moments([0.0, 0.0], [[1.0]]), "do not fit"),
        (lambda: GaussianScore.from_moments([0.0], spectrum=[-1.0]), "negative"),
        (lambda: GaussianScore.fit(np.zeros((4, 2))), "all the same"),
        (lambda: GaussianScore.fit(np.eye(4), labels=[0, 0, 1]), "do not match 4 samples"),
        (lambda: GaussianScore.fit(np.eye(4), labels=[0, 0, 0, 1]), "class 1 has 1 samples"),
        (lambda: SCORES["gaussian_classes"]().make(VE, torch.float32).denoise(torch.zeros(1, 5), 1.0), "give a label"),
    ],
)
def test_impossible_scores_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("rank", [1, 3, 5])
@pytest.mark.parametrize("level", [0.01, 1.0, 10.0])
def test_log_density_is_the_multivariate_normal(rank, level):
    """Whether the empty directions are listed with variance 0 or left out."""
    values, vectors = torch.linspace(0.5, 2, 5).double(), torch.linalg.qr(normal(5, 5))[0]
    values[rank:] = 0
    covariance = (vectors * values) @ vectors.T + level**2 * torch.eye(5)
    mean, y = normal(5, seed=1), normal(4, 5, seed=2)
    expected = torch.distributions.MultivariateNormal(mean, covariance).log_prob(y) + 2.5 * math.log(
        2 * math.pi * torch.tensor(level**2).item()
    )
    for variance in (torch.full((4, 1), level**2).double(), torch.tensor(level**2).double()):
        for modes in {rank, 5}:
            components = GaussianComponents(mean[None], values[None, :modes], vectors[None, :, :modes])
            torch.testing.assert_close(components.log_density(0, y, variance), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("apart", "nu"), [(0.5, 0.7), (4.0, 0.7), (40.0, 0.7), (0.02, 2e-3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_components_without_weight_change_nothing_but_rounding(apart, nu, dtype, monkeypatch):
    """Coordinates kept or not, all rows or those of weight: the mean, the density and the draw of the plain form."""
    from gaussian_test.sampler.scores import gaussian

    factors = torch.randn(5, 12, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / 2
    means = apart * torch.randn(5, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    vectors, sizes, _ = torch.linalg.svd(factors, full_matrices=False)  # fewer modes than features
    exact = gaussian.GaussianComponents(means, sizes**2, vectors)
    components = gaussian.GaussianComponents(means.to(dtype), (sizes**2).to(dtype), vectors.to(dtype))
    score = MixtureScore(torch.arange(1, 6) / 15, components, (12,))
    within = (factors @ normal(5, 4, 8, seed=5)).mT.reshape(40, 12)
    x = (means.repeat_interleave(8, 0) + within + nu * normal(40, 12, seed=3)).to(dtype)
    noise = noise_like(x)

    def found():
        evaluated = score.evaluate(x, nu, means[0].to(dtype))
        return score.denoise(x, nu), evaluated.denoised, evaluated.log_ratio, score.posterior(x, nu, noise)

    fast = found()
    with monkeypatch.context() as patch:
        patch.setattr(gaussian, "_where", lambda chosen: slice(None))
        patch.setattr(gaussian, "KEPT", 0)
        plain = found()
    close = 2e-5 if dtype == torch.float32 else 1e-12
    for one, other in zip(fast, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=close, atol=close)
    own = torch.arange(5).repeat_interleave(8) == 1
    variance = torch.tensor(nu**2)
    densities = [one.log_density(1, x[own].to(one.means.dtype), variance.to(one.means.dtype)) for one in (components, exact)]
    torch.testing.assert_close(densities[0].double(), densities[1], rtol=0, atol=5e-3)
