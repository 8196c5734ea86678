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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import scipy.linalg
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import GroupKFold

from gaussian_test.analysis.bootstrap import ClusterBootstrap
from gaussian_test.analysis.curves import SUFFIXES
from gaussian_test.analysis.gaussian_score import GaussianScore, class_moments, stack_components
from gaussian_test.analysis.moments import Moments
from gaussian_test.sampler import MixtureScore, Process

Array = NDArray[np.float64]

PENALTIES = (1e3, 1e2, 1e1, 1.0, 1e-1, 1e-2, 1e-4, 1e-6)


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
    >>> from gaussian_test.analysis.moments import fit_moments
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
    by_class = class_moments(x, labels)
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


def banded(
    values: xr.DataArray,
    resample: ClusterBootstrap,
    suffixes: Sequence[str] = ("", "_se", "_low", "_high"),
    bounded: Literal["", "positive", "below one"] = "",
) -> xr.Dataset:
    """Return curves with standard errors and simultaneous bands from pseudo-values.

    Parameters
    ----------
    values : DataArray
        Pseudo-values with a name, over (sample, turn_time) and any others; each curve has a band of its own.
    resample : ClusterBootstrap
        Of the samples.
    suffixes : sequence of {"", "_se", "_low", "_high", "_pvalue"}
        What to give of each band.
    bounded : {"", "positive", "below one"}
        Where the curve cannot go beyond a bound, its values are skewed towards the other side: the band is then symmetric in the
        logarithm of the distance from the bound.

    Returns
    -------
    Dataset
        The name with each suffix, over the dimensions of ``values`` without sample; attributes as those of ``values``.

    Raises
    ------
    ValueError
        If the number of samples is not that of the bootstrap.

    Examples
    --------
    >>> values = xr.DataArray(np.eye(4)[:, :2], dims=("sample", "turn_time"), name="share", attrs={"long_name": "share"})
    >>> result = banded(values, ClusterBootstrap(4, 100))
    >>> result.share.values.tolist(), result.share_se.attrs["long_name"]
    ([0.25, 0.25], 'share, standard error')
    """
    if values.sizes["sample"] != resample.clusters:
        raise ValueError(
            f"{values.sizes['sample']} samples do not fit a bootstrap of {resample.clusters}: make it with the number of samples"
        )
    ordered = values.transpose(..., "sample", "turn_time")
    curves = ordered.values.reshape(-1, *ordered.shape[-2:])
    columns: dict[str, list[Array]] = {suffix: [] for suffix in suffixes}
    for curve in curves:
        if bounded == "below one":
            missing = resample.positive_band(1 - curve)
            band = replace(missing, estimate=1 - missing.estimate, low=1 - missing.high, high=1 - missing.low)
        else:
            band = resample.positive_band(curve) if bounded else resample.band(curve)
        found = {"": band.estimate, "_se": band.standard_error, "_low": band.low, "_high": band.high, "_pvalue": band.pvalue}
        for suffix in suffixes:
            columns[suffix].append(found[suffix])
    like = ordered.isel(sample=0, drop=True)
    return xr.Dataset(
        {
            f"{values.name}{suffix}": like.copy(data=np.reshape(column, like.shape)).assign_attrs(
                long_name=f"{values.attrs['long_name']}{SUFFIXES[suffix]}"
            )
            for suffix, column in columns.items()
        }
    )


def ratio_of_means(numerator: ArrayLike, denominator: ArrayLike) -> Array:
    r"""Return pseudo-values of a ratio of means: :math:`y_i = R + (a_i - R\,b_i)/\bar b`, where :math:`R = \bar a/\bar b`.

    Parameters
    ----------
    numerator, denominator : array
        Of the same samples, shapes (..., samples, points), broadcast against each other.

    Returns
    -------
    ndarray
        Shape (..., samples, points): mean R, and the spread that the ratio has to leading order. NaN where
        :math:`\bar b = 0`.

    Examples
    --------
    >>> ratio_of_means([[1.0], [3.0]], [[2.0], [2.0]]).tolist()
    [[0.5], [1.5]]
    """
    a, b = np.broadcast_arrays(np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64))
    below = b.mean(-2, keepdims=True)
    below = np.where(below == 0, np.nan, below)
    ratio = a.mean(-2, keepdims=True) / below
    result: Array = ratio + (a - ratio * b) / below
    return result


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


@dataclass(frozen=True)
class AffineFit:
    """How close affine maps come to a denoiser, out of sample.

    Attributes
    ----------
    values : ndarray
        Squared distance of the denoiser from the affine map fitted without this sample, shape (n,).
    baseline : ndarray
        Squared distance from the Gaussian denoiser, shape (n,).
    penalty : ndarray
        Of each fold, shape (folds,); infinity is the Gaussian denoiser itself.
    """

    values: Array
    baseline: Array
    penalty: Array

    @property
    def gain(self) -> Array:
        """How much closer the fitted map comes than the Gaussian one, shape (n,)."""
        return self.baseline - self.values


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


def affine_features(x: ArrayLike, moments: Moments, process: Process, time: float) -> Array:
    r"""Return noised states in the two scalings of :func:`best_affine`.

    The first is whitened, :math:`w = (\alpha^2\Sigma + \sigma^2)^{-1/2}(x_t - \alpha\mu)`: a change is as likely in any
    direction. The second weighs mode i of it by :math:`\sqrt{W_i}`, the root of the share
    :math:`W_i = \alpha^2\lambda_i/(\alpha^2\lambda_i + \sigma^2)` of the signal: where samples are few, the modes that the
    score denoises come first.

    Parameters
    ----------
    x : array
        Noised states, shape (n, ``*event``).
    moments : Moments
        Mean and spectrum of the ground truth.
    process : Process
        The forward process.
    time : float
        Of all the states.

    Returns
    -------
    ndarray
        Dimensionless, shape (2, n, features), each in an orthonormal frame of its own: the fit does not depend on it.

    Examples
    --------
    >>> from gaussian_test.analysis.moments import fit_moments
    >>> from gaussian_test.sampler import VarianceExploding
    >>> moments = fit_moments(np.array([[2.0], [-2.0]]))  # variance 4: 5 with the noise, 4/5 signal
    >>> affine_features([[5.0]], moments, VarianceExploding(), 1.0).ravel() ** 2
    array([5., 4.])
    """
    alpha, sigma = float(process.alpha(time)), float(process.sigma(time))
    states = np.asarray(x, dtype=np.float64)
    offset = states.reshape(len(states), -1) - alpha * moments.mean.reshape(-1)
    modes = offset @ moments.eigenvectors
    variance = alpha**2 * moments.eigenvalues + sigma**2
    white = offset / sigma + (modes * (1 / np.sqrt(variance) - 1 / sigma)) @ moments.eigenvectors.T
    signal = np.zeros_like(white)
    signal[:, : modes.shape[1]] = modes * (alpha * np.sqrt(moments.eigenvalues) / variance)
    return np.stack([white, signal])


def best_affine(
    features: ArrayLike,
    residual: ArrayLike,
    groups: ArrayLike | None = None,
    folds: int = 5,
    penalties: Sequence[float] = PENALTIES,
    seed: int = 0,
) -> AffineFit:
    r"""Fit the affine map that is closest to a denoiser at one noise level, and measure its distance out of sample.

    .. math:: \hat A = \arg\min_A \sum_{i\in\mathrm{train}}|D_i - D_{G,i} - A\,(1, w_i)|^2 + \kappa\,n_{train}\,|A|^2

    What is penalised is the departure from the Gaussian denoiser, in the intercept too: :math:`\kappa = \infty` gives it
    back. Penalty and scaling of the features are chosen within the training folds by leaving one ground-truth sample out,
    all its repeats together; the Gaussian stays where nothing is better by more than one standard error.

    Parameters
    ----------
    features : array
        Noised states in one or several scalings, shape (scalings, n, features): see :func:`affine_features`. Of unit
        scale, since the penalties are.
    residual : array
        :math:`D - D_G` at these states, shape (n, features), in the unit of the data.
    groups : array, optional
        Ground-truth sample of each state, shape (n,). Default: every state is one of its own.
    folds : int
        Number of folds, at least 2.
    penalties : sequence of float
        :math:`\kappa`, positive.
    seed : int
        Of the folds.

    Returns
    -------
    AffineFit
        In the squared unit of the data.

    Raises
    ------
    ValueError
        If shapes do not fit, values are not finite, or the samples are fewer than the folds and one more.

    Notes
    -----
    The mean of ``gain`` is at most what the best affine map gains, and about 0 where the Gaussian is the best (an exact
    score). With fewer samples than features only a part is found. The cost is that of a few eigendecompositions of
    min(n, features) dimensions for each fold.

    References
    ----------
    Hastie, Tibshirani & Friedman, The Elements of Statistical Learning (2009), 3.4.1 and 7.10, on ridge regression, on
    leaving out without refitting and on the rule of one standard error.

    Examples
    --------
    >>> w = np.random.default_rng(0).normal(size=(1, 200, 3))
    >>> fit = best_affine(w, 1 + 2 * w[0])  # affine, but not the Gaussian's
    >>> bool(fit.values.max() < 1e-8), bool(fit.gain.mean() > 10)
    (True, True)
    """
    scalings = np.asarray(features, dtype=np.float64)
    target = np.asarray(residual, dtype=np.float64)
    if scalings.ndim != 3 or target.ndim != 2 or scalings.shape[1] != len(target):
        raise ValueError(
            f"features {scalings.shape} and residual {target.shape} do not fit: give (scalings, n, features) and (n, features)"
        )
    if not (np.isfinite(scalings).all() and np.isfinite(target).all()):
        raise ValueError("the features or the residual hold NaN or infinite values: leave out the noise level at which they do")
    own = np.arange(len(target)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if len(own) != len(target):
        raise ValueError(f"{len(own)} groups do not match {len(target)} states: give one group per state")
    if not 2 <= folds < own.max() + 1:
        raise ValueError(f"{own.max() + 1} samples do not make {folds} folds: give at least 2 folds, and more samples than folds")
    kappa = np.asarray(penalties, dtype=np.float64)
    if kappa.size == 0 or not (kappa > 0).all():
        raise ValueError(f"penalties {list(penalties)} are not all positive: give positive numbers")
    baseline = (target**2).sum(1)
    # only inner products of rows matter: fewer coordinates give the same fit where rows are few
    target = _coordinates(target)
    designs = [_coordinates(np.column_stack([np.ones(len(w)), w])) for w in scalings]
    values, chosen = baseline.copy(), np.full(folds, np.inf)
    for fold, (train, test) in enumerate(GroupKFold(folds, shuffle=True, random_state=seed).split(own, groups=own)):
        blocks = list(_blocks(own[train]))
        fits = [_Ridge(design[train], target[train]) for design in designs]
        losses = np.array([[fit.left_out(penalty, blocks) for penalty in kappa] for fit in fits])
        row, column = np.unravel_index(losses.sum(2).argmin(), losses.shape[:2])
        improvement = fits[row].left_out(np.inf, blocks) - losses[row, column]
        if improvement.mean() > improvement.std() / np.sqrt(len(improvement)):
            chosen[fold] = kappa[column]
            values[test] = ((target[test] - designs[row][test] @ fits[row].coefficients(chosen[fold])) ** 2).sum(1)
    return AffineFit(values, baseline, chosen)


def _factors(a: Array) -> tuple[Array, Array, Array]:
    """Return the singular value decomposition by way of the smaller Gram matrix: fast, and a penalty hides the digits lost."""
    tall = a.shape[0] >= a.shape[1]
    gram = a.T @ a if tall else a @ a.T
    squares, vectors = scipy.linalg.eigh(gram, driver="evd", overwrite_a=True, check_finite=False)
    kept = squares > squares[-1] * max(a.shape) * np.finfo(np.float64).eps
    size, vectors = np.sqrt(squares[kept]), vectors[:, kept]
    other = (a @ vectors if tall else a.T @ vectors) / size
    return (other, size, vectors) if tall else (vectors, size, other)


def _coordinates(rows: Array) -> Array:
    """Return rows with the same inner products and no more columns than rows."""
    if len(rows) >= rows.shape[1]:
        return rows
    left, size, _ = _factors(rows)
    return left * size


def _blocks(groups: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of the groups as (groups, rows of each), once for every number of rows that occurs."""
    _, members, counts = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(members, kind="stable")
    starts = np.cumsum(counts) - counts
    for size in np.unique(counts):
        yield order[starts[counts == size, None] + np.arange(size)]


class _Ridge:
    """Ridge regressions on the same rows, one for every penalty."""

    def __init__(self, design: Array, target: Array) -> None:
        self._left, self._size, self._right = _factors(design)
        self._inside = self._left.T @ target
        self._outside = target - self._left @ self._inside

    def _unexplained(self, penalty: float) -> Array:
        return 1 / (1 + self._size**2 / (penalty * len(self._left)))

    def coefficients(self, penalty: float) -> Array:
        shrunk = self._size / (self._size**2 + penalty * len(self._left))
        result: Array = self._right @ (shrunk[:, None] * self._inside)
        return result

    def left_out(self, penalty: float, blocks: Sequence[NDArray[np.int64]]) -> Array:
        r"""Return the squared error of each group predicted without itself, :math:`e_g = (I - H_{gg})^{-1} r_g`."""
        unexplained = self._unexplained(penalty)
        rest = self._outside + self._left @ (unexplained[:, None] * self._inside)
        losses = []
        for rows in blocks:
            left, error = self._left[rows], rest[rows]
            # the identity less the hat matrix, without the cancellation of small penalties
            inverse = np.linalg.inv(np.eye(rows.shape[1]) - left @ left.mT + (left * unexplained) @ left.mT)
            losses.append(((inverse @ inverse) * (error @ error.mT)).sum((1, 2)))
        return np.concatenate(losses)
