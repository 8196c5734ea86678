r"""Conversion of network predictions to the posterior mean.

.. math:: D = \hat x_0 = \frac{x - \sigma\hat z}{\alpha} = \frac{\alpha x - \sigma\hat v}{\alpha^2 + \sigma^2}
            = \frac{x + \sigma^2\hat s}{\alpha},\qquad \hat u = f x + \frac{g^2}{2\sigma}\hat z
"""

from typing import Literal

import torch
from torch import Tensor

from gaussian_test.sampler.process import Process, Schedule, per_row
from gaussian_test.sampler.scores.score import Score

Prediction = Literal["x0", "epsilon", "v", "score", "velocity"]


def to_denoised(prediction: Prediction, predicted: Tensor, x: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    r"""Return the posterior mean D from a network's prediction.

    Parameters
    ----------
    prediction : {"x0", "epsilon", "v", "score", "velocity"}
        Type of the prediction: the denoised state; the noise :math:`z`; :math:`v = \alpha z - \sigma x_0`; the score; the velocity
        :math:`u = \dot\alpha x_0 + \dot\sigma z` of flow matching.
    predicted, x : Tensor
        Prediction and state, (batch, ``*event``).
    t : Tensor
        Time of the schedule, scalar or (batch,).
    schedule : Schedule
        Gives :math:`\alpha_t` and :math:`\sigma_t`; for a velocity a Process, which gives f and g.

    Returns
    -------
    Tensor
        Shape of ``x``.

    References
    ----------
    Salimans & Ho, arXiv 2202.00512 (v); Lipman et al., arXiv 2210.02747 (velocity).

    Examples
    --------
    >>> import torch
    >>> from gaussian_test.sampler import Rectified
    >>> x, velocity = torch.tensor([[0.5]]), torch.tensor([[2.0]])  # x0 = -0.5, z = 1.5: x = (x0 + z)/2, u = z - x0
    >>> to_denoised("velocity", velocity, x, torch.tensor(0.5), Rectified())
    tensor([[-0.5000]])
    """
    if prediction == "x0":
        return predicted
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    if prediction == "v":
        norm = alpha**2 + sigma**2
        return per_row(alpha / norm, x) * x - per_row(sigma / norm, x) * predicted
    if prediction == "score":
        return per_row(1 / alpha, x) * x + per_row(sigma**2 / alpha, x) * predicted
    if prediction == "velocity":
        assert isinstance(schedule, Process)
        f, to_noise = schedule.f(t), 2 * sigma / schedule.g2(t)
        predicted = per_row(to_noise, x) * (predicted - per_row(f, x) * x)
    return per_row(1 / alpha, x) * x - per_row(sigma / alpha, x) * predicted


OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "ALLOC_FAILED")  # in the message of a RuntimeError


class NetworkError(RuntimeError):
    """Failure of a network on states of its shape.

    Parameters
    ----------
    score : NetworkScore
        The score of the network.
    what : str
        Description of the failed states.
    error : Exception
        The original error.
    """

    def __init__(self, score: Score, what: str, error: Exception) -> None:
        super().__init__(f"the network {what} ({type(error).__name__}: {' '.join(str(error).split())[:200]})")
        self.score = score


def out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error means out of memory, on a GPU or on the CPU.

    Parameters
    ----------
    error : RuntimeError
        An error raised by torch.

    Returns
    -------
    bool

    Examples
    --------
    >>> out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    True
    """
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in OUT_OF_MEMORY)
