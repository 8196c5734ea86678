"""Atomic files, their checksums, and the lock of an output.

The lock lets one run write an output at a time; the operating system releases it when its holder dies.
"""

import errno
import hashlib
import logging
import mmap
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from gaussian_test.errors import UserError
from gaussian_test.log import log
from gaussian_test.machine import regular, replaceable, special

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")  # names that atomic_path gives


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of a file; rename it to the final name after syncing, or remove it on error.

    The name is chosen before anything is created, so an interruption at no moment leaves a file behind.

    Raises OSError with the name of the file, and UserError if something other than a file has that name.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    replaceable(path)
    try:
        yield temporary
        os.replace(temporary, replaceable(path))
        sync(path.parent)
    except OSError as error:
        if error.errno is None or error.filename not in (None, os.fspath(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # a full disk names no file, and nobody knows ours
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove temporary files of killed writers of this file."""
    for left in path.parent.iterdir():
        if left.name.startswith(f".{path.name}.") and TEMPORARY.fullmatch(left.name):
            left.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a small text file atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_path(path) as temporary, temporary.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


SEAL = b"\nsha256 of all before, by gaussian_test: "  # followed by 64 hexadecimal digits and a line feed
TRAILER = len(SEAL) + 64 + 1
CHUNK = 2**20  # bytes hashed at a time
State = tuple[int, ...]


class ChecksumError(OSError):
    """A missing or wrong checksum of a file; the message is the complete sentence for the user."""


def file_digest(path: Path) -> str:
    """Return the sha256 of a file."""
    with regular(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(path: Path) -> None:
    """Append the checksum to a file and sync; use it on a NetCDF file that you changed on purpose.

    Raises OSError if writing fails.
    """
    with path.open("r+b") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()  # leaves the file position at the end
        file.write(SEAL + digest.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def sealed(content: bytes) -> bytes:
    """Return the content of a file with its checksum appended."""
    return content + SEAL + hashlib.sha256(content).hexdigest().encode() + b"\n"


def unsealed(content: bytes, path: Path) -> bytes:
    """Return the content of a file without its checksum, after verifying it.

    Raises ChecksumError if the checksum is missing or wrong.
    """
    whole = content[:-TRAILER]
    if content != sealed(whole):
        raise ChecksumError(f"{path} is damaged (its checksum does not fit): restore it or run again")
    return whole


def is_sealed(path: Path) -> bool:
    """Return whether a file ends with a seal, without verifying it."""
    try:
        with regular(path).open("rb") as file:
            file.seek(-TRAILER, os.SEEK_END)
            return file.read(len(SEAL)) == SEAL
    except OSError:
        return False


def holds(path: Path, text: bytes) -> bool:
    """Return whether a file has some bytes anywhere."""
    with regular(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(text) >= 0


def check(path: Path, known: State | None = None) -> State:
    """Verify the checksum at the end of a file, without the NetCDF library.

    Raises
    ------
    ChecksumError
        If the checksum is missing or wrong.
    OSError
        If the file cannot be read.
    """
    with open(regular(path), "rb") as file:
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
    """Return the lock file of an output."""
    return output.with_name(f".{output.name}.lock")


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """Hold the lock of an output; raise if another run holds it.

    The lock is on an open file (flock) and ends with the process: a lock file left by a crash locks nothing.

    Raises
    ------
    LockedError
        If another run is writing it.
    UserError
        If no file can be created in its folder.
    """
    path = replaceable(lock_path(output))
    # half a second, as checks for the lock hold it for a moment
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
        # remove it while held: a process that locks the open file later sees that the name is gone, and creates a new one; in a
        # read-only folder the file stays, but locks nothing
        with suppress(OSError):
            path.unlink()
        lock.release()


def is_locked(output: Path) -> bool:
    """Return whether a run is writing an output now."""
    path = lock_path(output)
    if not path.exists() or path.is_symlink() or special(path):
        return False
    lock = filelock.FileLock(path, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        return True
    lock.release()
    return False
