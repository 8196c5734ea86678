"""Columns of numbers in text files, read by pandas."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from gaussian_test.data.formats.rows import MemoryRows
from gaussian_test.data.samples import Samples
from gaussian_test.data.values import DataError, cause, check_shape, check_size, encode_labels
from gaussian_test.machine import regular

LABELS = ("label", "labels", "class", "target", "y")
LINE = 2**24  # bytes, more than a line has
BYTES = 24  # that a number takes at most while pandas reads it


def label_column(names: list[str]) -> str | None:
    """Return the column of labels by its name; y beside x is a coordinate.

    Examples
    --------
    >>> label_column(["a", "Class"]), label_column(["x", "y"]), label_column(["a", "y"])
    ('Class', None, 'y')
    """
    lower = {name.strip().lower(): name for name in names}
    found = next((lower[one] for one in LABELS if one in lower), None)
    return None if found is not None and found.lower() == "y" and "x" in lower else found


def open_csv(path: Path, key: str | None, memory: int, label_key: str | None = None) -> Samples:
    r"""Open a file of numbers, one sample in a line; a column called label, class, target or y holds the classes.

    The first line is a header unless it is all numbers. Columns are separated by commas, semicolons, tabs or blanks.

    Raises DataError if a value is missing or no number, or the file does not fit into ``memory``.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "x.csv").write_text("a,label,b\n1,cat,2\n3,dog,4\n")
    ...     samples = open_csv(Path(folder, "x.csv"), None, 10**6)
    ...     samples.rows.read(slice(None)).tolist(), samples.labels.names
    ([[1, 2], [3, 4]], ('cat', 'dog'))
    """
    import pandas as pd

    with regular(path).open("rb") as file:
        first = file.readline(LINE).decode("utf-8-sig", "replace").strip()
        separator = next((one for one in (",", ";", "\t") if one in first), " ")
        fields = first.split(separator if separator != " " else None)
        lines = 1 + sum(piece.count(b"\n") for piece in iter(lambda: file.read(LINE), b""))
    check_size(lines * len(fields) * BYTES, memory, str(path))
    header = not all(_is_number(field) for field in fields)
    try:
        with warnings.catch_warnings(action="ignore"):
            table = pd.read_csv(
                path, sep=r"\s+" if separator == " " else separator, header=0 if header else None, index_col=False,
                float_precision="round_trip", encoding="utf-8-sig", on_bad_lines="error", low_memory=False, compression=None,
            )  # fmt: skip
    except (ValueError, OSError, UnicodeError, OverflowError) as error:  # ParserError is a ValueError
        raise DataError(f"{path} is not a readable table ({cause(error)}): save it again with one sample in a line.") from error
    table.columns = pd.Index([str(name).strip() for name in table.columns])
    names = list(table.columns)
    if header and names and names[0] in ("", "Unnamed: 0"):  # the index that pandas writes
        table, names = table.iloc[:, 1:], names[1:]
    for option, name in (("labels", label_key), ("key", key)):
        if name is not None and name not in names:
            raise DataError(f"{path} has no column {name!r}: expected one of {', '.join(names[:20])}; give {option}=.")
    label = label_key if label_key is not None or not header else label_column([name for name in names if name != key])
    values = table[[key] if key is not None else [name for name in names if name != label]]
    check_shape(values.shape, str(path))
    for name in values.columns:
        wrong = _wrong(values[name])
        if wrong is not None:
            raise DataError(
                f"{path} has {wrong[1]} in column {name!r} of sample {wrong[0]}: expected numbers everywhere; fill the gap, remove "
                "the column, or name it by labels=."
            )
    labels = None
    if label is not None:
        if table[label].isna().any():
            raise DataError(
                f"{path} has no label in column {label!r} of sample {int(table[label].isna().argmax())}: give every one."
            )
        labels = encode_labels(table[label].to_numpy(), len(table), f"the labels {label!r} in {path}")
    return Samples(MemoryRows(np.ascontiguousarray(values.to_numpy())), f"Table {path.name}", labels)


def _is_number(field: str) -> bool:
    try:
        float(field.strip().strip('"'))
    except ValueError:
        return False
    return True


def _wrong(column: Any) -> tuple[int, str] | None:
    """Return the first sample whose value is no number, with what it is."""
    if column.isna().any():
        return int(column.isna().argmax()), "no value"
    if column.dtype.kind in "iuf":
        return None
    bad = [not _is_number(str(value)) for value in column]
    first = bad.index(True) if any(bad) else 0
    return first, repr(str(column.iloc[first])[:40])
