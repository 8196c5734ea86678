r"""Ridge regression for the affine map closest to a denoiser.

.. math:: \hat A = \arg\min_A \sum_{i\in\mathrm{train}}|D_i - D_{G,i} - A\,(1, w_i)|^2 + \kappa\,n_{train}\,|A|^2

The fit is to the departure from the Gaussian denoiser, so an infinite penalty recovers that denoiser. Errors are measured on
held-out samples. For an exact score the Gaussian one is the best affine map (orthogonality).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import GroupKFold

from gaussian_test.analysis.moments.moments import Moments
from gaussian_test.analysis.moments.running import real
from gaussian_test.sampler import Process

Array = NDArray[np.float64]

PENALTIES = (1e3, 1e2, 1e1, 1.0, 1e-1, 1e-2, 1e-4, 1e-6)


@dataclass(frozen=True)
class AffineFit:
    """Out-of-sample distance of affine maps from a denoiser.

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
        """Reduction of the squared distance by the fitted map over the Gaussian one, shape (n,)."""
        return self.baseline - self.values


def affine_features(x: ArrayLike, moments: Moments, process: Process, time: float) -> Array:
    r"""Return noised states in the two scalings of :func:`best_affine`.

    The first is whitened, :math:`w = (\alpha^2\Sigma + \sigma^2)^{-1/2}(x_t - \alpha\mu)`: a change is as likely in any
    direction. The second weighs mode i of it by :math:`\sqrt{W_i}`, the root of the share
    :math:`W_i = \alpha^2\lambda_i/(\alpha^2\lambda_i + \sigma^2)` of the signal: where samples are few, the fit favours the modes
    that the score denoises.

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
        Dimensionless, shape (2, n, modes + features), without the last if there are as many modes: in frames on which the fit
        does not depend.

    Examples
    --------
    >>> from gaussian_test.analysis.moments.moments import fit_moments
    >>> from gaussian_test.sampler import VarianceExploding
    >>> moments = fit_moments(np.array([[2.0], [-2.0]]))  # variance 4: 5 with the noise, 4/5 signal
    >>> affine_features([[5.0]], moments, VarianceExploding(), 1.0).ravel() ** 2
    array([5., 4.])
    """
    alpha, sigma = float(process.alpha(time)), float(process.sigma(time))
    states = real(x, np.float64)
    return _scaled(_in_modes(states.reshape(len(states), -1) - alpha * moments.mean.reshape(-1), moments), moments, alpha, sigma)


def features_along(
    start: ArrayLike, noise: ArrayLike, moments: Moments, process: Process, times: Sequence[float]
) -> Iterator[Array]:
    r"""Yield :func:`affine_features` of :math:`\alpha x_0 + \sigma z` at each time, with only one rotation of :math:`x_0` and z."""
    x0, z = (real(one, np.float64) for one in (start, noise))
    of_start, of_noise = (
        _in_modes(one, moments) for one in (x0.reshape(len(x0), -1) - moments.mean.reshape(-1), z.reshape(len(z), -1))
    )
    for time in times:
        alpha, sigma = float(process.alpha(time)), float(process.sigma(time))
        yield _scaled(alpha * of_start + sigma * of_noise, moments, alpha, sigma)


def _in_modes(offset: Array, moments: Moments) -> Array:
    """Return the coordinates of states along the modes, followed by what lies outside of them if anything can."""
    modes = offset @ moments.eigenvectors
    if modes.shape[1] == offset.shape[1]:
        return modes
    return np.hstack([modes, offset - modes @ moments.eigenvectors.T])


def _scaled(states: Array, moments: Moments, alpha: float, sigma: float) -> Array:
    values = moments.eigenvalues
    variance = alpha**2 * values + sigma**2
    scales = np.zeros((2, states.shape[1]))
    scales[0] = 1 / sigma
    scales[:, : len(values)] = 1 / np.sqrt(variance), alpha * np.sqrt(values) / variance
    return states * scales[:, None]


def best_affine(
    features: ArrayLike,
    residual: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    folds: int = 5,
    penalties: Sequence[float] = PENALTIES,
    seed: int = 0,
) -> AffineFit:
    r"""Fit the affine map closest to a denoiser at one noise level, and measure its distance out of sample.

    .. math:: \hat A = \arg\min_A \sum_{i\in\mathrm{train}}|D_i - D_{G,i} - A\,(1, w_i)|^2 + \kappa\,n_{train}\,|A|^2

    The penalty acts on the departure from the Gaussian denoiser, intercept included: :math:`\kappa = \infty` recovers it. Penalty
    and scaling of the features are chosen within the training folds by leaving one ground-truth sample out, all its repeats
    together; the Gaussian stays where nothing is better by more than one standard error.

    Parameters
    ----------
    features : array
        Noised states in one or several scalings, shape (scalings, n, features): see :func:`affine_features`. Of unit
        scale, since the penalties are.
    residual : array
        :math:`D - D_G` at these states, shape (n, features), in the unit of the data.
    groups : array, optional
        Ground-truth sample of each state, shape (n,). Default: every state is its own group.
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
        If shapes do not fit, values are not finite, or there are not more samples than folds.

    Notes
    -----
    The mean of ``gain`` is at most what the best affine map gains, and about 0 where the Gaussian is the best (an exact
    score). With fewer samples than features it finds only part of that gain. The cost is a few eigendecompositions of min(n,
    features) dimensions per fold.

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
    # only inner products of rows matter: with few rows, fewer coordinates give the same fit
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
    """Return the singular value decomposition via the smaller Gram matrix: fast, and the penalty hides the lost digits."""
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
    """Yield the rows of the groups as (groups, rows of each), once for every group size."""
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
            # identity minus hat matrix, without the cancellation at small penalties
            inverse = np.linalg.inv(np.eye(rows.shape[1]) - left @ left.mT + (left * unexplained) @ left.mT)
            losses.append(((inverse @ inverse) * (error @ error.mT)).sum((1, 2)))
        return np.concatenate(losses)
