"""Reference for a run: ground truth, its Gaussian, score facts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gaussian_test.analysis.moments.gaussian_score import GaussianScore
from gaussian_test.analysis.moments.moments import Moments
from gaussian_test.sampler import EmpiricalScore, Score

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Reference:
    """The reference for end points.

    Attributes
    ----------
    samples : EmpiricalScore
        The ground-truth set, for the nearest sample.
    moments : Moments
        Its mean and spectrum.
    gaussian : GaussianScore
        The affine score of these moments: the control variate.
    labels : ndarray or None
        Class of each ground-truth sample, int64, shape (N,).
    scores : mapping of str to Score
        Reference scores for the explained share of every score; empty if it is not measured.
    class_names : mapping of int to str
        Name of each class that samples have.
    classify : callable or None
        End-point classifier, (batch, ``*event``) to int64 (batch,); None for the nearest sample's class.
    """

    samples: EmpiricalScore
    moments: Moments
    gaussian: GaussianScore
    labels: NDArray[np.int64] | None
    scores: Mapping[str, Score] = field(default_factory=dict)
    classify: Callable[[Tensor], Tensor] | None = None
    class_names: Mapping[int, str] = field(default_factory=dict)

    def classes(self, x: Tensor) -> NDArray[np.int64]:
        """Return the class of each end point, (batch,); -1 where there are no classes."""
        if self.classify is not None:
            return self.classify(x).cpu().numpy()
        nearest: NDArray[np.int64] = self.samples.nearest_index(x).cpu().numpy()
        return np.full_like(nearest, -1) if self.labels is None else self.labels[nearest]


@dataclass(frozen=True)
class GroundTruth:
    r"""Facts of the ground-truth set for the statistics.

    Attributes
    ----------
    count : int
        Number of samples N.
    eigenvalues : ndarray
        Of the covariance, shape (modes,).
    third_cumulant_norm : float
        :math:`\\|\\kappa_3\\|^2`.
    class_shares : ndarray or None
        Share of each class, shape (classes,).
    typical_distance : float
        Of a sample to its nearest neighbour, in the unit of the data.
    precision : float
        Of the states: the distance from 1 to the next number.
    distinct : float or None
        Number of samples without copies; by default that of all.
    """

    count: int
    eigenvalues: Array
    third_cumulant_norm: float
    class_shares: Array | None
    typical_distance: float = np.nan
    precision: float = float(np.finfo(np.float32).eps)
    distinct: float | None = None


@dataclass(frozen=True)
class ScoreFacts:
    """Facts of a score's run for the statistics.

    Attributes
    ----------
    kernel : str
        Name of its reverse kernel; ``exact`` for exact reversal.
    flow : {"sde", "ode", "none"}
        Law in the limit of small steps, in continuous time.
    conditional : bool
        Whether it receives the class of the start.
    is_truth : bool
        Whether it is the exact score of the ground-truth set.
    reference : ndarray or None
        Closed form of the fitted Gaussian's auto-correlation under its kernel, shape (turn times,); needed unless that is exact.
    exact, discrete, end_square : ndarray or None
        Closed forms where the score is affine, shape (turn times,): auto-correlation in continuous time and through its steps, and
        the mean square of the end points.
    """

    kernel: str = "exact"
    flow: Literal["sde", "ode", "none"] = "sde"
    conditional: bool = False
    is_truth: bool = False
    reference: Array | None = None
    exact: Array | None = None
    discrete: Array | None = None
    end_square: Array | None = None
