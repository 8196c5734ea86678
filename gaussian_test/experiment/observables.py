"""Settings of observables, feature extractor and end-point classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from gaussian_test.analysis.observables.registry import OBSERVABLES
from gaussian_test.experiment.processes import Arguments, Factory, Settings
from gaussian_test.experiment.scores import Count

if TYPE_CHECKING:
    Observable = str
else:
    Observable = Literal[tuple(OBSERVABLES)]
CHEAP: tuple[Observable, ...] = tuple(name for name, one in OBSERVABLES.items() if one.default)  # no reverse runs of their own


def factory_of_kind(settings: Any) -> Any:
    """Validate that the kind is ``factory`` exactly if a factory is given."""
    if (settings.kind == "factory") != (settings.factory is not None):
        raise ValueError("kind: factory and the name of the factory belong together: give both or neither")
    if settings.arguments and settings.factory is None:
        raise ValueError("arguments are for a factory, and none is given: give one or drop them")
    return settings


class _FromFactory(Settings):
    """An object from a custom factory, called with ``arguments``."""

    kind: str
    factory: Factory | None = None
    arguments: Arguments = Field(default_factory=dict)
    _belong_together = model_validator(mode="after")(factory_of_kind)


class Features(_FromFactory):
    """The feature extractor: leading principal components, pixels, or a custom function.

    A factory returns a torch module or function from samples (batch, ``*event``) to features (batch, F).
    """

    kind: Literal["pca", "pixels", "factory"] = "pca"
    components: Count = 64


class Classifier(_FromFactory):
    """The end-point classifier, fitted on the ground truth.

    ``nearest`` is the class of the nearest ground-truth sample (exact search); ``knn`` scikit-learn's k-nearest neighbours, ``svc``
    its support vector machine with calibrated probabilities; a factory returns any scikit-learn classifier.
    """

    kind: Literal["nearest", "knn", "svc", "factory"] = "nearest"
    neighbors: Count = 5
    folds: Annotated[int, Field(strict=True, ge=2, le=20)] = 5


class CustomObservable(Settings):
    """A custom observable: a factory, called with ``arguments``, that returns a function of U-Turns.

    The function takes their starts and ends (batch, ``*event``) and returns one number each, (batch,).
    """

    factory: Factory
    arguments: Arguments = Field(default_factory=dict)


class Chains(Settings):
    """Chains of U-Turns: their length, and the number of evenly spaced turn times."""

    length: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 16
    turn_times: Count = 6
