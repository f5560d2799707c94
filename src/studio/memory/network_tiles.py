"""Decoding in tiles: smaller ones where memory is short. The tiling itself is the VAE classes' own."""

from __future__ import annotations

from typing import Any

from torch import nn

SMALLEST_PX = 128


class Tiles:
    """The tile size of a VAE. Does nothing for a network that cannot be tiled."""

    def __init__(self, module: nn.Module) -> None:
        self._module: Any = module
        self.able = callable(getattr(module, "enable_tiling", None)) and hasattr(module, "use_tiling")
        self.size_px: int | None = None
        if callable(slicing := getattr(module, "enable_slicing", None)):
            slicing()  # one picture at a time, which is what a plan counts

    def set(self, size_px: int | None) -> None:
        """Tiles of this many pixels, or none."""
        if not self.able or size_px == self.size_px:
            return
        if size_px is None:
            self._module.disable_tiling()
        else:
            self._module.enable_tiling()
            _resize(self._module, size_px)
        self.size_px = size_px

    def lower(self, *, least: bool) -> str:
        """The next smaller tiles, or the smallest; what was changed in words, nothing if there is none smaller."""
        if not self.able or (self.size_px is not None and self.size_px <= SMALLEST_PX):
            return ""
        smaller = 512 if self.size_px is None else self.size_px // 2
        self.set(SMALLEST_PX if least else max(SMALLEST_PX, smaller))
        return f"tiles of {self.size_px} pixels"


def _resize(vae: Any, size_px: int) -> None:
    """diffusers has two ways to hold the size: one number in samples and latents, or heights, widths and strides."""
    if hasattr(vae, "tile_sample_min_size"):
        ratio = max(1, vae.tile_sample_min_size // max(1, vae.tile_latent_min_size))
        vae.tile_sample_min_size = size_px
        vae.tile_latent_min_size = max(1, size_px // ratio)
    if hasattr(vae, "tile_sample_min_height"):
        stride = size_px * 3 // 4
        # By name: the VAEs of films have numbers of frames between these.
        vae.enable_tiling(
            tile_sample_min_height=size_px,
            tile_sample_min_width=size_px,
            tile_sample_stride_height=stride,
            tile_sample_stride_width=stride,
        )
