"""Deprecated names of version 0.1, removed after this version."""

import functools
import importlib
import warnings
from typing import Any

HOMES = {  # current module of each name
    "declarations": "no_speciation undefine",
    "moments.gaussian_score": "mixture_of_classes stack_components",
    "moments.moments": "evenly event_dims whole_spectrum",
    "moments.running": "RunningMoments",
    "observables.affinity.scores": "affinity best_affine_gap score_norm_gaussian score_norms score_square_gaussian",
    "observables.affinity.regression": "AffineFit affine_features",
    "observables.balance.change": "correlation_length radial_correlation susceptibility_gaussian",
    "observables.balance.exchange": "Symmetry antisymmetric class_symmetry energy_symmetry",
    "observables.chains.chains": "chain_autocorrelation_gaussian chain_products chain_table class_persistence "
    "integrated_time_gaussian",
    "observables.normality.lilliefors": "KSTest ks_distance ks_null ks_pvalue",
    "observables.normality.normality": "ks_dataset",
    "observables.quality.distances": "Distance frechet_between null_distance",
    "observables.quality.quality": "kid_between principal_features sample_quality start_sensitivity",
    "observables.sample_table": "SampleTable path_table picture_table",
    "observables.sample_times.times": "class_times sample_times self_averaging",
    "statistics.bootstrap": "controlled",
    "statistics.curves": "Crossing banded falls_through ratio_of_means share_time",
    "theory.affine_ends": "affine_uturns",
    "theory.closed_form": "discrete_law forward_autocorrelation path_autocorrelation_discrete",
    "theory.predictions": "ClassStructure class_structure excess_entropy excess_entropy_crossing information_integral",
    "theory.two_modes": "TwoGaussians retention_signal_to_noise",
    "uturn.classifier": "FittedClassifier cross_validated_accuracy make_classifier nearest_accuracy typical_nearest_distance",
    "uturn.reference": "Reference",
}
RENAMED = {
    "banded": "with_bands",
    "controlled": "with_control_variate",
    "evenly": "evenly_spaced",
    "no_speciation": "why_no_speciation",
    "undefine": "mask_undefined",
}
REORDERED = {  # earlier argument order, still valid under the earlier name
    "class_times": "noise_to_signal outcomes labels classes level resample chance",
    "excess_entropy": "noise_to_signal eigenvalues kl count",
    "excess_entropy_crossing": "noise_to_signal excess error",
    "falls_through": "noise_to_signal curve level",
    "information_integral": "noise_to_signal excess",
    "share_time": "noise_to_signal curve replicates level confidence",
}


def earlier(name: str) -> Any:
    """Return the object that an earlier name refers to.

    Raises AttributeError for any other name.
    """
    room = next((room for room, names in HOMES.items() if name in names.split()), None)
    if room is None:
        raise AttributeError(f"module 'gaussian_test.analysis' has no attribute {name!r}")
    now, order = RENAMED.get(name, name), REORDERED.get(name)
    place = f"gaussian_test.analysis.{room}"
    said = "" if order is None else ", where noise_to_signal comes after the data"
    warnings.warn(f"gaussian_test.analysis.{name} is deprecated: import {now} from {place}{said}", DeprecationWarning, stacklevel=3)
    found = getattr(importlib.import_module(place), now)
    if order is None:
        return found

    @functools.wraps(found)
    def in_earlier_order(*arguments: Any, **named: Any) -> Any:
        return found(**dict(zip(order.split(), arguments, strict=False)), **named)

    return in_earlier_order
