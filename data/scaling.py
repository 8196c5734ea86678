r"""The one affine map from the values of a source to [-1, 1]: $x = \mathrm{scale} \cdot v + \mathrm{offset}$."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gaussian_test.data.checks import DataError, check_dtype, extent
from gaussian_test.data.formats.rows import Array, Rows


@dataclass(frozen=True)
class Scaling:
    r"""The map $x = \mathrm{scale} \cdot v + \mathrm{offset}$ of raw values $v$, the same for every feature.

    Parameters
    ----------
    scale : float
        Factor, in 1 / (units of the source).
    offset : float
        Value of $x$ where $v = 0$, dimensionless.

    Examples
    --------
    >>> scaling = Scaling.of_range(0, 255, "pixels")
    >>> scaling.apply(np.array([0, 255], "uint8"))
    array([-1.,  1.], dtype=float32)
    """

    scale: float = 1.0
    offset: float = 0.0

    @classmethod
    def of_range(cls, low: float, high: float, name: str) -> Scaling:
        r"""Return the map that takes `low` to -1 and `high` to 1.

        Raises
        ------
        DataError
            If the range is too wide or too narrow for 64-bit floats.
        """
        width = high - low
        scale, offset = 2.0 / width, -(high + low) / width
        if not (scale > 0 and math.isfinite(scale) and math.isfinite(offset)):
            raise DataError(f"{name} ranges from {low:g} to {high:g}, which 64-bit floats cannot map to [-1, 1]: rescale the data.")
        return cls(scale, offset)

    def apply(self, values: Array) -> NDArray[np.float32]:
        """Return the scaled values.

        Parameters
        ----------
        values : numpy.ndarray
            Raw values, of any shape.

        Returns
        -------
        numpy.ndarray
            float32 in [-1, 1], same shape, dimensionless.
        """
        if self.scale == 1.0 and self.offset == 0.0:
            return values.astype(np.float32)
        # In double precision, so that each float32 is the nearest to the exact value and the ends are exactly -1 and 1.
        exact = np.multiply(values, self.scale, dtype=np.float64)
        exact += self.offset
        np.clip(exact, -1.0, 1.0, out=exact)
        return exact.astype(np.float32)


def choose_scaling(rows: Rows, name: str, value_range: tuple[float, float] | None = None) -> Scaling:
    """Choose the map of a source to [-1, 1], refusing values that cannot be mapped.

    Unsigned 8- and 16-bit integers are mapped from the range of their type, floats within [-1, 1] stay as they are,
    and any other numbers are mapped from their smallest and largest value.

    Raises
    ------
    DataError
        For types that are not numbers, constant data, NaN, infinities, and values outside `value_range`.

    Examples
    --------
    >>> from gaussian_test.data.formats.rows import MemoryRows
    >>> choose_scaling(MemoryRows(np.array([[0.0, 10.0], [20.0, 40.0]])), "example")
    Scaling(scale=0.05, offset=-1.0)
    """
    check_dtype(rows.dtype, name)
    limits = _type_limits(rows.dtype)
    if value_range is not None:
        low, high = _check_range(value_range)
        covered = limits is not None and low <= limits[0] and limits[1] <= high
        found = extent(rows, name, stop_early=covered)
        if found.low < low or found.high > high:
            raise DataError(
                f"{name} has values from {found.low:g} to {found.high:g}, outside value_range=({low:g}, {high:g}): "
                "widen value_range or leave it out."
            )
        return Scaling.of_range(low, high, name)
    if limits is not None:
        extent(rows, name, stop_early=True)
        return Scaling.of_range(*limits, name)
    found = extent(rows, name)
    if rows.dtype.kind == "f" and found.low >= -1.0 and found.high <= 1.0:
        if np.float32(found.low) == np.float32(found.high):
            raise DataError(
                f"{name} is constant in float32, every value is close to {found.low:g}: expected data that vary; "
                "give value_range to stretch them."
            )
        return Scaling()
    return Scaling.of_range(found.low, found.high, name)


def _type_limits(dtype: np.dtype[np.generic]) -> tuple[float, float] | None:
    """Return the range of 8- and 16-bit unsigned integers, the types whose whole range images use."""
    if dtype.kind == "u" and dtype.itemsize <= 2:
        return 0.0, float(2 ** (8 * dtype.itemsize) - 1)
    return None


def _check_range(value_range: tuple[float, float]) -> tuple[float, float]:
    try:
        low, high = (float(end) for end in value_range)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise DataError(f"value_range is {value_range!r}: expected two finite numbers (low, high) with low < high.")
    return low, high
