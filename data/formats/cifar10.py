"""CIFAR-10 in its official binary format."""

import re
from pathlib import Path

import numpy as np

from gaussian_test.data.formats.rows import JoinedRows, MappedRows
from gaussian_test.data.samples import Samples, choose_batches
from gaussian_test.data.values import DataError, Labels

RECORD = np.dtype([("label", "u1"), ("pixels", "u1", (3, 32, 32))])
TRAIN = re.compile(r"data_batch_(\d+)\.bin")
TEST = re.compile(r"test_batch\.bin")


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
    files = choose_batches(path, TRAIN, TEST, split)
    parts, values = [], []
    for file in files:
        size = file.stat().st_size
        if size == 0 or size % RECORD.itemsize:
            raise DataError(
                f"{file} has {size} bytes: expected a multiple of {RECORD.itemsize}, the CIFAR-10 record; download or "
                "copy the file again."
            )
        count = size // RECORD.itemsize
        label = MappedRows(file, RECORD, (count,), field="label").read(slice(None)).astype(np.int64)
        if label.max() > 9:
            first = int((label > 9).argmax())
            raise DataError(
                f"{file} has label {label[first]} at sample {first}: expected CIFAR-10 labels 0 to 9; check that the "
                "file is in the CIFAR-10 binary format."
            )
        parts.append(MappedRows(file, RECORD, (count,), field="pixels"))
        values.append(label)
    rows = parts[0] if len(parts) == 1 else JoinedRows(parts)
    batches = ", ".join(file.name for file in files)
    return Samples(rows, f"CIFAR-10 ({batches})", Labels(np.concatenate(values), _class_names(files[0].parent)))


def _class_names(folder: Path) -> tuple[str, ...]:
    meta = folder / "batches.meta.txt"
    if not meta.is_file():
        return tuple(str(number) for number in range(10))
    names = tuple(meta.read_text(encoding="utf-8", errors="replace").split())
    if len(names) != 10:
        raise DataError(f"{meta} holds {len(names)} names: expected the 10 classes of CIFAR-10; repair or remove it.")
    return names
