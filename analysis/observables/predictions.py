"""Predicted times, from the data and one evaluation per score."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gaussian_test.analysis.declarations import NO_LABELS, ONE_CLASS, Variable, declared
from gaussian_test.analysis.observables.record import Inputs, Observable

if TYPE_CHECKING:
    import xarray as xr

WITHIN = "memorization: class entropy and the information of Gaussians within classes make log N; speciation: two symmetric classes"
VARIABLES = (
    *(
        Variable(
            f"{time}_noise_to_signal_predicted_within_class",
            (),
            f"{time} time as a noise-to-signal ratio, predicted within classes",
            WITHIN,
        )
        for time in ("memorization", "speciation")
    ),
    Variable(
        "excess_entropy",
        ("score", "turn_time"),
        "excess entropy: information about the sample, less that which tells all samples apart",
        "sum of log(1 + lambda/nu^2) / 2 less half the integral of lmmse - mmse over 1/nu^2, less log N",
        "nat",
        needs="sample",
    ),
    Variable(
        "memorization_noise_to_signal_predicted_excess_entropy",
        ("score",),
        "memorization time as a noise-to-signal ratio, predicted by the excess entropy",
        "the excess entropy falls through 0",
        needs="sample",
    ),
)


def measure(inputs: Inputs) -> dict[str, xr.Dataset]:
    """Return the predictions that need classes or scores."""
    return {"": _within_classes(inputs).merge(_excess_entropy(inputs), compat="override", join="exact")}


def _within_classes(inputs: Inputs) -> xr.Dataset:
    import numpy as np

    from gaussian_test.analysis.theory import predictions

    labels, moments = inputs.reference.labels, inputs.reference.moments
    values, reason, counts = [np.nan, np.nan], NO_LABELS, np.zeros(1, dtype=np.int64)
    if labels is not None:
        counts = np.unique(labels, return_counts=True)[1]
        reason = ONE_CLASS if len(counts) == 1 else "a class has a single sample"
    if labels is not None and len(counts) > 1 and counts.min() > 1:
        try:
            by_class = [of_class for _, of_class in inputs.class_moments()]
        except ValueError:  # all samples of a class are equal
            counts, reason = counts[:1], "a class does not vary"
    if len(counts) > 1 and counts.min() > 1:
        structure = predictions.class_structure(by_class, moments)
        level = inputs.statistics.levels[1]
        values = [
            predictions.predicted_memorization_within_class([of_class.eigenvalues for of_class in by_class], counts),
            predictions.predicted_speciation_within_class(structure.between_eigenvalue, structure.within_variance, level=level),
        ]
        reason = "" if np.isfinite(values).all() else "no noise level fulfils it"
    names = [variable.name for variable in VARIABLES[:2]]
    return declared(VARIABLES, dict(zip(names, values, strict=True)), None, {name: {"": reason} for name in names})


def _excess_entropy(inputs: Inputs) -> xr.Dataset:
    import numpy as np

    from gaussian_test.analysis.theory import predictions
    from gaussian_test.analysis.theory.predictions import information_integral

    nu, truth, result = inputs.noise_to_signal, inputs.truth, inputs.measured
    curves, crossings, reasons = [], [], {}
    for name, facts in inputs.scores.items():
        area = information_integral(result["gap_one_shot"].sel(score=name).values * float(truth.eigenvalues.sum()), nu)
        divergence, error = area.value, area.error
        if facts.is_truth and np.isfinite(result["kl_from_gaussian"]).all():
            divergence = result["kl_from_gaussian"].values
            error = np.hypot(result["kl_from_gaussian_quadrature_error"].values, 2 * result["kl_from_gaussian_se"].values)
        curve = predictions.excess_entropy(divergence, truth.eigenvalues, nu, count=truth.count)
        crossing, reasons[name] = predictions.excess_entropy_crossing(curve, nu, error=error)
        curves.append(curve)
        crossings.append(crossing)
    crossed = "memorization_noise_to_signal_predicted_excess_entropy"
    values = {"excess_entropy": np.array(curves), crossed: np.array(crossings)}
    return declared(VARIABLES, values, {"score": list(inputs.scores)}, {crossed: reasons})


PREDICTIONS = Observable(
    name="predictions",
    title="predictions of the times within classes and by the excess entropy",
    variables=VARIABLES,
    any_start=True,
    default=True,
    measure="predictions:measure",
)
