"""What ``bench_memory.py`` measures: FramePack at full and at tiny size, and a model of its size in torch alone."""

from __future__ import annotations

from typing import Any


def framepack_inputs(height: int, width: int, frames: int = 9, small: bool = False) -> dict[str, Any]:
    """FramePack's arguments at latents of (frames, height, width): a window of new frames and packed history."""
    channels, text, words, pooled, image = (4, 32, 6, 32, 32) if small else (16, 4096, 256, 768, 1152)
    latents = [1, channels, frames, height, width]
    return {
        "hidden_states": ["bfloat16", latents], "indices_latents": ["int64", [frames]],
        "timestep": ["int64", [1]], "guidance": ["bfloat16", [1]],
        "encoder_hidden_states": ["bfloat16", [1, words, text]], "encoder_attention_mask": ["bool", [1, words]],
        "pooled_projections": ["bfloat16", [1, pooled]], "image_embeds": ["bfloat16", [1, 729, image]],
        "latents_clean": ["bfloat16", [*latents[:2], 2, *latents[3:]]], "indices_latents_clean": ["int64", [2]],
        "latents_history_2x": ["bfloat16", [*latents[:2], 2, *latents[3:]]],
        "indices_latents_history_2x": ["int64", [2]],
        "latents_history_4x": ["bfloat16", [*latents[:2], 16, *latents[3:]]],
        "indices_latents_history_4x": ["int64", [16]],
    }  # fmt: skip


FRAMEPACK = {"has_image_proj": True, "has_clean_x_embedder": True}
TINY = {
    **FRAMEPACK, "in_channels": 4, "out_channels": 4, "num_attention_heads": 4, "attention_head_dim": 32,
    "num_layers": 4, "num_single_layers": 8, "num_refiner_layers": 1, "text_embed_dim": 32,
    "pooled_projection_dim": 32, "rope_axes_dim": [8, 12, 12], "image_proj_dim": 32,
}  # fmt: skip
SMALL = {**FRAMEPACK, "num_attention_heads": 10, "num_layers": 10, "num_single_layers": 20, "num_refiner_layers": 1}
STACK = {"width": 3072, "heads": 24, "doubles": 20, "singles": 40}
CLASS = "HunyuanVideoFramepackTransformer3DModel"
PRESETS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "framepack": (CLASS, FRAMEPACK, framepack_inputs(68, 88)),
    "framepack-4k": (CLASS, FRAMEPACK, framepack_inputs(34, 44)),
    "framepack-small": (CLASS, SMALL, framepack_inputs(8, 8, frames=3)),
    "tiny": (CLASS, TINY, framepack_inputs(16, 16, frames=3, small=True)),
    "stack": ("stack", STACK, {"x": ["bfloat16", [1, 17500, 3072]]}),
    "stack-tiny": ("stack", {**STACK, "width": 128, "heads": 4, "singles": 8}, {"x": ["bfloat16", [1, 200, 128]]}),
}


def stack(width: int, heads: int, doubles: int, singles: int) -> Any:
    """Two kinds of blocks with the bytes and operations of FramePack's: 36 and 15 times the width squared in weights,
    of which 12 are used by every token and the rest, the modulation, once."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self, modulation: int) -> None:
            super().__init__()
            self.modulation, self.norm = nn.Linear(width, modulation * width), nn.LayerNorm(width)
            self.into, self.out = nn.Linear(width, 7 * width), nn.Linear(5 * width, width)

        def forward(self, x: Any, time: Any) -> Any:
            a, b, c = self.modulation(time).unflatten(-1, (3, -1, width)).mean(-2).unbind(-2)
            *qkv, mlp = self.into(self.norm(x) * (1 + a) + b).split([width, width, width, 4 * width], -1)
            split = [t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in qkv]
            seen = functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
            return x + c * self.out(torch.cat([seen, functional.gelu(mlp, approximate="tanh")], -1))

    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.doubles = nn.ModuleList(Block(24) for _ in range(doubles))
            self.singles = nn.ModuleList(Block(3) for _ in range(singles))

        def forward(self, x: Any) -> Any:
            time = x.mean(1, keepdim=True)
            for block in (*self.doubles, *self.singles):
                x = block(x, time)
            return (x,)

    return Stack()
