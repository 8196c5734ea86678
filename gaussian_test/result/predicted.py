"""Predictions of the times from the data and from one evaluation of the scores, beside what is measured."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gaussian_test import analysis
from gaussian_test.build.problem import Prepared

Array = NDArray[np.float64]
WITHIN = "memorization: class entropy and the information of Gaussians within classes make log N; speciation: two symmetric classes"


def predictions(prepared: Prepared, result: xr.Dataset, truth: analysis.GroundTruth) -> xr.Dataset:
    r"""Return the predictions of the times that need classes or scores.

    Parameters
    ----------
    prepared : Prepared
        What was run.
    result : Dataset
        The Gaussian Test: ``gap_one_shot``, ``kl_from_gaussian`` and the coordinates.
    truth : GroundTruth
        Facts of the ground-truth set.

    Returns
    -------
    Dataset
        ``memorization_noise_to_signal_predicted_within_class``, ``speciation_noise_to_signal_predicted_within_class``;
        ``excess_entropy(score, turn_time)``, :math:`f^e = I(x_0;x_T) - \log N` in nats, and where it falls through 0,
        ``memorization_noise_to_signal_predicted_excess_entropy(score)``.
    """
    return xr.merge([_within_classes(prepared), _excess_entropy(prepared, result, truth)], compat="override", join="exact")


def _within_classes(prepared: Prepared) -> xr.Dataset:
    settings, labels, moments = prepared.settings.statistics, prepared.reference.labels, prepared.reference.moments
    values, reason, counts = [np.nan, np.nan], "the data set has no labels", np.zeros(1, dtype=np.int64)
    if labels is not None:
        counts = np.unique(labels, return_counts=True)[1]
        reason = "the data set has a single class" if len(counts) == 1 else "a class has a single sample"
    if labels is not None and len(counts) > 1 and counts.min() > 1:
        try:
            by_class = prepared.fits.of_classes(prepared.truth["x"], labels)
        except ValueError:  # a class whose samples are all the same
            counts, reason = counts[:1], "a class does not vary"
    if len(counts) > 1 and counts.min() > 1:
        structure = analysis.class_structure([of_class for _, of_class in by_class], moments)
        level = settings.speciation_level or settings.level
        values = [
            analysis.predicted_memorization_within_class([of_class.eigenvalues for _, of_class in by_class], counts),
            analysis.predicted_speciation_within_class(structure.between_eigenvalue, structure.within_variance, level),
        ]
        reason = "" if np.isfinite(values).all() else "no noise level fulfils it"
    result = xr.Dataset()
    for time, value in zip(("memorization", "speciation"), values, strict=True):
        attributes = {
            "long_name": f"{time} time as a noise-to-signal ratio, predicted within classes",
            "units": "1",
            "comment": WITHIN,
        }
        result[f"{time}_noise_to_signal_predicted_within_class"] = ((), value, attributes | ({"reason": reason} if reason else {}))
    return result


def _excess_entropy(prepared: Prepared, result: xr.Dataset, truth: analysis.GroundTruth) -> xr.Dataset:
    nu, trace = prepared.noise_to_signal, float(truth.eigenvalues.sum())
    curves, crossings, reasons = [], [], []
    for name in prepared.scores:
        row = result.sel(score=name)
        area = analysis.information_integral(nu, row["gap_one_shot"].values * trace)
        divergence, error = area.value, area.error
        if prepared.scores[name] is prepared.reference.samples and np.isfinite(result["kl_from_gaussian"]).all():
            divergence = result["kl_from_gaussian"].values
            error = np.hypot(result["kl_from_gaussian_quadrature_error"].values, 2 * result["kl_from_gaussian_se"].values)
        curve = analysis.excess_entropy(nu, truth.eigenvalues, divergence, truth.count)
        crossing, reason = analysis.excess_entropy_crossing(nu, curve, error)
        curves.append(curve)
        crossings.append(crossing)
        reasons += [f"{name}: {reason}"] if reason else []
    long_name = "memorization time as a noise-to-signal ratio, predicted by the excess entropy"
    return xr.Dataset(
        {
            "excess_entropy": (
                ("score", "turn_time"),
                np.array(curves),
                {
                    "long_name": "excess entropy: information about the sample, less that which tells all samples apart",
                    "units": "nat",
                    "comment": "sum of log(1 + lambda/nu^2) / 2 less half the integral of lmmse - mmse over 1/nu^2, less log N",
                },
            ),
            "memorization_noise_to_signal_predicted_excess_entropy": (
                "score",
                np.array(crossings),
                {
                    "long_name": long_name,
                    "units": "1",
                    "comment": "the excess entropy falls through 0",
                    "reason": "; ".join(reasons),
                },
            ),
        },
        coords={"score": list(prepared.scores)},
    )
