r"""Affinity of the score itself at a noise level.

With :math:`D` the score's denoiser and :math:`s = (\alpha D - x)/\sigma^2`, distances of scores are distances of denoisers,
:math:`s - s' = \alpha(D - D')/\sigma^2`. The share of the squared norm that a reference explains, and the squared distance
of the denoiser from the Gaussian one, are

.. math:: R^2 = 1 - \frac{\mathbb E|s - s_{ref}|^2}{\mathbb E|s|^2},\qquad
          \frac{\mathbb E|D - D_G|^2}{\mathrm{tr}\,\Sigma}.

For an exact score no affine map comes closer than :math:`D_G` (orthogonality principle). A learned score can be affine and yet far
from it: :func:`best_affine` finds the affine map closest to it.

The norm of a score in three normalisations:

.. math:: \mathbb E|s(x_T, T)|,\qquad \frac{\mathbb E|s(x_T, T)|}{\mathbb E|s(x_{T_0}, T_0)|},\qquad
          \frac{\sigma_T^2\,\mathbb E|s(x_T, T)|^2}{d}

The first is the paper's, the second (over the smallest noise level :math:`T_0` of the curve) that of its authors' scripts. The
third is dimensionless, lies between 0 and 1 for an exact score and tends to 1 at large noise. For an exact score :math:`-\sigma s =
\mathbb E[z\mid x_T]` is the mean of the noise given the state, hence

.. math:: \sigma^2\,\mathbb E|s|^2 = d - \frac{\alpha^2}{\sigma^2}\,\mathrm{mmse}.

For the Gaussian score :math:`\mathbb E|s_G|^2 = \sum_i 1/(\alpha^2\lambda_i + \sigma^2)` on any data with these moments.
"""

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from gaussian_test.analysis.declarations import TESTED, declared, described
from gaussian_test.analysis.observables.affinity import VARIABLES
from gaussian_test.analysis.observables.affinity.regression import best_affine, features_along
from gaussian_test.analysis.observables.record import Inputs, Rows, Turned
from gaussian_test.analysis.statistics.bootstrap import ClusterBootstrap
from gaussian_test.analysis.statistics.curves import ratio_of_means, with_bands
from gaussian_test.sampler import Process

Array = NDArray[np.float64]
STEP = 0.3  # of the trapezoid rule in log(u), whose error is exp(-pi^2/STEP), 5e-15
NODES = np.arange(-60, 60.01, STEP)  # beyond them the integrand is exp(-30), 1e-13


def explained_share(score_square: ArrayLike, distance_square: ArrayLike) -> Array:
    r"""Return pseudo-values of the share explained, :math:`R^2 = 1 - \sum|s-s_{ref}|^2/\sum|s|^2`.

    Parameters
    ----------
    score_square : array
        :math:`|s|^2` of each sample, repeats averaged, shape (..., samples, points).
    distance_square : array
        :math:`|s - s_{ref}|^2` of the same, in the same unit, shape (..., samples, points).

    Returns
    -------
    ndarray
        Shape (..., samples, points), dimensionless: at most 1 on average, and 1 for every sample where the score is the
        reference. NaN where the score is zero.

    References
    ----------
    Wang & Vastola, arXiv 2412.09726.

    Examples
    --------
    >>> explained_share([[4.0], [4.0]], [[1.0], [0.0]]).mean()
    np.float64(0.875)
    """
    return 1 - ratio_of_means(distance_square, score_square)


def affinity(
    score_square: xr.DataArray, score_distance: xr.DataArray, denoiser_gap: xr.DataArray, resample: ClusterBootstrap
) -> xr.Dataset:
    r"""Return the share of each score explained by the reference scores, and the distance of its denoiser from the Gaussian one.

    Parameters
    ----------
    score_square : DataArray
        :math:`|s|^2`, over (score, turn_time, sample, repeat).
    score_distance : DataArray
        :math:`|s - s_{ref}|^2` in the same unit, over (score, reference, turn_time, sample, repeat).
    denoiser_gap : DataArray
        :math:`|D - D_G|^2/\mathrm{tr}\,\Sigma`, over (score, turn_time, sample, repeat).
    resample : ClusterBootstrap
        Of the samples.

    Returns
    -------
    Dataset
        ``score_explained(score, reference, turn_time)`` and ``denoiser_gap(score, turn_time)``, each with ``_se``, ``_low`` and
        ``_high``; dimensionless.

    Raises
    ------
    ValueError
        If the number of samples is not that of the bootstrap, or coordinates differ.

    References
    ----------
    Wang & Vastola, arXiv 2412.09726.

    Examples
    --------
    >>> square = xr.DataArray(np.full((1, 2, 9, 1), 4.0), dims=("score", "turn_time", "sample", "repeat"))
    >>> distance = (square / 4).expand_dims("reference", axis=1)
    >>> affinity(square, distance, 0 * square, ClusterBootstrap(9, 100)).score_explained.values.tolist()
    [[[0.75, 0.75]]]
    """
    core = ["sample", "turn_time"]
    explained = xr.apply_ufunc(
        explained_share,
        _averaged(score_square),
        _averaged(score_distance),
        input_core_dims=[core, core],
        output_core_dims=[core],
        join="exact",
    )
    result = with_bands(explained.rename("score_explained"), resample, bounded="below one")
    gap = with_bands(_averaged(denoiser_gap).rename("denoiser_gap"), resample, bounded="positive")
    return described(result.merge(gap, compat="override", join="exact"), VARIABLES)


def best_affine_gap(values: xr.DataArray, baseline: xr.DataArray, trace: float, resample: ClusterBootstrap) -> xr.Dataset:
    r"""Return the distance of each denoiser from its fitted affine map, and the gain over the Gaussian one.

    Parameters
    ----------
    values, baseline : DataArray
        Squared distances of :class:`AffineFit`, in the squared unit of the data, over (score, turn_time, sample), repeats
        averaged or as one more dimension.
    trace : float
        :math:`\mathrm{tr}\,\Sigma`.
    resample : ClusterBootstrap
        Of the samples.

    Returns
    -------
    Dataset
        ``affine_gap`` and ``affine_gain`` over (score, turn_time), each with ``_se``, ``_low`` and ``_high``, and
        ``affine_gain_pvalue``; dimensionless.

    Raises
    ------
    ValueError
        If the number of samples is not that of the bootstrap, or coordinates differ.

    Notes
    -----
    The errors hold for the fitted maps; another set of samples would give slightly different maps.

    Examples
    --------
    >>> baseline = xr.DataArray(np.full((1, 1, 9), 4.0), dims=("score", "turn_time", "sample"))
    >>> result = best_affine_gap(baseline / 4, baseline, 8.0, ClusterBootstrap(9, 100))
    >>> result.affine_gap.item(), result.affine_gain.item()
    (0.125, 0.375)
    """
    values, baseline = xr.align(_averaged(values), _averaged(baseline), join="exact")
    result = with_bands((values / trace).rename("affine_gap"), resample, bounded="positive")
    gain = ((baseline - values) / trace).rename("affine_gain")
    result = result.merge(with_bands(gain, resample, suffixes=("", *TESTED)), compat="override")
    # a map worse than the Gaussian is no evidence against it
    result["affine_gain_pvalue"] = result["affine_gain_pvalue"].where(result["affine_gain"] > 0, 1.0)
    return described(result, VARIABLES)


def _averaged(values: xr.DataArray) -> xr.DataArray:
    return values.mean("repeat") if "repeat" in values.dims else values


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

    Analytic in :math:`\log u`, so the trapezoid rule is accurate to all digits.

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
        If the number of samples is not that of the bootstrap, or there is no noise at a turn time.

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
    gaussian = score_norm_gaussian(eigenvalues, features, process, times)
    closed = {
        "score_norm_gaussian": gaussian,
        "score_norm_relative_gaussian": gaussian / gaussian[first],
        "score_square_scaled_gaussian": scale * score_square_gaussian(eigenvalues, features, process, times),
    }
    curves = {
        "score_norm": norm,
        "score_norm_relative": relative,
        "score_square_scaled": square * xr.DataArray(scale, dims="turn_time"),
    }
    bands = xr.merge(
        [with_bands(values.rename(name), resample) for name, values in curves.items()], compat="override", join="exact"
    )
    return described(bands, VARIABLES).merge(declared(VARIABLES, closed), compat="override")


def at_turn(turned: Turned) -> Rows:
    """Yield norms of the scores, their distances from the reference scores, and the residual of the Gaussian denoiser."""
    alpha, variance = turned.alpha, turned.sigma**2
    for score, denoised in turned.denoised.items():
        # alpha D - x in the precision of the states; squares and their scale in float64
        raw = denoised + turned.mean
        offset = alpha.to(raw.dtype)[..., None] * raw - turned.x
        square = offset.square().sum(-1, dtype=torch.float64) / variance**2
        yield "sample_score_square", score, square
        yield "sample_score_norm", score, square.sqrt()
        distances = [
            (denoised - other).square().sum(-1, dtype=torch.float64) * (alpha / variance) ** 2
            for other in turned.references.values()
        ]
        yield "sample_score_distance", score, torch.stack(distances)
        yield "residual", score, denoised - turned.gaussian


def measure(inputs: Inputs) -> dict[str, xr.Dataset]:
    """Return the explained share and the norm of each score, and its best affine map compared with the Gaussian."""
    table, moments, plan = inputs.table, inputs.reference.moments, inputs.plan
    resample = inputs.resample(table.sizes["sample"])
    explained = affinity(table["sample_score_square"], table["sample_score_distance"], table["sample_denoiser_gap"], resample)
    norms = score_norms(
        table["sample_score_norm"], table["sample_score_square"], plan.process, moments.eigenvalues, moments.mean.size, resample
    )
    residual = table["residual"]
    values = np.zeros((2, *residual.shape[:3]))
    start, noise = (part.double().cpu().numpy() for part in inputs.start_and_noise(table["kept_sample"].values))
    for turn, features in enumerate(features_along(start, noise, moments, plan.process, plan.levels)):
        for score in range(residual.sizes["score"]):
            rest = residual.isel(score=score, turn_time=turn).values.reshape(features.shape[1], -1).astype(np.float64)
            if rest.any():
                fit = best_affine(features, rest, folds=min(5, len(rest) - 1), seed=inputs.statistics.seed)
                values[:, score, turn] = fit.values, fit.baseline
    dims = ("score", "turn_time", "sample")
    coords = {name: residual[name] for name in dims[:2]}
    of_fit, of_gaussian = (xr.DataArray(distances, dims=dims, coords=coords) for distances in values)
    fits = best_affine_gap(of_fit, of_gaussian, moments.trace, inputs.resample(table.sizes["kept"]))
    return {"": xr.merge([explained, norms, fits], compat="override", join="override")}
