"""One block or one tile at its real shape, for measuring memory and operations without weights.

Each function returns something to call and its arguments, as ``studio.pipeline.Probe`` wants; it is called in a process
of its own, where tensors have a shape and no content. Shapes are those that the classes' ``forward`` gives its parts
(diffusers 0.42).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Made = tuple[Any, Sequence[Any]]
Config = Mapping[str, Any]


def wan_block(config: Config, seen: int, words: int, batch: int) -> Made:
    """Wan: attention within the film's ``seen`` tokens, then to the ``words``; turns as cosines and sines."""
    import torch
    from diffusers.models.transformers.transformer_wan import WanTransformerBlock

    heads, width = config["num_attention_heads"], config["attention_head_dim"]
    block = WanTransformerBlock(
        heads * width, config["ffn_dim"], heads, config.get("qk_norm", "rms_norm_across_heads"),
        config.get("cross_attn_norm", True), config.get("eps", 1e-6),
    ).to(torch.bfloat16)  # fmt: skip
    size = heads * width
    states = torch.zeros(batch, seen, size, dtype=torch.bfloat16), torch.zeros(batch, words, size, dtype=torch.bfloat16)
    turns = torch.zeros(1, seen, 1, width), torch.zeros(1, seen, 1, width)
    return block, (*states, torch.zeros(batch, 6, size), turns)


def ltx_block(config: Config, seen: int, words: int, batch: int) -> Made:
    """LTX-Video: the same, its words in the width of the film's tokens."""
    import torch
    from diffusers.models.transformers.transformer_ltx import LTXVideoTransformerBlock

    heads, width = config["num_attention_heads"], config["attention_head_dim"]
    block = LTXVideoTransformerBlock(
        heads * width, heads, width, config["cross_attention_dim"], config.get("qk_norm", "rms_norm_across_heads")
    ).to(torch.bfloat16)
    size = heads * width
    states = torch.zeros(batch, seen, size, dtype=torch.bfloat16), torch.zeros(batch, words, size, dtype=torch.bfloat16)
    turns = torch.zeros(batch, seen, size), torch.zeros(batch, seen, size)
    return block, (*states, torch.zeros(batch, 1, 6 * size, dtype=torch.bfloat16), turns)


def decode(config: Config, class_name: str, width: int, height: int, latents: int, dtype: str) -> Made:
    """An autoencoder that makes the frames of so many latents, or one tile of them, of this size in pixels."""
    import torch

    network, channels, factor = _autoencoder(config, class_name, dtype)
    shape = (1, channels, latents, max(1, height // factor), max(1, width // factor))
    return network.decode, (torch.zeros(shape, dtype=getattr(torch, dtype)),)


def encode(config: Config, class_name: str, width: int, height: int, latents: int, dtype: str) -> Made:
    """An autoencoder that reads a first frame, or one tile of it; ``latents`` is one."""
    import torch

    network, _, _ = _autoencoder(config, class_name, dtype)
    return network.encode, (torch.zeros(1, 3, latents, height, width, dtype=getattr(torch, dtype)),)


def _autoencoder(config: Config, class_name: str, dtype: str) -> tuple[Any, int, int]:
    """The network, the channels of its latents, and pixels a latent."""
    import diffusers
    import torch

    made: Any = getattr(diffusers, class_name).from_config(dict(config))
    network: Any = torch.nn.Module.to(made, getattr(torch, dtype))
    channels = network.config.get("latent_channels") or network.config.z_dim
    factor = network.config.get("scale_factor_spatial") or network.spatial_compression_ratio
    return network, channels, int(factor)
