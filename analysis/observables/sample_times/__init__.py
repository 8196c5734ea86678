"""Times of single samples and classes, and their self-averaging."""

from gaussian_test.analysis.declarations import INTERVAL, Variable
from gaussian_test.analysis.observables.record import Figure, Observable

NU = "noise-to-signal ratio sigma/alpha"
CURVES = {
    "memorization": "memorized share",
    "speciation": "class retention (P_a - pi_a)/(1 - pi_a), with the share pi_a of its class a among the ground-truth samples,",
}


def _of(time: str, curve: str) -> tuple[Variable, ...]:
    level = "{levels[" + str(list(CURVES).index(time)) + "]:g}"
    return (
        Variable(
            f"sample_{time}_noise_to_signal",
            ("score", "sample"),
            f"{time} time of a sample as a {NU}",
            f"{curve} of its repeats, by a monotone fit, falls through {level}; 0 where it is below at the smallest turn time, "
            "infinite where it is not at the largest",
            needs="sample",
        ),
        Variable(
            f"{time}_noise_to_signal_by_class",
            ("score", "class"),
            f"{time} time of a class as a {NU}",
            f"{curve} of the starts of the class falls through {level}",
            band=INTERVAL,
            needs="sample",
        ),
        Variable(
            f"{time}_self_averaging",
            ("score",),
            f"variance of {time} times between samples over that within samples",
            "one-way random-effects analysis of variance of log(nu) at which each repeat is lost; 0: times of all samples are "
            "alike",
            band=INTERVAL,
            needs="sample",
        ),
    )


VARIABLES = (
    Variable("class", ("class",), "class of the ground-truth samples", "-1: there are none"),
    *(variable for time, curve in CURVES.items() for variable in _of(time, curve)),
)

SAMPLE_TIMES = Observable(
    name="sample_times",
    title="times of single samples and of classes, and how self-averaging they are",
    variables=VARIABLES,
    any_start=True,
    default=True,
    measure="sample_times.times:measure",
    text="sample_times.text:lines",
    figures=(
        Figure(
            "sample_times",
            "Sample by sample, class by class",
            "Each histogram is over single samples, each bar the time of a class with its interval. Samples that are forgotten "
            "late, or classes far from the others, are where a model holds on to its data.",
            shown_for="sample_memorization_noise_to_signal",
            draw="sample_times.figures:sample_times",
        ),
    ),
)
