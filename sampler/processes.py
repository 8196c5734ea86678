r"""Six forward processes :math:`x_t = \alpha_t x_0 + \sigma_t z`."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gaussian_test.sampler.process import Process, Time, as_time


class VarianceExploding(Process):
    r"""Variance exploding, EDM's and the paper's process: :math:`\alpha_t = 1,\ \sigma_t = t`.

    Parameters
    ----------
    sigma_min, sigma_max : float
        Smallest and largest noise level.

    References
    ----------
    Karras et al., arXiv 2206.00364; Behjoo & Chertkov, arXiv 2308.07421 (:math:`b(t) = 2t`).

    Examples
    --------
    >>> float(VarianceExploding().noise_to_signal(3.0))
    3.0
    """

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0) -> None:
        for name, value in (("sigma_min", sigma_min), ("sigma_max", sigma_max)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} = {value:g} is not a noise level: give a positive, finite number")
        if not sigma_min < sigma_max:
            raise ValueError(f"sigma_min = {sigma_min:g} must be below sigma_max = {sigma_max:g}: swap or correct them")
        super().__init__(sigma_min, sigma_max)

    def alpha(self, t: Time) -> Tensor:
        return torch.ones_like(as_time(t))

    def sigma(self, t: Time) -> Tensor:
        return as_time(t)

    def time(self, noise_to_signal: Time) -> Tensor:
        return as_time(noise_to_signal)

    def f(self, t: Time) -> Tensor:
        return torch.zeros_like(as_time(t))

    def g2(self, t: Time) -> Tensor:
        return 2 * as_time(t)

    def integrated_score_weight(self, s: Time, t: Time) -> Tensor:
        s, t = as_time(s), as_time(t)
        return (t - s) * (t + s)


class _VariancePreservingFamily(Process):
    r"""Processes with :math:`\alpha_t^2 + \sigma_t^2 = 1`."""

    def integrated_score_weight(self, s: Time, t: Time) -> Tensor:
        # alpha_s * integral of alpha d(nu^2), where nu^2 = alpha^-2 - 1
        ratio = self.alpha(s) / self.alpha(t)
        return 2 * (ratio - 1)


class OrnsteinUhlenbeck(_VariancePreservingFamily):
    r"""Ornstein-Uhlenbeck: :math:`\alpha_t = e^{-t},\ \sigma_t = \sqrt{1 - e^{-2t}}`.

    Parameters
    ----------
    time_min, time_max : float
        Smallest and largest time.

    Examples
    --------
    >>> process = OrnsteinUhlenbeck()
    >>> round(float(process.time(process.noise_to_signal(1.5))), 12)
    1.5
    """

    def __init__(self, time_min: float = 2e-6, time_max: float = 10.0) -> None:
        super().__init__(time_min, time_max)

    def alpha(self, t: Time) -> Tensor:
        return torch.exp(-as_time(t))

    def sigma(self, t: Time) -> Tensor:
        return torch.sqrt(-torch.expm1(-2 * as_time(t)))

    def time(self, noise_to_signal: Time) -> Tensor:
        return torch.log1p(as_time(noise_to_signal) ** 2) / 2

    def f(self, t: Time) -> Tensor:
        return -torch.ones_like(as_time(t))

    def g2(self, t: Time) -> Tensor:
        return 2 * torch.ones_like(as_time(t))


class VariancePreserving(_VariancePreservingFamily):
    r"""Variance preserving (DDPM) with linear :math:`\beta(t) = \beta_{min} + t(\beta_{max} - \beta_{min})`.

    :math:`\alpha_t = e^{-\frac12\int_0^t\beta},\ \sigma_t = \sqrt{1-\alpha_t^2}`.

    Parameters
    ----------
    beta_min, beta_max : float
        Rate at time 0 and at time 1.
    time_min, time_max : float
        Smallest and largest time.

    References
    ----------
    Song et al., arXiv 2011.13456.

    Examples
    --------
    >>> process = VariancePreserving()
    >>> round(float(process.time(process.noise_to_signal(0.3))), 12)
    0.3
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0, time_min: float = 1e-5, time_max: float = 1.0) -> None:
        if not 0 < beta_min <= beta_max < math.inf:
            raise ValueError(f"rates must satisfy 0 < beta_min <= beta_max, not {beta_min:g} and {beta_max:g}: correct them")
        super().__init__(time_min, time_max)
        self.beta_min = float(beta_min)
        self.beta_max = float(beta_max)

    def _integral(self, t: Time) -> Tensor:
        t = as_time(t)
        return self.beta_min * t + (self.beta_max - self.beta_min) * t**2 / 2

    def alpha(self, t: Time) -> Tensor:
        return torch.exp(-self._integral(t) / 2)

    def sigma(self, t: Time) -> Tensor:
        return torch.sqrt(-torch.expm1(-self._integral(t)))

    def time(self, noise_to_signal: Time) -> Tensor:
        integral = torch.log1p(as_time(noise_to_signal) ** 2)
        # form of the quadratic root without cancellation at small times or division by a vanishing slope
        return 2 * integral / (self.beta_min + torch.sqrt(self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * integral))

    def f(self, t: Time) -> Tensor:
        return -self.g2(t) / 2

    def g2(self, t: Time) -> Tensor:
        return self.beta_min + as_time(t) * (self.beta_max - self.beta_min)


class Cosine(_VariancePreservingFamily):
    r"""Cosine variance preserving: :math:`\alpha_t = \cos(\pi t/2),\ \sigma_t = \sin(\pi t/2)`.

    Parameters
    ----------
    time_min, time_max : float
        Smallest and largest time; the largest stays below 1, where no signal is left.

    Examples
    --------
    >>> round(float(Cosine().noise_to_signal(0.5)), 12)
    1.0
    """

    def __init__(self, time_min: float = 0.001, time_max: float = 0.9999) -> None:
        if not time_max < 1:
            raise ValueError(f"time_max = {time_max:g} leaves no signal in the cosine process: give a value below 1")
        super().__init__(time_min, time_max)

    def alpha(self, t: Time) -> Tensor:
        return torch.cos(as_time(t) * (math.pi / 2))

    def sigma(self, t: Time) -> Tensor:
        return torch.sin(as_time(t) * (math.pi / 2))

    def time(self, noise_to_signal: Time) -> Tensor:
        return torch.atan(as_time(noise_to_signal)) * (2 / math.pi)

    def f(self, t: Time) -> Tensor:
        return -self.g2(t) / 2

    def g2(self, t: Time) -> Tensor:
        return math.pi * torch.tan(as_time(t) * (math.pi / 2))


class Rectified(Process):
    r"""Rectified flow (flow matching): :math:`\alpha_t = 1 - t,\ \sigma_t = t`.

    Parameters
    ----------
    time_min, time_max : float
        Smallest and largest time; the largest stays below 1, where no signal is left.

    Examples
    --------
    >>> float(Rectified().noise_to_signal(0.75))
    3.0
    """

    def __init__(self, time_min: float = 0.001, time_max: float = 0.9999) -> None:
        if not time_max < 1:
            raise ValueError(f"time_max = {time_max:g} leaves no signal in the rectified process: give a value below 1")
        super().__init__(time_min, time_max)

    def alpha(self, t: Time) -> Tensor:
        return 1 - as_time(t)

    def sigma(self, t: Time) -> Tensor:
        return as_time(t)

    def time(self, noise_to_signal: Time) -> Tensor:
        nu = as_time(noise_to_signal)
        return nu / (1 + nu)

    def f(self, t: Time) -> Tensor:
        return -1 / (1 - as_time(t))

    def g2(self, t: Time) -> Tensor:
        t = as_time(t)
        return 2 * t / (1 - t)

    def integrated_score_weight(self, s: Time, t: Time) -> Tensor:
        s, t = as_time(s), as_time(t)
        # (1 - s) * integral of 2 tau / (1 - tau)^2
        return 2 * (1 - s) * ((t - s) / ((1 - t) * (1 - s)) + torch.log1p((s - t) / (1 - s)))


class DiscreteVP(_VariancePreservingFamily):
    r"""Variance preserving at the discrete levels of a DDPM checkpoint: :math:`\alpha_k = \sqrt{\bar\alpha_k}`.

    Time ``k = 1 ... K`` is the checkpoint's level ``k - 1`` (``alphas_cumprod[k - 1]``) and time 0 the clean data. Between
    levels :math:`\log\bar\alpha` is linear (a piecewise constant rate :math:`\beta`), so that drift and diffusion exist;
    turn times and grids use integer levels only.

    Parameters
    ----------
    alphas_cumprod : sequence of float
        :math:`\bar\alpha` at the K levels, strictly decreasing in (0, 1).

    Examples
    --------
    >>> process = DiscreteVP([0.9, 0.5, 0.1])
    >>> round(float(process.noise_to_signal(2)), 12), process.turn_time(2.2)
    (1.0, 2.0)
    """

    def __init__(self, alphas_cumprod: Sequence[float] | Tensor) -> None:
        values = torch.as_tensor(alphas_cumprod, dtype=torch.float64).reshape(-1).cpu()
        if len(values) < 2 or not bool(((values > 0) & (values < 1)).all()) or not bool((values.diff() < 0).all()):
            raise ValueError(
                "alphas_cumprod must be at least two strictly decreasing numbers between 0 and 1: give the checkpoint's own"
            )
        super().__init__(1.0, float(len(values)))
        self.log_alpha_bar = torch.cat([torch.zeros(1, dtype=torch.float64), values.log()])

    def _log_alpha_bar(self, t: Time) -> Tensor:
        t = as_time(t)
        table = self.log_alpha_bar.to(t.device)
        below = t.floor().long().clamp(0, len(table) - 2)
        # take: a scalar index on another device would synchronise
        here = table.take(below)
        return here + (t - below) * (table.take(below + 1) - here)

    def level(self, t: float) -> float:
        return float(min(max(round(t), 0), round(self.time_max)))

    def alpha(self, t: Time) -> Tensor:
        return torch.exp(self._log_alpha_bar(t) / 2)

    def sigma(self, t: Time) -> Tensor:
        return torch.sqrt(-torch.expm1(self._log_alpha_bar(t)))

    def time(self, noise_to_signal: Time) -> Tensor:
        target = torch.log1p(as_time(noise_to_signal) ** 2)
        table = -self.log_alpha_bar.to(target.device)
        above = torch.searchsorted(table, target).clamp(1, len(table) - 1)
        before = table.take(above - 1)
        return above - 1 + (target - before) / (table.take(above) - before)

    def f(self, t: Time) -> Tensor:
        return -self.g2(t) / 2

    def g2(self, t: Time) -> Tensor:
        t = as_time(t)
        # rate of the step that ends at t: a reverse step from an integer level uses that level's beta
        table = self.log_alpha_bar.to(t.device)
        above = t.ceil().long().clamp(1, len(table) - 1)
        return table.take(above - 1) - table.take(above)
