"""Shared parts of the suites: error, comparisons, seeded draws."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from gaussian_test.sampler import Noise


class ConformanceError(AssertionError):
    """Violation of a law: one sentence with the law, the place and the numbers.

    Parameters
    ----------
    law : str
        Name of the law, a key of the laws of the kind.
    message : str
        The sentence.

    Examples
    --------
    >>> ConformanceError("rise", "the ratio falls").law
    'rise'
    """

    def __init__(self, law: str, message: str) -> None:
        super().__init__(" ".join(message.split()))
        self.law = law


class Laws:
    """The laws of one kind, checked on one object.

    Parameters
    ----------
    kind : str
        Kind of the object.
    called : object
        The object, named by its ``str``.
    known : mapping of str to str
        The laws in words, by name.

    Examples
    --------
    >>> Laws("process", "Any()", {"rise": "the ratio rises"}).demand(False, "rise", "at time 1 it is 2, at time 2 it is 1")
    Traceback (most recent call last):
    ...
    gaussian_test.conformance.laws.ConformanceError: process Any() breaks 'rise' (the ratio rises): at time 1 it is 2, ...
    """

    def __init__(self, kind: str, called: object, known: Mapping[str, str]) -> None:
        self.named = f"{kind} {' '.join(str(called).split())[:80]}"
        self.known = known

    def demand(self, holds: bool, law: str, said: str) -> None:
        """Raise unless a law holds."""
        if not holds:
            raise ConformanceError(law, f"{self.named} breaks {law!r} ({self.known[law]}): {said}")

    def close(self, law: str, found: ArrayLike | Tensor, expected: ArrayLike | Tensor, place: str, tolerance: ArrayLike) -> None:
        """Raise unless numbers have the expected shape, are finite, and agree within the tolerance."""
        a, b = (_array(value) for value in (found, expected))
        self.demand(a.shape == b.shape, law, f"{place} it gave shape {a.shape}, expected {b.shape}")
        excess = np.abs(a - b) - np.asarray(tolerance, dtype=np.float64)
        bad = ~(excess <= 0)  # NaN too
        if bad.any():
            worst = np.unravel_index(np.where(np.isnan(excess), np.inf, excess).argmax(), a.shape)
            width = float(np.broadcast_to(np.asarray(tolerance, dtype=np.float64), a.shape)[worst])
            self.demand(False, law, f"{place} it gave {a[worst]:.9g}, expected {b[worst]:.9g} within {width:.2g}")


def _array(value: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    found = value.detach().cpu().double().numpy() if isinstance(value, Tensor) else value
    return np.asarray(found, dtype=np.float64)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return standard normal numbers, reproducible by seed.

    Examples
    --------
    >>> bool((draw(3, seed=1) == draw(3, seed=1)).all())
    True
    """
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def noise_for(x: Tensor, seed: int = 0, second: bool = False) -> Noise:
    """Return the noise of one step for states: normal, uniform and, for exact kernels, a second normal variable.

    Examples
    --------
    >>> noise_for(torch.zeros(3, 2)).normal.shape
    torch.Size([3, 2])
    """
    uniform = torch.rand(len(x), generator=torch.Generator().manual_seed(seed + 1000), dtype=torch.float64)
    normal = draw(*x.shape, seed=seed, dtype=x.dtype).to(x.device)
    other = draw(*x.shape, seed=seed + 2000, dtype=x.dtype).to(x.device) if second else None
    return Noise(normal, uniform.to(x.device), other)
