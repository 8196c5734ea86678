r"""Times of single ground-truth samples and of classes.

A yes-or-no outcome of a U-Turn ("the end point's nearest sample is the start", "the class is kept") is recorded at every turn time
under the same noise. So one (sample, repeat) is nearly a step function of :math:`\nu`: it is lost at its path time. With
:math:`\tau_{ij} = \log\nu` of sample i and repeat j, the one-way random-effects model

.. math:: \tau_{ij} = m + b_i + w_{ij},\qquad \text{ratio} = \sigma_b^2/\sigma_w^2

divides the spread of the times between the sample and the noise: curves of a U-Turn are not self-averaging.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from gaussian_test.analysis.declarations import INTERVAL, NO_LABELS, declared, why_no_speciation
from gaussian_test.analysis.observables.record import Inputs
from gaussian_test.analysis.observables.sample_times import VARIABLES
from gaussian_test.analysis.statistics.bootstrap import ClusterBootstrap, expanded
from gaussian_test.analysis.statistics.curves import Crossing, noise_levels, share_time

Array = NDArray[np.float64]

FEWEST_STARTS = 4  # fewest starts of a class with a time
MOST_CENSORED = 0.2  # largest share of samples excluded from the analysis of variance
NEGLIGIBLE = 1e-12  # of the sum of squares: a smaller mean square is rounding
DIGITS = 9  # of summed shares: values equal up to rounding count as equal, as for a fit that stays at the level


def path_time(outcomes: ArrayLike, noise_to_signal: ArrayLike, *, chance: ArrayLike = 0.0) -> Array:
    r"""Return the :math:`\nu` at which each path is lost: where the best-fitting step falls from 1 to chance.

    By least squares, for :math:`\pi = 0` the step that agrees with the most outcomes:

    .. math:: k^* = \arg\max_k \sum_{j<k} \Big(o_j - \frac{1+\pi}2\Big),\qquad \nu^* = \sqrt{\nu_{k^*-1}\,\nu_{k^*}}

    The middle of several best steps counts.

    Parameters
    ----------
    outcomes : array
        Whether kept, boolean or 0 and 1, shape (turn times, samples, repeats).
    noise_to_signal : array
        Ascending, positive, shape (turn times,).
    chance : array
        :math:`\pi`, the probability of being kept at infinite noise, below 1, shape () or (samples,).

    Returns
    -------
    ndarray
        :math:`\nu`, shape (samples, repeats); 0 where lost before the smallest turn time, infinity where never lost.

    Examples
    --------
    >>> path_time(np.array([[1, 1, 0], [0, 1, 0], [0, 1, 0]])[..., None], [1.0, 4.0, 9.0])[:, 0].tolist()
    [2.0, inf, 0.0]
    """
    nu = noise_levels(noise_to_signal)
    kept = np.asarray(outcomes, dtype=np.float64)
    least = (1 + np.broadcast_to(np.asarray(chance, dtype=np.float64), kept.shape[1:2])[:, None]) / 2
    gain = _excess(kept, least).round(DIGITS)
    best = (gain == gain.max(0)).cumsum(0)
    # the two middle best steps, or the only one twice
    middle = ((best > (best[-1] - 1) // 2).argmax(0) + (best > best[-1] // 2).argmax(0)) // 2
    crossings = np.concatenate([[0.0], np.sqrt(nu[1:] * nu[:-1]), [np.inf]])
    return np.asarray(crossings[middle])


def sample_time(outcomes: ArrayLike, noise_to_signal: ArrayLike, *, level: ArrayLike) -> Array:
    r"""Return the :math:`\nu` at which the share of each sample's repeats falls through a level, by a monotone fit.

    As :func:`~gaussian_test.analysis.statistics.curves.falls_through`, for all samples at once.

    Parameters
    ----------
    outcomes : array
        Whether kept, boolean or 0 and 1, shape (turn times, samples, repeats).
    noise_to_signal : array
        Ascending, positive, shape (turn times,).
    level : array
        In (0, 1), shape () or (samples,).

    Returns
    -------
    ndarray
        :math:`\nu`, shape (samples,); 0 where the fit starts below the level, infinity where it ends above it.

    Examples
    --------
    >>> outcomes = np.array([[[1, 1, 1, 1]], [[1, 1, 1, 0]], [[0, 1, 0, 0]]])  # shares 1, 3/4, 1/4 of one sample
    >>> sample_time(outcomes, [0.1, 1.0, 10.0], level=0.5).round(4).tolist()
    [3.1623]
    """
    share = np.asarray(outcomes).mean(-1, dtype=np.float64)
    return _fall_times(noise_levels(noise_to_signal), share, level)


def _excess(curves: Array, level: ArrayLike) -> Array:
    """Return the cumulated excess of curves (points, ...) over a level, for the first 0, 1, ... points: (points + 1, ...)."""
    sums = np.concatenate([np.zeros_like(curves[:1]), curves.cumsum(0)])
    points = np.arange(len(sums)).reshape(-1, *[1] * (sums.ndim - 1))
    return sums - np.asarray(level) * points


def _fall_times(nu: Array, curves: Array, level: ArrayLike) -> Array:
    """Return where each of many curves (points, curves) falls through a level, as ``falls_through`` does for one.

    The isotonic fit is at or above the level exactly up to the last maximum of the summed excess over the level. Before that point
    the fit is the least mean of a stretch that ends there; after it, the largest of one that begins there.
    """
    points = len(curves)
    steps = np.arange(points + 1)[:, None]
    sums = _excess(curves, level)
    after = points - sums[::-1].round(DIGITS).argmax(0)
    means = np.divide(sums - np.take_along_axis(sums, after[None], 0), steps - after, where=steps != after, out=np.zeros_like(sums))
    above = np.where(steps < after, means, np.inf).min(0)
    below = np.where(steps > after, means, -np.inf).max(0)
    falls = (after > 0) & (after < points)
    share = np.divide(above, above - below, where=falls, out=np.zeros_like(above))
    logs = np.log(nu)
    left, right = logs[after.clip(1) - 1], logs[after.clip(max=points - 1)]
    return np.select([after == 0, falls], [0.0, np.exp(left + share * (right - left))], np.inf)


def self_averaging(log_times: ArrayLike, resample: ClusterBootstrap) -> tuple[float, float, float, str]:
    r"""Return the ratio of the variances of times between and within samples, with its interval.

    With the mean squares of the one-way analysis of variance of n samples in R repeats,

    .. math:: \frac{\sigma_b^2}{\sigma_w^2} = \frac{\mathrm{MS}_b-\mathrm{MS}_w}{R\,\mathrm{MS}_w}
              = \frac1R\Big(\frac{\mathrm{MS}_b}{\mathrm{MS}_w}-1\Big),

    set to 0 where negative. The interval is a bootstrap-t over samples of the jackknife pseudo-values of
    :math:`\log(\mathrm{MS}_b/\mathrm{MS}_w)`: it does not assume normal times.

    Parameters
    ----------
    log_times : array
        :math:`\log\nu` of each path, infinite where censored, shape (samples, repeats).
    resample : ClusterBootstrap
        Over the samples.

    Returns
    -------
    tuple of float, float, float and str
        Ratio, both ends of its interval (of few samples open: 0, infinity), and the reason why something is undefined or left out;
        empty if nothing is.

    Notes
    -----
    Samples with a censored path are left out. Path times lie halfway between turn times: this adds about a twelfth of their squared
    spacing in :math:`\log\nu` to the variances, mostly to that within samples.

    References
    ----------
    Arvesen & Schmitz, Biometrics 26(4) (1970): the jackknife of the logarithm of a ratio of variance components.

    Examples
    --------
    >>> random = np.random.default_rng(0)
    >>> times = 2 * random.normal(size=(400, 1)) + random.normal(size=(400, 4))
    >>> ratio, low, high, reason = self_averaging(times, ClusterBootstrap(400, 500))
    >>> low < 4 < high, reason
    (True, '')
    """
    times = np.asarray(log_times, dtype=np.float64)
    if times.shape[1] < 2:
        return np.nan, np.nan, np.nan, "needs repeats of at least 2"
    whole = np.isfinite(times).all(1)
    censored = 1 - whole.mean()
    reason = f"{censored:.2g} of the samples are left out: not lost within the turn times in every repeat" if censored > 0 else ""
    if censored > MOST_CENSORED:
        return np.nan, np.nan, np.nan, f"{reason}; add turn times until at most {MOST_CENSORED:g} are"
    times = times[whole]
    count, repeats = times.shape
    if count < 3:
        return np.nan, np.nan, np.nan, f"{count} samples are lost within the turn times: needs at least 3"
    squares = (times.mean(1) - times.mean()) ** 2
    within = times.var(1, ddof=1)
    # deleting a sample subtracts n/(n-1) of its square from the sum of squares about the mean
    between_left = repeats * (squares.sum() - count / (count - 1) * squares) / (count - 2)
    within_left = (within.sum() - within) / (count - 1)
    rounding = NEGLIGIBLE * (repeats * squares.sum() + within.sum())
    if not (within_left > rounding).all():
        return np.nan, np.nan, np.nan, "the repeats agree in all samples but one at most: add repeats or turn times"
    quotient = repeats * squares.sum() / (count - 1) / within.mean()
    ratio = max(0.0, (quotient - 1) / repeats)
    if not (between_left > rounding).all():
        return ratio, np.nan, np.nan, "all samples but one at most have the same time: there is no interval"
    pseudo = count * np.log(quotient) - (count - 1) * np.log(between_left / within_left)
    # excluded samples have no influence; rescaling keeps the mean over all samples equal to that over the others
    influence = np.zeros(resample.clusters)
    influence[whole] = (pseudo - pseudo.mean()) / whole.mean()
    band = resample.band((pseudo.mean() + influence)[:, None])
    with np.errstate(over="ignore", under="ignore"):  # with few samples the interval is open
        low, high = ((np.exp(end[0]) - 1) / repeats for end in (band.low, band.high))
    return ratio, max(0.0, float(low)), max(0.0, float(high)), reason


def class_times(
    outcomes: ArrayLike,
    labels: ArrayLike,
    noise_to_signal: ArrayLike,
    *,
    classes: ArrayLike,
    level: float,
    resample: ClusterBootstrap,
    chance: ArrayLike | None = None,
) -> list[Crossing]:
    r"""Return the time of each class: where the kept share of its starts falls through a level.

    With the kept share :math:`P_a` of class a, the level applies to :math:`(P_a - \pi_a)/(1 - \pi_a)`.

    Parameters
    ----------
    outcomes : array
        Whether kept, boolean or 0 and 1, shape (turn times, samples, repeats).
    labels : array
        Class of each sample, shape (samples,).
    noise_to_signal : array
        Ascending, positive, shape (turn times,).
    classes : array
        Classes to analyse, shape (classes,).
    level : float
        In (0, 1).
    resample : ClusterBootstrap
        Its settings apply to the bootstrap within each class.
    chance : array, optional
        :math:`\pi_a`, the share kept at infinite noise, below 1, shape (classes,). Default: 0.

    Returns
    -------
    list of Crossing
        With the expanded percentile interval of the bootstrap over the starts of the class; NaN with a reason for a class with
        fewer than 4 starts or a curve that does not cross.

    Examples
    --------
    >>> outcomes, labels = np.repeat([[[1], [1]], [[0], [1]], [[0], [0]]], 5, axis=1), [0] * 5 + [1] * 5
    >>> found = class_times(outcomes, labels, [1, 4, 16], classes=[0, 1, 2], level=0.5, resample=ClusterBootstrap(10, 100))
    >>> [round(crossing.estimate, 12) for crossing in found], found[2].reason
    ([2.0, 8.0, nan], 'it has 0 starts: needs at least 4')
    """
    groups = _by_class(np.asarray(labels), np.asarray(classes), resample)
    return _class_times(noise_levels(noise_to_signal), np.asarray(outcomes), groups, level, chance)


Groups = list[tuple[NDArray[np.intp], ClusterBootstrap | None]]


def _by_class(labels: NDArray[np.int64], classes: NDArray[np.int64], resample: ClusterBootstrap) -> Groups:
    """Return the starts of each class and their bootstrap, shared by all curves."""
    groups: Groups = []
    for name in classes:
        starts = np.flatnonzero(labels == name)
        confidence = expanded(resample.confidence, len(starts)) if len(starts) >= FEWEST_STARTS else 1.0
        if confidence == 1:  # no resamples reach so far
            groups.append((starts, None))
            continue
        groups.append((starts, ClusterBootstrap(len(starts), resample.resamples, confidence, resample.seed)))
    return groups


def _class_times(nu: Array, outcomes: NDArray[np.bool], groups: Groups, level: float, chance: ArrayLike | None) -> list[Crossing]:
    shares = outcomes.mean(-1).T
    by_chance = np.zeros(len(groups)) if chance is None else np.asarray(chance, dtype=np.float64)
    crossings = []
    for (starts, resample), share in zip(groups, by_chance, strict=True):
        if resample is None:
            needs = f"at least {FEWEST_STARTS}" if len(starts) < FEWEST_STARTS else "more for this confidence"
            crossings.append(Crossing(np.nan, np.nan, np.nan, f"it has {len(starts)} starts: needs {needs}"))
            continue
        kept = (shares[starts] - share) / (1 - share)
        replicates = resample.means(kept)
        order = _fall_times(nu, replicates.T, level).argsort()
        # the percentiles are times of two resamples: only these need the general method
        tail = (1 - resample.confidence) / 2
        ends = np.quantile(np.arange(len(order)), [tail, 1 - tail], method="inverted_cdf")
        crossings.append(share_time(kept.mean(0), replicates[order[ends]], nu, level=level, confidence=resample.confidence))
    return crossings


def sample_times(
    memorized: xr.DataArray,
    class_kept: xr.DataArray,
    label: xr.DataArray,
    class_shares: ArrayLike | None,
    conditional: xr.DataArray,
    levels: tuple[float, float],
    resample: ClusterBootstrap,
) -> xr.Dataset:
    r"""Return memorization and speciation times by sample and by class, and their self-averaging ratios.

    Parameters
    ----------
    memorized, class_kept : DataArray
        Whether the end point is nearest to its start, and has its class: boolean, over (score, turn_time, sample, repeat), with
        the coordinate ``noise_to_signal`` along the ascending turn times.
    label : DataArray
        Class of each sample, integer from 0, over (sample).
    class_shares : array or None
        Share of each class in the ground-truth set, shape (classes,); None where there are no classes.
    conditional : DataArray
        Whether the score receives the class, boolean, over (score): such a score does not choose it.
    levels : tuple of float
        Levels that the memorized share and the class retention fall through, in (0, 1).
    resample : ClusterBootstrap
        Over the samples.

    Returns
    -------
    Dataset
        ``sample_memorization_noise_to_signal(score, sample)``, ``memorization_noise_to_signal_by_class(score, class)`` and
        ``memorization_self_averaging(score)``, the latter two with ``_low`` and ``_high``; the same for ``speciation``. Undefined
        values are NaN, with the attribute ``reason``. Without labels there is one class, -1.

    Examples
    --------
    >>> from gaussian_test.analysis import reasons_of
    >>> kept = np.arange(3)[:, None, None] < np.array([[1, 2], [2, 1], [1, 1]])  # turn times until each path is lost
    >>> coords = {"score": ["any"], "sample": range(3), "noise_to_signal": ("turn_time", [1.0, 4.0, 16.0])}
    >>> memorized = xr.DataArray(kept[None], coords, ("score", "turn_time", "sample", "repeat"))
    >>> label, conditional = memorized.sample * 0, xr.DataArray([False], dims="score")
    >>> found = sample_times(memorized, memorized, label, None, conditional, (0.5, 0.5), ClusterBootstrap(3, 100))
    >>> found.sample_memorization_noise_to_signal.values.tolist()
    [[4.0, 4.0, 2.0]]
    >>> reasons_of(found.sample_speciation_noise_to_signal)
    {'any': 'the data set has no labels'}
    """
    nu = memorized["noise_to_signal"].values
    scores = [str(score) for score in memorized["score"].values]
    shares = np.ones(1) if class_shares is None else np.asarray(class_shares, dtype=np.float64)
    classes = np.array([-1]) if class_shares is None else np.flatnonzero(shares)
    groups = _by_class(label.values, classes, resample)
    no_labels = NO_LABELS if class_shares is None else ""
    unchosen = [why_no_speciation(None if class_shares is None else shares, bool(given)) for given in conditional.values]
    own = np.zeros(len(label), dtype=np.int64) if class_shares is None else label.values
    values: dict[str, Any] = {}
    reasons: dict[str, dict[str, str]] = {}
    for name, kept, level, by_chance, undefined in (
        ("memorization", memorized, levels[0], np.zeros(len(shares)), [""] * len(scores)),
        ("speciation", class_kept, levels[1], shares, unchosen),
    ):
        of_samples, of_classes, ratios = [], [], []
        for outcomes, reason in zip(kept.transpose("score", "turn_time", "sample", "repeat").values, undefined, strict=True):
            if reason:
                of_samples.append(np.full(len(label), np.nan))
                ratios.append((np.nan, np.nan, np.nan, reason))
            else:
                chance = by_chance[own]
                of_samples.append(sample_time(outcomes, nu, level=chance + level * (1 - chance)))
                with np.errstate(divide="ignore"):  # lost before the smallest turn time
                    ratios.append(self_averaging(np.log(path_time(outcomes, nu, chance=chance)), resample))
            missing = Crossing(np.nan, np.nan, np.nan, reason or no_labels)
            none = [missing] * len(classes)
            of_classes.append(none if missing.reason else _class_times(nu, outcomes, groups, level, by_chance[classes]))
        times = np.array([[(crossing.estimate, crossing.low, crossing.high) for crossing in found] for found in of_classes])
        values[f"sample_{name}_noise_to_signal"] = np.array(of_samples)
        for place, suffix in enumerate(("", *INTERVAL)):
            values[f"{name}_noise_to_signal_by_class{suffix}"] = times[..., place]
            values[f"{name}_self_averaging{suffix}"] = np.array([ratio[place] for ratio in ratios])
        for variable, said in (
            (f"sample_{name}_noise_to_signal", undefined),
            (f"{name}_noise_to_signal_by_class", [_of_classes(classes, found) for found in of_classes]),
            (f"{name}_self_averaging", [ratio[3] for ratio in ratios]),
        ):
            reasons[variable] = dict(zip(scores, said, strict=True))
    coords = {"score": memorized["score"], "sample": memorized["sample"], "class": classes}
    return declared(VARIABLES, values, coords, reasons, levels=levels)


def measure(inputs: Inputs) -> dict[str, xr.Dataset]:
    """Return the times of the samples and classes of a run."""
    table, statistics = inputs.table, inputs.statistics
    own = table["nearest_sample"] == table["sample"]
    conditional = [facts.conditional for facts in inputs.scores.values()]
    return {
        "": sample_times(
            own if statistics.memorization == "own" else table["nearest_distance"] < inputs.truth.typical_distance,
            table["label_after"] == table["label"],
            table["label"].clip(min=0),  # without classes all of this is undefined
            inputs.truth.class_shares,
            xr.DataArray(conditional, dims="score"),
            statistics.levels,
            inputs.resample(table.sizes["sample"]),
        )
    }


def _of_classes(classes: NDArray[np.int64], crossings: Sequence[Crossing]) -> str:
    """Return the reasons for the classes of one score, each with its classes."""
    having: dict[str, list[str]] = {}
    for name, one in zip(classes, crossings, strict=True):
        having.setdefault(one.reason, []).append(str(name))
    if len(having) == 1:
        return next(iter(having))
    return ", ".join(f"class {' '.join(names)}: {reason}" for reason, names in having.items() if reason)
