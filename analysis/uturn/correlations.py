r"""Auto-correlations of named arrays: forward, reverse, U-Turn, two-time.

.. math:: C(a, b) = \frac{\mathbb E[(a-\mathbb E a)\cdot(b-\mathbb E b)]}{\mathrm{tr}\,\Sigma}
          \qquad\text{(uncentred: } \sum a\cdot b\big/\sum\|a\|^2\text{)}

Forward: :math:`x_t` against :math:`x_0`; reverse: :math:`x_t` against the end point; U-Turn: the end point against
:math:`x_0`; two-time: any two states of a path. A reverse correlation against the *start of the reverse run* contains no data,
only the sampler's noise.
"""

from collections.abc import Iterable
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from gaussian_test.analysis.moments.moments import Moments, event_dims
from gaussian_test.analysis.moments.running import real
from gaussian_test.analysis.observables.normality.lilliefors import ks_distance

Array = NDArray[np.float64]
Per = Literal["all", "sample", "mode"]


def autocorrelation(
    reference: xr.DataArray,
    state: xr.DataArray,
    moments: Moments,
    *,
    amplitude: float | xr.DataArray = 1.0,
    centred: bool = True,
    per: Per = "all",
) -> xr.DataArray:
    r"""Return the correlation of states with their samples.

    Parameters
    ----------
    reference : DataArray
        Samples at time 0 (starts or end points), dimensions (sample, ``*event``).
    state : DataArray
        States of the same samples, dimensions (..., sample, ``*event``): end points over turn times, or a path over times.
    moments : Moments
        Mean and spectrum of the ground truth.
    amplitude : float or DataArray
        :math:`\alpha_t` of the states (their mean is :math:`\alpha_t\mu`); over the leading dimensions of ``state``.
    centred : bool
        Subtract the means and divide by :math:`\mathrm{tr}\,\Sigma`; else divide :math:`\sum x_0\cdot x_t` by
        :math:`\sum\|x_0\|^2`, as the paper's authors' scripts do.
    per : {"all", "sample", "mode"}
        Averaged over samples; per sample; or averaged per mode, projected on :math:`u_i` and divided by :math:`\lambda_i`.

    Returns
    -------
    DataArray
        float64 over the leading dimensions of ``state``, with ``sample`` or ``mode`` if requested. Dimensionless.

    Raises
    ------
    ValueError
        If dimensions do not fit, or an uncentred correlation per mode is requested.

    References
    ----------
    Behjoo & Chertkov, arXiv 2308.07421.

    Examples
    --------
    >>> from gaussian_test.analysis import fit_moments
    >>> x = xr.DataArray(np.array([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), dims=("sample", "feature"))
    >>> float(autocorrelation(x, 0.5 * x, fit_moments(x)))
    0.5
    """
    dims = event_dims(len(moments.event_shape))
    if tuple(reference.dims) != ("sample", *dims) or tuple(state.dims[-1 - len(dims) :]) != ("sample", *dims):
        raise ValueError(
            f"dimensions {tuple(map(str, reference.dims))} and {tuple(map(str, state.dims))} do not fit: "
            f"give (sample, {', '.join(dims)}) and (..., sample, {', '.join(dims)})"
        )
    lead = state.dims[: -1 - len(dims)]
    a, b = _flat(reference, len(dims)).astype(np.float64), _flat(state, len(dims))
    mean = moments.mean.reshape(-1) if centred else np.zeros(a.shape[-1])
    factor = amplitude.transpose(*lead).values if isinstance(amplitude, xr.DataArray) else np.asarray(amplitude)
    factor = factor.reshape(*factor.shape, *(1,) * (b.ndim - 1 - factor.ndim))
    a = a - mean
    coords = {name: state.coords[name] for name in lead if name in state.coords}
    if per == "mode":
        if not centred:
            raise ValueError("per='mode' needs centred=True: the modes are those of the centred data")
        values = mode_products(a, b - factor[..., None] * mean, moments)
        return xr.DataArray(values, dims=(*lead, "mode"), coords=coords, attrs=_attributes(centred))
    # subtract the mean from the products: the states are too many
    products = sample_products(a, b) - factor * (a @ mean)
    scale = moments.trace if centred else float((a**2).sum()) / len(a)
    if per == "sample":
        coords |= {"sample": reference.coords["sample"]} if "sample" in reference.coords else {}
        return xr.DataArray(products / scale, dims=(*lead, "sample"), coords=coords, attrs=_attributes(centred))
    if per != "all":
        raise ValueError(f"per = {per!r} is unknown: choose 'all', 'sample' or 'mode'")
    return xr.DataArray(products.mean(-1) / scale, dims=lead, coords=coords, attrs=_attributes(centred))


def two_time(path: xr.DataArray, moments: Moments, *, amplitude: float | xr.DataArray = 1.0, time: str = "time") -> xr.DataArray:
    r"""Return the two-time correlation :math:`C(t, t')` along a path, for example the whole U-Turn, forward and back.

    Parameters
    ----------
    path : DataArray
        Dimensions (time, sample, ``*event``).
    moments : Moments
        Mean and spectrum of the ground truth.
    amplitude : float or DataArray
        :math:`\alpha_t` over the times.
    time : str
        Name of the time dimension.

    Returns
    -------
    DataArray
        float64, (time, time_other), in units of :math:`\mathrm{tr}\,\Sigma`.

    Examples
    --------
    >>> from gaussian_test.analysis import fit_moments
    >>> x = xr.DataArray(np.array([[1.0], [-1.0]]), dims=("sample", "feature"))
    >>> path = xr.concat([x, 2 * x], dim="time")
    >>> two_time(path, fit_moments(x)).values.tolist()
    [[1.0, 2.0], [2.0, 4.0]]
    """
    values = _flat(path.transpose(time, "sample", ...), len(moments.event_shape)).astype(np.float64)
    factor = amplitude.values if isinstance(amplitude, xr.DataArray) else np.full(len(values), float(amplitude))
    centered = (values - factor[:, None, None] * moments.mean.reshape(-1)).reshape(len(values), -1)
    matrix = centered @ centered.T / (values.shape[1] * moments.trace)
    return xr.DataArray(matrix, dims=(time, f"{time}_other"), attrs=_attributes(True))


def sample_products(a: Array, b: NDArray[np.floating]) -> Array:
    r"""Return :math:`a_n\\cdot b_n` for arrays (sample, feature) and (..., sample, feature): shape (..., sample).

    The states b are read once, in their own precision, and never copied.

    Examples
    --------
    >>> sample_products(np.ones((2, 3)), np.ones((5, 2, 3))).shape
    (5, 2)
    """
    return np.asarray(np.vecdot(b, a.astype(b.dtype, copy=False)), dtype=np.float64)


def sample_norms(x: NDArray[np.floating]) -> Array:
    r"""Return :math:`|x_n|` for states or scores (..., sample, feature): shape (..., sample), in their unit.

    Examples
    --------
    >>> sample_norms(np.array([[3.0, 4.0]])).tolist()
    [5.0]
    """
    return np.sqrt(np.asarray(np.vecdot(x, x), dtype=np.float64))


def mode_products(a: Array, b: Array, moments: Moments) -> Array:
    """Return the correlation of each mode, averaged over samples and divided by its eigenvalue: shape (..., mode).

    Modes of variance 0 give NaN: nothing is correlated there.

    Examples
    --------
    >>> from gaussian_test.analysis import fit_moments
    >>> x = np.array([[1.0], [-1.0]])
    >>> mode_products(x, 0.25 * x, fit_moments(x)).tolist()
    [0.25]
    """
    left, right = a @ moments.eigenvectors, b @ moments.eigenvectors
    average = (left * right).mean(-2)
    result: Array = np.divide(average, moments.eigenvalues, out=np.full_like(average, np.nan), where=moments.eigenvalues > 0)
    return result


def _flat(x: xr.DataArray, event_ndim: int) -> NDArray[np.floating]:
    values = x.values if x.dtype in (np.float32, np.float64) else real(x.values, np.float64)
    return values.reshape(*values.shape[: values.ndim - event_ndim], -1)


def _attributes(centred: bool) -> dict[str, str]:
    kind = "centred, in units of the total variance" if centred else "uncentred, in units of the mean squared norm"
    return {"long_name": f"auto-correlation ({kind})", "units": "1"}


def path_statistics(
    states: Iterable[ArrayLike], reference: ArrayLike, moments: Moments, times: ArrayLike, *, amplitude: ArrayLike = 1.0
) -> xr.Dataset:
    r"""Return correlation with a reference, mean norm and normality of states at successive times, in one pass.

    .. math:: C(t) = \frac{\mathbb E[(x_0-\mu)\cdot(x_t-\alpha_t\mu)]}{\mathrm{tr}\,\Sigma},\qquad \mathbb E|x_t|,\qquad
              \frac1d\sum_i D_i(t)

    with :math:`D_i` of :func:`ks_distance`. For scores instead of states the norm is the SF norm.

    Parameters
    ----------
    states : iterable of array
        At each of the times, shape (samples, ``*event``), in the unit of the data; each is processed before the next is requested.
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
    start = real(reference, np.float64)
    start = start.reshape(len(start), -1) - mean
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
