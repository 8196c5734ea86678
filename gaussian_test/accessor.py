"""The xarray accessor with the methods of a result."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from gaussian_test.errors import UserError, lacking, user_input
from gaussian_test.locks import numpy_defaults
from gaussian_test.store import archive

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

LEFT_OUT = "this result lacks {}, which a selection or another program has left out: call it on the whole result"
GROUPS = ("moments", "pictures", "normality", "chains", "end_points", "trajectory")


@xr.register_dataset_accessor("gaussian_test")  # type: ignore[no-untyped-call]
class GaussianTestAccessor:
    """Methods of a result of the Gaussian Test: ``result.gaussian_test.show()``, ``.times``, ``.plot()`` and others.

    Parameters
    ----------
    dataset : Dataset
        Root group of an archive, from :func:`run`, :func:`open_archive` or ``xarray.open_dataset``.
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    def __repr__(self) -> str:
        """Summarise the result and its methods."""
        try:
            result = self._whole
            with lacking(LEFT_OUT):
                nu = result["noise_to_signal"].values
                name = result.attrs.get("data_title", result.attrs["data_source"])
                lines = [
                    f"<gaussian_test: {name}, {result.sizes['sample']} samples, {result.sizes['repeat']} repeats>",
                    f"turn times: {len(nu)}, noise-to-signal {nu[0]:.3g} to {nu[-1]:.3g}",
                    f"scores:     {', '.join(map(str, result['score'].values))}",
                    f"groups:     {', '.join(self._groups(*GROUPS)) or 'none'}",
                    "methods:    show, to_json, plot, report, compare, group, to_datatree; times",
                    "",
                    str(self.times[["estimate", "low", "high", "predicted"]].round(4)),
                ]
        except UserError as error:
            return f"<gaussian_test: {error}>"
        return "\n".join(lines)

    @property
    def _whole(self) -> xr.Dataset:
        from gaussian_test.result.whole import whole

        return whole(self._dataset)

    def _groups(self, *names: str) -> dict[str, xr.Dataset]:
        """Return groups of the archive, as far as they belong to what a selection has left."""
        result, found = self._whole, {}
        for name, group in archive.groups(result, *names).items():
            kept = {dim: group.indexes[dim].isin(result.indexes[dim]) for dim in group.indexes if dim in result.indexes}
            if all(of_dim.any() for of_dim in kept.values()):
                found[name] = group.isel({dim: np.flatnonzero(of_dim) for dim, of_dim in kept.items() if not of_dim.all()})
        return found

    @property
    @lacking(LEFT_OUT)
    def times(self) -> pd.DataFrame:
        """Return the three times of each score, as noise-to-signal ratios.

        Returns
        -------
        DataFrame
            Rows (score, time), where time is ``memorization``, ``speciation`` or ``affine``; columns ``estimate``, ``low``,
            ``high`` (NaN where undefined) and ``predicted``. ``attrs["reasons"]`` says by (score, time) why one is undefined.
        """
        import pandas as pd

        from gaussian_test.result.views import view

        times = {(score.name, name): time for score in view(self._whole).scores for name, time in score.times.items()}
        rows = {
            key: {
                "estimate": (found := time.estimates["noise_to_signal"]).value,
                "low": found.low,
                "high": found.high,
                "predicted": time.predicted["noise_to_signal"].get("predicted", math.nan),
            }
            for key, time in times.items()
        }
        table = pd.DataFrame.from_dict(rows, orient="index").rename_axis(["score", "time"])
        table.attrs["reasons"] = {key: time.reason for key, time in times.items() if time.reason}
        return table

    def group(self, name: str, units: str = "x") -> xr.Dataset:
        """Return another group of the archive.

        Parameters
        ----------
        name : str
            ``moments``, ``pictures``, ``normality``, ``chains``, ``end_points`` or ``trajectory``.
        units : {"x", "file"}
            Units of mean, spectrum, pictures, end points and paths: those of x, or those that the data had before they were scaled.

        Returns
        -------
        Dataset

        Raises
        ------
        UserError
            If the archive does not have it, or not in these units, or is damaged. The checksum of the whole file is verified,
            unless :func:`open_archive` did so and the file is unchanged.
        """
        found = self._groups(name)
        if name not in found:
            raise UserError(f"the archive has no group {name!r}: run again and keep it, or open it from its file")
        return found[name] if units == "x" else _in_units_of_file(found[name], units, self._dataset.attrs)

    def to_datatree(self) -> xr.DataTree:
        """Return the result and all groups of its archive as a tree, as ``xarray.open_datatree`` of the file does.

        Returns
        -------
        DataTree
            The result is its root. A dimension of a group whose coordinates are not those of the root has the name of the group in
            front of its own, such as ``pictures_sample``.
        """
        groups = archive.aligned(self._dataset, self._groups(*GROUPS))
        return xr.DataTree.from_dict({"/": self._dataset, **groups})

    @numpy_defaults()
    @lacking(LEFT_OUT)
    def show(self, every: bool = False) -> str:
        """Return the times, the test and the observables as tables of text.

        Parameters
        ----------
        every : bool
            Show the observables at every turn time; else at some evenly spaced ones.

        Returns
        -------
        str
        """
        from gaussian_test.result.text import show

        return show(self._whole, self._groups("chains"), every)

    @numpy_defaults()
    @lacking(LEFT_OUT)
    def to_json(self) -> str:
        """Return times, gap, curves and observables as JSON, with all digits.

        Returns
        -------
        str
            For its keys, and undefined or infinite values, see :func:`gaussian_test.result.json_view.to_json`.
        """
        from gaussian_test.result.json_view import to_json

        return to_json(self._whole, self._groups("chains"))

    @numpy_defaults()
    @lacking(LEFT_OUT)
    def plot(self, folder: str | Path | None = None, pdf: bool = False) -> dict[str, Figure]:
        """Draw the figures, and write them as PNG if a folder is given.

        Parameters
        ----------
        folder : path, optional
            Output folder; created if needed.
        pdf : bool
            Whether to write each as PDF as well, which takes as long again.

        Returns
        -------
        dict of str to Figure
            ``pictures`` if they were kept, ``autocorrelation``, ``gap``, ``times``, and one for each observable.
        """
        from gaussian_test.analysis.figures import drawing, parts

        drawn = drawing.draw(self._whole, self._groups("pictures", "normality", "chains"))
        if folder is not None:
            with user_input():
                parts.save(drawn, Path(folder), pdf)
        return drawn

    @lacking(LEFT_OUT)
    def report(self, output: str | os.PathLike[str]) -> Path:
        """Write the result as an HTML page: see :func:`gaussian_test.report`.

        Parameters
        ----------
        output : path
            The page; its name ends in ``.html`` or ``.htm``.

        Returns
        -------
        Path
        """
        from gaussian_test.html_report.page import report

        return report(self._whole, output)

    @lacking(LEFT_OUT)
    def compare(self, other: archive.Source) -> xr.Dataset:
        """Compare the result with another: see :func:`gaussian_test.compare`.

        Parameters
        ----------
        other : path or Dataset
            An archive or a result; differences are its values minus this result's.

        Returns
        -------
        Dataset
        """
        from gaussian_test.result.comparison import compare

        return compare(self._whole, other)


STATES, VARIANCES = ("mean", "start", "end", "state"), ("eigenvalue",)


def _in_units_of_file(group: xr.Dataset, units: str, facts: Mapping[str, Any]) -> xr.Dataset:
    """Return a group with its states and variances in the units that the data had before they were scaled."""
    known = [name for name in (*STATES, *VARIANCES) if name in group]
    if units != "file" or not known or "data_scale" not in facts:
        what = "this group" if known else "a group without states"
        raise UserError(f"units = {units!r} of {what} is not there: leave it at 'x'" + (", or give 'file'" if known else ""))
    scale, offset = float(facts["data_scale"]), float(facts["data_offset"])
    found = {
        name: group[name] / scale**2 if name in VARIANCES else (group[name].astype(np.float64) - offset) / scale for name in known
    }
    attributes = {"units": "1", "comment": f"in the units of the data before x = {scale!r} * file + {offset!r}"}
    return group.assign({name: one.assign_attrs(group[name].attrs | attributes) for name, one in found.items()})
