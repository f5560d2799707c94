"""Tiny film models with random weights in diffusers' folder layout: diffusers' own classes with two blocks or more."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "image"))

from image_models import source_of
from image_parts import flow, seeded, t5_encoder
from image_tokenizers import t5_tokenizer

WIDTH, HEIGHT, PROMPT, SEED = 64, 64, "a red cat on the sea", 11


@dataclass(frozen=True)
class TinyFilm:
    """``build`` makes a ``pipeline``; ``frames`` is the length of its films in the tests."""

    pipeline: str
    build: Callable[[], Any]
    frames: int
    call: Mapping[str, Any] = field(default_factory=dict)


def wan() -> Any:
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    tokenizer = t5_tokenizer()
    config = UMT5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2,
        feed_forward_proj="gated-gelu", pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
    )  # fmt: skip
    vae = seeded(
        AutoencoderKLWan, base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
        temperal_downsample=[False, True, True], latents_mean=[0.1] * 4, latents_std=[0.9] * 4,
    )  # fmt: skip
    transformer = seeded(
        WanTransformer3DModel, num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4,
        text_dim=32, freq_dim=16, ffn_dim=48, num_layers=3, cross_attn_norm=True, rope_max_seq_len=64,
    )  # fmt: skip
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=3.0
    )
    return WanPipeline(
        tokenizer=tokenizer, text_encoder=seeded(UMT5EncoderModel, config), vae=vae, scheduler=scheduler,
        transformer=transformer,
    )  # fmt: skip


def ltx() -> Any:
    from diffusers import AutoencoderKLLTXVideo, LTXPipeline, LTXVideoTransformer3DModel

    tokenizer = t5_tokenizer()
    vae = seeded(
        AutoencoderKLLTXVideo, latent_channels=8, block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8), layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1), patch_size=4, patch_size_t=1,
    )  # fmt: skip
    transformer = seeded(
        LTXVideoTransformer3DModel, in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=16,
        cross_attention_dim=32, num_layers=3, caption_channels=32,
    )  # fmt: skip
    return LTXPipeline(
        scheduler=flow(use_dynamic_shifting=True), vae=vae, tokenizer=tokenizer, text_encoder=t5_encoder(tokenizer),
        transformer=transformer,
    )  # fmt: skip


MODELS = {
    "wan": TinyFilm("WanPipeline", wan, frames=9, call={"guidance_scale": 4.0}),
    "ltx": TinyFilm("LTXPipeline", ltx, frames=9, call={"guidance_scale": 3.0, "frame_rate": 8}),
}


def write(kind: str, folder: Path) -> Path:
    """Build the tiny model of this kind and save it as ``from_pretrained`` reads it."""
    MODELS[kind].build().save_pretrained(folder, safe_serialization=True)
    return folder


def entry(kind: str, folder: Path) -> dict[str, Any]:
    """The entry of ``models.yaml`` by which Studio runs the model in ``folder``."""
    model = MODELS[kind]
    return {
        "id": f"tiny-{kind}",
        "pipeline": "video-diffusion",
        "source": source_of(folder),
        "settings": {
            "class": model.pipeline, "size": [WIDTH, HEIGHT], "frames": model.frames, "max_frames": 33, "fps": 8,
            "steps": 3, "guidance": model.call["guidance_scale"], "max_sequence_length": 32,
        },
    }  # fmt: skip
