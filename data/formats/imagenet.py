"""Downsampled ImageNet in ``.npz`` batches, with labels from 1."""

import math
import re
from pathlib import Path

import numpy as np

from gaussian_test.data.formats.arrays import Npz
from gaussian_test.data.formats.rows import ArrangedRows, JoinedRows, Rows
from gaussian_test.data.samples import Samples, choose_batches
from gaussian_test.data.values import DataError, Labels

TRAIN = re.compile(r"train_data(?:_batch_(\d+))?\.npz")
TEST = re.compile(r"val_data\.npz")
CLASSES = 1000


def open_imagenet(path: Path, split: str | None = None, memory: int | None = None) -> Samples:
    """Open one batch, or a folder of ``train_data_batch_*.npz`` and ``val_data.npz``.

    Raises
    ------
    DataError
        If an array is missing, or has another type, shape or range of labels.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "val_data.npz")
    ...     np.savez(file, data=np.zeros((5, 3 * 8 * 8), "uint8"), labels=[1, 2, 3, 4, 1000])
    ...     open_imagenet(file).rows.shape
    (5, 3, 8, 8)
    """
    files = choose_batches(path, TRAIN, TEST, split)
    parts: list[Rows] = []
    values = []
    for file in files:
        archive = Npz(file, memory)
        rows = archive.rows("data")
        side = math.isqrt(rows.shape[-1] // 3) if len(rows.shape) == 2 else 0
        if rows.dtype != np.uint8 or len(rows.shape) != 2 or rows.shape[1] != 3 * side * side or side == 0:
            raise DataError(
                f"data in {file} has dtype {rows.dtype} and shape {rows.shape}: expected uint8 of shape "
                "(sample, 3 * side * side), as in downsampled ImageNet; use source='file' for other arrays."
            )
        if parts and parts[0].shape[1:] != (3, side, side):
            raise DataError(
                f"{file} has images of {side} x {side} pixels, {files[0]} of {parts[0].shape[2]} x "
                f"{parts[0].shape[3]}: expected one size; keep each size in its own folder."
            )
        parts.append(ArrangedRows(rows, (3, side, side)))
        stored = archive.array("labels")
        if stored.shape != (rows.shape[0],) or stored.dtype.kind not in "iu":
            raise DataError(
                f"labels in {file} have shape {stored.shape} and dtype {stored.dtype} for {rows.shape[0]} samples: "
                "expected one integer per sample."
            )
        label = stored.astype(np.int64)
        if label.size and (label.min() < 1 or label.max() > CLASSES):
            raise DataError(
                f"labels in {file} range from {label.min()} to {label.max()}: expected 1 to {CLASSES}, as in "
                "downsampled ImageNet; use source='file' for other arrays."
            )
        values.append(label - 1)
    batches = ", ".join(file.name for file in files)
    names = tuple(str(number) for number in range(1, CLASSES + 1))
    joined = parts[0] if len(parts) == 1 else JoinedRows(parts)
    return Samples(joined, f"Downsampled ImageNet ({batches})", Labels(np.concatenate(values), names))
