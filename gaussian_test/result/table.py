"""Results as text: what a person reads at a glance, from an archive alone and without torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr
import yaml

from gaussian_test.result.observable_table import observables_text
from gaussian_test.text import aligned, fixed, interval, number, pvalue_text

TIMES = ("memorization", "speciation", "affine")
NETWORKS = {"network", "diffusers", "edm", "azula", "callable", "python"}
ABSURD = 2.0  # times the variance of the data: a posterior mean has no more than 1
CURVES = {"autocorrelation": "C", "gap": "gap", "memorized_share": "memorized", "class_retention": "class kept"}
ENDS = {"end_square": "variance", "close_share": "close"}
PREDICTIONS = {"predicted_within_class": "within classes", "predicted_excess_entropy": "where the excess entropy vanishes"}
STARTS = {"noised_data": "", "gaussian": "G-Turn, from the matched Gaussian; ", "isotropic": "from noise alone; "}


def show(result: xr.Dataset, groups: Mapping[str, xr.Dataset] | None = None, every: bool = False) -> str:
    """Return the three times, the test, the curves and the observables of a result as text.

    Parameters
    ----------
    result : Dataset
        Root group of an archive.
    groups : mapping of str to Dataset, optional
        Its other groups.
    every : bool
        Show the observables at every turn time; else at some, evenly picked.

    Returns
    -------
    str
        Several lines.

    Examples
    --------
    >>> from gaussian_test.engine.runner import run
    >>> small = run({"samples": 8, "turn_times": {"noise_to_signal": [0.1, 1.0, 5.0]}, "keep": {"pictures": 0}})
    >>> print(show(small).splitlines()[0])
    Gaussian Test of digits: 8 of 1797 samples x 3 turn times x 1 repeat, seed 0, cpu
    """
    settings = yaml.safe_load(result.attrs["experiment"])
    start = settings["start"]
    lines = [
        *headline(result),
        "",
        f"Times, as noise-to-signal ratios [{settings['statistics']['confidence']:.0%} interval]",
        *_times(result),
    ]
    if settings["process"]["kind"] != "variance_exploding":
        lines += ["", "Times, in the time of the process", *_times(result, "time")]
    if start == "noised_data":
        lines += ["", "Gap to the Gaussian: " + "; ".join(_gaps(result))]
        lines += [f"Detailed balance of {line}" for line in _balance(result)]
    lines += [*notes(result), "", *_curves(result, CURVES)]
    lines += ["", "End points: variance about the data's mean, share closer to a ground-truth sample than these are to each other"]
    lines += _curves(result, ENDS)
    if start == "noised_data" and (networks := set(result["score_kind"].values) & NETWORKS):
        lines += [
            "",
            "C by three estimators; of an exact score x0.D and |D|^2 agree, and the simulation if it is one of the reverse SDE",
        ]
        lines += _estimators(result, networks)
    lines += observables_text(result, groups or {}, every)
    return "\n".join(lines)


def headline(result: xr.Dataset) -> list[str]:
    """Return what was run, in two lines: data and size, process and reverse kernels.

    Parameters
    ----------
    result : Dataset
        Root group of an archive.

    Returns
    -------
    list of str

    Examples
    --------
    >>> from gaussian_test.engine.runner import run
    >>> small = run({"samples": 8, "turn_times": {"noise_to_signal": [0.1, 1.0, 5.0]}, "observables": "none"})
    >>> headline(small)[1]
    'process variance_exploding; reverse: empirical exact, gaussian exact'
    """
    settings = yaml.safe_load(result.attrs["experiment"])
    sizes = result.sizes
    repeats = f"{sizes['repeat']} repeat{'s' if sizes['repeat'] > 1 else ''}"
    return [
        f"Gaussian Test of {result.attrs['data_source']}: {sizes['sample']} of {result.attrs['samples_in_ground_truth']} samples "
        f"x {sizes['turn_time']} turn times x {repeats}, seed {result.attrs['seed']}, {result.attrs['device']}",
        f"process {_process(settings)}; {STARTS[settings['start']]}reverse: " + ", ".join(_kernels(result)),
    ]


def _process(settings: dict[str, Any]) -> str:
    """Return what a process is called: its kind, or the factory that made it."""
    return str(settings["process"].get("factory") or settings["process"]["kind"])


def _kernels(result: xr.Dataset) -> Iterable[str]:
    for score in result["score"].values:
        row = result.sel(score=score)
        steps = int(row["reverse_steps"].max())
        yield f"{score} {row['kernel'].item()}" + (f" ({steps} steps from the largest turn time)" if steps > 1 else "")


def _balance(result: xr.Dataset) -> Iterable[str]:
    """Yield, for every network, the largest violations of what holds for an exact score."""
    for score in result["score"].values:
        row = result.sel(score=score)
        if str(row["score_kind"].item()) not in NETWORKS:
            continue
        said = []
        for name, what in (("balance_squared", "|D|^2 against x0.D"), ("balance_simulated", "simulated against x0.D")):
            if np.isfinite(row[name]).all():
                here = row.isel(turn_time=int(np.abs(row[name].values).argmax()))
                said.append(
                    f"{what} {float(here[name]):+.4f} [{float(here[name + '_low']):+.4f}, {float(here[name + '_high']):+.4f}] at "
                    f"{float(here['noise_to_signal']):.3g} ({pvalue_text(float(here[name + '_pvalue']))})"
                )
            else:
                said.append(f"{what} undefined (no reverse SDE)")
        yield f"{score}, largest: " + "; ".join(said)


def _estimators(result: xr.Dataset, networks: set[str]) -> list[str]:
    """Return the three estimators of C side by side for every network: equal, within their errors, for an exact score."""
    columns = [["noise to", "signal", *(f"{value:.3f}" for value in result["noise_to_signal"].values)]]
    for score in result["score"].values:
        row = result.sel(score=score)
        if str(row["score_kind"].item()) in networks:
            for name, title in (
                ("autocorrelation", "simulated"),
                ("autocorrelation_one_shot", "x0.D"),
                ("autocorrelation_one_shot_squared", "|D|^2"),
            ):
                columns.append([str(score), title, *(fixed(float(value)) for value in row[name].values)])
    return aligned([list(row) for row in zip(*columns, strict=True)])


def notes(result: xr.Dataset) -> Iterable[str]:
    """Yield the warnings that apply to a run.

    Parameters
    ----------
    result : Dataset
        Root group of an archive.

    Yields
    ------
    str

    Examples
    --------
    >>> from gaussian_test.engine.runner import run
    >>> small = run({"samples": 8, "turn_times": {"noise_to_signal": [0.1, 1.0, 5.0]}, "observables": "none"})
    >>> list(notes(small))[-1]
    'Note: bands from 8 samples are rough: start from more.'
    """
    settings = yaml.safe_load(result.attrs["experiment"])
    start = settings["start"]
    if start != "noised_data":
        yield "Note: the start of this run holds no data: a correlation with it is of the sampler's noise and the score alone."
    if (moved := result.attrs["turn_time_moved"]) > 1e-6:
        yield f"Note: turn times were moved to the nearest levels of the sampler's own grid, by up to {moved:.1%}."
    sizes = {str(score): np.unique(result["micro_batch"].sel(score=score).values) for score in result["score"].values}
    for score, seen in sizes.items():
        if str(result["score_kind"].sel(score=score).item()) in NETWORKS:
            yield f"{score}: {' and '.join(map(str, seen))} states a call."
    for score in result["score"].values:
        row = result.sel(score=score)
        if str(row["score_kind"].item()) in NETWORKS and (row["autocorrelation_one_shot_squared"] > ABSURD).any():
            times = float(row["autocorrelation_one_shot_squared"].max())
            yield (
                f"Note: {score} does not denoise, as |D|^2 is up to {times:.3g} times the data's variance: see that what it "
                "predicts, its process ('trained') and the scaling of the data are those of its training."
            )
    kernels = set(result["kernel"].values) - {"exact"}
    if kernels and start == "noised_data":
        yield (
            "Note: the gap of simulated U-Turns at T also holds what the score does below T and its own discretisation error; "
            "the affine time is read off the gap of one evaluation, gap_one_shot, which holds neither."
        )
        if (set(result["score_kind"].values) & NETWORKS) and "sde" in kernels and settings["reverse"]["clock"] == "time":
            yield "Note: the balance of the simulation also holds its discretisation error: reverse.clock=variance has less."
    if "edm" in kernels and settings["reverse"]["S_churn"]:
        yield "Note: with churn the auto-correlation belongs to the sampler: hold it against autocorrelation_discrete."
    if (asked := result.attrs["turn_times_asked"]) > result.sizes["turn_time"]:
        yield f"Note: {asked} turn times were asked for, which are {result.sizes['turn_time']} different levels of this process."
    accuracy = float(result["classifier_accuracy"])
    if not math.isnan(accuracy):
        error = float(result["classifier_accuracy_se"])
        name = result["classifier_accuracy"].attrs["classifier"]
        yield f"Classes by {name}, right in {accuracy:.1%} +- {error:.1%} of samples that it was not fitted on."
    if result.sizes["sample"] < 16:
        yield f"Note: bands from {result.sizes['sample']} samples are rough: start from more."


def _times(result: xr.Dataset, unit: str = "noise_to_signal") -> list[str]:
    scores = [str(score) for score in result["score"].values]
    rows = [["", *scores, "predicted"]]
    notes = []
    for name in TIMES:
        variable = result[f"{name}_{unit}"]
        cells = [
            interval(*(float(result[f"{name}_{unit}{suffix}"].sel(score=score)) for suffix in ("", "_low", "_high")))
            for score in scores
        ]
        rows.append([name, *cells, number(float(result[f"{name}_{unit}_predicted"][0]))])
        if "reason" in variable.attrs:
            notes.append(f"  {name}: {variable.attrs['reason']}")
        for key, title in PREDICTIONS.items():
            predicted = f"{name}_{unit}_{key}"
            if predicted in result and np.isfinite(result[predicted]).any():
                values = result[predicted].values
                said = (
                    number(float(values))
                    if values.ndim == 0
                    else ", ".join(
                        f"{score} {number(float(value))}" for score, value in zip(scores, values, strict=True) if np.isfinite(value)
                    )
                )
                notes.append(f"  {name} predicted {title}: {said}")
    return [*aligned(rows), *notes]


def _gaps(result: xr.Dataset) -> Iterable[str]:
    for score in result["score"].values:
        row = result.sel(score=score)
        at = int(np.abs(row["gap"].values).argmax())
        here = row.isel(turn_time=at)
        pvalue = float(here["gap_pvalue"])
        yield (
            f"{score} largest {float(here['gap']):.3f} [{float(here['gap_low']):.3f}, {float(here['gap_high']):.3f}] "
            f"at {float(here['noise_to_signal']):.3g} ({pvalue_text(pvalue)})"
        )


def _curves(result: xr.Dataset, curves: dict[str, str]) -> list[str]:
    """Return some curves side by side: a block of columns for each observable, a column for each score that has it."""
    scores = [str(score) for score in result["score"].values]
    columns = [["noise to", "signal", *(f"{value:.3f}" for value in result["noise_to_signal"].values)]]
    for name, title in curves.items():
        for score in scores:
            values = result[name].sel(score=score).values
            if np.isnan(values).all() or (name == "gap" and not values.any()):
                continue  # undefined for this start; or the reference itself, zero by construction
            columns.append([title, score, *(fixed(float(value)) for value in values)])
            title = ""
    if len(columns) == 1:
        return ["(undefined for this start)"]
    if curves is CURVES and np.isfinite(result["kl_from_gaussian"].values).any():
        columns.append(["KL from", "Gaussian (nat)", *(number(float(value)) for value in result["kl_from_gaussian"].values)])
    return aligned([list(row) for row in zip(*columns, strict=True)])


def compare_text(comparison: xr.Dataset, names: tuple[str, str]) -> str:
    """Return a comparison of two results as text.

    Parameters
    ----------
    comparison : Dataset
        From :func:`compare`.
    names : tuple of str
        What to call the two.

    Returns
    -------
    str
    """
    how = "paired: the same samples with the same noise" if comparison.attrs["paired"] else "independent samples"
    lines = [f"a = {names[0]}", f"b = {names[1]}", f"{how}; b - a with intervals", "", "Times, as noise-to-signal ratios"]
    rows = [["", "score", "a", "b", "b - a"]]
    for name in TIMES:
        for score in comparison["score"].values:
            of_score = comparison.sel(score=score)
            sides = [
                [float(of_score[f"{name}{suffix}"].sel(archive=side)) for suffix in ("", "_low", "_high")] for side in ("a", "b")
            ]
            known = [
                float(of_score[f"{name}_difference{suffix}"])
                for suffix in ("", "_low", "_high")
                if f"{name}_difference{suffix}" in of_score
            ]
            difference = interval(*known) if len(known) == 3 and not math.isnan(known[1]) else number(known[0])
            rows.append([name, str(score), *(interval(*side) for side in sides), difference])
    lines += aligned(rows)
    rows = [["Largest differences for their errors", "score", "b - a", "band", "at noise/signal", ""]]
    for name in [str(name).removesuffix("_difference") for name in comparison.data_vars if str(name).endswith("_difference")]:
        values = comparison[f"{name}_difference"]
        if "noise_to_signal" not in values.dims:
            continue
        for score in comparison["score"].values:
            row = comparison.sel(score=score)
            difference_here = row[f"{name}_difference"].values
            if np.isnan(difference_here).all():
                continue
            at = most_different(comparison, name, str(score))
            low, high, pvalue = (float(row[f"{name}_difference{suffix}"][at]) for suffix in ("_low", "_high", "_pvalue"))
            place = f"{float(comparison['noise_to_signal'][at]):.3g}"
            title = name.replace("_", " ")
            rows.append(
                [title, str(score), f"{difference_here[at]:+.4g}", f"[{low:+.4g}, {high:+.4g}]", place, pvalue_text(pvalue)]
            )
    return "\n".join([*lines, "", *(aligned(rows) if len(rows) > 1 else ["No curve is defined in both."])])


def most_different(compared: xr.Dataset, name: str, score: str) -> int:
    """Return the turn time at which a curve of a score differs most in units of its standard error.

    Parameters
    ----------
    compared : Dataset
        From :func:`gaussian_test.compare`.
    name : str
        Of the curve, which differs somewhere or is defined somewhere.
    score : str
        Of the score.

    Returns
    -------
    int
        Index into ``noise_to_signal``.

    Examples
    --------
    >>> values = {"a_difference": [[0.2, 0.1]], "a_difference_se": [[0.2, 0.01]]}
    >>> compared = xr.Dataset({name: (("score", "noise_to_signal"), v) for name, v in values.items()}, {"score": ["one"]})
    >>> most_different(compared, "a", "one")
    1
    """
    row = compared.sel(score=score)
    difference, error = np.abs(row[f"{name}_difference"].values), row[f"{name}_difference_se"].values
    with np.errstate(divide="ignore", invalid="ignore"):
        return int(np.nanargmax(np.where(difference > 0, difference / error, np.where(np.isnan(difference), np.nan, 0.0))))
