"""The third cumulant of ground-truth samples: what a score departs from the Gaussian's by first, at large noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gaussian_test.analysis.moments.running import chunks

SUBSET_ELEMENTS = 2**25  # elements of samples that are compared pair by pair


def third_cumulant_norm(x: Any, mean: ArrayLike, limit: int = 4096, seed: int = 0) -> float:
    r"""Return the squared norm of the third cumulant: :math:`\|\kappa_3\|^2 = \frac{1}{N^2}\sum_{nm}(\tilde x_n\cdot\tilde x_m)^3`.

    It governs where a score becomes affine: to leading order at large noise
    :math:`\mathrm{lmmse} - \mathrm{mmse} = \|\kappa_3\|^2/2\nu^4`.

    Parameters
    ----------
    x : array
        Samples, shape (N, ``*event``).
    mean : array
        Their mean, shape ``event``.
    limit : int
        Above this number of samples the pairs are taken among a random subset, the diagonal among all. Where even these are more
        than 2**25 numbers (above 8192 features), they are the pairs within random groups of as many as that.
    seed : int
        Seed of the subset.

    Returns
    -------
    float
        In units of the data to the sixth power.

    References
    ----------
    Guo, Shamai & Verdú, IEEE Trans. Inf. Theory 51(4) (2005), on the expansion of the mmse at small signal-to-noise ratio.

    Examples
    --------
    >>> round(third_cumulant_norm(np.array([[2.0], [-1.0], [-1.0]]), [0.0]), 12)
    4.0
    """
    count = x.shape[0]
    center = np.asarray(mean, dtype=np.float64).reshape(-1)
    diagonal = sum(float((((chunk - center) ** 2).sum(1) ** 3).sum()) for chunk in chunks(x))
    random = np.random.default_rng(seed)
    chosen = np.arange(count) if count <= limit else random.choice(count, limit, replace=False)
    groups = -(-len(chosen) // max(2, SUBSET_ELEMENTS // len(center)))
    if groups > 1:
        random.shuffle(chosen)
    pairs, number = 0.0, 0
    for group in np.array_split(chosen, groups):
        some = np.asarray(x[np.sort(group)]).reshape(len(group), -1) - center
        for start in range(0, len(some), 512):
            products = some[start : start + 512] @ some.T
            pairs += float((products * products * products).sum())  # numpy's power takes ten times as long
        pairs -= float(((some**2).sum(1) ** 3).sum())
        number += len(group) * (len(group) - 1)
    # of a subset, the estimate of a small norm can come out negative
    return max(float(diagonal / count**2 + pairs / number * (1 - 1 / count)), 0.0)
