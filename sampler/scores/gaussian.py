r"""Gaussian components in their eigenbases, and the mixture score.

In the units :math:`y = x_t/\alpha_t = x_0 + \nu_t z`, a Gaussian prior :math:`\mathcal N(\mu, U\Lambda U^\top)` gives

.. math:: E[x_0 \mid y] = \mu + U\frac{\Lambda}{\Lambda + \nu^2}U^\top(y - \mu),\qquad
          \mathrm{Cov}[x_0 \mid y] = U\frac{\Lambda\nu^2}{\Lambda + \nu^2}U^\top .

Only eigen factors are stored, no inverse; directions outside the span of the data have eigenvalue 0.

The score of a Gaussian mixture: responsibilities times the Gaussian posterior mean of each component.

.. math:: D(x, t) = \sum_k r_k(x, t)\,E_k[x_0 \mid x_t = x],\qquad
          r_k \propto \pi_k\,\mathcal N(x;\ \alpha_t\mu_k,\ \alpha_t^2\Sigma_k + \sigma_t^2)
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gaussian_test.sampler.noise import Noise
from gaussian_test.sampler.process import Process, Time
from gaussian_test.sampler.processes import VarianceExploding
from gaussian_test.sampler.scores.score import Evaluated, Score, pick
from gaussian_test.sampler.scores.store import to_tensor

CANCELS = 2**-11  # of the variance of the noise: a log density rounds by as much
KEPT = 2**26  # numbers: coordinates of all components that are kept from their densities to their means


class GaussianComponents(nn.Module):
    """One or several Gaussians in factored form.

    Parameters
    ----------
    means : Tensor
        Shape (components, features).
    eigenvalues : Tensor
        Shape (components, modes), nonnegative.
    eigenvectors : Tensor, optional
        Shape (components, features, modes), orthonormal columns. None means that the features are the modes.
    sound : bool
        Whether the values are known to be finite and nonnegative; checking them would synchronise their device.

    Raises
    ------
    ValueError
        If shapes do not fit, values are not finite or an eigenvalue is negative.

    Examples
    --------
    >>> components = GaussianComponents(torch.zeros(1, 2), torch.tensor([[3.0, 1.0]]))
    >>> components.denoise(0, torch.tensor([[4.0, 4.0]]), torch.tensor(1.0))
    tensor([[3., 2.]])
    """

    means: Tensor
    eigenvalues: Tensor
    eigenvectors: Tensor | None

    def __init__(self, means: Tensor, eigenvalues: Tensor, eigenvectors: Tensor | None = None, sound: bool = False) -> None:
        super().__init__()
        count, features = means.shape
        modes = eigenvalues.shape[1]
        fits = eigenvalues.shape[0] == count and (
            modes == features if eigenvectors is None else eigenvectors.shape == (count, features, modes)
        )
        if not fits:
            raise ValueError(
                f"means {tuple(means.shape)}, eigenvalues {tuple(eigenvalues.shape)} and eigenvectors "
                f"{None if eigenvectors is None else tuple(eigenvectors.shape)} do not fit: give (K, d), (K, r) and (K, d, r)"
            )
        for name, value in (("means", means), ("eigenvalues", eigenvalues), ("eigenvectors", eigenvectors)):
            if not sound and value is not None and not bool(torch.isfinite(value).all()):
                raise ValueError(f"the {name} hold NaN or infinite values: give finite moments")
        if not sound and bool((eigenvalues < 0).any()):
            raise ValueError(
                f"eigenvalue {float(eigenvalues.min()):g} of a covariance is negative: give a positive semidefinite covariance"
            )
        # copy: loading a state dict must not overwrite the caller's arrays
        self.register_buffer("means", means.clone())
        self.register_buffer("eigenvalues", eigenvalues.clone())
        self.register_buffer("eigenvectors", None if eigenvectors is None else eigenvectors.clone())

    def __len__(self) -> int:
        return len(self.means)

    def to_modes(self, component: int, y: Tensor) -> Tensor:
        """Return coordinates along the modes, (batch, modes), of vectors (batch, features)."""
        return y if self.eigenvectors is None else y @ self.eigenvectors[component]

    def from_modes(self, component: int, modes: Tensor) -> Tensor:
        """Return vectors (batch, features) from their coordinates along the modes."""
        return modes if self.eigenvectors is None else modes @ self.eigenvectors[component].T

    def along(self, component: int, y: Tensor) -> Tensor:
        """Return coordinates of states, (batch, modes), from the mean along the modes."""
        return self.to_modes(component, y - self.means[component])

    def denoise(self, component: int, y: Tensor, variance: Tensor, along: Tensor | None = None) -> Tensor:
        r"""Return :math:`E[x_0 \mid y]` at noise variance :math:`\nu^2`, scalar or (batch, 1); of known coordinates if given."""
        values = self.eigenvalues[component]
        modes = (self.along(component, y) if along is None else along) * (values / (values + variance))
        return self.means[component] + self.from_modes(component, modes)

    def prior(self, component: int, normal: Tensor) -> Tensor:
        r"""Draw :math:`x_0 = \mu + \Sigma^{1/2}z` from standard normal variables z, (batch, features)."""
        modes = self.to_modes(component, normal) * self.eigenvalues[component].sqrt()
        return self.means[component] + self.from_modes(component, modes)

    def draw(self, component: int, y: Tensor, variance: Tensor, normal: Tensor) -> Tensor:
        r"""Draw from :math:`p(x_0 \mid y)` with the symmetric root of the covariance, which preserves common random numbers."""
        values = self.eigenvalues[component]
        gain = values / (values + variance)
        modes = self.to_modes(component, y - self.means[component]) * gain
        modes = modes + self.to_modes(component, normal) * (gain * variance).sqrt()
        return self.means[component] + self.from_modes(component, modes)

    def log_density(self, component: int, y: Tensor, variance: Tensor, along: Tensor | None = None) -> Tensor:
        r"""Return :math:`\log\mathcal N(y; \mu, \Sigma + \nu^2)` up to :math:`\frac d2\log 2\pi\nu^2`, shape (batch,)."""
        values = self.eigenvalues[component]
        offset = y - self.means[component]
        modes = self.to_modes(component, offset) if along is None else along
        result = (modes.square() / (values + variance)).sum(1) + (values / variance).log1p().expand_as(modes).sum(1)
        if y.shape[1] > values.shape[0]:  # directions without data contain only noise
            rest = self._outside(component, offset, modes, variance)
            result = result + rest / (variance.reshape(-1) if variance.ndim else variance)
        return -result / 2

    def _outside(self, component: int, offset: Tensor, modes: Tensor, variance: Tensor) -> Tensor:
        """Return the square of what lies outside of the modes: a difference of squares where it does not cancel."""
        whole = offset.square().sum(1, dtype=torch.float64)
        rest = (whole - modes.square().sum(1, dtype=torch.float64)).clamp(min=0).to(offset.dtype)
        rows = _where(whole * torch.finfo(offset.dtype).eps > CANCELS * variance.reshape(-1))
        rest[rows] = (offset[rows] - self.from_modes(component, modes[rows])).square().sum(1)
        return rest


def over_noise(log_density: Tensor, y: Tensor, variance: Tensor, about: Tensor) -> Tensor:
    r"""Return a log density, up to :math:`\frac d2\log 2\pi\nu^2`, relative to noise of this variance about an origin, in float64.

    Examples
    --------
    >>> over_noise(torch.tensor([-0.5]), torch.tensor([[3.0]]), torch.tensor(1.0), torch.tensor([2.0])).item()
    0.0
    """
    return log_density.double() + (y.double() - about.double()).square().sum(1) / variance.double().reshape(-1) / 2


def eigen_factors(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues (negative rounding set to 0) and eigenvectors of covariances (..., d, d), computed in float64.

    Parameters
    ----------
    covariance : Tensor
        Symmetric and positive semidefinite, shape (..., d, d).

    Returns
    -------
    tuple of Tensor
        Eigenvalues, ascending, (..., d), and eigenvectors in columns, (..., d, d), float64.

    Raises
    ------
    ValueError
        If a covariance is not symmetric or has a truly negative eigenvalue.

    Examples
    --------
    >>> eigen_factors(torch.diag(torch.tensor([1.0, 4.0])))[0]
    tensor([1., 4.], dtype=torch.float64)
    """
    covariance = covariance.double()
    scale = covariance.abs().amax().clamp(min=torch.finfo(torch.float64).tiny)
    if not bool(((covariance - covariance.mT).abs() <= 1e-6 * scale).all()):
        raise ValueError("the covariance is not symmetric: give a symmetric, positive semidefinite matrix")
    values, vectors = torch.linalg.eigh((covariance + covariance.mT) / 2)
    if bool((values < -1e-6 * scale * covariance.shape[-1]).any()):
        raise ValueError(f"eigenvalue {float(values.min()):g} of a covariance is negative: give a positive semidefinite covariance")
    return values.clamp(min=0), vectors


class MixtureScore(Score):
    """Exact score of a Gaussian mixture, with one component per class or fitted.

    Parameters
    ----------
    weights : Tensor
        Shape (components,), positive; normalised to sum to 1.
    components : GaussianComponents
        Means and eigen factors.
    event_shape : tuple of int
        Shape of one sample.
    labels : Tensor, optional
        Class of each component, int64, shape (components,). Default: component k is class k.
    process : Process, optional
        Default: variance exploding.

    Raises
    ------
    ValueError
        If the weights are not positive or the sizes do not match.

    Examples
    --------
    >>> score = MixtureScore.from_moments([1, 1], torch.tensor([[-1.0], [1.0]]), torch.zeros(2, 1, 1))
    >>> torch.allclose(score.denoise(torch.tensor([[0.5]]), 1.0), torch.tensor([[0.5]]).tanh())
    True
    """

    has_posterior: ClassVar[bool] = True
    log_weights: Tensor
    labels: Tensor

    def __init__(
        self,
        weights: Tensor,
        components: GaussianComponents,
        event_shape: tuple[int, ...],
        labels: Tensor | None = None,
        process: Process | None = None,
    ) -> None:
        super().__init__(process or VarianceExploding(), event_shape)
        if weights.shape != (len(components),) or not bool((weights > 0).all()):
            raise ValueError(f"weights {weights.tolist()} do not fit {len(components)} components: give one positive weight each")
        if labels is not None and labels.shape != weights.shape:
            raise ValueError(f"{len(labels)} labels do not match {len(weights)} components: give one label per component")
        self.components = components
        self.register_buffer("log_weights", (weights.double() / weights.double().sum()).log().to(components.means.dtype))
        self.register_buffer("labels", torch.arange(len(components)) if labels is None else labels.long().clone())

    @classmethod
    def from_moments(
        cls,
        weights: Any,
        means: Any,
        covariances: Any,
        labels: Any = None,
        process: Process | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> MixtureScore:
        r"""Build a mixture from the moments of its components, for example of the classes of a data set.

        Parameters
        ----------
        weights : array
            :math:`\pi_k`, shape (K,).
        means : array
            :math:`\mu_k`, shape (K, ``*event``).
        covariances : array
            :math:`\Sigma_k`, shape (K, d, d), where d is the number of features of an event.
        labels : array, optional
            Class of each component.
        process, dtype
            As for the other scores.

        Returns
        -------
        MixtureScore

        Examples
        --------
        >>> MixtureScore.from_moments([1.0], torch.zeros(1, 2), torch.eye(2)[None]).log_weights.item()
        0.0
        """
        means = to_tensor(means).double()
        values, vectors = eigen_factors(to_tensor(covariances))
        components = GaussianComponents(means.flatten(1).to(dtype), values.to(dtype), vectors.to(dtype))
        weights = torch.as_tensor(weights, dtype=torch.float64)
        return cls(weights, components, tuple(means.shape[1:]), None if labels is None else to_tensor(labels), process)

    @classmethod
    def from_sklearn(
        cls,
        mixture: Any,
        event_shape: tuple[int, ...] | None = None,
        process: Process | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> MixtureScore:
        """Build the score of a fitted ``sklearn.mixture.GaussianMixture`` of any covariance type.

        Parameters
        ----------
        mixture : GaussianMixture
            Fitted (BayesianGaussianMixture works too).
        event_shape : tuple of int, optional
            Shape of one sample; default: a vector of the fitted features.
        process, dtype
            As for the other scores.

        Returns
        -------
        MixtureScore

        Raises
        ------
        ValueError
            If the mixture is not fitted or the event does not have its number of features.

        Examples
        --------
        >>> from sklearn.mixture import GaussianMixture
        >>> fitted = GaussianMixture(1).fit([[0.0, 0.0], [2.0, 2.0], [0.0, 2.0], [2.0, 0.0]])
        >>> MixtureScore.from_sklearn(fitted).components.means
        tensor([[1., 1.]])
        """
        if not hasattr(mixture, "means_"):
            raise ValueError("the mixture is not fitted: call its fit method first")
        means = torch.as_tensor(mixture.means_, dtype=torch.float64)
        count, features = means.shape
        covariances = torch.as_tensor(mixture.covariances_, dtype=torch.float64)
        kind = mixture.covariance_type
        if kind == "tied":
            covariances = covariances.expand(count, features, features)
        elif kind == "spherical":
            covariances = covariances.unsqueeze(1).expand(count, features)
        if kind in ("full", "tied"):
            values, vectors = eigen_factors(covariances)
            components = GaussianComponents(means.to(dtype), values.to(dtype), vectors.to(dtype))
        else:
            components = GaussianComponents(means.to(dtype), covariances.to(dtype))
        event_shape = event_shape or (features,)
        if torch.Size(event_shape).numel() != features:
            raise ValueError(f"an event of shape {event_shape} does not have the {features} features of a sample: correct it")
        return cls(torch.as_tensor(mixture.weights_), components, event_shape, None, process)

    def responsibilities(self, x: Tensor, t: Time, label: Tensor | None = None) -> Tensor:
        """Return the posterior probability of each component, shape (batch, components).

        Parameters
        ----------
        x, t, label
            As in :meth:`denoise`; components of other classes get 0.

        Returns
        -------
        Tensor
            Rows sum to 1.

        Examples
        --------
        >>> score = MixtureScore.from_moments([1, 3], torch.zeros(2, 1), torch.ones(2, 1, 1))
        >>> score.responsibilities(torch.zeros(1, 1), 1.0)
        tensor([[0.2500, 0.7500]])
        """
        return self._logs(*self.signal(x, t), label)[0].softmax(1)

    def denoise(self, x: Tensor, t: Time, label: Tensor | None = None) -> Tensor:
        y, variance = self.signal(x, t)
        logs, along = self._logs(y, variance, label)
        return self._mean(y, variance, logs.softmax(1), along).reshape(x.shape)

    def evaluate(self, x: Tensor, t: Time, about: Tensor, label: Tensor | None = None) -> Evaluated:
        y, variance = self.signal(x, t)
        logs, along = self._logs(y, variance, label)
        mass = 0 if label is None else self._of_class(self.log_weights.expand_as(logs), label).logsumexp(1)
        log_ratio = over_noise(logs.logsumexp(1) - mass, y, variance, about)
        return Evaluated(self._mean(y, variance, logs.softmax(1), along).reshape(x.shape), log_ratio)

    def posterior(self, x: Tensor, t: Time, noise: Noise, label: Tensor | None = None) -> Tensor:
        y, variance = self.signal(x, t)
        chosen, _ = pick(self._logs(y, variance, label)[0].softmax(1).double(), noise.uniform)
        drawn = torch.empty_like(y)
        for component in range(len(self.components)):
            rows = _where(chosen == component)
            here = self.components.draw(component, y[rows], _of_rows(variance, rows), self.flat(noise.normal)[rows])
            drawn[rows] = here if isinstance(rows, Tensor) else torch.where((chosen == component).unsqueeze(1), here, drawn)
        return drawn.reshape(x.shape)

    def _mean(self, y: Tensor, variance: Tensor, shares: Tensor, along: list[Tensor | None]) -> Tensor:
        """Return the mean over components, without those whose share is lost in rounding."""
        mean, least = torch.zeros_like(y), torch.finfo(y.dtype).eps / 64
        for component in range(len(self.components)):
            rows = _where(shares[:, component] > least)
            known = None if (of_all := along[component]) is None else of_all[rows]
            found = self.components.denoise(component, y[rows], _of_rows(variance, rows), known)
            mean[rows] += shares[rows, component, None] * found
        return mean

    def _logs(self, y: Tensor, variance: Tensor, label: Tensor | None) -> tuple[Tensor, list[Tensor | None]]:
        r"""Return :math:`\log\pi_k\mathcal N_k(y)` up to :math:`\frac d2\log 2\pi\nu^2`, and coordinates if small."""
        along: list[Tensor | None] = [None] * len(self.components)
        if len(along) * len(y) * self.components.eigenvalues.shape[1] <= KEPT:
            along = [self.components.along(k, y) for k in range(len(along))]
        logs = torch.stack([self.components.log_density(k, y, variance, one) for k, one in enumerate(along)], 1) + self.log_weights
        return (logs if label is None else self._of_class(logs, label)), along

    def _of_class(self, logs: Tensor, label: Tensor) -> Tensor:
        return logs.masked_fill(self.labels != label.unsqueeze(1), -torch.inf)


def _where(chosen: Tensor) -> Tensor | slice:
    """Return the chosen rows; on a device all of them, as finding them would wait for it."""
    return slice(None) if chosen.device.type != "cpu" else chosen.nonzero()[:, 0]


def _of_rows(variance: Tensor, rows: Tensor | slice) -> Tensor:
    return variance[rows] if variance.ndim else variance
