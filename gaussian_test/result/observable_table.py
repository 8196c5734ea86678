"""Observables as text: what a person reads at a glance of what was measured beside the Gaussian Test."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.stats import false_discovery_control

from gaussian_test.text import aligned, fixed, interval, number, pvalue_text

ENOUGH = 256  # starts, for the bands of heavy-tailed curves: see docs/calibration.md
TESTS = {"class": "class transitions", "moments": "antisymmetric moments", "energy": "energy distance"}


@dataclass(frozen=True)
class Column:
    """A column of a table over noise levels: two lines of title, and values that are of order one or of any size."""

    title: str
    under: str
    values: Iterable[float]
    any_size: bool = False


def observables_text(result: xr.Dataset, groups: Mapping[str, xr.Dataset], every: bool = False) -> list[str]:
    """Return the observables of a result as lines of text.

    Parameters
    ----------
    result : Dataset
        Root group of an archive.
    groups : mapping of str to Dataset
        Its other groups.
    every : bool
        Show every turn time; else some, evenly picked.

    Returns
    -------
    list of str

    Examples
    --------
    >>> from gaussian_test.engine.runner import run
    >>> small = run({"samples": 8, "turn_times": {"noise_to_signal": [0.1, 1.0, 5.0]}, "keep": {"pictures": 0}})
    >>> "Kolmogorov-Smirnov test of the noised data" in " ".join(observables_text(small, {}))
    True
    """
    count = result.sizes["turn_time"]
    chosen = np.arange(count) if every else np.unique(np.linspace(0, count - 1, min(count, 8)).round().astype(int))
    some = result.isel(turn_time=chosen)
    lines: list[str] = []
    if len(chosen) < count:
        lines += ["", f"Observables at {len(chosen)} of the {count} turn times (all of them: --all)"]
    for part in (_sample_times(result), _affinity(some), _norms(some), _normality(some), _quality(some), _starts(some)):
        lines += part
    lines += [*_balance(result, some), *_own(some)]
    if "chains" in groups:
        lines += _chains(groups["chains"])
    return lines


def _scores(result: xr.Dataset) -> list[str]:
    return [str(score) for score in result["score"].values]


def _over_noise(result: xr.Dataset, columns: Iterable[Column]) -> list[str]:
    shown = [["noise to", "signal", *(f"{value:.3f}" for value in result["noise_to_signal"].values)]]
    for column in columns:
        values = np.asarray(column.values, dtype=np.float64)
        if np.isnan(values).all():
            continue
        written = (number(value) if column.any_size else fixed(value) for value in values.tolist())
        shown.append([column.title, column.under, *written])
    return aligned([list(row) for row in zip(*shown, strict=True)]) if len(shown) > 1 else ["(undefined for this start)"]


def _sample_times(result: xr.Dataset) -> list[str]:
    if "sample_memorization_noise_to_signal" not in result:
        return []
    rows = [["", "score", "median over samples [quartiles]", "classes", "between/within samples [interval]"]]
    for time in ("memorization", "speciation"):
        for score in _scores(result):
            row = result.sel(score=score)
            values = row[f"sample_{time}_noise_to_signal"].values
            if np.isnan(values).all():
                continue
            middle = np.quantile(values, [0.5, 0.25, 0.75], method="inverted_cdf")
            classes = row[f"{time}_noise_to_signal_by_class"].values
            known = classes[np.isfinite(classes)]
            spread = f"{number(known.min())} to {number(known.max())}" if len(known) else "-"
            ratio = interval(*(float(row[f"{time}_self_averaging{suffix}"]) for suffix in ("", "_low", "_high")))
            rows.append([time, score, interval(*middle.tolist()), spread, ratio])
    lines = ["", "Times of single samples and of classes", *aligned(rows)]
    for time in ("memorization", "speciation"):
        if reason := result[f"{time}_self_averaging"].attrs.get("reason"):
            lines.append(f"  {time}, between/within: {reason}")
    return lines


def _affinity(result: xr.Dataset) -> list[str]:
    if "score_explained" not in result:
        return []
    columns = []
    for score in _scores(result):
        for reference in result["reference"].values:
            if score == reference:
                continue  # 1 by construction
            values = result["score_explained"].sel(score=score, reference=reference).values
            columns.append(Column(score, f"by {reference}", values))
    lines = ["", "Share of the squared norm of each score that others explain", *_over_noise(result, columns)]
    if result.sizes["sample"] < ENOUGH:
        lines.append(
            f"  from {result.sizes['sample']} starts the bands of shares and distances hold less often than they say: take more"
        )
    columns = []
    for score in _scores(result):
        row = result.sel(score=score)
        if row["denoiser_gap"].values.any():
            columns += [
                Column(score, "from Gaussian", row["denoiser_gap"].values, True),
                Column("", "from best affine", row["affine_gap"].values, True),
                Column("", "p of gain", row["affine_gain_pvalue"].values, True),
            ]
    if columns:
        lines += ["", "Squared distance of the denoisers, over the total variance (best affine map: out of sample)"]
        lines += _over_noise(result, columns)
    return lines


def _norms(result: xr.Dataset) -> list[str]:
    if "score_norm" not in result:
        return []
    columns = []
    for name, title in (("score_square_scaled", "s^2 E|s|^2/d"), ("score_norm", "E|s|"), ("score_norm_relative", "E|s| relative")):
        columns += [Column(title, score, result[name].sel(score=score).values, True) for score in _scores(result)]
        columns.append(Column("", "closed form", result[f"{name}_gaussian"].values, True))
    return ["", "Norm of the scores, beside the Gaussian's closed form", *_over_noise(result, columns)]


def _normality(result: xr.Dataset) -> list[str]:
    if "ks_mean" not in result:
        return []
    expected = float(result["ks_share_above_null"])
    columns = [
        Column("distance", "mean", result["ks_mean"].values),
        Column("normal:", "from", result["ks_mean_null_low"].values),
        Column("", "to", result["ks_mean_null_high"].values),
        Column("", "p", result["ks_mean_pvalue"].values),
        Column("share", f"> 0.06 ({expected:.2g})", result["ks_share_above"].values),
        Column("", "rejected (0.05)", result["ks_share_rejected"].values),
        Column("", "discovered", result["ks_share_discovered"].values),
    ]
    return [
        "",
        "Kolmogorov-Smirnov test of the noised data, feature by feature (in brackets: of normal features)",
        *_over_noise(result, columns),
    ]


def _quality(result: xr.Dataset) -> list[str]:
    if "frechet" not in result:
        return []
    columns = []
    for name, title in (("frechet", "Fréchet"), ("kid", "MMD")):
        for score in _scores(result):
            row = result.sel(score=score)
            columns += [Column(title, score, row[name].values, True), Column("", "+-", row[f"{name}_se"].values, True)]
    said = f"Distance of the end points from the ground truth, on {result['frechet'].attrs['features']}, biases taken off"
    return ["", said, *_over_noise(result, columns)]


def _starts(result: xr.Dataset) -> list[str]:
    if "start_kid" not in result:
        return []
    columns = []
    for score in _scores(result):
        for start in result["start"].values:
            row = result.sel(score=score, start=start)
            columns += [
                Column(score, f"{start}", row["start_kid"].values, True),
                Column("", "+-", row["start_kid_se"].values, True),
            ]
            columns.append(Column("Fréchet to", "ground truth", row["start_frechet_to_truth"].values, True))
    return ["", "Other starts: MMD of their end points from those of U-Turns", *_over_noise(result, columns)]


def _balance(result: xr.Dataset, some: xr.Dataset) -> list[str]:
    if "exchange_energy_pvalue" not in result:
        return []
    lines = ["", "Start and end as an exchangeable pair: " + "; ".join(_exchange(result))]
    columns = []
    for name, title in (
        ("change_susceptibility", "susceptibility"),
        ("change_susceptibility_magnitude", "of |change|"),
        ("change_correlation_length", "length (pixel)"),
        ("change_correlation_length_magnitude", "of |change|"),
    ):
        columns += [Column(title, score, some[name].sel(score=score).values) for score in _scores(some)]
    return [*lines, "", "Change field of the U-Turns", *_over_noise(some, columns)]


def _exchange(result: xr.Dataset) -> Iterator[str]:
    """Yield, for every score and test, the smallest p-value with the false discovery rate over turn times controlled."""
    for score in _scores(result):
        said = []
        for test, title in TESTS.items():
            values = result[f"exchange_{test}_pvalue"].sel(score=score).values
            here = np.isfinite(values)
            if here.any():
                adjusted = np.full(len(values), np.nan)
                adjusted[here] = false_discovery_control(values[here])
                at = int(np.nanargmin(adjusted))
                place = f" at {float(result['noise_to_signal'][at]):.3g}"
                said.append(f"{title} {pvalue_text(float(adjusted[at]))}{place if adjusted[at] < 0.05 else ''}")
        yield f"{score}: {', '.join(said) if said else 'undefined (no reverse SDE)'}"


def _own(result: xr.Dataset) -> list[str]:
    lines = []
    for name, variable in result.data_vars.items():
        if "own_observable" in variable.attrs:
            columns = []
            for score in _scores(result):
                row = result.sel(score=score)
                columns += [Column(score, "", row[name].values, True), Column("", "+-", row[f"{name}_se"].values, True)]
            unit = f" ({variable.attrs['units']})" if variable.attrs["units"] != "1" else ""
            lines += ["", f"Own observable {name}: {variable.attrs['long_name']}{unit}", *_over_noise(result, columns)]
    return lines


def _chains(table: xr.Dataset) -> list[str]:
    rows = [["noise to signal", *(str(score) for score in table["score"].values), "Gaussian, closed form"]]
    for index, level in enumerate(table["noise_to_signal"].values):
        row = table.isel(turn_time=index)
        cells = [
            interval(*(float(row[f"autocorrelation_time{suffix}"].sel(score=score)) for suffix in ("", "_low", "_high")))
            for score in table["score"].values
        ]
        rows.append([f"{level:.3f}", *cells, number(float(row["autocorrelation_time_gaussian"]))])
    lines = ["", "Chains of U-Turns: auto-correlation time, in U-Turns", *aligned(rows)]
    reason = table["autocorrelation_time"].attrs.get("reason")
    return [*lines, f"  {reason}"] if reason else lines
