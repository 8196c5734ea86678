"""Log lines and progress bar of a run."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gaussian_test.machine import regular
from gaussian_test.text import printable

LOGGER = logging.getLogger("gaussian_test")
LOG = "log"
EVERY = 0.5  # seconds at least between two states that a run tells


class _KeyValue(logging.Formatter):
    """Lines such as ``time=2026-11-25T09:00:00Z level=info event=shard shard=3 done=4 of=40``."""

    converter = staticmethod(time.gmtime)  # and not structlog, a dependency that would save this class alone

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%SZ"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        fields |= getattr(record, "fields", {})
        return " ".join(f"{key}={_value(value)}" for key, value in fields.items())


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = printable(" ".join(str(value).split()))
    return '"' + text.replace('"', "'") + '"' if " " in text or not text else text


def log(event: str, level: int = logging.INFO, **fields: Any) -> None:
    """Write a log line.

    Examples
    --------
    >>> log("shard", shard=3, done=4)
    """
    LOGGER.log(level, event, extra={"fields": fields})


@contextmanager
def to_stderr() -> Iterator[None]:
    """Show the lines on stderr, unless that is a terminal, where the progress bar suffices.

    Examples
    --------
    >>> with to_stderr():
    ...     log("start")
    """
    with nullcontext() if sys.stderr.isatty() else _handled(logging.StreamHandler(sys.stderr)):
        yield


@contextmanager
def to_file(folder: Path) -> Iterator[None]:
    r"""Append the lines to the file ``log`` of an existing folder.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with to_file(Path(folder)):
    ...         log("start", shards=8)
    ...     (Path(folder) / "log").read_text()
    'time=... level=info event=start shards=8\n'
    """
    try:
        handler: logging.Handler = _LogFile(regular(folder / LOG), encoding="utf-8")
    except OSError:  # a run works without a log
        handler = logging.NullHandler()
    with _handled(handler):
        yield


class _LogFile(logging.FileHandler):
    """Log file whose write errors (a full disk) never end a run: writing parts will report them."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass

    def close(self) -> None:
        with suppress(OSError):  # the rest of an unwritten line
            super().close()


@contextmanager
def _handled(handler: logging.Handler) -> Iterator[None]:
    handler.setFormatter(_KeyValue())
    level = LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(min(logging.INFO, level or logging.INFO))
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
        handler.close()


BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt} of {total_fmt} {unit}s, {rate_fmt}, {elapsed} gone, {remaining} left"


class Progress:
    """Counter of finished shards of a run, or runs of a sweep, with rate and remaining time.

    Parameters
    ----------
    total : int
        Shards of the run.
    done : int
        Those finished before, excluded from the rate.
    what : str
        Label of the work and its device.
    bar : bool or None
        Whether to show a progress bar; None: on a terminal. The bar of a run within that of a sweep vanishes after the run.
    unit : str
        ``shard`` or ``run``.
    tell : callable, optional
        Takes how many are finished, of how many, and the remaining seconds, at most every :data:`EVERY` seconds.

    Examples
    --------
    >>> with Progress(4, 1, "cpu", bar=False) as progress:
    ...     progress.finished(2, 0.5)
    ...     progress.done
    2
    """

    def __init__(
        self,
        total: int,
        done: int,
        what: str,
        bar: bool | None = None,
        unit: str = "shard",
        tell: Callable[[int, int, float], None] | None = None,
    ) -> None:
        self.total, self.done, self._before, self._unit, self._tell = total, done, done, unit, tell
        self._began = time.monotonic()  # the wall clock may jump; tqdm keeps no rate where it shows no bar
        self._told = -math.inf
        hidden = None if bar is None else not bar
        self._bar = tqdm(total=total, initial=done, desc=what, unit=unit, disable=hidden, bar_format=BAR, leave=None)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def then(self, what: str) -> None:
        """Show the next step after all are finished, which also takes a while."""
        log("statistics", shards=self.total)
        if not self._bar.disable:
            self._bar.write(f"then: {what}", file=sys.stderr)

    def passed(self) -> None:
        """Count one that was finished earlier, without affecting the rate."""
        self.done += 1
        self._before += 1
        if not self._bar.disable:
            self._bar.initial += 1  # excluded from tqdm's rate
            self._bar.n += 1
            self._bar.refresh()

    def finished(self, which: int | str, seconds: float, **fields: Any) -> None:
        """Count one, and log the remaining number and time."""
        self.done += 1
        self._bar.update()
        now = time.monotonic()
        rate = (self.done - self._before) / max(now - self._began, 1e-9)
        left = (self.total - self.done) / rate
        counted: dict[str, Any] = {self._unit: which, "done": self.done, "of": self.total, "seconds": seconds}
        counted |= {f"{self._unit}s_per_second": rate, "remaining_seconds": left}
        log("shard" if self._unit == "shard" else f"{self._unit}_done", **counted, **fields)
        if self._tell and now - self._told >= EVERY:
            self._tell(self.done, self.total, left)
            self._told = time.monotonic()
