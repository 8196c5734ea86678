"""Everything that moves samples through noise and back: tensors in, tensors out, on any device."""

from gaussian_test.sampler.adapters import Network, NumericSchedule, alphas_cumprod_of
from gaussian_test.sampler.empirical import EmpiricalScore
from gaussian_test.sampler.failures import NetworkError, out_of_memory
from gaussian_test.sampler.gaussian import GaussianComponents, eigen_factors
from gaussian_test.sampler.grid import edm_levels, log_levels, process_grid, reverse_grid
from gaussian_test.sampler.micro_batch import fastest_micro_batch
from gaussian_test.sampler.mixture import MixtureScore
from gaussian_test.sampler.network import NetworkOptions, NetworkScore
from gaussian_test.sampler.noise import KeyedNoise, Noise
from gaussian_test.sampler.prediction import to_denoised
from gaussian_test.sampler.process import Process, Schedule
from gaussian_test.sampler.processes import (
    Cosine,
    DiscreteVP,
    OrnsteinUhlenbeck,
    Rectified,
    VarianceExploding,
    VariancePreserving,
)
from gaussian_test.sampler.residual_denoiser import ResidualDenoiser
from gaussian_test.sampler.reverse import (
    Ancestral,
    EDMStochastic,
    ExactReversal,
    ProbabilityFlow,
    ReverseKernel,
    ReverseSDE,
    bridge,
)
from gaussian_test.sampler.score import ModalForm, Score
from gaussian_test.sampler.store import ByteSamples, ResidentSamples, StreamedSamples
from gaussian_test.sampler.uturn import State, UTurnPlan

__all__ = [
    "Ancestral",
    "ByteSamples",
    "Cosine",
    "DiscreteVP",
    "EDMStochastic",
    "EmpiricalScore",
    "ExactReversal",
    "GaussianComponents",
    "KeyedNoise",
    "MixtureScore",
    "ModalForm",
    "Network",
    "NetworkError",
    "NetworkOptions",
    "NetworkScore",
    "Noise",
    "NumericSchedule",
    "OrnsteinUhlenbeck",
    "ProbabilityFlow",
    "Process",
    "Rectified",
    "ResidentSamples",
    "ResidualDenoiser",
    "ReverseKernel",
    "ReverseSDE",
    "Schedule",
    "Score",
    "State",
    "StreamedSamples",
    "UTurnPlan",
    "VarianceExploding",
    "VariancePreserving",
    "alphas_cumprod_of",
    "bridge",
    "edm_levels",
    "eigen_factors",
    "fastest_micro_batch",
    "log_levels",
    "out_of_memory",
    "process_grid",
    "reverse_grid",
    "to_denoised",
]
