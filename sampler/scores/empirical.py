r"""Exact score of the ground-truth samples.

.. math:: D(x, t) = \sum_n w_n x_0^{(n)},\qquad w = \mathrm{softmax}_n\left(-\|x - \alpha_t x_0^{(n)}\|^2/2\sigma_t^2\right)

One pass over the samples in tiles, with a running maximum (online softmax), so memory does not grow with their number. The samples
need not be in memory (:mod:`gaussian_test.sampler.scores.store`). Of many samples in memory, at low noise, only those are summed
that have weight (:mod:`gaussian_test.sampler.scores.truncated`).

The exponents come from matrix products, :math:`(x\cdot x_0^{(n)} - |x_0^{(n)}|^2/2)/\nu^2`, whose terms cancel: they err by about
:math:`\epsilon R^2/\nu^2`, R the largest distance of a sample from the mean. Where that is not small in float32, float64 is used.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from gaussian_test.sampler.noise import Noise
from gaussian_test.sampler.process import Process, Time, as_time
from gaussian_test.sampler.processes import VarianceExploding
from gaussian_test.sampler.scores.nearest import Distinct, among, distinct, least_distance, nearest_of
from gaussian_test.sampler.scores.posterior_weights import PosteriorWeights
from gaussian_test.sampler.scores.products import Others, Products
from gaussian_test.sampler.scores.score import Evaluated, Score, shifted_noise
from gaussian_test.sampler.scores.store import (
    ByteSamples,
    ResidentSamples,
    Scaling,
    Store,
    StreamedSamples,
    half_square_norm,
    joined,
    mean_of,
    row_chunks,
    row_slices,
    rows_of,
    to_tensor,
)
from gaussian_test.sampler.scores.truncated import ROWS, Truncation, largest_level, parts_of

MAX_ROWS = 1024
ROUNDING = 1 / 32  # what a log-weight may err by in float32; beyond it is computed in float64
NEAREST_ROUNDING = 1e-3  # what a squared distance may err by, in the least between samples


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
        store: ResidentSamples | ByteSamples | StreamedSamples = (
            ResidentSamples(samples.detach().reshape(count, -1)) if isinstance(samples, Tensor) else samples
        )
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
        # noise-to-signal ratio below which the posterior is truncated where it pays
        self.truncated_below = largest_level(self.products)
        self.square_error = float(self.half_square_norm.max()) * torch.finfo(torch.float32).eps  # of products in float32
        # noise-to-signal ratio below which log-weights are computed in float64, and whether nearest samples are
        self.float64_below = math.sqrt(self.square_error / ROUNDING)
        self.float64_nearest = 4 * self.square_error > NEAREST_ROUNDING * least_distance(self.products) ** 2

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
            lazily indexed xarray object, a dask array), with the same results: bit for bit, or to rounding where truncated.
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

    @property
    def duplicates(self) -> int:
        """Number of samples that are copies of another."""
        return self.count - int(self.points.max()) - 1

    @functools.cached_property
    def points(self) -> Tensor:
        """Number of each sample's point, int64, shape (N,): copies of a sample share one."""
        return self._distinct.number.to(self.center.device)

    @functools.cached_property
    def _distinct(self) -> Distinct:
        return distinct(self.tiles(), self.count)

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

    @property
    def products(self) -> Products:
        """The samples relative to their center, and the products of states with them."""
        return Products(self._store(), self.half_square_norm)

    @functools.cached_property
    def _truncation(self) -> Truncation:
        return Truncation(self._store(), self.truncated_below)

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
            (rows, products.mean(*self._offset(y, variance, rows, t), self._others(label, rows, index)).to(y.dtype))
            for rows, products, index in self._parts(y, variance, label)
        ]
        return joined(parts, len(y)).add_(self.center).reshape(x.shape)

    def evaluate(self, x: Tensor, t: Time, about: Tensor, label: Tensor | None = None) -> Evaluated:
        (y, variance), means, sums = self.signal(x, t), [], []
        for rows, products, index in self._parts(y, variance, label):
            seen = PosteriorWeights(label is not None)
            offset, spread = self._offset(y, variance, rows, t)
            means.append((rows, products.mean(offset, spread, self._others(label, rows, index), seen).to(y.dtype)))
            sums.append((rows, torch.stack(seen.summed(None if index is None else self._sizes(label, rows)), 1)))
        log_mean, information = joined(sums, len(y)).unbind(1)
        to_center = shifted_noise(y - self.center, about - self.center, variance)
        return Evaluated((joined(means, len(y)) + self.center).reshape(x.shape), log_mean + to_center, information)

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
        for rows, products, index in self._parts(y, variance, label):
            offset, spread = self._offset(y, variance, rows, t)
            others, uniform = self._others(label, rows, index), noise.uniform[rows]
            if index is None:
                out[rows] = products.draw(offset, spread, uniform, others)
            else:
                out[rows] = index[products.draw_of_few(offset, spread, uniform, others)]
        return out

    def nearest_index(self, x: Tensor, prefer: Tensor | None = None, exclude: Tensor | None = None) -> Tensor:
        """Return the index of the sample nearest to each state, int64, (batch,), from arguments as those of :meth:`nearest`.

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
            Sample to ignore with its copies, int64, shape (batch,): the state itself, if it is one of the samples.

        Returns
        -------
        tuple of Tensor
            Index (int64) and Euclidean distance in the unit of the data, both (batch,); the distance is infinite where all samples
            are to be ignored.

        Examples
        --------
        >>> score = EmpiricalScore(torch.tensor([[0.0], [2.0], [5.0]]))
        >>> index, distance = score.nearest(torch.tensor([[0.0], [2.0]]), exclude=torch.tensor([0, 1]))
        >>> index.tolist(), distance.tolist()
        ([1, 0], [2.0, 2.0])
        """
        offset = self.flat(x) - self.center
        index, distance = torch.full((len(offset),), -1, device=x.device), x.new_zeros(len(offset))
        if exclude is None and x.device.type == "cpu":
            index = among(self._distinct, offset, prefer)
        left = None if x.device.type != "cpu" else (index < 0).nonzero()[:, 0]  # on a device, finding them would wait for it
        for chunk in row_chunks(len(offset) if left is None else len(left), MAX_ROWS):
            rows = chunk if left is None else left[chunk]
            index[rows], least = nearest_of(
                self.products,
                offset[rows].double() if self.float64_nearest else offset[rows],
                None if prefer is None else prefer[rows],
                None if exclude is None else self._copies(exclude[rows]),
            )
            distance[rows] = least.to(x.dtype)
        return index, distance

    def _parts(self, y: Tensor, variance: Tensor, label: Tensor | None) -> Iterator[tuple[slice | Tensor, Products, Tensor | None]]:
        """Yield rows of states, the products with the samples that have weight there, and which these are (None: all)."""
        if len(y) < ROWS or y.device.type != "cpu" or float(variance.min()) > self.truncated_below**2:
            return ((rows, self.products, None) for rows in row_chunks(len(y), MAX_ROWS))
        lists = self._truncation.lists(y - self.center, variance, lambda rows: self._others(label, rows))
        return parts_of(lists, self.products, len(y), MAX_ROWS)

    def _offset(self, y: Tensor, variance: Tensor, rows: slice | Tensor, t: Time) -> tuple[Tensor, Tensor]:
        """Return states relative to the center and their variance, in a type that holds the differences of their log-weights."""
        offset, variance = y[rows] - self.center, rows_of(variance, rows)
        times = as_time(t)
        if times.device.type != "cpu":  # not waited for: any time of the process may be among them
            times = torch.tensor(self.process.time_min, dtype=torch.float64)
        if float(self.process.noise_to_signal(rows_of(times, rows)).min()) < self.float64_below:
            return offset.double(), variance.double()
        return offset, variance

    def _copies(self, index: Tensor) -> Others:
        """Return which samples are copies of each row's."""
        points = self.points.to(index.device)
        return lambda numbers: points[numbers] == points[index].unsqueeze(1)

    def _others(self, label: Tensor | None, rows: slice | Tensor, index: Tensor | None = None) -> Others | None:
        """Return which samples, of all or of an index of some, are of another class than each row."""
        if label is None:
            return None
        return lambda numbers: self._of_class(numbers if index is None else index[numbers]) != label[rows].unsqueeze(1)

    def _sizes(self, label: Tensor | None, rows: slice | Tensor) -> Tensor:
        """Return the number of samples of the class of each row."""
        if label is None or self.labels is None:
            return torch.tensor(float(self.count))
        return (self.labels == label[rows].unsqueeze(1)).sum(1)

    def _of_class(self, index: slice | Tensor) -> Tensor:
        if self.labels is None:
            raise ValueError("a label was given, but this score was made without labels: fit it with them")
        return self.labels[index]
