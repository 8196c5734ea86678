"""Latents: the space in which U-Turns run, and the way back to pictures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr

from gaussian_test.analysis.moments.moments import event_dims
from gaussian_test.build.factories import call_factory
from gaussian_test.errors import UserError
from gaussian_test.experiment.processes import Space as SpaceSettings

BATCH = 64  # samples encoded or decoded at once


@dataclass(frozen=True)
class Space:
    """The latents of an experiment."""

    name: str
    device: torch.device
    to_latents: Callable[[torch.Tensor], Any]
    to_pictures: Callable[[torch.Tensor], Any]

    def encoded(self, truth: xr.Dataset) -> xr.Dataset:
        """Return a data set whose samples are latents.

        Raises UserError if an encoder draws at random, or decoding does not give the shape of the samples back.
        """
        x = truth["x"]
        few = torch.from_numpy(np.array(x[:2].values, dtype=np.float32))
        first = self._mapped(self.to_latents, few, "encode")
        if not torch.equal(first, self._mapped(self.to_latents, few, "encode")):
            raise UserError("space.encode gives other latents each time: return the mean (or mode) of its distribution, not a draw")
        if first.ndim not in (2, 4):
            raise UserError(
                f"space.encode gave latents of shape {tuple(first.shape)}: give (batch, feature) or (batch, channel, row, column)"
            )
        if (back := self.decoded(first)).shape != few.shape:
            raise UserError(f"space.decode gave {tuple(back.shape)} for samples of shape {tuple(few.shape)}: give these back")
        parts = [
            self._mapped(self.to_latents, torch.from_numpy(np.array(x[k : k + BATCH].values, dtype=np.float32)), "encode")
            for k in range(0, len(x), BATCH)
        ]
        latents = torch.cat(parts).numpy()
        attrs = {"long_name": "latents of the samples"}
        return truth.drop_vars("x").assign(x=(("sample", *event_dims(latents.ndim - 1)), latents, attrs))

    def decoded(self, latents: torch.Tensor) -> torch.Tensor:
        """Return pictures of latents, float32 on the CPU, shape (..., ``*picture``) for latents (..., ``*event``)."""
        return torch.cat([self._mapped(self.to_pictures, part, "decode") for part in latents.split(BATCH)])  # type: ignore[no-untyped-call]

    def _mapped(self, function: Callable[[torch.Tensor], Any], x: torch.Tensor, what: str) -> torch.Tensor:
        try:
            with torch.inference_mode():
                made = function(x.to(self.device, torch.float32))
        except Exception as error:  # user code may raise anything
            reason = " ".join(str(error).split())[:160]
            raise UserError(
                f"space.{what} fails on a batch of shape {tuple(x.shape)} ({type(error).__name__}: {reason}): fix it"
            ) from error
        if not isinstance(made, torch.Tensor) or len(made) != len(x) or not bool(torch.isfinite(made).all()):
            given = f"{tuple(made.shape)} with NaN or of another length" if isinstance(made, torch.Tensor) else type(made).__name__
            raise UserError(
                f"space.{what} gave {given} for a batch of shape {tuple(x.shape)}: return one finite tensor with its rows"
            )
        return made.float().cpu().clone()


def build_space(settings: SpaceSettings | None, device: torch.device) -> Space | None:
    """Return the latents of an experiment, or None.

    Raises UserError if a factory fails, or gives nothing to call.
    """
    if settings is None:
        return None
    maps = []
    for what, factory in (("encode", settings.encode), ("decode", settings.decode)):
        made = call_factory(factory, settings.arguments)
        if not callable(made):
            raise UserError(f"space.{what}: {factory} gave a {type(made).__name__}: give a function of a batch or a torch module")
        maps.append(made.to(device).eval() if isinstance(made, torch.nn.Module) else made)
    return Space(f"latents by {settings.encode}", device, *maps)


def kl_encoder(path: str) -> torch.nn.Module:
    """Return the encoder of a folder with diffusers' ``AutoencoderKL``: its mode, shifted and scaled as networks are trained."""
    return _Autoencoder(path, True)


def kl_decoder(path: str) -> torch.nn.Module:
    """Return the decoder of a folder with diffusers' ``AutoencoderKL``."""
    return _Autoencoder(path, False)


class _Autoencoder(torch.nn.Module):
    def __init__(self, path: str, encodes: bool) -> None:
        super().__init__()
        try:
            from diffusers import AutoencoderKL
        except ImportError as error:
            raise UserError(f"{path} needs the library diffusers: install gaussian-test[diffusers]") from error
        options: Mapping[str, Any] = {"use_safetensors": True, "local_files_only": True, "low_cpu_mem_usage": False}
        load: Any = AutoencoderKL.from_pretrained
        self.vae, self.encodes = load(path, **options), encodes
        config = self.vae.config
        self.scale, self.shift = float(config.scaling_factor or 1), float(getattr(config, "shift_factor", None) or 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.encodes:
            latents: torch.Tensor = (self.vae.encode(x).latent_dist.mode() - self.shift) * self.scale
            return latents
        pictures: torch.Tensor = self.vae.decode(x / self.scale + self.shift).sample
        return pictures
