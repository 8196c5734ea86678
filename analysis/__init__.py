"""Everything computed from samples: moments, the affine Gaussian score, auto-correlations, tests, times and figures.

Nothing is imported before it is used; the public names and their homes are in ``__init__.pyi``.
"""

from typing import Any

import lazy_loader

_public, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    try:
        return _public(name)
    except AttributeError:
        from gaussian_test.analysis.earlier_names import earlier

        return earlier(name)
