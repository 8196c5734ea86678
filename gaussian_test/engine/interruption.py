"""Ctrl-C and SIGTERM: finish the current shard, stay resumable."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A run was stopped by a signal.

    Parameters
    ----------
    number : int
        The signal.
    message : str
        The remaining work, as one sentence.

    Examples
    --------
    >>> Interrupted(signal.SIGTERM, "3 of 8 shards are done").exit_code
    143
    """

    def __init__(self, number: int, message: str = "") -> None:
        super().__init__(message)
        self.number = number

    @property
    def exit_code(self) -> int:
        """Exit code for a shell: 128 plus the signal."""
        return 128 + self.number


class Interruption:
    """Signal handler that ends the run at once or, within :meth:`finishing`, after the current work.

    A second signal always ends the run at once.

    Examples
    --------
    >>> interruption = Interruption()
    >>> with interruption.listening(), interruption.finishing():
    ...     signal.raise_signal(signal.SIGTERM)
    ...     interruption.asked
    15
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self._finishing = False

    @contextmanager
    def listening(self) -> Iterator[Interruption]:
        """Handle signals during a run; only in Python's main thread, elsewhere nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        # an ignored signal (background job) stays ignored
        before = {number: signal.getsignal(number) for number in SIGNALS}
        taken = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]
        for number in taken:
            signal.signal(number, self._handle)
        try:
            yield self
        finally:
            for number in taken:
                signal.signal(number, before[number])

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """Defer signals: :attr:`asked` holds one that arrived."""
        self._finishing = True
        try:
            yield
        finally:
            self._finishing = False

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._finishing and self.asked is None:
            self.asked = number
            return
        raise Interrupted(number)
