"""What is fitted to the ground truth: once for a run, for all its processes and all its resumptions, with the same bits.

Eigenvectors depend in their last digits on the number of threads that found them. Kept beside the parts of a run, they are
the same on every worker, and after an interruption on whatever machine it goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from gaussian_test import analysis
from gaussian_test.analysis.moments.moments import Shrinkage
from gaussian_test.store import files

Arrays = dict[str, NDArray[Any]]


class Fits:
    """Fitted arrays by name, in memory until they are saved, then in files.

    Parameters
    ----------
    data : str
        Digest of the ground truth that they are fitted to.
    folder : Path, optional
        Where they may have been saved before; files that are damaged or of other data are not taken.

    Examples
    --------
    >>> fits = Fits("any")
    >>> fits.arrays("answer", lambda: {"value": np.array([42.0])})["value"]
    array([42.])
    >>> fits.arrays("answer", lambda: {"value": np.array([0.0])})["value"]
    array([42.])
    """

    def __init__(self, data: str, folder: Path | None = None) -> None:
        self._data = data
        self._folder = folder
        self._known: dict[str, Arrays] = {}

    def arrays(self, what: str, fit: Callable[[], Arrays]) -> Arrays:
        """Return fitted arrays, fitted now if they are not known yet."""
        if what not in self._known:
            saved = self._read(what)
            if saved is not None:
                return saved
            self._known[what] = fit()
        return self._known[what]

    def moments(self, x: Any, shrinkage: Shrinkage = None) -> analysis.Moments:
        """Return mean and spectrum of all samples, as :func:`gaussian_test.analysis.fit_moments` does."""
        return _moments(self.arrays(f"moments {shrinkage}", lambda: _arrays(analysis.fit_moments(x, shrinkage))))

    def of_classes(self, x: Any, labels: Any, shrinkage: Shrinkage = None) -> list[tuple[int, analysis.Moments]]:
        """Return the moments of each class, as :func:`gaussian_test.analysis.class_moments` does."""

        def fit() -> Arrays:
            by_class = analysis.class_moments(x, labels, shrinkage)
            found = {f"{label} {name}": value for label, moments in by_class for name, value in _arrays(moments).items()}
            return found | {"classes": np.array([label for label, _ in by_class])}

        found = self.arrays(f"classes {shrinkage}", fit)
        return [
            (label, _moments({name: found[f"{label} {name}"] for name in ("count", "mean", "eigenvalues", "eigenvectors")}))
            for label in found["classes"].tolist()
        ]

    def save(self, folder: Path) -> None:
        """Write what has been fitted to files, which are what is used from now on."""
        self._folder = folder
        for what, arrays in self._known.items():
            content = safetensors.numpy.save({name: np.ascontiguousarray(value) for name, value in arrays.items()})
            files.write_bytes(folder / f"{self._name(what)}-{hashlib.sha256(content).hexdigest()}.safetensors", content)
        self._known.clear()

    def _name(self, what: str) -> str:
        return "fit-" + hashlib.sha256(f"{self._data} {what}".encode()).hexdigest()[:16]

    def _read(self, what: str) -> Arrays | None:
        """Return what is in a file whose name fits its content."""
        for path in sorted(self._folder.glob(f"{self._name(what)}-*.safetensors")) if self._folder else ():
            try:
                if files.file_digest(path) == path.stem.rpartition("-")[2]:
                    return dict(safetensors.numpy.load_file(path))
            except (OSError, SafetensorError):
                continue
        return None


def _arrays(moments: analysis.Moments) -> Arrays:
    return {
        "count": np.array([moments.count]),
        "mean": moments.mean,
        "eigenvalues": moments.eigenvalues,
        "eigenvectors": moments.eigenvectors,
    }


def _moments(arrays: Arrays) -> analysis.Moments:
    return analysis.Moments(int(arrays["count"][0]), arrays["mean"], arrays["eigenvalues"], arrays["eigenvectors"])
