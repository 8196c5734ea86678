r"""Closed-form auto-correlations of the Gaussian score.

For any data with mean :math:`\mu` and covariance eigenvalues :math:`\lambda_i` (Gaussian or not, because the map is affine),
with :math:`\nu_T = \sigma_T/\alpha_T`:

.. math:: C_G(T) = \frac{\sum_i\lambda_i\frac{\lambda_i}{\lambda_i+\nu_T^2}}{\sum_i\lambda_i},\qquad
          C_G^{ode}(T) = \frac{\sum_i\lambda_i\sqrt{\frac{\lambda_i}{\lambda_i+\nu_T^2}}}{\sum_i\lambda_i}
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from gaussian_test.analysis.moments.gaussian_score import GaussianScore
from gaussian_test.sampler import Noise, Process, ReverseKernel

Array = NDArray[np.float64]


def mode_autocorrelation(
    eigenvalues: ArrayLike, noise_to_signal: ArrayLike, *, flow: Literal["sde", "ode"] = "sde", model: ArrayLike | None = None
) -> Array:
    r"""Return the U-Turn auto-correlation of each mode: :math:`\lambda_i/(\lambda_i+\nu^2)`, or its square root for the ODE.

    Parameters
    ----------
    eigenvalues : array
        Variance of the data along each mode, shape (modes,).
    noise_to_signal : array
        :math:`\nu` at the turn, any shape.
    flow : {"sde", "ode"}
        The reverse SDE (or exact reversal), or the probability-flow ODE.
    model : array, optional
        Eigenvalues of the score's own covariance where it is not the data's (a shrunk one), shape (modes,).

    Returns
    -------
    ndarray
        Shape of ``noise_to_signal`` + (modes,), dimensionless.

    Examples
    --------
    >>> mode_autocorrelation([3.0, 0.0], 1.0).tolist()
    [0.75, 0.0]
    """
    values = np.asarray(eigenvalues if model is None else model, dtype=np.float64)
    variance = np.asarray(noise_to_signal, dtype=np.float64)[..., None] ** 2
    gain: Array = values / (values + variance)
    return np.sqrt(gain) if flow == "ode" else gain


def autocorrelation_exact(
    eigenvalues: ArrayLike, noise_to_signal: ArrayLike, *, flow: Literal["sde", "ode"] = "sde", model: ArrayLike | None = None
) -> Array:
    r"""Return the U-Turn auto-correlation :math:`C_G(T)` of the Gaussian score in continuous time.

    Parameters
    ----------
    eigenvalues, noise_to_signal, flow, model
        As in :func:`mode_autocorrelation`.

    Returns
    -------
    ndarray
        Shape of ``noise_to_signal``, dimensionless.

    References
    ----------
    Behjoo & Chertkov, arXiv 2308.07421.

    Examples
    --------
    >>> autocorrelation_exact([3.0, 1.0], [0.0, 1.0]).tolist()
    [1.0, 0.6875]
    """
    values = np.asarray(eigenvalues, dtype=np.float64)
    result: Array = mode_autocorrelation(values, noise_to_signal, flow=flow, model=model) @ values / values.sum()
    return result


def forward_autocorrelation(process: Process, times: ArrayLike) -> Array:
    r"""Return :math:`\alpha_t`: the correlation of :math:`x_t` with :math:`x_0` over :math:`\mathrm{tr}\,\Sigma`, for any data.

    Parameters
    ----------
    process : Process
        The forward process.
    times : array
        In the process's time.

    Returns
    -------
    ndarray
        Shape of ``times``.

    Examples
    --------
    >>> from gaussian_test.sampler import Cosine
    >>> forward_autocorrelation(Cosine(), [0.0]).tolist()
    [1.0]
    """
    return process.alpha(torch.tensor(np.asarray(times, dtype=np.float64))).numpy()


def path_autocorrelation(
    eigenvalues: ArrayLike, process: Process, turn_time: float, times: ArrayLike, *, flow: Literal["sde", "ode"] = "sde"
) -> Array:
    r"""Return the correlation of the start :math:`x_0` with the reversed path at ``s``, in units of :math:`\mathrm{tr}\,\Sigma`.

    .. math:: \mathrm{Cov}(x_0, x_s)_i = \frac{\alpha_T\lambda_i}{\alpha_T^2\lambda_i+\sigma_T^2}\cdot
              \frac{\alpha_T}{\alpha_s}(\alpha_s^2\lambda_i+\sigma_s^2)
              = \alpha_s\lambda_i\,\frac{\lambda_i+\nu_s^2}{\lambda_i+\nu_T^2}

    and, along the probability flow, with the square root of the last factor.

    Parameters
    ----------
    eigenvalues : array
        Shape (modes,).
    process : Process
        The forward process.
    turn_time : float
        T.
    times : array
        ``s <= T``, any shape.
    flow : {"sde", "ode"}
        The reverse SDE, or the probability-flow ODE.

    Returns
    -------
    ndarray
        Shape of ``times``.

    Examples
    --------
    >>> from gaussian_test.sampler import VarianceExploding
    >>> path_autocorrelation([3.0, 1.0], VarianceExploding(), 1.0, [0.0, 1.0]).tolist()
    [0.6875, 1.0]
    """
    values = np.asarray(eigenvalues, dtype=np.float64)
    s = torch.tensor(np.asarray(times, dtype=np.float64))
    alpha, variance = process.alpha(s).numpy()[..., None], process.noise_to_signal(s).numpy()[..., None] ** 2
    ratio = (values + variance) / (values + float(process.noise_to_signal(turn_time)) ** 2)
    covariance = alpha * values * (np.sqrt(ratio) if flow == "ode" else ratio)
    result: Array = covariance.sum(-1) / values.sum()
    return result


def path_autocorrelation_discrete(
    eigenvalues: ArrayLike,
    process: Process,
    kernel: ReverseKernel,
    grid: ArrayLike,
    turn_time: float,
    *,
    model: ArrayLike | None = None,
) -> tuple[Array, Array]:
    r"""Return the correlation of the start with the path, through the same steps as a simulation.

    Parameters
    ----------
    eigenvalues, process, kernel, grid, model
        As in :func:`autocorrelation_discrete`.
    turn_time : float
        T, a point of the grid.

    Returns
    -------
    tuple of ndarray
        Times of the grid from T down to 0, and the correlations there, in units of :math:`\mathrm{tr}\,\Sigma`.

    Raises
    ------
    ValueError
        If the turn time is not on the grid.

    Examples
    --------
    >>> from gaussian_test.sampler import Ancestral, VarianceExploding
    >>> times, curve = path_autocorrelation_discrete([3.0], VarianceExploding(), Ancestral(), [2.0, 1.0, 0.0], 2.0)
    >>> times.tolist(), curve.round(12).tolist()
    ([2.0, 1.0, 0.0], [1.0, 0.571428571429, 0.428571428571])
    """
    values = np.asarray(eigenvalues, dtype=np.float64)
    times = np.asarray(grid, dtype=np.float64)
    times = times[_position(times, turn_time) :]
    if kernel.exact:  # a chain of exact steps is the reversed process itself
        if model is not None:
            raise ValueError("the exact path of a score of other moments has no closed form here: use a kernel with steps")
        return times, path_autocorrelation(values, process, turn_time, times)
    score = _modal_score(values, process, model)
    factors = [np.full(len(values), float(process.alpha(turn_time)))]
    for t, s in pairwise(times):
        factors.append(_affine_step(kernel, score, t, s)[0] * factors[-1])
    return times, np.array(factors) @ values / values.sum()


def autocorrelation_discrete(
    eigenvalues: ArrayLike,
    process: Process,
    kernel: ReverseKernel,
    grid: ArrayLike,
    turn_times: Sequence[float],
    *,
    model: ArrayLike | None = None,
) -> Array:
    r"""Return the auto-correlation through the same steps as a simulation.

    Every step of every kernel is affine in state and noise when the score is affine, :math:`x_s = a\,x_t + b\,z` mode by mode;
    the coefficients are read off the kernel's own step, and :math:`\mathrm{Cov}(x_0, x_s)` is their product.

    Parameters
    ----------
    eigenvalues : array
        Variance of the data along each mode, shape (modes,).
    process : Process
        The forward process.
    kernel : ReverseKernel
        The reverse kernel.
    grid : array
        Descending times to 0, on which every turn time is a point, shape (steps + 1,).
    turn_times : sequence of float
        Turn times.
    model : array, optional
        Eigenvalues of the score's own covariance where it is not the data's.

    Returns
    -------
    ndarray
        Shape (turn times,), dimensionless.

    Raises
    ------
    ValueError
        If a turn time is not on the grid.

    References
    ----------
    Pierret & Galerne, arXiv 2405.14250, for the same recursion on the law of linear samplers.

    Examples
    --------
    >>> from gaussian_test.sampler import ReverseSDE, VarianceExploding
    >>> kernel = ReverseSDE(clock="variance")
    >>> round(float(autocorrelation_discrete([3.0, 1.0], VarianceExploding(), kernel, [1.0, 0.0], [1.0])[0]), 12)
    0.6875
    """
    values = np.asarray(eigenvalues, dtype=np.float64)
    signal, _ = discrete_law(eigenvalues, process, kernel, grid, turn_times, model=model)
    result: Array = signal @ values / values.sum()
    return result


def discrete_law(
    eigenvalues: ArrayLike,
    process: Process,
    kernel: ReverseKernel,
    grid: ArrayLike,
    turn_times: Sequence[float],
    *,
    model: ArrayLike | None = None,
) -> tuple[Array, Array]:
    r"""Return the law of a discretised U-Turn per mode: the factor of :math:`x_0` in the end point, and the end's variance.

    Parameters
    ----------
    eigenvalues, process, kernel, grid, turn_times, model
        As in :func:`autocorrelation_discrete`.

    Returns
    -------
    tuple of ndarray
        Factor (dimensionless) and variance (units of the eigenvalues), both (turn times, modes).

    Raises
    ------
    ValueError
        If a turn time is not on the grid.

    Examples
    --------
    >>> from gaussian_test.sampler import ExactReversal, VarianceExploding
    >>> factor, variance = discrete_law([3.0], VarianceExploding(), ExactReversal(), [1.0, 0.0], [1.0])
    >>> factor.round(12).tolist(), variance.round(12).tolist()
    ([[0.75]], [[3.0]])
    """
    values = np.asarray(eigenvalues, dtype=np.float64)
    back, noise = composed_steps(values if model is None else model, process, kernel, grid, turn_times)
    turns = torch.tensor(turn_times, dtype=torch.float64)
    factor = back * process.alpha(turns).numpy()[:, None]
    return factor, factor**2 * values + back**2 * process.sigma(turns).numpy()[:, None] ** 2 + noise


def composed_steps(
    model: ArrayLike, process: Process, kernel: ReverseKernel, grid: ArrayLike, turn_times: Sequence[float]
) -> tuple[Array, Array]:
    r"""Compose the whole reverse run into one step, :math:`\tilde x_0 = a\,x_T + \sqrt b\,z` mode by mode, for a mean of 0.

    Raises
    ------
    ValueError
        If a turn time is not on the grid.

    Examples
    --------
    >>> from gaussian_test.sampler import ExactReversal, VarianceExploding
    >>> a, b = composed_steps([3.0], VarianceExploding(), ExactReversal(), [1.0, 0.0], [1.0])
    >>> a.tolist(), b.round(12).tolist()
    ([[0.75]], [[0.75]])
    """
    spectrum, times = np.asarray(model, dtype=np.float64), np.asarray(grid, dtype=np.float64)
    score = _modal_score(spectrum, process, None)
    positions = [_position(times, turn) for turn in turn_times]
    steps = (
        {}
        if kernel.exact
        else {k: _affine_step(kernel, score, times[k], times[k + 1]) for k in range(min(positions), len(times) - 1)}
    )
    factors, variances = [], []
    for turn, position in zip(turn_times, positions, strict=True):
        factor, variance = np.ones(len(spectrum)), np.zeros(len(spectrum))
        path = [_affine_step(kernel, score, turn, 0.0)] if kernel.exact else [steps[k] for k in range(position, len(times) - 1)]
        for a, b in path:
            factor, variance = a * factor, a**2 * variance + b**2
        factors.append(factor)
        variances.append(variance)
    return np.array(factors), np.array(variances)


def _modal_score(values: Array, process: Process, model: ArrayLike | None) -> GaussianScore:
    spectrum = values if model is None else model
    return GaussianScore.from_moments(np.zeros(len(values)), spectrum=spectrum, process=process, dtype=torch.float64)


def _position(grid: Array, turn: float) -> int:
    position = int(np.abs(grid - turn).argmin())
    if not np.isclose(grid[position], turn, rtol=1e-9, atol=0):
        raise ValueError(f"turn time {turn:g} is not on the grid: use the grid of the plan that simulates it")
    return position


def _affine_step(kernel: ReverseKernel, score: GaussianScore, t: float, s: float) -> tuple[Array, Array]:
    """Return the factors of state and noise in a step, mode by mode, by applying it to each of them alone."""
    modes = score.components.means.shape[1]
    state = torch.zeros(2, modes, dtype=torch.float64)
    normal = torch.zeros_like(state)
    state[0], normal[1] = 1, 1
    moved = kernel.step(score, state, float(t), float(s), Noise(normal, torch.zeros(2, dtype=torch.float64)))
    return moved[0].numpy(), moved[1].numpy()
