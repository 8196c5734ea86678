"""What this machine gives: files that may be opened, names that may become files, and memory."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from gaussian_test.errors import UserError
from gaussian_test.text import printable

LONGEST = 255 - 22  # bytes of a name; a temporary file beside it has 22 more
KINDS = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def special(path: str | os.PathLike[str]) -> str:
    """Return what a path is that is neither a file nor a folder, with links followed; empty for those and if nothing is there.

    Examples
    --------
    >>> special("/"), special("nowhere")
    ('', '')
    """
    try:
        return KINDS.get(stat.S_IFMT(os.stat(path).st_mode), "")
    except (OSError, ValueError):
        return ""


def regular(path: Path) -> Path:
    """Return a path to be read, unless it is a named pipe, a socket or a device, which may never end.

    Raises OSError with the kind.

    Examples
    --------
    >>> regular(Path("nowhere"))
    PosixPath('nowhere')
    """
    if kind := special(path):
        raise OSError(errno.EINVAL, f"it is {kind}, not a file", str(path))
    return path


def replaceable(path: Path) -> Path:
    """Return a path to be written, unless it is a symbolic link or a special file, which a rename would replace.

    Raises UserError with what it is.

    Examples
    --------
    >>> replaceable(Path("nowhere"))
    PosixPath('nowhere')
    """
    if path.is_symlink():
        raise UserError(f"{path} is a symbolic link, and is not replaced: give the file it stands for, or another name")
    if kind := special(path):
        raise UserError(f"{path} is {kind}, and only files are replaced: choose another name")
    return path


def nameable(path: Path) -> Path:
    """Return a path to be written, if its name is text of a length that every file beside it can have, too.

    Raises UserError with what is wrong.

    Examples
    --------
    >>> nameable(Path("x" * 250))
    Traceback (most recent call last):
    ...
    gaussian_test.errors.UserError: xxx... is a name of 250 bytes: give one of at most 233
    """
    try:
        whole = os.path.abspath(path)
        whole.encode()  # as the NetCDF library does
        size = len(os.fsencode(whole.rpartition("/")[2]))
    except (UnicodeEncodeError, OSError):
        raise UserError(
            f"{path} is no text in UTF-8 to this system: give another name, or set a locale such as LC_ALL=C.UTF-8"
        ) from None
    if size > LONGEST:
        raise UserError(f"{path.name[:40]}... is a name of {size} bytes: give one of at most {LONGEST}")
    return path


def inside(folder: Path, name: str) -> Path:
    """Return the path of a file in a folder, by a name that someone else may have chosen.

    Raises UserError if the name would lead out of the folder.

    Examples
    --------
    >>> inside(Path("figures"), "../gap.png")
    Traceback (most recent call last):
    ...
    gaussian_test.errors.UserError: '../gap.png' is no name of a file in figures: it would lead out of it; rename it at its source
    """
    if name in ("", ".", "..") or {"/", "\\", "\0"} & set(name):
        raise UserError(f"{printable(name)!r} is no name of a file in {folder}: it would lead out of it; rename it at its source")
    return folder / name


# -- memory --------------------------------------------------------------------------------------------------------------------

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def machine_memory() -> tuple[int, str]:
    """Return the memory of this machine, or the limit of a container or queue, and the owner of that limit."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = min(_limits(), default=physical)
    return (limit, "control group") if limit < physical else (physical, "machine")


def allowed(memory: int | None) -> int:
    """Return how many bytes may be taken: those given, else half of the machine's."""
    return machine_memory()[0] // 2 if memory is None else memory


def _limits() -> Iterator[int]:
    """Yield the memory limits of this process's control groups (v1 or v2), up to the root."""
    try:  # by hand, since psutil, which no run needs, knows the machine's memory alone
        lines = OWN_CGROUP.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root, name = (CGROUPS, "memory.max") if not controllers else (CGROUPS / "memory", "memory.limit_in_bytes")
        own = root / path.lstrip("/")
        for place in (own, *own.parents):
            if place.is_relative_to(root):
                with suppress(OSError, ValueError):
                    yield int((place / name).read_text(encoding="ascii"))
