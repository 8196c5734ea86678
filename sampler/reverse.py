r"""Reverse kernels: one step from ``t`` to ``s < t``.

With :math:`x_t = \alpha_t x_0 + \sigma_t z`, the reverse of :math:`dx = f x\,dt + g\,dw` is the SDE
:math:`dx = [f x - g^2\nabla\log p_t]dt + g\,d\bar w` or the probability-flow ODE :math:`\dot x = f x - \frac12 g^2\nabla\log p_t`.
A step is a pure function of state and noise. So mean and variance under an affine score can be propagated through the same steps.
"""

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from torch import Tensor

from gaussian_test.sampler.noise import Noise
from gaussian_test.sampler.process import Process, Time
from gaussian_test.sampler.scores.score import Score


class ReverseKernel(ABC):
    """One step of a reverse process.

    Attributes
    ----------
    exact : bool
        Whether a single step from any time to 0 draws from the exact posterior, so that no grid is needed.
    """

    exact: ClassVar[bool] = False

    @property
    def uses_noise(self) -> bool:
        """Whether a step uses its noise; if not, a run draws none."""
        return True

    @property
    def flow(self) -> Literal["sde", "ode"] | None:
        """Law in the limit of small steps: the reverse SDE, the probability flow, or neither (churn).

        Examples
        --------
        >>> ReverseSDE().flow, ProbabilityFlow().flow, EDMStochastic(8, S_churn=1.0).flow
        ('sde', 'ode', None)
        """
        return "sde" if self.uses_noise else "ode"

    @abstractmethod
    def step(self, score: Score, x: Tensor, t: Time, s: float, noise: Noise, label: Tensor | None = None) -> Tensor:
        """Take one step of the reverse process.

        Parameters
        ----------
        score : Score
            Provides the denoiser and the process.
        x : Tensor
            State at ``t``, shape (batch, ``*event``).
        t, s : float
            From and to, ``0 <= s < t``, in the process's time. An exact kernel with ``s = 0`` also accepts one ``t`` per row.
        noise : Noise
            The step's randomness, one row per state.
        label : Tensor, optional
            Class to condition on, (batch,).

        Returns
        -------
        Tensor
            State at ``s``, shape of ``x``.
        """

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({settings})"


def bridge(process: Process, x: Tensor, x0: Tensor, t: Time, s: float, normal: Tensor) -> Tensor:
    r"""Draw :math:`x_s` from the Gaussian bridge between known :math:`x_t` and :math:`x_0`.

    .. math:: x_s = \frac{\alpha_s}{\alpha_t}\frac{\nu_s^2}{\nu_t^2}x_t + \alpha_s\Big(1-\frac{\nu_s^2}{\nu_t^2}\Big)x_0
              + \sigma_s\sqrt{1-\nu_s^2/\nu_t^2}\;z

    Parameters
    ----------
    process : Process
        The forward process.
    x, x0 : Tensor
        State at ``t`` and at 0, shape (batch, ``*event``).
    t, s : float
        Later and earlier time.
    normal : Tensor
        Standard normal, shape of ``x``.

    Returns
    -------
    Tensor
        State at ``s``.

    Examples
    --------
    >>> import torch
    >>> from gaussian_test.sampler import VarianceExploding
    >>> bridge(VarianceExploding(), torch.tensor([[4.0]]), torch.tensor([[0.0]]), 2.0, 1.0, torch.tensor([[0.0]]))
    tensor([[1.]])
    """
    alpha_s, alpha_t, sigma_s = process.alpha(s), process.alpha(t), process.sigma(s)
    share = (process.noise_to_signal(s) / process.noise_to_signal(t)) ** 2
    return (alpha_s / alpha_t * share) * x + (alpha_s * (1 - share)) * x0 + (sigma_s * (1 - share).sqrt()) * normal


class ExactReversal(ReverseKernel):
    """Draw the end point from the exact posterior, then the state at ``s`` from the bridge to it.

    The chain of such steps is the reversed process itself, at any number of steps. A step to ``s > 0`` uses two normal variables,
    one for the end point and one (``noise.second``) for the bridge.

    Raises
    ------
    ValueError
        By :meth:`step`, if ``s > 0`` and the noise has no second normal variable.

    Examples
    --------
    >>> ExactReversal()
    ExactReversal()
    """

    exact: ClassVar[bool] = True

    def step(self, score: Score, x: Tensor, t: Time, s: float, noise: Noise, label: Tensor | None = None) -> Tensor:
        x0 = score.posterior(x, t, noise, label)
        if s == 0:
            return x0
        if noise.second is None:
            raise ValueError(f"an exact step to time {s:g} > 0 needs a second normal variable: give Noise(normal, uniform, second)")
        return bridge(score.process, x, x0, t, s, noise.second)


class ReverseSDE(ReverseKernel):
    r"""The reverse SDE by Euler-Maruyama or by the exponential integrator.

    Parameters
    ----------
    method : {"euler_maruyama", "exponential"}
        Euler-Maruyama: drift and diffusion held at ``t``. Exponential: only the score is held at ``t``, the linear part and
        the noise are integrated exactly: :math:`x_s = \frac{\alpha_s}{\alpha_t}x + \int_s^t\frac{\alpha_s}{\alpha_\tau}g^2
        d\tau\,\nabla\log p_t(x) + \alpha_s\sqrt{\nu_t^2-\nu_s^2}\,z`.
    clock : {"time", "variance"}
        Variable of the Euler-Maruyama steps: the process's time, or :math:`\nu^2` of the state divided by :math:`\alpha`, where the
        mean of an affine score is exact at any number of steps. The exponential integrator has no clock.

    Raises
    ------
    ValueError
        If the method or the clock is unknown.

    References
    ----------
    Anderson (1982); Song et al., arXiv 2011.13456; Pierret & Galerne, arXiv 2405.14250.

    Examples
    --------
    >>> ReverseSDE("exponential")
    ReverseSDE(method='exponential', clock='time')
    """

    def __init__(
        self, method: Literal["euler_maruyama", "exponential"] = "euler_maruyama", clock: Literal["time", "variance"] = "time"
    ) -> None:
        if method not in ("euler_maruyama", "exponential"):
            raise ValueError(f"{method!r} is not a method of the reverse SDE: choose 'euler_maruyama' or 'exponential'")
        if clock not in ("time", "variance"):
            raise ValueError(f"{clock!r} is not a clock of the reverse SDE: choose 'time' or 'variance'")
        self.method = method
        self.clock = clock

    def step(self, score: Score, x: Tensor, t: Time, s: float, noise: Noise, label: Tensor | None = None) -> Tensor:
        process = score.process
        if self.method == "euler_maruyama" and self.clock == "time":
            f, g2 = process.f(t), process.g2(t)
            return (1 - f * (t - s)) * x + (g2 * (t - s)) * score(x, t, label) + (g2 * (t - s)).sqrt() * noise.normal
        alpha_s, alpha_t = process.alpha(s), process.alpha(t)
        nu_s, nu_t = process.noise_to_signal(s), process.noise_to_signal(t)
        fallen = (nu_t - nu_s) * (nu_t + nu_s)
        # on x/alpha the score is alpha times the score of x, and its drift runs in the variance nu^2
        weight = process.integrated_score_weight(s, t) if self.method == "exponential" else alpha_s * alpha_t * fallen
        return (alpha_s / alpha_t) * x + weight * score(x, t, label) + (alpha_s * fallen.sqrt()) * noise.normal


class ProbabilityFlow(ReverseKernel):
    r"""The probability-flow ODE :math:`\frac{dy}{d\nu} = \frac{y - D}{\nu}`, :math:`y = x/\alpha`, by Euler or Heun.

    In these units the flow is the same for every process; Euler's step is DDIM's, Heun's is EDM's. The last step, to 0, is
    Euler's in both.

    Parameters
    ----------
    method : {"heun", "euler"}
        Second or first order.

    Raises
    ------
    ValueError
        If the method is unknown.

    References
    ----------
    Karras et al., arXiv 2206.00364, algorithm 1; Song et al., arXiv 2010.02502.

    Examples
    --------
    >>> ProbabilityFlow("euler")
    ProbabilityFlow(method='euler')
    """

    def __init__(self, method: Literal["heun", "euler"] = "heun") -> None:
        if method not in ("heun", "euler"):
            raise ValueError(f"{method!r} is not a method of the probability flow: choose 'heun' or 'euler'")
        self.method = method

    @property
    def uses_noise(self) -> bool:
        return False

    def step(self, score: Score, x: Tensor, t: Time, s: float, noise: Noise, label: Tensor | None = None) -> Tensor:
        return flow_step(score, x, t, s, label, second_order=self.method == "heun")


def flow_step(score: Score, x: Tensor, t: Time, s: float, label: Tensor | None, second_order: bool) -> Tensor:
    r"""Take one step of the probability flow from ``t`` to ``s``: Euler's, or Heun's with ``second_order``."""
    process = score.process
    alpha_s, alpha_t = process.alpha(s), process.alpha(t)
    nu_s, nu_t = process.noise_to_signal(s), process.noise_to_signal(t)
    y = x / alpha_t
    slope = (y - score.denoise(x, t, label)) / nu_t
    ahead = y + (nu_s - nu_t) * slope
    if second_order and s > 0:
        slope_ahead = (ahead - score.denoise(alpha_s * ahead, s, label)) / nu_s
        ahead = y + ((nu_s - nu_t) / 2) * (slope + slope_ahead)
    return alpha_s * ahead


class EDMStochastic(ReverseKernel):
    r"""EDM's stochastic sampler: churn up to :math:`\hat\nu = (1+\gamma)\nu`, then a Heun step of the flow.

    Where :math:`\nu` lies in [S_min, S_max], :math:`\gamma = \min(S_{churn}/\mathrm{steps}, \sqrt2 - 1)`, else 0.

    Parameters
    ----------
    steps : int
        Number of steps of the run: it scales the churn.
    S_churn, S_min, S_max, S_noise : float
        As in the paper's table 5: total churn, the noise levels between which it acts, and the inflation of the new noise.

    Raises
    ------
    ValueError
        If ``steps < 1`` or a setting is negative.

    Warnings
    --------
    With churn, the correlation along the path belongs to the sampler and not to the process: compare it with the discretised closed
    form.

    References
    ----------
    Karras et al., arXiv 2206.00364, algorithm 2.

    Examples
    --------
    >>> round(EDMStochastic(steps=18, S_churn=40).gamma(1.0), 6)
    0.414214
    """

    def __init__(self, steps: int, S_churn: float = 0.0, S_min: float = 0.0, S_max: float = math.inf, S_noise: float = 1.0) -> None:
        if steps < 1:
            raise ValueError(f"steps = {steps} is not a number of reverse steps: give at least 1")
        for name, value in (("S_churn", S_churn), ("S_min", S_min), ("S_max", S_max), ("S_noise", S_noise)):
            if not value >= 0:
                raise ValueError(f"{name} = {value} is out of range: give a number that is not negative")
        self.steps = steps
        self.S_churn = S_churn
        self.S_min = S_min
        self.S_max = S_max
        self.S_noise = S_noise

    @property
    def uses_noise(self) -> bool:
        return self.S_churn > 0

    @property
    def flow(self) -> Literal["sde", "ode"] | None:
        return None if self.uses_noise else "ode"

    def gamma(self, noise_to_signal: float) -> float:
        r"""Return the relative rise :math:`\gamma` of the noise level at :math:`\nu`."""
        if not self.S_min <= noise_to_signal <= self.S_max:
            return 0.0
        return min(self.S_churn / self.steps, math.sqrt(2) - 1)

    def risen(self, process: Process, t: float) -> float:
        r"""Return the time of the noise level :math:`\hat\nu` that the churn rises to from ``t``.

        Parameters
        ----------
        process : Process
            The forward process.
        t : float
            A time of the grid.

        Returns
        -------
        float
            ``t`` itself without churn.

        Examples
        --------
        >>> from gaussian_test.sampler import VarianceExploding
        >>> round(EDMStochastic(steps=4, S_churn=1).risen(VarianceExploding(), 2.0), 12)
        2.5
        """
        nu = float(process.noise_to_signal(t))
        # churn cannot exceed the largest level of a bounded process
        risen = min((1 + self.gamma(nu)) * nu, float(process.noise_to_signal(process.time_max)))
        return float(process.time(risen)) if risen > nu else t

    def step(self, score: Score, x: Tensor, t: Time, s: float, noise: Noise, label: Tensor | None = None) -> Tensor:
        process = score.process
        t = float(t)
        t_hat = self.risen(process, t)
        if t_hat > t:
            amplitude, deviation = process.transition(t, t_hat)
            x = amplitude * x + (deviation * self.S_noise) * noise.normal
            t = t_hat
        return flow_step(score, x, t, s, label, second_order=True)


class Ancestral(ReverseKernel):
    r"""The DDPM step: the Gaussian bridge to the denoised state, with the posterior variance :math:`\tilde\beta`.

    Its mean is exact for an affine score at any number of steps; it is also the first-order exponential integrator of the
    reverse SDE with the denoiser held fixed.

    References
    ----------
    Ho et al., arXiv 2006.11239, equation 7.

    Examples
    --------
    >>> Ancestral()
    Ancestral()
    """

    def step(self, score: Score, x: Tensor, t: Time, s: float, noise: Noise, label: Tensor | None = None) -> Tensor:
        return bridge(score.process, x, score.denoise(x, t, label), t, s, noise.normal)
