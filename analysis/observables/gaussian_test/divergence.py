r"""Divergence of the noised data from their Gaussian, and the log-likelihood that a score gains over it.

With :math:`a = \log p_t(x) - \log\mathcal N_t(x)` of a score's density at noised data, and H the entropy of the posterior weights,

.. math:: \mathbb E\,a = \mathrm{KL}(p_t\|\mathcal N_t) - \mathrm{KL}(p_t\|q_t)
          = \tfrac12\int_0^{\gamma_t}(\mathrm{lmmse} - \mathbb E\|x_0 - D\|^2)\,d\gamma ,

for data of the law :math:`p_t` and a score of the law :math:`q_t`. For the exact score of the data two estimators with less noise
have the same mean: :math:`I_G - \log N + H`, the better one for large divergences, and :math:`a + e^{-a} - 1 \ge 0` for small ones
(below 0.4 nat), with :math:`I_G = \frac12\sum_i\log(1+\lambda_i/\nu^2)`.
"""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from functools import partial

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gaussian_test.analysis.declarations import BAND
from gaussian_test.analysis.observables.gaussian_test import INTEGRAL
from gaussian_test.analysis.statistics.bootstrap import ClusterBootstrap, with_control_variate
from gaussian_test.analysis.theory.closed_form import autocorrelation_exact
from gaussian_test.analysis.theory.predictions import information_integral, inner_area
from gaussian_test.analysis.uturn.reference import GroundTruth, ScoreFacts

Array = NDArray[np.float64]
SMALL = 0.4  # nat: beyond, few samples decide the mean of exp(-a), and its standard error does not show it
RESOLVED = 30.0  # a log density must exceed its rounding by this factor where its square is what counts
ROUNDED = 0.01  # or be rounded by this at most, in nats or as a share, where its mean is
NO_TRUTH = "no unconditional empirical score was run"
NO_DENSITY = "the score's density is not in the sample table"


@dataclass(frozen=True)
class Gain:
    """Log-likelihood that a score gains over the Gaussian, sample by sample, and why it is undefined at some noise levels."""

    values: Array  # whose mean it is, in nats, shape (samples, points); NaN where undefined
    reason: str = ""
    rounding: Array | float = 0.0  # of the mean, shape (points,)
    from_entropy: Array | bool = False  # whether it is that of the posterior weights, shape (points,)


def _by_sample(values: xr.DataArray) -> Array:
    averaged: Array = values.mean("repeat").transpose("sample", "turn_time").values
    return averaged


def gain(row: xr.Dataset, truth: GroundTruth, of_score: ScoreFacts) -> Gain:
    """Return what a score with a density gains over the Gaussian.

    Parameters
    ----------
    row : Dataset
        The sample table of the score.
    truth : GroundTruth
        Facts of the ground-truth set.
    of_score : ScoreFacts
        Facts of the score's run.

    Returns
    -------
    Gain
        All NaN for a score without a density.
    """
    nu = row["noise_to_signal"].values
    if "sample_likelihood_gain" not in row or bool(row["sample_likelihood_gain"].isnull().all()):
        return Gain(np.full((row.sizes["sample"], len(nu)), np.nan), NO_DENSITY)
    ratio = row["sample_likelihood_gain"]
    # of a log density, in the precision of the states
    rounding = truth.precision * (1 + truth.eigenvalues.sum() / nu**2)
    if not of_score.is_truth:
        control = _by_sample(row["sample_autocorrelation_gaussian"])
        values = with_control_variate(_by_sample(ratio), control, autocorrelation_exact(truth.eigenvalues, nu))
        fine = (rounding < ROUNDED * np.maximum(1, np.abs(values.mean(0)))) | ~values.any(0)  # the Gaussian's own gain is 0
        rounded, small = rounding * np.sqrt(len(truth.eigenvalues)), np.ones(len(nu), dtype=bool)
    else:
        values = gaussian_information(truth.eigenvalues, nu) - _by_sample(row["sample_posterior_information"])
        with np.errstate(over="ignore", invalid="ignore"):  # where it is large, and this estimator is not taken
            squares = _by_sample(ratio + np.expm1(-ratio))
            small = values.mean(0) < SMALL  # not by their variances: where rare samples were missed, both are too small
        values, rounded = np.where(small, squares, values), np.zeros(len(nu))
        fine = ~small | (np.sqrt(2 * squares.mean(0)) > RESOLVED * rounding)
    why = "" if fine.all() else _unresolved(nu[~fine], truth.precision)
    return Gain(np.where(fine, values, np.nan), why, rounded, ~small)


def _unresolved(nu: Array, precision: float) -> str:
    """Return why the densities at some noise levels are not given."""
    digits, remedy = ("single", " or dtype: float64") if precision > 1e-10 else ("double", "")
    between = f"{nu[0]:.3g} to {nu[-1]:.3g}" if len(nu) > 1 else f"{nu[0]:.3g}"
    return f"{digits} precision does not resolve the densities at noise-to-signal {between}: use other turn times{remedy}"


def gaussian_information(eigenvalues: Array, noise_to_signal: Array) -> Array:
    r"""Return :math:`I_G = \frac12\sum_i\log(1+\lambda_i/\nu^2)`, in nats, at each noise level.

    Examples
    --------
    >>> gaussian_information(np.array([3.0]), np.array([1.0])).round(6).tolist()
    [0.693147]
    """
    information: Array = np.log1p(eigenvalues / noise_to_signal[:, None] ** 2).sum(1) / 2
    return information


def integrated(row: xr.Dataset, truth: GroundTruth, of_score: ScoreFacts, resample: ClusterBootstrap) -> tuple[Array, str]:
    """Return the same by the integral over noise levels.

    Parameters
    ----------
    row, truth, of_score
        As for :func:`gain`, of a score with or without a density.
    resample : ClusterBootstrap
        Of the samples.

    Returns
    -------
    tuple of ndarray and str
        Value, standard error, band and error of the integral, shape (5, points), and why values are NaN.
    """
    nu, trace, exact = row["noise_to_signal"].values, float(truth.eigenvalues.sum()), of_score.is_truth and not of_score.conditional
    excess = trace * _by_sample(row["sample_denoiser_gap"])
    if excess.any() and not exact:  # the gap is lmmse - mmse for the exact score alone
        affine = autocorrelation_exact(truth.eigenvalues, nu)
        closer = _by_sample(2 * row["sample_autocorrelation_one_shot"] - row["sample_autocorrelation_one_shot_squared"])
        excess = trace * (with_control_variate(closer, _by_sample(row["sample_autocorrelation_gaussian"]), affine) - affine)
    area = information_integral(
        excess.mean(0), nu, eigenvalues=truth.eigenvalues, third_cumulant_norm=truth.third_cumulant_norm, exact=exact
    )
    found = np.full((5, len(nu)), np.nan)
    if (defined := np.isfinite(area.value)).any():
        beyond = excess[:, -1:] / nu[-1] ** 2 * (1 / 12 if exact else 1 / 3)  # part of the tail that is measured
        band = resample.band(inner_area(excess, nu) + beyond)
        shift = area.value - band.estimate
        found = np.stack([area.value, band.standard_error, band.low + shift, band.high + shift, area.error])
    return np.where(defined, found, np.nan), area.reason


def _band(direct: Gain, resample: ClusterBootstrap, positive: bool) -> Array:
    """Return mean, standard error and band, shape (4, points); each estimator has its own band, at a shared level."""
    count = direct.values.shape[1]
    defined, from_entropy = np.isfinite(direct.values).all(0), np.broadcast_to(direct.from_entropy, count)
    found = np.full((4, count), np.nan)
    groups = [group for group in (defined & from_entropy, defined & ~from_entropy) if group.any()]
    shared = copy(resample)
    shared.confidence = 1 - (1 - resample.confidence) / max(len(groups), 1)
    for group in groups:
        values = direct.values[:, group]
        scale = np.where(values.any(0), np.abs(values.mean(0)), 1.0)  # however small the mean is
        # few starts carry the entropy of small noise: resamples without them would divide by an error of about zero
        by = partial(shared.positive_band, studentized=not from_entropy[group].any()) if positive else shared.band
        band = by(values / scale)
        found[:, group] = np.array([band.estimate, band.standard_error, band.low, band.high]) * scale
    # none may have been seen of as many starts as the confidence allows that share their posterior with a neighbour
    found[3] += from_entropy * -np.log(2) * np.log1p(-resample.confidence) / resample.clusters
    found[1] = np.hypot(found[1], direct.rounding)
    return found


def likelihood_gain(
    table: xr.Dataset, truth: GroundTruth, scores: Mapping[str, ScoreFacts], resample: ClusterBootstrap
) -> tuple[dict[str, Array], dict[str, dict[str, str]]]:
    """Return the log-likelihood gained by each score, the same by the integral, and the divergence of the data.

    Parameters
    ----------
    table : Dataset
        The sample table, with the noise levels.
    truth : GroundTruth
        Facts of the ground-truth set.
    scores : mapping of str to ScoreFacts
        Facts of each score's run.
    resample : ClusterBootstrap
        Of the samples.

    Returns
    -------
    tuple of dict
        Values by variable, and reasons by variable and score.
    """
    count, nu = table.sizes["turn_time"], table["noise_to_signal"].values
    values: dict[str, list[Array]] = {}
    why: dict[str, dict[str, str]] = {"likelihood_gain": {}, "likelihood_gain_integral": {}}
    divergence, why["kl_from_gaussian"] = np.full((4, count), np.nan), {"": NO_TRUTH}
    for name, of_score in scores.items():
        row = table.sel(score=name)
        direct = gain(row, truth, of_score)
        integral, why["likelihood_gain_integral"][name] = integrated(row, truth, of_score, resample)
        found = _band(direct, resample, of_score.is_truth)
        why["likelihood_gain"][name] = direct.reason
        if of_score.is_truth and not of_score.conditional:
            information = gaussian_information(truth.eigenvalues, nu)  # and the entropy of the posterior is between 0 and log N
            found[[0, 2, 3]] = found[[0, 2, 3]].clip(np.maximum(information - np.log(truth.count), 0), information)
            divergence, why["kl_from_gaussian"] = found, {"": direct.reason}
        if direct.reason == NO_DENSITY:
            found, why["likelihood_gain"][name] = integral[:4], why["likelihood_gain_integral"][name]
        for variable, endings, rows in (("likelihood_gain", BAND, found), ("likelihood_gain_integral", INTEGRAL, integral)):
            for ending, one in zip(("", *endings), rows, strict=True):
                values.setdefault(variable + ending, []).append(one)
    made = {column: np.array(rows) for column, rows in values.items()}
    return made | {f"kl_from_gaussian{ending}": one for ending, one in zip(("", *BAND), divergence, strict=True)}, why
