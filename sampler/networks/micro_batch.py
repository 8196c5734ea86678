r"""Timing of a few batch sizes to find the fastest.

Too small a batch leaves the device idle, too large a one exceeds its caches. The optimum depends on network and machine, so it is
measured.
"""

import time

import torch

from gaussian_test.sampler.networks.network import NetworkScore

SIZES = (1, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
ROUNDS = 4  # over all sizes that are not hopeless: other load seldom lasts as long, and only adds time
ENOUGH = 0.97  # of the best rate: take the smallest such batch
HOPELESS = 0.7  # of the best rate: stop after two such sizes in a row
SECONDS = 20.0  # start no further size after this


def fastest_micro_batch(
    score: NetworkScore, largest: int, device: torch.device, dtype: torch.dtype = torch.float32, conditional: bool = False
) -> int:
    """Return the number of states per call with the largest throughput of a network.

    Parameters
    ----------
    score : NetworkScore
        The network, on its device.
    largest : int
        Largest size to try.
    device, dtype
        Of the states.
    conditional : bool
        Whether to call it with labels.

    Returns
    -------
    int
        One of a few sizes up to ``largest`` that fit in memory.

    Examples
    --------
    >>> score = NetworkScore.from_callable(lambda x, t, label: x / 2, (3,))
    >>> fastest_micro_batch(score, 1, torch.device("cpu"))
    1
    """
    low, high = score.noise_range
    process = score.process
    edges = [float(process.noise_to_signal(t)) for t in (process.time_min, process.time_max)]
    low, high = max(low, edges[0]), min(high, edges[1])
    nu = (low * high) ** 0.5 if score.levels is None else float(score.levels[len(score.levels) // 2])
    t = process.level(float(process.time(nu)))
    seconds: dict[int, float] = {}  # the shortest of each size
    rates: dict[int, float] = {}
    slower = 0  # sizes in a row: a single slow one may be chance
    kept = score.micro_batch
    started = time.perf_counter()
    try:
        for size in sorted({*(size for size in SIZES if size < largest), largest}):
            _called(score, size, t, device, dtype, conditional)  # to warm up
            seconds[size] = _called(score, size, t, device, dtype, conditional)
            if (score.micro_batch or 0) < size:
                del seconds[size]
                break  # out of memory: the call was halved
            rates[size] = size / seconds[size]
            best = max(rates, key=lambda one: rates[one])
            if rates[size] < HOPELESS * rates[best]:  # or the machine is busy just now, and the best is slow as well
                slower += rates[size] < HOPELESS * best / _called(score, best, t, device, dtype, conditional)
            else:
                slower = 0
            if slower == 2 or time.perf_counter() - started > SECONDS:
                break
        for _ in range(ROUNDS - 1):
            for size in [size for size, rate in rates.items() if rate >= HOPELESS * max(rates.values())]:
                seconds[size] = min(seconds[size], _called(score, size, t, device, dtype, conditional))
                rates[size] = size / seconds[size]
            if time.perf_counter() - started > SECONDS:
                break
    finally:
        score.micro_batch = kept
    return min(size for size, rate in rates.items() if rate >= ENOUGH * max(rates.values()))


def _called(score: NetworkScore, size: int, t: float, device: torch.device, dtype: torch.dtype, conditional: bool) -> float:
    """Return the seconds of one call with so many states."""
    x = torch.ones(size, *score.event_shape, device=device, dtype=dtype)
    label = torch.zeros(size, dtype=torch.long, device=device) if conditional else None
    score.micro_batch = size
    start = time.perf_counter()
    score.denoise(x, t, label)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
