r"""Network score for any prediction type and training scaling.

A network sees :math:`x_\tau = \alpha_\tau x_0 + \sigma_\tau z` in the scaling of its own training. The state of any other process
at the same :math:`\nu = \sigma/\alpha` is that state times a number, and every prediction is the posterior mean in other units:

.. math:: D = \hat x_0 = \frac{x - \sigma\hat\epsilon}{\alpha} = \frac{\alpha x - \sigma\hat v}{\alpha^2 + \sigma^2}
            = \frac{x + \sigma^2\hat s}{\alpha}
"""

import logging
import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from gaussian_test.sampler.networks.adapters import Called, Network
from gaussian_test.sampler.networks.libraries import FromLibraries
from gaussian_test.sampler.networks.prediction import NetworkError, Prediction, out_of_memory, to_denoised
from gaussian_test.sampler.process import Process, Schedule, Time, as_time, per_row
from gaussian_test.sampler.processes import VarianceExploding
from gaussian_test.sampler.scores.score import Score

AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}
EDGE = 1e-6  # relative: levels are matched in float64, but checkpoints often store float32

_log = logging.getLogger(__name__)


class NetworkScore(FromLibraries, Score):
    r"""Score of a trained network.

    Parameters
    ----------
    network : Network or callable
        Called as ``network(x, t, label)``, with the state (batch, ``*event``) and the time in the scaling ``trained`` and labels
        int64 (batch,) or None; returns its prediction in the shape of ``x``. A :class:`Network` receives the time as float64 on the
        CPU, scalar or (batch,); any other callable as (batch,), on the device and in the dtype of ``x``. It is put into evaluation
        mode.
    event_shape : tuple of int
        Shape of one sample.
    process : Process, optional
        The process of the experiment, which defines the time ``t``. Default: variance exploding.
    trained : Schedule, optional
        The scaling that the network was trained in. Default: ``process``.
    prediction : {"x0", "epsilon", "v", "score", "velocity"}
        What the network returns: the denoised state; the noise :math:`z`; :math:`v = \alpha z - \sigma x_0`; the score
        :math:`\nabla\log p`; the velocity :math:`\dot\alpha x_0 + \dot\sigma z` of flow matching (``trained`` is then a Process).
    classes : int
        Number of classes of the network; 0 if it has none.
    label_free : bool
        Whether it can be called without labels.
    noise_range : tuple of float, optional
        Smallest and largest trained noise-to-signal ratio; others raise an error. Default: those of ``trained``.
    levels : Tensor, optional
        Trained noise-to-signal ratios, ascending, if it supports no others.
    conditional : bool
        Whether runs pass it the class of the sample.
    guidance : float
        Classifier-free guidance :math:`w`, :math:`D = D_{free} + w(D_{label} - D_{free})`: 1 is the plain conditional denoiser.
    autocast : {"bfloat16", "float16"}, optional
        Lower precision inside the network; states keep theirs.
    channels_last, compile : bool
        Memory layout of the network's images; ``torch.compile`` of the network.
    micro_batch : int, optional
        States per call of the network; larger batches are cut into equal parts. It is halved, with a message, when memory runs out.
        None does not cut batches; a run then times a few sizes and takes the fastest.

    Raises
    ------
    ValueError
        If the settings contradict each other or a weight is NaN or infinite.

    Notes
    -----
    Everything runs in ``torch.inference_mode``. The micro-batch affects the last bits of the result. A module inside a closure is
    invisible: put it into evaluation mode yourself, or pass the module itself so that its weights are checked, moved and recorded.

    References
    ----------
    Salimans & Ho, arXiv 2202.00512 (v-prediction); Ho & Salimans, arXiv 2207.12598 (guidance).

    Examples
    --------
    >>> linear = lambda x, t, label: x / (1 + t.reshape(-1, 1) ** 2)  # the optimal denoiser of a standard normal variable
    >>> NetworkScore(linear, (2,)).denoise(torch.tensor([[4.0, 8.0]]), 1.0)
    tensor([[2., 4.]])
    """

    def __init__(
        self,
        network: Callable[..., Tensor],
        event_shape: tuple[int, ...],
        process: Process | None = None,
        *,
        trained: Schedule | None = None,
        prediction: Prediction = "x0",
        classes: int = 0,
        label_free: bool = True,
        noise_range: tuple[float, float] | None = None,
        levels: Tensor | None = None,
        conditional: bool = False,
        guidance: float = 1.0,
        autocast: Literal["bfloat16", "float16"] | None = None,
        channels_last: bool = False,
        compile: bool = False,
        micro_batch: int | None = None,
    ) -> None:
        super().__init__(process or VarianceExploding(), event_shape)
        self._trained = trained
        self.trained_range = noise_range or (None if trained is None else _range_of(trained))
        self.enter(self.process)
        if prediction not in get_args(Prediction):
            raise ValueError(f"prediction = {prediction!r} is not known: choose one of {', '.join(get_args(Prediction))}")
        if prediction == "velocity" and not isinstance(self.trained, Process):
            raise ValueError("a velocity needs the drift of its process: give 'trained' as a Process")
        if autocast is not None and autocast not in AUTOCAST:
            raise ValueError(f"autocast = {autocast!r} is not known: choose one of {', '.join(AUTOCAST)} or None")
        if not math.isfinite(guidance):
            raise ValueError(f"guidance = {guidance} is not a weight: give a finite number, 1 for none")
        if conditional and not classes:
            raise ValueError("conditional needs a network that knows classes: give classes, their number, or drop 'conditional'")
        if guidance != 1 and not (classes and label_free):
            raise ValueError(f"guidance = {guidance:g} needs a network that works with and without labels: leave it at 1")
        if channels_last and len(event_shape) != 3:
            raise ValueError(f"channels_last is for images, and a sample has the shape {tuple(event_shape)}: leave it out")
        if micro_batch is not None and micro_batch < 1:
            raise ValueError(f"micro_batch = {micro_batch} is too small: give at least 1")
        self.network = network if isinstance(network, Network) else Called(network)
        self.network.eval()
        self.check_weights()
        if channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # missing from torch's stubs
        if compile:
            inner = self.network.inner
            (inner if isinstance(inner, nn.Module) else self.network).compile()
        self.prediction = prediction
        self.classes = classes
        self.label_free = label_free
        self.levels = levels
        self.conditional = conditional
        self.guidance = float(guidance)
        self.autocast = autocast
        self.channels_last = channels_last
        self.compiled = compile
        self.micro_batch = self.asked_micro_batch = micro_batch

    def enter(self, process: Process) -> None:
        """Take the times of another process from now on.

        Parameters
        ----------
        process : Process
            The process of the experiment.

        Examples
        --------
        >>> from gaussian_test.sampler import Cosine
        >>> score = NetworkScore(lambda x, t, label: x, (2,), trained=VarianceExploding())
        >>> score.enter(Cosine())
        >>> score.process, score.noise_range
        (Cosine(time_min=0.001, time_max=0.9999), (0.002, 80.0))
        """
        self.process = process
        # share an equal process, so that whole levels of a discrete one stay whole
        self.trained = process if self._trained is None or _same(self._trained, process) else self._trained
        self.noise_range = self.trained_range or _range_of(process)

    @property
    def settings(self) -> dict[str, Any]:
        """All settings besides weights and process that affect the output."""
        names = (
            "asked_micro_batch",
            "prediction",
            "classes",
            "label_free",
            "guidance",
            "autocast",
            "channels_last",
            "compiled",
            "conditional",
        )
        return {name: getattr(self, name) for name in names} | {"network": self.network.settings}

    def check_weights(self) -> None:
        """Raise if weights are NaN or infinite, and name them.

        Raises
        ------
        ValueError
            If there are any.
        """
        weights = {name for name, _ in self.network.named_parameters()}
        for name, value in self.network.state_dict().items():
            if not value.is_floating_point():
                continue
            # buffers may be infinite, as in attention masks
            sound = torch.isfinite(value) if name in weights else ~torch.isnan(value)
            if not bool(sound.all()):
                named = name.removeprefix("inner.")
                raise ValueError(f"the network's weight {named!r} holds NaN or infinite values: give a sound checkpoint")

    def check_levels(self, noise_to_signal: Tensor) -> None:
        """Raise for noise levels that the network was not trained for.

        Parameters
        ----------
        noise_to_signal : Tensor
            Any shape.

        Raises
        ------
        ValueError
            If one lies outside the range, or between the levels of a network that supports no others.
        """
        low, high = self.noise_range
        smallest, largest = float(noise_to_signal.min()), float(noise_to_signal.max())
        if not (smallest >= low * (1 - EDGE) and largest <= high * (1 + EDGE)):  # also false for NaN
            beyond = largest if smallest >= low * (1 - EDGE) else smallest
            raise ValueError(
                f"noise-to-signal ratio {beyond:.6g} is outside the {low:.6g} to {high:.6g} that the network was trained for: "
                "narrow the process (for example process.sigma_min and sigma_max) and the turn times to them, or run it in the "
                "process of its own training"
            )
        if self.levels is not None:
            nearest = self.levels[(self.levels.log() - noise_to_signal.reshape(-1, 1).log()).abs().argmin(1)]
            off = (nearest / noise_to_signal.reshape(-1) - 1).abs()
            if bool((off > EDGE * 10).any()):
                worst = int(off.argmax())
                between = float(noise_to_signal.reshape(-1)[worst])
                raise ValueError(
                    f"noise-to-signal ratio {between:.4g} lies between the {len(self.levels)} levels that "
                    f"the network knows (the nearest is {float(nearest[worst]):.4g}): run it in the discrete_vp process of "
                    "its own levels, alphas_cumprod = 1 / (1 + level**2)"
                )

    @torch.inference_mode()
    def denoise(self, x: Tensor, t: Time, label: Tensor | None = None) -> Tensor:
        self.flat(x)
        if self.autocast and x.dtype != torch.float32:
            raise ValueError(f"autocast is for states in float32, and these are {x.dtype}: use dtype float32 or drop autocast")
        if label is None and not self.label_free:
            raise ValueError("this network cannot be called without labels: set 'conditional' on data that have them")
        if label is not None and not self.classes:
            raise ValueError("a label was given, but this network knows no classes: drop 'conditional'")
        t = as_time(t)
        for what, given in (("time", t if t.ndim else None), ("label", label)):
            if given is not None and given.shape != x.shape[:1]:
                raise ValueError(f"a {what} of shape {tuple(given.shape)} does not fit a batch of {len(x)}: give one per row")
        if label is not None and label.device.type == "cpu" and not bool(((label >= 0) & (label < self.classes)).all()):
            raise ValueError(
                f"labels from {int(label.min())} to {int(label.max())} are not classes 0 to {self.classes - 1}: correct them"
            )
        nu = self.process.noise_to_signal(t)
        if nu.device.type == "cpu":  # checking times on another device would synchronise
            self.check_levels(nu)
        # in the precision that the network receives
        own = t if self.trained is self.process else self.trained.time(nu).to(x.dtype).double()
        scale = None if self.trained is self.process else self.trained.alpha(own) / self.process.alpha(t)
        denoised = torch.empty_like(x)
        start = 0
        while start < len(x):
            rows = slice(start, start + self._even(len(x) - start))
            try:
                denoised[rows] = self._denoised(x[rows], _rows(own, rows), _rows(scale, rows), _rows(label, rows))
            except RuntimeError as error:
                if not out_of_memory(error) or rows.stop - rows.start == 1:
                    raise
            else:
                start = rows.stop
                continue
            # outside the handler, so that the memory of the failed call is free
            self.micro_batch = (rows.stop - rows.start) // 2
            if x.device.type == "cuda":
                torch.cuda.empty_cache()
            _log.warning("out of memory with %d states a call: going on with %d", rows.stop - rows.start, self.micro_batch)
        return denoised

    def _even(self, count: int) -> int:
        """Return the size of the next call for equal parts within the micro-batch."""
        calls = -(-count // (self.micro_batch or count))
        return -(-count // calls)

    def _denoised(self, x: Tensor, t: Tensor, scale: Tensor | None, label: Tensor | None) -> Tensor:
        """Return D of one micro-batch, in the time of the training scaling."""
        if scale is not None:
            x = per_row(scale, x) * x
        if label is None or self.guidance == 0:
            return to_denoised(self.prediction, self._predict(x, t, None), x, t, self.trained)
        conditional = to_denoised(self.prediction, self._predict(x, t, label), x, t, self.trained)
        if self.guidance == 1:
            return conditional
        free = to_denoised(self.prediction, self._predict(x, t, None), x, t, self.trained)
        return torch.lerp(free, conditional, self.guidance)

    def _predict(self, x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        lower = torch.autocast(x.device.type, AUTOCAST[self.autocast]) if self.autocast else nullcontext()
        try:
            with lower:
                predicted = self.network(x, t, label)
        except Exception as error:  # user code may raise anything
            if isinstance(error, RuntimeError) and out_of_memory(error):
                raise
            if isinstance(self.network, Called) and not self.network.integer and self._indexes(x, label):
                raise ValueError(
                    "the network takes whole steps for its time, and was given real numbers: add timesteps: integer (and first: 0 "
                    "or 1, the number of its first level) beside trained: {kind: discrete_vp, ...}"
                ) from error
            level = float(self.trained.noise_to_signal(t).max())
            raise NetworkError(self, f"fails on {len(x)} states at noise-to-signal {level:.4g}", error) from error
        if not isinstance(predicted, Tensor) or predicted.shape != x.shape:
            given = tuple(predicted.shape) if isinstance(predicted, Tensor) else type(predicted).__name__
            raise ValueError(f"the network returned {given} for states of shape {tuple(x.shape)}: it must return the same shape")
        return predicted.to(x.dtype)

    def _indexes(self, x: Tensor, label: Tensor | None) -> bool:
        """Return whether the network works at whole steps."""
        try:
            self.network.call(x, torch.zeros(len(x), dtype=torch.long, device=x.device), label)  # type: ignore[operator]
        except Exception:  # it fails for another reason
            return False
        return True

    def levels_moved(self, noise_to_signal: Tensor) -> float:
        r"""Return by how much the nearest of a network's whole steps is off, as a ratio of noise levels minus 1.

        Parameters
        ----------
        noise_to_signal : Tensor
            Noise levels of a run.

        Returns
        -------
        float
            The largest; 0 for a network that takes any time.

        Examples
        --------
        >>> from gaussian_test.sampler import DiscreteVP
        >>> trained = DiscreteVP([0.5, 0.1])  # noise levels 1 and 3
        >>> score = NetworkScore.from_callable(lambda x, t: x, (2,), trained=trained, timesteps="integer")
        >>> round(score.levels_moved(torch.tensor([1.0, 2.0, 3.0])), 2)
        0.5
        """
        if not isinstance(self.network, Called) or not self.network.integer:
            return 0.0
        own = self.trained.noise_to_signal(self.trained.time(noise_to_signal).round())
        return float((own / noise_to_signal).log().abs().max().expm1())


def _range_of(schedule: Schedule) -> tuple[float, float]:
    if isinstance(schedule, Process):
        return float(schedule.noise_to_signal(schedule.time_min)), float(schedule.noise_to_signal(schedule.time_max))
    return 0.0, math.inf


def _same(a: Schedule, b: Schedule) -> bool:
    """Return whether two processes have identical values."""
    if type(a) is not type(b) or not isinstance(a, Process):
        return a is b
    pairs = zip(vars(a).values(), vars(b).values(), strict=True)
    return all(torch.equal(x, y) if isinstance(x, Tensor) else x == y for x, y in pairs)


def _rows(value: Any, rows: slice) -> Any:
    return value if value is None or value.ndim == 0 else value[rows]
