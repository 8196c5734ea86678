r"""EDM's preconditioning around a small trainable network.

.. math:: D(x, \sigma) = c_{skip}(\sigma)\,x + c_{out}(\sigma)\,F(c_{in}(\sigma)\,x,\ c_{noise}(\sigma),\ \mathrm{label})

:math:`c_{skip} = s^2/(\sigma^2+s^2)`, :math:`c_{out} = \sigma s/\sqrt{\sigma^2+s^2}`, :math:`c_{in} = 1/\sqrt{\sigma^2+s^2}` and
:math:`c_{noise} = \frac14\ln\sigma` give input and target of :math:`F` unit size at every noise level; s is the size of the data.
"""

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

FREQUENCIES = 8  # waves over the range of c_noise: enough to resolve noise levels a few per cent apart, too few to overfit each one


class EDMDenoiser(nn.Module):
    r"""A denoiser with EDM's preconditioning and call, conditional on a class or unconditional.

    Parameters
    ----------
    img_channels, img_resolution : int
        Samples are (img_channels, img_resolution, img_resolution).
    label_dim : int
        Number of classes; 0 for none.
    embedding : int
        Features of noise level and class.
    sigma_data : float
        The data's root mean square s, in units of the data.
    sigma_min, sigma_max : float
        Range of noise levels for which the network is intended.

    References
    ----------
    Karras et al., arXiv 2206.00364, table 1.
    """

    frequencies: Tensor

    def __init__(
        self,
        img_channels: int,
        img_resolution: int,
        label_dim: int,
        embedding: int,
        sigma_data: float,
        sigma_min: float,
        sigma_max: float,
    ) -> None:
        super().__init__()
        self.img_channels = img_channels
        self.img_resolution = img_resolution
        self.label_dim = label_dim
        self.sigma_data = sigma_data
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max
        self.register_buffer("frequencies", torch.arange(1, FREQUENCIES + 1, dtype=torch.float32) * (math.pi / 4), persistent=False)
        self.noise = nn.Linear(2 * FREQUENCIES, embedding)
        self.label = nn.Linear(label_dim, embedding, bias=False) if label_dim else None

    @abstractmethod
    def correction(self, x: Tensor, embedded: Tensor) -> Tensor:
        """Return F of inputs of unit size, (batch, features), and the embedding of noise level and class, (batch, embedding)."""

    def forward(self, x: Tensor, sigma: Tensor | float, class_labels: Tensor | None = None) -> Tensor:
        r"""Return :math:`D(x, \sigma) \approx E[x_0 \mid x_0 + \sigma z = x]`.

        Parameters
        ----------
        x : Tensor
            Noised samples, shape (batch, channels, rows, columns).
        sigma : float or Tensor
            Noise level in units of the data, positive, scalar or (batch,).
        class_labels : Tensor, optional
            One-hot, shape (batch, label_dim); a row of zeros, or None for all rows, means no class.

        Returns
        -------
        Tensor
            Shape and dtype of ``x``.
        """
        # only F uses the precision of the weights, which can differ from the state's and from autocast's
        dtype = self.noise.weight.dtype
        sigma = self.round_sigma(sigma).to(x).reshape(-1, 1)
        total = sigma.square() + self.sigma_data**2
        flat = x.flatten(1)
        phases = (sigma.log() / 4).to(dtype) * self.frequencies
        embedded = self.noise(torch.cat([phases.cos(), phases.sin()], 1))
        if self.label is not None and class_labels is not None:
            embedded = embedded + self.label(class_labels.to(dtype))
        embedded = nn.functional.silu(embedded)
        correction = self.correction((flat * total.rsqrt()).to(dtype), embedded).to(x.dtype)
        denoised: Tensor = (self.sigma_data**2 / total) * flat + (sigma * self.sigma_data * total.rsqrt()) * correction
        return denoised.reshape(x.shape)

    def round_sigma(self, sigma: Tensor | float) -> Tensor:
        """Return the requested noise level as a tensor, without rounding."""
        return sigma if isinstance(sigma, Tensor) else torch.tensor(sigma, dtype=torch.float64)


def modulated(h: Tensor, scale_and_shift: Tensor) -> Tensor:
    """Return features (batch, features, ...) scaled and shifted by a row of (batch, 2 features)."""
    scale, shift = scale_and_shift.reshape(*scale_and_shift.shape, *[1] * (h.ndim - 2)).chunk(2, dim=1)
    return h * (1 + scale) + shift
