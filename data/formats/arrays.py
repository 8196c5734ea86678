"""Arrays in ``.npy`` and ``.npz`` files, memory-mapped, without pickles."""

import io
import math
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from gaussian_test.data.formats.rows import Array, MappedRows, MemoryRows, Rows, as_images
from gaussian_test.data.samples import Samples
from gaussian_test.data.values import DataError, cause, check_shape, check_size, encode_labels, object_refusal
from gaussian_test.machine import allowed, regular

READ_BYTES = 2**24
HEADER_BYTES = 2**17  # more than numpy reads as a header
X_KEYS = ("x", "images", "data")
LABEL_KEYS = ("label", "labels", "y", "class", "target")
NAMES_KEY = "class_name"
_ZIP_FAULTS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, NotImplementedError, ValueError)


@dataclass(frozen=True)
class _Header:
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    start: int

    @property
    def nbytes(self) -> int:
        size = self.dtype.itemsize
        for length in self.shape:  # Python integers: a forged shape must not overflow
            size *= length
        return size


def _read_header(file: IO[bytes], name: str, available: int) -> _Header:
    """Parse the header of a ``.npy`` stream of `available` bytes; raise if its values are not numbers."""
    stream = io.BytesIO(file.read(HEADER_BYTES))  # numpy would read as many bytes as a header says, before it refuses it
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Reading `.npy` or `.npz` file required additional header parsing")  # python 2's
            version = np.lib.format.read_magic(stream)
            if version == (1, 0):
                shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
            elif version == (2, 0):
                shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
            else:
                raise ValueError(f"version {version} is for records")
    except (ValueError, TypeError, SyntaxError, EOFError, tokenize.TokenError) as error:
        raise DataError(f"{name} is not a readable .npy array ({cause(error)}): save or copy it again.") from error
    if dtype.hasobject:
        raise DataError(object_refusal(name))
    if not shape:
        raise DataError(f"{name} holds a single value: expected an array with one entry per sample.")
    header = _Header(dtype, shape, fortran, stream.tell())
    if min(shape) < 0 or header.start + header.nbytes > available:
        raise DataError(
            f"{name} has {available - header.start} bytes of values, but shape {shape} of {dtype} needs "
            f"{header.nbytes}: the file is truncated; copy it again."
        )
    return header


def _mapped(path: Path, header: _Header, shift: int = 0) -> Rows:
    if header.nbytes == 0:  # nothing to map; later checks reject the shape
        return MemoryRows(np.empty(header.shape, header.dtype))
    return MappedRows(path, header.dtype, header.shape, shift + header.start, "F" if header.fortran else "C")


def npy_rows(path: Path) -> Rows:
    """Open a ``.npy`` file without reading its values.

    Raises
    ------
    DataError
        If the file is damaged or holds python objects.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(Path(folder, "x.npy"), np.zeros((5, 2)))
    ...     npy_rows(Path(folder, "x.npy")).shape
    (5, 2)
    """
    with regular(path).open("rb") as stream:
        return _mapped(path, _read_header(stream, str(path), path.stat().st_size))


class Npz:
    """The arrays of a ``.npz`` file, opened on demand.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    memory : int, optional
        Most bytes that an array may take in memory; by default half of the machine's.

    Raises
    ------
    DataError
        If the file is not a readable zip archive.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(Path(folder, "a.npz"), x=np.arange(4), y=[1])
    ...     archive = Npz(Path(folder, "a.npz"))
    ...     archive.keys, archive.array("x")
    (['x', 'y'], array([0, 1, 2, 3]))
    """

    def __init__(self, path: Path, memory: int | None = None) -> None:
        self._path = path
        self._memory = allowed(memory)
        try:
            with zipfile.ZipFile(regular(path)) as archive:
                members = archive.namelist()
        except _ZIP_FAULTS as error:
            raise DataError(f"{path} is not a readable .npz archive ({cause(error)}): save or copy it again.") from error
        self.keys = [member.removesuffix(".npy") for member in members if member.endswith(".npy")]

    def fits(self, key: str) -> bool:
        """Return whether the header of an array is that of samples: 2 to 4 axes of real numbers."""
        try:
            with zipfile.ZipFile(self._path) as archive, archive.open(f"{key}.npy") as stream:
                header = _read_header(stream, key, archive.getinfo(f"{key}.npy").file_size)
        except (DataError, *_ZIP_FAULTS):
            return False
        return 2 <= len(header.shape) <= 4 and header.shape[0] > 1 and header.dtype.kind in "iuf"

    def rows(self, key: str) -> Rows:
        """Open one array: memory-mapped if uncompressed, else read into memory in its stored type.

        Raises DataError if the array is missing, is damaged, or holds python objects.
        """
        name = f"{key!r} in {self._path}"
        if key not in self.keys:
            raise DataError(f"{self._path} has no array {key!r}: expected one of {_listed(self.keys)}; give key=.")
        try:
            with zipfile.ZipFile(self._path) as archive:
                info = archive.getinfo(f"{key}.npy")
                with archive.open(info) as stream:
                    header = _read_header(stream, name, info.file_size)
                    if info.compress_type != zipfile.ZIP_STORED:
                        check_size(header.nbytes, self._memory, name, "in memory, since it is compressed")
                        stream.seek(header.start)
                        return MemoryRows(_read_array(stream, header))
                    while stream.read(READ_BYTES):  # to the end, where zipfile verifies the checksum
                        pass
        except DataError:
            raise
        except _ZIP_FAULTS as error:
            raise DataError(f"{name} cannot be read ({cause(error)}): the file is damaged; copy it again.") from error
        return _mapped(self._path, header, _member_start(self._path, info))

    def array(self, key: str) -> Array:
        """Return one whole array in memory; see `rows` for the arguments and errors."""
        rows = self.rows(key)
        check_size(math.prod(rows.shape) * rows.dtype.itemsize, self._memory, f"{key!r} in {self._path}")
        return np.array(rows.read(slice(None)))


def _read_array(stream: IO[bytes], header: _Header) -> Array:
    raw, done = np.empty(header.nbytes, np.uint8), 0
    while done < header.nbytes:
        piece = stream.read(min(READ_BYTES, header.nbytes - done))
        if not piece:
            raise EOFError("it ends early")
        raw[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
        done += len(piece)
    stream.read(1)  # reach the end of the member, where zipfile verifies the checksum
    return raw.view(header.dtype).reshape(header.shape, order="F" if header.fortran else "C")


def _member_start(path: Path, info: zipfile.ZipInfo) -> int:
    """Return the position of a stored member's first byte, after the local header and its extra field."""
    with path.open("rb") as stream:
        stream.seek(info.header_offset + 26)
        name_length, extra_length = struct.unpack("<HH", stream.read(4))
    return info.header_offset + 30 + int(name_length) + int(extra_length)


def _listed(keys: Sequence[str]) -> str:
    return ", ".join(sorted(keys)) or "(none)"


def open_npy(path: Path, key: str | None = None) -> Samples:
    """Open the array of a ``.npy`` file as samples.

    Raises
    ------
    DataError
        If the file is damaged, has the wrong shape, or holds python objects.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(Path(folder, "x.npy"), np.zeros((5, 8, 8)))
    ...     open_npy(Path(folder, "x.npy")).rows.shape
    (5, 1, 8, 8)
    """
    if key is not None:
        raise DataError(f"key={key!r} was given with {path}: a .npy file holds a single array; drop key.")
    rows = npy_rows(path)
    check_shape(rows.shape, str(path))
    return Samples(as_images(rows), f"Array file {path.name}")


def open_npz(path: Path, key: str | None = None, label_key: str | None = None, memory: int | None = None) -> Samples:
    """Open the arrays of a ``.npz`` file as samples and labels.

    Raises
    ------
    DataError
        If an array is missing, damaged, of the wrong shape, or holds python objects.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(Path(folder, "a.npz"), x=np.zeros((2, 3)), y=["cat", "dog"])
    ...     open_npz(Path(folder, "a.npz")).labels.names
    ('cat', 'dog')
    """
    archive = Npz(path, memory)
    if label_key is None:
        label_key = next((name for name in LABEL_KEYS if name in archive.keys and name != key), None)
    if key is None:
        candidates = [name for name in archive.keys if name not in (label_key, NAMES_KEY)]
        key = next((name for name in X_KEYS if name in candidates), None)
        if key is None:
            fitting = candidates if len(candidates) == 1 else [name for name in candidates if archive.fits(name)]
            key = fitting[0] if len(fitting) == 1 else None
        if key is None:
            raise DataError(f"{path} holds the arrays {_listed(archive.keys)}: name the one with samples by key=.")
    rows = archive.rows(key)
    name = f"{key!r} in {path}"
    check_shape(rows.shape, name)
    labels = None
    if label_key is not None:
        names = [str(item) for item in archive.array(NAMES_KEY).ravel()] if NAMES_KEY in archive.keys else None
        labels = encode_labels(archive.array(label_key), rows.shape[0], f"the labels {label_key!r} in {path}", names)
    return Samples(as_images(rows), f"Array file {path.name}", labels)
