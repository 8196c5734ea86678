"""The xarray accessor: what a result can do, wherever it came from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import xarray as xr

from gaussian_test import archive, checksum
from gaussian_test.errors import UserError

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
        self._groups: dict[str, xr.Dataset] = {}

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
        found = self._find(name)
        if found is None:
            raise UserError(f"the archive has no group {name!r}: run again and keep it, or open it from its file")
        return found

    def _find(self, name: str) -> xr.Dataset | None:
        """Return a group, or None where there is none."""
        if name in self._groups:
            return self._groups[name]
        source = self._dataset.encoding.get("source")
        if not source or not Path(source).exists():
            return None
        try:
            self._dataset.encoding["checked"] = checksum.check(Path(source), self._dataset.encoding.get("checked"))
            return archive.read_unchecked(Path(source), name)
        except archive.DAMAGE as error:
            if "group not found" in str(error) and not isinstance(error, checksum.ChecksumError):
                return None
            raise archive.refusal(source, error) from None

    def _groups_found(self, *names: str) -> dict[str, xr.Dataset]:
        return {name: group for name in names if (group := self._find(name)) is not None}

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
        from gaussian_test.table import show

        return show(self._dataset, self._groups_found("chains"), every)

    def to_json(self) -> str:
        """Return times, gap, curves and observables as JSON, every number with all its digits.

        Returns
        -------
        str
            Its keys, and how it writes what is undefined or infinite: :func:`gaussian_test.json_view.to_json`.
        """
        from gaussian_test.json_view import to_json

        return to_json(self._dataset, self._groups_found("chains"))

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
        from gaussian_test.analysis import figure_parts, figures

        drawn = figures.draw(self._dataset, self._groups_found("pictures", "normality", "chains"))
        if folder is not None:
            figure_parts.save(drawn, Path(folder))
        return drawn


def attach_groups(dataset: xr.Dataset, groups: Mapping[str, xr.Dataset]) -> None:
    """Let a result in memory know its groups."""
    dataset.gaussian_test._groups.update(groups)
