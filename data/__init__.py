"""Ground-truth samples from many sources as a lazy dataset."""

from gaussian_test.data.loading import load, sources
from gaussian_test.data.values import DataError

__all__ = ["DataError", "load", "sources"]
