"""What the workers of a local cluster do when they start (a preload of Dask)."""

from __future__ import annotations

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Leave signals to the driver: terminals and queues send them to all of a job, and workers are to finish what they are at.

    Examples
    --------
    >>> before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    >>> dask_setup(None)
    >>> [signal.signal(*pair).name for pair in zip((signal.SIGINT, signal.SIGTERM), before, strict=True)]
    ['SIG_IGN', 'SIG_IGN']
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
