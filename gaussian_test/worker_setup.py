"""What the workers of a local cluster do when they start (a preload of Dask)."""

from __future__ import annotations

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C to the driver: the terminal sends it to the workers as well, which are to finish what they are at.

    Examples
    --------
    >>> before = signal.getsignal(signal.SIGINT)
    >>> dask_setup(None)
    >>> signal.signal(signal.SIGINT, before)
    <Handlers.SIG_IGN: 1>
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
