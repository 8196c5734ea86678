"""Predicted times, from the data and one evaluation per score."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gaussian_test.analysis.declarations import ERROR, NO_LABELS, ONE_CLASS, Variable, declared, parts_of, reason_of
from gaussian_test.analysis.observables.record import Inputs, Observable

if TYPE_CHECKING:
    import xarray as xr

ROUNDING = 1e-9  # nat: an excess entropy above it is not one of exactly zero
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
        "sum of log(1 + lambda/nu^2) / 2 less likelihood_gain, less log N without copies (of the class, for a conditional score)",
        "nat",
        band=ERROR,
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
    points = inputs.reference.samples.points.cpu().numpy()
    values, reason, counts = [np.nan, np.nan], NO_LABELS, np.zeros(1, dtype=np.int64)
    if labels is not None:
        counts = np.unique(labels, return_counts=True)[1]
        reason = ONE_CLASS if len(counts) == 1 else "a class has a single sample"
    if labels is not None and len(counts) > 1 and counts.min() > 1:
        try:
            by_class = [of_class for _, of_class in inputs.class_moments()]
        except ValueError:  # all samples of a class are equal
            counts, reason = counts[:1], "a class does not vary"
    if labels is not None and len(counts) > 1 and counts.min() > 1:
        structure = predictions.class_structure(by_class, moments)
        level = inputs.statistics.levels[1]
        values = [
            predictions.predicted_memorization_within_class(
                [of_class.eigenvalues for of_class in by_class],
                counts,
                [predictions.distinct_count(points[labels == label]) for label in np.unique(labels)],
            ),
            predictions.predicted_speciation_within_class(structure.between_eigenvalue, structure.within_variance, level=level),
        ]
        reason = "" if np.isfinite(values).all() else "no noise level fulfils it"
    names = [variable.name for variable in VARIABLES[:2]]
    return declared(VARIABLES, dict(zip(names, values, strict=True)), None, {name: {"": reason} for name in names})


def _excess_entropy(inputs: Inputs) -> xr.Dataset:
    import numpy as np

    from gaussian_test.analysis.theory import predictions

    nu, truth, result, labels = inputs.noise_to_signal, inputs.truth, inputs.measured, inputs.reference.labels
    points = inputs.reference.samples.points.cpu()
    distinct = {told: predictions.distinct_count(points, labels if told else None) for told in (False, labels is not None)}
    curves, crossings, reasons = [], [], {}
    for name, facts in inputs.scores.items():
        row = result.sel(score=name)
        integral, quadrature = parts_of(row, "likelihood_gain_integral", ("_quadrature_error",))
        gain, sampling = parts_of(row, "likelihood_gain", ("_se",))
        by_integral = np.array_equal(gain, integral, equal_nan=True)
        error = np.hypot(2 * sampling, quadrature if by_integral else ROUNDING)
        curve = predictions.excess_entropy(gain, truth.eigenvalues, nu, count=distinct[facts.conditional])
        defined, why = np.isfinite(curve), reason_of(result["likelihood_gain"], name)
        crossing, said = np.nan, ""
        if defined.any():
            crossing, said = predictions.excess_entropy_crossing(curve[defined], nu[defined], error=error[defined])
        reasons[name] = "; ".join(filter(None, (said, why))) if np.isnan(crossing) else ""
        curves.append((curve, sampling))
        crossings.append(crossing)
    crossed = "memorization_noise_to_signal_predicted_excess_entropy"
    values = {f"excess_entropy{ending}": np.array(of) for ending, of in zip(("", "_se"), zip(*curves, strict=True), strict=True)}
    because = {name: reason_of(result["likelihood_gain"], name) for name in inputs.scores}
    return declared(
        VARIABLES,
        values | {crossed: np.array(crossings)},
        {"score": list(inputs.scores)},
        {crossed: reasons, "excess_entropy": because},
    )


PREDICTIONS = Observable(
    name="predictions",
    title="predictions of the times within classes and by the excess entropy",
    variables=VARIABLES,
    any_start=True,
    default=True,
    measure="predictions:measure",
)
