r"""Exact laws of reverse kernels on a Gaussian.

With the affine score each step of each kernel is affine, :math:`x_s = a\,x_t + b\,z + c` mode by mode, so mean and variance of the
end points follow through the same steps as a simulation. All covariances share the eigenvectors of :math:`\Sigma`, so the distance
of the end points from :math:`\mathcal N(\mu, \Sigma)` is a sum over modes:

.. math:: W_2^2 = \sum_i (E\,\tilde x_{0,i} - \mu_i)^2 + \sum_i \big(\sqrt{v_i} - \sqrt{\lambda_i}\big)^2 .
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from gaussian_test.analysis.declarations import WHY
from gaussian_test.analysis.moments.gaussian_score import GaussianScore
from gaussian_test.analysis.theory.closed_form import autocorrelation_exact, discrete_law
from gaussian_test.sampler import EDMStochastic, GaussianComponents, Noise, Process, ReverseKernel, reverse_grid
from gaussian_test.sampler.kernels import KERNELS as TABLE, make_kernel
from gaussian_test.sampler.process import RHO, Time

Array = NDArray[np.float64]
Start = Literal["noised_data", "gaussian", "isotropic"]
KernelOfSteps = ReverseKernel | Callable[[int], ReverseKernel]


def _churned(steps: int) -> EDMStochastic:
    # total churn and its range as published for ImageNet-64; no inflated noise, which compensates errors of a learned score
    return EDMStochastic(steps, S_churn=40, S_min=0.05, S_max=50)


def _studied() -> Iterator[tuple[str, KernelOfSteps]]:
    """Yield the kernels with steps by the experiment's names; one that depends on their number, as a function of it."""
    for kind, known in TABLE.items():
        if kind == "edm":
            yield kind, _churned
        elif "clock" in known.settings:
            yield kind, make_kernel(kind, {"clock": "variance"})
            yield f"{kind}, time clock", make_kernel(kind, {"clock": "time"})
        elif kind != "exact":
            yield kind, make_kernel(kind, {})


KERNELS: Mapping[str, KernelOfSteps] = MappingProxyType(dict(_studied()))


def sampler_law(
    eigenvalues: ArrayLike,
    process: Process,
    kernel: ReverseKernel,
    grid: ArrayLike,
    turn_times: Sequence[float],
    *,
    start: Start = "noised_data",
    mean: ArrayLike | None = None,
    model: ArrayLike | None = None,
) -> xr.Dataset:
    r"""Return the law of the end points of a discretised run with the affine score, and its distance from the data's Gaussian.

    With the factor :math:`A` of :math:`x_0` in the end point and the variance :math:`B` of all noise in it, a start from data has
    end variance :math:`A^2\lambda + B`, and one from noise alone (:math:`x_0 = 0`) has :math:`B` and a mean that lacks
    :math:`A\mu`.

    Parameters
    ----------
    eigenvalues : array
        Variance of the data along each mode, shape (modes,). A direction in which the data do not vary is a mode of variance 0
        and must be listed: the noise that a kernel leaves there is part of the distance.
    process : Process
        The forward process.
    kernel : ReverseKernel
        The reverse kernel.
    grid : array
        Descending times to 0, on which every turn time is a point, shape (steps + 1,).
    turn_times : sequence of float
        Turn times, in the process's time.
    start : {"noised_data", "gaussian", "isotropic"}
        What is reversed. ``noised_data``: :math:`\alpha_T x_0 + \sigma_T z` of data with these moments. ``gaussian``:
        :math:`\mathcal N(\alpha_T\mu, \alpha_T^2\Sigma + \sigma_T^2)`, which has the same law where the data are Gaussian.
        ``isotropic``: :math:`\mathcal N(0, \sigma_T^2)`.
    mean : array, optional
        Coordinates of :math:`\mu` along the modes, shape (modes,), in the unit of the data. Default: 0.
    model : array, optional
        Eigenvalues of the score's own covariance where it is not the data's, shape (modes,).

    Returns
    -------
    Dataset
        ``mean_offset``, ``variance``, ``factor`` (turn_time, mode); ``autocorrelation``, ``wasserstein``,
        ``wasserstein_relative``, ``end_square``, ``evaluations``
        (turn_time); coordinates ``noise_to_signal`` and ``eigenvalue``. For data that
        are not Gaussian, moments and auto-correlation are as exact, and ``wasserstein`` is a lower bound (Gelbrich).

    Raises
    ------
    ValueError
        If the spectra or the mean do not fit, the start is unknown, the grid does not descend to 0, or a turn time is not on it.

    Notes
    -----
    ``mean_offset`` differs from 0 not only for a start from noise alone: Euler-Maruyama in the time clock does not carry
    :math:`\alpha_t\mu` to :math:`\alpha_s\mu` where the drift :math:`f x` bends it.

    References
    ----------
    Pierret & Galerne, arXiv 2405.14250; Gelbrich, Math. Nachr. 147, 185 (1990).

    Examples
    --------
    >>> from gaussian_test.sampler import ExactReversal, VarianceExploding
    >>> law = sampler_law([3.0, 0.0], VarianceExploding(), ExactReversal(), [1.0, 0.0], [1.0], start="isotropic", mean=[2.0, 5.0])
    >>> law.mean_offset.values.tolist(), law.variance.values.round(12).tolist()
    ([[-1.5, 0.0]], [[1.3125, 0.0]])
    """
    values, center, spectrum = _spectra(eigenvalues, mean, model)
    times, turns = np.asarray(grid, dtype=np.float64), np.asarray(turn_times, dtype=np.float64)
    if start not in get_args(Start):
        raise ValueError(f"start = {start!r} is unknown: choose {', '.join(get_args(Start))}")
    if times.ndim != 1 or len(times) < 2 or times[-1] != 0 or not (np.diff(times) < 0).all():
        raise ValueError(f"a grid of shape {times.shape} does not descend to 0: give times as made by reverse_grid")
    if not turns.size:
        raise ValueError("there is no turn time: give at least one")
    from_data = start != "isotropic"
    start_variance = values if from_data else np.zeros_like(values)
    factor, variance = discrete_law(start_variance, process, kernel, times, turns.tolist(), model=spectrum)
    amplitude = process.alpha(torch.from_numpy(turns)).numpy()[:, None] if from_data else np.zeros((len(turns), 1))
    ends, evaluations = mean_ends(process, kernel, times, turns, amplitude * center, center, spectrum)
    offset = ends - center
    distance = np.sqrt((offset**2).sum(1) + ((np.sqrt(variance) - np.sqrt(values)) ** 2).sum(1))
    correlation = factor @ values / values.sum() if from_data else np.full(len(turns), np.nan)
    return xr.Dataset(
        {
            "mean_offset": (("turn_time", "mode"), offset, _attributes("mean of the end points less that of the data", OF_DATA)),
            "variance": (("turn_time", "mode"), variance, _attributes("variance of the end points", f"{OF_DATA}, squared")),
            "factor": (("turn_time", "mode"), factor, _attributes("factor of the start in the end point", "of x0 less its mean")),
            "autocorrelation": (
                "turn_time",
                correlation,
                {"long_name": "U-Turn auto-correlation", "units": "1"} | ({} if from_data else {"reason": WHY["start"]}),
            ),
            "end_square": (
                "turn_time",
                ((offset**2).sum(1) + variance.sum(1)) / values.sum(),
                _attributes("mean squared distance of the end points from the data's mean", "over tr(Sigma): 1 for the data"),
            ),
            **_distances("turn_time", distance, values, evaluations),
        },
        coords={
            "turn_time": ("turn_time", turns, _attributes("turn time", "in the process's time")),
            "noise_to_signal": (
                "turn_time",
                process.noise_to_signal(torch.from_numpy(turns)).numpy(),
                _attributes("noise-to-signal ratio at the turn", "sigma/alpha"),
            ),
            "eigenvalue": ("mode", values, _attributes("variance of the data along the mode", f"{OF_DATA}, squared")),
        },
        attrs={"process": repr(process), "kernel": repr(kernel), "start": start},
    )


def sampler_study(
    eigenvalues: ArrayLike,
    process: Process,
    turn_time: float,
    kernels: Mapping[str, KernelOfSteps],
    steps: Sequence[int],
    *,
    rho: float = RHO,
    start: Start = "gaussian",
    mean: ArrayLike | None = None,
) -> xr.Dataset:
    r"""Return the distance of each kernel from the data's Gaussian at each number of steps, and its cost.

    Compare kernels at equal ``evaluations``, not at equal steps. The error left at any number of steps is not the integrator's: a
    start from noise alone lacks what remains of the data at the turn time, and the last step, from the process's smallest level to
    0, is the same for all grids.

    Parameters
    ----------
    eigenvalues : array
        Variance of the data along each mode, with a 0 for every direction in which they do not vary, shape (modes,).
    process : Process
        The forward process.
    turn_time : float
        Start of the runs, in the process's time (the nearest level if that is discrete).
    kernels : mapping
        By name: a kernel, or a function that returns one for a number of steps; such as :data:`KERNELS`.
    steps : sequence of int
        Numbers of reverse steps, of grids as :func:`reverse_grid` makes them.
    rho : float
        Warp of the grids.
    start, mean
        As in :func:`sampler_law`.

    Returns
    -------
    Dataset
        Over (kernel, steps): ``wasserstein``, ``wasserstein_relative`` (in units of :math:`\sqrt{\mathrm{tr}\,\Sigma}`),
        ``autocorrelation_error`` (through the steps, less the closed form in continuous time of the SDE or of the flow; NaN, with
        the reason, where there is none) and ``evaluations`` of the score per sample, counted.

    Raises
    ------
    ValueError
        If there is no kernel or no number of steps, or as :func:`sampler_law` does.

    References
    ----------
    Pierret & Galerne, arXiv 2405.14250; Karras et al., arXiv 2206.00364, table 5 for the churn in :data:`KERNELS`.

    Examples
    --------
    >>> from gaussian_test.sampler import ProbabilityFlow, VarianceExploding
    >>> kernels = {"euler": ProbabilityFlow("euler"), "heun": ProbabilityFlow("heun")}
    >>> study = sampler_study([3.0, 1.0], VarianceExploding(), 80.0, kernels, [8, 16])
    >>> study.evaluations.values.tolist()
    [[8, 16], [15, 31]]
    >>> (study.wasserstein_relative.sel(kernel="heun") < study.wasserstein_relative.sel(kernel="euler")).values.tolist()
    [True, True]
    """
    if not kernels or not steps:
        raise ValueError(f"{len(kernels)} kernels and {len(steps)} numbers of steps make no study: give at least one of each")
    turn = process.turn_time(turn_time)
    noise_to_signal = float(process.noise_to_signal(turn))
    values = np.asarray(eigenvalues, dtype=np.float64)
    shape = (len(kernels), len(steps))
    distance, error, evaluations = np.empty(shape), np.empty(shape), np.empty(shape, dtype=np.int64)
    churned = set()
    for column, count in enumerate(steps):
        grid = reverse_grid(process, [turn], count, rho)
        for row, (name, made) in enumerate(kernels.items()):
            kernel = made if isinstance(made, ReverseKernel) else made(count)
            law = sampler_law(values, process, kernel, grid, [turn], start=start, mean=mean)
            distance[row, column], evaluations[row, column] = law["wasserstein"].item(), law["evaluations"].item()
            flow = kernel.flow
            if flow is None:
                churned.add(name)
            reference = np.nan if flow is None else autocorrelation_exact(values, noise_to_signal, flow=flow)
            error[row, column] = law["autocorrelation"].item() - reference
    attributes = _attributes("error of the auto-correlation", "through the steps, less the closed form in continuous time")
    if start == "isotropic":
        attributes["reason"] = WHY["start"]
    elif churned:
        attributes["reason"] = f"{', '.join(sorted(churned))}: with churn the correlation is the sampler's, not the process's"
    return xr.Dataset(
        {
            **_distances(("kernel", "steps"), distance, values, evaluations),
            "autocorrelation_error": (("kernel", "steps"), error, attributes),
        },
        coords={
            "kernel": ("kernel", list(kernels), {"long_name": "reverse kernel", "units": "1"}),
            "steps": ("steps", list(steps), _attributes("number of reverse steps", "as asked for")),
            "turn_time": ((), turn, _attributes("turn time", "in the process's time")),
            "noise_to_signal": ((), noise_to_signal, _attributes("noise-to-signal ratio at the turn", "sigma/alpha")),
        },
        attrs={"process": repr(process), "start": start, "rho": rho},
    )


OF_DATA = "in the unit of the data"


class _CountedScore(GaussianScore):
    """The affine score, counting its evaluations."""

    calls = 0

    def denoise(self, x: Tensor, t: Time, label: Tensor | None = None) -> Tensor:
        self.calls += 1
        return super().denoise(x, t, label)

    def posterior(self, x: Tensor, t: Time, noise: Noise, label: Tensor | None = None) -> Tensor:
        self.calls += 1
        return super().posterior(x, t, noise, label)


def mean_ends(
    process: Process, kernel: ReverseKernel, grid: Array, turns: Array, starts: Array, center: Array, spectrum: Array
) -> tuple[Array, NDArray[np.int64]]:
    """Run the means of the starts to 0 without noise, through the same steps.

    Examples
    --------
    >>> from gaussian_test.sampler import ExactReversal, VarianceExploding
    >>> one = np.ones(1)
    >>> mean_ends(VarianceExploding(), ExactReversal(), np.array([1.0, 0.0]), one, 2 * one[None], one, 3 * one)[0].tolist()
    [[1.75]]
    """
    moments = GaussianComponents(torch.from_numpy(center[None]), torch.from_numpy(spectrum[None]))
    score = _CountedScore(moments, center.shape, process)
    state = torch.from_numpy(starts.copy())
    noise = Noise(torch.zeros_like(state), torch.zeros(len(state), dtype=torch.float64))
    evaluations = np.zeros(len(turns), dtype=np.int64)

    def advance(rows: NDArray[np.bool_], t: float, s: float) -> None:
        before, chosen = score.calls, torch.from_numpy(rows)
        state[chosen] = kernel.step(score, state[chosen], t, s, Noise(noise.normal[chosen], noise.uniform[chosen]))
        evaluations[rows] += score.calls - before

    if kernel.exact:
        for row, turn in enumerate(turns):
            advance(np.arange(len(turns)) == row, float(turn), 0.0)
        return state.numpy(), evaluations
    positions = np.abs(grid[:, None] - turns).argmin(0)
    for position, (t, s) in enumerate(pairwise(grid.tolist())):
        if position >= positions.min():
            advance(positions <= position, t, s)
    return state.numpy(), evaluations


def _spectra(eigenvalues: ArrayLike, mean: ArrayLike | None, model: ArrayLike | None) -> tuple[Array, Array, Array]:
    """Validate and return variances of the data, mean, and variances of the score's Gaussian along the modes."""
    values = np.asarray(eigenvalues, dtype=np.float64)
    center = np.zeros_like(values) if mean is None else np.asarray(mean, dtype=np.float64)
    spectrum = values if model is None else np.asarray(model, dtype=np.float64)
    if values.ndim != 1 or center.shape != values.shape or spectrum.shape != values.shape:
        raise ValueError(
            f"eigenvalues {values.shape}, mean {center.shape} and model {spectrum.shape} do not fit: give one number per mode"
        )
    if not (np.isfinite(values).all() and (values >= 0).all() and values.any()):
        raise ValueError("the eigenvalues hold a negative or infinite number, or no positive one: give the variances of the modes")
    return values, center, spectrum


def _distances(
    dims: str | tuple[str, ...], distance: Array, values: Array, evaluations: NDArray[np.int64]
) -> dict[str, tuple[str | tuple[str, ...], NDArray[np.float64] | NDArray[np.int64], dict[str, str]]]:
    """Return the variables common to a law and a study."""
    name = "Wasserstein-2 distance of the end points from the data's Gaussian"
    relative = distance / np.sqrt(values.sum())
    return {
        "wasserstein": (dims, distance, _attributes(name, OF_DATA)),
        "wasserstein_relative": (dims, relative, _attributes(name, "over the root of the total variance")),
        "evaluations": (dims, evaluations, _attributes("evaluations of the score", "per sample")),
    }


def _attributes(long_name: str, comment: str) -> dict[str, str]:
    return {"long_name": long_name, "units": "1", "comment": comment}
