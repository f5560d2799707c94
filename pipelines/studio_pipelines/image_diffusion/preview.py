"""The latents of the first picture of a batch as a grid, for the preview (``studio.torch_plugin.Previewer``)."""

from __future__ import annotations

import torch

from .request import Request


def unpacked(latents: torch.Tensor, request: Request) -> torch.Tensor | None:
    """The first picture's latents as (C, h, w). Transformers take 2×2 patches as tokens, (B, h/2·w/2, 4C), in the
    order in which diffusers packs them (``FluxPipeline._pack_latents``)."""
    if latents.ndim == 5:
        latents = latents[:, :, 0]
    if latents.ndim == 4:
        return latents[0].float().cpu()
    if latents.ndim != 3:
        return None
    tokens, depth = latents.shape[1:]
    rows = round((tokens * request.height / request.width) ** 0.5)
    if rows == 0 or tokens % rows or depth % 4:
        return None
    grid = latents[0].float().cpu().reshape(rows, tokens // rows, depth // 4, 2, 2)
    return grid.permute(2, 0, 3, 1, 4).reshape(depth // 4, 2 * rows, 2 * (tokens // rows))
