"""Real model classes at tiny size, with random weights, saved as their libraries save them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from studio.memory.stream_blocks import empty_module


@dataclass(frozen=True)
class Tiny:
    """A class, its saved weights, and how one denoising (or encoding) step calls it."""

    kind: type[Any]
    folder: Path
    step: Callable[[nn.Module, int], Tensor]

    def resident(self, dtype: torch.dtype) -> nn.Module:
        """As its library loads it, with each tensor in memory of its own.

        A library may leave fp32 weights where they lie in the mapped file, at odd addresses. MKL adds up in another
        order there, and the last bit changes (Intel oneMKL developer guide, "Obtaining
        Numerically Reproducible Results": align to 64 bytes). Ours are always aligned, as torch's own are.
        """
        module: nn.Module = self.kind.from_pretrained(self.folder, dtype=dtype)
        for parameter in module.parameters():
            parameter.data = parameter.data.clone()
        return module.eval()

    def empty(self, dtype: torch.dtype) -> nn.Module:
        """From its config, without weights."""
        if hasattr(self.kind, "load_config"):
            return empty_module(lambda: self.kind.from_config(self.kind.load_config(self.folder)), dtype)
        config = self.kind.config_class.from_pretrained(self.folder)
        return empty_module(lambda: self.kind(config), dtype)

    def run(self, module: nn.Module, steps: int = 3) -> list[Tensor]:
        """What some steps return."""
        with torch.inference_mode():
            return [self.step(module, number) for number in range(steps)]


def framepack_model() -> nn.Module:
    """Two kinds of blocks, two and three of them, and a refiner with blocks of its own."""
    from diffusers import HunyuanVideoFramepackTransformer3DModel

    return HunyuanVideoFramepackTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=4, attention_head_dim=32, num_layers=2, num_single_layers=3,
        num_refiner_layers=1, patch_size=2, patch_size_t=1, guidance_embeds=True, text_embed_dim=32,
        pooled_projection_dim=32, rope_axes_dim=(8, 12, 12), image_condition_type=None, has_image_proj=True,
        image_proj_dim=32, has_clean_x_embedder=True,
    )  # fmt: skip


def framepack_step(module: nn.Module, number: int) -> Tensor:
    """One step: 3 frames of 8 x 8 latents, 6 tokens of text, 19 frames of history."""
    random, dtype = torch.Generator().manual_seed(number), next(module.parameters()).dtype

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random).to(dtype)

    result: Tensor = module(
        hidden_states=noise(1, 4, 3, 8, 8),
        timestep=torch.tensor([999 - number]),
        encoder_hidden_states=noise(1, 6, 32),
        encoder_attention_mask=torch.ones(1, 6, dtype=torch.bool),
        pooled_projections=noise(1, 32),
        image_embeds=noise(1, 5, 32),
        indices_latents=torch.arange(19, 22),
        guidance=torch.tensor([6000.0]).to(dtype),
        latents_clean=noise(1, 4, 1, 8, 8),
        indices_latents_clean=torch.tensor([18]),
        latents_history_2x=noise(1, 4, 2, 8, 8),
        indices_latents_history_2x=torch.arange(16, 18),
        latents_history_4x=noise(1, 4, 16, 8, 8),
        indices_latents_history_4x=torch.arange(16),
    ).sample
    return result


def unet_model(width: int = 16) -> nn.Module:
    """Stages that go down, a middle, stages that go up."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, block_out_channels=(width, 2 * width), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8, attention_head_dim=(2, 4), cross_attention_dim=32, transformer_layers_per_block=2,
    )  # fmt: skip


def unet_step(module: nn.Module, number: int) -> Tensor:
    """One step: 16 x 16 latents, 7 tokens of text."""
    random, dtype = torch.Generator().manual_seed(number), next(module.parameters()).dtype
    latents = torch.randn((1, 4, 16, 16), generator=random).to(dtype)
    text = torch.randn((1, 7, 32), generator=random).to(dtype)
    result: Tensor = module(latents, 999 - number, encoder_hidden_states=text).sample
    return result


def t5_model(width: int = 32) -> nn.Module:
    """An encoder with tied embeddings, whose class keeps a part in fp32 when the rest is fp16."""
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(
            vocab_size=64, d_model=width, d_kv=width // 4, d_ff=2 * width, num_layers=3, num_heads=4,
            feed_forward_proj="gated-gelu", decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
        )
    )  # fmt: skip


def qwen_model() -> nn.Module:
    """A decoder as text encoder, with a computed rotary table."""
    from transformers import Qwen3Config, Qwen3Model

    return Qwen3Model(
        Qwen3Config(
            vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, head_dim=8, max_position_embeddings=64, pad_token_id=0, eos_token_id=2,
            bos_token_id=None,
        )
    )  # fmt: skip


def encoder_step(module: nn.Module, number: int) -> Tensor:
    """Nine tokens."""
    result: Tensor = module(input_ids=(torch.arange(2, 11) + number)[None]).last_hidden_state
    return result


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module, int], Tensor]]] = {
    "framepack": (framepack_model, framepack_step),
    "unet": (unet_model, unet_step),
    "t5": (t5_model, encoder_step),
    "qwen": (qwen_model, encoder_step),
}
KINDS = tuple(MODELS)

WIDE: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module, int], Tensor]]] = {
    "framepack": (framepack_model, framepack_step),
    "unet": (lambda: unet_model(32), unet_step),
    "t5": (lambda: t5_model(128), encoder_step),
}
"""With matrices that are large enough to be quantised."""


def save(name: str, folder: Path, shard_size: str = "5GB", *, wide: bool = False) -> Tiny:
    """Build one of ``MODELS``, or of ``WIDE``, and save it."""
    build, step = (WIDE if wide else MODELS)[name]
    torch.manual_seed(0)
    module: Any = build().eval()
    module.save_pretrained(folder, max_shard_size=shard_size)
    return Tiny(type(module), folder, step)


class Chain(nn.Module):
    """Blocks that run in any order that is asked for; the second ties a weight to the first, the last has a buffer."""

    def __init__(self, count: int = 6, width: int = 64) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width)) for _ in range(count))
        self.blocks[1][0].weight = self.blocks[0][0].weight
        self.register_buffer("computed", torch.arange(width).float(), persistent=False)

    def forward(self, x: Tensor, order: list[int]) -> Tensor:
        for number in order:
            x = torch.tanh(self.blocks[number](x) + self.computed)
        return x


X = torch.linspace(-1, 1, 128).view(2, 64)


def assert_equal(found: list[Tensor], wanted: list[Tensor]) -> None:
    for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
        assert torch.isfinite(other).all()
        assert torch.equal(one, other), f"step {number}: {(one - other).abs().max()}"
