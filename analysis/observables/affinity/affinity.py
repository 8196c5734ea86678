r"""Is the score itself affine at a noise level: the share that simple scores explain of it, and the best affine map.

With :math:`D` the score's denoiser and :math:`s = (\alpha D - x)/\sigma^2`, distances of scores are distances of denoisers,
:math:`s - s' = \alpha(D - D')/\sigma^2`. The share of the squared norm that a reference explains, and the squared distance
of the denoiser from the Gaussian one, are

.. math:: R^2 = 1 - \frac{\mathbb E|s - s_{ref}|^2}{\mathbb E|s|^2},\qquad
          \frac{\mathbb E|D - D_G|^2}{\mathrm{tr}\,\Sigma}.

For an exact score no affine map comes closer than :math:`D_G` (orthogonality principle). A learned score can be affine and
yet far from it: :func:`best_affine` looks for the affine map that it is close to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from gaussian_test.analysis.moments.gaussian_score import GaussianScore, class_moments, stack_components
from gaussian_test.analysis.moments.moments import Moments
from gaussian_test.analysis.statistics.banded import banded, ratio_of_means
from gaussian_test.analysis.statistics.bootstrap import ClusterBootstrap
from gaussian_test.sampler import MixtureScore, Process

Array = NDArray[np.float64]


def isotropic_score(moments: Moments, process: Process | None = None, dtype: torch.dtype = torch.float32) -> GaussianScore:
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


def class_mixture(x: Any, labels: Any, process: Process | None = None, dtype: torch.dtype = torch.float32) -> MixtureScore:
    """Return the score of the mixture of one Gaussian per class, with the mean, covariance and share of each class.

    Parameters
    ----------
    x : array
        Samples, shape (N, ``*event``).
    labels : array
        Classes, integers from 0, shape (N,); at least two samples in each that is there.
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
    return mixture_of_classes(class_moments(x, labels), process, dtype)


def mixture_of_classes(
    by_class: Sequence[tuple[int, Moments]], process: Process | None = None, dtype: torch.dtype = torch.float32
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
        # beside a class of full rank no direction counts as outside: the others have to list those without variance
        moments = [_completed(m) for m in moments]
    weights = torch.tensor([float(m.count) for m in moments], dtype=torch.float64)
    classes = torch.tensor([label for label, _ in by_class])
    return MixtureScore(weights, stack_components(moments, dtype), moments[0].event_shape, classes, process)


def _completed(moments: Moments) -> Moments:
    """Return the same moments with all modes, those of variance 0 too."""
    modes = len(moments.eigenvalues)
    basis, _ = np.linalg.qr(moments.eigenvectors, mode="complete")
    vectors = np.hstack([moments.eigenvectors, basis[:, modes:]])
    return replace(moments, eigenvalues=np.append(moments.eigenvalues, np.zeros(len(basis) - modes)), eigenvectors=vectors)


def explained_share(score_square: ArrayLike, distance_square: ArrayLike) -> Array:
    r"""Return pseudo-values of the share explained, :math:`R^2 = 1 - \sum|s-s_{ref}|^2/\sum|s|^2`.

    Parameters
    ----------
    score_square : array
        :math:`|s|^2` of each sample, repeats averaged, shape (..., samples, points).
    distance_square : array
        :math:`|s - s_{ref}|^2` of the same, in the same unit, shape (..., samples, points).

    Returns
    -------
    ndarray
        Shape (..., samples, points), dimensionless: at most 1 on average, and 1 for every sample where the score is the
        reference. NaN where the score is zero.

    References
    ----------
    Wang & Vastola, arXiv 2412.09726.

    Examples
    --------
    >>> explained_share([[4.0], [4.0]], [[1.0], [0.0]]).mean()
    np.float64(0.875)
    """
    return 1 - ratio_of_means(distance_square, score_square)


def affinity(
    score_square: xr.DataArray, score_distance: xr.DataArray, denoiser_gap: xr.DataArray, resample: ClusterBootstrap
) -> xr.Dataset:
    r"""Return how much of each score the reference scores explain, and how far its denoiser is from the Gaussian one.

    Parameters
    ----------
    score_square : DataArray
        :math:`|s|^2`, over (score, turn_time, sample, repeat).
    score_distance : DataArray
        :math:`|s - s_{ref}|^2` in the same unit, over (score, reference, turn_time, sample, repeat).
    denoiser_gap : DataArray
        :math:`|D - D_G|^2/\mathrm{tr}\,\Sigma`, over (score, turn_time, sample, repeat).
    resample : ClusterBootstrap
        Of the samples.

    Returns
    -------
    Dataset
        ``score_explained(score, reference, turn_time)`` and ``denoiser_gap(score, turn_time)``, each with ``_se``, ``_low`` and
        ``_high``; dimensionless.

    Raises
    ------
    ValueError
        If the number of samples is not that of the bootstrap, or coordinates differ.

    References
    ----------
    Wang & Vastola, arXiv 2412.09726.

    Examples
    --------
    >>> square = xr.DataArray(np.full((1, 2, 9, 1), 4.0), dims=("score", "turn_time", "sample", "repeat"))
    >>> distance = (square / 4).expand_dims("reference", axis=1)
    >>> affinity(square, distance, 0 * square, ClusterBootstrap(9, 100)).score_explained.values.tolist()
    [[[0.75, 0.75]]]
    """
    core = ["sample", "turn_time"]
    explained = xr.apply_ufunc(
        explained_share,
        _averaged(score_square),
        _averaged(score_distance),
        input_core_dims=[core, core],
        output_core_dims=[core],
        join="exact",
    )
    result = banded(
        _described(
            explained,
            "score_explained",
            "share of the score's squared norm that a reference score explains",
            "1 - E|s-s_ref|^2/E|s|^2",
        ),
        resample,
        bounded="below one",
    )
    return result.merge(
        banded(
            _described(
                _averaged(denoiser_gap),
                "denoiser_gap",
                "squared distance of the denoiser from the Gaussian one",
                "E|D-D_G|^2/tr(Sigma)",
            ),
            resample,
            bounded="positive",
        ),
        compat="override",
        join="exact",
    )


def best_affine_gap(values: xr.DataArray, baseline: xr.DataArray, trace: float, resample: ClusterBootstrap) -> xr.Dataset:
    r"""Return how far each denoiser is from the affine map fitted to it, and by how much that is closer than the Gaussian one.

    Parameters
    ----------
    values, baseline : DataArray
        Squared distances of :class:`AffineFit`, in the squared unit of the data, over (score, turn_time, sample), repeats
        averaged or as one more dimension.
    trace : float
        :math:`\mathrm{tr}\,\Sigma`.
    resample : ClusterBootstrap
        Of the samples.

    Returns
    -------
    Dataset
        ``affine_gap`` and ``affine_gain`` over (score, turn_time), each with ``_se``, ``_low`` and ``_high``, and
        ``affine_gain_pvalue``; dimensionless.

    Raises
    ------
    ValueError
        If the number of samples is not that of the bootstrap, or coordinates differ.

    Notes
    -----
    The errors are those of the maps that were fitted; another set of samples would give slightly other maps.

    Examples
    --------
    >>> baseline = xr.DataArray(np.full((1, 1, 9), 4.0), dims=("score", "turn_time", "sample"))
    >>> result = best_affine_gap(baseline / 4, baseline, 8.0, ClusterBootstrap(9, 100))
    >>> result.affine_gap.item(), result.affine_gain.item()
    (0.125, 0.375)
    """
    values, baseline = xr.align(_averaged(values), _averaged(baseline), join="exact")
    gap = _described(
        values / trace,
        "affine_gap",
        "squared distance of the denoiser from the best affine map found",
        "E|D-D_affine|^2/tr(Sigma), on samples that the map was not fitted to",
    )
    gain = _described(
        (baseline - values) / trace,
        "affine_gain",
        "gain of the best affine map found over the Gaussian one",
        "E[|D-D_G|^2 - |D-D_affine|^2]/tr(Sigma), on samples that the map was not fitted to; not positive for an exact score",
    )
    result = banded(gap, resample, bounded="positive")
    result = result.merge(banded(gain, resample, ("", "_se", "_low", "_high", "_pvalue")), compat="override")
    # a map that is worse than the Gaussian says nothing against it
    pvalue = result["affine_gain_pvalue"]
    result["affine_gain_pvalue"] = pvalue.where(result["affine_gain"] > 0, 1.0)
    return result


def _averaged(values: xr.DataArray) -> xr.DataArray:
    return values.mean("repeat") if "repeat" in values.dims else values


def _described(values: xr.DataArray, name: str, long_name: str, comment: str) -> xr.DataArray:
    named = values.rename(name)
    named.attrs = {"long_name": long_name, "units": "1", "comment": comment}
    return named
