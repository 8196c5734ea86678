r"""A small trainable denoiser: a residual network of dense layers.

.. math:: D(x, \sigma) = c_{skip}(\sigma)\,x + c_{out}(\sigma)\,F(c_{in}(\sigma)\,x,\ c_{noise}(\sigma),\ \mathrm{label})

:math:`c_{skip} = s^2/(\sigma^2+s^2)`, :math:`c_{out} = \sigma s/\sqrt{\sigma^2+s^2}`, :math:`c_{in} = 1/\sqrt{\sigma^2+s^2}` and
:math:`c_{noise} = \frac14\ln\sigma` give input and target of :math:`F` unit size at every noise level; s is the size of the data.
"""

import math

import torch
from torch import Tensor, nn

FREQUENCIES = 8  # waves over the range of c_noise: enough to resolve noise levels a few per cent apart, too few to overfit each one


class ResidualDenoiser(nn.Module):
    r"""A denoiser with EDM's preconditioning and call, conditional on a class or unconditional.

    Parameters
    ----------
    img_channels, img_resolution : int
        Samples are (img_channels, img_resolution, img_resolution).
    label_dim : int
        Number of classes; 0 for none.
    width, hidden, blocks : int
        Features carried through the network, features inside each of its residual blocks, and the number of these.
    embedding : int
        Features of noise level and class, which scale and shift those of every block.
    sigma_data : float
        The data's root mean square s, in units of the data.
    sigma_min, sigma_max : float
        Range of noise levels for which the network is intended.
    dropout : float
        Share of a block's hidden features dropped in training mode.

    References
    ----------
    Karras et al., arXiv 2206.00364, table 1.

    Examples
    --------
    >>> net = ResidualDenoiser(img_channels=1, img_resolution=2, label_dim=3, width=8, hidden=8, blocks=1)
    >>> net(torch.ones(5, 1, 2, 2), 0.5, torch.eye(3)[[0, 1, 2, 0, 1]]).shape
    torch.Size([5, 1, 2, 2])
    """

    frequencies: Tensor

    def __init__(
        self,
        img_channels: int = 1,
        img_resolution: int = 8,
        label_dim: int = 10,
        width: int = 192,
        hidden: int = 384,
        blocks: int = 2,
        embedding: int = 64,
        sigma_data: float = 0.5,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.img_channels = img_channels
        self.img_resolution = img_resolution
        self.label_dim = label_dim
        self.sigma_data = sigma_data
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max
        features = img_channels * img_resolution**2
        self.register_buffer("frequencies", torch.arange(1, FREQUENCIES + 1, dtype=torch.float32) * (math.pi / 4), persistent=False)
        self.noise = nn.Linear(2 * FREQUENCIES, embedding)
        self.label = nn.Linear(label_dim, embedding, bias=False) if label_dim else None
        self.first = nn.Linear(features, width)
        self.blocks = nn.ModuleList(_Block(width, hidden, embedding, dropout) for _ in range(blocks))
        self.modulation = nn.Linear(embedding, 2 * width)
        self.last = nn.Linear(width, features)
        nn.init.zeros_(self.last.weight)  # an untrained network returns c_skip x
        nn.init.zeros_(self.last.bias)

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
        dtype = self.first.weight.dtype
        sigma = self.round_sigma(sigma).to(x).reshape(-1, 1)
        total = sigma.square() + self.sigma_data**2
        flat = x.flatten(1)
        phases = (sigma.log() / 4).to(dtype) * self.frequencies
        embedded = self.noise(torch.cat([phases.cos(), phases.sin()], 1))
        if self.label is not None and class_labels is not None:
            embedded = embedded + self.label(class_labels.to(dtype))
        embedded = nn.functional.silu(embedded)
        h = self.first((flat * total.rsqrt()).to(dtype))
        for block in self.blocks:
            h = block(h, embedded)
        # let fewer features pass at high noise, more at low noise
        correction: Tensor = self.last(_modulated(h, self.modulation(embedded))).to(x.dtype)
        denoised: Tensor = (self.sigma_data**2 / total) * flat + (sigma * self.sigma_data * total.rsqrt()) * correction
        return denoised.reshape(x.shape)

    def round_sigma(self, sigma: Tensor | float) -> Tensor:
        """Return the requested noise level as a tensor, without rounding."""
        return sigma if isinstance(sigma, Tensor) else torch.tensor(sigma, dtype=torch.float64)


class _Block(nn.Module):
    """Residual block: scale and shift features by noise level and class, then add one hidden layer's output."""

    def __init__(self, width: int, hidden: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(embedding, 2 * width)
        self.up = nn.Linear(width, hidden)
        self.dropout = nn.Dropout(dropout)
        self.down = nn.Linear(hidden, width)

    def forward(self, h: Tensor, embedded: Tensor) -> Tensor:
        hidden = nn.functional.silu(self.up(_modulated(self.norm(h), self.modulation(embedded))))
        result: Tensor = h + self.down(self.dropout(hidden))
        return result


def _modulated(h: Tensor, scale_and_shift: Tensor) -> Tensor:
    scale, shift = scale_and_shift.chunk(2, dim=1)
    return h * (1 + scale) + shift
