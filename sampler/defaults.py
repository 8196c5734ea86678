"""Computing under numpy's and torch's own defaults, whatever the program around has set."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from gaussian_test.locks import SharedSetting, numpy_defaults

_DTYPE = SharedSetting(torch.get_default_dtype, torch.set_default_dtype)


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
