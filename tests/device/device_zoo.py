"""What the device laws are shown for: every score, every kernel, some processes, both types; and one run, on either device.

A new score joins with one line in ``SCORES``; every law then holds it to account with every kernel.
"""

from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch
from fake_device import NAME, FakeDevice
from torch import nn

from gaussian_test.analysis import GaussianScore, fit_moments
from gaussian_test.analysis.observables.sample_table import SampleTable
from gaussian_test.analysis.uturn.reference import Reference
from gaussian_test.sampler import (
    Ancestral,
    Cosine,
    DiscreteVP,
    EDMStochastic,
    EmpiricalScore,
    ExactReversal,
    MixtureScore,
    NetworkScore,
    ProbabilityFlow,
    ResidualDenoiser,
    ReverseSDE,
    Score,
    UTurnPlan,
    VarianceExploding,
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """On tensors this small, threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


EVENT, CLASSES = (1, 2, 2), 2
DATA = np.random.default_rng(1).normal(size=(24, *EVENT))
BYTES = np.rint((DATA + 6) * 20).astype(np.uint8)
CLASS = np.arange(24) % CLASSES
CHOSEN, REPEATS, STEPS = (5, 0, 17, 8, 3), 2, 4
ROWS = len(CHOSEN) * REPEATS
LEVELS = (0.15, 1.0, 6.0)  # noise-to-signal ratios at the turns
SPARE = 25  # states per call: two turn times of the rows above, so that groups are merged and cut


class TinyNetwork(Score):
    """A network with a score's face: takes the state in the data's units, the noise level and, where it has classes, the class."""

    def __init__(self, process, dtype, classes=0):
        super().__init__(process, EVENT)
        features = int(np.prod(EVENT))
        self.inner = nn.Linear(features + 1, 16, dtype=dtype)
        self.outer = nn.Linear(16, features, dtype=dtype)
        self.classes = nn.Embedding(classes, 16, dtype=dtype) if classes else None
        _random(self, dtype)

    def denoise(self, x, t, label=None):
        y, variance = self.signal(x, t)
        level = y.new_ones(len(y), 1) * (1 + variance).log()
        hidden = self.inner(torch.cat([y / (1 + variance).sqrt(), level], 1))
        if label is not None:
            hidden = hidden + self.classes(label)
        return self.outer(nn.functional.silu(hidden)).reshape(x.shape)


@dataclass(frozen=True)
class Zoo:
    """How to make a score, and whether it is given classes."""

    make: object  # (process, dtype) -> Score
    conditional: bool = False


def _mixture(process, dtype):
    groups = [DATA[k == CLASS].reshape(-1, 4) for k in range(CLASSES)]
    means, covariances = np.stack([g.mean(0) for g in groups]), np.stack([np.cov(g.T) for g in groups])
    return MixtureScore.from_moments([1, 2], means.reshape(-1, *EVENT), covariances, None, process, dtype)


def _few(process, dtype):
    """Fewer samples than features: the directions without data are left out of the factors."""
    return GaussianScore.fit(DATA[:3], process=process, dtype=dtype)


def _random(network, dtype):
    """Give a network weights of its own, the same in both types but for rounding."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 4)
    return network.to(dtype)


class TimedNetwork(nn.Module):
    """A plain network of state and time, as people have them."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 1, 3, padding=1))

    def forward(self, x, t, label):
        return self.layers(torch.cat([x, t.log1p().reshape(-1, 1, 1, 1).expand_as(x)], 1))


def _network_score(process, dtype, prediction, trained, **options):
    network = _random(TimedNetwork(), dtype)
    return NetworkScore.from_callable(network, EVENT, process, prediction=prediction, trained=trained, **options)


def _residual(process, dtype, **options):
    small = {"width": 8, "hidden": 8, "blocks": 1, "embedding": 4, "sigma_min": 1e-4, "sigma_max": 1e4}
    network = ResidualDenoiser(img_channels=1, img_resolution=2, label_dim=CLASSES, **small)
    return NetworkScore.from_edm(_random(network, dtype), process, **options)


SCORES = {
    "empirical": Zoo(lambda process, dtype: EmpiricalScore.fit(DATA, None, process, dtype)),
    "empirical_class": Zoo(lambda process, dtype: EmpiricalScore.fit(DATA, CLASS, process, dtype), conditional=True),
    "empirical_bytes": Zoo(lambda process, dtype: EmpiricalScore.fit(BYTES, None, process, dtype, scaling=(0.05, -6.0))),
    "mixture": Zoo(_mixture),
    "mixture_class": Zoo(_mixture, conditional=True),
    "gaussian": Zoo(lambda process, dtype: GaussianScore.fit(DATA, process=process, dtype=dtype)),
    "gaussian_few": Zoo(_few),
    "gaussian_class": Zoo(lambda process, dtype: GaussianScore.fit(DATA, CLASS, process=process, dtype=dtype), conditional=True),
    "network": Zoo(TinyNetwork),
    "network_class": Zoo(lambda process, dtype: TinyNetwork(process, dtype, CLASSES), conditional=True),
    "network_score": Zoo(lambda process, dtype: _network_score(process, dtype, "epsilon", Cosine(), micro_batch=7)),
    "network_score_channels_last": Zoo(lambda process, dtype: _network_score(process, dtype, "x0", None, channels_last=True)),
    "network_score_guided": Zoo(lambda process, dtype: _residual(process, dtype, guidance=1.5, conditional=True), conditional=True),
}
KERNELS = {
    "exact": lambda steps: ExactReversal(),
    "sde": lambda steps: ReverseSDE(),
    "sde_variance": lambda steps: ReverseSDE(clock="variance"),
    "sde_exponential": lambda steps: ReverseSDE("exponential"),
    "euler": lambda steps: ProbabilityFlow("euler"),
    "heun": lambda steps: ProbabilityFlow("heun"),
    "edm": lambda steps: EDMStochastic(steps, S_churn=3.0, S_noise=1.003),
    "ancestral": lambda steps: Ancestral(),
}
PROCESSES = {
    "variance_exploding": VarianceExploding,
    "cosine": Cosine,
    "discrete_vp": lambda: DiscreteVP(np.cumprod(1 - np.linspace(1e-4, 0.2, 60))),
}
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@cache
def has_posterior(name):
    return SCORES[name].make(VarianceExploding(), torch.float32).has_posterior


PAIRS = [(score, kernel) for score in SCORES for kernel in KERNELS if kernel != "exact" or has_posterior(score)]
SETTINGS = (("variance_exploding", "float32"), ("cosine", "float64"), ("discrete_vp", "float32"))
CASES = [(*pair, *setting) for pair in PAIRS for setting in SETTINGS]


@dataclass
class Run:
    """What a run gave: states and table, the events until the table is asked for, those of asking, and how much was computed."""

    states: list
    table: object
    log: list
    fetched: list
    operations: int
    plan: UTurnPlan


def simulate(score, kernel, process, dtype, on_device, conditional=False, steps=STEPS, spare=SPARE, path=True):
    """Run U-Turns as the runner does, all states kept, on the device or on the CPU."""
    place = torch.device(NAME if on_device else "cpu")
    device = FakeDevice()
    plan = UTurnPlan(
        process, [process.turn_time_from_noise_to_signal(nu) for nu in LEVELS], steps, REPEATS, seed=4, micro_batch=spare
    )
    with torch.inference_mode(), device if on_device else nullcontext():
        score = score.to(place)
        reference = Reference(
            EmpiricalScore.fit(DATA, None, process, dtype).to(place),
            fit_moments(DATA),
            GaussianScore.fit(DATA, process=process, dtype=dtype).to(place),
            CLASS,
        )
        x0 = torch.from_numpy(DATA[list(CHOSEN)]).to(place, dtype)
        labels = {"it": torch.from_numpy(CLASS[list(CHOSEN)]).to(place)} if conditional else {}
        table = SampleTable(plan, {"it": score}, reference, x0, CHOSEN, labels)
        device.forget()
        states = []
        for state in plan.run(x0, CHOSEN, {"it": score}, {"it": kernel}, labels, path):
            table.observe(state)
            states.append(state)
        log, operations = device.log, device.operations.total()
        device.forget()
        dataset = table.to_dataset()
    return Run(states, dataset, log, device.log, operations, plan)


@cache
def both(score, kernel, process, dtype):
    """Return a case's run on the CPU and its run on the device."""
    case, dtype = SCORES[score], DTYPES[dtype]
    runs = []
    for on_device in (False, True):
        made = PROCESSES[process]()
        runs.append(simulate(case.make(made, dtype), KERNELS[kernel](STEPS), made, dtype, on_device, case.conditional))
    return runs
