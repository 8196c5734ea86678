"""The suites of laws: every object of the project passes, and of each law a small spoiled object is caught by its name."""

import functools
import itertools

import numpy as np
import pytest
import sampler_zoo as zoo
import torch

import gaussian_test as gt
from gaussian_test import conformance, sampler
from gaussian_test.sampler.reverse import flow_step

VE = sampler.VarianceExploding
ORDERS = dict.fromkeys(zoo.KERNELS, 1) | {"heun": 2, "edm": 2}


# -- what passes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", zoo.PROCESSES)
def test_every_process_of_the_project_passes(name):
    conformance.check_process(zoo.PROCESSES[name]())


@pytest.mark.parametrize("levels", [[0.9, 0.5, 0.1], np.linspace(0.99, 0.01, 10)])
def test_few_discrete_levels_pass(levels):
    conformance.check_process(sampler.DiscreteVP(levels))
    conformance.check_kernel(sampler.Ancestral(), sampler.DiscreteVP(levels))


@pytest.mark.parametrize(
    ("name", "process"), [*((name, None) for name in ORDERS), *zip(itertools.cycle(ORDERS), zoo.PROCESSES, strict=False)]
)
def test_every_kernel_of_the_project_passes_at_its_order(name, process):
    """In the default process, and each process with one kernel; tests/sampler has their product."""
    conformance.check_kernel(zoo.KERNELS[name](), None if process is None else zoo.PROCESSES[process](), ORDERS[name])


@pytest.mark.parametrize(("process", "dtype"), [("variance_exploding", torch.float32), ("cosine", torch.float64)])
@pytest.mark.parametrize("name", zoo.SCORES)
def test_every_exact_score_of_the_project_passes(name, process, dtype):
    case, process = zoo.SCORES[name](), zoo.PROCESSES[process]()
    weights = case.truth.weights / case.truth.weights.sum()
    mean = weights @ case.truth.means
    offset = case.truth.means - mean
    covariance = (weights[:, None, None] * (case.truth.covariances + offset[:, :, None] * offset[:, None])).sum(0)
    spread = float(torch.linalg.eigvalsh(covariance)[-1].clamp(min=1e-3).sqrt())

    def log_density(x, t):
        alpha, sigma = process.alpha(t), process.sigma(t)
        return torch.stack([case.truth.log_density(row.double().flatten(), alpha, sigma) for row in x])

    for conditional in case.modes_of_use:
        given = {"classes": case.classes} if conditional else {"mean": mean.reshape(case.event), "log_density": log_density}
        conformance.check_score(case.make(process, dtype), spread=spread, draws=1000, **given)


def test_the_network_of_the_project_passes():
    from gaussian_test.build.networks import Opening, open_network
    from gaussian_test.experiment.scores import Network

    score, _ = open_network(Network(kind="network"), Opening((1, 8, 8), VE(), {}))
    mean = torch.from_numpy(gt.analysis.fit_moments(gt.data.load("digits").x).mean).float()
    # a network is one on the noise levels that it was trained for
    conformance.check_score(score, mean=mean.reshape(1, 8, 8), spread=2.0, levels=[0.05, 1.0, 70.0])


def test_what_a_suite_looks_at_is_left_as_it_was():
    class Dropping(torch.nn.Module):
        def forward(self, x, t, label):
            return torch.nn.functional.dropout(x, 0.5, self.training) / 2

    score = sampler.NetworkScore.from_callable(Dropping(), (3,), VE())
    state = torch.get_rng_state()
    score.train()
    conformance.check_score(score)
    assert score.training
    assert torch.equal(torch.get_rng_state(), state)


# -- spoiled processes ---------------------------------------------------------------------------------------------------------


def spoiled(base, method, change):
    """Return a class whose method is `change(genuine method, *arguments)`."""

    def changed(self, *arguments):
        return change(functools.partial(getattr(base, method), self), *arguments)

    return type("Spoiled", (base,), {method: changed})


PROCESSES = {
    "number": (VE, "g2", lambda g2, t: g2(t).float()),
    "batch": (VE, "g2", lambda g2, t: g2(t).mean().expand_as(g2(t))),
    "clean": (VE, "sigma", lambda sigma, t: sigma(t) + 0.001),
    "ratio": (VE, "noise_to_signal", lambda ratio, t: 2 * ratio(t)),
    "rise": (VE, "sigma", lambda sigma, t: torch.where(sigma(t) < 60, sigma(t), 120 - sigma(t))),
    "inverse": (VE, "time", lambda time, ratio: 1.01 * time(ratio)),
    "level": (VE, "level", lambda level, t: max(0.9 * t, 0.002)),
    "drift": (sampler.Cosine, "f", lambda f, t: 1.001 * f(t)),
    "diffusion": (sampler.Rectified, "g2", lambda g2, t: 1.001 * g2(t)),
    "weight": (sampler.Rectified, "integrated_score_weight", lambda weight, s, t: 1.001 * weight(s, t)),
    "transition": (VE, "transition", lambda transition, s, t: (transition(s, t)[0], 1.001 * transition(s, t)[1])),
    "noised": (VE, "noised", lambda noised, x, t, noise, s=0.0: noised(x, t, 1.001 * noise, s)),
}


def broken(law, check):
    """Return the sentence with which a suite names the law that is broken."""
    with pytest.raises(conformance.ConformanceError) as error:
        check()
    assert isinstance(error.value, AssertionError)  # which pytest understands
    assert error.value.law == law
    assert repr(law) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("law", conformance.PROCESS_LAWS)
def test_a_process_that_breaks_a_law_is_caught_by_its_name(law):
    assert "Spoiled" in broken(law, lambda: conformance.check_process(spoiled(*PROCESSES[law])()))


# -- spoiled scores ------------------------------------------------------------------------------------------------------------

POINTS = zoo.normal(12, 3, seed=1)


class Points(sampler.EmpiricalScore):
    def __init__(self):
        super().__init__(POINTS, torch.arange(12) % 2)


def log_density(x, t):
    distance = (x.unsqueeze(1) - POINTS).square().sum(2)
    return (-distance / (2 * t**2)).logsumexp(1)


def writing(denoise, x, t, label=None):
    found = denoise(x, t, label)
    x += 1e-3
    return found


def by_chance(posterior, x, t, noise, label=None):
    return posterior(x, t, sampler.Noise(noise.normal, torch.rand(len(x)).double()), label)


def shuffled(posterior, x, t, noise, label=None):
    return posterior(x, t, sampler.Noise(noise.normal, noise.uniform.flip(0)), label)


def wide(posterior, x, t, noise, label=None):
    denoised = Points().denoise(x, t, label)
    return denoised + 1.2 * (posterior(x, t, noise, label) - denoised)


CALLS = itertools.count(1)
SCORES = [
    ("states", "denoise", lambda denoise, *given: denoise(*given).float(), {}),
    ("states", "denoise", lambda denoise, x, t, *label: denoise(x, t, *label) / float(torch.as_tensor(t).max() < 70), {}),
    ("pure", "denoise", lambda denoise, *given: denoise(*given) + 1e-6 * next(CALLS), {}),
    ("pure", "denoise", writing, {}),
    ("pure", "denoise", lambda denoise, *given: denoise(*given) + 0 * torch.randn(3), {}),
    ("rows", "denoise", lambda denoise, x, *given: denoise(x, *given) - 1e-3 * x.mean(0), {}),
    ("rows", "denoise", lambda denoise, x, t, *label: denoise(x, torch.as_tensor(t).double().mean(), *label), {}),
    ("class", "denoise", lambda denoise, x, t, label=None: denoise(x, t), {"classes": 2}),
    ("tweedie", "forward", lambda forward, *given: 1.001 * forward(*given), {}),
    ("gradient", "denoise", lambda denoise, *given: 1.01 * denoise(*given), {"log_density": log_density}),
    ("mean", "denoise", lambda denoise, *given: denoise(*given), {"mean": POINTS.mean(0) + 0.5}),
    ("draws", "posterior", by_chance, {}),
    ("draws", "posterior", shuffled, {}),
    ("posterior", "posterior", lambda posterior, *given: posterior(*given) + 0.2, {}),
    ("spread", "posterior", wide, {}),
]


@pytest.mark.parametrize(("law", "method", "change", "given"), SCORES)
def test_a_score_that_breaks_a_law_is_caught_by_its_name(law, method, change, given):
    conformance.check_score(Points(), **({} if law == "mean" else given))  # what is spoiled is the object, not the check
    assert "Spoiled" in broken(law, lambda: conformance.check_score(spoiled(Points, method, change)(), **given))


# -- spoiled kernels -----------------------------------------------------------------------------------------------------------


class Kernel(sampler.ReverseSDE):
    """The reverse SDE in the variance clock, to be spoiled."""

    def __init__(self):
        super().__init__(clock="variance")


class Silent(Kernel):
    @property
    def uses_noise(self):
        return False


class Thresholding(sampler.ReverseKernel):
    def step(self, score, x, t, s, noise, label=None):
        denoised = score.denoise(x, t, label).clamp(-1, 1)
        return sampler.bridge(score.process, x, denoised, t, s, noise.normal)


class Restless(Kernel):
    """Twice the noise and as much more of the score: the same marginals, another correlation."""

    def step(self, score, x, t, s, noise, label=None):
        process = score.process
        alpha_s, alpha_t = process.alpha(s), process.alpha(t)
        fallen = process.noise_to_signal(t) ** 2 - process.noise_to_signal(s) ** 2
        drift = 2.5 * alpha_s * alpha_t * fallen * score(x, t, label)
        return alpha_s / alpha_t * x + drift + 2 * alpha_s * fallen.sqrt() * noise.normal


class Unnamed(Restless):
    @property
    def flow(self):
        return None


def loud(step, score, x, t, s, noise, label=None):
    return step(score, x, t, s, noise._replace(normal=1.1 * noise.normal), label)


def dithering(step, score, x, t, s, noise, label=None):
    rows = noise.uniform.to(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))
    return step(score, x, t, s, noise, label) + 0.1 * rows


def striped(step, score, x, t, s, noise, label=None):
    stripes = torch.linspace(0.9, 1.1, x.shape[-1], dtype=x.dtype)
    return step(score, x, t, s, noise._replace(normal=stripes * noise.normal), label)


def asking(time):
    """Return a step that evaluates the score at another time too."""

    def step(genuine, score, x, t, s, noise, label=None):
        score.denoise(x, time(t, s, score.process), label)
        return genuine(score, x, t, s, noise, label)

    return step


def with_step(change):
    return spoiled(Kernel, "step", change)


MUTANTS = [
    ("states", with_step(lambda step, *given: step(*given).double())),
    ("states", with_step(lambda step, score, x, *given: x.copy_(step(score, x, *given)))),
    ("pure", with_step(lambda step, *given: step(*given) + 1e-6 * next(CALLS))),
    ("pure", with_step(lambda step, score, x, *given: step(score, x, *given) + 0 * torch.randn(x.shape, dtype=x.dtype))),
    ("rows", with_step(lambda step, score, x, *given: step(score, x, *given) + 1e-2 * x.mean(0))),
    ("class", with_step(lambda step, score, x, t, s, noise, label=None: step(score, x, t, s, noise))),
    ("noise", Silent),
    ("noise", with_step(lambda step, score, x, t, s, noise, label=None: flow_step(score, x, t, s, label, second_order=False))),
    ("times", with_step(asking(lambda t, s, process: s))),
    ("times", with_step(asking(lambda t, s, process: min(1.5 * t, 2 * process.time_max)))),
    ("affine", Thresholding),
    ("affine", with_step(dithering)),
    ("rotation", with_step(striped)),
    ("marginal", with_step(loud)),
    ("flow", Restless),
    ("order", sampler.ProbabilityFlow),
]


@pytest.mark.parametrize(("law", "make"), MUTANTS)
def test_a_kernel_that_breaks_a_law_is_caught_by_its_name(law, make):
    order = 3 if law == "order" else 1  # Heun's is 2
    assert make.__name__ in broken(law, lambda: conformance.check_kernel(make(), order=order))


def test_what_is_spoiled_is_the_kernel():
    conformance.check_kernel(Kernel())
    conformance.check_kernel(Unnamed())  # a kernel that names no law in continuous time is held against none


# -- spoiled observables -------------------------------------------------------------------------------------------------------


def _number(start, end):
    return (end - start).flatten(1).square().mean(1)


DRAWS = np.random.default_rng(0)
OBSERVABLES = [
    ("number", lambda start, end: _number(start, end)[:, None]),
    ("number", lambda start, end: _number(start, end).mean()),
    ("number", lambda start, end: _number(start, end).tolist()),
    ("number", lambda start, end: _number(start, end) * torch.nan),
    ("inputs", lambda start, end: _number(start, end.mul_(2))),
    ("again", lambda start, end: _number(start, end) + torch.rand(len(end))),
    ("again", lambda start, end: _number(start, end).numpy() + DRAWS.uniform()),
    ("order", lambda start, end: _number(start, end).cumsum(0)),
    ("size", lambda start, end: _number(start, end) / _number(start, end).sum()),
]


@pytest.mark.parametrize(("law", "function"), OBSERVABLES)
def test_an_observable_that_breaks_a_law_is_caught_by_its_name(law, function):
    broken(law, lambda: conformance.check_observable(function, (1, 4, 4)))


def test_what_is_spoiled_is_the_observable():
    conformance.check_observable(_number, (1, 4, 4))
    conformance.check_observable(lambda start, end: _number(start, end).double().numpy(), (5,))


def test_every_law_has_a_spoiled_object():
    for kind, spoils in (("SCORE", SCORES), ("KERNEL", MUTANTS), ("OBSERVABLE", OBSERVABLES)):
        assert {law for law, *_ in spoils} == set(getattr(conformance, f"{kind}_LAWS"))
