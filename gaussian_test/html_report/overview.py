"""Template context for the page of a sweep or folder."""

import math
from pathlib import Path
from typing import Any

from gaussian_test.analysis.declarations import TIMES
from gaussian_test.analysis.figures import overview
from gaussian_test.errors import UserError
from gaussian_test.html_report.figures import inline_svg
from gaussian_test.result.views import View, view
from gaussian_test.store import archive
from gaussian_test.sweep.states import STATES, read_runs, status
from gaussian_test.text import number

FIGURES = {
    "times_of_runs": (
        "Times of the runs",
        "Each mark is a time with its interval, a noise-to-signal ratio. Runs whose intervals do not overlap differ.",
    ),
    "autocorrelation_of_runs": (
        "Auto-correlations of the runs",
        "The U-Turn auto-correlation of each score, a curve for each run; bands are in the reports of the single runs.",
    ),
}


def sweep_context(folder: Path) -> dict[str, Any]:
    """Return the template context of a sweep's overview.

    Raises UserError if it holds no finished run, or an archive is damaged.
    """
    states = status(folder)
    finished = [run.name for run in states if run.state == "finished"]
    if not finished:
        raise UserError(f"{folder} holds no finished run: see gaussian-test status {folder}")
    results = {name: archive.open_archive(folder / f"{name}.nc") for name in finished}
    labels = read_runs(folder)
    keys = list(dict.fromkeys(key for run in states for key in labels.get(run.name, {})))
    rows = []
    for run in states:
        shards = f", {run.done} of {run.of or '?'} shards" if run.done is not None else ""
        reason = f": {run.reason}" if run.reason else ""
        rows.append((run.name, [*(labels.get(run.name, {}).get(key, "") for key in keys), f"{run.state}{shards}{reason}"]))
    counts = [(sum(run.state == state for run in states), state) for state in STATES]
    seen = {name: view(result) for name, result in results.items()}
    times = [
        (f"{name}, {score.name}", [str(score.times[time].estimates["noise_to_signal"]) for time in TIMES])
        for name, one in seen.items()
        for score in one.scores
    ]
    drawn = overview.draw_runs(results)
    return {
        "title": f"Runs of {folder.resolve().name}",
        "lines": [", ".join(f"{count} {state}" for count, state in counts if count)],
        "finding": _ranges(seen),
        "runs": {"title": "Runs and what they vary", "first": "run", "columns": [*keys, "state"], "rows": rows},
        "times": {"title": "Times, as noise-to-signal ratios [interval]", "first": "run", "columns": list(TIMES), "rows": times},
        "figures": [
            {
                "id": f"figure-{index}",
                "heading": FIGURES[name][0],
                "reading": FIGURES[name][1],
                "alt": f"{FIGURES[name][0]}, of {len(results)} runs; the numbers are in the table of times.",
                "svg": inline_svg(figure, f"figure-{index}"),
            }
            for index, (name, figure) in enumerate(drawn.items())
        ],
        "experiments": [(name, str(result.attrs["experiment"])) for name, result in results.items()],
    }


def _ranges(runs: dict[str, View]) -> list[str]:
    """Return for each score the range of its times, with the runs at its ends."""
    said = []
    for score in dict.fromkeys(score.name for seen in runs.values() for score in seen.scores):
        times = {name: one.times for name, seen in runs.items() for one in seen.scores if one.name == score}
        parts = []
        for time in TIMES:
            values = {name: of_run[time].estimates["noise_to_signal"].value for name, of_run in times.items()}
            found = [(value, name) for name, value in values.items() if not math.isnan(value)]
            if found:
                (low, first), (high, last) = min(found), max(found)
                spread = f"{number(low)} ({first}) to {number(high)} ({last})" if low < high else number(low)
                of = f" (in {len(found)} of {len(runs)} runs)" if len(found) < len(runs) else ""
                parts.append(f"{time} time {spread}{of}")
        if parts:
            said.append(f"{score} score: {'; '.join(parts)}.")
    return said or ["No time is defined in any run."]
