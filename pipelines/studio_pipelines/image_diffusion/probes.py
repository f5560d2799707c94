"""One block or one tile of each architecture at its real shape, for measuring memory and operations without weights.

Each function returns something to call and its arguments, as ``studio.pipeline.Probe`` wants; it is called in a process
of its own, where tensors have a shape and no content. ``config`` is the network's own configuration as diffusers takes
it. Shapes of tensors are those that the class's ``forward`` gives its blocks (diffusers 0.42).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Made = tuple[Any, Sequence[Any]]
Config = Mapping[str, Any]


def flux_block(config: Config, kind: str, image: int, text: int, batch: int) -> Made:
    """FLUX.1: ``double`` blocks keep picture and text apart, ``single`` ones join them."""
    import torch
    from diffusers.models.transformers import transformer_flux as flux

    heads, width = config["num_attention_heads"], config["attention_head_dim"]
    of = {"double": flux.FluxTransformerBlock, "single": flux.FluxSingleTransformerBlock}[kind]
    block = of(heads * width, heads, width).to(torch.bfloat16)
    return block, (*_streams(batch, image, text, heads * width), _rotary(image + text, width))


def flux2_block(config: Config, kind: str, image: int, text: int, batch: int) -> Made:
    """FLUX.2: modulation is computed once for all blocks and handed to each."""
    import torch
    from diffusers.models.transformers import transformer_flux2 as flux

    heads, width = config["num_attention_heads"], config["attention_head_dim"]
    size, ratio = heads * width, float(config.get("mlp_ratio", 3.0))
    rotary = _rotary(image + text, width)
    if kind == "double":
        block = flux.Flux2TransformerBlock(size, heads, width, ratio).to(torch.bfloat16)
        states = _states(batch, image, size), _states(batch, text, size)
        return block, (*states, _states(batch, 1, 6 * size), _states(batch, 1, 6 * size), rotary)
    single = flux.Flux2SingleTransformerBlock(size, heads, width, ratio).to(torch.bfloat16)
    return single, (_states(batch, image + text, size), None, _states(batch, 1, 3 * size), rotary)


def chroma_block(config: Config, kind: str, image: int, text: int, batch: int) -> Made:
    """Chroma: FLUX.1's blocks, their modulation handed in, with a mask over the padded text."""
    import torch
    from diffusers.models.transformers import transformer_chroma as chroma

    heads, width = config["num_attention_heads"], config["attention_head_dim"]
    size, tokens = heads * width, image + text
    mask = torch.zeros(batch, tokens, dtype=torch.bfloat16)
    rotary = _rotary(tokens, width)
    if kind == "double":
        block = chroma.ChromaTransformerBlock(size, heads, width).to(torch.bfloat16)
        states = _states(batch, image, size), _states(batch, text, size)
        return block, (*states, _states(batch, 12, size), rotary, mask)
    single = chroma.ChromaSingleTransformerBlock(size, heads, width).to(torch.bfloat16)
    return single, (_states(batch, tokens, size), _states(batch, 3, size), rotary, mask)


def sd3_block(config: Config, dual: bool, image: int, text: int, batch: int) -> Made:
    """Stable Diffusion 3: joint attention; ``dual``: the picture attends to itself as well."""
    import torch
    from diffusers.models.attention import JointTransformerBlock

    heads, width = config["num_attention_heads"], config["attention_head_dim"]
    block = JointTransformerBlock(
        heads * width, heads, width, qk_norm=config.get("qk_norm"), use_dual_attention=dual
    ).to(torch.bfloat16)
    return block, _streams(batch, image, text, heads * width)


def qwen_block(config: Config, image: int, text: int, batch: int) -> Made:
    """Qwen-Image: ``image`` counts the tokens of reference pictures too, which some models keep at time 0."""
    import torch
    from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformerBlock

    heads, width = config["num_attention_heads"], config["attention_head_dim"]
    size, apart = heads * width, bool(config.get("zero_cond_t"))
    block = QwenImageTransformerBlock(size, heads, width, zero_cond_t=apart).to(torch.bfloat16)
    rotary = tuple(torch.zeros(count, width // 2, dtype=torch.complex64) for count in (image, text))
    # Such a model modulates each token by the time of its picture: 0 (given) or the step's (made).
    index = torch.zeros(batch, image, dtype=torch.int32) if apart else None
    time = torch.zeros(2 * batch if apart else batch, size, dtype=torch.bfloat16)
    return block, (_states(batch, image, size), _states(batch, text, size), None, time, rotary, None, index)


def z_image_block(config: Config, image: int, text: int, batch: int) -> Made:
    """Z-Image: picture and text are one stream; turns are complex numbers."""
    import torch
    from diffusers.models.transformers.transformer_z_image import ADALN_EMBED_DIM, ZImageTransformerBlock

    size, heads, tokens = config["dim"], config["n_heads"], image + text
    block = ZImageTransformerBlock(0, size, heads, config.get("n_kv_heads", heads), 1e-5, True).to(torch.bfloat16)
    turns = torch.zeros(batch, tokens, size // heads // 2, dtype=torch.complex64)
    time = torch.zeros(batch, min(size, ADALN_EMBED_DIM), dtype=torch.bfloat16)
    mask = torch.zeros(batch, tokens, dtype=torch.bool) if batch > 1 else None
    return block, (_states(batch, tokens, size), mask, turns, time)


def sana_block(config: Config, rows: int, columns: int, text: int, batch: int) -> Made:
    """SANA: linear attention within the picture, usual attention to the text, a convolution instead of an MLP."""
    import torch
    from diffusers.models.transformers.sana_transformer import SanaTransformerBlock

    size = config["num_attention_heads"] * config["attention_head_dim"]
    names = (
        "num_attention_heads", "attention_head_dim", "num_cross_attention_heads", "cross_attention_head_dim",
        "cross_attention_dim", "attention_bias", "norm_elementwise_affine", "mlp_ratio", "qk_norm",
    )  # fmt: skip
    given = {name: config[name] for name in names if name in config}
    block = SanaTransformerBlock(size, **given).to(torch.bfloat16)
    mask = torch.zeros(batch, 1, text, dtype=torch.bfloat16)
    states = _states(batch, rows * columns, size), None, _states(batch, text, size), mask
    return block, (*states, _states(batch, 1, 6 * size)[:, 0], rows, columns)


def unet(config: Config, rows: int, columns: int, text: int, batch: int) -> Made:
    """A whole U-Net: its skip connections are held from one half to the other, so no block tells the whole."""
    import torch
    from diffusers import UNet2DConditionModel
    from torch import nn

    made = UNet2DConditionModel.from_config(dict(config))
    network: Any = nn.Module.to(made, torch.bfloat16)  # its own ``to`` warns of modules to keep; there are none
    latents = torch.zeros(batch, network.config.in_channels, rows, columns, dtype=torch.bfloat16)
    words = torch.zeros(batch, text, network.config.cross_attention_dim, dtype=torch.bfloat16)
    added: dict[str, Any] | None = None
    if network.config.addition_embed_type == "text_time":
        times = 6 * network.config.addition_time_embed_dim
        pooled = network.config.projection_class_embeddings_input_dim - times
        added = {
            "text_embeds": torch.zeros(batch, pooled, dtype=torch.bfloat16),
            "time_ids": torch.zeros(batch, 6, dtype=torch.bfloat16),
        }

    class Step(nn.Module):
        """The step's number made within, since a number that is read cannot be without content."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, latents: torch.Tensor, words: torch.Tensor, added: dict[str, Any] | None) -> Any:
            time = torch.zeros(latents.shape[0], device=latents.device)
            return self.network(latents, time, words, added_cond_kwargs=added, return_dict=False)

    return Step(), (latents, words, added)


def decode(config: Config, class_name: str, width: int, height: int, dtype: str) -> Made:
    """An autoencoder that makes a picture, or one tile of it, of this size in pixels."""
    import torch

    network, channels, factor = _autoencoder(config, class_name, dtype)
    frame = (1,) if class_name == "AutoencoderKLQwenImage" else ()
    latents = torch.zeros(1, channels, *frame, height // factor, width // factor, dtype=getattr(torch, dtype))
    return network.decode, (latents,)


def encode(config: Config, class_name: str, width: int, height: int, dtype: str) -> Made:
    """An autoencoder that reads a picture, or one tile of it, of this size in pixels."""
    import torch

    network, _, _ = _autoencoder(config, class_name, dtype)
    frame = (1,) if class_name == "AutoencoderKLQwenImage" else ()
    return network.encode, (torch.zeros(1, 3, *frame, height, width, dtype=getattr(torch, dtype)),)


def _autoencoder(config: Config, class_name: str, dtype: str) -> tuple[Any, int, int]:
    """The network, the channels of its latents, and pixels a latent."""
    import diffusers
    import torch

    made = getattr(diffusers, class_name).from_config(dict(config))
    network: Any = torch.nn.Module.to(made, getattr(torch, dtype))
    channels = network.config.get("latent_channels") or network.config.z_dim
    if class_name in ("AutoencoderKL", "AutoencoderKLFlux2"):
        return network, channels, 2 ** (len(network.config.block_out_channels) - 1)
    return network, channels, int(network.spatial_compression_ratio)


def _streams(batch: int, image: int, text: int, width: int) -> tuple[Any, Any, Any]:
    """Picture, text and the time's embedding: (batch, tokens, width), the same, (batch, width)."""
    return _states(batch, image, width), _states(batch, text, width), _states(batch, 1, width)[:, 0]


def _states(batch: int, tokens: int, width: int) -> Any:
    import torch

    return torch.zeros(batch, tokens, width, dtype=torch.bfloat16)


def _rotary(tokens: int, width: int) -> tuple[Any, Any]:
    """Cosines and sines of each token's place: (tokens, width) in fp32."""
    import torch

    return torch.zeros(tokens, width), torch.zeros(tokens, width)
