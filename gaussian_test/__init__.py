"""Numerical analysis of U-Turn diffusion: affine scores, memorization and speciation.

All public names are attributes of this package (``import gaussian_test as gt``), imported on first use: ``import gaussian_test``
loads neither torch nor xarray. ``__init__.pyi`` lists them with their modules.
"""

from importlib import import_module

import lazy_loader
import wrapt

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


@wrapt.when_imported("xarray")
def _register_accessor(_: object) -> None:
    """Register the accessor ``.gaussian_test`` when xarray is imported, without importing it here."""
    import_module(f"{__name__}.accessor")
