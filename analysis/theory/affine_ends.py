r"""Direct draws of the Gaussian score's discretised U-Turns.

Every step of every kernel is affine for an affine score, mode by mode :math:`x_s = a\,x_t + b\,z + c\,\mu`. So is their
composition: hundreds of steps reduce to one multiplication and one normal variable.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gaussian_test.analysis.moments.moments import Moments
from gaussian_test.analysis.theory.closed_form import composed_steps
from gaussian_test.analysis.theory.samplers import mean_ends
from gaussian_test.sampler import KeyedNoise, ReverseKernel, UTurnPlan


def affine_uturns(moments: Moments, x0: Tensor, samples: Sequence[int], plan: UTurnPlan, kernel: ReverseKernel) -> Tensor:
    r"""Draw end points of U-Turns under the Gaussian score from their exact law through the steps of a plan.

    .. math:: \tilde x_0 = A_T\,(\alpha_Tx_0 + \sigma_Tz) + B_T\,z' + C_T\,\mu

    with :math:`A, B, C` functions of the covariance, composed of the kernel's own steps.

    Parameters
    ----------
    moments : Moments
        Of the Gaussian.
    x0 : Tensor
        Samples to start from, shape (n, ``*event``), float32 or float64, on the device on which to compute.
    samples : sequence of int
        Their indices: the key of their noise. :math:`z` is the noise of the plan's own turns, :math:`z'` that of its exact ends.
    plan : UTurnPlan
        Process, grid, turn times and seed; it has one repeat.
    kernel : ReverseKernel
        The reverse kernel.

    Returns
    -------
    Tensor
        Shape (turn times, n, ``*event``). For each turn time start and end have the joint law of a simulation with all its steps;
        the ends of *different* turn times share :math:`z'`, as no simulation's do.

    Raises
    ------
    ValueError
        If shapes or numbers do not match, or the plan has repeats.

    References
    ----------
    Pierret & Galerne, arXiv 2405.14250, for the recursion.

    Examples
    --------
    >>> from gaussian_test.sampler import ExactReversal, VarianceExploding
    >>> moments = Moments(9, np.zeros(1), np.array([3.0]), np.ones((1, 1)))
    >>> plan = UTurnPlan(VarianceExploding(), [3e-3, 1.0])
    >>> affine_uturns(moments, torch.tensor([[2.0]]), [0], plan, ExactReversal())[0].round(decimals=1)
    tensor([[2.]])
    """
    if plan.repeats != 1:
        raise ValueError(f"a plan of {plan.repeats} repeats: give one of 1, and other seeds for more")
    if len(x0) != len(samples) or tuple(x0.shape[1:]) != moments.event_shape:
        raise ValueError(
            f"{len(samples)} indices and states of shape {tuple(x0.shape)} do not match a Gaussian on {moments.event_shape}: "
            "give one index per state"
        )
    noise = KeyedNoise(plan.seed, samples, 1, moments.event_shape, x0.device, x0.dtype, plan.stream)
    vectors = torch.from_numpy(moments.eigenvectors).to(x0)
    start, forward, last, mean = (
        _split(part.flatten(1), vectors)
        for part in (x0, noise.draw().normal, noise.draw().normal, torch.from_numpy(moments.mean[None]).to(x0))
    )
    # one more mode, of variance 0, for directions in which the data do not vary
    spectrum, turns = np.append(moments.eigenvalues, 0.0), np.array(plan.levels)
    factors, variances = composed_steps(spectrum, plan.process, kernel, plan.grid, plan.levels)
    # for a mean of 1 along every mode, and a state at 0
    unit, nothing = np.ones_like(spectrum), np.zeros_like(factors)
    offsets, _ = mean_ends(plan.process, kernel, plan.grid, turns, nothing, unit, spectrum)
    ends = x0.new_empty(len(plan.levels), len(x0), mean[1].shape[1])
    for index, turn in enumerate(plan.levels):
        alpha, sigma = float(plan.process.alpha(turn)), float(plan.process.sigma(turn))
        factor, scale, offset = (torch.from_numpy(values[index]).to(x0) for values in (factors, np.sqrt(variances), offsets))
        modes, rest = (
            f * (alpha * start[part] + sigma * forward[part]) + s * last[part] + o * mean[part]
            for part, f, s, o in ((0, factor[:-1], scale[:-1], offset[:-1]), (1, factor[-1], scale[-1], offset[-1]))
        )
        ends[index] = torch.addmm(rest, modes, vectors.T)
    return ends.reshape(len(plan.levels), *x0.shape)


def _split(x: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return coordinates along the modes, and the remainder outside their span."""
    modes = x @ vectors
    outside = x - modes @ vectors.T if vectors.shape[1] < vectors.shape[0] else x.new_zeros(1, x.shape[1])
    return modes, outside
