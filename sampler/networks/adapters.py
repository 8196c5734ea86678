r"""Adapters of library networks to one call, ``network(x, t, label)``.

An adapter passes state, time and labels in the form of its library; :class:`NetworkScore` does scaling, conversion to :math:`D =
E[x_0 \mid x_t]`, guidance and batches. The models of diffusers have a file of their own, beside this one.
"""

import hashlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from gaussian_test.sampler.process import Schedule, Time, as_time
from gaussian_test.sampler.processes import VarianceExploding

SMALLEST, LARGEST = 1e-8, 1e8  # stand for EDM's sigma_min = 0 and sigma_max = infinity
PROBES = 2**16  # noise levels for probing the rounding of an EDM network
ROUNDED = 1e-5  # relative change that exceeds float32 rounding
BISECTIONS = 80
PROBED = 1001  # times for probing a schedule


class Network(nn.Module, ABC):
    """A network with the common call; ``inner`` is the library's object.

    Parameters
    ----------
    inner : nn.Module or callable
        The library's network object.

    Attributes
    ----------
    library : str
        Library of the network, whose version is recorded in the result; empty if there is none.
    """

    library: ClassVar[str] = ""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    @property
    def settings(self) -> dict[str, Any]:
        """Class (or function) name of the network, and how to call it."""
        own = {name: value for name, value in vars(self).items() if isinstance(value, bool | int | str) and name != "training"}
        return {"name": str(getattr(self.inner, "__qualname__", type(self.inner).__qualname__)), **own}

    @abstractmethod
    def forward(self, x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        """Return the network's prediction.

        Parameters
        ----------
        x : Tensor
            States in the network's training scaling, (batch, ``*event``).
        t : Tensor
            Time in that scaling, float64 on the CPU, scalar or (batch,).
        label : Tensor or None
            Classes, int64, (batch,).
        """


def rows_of_time(t: Tensor, x: Tensor) -> Tensor:
    """Return a time as (batch,), on the device and in the dtype of a state, without synchronising.

    Examples
    --------
    >>> rows_of_time(torch.tensor(2.0), torch.zeros(3, 5))
    tensor([2., 2., 2.])
    """
    if t.ndim == 0 and t.device.type == "cpu":
        return x.new_full((len(x),), float(t))
    return t.to(device=x.device, dtype=x.dtype).expand(len(x))


def one_hot(label: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """Return labels as one-hot rows; torch's own function synchronises to check them.

    Examples
    --------
    >>> one_hot(torch.tensor([1]), 3, torch.float32)
    tensor([[0., 1., 0.]])
    """
    return (label.unsqueeze(1) == torch.arange(classes, device=label.device)).to(dtype)


class Called(Network):
    """Any function or module of (x, t, label), or of (x, t).

    Parameters
    ----------
    inner : callable
        The function or module.
    integer : bool
        Whether it takes whole steps, int64, for its time.
    first : {0, 1}
        Number of the first of discrete levels.
    data_at : {0, 1}
        Its time of the data, where times run from 0 to 1.
    sign : {1, -1}
        Factor of what it predicts.
    """

    def __init__(self, inner: Any, integer: bool = False, first: int = 1, data_at: int = 0, sign: int = 1) -> None:
        super().__init__(inner)
        self.integer = integer
        self.first = first
        self.data_at = data_at
        self.sign = sign
        self.takes_label = _takes_label(inner)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        t = t + (self.first - 1)  # levels of DiscreteVP are counted from 1
        time = rows_of_time(1 - t if self.data_at else t, x)
        predicted: Tensor = self.call(x, time.round().long() if self.integer else time, label)
        return -predicted if self.sign < 0 and isinstance(predicted, Tensor) else predicted

    def call(self, x: Tensor, time: Tensor, label: Tensor | None) -> Any:
        """Return what the function returns for a time of its own."""
        return self.inner(x, time, label) if self.takes_label else self.inner(x, time)


def _takes_label(function: Any) -> bool:
    """Return whether a function takes a third argument; if it does not tell, it does."""
    try:
        parameters = inspect.signature(getattr(function, "forward", function)).parameters.values()
    except (TypeError, ValueError):
        return True
    places = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    return len(places) > 2 or any(one.kind is one.VAR_POSITIONAL for one in parameters)


class _EDM(Network):
    def forward(self, x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        labels = None if label is None else one_hot(label, self.inner.label_dim, x.dtype)
        denoised: Tensor = self.inner(x, rows_of_time(t, x), labels)
        return denoised


def adapt_edm(net: Any) -> tuple[Network, dict[str, Any]]:
    """Return the adapter of a denoiser with EDM's interface, and its facts: arguments of :class:`NetworkScore`."""
    parts = ("sigma_min", "sigma_max", "round_sigma", "label_dim", "img_channels", "img_resolution")
    missing = [part for part in parts if not hasattr(net, part)]
    if missing or not callable(net):
        lacking = ", ".join(missing) or "a call"
        raise ValueError(
            f"{type(net).__name__} lacks {lacking} of EDM's interface: give an object net(x, sigma, class_labels) "
            f"with {', '.join(parts)}, or wrap its call with from_callable"
        )
    low, high = max(float(net.sigma_min), SMALLEST), min(float(net.sigma_max), LARGEST)
    facts = {
        "event_shape": (int(net.img_channels), int(net.img_resolution), int(net.img_resolution)),
        "trained": VarianceExploding(low, high),
        "classes": int(net.label_dim or 0),
        "levels": _levels_of(net, low, high),
    }
    return _EDM(net), facts


def _levels_of(net: Any, low: float, high: float) -> Tensor | None:
    """Return the noise levels that an EDM network rounds to, or None if it accepts any."""
    probes = torch.from_numpy(np.geomspace(low, high, PROBES))
    rounded = torch.cat([torch.as_tensor(net.round_sigma(part)).detach().cpu().double() for part in torch.split(probes, 1024)])
    if bool(((rounded / probes - 1).abs() <= ROUNDED).all()):
        return None
    return torch.from_numpy(np.unique(rounded.numpy()))


class NumericSchedule(Schedule):
    r"""A schedule from a function, with the time found by bisection in :math:`\nu`.

    Parameters
    ----------
    function : callable
        Returns :math:`(\alpha_t, \sigma_t)` for t in [0, 1], with increasing :math:`\sigma_t/\alpha_t`.

    Examples
    --------
    >>> schedule = NumericSchedule(lambda t: (1 - t, t))
    >>> round(float(schedule.time(3.0)), 12)
    0.75
    """

    def __init__(self, function: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        self.function = function
        self._found: dict[float, float] = {}  # cache: a run reuses the same few levels

    def __repr__(self) -> str:
        # identify it by its values: two functions of one name can differ
        t = torch.linspace(0, 1, PROBED, dtype=torch.float64)
        values = torch.stack([self.alpha(t).expand_as(t), self.sigma(t).expand_as(t)])
        return f"NumericSchedule({hashlib.sha256(values.cpu().numpy().tobytes()).hexdigest()})"

    def alpha(self, t: Time) -> Tensor:
        return self.function(as_time(t))[0].double()

    def sigma(self, t: Time) -> Tensor:
        return self.function(as_time(t))[1].double()

    def time(self, noise_to_signal: Time) -> Tensor:
        nu = as_time(noise_to_signal)
        if nu.ndim == 0 and nu.device.type == "cpu":
            key = float(nu)
            if key not in self._found:
                self._found[key] = float(self._bisected(nu))
            return torch.tensor(self._found[key], dtype=torch.float64)
        return self._bisected(nu)

    def _bisected(self, nu: Tensor) -> Tensor:
        low, high = torch.zeros_like(nu), torch.ones_like(nu)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            below = self.noise_to_signal(middle) < nu
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2


class _Azula(Network):
    library = "azula"

    def __init__(self, inner: Any, classes: int, label_argument: str, one_hot: bool) -> None:
        super().__init__(inner)
        self.classes = classes
        self.label_argument = label_argument
        self.one_hot = one_hot

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        if t.ndim:  # all denoisers accept a common time, not all one per row: group rows of equal time
            bounds = [0, *(t.cpu().diff().nonzero().reshape(-1) + 1).tolist(), len(t)]
            parts = [slice(*ends) for ends in pairwise(bounds)]
            return torch.cat([self(x[rows], t[rows.start], None if label is None else label[rows]) for rows in parts])
        extra = {}
        if label is not None:
            extra[self.label_argument] = one_hot(label, self.classes, x.dtype) if self.one_hot else label
        mean: Tensor = self.inner(x, torch.full((), float(t), dtype=x.dtype, device=x.device), **extra).mean
        return mean


def adapt_azula(
    denoiser: Any, event_shape: tuple[int, ...], classes: int, label_argument: str, one_hot: bool
) -> tuple[Network, dict[str, Any]]:
    """Return the adapter of an azula denoiser, and its facts: arguments of :class:`NetworkScore`."""
    if not callable(denoiser) or not callable(getattr(denoiser, "schedule", None)):
        raise ValueError(f"{type(denoiser).__name__} is not an azula Denoiser: give an object denoiser(x, t) with a schedule")
    trained = NumericSchedule(denoiser.schedule)
    ratios = trained.noise_to_signal(torch.linspace(0, 1, PROBED, dtype=torch.float64))
    ends = float(ratios[0]), float(ratios[-1])
    if not ends[0] >= 0 or not bool((ratios.diff() > 0).all()):
        raise ValueError(
            f"the schedule's noise-to-signal ratio runs from {ends[0]:g} to {ends[1]:g}: expected a steady rise over t in [0, 1]"
        )
    facts = {"event_shape": tuple(event_shape), "trained": trained, "classes": classes, "noise_range": ends}
    return _Azula(denoiser, classes, label_argument, one_hot), facts
