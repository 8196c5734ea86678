r"""Density and entropy from the posterior weights of samples, tile by tile.

.. math:: \log\frac{p_t(x)}{\mathcal N(x;\ \alpha c,\ \sigma^2)} = \log\frac1N\sum_n e^{l_n},\qquad
          l_n = \frac{y\cdot x_n - |x_n|^2/2}{\nu^2},\qquad H(w) = \log\sum_n e^{l_n} - \sum_n w_n l_n .
"""

import math

import torch
from torch import Tensor

LOG_2 = math.log(2)  # weights are powers of 2: torch's exp is fifty times slower on underflow, exp2 is not


class PosteriorWeights:
    """Running sums over the weights of one batch, beside those of its posterior mean.

    Logits are to base 2, relative to their running maximum, so that no difference of large numbers is left in the entropy.

    Parameters
    ----------
    of_class : bool
        Whether logits of samples of other classes are minus infinity, so that N is counted row by row.

    Examples
    --------
    >>> seen = PosteriorWeights(False)
    >>> weights = seen.add(torch.tensor([[0.0, 0.0]]), torch.tensor([[-1.0]]), torch.tensor([[3.0]]))
    >>> log_mean, information = seen.summed()
    >>> round(log_mean.item() / LOG_2, 6), information.item()  # two weights of 2**3: no information
    (3.0, 0.0)
    """

    def __init__(self, of_class: bool) -> None:
        self._of_class = of_class
        self._buffer: Tensor | None = None
        self._moment: Tensor | None = None  # sum of weights times relative logits

    def add(self, relative: Tensor, before: Tensor, now: Tensor) -> Tensor:
        """Return the weights of a tile from logits relative to the maximum ``now``, which was ``before`` up to the last tile."""
        if self._buffer is None or self._buffer.shape != relative.shape:
            self._buffer = torch.empty_like(relative)
        weights = torch.exp2(relative, out=self._buffer)
        total = weights.sum(1, keepdim=True)
        count = torch.full_like(total, relative.shape[1])
        if self._of_class:
            members = relative > -torch.inf
            count = members.sum(1, keepdim=True).to(total)
            relative.masked_fill_(~members, 0)  # a weight of zero times infinity
        moment = torch.bmm(weights.unsqueeze(1), relative.unsqueeze(2))[:, 0]
        if self._moment is None:
            self._moment, self._total, self._count = moment, total, count
        else:
            shift = torch.where(torch.isinf(before), 0.0, before - now)
            scale = torch.where(torch.isinf(before), 0.0, shift.exp2())
            self._moment = scale * (self._moment + shift * self._total) + moment
            self._total, self._count = scale * self._total + total, self._count + count
        self._highest = now
        return weights

    def summed(self, count: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the logarithm of the mean of the exponentials, and log N less the entropy of the weights: float64, (batch,).

        N is counted, or given where samples of no weight were not added.
        """
        assert self._moment is not None  # for mypy: there is at least one tile
        total, moment = self._total.double()[:, 0], self._moment.double()[:, 0]
        count = self._count.double()[:, 0] if count is None else count.double()
        entropy = total.log() - LOG_2 * moment / total
        return (total / count).log() + LOG_2 * self._highest.double()[:, 0], count.log() - entropy.clamp(min=0)
