"""Findings of a result, as quotable sentences."""

import math

from gaussian_test.analysis.declarations import STARTS
from gaussian_test.result.views import ScoreView, View, estimate
from gaussian_test.text import number

BALANCE = {  # where detailed balance is violated, and by which quantity
    "balance_squared": "its two one-evaluation estimates of C differ",
    "balance_simulated": "its simulated U-Turns differ from one evaluation",
}


def finding(seen: View) -> list[str]:
    """Return one or two sentences on every score of a result."""
    if seen.start != "noised_data":
        return [_of_ends(seen, score) for score in seen.scores]
    return [said for score in seen.scores for said in (_of_turns(seen, score), *_failures(seen, score))]


def _of_turns(seen: View, score: ScoreView) -> str:
    affine = score.times["affine"]
    found = affine.estimates["noise_to_signal"]
    if score.kind == "gaussian":
        first = f"The {score.name} score is affine by construction"
    elif not math.isnan(found.value):
        by = "" if score.kernel == "exact" else " by one evaluation" if seen.affine_by_one_evaluation else " in its U-Turns"
        tolerance = seen.settings["statistics"]["tolerance"]
        first = f"The {score.name} score is affine{by}, to {tolerance:g} of the auto-correlation, beyond noise-to-signal {found}"
    else:
        first = f"The {score.name} score has no affine time ({affine.reason or NO_REASON})"
    own = seen.settings["statistics"]["memorization"] == "own"
    forgotten = "a sample is forgotten" if own else "an end point is no longer close to any sample"
    parts = [
        _said(score, "memorization", forgotten, "when a sample is forgotten"),
        _said(score, "speciation", "its class changes", "when its class changes"),
    ]
    return "; ".join([first, *parts]) + "."


NO_REASON = "no reason was kept"


def _said(score: ScoreView, name: str, event: str, question: str) -> str:
    time = score.times[name]
    when = time.estimates["noise_to_signal"]
    return f"{question} is undefined ({time.reason or NO_REASON})" if math.isnan(when.value) else f"{event} at {when}"


def _failures(seen: View, score: ScoreView) -> list[str]:
    """Return how a network deviates from an exact score, by detailed balance and the variance of its end points."""
    if not score.is_network:
        return []
    said = []
    for name, what in BALANCE.items():
        if at := score.violated[name]:
            place = f"at noise-to-signal {number(at.noise_to_signal)}"
            said.append(f"{what} by {at.value:+.3g} [{at.low:+.3g}, {at.high:+.3g}] {place}")
    square = estimate(seen.result.sel(score=score.name).isel(turn_time=-1), "end_square")
    if square.excludes(1):
        said.append(f"its end points have {square} of the data's variance at the largest turn time")
    return [f"The {score.name} score is not exact: {'; '.join(said)}."] if said else []


def _of_ends(seen: View, score: ScoreView) -> str:
    last = seen.result.sel(score=score.name).isel(turn_time=-1)
    return (
        f"Started from {STARTS[seen.start].called} at noise-to-signal {number(float(last['noise_to_signal']))}, the {score.name} "
        f"score ends with {estimate(last, 'end_square')} of the data's variance, and a share of {estimate(last, 'close_share')} of "
        "the end points is closer to a ground-truth sample than these are to each other."
    )
