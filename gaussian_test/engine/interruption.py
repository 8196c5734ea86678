"""Ctrl-C and a queue's SIGTERM: the shard in work is finished, and the run ends in a state from which it can be resumed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A run was told to stop.

    Parameters
    ----------
    number : int
        The signal.
    message : str
        What is left to do, as one sentence.

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
        """What a shell is told: 128 and the signal."""
        return 128 + self.number


class Interruption:
    """Listens for signals: at once they end the run, or, within :meth:`finishing`, they wait until what is in work is done.

    A second signal ends the run at once, whatever is in work.

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
        """Take the signals for the time of a run; only python's main thread can, elsewhere nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        # a signal that is ignored (a job in the background) stays ignored
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
        """Let a signal wait: :attr:`asked` says that it came."""
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
