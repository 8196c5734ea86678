r"""Forward processes: :math:`x_t = \alpha_t x_0 + \sigma_t z`, :math:`z \sim \mathcal N(0, 1)`.

Every common linear diffusion is a pair :math:`(\alpha_t, \sigma_t)`. The noise-to-signal ratio
:math:`\nu_t = \sigma_t/\alpha_t` orders them: two processes at equal :math:`\nu` are the same experiment in other units.
Here ``t`` is noisier than ``s``; ``alpha`` is an amplitude and ``sigma`` a standard deviation, never a variance.

Schedules are evaluated in float64 on the CPU; a scalar time gives a zero-dimensional tensor, which multiplies a state on any device
without synchronising.

Noise levels for :math:`x_t = \alpha_t x_0 + \sigma_t z`: log-spaced and EDM grids, and the grid of a U-Turn.

A reverse run descends a grid of times to 0. All turn times of a U-Turn share one descending grid, on which each of them is a point,
so the requested level is the level used.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Time = float | Tensor


def as_time(t: Time) -> Tensor:
    """Return a time as a float64 tensor of the same shape and device."""
    return t.double() if isinstance(t, Tensor) else torch.tensor(float(t), dtype=torch.float64)


def per_row(value: Tensor, x: Tensor) -> Tensor:
    """Reshape a schedule value, scalar or (batch,), to multiply a state (batch, ``*event``)."""
    if value.ndim == 0:
        return value
    if value.shape != x.shape[:1]:
        raise ValueError(f"a time of shape {tuple(value.shape)} does not fit a batch of {x.shape[0]}: give one time or one per row")
    return value.to(device=x.device, dtype=x.dtype).reshape(-1, *(1,) * (x.ndim - 1))


class Schedule(ABC):
    r"""A pair :math:`(\alpha_t, \sigma_t)` whose ratio :math:`\nu_t` increases with ``t``: the scaling of a denoiser."""

    @abstractmethod
    def alpha(self, t: Time) -> Tensor:
        r"""Return the amplitude :math:`\alpha_t` of the signal, float64, in the shape of ``t``."""

    @abstractmethod
    def sigma(self, t: Time) -> Tensor:
        r"""Return the standard deviation :math:`\sigma_t` of the noise, float64, in the shape of ``t``."""

    @abstractmethod
    def time(self, noise_to_signal: Time) -> Tensor:
        r"""Return the time at which :math:`\sigma_t/\alpha_t` has a given value, the inverse of :meth:`noise_to_signal`."""

    def noise_to_signal(self, t: Time) -> Tensor:
        r"""Return :math:`\nu_t = \sigma_t/\alpha_t`, dimensionless."""
        return self.sigma(t) / self.alpha(t)


class Process(Schedule):
    r"""A forward process :math:`x_t = \alpha_t x_0 + \sigma_t z` on :math:`t \in [0, t_{max}]`, clean at :math:`t = 0`.

    Parameters
    ----------
    time_min, time_max : float
        The smallest and the largest time that a turn or a grid may use (in the process's own unit of time). Time 0, the clean data,
        is always valid as the end of a reverse run.
    """

    def __init__(self, time_min: float, time_max: float) -> None:
        if not 0 < time_min < time_max < math.inf:
            raise ValueError(
                f"times must satisfy 0 < smallest < largest < infinity, not {time_min} and {time_max}: swap or correct them"
            )
        self.time_min = float(time_min)
        self.time_max = float(time_max)

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value:g}" for name, value in vars(self).items() if isinstance(value, float))
        return f"{type(self).__name__}({settings})"

    @abstractmethod
    def f(self, t: Time) -> Tensor:
        r"""Return the drift :math:`f(t) = \dot\alpha_t/\alpha_t` of :math:`dx = f x\,dt + g\,dw`."""

    @abstractmethod
    def g2(self, t: Time) -> Tensor:
        r"""Return the squared diffusion :math:`g^2(t) = \frac{d\sigma^2}{dt} - 2 f \sigma^2`."""

    @abstractmethod
    def integrated_score_weight(self, s: Time, t: Time) -> Tensor:
        r"""Return :math:`\int_s^t \frac{\alpha_s}{\alpha_\tau} g^2(\tau)\,d\tau`, the weight of a score held fixed over a step."""

    def level(self, t: float) -> float:
        """Return the time of the process nearest to ``t``: ``t`` itself in continuous time."""
        return float(t)

    def turn_time(self, t: float) -> float:
        """Return the level used for a requested turn time.

        Parameters
        ----------
        t : float
            Requested turn time, in the process's own time.

        Returns
        -------
        float
            The level used (the nearest one where the process is discrete).

        Raises
        ------
        ValueError
            If the time lies outside ``[time_min, time_max]``.

        Examples
        --------
        >>> from gaussian_test.sampler import VarianceExploding
        >>> VarianceExploding().turn_time(3.0)
        3.0
        """
        if not self.time_min * (1 - 1e-9) <= t <= self.time_max * (1 + 1e-9):  # also refuses NaN
            low, high = float(self.noise_to_signal(self.time_min)), float(self.noise_to_signal(self.time_max))
            raise ValueError(
                f"turn time {t:g} lies outside the process, which runs from {self.time_min:g} to {self.time_max:g} "
                f"(noise-to-signal {low:.3g} to {high:.3g}): choose a time within it"
            )
        return self.level(min(max(t, self.time_min), self.time_max))

    def turn_time_from_noise_to_signal(self, noise_to_signal: float) -> float:
        """Return the level used for a requested noise-to-signal ratio.

        Parameters
        ----------
        noise_to_signal : float
            Requested ratio, positive.

        Returns
        -------
        float
            The turn time used, in the process's own time.

        Raises
        ------
        ValueError
            If the ratio is not positive or lies outside the process.

        Examples
        --------
        >>> from gaussian_test.sampler import Cosine
        >>> round(Cosine().turn_time_from_noise_to_signal(1.0), 12)
        0.5
        """
        low, high = float(self.noise_to_signal(self.time_min)), float(self.noise_to_signal(self.time_max))
        if not low * (1 - 1e-9) <= noise_to_signal <= high * (1 + 1e-9):
            raise ValueError(
                f"noise-to-signal ratio {noise_to_signal:g} lies outside the process, which covers {low:.3g} to {high:.3g}: "
                "choose a ratio within it or widen the process"
            )
        return self.turn_time(float(self.time(min(max(noise_to_signal, low), high))))

    def transition(self, s: Time, t: Time) -> tuple[Tensor, Tensor]:
        r"""Return amplitude and standard deviation of the forward step from ``s`` to ``t``.

        .. math:: x_t \mid x_s \sim \mathcal N\left(\tfrac{\alpha_t}{\alpha_s} x_s,\ \alpha_t^2(\nu_t^2 - \nu_s^2)\right)

        Parameters
        ----------
        s, t : float or Tensor
            Earlier and later time, ``s <= t``.

        Returns
        -------
        tuple of Tensor
            :math:`\alpha_t/\alpha_s` and the standard deviation, float64.

        Examples
        --------
        >>> from gaussian_test.sampler import VarianceExploding
        >>> amplitude, deviation = VarianceExploding().transition(3.0, 5.0)
        >>> float(amplitude), float(deviation)
        (1.0, 4.0)
        """
        alpha_t = self.alpha(t)
        nu_s, nu_t = self.noise_to_signal(s), self.noise_to_signal(t)
        # product of sum and difference: a difference of squares would lose digits
        return alpha_t / self.alpha(s), alpha_t * ((nu_t - nu_s).clamp(min=0) * (nu_t + nu_s)).sqrt()

    def noised(self, x: Tensor, t: Time, noise: Tensor, s: Time = 0.0) -> Tensor:
        r"""Run the forward process from ``s`` (default: the clean data) to ``t``.

        Parameters
        ----------
        x : Tensor
            State at ``s``, shape (batch, ``*event``).
        t : float or Tensor
            Later time, scalar or (batch,).
        noise : Tensor
            Standard normal, shape of ``x``.
        s : float or Tensor
            Earlier time.

        Returns
        -------
        Tensor
            State at ``t``, shape, dtype and device of ``x``.

        Examples
        --------
        >>> from gaussian_test.sampler import VarianceExploding
        >>> VarianceExploding().noised(torch.ones(1, 2), 2.0, torch.tensor([[0.0, 1.0]]))
        tensor([[1., 3.]])
        """
        amplitude, deviation = self.transition(as_time(s), as_time(t))
        return per_row(amplitude, x) * x + per_row(deviation, x) * noise


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
        Number of steps from the largest turn time to 0, at least 1; more if needed for a separate step at every turn time and at
        the smallest level of the process.
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
    r"""Return EDM's grid in :math:`\nu` of ``steps`` levels over the whole process, then 0.

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
        float64, strictly descending, from the process's largest time to 0; fewer levels if a discrete process has fewer.

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
    times = {process.time_max, *inner, *([process.time_min] if steps > 1 else [])}  # the ends bit for bit
    return np.array([*sorted(times, reverse=True), 0.0])


def _apportion(lengths: NDArray[np.float64], total: int) -> list[int]:
    """Distribute ``total`` steps over segments in proportion to length, at least one each (largest remainders)."""
    counts = np.ones(len(lengths), dtype=int)
    spare = max(total - len(lengths), 0)
    share = lengths / lengths.sum() * total - 1
    share = np.clip(share, 0, None)
    share *= spare / share.sum() if share.sum() > 0 else 0
    counts += np.floor(share).astype(int)
    for index in np.argsort(-(share - np.floor(share)), kind="stable")[: spare - int(np.floor(share).sum())]:
        counts[index] += 1
    return [int(count) for count in counts]
