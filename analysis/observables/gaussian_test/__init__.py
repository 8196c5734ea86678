"""The Gaussian Test: auto-correlations, gap and the three times."""

from gaussian_test.analysis.declarations import BAND, ERROR, INTERVAL, TESTED, TIMES, Variable
from gaussian_test.analysis.observables.record import Column, Figure, Observable, Panel, Table

ROWS, CURVE = ("score", "turn_time", "sample", "repeat"), ("score", "turn_time")
INTEGRAL = BAND | {"_quadrature_error": ", error of the quadrature and of the part beyond the largest turn time"}
CLOSED = "closed form through the very steps simulated; NaN where there is none"
OF_TIMES = {  # level that each curve falls through, and its prediction
    "memorization": "{memorized} share falls through {levels[0]:g}; predicted: sum of log(1 + lambda/nu^2) / 2 = log N",
    "speciation": "{kept} falls through {levels[1]:g}; predicted: sqrt(lambda_1), all channels, data scale",
    "affine": "|{tested}| falls below {tolerance:g} for good; at _high with the band's simultaneous confidence; predicted: leading "
    "order in 1/nu from the third cumulant",
}


def _times(unit: str, suffix: str) -> tuple[Variable, ...]:
    found = []
    for name in TIMES:
        comment, said = OF_TIMES[name], f"{name} time {unit}"
        found.append(
            Variable(f"{name}_{suffix}", ("score",), said, comment, band=INTERVAL, needs="sample", invariant=suffix != "time")
        )
        found.append(Variable(f"{name}_{suffix}_predicted", ("score",), f"{said}, predicted", comment, invariant=suffix != "time"))
    return tuple(found)


VARIABLES = (
    # the sample table
    Variable(
        "sample_autocorrelation", ROWS, "U-Turn auto-correlation of one trajectory", "(x0-mu).(end-mu)/tr(Sigma)", needs="start"
    ),
    Variable(
        "sample_autocorrelation_one_shot",
        ROWS,
        "one-evaluation auto-correlation of one noised sample",
        "(x0-mu).(D-mu)/tr(Sigma)",
        needs="start",
    ),
    Variable(
        "sample_autocorrelation_one_shot_squared", ROWS, "squared norm of the denoised turn", "|D-mu|^2/tr(Sigma)", needs="start"
    ),
    Variable(
        "sample_denoiser_gap", ROWS, "squared distance of the denoiser from the Gaussian one", "|D-D_G|^2/tr(Sigma)", needs="start"
    ),
    Variable(
        "sample_autocorrelation_gaussian",
        ROWS[1:],
        "one-evaluation auto-correlation of the Gaussian score: the control variate",
        "(x0-mu).(D_G-mu)/tr(Sigma)",
        needs="start",
    ),
    Variable(
        "sample_likelihood_gain",
        ROWS,
        "log-likelihood of one noised sample that the score gains over the Gaussian",
        "log p_t - log N_t; NaN for a score without a density",
        "nat",
        needs="sample",
    ),
    Variable(
        "sample_posterior_information",
        ROWS,
        "information of the score's posterior weights about the sample that a noised one came from",
        "log N - H(w), N of the class for a conditional score; NaN for a score without weights of samples",
        "nat",
        needs="sample",
    ),
    Variable("sample_end_square", ROWS, "squared distance of the end point from the data's mean", "|end-mu|^2/tr(Sigma)"),
    Variable(
        "nearest_distance",
        ROWS,
        "distance of the end point to the nearest ground-truth sample",
        "Euclidean, in the unit of the data",
    ),
    Variable("nearest_sample", ROWS, "ground-truth sample nearest to the end point", "index into the ground-truth set"),
    Variable("label_after", ROWS, "class of the end point", "as the classifier says; -1 where there are no classes"),
    # curves
    Variable(
        "autocorrelation",
        CURVE,
        "U-Turn auto-correlation",
        "C(T) = E[(x0-mu).(end-mu)]/tr(Sigma), centred",
        band=BAND,
        needs="start",
        title="auto-correlation",
        compared="sample_autocorrelation",
    ),
    Variable(
        "autocorrelation_exact",
        CURVE,
        "autocorrelation exact",
        "closed form in continuous time; NaN where there is none",
        needs="start",
    ),
    Variable("autocorrelation_discrete", CURVE, "autocorrelation discrete", CLOSED, needs="start"),
    Variable(
        "autocorrelation_one_shot",
        CURVE,
        "one-evaluation auto-correlation",
        "E[(x0-mu).(D-mu)]/tr(Sigma): equals the U-Turn's for an exact score",
        band=ERROR,
        needs="start",
        title="auto-correlation by one evaluation",
        compared="sample_autocorrelation_one_shot",
    ),
    Variable(
        "autocorrelation_one_shot_squared",
        CURVE,
        "one-evaluation auto-correlation from the squared norm",
        "E|D-mu|^2/tr(Sigma): equals the U-Turn's for an exact score",
        band=ERROR,
        needs="start",
    ),
    Variable("gap", CURVE, "gap to the Gaussian auto-correlation", "Delta(T) = C(T) - C_G(T)", band=TESTED, needs="sample"),
    Variable(
        "gap_one_shot",
        CURVE,
        "one-evaluation gap to the Gaussian",
        "E[(x0-mu).(D-D_G)]/tr(Sigma): of the score at this noise level alone",
        band=TESTED,
        needs="sample",
    ),
    Variable(
        "kl_from_gaussian",
        ("turn_time",),
        "Kullback-Leibler divergence of the noised data from its Gaussian",
        "from the log density of the exact score at the noised samples: sum of log(1 + lambda/nu^2) / 2 - log N + entropy of the "
        "posterior weights above 0.4 nat, E[a + exp(-a) - 1] below, a = log p_t - log N_t",
        "nat",
        band=BAND,
        needs="sample",
    ),
    Variable(
        "likelihood_gain",
        CURVE,
        "log-likelihood of the noised data that the score gains over the Gaussian",
        "E[log p_t - log N_t] of a score that knows its density p_t, which is kl_from_gaussian for the exact one; of others "
        "likelihood_gain_integral",
        "nat",
        band=BAND,
        needs="sample",
    ),
    Variable(
        "likelihood_gain_integral",
        CURVE,
        "log-likelihood that the score gains over the Gaussian, by the integral over noise levels",
        "half the integral of lmmse - E|x0-D|^2 over 1/nu^2 (I-MMSE), by a cubic spline in log(nu); beyond the largest turn time "
        "halfway between the leading order from the third cumulant and that from the last value; NaN where the error is not small",
        "nat",
        band=INTEGRAL,
        needs="sample",
    ),
    Variable(
        "memorized_share",
        CURVE,
        "share of U-Turns whose end point is nearest to the sample it started from",
        "exact binomial interval where all samples agree",
        band=BAND,
        needs="sample",
        title="memorized share",
        compared="gaussian_test.curves:memorized",
        is_share=True,
    ),
    Variable(
        "class_retention",
        CURVE,
        "class retention",
        "(P_same - P_inf)/(1 - P_inf), P_inf = sum of squared class shares",
        band=BAND,
        needs="sample",
        title="class retention",
        compared="gaussian_test.curves:retained",
        is_share=True,
    ),
    Variable(
        "balance_squared",
        CURVE,
        "detailed balance of one evaluation",
        "E[|D-mu|^2 - (x0-mu).(D-mu)]/tr(Sigma): zero for an exact score",
        band=TESTED,
        needs="sample",
    ),
    Variable(
        "balance_simulated",
        CURVE,
        "detailed balance of the U-Turns against one evaluation",
        "C - C_one_shot, less the same of the Gaussian in closed form through these steps: zero for an exact score, up to the "
        "discretisation error that it does not share with the Gaussian",
        band=TESTED,
        needs="sde",
    ),
    Variable(
        "end_square",
        CURVE,
        "mean squared distance of the end points from the data's mean",
        "E|end-mu|^2/tr(Sigma): 1 for the data",
        band=BAND,
        title="variance of the end points",
        compared="sample_end_square",
    ),
    Variable(
        "end_square_discrete",
        CURVE,
        "mean squared distance of the end points from the data's mean, closed form",
        "of the Gaussian score, through the very steps simulated; NaN where there is none",
    ),
    Variable(
        "close_share",
        CURVE,
        "share of end points closer to a ground-truth sample than these typically are to each other",
        "typically: the median distance of a sample to its nearest neighbour; one half for the data themselves",
        band=BAND,
        title="share of end points close to a sample",
        compared="gaussian_test.curves:close",
        is_share=True,
    ),
    Variable("typical_nearest_distance", (), "median distance of a ground-truth sample to its nearest neighbour", "in data units"),
    # times
    *_times("as a noise-to-signal ratio sigma/alpha", "noise_to_signal"),
    *_times("in the process's time", "time"),
)

GAUSSIAN_TEST = Observable(
    name="gaussian_test",
    title="auto-correlations, their gap to the Gaussian score, memorized share, class retention, and the three times",
    variables=VARIABLES,
    any_start=True,
    default=True,
    at_turn="gaussian_test.curves:at_turn",
    at_end="gaussian_test.curves:at_end",
    measure="gaussian_test.curves:measure",
    tables=(
        Table(
            "",
            (
                (Column("autocorrelation", "C", "{score}"),),
                (Column("gap", "gap", "{score}", not_zero=True),),
                (Column("gap_one_shot", "gap, one evaluation", "{score}", not_zero=True, unlike="gap"),),
                (Column("memorized_share", "memorized", "{score}"),),
                (Column("class_retention", "class kept", "{score}"),),
                (Column("kl_from_gaussian", "KL from", "Gaussian (nat)", any_size=True),),
            ),
            once=True,
        ),
        Table(
            "End points: variance about the data's mean, share closer to a ground-truth sample than these are to each other",
            ((Column("end_square", "variance", "{score}"),), (Column("close_share", "close", "{score}"),)),
            once=True,
        ),
        Table(
            "C by three estimators; of an exact score x0.D and |D|^2 agree, and the simulation if it is one of the reverse SDE",
            (
                (
                    Column("autocorrelation", "{score}", "simulated"),
                    Column("autocorrelation_one_shot", "{score}", "x0.D"),
                    Column("autocorrelation_one_shot_squared", "{score}", "|D|^2"),
                ),
            ),
            networks=True,
        ),
    ),
    figures=(
        Figure(
            "autocorrelation",
            "U-Turn auto-correlation",
            "How much of a sample is left after a U-Turn: 1, all of it; 0, nothing but the mean. Where a score's curve leaves that "
            "of the Gaussian score, it knows more of the data than mean and covariance; where they are one, it is affine. Shaded: "
            "simultaneous bands. Lines without marks: closed forms, which rest on the eigenvalues of the covariance alone.",
            ("autocorrelation",),
            shown_for="autocorrelation",
            draw="gaussian_test.figures:autocorrelation",
        ),
        Figure(
            "gap",
            "The Gaussian Test: gap to the Gaussian score",
            "Above: the auto-correlation less that of the Gaussian score with the same noise. Where the band holds zero, the test "
            "does not tell the score from an affine one. U-Turns simulated in steps have two gaps: that of one evaluation is of "
            "the score at this noise level alone, that of the U-Turns also holds what the score does below it and the error of the "
            "steps. Dashed lines mark from where on the gap drawn solid stays within the tolerance (grey), shaded their intervals. "
            "Below: how far the noised data are from a Gaussian; for an exact score the area under the gap.",
            ("gap",),
            shown_for="gap",
            draw="gaussian_test.figures:gap",
        ),
        Figure(
            "times",
            "Memorization and speciation",
            "Above: the share of U-Turns whose end point is nearest to the very sample that they started from. Below: the share "
            "that keeps its class, on a scale on which 0 is chance. The times (dashed, with intervals) are where the curves fall "
            "through the level; dotted: what the spectrum of the data alone predicts.",
            ("memorized_share", "class_retention"),
            shown_for="gap",
            draw="gaussian_test.figures:times",
        ),
        Figure(
            "end_points",
            "End points",
            "Above: the variance of the end points about the mean of the data; 1 is that of the data, and a score or a sampler "
            "that loses or adds variance shows here. Below: the share of end points that lies closer to a ground-truth sample than "
            "samples typically lie to each other: copies.",
            ("end_square", "close_share"),
            panels=(
                Panel(
                    "end_square",
                    r"$E\|\tilde x_0-\mu\|^2/\mathrm{tr}\,\Sigma$",
                    closed="end_square_discrete",
                    line=1,
                    line_label="the data",
                ),
                Panel("close_share", "share closer to a sample\nthan samples to each other", limits=(-0.05, 1.05)),
            ),
        ),
        Figure(
            "balance_{score}",
            "Detailed balance of {score}",
            "Is the network a score at all? Above: the auto-correlation by three estimators, which agree for an exact score. "
            "Below: how far they are apart, with bands; a band that does not hold zero is a violation.",
            ("balance_squared", "balance_simulated"),
            shown_for="gap",
            draw="gaussian_test.figures:balance",
        ),
    ),
)
