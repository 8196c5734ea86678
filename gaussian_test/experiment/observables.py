"""Settings of the observables: what is measured beside the Gaussian Test, on which features, by which classifier."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gaussian_test.experiment.processes import Arguments, Factory, Settings
from gaussian_test.experiment.scores import Count

Observable = Literal["affinity", "normality", "quality", "balance", "starts", "chains"]
OBSERVABLES: tuple[Observable, ...] = ("affinity", "normality", "quality", "balance", "starts", "chains")
CHEAP: tuple[Observable, ...] = OBSERVABLES[:4]  # the others take reverse runs of their own


class _Made(Settings):
    """Something that a function of the user's makes, called with ``arguments``."""

    kind: str
    factory: Factory | None = None
    arguments: Arguments = Field(default_factory=dict)

    @model_validator(mode="after")
    def _factory_of_kind(self) -> Self:
        if (self.kind == "factory") != (self.factory is not None):
            raise ValueError("kind: factory and the name of the factory belong together: give both or neither")
        if self.arguments and self.factory is None:
            raise ValueError("arguments are for a factory, and none is given: give one or drop them")
        return self


class Features(_Made):
    """On what end points and ground truth are compared: leading principal components, pixels, or a function of the user's.

    A factory returns a torch module or a function that takes samples (batch, ``*event``) and returns features (batch, F).
    """

    kind: Literal["pca", "pixels", "factory"] = "pca"
    components: Count = 64


class Classifier(_Made):
    """Who says of which class an end point is, fitted on the ground truth.

    ``nearest`` is the class of the nearest ground-truth sample (exact search); ``knn`` scikit-learn's k-nearest neighbours, ``svc``
    its support vector machine with calibrated probabilities; a factory returns any scikit-learn classifier.
    """

    kind: Literal["nearest", "knn", "svc", "factory"] = "nearest"
    neighbors: Count = 5
    folds: Annotated[int, Field(strict=True, ge=2)] = 5


class OwnObservable(Settings):
    """An observable of the user's: a function that is called with ``arguments`` and returns what is called for U-Turns.

    That takes their starts and ends (batch, ``*event``) and returns one number for each, (batch,).
    """

    factory: Factory
    arguments: Arguments = Field(default_factory=dict)


class Chains(Settings):
    """Chains of U-Turns: how many follow each other, and at how many of the turn times, evenly picked."""

    length: Count = 16
    turn_times: Count = 6
