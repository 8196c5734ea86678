"""Chains of U-Turns at one turn time."""

from gaussian_test.analysis.declarations import Variable
from gaussian_test.analysis.observables.record import Figure, Observable

BAND = {"_se": ", standard error", "_low": ", lower end", "_high": ", upper end"}
INTERVAL = {ending: BAND[ending] for ending in ("_low", "_high")}
WINDOW = 5  # window of the sum of correlations, in auto-correlation times
STEPS, CURVE, CLOSED = ("score", "turn_time", "step"), ("score", "turn_time"), " of the Gaussian score in closed form, reverse SDE"
OF_CURVE = (
    "auto-correlation along a chain of U-Turns",
    "C(k) = E[(x(j)-mu).(x(j+k)-mu)]/tr(Sigma) over all pairs k U-Turns apart; band over k",
)
OF_TIME = (
    "integrated auto-correlation time, in U-Turns",
    f"1 + 2 sum of C(k), k up to a window of at least {WINDOW} times itself; interval at each turn time; where the chain is "
    "shorter, the lower end is that of the sum over all of it",
)

VARIABLES = (
    Variable("chain_product", ("score", "chain_turn", "kept", "link", "link_other"), "inner products along a chain", group="parts"),
    Variable("chain_label", ("score", "chain_turn", "kept", "link"), "classes along a chain", group="parts"),
    Variable("step", ("step",), "number of U-Turns", group="chains"),
    Variable("autocorrelation", STEPS, *OF_CURVE, band=BAND, group="chains"),
    Variable("autocorrelation_gaussian", STEPS[1:], OF_CURVE[0] + CLOSED, OF_CURVE[1], group="chains"),
    Variable("autocorrelation_time", CURVE, *OF_TIME, band=INTERVAL, group="chains"),
    Variable("autocorrelation_time_gaussian", CURVE[1:], OF_TIME[0] + CLOSED, OF_TIME[1], group="chains"),
    Variable(
        "class_retention",
        STEPS,
        "class retention along a chain of U-Turns",
        "(P_same - P_inf)/(1 - P_inf), P_inf = sum of squared class shares, over all pairs k U-Turns apart; band over k",
        band=BAND,
        group="chains",
    ),
)

CHAINS = Observable(
    name="chains",
    title="chains of U-Turns and their auto-correlation time: as many more reverse runs as a chain is long",
    variables=VARIABLES,
    needs=("end points",),
    runs="chains.chains:runs",
    measure="chains.chains:measure",
    text="chains.text:lines",
    figures=(
        Figure(
            "chains",
            "Chains of U-Turns",
            "Above: what is left of the start after a number of U-Turns in a row. Below: the number of U-Turns until a chain has "
            "forgotten, by turn time.",
            draw="chains.figures:chains",
            group="chains",
        ),
    ),
)
