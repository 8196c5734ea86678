r"""The laws of a forward process :math:`x_t = \alpha_t x_0 + \sigma_t z`."""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from gaussian_test.conformance.laws import Laws, draw
from gaussian_test.sampler import Process
from gaussian_test.sampler.defaults import undisturbed

PROCESS_LAWS = {
    "number": "alpha, sigma, f, g2, noise_to_signal and time give finite float64 numbers in the shape of what they are given",
    "batch": "a batch of times is each of them",
    "clean": "alpha is 1 and sigma 0 at time 0",
    "ratio": "noise_to_signal is sigma/alpha",
    "rise": "noise_to_signal rises with time",
    "inverse": "time is the inverse of noise_to_signal",
    "level": "level gives a time within the process, and a level is its own level",
    "drift": "f is the derivative of log alpha",
    "diffusion": "g2 is the derivative of sigma^2, less 2 f sigma^2",
    "weight": "integrated_score_weight(s, t) is the integral of alpha_s/alpha_tau g2(tau) from s to t",
    "transition": "from s to u to t is from s to t, and from 0 to t is alpha_t and sigma_t",
    "noised": "noised gives alpha_t x0 + sigma_t z",
}
NUMBERS = ("alpha", "sigma", "f", "g2", "noise_to_signal")
PLACES = 7  # times at which derivatives and integrals are compared


@undisturbed()
def check_process(process: Process) -> None:
    r"""Raise unless a forward process obeys the laws of processes.

    ``number``, ``batch``, ``clean``, ``ratio``, ``rise``, ``inverse``, ``level``, ``drift``, ``diffusion``, ``weight``,
    ``transition``, ``noised``: see :data:`PROCESS_LAWS`. They are checked at 7 noise levels, evenly spaced in :math:`\log\nu` over
    the range of the process, and at 64 times. Tolerances, relative: 1e-12 for identical formulas; 1e-8 for the inverse (1e-6
    at both ends); 1e-5 for derivatives (central differences over 0.06 % of :math:`\nu`); 1e-6 for the weight (Gauss-Legendre
    quadrature); 1e-9 for transitions.

    Parameters
    ----------
    process : Process
        The process.

    Returns
    -------
    None

    Raises
    ------
    ConformanceError
        At the first broken law.

    Examples
    --------
    >>> from gaussian_test.sampler import Cosine
    >>> check_process(Cosine())
    >>> class Wrong(Cosine):
    ...     def f(self, t):
    ...         return -self.g2(t)
    >>> check_process(Wrong())
    Traceback (most recent call last):
    ...
    gaussian_test.conformance.laws.ConformanceError: process Wrong(...) breaks 'drift' (f is the derivative of log alpha): at ...
    """
    laws = Laws("process", process, PROCESS_LAWS)
    whole = torch.from_numpy(np.geomspace(process.time_min, process.time_max, 64))
    _check_numbers(laws, process, whole)
    for name, expected in (("alpha", 1.0), ("sigma", 0.0)):
        laws.close("clean", getattr(process, name)(0.0), expected, f"{name} at time 0:", 1e-12)
    ratio = process.noise_to_signal(whole)
    laws.close("ratio", ratio, process.sigma(whole) / process.alpha(whole), "at some time", 1e-12 * ratio.numpy())
    for (t, low), (after, high) in pairwise(zip(whole.tolist(), ratio.tolist(), strict=True)):
        laws.demand(0 < low < high, "rise", f"at time {t:.6g} it is {low:.6g}, at time {after:.6g} it is {high:.6g}")
    levels = np.geomspace(ratio[0].item(), ratio[-1].item(), PLACES + 2)
    _check_inverse(laws, process, levels)
    times = sorted({_smooth(process, float(process.time(level))) for level in levels[1:-1]})
    _check_levels(laws, process, [float(process.time(level)) for level in levels])
    for t in times:
        _check_derivatives(laws, process, t)
    _check_steps(laws, process, times)


def _check_numbers(laws: Laws, process: Process, times: Tensor) -> None:
    for name in (*NUMBERS, "time"):
        given = process.noise_to_signal(times) if name == "time" else times
        for value in (given, float(given[20]), given[20]):
            found = getattr(process, name)(value)
            shape = tuple(value.shape) if isinstance(value, Tensor) else ()
            is_number = isinstance(found, Tensor) and found.dtype == torch.float64 and tuple(found.shape) == shape
            what = f"{tuple(found.shape)} {found.dtype}" if isinstance(found, Tensor) else type(found).__name__
            laws.demand(is_number, "number", f"{name} of {shape or 'one number'} gave {what}")
            laws.demand(bool(torch.isfinite(found).all()), "number", f"{name} gave NaN or infinite numbers within the process")
        alone = torch.stack([getattr(process, name)(float(value)) for value in given])
        together = getattr(process, name)(given)
        laws.close("batch", together, alone, f"{name}:", 1e-12 * alone.abs().numpy() + 1e-15)


def _check_inverse(laws: Laws, process: Process, levels: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    for place, level in enumerate(levels.tolist()):
        width = 1e-8 if 0 < place < len(levels) - 1 else 1e-6
        found = float(process.noise_to_signal(process.time(level)))
        laws.close("inverse", found, level, f"the ratio at time({level:.6g}):", width * level)
        t = float(process.time(level))
        again = float(process.time(process.noise_to_signal(t)))
        laws.close("inverse", again, t, f"the time of the ratio at time {t:.6g}:", width * t)


def _check_levels(laws: Laws, process: Process, times: list[float]) -> None:
    for t in times:
        level = process.level(t)
        inside = process.time_min * (1 - 1e-6) <= level <= process.time_max * (1 + 1e-6)
        laws.demand(inside, "level", f"that of {t:.6g} is {level:.6g}, outside {process.time_min:.6g} to {process.time_max:.6g}")
        laws.demand(process.level(level) == level, "level", f"that of {level:.6g} is {process.level(level):.6g}")


def _smooth(process: Process, t: float) -> float:
    """Return a nearby time where the schedule is smooth: for a discrete process the middle between two levels."""
    near = np.linspace(0.9 * t, 1.1 * t, 401)
    distance = np.array([abs(one - process.level(one)) for one in near])
    inside = (near > process.time_min) & (near < process.time_max)
    return float(near[inside][distance[inside].argmax()]) if (distance[inside] > 1e-12 * t).any() else t


def _check_derivatives(laws: Laws, process: Process, t: float) -> None:
    nu = float(process.noise_to_signal(t))
    ends = [float(process.time(nu * (1 + change))) for change in (-3e-4, 3e-4)]
    h = min((ends[1] - ends[0]) / 2, 0.5 * t)
    if (apart := abs(t - process.level(t))) > 1e-12 * t:
        h = min(h, apart / 2)
    around = torch.tensor([t - h, t + h], dtype=torch.float64)
    log_alpha, variance = process.alpha(around).log(), process.sigma(around) ** 2
    drift = float(log_alpha[1] - log_alpha[0]) / (2 * h)
    rate = float(variance[1] - variance[0]) / (2 * h)
    rounding = 1e-15 / h
    laws.close("drift", process.f(t), drift, f"at time {t:.6g}", 1e-5 * abs(drift) + rounding)
    here = float(process.sigma(t)) ** 2
    lost = 2 * drift * here
    laws.close(
        "diffusion", process.g2(t), rate - lost, f"at time {t:.6g}", 1e-5 * (abs(rate) + abs(lost)) + rounding * max(here, 1e-3)
    )


def _integral(process: Process, s: float, t: float) -> float:
    """Return the weight from s to t by Gauss-Legendre quadrature, piecewise from level to level for a discrete process."""
    levels = {process.level(tau) for tau in np.linspace(s, t, 4001).tolist()} if process.level(s) != s else set()
    inner = sorted(level for level in levels if s < level < t) if levels else np.geomspace(s, t, 65)[1:-1].tolist()
    corners = np.array([s, *inner, t])
    nodes, weights = np.polynomial.legendre.leggauss(12)
    half = np.diff(corners)[:, None] / 2
    tau = torch.from_numpy(((corners[:-1] + corners[1:])[:, None] / 2 + half * nodes).reshape(-1))
    values = (process.alpha(s) / process.alpha(tau) * process.g2(tau)).numpy().reshape(half.shape[0], -1)
    return float((half * weights * values).sum())


def _check_steps(laws: Laws, process: Process, times: list[float]) -> None:
    x, z = draw(3, 2, seed=1), draw(3, 2, seed=2)
    for s, t in pairwise(times):
        expected = _integral(process, s, t)
        laws.close(
            "weight", process.integrated_score_weight(s, t), expected, f"from {s:.6g} to {t:.6g}", 1e-6 * abs(expected) + 1e-12
        )
    for s, u, t in zip(times, times[1:], times[2:], strict=False):
        (a, b), (c, d), (whole, spread) = process.transition(s, u), process.transition(u, t), process.transition(s, t)
        laws.close("transition", a * c, whole, f"the amplitude from {s:.6g} over {u:.6g} to {t:.6g}", 1e-9 * whole.abs().numpy())
        variance = spread**2
        laws.close(
            "transition",
            (b * c) ** 2 + d**2,
            variance,
            f"the variance from {s:.6g} over {u:.6g} to {t:.6g}",
            1e-9 * variance.numpy(),
        )
    for t in times:
        alpha, sigma = process.alpha(t), process.sigma(t)
        for name, found, exact in zip(("amplitude", "deviation"), process.transition(0.0, t), (alpha, sigma), strict=True):
            laws.close("transition", found, exact, f"the {name} from 0 to {t:.6g}", 1e-9 * exact.abs().numpy())
        noised = alpha * x + sigma * z
        laws.close("noised", process.noised(x, t, z), noised, f"at time {t:.6g}", 1e-9 * (1 + noised.abs().numpy()))
