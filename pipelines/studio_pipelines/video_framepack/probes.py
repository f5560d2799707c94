"""One block or one tile at its real shape, for measuring memory and operations without weights.

Each function returns something to call and its arguments, as ``studio.pipeline.Probe`` wants; it is called in a process
of its own, where tensors have a shape and no content. ``config`` is the network's own configuration as diffusers takes
it. Shapes of tensors are those that the classes' ``forward`` gives its parts (diffusers 0.42).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Made = tuple[Any, Sequence[Any]]
Config = Mapping[str, Any]


def block(config: Config, kind: str, seen: int, words: int) -> Made:
    """One block of the transformer: ``dual`` ones keep the film's ``seen`` tokens and the ``words`` (the picture's
    embedding among them) apart, ``single`` ones join them. With the mask that diffusers hands to attention."""
    import torch
    from diffusers.models.transformers import transformer_hunyuan_video as hunyuan

    heads, width = config["num_attention_heads"], config["attention_head_dim"]
    of: Any = {"dual": hunyuan.HunyuanVideoTransformerBlock, "single": hunyuan.HunyuanVideoSingleTransformerBlock}[kind]
    made = of(heads, width, mlp_ratio=config.get("mlp_ratio", 4.0), qk_norm=config.get("qk_norm", "rms_norm"))
    size = heads * width
    states = tuple(torch.zeros(1, *shape, size, dtype=torch.bfloat16) for shape in ((seen,), (words,), ()))
    mask = torch.zeros(1, 1, 1, seen + words, dtype=torch.bool)
    return made.to(torch.bfloat16), (*states, mask, (torch.zeros(seen, width), torch.zeros(seen, width)))


def decode(config: Config, width: int, height: int, latents: int) -> Made:
    """The autoencoder makes the frames of so many latents of one tile, in pixels: what it does at once."""
    import torch

    network = _autoencoder(config)

    class Decodes(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.rest = network.post_quant_conv, network.decoder

        def forward(self, latents: torch.Tensor) -> Any:
            return self.rest(self.first(latents))

    factor, channels = network.spatial_compression_ratio, network.config.latent_channels
    shape = (1, channels, latents, height // factor, width // factor)
    return Decodes(), (torch.zeros(shape, dtype=torch.bfloat16),)


def encode(config: Config, width: int, height: int) -> Made:
    """The autoencoder reads one frame, or one tile of it, in pixels."""
    import torch

    network = _autoencoder(config)
    return network.encode, (torch.zeros(1, 3, 1, height, width, dtype=torch.bfloat16),)


def _autoencoder(config: Config) -> Any:
    import torch
    from diffusers import AutoencoderKLHunyuanVideo

    made: Any = AutoencoderKLHunyuanVideo.from_config(dict(config))
    return torch.nn.Module.to(made, torch.bfloat16)
