"""Raw samples of a source, before scaling."""

import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gaussian_test.data.formats.rows import Rows
from gaussian_test.data.values import DataError, Labels, cause, nearest
from gaussian_test.machine import special


@dataclass(frozen=True)
class Samples:
    """Raw samples with a title, and their classes if known."""

    rows: Rows  # samples as (sample, feature) or (sample, channel, row, column)
    title: str  # name of the data, without local folders
    labels: Labels | None = None  # classes of the samples
    # range of the raw values, if the source defines one that differs from the type's
    value_range: tuple[float, float] | None = None


SPLITS = ("train", "test", "all")


def choose_batches(path: Path, train: re.Pattern[str], test: re.Pattern[str], split: str | None) -> list[Path]:
    """Return the batch files to read, train before test, ordered by number.

    Raises
    ------
    DataError
        If `split` is unknown or given for a file, or no batch fits.

    Examples
    --------
    >>> choose_batches(Path("test_batch.bin"), re.compile("a"), re.compile("b"), None)
    [PosixPath('test_batch.bin')]
    """
    if split is not None and split not in SPLITS:
        raise DataError(f"split is {split!r}: expected one of {', '.join(SPLITS)}; did you mean {nearest(str(split), SPLITS)!r}?")
    if not path.is_dir():
        if split is not None:
            raise DataError(f"split={split!r} was given with the file {path}: expected a folder of batches; drop split.")
        return [path]
    chosen: list[Path] = []
    for part, pattern in (("train", train), ("test", test)):
        if split in (None, "all", part):
            chosen += sorted((file for file in path.iterdir() if pattern.fullmatch(file.name)), key=_number)
    if special_file := next((file for file in chosen if special(file)), None):
        raise DataError(f"{special_file} is {special(special_file)}, not a batch: remove it.")
    if not chosen:
        wanted = {"train": [train], "test": [test]}.get(split or "all", [train, test])
        raise DataError(
            f"{path} holds no batch for split={split or 'all'!r}: expected files named like "
            f"{' or '.join(pattern.pattern for pattern in wanted)}; check the folder."
        )
    return chosen


def _number(file: Path) -> int:
    digits = re.findall(r"\d+", file.stem)
    return int(digits[-1]) if digits else 0


def library(module: str, extra: str, path: Path) -> Any:
    """Import an optional library that reads a file.

    Raises DataError with the extra to install if it is missing.

    Examples
    --------
    >>> library("no_such_library", "hdf5", Path("x.h5"))
    Traceback (most recent call last):
    ...
    gaussian_test.data.values.DataError: x.h5 needs no_such_library, which is not installed: pip install 'gaussian-test[hdf5]'.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = "is not installed" if isinstance(error, ModuleNotFoundError) else f"does not import ({cause(error)})"
        raise DataError(f"{path} needs {module}, which {missing}: pip install 'gaussian-test[{extra}]'.") from None
