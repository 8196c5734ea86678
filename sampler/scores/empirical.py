r"""Exact score of the ground-truth samples.

.. math:: D(x, t) = \sum_n w_n x_0^{(n)},\qquad w = \mathrm{softmax}_n\left(-\|x - \alpha_t x_0^{(n)}\|^2/2\sigma_t^2\right)

One pass over the samples in tiles, with a running maximum (online softmax), so memory does not grow with their number. The samples
need not be in memory (:mod:`gaussian_test.sampler.scores.store`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from gaussian_test.sampler.noise import Noise
from gaussian_test.sampler.process import Process, Time
from gaussian_test.sampler.processes import VarianceExploding
from gaussian_test.sampler.scores.score import Score, finite, pick, weights_of
from gaussian_test.sampler.scores.store import (
    SAMPLE_ELEMENTS,
    ByteSamples,
    ResidentSamples,
    Scaling,
    Store,
    StreamedSamples,
    block_size,
    half_square_norm,
    mean_of,
    row_chunks,
    row_slices,
    rows_of,
    to_tensor,
)

DRAWN_ELEMENTS = 2**20  # elements of a (rows, blocks) table of weights, in float64, drawn from at once
TILE_ELEMENTS = 2**22  # elements of a (rows, samples) tile of logits
MAX_ROWS = 1024
LOG_2 = math.log(2)  # weights are powers of 2: torch's exp is fifty times slower on underflow, exp2 is not
CANDIDATES = 4  # candidates from a matrix product, among which differences find the nearest sample


class EmpiricalScore(Score):
    """Exact score of a finite set of samples.

    Parameters
    ----------
    samples : Tensor, ByteSamples or StreamedSamples
        Ground-truth samples, shape (N, ``*event``), N >= 1, finite. Every pass converts bytes again, and reads streamed samples
        again.
    labels : Tensor, optional
        Class of each sample, int64, shape (N,); required to condition on a class.
    process : Process, optional
        Default: variance exploding.

    Raises
    ------
    ValueError
        If samples are missing or not finite, or the labels do not match them.

    Examples
    --------
    >>> score = EmpiricalScore(torch.tensor([[-1.0], [1.0]]))
    >>> torch.allclose(score.denoise(torch.tensor([[0.5]]), 1.0), torch.tensor([[0.5]]).tanh())
    True
    """

    has_posterior: ClassVar[bool] = True
    samples: Tensor | None  # relative to the center; unchanged if bytes, None if streamed
    center: Tensor
    half_square_norm: Tensor
    labels: Tensor | None

    def __init__(
        self, samples: Tensor | ByteSamples | StreamedSamples, labels: Tensor | None = None, process: Process | None = None
    ) -> None:
        count, *event = samples.shape or (0,)
        if not event or count < 1:
            raise ValueError(f"samples of shape {tuple(samples.shape)} are not a set of samples: give (N, *event) with N >= 1")
        super().__init__(process or VarianceExploding(), tuple(event))
        if not samples.dtype.is_floating_point:
            raise ValueError(f"samples of type {samples.dtype} are not states: convert them to float32 or float64, or use fit")
        if labels is not None and labels.shape != (count,):
            raise ValueError(f"{tuple(labels.shape)} labels do not match {count} samples: give one label per sample")
        store: Store = ResidentSamples(samples.detach().reshape(count, -1)) if isinstance(samples, Tensor) else samples
        features = math.prod(event)
        # Distances are invariant under a shift of origin, but logits lose fewer digits near it.
        mean = mean_of(store, features)
        if not bool(torch.isfinite(mean).all()):
            raise ValueError("the samples hold NaN or infinite values: remove or repair them")
        center = mean.to(samples.dtype)
        self._streamed: StreamedSamples | None = None
        self._scaling: Scaling | None = None
        if isinstance(store, StreamedSamples):
            store = self._streamed = store.centered(center)
            self.register_buffer("samples", None)
        elif isinstance(store, ByteSamples):
            store, self._scaling = store.centered(center), store.scaling
            self.register_buffer("samples", store.values)
        else:
            store = ResidentSamples((store.samples - center).contiguous())
            self.register_buffer("samples", store.samples)
        self.register_buffer("center", center)
        self.register_buffer("half_square_norm", half_square_norm(store, features).to(samples.dtype))
        self.register_buffer("labels", None if labels is None else labels.long().clone())

    @classmethod
    def fit(
        cls,
        samples: Any,
        labels: Any = None,
        process: Process | None = None,
        dtype: torch.dtype = torch.float32,
        resident: bool = True,
        scaling: Scaling = (1.0, 0.0),
    ) -> EmpiricalScore:
        r"""Build the score of samples from any array (numpy, xarray, torch).

        Parameters
        ----------
        samples : array
            Shape (N, ``*event``). uint8 samples stay bytes: a quarter of float32's memory, at nearly its speed.
        labels : array, optional
            Shape (N,), integers.
        process : Process, optional
            Default: variance exploding.
        dtype : torch.dtype
            float32 or float64.
        resident : bool
            Whether to hold the samples in memory. Otherwise every pass reads them tile by tile from their source (a memory map, a
            lazily indexed xarray object, a dask array), with the same results, bit for bit.
        scaling : tuple of float
            (scale, offset) of bytes: the states are :math:`x = \mathrm{scale}\cdot v + \mathrm{offset}`.

        Returns
        -------
        EmpiricalScore

        Raises
        ------
        ValueError
            As the class does, or if ``scaling`` is given for samples that are not bytes in memory.

        Examples
        --------
        >>> import numpy as np
        >>> EmpiricalScore.fit(np.eye(3)).event_shape
        (3,)
        """
        classes = None if labels is None else to_tensor(labels).long()
        as_bytes = resident and str(getattr(samples, "dtype", "")).removeprefix("torch.") == "uint8"
        if scaling != (1.0, 0.0) and not as_bytes:
            raise ValueError(f"scaling = {scaling} is for samples of type uint8 in memory: scale others before they are given")
        if not resident:
            return cls(StreamedSamples(samples, dtype), classes, process)
        given = to_tensor(samples)
        return cls(ByteSamples(given, dtype, scaling) if as_bytes else given.to(dtype), classes, process)

    @property
    def count(self) -> int:
        """Number of samples."""
        return len(self.half_square_norm)

    def tiles(self) -> Iterator[Tensor]:
        """Yield all samples in order, relative to :attr:`center`, in tiles (n, features) on the device.

        Yields
        ------
        Tensor
            Tile whose width depends only on the number of features.

        Examples
        --------
        >>> [tile.tolist() for tile in EmpiricalScore(torch.tensor([[1.0], [3.0]])).tiles()]
        [[[-1.0], [1.0]]]
        """
        store = self._store()
        return (store.tile(rows) for rows in row_slices(self.count, len(self.center)))

    def originals(self, index: Tensor) -> Tensor:
        """Return samples by index, in their original values.

        Parameters
        ----------
        index : Tensor
            int64, shape (n,), in any order, possibly repeated.

        Returns
        -------
        Tensor
            Shape (n, ``*event``), on the device.

        Examples
        --------
        >>> EmpiricalScore(torch.tensor([[1.0], [3.0]])).originals(torch.tensor([1, 0, 1])).tolist()
        [[3.0], [1.0], [3.0]]
        """
        return (self._store().take(index) + self.center).reshape(-1, *self.event_shape)

    def _store(self) -> Store:
        if self._streamed is not None:
            return self._streamed.to(self.center.device, self.center.dtype)
        assert self.samples is not None  # for mypy: None only if streamed
        if self._scaling is not None:
            return ByteSamples(self.samples, self.center.dtype, self._scaling, self.center)
        return ResidentSamples(self.samples)

    @torch.no_grad()  # products are written in place, which no gradient can follow
    def denoise(self, x: Tensor, t: Time, label: Tensor | None = None) -> Tensor:
        y, variance = self.signal(x, t)
        parts = [
            self._mean(y[rows] - self.center, rows_of(variance, rows), None if label is None else label[rows])
            for rows in row_chunks(len(y), MAX_ROWS)
        ]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).reshape(x.shape)

    def posterior(self, x: Tensor, t: Time, noise: Noise, label: Tensor | None = None) -> Tensor:
        return self.originals(self.posterior_index(x, t, noise, label))

    @torch.no_grad()
    def posterior_index(self, x: Tensor, t: Time, noise: Noise, label: Tensor | None = None) -> Tensor:
        r"""Draw the index of the sample that each noised state came from: :math:`n \sim w(x, t)`.

        Parameters
        ----------
        x, t, label
            As in :meth:`denoise`.
        noise : Noise
            One uniform variable per row is used.

        Returns
        -------
        Tensor
            int64, shape (batch,).

        Examples
        --------
        >>> score = EmpiricalScore(torch.tensor([[-1.0], [1.0]]))
        >>> noise = Noise(torch.zeros(1, 1), torch.tensor([0.4]).double())
        >>> score.posterior_index(torch.tensor([[0.9]]), 0.1, noise).tolist()
        [1]
        """
        y, variance = self.signal(x, t)
        out = torch.empty(len(y), dtype=torch.long, device=y.device)
        for rows in row_chunks(len(y), MAX_ROWS):
            out[rows] = self._index(y[rows], rows_of(variance, rows), noise.uniform[rows], None if label is None else label[rows])
        return out

    def nearest_index(self, x: Tensor, prefer: Tensor | None = None, exclude: Tensor | None = None) -> Tensor:
        """Return the index of the sample nearest to each state, the limit of the weights at vanishing noise.

        Parameters
        ----------
        x, prefer, exclude
            As in :meth:`nearest`.

        Returns
        -------
        Tensor
            int64, shape (batch,).

        Examples
        --------
        >>> score = EmpiricalScore(torch.tensor([[0.0], [0.0], [5.0]]))
        >>> score.nearest_index(torch.tensor([[4.0], [0.1]]), prefer=torch.tensor([1, 1])).tolist()
        [2, 1]
        """
        return self.nearest(x, prefer, exclude)[0]

    @torch.no_grad()
    def nearest(self, x: Tensor, prefer: Tensor | None = None, exclude: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the index of the nearest sample to each state, and the distance.

        Candidates come from matrix products, whose rounding can confuse near duplicates; exact differences decide among them.

        Parameters
        ----------
        x : Tensor
            States at time 0, shape (batch, ``*event``).
        prefer : Tensor, optional
            Sample that wins ties with its exact duplicates, int64, shape (batch,).
        exclude : Tensor, optional
            Sample to ignore, int64, shape (batch,): the state itself, if it is one of the samples.

        Returns
        -------
        tuple of Tensor
            Index (int64) and Euclidean distance in the unit of the data, both (batch,).

        Examples
        --------
        >>> score = EmpiricalScore(torch.tensor([[0.0], [2.0], [5.0]]))
        >>> index, distance = score.nearest(torch.tensor([[0.0], [2.0]]), exclude=torch.tensor([0, 1]))
        >>> index.tolist(), distance.tolist()
        ([1, 0], [2.0, 2.0])
        """
        y, store = self.flat(x), self._store()
        one = torch.ones((), dtype=torch.float64)
        out, away = torch.empty(len(y), dtype=torch.long, device=y.device), y.new_empty(len(y))
        for rows in row_chunks(len(y), MAX_ROWS):
            best = y.new_full((len(y[rows]), CANDIDATES), -torch.inf)
            index = torch.zeros_like(best, dtype=torch.long)
            offset = y[rows] - self.center
            for numbers, _, logits in self._logits(store, offset, one, None):
                values, columns = logits.topk(min(CANDIDATES, logits.shape[1]), dim=1)
                best, order = torch.cat([best, values], 1).topk(CANDIDATES, dim=1)
                index = torch.cat([index, columns + numbers.start], 1).gather(1, order)
            if prefer is not None:  # put it first, so that it wins ties
                index = torch.cat([prefer[rows, None], index], 1)
            offset = offset.unsqueeze(1)
            for few in row_chunks(len(index), max(1, TILE_ELEMENTS // (index.shape[1] * y.shape[1]))):
                square = (store.take(index[few]) - offset[few]).square_().sum(2)
                if exclude is not None:
                    square.masked_fill_(index[few] == exclude[rows][few, None], torch.inf)
                least, column = square.min(1, keepdim=True)
                out[rows][few] = index[few].gather(1, column).squeeze(1)
                away[rows][few] = least.squeeze(1).sqrt_()
        return out, away

    def _mean(self, offset: Tensor, variance: Tensor, label: Tensor | None) -> Tensor:
        """Return the weighted mean by online softmax, rescaled whenever the running maximum rises."""
        variance = variance * LOG_2
        scaled = offset.div_(variance)
        mean, highest = torch.empty_like(scaled), scaled.new_full((len(scaled), 1), -torch.inf)
        total: Tensor | None = None
        for _, tile, logits in self._logits(self._store(), scaled, variance, label):
            new_highest = torch.maximum(highest, logits.amax(1, keepdim=True))
            reference = finite(new_highest)
            weights = logits.sub_(reference).exp2_()
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
        return mean.div_(total).add_(self.center)

    def _index(self, y: Tensor, variance: Tensor, uniform: Tensor, label: Tensor | None) -> Tensor:
        """Draw block, then sample within it, so that the logits of all N samples are never held at once."""
        store, size, variance = self._store(), block_size(self.count, y.shape[1]), variance * LOG_2
        mass = y.new_empty(len(y), -(-self.count // size))
        offset = y - self.center
        for numbers, _, logits in self._logits(store, offset / variance, variance, label):
            short = -logits.shape[1] % size
            padded = torch.nn.functional.pad(logits, (0, short), value=-torch.inf) if short else logits
            blocks = padded.view(len(y), -1, size)
            highest = finite(blocks.amax(2))
            summed = blocks.sub_(highest.unsqueeze(2)).exp2_().sum(2).log2_().add_(highest)
            mass[:, numbers.start // size : numbers.start // size + blocks.shape[1]] = summed
        block, left = torch.empty_like(uniform, dtype=torch.long), torch.empty_like(uniform)
        for rows in row_chunks(len(y), max(1, DRAWN_ELEMENTS // mass.shape[1])):
            block[rows], left[rows] = pick(weights_of(mass[rows]), uniform[rows])
        member = block.unsqueeze(1) * size + torch.arange(size, device=y.device)
        outside = member >= self.count
        member = member.clamp(max=self.count - 1)
        logits = y.new_empty(len(y), size)
        for rows in row_chunks(len(y), max(1, TILE_ELEMENTS // (size * y.shape[1]))):
            logits[rows] = torch.bmm(store.take(member[rows]), offset[rows].unsqueeze(2)).squeeze(2)
        logits = (logits - self.half_square_norm[member]) / variance
        logits.masked_fill_(outside, -torch.inf)
        if label is not None:
            logits.masked_fill_(self._of_class(member) != label.unsqueeze(1), -torch.inf)
        column, _ = pick(weights_of(logits), left)
        return member.gather(1, column.unsqueeze(1)).squeeze(1)

    def _logits(
        self, store: Store, scaled: Tensor, variance: Tensor, label: Tensor | None
    ) -> Iterator[tuple[slice, Tensor, Tensor]]:
        r"""Yield tiles of samples and of :math:`(y\cdot x_n - |x_n|^2/2)/\nu^2`, the log-weights up to a constant per row.

        Of states over :math:`\nu^2`, relative to the center; to base 2 if that variance is given times :math:`\log 2`. Logits are
        valid until the next are requested.
        """
        size = block_size(self.count, scaled.shape[1])
        width = max(size, min(TILE_ELEMENTS // max(len(scaled), 1), SAMPLE_ELEMENTS // scaled.shape[1]) // size * size)
        parts = list(row_chunks(self.count, width))
        # one buffer for all tiles: repeated large allocations would fragment the heap
        buffer = scaled.new_empty(len(scaled) * min(width, self.count))
        precision = 1 / (variance if variance.ndim == 0 else variance.squeeze(1))
        for numbers, tile in zip(parts, store.tiles(parts), strict=True):
            out = buffer[: len(scaled) * len(tile)].view(len(scaled), len(tile))
            half = self.half_square_norm[numbers]
            if variance.ndim == 0:
                logits = torch.addmm(half * precision, scaled, tile.T, beta=-1, out=out)
            else:
                logits = torch.mm(scaled, tile.T, out=out).addr_(precision, half, alpha=-1)
            if label is not None:
                logits.masked_fill_(self._of_class(numbers) != label.unsqueeze(1), -torch.inf)
            yield numbers, tile, logits

    def _of_class(self, index: slice | Tensor) -> Tensor:
        if self.labels is None:
            raise ValueError("a label was given, but this score was made without labels: fit it with them")
        return self.labels[index]
