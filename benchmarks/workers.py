"""Two workers against one: the same run of the digits network, a thread for each worker, in turns; and one process of two threads.

Whole runs, with the start of the workers and the archive, and the shards alone (from the first that is finished to the last).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import gaussian_test as gt
from gaussian_test import log

SETTINGS = {
    "scores": [{"kind": "network", "micro_batch": 64}, {"kind": "gaussian"}],
    "reverse": {"kind": "heun", "steps": 96},
    "shard_size": 16,
    "observables": "none",
    "keep": {"pictures": 0},
}
WAYS = {
    "1 worker, 1 thread": {"workers": 1},
    "2 workers, 1 thread each": {"workers": 2},
    "1 worker, 2 threads": {"workers": 1, "threads": 2},
}


class _Clock(log.logging.Handler):
    """Notes when the shards begin and end."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def emit(self, record: log.logging.LogRecord) -> None:
        if record.getMessage() in ("start", "shard"):
            self.times.append(record.created)


def measured(options: dict[str, int], samples: int) -> tuple[float, float]:
    """Return the seconds of the whole run, and those between the first finished shard and the last, scaled to all shards."""
    clock = _Clock()
    log.LOGGER.addHandler(clock)
    log.LOGGER.setLevel(log.logging.INFO)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        gt.run({**SETTINGS, "samples": samples}, Path(folder) / "run.nc", progress=False, **options)
    log.LOGGER.removeHandler(clock)
    whole, shards = time.monotonic() - began, len(clock.times) - 1
    return whole, (clock.times[-1] - clock.times[1]) / (shards - 1) * shards


def main() -> None:
    """Print the medians and their ratios to one worker."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1797, help="size of the run")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds")
    given = parser.parse_args()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    for _ in range(given.rounds):
        for name, options in WAYS.items():
            times[name].append(measured(options, given.samples))
    for place, what in enumerate(("whole run", "shards alone")):
        one = median(pair[place] for pair in times["1 worker, 1 thread"])
        for name, pairs in times.items():
            found = [pair[place] for pair in pairs]
            listed = ", ".join(f"{seconds:.1f}" for seconds in found)
            print(f"{what:13} {name:26} {median(found):7.1f} s  ratio {median(found) / one:.2f}  ({listed})")


if __name__ == "__main__":
    main()
