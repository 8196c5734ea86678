"""Times, starts and settings of the statistics: their names, their defaults and what is said of them, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

StartName = Literal["noised_data", "gaussian", "isotropic"]


@dataclass(frozen=True)
class Start:
    """What is reversed: how a headline and a sentence call it."""

    headline: str
    called: str


STARTS: dict[str, Start] = {
    "noised_data": Start("", "the noised data"),
    "gaussian": Start("G-Turn, from the matched Gaussian; ", "the matched Gaussian"),
    "isotropic": Start("from noise alone; ", "noise alone"),
}
OTHER_STARTS: tuple[StartName, ...] = ("gaussian", "isotropic")  # that are no noised data


@dataclass(frozen=True)
class Time:
    """One of the three times: its symbol, and the head of its column in a report."""

    symbol: str
    event: str


TIMES: dict[str, Time] = {
    "memorization": Time(r"$T_m$", "sample forgotten at"),
    "speciation": Time(r"$T_s$", "class changes at"),
    "affine": Time(r"$T_G$", "affine beyond"),
}
# endings of a predicted time, and where each prediction comes from
PREDICTIONS = {
    "predicted": "from the data",
    "predicted_within_class": "within classes",
    "predicted_excess_entropy": "where the excess entropy vanishes",
}
# kinds of scores that are computed from the samples: all others are networks
COMPUTED = ("empirical", "gaussian", "mixture")
NO_LABELS, ONE_CLASS = "the data set has no labels", "the data set has a single class"


Memorization = Literal["own", "any"]
Speciation = Literal["retention", "same"]
Affine = Literal["one_shot", "uturn"]


@dataclass(frozen=True)
class Statistics:
    """How curves, tests and times are computed from the sample table.

    Attributes
    ----------
    confidence : float
        Of bands and intervals, simultaneous over the turn times.
    bootstrap : int
        Number of resamples.
    level : float
        What the memorized share and the class retention fall through.
    memorization_level, speciation_level : float, optional
        Of one of them alone.
    tolerance : float
        Of the gap, for the affine time.
    memorization : {"own", "any"}
        A U-Turn is remembered where the nearest sample is its own start, or where any sample is closer than samples typically are
        to each other.
    speciation : {"retention", "same"}
        A class is kept as the retention over chance, or as the plain share of the same class.
    affine : {"one_shot", "uturn"}
        By the gap of one evaluation, or of the U-Turns.
    seed : int
        Of the resampling.
    """

    confidence: float = 0.95
    bootstrap: int = 2000
    level: float = 0.5
    memorization_level: float | None = None
    speciation_level: float | None = None
    tolerance: float = 0.02
    memorization: Memorization = "own"
    speciation: Speciation = "retention"
    affine: Affine = "one_shot"
    seed: int = 0

    @property
    def levels(self) -> tuple[float, float]:
        """Levels of memorization and speciation."""
        return self.memorization_level or self.level, self.speciation_level or self.level
