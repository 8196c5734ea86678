r"""Statistics of paths that come one time after the other: what a tensor (time, sample, event) would give, without the tensor."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from gaussian_test.analysis.moments.moments import Moments
from gaussian_test.analysis.observables.normality.lilliefors import ks_distance
from gaussian_test.analysis.uturn.autocorrelation import sample_norms, sample_products


def path_statistics(
    states: Iterable[ArrayLike], reference: ArrayLike, moments: Moments, times: ArrayLike, amplitude: ArrayLike = 1.0
) -> xr.Dataset:
    r"""Return correlation with a reference, mean norm and normality of states at successive times, in one pass.

    .. math:: C(t) = \frac{\mathbb E[(x_0-\mu)\cdot(x_t-\alpha_t\mu)]}{\mathrm{tr}\,\Sigma},\qquad \mathbb E|x_t|,\qquad
              \frac1d\sum_i D_i(t)

    with :math:`D_i` of :func:`ks_distance`. Of scores instead of states the norm is the SF norm.

    Parameters
    ----------
    states : iterable of array
        At each of the times, shape (samples, ``*event``), in the unit of the data; each is done with before the next is asked for.
    reference : array
        Samples at time 0 to correlate with, shape (samples, ``*event``).
    moments : Moments
        Mean and spectrum of the ground truth.
    times : array
        Shape (times,), in the time of the process: a coordinate.
    amplitude : array
        :math:`\alpha_t` of the states, a number or shape (times,).

    Returns
    -------
    Dataset
        ``autocorrelation``, ``norm`` and ``ks_mean`` over (time), float64; features that do not vary are left out of the last.

    Raises
    ------
    ValueError
        If there are not as many states as times, their shapes do not fit the reference, or samples are fewer than 4.

    References
    ----------
    Behjoo & Chertkov, arXiv 2308.07421.

    Examples
    --------
    >>> from gaussian_test.analysis import fit_moments
    >>> x = np.random.default_rng(0).normal(size=(50, 3))
    >>> path_statistics((x, x / 2), x, fit_moments(x), [0.0, 1.0], amplitude=[1.0, 0.5]).autocorrelation.values.round(12).tolist()
    [1.0, 0.5]
    """
    t = np.asarray(times, dtype=np.float64)
    factors = np.broadcast_to(np.asarray(amplitude, dtype=np.float64), t.shape)
    mean = moments.mean.reshape(-1)
    start = np.asarray(reference, dtype=np.float64).reshape(len(np.asarray(reference)), -1) - mean
    offset = start @ mean
    rows = np.empty((len(t), 3))
    count = 0
    for state in states:
        if (count := count + 1) > len(t):
            break
        x = np.asarray(state)
        x = x.reshape(len(x), -1)
        if x.shape != start.shape:
            raise ValueError(f"states of shape {x.shape} do not fit a reference of shape {start.shape}: give the same samples")
        distance = ks_distance(x)
        rows[count - 1] = (
            (sample_products(start, x) - factors[count - 1] * offset).mean() / moments.trace,
            sample_norms(x).mean(),
            np.nanmean(distance) if not np.isnan(distance).all() else np.nan,
        )
    if count != len(t):
        raise ValueError(f"{'more' if count > len(t) else count} states do not match {len(t)} times: give one for each")
    columns = {
        "autocorrelation": ("auto-correlation with the reference (centred, in units of the total variance)", rows[:, 0]),
        "norm": ("mean norm of the states", rows[:, 1]),
        "ks_mean": ("mean Kolmogorov-Smirnov distance of the features from a fitted normal", rows[:, 2]),
    }
    return xr.Dataset(
        {name: ("time", values, {"long_name": title, "units": "1"}) for name, (title, values) in columns.items()},
        coords={"time": t},
    )
