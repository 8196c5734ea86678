"""Everything computed from samples: moments, the affine Gaussian score, auto-correlations, tests, times and figures."""

from gaussian_test.analysis.autocorrelation import autocorrelation, two_time
from gaussian_test.analysis.bootstrap import Band, ClusterBootstrap, controlled
from gaussian_test.analysis.closed_form import (
    autocorrelation_discrete,
    autocorrelation_exact,
    discrete_law,
    end_square_discrete,
    forward_autocorrelation,
    mode_autocorrelation,
    path_autocorrelation,
    path_autocorrelation_discrete,
)
from gaussian_test.analysis.curves import GroundTruth, Statistics, gaussian_test, kl_from_gaussian
from gaussian_test.analysis.estimator import StreamingCovariance
from gaussian_test.analysis.gaussian_score import GaussianScore, class_moments, stack_components
from gaussian_test.analysis.moments import Moments, RunningMoments, fit_moments, third_cumulant_norm
from gaussian_test.analysis.sample_table import Reference, SampleTable, path_table, picture_table
from gaussian_test.analysis.starts import typical_nearest_distance, undefine
from gaussian_test.analysis.times import (
    Crossing,
    affine_time,
    falls_through,
    predicted_affine,
    predicted_memorization,
    predicted_speciation,
    share_time,
)

__all__ = [
    "Band",
    "ClusterBootstrap",
    "Crossing",
    "GaussianScore",
    "GroundTruth",
    "Moments",
    "Reference",
    "RunningMoments",
    "SampleTable",
    "Statistics",
    "StreamingCovariance",
    "affine_time",
    "autocorrelation",
    "autocorrelation_discrete",
    "autocorrelation_exact",
    "class_moments",
    "controlled",
    "discrete_law",
    "end_square_discrete",
    "falls_through",
    "fit_moments",
    "forward_autocorrelation",
    "gaussian_test",
    "kl_from_gaussian",
    "mode_autocorrelation",
    "path_autocorrelation",
    "path_autocorrelation_discrete",
    "path_table",
    "picture_table",
    "predicted_affine",
    "predicted_memorization",
    "predicted_speciation",
    "share_time",
    "stack_components",
    "third_cumulant_norm",
    "two_time",
    "typical_nearest_distance",
    "undefine",
]
