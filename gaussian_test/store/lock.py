"""One run writes an output at a time: a lock that the operating system takes back when its holder dies."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from gaussian_test.errors import UserError
from gaussian_test.log import log


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
