"""Trusted pickles of EDM networks as safetensors, with their facts."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from gaussian_test.build.networks import FACTS, open_trusted
from gaussian_test.errors import UserError, user_input
from gaussian_test.store.files import atomic_path, write_text


def convert(file: str | Path, sha256: str, output: str | Path | None = None, overwrite: bool = False) -> Path:
    """Open a trusted pickle of an EDM network once, and write its weights as safetensors with an experiment beside them.

    The safetensors file runs no code. Its metadata hold the facts of the network: range of noise levels, classes, shape, class and
    arguments. A run holds the network that it builds against them.

    Parameters
    ----------
    file : path
        A ``.pkl`` of a network with EDM's interface, or of a dict with one under ``ema``. It is opened only if it has this sha256.
    sha256 : str
        The digest that whoever made the file publishes.
    output : path, optional
        The safetensors file. Default: the name of ``file`` with the suffix ``.safetensors``.
    overwrite : bool
        Whether to replace files.

    Returns
    -------
    Path
        The experiment (``.yaml``) beside the weights.

    Raises
    ------
    UserError
        If the file has another digest, cannot be opened, or holds no network with EDM's interface.

    Examples
    --------
    >>> convert("network.pkl", "0" * 64)
    Traceback (most recent call last):
    ...
    gaussian_test.errors.UserError: network.pkl cannot be read (No such file or directory): give the path of a checkpoint
    """
    path = Path(file)
    weights = Path(output) if output is not None else path.with_suffix(".safetensors")
    experiment = weights.with_suffix(".yaml")
    if weights.suffix != ".safetensors":
        raise UserError(f"{weights} does not end in .safetensors: give a name that does")
    for there in (weights, experiment):
        if there.exists() and not overwrite:
            raise UserError(f"{there} exists: give another output, or --overwrite to replace it")
    net, origin = open_trusted(path, {str(path): sha256})
    facts = _facts(net, path)
    # tensors that share memory are written twice
    state = {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in net.state_dict().items()}
    from safetensors.torch import load_file, save_file

    with user_input(), atomic_path(weights) as temporary:
        save_file(state, temporary, {name: str(facts[name]) for name in FACTS} | {"from sha256": origin.sha256})
        back = load_file(temporary)
        if set(back) != set(state) or not all(_same(back[name], value) for name, value in state.items()):
            raise UserError(f"{weights} reads back otherwise than it was written: write it to another disk")
    shape = (facts["img_channels"], facts["img_resolution"], facts["img_resolution"])
    score = {"kind": "edm", "factory": facts["factory"], "arguments": facts["arguments"], "weights": weights.name}
    settings = {"scores": [{"kind": "empirical"}, score, {"kind": "gaussian"}]}
    told = (
        f"# From {path.name} (sha256 {origin.sha256}): samples of shape {shape}, {facts['label_dim']} classes, noise levels "
        f"{facts['sigma_min']:g} to {facts['sigma_max']:g}.\n# The factory builds the network without its weights: name yours if "
        "this is not where you have it. Name your data, and run it in this folder.\n"
    )
    with user_input():
        write_text(experiment, told + yaml.safe_dump(settings, sort_keys=False))
    return experiment


def _facts(net: Any, path: Path) -> dict[str, Any]:
    if missing := [name for name in FACTS if not hasattr(net, name)]:
        raise UserError(
            f"{path} holds a {type(net).__name__}, which lacks {', '.join(missing)} of EDM's interface: give an EDM network"
        )
    if not isinstance(net, nn.Module):
        raise UserError(f"{path} holds a {type(net).__name__}, which has no weights: give a network that is a torch module")
    arguments = getattr(net, "init_kwargs", {})
    try:
        arguments = json.loads(json.dumps(dict(arguments))) if isinstance(arguments, Mapping) else {}
    except (TypeError, ValueError):  # they hold objects
        arguments = {}
    module = "training.networks" if type(net).__module__.startswith("_imported_module") else type(net).__module__  # EDM's own
    numbers = {name: float(getattr(net, name)) for name in ("sigma_min", "sigma_max")}
    counts = {name: int(getattr(net, name) or 0) for name in ("label_dim", "img_channels", "img_resolution")}
    return numbers | counts | {"arguments": arguments, "factory": f"{module}:{type(net).__name__}"}


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a.view(-1).nan_to_num(), b.view(-1).nan_to_num())
