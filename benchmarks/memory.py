"""Data larger than memory: moments and a Gaussian Test on a memory-mapped source four times the cap, and the peak of memory.

Peak memory is that of a process of its own, as the kernel counts it (libraries, and pages of the file while they are mapped,
included). The source is random images of the spectrum of natural ones, 32 x 32 x 3, float32.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from pathlib import Path

import numpy as np

FEATURES, BLOCK = 3 * 32 * 32, 4096


def make_source(path: Path, size: int, seed: int = 0) -> None:
    """Write correlated samples: white noise through a fixed low-pass along each axis, clipped to [-1, 1]."""
    count = size // (4 * FEATURES)
    file = np.lib.format.open_memmap(path, "w+", np.float32, (count, 3, 32, 32))
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(32)[:, None], np.fft.rfftfreq(32)) * 32
    for start in range(0, count, BLOCK):
        noise = random.standard_normal((min(BLOCK, count - start), 3, 32, 32), dtype=np.float32)
        smooth = np.fft.irfft2(np.fft.rfft2(noise) / np.maximum(frequency, 1), s=(32, 32))
        file[start : start + BLOCK] = np.clip(2 * smooth, -1, 1)
    file.flush()


def moments(path: str, memory: str) -> str:
    """Fit the moments of the source."""
    import gaussian_test as gt

    found = gt.analysis.fit_moments(gt.data.load(path)["x"])
    return f"{found.count} samples, largest eigenvalue {found.eigenvalues[0]:.3g}"


def gaussian_test(path: str, memory: str) -> str:
    """Run the Gaussian Test of 512 starts."""
    import gaussian_test as gt

    settings = {
        "data": {"source": "file", "path": path},
        "memory": memory,
        "turn_times": {"noise_to_signal": {"min": 0.5, "max": 30, "count": 8}},
        "samples": 512,
        "observables": ["affinity", "normality"],
    }
    found = gt.run(settings, str(Path(path).with_name("run.nc")), progress=False)
    return f"T_m {float(found.memorization_time[0]):.3g}, affine {float(found.affine_time[0]):.3g}"


def _measured(task: str, path: str, memory: str, results: multiprocessing.Queue[tuple[str, float, float]]) -> None:
    began = time.perf_counter()
    said = globals()[task](path, memory)
    seconds = time.perf_counter() - began
    # not ru_maxrss, which a process inherits from the one that started it
    peak = next(int(line.split()[1]) * 1024 for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    results.put((said, seconds, peak))


def main() -> None:
    """Print a line for each task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bytes", type=float, default=4e9, help="size of the source")
    parser.add_argument("--memory", default="1GB", help="cap of the run")
    parser.add_argument("--folder", default=None, help="where the source is written")
    given = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        path = Path(folder) / "x.npy"
        make_source(path, int(given.bytes))
        print(f"source {path.stat().st_size / 1e9:.2f} GB, cap {given.memory}", flush=True)
        for task in ("moments", "gaussian_test"):
            results = context.Queue()
            process = context.Process(target=_measured, args=(task, str(path), given.memory, results))
            process.start()
            said, seconds, peak = results.get()
            process.join()
            print(f"{task:14} {seconds:8.1f} s, peak {peak / 1e9:.2f} GB: {said}", flush=True)


if __name__ == "__main__":
    main()
