"""Ground-truth samples from many sources, as one ``xarray.Dataset`` scaled to [-1, 1] and read on demand."""

from gaussian_test.data.loading import load, sources
from gaussian_test.data.values import DataError

__all__ = ["DataError", "load", "sources"]
