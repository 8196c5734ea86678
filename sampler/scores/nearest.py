"""Nearest samples of a set, and which of its samples are copies of each other."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gaussian_test.sampler.scores.products import Others, Products
from gaussian_test.sampler.scores.store import row_chunks

CANDIDATES = 4  # from a matrix product, among which differences find the nearest sample
SOME = 64  # samples whose neighbours show how close samples come
DIFFERENCES = 2**22  # elements of a (rows, candidates, features) table of differences


def nearest_of(products: Products, offset: Tensor, prefer: Tensor | None, exclude: Others | None) -> tuple[Tensor, Tensor]:
    """Return the nearest sample to each state, given relative to the center, and its distance.

    Candidates come from products, in the type of the states, whose rounding must be far below the distances between samples.
    """
    best = offset.new_full((len(offset), CANDIDATES), -torch.inf)
    index = torch.zeros_like(best, dtype=torch.long)
    for numbers, _, logits in products.logits(offset, torch.ones((), dtype=torch.float64), exclude):
        values, columns = logits.topk(min(CANDIDATES, logits.shape[1]), dim=1)
        best, order = torch.cat([best, values], 1).topk(CANDIDATES, dim=1)
        index = torch.cat([index, columns + numbers.start], 1).gather(1, order)
    index = torch.where(best == -torch.inf, index[:, :1], index)
    if prefer is not None:  # put it first, so that it wins ties
        index = torch.cat([prefer.unsqueeze(1), index], 1)
    found, least = torch.empty_like(index[:, 0]), offset.new_empty(len(offset))
    for rows in row_chunks(len(index), max(1, DIFFERENCES // (index.shape[1] * offset.shape[1]))):
        square = (products.store.take(index[rows]) - offset[rows].unsqueeze(1)).square_().sum(2)
        least[rows], column = square.min(1)
        found[rows] = index[rows].gather(1, column.unsqueeze(1)).squeeze(1)
    return found, least.sqrt_().masked_fill_(best[:, 0] == -torch.inf, torch.inf)


def least_distance(products: Products) -> float:
    """Return the least distance of some samples, evenly spaced over the set, from any that is no copy of them."""
    count = len(products.half_square_norm)
    some = torch.linspace(0, count - 1, min(count, SOME), dtype=torch.float64).round().long()
    offset = products.store.take(some).double()
    norm, least = offset.square().sum(1, keepdim=True), torch.inf
    for _, _, logits in products.logits(offset, torch.ones((), dtype=torch.float64)):
        square = norm - 2 * logits
        least = min(least, float(square.masked_fill_(square <= 1e-12 * norm.max(), torch.inf).min()))
    return math.sqrt(least)


def digests(tiles: Iterable[Tensor], count: int) -> NDArray[np.int64]:
    """Return 64 bits for each of so many rows: equal for equal rows, and for N others by a chance of N^2 2^-65.

    Examples
    --------
    >>> found = digests([torch.tensor([[2.0], [0.0]]), torch.tensor([[-0.0], [2.0], [1.0]])], 5)
    >>> (found[:, None] == found).sum(1).tolist()
    [2, 2, 2, 2, 1]
    """
    # in one block of memory, for small ones between large temporary ones keep those from being used again
    found, done = np.empty(count, dtype=np.int64), 0
    for tile in tiles:
        rows = (tile + 0.0).cpu().numpy()  # -0 + 0 is 0
        found[done : done + len(rows)] = np.frombuffer(
            b"".join(hashlib.blake2b(row, digest_size=8).digest() for row in rows), dtype=np.int64
        )
        done += len(rows)
    return found


class Distinct(NamedTuple):
    """The distinct samples of a set: their digests, ascending, the first sample of each, and the number of every sample's."""

    digest: NDArray[np.int64]
    first: NDArray[np.int64]
    number: Tensor


def distinct(tiles: Iterable[Tensor], count: int) -> Distinct:
    """Return the distinct ones of so many samples."""
    digest, first, number = np.unique(digests(tiles, count), return_index=True, return_inverse=True)
    return Distinct(digest, first, torch.from_numpy(number.astype(np.int64)))


def among(samples: Distinct, states: Tensor, prefer: Tensor | None) -> Tensor:
    """Return which sample each state is, as ends of an exact reversal are one: the preferred copy, or -1 for any other state."""
    found = digests([states], len(states))
    place = np.searchsorted(samples.digest, found).clip(max=len(samples.digest) - 1)
    index = torch.from_numpy(np.where(samples.digest[place] == found, samples.first[place], -1))
    if prefer is not None:
        index = torch.where((index >= 0) & (samples.number[index] == samples.number[prefer]), prefer, index)
    return index
