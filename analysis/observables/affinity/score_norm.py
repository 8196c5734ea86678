r"""How large the score is: its norm in three normalisations, beside the Gaussian's closed form.

.. math:: \mathbb E|s(x_T, T)|,\qquad \frac{\mathbb E|s(x_T, T)|}{\mathbb E|s(x_{T_0}, T_0)|},\qquad
          \frac{\sigma_T^2\,\mathbb E|s(x_T, T)|^2}{d}

The first is the paper's, the second (over the smallest noise level :math:`T_0` of the curve) that of its authors' scripts; the
third has no unit, lies between 0 and 1 for an exact score and goes to 1 where the noise is all there is. For an exact score
:math:`-\sigma s = \mathbb E[z\mid x_T]` is the mean of the noise given the state, hence

.. math:: \sigma^2\,\mathbb E|s|^2 = d - \frac{\alpha^2}{\sigma^2}\,\mathrm{mmse}.

For the Gaussian score :math:`\mathbb E|s_G|^2 = \sum_i 1/(\alpha^2\lambda_i + \sigma^2)` on any data with these moments.
"""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from gaussian_test.analysis.statistics.banded import banded, ratio_of_means
from gaussian_test.analysis.statistics.bootstrap import ClusterBootstrap
from gaussian_test.sampler import Process

Array = NDArray[np.float64]

STEP = 0.3  # of the trapezoid rule in log(u), whose error is exp(-pi^2/STEP), 5e-15
NODES = np.arange(-60, 60.01, STEP)  # beyond them the integrand is exp(-30), 1e-13


def score_square_gaussian(eigenvalues: ArrayLike, features: int, process: Process, times: ArrayLike) -> Array:
    r"""Return :math:`\mathbb E|s_G|^2 = \sum_i 1/(\alpha^2\lambda_i + \sigma^2)`, for any data with these moments.

    Parameters
    ----------
    eigenvalues : array
        Of the covariance, shape (modes,).
    features : int
        d, at least the number of modes: directions that are not listed have eigenvalue 0.
    process : Process
        The forward process.
    times : array
        Positive, shape (points,).

    Returns
    -------
    ndarray
        In the inverse squared unit of the data, shape (points,).

    Raises
    ------
    ValueError
        If there are more modes than features, or no noise at a time.

    Examples
    --------
    >>> from gaussian_test.sampler import VarianceExploding
    >>> score_square_gaussian([3.0], 2, VarianceExploding(), [1.0]).tolist()
    [1.25]
    """
    weights, multiplicity = _precisions(eigenvalues, features, process, times)
    result: Array = weights @ multiplicity
    return result


def score_norm_gaussian(eigenvalues: ArrayLike, features: int, process: Process, times: ArrayLike) -> Array:
    r"""Return :math:`\mathbb E|s_G|` for Gaussian data, by a one-dimensional integral.

    Its square is :math:`Q = \sum_i w_i\chi^2_1` with :math:`w_i = 1/(\alpha^2\lambda_i+\sigma^2)`, and

    .. math:: \mathbb E\sqrt Q = \frac{1}{2\sqrt\pi}\int_0^\infty\Big(1 - \prod_i(1 + 2w_iu)^{-1/2}\Big)u^{-3/2}\,du

    Analytic in :math:`\log u`, so the trapezoid rule has all digits.

    Parameters
    ----------
    eigenvalues, features, process, times
        As in :func:`score_square_gaussian`.

    Returns
    -------
    ndarray
        In the inverse unit of the data, shape (points,). Other data with these moments have another mean norm, at most the root
        of :func:`score_square_gaussian`.

    Raises
    ------
    ValueError
        If there are more modes than features, or no noise at a time.

    References
    ----------
    Mathai & Provost, Quadratic Forms in Random Variables (1992), on fractional moments.

    Examples
    --------
    >>> from gaussian_test.sampler import VarianceExploding
    >>> norm = score_norm_gaussian([0.0], 1, VarianceExploding(), [2.0])  # E|z|/2
    >>> bool(np.isclose(norm[0], np.sqrt(2 / np.pi) / 2, rtol=1e-12))
    True
    """
    weights, multiplicity = _precisions(eigenvalues, features, process, times)
    total = weights @ multiplicity
    powers = np.exp(NODES)
    integrals = np.empty(len(total))
    for index, (row, scale) in enumerate(zip(weights, total, strict=True)):
        logarithm = np.log1p(np.multiply.outer(powers, 2 * row / scale)) @ multiplicity
        integrals[index] = -np.expm1(-logarithm / 2) @ np.exp(-NODES / 2) * STEP
    result: Array = np.sqrt(total / np.pi) / 2 * integrals
    return result


def _precisions(eigenvalues: ArrayLike, features: int, process: Process, times: ArrayLike) -> tuple[Array, Array]:
    r"""Return :math:`1/(\alpha^2\lambda_i+\sigma^2)`, (points, modes + 1), and how many directions have each."""
    values = np.asarray(eigenvalues, dtype=np.float64)
    if features < len(values):
        raise ValueError(f"{len(values)} modes do not fit {features} features: give the number of features of a sample")
    t = torch.tensor(np.asarray(times, dtype=np.float64))
    alpha, variance = process.alpha(t).numpy()[:, None], process.sigma(t).numpy()[:, None] ** 2
    if not (variance > 0).all():
        raise ValueError(f"time {float(t[variance[:, 0] <= 0][0]):g} has no noise, where the score is not defined: leave it out")
    weights = 1 / (alpha**2 * np.append(values, 0.0) + variance)
    return weights, np.append(np.ones(len(values)), features - len(values))


def score_norms(
    score_norm: xr.DataArray,
    score_square: xr.DataArray,
    process: Process,
    eigenvalues: ArrayLike,
    features: int,
    resample: ClusterBootstrap,
) -> xr.Dataset:
    r"""Return the norm of each score in its three normalisations, with bands, beside the Gaussian's in closed form.

    Parameters
    ----------
    score_norm, score_square : DataArray
        :math:`|s|` and :math:`|s|^2`, over (score, turn_time, sample, repeat), with the coordinate ``turn_time`` in the time of
        the process.
    process : Process
        The forward process.
    eigenvalues : array
        Of the covariance of the ground truth, shape (modes,).
    features : int
        d, at least the number of modes.
    resample : ClusterBootstrap
        Of the samples.

    Returns
    -------
    Dataset
        ``score_norm``, ``score_norm_relative`` and ``score_square_scaled`` over (score, turn_time), each with ``_se``, ``_low``
        and ``_high``, and over (turn_time) with ``_gaussian``.

    Raises
    ------
    ValueError
        If the number of samples is not that of the bootstrap, or no noise is at a turn time.

    References
    ----------
    Behjoo & Chertkov, arXiv 2308.07421.

    Examples
    --------
    >>> from gaussian_test.sampler import VarianceExploding
    >>> rows = xr.DataArray(np.ones((1, 2, 9, 1)), dims=("score", "turn_time", "sample", "repeat"))
    >>> rows = rows.assign_coords(turn_time=[1.0, 2.0])
    >>> result = score_norms(2 * rows, 4 * rows, VarianceExploding(), [1.0], 4, ClusterBootstrap(9, 100))
    >>> result.score_norm_relative.values.tolist(), result.score_square_scaled.values.tolist()
    ([[1.0, 1.0]], [[1.0, 4.0]])
    """
    times = score_norm["turn_time"].values
    norm, square = score_norm.mean("repeat"), score_square.mean("repeat")
    first = int(times.argmin())
    scale = process.sigma(torch.tensor(times, dtype=torch.float64)).numpy() ** 2 / features
    core = ["sample", "turn_time"]
    relative = xr.apply_ufunc(
        lambda values: ratio_of_means(values, values[..., first, None]), norm, input_core_dims=[core], output_core_dims=[core]
    )
    norm_gaussian = score_norm_gaussian(eigenvalues, features, process, times)
    result = xr.Dataset()
    for name, values, gaussian in (
        ("score_norm", norm, norm_gaussian),
        ("score_norm_relative", relative, norm_gaussian / norm_gaussian[first]),
        (
            "score_square_scaled",
            square * xr.DataArray(scale, dims="turn_time"),
            scale * score_square_gaussian(eigenvalues, features, process, times),
        ),
    ):
        long_name, comment = NORMS[name]
        curve = values.rename(name)
        curve.attrs = {"long_name": long_name, "units": "1", "comment": comment}
        result = result.merge(banded(curve, resample), compat="override")
        result[f"{name}_gaussian"] = (
            "turn_time",
            gaussian,
            {"long_name": f"{long_name}, of the Gaussian", "units": "1", "comment": GAUSSIAN[name]},
        )
    return result


NORMS = {
    "score_norm": ("mean norm of the score", "E|s|, in the inverse unit of the data"),
    "score_norm_relative": (
        "mean norm of the score over that at the smallest turn time",
        "E|s(T)|/E|s(T_0)|",
    ),
    "score_square_scaled": (
        "mean squared norm of the score in units of the noise",
        "sigma^2 E|s|^2/d: 1 - (alpha/sigma)^2 mmse/d for an exact score",
    ),
}
GAUSSIAN = {
    "score_norm": "exact for Gaussian data",
    "score_norm_relative": "exact for Gaussian data",
    "score_square_scaled": "sigma^2/d sum of 1/(alpha^2 lambda + sigma^2): exact for any data with these moments",
}
