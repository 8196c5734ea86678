"""The xarray accessor: what a result can do, wherever it came from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import xarray as xr

from gaussian_test.errors import UserError
from gaussian_test.store import archive

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@xr.register_dataset_accessor("gaussian_test")  # type: ignore[no-untyped-call]
class GaussianTestAccessor:
    """Methods of a result of the Gaussian Test: ``result.gaussian_test.show()``, ``.to_json()``, ``.plot()``, ``.group(name)``.

    Parameters
    ----------
    dataset : Dataset
        Root group of an archive, from :func:`run`, :func:`open_archive` or ``xarray.open_dataset``.
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    def group(self, name: str) -> xr.Dataset:
        """Return another group of the archive.

        Parameters
        ----------
        name : str
            ``moments``, ``pictures``, ``normality``, ``chains``, ``end_points`` or ``trajectory``.

        Returns
        -------
        Dataset

        Raises
        ------
        UserError
            If the archive does not have it, or is damaged; the checksum of the whole file is compared, unless
            :func:`open_archive` has done it and the file is still the same.
        """
        found = archive.groups(self._dataset, name)
        if name not in found:
            raise UserError(f"the archive has no group {name!r}: run again and keep it, or open it from its file")
        return found[name]

    def show(self, every: bool = False) -> str:
        """Return the times, the test and the observables as tables of text.

        Parameters
        ----------
        every : bool
            Show the observables at every turn time; else at some, evenly picked.

        Returns
        -------
        str
        """
        from gaussian_test.result.text import show

        return show(self._dataset, archive.groups(self._dataset, "chains"), every)

    def to_json(self) -> str:
        """Return times, gap, curves and observables as JSON, every number with all its digits.

        Returns
        -------
        str
            Its keys, and how it writes what is undefined or infinite: :func:`gaussian_test.result.json_view.to_json`.
        """
        from gaussian_test.result.json_view import to_json

        return to_json(self._dataset, archive.groups(self._dataset, "chains"))

    def plot(self, folder: str | Path | None = None) -> dict[str, Figure]:
        """Draw the figures, and write them as PNG and PDF where a folder is given.

        Parameters
        ----------
        folder : path, optional
            Where to write; created if need be.

        Returns
        -------
        dict of str to Figure
            ``autocorrelation``, ``gap``, ``times``, one for each observable and, where pictures were kept, ``pictures_<score>``.
        """
        from gaussian_test.analysis.figures import drawing, parts

        drawn = drawing.draw(self._dataset, archive.groups(self._dataset, "pictures", "normality", "chains"))
        if folder is not None:
            parts.save(drawn, Path(folder))
        return drawn
