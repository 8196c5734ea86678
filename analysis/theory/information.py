r"""The divergence of the noised data from its Gaussian, by the area under the gap.

With :math:`\gamma = 1/\nu^2` (I-MMSE),

.. math:: \mathrm{KL}(p_t\|\mathcal N_t) = \tfrac12\int_0^{\gamma_t}(\mathrm{lmmse}-\mathrm{mmse})\,d\gamma .
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import cumulative_trapezoid
from scipy.interpolate import PchipInterpolator

Array = NDArray[np.float64]


def kl_from_gaussian(noise_to_signal: ArrayLike, excess: ArrayLike) -> Array:
    r"""Return :math:`\mathrm{KL}(p_t\|\mathcal N_t) = \frac12\int_0^{\gamma_t}(\mathrm{lmmse}-\mathrm{mmse})\,d\gamma`.

    Between the noise levels the logarithm of the integrand is a monotone cubic of :math:`\log\gamma` (exact for a power law);
    beyond the largest level it goes on as :math:`\gamma^2`, its leading order for skewed data (an upper bound on the rest for
    symmetric data).

    Parameters
    ----------
    noise_to_signal : array
        :math:`\nu`, ascending, shape (points,).
    excess : array
        :math:`\mathrm{lmmse}-\mathrm{mmse}`, nonnegative, in the squared unit of the data, shape (points,).

    Returns
    -------
    ndarray
        Nats, shape (points,).

    References
    ----------
    Guo, Shamai & Verdú, IEEE Trans. Inf. Theory 51(4) (2005).

    Examples
    --------
    >>> kl_from_gaussian([1.0, 2.0], [6.0, 6.0 / 16]).round(12).tolist()  # excess = 6 gamma^2, KL = gamma^3
    [1.0, 0.015625]
    """
    logs = -2 * np.log(np.asarray(noise_to_signal, dtype=np.float64))[::-1]
    density = (np.exp(logs) * np.asarray(excess, dtype=np.float64)[::-1]).clip(min=np.finfo(np.float64).tiny)
    pieces = np.array([density[0] / 3])
    if len(logs) > 1:
        curve = PchipInterpolator(logs, np.log(density))
        nodes, weights = np.polynomial.legendre.leggauss(8)
        half = np.diff(logs)[:, None] / 2
        inside = np.exp(curve((logs[1:] + logs[:-1])[:, None] / 2 + half * nodes))
        pieces = np.append(pieces, (half * inside) @ weights)
    total: Array = pieces.cumsum()[::-1] / 2
    return total


@dataclass(frozen=True)
class InformationIntegral:
    r"""An area :math:`\frac12\int_0^\gamma\,d\gamma`, with what is known of its error.

    Attributes
    ----------
    value : ndarray
        Nats, shape (..., points).
    error : ndarray
        How far it moves when every second noise level is left out, shape (..., points).
    tail : ndarray
        The part beyond the largest noise level, the same in every value, shape (...).
    """

    value: Array
    error: Array
    tail: Array


def information_integral(noise_to_signal: ArrayLike, excess: ArrayLike) -> InformationIntegral:
    r"""Return :math:`\frac12\int_0^{\gamma}\text{excess}\,d\gamma` of an excess of either sign, with its error.

    The trapezoidal rule for :math:`\gamma\cdot\text{excess}` over :math:`\log\gamma`; beyond the largest noise level the excess
    goes on as :math:`\gamma^2`. It is linear in the excess, so that the noise of a sampled one averages out; for a positive,
    smooth one the cubics of ``kl_from_gaussian`` are closer.

    Parameters
    ----------
    noise_to_signal : array
        :math:`\nu`, ascending, positive, shape (points,).
    excess : array
        :math:`\mathrm{lmmse}-\mathrm{mmse}` of a score, in the squared unit of the data, shape (..., points).

    Returns
    -------
    InformationIntegral
        ``error`` at a level is against the rule on every second level from there on, about three times the true error of a
        smooth excess; it can vanish by chance where the two change sides, and is 0 at the largest level, where all is
        ``tail``.

    Examples
    --------
    >>> nu = np.geomspace(0.5, 20, 200)
    >>> area = information_integral(nu, -6 * nu**-4)  # excess = -6 gamma^2, of which the area is -gamma^3
    >>> bool(abs(area.value[0] + 64) < area.error[0] < 0.3), round(float(area.tail) * 20**6, 12)
    (True, -1.0)
    """
    gamma = np.asarray(noise_to_signal, dtype=np.float64) ** -2.0
    values = np.asarray(excess, dtype=np.float64)
    area = _area(gamma, values)
    coarse = np.empty_like(area)
    for first in range(min(2, len(gamma))):
        every_second = slice(first, None, 2)
        coarse[..., every_second] = _area(gamma[every_second], values[..., every_second])
    return InformationIntegral(area, np.abs(area - coarse), area[..., -1])


def _area(gamma: Array, excess: Array) -> Array:
    """Return half the area from 0 up to each of descending gammas."""
    density = gamma * excess
    inside = cumulative_trapezoid(density[..., ::-1], np.log(gamma[::-1]), initial=0)[..., ::-1]
    total: Array = (inside + density[..., -1:] / 3) / 2
    return total
