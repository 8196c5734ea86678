"""Declarations of the variables of a result.

A declaration gives the meaning and the dimensions of a variable, the variables that go with it (error, band, p-value), and when it
is undefined. Text, JSON, figures, comparison and the reference are generated from it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from gaussian_test.text import printable

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr
    from numpy.typing import NDArray

ERROR = {"_se": ", standard error"}
BAND = ERROR | {"_low": ", lower edge of the simultaneous band", "_high": ", upper edge of the simultaneous band"}
TESTED = BAND | {"_pvalue": ", p-value of being zero (max-t over all turn times)"}
INTERVAL = {"_low": ", lower end of its interval", "_high": ", upper end of its interval"}
# suffixes of the variables that go with an estimate
ENDINGS = ("_se", "_low", "_high", "_pvalue")

Need = Literal["sample", "start", "sde"]
WHY = {
    "sample": "a G-Turn starts from no ground-truth sample",
    "start": "the start is noise alone: there is nothing to correlate with",
    "sde": "detailed balance holds for the reverse SDE alone",
}


@dataclass(frozen=True)
class Variable:
    """A variable of an archive.

    Parameters
    ----------
    long_name, comment, units : str
        Its attributes; facts of the run replace names in braces.
    """

    name: str  # in its group
    dims: tuple[str, ...]  # ``event`` stands for the axes of a sample
    long_name: str
    comment: str = ""
    units: str = "1"
    # suffixes of the variables that go with it, and what their long names add
    band: Mapping[str, str] = field(default_factory=dict)
    # what it needs to be defined: a ground-truth sample as start, a start that is more than noise, or the reverse SDE
    needs: Need | Literal[""] = ""
    group: str = ""  # of the archive; the root group if empty
    title: str = ""  # its name for readers, where results are compared
    # variable of the sample table, or ``module:function`` of a result, for comparing two results sample by sample
    compared: str = ""
    is_share: bool = False  # whether its values per sample are shares
    invariant: bool = True  # whether two processes with the same noise-to-signal ratios give the same values

    @property
    def names(self) -> dict[str, str]:
        """Names of the variable and of those that go with it, and what their long names add."""
        return {self.name: "", **{self.name + ending: said for ending, said in self.band.items()}}

    def attributes(self, name: str, facts: Mapping[str, Any]) -> dict[str, str]:
        """Return the attributes of the variable, or of one that goes with it."""
        long_name, comment = (text.format_map(facts) if facts else text for text in (self.long_name, self.comment))
        return {"long_name": long_name + self.names[name], "units": self.units} | ({"comment": comment} if comment else {})


def described(dataset: xr.Dataset, variables: Iterable[Variable], **facts: Any) -> xr.Dataset:
    """Add the attributes of their declarations to the variables of a dataset."""
    for variable in variables:
        for name in variable.names:
            if name in dataset.variables:
                dataset[name].attrs = variable.attributes(name, facts) | {
                    key: value for key, value in dataset[name].attrs.items() if key not in ("long_name", "units", "comment")
                }
    return dataset


def declared(
    variables: Iterable[Variable],
    values: Mapping[str, Any],
    coords: Mapping[str, Any] | None = None,
    reasons: Mapping[str, Mapping[str, str]] | None = None,
    **facts: Any,
) -> xr.Dataset:
    """Return arrays as a dataset, with the dimensions and attributes of their declarations.

    Examples
    --------
    >>> made = declared([Variable("a", ("turn_time",), "an example")], {"a": [1.0]}, reasons={"a": {"network": "too few"}})
    >>> made["a"].attrs["long_name"], reasons_of(made["a"])
    ('an example', {'network': 'too few'})
    """
    import xarray as xr

    known = list(variables)
    dims = {name: variable.dims for variable in known for name in variable.names}
    if unknown := sorted(values.keys() - dims.keys()):
        raise ValueError(f"variables {', '.join(unknown)} are not declared: declare them")
    # in the order of the declarations: the archive does not depend, to the byte, on how its values were gathered
    ordered = {name: values[name] for name in dims if name in values}
    made = {name: value if isinstance(value, xr.DataArray) else (dims[name], value) for name, value in ordered.items()}
    result = described(xr.Dataset(made, coords), known, **facts)
    for variable in known:
        give_reasons(result, variable, (reasons or {}).get(variable.name, {}))
    return result


def parts_of(row: xr.Dataset, name: str, endings: Iterable[str] = INTERVAL) -> list[NDArray[np.float64]]:
    """Return the values of a variable and of those that go with it: by default value, low and high."""
    return [row[f"{name}{ending}"].values for ending in ("", *endings)]


def give_reasons(dataset: xr.Dataset, variable: Variable, reasons: Mapping[str, str]) -> None:
    """Add reasons why a variable, and those that go with it, are undefined."""
    for name in variable.names if any(reasons.values()) else ():
        if name in dataset:
            found = reasons_of(dataset[name])
            for score, reason in reasons.items():
                if reason and reason not in found.get(score, ""):
                    found[score] = f"{found[score]}; {reason}" if score in found else reason
            dataset[name].attrs["reason"] = json.dumps(found, ensure_ascii=False)


def reasons_of(values: xr.DataArray) -> dict[str, str]:
    """Return why a variable is undefined, by score; an empty name holds the reason for all scores.

    Parameters
    ----------
    values : DataArray
        Of an archive; version 0.1 stored all reasons in one sentence.

    Returns
    -------
    dict of str to str

    Examples
    --------
    >>> import xarray as xr
    >>> reasons_of(xr.DataArray(0.0, attrs={"reason": "the data set has no labels"}))
    {'': 'the data set has no labels'}
    """
    text = str(values.attrs.get("reason", ""))
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = text
    reasons = found if isinstance(found, dict) else {"": text} if text else {}
    return {str(score): printable(str(reason)) for score, reason in reasons.items()}


def split_reasons(sentence: str, scores: Iterable[str]) -> dict[str, str]:
    """Split the sentence of schema 1 into reasons by score: ``<reason>; <score>, <score>: <reason>; ...``.

    Examples
    --------
    >>> split_reasons("no labels; a: too few; add some; b, c: none", ["a", "b", "c"])
    {'': 'no labels', 'a': 'too few; add some', 'b': 'none', 'c': 'none'}
    """
    names = "|".join(map(re.escape, sorted(scores, key=len, reverse=True))) or "(?!)"
    general, *pieces = re.split(rf"(?:^|; )((?:{names})(?:, (?:{names}))*): ", sentence)
    found = {"": general} if general else {}
    for named, reason in zip(pieces[::2], pieces[1::2], strict=True):
        for score in re.findall(rf"(?:^|, )({names})(?=, |$)", named):
            found[score] = f"{found[score]}; {reason}" if score in found else reason
    return found


def reason_of(values: xr.DataArray, score: str) -> str:
    """Return why a variable is undefined for a score, its own reason and that for all scores; empty if there is none."""
    found = reasons_of(values)
    return "; ".join(filter(None, (found.get(""), found.get(score) if score else "")))


def said_of(values: xr.DataArray) -> str:
    """Return in one line why a variable is undefined, with scores of the same reason grouped.

    Examples
    --------
    >>> import xarray as xr
    >>> said_of(xr.DataArray(0.0, attrs={"reason": '{"a": "few", "b": "few", "c": "none"}'}))
    'a, b: few; c: none'
    """
    scores: dict[str, list[str]] = {}
    for score, reason in reasons_of(values).items():
        scores.setdefault(reason, []).append(score)
    return "; ".join(f"{', '.join(of)}: {reason}" if any(of) else reason for reason, of in scores.items())


def mask_undefined(dataset: xr.Dataset, variables: Iterable[Variable], start: str, not_sde: Iterable[str] = ()) -> xr.Dataset:
    """Set to NaN, with a reason, the variables that the start or the kernels of a run leave undefined.

    Parameters
    ----------
    dataset : Dataset
        Variables of a run; changed in place.
    variables : iterable of Variable
        Their declarations.
    start : {"noised_data", "gaussian", "isotropic"}
        What was reversed.
    not_sde : iterable of str
        Scores whose kernel does not follow the reverse SDE.

    Returns
    -------
    Dataset
        The same one.

    Examples
    --------
    >>> import xarray as xr
    >>> result = xr.Dataset({"gap": ("turn_time", [0.1])})
    >>> reasons_of(mask_undefined(result, [Variable("gap", ("turn_time",), "gap", needs="sample")], "gaussian")["gap"])
    {'': 'a G-Turn starts from no ground-truth sample'}
    """
    others = list(not_sde)
    why = {"gaussian": WHY["sample"], "isotropic": WHY["start"]}.get(start, "")
    for variable in variables:
        of_start = variable.needs and why and (variable.needs != "start" or start == "isotropic")
        reasons = {"": why} if of_start else dict.fromkeys(others, WHY["sde"]) if variable.needs == "sde" else {}
        for name in variable.names if reasons else ():
            if name in dataset:
                values = dataset[name]
                is_text = values.dtype.kind == "U"
                if of_start:
                    values.attrs.pop("reason", None)
                left = False if of_start else ~values["score"].isin(others)
                dataset[name] = values.where(left, "") if is_text else values.astype(float).where(left)
                dataset[name].attrs = values.attrs
        give_reasons(dataset, variable, reasons)
    return dataset


MOMENTS = (
    Variable("mean", ("event",), "mean of the ground-truth samples", group="moments"),
    Variable("eigenvalue", ("mode",), "eigenvalues of the ground-truth covariance", "divided by N", group="moments"),
    Variable("eigenvector", ("feature", "mode"), "eigenvectors", group="moments"),
)

StartName = Literal["noised_data", "gaussian", "isotropic"]


@dataclass(frozen=True)
class Start:
    """A start of the reverse process, with its names for a headline and a sentence."""

    headline: str
    called: str


STARTS: dict[str, Start] = {
    "noised_data": Start("", "the noised data"),
    "gaussian": Start("G-Turn, from the matched Gaussian; ", "the matched Gaussian"),
    "isotropic": Start("from noise alone; ", "noise alone"),
}
OTHER_STARTS: tuple[StartName, ...] = ("gaussian", "isotropic")  # other than noised data


@dataclass(frozen=True)
class Time:
    """One of the three times: its symbol, and its column heading in a report."""

    symbol: str
    event: str


TIMES: dict[str, Time] = {
    "memorization": Time(r"$T_m$", "sample forgotten at"),
    "speciation": Time(r"$T_s$", "class changes at"),
    "affine": Time(r"$T_G$", "affine beyond"),
}
# suffixes of a predicted time, and the source of each prediction
PREDICTIONS = {
    "predicted": "from the data",
    "predicted_within_class": "within classes",
    "predicted_excess_entropy": "where the excess entropy vanishes",
}
# kinds of scores computed from the samples; all others are networks
COMPUTED = ("empirical", "gaussian", "mixture")
NO_LABELS, ONE_CLASS = "the data set has no labels", "the data set has a single class"


Memorization = Literal["own", "any"]
Speciation = Literal["retention", "same"]
Affine = Literal["one_shot", "uturn"]


@dataclass(frozen=True)
class Statistics:
    """Settings for computing curves, tests and times from the sample table.

    Attributes
    ----------
    confidence : float
        Of bands and intervals, in (0, 1); simultaneous over the turn times.
    bootstrap : int
        Number of resamples.
    level : float
        Level that the memorized share and the class retention must fall below, in (0, 1).
    memorization_level, speciation_level : float, optional
        Level for one of them alone.
    tolerance : float
        On the absolute gap, for the affine time; positive.
    memorization : {"own", "any"}
        A U-Turn counts as memorized if its nearest sample is its own start, or if any sample is closer than samples typically are
        to each other.
    speciation : {"retention", "same"}
        Measure class retention in excess of chance, or as the plain share of the same class.
    affine : {"one_shot", "uturn"}
        Use the gap of one evaluation, or of the U-Turns.
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


def why_no_speciation(class_shares: NDArray[np.float64] | None, conditional: bool) -> str:
    """Return why there is no speciation time; empty if there is one.

    Parameters
    ----------
    class_shares : ndarray or None
        Share of each class in the data, shape (classes,); None where there are no classes.
    conditional : bool
        Whether the score receives the class of the start.

    Returns
    -------
    str

    Examples
    --------
    >>> import numpy as np
    >>> why_no_speciation(np.array([1.0]), False)
    'the data set has a single class'
    """
    if class_shares is None:
        return NO_LABELS
    if class_shares.max() == 1:
        return ONE_CLASS
    return "the score is given the class of the start, which it cannot forget" if conditional else ""
