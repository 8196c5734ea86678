r"""Chains of U-Turns, :math:`x(0)\to x(1)\to\dots`, and their auto-correlation time.

Under the exact score and the reverse SDE a U-Turn is reversible and preserves the law of the data. The chain is a Monte Carlo
sampler of the data, stationary from its first state. Its auto-correlation and the number of U-Turns per independent sample are

.. math:: C(k) = \frac{\mathbb E[(x(j)-\mu)\cdot(x(j+k)-\mu)]}{\mathrm{tr}\,\Sigma},\qquad \tau = 1 + 2\sum_{k\ge1}C(k).

Under the affine Gaussian score mode i is an auto-regression of factor :math:`W_i=\lambda_i/(\lambda_i+\nu^2)`, for any data with
these moments. A U-Turn is a forward step followed by its own reversal, hence :math:`C(k)\ge0`.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from gaussian_test.analysis.declarations import NO_LABELS, ONE_CLASS, declared
from gaussian_test.analysis.moments.moments import Moments, evenly_spaced
from gaussian_test.analysis.observables.chains import BAND, INTERVAL, VARIABLES, WINDOW
from gaussian_test.analysis.observables.record import Inputs, Shard
from gaussian_test.analysis.statistics.bootstrap import Band, ClusterBootstrap
from gaussian_test.locks import numpy_defaults
from gaussian_test.sampler import KeyedNoise, Noise, UTurnPlan

Array = NDArray[np.float64]

STREAM = 16  # of the keyed noise, for the first U-Turn of a chain; later ones use the next streams
BLOCK_ELEMENTS = 2**22  # of states held in float64 at once


def chain_products(states: Tensor | NDArray[np.floating], moments: Moments) -> Array:
    r"""Return the products of the states of each chain, :math:`(x(j)-\mu)\cdot(x(k)-\mu)/\mathrm{tr}\,\Sigma`.

    Auto-correlations need no more than these; the first row holds the products with the start.

    Parameters
    ----------
    states : Tensor or ndarray
        From the start on, shape (length + 1, n, ``*event``).
    moments : Moments
        Mean and spectrum of the ground truth.

    Returns
    -------
    ndarray
        float64, shape (n, length + 1, length + 1), symmetric.

    Examples
    --------
    >>> moments = Moments(2, np.zeros(1), np.array([2.0]), np.eye(1))
    >>> chain_products(np.array([[[2.0]], [[1.0]]]), moments).tolist()
    [[[2.0, 1.0], [1.0, 0.5]]]
    """
    x = torch.as_tensor(states).flatten(2)
    mean = torch.from_numpy(moments.mean.reshape(-1)).to(x.device)
    products = torch.empty(x.shape[1], len(x), len(x), dtype=torch.float64)
    step = max(1, BLOCK_ELEMENTS // (len(x) * x.shape[2]))
    for first in range(0, x.shape[1], step):
        centered = (x[:, first : first + step].double() - mean).transpose(0, 1)
        products[first : first + step] = centered @ centered.mT / moments.trace
    return products.numpy()


def chain_autocorrelation(products: ArrayLike) -> Array:
    r"""Return the auto-correlation :math:`C(k)` of chains, over all pairs of states k U-Turns apart.

    Parameters
    ----------
    products : array
        As of :func:`chain_products`, shape (n, length + 1, length + 1). Their first row is the auto-correlation from the start
        alone.

    Returns
    -------
    ndarray
        One curve per chain, whose mean over chains is the estimate, shape (n, length + 1).

    Examples
    --------
    >>> chain_autocorrelation([[[1.0, 0.5], [0.5, 3.0]]]).tolist()
    [[2.0, 0.5]]
    """
    p = np.asarray(products, dtype=np.float64)
    return np.stack([np.diagonal(p, k, 1, 2).mean(1) for k in range(p.shape[1])], axis=1)


@numpy_defaults()
def chain_autocorrelation_gaussian(eigenvalues: ArrayLike, noise_to_signal: ArrayLike, length: int) -> Array:
    r"""Return the auto-correlation of chains under the Gaussian score: :math:`\sum_i\lambda_iW_i^k/\sum_i\lambda_i`.

    Parameters
    ----------
    eigenvalues : array
        Variance of the data along each mode, shape (modes,).
    noise_to_signal : array
        :math:`\nu` at the turn, any shape.
    length : int
        Number of U-Turns in a chain.

    Returns
    -------
    ndarray
        For exact reversal and the reverse SDE, shape of ``noise_to_signal`` + (length + 1,).

    Examples
    --------
    >>> chain_autocorrelation_gaussian([3.0, 1.0], 1.0, 2).tolist()
    [1.0, 0.6875, 0.484375]
    """
    values = np.asarray(eigenvalues, dtype=np.float64)
    gain = values / (values + np.asarray(noise_to_signal, dtype=np.float64)[..., None] ** 2)
    result: Array = gain[..., None, :] ** np.arange(length + 1)[:, None] @ values / values.sum()
    return result


class IntegratedTime(NamedTuple):
    """Integrated auto-correlation time in U-Turns, and the window of the sum; without a window: NaN, the length of the chain."""

    time: float
    window: int


def integrated_time(curve: ArrayLike) -> IntegratedTime:
    r"""Return the integrated auto-correlation time :math:`\tau=1+2\sum_{k=1}^MC(k)`, with a window that limits the noise.

    M is the smallest window that is at least :data:`WINDOW` times :math:`\tau(M)`, as Sokal proposed. The window also cuts off
    modes much slower than :math:`\tau`.

    Parameters
    ----------
    curve : array
        :math:`C(k)` from k = 0 on, shape (length + 1,).

    Returns
    -------
    IntegratedTime
        ``time`` :math:`\tau` in U-Turns and the ``window`` M; NaN and the length of the chain if the chain is too short.

    References
    ----------
    Sokal, Monte Carlo Methods in Statistical Mechanics, in: Functional Integration (1997), section 3.

    Examples
    --------
    >>> found = integrated_time(0.5 ** np.arange(40))
    >>> round(found.time, 3), found.window, integrated_time(0.9 ** np.arange(40))
    (3.0, 15, IntegratedTime(time=nan, window=39))
    """
    times = _partial_times(np.asarray(curve, dtype=np.float64))
    # as emcee.autocorr, but of a curve whose mean and trace are known exactly, and NaN with its reason where emcee raises
    wide = np.flatnonzero(np.arange(len(times)) >= WINDOW * times)
    return IntegratedTime(float(times[wide[0]]), int(wide[0])) if len(wide) else IntegratedTime(np.nan, len(times) - 1)


def integrated_time_gaussian(eigenvalues: ArrayLike, noise_to_signal: ArrayLike) -> Array:
    r"""Return the integrated auto-correlation time of chains under the Gaussian score.

    .. math:: \tau_G=\frac{\sum_i\lambda_i\frac{1+W_i}{1-W_i}}{\sum_i\lambda_i}=1+\frac{2\sum_i\lambda_i^2}{\nu^2\sum_i\lambda_i}

    Parameters
    ----------
    eigenvalues : array
        Variance of the data along each mode, shape (modes,).
    noise_to_signal : array
        :math:`\nu` at the turn, positive, any shape.

    Returns
    -------
    ndarray
        For exact reversal and the reverse SDE, in U-Turns, shape of ``noise_to_signal``.

    Examples
    --------
    >>> integrated_time_gaussian([3.0, 1.0], [1.0, 2.0]).tolist()
    [6.0, 2.25]
    """
    values = np.asarray(eigenvalues, dtype=np.float64)
    result: Array = 1 + 2 * (values**2).sum() / values.sum() / np.asarray(noise_to_signal, dtype=np.float64) ** 2
    return result


def class_persistence(labels: ArrayLike, shares: ArrayLike) -> Array:
    r"""Return the class retention of chains, :math:`(P_{same}(k)-P_\infty)/(1-P_\infty)`, over all pairs k U-Turns apart.

    Parameters
    ----------
    labels : array
        Class of each state from the start on, integers from 0, shape (length + 1, n).
    shares : array
        Share of each class in the data, :math:`P_\infty=\sum_a\pi_a^2`, shape (classes,).

    Returns
    -------
    ndarray
        One curve per chain, whose mean over chains is the estimate, shape (n, length + 1).

    Raises
    ------
    ValueError
        If a label is negative or there is only one class.

    Examples
    --------
    >>> class_persistence([[0, 1], [0, 0]], [0.5, 0.5]).tolist()
    [[1.0, 1.0], [1.0, -1.0]]
    """
    classes = np.asarray(labels)
    if classes.min() < 0:
        raise ValueError(f"label {classes.min()} is no class: give integers from 0, for every state")
    chance = _by_chance(shares)
    if chance == 1:
        raise ValueError("a single class is always retained: give the shares of at least 2 classes")
    return (_same_class(classes.T) - chance) / (1 - chance)


def chain_table(
    products: xr.DataArray,
    labels: xr.DataArray,
    eigenvalues: ArrayLike,
    noise_to_signal: ArrayLike,
    shares: ArrayLike | None,
    resample: ClusterBootstrap,
) -> xr.Dataset:
    r"""Return auto-correlation, its integrated time and class retention along chains.

    Parameters
    ----------
    products : DataArray
        As of :func:`chain_products`, dimensions score, turn time, start, state and state, in this order and of any name.
    labels : DataArray
        Class of each state, dimensions score, turn time, start and state; -1 where there are no classes.
    eigenvalues : array
        Of the ground-truth covariance, shape (modes,).
    noise_to_signal : array
        :math:`\nu` at the turn times, shape (turn times,).
    shares : array or None
        Share of each class in the data, shape (classes,).
    resample : ClusterBootstrap
        Of the starts.

    Returns
    -------
    Dataset
        ``autocorrelation`` and ``class_retention`` over (score, turn_time, step) with bands simultaneous over the steps,
        ``autocorrelation_gaussian`` over (turn_time, step), ``autocorrelation_time`` over (score, turn_time) with an interval at
        each turn time, and ``autocorrelation_time_gaussian``. Where a chain is too short for its time, it is NaN, ``_high`` is
        infinite, ``_low`` is that of the sum over the whole chain, and an attribute ``reason`` says so.

    Examples
    --------
    >>> from gaussian_test.analysis import reasons_of
    >>> random = np.random.default_rng(0)
    >>> states = random.normal(size=(9, 100, 3))  # a chain that forgets all at once
    >>> p = chain_products(states, Moments(100, np.zeros(3), np.ones(3), np.eye(3)))
    >>> dims = ("score", "turn_time", "sample", "state", "other")
    >>> none = xr.DataArray(np.full((1, 1, 100, 9), -1), dims=dims[:4])
    >>> table = chain_table(xr.DataArray(p[None, None], dims=dims), none, np.ones(3), [9.0], None, ClusterBootstrap(100, 200))
    >>> table.autocorrelation_time.values.round().tolist(), reasons_of(table.class_retention)
    ([[1.0]], {'': 'the data set has no labels'})
    """
    rows, length, scores = products.shape[:2], products.shape[3] - 1, products[products.dims[0]].values
    no_classes = _no_classes(labels, shares)
    correlation, retention = np.full((2, 4, *rows, length + 1), np.nan)
    times = np.full((3, *rows), np.nan)
    for row in np.ndindex(rows):
        curves = chain_autocorrelation(products[row].values)
        correlation[(slice(None), *row)] = _columns(resample.band(curves))
        times[(slice(None), *row)] = _time(curves, resample)
        if shares is not None and not no_classes:
            retention[(slice(None), *row)] = _retention(labels[row].values, shares, resample)
    values = {f"autocorrelation{suffix}": column for suffix, column in zip(("", *BAND), correlation, strict=True)}
    values |= {f"class_retention{suffix}": column for suffix, column in zip(("", *BAND), retention, strict=True)}
    values |= {f"autocorrelation_time{suffix}": column for suffix, column in zip(("", *INTERVAL), times, strict=True)}
    values["autocorrelation_gaussian"] = chain_autocorrelation_gaussian(eigenvalues, noise_to_signal, length)
    values["autocorrelation_time_gaussian"] = integrated_time_gaussian(eigenvalues, noise_to_signal)
    short = f"{length} U-Turns are fewer than {WINDOW} auto-correlation times at"
    counts = {str(score): int(np.isnan(of_score).sum()) for score, of_score in zip(scores, times[0], strict=True)}
    reasons = {
        "class_retention": {"": no_classes},
        "autocorrelation_time": {
            score: f"{short} {count} turn time{'s' if count > 1 else ''}" for score, count in counts.items() if count
        },
    }
    return declared(VARIABLES, values, {"step": np.arange(length + 1), "score": ("score", scores)}, reasons)


def levels_of(plan: UTurnPlan, count: int) -> list[int]:
    """Return the indices of evenly spaced turn times that get chains.

    Examples
    --------
    >>> from gaussian_test.sampler import VarianceExploding
    >>> levels_of(UTurnPlan(VarianceExploding(), [0.1, 0.5, 1.0, 2.0, 5.0]), 3)
    [0, 2, 4]
    """
    places: list[int] = evenly_spaced(len(plan.levels), count).tolist()
    return places


def runs(shard: Shard) -> xr.Dataset:
    """Run chains of U-Turns; return inner products of their states, and their classes."""
    levels, x0 = levels_of(shard.plan, shard.options.turn_times), shard.starts("noised_data")
    products, classes = [], []
    for name in shard.scores:
        states = [x0.expand(len(levels), *x0.shape)]
        for link in range(shard.options.length):
            states.append(_next_link(shard, name, levels, states[-1], STREAM + link))
        chain = torch.stack(states, 1)
        products.append([chain_products(of_level, shard.reference.moments) for of_level in chain])
        found = [shard.reference.classes(state.flatten(0, 1)).reshape(len(levels), -1) for state in states]
        classes.append(np.stack(found, -1))
    dims = ("score", "chain_turn", "kept", "link")
    return xr.Dataset({"chain_product": ((*dims, "link_other"), np.array(products)), "chain_label": (dims, np.array(classes))})


def _next_link(shard: Shard, name: str, levels: list[int], states: Tensor, stream: int) -> Tensor:
    """Return the ends of one U-Turn from the states of every chain, (levels, n, *event); all levels share the noise."""
    plan, kernel, score, samples = shard.plan, shard.kernels[name], shard.scores[name], shard.samples
    steps = plan.reverse_steps()
    if not kernel.exact:
        ends = []
        for turn, x0 in zip(levels, states, strict=True):
            count = steps[turn] if plan.grid_of == "turn_times" else plan.steps
            link = replace(plan, turn_times=[plan.levels[turn]], steps=count, repeats=1, stream=stream)
            ends.append(shard.ends(link, x0, (name,))[name][0])
        return torch.stack(ends)
    # merge the exact steps of all levels to fill the device
    noise = KeyedNoise(plan.seed, samples, 1, tuple(states.shape[2:]), states.device, states.dtype, stream)
    forward, at_end = noise.draw(), noise.draw()
    t = torch.tensor([plan.levels[turn] for turn in levels], dtype=torch.float64).repeat_interleave(len(samples))
    normal, end_normal, uniform = (
        value.repeat(len(levels), *(1,) * (value.ndim - 1)) for value in (forward.normal, at_end.normal, at_end.uniform)
    )
    x = plan.process.noised(states.flatten(0, 1), t, normal)
    label = shard.labels[name].repeat(len(levels)) if name in shard.labels else None
    end = torch.empty_like(x)
    for start in range(0, len(x), plan.micro_batch):
        rows = slice(start, start + plan.micro_batch)
        given = Noise(end_normal[rows], uniform[rows])
        end[rows] = kernel.step(score, x[rows], t[rows], 0.0, given, None if label is None else label[rows])
    return end.reshape(states.shape)


def measure(inputs: Inputs) -> dict[str, xr.Dataset]:
    """Return the chains of a run, as a separate group."""
    levels = levels_of(inputs.plan, inputs.options["chains"].turn_times)
    table, nu = inputs.table, inputs.noise_to_signal[levels]
    eigenvalues, resample = inputs.reference.moments.eigenvalues, inputs.resample(table.sizes["kept"])
    found = chain_table(table["chain_product"], table["chain_label"], eigenvalues, nu, inputs.truth.class_shares, resample)
    turn_times = np.array(inputs.plan.levels)[levels]
    return {"chains": found.assign_coords(turn_time=("turn_time", turn_times), noise_to_signal=("turn_time", nu))}


def _partial_times(curves: Array) -> Array:
    """Return 1 + 2 sum of C(k) for k = 1 ... M, for every M along the last axis."""
    times: Array = 1 + 2 * (np.cumsum(curves, axis=-1) - curves[..., :1])
    return times


def _time(curves: Array, resample: ClusterBootstrap) -> Array:
    """Return the integrated time with its interval, using the window of the estimate."""
    estimate, window = integrated_time(curves.mean(0))
    band = resample.band(_partial_times(curves)[:, [window]])
    # correlations are not negative: a truncated sum is a lower bound
    return np.array([estimate, band.low[0], band.high[0] if np.isfinite(estimate) else np.inf])


def _columns(band: Band) -> Array:
    return np.stack([band.estimate, band.standard_error, band.low, band.high])


def _same_class(labels: NDArray[np.integer]) -> Array:
    """Return the share of pairs of states k U-Turns apart with the same class, for labels (n, length + 1)."""
    length = labels.shape[1]
    return np.stack([(labels[:, : length - k] == labels[:, k:]).mean(1) for k in range(length)], axis=1)


def _by_chance(shares: ArrayLike) -> float:
    return float((np.asarray(shares, dtype=np.float64) ** 2).sum())


def _retention(labels: NDArray[np.integer], shares: ArrayLike, resample: ClusterBootstrap) -> Array:
    """Return the class retention with its band, which is exact at the start."""
    chance = _by_chance(shares)
    band = _columns(resample.share_band(_same_class(labels)[:, 1:]))
    band[[0, 2, 3]] -= chance
    return np.concatenate([[[1.0], [0.0], [1.0], [1.0]], band / (1 - chance)], axis=1)


def _no_classes(labels: xr.DataArray, shares: ArrayLike | None) -> str:
    """Return why class retention is undefined; empty if it is defined."""
    if shares is None or labels.min() < 0:
        return NO_LABELS
    return ONE_CLASS if _by_chance(shares) == 1 else ""
