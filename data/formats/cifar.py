"""CIFAR-10 and CIFAR-100 in their official binary formats."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gaussian_test.data.formats.rows import JoinedRows, MappedRows
from gaussian_test.data.samples import Samples, choose_batches
from gaussian_test.data.values import DataError, Labels

RECORD = np.dtype([("label", "u1"), ("pixels", "u1", (3, 32, 32))])
TRAIN = re.compile(r"data_batch_(\d+)\.bin")
TEST = re.compile(r"test_batch\.bin")
RECORD_100 = np.dtype([("coarse", "u1"), ("fine", "u1"), ("pixels", "u1", (3, 32, 32))])
TRAIN_100 = re.compile(r"train\.bin")
TEST_100 = re.compile(r"test\.bin")
CLASSES_100 = {"fine": 100, "coarse": 20}


def open_cifar10(path: Path, split: str | None = None) -> Samples:
    """Open one ``.bin`` file, or a folder of ``data_batch_*.bin`` and ``test_batch.bin``, without reading the pixels.

    Raises
    ------
    DataError
        If a file is not a whole number of records or holds a label above 9.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "test_batch.bin")
    ...     _ = file.write_bytes(bytes(2 * 3073))
    ...     open_cifar10(file).rows.shape
    (2, 3, 32, 32)
    """
    return _open(choose_batches(path, TRAIN, TEST, split), "CIFAR-10", RECORD, "label", 10, "batches.meta.txt")


def open_cifar100(path: Path, split: str | None = None, label_key: str | None = None) -> Samples:
    """Open one ``.bin`` file, or a folder of ``train.bin`` and ``test.bin``, with "fine" or "coarse" labels.

    Raises
    ------
    DataError
        If a file is not a whole number of records, holds a label that is too large, or has no labels of that name.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "test.bin")
    ...     _ = file.write_bytes((bytes([3, 77]) + bytes(3072)) * 2)
    ...     [open_cifar100(file, label_key=kind).labels.values.tolist() for kind in ("fine", "coarse")]
    [[77, 77], [3, 3]]
    """
    kind = label_key or "fine"
    if kind not in CLASSES_100:
        raise DataError(f"labels is {kind!r}: CIFAR-100 has the labels 'fine' and 'coarse'; give one of them.")
    files = choose_batches(path, TRAIN_100, TEST_100, split)
    return _open(files, "CIFAR-100", RECORD_100, kind, CLASSES_100[kind], f"{kind}_label_names.txt")


def _open(files: Sequence[Path], title: str, record: np.dtype[np.void], kind: str, classes: int, meta: str) -> Samples:
    parts, values = [], []
    for file in files:
        size = file.stat().st_size
        if size == 0 or size % record.itemsize:
            raise DataError(
                f"{file} has {size} bytes: expected a multiple of {record.itemsize}, the {title} record; download or "
                "copy the file again."
            )
        count = size // record.itemsize
        label = MappedRows(file, record, (count,), field=kind).read(slice(None)).astype(np.int64)
        if label.max() >= classes:
            first = int((label >= classes).argmax())
            raise DataError(
                f"{file} has label {label[first]} at sample {first}: expected {title} labels 0 to {classes - 1}; check that the "
                f"file is in the {title} binary format."
            )
        parts.append(MappedRows(file, record, (count,), field="pixels"))
        values.append(label)
    rows = parts[0] if len(parts) == 1 else JoinedRows(parts)
    batches = ", ".join(file.name for file in files)
    return Samples(rows, f"{title} ({batches})", Labels(np.concatenate(values), _names(files[0].parent / meta, title, classes)))


def _names(meta: Path, title: str, classes: int) -> tuple[str, ...]:
    if not meta.is_file():
        return tuple(str(number) for number in range(classes))
    names = tuple(meta.read_text(encoding="utf-8", errors="replace").split())
    if len(names) != classes:
        raise DataError(f"{meta} holds {len(names)} names: expected the {classes} classes of {title}; repair or remove it.")
    return names
