r"""The divergence of the noised data from its Gaussian, by the area under the gap.

With :math:`\gamma = 1/\nu^2` (I-MMSE),

.. math:: \mathrm{KL}(p_t\|\mathcal N_t) = \tfrac12\int_0^{\gamma_t}(\mathrm{lmmse}-\mathrm{mmse})\,d\gamma .
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import cumulative_trapezoid
from scipy.interpolate import PchipInterpolator

from gaussian_test.analysis.statistics.bootstrap import ClusterBootstrap

Array = NDArray[np.float64]

STEP = 1e-4  # relative, of the derivatives of the integral


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


def divergence(excess: Array | None, trace: float, noise_to_signal: ArrayLike, resample: ClusterBootstrap) -> xr.Dataset:
    r"""Return the divergence of the noised data from its Gaussian with its errors: of sampling, and of the quadrature.

    The sampling error is that of the integral linearised in the integrand. The quadrature error is the change when every second
    noise level is left out: an upper estimate, as the integrand is smooth.

    Parameters
    ----------
    excess : ndarray or None
        :math:`\|D-D_G\|^2/\mathrm{tr}\,\Sigma` of the exact score of the samples, shape (samples, points); None where it was
        not run.
    trace : float
        :math:`\mathrm{tr}\,\Sigma`.
    noise_to_signal : array
        :math:`\nu`, ascending, shape (points,).
    resample : ClusterBootstrap
        For the band.

    Returns
    -------
    Dataset
        ``kl_from_gaussian`` (``_se``, ``_low``, ``_high``, ``_quadrature_error``) over ``turn_time``, in nats. Its attribute
        ``beyond_largest_turn_time`` is the part of it that rests on the extrapolation beyond the largest noise level.

    Examples
    --------
    >>> found = divergence(np.array([[6.0, 6 / 16]] * 4), 1.0, [1.0, 2.0], ClusterBootstrap(4, 100))
    >>> found.kl_from_gaussian.values.round(12).tolist(), found.kl_from_gaussian_se.values.tolist()
    ([1.0, 0.015625], [0.0, 0.0])
    """
    nu = np.asarray(noise_to_signal, dtype=np.float64)
    names = ("", "_se", "_low", "_high", "_quadrature_error")
    attributes: dict[str, str | float] = {"units": "nat"}
    if excess is None:
        columns = [np.full(len(nu), np.nan)] * len(names)
        attributes["reason"] = "no unconditional empirical score was run"
    else:
        mean = excess.mean(0) * trace
        total = kl_from_gaussian(nu, mean)
        moved = [kl_from_gaussian(nu, mean * (1 + STEP * (np.arange(len(nu)) == point))) for point in range(len(nu))]
        change = mean * STEP
        slopes = np.divide((np.array(moved) - total).T, change, out=np.zeros((len(nu), len(nu))), where=change > 0)
        band = resample.positive_band(total + (excess * trace - mean) @ slopes.T)
        coarse = [_without_every_second(nu, mean, point) for point in range(len(nu))]
        columns = [total, band.standard_error, band.low, band.high, np.abs(total - coarse)]
        attributes |= {
            "comment": "half the integral of lmmse - mmse = E|D-D_G|^2 over 1/nu^2 (I-MMSE); monotone cubics of its logarithm "
            "between turn times, gamma^2 beyond the largest one",
            "cut_off_noise_to_signal": float(nu[-1]),
            "beyond_largest_turn_time": float(total[-1]),
        }
    said = [", standard error", ", lower edge of the simultaneous band", ", upper edge of the simultaneous band"]
    said = ["", *said, ", error of the quadrature"]
    long_name = "Kullback-Leibler divergence of the noised data from its Gaussian"
    return xr.Dataset(
        {
            f"kl_from_gaussian{name}": ("turn_time", values, {"long_name": long_name + suffix, **attributes})
            for name, suffix, values in zip(names, said, columns, strict=True)
        }
    )


def _without_every_second(nu: Array, excess: Array, point: int) -> float:
    """Return the integral up to a noise level with every second level beyond it left out, but for the largest."""
    kept = np.unique(np.append(np.arange(point, len(nu), 2), len(nu) - 1))
    return float(kl_from_gaussian(nu[kept], excess[kept])[0])


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
