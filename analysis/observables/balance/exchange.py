r"""Tests that start and end of a U-Turn are exchangeable.

Under the exact score the reverse SDE (and exact reversal) draw :math:`\tilde x_0\sim p(x_0\mid x_T)`, hence
:math:`(x_0,\tilde x_0)\overset{d}{=}(\tilde x_0,x_0)`. For starts that are ground-truth samples the score must be that of the
ground truth: under the affine Gaussian score the tests also detect that the data are not Gaussian. All are randomization tests:
with signs :math:`s_i=\pm1` that keep or swap the pairs of start i, and a statistic S that is large where the order matters,

.. math:: p = \frac{1+\#\{\text{draws}: S(s)\ge S(1,\dots,1)\}}{1+\text{draws}}.

The level is exact at any number of starts. Only the first repeat of each start is tested: repeats share their start, and swapping
would turn it into a shared end. Starts drawn without replacement vary less than independent ones: the tests are then conservative.
End points that differ from their start by rounding count as unmoved.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics.pairwise import euclidean_distances

from gaussian_test.analysis.declarations import NO_LABELS, ONE_CLASS, declared, give_reasons, mask_undefined
from gaussian_test.analysis.moments.moments import evenly_spaced, event_dims
from gaussian_test.analysis.observables.balance import CHANGE, EXCHANGE, LARGEST
from gaussian_test.analysis.observables.balance.change import change_field, susceptibility_gaussian
from gaussian_test.analysis.observables.record import Inputs

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
Signs = NDArray[np.int8]

BLOCK_ELEMENTS = 2**22  # of signs held in float64 at once
CURRENTS = 8  # leading features whose pairwise currents are tested
ENERGY_STARTS = 1024  # starts in the energy test: its matrix grows with their square
ENERGY_BLOCK = 128  # columns of the matrix multiplied at once
STILL = 1e-5  # changes below this share of the largest feature are rounding of float32 states
ROUNDING = 1e-9  # draws within this distance below the observed statistic count as ties


@dataclass(frozen=True)
class Symmetry:
    """Outcome of a symmetry test under swaps of start and end.

    Attributes
    ----------
    statistic : float
        Observed statistic, dimensionless except for the energy distance.
    pvalue : float
        Randomization p-value, in (0, 1].
    largest : str
        Name of the largest of many statistics; empty if all are zero.
    mean, standard_error : float
        Mean and standard error of the largest statistic, over starts.
    """

    statistic: float
    pvalue: float
    largest: str = ""
    mean: float = np.nan
    standard_error: float = np.nan


def class_symmetry(label: ArrayLike, label_after: ArrayLike, classes: int, *, draws: int = 999, seed: int = 0) -> Symmetry:
    r"""Test that transitions between classes balance: :math:`\pi_aK_{ab}=\pi_bK_{ba}`.

    The statistic is Bowker's :math:`\sum_{a<b}(n_{ab}-n_{ba})^2/(n_{ab}+n_{ba})` over the transition counts.

    Parameters
    ----------
    label : array
        Class of each start, integers in [0, classes), shape (n,).
    label_after : array
        Class of each end point, shape (n, repeats); the first repeat is tested.
    classes : int
        Number of classes.
    draws, seed : int
        Number of random swaps, and their seed.

    Returns
    -------
    Symmetry

    Raises
    ------
    ValueError
        If a label is no class or the shapes do not fit.

    References
    ----------
    Bowker, J. Am. Stat. Assoc. 43, 572 (1948).

    Examples
    --------
    >>> class_symmetry([0, 0, 0, 1], [[1], [1], [1], [0]], 2).statistic
    1.0
    """
    before, after = np.asarray(label), np.asarray(label_after)
    if after.ndim != 2 or before.shape != after.shape[:1]:
        raise ValueError(f"labels of shapes {before.shape} and {after.shape} do not fit: give (n,) and (n, repeats)")
    lowest, highest = min(before.min(), after.min()), max(before.max(), after.max())
    if lowest < 0 or highest >= classes:
        wrong = lowest if lowest < 0 else highest
        raise ValueError(f"label {wrong} is not one of {classes} classes: give integers from 0 to {classes - 1}, for every point")
    return _class_symmetry(before, after[:, 0], _signs(len(before), draws, seed))


def antisymmetric(start: ArrayLike, end: ArrayLike, *, draws: int = 999, seed: int = 0) -> Symmetry:
    r"""Test that statistics which change sign under swaps average to zero: drifts of moments, and currents.

    The statistic is the largest :math:`|t|`, :math:`t=\sum_i v_i/\sqrt{\sum_i v_i^2}`, over: end less start in every feature, its
    square and the squared norm; and the currents :math:`a_f\tilde a_g-\tilde a_fa_g` of the first :data:`CURRENTS` features. The
    features a are centred on the common mean of starts and ends; swaps leave the denominator unchanged.

    Parameters
    ----------
    start : array
        Features of the starts, shape (n, features), leading features first.
    end : array
        Of the end points, shape (n, repeats, features); the first repeat is tested.
    draws, seed : int
        Number of random swaps, and their seed.

    Returns
    -------
    Symmetry

    Raises
    ------
    ValueError
        If the shapes do not fit, or a feature is not finite.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(100, 3))
    >>> test = antisymmetric(x, (x + [0.0, 0.5, 0.0])[:, None])
    >>> test.largest, test.pvalue, round(test.mean, 12)
    ('mean of feature 1', 0.001, 0.5)
    """
    x, e = _pairs(start, end)
    return _antisymmetric(x, e, _signs(len(x), draws, seed))


def energy_symmetry(start: ArrayLike, end: ArrayLike, *, draws: int = 999, seed: int = 0) -> Symmetry:
    r"""Test by the energy distance of the pairs from the swapped pairs, which detects any asymmetry of their joint law.

    With :math:`A_{ij}=|(x_i-x_j,\tilde x_i-\tilde x_j)|` and :math:`B_{ij}=|(x_i-\tilde x_j,\tilde x_i-x_j)|` the statistic is
    :math:`\tfrac{2}{n^2}\,s^\top(B-A)\,s`, and :math:`B-A=2\,\delta_i\cdot\delta_j/(A+B)` with the changes
    :math:`\delta=\tilde x_0-x_0`.

    Parameters
    ----------
    start : array
        Features of the starts, in one unit, shape (n, features).
    end : array
        Of the end points, shape (n, repeats, features); the first repeat is tested.
    draws, seed : int
        Number of random swaps, and their seed.

    Returns
    -------
    Symmetry
        With the energy distance, in the unit of the features. At most :data:`ENERGY_STARTS` evenly spaced starts are used.

    Raises
    ------
    ValueError
        If the shapes do not fit, or a feature is not finite.

    References
    ----------
    Székely & Rizzo, J. Stat. Plan. Inference 143, 1249 (2013).

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(100, 3))
    >>> energy_symmetry(x, x[:, None] + 0.5).pvalue, energy_symmetry(x, x[:, None]).pvalue
    (0.001, 1.0)
    """
    x, e = _pairs(start, end)
    return _energy_symmetry(x, e, _signs(len(x), draws, seed))


def exchange_tests(
    start: xr.DataArray,
    end: xr.DataArray,
    label: xr.DataArray | None = None,
    label_after: xr.DataArray | None = None,
    *,
    draws: int = 999,
    seed: int = 0,
) -> xr.Dataset:
    """Return all tests of exchangeability, for each score and turn time (not corrected for multiple testing).

    Parameters
    ----------
    start : DataArray
        Features of the starts, dimensions (sample, feature), leading features first.
    end : DataArray
        Features of the end points, dimensions (score, turn_time, sample, repeat, feature).
    label : DataArray, optional
        Class of each start, dimension (sample); -1 where there is none.
    label_after : DataArray, optional
        Class of each end point, dimensions (score, turn_time, sample, repeat).
    draws, seed : int
        Number of random swaps (the same for all tests), and their seed.

    Returns
    -------
    Dataset
        ``exchange_class``, ``exchange_moments`` and ``exchange_energy``, each with ``_statistic`` and ``_pvalue``, and
        ``exchange_moments_largest``, ``_mean`` and ``_se``, over (score, turn_time); NaN with an attribute ``reason`` where a
        test is undefined.

    Examples
    --------
    >>> from gaussian_test.analysis import reasons_of
    >>> x = xr.DataArray(np.random.default_rng(0).normal(size=(50, 2)), dims=("sample", "feature"))
    >>> end = (x + 1).expand_dims(score=["any"], turn_time=[1.0], repeat=1)
    >>> result = exchange_tests(x, end)
    >>> result.exchange_moments_pvalue.values.tolist(), reasons_of(result.exchange_class_pvalue)
    ([[0.001]], {'': 'the data set has no labels'})
    """
    ends = end.isel(repeat=0).transpose("score", "turn_time", "sample", "feature")
    x = np.asarray(start.transpose("sample", "feature").values, dtype=np.float64)
    labels, after, no_classes = _classes(label, label_after)
    signs = _signs(len(x), draws, seed)
    columns = {one.name: np.full(ends.shape[:2], "" if one.name == LARGEST else np.nan, dtype=object) for one in EXCHANGE}
    reasons: dict[str, dict[str, str]] = {name: {} for name in NAMES}
    if no_classes:
        reasons["exchange_class"][""] = no_classes
    for row in np.ndindex(ends.shape[:2]):
        e = np.asarray(ends[row].values, dtype=np.float64)
        score = str(ends["score"].values[row[0]])
        if not np.isfinite(e).all():
            for name in NAMES:
                reasons[name].setdefault(score, "end points are not finite")
            continue
        e = _settled(x, e)
        tests = {"exchange_moments": _antisymmetric(x, e, signs), "exchange_energy": _energy_symmetry(x, e, signs)}
        if not no_classes and after[row].min() >= 0:
            tests["exchange_class"] = _class_symmetry(labels, after[row], signs)
        elif not no_classes:
            reasons["exchange_class"].setdefault(score, "end points without a class")
        for name, test in tests.items():
            columns[f"{name}_statistic"][row], columns[f"{name}_pvalue"][row] = test.statistic, test.pvalue
        moments = tests["exchange_moments"]
        columns[LARGEST][row] = moments.largest
        columns["exchange_moments_mean"][row], columns["exchange_moments_se"][row] = moments.mean, moments.standard_error
    values = {
        name: xr.DataArray(column.astype(np.str_ if name == LARGEST else np.float64), dims=("score", "turn_time"))
        for name, column in columns.items()
    }
    coords = {name: ends.coords[name] for name in ("score", "turn_time") if name in ends.coords}
    why = {one.name: reasons[test] for one in EXCHANGE for test in NAMES if one.name.startswith(test)}
    return declared(EXCHANGE, values, coords, why)


def measure(inputs: Inputs) -> dict[str, xr.Dataset]:
    """Return the exchangeability tests of a run, where its kernels and scores define them, and its change field."""
    table, moments = inputs.table, inputs.reference.moments
    kept = table["kept_sample"].values
    x0 = inputs.states(tuple(kept.tolist())).cpu().numpy()
    of_kept = table.sel(sample=kept)
    tests = exchange_tests(
        xr.DataArray(inputs.features(x0), dims=("sample", "feature")),
        inputs.end_features,
        of_kept["label"],
        of_kept["label_after"],
        seed=inputs.statistics.seed,
    )
    mask_undefined(tests, EXCHANGE, inputs.start, [name for name, facts in inputs.scores.items() if facts.flow != "sde"])
    conditional = [name for name, facts in inputs.scores.items() if facts.conditional]
    for one in EXCHANGE if conditional else ():
        if one.name.startswith("exchange_class"):
            attributes = tests[one.name].attrs
            tests[one.name] = tests[one.name].where(~tests["score"].isin(conditional))
            tests[one.name].attrs = attributes
            give_reasons(tests, one, dict.fromkeys(conditional, "the score is given the class of the start"))
    starts = xr.DataArray(x0, dims=("sample", *event_dims(x0.ndim - 1)))
    field = change_field(starts, table["end"].rename(kept="sample"), inputs.resample(table.sizes["kept"]))
    closed = susceptibility_gaussian(moments.eigenvalues, moments.eigenvectors, inputs.noise_to_signal, moments.event_shape)
    field = field.merge(declared(CHANGE, {"change_susceptibility_gaussian": closed}), compat="override")
    return {"": xr.merge([tests, field], compat="override", join="override")}


NAMES = ("exchange_class", "exchange_moments", "exchange_energy")


def _classes(label: xr.DataArray | None, label_after: xr.DataArray | None) -> tuple[Labels, Labels, str]:
    """Return the classes of starts and first end points, and why transitions cannot be tested."""
    nothing = np.empty(0, dtype=np.int64)
    if label is None or label_after is None or label.min() < 0:
        return nothing, nothing, NO_LABELS
    after = label_after.isel(repeat=0).transpose("score", "turn_time", "sample").values
    reason = ONE_CLASS if np.isin(np.unique([*label.values, *after.ravel()]), (-1, label.values[0])).all() else ""
    return label.values, after, reason


def _pairs(start: ArrayLike, end: ArrayLike) -> tuple[Array, Array]:
    x, e = np.asarray(start, dtype=np.float64), np.asarray(end, dtype=np.float64)
    if x.ndim != 2 or e.ndim != 3 or x.shape != (e.shape[0], e.shape[2]):
        raise ValueError(f"features of shapes {x.shape} and {e.shape} do not fit: give (n, features) and (n, repeats, features)")
    if not (np.isfinite(x).all() and np.isfinite(e).all()):
        raise ValueError("the features hold NaN or infinite values: leave such end points out")
    return x, _settled(x, e[:, 0])


def _settled(start: Array, end: Array) -> Array:
    """Return end points with rounding-size moves reset to the start: rounding is not exchangeable."""
    still = np.abs(end - start).max(1) <= STILL * max(np.abs(start).max(), np.abs(end).max())
    return np.where(still[:, None], start, end)


def _signs(starts: int, draws: int, seed: int) -> Signs:
    """Return orientations of pairs, first as observed, then random, shape (1 + draws, starts); any columns will do."""
    if starts < 2 or draws < 1:
        raise ValueError(f"{starts} starts and {draws} draws make no test: give at least 2 starts and 1 draw")
    signs = np.ones((1 + draws, starts), dtype=np.int8)
    signs[1:] -= 2 * np.random.default_rng(seed).integers(0, 2, size=(draws, starts), dtype=np.int8)
    return signs


def _pvalue(statistics: Array) -> float:
    """Return the share of orientations, including the observed first one, whose statistic is at least the observed."""
    return float((statistics >= statistics[0] * (1 - ROUNDING)).mean())


def _sums(signs: Signs, values: Array) -> Array:
    """Return the sums of antisymmetric values (starts, statistics) under each orientation."""
    step = max(1, BLOCK_ELEMENTS // signs.shape[1])
    return np.concatenate([signs[row : row + step].astype(np.float64) @ values for row in range(0, len(signs), step)])


def _class_symmetry(before: Labels, after: Labels, signs: Signs) -> Symmetry:
    starts = np.flatnonzero(before != after)
    if not len(starts):
        return Symmetry(0.0, 1.0)
    a, b = before[starts], after[starts]
    # only pairs of classes that occur: there may be many classes
    _, pair = np.unique(np.stack([np.minimum(a, b), np.maximum(a, b)]), axis=1, return_inverse=True)
    pair = pair.reshape(-1)  # numpy 2.0 keeps the axes of the argument
    visits = np.zeros((len(starts), pair.max() + 1))
    visits[np.arange(len(starts)), pair] = np.where(a < b, 1, -1)
    statistics = (_sums(signs[:, : len(starts)], visits) ** 2 / np.bincount(pair)).sum(1)
    return Symmetry(float(statistics[0]), _pvalue(statistics))


def _antisymmetric(start: Array, end: Array, signs: Signs) -> Symmetry:
    center = (start.mean(0) + end.mean(0)) / 2  # unchanged by swaps
    a, b = start - center, end - center
    squares = b**2 - a**2
    i, j = np.triu_indices(min(CURRENTS, a.shape[1]), 1)
    values = np.concatenate([b - a, squares, squares.sum(1, keepdims=True), a[:, i] * b[:, j] - b[:, i] * a[:, j]], axis=1)
    scale = np.sqrt((values**2).sum(0))
    t = np.abs(_sums(signs, values))
    np.divide(t, scale, out=t, where=scale > 0)
    statistics = t.max(1)
    if statistics[0] == 0:
        return Symmetry(0.0, 1.0)
    largest = int(t[0].argmax())
    error = values[:, largest].std(ddof=1) / np.sqrt(len(values))
    features = range(a.shape[1])
    names = (
        *(f"mean of feature {f}" for f in features),
        *(f"square of feature {f}" for f in features),
        "squared norm",
        *(f"current {f}-{g}" for f, g in zip(i, j, strict=True)),
    )
    return Symmetry(float(statistics[0]), _pvalue(statistics), names[largest], float(values[:, largest].mean()), float(error))


def _energy_symmetry(start: Array, end: Array, signs: Signs) -> Symmetry:
    kept = evenly_spaced(len(start), ENERGY_STARTS)
    moved = kept[(end[kept] != start[kept]).any(1)]  # swapping an unmoved pair has no effect
    if not len(moved):
        return Symmetry(0.0, 1.0)
    x, e = start[moved], end[moved]
    change, middle = e - x, (x + e) / 2
    product = change @ change.T
    square = np.diagonal(product)
    # A^2 and B^2: twice the squared distance of the middles, plus half that of the changes, or of one and the other's opposite
    common = 2 * euclidean_distances(middle, squared=True) + (square[:, None] + square) / 2
    matrix = 2 * product / (_root(common - product) + _root(common + product))
    orientations = signs[:, : len(moved)].astype(np.float64)
    statistics = np.full(len(signs), np.trace(matrix))
    for first in range(0, len(moved), ENERGY_BLOCK):  # by symmetry, rows below each block of columns are not needed
        block, above = slice(first, first + ENERGY_BLOCK), slice(0, first)
        own = orientations[:, block]
        columns = own @ np.tril(matrix[block, block], -1) + orientations[:, above] @ matrix[above, block]
        statistics += 2 * np.einsum("ds,ds->d", columns, own)
    statistics *= 2 / len(kept) ** 2
    return Symmetry(float(statistics[0]), _pvalue(statistics))


def _root(square: Array) -> Array:
    """Return square roots in place, clipping squared distances that rounding made negative."""
    return np.sqrt(np.maximum(square, 0, out=square), out=square)
