"""Sample quality: distances of end points from the ground truth."""

from gaussian_test.analysis.declarations import Variable
from gaussian_test.analysis.observables.record import Column, Figure, Observable, Panel, Table

BANDS = {
    "_se": ", standard error with its part of second order",
    "_low": ", lower edge of the simultaneous band (score interval)",
    "_high": ", upper edge of the simultaneous band (score interval)",
}
KINDS = {
    "frechet": (
        "Fréchet distance",
        "|m1-m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2), in the squared unit of the features; its bias taken off",
    ),
    "kid": ("squared MMD of a polynomial kernel", "over pairs of different starts, unbiased: can be negative"),
}
FROM_TRUTH, BETWEEN = "of the end points from the ground truth", "between the end points of two starts"


def of_distances(
    name: str, of: str, dims: tuple[str, ...] = ("score", "turn_time"), rows: str = "kept", title: str = ""
) -> tuple[Variable, ...]:
    """Return the declarations of a distance; ``{kind}`` in its name becomes ``frechet`` and ``kid``."""
    found = []
    for kind, (said, comment) in KINDS.items():
        called = name.format(kind=kind)
        pseudo = f"sample_{called}"
        found.append(
            Variable(
                called,
                dims,
                f"{said} {of}",
                comment,
                band=BANDS,
                title=title and f"{'Fréchet distance' if kind == 'frechet' else 'squared MMD'} {title}",
                compared=pseudo if title else "",
            )
        )
        if kind == "frechet":
            too_large = "of the empirical laws themselves: too large by order 1/n"
            found.append(Variable(f"{called}_plug_in", dims, f"plug-in {said} {of}", too_large))
        mean = "of the jackknife over starts: their mean is the distance"
        if rows:
            found.append(Variable(pseudo, (*dims, rows), f"pseudo-values of the {said} {of}", mean))
    return tuple(found)


FLOOR = "Fréchet distance, plug-in, of as many perfect draws: "
VARIABLES = (
    Variable("kept", ("kept",), "sample whose end points are looked at together, index into the ground-truth set"),
    *of_distances("{kind}", FROM_TRUTH, title="from the ground truth"),
    Variable("frechet_floor", (), f"{FLOOR}mean"),
    Variable("frechet_floor_high", (), f"{FLOOR}95 % quantile"),
)

QUALITY = Observable(
    name="quality",
    title="distances of the end points from the ground truth: Fréchet, and MMD of a polynomial kernel",
    variables=VARIABLES,
    needs=("end points", "features"),
    any_start=True,
    default=True,
    measure="quality.quality:measure",
    tables=(
        Table(
            "Distance of the end points from the ground truth, on {frechet.features}, biases taken off",
            tuple(
                (Column(name, title, "{score}", any_size=True), Column(f"{name}_se", "", "+-", any_size=True))
                for name, title in (("frechet", "Fréchet"), ("kid", "MMD"))
            ),
        ),
    ),
    figures=(
        Figure(
            "quality",
            "Distance of the end points from the ground truth",
            "Fréchet distance and polynomial kernel distance on the features named, biases taken off: zero means as good as other "
            "draws from the ground truth.",
            ("frechet", "kid"),
            shown_for="frechet",
            panels=(
                Panel("frechet", "Fréchet distance,\nits bias taken off", line=0),
                Panel("kid", "squared MMD,\npolynomial kernel", line=0),
            ),
            title="on {features}",
        ),
    ),
)
