"""Files that are whole or not there, their checksums, and the lock of an output.

One run writes an output at a time: a lock that the operating system takes back when its holder dies.
"""

import errno
import glob
import hashlib
import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from gaussian_test.errors import UserError
from gaussian_test.log import log


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a private name in the folder of a file; what was written and synced there gets the final name, or is removed.

    The name is chosen before anything is created, so that there is no moment at which an interruption leaves a file behind.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files that killed writers of this file left in its folder."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        left.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have the disk take what was written to a file, or which names are in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a small text file, whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    with atomic_path(path) as temporary, temporary.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


SEAL = b"\nsha256 of all before, by gaussian_test: "  # behind it 64 hexadecimal digits and a line feed
TRAILER = len(SEAL) + 64 + 1
CHUNK = 2**20  # bytes hashed at a time
State = tuple[int, ...]


class ChecksumError(OSError):
    """A file whose checksum is missing or does not fit; the message is the whole sentence for the user."""


def file_digest(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(path: Path) -> None:
    """Append the checksum of a file to it, and sync; for a NetCDF file that you have changed and stand for yourself.

    Raises OSError if the disk refuses.
    """
    with path.open("r+b") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()  # leaves the file at its end
        file.write(SEAL + digest.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def sealed(content: bytes) -> bytes:
    """Return the content of a file with its checksum behind it."""
    return content + SEAL + hashlib.sha256(content).hexdigest().encode() + b"\n"


def unsealed(content: bytes, path: Path) -> bytes:
    """Return the content of a file without its checksum, once it has been compared.

    Raises ChecksumError if there is no checksum or another one.
    """
    whole = content[:-TRAILER]
    if content != sealed(whole):
        raise ChecksumError(f"{path} is damaged (its checksum does not fit): restore it or run again")
    return whole


def is_sealed(path: Path) -> bool:
    """Return whether a file ends as :func:`seal` leaves it, whatever is in it."""
    try:
        with path.open("rb") as file:
            file.seek(-TRAILER, os.SEEK_END)
            return file.read(len(SEAL)) == SEAL
    except OSError:
        return False


def check(path: Path, known: State | None = None) -> State:
    """Compare a file with the checksum at its end, without the NetCDF library.

    Raises
    ------
    ChecksumError
        If there is no checksum or another one.
    OSError
        If the file cannot be read.
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


class LockedError(UserError):
    """Another run is writing the output."""


def lock_path(output: Path) -> Path:
    """Return the file that is locked while an output is written."""
    return output.with_name(f".{output.name}.lock")


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """Hold the lock of an output, and refuse where another run holds it.

    The lock is on an open file (flock), which ends with the process, however that ends: a file that a crash has left behind
    locks nothing.

    Raises
    ------
    LockedError
        If another run is writing it.
    UserError
        If no file can be made in its folder.
    """
    path = lock_path(output)
    # half a second: who looks whether it is locked takes it for a moment
    lock = filelock.FileLock(path, timeout=0.5, poll_interval=0.02, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise LockedError(f"another run is writing {output}: wait for it, stop it or choose another output") from None
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise UserError(f"{path} cannot be made ({error.strerror or error}): choose another output") from error
        log("unlocked", logging.WARNING, reason="the file system has no locks: see to it that one run writes this output")
    try:
        yield
    finally:
        # while it is held: who opens the file now and gets its lock later sees that the name is gone, and makes a new one;
        # a folder that has become read-only keeps the file, which locks nothing
        with suppress(OSError):
            path.unlink()
        lock.release()


def is_locked(output: Path) -> bool:
    """Return whether a run is writing an output right now."""
    path = lock_path(output)
    if not path.exists():
        return False
    lock = filelock.FileLock(path, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        return True
    lock.release()
    return False
