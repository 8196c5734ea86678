"""Computing under numpy's and torch's own defaults, whatever the program around has set."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from gaussian_test.locks import SharedSetting, numpy_defaults

_DTYPE = SharedSetting(torch.get_default_dtype, torch.set_default_dtype)
_limiting = threading.Lock()
_limited: list[tuple[int, int]] = []  # threads of Python whose runs set those of torch, and how many these were before


@contextmanager
def undisturbed() -> Iterator[None]:
    """Compute in float32 on the CPU unless told otherwise, and let numbers underflow to zero.

    What :func:`torch.set_default_dtype`, :func:`torch.set_default_device` and :func:`numpy.seterr` have set comes back afterwards.
    Use it around, or as the decorator of, what users call.

    Examples
    --------
    >>> import numpy as np
    >>> with np.errstate(all="raise"), undisturbed():
    ...     float(np.exp(np.float64(-1000)))
    0.0
    """
    there = torch.get_default_device().type != "cpu"  # a context of torch costs time in each of its functions
    with numpy_defaults(), _DTYPE.held(torch.float32), torch.device("cpu") if there else nullcontext():
        yield


@contextmanager
def torch_threads(threads: int | None) -> Iterator[None]:
    """Set torch's threads during a run, those of this thread of Python; None leaves them.

    Examples
    --------
    >>> with torch_threads(1):
    ...     torch.get_num_threads()
    1
    """
    if threads is None:
        yield
        return
    me = threading.get_ident()
    with _limiting:  # a new thread begins with the number that was set last, that of another run perhaps
        is_first = not _limited or any(thread == me for thread, _ in _limited)
        mine = me, torch.get_num_threads() if is_first else _limited[0][1]
        _limited.append(mine)
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        with _limiting:
            torch.set_num_threads(mine[1])
            _limited.remove(mine)
