"""Sample quality against turn time, with confidence bands."""

from collections.abc import Callable, Iterable

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from gaussian_test.analysis.declarations import Variable, declared, described
from gaussian_test.analysis.moments.moments import Moments
from gaussian_test.analysis.observables.quality import BETWEEN, VARIABLES, of_distances
from gaussian_test.analysis.observables.quality.distances import (
    Distance,
    Population,
    distance_from,
    frechet,
    frechet_between,
    null_distance,
)
from gaussian_test.analysis.observables.quality.numerics import (
    checked,
    embedding,
    excess_of_partners,
    gram_of_starts,
    paired,
    polynomial,
)
from gaussian_test.analysis.observables.record import Inputs
from gaussian_test.analysis.statistics.bootstrap import ClusterBootstrap

Array = NDArray[np.float64]


def principal_features(moments: Moments, components: int | None) -> Callable[[ArrayLike], Array]:
    r"""Return the map from flat samples to features: the leading principal coordinates :math:`U^\top(x-\mu)`, or the pixels.

    Parameters
    ----------
    moments : Moments
        Of the ground truth.
    components : int or None
        Number of coordinates, at most that of the modes; None for the raw pixels.

    Returns
    -------
    callable
        From (rows, d) to (rows, components), float64.

    Raises
    ------
    ValueError
        If there are fewer modes.

    Examples
    --------
    >>> from gaussian_test.analysis.moments.moments import fit_moments
    >>> features = principal_features(fit_moments(np.array([[3.0, 0.0], [-1.0, 0.0]])), 1)
    >>> abs(features([[3.0, 5.0]])).round(12).tolist()
    [[2.0]]
    """
    if components is None:
        return lambda x: np.asarray(x, dtype=np.float64)
    modes = moments.eigenvectors.shape[1]
    if not 1 <= components <= modes:
        raise ValueError(f"{components} components are asked of {modes} modes: give a number from 1 to {modes}, or none for pixels")
    mean, vectors = moments.mean.reshape(-1), moments.eigenvectors[:, :components]

    def features(x: ArrayLike) -> Array:
        coordinates: Array = (np.asarray(x, dtype=np.float64) - mean) @ vectors
        return coordinates

    return features


def sample_quality(
    features: xr.DataArray, truth: Population | ArrayLike, resample: ClusterBootstrap, *, starts: ArrayLike | None = None
) -> xr.Dataset:
    """Return the distances of end points from the ground truth against the turn time, with simultaneous bands.

    Parameters
    ----------
    features : DataArray
        Of the end points, dimensions (score, turn_time, sample, repeat, feature).
    truth : Population or array
        Features of the whole ground-truth set, shape (N, feature).
    resample : ClusterBootstrap
        Of the samples: gives the quantile of the largest deviation over the turn times, at its confidence level.
    starts : array of int, optional
        As in :func:`frechet`.

    Returns
    -------
    Dataset
        ``frechet``, ``frechet_plug_in`` and ``kid`` with ``_se``, ``_low`` and ``_high`` over (score, turn_time), and the
        pseudo-values ``sample_frechet`` and ``sample_kid`` over (score, turn_time, sample).

    Raises
    ------
    ValueError
        If dimensions do not fit, values are not finite or there are fewer than 4 samples.

    Examples
    --------
    >>> numbers = np.random.default_rng(0).normal(size=(1, 2, 50, 1, 3))
    >>> features = xr.DataArray(numbers, dims=("score", "turn_time", "sample", "repeat", "feature"))
    >>> result = sample_quality(features, np.random.default_rng(1).normal(size=(200, 3)), ClusterBootstrap(50, 200))
    >>> bool((result.frechet_low < result.frechet).all())
    True
    """
    population = truth if isinstance(truth, Population) else Population(truth)
    x = _arranged(features, resample)
    distances = {
        "frechet": [[frechet(ends, population, starts=starts) for ends in score] for score in x],
        "kid": [[kid(ends, population, starts=starts) for ends in score] for score in x],
    }
    return _curves(distances, VARIABLES, features, resample)


def start_sensitivity(features: xr.DataArray, other: xr.DataArray, resample: ClusterBootstrap) -> xr.Dataset:
    """Return the distances between the end points of two starts of the reverse process, with simultaneous bands.

    Parameters
    ----------
    features, other : DataArray
        Of the end points from either start, the same noise at the same sample and repeat; dimensions (score, turn_time, sample,
        repeat, feature).
    resample : ClusterBootstrap
        As in :func:`sample_quality`.

    Returns
    -------
    Dataset
        As of :func:`sample_quality`, under ``start_frechet``, ``start_kid``, ``sample_start_frechet`` and so on.

    Raises
    ------
    ValueError
        If shapes do not fit, values are not finite or there are fewer than 4 samples.

    Examples
    --------
    >>> numbers = np.random.default_rng(0).normal(size=(1, 2, 50, 1, 3))
    >>> features = xr.DataArray(numbers, dims=("score", "turn_time", "sample", "repeat", "feature"))
    >>> result = start_sensitivity(features, features + 1.0, ClusterBootstrap(50, 200))
    >>> result.start_frechet.values.round(6).tolist()
    [[3.0, 3.0]]
    """
    x, y = _arranged(features, resample), _arranged(other, resample)
    if x.shape != y.shape:
        raise ValueError(f"end points of shapes {x.shape} and {y.shape} cannot be paired: give two runs of the same plan")
    distances = {
        "start_frechet": [[frechet_between(*ends) for ends in zip(*score, strict=True)] for score in zip(x, y, strict=True)],
        "start_kid": [[kid_between(*ends) for ends in zip(*score, strict=True)] for score in zip(x, y, strict=True)],
    }
    return _curves(distances, of_distances("start_{kind}", BETWEEN), features, resample)


DIMS = ("score", "turn_time", "sample", "repeat", "feature")


def _arranged(features: xr.DataArray, resample: ClusterBootstrap) -> Array:
    if set(features.dims) != set(DIMS):
        raise ValueError(f"the features have dimensions {features.dims}: give them over {DIMS}")
    if (samples := features.sizes["sample"]) != resample.clusters:
        raise ValueError(f"{resample.clusters} samples are resampled and {samples} have end points: give as many of both")
    arranged: Array = features.transpose(*DIMS).values
    return arranged


def _curves(
    distances: dict[str, list[list[Distance]]], variables: Iterable[Variable], features: xr.DataArray, resample: ClusterBootstrap
) -> xr.Dataset:
    """Return distances by score and turn time as curves with bands, and their pseudo-values."""
    values: dict[str, xr.DataArray] = {}
    for name, rows in distances.items():
        edges = np.array([[one.interval(width) for one in row] for row in rows for width in [_critical(row, resample)]])
        columns = {
            name: np.array([[one.estimate for one in row] for row in rows]),
            f"{name}_se": np.array([[one.standard_error for one in row] for row in rows]),
            f"{name}_low": edges[..., 0],
            f"{name}_high": edges[..., 1],
        }
        if name.endswith("frechet"):
            columns[f"{name}_plug_in"] = np.array([[one.plug_in for one in row] for row in rows])
        values |= {full: xr.DataArray(column, dims=DIMS[:2]) for full, column in columns.items()}
        values[f"sample_{name}"] = xr.DataArray(np.array([[one.values for one in row] for row in rows]), dims=DIMS[:3])
    return declared(variables, values, {name: features[name] for name in DIMS[:3] if name in features.coords})


def measure(inputs: Inputs) -> dict[str, xr.Dataset]:
    """Return the sample quality of a run, and that of as many perfect draws."""
    table = inputs.table
    # starts of U-Turns are drawn without replacement, so ends correlated with them vary less than free draws
    starts = table["kept_sample"].values if inputs.start == "noised_data" else None
    found = sample_quality(inputs.end_features, inputs.population, inputs.resample(table.sizes["kept"]), starts=starts)
    floor = null_distance(inputs.population, table.sizes["kept"], seed=inputs.statistics.seed)
    found = found.rename(sample="kept").assign_coords(kept=("kept", table["kept_sample"].values))
    found = described(found.assign(frechet_floor=floor.mean, frechet_floor_high=floor.high), VARIABLES)
    return {"": inputs.on_features(found)}


def _critical(row: list[Distance], resample: ClusterBootstrap) -> float:
    """Return the quantile of the largest studentised deviation over the turn times."""
    band = resample.band(np.array([one.values for one in row]).T)
    varies = band.standard_error > 0
    if not varies.any():
        return float(ndtri((1 + resample.confidence) / 2))
    return float(((band.high - band.estimate)[varies] / band.standard_error[varies]).max())


def kid(
    features: ArrayLike,
    truth: Population | ArrayLike,
    *,
    degree: int = 3,
    gamma: float | None = None,
    coef0: float = 1.0,
    starts: ArrayLike | None = None,
) -> Distance:
    r"""Return the squared MMD of end points from the ground truth for :math:`k(a,b) = (\gamma\,a\cdot b + c_0)^d`, unbiased.

    Use pairs of different starts only, and the mean over the whole population: a U-statistic of the kernel

    .. math:: h(x, x') = k(x, x') - E\,k(x, y) - E\,k(x', y) + E\,k(y, y')

    Parameters
    ----------
    features : array
        Of the end points, shape (n, R, F): n starts, R repeats.
    truth : Population or array
        Features of the whole ground-truth set, shape (N, F).
    degree : int
        d.
    gamma : float, optional
        Default 1/F.
    coef0 : float
        :math:`c_0`.
    starts : array of int, optional
        As in :func:`frechet`.

    Returns
    -------
    Distance
        In the unit of the kernel.

    Raises
    ------
    ValueError
        If shapes do not fit, values are not finite or there are fewer than 4 starts.

    References
    ----------
    Bińkowski et al., arXiv 1801.01401; Gretton et al., J. Mach. Learn. Res. 13, 723 (2012).

    Examples
    --------
    >>> truth = np.array([[-1.0], [1.0]])
    >>> round(kid(np.full((5, 1, 1), 3.0), truth, degree=1).estimate, 12)  # a linear kernel sees the means alone
    9.0
    """
    population = truth if isinstance(truth, Population) else Population(truth)
    x = checked(features, population.features.shape[1])
    kernel = polynomial(degree, gamma, coef0, x.shape[2])
    embedded = embedding(x.reshape(-1, x.shape[2]), population.features, *kernel).reshape(x.shape[:2]).mean(1)
    gram = gram_of_starts(x, x, *kernel)
    missing = 0.0
    if starts is not None:
        origin = population.select(starts, len(x))
        own, joint = (excess_of_partners(gram_of_starts(side, origin, *kernel)) for side in (origin, x))
        missing = population.depleted(joint, excess_of_partners(gram), own, len(x))
    return _u_statistic(gram - embedded - embedded[:, None] + population.kernel_mean(*kernel), missing)


def kid_between(a: ArrayLike, b: ArrayLike, *, degree: int = 3, gamma: float | None = None, coef0: float = 1.0) -> Distance:
    r"""Return the squared MMD between two sets of end points that are paired start by start (common random numbers), unbiased.

    A U-statistic over pairs of starts, so that no row meets its partner, of the kernel
    :math:`h = k(a,a') + k(b,b') - k(a,b') - k(b,a')`.

    Parameters
    ----------
    a, b : array
        Features of end points, the same noise at the same index, shape (n, R, F).
    degree, gamma, coef0
        As in :func:`kid`.

    Returns
    -------
    Distance
        In the unit of the kernel.

    Raises
    ------
    ValueError
        If shapes do not fit, values are not finite or there are fewer than 4 starts.

    Examples
    --------
    >>> a = np.random.default_rng(0).normal(size=(100, 2, 3))
    >>> round(kid_between(a, a + [3.0, 0.0, 0.0], degree=1).estimate, 12)
    3.0
    """
    x, y = paired(a, b)
    kernel = polynomial(degree, gamma, coef0, x.shape[2])
    cross = gram_of_starts(x, y, *kernel)
    return _u_statistic(gram_of_starts(x, x, *kernel) + gram_of_starts(y, y, *kernel) - cross - cross.T)


def _u_statistic(kernel: Array, missing: float = 0.0) -> Distance:
    """Return the mean of a symmetric kernel over pairs of different starts; kernel (n, n)."""
    n = len(kernel)
    plug_in = float(kernel.mean())
    apart = kernel.copy()
    np.fill_diagonal(apart, 0.0)
    sums = apart.sum(0)
    values = 2 * sums / (n - 1) - sums.sum() / (n * (n - 1))
    # double centring without the diagonal: its mean square is unbiased (Székely & Rizzo 2014)
    apart -= (sums + sums[:, None]) / (n - 2) - sums.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(apart, 0.0)
    second_order = 2 * float((apart**2).sum()) / (n * (n - 3)) / (n * (n - 1))
    return distance_from(values, float(values.var(ddof=1)) / n, plug_in, plug_in - float(values.mean()), second_order, missing)
