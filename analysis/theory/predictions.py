r"""Predictions of the times from the data alone.

All start from the mutual information of a sample and its noised state :math:`x_t = \alpha_t x_0 + \sigma_t z`, with
:math:`\gamma = 1/\nu^2`:

.. math:: I(x_0; x_t) = \tfrac12\sum_i\log(1+\lambda_i\gamma) - \mathrm{KL}(p_t\|\mathcal N_t),\qquad
          \mathrm{KL} = \tfrac12\int_0^{\gamma}(\mathrm{lmmse}-\mathrm{mmse})\,d\gamma .
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq
from scipy.special import entr

from gaussian_test.analysis.moments.moments import Moments
from gaussian_test.analysis.statistics.curves import falls_through, noise_levels
from gaussian_test.analysis.theory.two_modes import retention_signal_to_noise

Array = NDArray[np.float64]


def distinct_count(points: ArrayLike, classes: ArrayLike | None = None) -> float:
    r"""Return how many samples without copies carry as much information: :math:`e^{H(\text{point}|\text{class})}`.

    Parameters
    ----------
    points : array
        A number for each sample that only its copies share, shape (N,), integers.
    classes : array, optional
        Class of each sample, shape (N,), for a score that is told it.

    Returns
    -------
    float
        N without copies and classes.

    Examples
    --------
    >>> round(distinct_count([0, 1, 2, 2]), 12), round(distinct_count([0, 1, 2, 3], [0, 0, 1, 1]), 12)
    (2.828427124746, 2.0)
    """
    known = np.asarray(points) if classes is None else np.stack([np.asarray(points), np.asarray(classes)])
    information = _entropy(known)
    given = 0.0 if classes is None else _entropy(np.asarray(classes))
    return float(np.exp(information - given))


def _entropy(values: NDArray[np.generic]) -> float:
    """Return the entropy of how often the columns of an array are there, in nats."""
    return float(entr(np.unique(values, axis=-1, return_counts=True)[1] / values.shape[-1]).sum())


def predicted_memorization_within_class(
    eigenvalues: Sequence[ArrayLike], counts: ArrayLike, distinct: ArrayLike | None = None
) -> float:
    r"""Return the :math:`\nu` of memorization for well separated Gaussian classes.

    The information about a sample is its class and, within it, the Gaussian's information; with :math:`\pi_k = N_k/N`,

    .. math:: H(\pi) + \sum_k \pi_k \tfrac12\sum_i\log\big(1+\lambda^{(k)}_i/\nu^2\big) = \log N .

    Parameters
    ----------
    eigenvalues : sequence of array
        Of the covariance within each class, shapes (modes of the class,).
    counts : array
        Number :math:`N_k` of ground-truth samples of each class, at least 1, shape (classes,).
    distinct : array, optional
        The same without copies, as :func:`distinct_count` has it.

    Returns
    -------
    float
        NaN where no noise level solves it: every class is a single sample, or no class varies.

    Raises
    ------
    ValueError
        If there is not one spectrum for each count, or a count is below 1.

    Examples
    --------
    >>> round(predicted_memorization_within_class([[3.0, 3.0], [3.0, 3.0]], [4, 4]), 12)
    1.0
    """
    number = np.asarray(counts, dtype=np.float64)
    if len(eigenvalues) != len(number) or (number < 1).any():
        raise ValueError(
            f"{len(eigenvalues)} spectra for counts {number.tolist()}: give one spectrum for each class that has samples"
        )
    share = number / number.sum()
    spectra = [np.asarray(values, dtype=np.float64) for values in eigenvalues]
    varying = [values > 0 for values in spectra]
    logs = np.concatenate([np.log(values[kept]) for values, kept in zip(spectra, varying, strict=True)])
    weights = np.repeat(share, [kept.sum() for kept in varying])
    target = float(share @ np.log(number if distinct is None else np.asarray(distinct)))  # log N - H(pi)
    if not len(logs) or target == 0:
        return float("nan")

    def excess(log_nu: float) -> float:
        return float(weights @ np.logaddexp(0, logs - 2 * log_nu)) / 2 - target

    # Information is at least that of any one mode and at most the trace over twice the variance.
    low = (logs - 2 * target / weights).max() / 2 - 1
    high = np.log(weights @ np.exp(logs) / target) / 2 + 1
    return float(np.exp(brentq(excess, low, high, xtol=1e-13)))


def predicted_speciation_within_class(between_eigenvalue: float, within_variance: float, *, level: float = 0.5) -> float:
    r"""Return the :math:`\nu` at which the retention of two symmetric classes falls through a level.

    .. math:: \nu = \sqrt{\lambda_B/c_*^2 - v}

    Exact for two Gaussians of equal weight at :math:`\pm m`, for which :math:`\lambda_B = |m|^2`; :math:`c_*^2` is
    :func:`retention_signal_to_noise`.

    Parameters
    ----------
    between_eigenvalue : float
        :math:`\lambda_B`, the leading eigenvalue of the covariance of the class means.
    within_variance : float
        v, the variance within classes along its eigenvector.
    level : float
        Of the class retention :math:`(P_{same} - \frac12)/\frac12`, in (0, 1).

    Returns
    -------
    float
        NaN where the retention is below the level without any noise.

    Raises
    ------
    ValueError
        If the level is outside (0, 1).

    Examples
    --------
    >>> round(predicted_speciation_within_class(4.0, 0.5), 4)
    2.0497
    >>> predicted_speciation_within_class(1.0, 2.0)
    nan
    """
    variance = between_eigenvalue / retention_signal_to_noise(level) - within_variance
    return float(np.sqrt(variance)) if variance >= 0 else float("nan")


@dataclass(frozen=True)
class ClassStructure:
    r"""Variances between and within classes along the direction in which the classes differ most.

    Attributes
    ----------
    between_eigenvalue : float
        :math:`\lambda_B`, leading eigenvalue of the covariance of the class means.
    within_variance : float
        v, the variance within classes along its eigenvector.
    """

    between_eigenvalue: float
    within_variance: float


def class_structure(classes: Sequence[Moments], moments: Moments) -> ClassStructure:
    r"""Return between- and within-class variance along the leading direction of the class means.

    .. math:: B = \sum_k\pi_k(\mu_k-\mu)(\mu_k-\mu)^\top,\qquad B u = \lambda_B u,\qquad v = u^\top\Sigma u - \lambda_B

    Parameters
    ----------
    classes : sequence of Moments
        Of each class; ``count`` is its size.
    moments : Moments
        Of all samples.

    Returns
    -------
    ClassStructure
        In the squared unit of the data.

    Examples
    --------
    >>> from gaussian_test.analysis.moments.moments import fit_moments
    >>> x = np.array([[-3.0, 0.0], [-1.0, 1.0], [1.0, 0.0], [3.0, 1.0]])
    >>> structure = class_structure([fit_moments(x[:2]), fit_moments(x[2:])], fit_moments(x))
    >>> round(structure.between_eigenvalue, 12), round(structure.within_variance, 12)
    (4.0, 1.0)
    """
    weights = np.array([of_class.count for of_class in classes]) / moments.count
    offsets = np.array([(of_class.mean - moments.mean).reshape(-1) for of_class in classes])
    _, sizes, directions = np.linalg.svd(np.sqrt(weights)[:, None] * offsets, full_matrices=False)
    along = directions[0] @ moments.eigenvectors
    between = float(sizes[0] ** 2)
    return ClassStructure(between, max(float(along**2 @ moments.eigenvalues) - between, 0.0))


def excess_entropy(kl: ArrayLike, eigenvalues: ArrayLike, noise_to_signal: ArrayLike, *, count: float) -> Array:
    r"""Return the information about the sample in excess of that needed to tell N samples apart.

    .. math:: f^e = I(x_0;x_t) - \log N = \tfrac12\sum_i\log(1+\lambda_i/\nu^2) - \mathrm{KL} - \log N

    For the law of the data it falls through 0 where a set of N of them is told apart: the collapse onto single samples. For
    the empirical score of that set it is :math:`-\mathbb E` of the entropy of the posterior weights, never above 0.

    Parameters
    ----------
    kl : array
        Mean log density of the noised data under the score less that under the Gaussian, in nats, shape (..., points).
    eigenvalues : array
        Of the ground-truth covariance, shape (modes,).
    noise_to_signal : array
        :math:`\nu`, positive, shape (points,).
    count : float
        Number of ground-truth samples N; for a score that is told the class, the geometric mean of that of each sample's class.

    Returns
    -------
    ndarray
        Nats, shape of ``kl``.

    References
    ----------
    Biroli, Bonnaire, de Bortoli & Mézard, Nat. Commun. 15, 9957 (2024): the excess entropy, per dimension.

    Examples
    --------
    >>> excess_entropy([0.0], [3.0, 3.0], [1.0], count=4).round(12).tolist()
    [0.0]
    """
    gamma = np.asarray(noise_to_signal, dtype=np.float64)[:, None] ** -2.0
    gaussian = np.log1p(gamma * np.asarray(eigenvalues, dtype=np.float64)).sum(1) / 2
    result: Array = gaussian - np.asarray(kl, dtype=np.float64) - np.log(count)
    return result


def excess_entropy_crossing(excess: ArrayLike, noise_to_signal: ArrayLike, *, error: ArrayLike = 0.0) -> tuple[float, str]:
    r"""Return the :math:`\nu` at which the excess entropy falls through 0, linearly in :math:`\log\nu`.

    The excess is made decreasing by isotonic regression: information only falls with noise.

    Parameters
    ----------
    excess : array
        :math:`f^e`, shape (points,).
    noise_to_signal : array
        Ascending, positive, shape (points,).
    error : array
        Of the excess, nonnegative, shape () or (points,): the excess counts as above 0 only beyond this error.

    Returns
    -------
    tuple of float and str
        :math:`\nu`, or NaN and the reason why there is none.

    Examples
    --------
    >>> excess_entropy_crossing([2.0, -2.0], [1.0, 4.0])
    (2.0, '')
    >>> excess_entropy_crossing([0.001, -2.0], [1.0, 4.0], error=0.01)[0]
    nan
    """
    f = np.asarray(excess, dtype=np.float64)
    if not (f > np.asarray(error, dtype=np.float64)).any():
        return np.nan, "it is nowhere surely above 0: the information of a finite set never exceeds log N"
    crossing = falls_through(f, noise_to_signal, level=0.0)
    if crossing == 0:
        return np.nan, "it is below 0 at the smallest turn time: add smaller ones"
    if np.isinf(crossing):
        return np.nan, "it is above 0 up to the largest turn time: add larger"
    return crossing, ""


BLOCK = 2**14  # curves that are integrated at a time
LEVELS = 5  # fewer noise levels do not tell the error of the quadrature
TRUSTED, NEGLIGIBLE = 0.1, 0.01  # an integral is given up to this relative error, or up to this one in nats


@dataclass(frozen=True)
class InformationIntegral:
    r"""An area :math:`\frac12\int_0^\gamma\,d\gamma`, with an error estimate."""

    value: Array  # nats, shape (..., points); NaN where the error is not small
    error: Array  # of the quadrature and of the part beyond the largest noise level, shape (..., points)
    tail: Array  # part beyond the largest noise level, common to all values, shape (...)
    reason: str = ""  # why values are NaN


def information_integral(
    excess: ArrayLike, noise_to_signal: ArrayLike, *, eigenvalues: ArrayLike, third_cumulant_norm: float, exact: bool = True
) -> InformationIntegral:
    r"""Return :math:`\frac12\int_0^{\gamma}\text{excess}\,d\gamma` of an excess of either sign, with its error.

    A cubic spline of :math:`\gamma\cdot\text{excess}` in :math:`\log\nu`: linear in the excess, so that the noise of a sampled
    one averages out. At large noise the area is :math:`\|\kappa_3\|^2\gamma^3/12` to leading order, an upper bound for skewed
    data where :math:`\nu^2` is comparable to the eigenvalues, and a sixth of :math:`\gamma\cdot\text{excess}`, a lower bound;
    the part beyond the largest noise level is taken halfway between the two. The excess of any other score may fall more slowly,
    or tend to a constant: its upper bound is half of :math:`\gamma\cdot\text{excess}`.

    Parameters
    ----------
    excess : array
        :math:`\mathrm{lmmse}-\mathrm{mmse}` of a score, in the squared unit of the data, shape (..., points).
    noise_to_signal : array
        :math:`\nu`, ascending, positive, shape (points,).
    eigenvalues : array
        Of the covariance of the data, shape (modes,).
    third_cumulant_norm : float
        :math:`\|\kappa_3\|^2` of the data.
    exact : bool
        Whether the score is that of the data. Others are a network, a Gaussian of another mean, or a score that is told the class,
        whose excess tends to the variance of the class means.

    Returns
    -------
    InformationIntegral
        ``error`` adds half the distance of the two bounds and the change when every second level is left out. Values are NaN,
        with a reason, where it exceeds a tenth of them and 0.01 nat, with fewer than 5 levels, and where the largest is not beyond
        :math:`2\sqrt{\lambda_1}`. An excess of zero at all levels, that of the Gaussian score, has no area.

    Examples
    --------
    >>> nu = np.geomspace(0.5, 20, 30)
    >>> area = information_integral(6 * nu**-4, nu, eigenvalues=[1.0], third_cumulant_norm=12.0)  # excess = 6 gamma^2
    >>> bool(abs(area.value[0] - 64) < area.error[0] < 2), round(float(area.tail) * 20**6, 12)  # area gamma^3
    (True, 1.0)
    """
    nu = noise_levels(noise_to_signal)
    values = np.asarray(excess, dtype=np.float64)
    shape, lead = values.shape, values.shape[:-1]
    if not values.any():
        return InformationIntegral(np.zeros(shape), np.zeros(shape), np.zeros(lead))
    lower = values[..., -1] / nu[-1] ** 2 / 6
    upper = np.full(lead, third_cumulant_norm / 12 / nu[-1] ** 6) if exact else 3 * lower
    tail = (lower + upper) / 2
    beyond = 2 * float(np.sqrt(np.max(np.asarray(eigenvalues, dtype=np.float64))))
    reason = ""
    if len(nu) < LEVELS:
        reason = f"{len(nu)} turn times are too few for the integral over noise levels: give at least {LEVELS}"
    elif nu[-1] < beyond:
        reason = (
            f"the integral over noise levels ends at the largest turn time {nu[-1]:.3g}, and the part beyond is bounded only from "
            f"{beyond:.3g} on: add larger turn times"
        )
    if reason:
        return InformationIntegral(np.full(shape, np.nan), np.full(shape, np.nan), tail, reason)
    area, coarse = inner_area(values, nu), np.empty(shape)
    for first in range(2):
        kept = np.append(np.arange(first, len(nu) - 1, 2), len(nu) - 1)
        coarse[..., kept] = inner_area(values[..., kept], nu[kept])
    total = area + tail[..., None]
    error = np.abs(area - coarse) + np.abs(upper - lower)[..., None] / 2
    large = error > np.maximum(TRUSTED * np.abs(total), NEGLIGIBLE)
    if large.any():
        reason = "the error of the integral over noise levels is not small: add turn times between these and larger ones"
    return InformationIntegral(np.where(large, np.nan, total), error, tail, reason)


def inner_area(excess: ArrayLike, noise_to_signal: ArrayLike) -> Array:
    r"""Return half the area from the :math:`\gamma` of the largest noise level up to that of each, linear in the excess.

    Parameters
    ----------
    excess, noise_to_signal : array
        As for :func:`information_integral`.

    Returns
    -------
    ndarray
        Shape (..., points).

    Examples
    --------
    >>> inner_area(np.ones(50), np.geomspace(0.5, 1, 50))[[0, -1]].round(6).tolist()  # (4 - 1) / 2
    [1.5, 0.0]
    """
    nu = noise_levels(noise_to_signal)
    if len(nu) == 1:
        return np.zeros(np.shape(excess))
    curves = np.asarray(excess, dtype=np.float64)
    area, rows = np.empty(curves.shape), curves.reshape(-1, len(nu))
    for start in range(0, len(rows), BLOCK):  # a spline takes 20 times the memory of its curve
        inside = CubicSpline(np.log(nu), rows[start : start + BLOCK] / nu**2, axis=-1).antiderivative()(np.log(nu))
        area.reshape(rows.shape)[start : start + BLOCK] = inside[:, -1:] - inside
    return area
