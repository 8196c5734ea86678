"""A small trainable denoiser: a residual network of dense layers."""

from torch import Tensor, nn

from gaussian_test.sampler.networks.edm_denoiser import EDMDenoiser, modulated


class ResidualDenoiser(EDMDenoiser):
    r"""A residual network of dense layers, of the features of whole samples.

    Parameters
    ----------
    width, hidden, blocks : int
        Features carried through the network, features inside each of its residual blocks, and the number of these.
    dropout : float
        Share of a block's hidden features dropped in training mode.
    img_channels, img_resolution, label_dim, embedding, sigma_data, sigma_min, sigma_max
        As in :class:`~gaussian_test.sampler.networks.edm_denoiser.EDMDenoiser`.

    Examples
    --------
    >>> import torch
    >>> net = ResidualDenoiser(img_channels=1, img_resolution=2, label_dim=3, width=8, hidden=8, blocks=1)
    >>> net(torch.ones(5, 1, 2, 2), 0.5, torch.eye(3)[[0, 1, 2, 0, 1]]).shape
    torch.Size([5, 1, 2, 2])
    """

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
        super().__init__(img_channels, img_resolution, label_dim, embedding, sigma_data, sigma_min, sigma_max)
        features = img_channels * img_resolution**2
        self.first = nn.Linear(features, width)
        self.blocks = nn.ModuleList(_Block(width, hidden, embedding, dropout) for _ in range(blocks))
        self.modulation = nn.Linear(embedding, 2 * width)
        self.last = nn.Linear(width, features)
        nn.init.zeros_(self.last.weight)  # an untrained network returns c_skip x
        nn.init.zeros_(self.last.bias)

    def correction(self, x: Tensor, embedded: Tensor) -> Tensor:
        """Return F."""
        h = self.first(x)
        for block in self.blocks:
            h = block(h, embedded)
        # let fewer features pass at high noise, more at low noise
        result: Tensor = self.last(modulated(h, self.modulation(embedded)))
        return result


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
        hidden = nn.functional.silu(self.up(modulated(self.norm(h), self.modulation(embedded))))
        result: Tensor = h + self.down(self.dropout(hidden))
        return result
