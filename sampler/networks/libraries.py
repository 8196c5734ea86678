"""Constructors of :class:`NetworkScore`, one for each library."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, Self, TypedDict, Unpack

from torch import Tensor

from gaussian_test.sampler.networks.adapters import Called, Network, adapt_azula, adapt_edm
from gaussian_test.sampler.networks.diffusers_models import adapt_diffusers
from gaussian_test.sampler.networks.prediction import Prediction
from gaussian_test.sampler.process import Process, Schedule
from gaussian_test.sampler.processes import DiscreteVP


class NetworkOptions(TypedDict, total=False):
    """Call options of :class:`NetworkScore` and of all its adapters."""

    conditional: bool
    guidance: float
    autocast: Literal["bfloat16", "float16"] | None
    channels_last: bool
    compile: bool
    micro_batch: int | None


class FromLibraries:
    """Constructors that wrap a network in the adapter of its library."""

    @classmethod
    def from_edm(cls, net: Any, process: Process | None = None, **options: Unpack[NetworkOptions]) -> Self:
        """Wrap a denoiser with EDM's interface, loaded by the user.

        Parameters
        ----------
        net : nn.Module
            ``net(x, sigma, class_labels)`` returns the denoised state; with ``sigma_min``, ``sigma_max``, ``round_sigma``,
            ``label_dim``, ``img_channels`` and ``img_resolution``. Labels are passed one-hot, or as None: whether a conditional
            network supports None depends on its training (label dropout).
        process : Process, optional
            The process of the experiment; default: variance exploding.
        **options
            As for :class:`NetworkScore`.

        Returns
        -------
        NetworkScore

        Raises
        ------
        ValueError
            If the object lacks a part of the interface.

        References
        ----------
        Karras et al., arXiv 2206.00364.

        Examples
        --------
        >>> from gaussian_test.sampler import NetworkScore
        >>> from gaussian_test.sampler import ResidualDenoiser
        >>> NetworkScore.from_edm(ResidualDenoiser(img_resolution=8, img_channels=1, label_dim=10)).event_shape
        (1, 8, 8)
        """
        return cls._of(*adapt_edm(net), process, options)

    @classmethod
    def from_diffusers(
        cls,
        model: Any,
        scheduler: Any = None,
        process: Process | None = None,
        *,
        null_label: int | None = None,
        arguments: Mapping[str, Any] | None = None,
        variant: str | None = None,
        **options: Unpack[NetworkOptions],
    ) -> Self:
        r"""Wrap a model of diffusers, or open the folder of one or of a pipeline (safetensors only, nothing downloaded).

        The scheduler says what the network was trained on: levels :math:`\bar\alpha_k`, which are matched by noise-to-signal ratio,
        with the time k; continuous noise levels, with the time :math:`\frac14\ln\nu`; or flow matching, with the time 1000 s. Noise
        levels outside its training range raise an error.

        Parameters
        ----------
        model : model, pipeline or path
            The network (``UNet2DModel``, ``UNet2DConditionModel``, ``DiTTransformer2DModel``, ...), a pipeline with one, or
            a folder.
        scheduler : scheduler or path, optional
            Noise levels and prediction type of the training. Default: the scheduler of the pipeline or folder.
        process : Process, optional
            The process of the experiment; default: variance exploding.
        null_label : int, optional
            Class that means "no label", if the network was trained with one.
        arguments : dict, optional
            What every call gets besides, such as ``encoder_hidden_states``: numbers, arrays of shape (1, ...), or files of one
            (``.npy``, ``.safetensors``).
        variant : str, optional
            The variant of the weights in the folder, such as "fp16".
        **options
            As for :class:`NetworkScore`.

        Returns
        -------
        NetworkScore

        Raises
        ------
        ValueError
            If the scheduler does not tell the noise levels, the model is not one that this adapter knows, or lacks an argument.

        Examples
        --------
        >>> from gaussian_test.sampler import NetworkScore
        >>> from diffusers import DDPMScheduler, UNet2DModel
        >>> blocks = {"block_out_channels": (8,), "down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
        >>> small = UNet2DModel(8, **blocks, norm_num_groups=2)
        >>> NetworkScore.from_diffusers(small, DDPMScheduler()).event_shape
        (3, 8, 8)
        """
        return cls._of(*adapt_diffusers(model, scheduler, null_label, arguments, variant), process, options)

    @classmethod
    def from_azula(
        cls,
        denoiser: Any,
        event_shape: tuple[int, ...],
        process: Process | None = None,
        *,
        classes: int = 0,
        label_argument: str = "label",
        one_hot: bool = False,
        **options: Unpack[NetworkOptions],
    ) -> Self:
        """Wrap an azula ``Denoiser``: ``denoiser(x_t, t).mean`` with ``denoiser.schedule(t)``.

        Parameters
        ----------
        denoiser : Denoiser
            Any azula denoiser.
        event_shape : tuple of int
            Shape of one sample.
        process : Process, optional
            The process of the experiment; default: variance exploding.
        classes : int
            Number of its classes.
        label_argument : str
            Name of the keyword argument for the labels.
        one_hot : bool
            Whether labels are passed one-hot, rather than as integers.
        **options
            As for :class:`NetworkScore`.

        Returns
        -------
        NetworkScore

        Raises
        ------
        ValueError
            If the object is not a denoiser with a schedule.

        Examples
        --------
        >>> import torch
        >>> from gaussian_test.sampler import NetworkScore
        >>> from azula.denoise import GaussianDenoiser
        >>> from azula.linalg.covariance import DiagonalCovariance
        >>> from azula.noise import VPSchedule
        >>> azula = GaussianDenoiser(torch.zeros(2), DiagonalCovariance(torch.tensor([3.0, 1.0])), VPSchedule())
        >>> NetworkScore.from_azula(azula, (2,)).denoise(torch.tensor([[4.0, 4.0]]), 1.0).round(decimals=4)
        tensor([[3., 2.]])
        """
        return cls._of(*adapt_azula(denoiser, event_shape, classes, label_argument, one_hot), process, options)

    @classmethod
    def from_callable(
        cls,
        function: Callable[..., Tensor],
        event_shape: tuple[int, ...],
        process: Process | None = None,
        *,
        trained: Schedule | None = None,
        prediction: Prediction = "x0",
        classes: int = 0,
        label_free: bool = True,
        timesteps: Literal["continuous", "integer"] = "continuous",
        first: Literal[0, 1] | None = None,
        data_at: Literal[0, 1] = 0,
        towards: Literal["noise", "data"] | None = None,
        **options: Unpack[NetworkOptions],
    ) -> Self:
        """Wrap any function or module ``function(x, t, label)`` or ``function(x, t)``.

        Parameters
        ----------
        function : callable
            Receives the state in the scaling ``trained``, the time (batch,) there, and labels int64 (batch,) or None.
        event_shape : tuple of int
            Shape of one sample.
        process, trained, prediction, classes, label_free
            As for :class:`NetworkScore`.
        timesteps : {"continuous", "integer"}
            Whether it takes whole steps, int64, for its time: levels between two of its own go to the nearest. ``trained`` is then
            a :class:`DiscreteVP`. Otherwise they are interpolated linearly in time.
        first : {0, 1}, optional
            Number of the first of discrete levels. Default: 0 for whole steps, else 1, the time of :class:`DiscreteVP`.
        data_at : {0, 1}
            Its time of the data, where times run from 0 to 1.
        towards : {"noise", "data"}, optional
            Where its velocity points. Default: along its own time, towards noise if the data is at 0.
        **options
            As for :class:`NetworkScore`.

        Returns
        -------
        NetworkScore

        Raises
        ------
        ValueError
            If the settings contradict each other.

        Examples
        --------
        >>> import torch
        >>> from gaussian_test.sampler import NetworkScore
        >>> from gaussian_test.sampler import Cosine
        >>> noise = lambda x, t, label: x * (torch.pi / 2 * t).sin().reshape(-1, 1)  # optimal for a standard normal variable
        >>> score = NetworkScore.from_callable(noise, (1,), trained=Cosine(), prediction="epsilon")
        >>> round(score.denoise(torch.tensor([[4.0]]), 1.0).item(), 5)  # in the variance exploding process
        2.0
        """
        facts = {"trained": trained, "prediction": prediction, "classes": classes, "label_free": label_free}
        scaling = trained or process
        if (timesteps == "integer" or first is not None) and not isinstance(scaling, DiscreteVP):
            raise ValueError(
                "whole steps and their first number are of discrete levels: say which, with trained: {kind: discrete_vp, ...}"
            )
        if data_at and not (isinstance(scaling, Process) and scaling.time_max <= 1):
            raise ValueError(
                "data_at = 1 is for times from 0 to 1: say of which process, such as trained: {kind: rectified}, or leave it out"
            )
        if towards is not None and prediction != "velocity":
            raise ValueError(f"towards = {towards!r} is of a velocity, and prediction is {prediction!r}: leave it out")
        whole = timesteps == "integer"
        backwards = prediction == "velocity" and (towards or ("data" if data_at else "noise")) == "data"
        network = Called(function, whole, (0 if whole else 1) if first is None else first, data_at, -1 if backwards else 1)
        if options.get("conditional") and not network.takes_label:
            raise ValueError("conditional needs a network of (x, t, label), and this one takes (x, t): drop 'conditional'")
        return cls._of(network, {"event_shape": event_shape, **facts}, process, options)

    @classmethod
    def _of(cls, network: Network, facts: dict[str, Any], process: Process | None, options: NetworkOptions) -> Self:
        made: Any = cls
        return made(network, process=process, **facts, **options)  # type: ignore[no-any-return]
