"""What a result says, in sentences that a person can quote."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import xarray as xr
import yaml

from gaussian_test.result import reasons
from gaussian_test.result.table import NETWORKS
from gaussian_test.text import number

BALANCE = {  # where detailed balance is violated, and of what
    "balance_squared": "its two estimators of one evaluation differ",
    "balance_simulated": "its simulated U-Turns differ from one evaluation",
}
STARTS = {"gaussian": "the matched Gaussian", "isotropic": "noise alone"}


def finding(result: xr.Dataset) -> list[str]:
    """Return the finding of a result: a sentence for each score.

    Parameters
    ----------
    result : Dataset
        Root group of an archive.

    Returns
    -------
    list of str
        Times are noise-to-signal ratios with their intervals; one that is undefined says why.

    Examples
    --------
    >>> from gaussian_test.engine.runner import run
    >>> levels = [0.1, 0.3, 0.6, 1.0, 2.0, 5.0]
    >>> small = run({"samples": 64, "turn_times": {"noise_to_signal": levels}, "observables": "none", "keep": {"pictures": 0}})
    >>> print(finding(small)[0])  # doctest: +ELLIPSIS
    The empirical score is affine beyond noise-to-signal 2... [..., ...]; a sample is forgotten at 0.7...
    """
    scores = [str(score) for score in result["score"].values]
    if result.attrs["start"] != "noised_data":
        return [_of_ends(result, score) for score in scores]
    return [said for score in scores for said in (_of_turns(result, score), *_failures(result, score))]


def time_with_interval(result: xr.Dataset, name: str, score: str) -> str:
    """Return a time of a score with its interval as text; empty where it is undefined.

    Parameters
    ----------
    result : Dataset
        Root group of an archive.
    name : str
        ``memorization_noise_to_signal``, ``affine_time``, ...
    score : str
        Of which score.

    Returns
    -------
    str

    Examples
    --------
    >>> values = {"t": ("score", [1.5]), "t_low": ("score", [1.25]), "t_high": ("score", [float("inf")])}
    >>> time_with_interval(xr.Dataset(values, {"score": ["a"]}), "t", "a")
    '1.5 [1.25, ∞]'
    """
    value, low, high = (float(result[f"{name}{suffix}"].sel(score=score)) for suffix in ("", "_low", "_high"))
    return "" if math.isnan(value) else f"{value:.3g} [{_end(low)}, {_end(high)}]"


def _of_turns(result: xr.Dataset, score: str) -> str:
    settings = yaml.safe_load(result.attrs["experiment"])["statistics"]
    affine = time_with_interval(result, "affine_noise_to_signal", score)
    if str(result["score_kind"].sel(score=score).item()) == "gaussian":
        first = f"The {score} score is affine by construction"
    elif affine:
        first = f"The {score} score is affine beyond noise-to-signal {affine}"
    else:
        first = f"The {score} score has no affine time ({_reason(result, 'affine_noise_to_signal', score)})"
    forgotten = "a sample is forgotten" if settings["memorization"] == "own" else "an end point is no longer close to any sample"
    parts = [
        _said(result, "memorization", score, forgotten, "when a sample is forgotten"),
        _said(result, "speciation", score, "its class changes", "when its class changes"),
    ]
    return "; ".join([first, *parts]) + "."


def _failures(result: xr.Dataset, score: str) -> list[str]:
    """Return by what a learned score is seen to be none: where a band does not hold what an exact score has."""
    row = result.sel(score=score)
    if str(row["score_kind"].item()) not in NETWORKS:
        return []
    said = []
    for name, what in BALANCE.items():
        low, high = row[f"{name}_low"].values, row[f"{name}_high"].values
        outside = np.flatnonzero((low > 0) | (high < 0))
        if len(outside):
            at = outside[np.abs(row[name].values[outside]).argmax()]
            value, nu = float(row[name][at]), number(float(row["noise_to_signal"][at]))
            said.append(f"{what} by {value:+.3g} [{low[at]:+.3g}, {high[at]:+.3g}] at noise-to-signal {nu}")
    square, least, most = (float(row[f"end_square{end}"][-1]) for end in ("", "_low", "_high"))
    if least > 1 or most < 1:
        said.append(f"its end points have {square:.3g} [{least:.3g}, {most:.3g}] of the data's variance at the largest turn time")
    return [f"The {score} score is no exact one: {'; '.join(said)}."] if said else []


def _said(result: xr.Dataset, time: str, score: str, event: str, question: str) -> str:
    name = f"{time}_noise_to_signal"
    when = time_with_interval(result, name, score)
    return f"{event} at {when}" if when else f"{question} is undefined ({_reason(result, name, score)})"


def _reason(result: xr.Dataset, name: str, score: str) -> str:
    scores = [str(known) for known in result["score"].values]
    return reasons.of_score(result[name].attrs.get("reason", ""), score, scores) or "no reason was kept"


def _of_ends(result: xr.Dataset, score: str) -> str:
    """Return what a run that does not start from the data says: how its end points compare with the data."""
    last = result.sel(score=score).isel(turn_time=-1)
    square, close = (
        f"{number(float(last[name]))} [{number(float(last[f'{name}_low']))}, {number(float(last[f'{name}_high']))}]"
        for name in ("end_square", "close_share")
    )
    start, nu = STARTS[result.attrs["start"]], number(float(last["noise_to_signal"]))
    return (
        f"Started from {start} at noise-to-signal {nu}, the {score} score ends with {square} of the data's variance, and a share "
        f"of {close} of the end points is closer to a ground-truth sample than these are to each other."
    )


def _end(value: float) -> str:
    return "∞" if math.isinf(value) else number(value)


def lines_of_reasons(result: xr.Dataset, names: Mapping[str, str]) -> list[str]:
    """Return what is to be known of some variables: why values are undefined or intervals open.

    Parameters
    ----------
    result : Dataset
        Root group of an archive.
    names : mapping of str to str
        Variables, and what to call them.

    Returns
    -------
    list of str
        A sentence for each reason.

    Examples
    --------
    >>> lines_of_reasons(xr.Dataset({"a_b": ((), 1.0, {"reason": "one: too few"})}, {"score": ["one"]}), {"a_b": "time"})
    ['time, one: too few.']
    """
    lines = []
    scores = [str(score) for score in result["score"].values] if result["score"].ndim else [str(result["score"].item())]
    for name, called in names.items():
        if name in result:
            for score, reason in reasons.by_score(result[name].attrs.get("reason", ""), scores).items():
                lines.append(f"{', '.join(filter(None, (called, score)))}: {reason}.")
    return lines
