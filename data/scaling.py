r"""The one affine map of the values of a source: $x = \mathrm{scale} \cdot v + \mathrm{offset}$."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from gaussian_test.data.formats.rows import Array, Rows
from gaussian_test.data.values import DataError, Extent, blocks, check_dtype, extent
from gaussian_test.locks import numpy_defaults

Precision = Literal["float32", "float64"]
DType = Literal["auto", "float32", "float64"]
Scale = Literal["none", "pictures", "unit"] | tuple[float, float]
SCALES = ("none", "pictures", "unit")
ROUNDED = 1e-3  # of the range of the values: what float32 may round
UNIT_BYTES = 2**22  # raw values at once, which become doubles


@dataclass(frozen=True)
class Scaling:
    r"""The map $x = (v - \mathrm{origin}) / \mathrm{unit} + \mathrm{at}$ of raw values $v$, the same for every feature.

    In this order no rounding leaves a range: what lies within `of_range` is within [-1, 1].

    Examples
    --------
    >>> scaling = Scaling.of_range(0, 255, "pixels")
    >>> scaling.apply(np.array([0, 255], "uint8")), scaling.scale, scaling.offset
    (array([-1.,  1.], dtype=float32), 0.00784313725490196, -1.0)
    """

    origin: float = 0.0  # in the units of the source
    unit: float = 1.0  # the same
    at: float = 0.0  # $x$ where $v$ is the origin, dimensionless

    @property
    def scale(self) -> float:
        r"""The factor in $x = \mathrm{scale} \cdot v + \mathrm{offset}$."""
        return 1.0 / self.unit

    @property
    def offset(self) -> float:
        r"""The constant in $x = \mathrm{scale} \cdot v + \mathrm{offset}$."""
        return self.at - self.origin / self.unit

    @classmethod
    def of_range(cls, low: float, high: float, name: str) -> Scaling:
        """Return the map that takes `low` to -1 and `high` to 1.

        Raises DataError if the range is too wide or too narrow for 64-bit floats.
        """
        return cls(low, (high - low) / 2, -1.0)._usable(name)

    @classmethod
    def of_unit(cls, rows: Rows, name: str) -> Scaling:
        r"""Return the map that takes the mean of all values to 0, and $\sqrt{\mathrm{tr}\,\Sigma / d}$ to 1.

        Raises DataError if 64-bit floats do not hold it.
        """
        from sklearn.preprocessing import StandardScaler

        running = StandardScaler()
        with np.errstate(over="ignore", invalid="ignore"):
            for _, block in blocks(rows, UNIT_BYTES):
                running.partial_fit(np.asarray(block, np.float64).reshape(len(block), -1))
            return cls(float(running.mean_.mean()), float(np.sqrt(running.var_.mean())))._usable(name)

    def _usable(self, name: str) -> Scaling:
        if not (self.unit > 0 and all(map(math.isfinite, (self.unit, self.scale, self.offset)))):
            raise DataError(
                f"{name} cannot be scaled as (x - {self.origin:g}) / {self.unit:g}: 64-bit floats do not hold it; rescale the data."
            )
        return self

    @numpy_defaults()
    def apply(self, values: Array, dtype: Precision = "float32") -> Array:
        """Return the scaled values."""
        if self == Scaling():
            return values.astype(dtype)
        exact = np.subtract(values, self.origin, dtype=np.float64)  # so that each float32 is the nearest to the exact value
        exact /= self.unit
        exact += self.at
        return exact.astype(dtype, copy=False)


@dataclass(frozen=True)
class Scaled:
    """What is done to the values of a source, and what becomes of them."""

    scaling: Scaling
    low: float  # no x is smaller
    high: float  # or larger
    dtype: Precision


def choose_scaling(
    rows: Rows, name: str, scale: Scale | None = None, dtype: DType = "auto", known: tuple[float, float] | None = None
) -> Scaled:
    """Choose the map of the values of a source; raise for values that cannot be used.

    By default values whose range is known (`known` of the source, or that of unsigned 8- and 16-bit integers) go to [-1, 1], and
    all others stay as they are.

    Raises
    ------
    DataError
        For types that are not numbers, constant data, NaN, infinities, an unknown `scale`, and values that the type cannot hold.

    Examples
    --------
    >>> from gaussian_test.data.formats.rows import MemoryRows
    >>> rows = MemoryRows(np.array([[0.0, 10.0], [20.0, 40.0]]))
    >>> choose_scaling(rows, "example").scaling
    Scaling(origin=0.0, unit=1.0, at=0.0)
    >>> choose_scaling(rows, "example", (0, 40)).scaling
    Scaling(origin=0.0, unit=20.0, at=-1.0)
    """
    check_dtype(rows.dtype, name)
    known = known or _type_limits(rows.dtype)
    if isinstance(scale, str) and scale not in SCALES:
        raise DataError(f"scale is {scale!r}: expected one of {', '.join(SCALES)}, or the values (low, high) that become -1 and 1.")
    given = None if scale is None or isinstance(scale, str) else _check_range(scale)
    found = extent(rows, name, stop_early=known is not None and scale != "none")
    if known is not None and scale != "none":
        found = Extent(*known)
    if given is not None:
        scaling = Scaling.of_range(*given, name)
    elif scale == "unit":
        scaling = Scaling.of_unit(rows, name)
    elif known is not None and scale != "none":
        scaling = Scaling.of_range(*known, name)
    elif scale == "pictures":
        scaling = Scaling.of_range(*_picture_range(found, name), name)
    else:
        scaling = Scaling()
    ends = scaling.apply(np.array([found.low, found.high]), "float64")
    chosen = _choose_dtype(float(ends[0]), float(ends[1]), dtype, name)
    low, high = ends.astype(chosen).tolist()
    return Scaled(scaling, low, high, chosen)


def _choose_dtype(low: float, high: float, dtype: DType, name: str) -> Precision:
    """Return float32, or float64 if asked for or if values that stay as they are need it."""
    largest = max(abs(low), abs(high))
    fits = largest < float(np.finfo(np.float32).max)
    if dtype == "auto":
        return "float32" if fits and largest * float(np.finfo(np.float32).eps) <= ROUNDED * (high - low) else "float64"
    if dtype == "float32" and not fits:
        raise DataError(f"{name} has values up to {largest:.3g}, which float32 does not hold: give dtype float64 or scale unit.")
    if np.array(low, dtype) == np.array(high, dtype):
        raise DataError(
            f"{name} is constant in {dtype}, every value is close to {low:g}: expected data that vary; give scale unit or another "
            "dtype."
        )
    return dtype


def _picture_range(found: Extent, name: str) -> tuple[float, float]:
    """Return the range that numbers of no known range have if they are pictures: [0, 1], [-1, 1] or [0, 255]."""
    for low, high in ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)):
        if low <= found.low and high / 2 * (high > 1) < found.high <= high:  # of [0, 255] more than the lower half
            return low, high
    raise DataError(
        f"{name} has values from {found.low:g} to {found.high:g}, not those of pictures in [0, 1], [-1, 1] or [0, 255]: give scale "
        "the values [low, high] that become -1 and 1."
    )


def _type_limits(dtype: np.dtype[np.generic]) -> tuple[float, float] | None:
    """Return the range of 8- and 16-bit unsigned integers, the types whose whole range images use."""
    if dtype.kind == "u" and dtype.itemsize <= 2:
        return 0.0, float(2 ** (8 * dtype.itemsize) - 1)
    return None


def _check_range(scale: tuple[float, float]) -> tuple[float, float]:
    try:
        low, high = (float(end) for end in scale)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise DataError(f"scale is {scale!r}: expected two finite numbers (low, high) with low < high, which become -1 and 1.")
    return low, high
