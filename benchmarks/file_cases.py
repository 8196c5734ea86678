"""Files and the start of the program: an archive of many shards, imports."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from measure import Case
from problem import Problem

from gaussian_test.engine.shard import Rows
from gaussian_test.store import archive, parts


def cases(problem: Problem) -> Iterator[Case]:
    """Yield the comparisons."""
    yield from _archive(1000 if problem.counts[-1] > 1000 else 20, problem.rounds)
    yield from _start(problem.rounds)


def _archive(count: int, rounds: int) -> Iterator[Case]:
    with tempfile.TemporaryDirectory() as folder:
        run = parts.Parts(Path(folder) / "run.nc", {"experiment": "benchmark"}, count)
        run.open(resume=False, overwrite=False)
        for shard in range(count):
            run.write(shard, _table(shard))
        again = Path(folder) / "netcdf"
        again.mkdir()
        for shard in range(count):
            _table(shard).to_netcdf(again / f"{shard:06d}.nc", engine="netcdf4")
        files = sorted(again.glob("*.nc"))
        written = sorted(run.folder.glob("shard-*"))

        def assembled() -> xr.Dataset:
            rows = Rows({"sample": np.arange(count + 1) * _table(0).sizes["sample"]}, run.folder)
            for shard in range(count):
                rows.add(shard, run.read(shard) or xr.Dataset())
            return rows.table()

        def opened_together() -> xr.Dataset:
            with xr.open_mfdataset(
                files, combine="nested", concat_dim="sample", data_vars="minimal", coords="minimal", compat="override", join="exact"
            ) as dataset:
                return dataset.load()

        yield Case(
            "the table of a run from its parts, checksums compared",
            f"{count:,} parts of {written[0].stat().st_size / 1e3:.0f} KB",
            assembled,
            {"xarray.open_mfdataset, no checksums": opened_together},
            {"reading the bytes": lambda: [path.read_bytes() for path in written]},
            _equal,
            1,
        )
        whole = assembled()
        path = Path(folder) / "whole.nc"
        archive.write(path, archive.plain(whole))
        yield Case(
            "opening an archive, checksum compared",
            f"{whole.sizes['sample']:,} samples, {path.stat().st_size / 1e6:.0f} MB",
            lambda: archive.read(path),
            {"xarray.load_dataset, no checksum": lambda: xr.load_dataset(path)},
            {"reading the bytes": path.read_bytes},
            rounds=rounds,
        )


def _table(shard: int) -> xr.Dataset:
    """Return a table as large as that of 64 samples x 24 turn times of two scores."""
    random = np.random.default_rng(shard)
    dims = ("score", "turn_time", "sample", "repeat")
    return xr.Dataset(
        {f"sample_{index}": (dims, random.normal(size=(2, 24, 64, 1)), {"units": "1", "long_name": "x"}) for index in range(10)},
        coords={
            "score": ["empirical", "network"],
            "turn_time": np.geomspace(0.1, 20, 24),
            "sample": np.arange(64) + 64 * shard,
            "repeat": [0],
        },
    )


def _equal(ours: xr.Dataset, theirs: xr.Dataset) -> None:
    xr.testing.assert_equal(ours, theirs)


def _start(rounds: int) -> Iterator[Case]:
    def python(*arguments: str) -> Any:
        return lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True)

    yield Case(
        "import gaussian_test", "new process", python("-c", "import gaussian_test"), {"import torch": python("-c", "import torch")},
        {"python alone": python("-c", "")}, rounds=rounds,
    )  # fmt: skip
    yield Case(
        "gaussian-test --help", "new process", python("-m", "gaussian_test", "--help"), {},
        {"python alone": python("-c", "")}, rounds=rounds,
    )  # fmt: skip
