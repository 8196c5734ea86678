from .declarations import Statistics as Statistics, no_speciation as no_speciation, reasons_of as reasons_of, undefine as undefine
from .moments.estimator import StreamingCovariance as StreamingCovariance
from .moments.gaussian_score import (
    GaussianScore as GaussianScore,
    class_mixture as class_mixture,
    isotropic_score as isotropic_score,
    mixture_of_classes as mixture_of_classes,
    stack_components as stack_components,
)
from .moments.moments import (
    Moments as Moments,
    class_moments as class_moments,
    evenly as evenly,
    event_dims as event_dims,
    fit_moments as fit_moments,
    spectrum as spectrum,
    whole_spectrum as whole_spectrum,
)
from .moments.running import RunningMoments as RunningMoments, third_cumulant_norm as third_cumulant_norm
from .observables.affinity.affinity import (
    affinity as affinity,
    best_affine_gap as best_affine_gap,
    explained_share as explained_share,
    score_norm_gaussian as score_norm_gaussian,
    score_norms as score_norms,
    score_square_gaussian as score_square_gaussian,
)
from .observables.affinity.best_affine import AffineFit as AffineFit, affine_features as affine_features, best_affine as best_affine
from .observables.balance.change_field import (
    change_field as change_field,
    correlation_length as correlation_length,
    radial_correlation as radial_correlation,
    susceptibility as susceptibility,
    susceptibility_gaussian as susceptibility_gaussian,
)
from .observables.balance.exchange import (
    Symmetry as Symmetry,
    antisymmetric as antisymmetric,
    class_symmetry as class_symmetry,
    energy_symmetry as energy_symmetry,
    exchange_tests as exchange_tests,
)
from .observables.chains.chains import (
    chain_autocorrelation as chain_autocorrelation,
    chain_autocorrelation_gaussian as chain_autocorrelation_gaussian,
    chain_products as chain_products,
    chain_table as chain_table,
    class_persistence as class_persistence,
    integrated_time as integrated_time,
    integrated_time_gaussian as integrated_time_gaussian,
)
from .observables.gaussian_test.curves import divergence as divergence, gaussian_test as gaussian_test
from .observables.normality.lilliefors import (
    KSTest as KSTest,
    ks_distance as ks_distance,
    ks_null as ks_null,
    ks_pvalue as ks_pvalue,
    ks_test as ks_test,
)
from .observables.normality.normality import kolmogorov_smirnov as kolmogorov_smirnov, ks_dataset as ks_dataset
from .observables.quality.distances import (
    Distance as Distance,
    Population as Population,
    frechet as frechet,
    frechet_between as frechet_between,
    null_distance as null_distance,
)
from .observables.quality.quality import (
    kid as kid,
    kid_between as kid_between,
    principal_features as principal_features,
    sample_quality as sample_quality,
    start_sensitivity as start_sensitivity,
)
from .observables.sample_table import SampleTable as SampleTable, path_table as path_table, picture_table as picture_table
from .observables.sample_times.sample_times import (
    class_times as class_times,
    path_time as path_time,
    sample_time as sample_time,
    sample_times as sample_times,
    self_averaging as self_averaging,
)
from .statistics.bootstrap import Band as Band, ClusterBootstrap as ClusterBootstrap, controlled as controlled
from .statistics.curves import (
    Crossing as Crossing,
    affine_time as affine_time,
    banded as banded,
    falls_through as falls_through,
    predicted_affine as predicted_affine,
    predicted_memorization as predicted_memorization,
    predicted_speciation as predicted_speciation,
    ratio_of_means as ratio_of_means,
    share_time as share_time,
)
from .theory.affine_uturns import affine_uturns as affine_uturns
from .theory.closed_form import (
    autocorrelation_discrete as autocorrelation_discrete,
    autocorrelation_exact as autocorrelation_exact,
    discrete_law as discrete_law,
    forward_autocorrelation as forward_autocorrelation,
    mode_autocorrelation as mode_autocorrelation,
    path_autocorrelation as path_autocorrelation,
    path_autocorrelation_discrete as path_autocorrelation_discrete,
)
from .theory.predictions import (
    ClassStructure as ClassStructure,
    class_structure as class_structure,
    excess_entropy as excess_entropy,
    excess_entropy_crossing as excess_entropy_crossing,
    information_integral as information_integral,
    kl_from_gaussian as kl_from_gaussian,
    predicted_memorization_within_class as predicted_memorization_within_class,
    predicted_speciation_within_class as predicted_speciation_within_class,
)
from .theory.sampler_law import sampler_law as sampler_law, sampler_study as sampler_study
from .theory.two_gaussians import (
    TwoGaussians as TwoGaussians,
    retention_signal_to_noise as retention_signal_to_noise,
    two_gaussians as two_gaussians,
)
from .uturn.autocorrelation import autocorrelation as autocorrelation, path_statistics as path_statistics, two_time as two_time
from .uturn.classifier import (
    FittedClassifier as FittedClassifier,
    cross_validated_accuracy as cross_validated_accuracy,
    make_classifier as make_classifier,
    nearest_accuracy as nearest_accuracy,
    typical_nearest_distance as typical_nearest_distance,
)
from .uturn.reference import GroundTruth as GroundTruth, Reference as Reference, ScoreFacts as ScoreFacts
