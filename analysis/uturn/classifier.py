"""End-point classifiers: nearest ground-truth sample, or scikit-learn.

The held-out accuracy of a classifier limits what a class retention can mean. It is measured by cross-validation and stored with the
class retention.
"""

from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from gaussian_test.analysis.moments.moments import evenly_spaced
from gaussian_test.analysis.moments.running import real
from gaussian_test.sampler import EmpiricalScore

MOST = 4096  # samples, evenly spaced over the set, for a cross-validated accuracy
MOST_NEAREST = 1024  # the same for the nearest sample, which every run measures


class SklearnClassifier(Protocol):
    """Interface of a scikit-learn classifier."""

    def fit(self, x: Any, y: Any) -> Any:
        """Fit samples (n, features) with classes (n,)."""

    def predict(self, x: Any) -> Any:
        """Return the classes (n,) of samples (n, features)."""


def make_classifier(kind: Literal["knn", "svc"], *, neighbors: int = 5, seed: int = 0) -> SklearnClassifier:
    """Return an unfitted scikit-learn classifier by its short name.

    Parameters
    ----------
    kind : {"knn", "svc"}
        k nearest neighbours; or a support vector machine on scaled features with probabilities calibrated by Platt's method.
    neighbors : int
        k.
    seed : int
        Of the folds of the calibration.

    Returns
    -------
    classifier

    Raises
    ------
    ValueError
        If the kind is unknown.

    Examples
    --------
    >>> make_classifier("knn", neighbors=3)
    KNeighborsClassifier(n_neighbors=3)
    """
    # scikit-learn takes a third of a second to import, and the default classifier does without
    if kind == "knn":
        from sklearn.neighbors import KNeighborsClassifier

        nearest: SklearnClassifier = KNeighborsClassifier(neighbors)
        return nearest
    if kind == "svc":
        from sklearn.calibration import CalibratedClassifierCV
        from sklearn.model_selection import StratifiedKFold
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import SVC

        folds = StratifiedKFold(5, shuffle=True, random_state=seed)
        machine: SklearnClassifier = CalibratedClassifierCV(make_pipeline(StandardScaler(), SVC()), cv=folds, ensemble=False)
        return machine
    raise ValueError(f"classifier {kind!r} is unknown: choose 'knn' or 'svc'")


class FittedClassifier:
    """A scikit-learn classifier fitted on the ground truth, for states of any shape, dtype and device.

    Non-finite states, from a failed score, get class -1.

    Parameters
    ----------
    classifier : scikit-learn classifier
        Unfitted; a copy of it is fitted.
    x : array
        Ground-truth samples, shape (N, ``*event``).
    labels : array
        Their classes, integers, shape (N,).

    Raises
    ------
    ValueError
        If the classifier cannot be fitted.

    Examples
    --------
    >>> fitted = FittedClassifier(make_classifier("knn", neighbors=1), [[0.0], [1.0]], [3, 5])
    >>> fitted(torch.tensor([[0.9], [0.2]])).tolist()
    [5, 3]
    """

    def __init__(self, classifier: SklearnClassifier, x: ArrayLike, labels: ArrayLike) -> None:
        from sklearn.base import clone

        self.classifier = clone(classifier)
        self.classifier.fit(_flat(x), np.asarray(labels))

    def __call__(self, x: Tensor) -> Tensor:
        """Return the class of each state, int64, (batch,), on the device of the states."""
        flat = _flat(x.detach().cpu().numpy())
        finite = np.isfinite(flat).all(1)
        found = np.full(len(flat), -1, dtype=np.int64)
        if finite.any():
            found[finite] = self.classifier.predict(flat[finite])
        return torch.from_numpy(found).to(x.device)


def cross_validated_accuracy(
    classifier: SklearnClassifier, x: ArrayLike, labels: ArrayLike, *, folds: int = 5, seed: int = 0
) -> tuple[float, float]:
    r"""Return the held-out accuracy of a classifier, and its standard error.

    Parameters
    ----------
    classifier : scikit-learn classifier
        Unfitted.
    x : array
        Samples, shape (N, ``*event``); above :data:`MOST` of them, as many evenly spaced ones are used.
    labels : array
        Classes, shape (N,).
    folds : int
        Folds of a stratified cross-validation, copies of a sample in the same; fewer where the smallest class has fewer samples.
    seed : int
        Of the folds.

    Returns
    -------
    tuple of float
        Accuracy :math:`a` and :math:`\sqrt{a(1-a)/N}`; NaN where a class has a single sample, copies counted once.

    Examples
    --------
    >>> cross_validated_accuracy(make_classifier("knn", neighbors=1), [[0.0], [0.1], [5.0], [5.1]], [0, 0, 1, 1], folds=2)
    (1.0, 0.0)
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict

    chosen = evenly_spaced(len(np.asarray(labels)), MOST)
    samples: Any = x if hasattr(x, "shape") else np.asarray(x)
    flat, classes = _flat(samples[chosen]), np.asarray(labels)[chosen]
    points, number = np.unique(flat, axis=0, return_inverse=True)
    smallest = min(len(np.unique(number[classes == label])) for label in np.unique(classes))
    if smallest < 2:
        return np.nan, np.nan
    # copies stay together: a held-out sample must not be known by its copy
    copies = len(points) < len(flat)
    split = (StratifiedGroupKFold if copies else StratifiedKFold)(min(folds, smallest), shuffle=True, random_state=seed)
    right = cross_val_predict(classifier, flat, classes, cv=split, groups=number if copies else None) == classes
    return _share(right)


def nearest_accuracy(samples: EmpiricalScore, labels: ArrayLike) -> tuple[float, float]:
    """Return the accuracy of the nearest other sample's class, its copies left out, and the standard error.

    Parameters
    ----------
    samples : EmpiricalScore
        The ground-truth set.
    labels : array
        Classes, shape (N,).

    Returns
    -------
    tuple of float
        As in :func:`cross_validated_accuracy`.

    Examples
    --------
    >>> nearest_accuracy(EmpiricalScore(torch.tensor([[0.0], [0.1], [5.0], [5.2]])), [0, 0, 1, 0])
    (0.5, 0.25)
    """
    classes = np.asarray(labels)
    index = evenly_spaced(len(classes), MOST_NEAREST)
    rows = torch.from_numpy(index).to(samples.center.device)
    nearest = samples.nearest_index(samples.originals(rows), exclude=rows).cpu().numpy()
    return _share(classes[nearest] == classes[index])


def typical_nearest_distance(samples: EmpiricalScore, *, most: int = 1024) -> float:
    """Return the median distance of ground-truth samples from their nearest neighbour that is no copy of them.

    Parameters
    ----------
    samples : EmpiricalScore
        The ground-truth set, at least two samples.
    most : int
        Largest number of samples used, evenly spaced over the set.

    Returns
    -------
    float
        Euclidean distance, in the unit of the data.

    Examples
    --------
    >>> typical_nearest_distance(EmpiricalScore(torch.tensor([[0.0], [1.0], [3.0]])))
    1.0
    """
    index = torch.from_numpy(evenly_spaced(samples.count, most)).to(samples.center.device)
    return float(samples.nearest(samples.originals(index), exclude=index)[1].median())


def _share(right: NDArray[np.bool_]) -> tuple[float, float]:
    share = float(right.mean())
    return share, float(np.sqrt(share * (1 - share) / len(right)))


def _flat(x: ArrayLike) -> NDArray[np.float64]:
    values = real(x, np.float64)
    return values.reshape(len(values), -1)
