"""Numerical analysis of U-Turn diffusion: is the score affine, when is a sample forgotten, when its class?

Everything public hangs on this name (``import gaussian_test as gt``). Nothing heavy is imported before it is used:
``import gaussian_test`` loads neither torch nor xarray.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gaussian_test._version import __version__

if TYPE_CHECKING:
    from gaussian_test import analysis, data, sampler

_ROOMS = ("analysis", "data", "sampler")

__all__ = ["__version__", "analysis", "data", "sampler"]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
