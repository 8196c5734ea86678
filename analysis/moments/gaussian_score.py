r"""Affine score of the Gaussian with the data's moments.

.. math:: D_G(x, t) = \mu + \alpha_t\Sigma(\alpha_t^2\Sigma + \sigma_t^2)^{-1}(x - \alpha_t\mu)

In the eigenbasis every mode is multiplied by :math:`\lambda_i/(\lambda_i + \nu_t^2)`; no matrix is inverted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from gaussian_test.analysis.moments.moments import Moments, Shrinkage, class_moments, fit_moments
from gaussian_test.sampler import (
    GaussianComponents,
    MixtureScore,
    ModalForm,
    Noise,
    Process,
    Score,
    VarianceExploding,
    eigen_factors,
)
from gaussian_test.sampler.process import Time
from gaussian_test.sampler.scores.gaussian import over_noise
from gaussian_test.sampler.scores.score import Evaluated


class GaussianScore(Score):
    """Affine score of a Gaussian, or of one Gaussian per class.

    Parameters
    ----------
    components : GaussianComponents
        One Gaussian, or one per class (then every call needs labels).
    event_shape : tuple of int
        Shape of one sample.
    process : Process, optional
        Default: variance exploding.
    labels : Tensor, optional
        Class of each component, int64, shape (components,). Default: component k is class k; a single component has no class.

    Examples
    --------
    >>> score = GaussianScore.from_moments([0.0, 0.0], spectrum=[3.0, 1.0])
    >>> score.denoise(torch.tensor([[4.0, 4.0]]), 1.0)
    tensor([[3., 2.]])
    """

    has_posterior: ClassVar[bool] = True
    labels: Tensor | None

    def __init__(
        self,
        components: GaussianComponents,
        event_shape: tuple[int, ...],
        process: Process | None = None,
        labels: Tensor | None = None,
    ) -> None:
        super().__init__(process or VarianceExploding(), event_shape)
        if components.means.shape[1] != int(np.prod(event_shape)):
            raise ValueError(
                f"an event of shape {event_shape} does not have {components.means.shape[1]} features: correct the shape"
            )
        self.components = components
        if labels is None and len(components) > 1:
            labels = torch.arange(len(components))
        self.register_buffer("labels", None if labels is None else labels.long().clone())

    @classmethod
    def from_moments(
        cls,
        mean: ArrayLike | Moments,
        covariance: ArrayLike | None = None,
        *,
        spectrum: ArrayLike | None = None,
        process: Process | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> GaussianScore:
        r"""Build the score from a mean and a covariance, or from a bare spectrum.

        Parameters
        ----------
        mean : array or Moments
            :math:`\mu`, shape ``event``; or fitted moments, which suffice alone.
        covariance : array, optional
            :math:`\Sigma`, shape (features, features).
        spectrum : array, optional
            Eigenvalues, shape (features,): the features are then the modes.
        process : Process, optional
            Default: variance exploding.
        dtype : torch.dtype
            float32 or float64.

        Returns
        -------
        GaussianScore

        Raises
        ------
        ValueError
            If neither or both of covariance and spectrum are given, or the shapes do not fit.

        Examples
        --------
        >>> GaussianScore.from_moments([0.0], [[4.0]]).denoise(torch.tensor([[5.0]]), 1.0)
        tensor([[4.]])
        """
        if isinstance(mean, Moments):
            return cls._stack([mean], process, dtype)
        center = torch.as_tensor(np.asarray(mean, dtype=np.float64))
        if (covariance is None) == (spectrum is None):
            raise ValueError("give either a covariance or a spectrum beside the mean, not both and not neither")
        vectors = None
        if covariance is not None:
            values, vectors = eigen_factors(torch.as_tensor(np.asarray(covariance, dtype=np.float64)).unsqueeze(0))
            vectors = vectors.to(dtype)
        else:
            values = torch.as_tensor(np.asarray(spectrum, dtype=np.float64)).reshape(1, -1)
        components = GaussianComponents(center.reshape(1, -1).to(dtype), values.to(dtype), vectors)
        return cls(components, tuple(center.shape), process)

    @classmethod
    def fit(
        cls,
        x: Any,
        labels: Any = None,
        *,
        process: Process | None = None,
        shrinkage: Shrinkage = None,
        dtype: torch.dtype = torch.float32,
    ) -> GaussianScore:
        """Fit mean and covariance of samples and return their affine score.

        Parameters
        ----------
        x : array
            Samples, shape (N, ``*event``); read in chunks.
        labels : array, optional
            Classes 0 ... K-1, shape (N,): one Gaussian per class; calls then need labels.
        process : Process, optional
            Default: variance exploding.
        shrinkage : {None, "ledoit_wolf", "oas"} or float
            As in :func:`fit_moments`.
        dtype : torch.dtype
            float32 or float64.

        Returns
        -------
        GaussianScore

        Raises
        ------
        ValueError
            If the labels do not match or a class has fewer than two samples.

        Examples
        --------
        >>> score = GaussianScore.fit(np.array([[-1.0], [1.0], [4.0], [6.0]]), labels=[0, 0, 1, 1])
        >>> score.denoise(torch.tensor([[1.0], [4.0]]), 1.0, torch.tensor([0, 1]))
        tensor([[0.5000],
                [4.5000]])
        """
        if labels is None:
            return cls._stack([fit_moments(x, shrinkage=shrinkage)], process, dtype)
        by_class = class_moments(x, labels, shrinkage=shrinkage)
        return cls._stack([moments for _, moments in by_class], process, dtype, torch.tensor([label for label, _ in by_class]))

    @classmethod
    def _stack(
        cls, moments: list[Moments], process: Process | None, dtype: torch.dtype, labels: Tensor | None = None
    ) -> GaussianScore:
        return cls(stack_components(moments, dtype), moments[0].event_shape, process, labels)

    def denoise(self, x: Tensor, t: Time, label: Tensor | None = None) -> Tensor:
        y, variance = self.signal(x, t)
        return self._by_class(label, lambda k: self.components.denoise(k, y, variance)).reshape(x.shape)

    def evaluate(self, x: Tensor, t: Time, about: Tensor, label: Tensor | None = None) -> Evaluated:
        y, variance = self.signal(x, t)

        def both(k: int) -> Tensor:
            along = self.components.along(k, y)
            log_density = self.components.log_density(k, y, variance, along)
            return torch.column_stack([self.components.denoise(k, y, variance, along), log_density])

        found = self._by_class(label, both)
        return Evaluated(found[:, :-1].reshape(x.shape), over_noise(found[:, -1], y, variance, about))

    def posterior(self, x: Tensor, t: Time, noise: Noise, label: Tensor | None = None) -> Tensor:
        y, variance = self.signal(x, t)
        normal = self.flat(noise.normal)
        return self._by_class(label, lambda k: self.components.draw(k, y, variance, normal)).reshape(x.shape)

    def modal(self) -> ModalForm | None:
        vectors = self.components.eigenvectors
        if len(self.components) > 1 or vectors is None or vectors.shape[1] != vectors.shape[2]:
            return None
        basis = vectors[0]
        diagonal = GaussianComponents(self.components.means @ basis, self.components.eigenvalues, sound=True)
        return ModalForm(
            GaussianScore(diagonal, self.event_shape, self.process),
            lambda x: (self.flat(x) @ basis).reshape(x.shape),
            lambda x: (self.flat(x) @ basis.T).reshape(x.shape),
        )

    def _by_class(self, label: Tensor | None, compute: Callable[[int], Tensor]) -> Tensor:
        """Compute each row for its class; every class is computed for all rows to avoid a device transfer.

        An unknown class gives NaN.
        """
        if self.labels is None:
            return compute(0)
        if label is None:
            raise ValueError(f"this score has {len(self.components)} classes, one Gaussian each: give a label for every row")
        result = compute(0)
        result = torch.where((label == self.labels[0]).unsqueeze(1), result, torch.nan)
        for component in range(1, len(self.components)):
            result = torch.where((label == self.labels[component]).unsqueeze(1), compute(component), result)
        return result


def stack_components(moments: list[Moments], dtype: torch.dtype) -> GaussianComponents:
    """Stack Gaussians as components of one module; shorter spectra are padded with modes of variance 0.

    Parameters
    ----------
    moments : list of Moments
        One for each component.
    dtype : torch.dtype
        float32 or float64.

    Returns
    -------
    GaussianComponents

    Examples
    --------
    >>> stack_components([fit_moments(np.eye(2)), fit_moments(np.eye(2)[:, ::-1])], torch.float64).eigenvalues.shape
    torch.Size([2, 1])
    """
    modes = max(len(m.eigenvalues) for m in moments)
    values = torch.zeros(len(moments), modes, dtype=torch.float64)
    vectors = torch.zeros(len(moments), moments[0].mean.size, modes, dtype=torch.float64)
    for index, m in enumerate(moments):
        values[index, : len(m.eigenvalues)] = torch.from_numpy(m.eigenvalues)
        vectors[index, :, : len(m.eigenvalues)] = torch.from_numpy(m.eigenvectors)
    means = torch.stack([torch.from_numpy(m.mean.reshape(-1)) for m in moments])
    return GaussianComponents(means.to(dtype), values.to(dtype), vectors.to(dtype))


def isotropic_score(moments: Moments, *, process: Process | None = None, dtype: torch.dtype = torch.float32) -> GaussianScore:
    r"""Return the score of the Gaussian with the data's mean and the covariance :math:`\frac{\mathrm{tr}\,\Sigma}{d}I`.

    Parameters
    ----------
    moments : Moments
        Mean and spectrum of the ground truth.
    process : Process, optional
        Default: variance exploding.
    dtype : torch.dtype
        float32 or float64.

    Returns
    -------
    GaussianScore

    References
    ----------
    Wang & Vastola, arXiv 2412.09726.

    Examples
    --------
    >>> from gaussian_test.analysis.moments.moments import fit_moments
    >>> moments = fit_moments(np.array([[2.0, 0.0], [-2.0, 0.0]]))  # variances 4 and 0: 2 in every direction
    >>> isotropic_score(moments).denoise(torch.tensor([[3.0, 3.0]]), 1.0)
    tensor([[2., 2.]])
    """
    features = moments.mean.size
    spectrum = np.full(features, moments.trace / features)
    return GaussianScore.from_moments(moments.mean, spectrum=spectrum, process=process, dtype=dtype)


def class_mixture(x: Any, labels: Any, *, process: Process | None = None, dtype: torch.dtype = torch.float32) -> MixtureScore:
    """Return the score of the mixture of one Gaussian per class, with the mean, covariance and share of each class.

    Parameters
    ----------
    x : array
        Samples, shape (N, ``*event``).
    labels : array
        Classes, integers from 0, shape (N,); at least two samples in each class present.
    process : Process, optional
        Default: variance exploding.
    dtype : torch.dtype
        float32 or float64.

    Returns
    -------
    MixtureScore
        Conditional on a class where a label is given.

    Raises
    ------
    ValueError
        If the labels do not match, or a class has fewer than two samples or samples that do not vary.

    References
    ----------
    Wang & Vastola, arXiv 2412.09726.

    Examples
    --------
    >>> score = class_mixture(np.array([[-3.0], [-1.0], [1.0], [3.0]]), [0, 0, 1, 1], dtype=torch.float64)
    >>> score.denoise(torch.tensor([[0.0], [0.0]], dtype=torch.float64), 1.0, torch.tensor([0, 1])).tolist()
    [[-1.0], [1.0]]
    """
    return mixture_of_classes(class_moments(x, labels), process=process, dtype=dtype)


def mixture_of_classes(
    by_class: Sequence[tuple[int, Moments]], *, process: Process | None = None, dtype: torch.dtype = torch.float32
) -> MixtureScore:
    """Return the score of the mixture of one Gaussian per class, from the moments of the classes.

    Parameters
    ----------
    by_class : sequence of (int, Moments)
        From :func:`class_moments`.
    process, dtype
        As in :func:`class_mixture`.

    Returns
    -------
    MixtureScore
        Conditional on a class where a label is given.

    Examples
    --------
    >>> by_class = class_moments(np.array([[-3.0], [-1.0], [1.0], [3.0]]), [0, 0, 1, 1])
    >>> mixture_of_classes(by_class).event_shape
    (1,)
    """
    moments = [m for _, m in by_class]
    if any(len(m.eigenvalues) == m.mean.size for m in moments):
        # beside a class of full rank, the others must list their directions without variance
        moments = [_completed(m) for m in moments]
    weights = torch.tensor([float(m.count) for m in moments], dtype=torch.float64)
    classes = torch.tensor([label for label, _ in by_class])
    return MixtureScore(weights, stack_components(moments, dtype), moments[0].event_shape, classes, process)


def _completed(moments: Moments) -> Moments:
    """Return the same moments with all modes, including those of variance 0."""
    modes = len(moments.eigenvalues)
    basis, _ = np.linalg.qr(moments.eigenvectors, mode="complete")
    vectors = np.hstack([moments.eigenvectors, basis[:, modes:]])
    return replace(moments, eigenvalues=np.append(moments.eigenvalues, np.zeros(len(basis) - modes)), eigenvectors=vectors)
