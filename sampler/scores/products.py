"""Products of states with samples: the exponents of the posterior weights, and distances."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gaussian_test.sampler.scores.posterior_weights import LOG_2, PosteriorWeights
from gaussian_test.sampler.scores.score import finite, pick, weights_of
from gaussian_test.sampler.scores.store import SAMPLE_ELEMENTS, ListedSamples, Store, block_size, row_chunks

TILE_ELEMENTS = 2**22  # elements of a (rows, samples) tile of logits
DRAWN_ELEMENTS = 2**20  # elements of a (rows, blocks) table of weights, in float64, drawn from at once
Others = Callable[[slice | Tensor], Tensor]  # from indices of samples to whether each is left out for each row, (rows, samples)


@dataclass(frozen=True)
class Products:
    """Samples relative to their center, and the products of states with them."""

    store: Store
    half_square_norm: Tensor  # (N,), in the type of the samples

    def logits(self, scaled: Tensor, variance: Tensor, others: Others | None = None) -> Iterator[tuple[slice, Tensor, Tensor]]:
        r"""Yield tiles of samples and of :math:`(y\cdot x_n - |x_n|^2/2)/\nu^2`, the log-weights up to a constant per row.

        Of states over :math:`\nu^2`, relative to the center, in whose type they are computed; to base 2 if that variance is given
        times :math:`\log 2`; minus infinity for the samples left out. Logits are valid until the next are requested.
        """
        count = len(self.half_square_norm)
        size = block_size(count, scaled.shape[1])
        width = max(size, min(TILE_ELEMENTS // max(len(scaled), 1), SAMPLE_ELEMENTS // scaled.shape[1]) // size * size)
        parts = list(row_chunks(count, width))
        # one buffer for all tiles: repeated large allocations would fragment the heap
        buffer = scaled.new_empty(len(scaled) * min(width, count))
        precision = 1 / (variance if variance.ndim == 0 else variance.squeeze(1))
        for numbers, stored in zip(parts, self.store.tiles(parts), strict=True):
            tile = stored.to(scaled.dtype)
            out = buffer[: len(scaled) * len(tile)].view(len(scaled), len(tile))
            half = self.half(numbers, tile)
            if variance.ndim == 0:
                logits = torch.addmm(half * precision, scaled, tile.T, beta=-1, out=out)
            else:
                logits = torch.mm(scaled, tile.T, out=out).addr_(precision, half, alpha=-1)
            if others is not None:
                logits.masked_fill_(others(numbers), -torch.inf)
            yield numbers, tile, logits

    def mean(self, offset: Tensor, variance: Tensor, others: Others | None = None, seen: PosteriorWeights | None = None) -> Tensor:
        """Return the weighted mean by online softmax, rescaled whenever the running maximum rises; ``seen`` sums the weights."""
        variance = variance * LOG_2
        scaled = offset.div_(variance)
        mean, highest = torch.empty_like(scaled), scaled.new_full((len(scaled), 1), -torch.inf)
        total: Tensor | None = None
        for _, tile, logits in self.logits(scaled, variance, others):
            new_highest = torch.maximum(highest, logits.amax(1, keepdim=True))
            reference = finite(new_highest)
            relative = logits.sub_(reference)
            weights = relative.exp2_() if seen is None else seen.add(relative, highest, new_highest)
            summed = weights.sum(1, keepdim=True)
            if total is None:
                torch.mm(weights, tile, out=mean)
                total = summed
            else:
                rescale = (highest - reference).exp2_()
                mean.mul_(rescale).addmm_(weights, tile)
                total = total.mul_(rescale).add_(summed)
            highest = new_highest
        assert total is not None  # there is at least one tile
        return mean.div_(total)

    def draw(self, offset: Tensor, variance: Tensor, uniform: Tensor, others: Others | None = None) -> Tensor:
        """Draw block, then sample within it, so that the logits of all N samples are never held at once."""
        count = len(self.half_square_norm)
        size, variance = block_size(count, offset.shape[1]), variance * LOG_2
        mass = offset.new_empty(len(offset), -(-count // size))
        for numbers, _, logits in self.logits(offset / variance, variance, others):
            short = -logits.shape[1] % size
            padded = torch.nn.functional.pad(logits, (0, short), value=-torch.inf) if short else logits
            blocks = padded.view(len(offset), -1, size)
            highest = finite(blocks.amax(2))
            summed = blocks.sub_(highest.unsqueeze(2)).exp2_().sum(2).log2_().add_(highest)
            mass[:, numbers.start // size : numbers.start // size + blocks.shape[1]] = summed
        block, left = torch.empty_like(uniform, dtype=torch.long), torch.empty_like(uniform)
        for rows in row_chunks(len(offset), max(1, DRAWN_ELEMENTS // mass.shape[1])):
            block[rows], left[rows] = pick(weights_of(mass[rows]), uniform[rows])
        member = block.unsqueeze(1) * size + torch.arange(size, device=offset.device)
        outside = member >= count
        member = member.clamp(max=count - 1)
        logits = offset.new_empty(len(offset), size)
        for rows in row_chunks(len(offset), max(1, TILE_ELEMENTS // (size * offset.shape[1]))):
            members = self.store.take(member[rows]).to(offset.dtype)
            torch.bmm(members, offset[rows].unsqueeze(2), out=logits[rows].unsqueeze(2))
            logits[rows] -= self.half(member[rows], members)
        logits /= variance
        logits.masked_fill_(outside, -torch.inf)
        if others is not None:
            logits.masked_fill_(others(member), -torch.inf)
        column, _ = pick(weights_of(logits), left)
        return member.gather(1, column.unsqueeze(1)).squeeze(1)

    def part(self, index: Tensor) -> Products:
        """Return the products with some samples alone."""
        assert not isinstance(self.store, ListedSamples)  # for mypy: there are no lists of lists
        return Products(ListedSamples(self.store, index), self.half_square_norm[index])

    def draw_of_few(self, offset: Tensor, variance: Tensor, uniform: Tensor, others: Others | None = None) -> Tensor:
        """Draw the same from logits that are all held at once."""
        variance = variance * LOG_2
        logits = torch.cat([logits.clone() for _, _, logits in self.logits(offset / variance, variance, others)], 1)
        return pick(weights_of(logits), uniform)[0]

    def half(self, index: slice | Tensor, samples: Tensor) -> Tensor:
        """Return :math:`|x_n|^2/2` of some samples, in their type."""
        if samples.dtype == self.half_square_norm.dtype:
            return self.half_square_norm[index]
        return samples.square().sum(-1) / 2
