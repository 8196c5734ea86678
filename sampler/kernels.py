"""Table of the reverse kernels by their experiment names.

Importing it does not load torch; the kernel classes state their flow and cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gaussian_test.sampler.reverse import ReverseKernel


@dataclass(frozen=True)
class KernelKind:
    """Recipe of a reverse kernel."""

    kernel: str  # its class in :mod:`gaussian_test.sampler`
    arguments: Mapping[str, Any] = field(default_factory=dict)  # that distinguish it from other kernels of the class
    settings: tuple[str, ...] = ()  # keys of ``reverse`` in an experiment, passed as arguments


KERNELS: dict[str, KernelKind] = {
    "exact": KernelKind("ExactReversal"),
    "sde": KernelKind("ReverseSDE", {"method": "euler_maruyama"}, ("clock",)),
    "exponential_sde": KernelKind("ReverseSDE", {"method": "exponential"}),
    "euler": KernelKind("ProbabilityFlow", {"method": "euler"}),
    "heun": KernelKind("ProbabilityFlow", {"method": "heun"}),
    "edm": KernelKind("EDMStochastic", {}, ("steps", "S_churn", "S_min", "S_max", "S_noise")),
    "ancestral": KernelKind("Ancestral"),
}


def make_kernel(kind: str, settings: Mapping[str, Any]) -> ReverseKernel:
    """Return a reverse kernel by its name.

    Examples
    --------
    >>> make_kernel("sde", {"clock": "variance", "steps": 64})
    ReverseSDE(method='euler_maruyama', clock='variance')
    """
    from gaussian_test import sampler

    known = KERNELS[kind]
    made: ReverseKernel = getattr(sampler, known.kernel)(**known.arguments, **{name: settings[name] for name in known.settings})
    return made


def kernel_kind(kernel: ReverseKernel) -> str:
    """Return the name of a built-in kernel.

    Examples
    --------
    >>> kernel_kind(make_kernel("euler", {}))
    'euler'
    """
    return next(
        kind
        for kind, known in KERNELS.items()
        if type(kernel).__name__ == known.kernel and all(getattr(kernel, name) == value for name, value in known.arguments.items())
    )
