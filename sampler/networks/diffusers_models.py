r"""Adapters of diffusers' models and schedulers.

The scheduler says what a network was trained on: levels :math:`\bar\alpha_k` with the time k; any noise level with the time
:math:`\frac14\ln\nu`; or flow matching, :math:`x = (1 - s) x_0 + s z`, with the time 1000 s. This is the only file of the sampler
that may open files: it passes the folder of a checkpoint to diffusers.
"""

import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gaussian_test.sampler.networks.adapters import Network, rows_of_time
from gaussian_test.sampler.process import Schedule, Time, as_time
from gaussian_test.sampler.processes import DiscreteVP, Rectified

PREDICTIONS = {"epsilon": "epsilon", "sample": "x0", "v_prediction": "v", "flow_prediction": "velocity"}  # diffusers' names
PARTS = ("unet", "transformer")  # of a pipeline
NOISIEST = 0.9999  # time of flow matching that stands for pure noise
LEVELS, LOGARITHM, FLOW, INVERTED = "level", "ln(nu)/4", "flow", "inverted flow"  # what a network takes for its time


class _Diffusers(Network):
    library = "diffusers"

    def __init__(self, inner: Any, clock: str, steps: int, null_label: int | None, learned_variance: bool) -> None:
        super().__init__(inner)
        self.clock = clock
        self.steps = steps
        self.null_label = null_label
        self.learned_variance = learned_variance
        self.whole_steps = getattr(inner.config, "time_embedding_type", "") == "learned"
        self.given: dict[str, Any] = {}

    def condition(self, given: Mapping[str, Any]) -> None:
        """Keep arguments that every call gets: their tensors are moved and recorded with the weights."""
        for name, value in given.items():
            if isinstance(value, Mapping):
                self.given[name] = list(value)
                for inner, part in value.items():
                    self.register_buffer(f"given_{name}_{inner}", part)
            else:
                self.given[name] = None
                self.register_buffer(f"given_{name}", value)

    def _conditions(self, x: Tensor) -> dict[str, Any]:
        def rows(name: str) -> Tensor:
            value: Tensor = self.get_buffer(f"given_{name}")
            value = value.to(x.dtype) if value.is_floating_point() else value
            return value.expand(len(x), *value.shape[1:])

        return {
            name: rows(name) if parts is None else {part: rows(f"{name}_{part}") for part in parts}
            for name, parts in self.given.items()
        }

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        own = {
            LEVELS: lambda: t - 1,  # time k of DiscreteVP is the checkpoint's level k - 1
            LOGARITHM: lambda: t,
            FLOW: lambda: t * self.steps,
            INVERTED: lambda: (1 - t) * self.steps,
        }[self.clock]()
        step = rows_of_time(own, x)
        if label is None and self.null_label is not None and "class_labels" not in self.given:
            label = torch.full((len(x),), self.null_label, dtype=torch.long, device=x.device)
        arguments = self._conditions(x) | ({} if label is None else {"class_labels": label})
        predicted: Tensor = self.inner(x, timestep=step.round().long() if self.whole_steps else step, **arguments).sample
        predicted = predicted[:, : x.shape[1]] if self.learned_variance else predicted
        return -predicted if self.clock == INVERTED else predicted


class LogarithmicVP(Schedule):
    r"""Variance preserving at any noise level, with the time :math:`\frac14\ln\nu`.

    Examples
    --------
    >>> round(float(LogarithmicVP().time(2.0)), 4)
    0.1733
    """

    def __repr__(self) -> str:
        return "LogarithmicVP()"

    def alpha(self, t: Time) -> Tensor:
        return 1 / torch.hypot(torch.ones((), dtype=torch.float64), self.noise_to_signal(t))

    def sigma(self, t: Time) -> Tensor:
        return self.noise_to_signal(t) * self.alpha(t)

    def time(self, noise_to_signal: Time) -> Tensor:
        return as_time(noise_to_signal).log() / 4

    def noise_to_signal(self, t: Time) -> Tensor:
        return (4 * as_time(t)).exp()


def adapt_diffusers(
    model: Any,
    scheduler: Any,
    null_label: int | None = None,
    arguments: Mapping[str, Any] | None = None,
    variant: str | None = None,
) -> tuple[Network, dict[str, Any]]:
    """Return the adapter of a diffusers model, and its facts: arguments of :class:`NetworkScore`."""
    if isinstance(model, str | Path):
        model, scheduler = _open_diffusers(Path(model), scheduler, variant)
    elif part := next((part for part in PARTS if getattr(model, part, None) is not None), None):
        model, scheduler = getattr(model, part), scheduler or getattr(model, "scheduler", None)
    if isinstance(scheduler, str | Path):
        scheduler = _open_scheduler(Path(scheduler))
    config, name = getattr(model, "config", None), type(model).__name__
    if config is None or not all(hasattr(config, part) for part in ("in_channels", "out_channels", "sample_size")):
        raise ValueError(
            f"{name} is not a diffusers model with in_channels, out_channels and sample_size, such as UNet2DModel: give one, a "
            "pipeline or a folder, or wrap its call in a function (x, t, label) and give that as kind: callable"
        )
    if config.sample_size is None:
        raise ValueError("the model's config does not say its sample_size: set it in the config")
    trained = trained_by(scheduler)
    channels, classes = int(config.in_channels), int(getattr(config, "num_class_embeds", None) or 0)
    if getattr(config, "norm_type", None) == "ada_norm_zero":  # of DiT, whose last embedding stands for no class
        classes = 1 + int(config.num_embeds_ada_norm)
        null_label = classes - 1 if null_label is None else null_label
    embedded = classes
    if null_label is not None:
        if not 0 <= null_label < classes:
            raise ValueError(f"null_label = {null_label} is none of the network's {classes} class embeddings: correct it")
        classes -= null_label == classes - 1
    given = (arguments or {}).get("class_labels")
    if embedded and isinstance(given, int) and not 0 <= given < embedded:
        raise ValueError(f"class_labels = {given} is none of the network's {embedded} class embeddings: correct it")
    doubled = int(config.out_channels or channels) == 2 * channels
    network = _Diffusers(model, trained.pop("clock"), trained.pop("steps"), null_label, doubled)
    network.condition(_conditions(model, arguments or {}))
    schedule, size = trained["trained"], config.sample_size
    levels = None
    if network.whole_steps and isinstance(schedule, DiscreteVP):
        levels = schedule.noise_to_signal(torch.arange(1, round(schedule.time_max) + 1))
    return network, trained | {
        "event_shape": (channels, *((size, size) if isinstance(size, int) else map(int, size))),
        "classes": classes,
        "label_free": not classes or null_label is not None or "class_labels" in network.given,
        "levels": levels,
    }


def trained_by(scheduler: Any) -> dict[str, Any]:
    """Return how a scheduler trains a network: schedule, prediction, range, what the network takes for its time."""
    config = getattr(scheduler, "config", {})
    given = config.get("prediction_type", "epsilon")
    if config.get("use_flow_sigmas") or "FlowMatch" in type(scheduler).__name__:
        given = "flow_prediction"
    if given not in PREDICTIONS:
        raise ValueError(f"prediction type {given!r} of the scheduler is not known: expected one of {', '.join(PREDICTIONS)}")
    steps = int(config.get("num_train_timesteps", 1000))
    facts = {"prediction": PREDICTIONS[given], "steps": steps, "clock": LEVELS}
    if given == "flow_prediction":
        shift = float(config.get("flow_shift") or 1.0)  # of schedulers for several kinds of noise levels
        low, high = shift / (steps + shift - 1), 1.0
        if not config.get("use_flow_sigmas"):
            low, high = float(scheduler.sigma_min), float(scheduler.sigma_max)
        clock = INVERTED if config.get("invert_sigmas") else FLOW
        return facts | {"trained": Rectified(low, min(high, NOISIEST)), "clock": clock}
    alphas_cumprod = alphas_cumprod_of(scheduler)
    if config.get("timestep_type") == "continuous" and given == "v_prediction":  # others ignore it
        ratios = ((1 - alphas_cumprod) / alphas_cumprod).sqrt()
        edges = (config.get("sigma_min") or float(ratios[0]), config.get("sigma_max") or float(ratios[-1]))
        return facts | {"trained": LogarithmicVP(), "clock": LOGARITHM, "noise_range": edges}
    return facts | {"trained": DiscreteVP(alphas_cumprod)}


# -- what a model is given besides state and time ------------------------------------------------------------------------------


def _conditions(model: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of every call as tensors of one row, after checking them against the model's signature."""
    signature, name, config = inspect.signature(model.forward).parameters, type(model).__name__, model.config
    taken = list(signature)[1:]
    known = [one for one in taken if one not in ("timestep", "return_dict")]
    if unknown := [one for one in arguments if one not in known and "kwargs" not in taken]:
        raise ValueError(f"{name} takes no argument {unknown[0]!r}: choose of {', '.join(known)}")
    wanted = [one for one in known if signature[one].default is inspect.Parameter.empty and signature[one].kind.name[:3] == "POS"]
    if any(getattr(config, one, None) for one in ("joint_attention_dim", "caption_channels")):
        wanted.append("encoder_hidden_states")
    if getattr(config, "pooled_projection_dim", None):
        wanted.append("pooled_projections")
    if getattr(config, "addition_embed_type", None) == "text_time":
        wanted.append("added_cond_kwargs")
    if missing := [one for one in dict.fromkeys(wanted) if one not in arguments]:
        raise ValueError(
            f"{name} is conditioned on {' and '.join(missing)}: give the embeddings of one prompt as arrays whose first axis is 1, "
            f"such as arguments: {{{missing[0]}: prompt.npy}}"
        )
    return {one: _rows(value, f"argument {one!r} of {name}") for one, value in arguments.items()}


def _rows(value: Any, what: str) -> Any:
    if isinstance(value, Mapping):
        return {inner: _rows(part, f"{what}, {inner!r}") for inner, part in value.items()}
    if isinstance(value, str | Path):
        value = _array(Path(value), what)
    if isinstance(value, bool) or value is None:
        raise ValueError(f"{what} is {value}: give a number, an array or the name of a file of one")
    if isinstance(value, int | float):
        value = [value]
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{what} is no array of numbers ({' '.join(str(error).split())[:120]}): correct it") from error
    if tensor.ndim == 0 or len(tensor) != 1:
        raise ValueError(
            f"{what} has the shape {tuple(tensor.shape)}: its first axis is of the states, so give (1, ...), one for all"
        )
    return tensor


def _array(path: Path, what: str) -> Any:
    """Return the one array of a file that cannot run code."""
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        if path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            (array,) = load_file(path).values()
            return array
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{what}: {path} cannot be read as one array ({' '.join(str(error).split())[:120]}): correct it"
        ) from error
    except Exception as error:  # safetensors has an error of its own
        raise ValueError(f"{what}: {path} is damaged ({' '.join(str(error).split())[:120]}): make it again") from error
    raise ValueError(f"{what}: {path} ends in {path.suffix!r}: give a .npy or .safetensors file with one array")


# -- folders -------------------------------------------------------------------------------------------------------------------


def _open_diffusers(folder: Path, scheduler: Any, variant: str | None) -> tuple[Any, Any]:
    """Load model and scheduler of a local folder from safetensors; nothing is executed or downloaded."""
    with _opening(folder, "a model in safetensors: save it with save_pretrained(safe_serialization=True)") as diffusers:
        inner = next((folder / part for part in PARTS if (folder / part).is_dir()), folder)
        inner = inner if (folder / "model_index.json").is_file() else folder
        named = _named(inner)
        kind: Any = getattr(diffusers, named, None)
        if not (isinstance(kind, type) and issubclass(kind, diffusers.ModelMixin)):
            raise ValueError(
                f"{inner} names {named!r}, which is no model of this diffusers: update it, or give a factory as kind: callable"
            )
        _check_variant(inner, variant)
        # low_cpu_mem_usage needs accelerate; missing weights would be random, so ask for the loading info
        options = {"local_files_only": True, "low_cpu_mem_usage": False, "output_loading_info": True, "variant": variant}
        load: Any = kind.from_pretrained  # type: ignore[attr-defined] # narrowed to a plain class above
        model, found = load(str(inner), use_safetensors=True, **options)
        for state in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            if found.get(state):
                first = ", ".join(str(name) for name in list(found[state])[:3])
                raise ValueError(
                    f"{inner} has {state.replace('_keys', '')} weights ({first}): give the whole checkpoint of this network"
                )
    return model, _open_scheduler(folder) if scheduler is None else scheduler


def _named(folder: Path) -> str:
    """Return the class that the config of a model names."""
    try:
        return str(json.loads((folder / "config.json").read_text()).get("_class_name", "UNet2DModel"))
    except (OSError, ValueError, AttributeError):
        return "UNet2DModel"  # whose loader says what is wrong with the config


def _check_variant(folder: Path, variant: str | None) -> None:
    """Raise if a folder lacks the variant of the weights that was asked for, or holds variants only and none was asked for."""
    kinds = {path.name.split(".")[1].split("-")[0] for path in folder.glob("diffusion_pytorch_model*.safetensors")}
    variants = sorted(kinds - {"safetensors"})
    if variant is None and variants and "safetensors" not in kinds:
        raise ValueError(f"{folder} holds its weights only as {', '.join(variants)}: add variant: {variants[0]} to the score")
    if variant is not None and variant not in variants:
        held = ", ".join(variants) or "none"
        raise ValueError(f"{folder} has no weights of the variant {variant!r}: choose of what it has ({held}), or leave it out")


def _open_scheduler(folder: Path) -> Any:
    """Load the scheduler of a local folder, or of its pipeline."""
    with _opening(folder, "a scheduler of diffusers: give the folder of a pipeline or of its scheduler") as diffusers:
        own = folder / "scheduler" if (folder / "scheduler").is_dir() else folder
        if not (own / "scheduler_config.json").is_file():
            raise ValueError(f"{own} has no scheduler_config.json: give the scheduler's folder beside the model's")
        config = diffusers.DDPMScheduler.load_config(str(own), local_files_only=True)
        kind = getattr(diffusers, str(dict(config).get("_class_name")), None)
        if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
            raise ValueError(f"{own} names {dict(config).get('_class_name')!r}, which is no scheduler of this diffusers: update it")
        make: Any = kind
        return make.from_config(config)


@contextmanager
def _opening(folder: Path, expected: str) -> Iterator[Any]:
    """Yield the library diffusers, and turn its loading errors into one sentence."""
    try:
        import diffusers
    except ImportError as error:
        raise ValueError(f"{folder} needs the library diffusers ({error}): install gaussian-test[diffusers]") from error
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: expected {expected}")
    try:
        yield diffusers
    except (OSError, KeyError, TypeError, AttributeError, RuntimeError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{folder} cannot be opened ({reason}); expected {expected}") from error


def alphas_cumprod_of(scheduler: Any) -> Tensor:
    r"""Return the :math:`\bar\alpha` that a diffusers scheduler trains with.

    Parameters
    ----------
    scheduler : scheduler or path
        A scheduler with ``alphas_cumprod``, or the folder of one or of a pipeline.

    Returns
    -------
    Tensor
        float64, strictly decreasing; a schedule rescaled to end in pure noise loses that last level.

    Raises
    ------
    ValueError
        If there are none.

    Notes
    -----
    They are not computed anew from the betas: some schedulers shift their signal-to-noise ratio afterwards.

    Examples
    --------
    >>> from diffusers import DDPMScheduler
    >>> len(alphas_cumprod_of(DDPMScheduler(num_train_timesteps=100)))
    100
    """
    if isinstance(scheduler, str | Path):
        scheduler = _open_scheduler(Path(scheduler))
    values = getattr(scheduler, "alphas_cumprod", None)
    if values is None:
        given = "no scheduler" if scheduler is None else type(scheduler).__name__
        raise ValueError(
            f"{given} has no alphas_cumprod to tell the noise levels by: give the scheduler that the network was trained with, "
            "such as a DDPMScheduler"
        )
    levels: Tensor = torch.as_tensor(values).double()
    rescaled = getattr(scheduler, "config", {}).get("rescale_betas_zero_snr")  # some keep 2**-24 in place of the last 0
    return levels[:-1] if rescaled else levels[levels > 0]
