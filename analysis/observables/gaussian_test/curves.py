r"""Curves, gap and times from the sample table.

:math:`\Delta(T) = C(T) - C_G(T)`. For an exact score :math:`\mathrm{tr}\Sigma\cdot\Delta = \mathrm{lmmse} - \mathrm{mmse} =
\mathbb E\|D - D_G\|^2 \ge 0`, zero exactly where the score is affine.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from gaussian_test.analysis.declarations import (
    BAND,
    INTERVAL,
    TIMES,
    Statistics,
    declared,
    mask_undefined,
    reasons_of,
    why_no_speciation,
)
from gaussian_test.analysis.observables.gaussian_test import VARIABLES
from gaussian_test.analysis.observables.gaussian_test.divergence import likelihood_gain
from gaussian_test.analysis.observables.record import Ended, Inputs, Rows, Turned, product
from gaussian_test.analysis.statistics.bootstrap import Band, ClusterBootstrap, expanded, with_control_variate
from gaussian_test.analysis.statistics.curves import (
    Crossing,
    affine_time,
    predicted_affine,
    predicted_memorization,
    predicted_speciation,
    share_time,
)
from gaussian_test.analysis.theory.closed_form import autocorrelation_exact
from gaussian_test.analysis.uturn.reference import GroundTruth, ScoreFacts

Array = NDArray[np.float64]


def gaussian_test(
    table: xr.Dataset, truth: GroundTruth, *, statistics: Statistics | None = None, scores: Mapping[str, ScoreFacts] | None = None
) -> xr.Dataset:
    r"""Return curves, bands, the test and the times from a sample table.

    Parameters
    ----------
    table : Dataset
        The sample table, with coordinates ``turn_time`` and ``noise_to_signal``.
    truth : GroundTruth
        Facts of the ground-truth set.
    statistics : Statistics, optional
        Settings.
    scores : mapping of str to ScoreFacts, optional
        Facts of each score's run. Default: unconditional scores under exact reversal.

    Returns
    -------
    Dataset
        Curves, bands, tests and times of the root group of an archive: see the reference of the archive.

    Raises
    ------
    ValueError
        If the closed form of a kernel with steps is missing.

    Notes
    -----
    ``gap`` compares U-Turns: under exact reversal :math:`E[\tilde x_0\mid x_T] = D(x_T)` stands for the end point
    (Rao-Blackwell); under a kernel with time steps the simulated end points are compared with the Gaussian's closed form through
    the same steps. Such a gap at T also includes what the score does *below* T, and the discretisation error of this score's own
    reverse run. ``gap_one_shot``, :math:`E[(x_0-\mu)\cdot(D-D_G)]/\mathrm{tr}\Sigma` from one evaluation at T, includes neither:
    the affine time is read off it. Both have the one-evaluation Gaussian on the same noised samples as control variate, whose mean
    is known.

    Examples
    --------
    >>> names = ("", "_one_shot", "_one_shot_squared")
    >>> rows = ("score", "turn_time", "sample", "repeat")
    >>> numbers = np.random.default_rng(0).normal(size=(1, 2, 30, 1))
    >>> table = xr.Dataset({f"sample_autocorrelation{name}": (rows, numbers) for name in names})
    >>> table["sample_autocorrelation_gaussian"] = table["sample_autocorrelation"].isel(score=0)
    >>> table["sample_denoiser_gap"] = 0 * table["sample_autocorrelation"]
    >>> table["nearest_sample"] = table["label_after"] = table["sample_denoiser_gap"].astype(int)
    >>> table["sample_end_square"] = table["nearest_distance"] = table["sample_denoiser_gap"]
    >>> table = table.assign_coords(score=["any"], turn_time=[1.0, 2.0], sample=range(30))
    >>> table = table.assign_coords(noise_to_signal=("turn_time", [1.0, 2.0]))
    >>> result = gaussian_test(table, GroundTruth(30, np.ones(3), 0.0, None), statistics=Statistics(bootstrap=100))
    >>> result.gap.values.round(12).tolist()  # the control variate explains the numbers: no gap
    [[0.0, 0.0]]
    """
    settings = statistics or Statistics()
    facts = scores or {str(name): ScoreFacts() for name in table["score"].values}
    lacking = [name for name, one in facts.items() if one.kernel != "exact" and one.reference is None]
    if lacking or "reference_discrete" in table:
        raise ValueError(
            f"kernels with steps ({', '.join(lacking) or 'reference_discrete in the table'}) need the Gaussian's closed form "
            "through them: give it as ScoreFacts.reference in scores"
        )
    resample = ClusterBootstrap(table.sizes["sample"], settings.bootstrap, settings.confidence, settings.seed)
    percentiles = expanded(settings.confidence, table.sizes["sample"])
    nu = table["noise_to_signal"].values
    exact_gaussian = autocorrelation_exact(truth.eigenvalues, nu)
    control = _by_sample(table["sample_autocorrelation_gaussian"])
    columns: dict[str, list[Array]] = {}
    crossings: dict[str, dict[str, Crossing]] = {name: {} for name in TIMES}
    for score, of_score in facts.items():
        row = table.sel(score=score)
        # of a million starts each takes 200 MB: made where needed, and not kept
        simulated, one_shot, squared = (
            partial(_by_sample, row[f"sample_autocorrelation{of}"]) for of in ("", "_one_shot", "_one_shot_squared")
        )
        is_exact = of_score.kernel == "exact"
        discretised = exact_gaussian if is_exact or of_score.reference is None else of_score.reference
        gap_one_shot = resample.band(with_control_variate(one_shot(), control, exact_gaussian), exact_gaussian, fitted=1)
        gap = (
            gap_one_shot
            if is_exact
            else resample.band(with_control_variate(simulated(), control, exact_gaussian), discretised, fitted=1)
        )
        own = resample.share_band(_by_sample((row["nearest_sample"] == row["sample"]).astype(float)))
        near = resample.share_band(_by_sample((row["nearest_distance"] < truth.typical_distance).astype(float)))
        same, why_not = _same_class(row, truth, of_score.conditional, resample)
        retention = _over_chance(same, truth)
        for name, band in (
            ("autocorrelation", resample.band(simulated())),
            ("autocorrelation_one_shot", resample.band(one_shot())),
            ("autocorrelation_one_shot_squared", resample.band(squared())),
            ("gap", gap),
            ("gap_one_shot", gap_one_shot),
            ("memorized_share", own),
            ("class_retention", retention),
            ("balance_squared", resample.band(squared() - one_shot())),
            ("balance_simulated", resample.band(simulated() - one_shot(), discretised - exact_gaussian)),
            ("end_square", resample.band(_by_sample(row["sample_end_square"]))),
            ("close_share", near),
        ):
            for suffix, column in band.columns().items():
                columns.setdefault(name + suffix, []).append(column)
        remembered = own if settings.memorization == "own" else near
        crossings["memorization"][score] = share_time(
            remembered.estimate, remembered.replicates, nu, level=settings.levels[0], confidence=percentiles
        )
        kept = retention if settings.speciation == "retention" else same
        crossings["speciation"][score] = (
            Crossing(np.nan, np.nan, np.nan, why_not)
            if why_not
            else share_time(kept.estimate, kept.replicates, nu, level=settings.levels[1], confidence=percentiles)
        )
        tested = gap_one_shot if settings.affine == "one_shot" else gap
        crossings["affine"][score] = affine_time(
            tested.estimate, tested.low, tested.high, nu, tolerance=settings.tolerance, standard_error=tested.standard_error
        )
    declared_names = {name for variable in VARIABLES for name in variable.names}
    values = {name: np.array(column) for name, column in columns.items() if name in declared_names}
    gains, reasons = likelihood_gain(table, truth, facts, resample)
    values |= gains
    if np.isnan(values["class_retention"]).all():
        reasons["class_retention"] = {"": why_not}
    for time, found in crossings.items():
        ends = np.array([(crossing.estimate, crossing.low, crossing.high) for crossing in found.values()])
        values |= {f"{time}_noise_to_signal{suffix}": ends[:, place] for place, suffix in enumerate(("", *INTERVAL))}
        reasons[f"{time}_noise_to_signal"] = {score: crossing.reason for score, crossing in found.items()}
    for time, prediction in (
        ("memorization", predicted_memorization(truth.eigenvalues, truth.distinct or truth.count)),
        ("speciation", predicted_speciation(truth.eigenvalues)),
        ("affine", predicted_affine(truth.third_cumulant_norm, float(truth.eigenvalues.sum()), tolerance=settings.tolerance)),
    ):
        values[f"{time}_noise_to_signal_predicted"] = np.full(len(facts), prediction)
    coords = {"score": table["score"], "turn_time": table["turn_time"]}
    result = declared(VARIABLES, values, coords, reasons, **_names(settings))
    if truth.class_shares is not None:
        for suffix in ("", *BAND):
            result["class_retention" + suffix].attrs["by_chance"] = float((truth.class_shares**2).sum())
    result["affine_noise_to_signal"].attrs |= {"read_off": _names(settings)["tested"], "tolerance": settings.tolerance}
    mask_undefined(result, VARIABLES, "noised_data", [score for score, of_score in facts.items() if of_score.flow != "sde"])
    return result


def _names(settings: Statistics) -> dict[str, Any]:
    """Return the facts named in the comments of the times."""
    return {
        "memorized": "memorized" if settings.memorization == "own" else "close",
        "kept": "class retention" if settings.speciation == "retention" else "share of the same class",
        "tested": "gap_one_shot" if settings.affine == "one_shot" else "gap",
        "levels": settings.levels,
        "tolerance": settings.tolerance,
    }


def measure(inputs: Inputs) -> dict[str, xr.Dataset]:
    """Return the Gaussian Test of a run, with closed forms and the times in the time of its process."""
    result = gaussian_test(inputs.table, inputs.truth, statistics=inputs.statistics, scores=inputs.scores)
    nothing = np.full(result.sizes["turn_time"], np.nan)
    values: dict[str, Any] = {"typical_nearest_distance": inputs.truth.typical_distance}
    for name, field in (
        ("autocorrelation_exact", "exact"),
        ("autocorrelation_discrete", "discrete"),
        ("end_square_discrete", "end_square"),
    ):
        closed = [getattr(of_score, field) for of_score in inputs.scores.values()]
        values[name] = np.array([nothing if found is None else found for found in closed])
    reasons = {}
    for time in TIMES:
        for suffix in ("", "_low", "_high", "_predicted"):
            found = result[f"{time}_noise_to_signal{suffix}"].values.copy()
            inside = np.isfinite(found) & (found > 0)
            found[inside] = inputs.plan.process.time(torch.from_numpy(found[inside])).numpy()
            values[f"{time}_time{suffix}"] = found
        reasons[f"{time}_time"] = reasons_of(result[f"{time}_noise_to_signal"])
    return {"": result.merge(declared(VARIABLES, values, None, reasons, **_names(inputs.statistics)), compat="override")}


def at_turn(turned: Turned) -> Rows:
    """Yield the table rows of turned states."""
    y, nu2 = turned.x / turned.alpha.to(turned.x)[..., None] - turned.mean, (turned.sigma / turned.alpha) ** 2
    # log density of the Gaussian relative to noise about the mean
    gaussian = (y * turned.gaussian).sum(-1, dtype=torch.float64) / nu2 / 2 - (turned.eigenvalues / nu2).log1p().sum(-1, True) / 2
    for score, found in turned.evaluated.items():
        of_gaussian = found.denoised is turned.gaussian  # gains nothing, without rounding
        ratio = gaussian if of_gaussian or found.log_ratio is None else found.log_ratio
        unknown = torch.full_like(gaussian, torch.nan)
        yield "sample_likelihood_gain", score, unknown if found.log_ratio is None and not of_gaussian else ratio - gaussian
        yield "sample_posterior_information", score, unknown if found.information is None else found.information
    yield "sample_autocorrelation_gaussian", None, turned.product(turned.start, turned.gaussian)
    for score, denoised in turned.denoised.items():
        yield "sample_autocorrelation_one_shot", score, turned.product(turned.start, denoised)
        yield "sample_autocorrelation_one_shot_squared", score, turned.product(denoised, denoised)
        difference = denoised - turned.gaussian
        yield "sample_denoiser_gap", score, turned.product(difference, difference)


def at_end(ended: Ended) -> Iterator[tuple[str, Tensor]]:
    """Yield the table rows of end points."""
    yield "sample_autocorrelation", product(ended.start, ended.end, ended.trace)
    yield "sample_end_square", product(ended.end, ended.end, ended.trace)
    yield "nearest_sample", ended.nearest
    yield "nearest_distance", ended.distance.double()
    if ended.classify is not None:
        yield "label_after", ended.classify(ended.x.flatten(0, 1)).reshape(len(ended.x), -1)


def memorized(result: xr.Dataset) -> xr.DataArray:
    """Return for every U-Turn of an archive whether its start is the sample nearest to its end point."""
    return (result["nearest_sample"] == result["sample"]).astype(np.float64)


def close(result: xr.Dataset) -> xr.DataArray:
    """Return for every U-Turn whether its end point is closer to a sample than samples typically are to each other."""
    return (result["nearest_distance"] < result["typical_nearest_distance"]).astype(np.float64)


def retained(result: xr.Dataset) -> xr.DataArray:
    """Return the class retention of every U-Turn."""
    kept = (result["label_after"] == result["label"]).astype(np.float64)
    by_chance = float(result["class_retention"].attrs["by_chance"])
    found: xr.DataArray = (kept - by_chance) / (1 - by_chance)
    return found


def _by_sample(values: xr.DataArray) -> Array:
    averaged: Array = values.mean("repeat").transpose("sample", "turn_time").values
    return averaged


def _same_class(row: xr.Dataset, truth: GroundTruth, conditional: bool, resample: ClusterBootstrap) -> tuple[Band, str]:
    """Return the share of U-Turns that keep the class, with its band, and why it has no time; NaN without classes."""
    if reason := why_no_speciation(truth.class_shares, conditional):
        nothing = np.full(row.sizes["turn_time"], np.nan)
        if truth.class_shares is None or truth.class_shares.max() == 1:
            return Band(nothing, nothing, nothing, nothing, nothing, nothing[None]), reason
    return resample.share_band(_by_sample((row["label_after"] == row["label"]).astype(float))), reason


def _over_chance(same: Band, truth: GroundTruth) -> Band:
    """Return the class retention: 1 if all ends keep the class of their start, 0 at chance level."""
    by_chance = 0.0 if truth.class_shares is None else float((truth.class_shares**2).sum())
    scale = 1 - by_chance if by_chance < 1 else np.nan
    estimate, low, high, replicates = ((v - by_chance) / scale for v in (same.estimate, same.low, same.high, same.replicates))
    return Band(estimate, same.standard_error / scale, low, high, same.pvalue, replicates)
