from .networks.adapters import Network as Network, NumericSchedule as NumericSchedule
from .networks.diffusers_models import alphas_cumprod_of as alphas_cumprod_of
from .networks.libraries import NetworkOptions as NetworkOptions
from .networks.micro_batch import fastest_micro_batch as fastest_micro_batch
from .networks.network import NetworkScore as NetworkScore
from .networks.prediction import NetworkError as NetworkError, out_of_memory as out_of_memory, to_denoised as to_denoised
from .networks.residual_denoiser import ResidualDenoiser as ResidualDenoiser
from .noise import KeyedNoise as KeyedNoise, Noise as Noise
from .process import (
    Process as Process,
    Schedule as Schedule,
    edm_levels as edm_levels,
    log_levels as log_levels,
    process_grid as process_grid,
    reverse_grid as reverse_grid,
)
from .processes import (
    Cosine as Cosine,
    DiscreteVP as DiscreteVP,
    OrnsteinUhlenbeck as OrnsteinUhlenbeck,
    Rectified as Rectified,
    VarianceExploding as VarianceExploding,
    VariancePreserving as VariancePreserving,
)
from .reverse import (
    Ancestral as Ancestral,
    EDMStochastic as EDMStochastic,
    ExactReversal as ExactReversal,
    ProbabilityFlow as ProbabilityFlow,
    ReverseKernel as ReverseKernel,
    ReverseSDE as ReverseSDE,
    bridge as bridge,
)
from .scores.empirical import EmpiricalScore as EmpiricalScore
from .scores.gaussian import GaussianComponents as GaussianComponents, MixtureScore as MixtureScore, eigen_factors as eigen_factors
from .scores.score import Evaluated as Evaluated, ModalForm as ModalForm, Score as Score
from .scores.store import ByteSamples as ByteSamples, ResidentSamples as ResidentSamples, StreamedSamples as StreamedSamples
from .uturn import State as State, UTurnPlan as UTurnPlan
