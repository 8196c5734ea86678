"""What the workers of a local cluster do when they start (a preload of Dask)."""

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Leave signals to the driver: terminals and queues send them to all of a job, and workers are to finish what they are at."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
