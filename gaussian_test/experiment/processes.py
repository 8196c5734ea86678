"""Settings of the forward processes and their space, and their base class."""

import difflib
import math
import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PositiveFloat, model_validator

SHOWN = 120  # characters of a value that a message quotes


def shown(value: Any) -> str:
    """Return a value for a message, shortened to one line."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # integers with too many digits, or a failing repr
        text = f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


class Settings(BaseModel):
    """Base of all settings; unknown keys raise, with the nearest valid name."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, values: Any) -> Any:
        if isinstance(values, dict):
            valid = list(cls.model_fields)
            for key in values:
                if key not in valid:
                    near = difflib.get_close_matches(key, valid, n=1, cutoff=0.5) if isinstance(key, str) else []
                    hint = f"did you mean {near[0]!r}?" if near else "leave it out"
                    raise ValueError(f"unknown key {shown(key)}: {hint} (valid keys: {', '.join(valid)})")
        return values


def _factory(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", text):
        raise ValueError(f"{shown(text)} does not name a function: write package.module:function")
    return text


def _plain(value: Any) -> Any:
    """Raise for values that YAML cannot round-trip: dates, bytes, NaN, Python objects."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(item) for key, item in value.items()}
    raise ValueError(f"{shown(value)} cannot be kept in an archive: give text, finite numbers, lists, and dicts with keys of text")


Factory = Annotated[str, AfterValidator(_factory)]
Arguments = Annotated[dict[str, Any], BeforeValidator(_plain)]
Limit = PositiveFloat | Literal["auto"]  # auto: the class's own, within the noise levels that the scores were trained for


class Space(Settings):
    """Latents in which U-Turns run: factories of a function from samples to latents and of one back, called with ``arguments``."""

    encode: Factory
    decode: Factory
    arguments: Arguments = Field(default_factory=dict)


class VarianceExploding(Settings):
    """EDM's process; automatic limits follow the turn times."""

    kind: Literal["variance_exploding"] = "variance_exploding"
    sigma_min: Limit = "auto"
    sigma_max: Limit = "auto"


class OrnsteinUhlenbeck(Settings):
    """The Ornstein-Uhlenbeck process."""

    kind: Literal["ornstein_uhlenbeck"]
    time_min: Limit = "auto"
    time_max: Limit = "auto"


class VariancePreserving(Settings):
    """The variance preserving process with a linear rate."""

    kind: Literal["variance_preserving"]
    beta_min: PositiveFloat = 0.1
    beta_max: PositiveFloat = 20.0
    time_min: Limit = "auto"
    time_max: Limit = "auto"


class Cosine(Settings):
    """The cosine process."""

    kind: Literal["cosine"]
    time_min: Limit = "auto"
    time_max: Limit = "auto"


class Rectified(Settings):
    """The rectified process."""

    kind: Literal["rectified"]
    time_min: Limit = "auto"
    time_max: Limit = "auto"


class DiscreteVP(Settings):
    """The discrete levels of a DDPM checkpoint: given, or read from the folder of a diffusers scheduler or pipeline."""

    kind: Literal["discrete_vp"]
    alphas_cumprod: tuple[float, ...] | None = None
    scheduler: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.alphas_cumprod is None) == (self.scheduler is None):
            raise ValueError("discrete_vp needs exactly one of alphas_cumprod and scheduler: give one of them")
        return self


class CustomProcess(Settings):
    """A custom process: a factory, called with ``arguments``, that returns a :class:`gaussian_test.sampler.Process`."""

    kind: Literal["factory"]
    factory: Factory
    arguments: Arguments = Field(default_factory=dict)


Process = Annotated[
    VarianceExploding | OrnsteinUhlenbeck | VariancePreserving | Cosine | Rectified | DiscreteVP | CustomProcess,
    Field(discriminator="kind"),
]
