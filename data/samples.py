"""What every source hands over before scaling."""

from __future__ import annotations

from dataclasses import dataclass

from gaussian_test.data.formats.rows import Rows
from gaussian_test.data.values import Labels


@dataclass(frozen=True)
class Samples:
    """Raw samples, their classes if known, and what to call them.

    Parameters
    ----------
    rows : Rows
        Samples as (sample, feature) or (sample, channel, row, column).
    title : str
        What the data are, without the folders of this machine.
    labels : Labels or None
        Classes of the samples.
    value_range : tuple of float or None
        Range of the raw values, where the source defines one that their type does not tell.
    """

    rows: Rows
    title: str
    labels: Labels | None = None
    value_range: tuple[float, float] | None = None
