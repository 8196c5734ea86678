"""Numerical analysis of U-Turn diffusion: affine scores, memorization and speciation.

Everything public hangs on this name (``import gaussian_test as gt``); the names and their homes are in ``__init__.pyi``. Nothing
heavy is imported before it is used: ``import gaussian_test`` loads neither torch nor xarray.
"""

from importlib import import_module

import lazy_loader
import wrapt

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


@wrapt.when_imported("xarray")
def _register_accessor(_: object) -> None:
    """Give datasets their ``.gaussian_test`` as soon as there are datasets, without importing xarray for it."""
    import_module(f"{__name__}.accessor")
