"""Ground-truth samples from many sources, as one ``xarray.Dataset`` scaled to [-1, 1] and read on demand."""

from gaussian_test.data.checks import DataError
from gaussian_test.data.load import load, sources

__all__ = ["DataError", "load", "sources"]
