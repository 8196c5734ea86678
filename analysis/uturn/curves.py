r"""The Gaussian Test: from the sample table to curves with bands, the gap to the Gaussian, and the three times.

:math:`\Delta(T) = C(T) - C_G(T)`. For an exact score :math:`\mathrm{tr}\Sigma\cdot\Delta = \mathrm{lmmse} - \mathrm{mmse} =
\mathbb E\|D - D_G\|^2 \ge 0`, zero exactly where the score is affine, and with :math:`\gamma = 1/\nu^2`
:math:`\mathrm{KL}(p_t\|\mathcal N_t) = \tfrac12\int_0^{\gamma_t}(\mathrm{lmmse}-\mathrm{mmse})\,d\gamma`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gaussian_test.analysis.statistics.bootstrap import SUFFIXES, Band, ClusterBootstrap, controlled, expanded
from gaussian_test.analysis.statistics.crossings import (
    Crossing,
    affine_time,
    predicted_affine,
    predicted_memorization,
    predicted_speciation,
    share_time,
)
from gaussian_test.analysis.theory.closed_form import autocorrelation_exact
from gaussian_test.analysis.theory.information import divergence

Array = NDArray[np.float64]
NU = "noise-to-signal ratio sigma/alpha"


@dataclass(frozen=True)
class Statistics:
    r"""How curves, tests and times are computed from the sample table.

    Attributes
    ----------
    confidence : float
        Of bands and intervals, in (0, 1).
    bootstrap : int
        Number of resamples of the ground-truth samples.
    level : float
        That memorized share and class retention fall through, in (0, 1).
    memorization_level, speciation_level : float or None
        Of one of them alone.
    tolerance : float
        On :math:`|\\Delta|`, for the affine time; positive.
    memorization : {"own", "any"}
        Remembered: the nearest sample is the start; or any sample is closer than samples typically are to each other.
    speciation : {"retention", "same"}
        Class kept: over chance; or the plain share of ends in the class of the start.
    affine : {"one_shot", "uturn"}
        The gap that the affine time is read off: of one evaluation, or of the U-Turns.
    seed : int
        Of the resampling.
    """

    confidence: float = 0.95
    bootstrap: int = 2000
    level: float = 0.5
    memorization_level: float | None = None
    speciation_level: float | None = None
    tolerance: float = 0.02
    memorization: Literal["own", "any"] = "own"
    speciation: Literal["retention", "same"] = "retention"
    affine: Literal["one_shot", "uturn"] = "one_shot"
    seed: int = 0

    @property
    def levels(self) -> tuple[float, float]:
        """Levels of memorization and speciation."""
        return self.memorization_level or self.level, self.speciation_level or self.level


@dataclass(frozen=True)
class GroundTruth:
    r"""What the statistics need to know of the ground-truth set.

    Attributes
    ----------
    count : int
        Number of samples N.
    eigenvalues : ndarray
        Of the covariance, shape (modes,).
    third_cumulant_norm : float
        :math:`\\|\\kappa_3\\|^2`.
    class_shares : ndarray or None
        Share of each class, shape (classes,).
    typical_distance : float
        Of a sample to its nearest neighbour, in the unit of the data.
    """

    count: int
    eigenvalues: Array
    third_cumulant_norm: float
    class_shares: Array | None
    typical_distance: float = np.nan


def gaussian_test(table: xr.Dataset, truth: GroundTruth, statistics: Statistics | None = None) -> xr.Dataset:
    r"""Return curves, bands, the test and the times from a sample table.

    Parameters
    ----------
    table : Dataset
        The sample table, with coordinates ``turn_time`` and ``noise_to_signal`` and, by score, ``conditional`` (whether it is
        given the class of the start), ``kernel`` (the name of the reverse kernel), ``flow`` (the law in continuous time that it
        goes to: "sde", "ode" or "none"), ``truth`` ("empirical" for the exact score of the samples) and ``reference_discrete``
        (the closed form of the fitted Gaussian's auto-correlation under the score's kernel).
    truth : GroundTruth
        Facts of the ground-truth set.
    statistics : Statistics, optional
        Settings.

    Returns
    -------
    Dataset
        The root group of the archive but for the table itself: see docs/design.md.

    Notes
    -----
    ``gap`` compares U-Turns: under exact reversal :math:`E[\tilde x_0\mid x_T] = D(x_T)` stands for the end point
    (Rao-Blackwell); under a kernel with time steps the simulated end points are held against the Gaussian's closed form through
    the same steps. Such a gap at T also holds what the score does *below* T, and the discretisation error of this score's own
    reverse run. ``gap_one_shot``, :math:`E[(x_0-\mu)\cdot(D-D_G)]/\mathrm{tr}\Sigma` from one evaluation at T, holds neither:
    the affine time is read off it. Both have the one-evaluation Gaussian on the same noised samples as control variate,
    whose mean is known.

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
    >>> table = table.assign(conditional=("score", [False]), kernel=("score", ["exact"]))
    >>> table = table.assign(flow=("score", ["sde"]), truth=("score", ["other"]))
    >>> result = gaussian_test(table, GroundTruth(30, np.ones(3), 0.0, None), Statistics(bootstrap=100))
    >>> result.gap.values.round(12).tolist()  # the control variate explains the numbers: no gap
    [[0.0, 0.0]]
    """
    settings = statistics or Statistics()
    why_not = ""
    resample = ClusterBootstrap(table.sizes["sample"], settings.bootstrap, settings.confidence, settings.seed)
    percentiles = expanded(settings.confidence, table.sizes["sample"])
    nu = table["noise_to_signal"].values
    result = xr.Dataset(coords={"score": table["score"], "turn_time": table["turn_time"]})
    exact_gaussian = autocorrelation_exact(truth.eigenvalues, nu)
    control = _by_sample(table["sample_autocorrelation_gaussian"])
    columns: dict[str, list[Array]] = {}
    crossings: dict[str, list[Crossing]] = {"memorization": [], "speciation": [], "affine": []}
    for index in range(table.sizes["score"]):
        row = table.isel(score=index)
        simulated = _by_sample(row["sample_autocorrelation"])
        one_shot = _by_sample(row["sample_autocorrelation_one_shot"])
        squared = _by_sample(row["sample_autocorrelation_one_shot_squared"])
        is_exact = str(row["kernel"].item()) == "exact"
        discretised = exact_gaussian if is_exact else row["reference_discrete"].values
        gap_one_shot = resample.band(controlled(one_shot, control, exact_gaussian), exact_gaussian, fitted=1)
        gap = gap_one_shot if is_exact else resample.band(controlled(simulated, control, exact_gaussian), discretised, fitted=1)
        memorized = resample.share_band(_by_sample((row["nearest_sample"] == row["sample"]).astype(float)))
        close = resample.share_band(_by_sample((row["nearest_distance"] < truth.typical_distance).astype(float)))
        same, why_not = _same_class(row, truth, resample)
        retention = _over_chance(same, truth)
        for name, band in (
            ("autocorrelation", resample.band(simulated)),
            ("autocorrelation_one_shot", resample.band(one_shot)),
            ("autocorrelation_one_shot_squared", resample.band(squared)),
            ("gap", gap),
            ("gap_one_shot", gap_one_shot),
            ("memorized_share", memorized),
            ("class_retention", retention),
            ("balance_squared", resample.band(squared - one_shot)),
            ("balance_simulated", resample.band(simulated - one_shot, discretised - exact_gaussian)),
            ("end_square", resample.band(_by_sample(row["sample_end_square"]))),
            ("close_share", close),
        ):
            for suffix, values in band.columns().items():
                columns.setdefault(name + suffix, []).append(values)
        remembered = memorized if settings.memorization == "own" else close
        crossings["memorization"].append(
            share_time(nu, remembered.estimate, remembered.replicates, settings.levels[0], percentiles)
        )
        kept = retention if settings.speciation == "retention" else same
        crossings["speciation"].append(
            Crossing(np.nan, np.nan, np.nan, why_not)
            if why_not
            else share_time(nu, kept.estimate, kept.replicates, settings.levels[1], percentiles)
        )
        tested = gap_one_shot if settings.affine == "one_shot" else gap
        crossings["affine"].append(
            affine_time(nu, tested.estimate, tested.low, tested.high, settings.tolerance, tested.standard_error)
        )
    result.update(  # at once: xarray takes each assignment for a merge of all
        {
            name + suffix: (
                ("score", "turn_time"),
                np.array(columns[name + suffix]),
                {"long_name": long_name + SUFFIXES[suffix], "units": "1", "comment": comment},
            )
            for name, (suffixes, long_name, comment) in CURVES.items()
            for suffix in suffixes
        }
    )
    if truth.class_shares is not None:
        for name in CURVES["class_retention"][0]:
            result["class_retention" + name].attrs["by_chance"] = float((truth.class_shares**2).sum())
    if np.isnan(result["class_retention"]).all():
        for suffix in CURVES["class_retention"][0]:
            result["class_retention" + suffix].attrs["reason"] = why_not
    for suffix in CURVES["balance_simulated"][0]:
        _only_for_the_sde(result["balance_simulated" + suffix], table["flow"])
    result = result.merge(divergence(_excess(table), float(truth.eigenvalues.sum()), nu, resample), compat="override")
    _add_times(result, crossings, truth, settings)
    return result


CURVES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "autocorrelation": (
        ("", "_se", "_low", "_high"),
        "U-Turn auto-correlation",
        "C(T) = E[(x0-mu).(end-mu)]/tr(Sigma), centred",
    ),
    "autocorrelation_one_shot": (
        ("", "_se"),
        "one-evaluation auto-correlation",
        "E[(x0-mu).(D-mu)]/tr(Sigma): equals the U-Turn's for an exact score",
    ),
    "autocorrelation_one_shot_squared": (
        ("", "_se"),
        "one-evaluation auto-correlation from the squared norm",
        "E|D-mu|^2/tr(Sigma): equals the U-Turn's for an exact score",
    ),
    "gap": (("", "_se", "_low", "_high", "_pvalue"), "gap to the Gaussian auto-correlation", "Delta(T) = C(T) - C_G(T)"),
    "gap_one_shot": (
        ("", "_se", "_low", "_high", "_pvalue"),
        "one-evaluation gap to the Gaussian",
        "E[(x0-mu).(D-D_G)]/tr(Sigma): of the score at this noise level alone",
    ),
    "memorized_share": (
        ("", "_se", "_low", "_high"),
        "share of U-Turns whose end point is nearest to the sample it started from",
        "exact binomial interval where all samples agree",
    ),
    "balance_squared": (
        ("", "_se", "_low", "_high", "_pvalue"),
        "detailed balance of one evaluation",
        "E[|D-mu|^2 - (x0-mu).(D-mu)]/tr(Sigma): zero for an exact score",
    ),
    "balance_simulated": (
        ("", "_se", "_low", "_high", "_pvalue"),
        "detailed balance of the U-Turns against one evaluation",
        "C - C_one_shot, less the same of the Gaussian in closed form through these steps: zero for an exact score, up to the "
        "discretisation error that it does not share with the Gaussian",
    ),
    "end_square": (
        ("", "_se", "_low", "_high"),
        "mean squared distance of the end points from the data's mean",
        "E|end-mu|^2/tr(Sigma): 1 for the data",
    ),
    "close_share": (
        ("", "_se", "_low", "_high"),
        "share of end points closer to a ground-truth sample than these typically are to each other",
        "typically: the median distance of a sample to its nearest neighbour; one half for the data themselves",
    ),
    "class_retention": (
        ("", "_se", "_low", "_high"),
        "class retention",
        "(P_same - P_inf)/(1 - P_inf), P_inf = sum of squared class shares",
    ),
}


def _only_for_the_sde(values: xr.DataArray, flow: xr.DataArray) -> None:
    """Leave out scores that are reversed by another law, under which start and end are no exchangeable pair."""
    others = [str(score) for score in values["score"].values if str(flow.sel(score=score).item()) != "sde"]
    if others:
        values.loc[{"score": others}] = np.nan
        values.attrs["reason"] = f"{', '.join(others)}: detailed balance holds for the reverse SDE alone"


def _excess(table: xr.Dataset) -> Array | None:
    """Return the squared distance of the exact score of the samples from the Gaussian, (sample, turn_time), where it was run."""
    empirical = [name for name in table["score"].values if str(table["truth"].sel(score=name).item()) == "empirical"]
    return _by_sample(table["sample_denoiser_gap"].sel(score=empirical[0])) if empirical else None


def _by_sample(values: xr.DataArray) -> Array:
    """Return one curve per sample, its repeats averaged: (sample, turn_time)."""
    averaged: Array = values.mean("repeat").transpose("sample", "turn_time").values
    return averaged


def _same_class(row: xr.Dataset, truth: GroundTruth, resample: ClusterBootstrap) -> tuple[Band, str]:
    """Return the band of the share of ends in the class of their start, and why the time of speciation is undefined, if it is."""
    if reason := no_speciation(truth.class_shares, bool(row["conditional"].item())):
        nothing = np.full(row.sizes["turn_time"], np.nan)
        if truth.class_shares is None or truth.class_shares.max() == 1:
            return Band(nothing, nothing, nothing, nothing, nothing, nothing[None]), reason
    return resample.share_band(_by_sample((row["label_after"] == row["label"]).astype(float))), reason


def no_speciation(class_shares: Array | None, conditional: bool) -> str:
    """Return why there is no time at which the class changes; empty where there is one.

    Parameters
    ----------
    class_shares : ndarray or None
        Share of each class in the data, shape (classes,); None where there are no classes.
    conditional : bool
        Whether the score is given the class of the start.

    Returns
    -------
    str

    Examples
    --------
    >>> no_speciation(np.array([1.0]), False)
    'the data set has a single class'
    """
    if class_shares is None:
        return "the data set has no labels"
    if class_shares.max() == 1:
        return "the data set has a single class"
    return "the score is given the class of the start, which it cannot forget" if conditional else ""


def _over_chance(same: Band, truth: GroundTruth) -> Band:
    """Return the class retention: 1 where all ends are in the class of their start, 0 where as many as by chance."""
    by_chance = 0.0 if truth.class_shares is None else float((truth.class_shares**2).sum())
    scale = 1 - by_chance if by_chance < 1 else np.nan
    estimate, low, high, replicates = ((v - by_chance) / scale for v in (same.estimate, same.low, same.high, same.replicates))
    return Band(estimate, same.standard_error / scale, low, high, same.pvalue, replicates)


def _add_times(result: xr.Dataset, crossings: dict[str, list[Crossing]], truth: GroundTruth, settings: Statistics) -> None:
    """Add each time as a noise-to-signal ratio: estimate, interval, prediction from the data alone, and reasons."""
    predictions = {
        "memorization": predicted_memorization(truth.eigenvalues, truth.count),
        "speciation": predicted_speciation(truth.eigenvalues),
        "affine": predicted_affine(truth.third_cumulant_norm, float(truth.eigenvalues.sum()), settings.tolerance),
    }
    comments = {
        "memorization": f"{'memorized' if settings.memorization == 'own' else 'close'} share falls through {settings.levels[0]:g}; "
        "predicted: sum of log(1 + lambda/nu^2) / 2 = log N",
        "speciation": f"{'class retention' if settings.speciation == 'retention' else 'share of the same class'} falls through "
        f"{settings.levels[1]:g}; predicted: sqrt(lambda_1), all channels, data scale",
        "affine": f"|{'gap_one_shot' if settings.affine == 'one_shot' else 'gap'}| falls below {settings.tolerance:g} for good; at "
        "_high with the band's simultaneous confidence; predicted: leading order in 1/nu from the third cumulant",
    }
    variables: dict[str, tuple[str, Array, dict[str, str]]] = {}
    for name, found in crossings.items():
        reasons = "; ".join(f"{score}: {c.reason}" for score, c in zip(result["score"].values, found, strict=True) if c.reason)
        for suffix, values in (
            ("", [c.estimate for c in found]),
            ("_low", [c.low for c in found]),
            ("_high", [c.high for c in found]),
            ("_predicted", [predictions[name]] * len(found)),
        ):
            attributes = {
                "long_name": f"{name} time as a {NU}{TIME_SUFFIXES[suffix]}",
                "units": "1",
                "comment": comments[name],
            }
            if reasons and suffix != "_predicted":
                attributes["reason"] = reasons
            variables[f"{name}_noise_to_signal{suffix}"] = ("score", np.array(values), attributes)
    result.update(variables)


TIME_SUFFIXES = {"": "", "_low": ", lower end of its interval", "_high": ", upper end of its interval", "_predicted": ", predicted"}
