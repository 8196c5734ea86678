"""Everything computed from samples: moments, the affine Gaussian score, auto-correlations, tests, times and figures.

Nothing is imported before it is used; the public names and their homes are in ``__init__.pyi``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
