"""A small trainable denoiser of pictures: a convolutional U-Net."""

import torch
from torch import Tensor, nn

from gaussian_test.sampler.networks.edm_denoiser import EDMDenoiser, modulated

GROUPS = 8  # of channels that are normalised together


class UNetDenoiser(EDMDenoiser):
    r"""A U-Net of two scales, on pictures whose blocks of 2 x 2 pixels are channels.

    Parameters
    ----------
    width : int
        Channels at half of the resolution, a multiple of 8; twice as many at a quarter of it.
    dropout : float
        Share of a block's hidden features dropped in training mode.
    img_channels, img_resolution, label_dim, embedding, sigma_data, sigma_min, sigma_max
        As in :class:`~gaussian_test.sampler.networks.edm_denoiser.EDMDenoiser`; the resolution is a multiple of 4.

    Examples
    --------
    >>> net = UNetDenoiser(img_channels=1, img_resolution=8, label_dim=3, width=8)
    >>> net(torch.ones(5, 1, 8, 8), 0.5, torch.eye(3)[[0, 1, 2, 0, 1]]).shape
    torch.Size([5, 1, 8, 8])
    """

    def __init__(
        self,
        img_channels: int = 1,
        img_resolution: int = 28,
        label_dim: int = 10,
        width: int = 48,
        embedding: int = 128,
        sigma_data: float = 0.5,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(img_channels, img_resolution, label_dim, embedding, sigma_data, sigma_min, sigma_max)
        if img_resolution % 4 or width % GROUPS:
            raise ValueError(f"img_resolution = {img_resolution}, width = {width}: give multiples of 4 and of {GROUPS}")

        def block(inner: int, outer: int) -> _Block:
            return _Block(inner, outer, embedding, dropout)

        self.first = nn.Conv2d(4 * img_channels, width, 3, padding=1)
        self.down = nn.ModuleList([block(width, width), block(width, width)])
        self.coarser = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.before = block(2 * width, 2 * width)
        self.attention = _Attention(2 * width)
        self.after = block(2 * width, 2 * width)
        self.finer = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.up = nn.ModuleList([block(2 * width, width), block(2 * width, width)])
        self.norm = nn.GroupNorm(GROUPS, width)
        self.last = nn.Conv2d(width, 4 * img_channels, 3, padding=1)
        nn.init.zeros_(self.last.weight)  # an untrained network returns c_skip x
        if self.last.bias is not None:
            nn.init.zeros_(self.last.bias)

    def correction(self, x: Tensor, embedded: Tensor) -> Tensor:
        """Return F."""
        pictures = x.reshape(len(x), self.img_channels, self.img_resolution, self.img_resolution)
        h = self.first(nn.functional.pixel_unshuffle(pictures, 2).contiguous(memory_format=torch.channels_last))
        kept = []
        for block in self.down:
            h = block(h, embedded)
            kept.append(h)
        h = self.before(self.coarser(h), embedded)
        h = self.finer(self.after(self.attention(h), embedded))
        for block in self.up:
            h = block(torch.cat([h, kept.pop()], 1), embedded)
        return nn.functional.pixel_shuffle(self.last(nn.functional.silu(self.norm(h))), 2).flatten(1)


class _Block(nn.Module):
    """Residual block of two convolutions, whose hidden channels noise level and class scale and shift."""

    def __init__(self, inner: int, outer: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, inner)
        self.first = nn.Conv2d(inner, outer, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * outer)
        self.hidden_norm = nn.GroupNorm(GROUPS, outer, affine=False)
        self.dropout = nn.Dropout(dropout)
        self.second = nn.Conv2d(outer, outer, 3, padding=1)
        self.past = nn.Conv2d(inner, outer, 1) if inner != outer else nn.Identity()

    def forward(self, h: Tensor, embedded: Tensor) -> Tensor:
        hidden = self.first(nn.functional.silu(self.norm(h)))
        hidden = nn.functional.silu(modulated(self.hidden_norm(hidden), self.modulation(embedded)))
        result: Tensor = self.past(h) + self.second(self.dropout(hidden))
        return result


class _Attention(nn.Module):
    """Residual attention of every place to every other, with one head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, width)
        self.inner = nn.Conv2d(width, 3 * width, 1)
        self.outer = nn.Conv2d(width, width, 1)

    def forward(self, h: Tensor) -> Tensor:
        query, key, value = self.inner(self.norm(h)).flatten(2).transpose(1, 2).contiguous().chunk(3, dim=2)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        result: Tensor = h + self.outer(mixed.transpose(1, 2).reshape(h.shape))
        return result
