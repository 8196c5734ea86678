"""What end points are looked at through: the features on which they are compared, and the classifier that says their class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gaussian_test import analysis
from gaussian_test.build.factories import call_factory
from gaussian_test.errors import UserError, user_input
from gaussian_test.experiment.observables import Classifier, Features

ROWS = 256  # samples per call of an extractor
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Extractor:
    """Gives the features of samples.

    Attributes
    ----------
    name : str
        What to call it.
    call : callable
        Takes samples (batch, ``*event``) as a tensor on the device of the run and returns features (batch, F).
    device : torch.device
        Where it wants its samples.
    """

    name: str
    call: Callable[[torch.Tensor], Any]
    device: torch.device

    def __call__(self, x: Any) -> Array:
        """Return the features of samples (n, ``*event``), any array, in batches: float64, (n, F)."""
        blocks = []
        for start in range(0, len(x), ROWS):
            block = torch.from_numpy(np.array(x[start : start + ROWS])).to(self.device)
            with torch.inference_mode():
                found = self.call(block)
            values = found.double().cpu().numpy() if isinstance(found, torch.Tensor) else np.asarray(found, dtype=np.float64)
            if values.ndim != 2 or len(values) != len(block) or not np.isfinite(values).all():
                raise UserError(
                    f"features {self.name}: {len(block)} samples gave shape {values.shape}, or NaN or infinite values: "
                    "return finite features (batch, F)"
                )
            blocks.append(values)
        return np.concatenate(blocks)


def build_features(
    settings: Features, given: Callable[[torch.Tensor], Any] | None, moments: analysis.Moments, device: torch.device, sample: Any
) -> Extractor:
    """Return the extractor that an experiment names, or the one from python, tried on two samples.

    Parameters
    ----------
    settings : Features
        Of the experiment.
    given : callable or None
        A torch module or function from python, which wins; it is given float32.
    moments : Moments
        Of the ground truth: its principal components.
    device : torch.device
        Of the run.
    sample : array
        Two samples, (2, ``*event``).

    Raises
    ------
    UserError
        If it cannot be had, or does not return features.
    """
    if given is None and settings.kind == "pixels":
        return Extractor("pixels", lambda x: x.flatten(1), device)
    if given is None and settings.kind == "pca":
        count = min(settings.components, len(moments.eigenvalues))
        project = analysis.principal_features(moments, count)
        return Extractor(f"{count} principal components", lambda x: project(x.flatten(1).cpu().numpy()), device)
    made = call_factory(settings.factory or "", settings.arguments) if given is None else given
    name = settings.factory or getattr(made, "__name__", type(made).__name__)
    if not callable(made):
        raise UserError(f"features {name}: a {type(made).__name__} cannot be called: give a torch module or a function")
    if isinstance(made, torch.nn.Module):
        made = made.to(device).eval()
    extractor = Extractor(str(name), lambda x: made(x.float()), device)  # networks have one type, whatever that of the run
    try:
        extractor(sample)
    except UserError:
        raise
    except Exception as error:  # code of the user's: anything can happen in it
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"features {name} fail on two samples of shape {np.shape(sample)} ({reason}): mend the extractor"
        ) from error
    return extractor


@dataclass(frozen=True)
class Classified:
    """The classifier of end points.

    Attributes
    ----------
    name : str
        What to call it; empty where there are no classes.
    classify : callable or None
        As :attr:`Reference.classify`.
    accuracy, error : float
        On samples that it was not fitted on, and its standard error.
    """

    name: str
    classify: Callable[[torch.Tensor], torch.Tensor] | None
    accuracy: float
    error: float


def build_classifier(
    settings: Classifier, given: Any, reference: analysis.Reference, x: Any, seed: int, assess: bool = True
) -> Classified:
    """Return the classifier that an experiment names, or the one from python, fitted, with its accuracy.

    Parameters
    ----------
    settings : Classifier
        Of the experiment.
    given : scikit-learn classifier or None
        From python, which wins.
    reference : Reference
        The ground truth, its exact nearest-neighbour search and its labels.
    x : array
        Ground-truth samples, (N, ``*event``).
    seed : int
        Of the folds.
    assess : bool
        Whether its accuracy is wanted: that takes fits of its own.

    Raises
    ------
    UserError
        If there are no labels to fit it with, or it cannot be fitted.
    """
    labels = reference.labels
    if given is None and settings.kind == "nearest":
        if labels is None:
            return Classified("", None, np.nan, np.nan)
        found = analysis.nearest_accuracy(reference.samples, labels) if assess else (np.nan, np.nan)
        return Classified("nearest ground-truth sample", None, *found)
    if labels is None:
        raise UserError("classifier: the data set has no labels to fit it with: give labels or leave classifier out")
    if given is None and settings.kind == "knn" and settings.neighbors > len(labels):
        raise UserError(
            f"classifier.neighbors = {settings.neighbors} is more than the {len(labels)} ground-truth samples: give fewer"
        )
    with user_input():
        if given is not None:
            classifier = given
        elif settings.kind == "factory":
            classifier = call_factory(settings.factory or "", settings.arguments)
        else:
            classifier = analysis.make_classifier(settings.kind, settings.neighbors, seed)
    name = " ".join(repr(classifier).split())
    if not (hasattr(classifier, "fit") and hasattr(classifier, "predict") and hasattr(classifier, "get_params")):
        raise UserError(f"classifier {name[:80]} is none of scikit-learn's: give one with fit, predict and get_params")
    try:
        fitted = analysis.FittedClassifier(classifier, x, labels)
        accuracy = analysis.cross_validated_accuracy(classifier, x, labels, settings.folds, seed) if assess else (np.nan, np.nan)
    except Exception as error:  # a classifier of the user's: anything can happen in it
        raise UserError(f"classifier {name[:80]} cannot be fitted ({' '.join(str(error).split())[:160]}): mend it") from error
    return Classified(name, fitted, *accuracy)
