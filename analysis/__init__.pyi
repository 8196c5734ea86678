from .declarations import Statistics as Statistics, reasons_of as reasons_of
from .moments.estimator import StreamingCovariance as StreamingCovariance
from .moments.gaussian_score import (
    GaussianScore as GaussianScore,
    class_mixture as class_mixture,
    isotropic_score as isotropic_score,
)
from .moments.moments import Moments as Moments, class_moments as class_moments, fit_moments as fit_moments, spectrum as spectrum
from .moments.running import third_cumulant_norm as third_cumulant_norm
from .observables.affinity.regression import best_affine as best_affine
from .observables.affinity.scores import explained_share as explained_share
from .observables.balance.change import change_field as change_field, susceptibility as susceptibility
from .observables.balance.exchange import exchange_tests as exchange_tests
from .observables.chains.chains import chain_autocorrelation as chain_autocorrelation, integrated_time as integrated_time
from .observables.gaussian_test.curves import gaussian_test as gaussian_test
from .observables.normality.lilliefors import ks_test as ks_test
from .observables.normality.normality import kolmogorov_smirnov as kolmogorov_smirnov
from .observables.quality.distances import Population as Population, frechet as frechet
from .observables.quality.quality import kid as kid
from .observables.sample_times.times import path_time as path_time, sample_time as sample_time
from .statistics.bootstrap import Band as Band, ClusterBootstrap as ClusterBootstrap
from .statistics.curves import (
    affine_time as affine_time,
    predicted_affine as predicted_affine,
    predicted_memorization as predicted_memorization,
    predicted_speciation as predicted_speciation,
)
from .theory.closed_form import (
    autocorrelation_discrete as autocorrelation_discrete,
    autocorrelation_exact as autocorrelation_exact,
    mode_autocorrelation as mode_autocorrelation,
    path_autocorrelation as path_autocorrelation,
)
from .theory.pilot import pilot_levels as pilot_levels
from .theory.predictions import (
    predicted_memorization_within_class as predicted_memorization_within_class,
    predicted_speciation_within_class as predicted_speciation_within_class,
)
from .theory.samplers import sampler_law as sampler_law, sampler_study as sampler_study
from .theory.two_modes import two_gaussians as two_gaussians
from .uturn.correlations import autocorrelation as autocorrelation, path_statistics as path_statistics, two_time as two_time
from .uturn.reference import GroundTruth as GroundTruth, ScoreFacts as ScoreFacts
