"""The laws of an observable."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gaussian_test.conformance.laws import Laws, draw
from gaussian_test.sampler.defaults import undisturbed

OBSERVABLE_LAWS = {
    "number": "one finite number for each U-Turn: a tensor or an array of shape (batch,)",
    "inputs": "starts and ends are left as they are",
    "again": "the same starts and ends give the same numbers, and no random number is drawn",
    "order": "the number of a U-Turn does not depend on its place in the batch",
    "size": "the number of a U-Turn does not depend on what else is in the batch, nor on how much",
}
Observable = Callable[[Tensor, Tensor], Any]


@undisturbed()
def check_observable(
    function: Observable, event_shape: tuple[int, ...], start: Tensor | None = None, end: Tensor | None = None
) -> None:
    """Raise unless a function is an observable: one number per U-Turn, independent of the others in its batch.

    ``number``, ``inputs``, ``again``, ``order``, ``size``: see :data:`OBSERVABLE_LAWS`. Repeated calls must agree bit by bit; other
    orders or batch sizes may differ by rounding, up to 1e-4 of the largest.

    Parameters
    ----------
    function : callable
        Takes starts and ends, both float32 of shape (batch, ``*event_shape``), and returns (batch,) numbers.
    event_shape : tuple of int
        Shape of one sample.
    start, end : Tensor, optional
        Starts and ends for the check, equally many, at least 2. Default: 7 random ones of each.

    Returns
    -------
    None

    Raises
    ------
    ConformanceError
        At the first broken law.

    Examples
    --------
    >>> check_observable(lambda start, end: (end - start).flatten(1).square().mean(1), (1, 8, 8))
    >>> check_observable(lambda start, end: (end - start).flatten(1).mean(1) - end.mean(), (1, 8, 8))
    Traceback (most recent call last):
    ...
    gaussian_test.conformance.laws.ConformanceError: observable <lambda> breaks 'size' (the number of a U-Turn does not ...
    """
    laws = Laws("observable", getattr(function, "__name__", type(function).__name__), OBSERVABLE_LAWS)
    x0 = draw(7, *event_shape, seed=1, dtype=torch.float32) if start is None else start
    x1 = draw(7, *event_shape, seed=2, dtype=torch.float32) if end is None else end
    count = len(x0)
    kept, state = (x0.clone(), x1.clone()), torch.get_rng_state()
    values = _values(laws, function, x0, x1)
    for name, given, before in zip(("starts", "ends"), (x0, x1), kept, strict=True):
        laws.demand(torch.equal(given, before), "inputs", f"the {name} that it was given have changed")
    drawn = not torch.equal(torch.get_rng_state(), state)
    torch.set_rng_state(state)
    again = _values(laws, function, x0, x1)
    laws.demand(not drawn, "again", "it drew random numbers of torch")
    same = np.array_equal(values, again)
    laws.demand(same, "again", f"called twice it gave {values[:3]} and {again[:3]} for the first ones")
    width = 1e-4 * max(float(np.abs(values).max()), 1e-30)
    back = torch.arange(count - 1, -1, -1, device=x0.device)
    laws.close("order", _values(laws, function, x0[back], x1[back])[::-1], values, "in the reverse order", width)
    alone = np.concatenate([_values(laws, function, x0[row : row + 1], x1[row : row + 1]) for row in range(count)])
    laws.close("size", alone, values, "one at a time", width)
    first = _values(laws, function, x0[:2].repeat(5, *(1,) * (x0.ndim - 1)), x1[:2].repeat(5, *(1,) * (x1.ndim - 1)))
    laws.close("size", first, np.tile(values[:2], 5), "with the same ones beside them five times", width)


def _values(laws: Laws, function: Observable, start: Tensor, end: Tensor) -> NDArray[np.float64]:
    with torch.inference_mode():
        found = function(start, end)
    is_number = isinstance(found, Tensor | np.ndarray) and tuple(found.shape) == (len(start),)
    what = f"shape {tuple(found.shape)}" if isinstance(found, Tensor | np.ndarray) else f"a {type(found).__name__}"
    laws.demand(is_number, "number", f"{len(start)} U-Turns of shape {tuple(start.shape[1:])} gave {what}")
    values = np.asarray(found.detach().cpu() if isinstance(found, Tensor) else found, dtype=np.float64)
    finite = np.isfinite(values)
    laws.demand(bool(finite.all()), "number", f"{int((~finite).sum())} of {len(start)} U-Turns gave NaN or infinite numbers")
    return values
