"""What stands under each figure of a report, how to read it, and what it shows for those who cannot see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from gaussian_test.text import number


@dataclass(frozen=True)
class Caption:
    """What is said of a figure.

    Attributes
    ----------
    heading : str
        What it is of.
    reading : str
        How to read it.
    curves : tuple of str
        Variables of the archive that it draws over turn times, for the text that stands for it.
    """

    heading: str
    reading: str
    curves: tuple[str, ...] = ()


MAIN = ("autocorrelation", "gap", "times")  # the Gaussian Test itself; the others are observables beside it
# in the order in which a page shows them
CAPTIONS: dict[str, Caption] = {
    "autocorrelation": Caption(
        "U-Turn auto-correlation",
        "How much of a sample is left after a U-Turn: 1, all of it; 0, nothing but the mean. Where a score's curve leaves that "
        "of the Gaussian score, it knows more of the data than mean and covariance; where they are one, it is affine. Shaded: "
        "simultaneous bands. Lines without marks: closed forms, which rest on the eigenvalues of the covariance alone.",
        ("autocorrelation",),
    ),
    "gap": Caption(
        "The Gaussian Test: gap to the Gaussian score",
        "Above: the auto-correlation less that of the Gaussian score with the same noise. Where the band holds zero, the test "
        "does not tell the score from an affine one; dashed lines mark from where on the gap stays within the tolerance, shaded "
        "their intervals. Below: how far the noised data are from a Gaussian, the area under the gap.",
        ("gap",),
    ),
    "times": Caption(
        "Memorization and speciation",
        "Above: the share of U-Turns whose end point is nearest to the very sample that they started from. Below: the share "
        "that keeps its class, on a scale on which 0 is chance. The times (dashed, with intervals) are where the curves fall "
        "through the level; dotted: what the spectrum of the data alone predicts.",
        ("memorized_share", "class_retention"),
    ),
    "sample_times": Caption(
        "Sample by sample, class by class",
        "Each histogram is over single samples, each bar the time of a class with its interval. Samples that are forgotten "
        "late, or classes far from the others, are where a model holds on to its data.",
    ),
    "end_points": Caption(
        "End points",
        "Above: the variance of the end points about the mean of the data; 1 is that of the data, and a score or a sampler that "
        "loses or adds variance shows here. Below: the share of end points that lies closer to a ground-truth sample than "
        "samples typically lie to each other: copies.",
        ("end_square", "close_share"),
    ),
    "balance": Caption(
        "Detailed balance of {score}",
        "Is the network a score at all? Above: the auto-correlation by three estimators, which agree for an exact score. Below: "
        "how far they are apart, with bands; a band that does not hold zero is a violation.",
        ("balance_squared", "balance_simulated"),
    ),
    "explained": Caption(
        "What explains the score",
        "The share of each score's squared norm that simpler scores explain. Where the Gaussian reaches 1 the score is affine; "
        "what the mixture of classes adds is the classes, what only the empirical score explains are single samples.",
    ),
    "affinity": Caption(
        "Distance from the Gaussian and from the best affine map",
        "Above: the mean squared distance of the denoisers from the Gaussian one and, dashed, from the affine map that fits "
        "best, out of sample. Below: what that map gains; above zero, the score is closer to another affine score than to that "
        "of the data's mean and covariance.",
        ("denoiser_gap",),
    ),
    "score_norm": Caption(
        "Norm of the score",
        "Three normalisations of the length of the score, beside the closed form of the Gaussian (the line without marks).",
        ("score_square_scaled",),
    ),
    "normality": Caption(
        "Are the noised data Gaussian, feature by feature?",
        "Kolmogorov-Smirnov tests of the noised data. Above: the mean distance, beside that of Gaussian samples of the same "
        "number (grey). Below: shares of features that are farther than the level, rejected at 5 %, and discovered with a false "
        "discovery rate of 5 %; dotted: what normal features would give.",
        ("ks_mean", "ks_share_rejected"),
    ),
    "normality_map": Caption(
        "Where the noised data are not Gaussian", "The Kolmogorov-Smirnov distance pixel by pixel: bright is far from normal."
    ),
    "quality": Caption(
        "Distance of the end points from the ground truth",
        "Fréchet distance and polynomial kernel distance on the features named, biases taken off: zero means as good as other "
        "draws from the ground truth.",
        ("frechet", "kid"),
    ),
    "starts": Caption(
        "Does it matter where the reverse process starts?",
        "The same noise, but started from the matched Gaussian or from noise alone instead of the noised data. Where the curves "
        "are at zero, the turn forgets its start.",
        ("start_kid",),
    ),
    "exchange": Caption(
        "Are start and end an exchangeable pair?",
        "P-values of three tests of detailed balance, which hold for an exact score under the reverse SDE. Values below the "
        "dotted line now and then are chance; many in a row are not. With 999 permutations none is smaller than 0.001.",
    ),
    "change_field": Caption(
        "The field of changes",
        "Susceptibility and correlation length of the difference between end and start: peaks mark where features change together.",
        ("change_susceptibility",),
    ),
    "chains": Caption(
        "Chains of U-Turns",
        "Above: what is left of the start after a number of U-Turns in a row. Below: the number of U-Turns until a chain has "
        "forgotten, by turn time.",
    ),
}
OWN = "An observable of the user's own: its mean over the U-Turns at each turn time, with its simultaneous band."


def caption_of(figure: str) -> Caption:
    """Return the caption of a figure by its name, as :func:`gaussian_test.analysis.figures.draw.draw` names it.

    Parameters
    ----------
    figure : str
        ``gap``, ``balance_network``, ...

    Returns
    -------
    Caption

    Examples
    --------
    >>> caption_of("balance_network").heading
    'Detailed balance of network'
    >>> caption_of("own_share_of_ink").heading
    'Share of ink'
    """
    if figure in CAPTIONS:
        return CAPTIONS[figure]
    if figure.startswith("balance_"):
        general = CAPTIONS["balance"]
        return Caption(general.heading.format(score=figure.removeprefix("balance_")), general.reading, general.curves)
    name = figure.removeprefix("own_")
    return Caption(name.replace("_", " ").capitalize(), OWN, (name,))


def shown_order(figures: Mapping[str, object]) -> list[str]:
    """Return the names of figures in the order in which a page shows them; grids of pictures are left to the slider.

    Parameters
    ----------
    figures : mapping of str
        By name.

    Returns
    -------
    list of str

    Examples
    --------
    >>> shown_order({"quality": 0, "balance_b": 0, "gap": 0, "pictures_empirical": 0, "mine": 0})
    ['gap', 'balance_b', 'quality', 'mine']
    """
    places = list(CAPTIONS)

    def place(name: str) -> int:
        known = name if name in CAPTIONS else "balance" if name.startswith("balance_") else ""
        return places.index(known) if known else len(places)

    return sorted((name for name in figures if not name.startswith("pictures_")), key=place)


def alternative_text(figure: str, result: xr.Dataset) -> str:
    """Return what a figure shows, in words: where its curves begin, turn and end.

    Parameters
    ----------
    figure : str
        Its name.
    result : Dataset
        Root group of the archive.

    Returns
    -------
    str

    Examples
    --------
    >>> curve = xr.DataArray([[1.0, 0.5, 0.0]], dims=("score", "turn_time"))
    >>> data = xr.Dataset({"gap": curve}, {"score": ["a"], "noise_to_signal": ("turn_time", [0.1, 1.0, 9.0])})
    >>> alternative_text("gap", data)
    'The Gaussian Test: gap to the Gaussian score. gap over noise-to-signal 0.1 to 9: a 1, 0.5 at 1, 0 at the end.'
    """
    caption = caption_of(figure)
    only = figure.removeprefix("balance_") if figure.startswith("balance_") else None
    nu = result["noise_to_signal"].values
    said = []
    for name in caption.curves:
        if name not in result or "turn_time" not in result[name].dims:
            continue
        rows = []
        for label, values in _rows(result[name], only):
            if np.isfinite(values).all():
                middle = len(nu) // 2
                rows.append(
                    f"{label}{number(values[0])}, {number(values[middle])} at {number(nu[middle])}, {number(values[-1])} at the end"
                )
        if rows:
            said.append(f"{name.replace('_', ' ')} over noise-to-signal {number(nu[0])} to {number(nu[-1])}: {'; '.join(rows)}.")
    return " ".join([f"{caption.heading.rstrip('?.')}.", *(said or ["Its numbers are in the tables at the end of the page."])])


def _rows(values: xr.DataArray, only: str | None) -> list[tuple[str, np.ndarray]]:
    if "score" not in values.dims:
        return [("", values.values)] if values.ndim == 1 else []
    scores = [str(score) for score in values["score"].values if only in (None, str(score))]
    rows = [(f"{score} ", values.sel(score=score)) for score in scores]
    return [(label, row.values) for label, row in rows if row.ndim == 1]
