r"""Certified truncation of the posterior: the few samples that hold all of its weight but a stated part.

Let a orthonormal basis split :math:`y\cdot x_n` into leading coordinates and bands of the others. By Cauchy-Schwarz in each band b

.. math:: y\cdot x_n \le \sum_{j\le k} y_j x_{nj} + \sum_b \|y_b\|\,\|x_{nb}\|,

one product of k columns and one of a few. Samples whose log-weight is thus below :math:`\max_n l_n - \log(N/\epsilon)` have a total
weight below :math:`\epsilon` and are left out; the others are handed to the plain sums. Principal components make the bands of the
samples short where those of the noise are long. Whatever the basis, the bound holds: that of a part of the samples will do.

Every choice is a function of samples, noise level and states, never of time or of earlier calls, so that results are reproducible.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

from gaussian_test.sampler.scores.products import TILE_ELEMENTS, Others, Products
from gaussian_test.sampler.scores.store import Store, StreamedSamples, row_chunks, row_slices, rows_of

UNITS = 48  # the unit of the band limits is a 48th of the features
LIMITS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16)
LEVELS = (2, 4, 8)  # numbers of leading coordinates
GROUP = 16  # states that share a list of samples
FIRST = 4  # states whose list is tried first
ROWS = 4 * GROUP  # of one noise level, below which the list does not pay
SAMPLES, NUMBERS = 4096, 2**24  # least samples, and numbers in them
LARGEST = 4.0  # noise level over the root mean square of a feature, above which no list is short
LISTED = 4.5  # cost of a listed sample in units of one that the plain sums pass over
WORTH = 0.7  # share of the plain cost below which truncation is chosen
SUMMED = 128  # features summed at once, so that rounding has a bound whatever the order within
UNIT = torch.finfo(torch.float32).eps / 2


def largest_level(products: Products) -> float:
    """Return the noise level above which truncation never pays: 0 for few samples, or those not in this machine's memory."""
    if isinstance(products.store, StreamedSamples) or products.half_square_norm.device.type != "cpu":
        return 0.0
    count, features = len(products.store), products.store.tile(slice(0, 1)).shape[1]
    if count < max(SAMPLES, features) or features < 8 * UNITS or count * features < NUMBERS:
        return 0.0
    mean = float(products.half_square_norm.double().mean())
    if not 2.0**-60 < mean < 2.0**60:  # products in float32 would underflow or overflow, and no bound would hold
        return 0.0
    return LARGEST * math.sqrt(2 * mean / features)


class Truncation:
    """Coordinates and bands of samples relative to their center, float32: a sixth of the memory of the samples, and a little.

    Parameters
    ----------
    store : Store
        The samples, at least as many as features.
    largest : float
        Noise level above which there is nothing to gain.
    """

    @torch.no_grad()
    def __init__(self, store: Store, largest: float) -> None:
        features, count = store.tile(slice(0, 1)).shape[1], len(store)
        unit = features // UNITS
        self.store, self.limits = store, [unit * limit for limit in LIMITS]
        self.basis, self.error = _basis(store, features, self.limits[-1])
        self.coordinates = torch.empty(count, unit * LEVELS[-1])
        self.half = torch.empty(len(LEVELS), count)  # half the square norm of the leading coordinates
        self.columns = [torch.empty(count, len(LIMITS) - LIMITS.index(level) + 3) for level in LEVELS]
        for rows in row_slices(count, features):
            x = store.tile(rows)
            leading, bands, norm = self._split(x)
            self.coordinates[rows] = leading
            square = x.double().square().sum(1, keepdim=True)
            for number, level in enumerate(LEVELS):
                half = leading[:, : unit * level].double().square().sum(1, keepdim=True).float() / 2
                self.half[number, rows] = half[:, 0]
                rest = half - square / 2 + (unit * level + 64) * UNIT * square
                self.columns[number][rows] = torch.cat(
                    [bands[:, LIMITS.index(level) :], norm, rest, torch.ones_like(norm)], 1
                ).float()
        self.largest = largest
        self._chosen: dict[int, int | None] = {}

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return leading coordinates, float32, and upper bounds of the norms of the bands and of the whole, float64."""
        a = _rotated(x.float(), self.basis)
        square = x.double().square().sum(1, keepdim=True)
        norm = square.sqrt() * (1 + 4 * UNIT)
        found = torch.stack([part.double().square().sum(1) for part in a.tensor_split(self.limits, 1)[:-1]], 1)
        rest = square - found.sum(1, keepdim=True) + 2 * self.error * norm.square()
        bands = torch.cat([found[:, 1:].sqrt() + self.error * norm, rest.clamp(min=0).sqrt()], 1)
        return a[:, : self.limits[-1] // 2], bands * (1 + 4 * UNIT), norm

    def level(self, noise_to_signal: float) -> int | None:
        """Return which number of coordinates costs least at a noise level, by some noised samples, or None if none pays."""
        if not 0 < noise_to_signal <= self.largest:
            return None
        step = math.ceil(8 * math.log2(noise_to_signal))
        if step not in self._chosen:
            self._chosen[step] = self._cheapest(2 ** (step / 8))
        return self._chosen[step]

    def _cheapest(self, nu: float) -> int | None:
        count, features = len(self.store), len(self.basis)
        some = self.store.take(torch.linspace(0, count - 1, FIRST + GROUP + 1, dtype=torch.float64).long())
        y = some + nu * torch.randn(some.shape, generator=torch.Generator().manual_seed(0), dtype=some.dtype)
        best, least = None, WORTH
        for number, level in enumerate(LEVELS):
            products = self.limits[LIMITS.index(level)] / (2 * features)
            if products < least:
                (_, (_, index), *_) = self._listed(y, slice(0, len(y)), torch.tensor(nu**2), number, lambda rows: None)
                if index is not None and products + LISTED * len(index) / count < least:
                    best, least = number, products + LISTED * len(index) / count
        return best

    @torch.no_grad()
    def lists(self, y: Tensor, variance: Tensor, others: Callable[[slice], Others | None]) -> Iterator[tuple[slice, Tensor | None]]:
        """Yield groups of states, and which samples hold all of their weight but the rounding of the states' type.

        Parameters
        ----------
        y : Tensor
            States relative to the center, shape (rows, features).
        variance : Tensor
            Square of the noise level, scalar or (rows, 1).
        others : callable
            From rows to which samples are left out of them anyway.

        Yields
        ------
        tuple of slice and Tensor
            Rows, and ascending indices of samples, int64; None where a list would save nothing.
        """
        failed = torch.inf  # least noise level at which states proved unlike noised samples: above it lists are longer
        for rows in _runs(variance, len(y)):
            square = rows_of(variance, rows).max()
            level = self.level(math.sqrt(float(square))) if rows.stop - rows.start >= ROWS and square < failed else None
            index = None
            if level is None:
                yield rows, None
            else:
                for part, index in self._listed(y, rows, square, level, others):
                    yield part, index
                if index is None:
                    failed = min(failed, float(square))

    def _listed(
        self, y: Tensor, run: slice, variance: Tensor, level: int, others: Callable[[slice], Others | None]
    ) -> Iterator[tuple[slice, Tensor | None]]:
        """Yield the same for rows of one noise level, until the first show that they are unlike noised samples."""
        count, first = len(self.store), LIMITS.index(LEVELS[level])
        modes, size = self.limits[first], max(1, TILE_ELEMENTS // count // GROUP) * GROUP
        buffer = torch.empty(min(size, run.stop - run.start), count)
        tried = [run.start, run.start + FIRST, run.start + FIRST + GROUP]
        for start, stop in pairwise([*tried, *range(tried[-1] + size, run.stop, size), run.stop]):
            window = slice(start, stop)
            some = y[window]
            leading, bands, norm = self._split(some)
            out = buffer[: len(some)]
            torch.addmm(self.half[level], leading[:, :modes], self.coordinates[:, :modes].T, beta=-1, out=out)
            left_out = others(window)
            if left_out is not None:
                out.masked_fill_(left_out(slice(0, count)), -torch.inf)
            near = self.store.take(out.argmax(1)).double()
            reached = (some.double() * near).sum(1) - near.square().sum(1) / 2  # by a weight that is there
            least = reached - variance.double() * math.log(count / (torch.finfo(y.dtype).eps / 2))
            least -= 32 * UNIT * (least.abs() + norm[:, 0] * near.square().sum(1).sqrt())
            # of coordinates of both, of their products, and of the sums after it
            slack = (2 * self.error + self.error**2 + 1.01 * (modes + 64) * UNIT) * norm
            terms = torch.cat([bands[:, first:], slack, torch.ones_like(norm), -least.unsqueeze(1)], 1)
            out.addmm_(terms.float(), self.columns[level].T)
            for rows in row_chunks(len(out), GROUP):
                index = (~(out[rows].amax(0) <= 0)).nonzero()[:, 0]  # NaN is listed
                short = 0 < LISTED * len(index) < WORTH * count / (1 if start > run.start else 2)
                yield slice(start + rows.start, min(start + rows.stop, stop)), index if short else None
            if start in tried[:2] and not short:
                yield slice(stop, run.stop), None
                return


def _runs(variance: Tensor, count: int) -> Iterator[slice]:
    """Yield runs of rows of one noise level."""
    if variance.ndim == 0:
        yield slice(0, count)
        return
    ends = (variance[1:, 0] != variance[:-1, 0]).nonzero()[:, 0].tolist()
    for start, stop in pairwise([0, *(end + 1 for end in ends), count]):
        yield slice(start, stop)


def _rotated(x: Tensor, basis: Tensor) -> Tensor:
    """Return coordinates, summed in parts."""
    out = x[:, :SUMMED] @ basis[:SUMMED]
    for rows in list(row_chunks(len(basis), SUMMED))[1:]:
        out.addmm_(x[:, rows], basis[rows])
    return out


def _basis(store: Store, features: int, modes: int) -> tuple[Tensor, float]:
    r"""Return an almost orthonormal basis of leading principal components, and what coordinates in it err by.

    The error is that of a vector of coordinates, relative to the vector, from those in the nearest orthonormal basis: by
    :math:`\|V^TV-1\|` for the basis, :math:`\gamma_n\||V|\|` for sums of n terms, and the rounding of the vector.
    """
    some = store.take(torch.linspace(0, len(store) - 1, min(len(store), 2 * modes), dtype=torch.float64).long()).float()
    mixed = torch.randn(len(some), modes, generator=torch.Generator().manual_seed(0))
    basis = torch.linalg.qr(some.T @ mixed)[0]
    basis = torch.linalg.qr(some.T @ (some @ basis))[0]
    seen = some @ basis
    basis = (basis @ torch.linalg.eigh(seen.T @ seen)[1].flip(1)).contiguous()
    exact, size = basis.double(), basis.abs().double()
    unlike = float((exact.T @ exact - torch.eye(modes)).norm())
    terms = SUMMED + -(-features // SUMMED) + 2
    absolute = math.sqrt(float(size.sum(0).max() * size.sum(1).max()))
    return basis, unlike + 1.01 * terms * UNIT * absolute


def parts_of(
    lists: Iterable[tuple[slice, Tensor | None]], products: Products, count: int, most: int
) -> Iterator[tuple[slice | Tensor, Products, Tensor | None]]:
    """Yield rows of states with the products of their samples, then those of all samples, at most so many rows at once."""
    left = []
    for rows, index in lists:
        if index is None:
            left.append(rows)
        else:
            yield rows, products.part(index), index
    if sum(rows.stop - rows.start for rows in left) == count:
        yield from ((rows, products, None) for rows in row_chunks(count, most))
    elif left:
        rest = torch.cat([torch.arange(rows.start, rows.stop) for rows in left])
        yield from ((rest[rows], products, None) for rows in row_chunks(len(rest), most))
