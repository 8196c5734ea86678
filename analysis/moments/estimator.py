r"""Scikit-learn estimator of the moments."""

from typing import Any, Self

import numpy as np
import scipy.linalg
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

from gaussian_test.analysis.moments.moments import DRIVER, Moments, Shrinkage, shrink
from gaussian_test.analysis.moments.running import RunningMoments


class StreamingCovariance(BaseEstimator):  # type: ignore[misc] # scikit-learn has no types
    r"""Mean and covariance (divided by N) of vectors, in one pass or chunk by chunk.

    Parameters
    ----------
    shrinkage : {None, "ledoit_wolf", "oas"} or float
        As in :func:`fit_moments`. Ledoit-Wolf and OAS use all samples together, so they need :meth:`fit`.

    Attributes
    ----------
    location_ : ndarray
        Mean, shape (features,).
    covariance_ : ndarray
        Covariance, shape (features, features).
    n_samples_seen_ : int
        Number of samples.

    Examples
    --------
    >>> estimator = StreamingCovariance().fit([[0.0, 1.0], [2.0, 1.0]])
    >>> estimator.covariance_.tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    """

    def __init__(self, shrinkage: Shrinkage = None) -> None:
        self.shrinkage = shrinkage

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit on these samples, discarding earlier ones.

        Parameters
        ----------
        X : array
            Shape (samples, features).
        y : None
            Ignored; scikit-learn's convention.

        Returns
        -------
        StreamingCovariance
        """
        X = validate_data(self, X, dtype=[np.float64, np.float32])
        self._running = RunningMoments(X.shape[1])
        self._running.update(X)
        return self._publish(X)

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Add samples to those seen before.

        Parameters
        ----------
        X : array
            Shape (samples, features).
        y : None
            Ignored; scikit-learn's convention.

        Returns
        -------
        StreamingCovariance

        Raises
        ------
        ValueError
            If the shrinkage is estimated, which needs all samples at once.
        """
        if isinstance(self.shrinkage, str):
            raise ValueError(f"shrinkage {self.shrinkage!r} needs all samples at once: use fit, or give a number as weight")
        first = not hasattr(self, "_running")
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=first)
        if first:
            self._running = RunningMoments(X.shape[1])
        self._running.update(X)
        return self._publish(X)

    def _publish(self, X: Any) -> Self:
        self.location_ = self._running.mean
        self.covariance_ = shrink(self._running.covariance(), self.shrinkage, X)
        self.n_samples_seen_ = self._running.count
        return self

    def moments(self) -> Moments:
        """Return mean and spectrum, for :class:`GaussianScore`.

        Returns
        -------
        Moments

        Examples
        --------
        >>> StreamingCovariance().fit([[0.0], [2.0]]).moments().eigenvalues.tolist()
        [1.0]
        """
        values, vectors = scipy.linalg.eigh(self.covariance_, driver=DRIVER)
        return Moments(self.n_samples_seen_, self.location_, np.clip(values[::-1], 0, None), np.ascontiguousarray(vectors[:, ::-1]))
