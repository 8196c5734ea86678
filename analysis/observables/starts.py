"""Start sensitivity: the same noise reversed from other starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gaussian_test.analysis.declarations import OTHER_STARTS, STARTS, Variable, described
from gaussian_test.analysis.observables.quality import BETWEEN, FROM_TRUTH, of_distances
from gaussian_test.analysis.observables.record import Column, Figure, Inputs, Observable, Shard, Table

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure as Drawn

DIMS = ("start", "score", "turn_time")

VARIABLES = (
    Variable("start", ("start",), "what is reversed instead of the noised data"),
    *of_distances("start_{kind}", BETWEEN, DIMS, rows=""),
    *of_distances("start_{kind}_to_truth", FROM_TRUTH, DIMS, rows=""),
    *(
        Variable(
            f"end_{start}",
            ("score", "turn_time", "sample", "repeat", "event"),
            f"end points of runs that start from {start}",
            "with the same noise",
            group="end_points",
        )
        for start in OTHER_STARTS
    ),
)


def runs(shard: Shard) -> xr.Dataset:
    """Reverse other starts with the same noise: the Gaussian of the noised data, and noise alone."""
    import torch
    import xarray as xr

    from gaussian_test.analysis.moments.moments import event_dims

    result, names = xr.Dataset(), tuple(shard.scores)
    for start in OTHER_STARTS:
        ends = shard.ends(shard.plan, shard.starts(start), names)
        values = torch.stack([ends[name] for name in names]).cpu().numpy()
        shape = (len(names), len(shard.plan.levels), len(shard.samples), shard.plan.repeats, *values.shape[3:])
        result[f"end_{start}"] = (("score", "turn_time", "kept", "repeat", *event_dims(values.ndim - 3)), values.reshape(shape))
    return result


def measure(inputs: Inputs) -> dict[str, xr.Dataset]:
    """Return the distances of the end points of other starts from those of U-Turns, and from the ground truth."""
    import xarray as xr

    from gaussian_test.analysis.observables.quality.quality import sample_quality, start_sensitivity

    resample, found = inputs.resample(inputs.table.sizes["kept"]), []
    for start in OTHER_STARTS:
        others = inputs.features_of(inputs.table[f"end_{start}"])
        from_truth = sample_quality(others, inputs.population, resample)
        renamed = {
            name: f"start_{kind}_to_truth{name.removeprefix(kind)}"
            for kind in ("frechet", "kid")
            for name in map(str, from_truth.data_vars)
            if name.startswith(kind)
        }
        both = start_sensitivity(inputs.end_features, others, resample).merge(
            from_truth[list(renamed)].rename(renamed), compat="override"
        )
        found.append(both.drop_dims("sample"))
    result = xr.concat(found, xr.Variable("start", list(OTHER_STARTS)), combine_attrs="override")
    return {"": inputs.on_features(described(result, VARIABLES))}


def draw(result: xr.Dataset) -> Drawn:
    """Draw how far the end points of other starts are from those of U-Turns, and from the ground truth."""
    from gaussian_test.analysis.figures.parts import band, canvas, colours, log_noise, names_above, plain

    figure, axes = canvas(2, 5.2)
    for axis, name, label in (
        (axes[0], "start_kid", "MMD from the\nends of U-Turns"),
        (axes[1], "start_frechet_to_truth", "Fréchet distance from\nthe ground truth"),
    ):
        for index, (score, colour) in enumerate(colours(result)):
            for start, style in zip(result["start"].values, ("-", "--"), strict=False):
                row = result.sel(score=score, start=start)
                said = f"{plain(score)} score from {STARTS[start].called.removeprefix('the ')}"
                band(axis, result["noise_to_signal"].values, row, name, colour, index, said, style)
        axis.set_ylabel(label)
        axis.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    names_above(figure, axes[0], 2)
    log_noise(axes[1])
    return figure


STARTS_OBSERVABLE = Observable(
    name="starts",
    title="other starts with the same noise, from the matched Gaussian and from noise alone: two more reverse runs",
    variables=VARIABLES,
    needs=("end points", "features"),
    runs="starts:runs",
    measure="starts:measure",
    tables=(
        Table(
            "Other starts: MMD of their end points from those of U-Turns",
            (
                (
                    Column("start_kid", "{score}", "{start}", any_size=True),
                    Column("start_kid_se", "", "+-", any_size=True),
                    Column("start_frechet_to_truth", "Fréchet to", "ground truth", any_size=True),
                ),
            ),
        ),
    ),
    figures=(
        Figure(
            "starts",
            "Does it matter where the reverse process starts?",
            "The same noise, but started from the matched Gaussian or from noise alone instead of the noised data. Where the "
            "curves are at zero, the turn forgets its start.",
            ("start_kid",),
            shown_for="start_kid",
            draw="starts:draw",
        ),
    ),
)
