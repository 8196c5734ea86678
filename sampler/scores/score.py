r"""Base class of scores :math:`\nabla\log p_t(x) = (\alpha_t D - x)/\sigma_t^2`.

By Tweedie's formula a score is equivalent to its denoiser :math:`D(x, t) = E[x_0 \mid x_t = x]`. A score that can also draw from
:math:`p(x_0 \mid x_t)` sets ``has_posterior``, and the reverse process then needs no time steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from gaussian_test.sampler.noise import Noise
from gaussian_test.sampler.process import Process, Time, as_time, per_row


@dataclass(frozen=True)
class ModalForm:
    """A score in rotated coordinates, with the rotations there and back for states and noise."""

    score: Score
    rotate: Callable[[Tensor], Tensor]
    rotate_back: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Evaluated:
    r"""What one evaluation of a score tells: denoised states and, if the score knows its density, how likely they were.

    Attributes
    ----------
    denoised : Tensor
        :math:`D(x, t)`, shape of the states.
    log_ratio : Tensor or None
        :math:`\log p_t(x) - \log\mathcal N(x;\ \alpha_t m,\ \sigma_t^2)`, the log density relative to noise about an origin m,
        float64, shape (batch,); None if the score does not know its density.
    information : Tensor or None
        :math:`\log N - H(w)` of posterior weights w over N samples, in nats, float64, shape (batch,); None if there are none.
    """

    denoised: Tensor
    log_ratio: Tensor | None = None
    information: Tensor | None = None


class Score(nn.Module, ABC):
    r"""A score function of noised data, at any time of its process.

    Parameters
    ----------
    process : Process
        The forward process, which defines the time ``t``.
    event_shape : tuple of int
        Shape of one sample; states are (batch, ``*event_shape``).

    Attributes
    ----------
    has_posterior : bool
        Whether it can draw from :math:`p(x_0 \mid x_t)` exactly.
    conditional : bool
        Whether runs pass it the class of each sample.
    micro_batch : int or None
        States per call of a network; None to use the caller's batch unchanged.

    Notes
    -----
    States are float32 or float64, like the module's buffers (``.to()``, ``.double()``).
    """

    has_posterior: ClassVar[bool] = False
    conditional: bool = False
    micro_batch: int | None = None

    if TYPE_CHECKING:  # nn.Module declares its call as returning Any

        def __call__(self, x: Tensor, t: Time, label: Tensor | None = None) -> Tensor: ...

    def __init_subclass__(cls, **arguments: object) -> None:
        super().__init_subclass__(**arguments)
        if "denoise" in vars(cls) and "evaluate" not in vars(cls):  # another denoiser does not have the inherited density
            cls.evaluate = Score.evaluate  # type: ignore[method-assign]

    def __init__(self, process: Process, event_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.process = process
        self.event_shape = tuple(int(size) for size in event_shape)

    @abstractmethod
    def denoise(self, x: Tensor, t: Time, label: Tensor | None = None) -> Tensor:
        r"""Return :math:`D(x, t) = E[x_0 \mid x_t = x]`.

        Parameters
        ----------
        x : Tensor
            Noised states, shape (batch, ``*event_shape``).
        t : float or Tensor
            Time, scalar or (batch,).
        label : Tensor, optional
            Class of each row, int64, shape (batch,): the posterior mean within the class.

        Returns
        -------
        Tensor
            Shape of ``x``.
        """

    def forward(self, x: Tensor, t: Time, label: Tensor | None = None) -> Tensor:
        r"""Return the score :math:`\nabla\log p_t(x) = (\alpha_t D(x, t) - x)/\sigma_t^2`, shape of ``x``."""
        t = as_time(t)
        denoised = self.denoise(x, t, label)
        return (per_row(self.process.alpha(t), x) * denoised - x) / per_row(self.process.sigma(t) ** 2, x)

    def evaluate(self, x: Tensor, t: Time, about: Tensor, label: Tensor | None = None) -> Evaluated:
        r"""Return denoised states and, if the score knows its density, the log density, from one evaluation.

        Parameters
        ----------
        x, t, label
            As in :meth:`denoise`; with a label, the density is that of the class.
        about : Tensor
            Origin m of the noise that densities are relative to, such as the mean of the data, shape (features,).

        Returns
        -------
        Evaluated
        """
        return Evaluated(self.denoise(x, t, label))

    def posterior(self, x: Tensor, t: Time, noise: Noise, label: Tensor | None = None) -> Tensor:
        r"""Draw :math:`x_0 \sim p(x_0 \mid x_t = x)`, one per row, from the given noise.

        Parameters
        ----------
        x, t, label
            As in :meth:`denoise`.
        noise : Noise
            The randomness: the draw is a pure function of it.

        Returns
        -------
        Tensor
            Shape of ``x``.

        Raises
        ------
        TypeError
            If this score cannot draw from its posterior exactly.
        """
        raise TypeError(
            f"{type(self).__name__} cannot draw from its posterior: use a reverse kernel with time steps, such as ReverseSDE"
        )

    def modal(self) -> ModalForm | None:
        """Return this score in coordinates where it acts feature by feature, or None if there are none."""
        return None

    def flat(self, x: Tensor) -> Tensor:
        """Return states as (batch, features), after checking their shape."""
        if tuple(x.shape[1:]) != self.event_shape:
            raise ValueError(
                f"a state of shape {tuple(x.shape)} does not fit this score: give (batch, {', '.join(map(str, self.event_shape))})"
            )
        return x.reshape(x.shape[0], -1)

    def signal(self, x: Tensor, t: Time) -> tuple[Tensor, Tensor]:
        r"""Return :math:`x_t/\alpha_t` as (batch, features) and :math:`\nu_t^2`, scalar or (batch, 1).

        Every process is the same experiment in these units, so scores compute in them.
        """
        t = as_time(t)
        flat = self.flat(x)
        return flat / per_row(self.process.alpha(t), flat), per_row(self.process.noise_to_signal(t) ** 2, flat)


def pick(weights: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Draw one column per row in proportion to weights, by inverting their cumulative sum.

    Examples
    --------
    >>> column, left = pick(torch.tensor([[1.0, 3.0]]).double(), torch.tensor([0.625]).double())
    >>> column.item(), left.item()
    (1, 0.5)
    """
    cumulative = weights.cumsum(1)
    target = (uniform * cumulative[:, -1]).unsqueeze(1)
    column = torch.searchsorted(cumulative, target, right=True)
    # a uniform next to 1 can round up to the total: use the last column with positive weight
    column = torch.minimum(column, (weights > 0).long().cumsum(1).argmax(1, keepdim=True))
    weight = weights.gather(1, column)
    left = (target - (cumulative.gather(1, column) - weight)) / weight
    return column.squeeze(1), left.squeeze(1).clamp(0, 1 - 2**-53)


def finite(highest: Tensor) -> Tensor:
    """Return the running maximum, or 0 for rows without a sample of their class so far."""
    return torch.where(torch.isinf(highest), torch.zeros_like(highest), highest)


def shifted_noise(offset: Tensor, shift: Tensor, variance: Tensor) -> Tensor:
    r"""Return :math:`\log\mathcal N(y;\ c,\ \nu^2) - \log\mathcal N(y;\ c + s,\ \nu^2)` in float64, shape (batch,).

    Of offsets :math:`y - c`, the shift s, (features,), and the variance :math:`\nu^2`, scalar or (batch, 1).

    Examples
    --------
    >>> shifted_noise(torch.tensor([[1.0]]), torch.tensor([1.0]), torch.tensor(2.0)).item()  # 0 - 1/4 in the exponents
    -0.25
    """
    along = ((offset - shift / 2).double() * shift.double()).sum(1)
    return -along / variance.double().reshape(-1)


def weights_of(logits: Tensor) -> Tensor:
    """Return weights in float64, relative to the largest of each row, from logarithms to base 2."""
    logits = logits.double()
    return (logits - logits.amax(1, keepdim=True)).exp2_()
