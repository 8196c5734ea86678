"""What was probably meant: the files that are there, where one is not."""

from __future__ import annotations

import difflib
from pathlib import Path

PARTS = ".parts"
MOST = 5  # files that are named


def near_files(path: Path, *suffixes: str) -> str:
    """Return what to do instead of opening a file that does not exist; empty where nothing like it is there.

    Parameters
    ----------
    path : Path
        The file that is not there.
    *suffixes : str
        Ends of the names of its kind.

    Returns
    -------
    str
        That it is still being made or was interrupted; else the file whose name is nearest; else those of its folder.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (Path(folder) / "run.nc").touch()
    ...     near_files(Path(folder) / "rnu.nc", ".nc")
    'did you mean .../run.nc?'
    """
    try:
        if path.with_name(path.name + PARTS).is_dir():
            return (
                f"its run is not finished: see 'gaussian-test status {path}', and if it was interrupted, repeat its command with "
                "--resume"
            )
        there = sorted(file.name for file in path.parent.iterdir() if file.name.endswith(suffixes) and file.is_file())
    except (OSError, ValueError):
        return ""
    near = difflib.get_close_matches(path.name, there, n=1) or [name for name in there if Path(name).stem == path.name]
    if near:
        return f"did you mean {_printable(str(path.with_name(near[0])))}?"
    if not there:
        return ""
    more = f" and {len(there) - MOST} more" if len(there) > MOST else ""
    names = ", ".join(str(path.with_name(name)) for name in there[:MOST])
    return f"there {'are' if len(there) > 1 else 'is'} {_printable(names)}{more}"


def _printable(name: str) -> str:
    """Return a name without the bytes that are no text."""
    return name.encode(errors="replace").decode()
