"""IDX, the format of MNIST and Fashion-MNIST, compressed with gzip or not."""

import gzip
import math
import re
import zlib
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from gaussian_test.data.formats.rows import JoinedRows, MappedRows, MemoryRows, Rows, as_images
from gaussian_test.data.samples import Samples, choose_batches
from gaussian_test.data.values import DataError, cause, check_size, encode_labels
from gaussian_test.machine import regular

TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
NAME = r"[-.]idx[1-4][-.]u?byte(\.gz)?"
TRAIN = re.compile("train[-_]images" + NAME)
TEST = re.compile("(t10k|test)[-_]images" + NAME)
FILE = rf".*({NAME}|\.idx(\.gz)?)"


def open_idx(path: Path, split: str | None, memory: int) -> Samples:
    """Open one file of images or vectors, or a folder of MNIST's files, with the labels beside them.

    The labels of ``train-images-idx3-ubyte`` are ``train-labels-idx1-ubyte``; each may end in ``.gz``.

    Raises
    ------
    DataError
        If a file is damaged, is no IDX file, or does not fit into ``memory`` uncompressed.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "t10k-images-idx3-ubyte")
    ...     _ = file.write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, *range(6)]))
    ...     open_idx(file, None, 10**6).rows.read(slice(1, 2)).tolist()
    [[[[3, 4, 5]]]]
    """
    files = choose_batches(path, TRAIN, TEST, split)
    files = [file for file in files if file.suffix != ".gz" or file.with_suffix("") not in files]  # some keep both, as torchvision
    parts = [as_images(_rows(file, memory)) for file in files]
    if len({(part.dtype, part.shape[1:]) for part in parts}) > 1:
        raise DataError(f"the files in {path} hold samples of different shapes or types: give split= or one file.")
    rows = parts[0] if len(parts) == 1 else JoinedRows(parts)
    labels = [_labels(file, memory) for file in files]
    given = [one for one in labels if one is not None]
    if given and len(given) < len(files):
        raise DataError(f"{path} has labels for {len(given)} of {len(files)} files: expected labels beside all, or give split=.")
    found = encode_labels(np.concatenate(given), rows.shape[0], f"the labels of {path}") if given else None
    return Samples(rows, ", ".join(file.name for file in files), found)


def _labels(images: Path, memory: int) -> NDArray[Any] | None:
    """Return the labels in the file beside one of images, if there is one."""
    name = re.sub(r"idx\d", "idx1", images.name.replace("images", "labels")).removesuffix(".gz")
    for file in (images.with_name(name), images.with_name(f"{name}.gz")):
        if name != images.name.removesuffix(".gz") and file.exists():
            rows = _rows(file, memory)
            if len(rows.shape) != 1:
                raise DataError(f"{file} has shape {rows.shape}: expected one label per sample; check the file.")
            return np.asarray(rows.read(slice(None)))
    return None


def _rows(path: Path, memory: int) -> Rows:
    compressed = path.suffix == ".gz"
    try:
        with gzip.open(regular(path)) if compressed else regular(path).open("rb") as opened:
            file = cast(IO[bytes], opened)
            magic = file.read(4)
            if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in TYPES or not 1 <= magic[3] <= 4:
                raise DataError(f"{path} does not begin as an IDX file does: check the file or name its format with source=.")
            dtype, axes = np.dtype(TYPES[magic[2]]), magic[3]
            lengths = file.read(4 * axes)
            shape = tuple(np.frombuffer(lengths.ljust(4 * axes, b"\0"), ">u4").tolist())
            size = math.prod(shape) * dtype.itemsize
            if not compressed:
                if path.stat().st_size != 4 + 4 * axes + size:
                    raise DataError(_wrong(path, path.stat().st_size - 4 - 4 * axes, size))
                return MappedRows(path, dtype, shape, offset=4 + 4 * axes)
            check_size(size, memory, str(path), "in memory, since it is compressed")
            content = file.read(size)
            if len(content) != size or file.read(1):
                raise DataError(_wrong(path, len(content), size))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is damaged ({cause(error)}): download or copy it again.") from None
    return MemoryRows(np.frombuffer(content, dtype).reshape(shape))


def _wrong(path: Path, found: int, expected: int) -> str:
    return f"{path} has {found} bytes of values or more, and its header says {expected}: download or copy it again."
