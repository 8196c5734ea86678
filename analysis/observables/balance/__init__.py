"""Detailed balance between starts and ends, and the change field."""

from gaussian_test.analysis.declarations import Variable
from gaussian_test.analysis.observables.record import Column, Figure, Observable, Panel, Table

CURVE = ("score", "turn_time")
NULL = "start and end of a U-Turn are exchangeable under the exact score and the reverse SDE; by random swaps, first repeat"
ENDS = {"_se": ", standard error", "_low": ", lower end", "_high": ", upper end"}
KINDS = {"": " of the change", "_magnitude": " of the magnitude of the change"}
TESTS = {"class": "class transitions", "moments": "antisymmetric moments", "energy": "energy distance"}
LARGEST = "exchange_moments_largest"

EXCHANGE = tuple(
    Variable(f"exchange_{name}", CURVE, long_name, comment, needs="sde")
    for name, long_name, comment in (
        ("class_statistic", "asymmetry of the class transitions", "Bowker's sum of (n_ab - n_ba)^2/(n_ab + n_ba)"),
        ("class_pvalue", "p-value of symmetric class transitions", NULL),
        (
            "moments_statistic",
            "largest |t| of drifts and currents",
            "end less start in features, their squares and the squared norm; currents a_i b_j - b_i a_j of the leading features",
        ),
        ("moments_pvalue", "p-value of no drift and no current", NULL),
        ("moments_largest", "drift or current with the largest |t|", "features counted from 0"),
        ("moments_mean", "mean over starts of the drift or current with the largest |t|", "in the unit of the features"),
        ("moments_se", "its standard error over starts", "in the unit of the features"),
        ("energy_statistic", "energy distance of the pairs from the swapped pairs", "in the unit of the features"),
        ("energy_pvalue", "p-value of no energy distance of the pairs from the swapped pairs", NULL),
    )
)
CHANGE = (
    Variable("distance", ("distance",), "mean distance of pixels"),
    *(
        variable
        for kind, of_what in KINDS.items()
        for variable in (
            Variable(
                f"change_susceptibility{kind}",
                CURVE,
                f"susceptibility{of_what}",
                "sum of all covariances of pixels over the sum of their variances; band over turn times",
                band=ENDS,
            ),
            Variable(
                f"change_correlation_length{kind}",
                CURVE,
                f"correlation length{of_what}",
                "in pixels: where C(r)/C(0) first falls through 1/e; interval at each turn time",
                band=ENDS,
            ),
            Variable(
                f"change_correlation{kind}",
                (*CURVE, "distance"),
                f"correlation over the distance of pixels{of_what}",
                "C(r)/C(0), over all pairs of pixels",
            ),
        )
    ),
    Variable(
        "change_susceptibility_gaussian",
        CURVE[1:],
        "susceptibility of the change field of the Gaussian score",
        "closed form, reverse SDE",
    ),
)

BALANCE = Observable(
    name="balance",
    title="tests that start and end are an exchangeable pair; susceptibility and correlation length of the change field",
    variables=(*EXCHANGE, *CHANGE),
    needs=("end points", "features"),
    default=True,
    measure="balance.exchange:measure",
    text="balance.text:exchange",
    tables=(
        Table(
            "Change field of the U-Turns",
            (
                (Column("change_susceptibility", "susceptibility", "{score}"),),
                (Column("change_susceptibility_magnitude", "of |change|", "{score}"),),
                (Column("change_correlation_length", "length (pixel)", "{score}"),),
                (Column("change_correlation_length_magnitude", "of |change|", "{score}"),),
            ),
        ),
    ),
    figures=(
        Figure(
            "exchange",
            "Are start and end an exchangeable pair?",
            "P-values of three tests of detailed balance, which hold for an exact score under the reverse SDE. Values below the "
            "dotted line now and then are chance; many in a row are not. With 999 permutations none is smaller than 0.001.",
            shown_for="exchange_energy_pvalue",
            draw="balance.figures:exchange",
        ),
        Figure(
            "change_field",
            "The field of changes",
            "Susceptibility and correlation length of the difference between end and start: peaks mark where features change "
            "together.",
            ("change_susceptibility",),
            shown_for="change_susceptibility",
            panels=(
                Panel("change_susceptibility", "susceptibility,\nchange", closed="change_susceptibility_gaussian"),
                Panel("change_susceptibility_magnitude", "susceptibility,\n|change|"),
                Panel("change_correlation_length", "correlation length\n(pixel), change", if_defined=True),
                Panel("change_correlation_length_magnitude", "correlation length\n(pixel), |change|", if_defined=True),
            ),
            legend=2,
            height=0.0,
        ),
    ),
)
