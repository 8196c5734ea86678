"""Networks from files and factories, by level of trust.

Files that cannot run code are opened: safetensors, and files that torch loads with ``weights_only``. Factories run because the user
named them. Files that can run code (pickles, TorchScript, ``.pt2``) raise an error unless the user trusts the file by its sha256.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import pickle
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gaussian_test import sampler
from gaussian_test.build.factories import call_factory, current_folder
from gaussian_test.errors import UserError
from gaussian_test.experiment import scores
from gaussian_test.machine import regular
from gaussian_test.sampler.networks.edm_denoiser import EDMDenoiser
from gaussian_test.sampler.networks.residual_denoiser import ResidualDenoiser
from gaussian_test.sampler.networks.unet_denoiser import UNetDenoiser
from gaussian_test.store.files import file_digest

EMBEDDED: dict[tuple[int, ...], str] = {(1, 8, 8): "digits", (1, 28, 28): "fashion"}  # shipped networks by the shape of a sample
DENOISERS: dict[str, type[EDMDenoiser]] = {one.__name__: one for one in (ResidualDenoiser, UNetDenoiser)}
WEIGHTS_ONLY = (".pt", ".pth", ".bin", ".ckpt")
FACTS = ("sigma_min", "sigma_max", "label_dim", "img_channels", "img_resolution")  # of EDM's interface, kept with its weights
RUNS_CODE = (".pkl", ".pickle", ".pt2", ".ts", ".torchscript", *WEIGHTS_ONLY)


@dataclass(frozen=True)
class Origin:
    """The origin of a score."""

    level: str  # level of trust that it needed
    sha256: str = ""  # digest of the file; empty if there is none


COMPUTED = Origin("computed from the samples")
GIVEN = Origin("given in python")
CODE = "code named by the user"
SHIPPED = "shipped with gaussian_test, safetensors"
TRUSTED = "trusted file that runs code"


@dataclass(frozen=True)
class Opening:
    """Context for opening a network: sample shape, process, trusted files and training process."""

    event_shape: tuple[int, ...]
    process: sampler.Process
    trust: Mapping[str, str]
    trained: Callable[[], sampler.Process | None] = lambda: None


def open_network(settings: scores.AnyNetwork, opening: Opening) -> tuple[sampler.Score, Origin]:
    """Build a network score of any kind with ``NetworkScore.from_<kind>``, and return it with its origin.

    Settings are passed to the constructor's parameters of the same name.

    Raises UserError if it cannot be opened, is not trusted, or is not of its kind.
    """
    made: Any
    if isinstance(settings, scores.Network):
        constructor = sampler.NetworkScore.from_edm
        made, origin = _trained_here(settings.path, opening.event_shape)
    else:
        constructor = getattr(sampler.NetworkScore, f"from_{settings.kind}")
        if isinstance(settings, scores.Diffusers):
            made, origin = settings.path, Origin("safetensors", _folder_digest(Path(settings.path)))
        else:
            made, origin = _made(settings, opening.trust)
    if isinstance(settings, scores.Callable):
        if isinstance(made, sampler.Score):
            return _whole(made, settings), origin
        if not callable(made):
            raise UserError(
                f"{settings.factory or settings.path} gave a {type(made).__name__}, which cannot be called as (x, t, label)"
            )
    told = settings.model_dump() | {"event_shape": opening.event_shape, "process": opening.process}
    told |= {"trained": opening.trained()} if "trained" in told else {}
    options = {name: told[name] for name in sampler.NetworkOptions.__annotations__}
    options |= {"micro_batch": None} if options["micro_batch"] == "auto" else {}
    facts = {name: told[name] for name in inspect.signature(constructor).parameters if name in told}
    return constructor(made, **facts, **options), origin


def _whole(score: sampler.Score, settings: scores.Callable) -> sampler.Score:
    """Return a complete score, after checking that no network settings are given for it."""
    ours = {"kind", "name", "conditional", "factory", "arguments", "weights", "weights_key", "path"}
    if beside := sorted(settings.model_dump(exclude_defaults=True, exclude=ours)):
        raise UserError(
            f"{settings.factory or settings.path} gave a whole score, which {', '.join(beside)} cannot change: drop them"
        )
    return score


def _trained_here(path: str | None, shape: tuple[int, ...]) -> tuple[EDMDenoiser, Origin]:
    """Load a network written by data/train_network.py; by default the shipped one for samples of a shape."""
    from safetensors import SafetensorError, safe_open

    if path is None and shape not in EMBEDDED:
        known = " and ".join(f"{name} {of}" for of, name in EMBEDDED.items())
        raise UserError(f"no network is shipped for samples of shape {shape}, only for those of {known}: give a path")
    file = Path(str(files("gaussian_test.data") / f"{EMBEDDED.get(shape)}_network.safetensors")) if path is None else Path(path)
    state, digest = read_weights(file, {})[::2]
    try:
        with safe_open(file, "pt") as opened:
            config = json.loads(opened.metadata()["config"])
        net = DENOISERS[config["network"].rpartition(".")[2]](**config["arguments"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{file} does not say how its network is built ({type(error).__name__}: {error}): give a file that "
            "gaussian_test.data.train_network has written"
        ) from error
    _load(net, state, file)
    return net, Origin(SHIPPED if path is None else "safetensors", digest)


def _made(settings: scores.EDM | scores.Azula | scores.Callable, trust: Mapping[str, str]) -> tuple[Any, Origin]:
    """Return the object from a factory, with weights loaded, or from a trusted file."""
    path = getattr(settings, "path", None)
    if path is not None:
        return open_trusted(Path(path), trust)
    assert settings.factory is not None
    made = call_factory(settings.factory, settings.arguments)
    if settings.weights is None:
        return made, Origin(CODE)
    if not isinstance(made, nn.Module):
        raise UserError(f"{settings.factory} gave a {type(made).__name__}, which has no weights to load: drop 'weights'")
    file = Path(settings.weights)
    state, level, digest = read_weights(file, trust, settings.weights_key)
    _load(made, state, file)
    if isinstance(settings, scores.EDM) and file.suffix == ".safetensors":
        _hold_against_facts(made, settings.factory, file)
    return made, Origin(f"{CODE}; {level}", digest)


def _hold_against_facts(made: nn.Module, factory: str, file: Path) -> None:
    """Complete a network by the facts that were converted with its weights; raise if it has others."""
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        facts = {name: float(value) for name, value in (opened.metadata() or {}).items() if name in FACTS}
    for name, value in facts.items():
        if not hasattr(made, name):
            setattr(made, name, value if name.startswith("sigma") else int(value))
        elif float(getattr(made, name) or 0) != value:
            raise UserError(
                f"{factory} builds a network with {name} = {getattr(made, name)}, and that of {file} has {value:g}: give the "
                "arguments that stand beside the weights"
            )


def read_weights(path: Path, trust: Mapping[str, str], key: str | None = None) -> tuple[dict[str, torch.Tensor], str, str]:
    """Return named tensors from a file, the level of trust needed, and the file's sha256.

    Raises UserError if the file is missing or damaged, would run code, or does not hold named tensors.
    """
    content, digest = _content(path)
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            state: Any = load(content)
        except SafetensorError as error:
            raise UserError(f"{path} is damaged ({_line(error)}): get it again") from error
        level = "safetensors"
    elif path.suffix in WEIGHTS_ONLY:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about formats that are rejected below
                state, level = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True), "weights_only"
        except Exception as error:  # damaged files may raise anything
            if not _is_trusted(path, digest, trust):
                raise UserError(_refusal(path, f"torch does not load it as weights only: {_line(error)[:160]}")) from error
            state, level = _unpickled(path, content), TRUSTED
    else:
        raise UserError(_refusal(path, f"a file ending in {path.suffix!r} is not known as one of weights"))
    if key is not None:
        if not isinstance(state, Mapping) or key not in state:
            raise UserError(f"{path} has no {key!r} ({_names(state)}): give another weights_key")
        state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(n, str) and isinstance(v, torch.Tensor) for n, v in state.items()):
        raise UserError(f"{path} holds more than named tensors ({_names(state)}): say with weights_key under which name they are")
    return dict(state), level, digest


def open_trusted(path: Path, trust: Mapping[str, str]) -> tuple[Any, Origin]:
    """Open a file that can run code, if the user trusts it.

    Raises UserError if the file is missing, not trusted, or cannot be opened.
    """
    content, digest = _content(path)
    if path.suffix == ".safetensors":
        raise UserError(f"{path} holds weights, not what builds the network: give it as weights, beside a factory, instead of path")
    if path.suffix not in RUNS_CODE:
        raise UserError(f"{path} ends in {path.suffix!r}: expected one of {', '.join(RUNS_CODE)}; or give a factory and weights")
    if not _is_trusted(path, digest, trust):
        raise UserError(_refusal(path, "opening it runs whatever code is in it"))
    held = _unpickled(path, content)
    if isinstance(held, Mapping) and "ema" in held:
        held = held["ema"]
    return held, Origin(TRUSTED, digest)


def _unpickled(path: Path, content: bytes) -> Any:
    """Open trusted content."""
    file = io.BytesIO(content)  # the bytes whose digest was verified
    try:
        with current_folder():
            if path.suffix in (".pkl", ".pickle"):
                return pickle.load(file)
            if path.suffix == ".pt2":
                return _Exported(torch.export.load(file).module())
            if path.suffix in (".ts", ".torchscript"):
                return torch.jit.load(file, map_location="cpu")  # type: ignore[no-untyped-call]
            return torch.load(file, map_location="cpu", weights_only=False)
    except Exception as error:  # the file runs code, which may raise anything
        raise UserError(
            f"{path} cannot be opened ({type(error).__name__}: {_line(error)[:200]}): the code that it was made with must be "
            "installed or in the current folder"
        ) from error


class _Exported(nn.Module):
    """Wrapper of an exported program, whose mode is fixed, so that ``train`` does not raise."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program

    def train(self, mode: bool = True) -> _Exported:
        self.training = mode
        return self

    def forward(self, x: torch.Tensor, t: torch.Tensor, label: torch.Tensor | None) -> Any:
        return self.program(x, t) if label is None else self.program(x, t, label)


def _content(path: Path) -> tuple[bytes, str]:
    try:
        content = regular(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give the path of a checkpoint") from error
    return content, hashlib.sha256(content).hexdigest()


def _is_trusted(path: Path, digest: str, trust: Mapping[str, str]) -> bool:
    """Return whether the user trusts a file; raise for a wrong digest in any case."""
    for name, promised in trust.items():
        if Path(name).resolve() == path.resolve():
            if promised.lower() != digest:
                raise UserError(
                    f"{path} has the sha256 {digest}, not the {promised} that is trusted: it is another file, or was changed"
                )
            return True
    return False


def _refusal(path: Path, why: str) -> str:
    return (
        f"{path} is not opened: {why}; give the weights as safetensors (or saved as a state_dict) with a factory that builds the "
        f"network, or, if you trust whoever made the file, add --trust {path} SHA256 with the sha256 that they publish"
    )


def _load(module: nn.Module, state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Load weights, requiring an exact match of names."""
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{path} does not fit the network ({_line(error)[:300]}): give the weights of this very network") from error


def _folder_digest(folder: Path) -> str:
    """Return the sha256 over the digests of all safetensors files in a folder, ordered by name."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(f"{path.relative_to(folder)} {file_digest(path)}\n".encode())
    return digest.hexdigest()


def _names(state: Any) -> str:
    return "it holds " + (", ".join(map(repr, list(state)[:6])) if isinstance(state, Mapping) else type(state).__name__)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
