"""A checksum at the end of a file: the sha256 of everything before it, in a line of text of :data:`TRAILER` bytes.

Whatever reads NetCDF4 ignores bytes behind the end that is recorded in the file, and whatever opens it to change it drops them.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

SEAL = b"\nsha256 of all before, by gaussian_test: "  # behind it 64 hexadecimal digits and a line feed
TRAILER = len(SEAL) + 64 + 1
CHUNK = 2**20  # bytes hashed at a time
State = tuple[int, ...]


class ChecksumError(OSError):
    """A file whose checksum is missing or does not fit; the message is the whole sentence for the user."""


def file_digest(path: Path) -> str:
    """Return the sha256 of a file.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (Path(folder) / "a.txt").touch()
    ...     file_digest(Path(folder) / "a.txt")[:8]
    'e3b0c442'
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(path: Path) -> None:
    """Append the checksum of a file to it, and sync; for a NetCDF file that you have changed and stand for yourself.

    Parameters
    ----------
    path : Path
        A file without a checksum at its end.

    Raises
    ------
    OSError
        If the disk refuses.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "a.nc"
    ...     _ = path.write_bytes(b"what anybody may read")
    ...     seal(path)
    ...     path.read_bytes().split(SEAL)[0]
    b'what anybody may read'
    """
    with path.open("r+b") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()  # leaves the file at its end
        file.write(SEAL + digest.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def sealed(content: bytes) -> bytes:
    """Return the content of a file with its checksum behind it.

    Examples
    --------
    >>> unsealed(sealed(b"abc"), Path("a"))
    b'abc'
    """
    return content + SEAL + hashlib.sha256(content).hexdigest().encode() + b"\n"


def unsealed(content: bytes, path: Path) -> bytes:
    """Return the content of a file without its checksum, once it has been compared.

    Parameters
    ----------
    content : bytes
        All of the file.
    path : Path
        Its name, for the message.

    Returns
    -------
    bytes

    Raises
    ------
    ChecksumError
        If there is no checksum or another one.

    Examples
    --------
    >>> unsealed(b"abc", Path("a"))  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    ...
    gaussian_test.checksum.ChecksumError: a is damaged (its checksum does not fit): restore it or run again
    """
    whole = content[:-TRAILER]
    if content != sealed(whole):
        raise ChecksumError(f"{path} is damaged (its checksum does not fit): restore it or run again")
    return whole


def is_sealed(path: Path) -> bool:
    """Return whether a file ends as :func:`seal` leaves it, whatever is in it.

    Examples
    --------
    >>> is_sealed(Path("nowhere.nc"))
    False
    """
    try:
        with path.open("rb") as file:
            file.seek(-TRAILER, os.SEEK_END)
            return file.read(len(SEAL)) == SEAL
    except OSError:
        return False


def check(path: Path, known: State | None = None) -> State:
    """Compare a file with the checksum at its end, without the NetCDF library.

    Parameters
    ----------
    path : Path
        A file with a checksum at its end.
    known : tuple of int, optional
        What an earlier check of the file returned: it is not read again as long as it is the same file, of the same size and
        time of change.

    Returns
    -------
    tuple of int
        Device, inode, size and time of change of the file that was found right.

    Raises
    ------
    ChecksumError
        If there is no checksum or another one.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "a.nc"
    ...     _ = path.write_bytes(b"seed")
    ...     seal(path)
    ...     assert check(path) == check(path, check(path))
    ...     _ = path.write_bytes(path.read_bytes().replace(b"seed", b"sead"))
    ...     check(path)  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    ...
    gaussian_test.checksum.ChecksumError: a.nc is damaged (its checksum does not fit): restore it or run again
    """
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if state == known:
            return state
        left = max(status.st_size - TRAILER, 0)
        file.seek(left)
        trailer = file.read(TRAILER)
        if len(trailer) < TRAILER or not trailer.startswith(SEAL):
            raise ChecksumError(
                f"{path} has no checksum at its end: it was cut short, or changed after it was written, or is no archive: "
                "restore it or run again; xarray.open_dataset opens it as it is"
            )
        file.seek(0)
        digest = hashlib.sha256()
        while left and (chunk := file.read(min(CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
    if left or trailer != SEAL + digest.hexdigest().encode() + b"\n":
        raise ChecksumError(f"{path} is damaged (its checksum does not fit): restore it or run again")
    return state
