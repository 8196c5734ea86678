r"""Noise levels for :math:`x_t = \alpha_t x_0 + \sigma_t z`: log-spaced and EDM grids, and the one grid of a U-Turn.

A reverse run descends a grid of times to 0. All turn times of a U-Turn share one descending grid, on which each of them is
a point, so that the level asked for is the level used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gaussian_test.sampler.process import Process

RHO = 7.0


def log_levels(low: float, high: float, count: int) -> NDArray[np.float64]:
    """Return ``count`` log-spaced noise levels from ``low`` to ``high``, both included.

    Parameters
    ----------
    low, high : float
        Smallest and largest level, ``0 < low <= high``.
    count : int
        Number of levels, at least 1 (2 where ``low < high``).

    Returns
    -------
    ndarray
        float64, ascending, shape (count,).

    Raises
    ------
    ValueError
        If the bounds or the count are outside their range.

    Examples
    --------
    >>> log_levels(0.1, 10, 3).tolist()
    [0.1, 1.0, 10.0]
    """
    if not 0 < low <= high < math.inf or count < 1 or (count == 1) != (low == high):
        raise ValueError(f"cannot space {count} levels from {low:g} to {high:g}: give 0 < low < high and a count of at least 2")
    return np.geomspace(low, high, count)


def edm_levels(count: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = RHO) -> NDArray[np.float64]:
    r"""Return EDM's ``count`` noise levels followed by 0.

    .. math:: \sigma_k = \left(\sigma_{max}^{1/\rho} + \tfrac{k}{K-1}(\sigma_{min}^{1/\rho} - \sigma_{max}^{1/\rho})\right)^\rho

    Parameters
    ----------
    count : int
        Number of levels K, at least 1 (then ``sigma_max`` alone).
    sigma_min, sigma_max : float
        Smallest and largest positive level.
    rho : float
        Warp; larger puts more levels at small noise.

    Returns
    -------
    ndarray
        float64, descending, shape (count + 1,), the last one 0.

    Raises
    ------
    ValueError
        If the bounds or the count are outside their range.

    References
    ----------
    Karras et al., arXiv 2206.00364, equation 5.

    Examples
    --------
    >>> edm_levels(3, 1.0, 100.0, rho=1).tolist()
    [100.0, 50.5, 1.0, 0.0]
    """
    if not 0 < sigma_min < sigma_max < math.inf or count < 1 or not rho > 0:
        raise ValueError(
            f"cannot make {count} EDM levels from {sigma_max:g} to {sigma_min:g}: give 0 < sigma_min < sigma_max, count >= 1"
        )
    levels = np.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), count) ** rho
    levels[0] = sigma_max
    if count > 1:
        levels[-1] = sigma_min
    return np.append(levels, 0.0)


def reverse_grid(process: Process, turn_times: Sequence[float], steps: int, rho: float = RHO) -> NDArray[np.float64]:
    r"""Return the descending times of the reverse process on which every turn time is a point.

    Between two turn times, and from the smallest one to the process's smallest level, the levels are equally spaced in
    :math:`\nu^{1/\rho}` (EDM's warp); the last step goes to 0. With one turn time this is EDM's own grid.

    Parameters
    ----------
    process : Process
        Gives :math:`\nu(t)` and its inverse.
    turn_times : sequence of float
        Turn times as levels of the process, in any order.
    steps : int
        Number of steps from the largest turn time to 0, at least 1; more where there are too few to give every turn time, and the
        smallest level of the process, a step of its own.
    rho : float
        Warp.

    Returns
    -------
    ndarray
        float64, strictly descending, from the largest turn time to 0.

    Raises
    ------
    ValueError
        If ``steps < 1`` or there is no turn time.

    Examples
    --------
    >>> from gaussian_test.sampler import VarianceExploding
    >>> reverse_grid(VarianceExploding(1.0, 200.0), [50.5, 100.0], 4, rho=1).tolist()
    [100.0, 75.25, 50.5, 1.0, 0.0]
    """
    if steps < 1:
        raise ValueError(f"steps = {steps} is not a number of reverse steps: give at least 1")
    corners = sorted({float(t) for t in turn_times}, reverse=True)
    if not corners:
        raise ValueError("there is no turn time: give at least one")
    if process.time_min < corners[-1] * (1 - 1e-9):
        corners.append(process.time_min)
    warped = np.array([float(process.noise_to_signal(t)) for t in corners]) ** (1 / rho)
    counts = _apportion(-np.diff(warped), max(steps - 1, 0)) if len(corners) > 1 else []
    times: list[float] = []
    for upper, warped_upper, warped_lower, count in zip(corners, warped, warped[1:], counts, strict=False):
        inner = np.linspace(warped_upper, warped_lower, count, endpoint=False)[1:] ** rho
        times += [upper, *(process.level(float(process.time(float(nu)))) for nu in inner)]
    times.append(corners[-1])
    distinct = sorted({t for t in times if t > 0}, reverse=True)
    if steps == 1 and len(set(turn_times)) == 1:  # one step: straight from the turn to 0
        distinct = distinct[:1]
    return np.array([*distinct, 0.0])


def process_grid(process: Process, steps: int, rho: float = RHO) -> NDArray[np.float64]:
    r"""Return a sampler's own grid of ``steps`` levels over the whole process, then 0: EDM's, in :math:`\nu`.

    Parameters
    ----------
    process : Process
        Gives the range, :math:`\nu(t)` and its inverse.
    steps : int
        Number of positive levels, at least 1.
    rho : float
        Warp.

    Returns
    -------
    ndarray
        float64, strictly descending, from the process's largest time to 0; fewer levels where a discrete process has fewer.

    Raises
    ------
    ValueError
        If ``steps < 1``.

    Examples
    --------
    >>> from gaussian_test.sampler import VarianceExploding
    >>> process_grid(VarianceExploding(1.0, 100.0), 3, rho=1).tolist()
    [100.0, 50.5, 1.0, 0.0]
    """
    low, high = (float(process.noise_to_signal(t)) for t in (process.time_min, process.time_max))
    inner = [process.level(float(process.time(float(nu)))) for nu in edm_levels(steps, low, high, rho)[1:-2]]
    times = {process.time_max, *inner, *([process.time_min] if steps > 1 else [])}  # the ends as they are, to the last bit
    return np.array([*sorted(times, reverse=True), 0.0])


def _apportion(lengths: NDArray[np.float64], total: int) -> list[int]:
    """Divide ``total`` steps over segments in proportion to their lengths, at least one each (largest remainders)."""
    counts = np.ones(len(lengths), dtype=int)
    spare = max(total - len(lengths), 0)
    share = lengths / lengths.sum() * total - 1
    share = np.clip(share, 0, None)
    share *= spare / share.sum() if share.sum() > 0 else 0
    counts += np.floor(share).astype(int)
    for index in np.argsort(-(share - np.floor(share)), kind="stable")[: spare - int(np.floor(share).sum())]:
        counts[index] += 1
    return [int(count) for count in counts]
