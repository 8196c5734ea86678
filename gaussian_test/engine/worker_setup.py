"""Start-up of local workers (a Dask preload)."""

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Ignore signals, which terminals and queues send to the whole job: workers finish their shard, the driver stops the run."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
