"""Settings of the ground-truth samples."""

import warnings
from typing import Any, Literal

from pydantic import field_validator, model_validator

from gaussian_test.experiment.processes import Settings, shown


class Data(Settings):
    """Source of the ground-truth samples; the arguments of :func:`gaussian_test.data.load`.

    The source is ``digits`` where there is no path, and recognised from one.
    """

    source: str | None = None
    path: str | None = None
    key: str | None = None
    labels: str | None = None
    split: str | None = None
    alpha: Literal["refuse", "white", "black"] | None = None
    scale: Literal["none", "pictures", "unit"] | tuple[float, float] | None = None

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if "value_range" in values:
            warnings.warn("data.value_range is deprecated: write scale", DeprecationWarning, stacklevel=2)
            values = {("scale" if key == "value_range" else key): value for key, value in values.items()}
        is_embedded = values.get("source") is None and values.get("path") is None
        return {**values, "source": "digits"} if is_embedded else values

    @field_validator("scale", mode="before")
    @classmethod
    def _known_scale(cls, value: Any) -> Any:
        if value is not None and not isinstance(value, list | tuple) and value not in ("none", "pictures", "unit"):
            raise ValueError(f"{shown(value)} is not known: choose none, pictures, unit, or the values [low, high] of -1 and 1")
        return value
