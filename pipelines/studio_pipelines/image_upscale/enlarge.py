"""The work: tile by tile through the network, each result reduced to the asked scale and put into its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from studio.plugin import StudioError
from studio.torch_plugin import is_out_of_memory

from .architecture import SCALE
from .pixels import Array, Picture
from .tiles import MARGIN, Tile, grid

SMALLEST = 16
"""A tile that has become smaller than this and still does not fit never will."""


class Enlarger:
    """A network and where it computes. ``splits`` counts the tiles that had to be made smaller."""

    def __init__(self, network: nn.Module, device: str, overlap: int) -> None:
        self.device = torch.device(device)
        self.overlap = overlap
        self.splits = 0
        self._network = network.to(self.device)

    def canvas(self, picture: Picture, scale: int) -> Array:
        """An empty result: (height, width, 3 or 4) in 8 bits."""
        height, width = picture.colours.shape[:2]
        return np.empty((height * scale, width * scale, 3 if picture.alpha is None else 4), np.uint8)

    def enlarge(
        self, picture: Picture, scale: int, size: int, made: Array, check: Callable[[], None]
    ) -> Iterator[tuple[int, int]]:
        """Fill ``made``, which is a ``canvas``; yield (tiles done, tiles in all) after each tile.

        ``check`` is called before each tile and may raise. Transparency goes through the network as a grey picture.
        """
        layers = [picture.colours] if picture.alpha is None else [picture.colours, _grey(picture.alpha)]
        wide = [np.pad(layer, ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), mode="edge") for layer in layers]
        height, width = picture.colours.shape[:2]
        tiles = grid(width, height, size)
        for number, tile in enumerate(tiles, 1):
            check()
            self._place(tile, wide, scale, made, check)
            yield number, len(tiles)

    def close(self) -> None:
        """Give the memory back."""
        self._network.to("meta")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _place(self, tile: Tile, layers: list[Array], scale: int, made: Array, check: Callable[[], None]) -> None:
        """One tile into ``made``; where the memory does not suffice, in quarters. Only this tile becomes smaller."""
        try:
            parts = [self._compute(tile, layer, scale) for layer in layers]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            parts = []
        if parts:
            place = made[tile.top * scale : tile.bottom * scale, tile.left * scale : tile.right * scale]
            place[:, :, :3] = parts[0]
            if len(parts) > 1:
                # The three colours of a grey picture come out nearly, but not exactly, alike.
                place[:, :, 3] = np.rint(parts[1].mean(axis=2))
            return
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if max(tile.width, tile.height) <= SMALLEST:
            raise StudioError(
                f"A tile of {tile.width} × {tile.height} pixels does not fit into the memory that is free.",
                "Close what else uses the memory, then run it again.",
            )
        self.splits += 1
        for quarter in tile.split():
            check()
            self._place(quarter, layers, scale, made, check)

    def _compute(self, tile: Tile, layer: Array, scale: int) -> Array:
        """(height, width, 3) of one tile at ``scale``, in 8 bits."""
        height, width = (side - 2 * MARGIN for side in layer.shape[:2])
        window = tile.widened(self.overlap, width, height, MARGIN)
        cut = layer[window.top + MARGIN : window.bottom + MARGIN, window.left + MARGIN : window.right + MARGIN]
        with torch.inference_mode():
            # (height, width, 3) of bytes -> (1, 3, height, width), 0 to 1
            pixels = torch.from_numpy(np.ascontiguousarray(cut)).to(self.device).permute(2, 0, 1)[None].float() / 255
            large = self._network(pixels)
            left, top = SCALE * (tile.left - window.left), SCALE * (tile.top - window.top)
            large = large[:, :, top : top + SCALE * tile.height, left : left + SCALE * tile.width]
            bytes_ = (_reduced(large, scale).clamp(0, 1) * 255).round().to(torch.uint8)
            found: Array = bytes_[0].permute(1, 2, 0).cpu().numpy()
        return found


def _grey(alpha: Array) -> Array:
    return np.repeat(alpha[:, :, None], 3, axis=2)


def _reduced(large: torch.Tensor, scale: int) -> torch.Tensor:
    """(1, 3, 4h, 4w) -> (1, 3, scale·h, scale·w): means over areas. 4 pixels become ``scale``, so no area crosses the
    border of a pixel of the original, and tiles need nothing from each other."""
    if scale == SCALE:
        return large
    weights = _area(scale, large)
    batch, colours, height, width = large.shape
    cells = large.clamp(0, 1).reshape(batch, colours, height // SCALE, SCALE, width // SCALE, SCALE)
    small = torch.einsum("bchywx,iy,jx->bchiwj", cells, weights, weights)
    return small.reshape(batch, colours, height // SCALE * scale, width // SCALE * scale)


def _area(scale: int, like: torch.Tensor) -> torch.Tensor:
    """(scale, 4): the share that each of 4 pixels has in each of ``scale`` larger ones; rows add up to 1."""
    ratio = SCALE / scale
    rows = [
        [max(0.0, min(x + 1, (row + 1) * ratio) - max(x, row * ratio)) for x in range(SCALE)] for row in range(scale)
    ]
    return torch.tensor(rows, dtype=like.dtype, device=like.device) / ratio
