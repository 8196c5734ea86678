r"""The laws of a reverse kernel."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from gaussian_test.analysis import GaussianScore
from gaussian_test.conformance.laws import Laws, draw, noise_for
from gaussian_test.sampler import Cosine, EmpiricalScore, Noise, Process, ReverseKernel, Score, VarianceExploding
from gaussian_test.sampler.defaults import undisturbed
from gaussian_test.sampler.noise import NO_NOISE

KERNEL_LAWS = {
    "states": "a step gives new, finite states in the shape and the type of those it is given",
    "pure": "the same state and noise give the same bits, whatever steps were taken between; nothing that it is given is changed",
    "rows": "a batch of states is each of them",
    "class": "the label reaches the score",
    "noise": "uses_noise is honest: where it says no, a step does not look at its noise, where it says yes, it does",
    "times": "the score is asked at times within the process, never at time 0, where there is no noise",
    "affine": "with an affine score a step is affine in state and noise, mode by mode, whatever the uniform variable",
    "rotation": "a step knows no direction: of a rotated state, noise and score it is the rotated step",
    "marginal": "small steps keep mean and variance of the Gaussian",
    "flow": "small steps have the correlation of the law that flow names",
    "order": "the end of a run converges at this order as steps are halved",
}
SPECTRUM = np.array([9.0, 1.0, 0.04, 0.0])
MEAN = np.array([0.5, -2.0, 1.0, 3.0])
STEPS = 32  # of the coarsest run in the convergence test


@undisturbed()
def check_kernel(kernel: ReverseKernel, process: Process | None = None, order: float | None = 1) -> None:
    r"""Raise unless a reverse kernel obeys the laws of reverse kernels.

    ``states``, ``pure``, ``rows``, ``class``, ``noise``, ``times``, ``affine``, ``rotation``, ``marginal``, ``flow``, ``order``:
    see :data:`KERNEL_LAWS`. The last three test the law in continuous time that ``kernel.flow`` names, if any. Results that must be
    identical are compared bit by bit, the rest to 1e-8. When a small step (2 % of :math:`\nu`) is halved, the errors of gain and
    mean have to fall to 0.3 (they are of second order), that of the variance to 0.6 of what it was per unit of time; over a run
    from :math:`\nu = 4` to 0.5 in 32, 64 and 128 steps, the error has to fall by :math:`2^{order - 0.2}` with each halving.
    Processes with discrete levels have no such run.

    Parameters
    ----------
    kernel : ReverseKernel
        The kernel. An exact one may use a second normal variable.
    process : Process, optional
        Default: :class:`VarianceExploding` and :class:`Cosine`.
    order : float, optional
        Order of convergence of the end points' moments in a run; None to skip this check.

    Returns
    -------
    None

    Raises
    ------
    ConformanceError
        At the first broken law.

    Examples
    --------
    >>> from gaussian_test.sampler import ProbabilityFlow
    >>> check_kernel(ProbabilityFlow("heun"), order=2)
    >>> check_kernel(ProbabilityFlow("euler"), order=2)
    Traceback (most recent call last):
    ...
    gaussian_test.conformance.laws.ConformanceError: kernel ProbabilityFlow(method='euler') breaks 'order' (the end of a run ...
    """
    laws = Laws("kernel", kernel, KERNEL_LAWS)
    for one in (VarianceExploding(), Cosine()) if process is None else (process,):
        steps = _steps(one)
        _check_calls(laws, kernel, one, steps)
        _check_classes(laws, kernel, one, steps)
        _check_noise(laws, kernel, one, steps)
        _check_times(laws, kernel, one)
        for t, s in steps:
            _check_affine(laws, kernel, one, t, s)
        if kernel.flow is not None:
            _check_small_steps(laws, kernel, one)
            if order is not None and not _is_discrete(one):
                _check_order(laws, kernel, one, order)


def _times(process: Process, levels: Sequence[float]) -> list[float]:
    """Return the levels of a process nearest to some noise-to-signal ratios, within its range."""
    low, high = (float(process.noise_to_signal(t)) for t in (process.time_min, process.time_max))
    inside = [process.turn_time_from_noise_to_signal(level) for level in levels if low < level < high]
    return inside or [process.time_max, process.time_min]


def _steps(process: Process) -> list[tuple[float, float]]:
    times = _times(process, [30.0, 20.0, 2.0, 0.5])
    return [*((t, s) for t, s in pairwise(times) if s < t), (times[-1], 0.0)]


def _is_discrete(process: Process) -> bool:
    middle = float(
        process.time(math.sqrt(float(process.noise_to_signal(process.time_min) * process.noise_to_signal(process.time_max))))
    )
    return process.level(middle + 1e-4 * middle) != middle + 1e-4 * middle


def _gaussian(process: Process) -> GaussianScore:
    return GaussianScore.from_moments(MEAN, spectrum=SPECTRUM, process=process, dtype=torch.float64)


def _noise(kernel: ReverseKernel, x: Tensor, seed: int = 0) -> Noise:
    return noise_for(x, seed, second=kernel.exact)  # as in a run: kernels with steps get no second variable


def _some(noise: Noise, rows: slice) -> Noise:
    return Noise(noise.normal[rows], noise.uniform[rows], None if noise.second is None else noise.second[rows])


def _check_calls(laws: Laws, kernel: ReverseKernel, process: Process, steps: list[tuple[float, float]]) -> None:
    for dtype in (torch.float32, torch.float64):
        score = EmpiricalScore(draw(30, 1, 2, 2, seed=1, dtype=dtype), process=process)
        for t, s in steps:
            place = f"from {t:.6g} to {s:.6g}"
            x = process.noised(draw(5, 1, 2, 2, seed=2), t, draw(5, 1, 2, 2, seed=3)).to(dtype)
            noise = _noise(kernel, x)
            given = [x, *(value for value in noise if value is not None), *score.buffers()]
            kept, state = [value.clone() for value in given], torch.get_rng_state()
            first = kernel.step(score, x, t, s, noise)
            is_state = isinstance(first, Tensor) and first.shape == x.shape and first.dtype == dtype
            what = f"{tuple(first.shape)} {first.dtype}" if isinstance(first, Tensor) else f"a {type(first).__name__}"
            laws.demand(is_state, "states", f"{place} {tuple(x.shape)} {dtype} gave {what}")
            laws.demand(bool(torch.isfinite(first).all()), "states", f"{place} it gave NaN or infinite values")
            laws.demand(first.data_ptr() != x.data_ptr(), "states", f"{place} it wrote into the states that it was given")
            moved, result = not torch.equal(torch.get_rng_state(), state), first.clone()
            torch.rand(3)
            kernel.step(score, 2 * x, t, 0.9 * t + 0.1 * s if not kernel.exact else 0.0, _noise(kernel, x, seed=1))
            again = kernel.step(score, x, t, s, noise)
            torch.set_rng_state(state)
            laws.demand(not moved, "pure", f"{place} it drew random numbers of torch")
            laws.demand(torch.equal(again, result), "pure", f"{place} a second step gave another state, after a step between")
            same = all(torch.equal(a, b) for a, b in zip(kept, given, strict=True))
            laws.demand(same, "pure", f"{place} it changed its state, its noise or the score")
            width = (1e-4 if dtype == torch.float32 else 1e-8) * (1 + float(result.abs().max()))
            for row in range(len(x)):
                rows = slice(row, row + 1)
                alone = kernel.step(score, x[rows], t, s, _some(noise, rows))
                laws.close("rows", result[rows], alone, f"row {row} of {len(x)} {place}", width)


def _check_classes(laws: Laws, kernel: ReverseKernel, process: Process, steps: list[tuple[float, float]]) -> None:
    samples, labels = draw(20, 3, seed=4), torch.arange(20) % 2
    score = EmpiricalScore.fit(samples, labels, process, torch.float64)
    for t, s in steps:
        x = process.noised(draw(4, 3, seed=5), t, draw(4, 3, seed=6))
        noise, label = _noise(kernel, x), torch.arange(4) % 2
        mixed = kernel.step(score, x, t, s, noise, label)
        for one in range(2):
            of_class = EmpiricalScore.fit(samples[labels == one], None, process, torch.float64)
            alone = kernel.step(of_class, x, t, s, noise)
            chosen = label == one
            laws.close("class", mixed[chosen], alone[chosen], f"class {one} from {t:.6g} to {s:.6g}", 1e-8)


def _check_noise(laws: Laws, kernel: ReverseKernel, process: Process, steps: list[tuple[float, float]]) -> None:
    score = EmpiricalScore(draw(30, 3, seed=1), process=process)
    looked = False
    for t, s in steps:
        x = process.noised(draw(4, 3, seed=2), t, draw(4, 3, seed=3))
        one, other = (kernel.step(score, x, t, s, _noise(kernel, x, seed)) for seed in (1, 2))
        looked |= not torch.equal(one, other)
        if not kernel.uses_noise:
            laws.demand(torch.equal(one, other), "noise", f"it says no, and from {t:.6g} to {s:.6g} two noises gave two states")
            try:
                without = kernel.step(score, x, t, s, NO_NOISE)
            except (RuntimeError, ValueError, IndexError, TypeError) as error:
                laws.demand(False, "noise", f"it says no, and without noise a step fails ({' '.join(str(error).split())[:100]})")
            laws.demand(torch.equal(without, one), "noise", f"it says no, and from {t:.6g} to {s:.6g} a step without gave another")
    laws.demand(looked or not kernel.uses_noise, "noise", "it says yes, and two noises gave the same state in every step")


class _Asked(Score):
    """The affine score, recording the times of its calls."""

    def __init__(self, inner: GaussianScore) -> None:
        super().__init__(inner.process, inner.event_shape)
        self.inner = inner
        self.times: list[float] = []

    def denoise(self, x: Tensor, t: float | Tensor, label: Tensor | None = None) -> Tensor:
        self.times += torch.as_tensor(t, dtype=torch.float64).reshape(-1).tolist()
        return self.inner.denoise(x, t, label)

    def posterior(self, x: Tensor, t: float | Tensor, noise: Noise, label: Tensor | None = None) -> Tensor:
        self.times += torch.as_tensor(t, dtype=torch.float64).reshape(-1).tolist()
        return self.inner.posterior(x, t, noise, label)


def times_asked(kernel: ReverseKernel, process: Process, grid: Sequence[float]) -> list[float]:
    """Return the times at which the steps of a grid call the score, in order.

    Parameters
    ----------
    kernel : ReverseKernel
        The kernel.
    process : Process
        The forward process.
    grid : sequence of float
        Descending times, in the process's time.

    Returns
    -------
    list of float

    Examples
    --------
    >>> from gaussian_test.sampler import ProbabilityFlow
    >>> times_asked(ProbabilityFlow("heun"), VarianceExploding(), [2.0, 1.0, 0.0])
    [2.0, 1.0, 1.0]
    """
    score = _Asked(_gaussian(process))
    x = draw(1, len(MEAN), seed=7)
    for t, s in pairwise(grid):
        kernel.step(score, x, t, s, _noise(kernel, x))
    return score.times


def _check_times(laws: Laws, kernel: ReverseKernel, process: Process) -> None:
    largest = process.time_max
    for t, s in [*_steps(process), (largest, _steps(process)[0][0])]:
        for asked in times_asked(kernel, process, [t, s]):
            inside = 0 < asked <= largest * (1 + 1e-9)
            laws.demand(inside, "times", f"from {t:.6g} to {s:.6g} it asked for the score at time {asked:.6g}")


def _check_affine(laws: Laws, kernel: ReverseKernel, process: Process, t: float, s: float) -> None:
    modes, score = len(MEAN), _gaussian(process)
    place = f"from {t:.6g} to {s:.6g}"
    offset, gain, *scales = _coefficients(kernel, score, t, s)
    x = process.noised(torch.from_numpy(MEAN) + 3 * draw(6, modes, seed=8), t, draw(6, modes, seed=9))
    noise = _noise(kernel, x, seed=3)
    normals = [value for value in (noise.normal, noise.second) if value is not None]
    expected = offset + gain * x + sum(scale * z for scale, z in zip(scales, normals, strict=True))
    moved = kernel.step(score, x, t, s, noise)
    laws.close("affine", moved, expected, f"{place}, of its own coefficients,", 1e-8 * (1 + expected.abs().numpy()))
    turn = torch.linalg.qr(draw(modes, modes, seed=10))[0]
    covariance = (turn * torch.from_numpy(SPECTRUM)) @ turn.T
    turned = GaussianScore.from_moments(
        turn.numpy() @ MEAN, ((covariance + covariance.T) / 2).numpy(), process=process, dtype=torch.float64
    )
    rotated = Noise(noise.normal @ turn.T, noise.uniform, None if noise.second is None else noise.second @ turn.T)
    found = kernel.step(turned, x @ turn.T, t, s, rotated)
    scale = float(expected.abs().max()) + float(x.abs().max())
    laws.close("rotation", found @ turn, moved, place, 1e-7 * (1 + scale))


def _coefficients(kernel: ReverseKernel, score: GaussianScore, t: float, s: float) -> list[Tensor]:
    """Return a step's offset and its factors of the state and of each normal variable, mode by mode."""
    zero, one, half = torch.zeros(1, len(MEAN)).double(), torch.ones(1, len(MEAN)).double(), torch.full((1,), 0.5).double()

    def step(x: Tensor, z: Tensor, other: Tensor) -> Tensor:
        return kernel.step(score, x, t, s, Noise(z, half, other if kernel.exact else None))[0]

    origin = step(zero, zero, zero)
    probes = [(one, zero, zero), (zero, one, zero), *([(zero, zero, one)] if kernel.exact else [])]
    return [origin, *(step(*probe) - origin for probe in probes)]


def _continuous(process: Process, flow: str, t: float, s: float) -> Tensor:
    """Return the factor of the deviation from the mean in continuous time, mode by mode."""
    spectrum = torch.from_numpy(SPECTRUM)
    ratio = (spectrum + process.noise_to_signal(s) ** 2) / (spectrum + process.noise_to_signal(t) ** 2)
    return process.alpha(s) / process.alpha(t) * (ratio.sqrt() if flow == "ode" else ratio)


def _moments(process: Process, t: float) -> tuple[Tensor, Tensor]:
    alpha = process.alpha(t)
    return alpha * torch.from_numpy(MEAN), alpha**2 * torch.from_numpy(SPECTRUM) + process.sigma(t) ** 2


def _pushed(kernel: ReverseKernel, process: Process, times: Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
    """Return gain, mean and variance after some steps, from the exact marginal at the first time."""
    score, (mean, variance) = _gaussian(process), _moments(process, times[0])
    gain = torch.ones_like(mean)
    for t, s in pairwise(times):
        offset, factor, *scales = _coefficients(kernel, score, t, s)
        gain, mean = factor * gain, offset + factor * mean
        variance = factor**2 * variance + torch.stack([scale**2 for scale in scales]).sum(0)
    return gain, mean, variance


def _check_small_steps(laws: Laws, kernel: ReverseKernel, process: Process) -> None:
    (level, *_) = _times(process, [1.0, 4.0, 0.2])
    near = np.linspace(0.95 * level, level, 101) if _is_discrete(process) else np.array([level])
    apart = np.array([abs(one - process.level(one)) for one in near])
    t = float(near[apart.argmax()])
    h = t - float(process.time(0.98 * float(process.noise_to_signal(t))))
    if apart.any():  # skip steps within one interval of a discrete process
        h = min(h, 0.8 * float(apart.max()))
    errors = []
    for step in (h, h / 2):
        gain, mean, variance = _pushed(kernel, process, [t, t - step])
        exact_mean, exact_variance = _moments(process, t - step)
        exact_gain = _continuous(process, str(kernel.flow), t, t - step)
        differences = (gain - exact_gain, mean - exact_mean, (variance - exact_variance) / step)
        errors.append([float(difference.abs().max()) for difference in differences])
    for law, index, what, fall in (
        ("marginal", 1, "of the mean", 0.3),
        ("marginal", 2, "of the variance, per unit of time,", 0.6),
        ("flow", 0, f"of the gain from that of the {kernel.flow}", 0.3),
    ):
        first, second = errors[0][index], errors[1][index]
        said = f"the error {what} at time {t:.6g} is {first:.3g} in a step of {h:.3g} and {second:.3g} in half of it"
        laws.demand(second <= fall * first + 1e-9, law, said)


def _check_order(laws: Laws, kernel: ReverseKernel, process: Process, order: float) -> None:
    low, high = (float(process.noise_to_signal(t)) for t in (process.time_min, process.time_max))
    ends = min(4.0, high * (1 - 1e-9)), max(0.5, low)
    ends = ends if ends[1] < ends[0] else (high * (1 - 1e-9), low)
    errors = []
    for count in (STEPS, 2 * STEPS, 4 * STEPS):
        times = process.time(torch.from_numpy(np.geomspace(*ends, count + 1))).tolist()
        gain, mean, variance = _pushed(kernel, process, times)
        exact_mean, exact_variance = _moments(process, times[-1])
        exact_gain = _continuous(process, str(kernel.flow), times[0], times[-1])
        differences = (gain - exact_gain, mean - exact_mean, variance - exact_variance)
        errors.append(max(float(difference.abs().max()) for difference in differences))
    for count, (first, second) in zip((STEPS, 2 * STEPS), pairwise(errors), strict=True):
        said = f"the error is {first:.3g} in {count} steps and {second:.3g} in {2 * count}, not of order {order:g}"
        laws.demand(second <= first / 2 ** (order - 0.2) + 1e-9, "order", said)
