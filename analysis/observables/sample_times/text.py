"""Times of samples and classes as a table."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from gaussian_test.analysis.declarations import parts_of, said_of
from gaussian_test.text import aligned, interval, number


def lines(result: xr.Dataset, _: Mapping[str, xr.Dataset]) -> list[str]:
    """Return medians over samples, the range of the classes, and the self-averaging ratio, by score."""
    rows = [["", "score", "median over samples [quartiles]", "classes", "between/within samples [interval]"]]
    for time in ("memorization", "speciation"):
        for score in result["score"].values:
            row = result.sel(score=score)
            values = row[f"sample_{time}_noise_to_signal"].values
            if np.isnan(values).all():
                continue
            middle = np.quantile(values, [0.5, 0.25, 0.75], method="inverted_cdf")
            classes = row[f"{time}_noise_to_signal_by_class"].values
            known = classes[np.isfinite(classes)]
            spread = f"{number(known.min())} to {number(known.max())}" if len(known) else "-"
            ratio = interval(*map(float, parts_of(row, f"{time}_self_averaging")))
            rows.append([time, str(score), interval(*middle.tolist()), spread, ratio])
    lines = ["", "Times of single samples and of classes", *aligned(rows)]
    for time in ("memorization", "speciation"):
        if reason := said_of(result[f"{time}_self_averaging"]):
            lines.append(f"  {time}, between/within: {reason}")
    return lines
