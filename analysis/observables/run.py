"""Run facts in an archive: coordinates, kernels, scores, groups."""

from gaussian_test.analysis.declarations import ERROR, MOMENTS, Variable
from gaussian_test.analysis.observables.record import Observable

COORDINATES = (
    Variable("score", ("score",), "score function"),
    Variable("turn_time", ("turn_time",), "turn time, in the time of the process", invariant=False),
    Variable("time", ("time",), "time of the state, in the time of the process", group="trajectory", invariant=False),
    Variable("sample", ("sample",), "index into the ground-truth set"),
    Variable("repeat", ("repeat",), "repeat of the U-Turn with other noise"),
    Variable("reference", ("reference",), "reference score"),
)
FACTS = (
    Variable("noise_to_signal", ("turn_time",), "noise-to-signal ratio at the turn", "sigma/alpha"),
    Variable("label", ("sample",), "class of the sample, or that a start which is none was given", "-1: none"),
    Variable("kernel", ("score",), "reverse kernel"),
    Variable("reverse_steps", ("score", "turn_time"), "reverse steps taken from the turn to 0"),
    Variable("score_kind", ("score",), "kind of the score, as in the experiment; python for one that was handed in"),
    Variable("conditional", ("score",), "whether the score is given the class of the start"),
    Variable("micro_batch", ("score", "sample"), "states per call of the score", "decides the last bits of what is computed"),
    Variable(
        "classifier_accuracy", (), "accuracy of the classifier of end points", "on samples that it was not fitted on", band=ERROR
    ),
)
KEPT = (
    Variable("kept_sample", ("kept",), "sample whose states are kept", group="parts"),
    *MOMENTS,
    Variable("start", ("sample", "event"), "what was noised: ground-truth samples in a U-Turn", group="pictures"),
    Variable("end", ("score", "turn_time", "sample", "event"), "end points of the U-Turn", "first repeat", group="pictures"),
    Variable(
        "end",
        ("score", "turn_time", "sample", "repeat", "event"),
        "end points",
        "of the samples that observables look at together",
        group="end_points",
    ),
    Variable(
        "state",
        ("score", "turn_time", "time", "sample", "event"),
        "states of the reverse process",
        "first repeat; NaN before the turn",
        group="trajectory",
    ),
)

RUN = Observable(
    name="run",
    title="coordinates, what reversed each score and how, and what is kept",
    variables=(*COORDINATES, *FACTS, *KEPT),
    any_start=True,
    default=True,
)
