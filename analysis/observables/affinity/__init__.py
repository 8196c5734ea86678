"""Affinity of the score: explained share, best affine map, norm."""

from gaussian_test.analysis.declarations import BAND, TESTED, Variable
from gaussian_test.analysis.observables.record import Column, Figure, Observable, Panel, Table

ROWS, CURVE = ("score", "turn_time", "sample", "repeat"), ("score", "turn_time")
NORMAL = "exact for Gaussian data"
NORMS = {  # long name, comment, comment of the Gaussian's closed form
    "score_norm": ("mean norm of the score", "E|s|, in the inverse unit of the data", NORMAL),
    "score_norm_relative": ("mean norm of the score over that at the smallest turn time", "E|s(T)|/E|s(T_0)|", NORMAL),
    "score_square_scaled": (
        "mean squared norm of the score in units of the noise",
        "sigma^2 E|s|^2/d: 1 - (alpha/sigma)^2 mmse/d for an exact score",
        "sigma^2/d sum of 1/(alpha^2 lambda + sigma^2): exact for any data with these moments",
    ),
}

VARIABLES = (
    Variable("sample_score_norm", ROWS, "norm of the score at the turn", "|s|", invariant=False),
    Variable("sample_score_square", ROWS, "squared norm of the score at the turn", "|s|^2", invariant=False),
    Variable(
        "sample_score_distance",
        ("score", "reference", *ROWS[1:]),
        "squared distance of the score from a reference score at the turn",
        "|s-s_ref|^2",
        invariant=False,
    ),
    Variable(
        "residual", ("score", "turn_time", "kept", "event"), "what the Gaussian denoiser leaves of the score's", group="parts"
    ),
    Variable(
        "score_explained",
        ("score", "reference", "turn_time"),
        "share of the score's squared norm that a reference score explains",
        "1 - E|s-s_ref|^2/E|s|^2",
        band=BAND,
    ),
    Variable(
        "denoiser_gap",
        CURVE,
        "squared distance of the denoiser from the Gaussian one",
        "E|D-D_G|^2/tr(Sigma)",
        band=BAND,
        title="squared distance from the Gaussian denoiser",
        compared="sample_denoiser_gap",
    ),
    *(
        variable
        for name, (long_name, comment, of_gaussian) in NORMS.items()
        for variable in (
            Variable(
                name,
                CURVE,
                long_name,
                comment,
                band=BAND,
                title="norm of the score" if name == "score_norm" else "",
                compared="sample_score_norm" if name == "score_norm" else "",
                invariant=name == "score_square_scaled",
            ),
            Variable(
                f"{name}_gaussian", CURVE[1:], f"{long_name}, of the Gaussian", of_gaussian, invariant=name == "score_square_scaled"
            ),
        )
    ),
    Variable(
        "affine_gap",
        CURVE,
        "squared distance of the denoiser from the best affine map found",
        "E|D-D_affine|^2/tr(Sigma), on samples that the map was not fitted to",
        band=BAND,
    ),
    Variable(
        "affine_gain",
        CURVE,
        "gain of the best affine map found over the Gaussian one",
        "E[|D-D_G|^2 - |D-D_affine|^2]/tr(Sigma), on samples that the map was not fitted to; not positive for an exact score",
        band=TESTED,
    ),
)


def _norm(name: str, title: str) -> tuple[tuple[Column, ...], ...]:
    return ((Column(name, title, "{score}", any_size=True),), (Column(f"{name}_gaussian", "", "closed form", any_size=True),))


AFFINITY = Observable(
    name="affinity",
    title="what explains the score (isotropic, Gaussian, mixture and empirical), the best affine map, the norm of the score",
    variables=VARIABLES,
    needs=("references", "end points"),
    default=True,
    at_turn="affinity.scores:at_turn",
    measure="affinity.scores:measure",
    tables=(
        Table(
            "Share of the squared norm of each score that others explain",
            ((Column("score_explained", "{score}", "by {reference}"),),),
            heavy_tailed=True,
        ),
        Table(
            "Squared distance of the denoisers, over the total variance (best affine map: out of sample)",
            (
                (
                    Column("denoiser_gap", "{score}", "from Gaussian", any_size=True, not_zero=True),
                    Column("affine_gap", "", "from best affine", any_size=True),
                    Column("affine_gain_pvalue", "", "p of gain", any_size=True),
                ),
            ),
        ),
        Table(
            "Norm of the scores, beside the Gaussian's closed form",
            (
                *_norm("score_square_scaled", "s^2 E|s|^2/d"),
                *_norm("score_norm", "E|s|"),
                *_norm("score_norm_relative", "E|s| relative"),
            ),
        ),
    ),
    figures=(
        Figure(
            "explained",
            "What explains the score",
            "The share of each score's squared norm that simpler scores explain. Where the Gaussian reaches 1 the score is affine; "
            "what the mixture of classes adds is the classes, what only the empirical score explains are single samples.",
            shown_for="score_explained",
            draw="affinity.figures:explained",
        ),
        Figure(
            "affinity",
            "Distance from the Gaussian and from the best affine map",
            "Above: the mean squared distance of the denoisers from the Gaussian one and, dashed, from the affine map that fits "
            "best, out of sample. Below: what that map gains; above zero, the score is closer to another affine score than to that "
            "of the data's mean and covariance.",
            ("denoiser_gap",),
            shown_for="score_explained",
            draw="affinity.figures:affinity",
        ),
        Figure(
            "score_norm",
            "Norm of the score",
            "Three normalisations of the length of the score, beside the closed form of the Gaussian (the line without marks).",
            ("score_square_scaled",),
            shown_for="score_norm",
            panels=(
                Panel("score_square_scaled", r"$\sigma_T^2\,E\|s\|^2/d$", closed="score_square_scaled_gaussian"),
                Panel("score_norm", r"$E\|s\|$", closed="score_norm_gaussian", log=True),
                Panel(
                    "score_norm_relative",
                    r"$E\|s\|$ over that at" + "\nthe smallest noise",
                    closed="score_norm_relative_gaussian",
                    log=True,
                ),
            ),
            legend=2,
            height=6.2,
        ),
    ),
)
