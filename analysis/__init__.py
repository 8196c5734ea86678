"""Everything computed from samples: moments, the affine Gaussian score, auto-correlations, tests, times and figures."""

from gaussian_test.analysis.affine_uturns import affine_uturns
from gaussian_test.analysis.affinity import (
    affinity,
    best_affine_gap,
    class_mixture,
    explained_share,
    isotropic_score,
    mixture_of_classes,
)
from gaussian_test.analysis.autocorrelation import autocorrelation, two_time
from gaussian_test.analysis.banded import banded, ratio_of_means
from gaussian_test.analysis.best_affine import AffineFit, affine_features, best_affine
from gaussian_test.analysis.bootstrap import Band, ClusterBootstrap, controlled
from gaussian_test.analysis.chains import (
    chain_autocorrelation,
    chain_autocorrelation_gaussian,
    chain_products,
    chain_table,
    class_persistence,
    integrated_time,
    integrated_time_gaussian,
)
from gaussian_test.analysis.change_field import (
    change_field,
    correlation_length,
    radial_correlation,
    susceptibility,
    susceptibility_gaussian,
)
from gaussian_test.analysis.classifier import FittedClassifier, cross_validated_accuracy, make_classifier, nearest_accuracy
from gaussian_test.analysis.closed_form import (
    autocorrelation_discrete,
    autocorrelation_exact,
    discrete_law,
    forward_autocorrelation,
    mode_autocorrelation,
    path_autocorrelation,
    path_autocorrelation_discrete,
)
from gaussian_test.analysis.curves import GroundTruth, Statistics, gaussian_test, no_speciation
from gaussian_test.analysis.distances import Distance, Population, frechet, frechet_between, null_distance
from gaussian_test.analysis.estimator import StreamingCovariance
from gaussian_test.analysis.exchange import Symmetry, antisymmetric, class_symmetry, energy_symmetry, exchange_tests
from gaussian_test.analysis.gaussian_score import GaussianScore, class_moments, stack_components
from gaussian_test.analysis.information import divergence, information_integral, kl_from_gaussian
from gaussian_test.analysis.kernel_distance import kid, kid_between
from gaussian_test.analysis.lilliefors import KSTest, ks_distance, ks_null, ks_pvalue, ks_test
from gaussian_test.analysis.moments import (
    Moments,
    evenly,
    event_dims,
    fit_moments,
    spectrum,
    whole_spectrum,
)
from gaussian_test.analysis.normality import kolmogorov_smirnov, ks_dataset
from gaussian_test.analysis.path_statistics import path_statistics
from gaussian_test.analysis.predictions import (
    ClassStructure,
    class_structure,
    excess_entropy,
    excess_entropy_crossing,
    predicted_memorization_within_class,
    predicted_speciation_within_class,
)
from gaussian_test.analysis.quality import principal_features, sample_quality, start_sensitivity
from gaussian_test.analysis.running_moments import RunningMoments
from gaussian_test.analysis.sample_table import Reference, SampleTable, path_table, picture_table
from gaussian_test.analysis.sample_times import class_times, path_time, sample_time, sample_times, self_averaging
from gaussian_test.analysis.sampler_law import sampler_law, sampler_study
from gaussian_test.analysis.score_norm import score_norm_gaussian, score_norms, score_square_gaussian
from gaussian_test.analysis.starts import typical_nearest_distance, undefine
from gaussian_test.analysis.third_cumulant import third_cumulant_norm
from gaussian_test.analysis.times import (
    Crossing,
    affine_time,
    falls_through,
    predicted_affine,
    predicted_memorization,
    predicted_speciation,
    share_time,
)
from gaussian_test.analysis.two_gaussians import TwoGaussians, retention_signal_to_noise, two_gaussians

__all__ = [
    "AffineFit",
    "Band",
    "ClassStructure",
    "ClusterBootstrap",
    "Crossing",
    "Distance",
    "FittedClassifier",
    "GaussianScore",
    "GroundTruth",
    "KSTest",
    "Moments",
    "Population",
    "Reference",
    "RunningMoments",
    "SampleTable",
    "Statistics",
    "StreamingCovariance",
    "Symmetry",
    "TwoGaussians",
    "affine_features",
    "affine_time",
    "affine_uturns",
    "affinity",
    "antisymmetric",
    "autocorrelation",
    "autocorrelation_discrete",
    "autocorrelation_exact",
    "banded",
    "best_affine",
    "best_affine_gap",
    "chain_autocorrelation",
    "chain_autocorrelation_gaussian",
    "chain_products",
    "chain_table",
    "change_field",
    "class_mixture",
    "class_moments",
    "class_persistence",
    "class_structure",
    "class_symmetry",
    "class_times",
    "controlled",
    "correlation_length",
    "cross_validated_accuracy",
    "discrete_law",
    "divergence",
    "energy_symmetry",
    "evenly",
    "event_dims",
    "excess_entropy",
    "excess_entropy_crossing",
    "exchange_tests",
    "explained_share",
    "falls_through",
    "fit_moments",
    "forward_autocorrelation",
    "frechet",
    "frechet_between",
    "gaussian_test",
    "information_integral",
    "integrated_time",
    "integrated_time_gaussian",
    "isotropic_score",
    "kid",
    "kid_between",
    "kl_from_gaussian",
    "kolmogorov_smirnov",
    "ks_dataset",
    "ks_distance",
    "ks_null",
    "ks_pvalue",
    "ks_test",
    "make_classifier",
    "mixture_of_classes",
    "mode_autocorrelation",
    "nearest_accuracy",
    "no_speciation",
    "null_distance",
    "path_autocorrelation",
    "path_autocorrelation_discrete",
    "path_statistics",
    "path_table",
    "path_time",
    "picture_table",
    "predicted_affine",
    "predicted_memorization",
    "predicted_memorization_within_class",
    "predicted_speciation",
    "predicted_speciation_within_class",
    "principal_features",
    "radial_correlation",
    "ratio_of_means",
    "retention_signal_to_noise",
    "sample_quality",
    "sample_time",
    "sample_times",
    "sampler_law",
    "sampler_study",
    "score_norm_gaussian",
    "score_norms",
    "score_square_gaussian",
    "self_averaging",
    "share_time",
    "spectrum",
    "stack_components",
    "start_sensitivity",
    "susceptibility",
    "susceptibility_gaussian",
    "third_cumulant_norm",
    "two_gaussians",
    "two_time",
    "typical_nearest_distance",
    "undefine",
    "whole_spectrum",
]
