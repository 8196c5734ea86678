"""The zoo: every process, every kernel and every exact score, and one independent truth for all of the scores.

All exact scores are Gaussian mixtures: the empirical one has a component of covariance 0 per sample. So one dense computation,
with the covariance matrices written out and solved, holds for each of them. Networks are in network_zoo.py.
"""

import math
from dataclasses import dataclass
from functools import cache
from itertools import combinations, product

import numpy as np
import torch
from sklearn.mixture import GaussianMixture

from gaussian_test.analysis.moments.gaussian_score import GaussianScore, stack_components
from gaussian_test.analysis.moments.moments import fit_moments
from gaussian_test.sampler import (
    Ancestral,
    Cosine,
    DiscreteVP,
    EDMStochastic,
    EmpiricalScore,
    ExactReversal,
    MixtureScore,
    Noise,
    OrnsteinUhlenbeck,
    ProbabilityFlow,
    Rectified,
    ReverseSDE,
    VarianceExploding,
    VariancePreserving,
)
from gaussian_test.sampler.scores import empirical, products, store

BETAS = np.linspace(1e-4, 0.02, 1000)
ALPHAS_CUMPROD = np.cumprod(1 - BETAS)

PROCESSES = {
    "variance_exploding": lambda: VarianceExploding(0.002, 80.0),
    "ornstein_uhlenbeck": OrnsteinUhlenbeck,
    "variance_preserving": VariancePreserving,
    "cosine": Cosine,
    "rectified": Rectified,
    "discrete_vp": lambda: DiscreteVP(ALPHAS_CUMPROD),
}
CONTINUOUS = [name for name in PROCESSES if name != "discrete_vp"]
# within the range of every process
LEVELS = [0.02, 0.3, 1.0, 4.0, 50.0]

KERNELS = {
    "exact": ExactReversal,
    "sde": ReverseSDE,
    "sde_variance": lambda: ReverseSDE(clock="variance"),
    "sde_exponential": lambda: ReverseSDE("exponential"),
    "euler": lambda: ProbabilityFlow("euler"),
    "heun": ProbabilityFlow,
    "edm": lambda: EDMStochastic(steps=10),
    "edm_churn": lambda: EDMStochastic(steps=10, S_churn=4.0, S_noise=1.007),
    "ancestral": Ancestral,
}
STEPPED = [name for name in KERNELS if name != "exact"]


def pairwise_cover(*axes):
    """Return rows of one value of each axis, so that every two values of two axes meet in one of them at least."""
    pairs = {row: set(combinations(enumerate(row), 2)) for row in product(*axes)}
    missing, rows = set().union(*pairs.values()), []
    for gain in range(math.comb(len(axes), 2), 0, -1):
        for row, met in pairs.items():
            if len(met & missing) >= gain:
                rows.append(row)
                missing -= met
    return rows


def tiled(monkeypatch, **sizes):
    """Set sizes of tiles and blocks wherever they are read."""
    for name, size in sizes.items():
        homes = [home for home in (empirical, products, store) if hasattr(home, name)]
        assert homes, name
        for home in homes:
            monkeypatch.setattr(home, name, size)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def noise_like(x, seed=0, second=False):
    generator = torch.Generator().manual_seed(seed)
    draws = [torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype) for _ in range(1 + second)]
    return Noise(draws[0], torch.rand(len(x), generator=generator, dtype=torch.float64), *draws[1:])


@dataclass
class Truth:
    """Components of a mixture, float64 and dense: weights (K,), means (K, d), covariances (K, d, d), labels (K,) or None."""

    weights: torch.Tensor
    means: torch.Tensor
    covariances: torch.Tensor
    labels: torch.Tensor | None = None

    def _terms(self, x, alpha, sigma, label):
        """Log of each component's weight and density, (K,), and its posterior mean, (K, d), for one state (d,)."""
        d = len(x)
        noised = alpha**2 * self.covariances + sigma**2 * torch.eye(d, dtype=torch.float64)
        offset = x - alpha * self.means
        solved = torch.linalg.solve(noised, offset)
        logs = -(offset * solved).sum(1) / 2 - torch.linalg.slogdet(noised)[1] / 2 - d / 2 * math.log(2 * math.pi)
        weights = self.weights if label is None else self.weights * (self.labels == label)
        logs = logs + (weights / weights.sum()).log()
        return logs, self.means + alpha * (self.covariances @ solved.unsqueeze(2)).squeeze(2)

    def log_density(self, x, alpha, sigma, label=None):
        return self._terms(x, alpha, sigma, label)[0].logsumexp(0)

    def denoise(self, x, alpha, sigma, label=None):
        logs, means = self._terms(x, alpha, sigma, label)
        return logs.softmax(0) @ means

    def posterior_fourth_moments(self, x, alpha, sigma, label=None):
        """E[e_i^2 e_j^2] of the deviation e of a posterior draw from its mean, (d, d): what the error of a covariance needs."""
        logs, means = self._terms(x, alpha, sigma, label)
        shares = logs.softmax(0)
        noised = alpha**2 * self.covariances + sigma**2 * torch.eye(len(x), dtype=torch.float64)
        within = self.covariances - alpha**2 * self.covariances @ torch.linalg.solve(noised, self.covariances)
        shift = means - shares @ means
        variances, squares = within.diagonal(dim1=1, dim2=2), shift**2
        each = (squares + variances).unsqueeze(2) * (squares + variances).unsqueeze(1)
        each = each + 4 * shift.unsqueeze(2) * shift.unsqueeze(1) * within + 2 * within**2
        return (shares[:, None, None] * each).sum(0)

    def rows(self, what, x, alpha, sigma, labels=None):
        flat = x.double().flatten(1)
        alpha, sigma = (torch.as_tensor(float(v) if not isinstance(v, torch.Tensor) else v).expand(len(x)) for v in (alpha, sigma))
        each = [None] * len(x) if labels is None else labels.tolist()
        return torch.stack([what(*row) for row in zip(flat, alpha, sigma, each, strict=True)]).reshape(x.shape)

    def score(self, x, alpha, sigma, label=None):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(self.log_density(x, alpha, sigma, label), x)[0]

    def states(self, process, t, count, labels=None, seed=5):
        """States that the noised mixture really visits."""
        rng = np.random.default_rng(seed)
        chosen = np.empty(count, dtype=int)
        for row in range(count):
            members = np.arange(len(self.weights)) if labels is None else np.flatnonzero(self.labels.numpy() == int(labels[row]))
            chosen[row] = rng.choice(members)
        d = self.means.shape[1]
        values, vectors = torch.linalg.eigh(self.covariances[chosen])
        modes = (vectors * values.clamp(min=0).sqrt().unsqueeze(1)) @ normal(count, d, 1, seed=seed)
        return process.noised(self.means[chosen] + modes.squeeze(2), t, normal(count, d, seed=seed + 1))


@dataclass
class Case:
    """A score and its truth."""

    make: object  # (process, dtype) -> Score
    truth: Truth
    event: tuple[int, ...]
    classes: int = 0  # labels 0 ... classes - 1 may be given
    needs_label: bool = False
    refit: object = None  # (class, process, dtype) -> the same kind of score made of that class alone

    def labels(self, count, conditional):
        return torch.arange(count) % self.classes if conditional else None

    @property
    def modes_of_use(self):
        return [True] if self.needs_label else ([False, True] if self.classes else [False])


def _empirical(samples, labels=None):
    samples = torch.as_tensor(samples, dtype=torch.float64)
    labels = None if labels is None else torch.as_tensor(labels)
    d = samples[0].numel()
    truth = Truth(torch.ones(len(samples)).double(), samples.flatten(1), torch.zeros(len(samples), d, d).double(), labels)

    def refit(label, process, dtype):
        return EmpiricalScore.fit(samples[labels == label], None, process, dtype)

    return Case(
        lambda process, dtype: EmpiricalScore.fit(samples, None if labels is None else labels.clone(), process, dtype),
        truth,
        tuple(samples.shape[1:]),
        0 if labels is None else int(labels.max()) + 1,
        refit=None if labels is None else refit,
    )


def _covariances(count, d, seed, rank=None):
    factors = normal(count, d, rank or d, seed=seed)
    return factors @ factors.mT / d


def _mixture(count, d, seed, labels=None, rank=None, event=None):
    rng = np.random.default_rng(seed)
    weights, means = torch.from_numpy(rng.uniform(0.5, 2, count)), 1.5 * normal(count, d, seed=seed + 1)
    covariances = _covariances(count, d, seed + 2, rank)
    labels_or_order = torch.arange(count) if labels is None else torch.as_tensor(labels)
    truth = Truth(weights, means, covariances, labels_or_order)
    event = event or (d,)

    def make(process, dtype, chosen=slice(None)):
        kept = None if labels is None or chosen != slice(None) else labels_or_order.clone()
        return MixtureScore.from_moments(
            weights[chosen], means[chosen].reshape(-1, *event), covariances[chosen], kept, process, dtype
        )

    return Case(
        make,
        truth,
        event,
        int(labels_or_order.max()) + 1,
        refit=lambda label, process, dtype: make(process, dtype, (labels_or_order == label).nonzero().squeeze(1)),
    )


@cache
def _fitted(kind):
    rng = np.random.default_rng(11)
    x = np.concatenate([rng.normal(size=(60, 4)) * [1, 0.3, 2, 0.5] + 2, rng.normal(size=(40, 4)) - 1])
    return GaussianMixture(3, covariance_type=kind, random_state=0, init_params="random_from_data").fit(x)


def dense_covariances(mixture):
    count, d = mixture.means_.shape
    given = mixture.covariances_
    return {
        "full": lambda: given,
        "tied": lambda: np.stack([given] * count),
        "diag": lambda: np.stack([np.diag(row) for row in given]),
        "spherical": lambda: np.stack([value * np.eye(d) for value in given]),
    }[mixture.covariance_type]()


def _sklearn(kind):
    fitted = _fitted(kind)
    truth = Truth(*(torch.tensor(a) for a in (fitted.weights_, fitted.means_, dense_covariances(fitted))), torch.arange(3))
    return Case(lambda process, dtype: MixtureScore.from_sklearn(fitted, (1, 2, 2), process, dtype), truth, (1, 2, 2), 3)


def _truth_of(groups, weights=None):
    """One Gaussian per group of samples."""
    return Truth(
        torch.ones(len(groups)).double() if weights is None else weights,
        torch.stack([group.mean(0) for group in groups]),
        torch.stack([torch.cov(group.T, correction=0).reshape(group.shape[1], -1) for group in groups]),
        torch.arange(len(groups)),
    )


def _low_rank_mixture():
    """One Gaussian per class of fewer samples than features, in factors that leave the empty directions out."""
    groups, weights = [normal(4, 6, seed=31) + 1, normal(3, 6, seed=32) - 1], torch.tensor([4.0, 3.0]).double()

    def make(process, dtype):
        return MixtureScore(weights, stack_components([fit_moments(group.numpy()) for group in groups], dtype), (6,), None, process)

    return Case(make, _truth_of(groups, weights), (6,), 2)


def _gaussian(mean, **given):
    """One Gaussian, given its covariance or the spectrum on its diagonal."""
    covariance = given["covariance"] if "covariance" in given else given["spectrum"].diag()
    moments = {name: value.numpy() for name, value in given.items()}
    return Case(
        lambda process, dtype: GaussianScore.from_moments(mean.numpy(), **moments, process=process, dtype=dtype),
        Truth(torch.ones(1).double(), mean.reshape(1, -1), covariance[None]),
        tuple(mean.shape),
    )


def _gaussian_fitted(count, d, constant=False):
    x = normal(count, d, seed=44) + 0.5
    if constant:
        x[:, 1] = 0.75
    return Case(lambda process, dtype: GaussianScore.fit(x.numpy(), process=process, dtype=dtype), _truth_of([x]), (d,))


def _gaussian_classes():
    x, labels = normal(12, 5, seed=45), torch.arange(12) % 3
    x[::3] += 2
    groups = [x[labels == k] for k in range(3)]
    return Case(
        lambda process, dtype: GaussianScore.fit(x.numpy(), labels.numpy(), process=process, dtype=dtype),
        _truth_of(groups),
        (5,),
        3,
        True,
        lambda label, process, dtype: GaussianScore.fit(groups[label].numpy(), process=process, dtype=dtype),
    )


def _bytes():
    pixels = np.random.default_rng(0).integers(0, 256, (24, 1, 2, 2), dtype=np.uint8)

    def make(process, dtype):
        return EmpiricalScore.fit(pixels.copy(), None, process, dtype, scaling=(0.03, -3.0))

    return Case(make, _empirical(0.03 * pixels.astype(np.float64) - 3).truth, (1, 2, 2))


SCORES = {
    "empirical": lambda: _empirical(normal(40, 3, seed=1)),
    "empirical_one_sample": lambda: _empirical(normal(1, 3, seed=2)),
    "empirical_fewer_than_features": lambda: _empirical(normal(5, 7, seed=3)),
    "empirical_duplicates": lambda: _empirical(normal(6, 2, seed=4).repeat(3, 1)),
    "empirical_constant_feature": lambda: _empirical(normal(9, 3, seed=51).index_fill(1, torch.tensor([1]), 0.25)),
    "empirical_bytes": _bytes,
    "empirical_image": lambda: _empirical(normal(33, 1, 2, 2, seed=5)),
    "empirical_labels": lambda: _empirical(normal(50, 3, seed=6), np.arange(50) % 7 % 3),
    "empirical_far_from_origin": lambda: _empirical(normal(12, 3, seed=7) + 30),
    "mixture": lambda: _mixture(3, 4, 10),
    "mixture_one_component": lambda: _mixture(1, 3, 13),
    "mixture_one_feature": lambda: _mixture(4, 1, 16),
    "mixture_shared_labels": lambda: _mixture(4, 4, 19, labels=[0, 1, 0, 1], event=(2, 2)),
    "mixture_singular": lambda: _mixture(3, 5, 22, rank=2),
    "mixture_low_rank_factors": _low_rank_mixture,
    "sklearn_full": lambda: _sklearn("full"),
    "sklearn_tied": lambda: _sklearn("tied"),
    "sklearn_diag": lambda: _sklearn("diag"),
    "sklearn_spherical": lambda: _sklearn("spherical"),
    "gaussian_full": lambda: _gaussian(normal(2, 3, seed=41), covariance=_covariances(1, 6, 42)[0]),
    "gaussian_spectrum": lambda: _gaussian(normal(4, seed=43), spectrum=torch.tensor([4.0, 1.0, 0.01, 0.0]).double()),
    "gaussian_fitted": lambda: _gaussian_fitted(20, 4),
    "gaussian_fewer_than_features": lambda: _gaussian_fitted(4, 7),
    "gaussian_two_samples_one_feature": lambda: _gaussian_fitted(2, 1),
    "gaussian_constant_feature": lambda: _gaussian_fitted(9, 3, constant=True),
    "gaussian_classes": _gaussian_classes,
}
