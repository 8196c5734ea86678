"""Settings of the turn times."""

from typing import Annotated, Any, Self

from pydantic import Field, PositiveFloat, model_validator

from gaussian_test.experiment.processes import Settings

MOST_TURN_TIMES = 1000


class Spacing(Settings):
    """Log-spaced values."""

    min: PositiveFloat
    max: PositiveFloat
    count: Annotated[int, Field(strict=True, ge=1, le=MOST_TURN_TIMES)]


class TurnTimes(Settings):
    """Turn times, either as noise-to-signal ratios or in the process's time; without them ``count`` that follow the data.

    ``turn_times: auto`` is the default. ``refine: 0.05`` adds levels around each memorization, speciation and affine time and runs
    again, until the two levels that it lies between are at most 5 % apart.
    """

    noise_to_signal: Spacing | Annotated[tuple[PositiveFloat, ...], Field(min_length=1, max_length=MOST_TURN_TIMES)] | None = None
    time: Spacing | Annotated[tuple[PositiveFloat, ...], Field(min_length=1, max_length=MOST_TURN_TIMES)] | None = None
    count: Annotated[int, Field(strict=True, ge=1, le=MOST_TURN_TIMES)] = 24
    refine: Annotated[float, Field(ge=0.005)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _automatic(cls, values: Any) -> Any:
        return {} if values == "auto" else values

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        given = [name for name in ("noise_to_signal", "time", "count") if name in self.model_fields_set]
        given = [name for name in given if getattr(self, name) is not None and (name != "count" or self.count != 24)]
        if len(given) > 1:
            raise ValueError(f"turn_times has {' and '.join(given)}: give one of them")
        return self

    @property
    def number(self) -> int:
        """Number of turn times that are asked for."""
        asked = self.noise_to_signal or self.time
        return self.count if asked is None else asked.count if isinstance(asked, Spacing) else len(asked)
