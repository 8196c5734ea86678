r"""Gaussian components in their eigenbases: what the mixture score and the affine Gaussian score are made of.

In the units :math:`y = x_t/\alpha_t = x_0 + \nu_t z`, a Gaussian prior :math:`\mathcal N(\mu, U\Lambda U^\top)` gives

.. math:: E[x_0 \mid y] = \mu + U\frac{\Lambda}{\Lambda + \nu^2}U^\top(y - \mu),\qquad
          \mathrm{Cov}[x_0 \mid y] = U\frac{\Lambda\nu^2}{\Lambda + \nu^2}U^\top .

Only eigen factors are kept, never an inverse; directions outside the span of the data have eigenvalue 0.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
        Whether the values are known to be finite and nonnegative: looking at them waits for their device.

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
        # copies: loading a state must not write into arrays that the caller still holds
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

    def denoise(self, component: int, y: Tensor, variance: Tensor) -> Tensor:
        r"""Return :math:`E[x_0 \mid y]` at noise variance :math:`\nu^2`, scalar or (batch, 1)."""
        values = self.eigenvalues[component]
        modes = self.to_modes(component, y - self.means[component]) * (values / (values + variance))
        return self.means[component] + self.from_modes(component, modes)

    def prior(self, component: int, normal: Tensor) -> Tensor:
        r"""Draw :math:`x_0 = \mu + \Sigma^{1/2}z` from standard normal variables z, (batch, features)."""
        modes = self.to_modes(component, normal) * self.eigenvalues[component].sqrt()
        return self.means[component] + self.from_modes(component, modes)

    def draw(self, component: int, y: Tensor, variance: Tensor, normal: Tensor) -> Tensor:
        r"""Draw from :math:`p(x_0 \mid y)` with the symmetric root of the covariance, which keeps common noise common."""
        values = self.eigenvalues[component]
        gain = values / (values + variance)
        modes = self.to_modes(component, y - self.means[component]) * gain
        modes = modes + self.to_modes(component, normal) * (gain * variance).sqrt()
        return self.means[component] + self.from_modes(component, modes)

    def log_density(self, component: int, y: Tensor, variance: Tensor) -> Tensor:
        r"""Return :math:`\log\mathcal N(y; \mu, \Sigma + \nu^2)` up to :math:`\frac d2\log 2\pi`, shape (batch,)."""
        values = self.eigenvalues[component]
        offset = y - self.means[component]
        modes = self.to_modes(component, offset)
        outside = y.shape[1] - values.shape[0]
        result = (modes.square() / (values + variance)).sum(1) + (values + variance).log().expand_as(modes).sum(1)
        if outside:  # the directions without data carry the noise alone
            rest = (offset - self.from_modes(component, modes)).square().sum(1)  # a difference of squares would cancel
            flat_variance = variance.reshape(-1) if variance.ndim else variance
            result = result + rest / flat_variance + outside * flat_variance.log()
        return -result / 2


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
