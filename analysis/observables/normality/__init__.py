"""Normality of the noised data, feature by feature."""

from gaussian_test.analysis.declarations import Variable
from gaussian_test.analysis.observables.record import Column, Figure, Observable, Table

LEVEL = "Benjamini-Hochberg over the features of one noise level, at {test.level:g}"
NULL_RANGE = "95 % of Gaussian samples with the observed mean and covariance, of at most {most} features, are in the range"
OF_NULL = {"_null_low": ", lower end of its range if normal", "_null_high": ", upper end of its range if normal"}
MAPS, OVER = ("turn_time", "event"), ("turn_time",)
FIELDS = {  # variables, and their names in a test
    "ks_distance": "distance",
    "ks_pvalue": "pvalue",
    "ks_discovered": "discovered",
    "ks_mean": "mean_distance",
    "ks_mean_pvalue": "mean_distance_pvalue",
    "ks_share_above": "share_above",
    "ks_share_rejected": "share_rejected",
    "ks_share_discovered": "share_discovered",
    "ks_share_above_null": "share_above_null",
} | {
    f"ks_{of}_null_{end}": f"{field}_null_{end}"
    for of, field in (("mean", "mean_distance"), ("share_above", "share_above"), ("share_rejected", "share_rejected"))
    for end in ("low", "high")
}

VARIABLES = (
    Variable(
        "ks_distance",
        MAPS,
        "Kolmogorov-Smirnov distance of a feature from the normal",
        "sup|F_n - Phi|, centred and scaled by mean and standard deviation (n - 1) of {test.count} samples; NaN: does not vary",
        group="normality",
    ),
    Variable(
        "ks_pvalue",
        MAPS,
        "p-value of a feature being normal",
        "against simulated normal features with fitted mean and scale, {test.count} samples",
        group="normality",
    ),
    Variable(
        "ks_discovered", MAPS, "whether a feature is not normal, with the false discovery rate controlled", LEVEL, group="normality"
    ),
    Variable("ks_mean", OVER, "mean Kolmogorov-Smirnov distance of the features", "over the features that vary"),
    Variable(
        "ks_mean_pvalue",
        OVER,
        "p-value of all features being jointly Gaussian, by their mean distance",
        "among Gaussian samples with the observed mean and covariance: correlations are respected",
    ),
    Variable(
        "ks_share_above",
        OVER,
        "share of features above a distance of {test.threshold:g} from the normal",
        "not zero for normal features: see ks_share_above_null",
    ),
    Variable(
        "ks_share_rejected",
        OVER,
        "share of features with a p-value of at most {test.level:g}",
        "expectation for normal features: {test.level:g}",
    ),
    Variable("ks_share_discovered", OVER, "share of features that are not normal, with the false discovery rate controlled", LEVEL),
    Variable(
        "ks_share_above_null",
        (),
        "expected share of normal features above a distance of {test.threshold:g}",
        "normal features with fitted mean and scale, {test.count} samples",
    ),
    *(
        Variable(f"{name}{ending}", OVER, f"{long_name}{said}", NULL_RANGE)
        for name, long_name in (
            ("ks_mean", "mean Kolmogorov-Smirnov distance of the features"),
            ("ks_share_above", "share of features above a distance of {test.threshold:g} from the normal"),
            ("ks_share_rejected", "share of features with a p-value of at most {test.level:g}"),
        )
        for ending, said in OF_NULL.items()
    ),
)

NORMALITY = Observable(
    name="normality",
    title="Kolmogorov-Smirnov tests of the noised data, feature by feature, calibrated",
    variables=VARIABLES,
    default=True,
    measure="normality.normality:measure",
    tables=(
        Table(
            "Kolmogorov-Smirnov test of the noised data, feature by feature (in brackets: of normal features)",
            (
                (Column("ks_mean", "distance", "mean"),),
                (Column("ks_mean_null_low", "normal:", "from"),),
                (Column("ks_mean_null_high", "", "to"),),
                (Column("ks_mean_pvalue", "", "p"),),
                (Column("ks_share_above", "share", "> 0.06 ({ks_share_above_null:.2g})"),),
                (Column("ks_share_rejected", "", "rejected (0.05)"),),
                (Column("ks_share_discovered", "", "discovered"),),
            ),
        ),
    ),
    figures=(
        Figure(
            "normality",
            "Are the noised data Gaussian, feature by feature?",
            "Kolmogorov-Smirnov tests of the noised data. Above: the mean distance, beside that of Gaussian samples of the same "
            "number (grey). Below: shares of features that are farther than the level, rejected at 5 %, and discovered with a "
            "false discovery rate of 5 %; dotted: what normal features would give.",
            ("ks_mean", "ks_share_rejected"),
            shown_for="ks_mean",
            draw="normality.figures:normality",
        ),
        Figure(
            "normality_map",
            "Where the noised data are not Gaussian",
            "The Kolmogorov-Smirnov distance pixel by pixel: bright is far from normal.",
            draw="normality.figures:normality_map",
            group="normality",
        ),
    ),
)
