"""Settings of the scores in an experiment."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from gaussian_test.experiment.processes import Arguments, Factory, Process, Settings
from gaussian_test.text import printable

NAME = r"^[^./\\\x00-\x1f][^/\\\x00-\x1f]*$"  # score names become file names


def shown_as_it_is(name: str) -> str:
    """Return a name; raise ValueError if a terminal would obey it, or no page can show it."""
    if printable(name) != name:
        raise ValueError(f"{printable(name)!r} holds control characters: leave them out")
    return name


Name = Annotated[str, Field(pattern=NAME, max_length=80), AfterValidator(shown_as_it_is)]
Count = Annotated[int, Field(strict=True, ge=1, lt=2**31)]  # strict: booleans are integers in Python


class Empirical(Settings):
    """The exact score of the ground-truth samples."""

    kind: Literal["empirical"]
    name: Name | None = None
    conditional: bool = False


class Gaussian(Settings):
    """The affine score of the ground truth's mean and covariance."""

    kind: Literal["gaussian"]
    name: Name | None = None
    conditional: bool = False
    shrinkage: Literal["ledoit_wolf", "oas"] | float | None = None


class Mixture(Settings):
    """A Gaussian mixture: one component per class, or a number of components fitted by scikit-learn."""

    kind: Literal["mixture"]
    name: Name | None = None
    conditional: bool = False
    components: Literal["classes"] | Count = "classes"


class _Network(Settings):
    """Settings common to all networks; see :class:`gaussian_test.sampler.NetworkScore`."""

    name: Name | None = None
    conditional: bool = False
    guidance: float = 1.0
    autocast: Literal["bfloat16", "float16"] | None = None
    channels_last: bool = False
    compile: bool = False
    micro_batch: Count | Literal["auto"] = "auto"


class Network(_Network):
    """The shipped digits network, or a file written by its training script."""

    kind: Literal["network"]
    path: str | None = None


class Diffusers(_Network):
    """A folder of a diffusers model or of a pipeline with one, in safetensors; ``arguments`` go to every call."""

    kind: Literal["diffusers"]
    path: str
    scheduler: str | None = None
    null_label: Annotated[int, Field(strict=True, ge=0)] | None = None
    arguments: Arguments = Field(default_factory=dict)
    variant: str | None = None


class _CustomNetwork(_Network):
    """A network from a custom factory, optionally with weights from a file."""

    factory: Factory | None = None
    arguments: Arguments = Field(default_factory=dict)
    weights: str | None = None
    weights_key: str | None = None

    @model_validator(mode="after")
    def _key_of_weights(self) -> Self:
        if self.weights_key is not None and self.weights is None:
            raise ValueError(
                "weights_key names what in the file of weights to take, and no weights are given: give them or drop it"
            )
        return self


class _CustomOrOpened(_CustomNetwork):
    """A network from a factory, or from a file trusted to run code."""

    path: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.factory is None) == (self.path is None):
            raise ValueError("this kind of score needs exactly one of factory and path: give one of them")
        if self.path is not None and (self.arguments or self.weights is not None):
            raise ValueError("arguments and weights are for a factory, and path holds a whole network: drop them or give a factory")
        return self


class EDM(_CustomOrOpened):
    """A network with EDM's interface."""

    kind: Literal["edm"]


class Azula(_CustomNetwork):
    """An azula Denoiser, made by a factory."""

    kind: Literal["azula"]
    factory: Factory
    classes: Annotated[int, Field(strict=True, ge=0)] = 0
    label_argument: str = "label"
    one_hot: bool = False


class Callable(_CustomOrOpened):
    """Any function or module of (x, t, label) or (x, t)."""

    kind: Literal["callable"]
    prediction: Literal["x0", "epsilon", "v", "score", "velocity"] = "x0"
    trained: Process | None = None
    classes: Annotated[int, Field(strict=True, ge=0)] = 0
    label_free: bool = True
    timesteps: Literal["continuous", "integer"] = "continuous"
    first: Literal[0, 1] | None = None
    data_at: Literal[0, 1] = 0
    towards: Literal["noise", "data"] | None = None


AnyNetwork = Network | Diffusers | EDM | Azula | Callable
ScoreSettings = Annotated[Empirical | Gaussian | Mixture | AnyNetwork, Field(discriminator="kind")]
