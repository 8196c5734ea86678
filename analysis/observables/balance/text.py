"""Summary sentence of the exchangeability tests."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gaussian_test.analysis.observables.balance import TESTS
from gaussian_test.text import pvalue_text


def exchange(result: xr.Dataset, _: Mapping[str, xr.Dataset]) -> list[str]:
    """Return the smallest adjusted p-values of each score over all turn times."""
    said = []
    for score in result["score"].values:
        tests = []
        for test, title in TESTS.items():
            values = result[f"exchange_{test}_pvalue"].sel(score=score).values
            here = np.isfinite(values)
            if here.any():
                adjusted = np.full(len(values), np.nan)
                adjusted[here] = _adjusted(values[here])
                at = int(np.nanargmin(adjusted))
                place = f" at {float(result['noise_to_signal'][at]):.3g}"
                tests.append(f"{title} {pvalue_text(float(adjusted[at]))}{place if adjusted[at] < 0.05 else ''}")
        said.append(f"{score}: {', '.join(tests) if tests else 'undefined (no reverse SDE)'}")
    return ["", "Start and end as an exchangeable pair: " + "; ".join(said)]


def _adjusted(pvalues: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Benjamini-Hochberg p-values, as scipy's false_discovery_control, without scipy's import time."""
    order = np.argsort(pvalues)
    scaled = pvalues[order] * len(pvalues) / np.arange(1, len(pvalues) + 1)
    adjusted = np.empty_like(scaled)
    adjusted[order] = np.minimum.accumulate(scaled[::-1])[::-1].clip(0, 1)
    return adjusted
