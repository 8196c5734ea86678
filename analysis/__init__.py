"""Moments, Gaussian score, auto-correlations, tests, times and figures of samples.

Names are imported on first use; ``__init__.pyi`` lists them with their modules.
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
