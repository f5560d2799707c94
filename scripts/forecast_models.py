"""Image models of real classes and some size with random weights, for measuring forecasts: nothing is downloaded.

``wide-unet``: Stable Diffusion XL's pipeline and configuration at 0.6 of its width (0.9 B parameters in the UNet, its
own autoencoder at full size). ``joint-dit``: Stable Diffusion 3's at 16 blocks of 1,024 (0.6 B), with a T5 encoder.
``full-unet`` and ``full-dit``: the same at the published widths, for a card. Tokenizers are those of the tests' tiny
models.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def write_model(name: str, folder: Path) -> Path:
    """Write the model in 16 bits into ``folder`` as diffusers does, unless it is there already."""
    if not (folder / "model_index.json").is_file():
        import torch

        torch.manual_seed(1)
        MODELS[name]().to(torch.float16).save_pretrained(folder, safe_serialization=True)
    return folder


def entry(name: str, folder: Path) -> dict[str, Any]:
    """The model's entry for a home's models.yaml."""
    parts = sorted(path.name for path in folder.iterdir() if path.is_dir())
    files = {"config": {"path": "model_index.json"}, **{part: {"path": f"{part}/*"} for part in parts}}
    kind = "StableDiffusionXLPipeline" if name.endswith("-unet") else "StableDiffusion3Pipeline"
    side = 1024 if name.startswith("full-") else 256
    settings = {"class": kind, "size": [side, side], "multiple": 16, "steps": 2, "guidance": 5.0, "guided": "cfg"}
    source = {"folder": str(folder), "files": files, "licence": "Apache-2.0"}
    return {"id": name, "pipeline": "image-diffusion", "source": source, "settings": settings}


def _parts() -> Any:
    sys.path.insert(0, str(ROOT / "tests" / "image"))
    import image_parts
    import image_tokenizers

    return image_parts, image_tokenizers


def _clip(tokenizer: Any, width: int, layers: int, *, projects: bool = False) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=49408, hidden_size=width, intermediate_size=4 * width, projection_dim=width,
        num_attention_heads=width // 64, num_hidden_layers=layers, max_position_embeddings=77,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projects else CLIPTextModel)(config)


def _autoencoder(latent: int, **more: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        latent_channels=latent, block_out_channels=(128, 256, 512, 512), layers_per_block=2,
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4, **more,
    )  # fmt: skip


def wide_unet(width: int = 192, first_text: int = 768, second_text: int = 640, layers: int = 16) -> Any:
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    _, tokenizers = _parts()
    first, second = tokenizers.clip_tokenizer(), tokenizers.clip_tokenizer()
    unet = UNet2DConditionModel(
        sample_size=128, block_out_channels=(width, 2 * width, 4 * width), layers_per_block=2,
        attention_head_dim=tuple(times * width // 64 for times in (1, 2, 4)),
        cross_attention_dim=first_text + second_text, transformer_layers_per_block=(1, 2, 10),
        use_linear_projection=True,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), addition_embed_type="text_time",
        addition_time_embed_dim=256, projection_class_embeddings_input_dim=6 * 256 + second_text,
    )  # fmt: skip
    return StableDiffusionXLPipeline(
        vae=_autoencoder(4), tokenizer=first, tokenizer_2=second, text_encoder=_clip(first, first_text, 12),
        text_encoder_2=_clip(second, second_text, layers, projects=True), add_watermarker=False, unet=unet,
        scheduler=EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
    )  # fmt: skip


def joint_dit(layers: int = 16, heads: int = 16, words: int = 1024, text_layers: int = 12, clip: int = 896) -> Any:
    from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
    from transformers import T5Config, T5EncoderModel

    parts, tokenizers = _parts()
    first, second, third = tokenizers.clip_tokenizer(), tokenizers.clip_tokenizer(), tokenizers.t5_tokenizer()
    transformer = SD3Transformer2DModel(
        sample_size=128, in_channels=16, out_channels=16, num_layers=layers, attention_head_dim=64,
        num_attention_heads=heads, joint_attention_dim=words, caption_projection_dim=64 * heads,
        pooled_projection_dim=384 + clip, pos_embed_max_size=192,
        qk_norm="rms_norm",
    )  # fmt: skip
    config = T5Config(
        vocab_size=32128, d_model=words, d_kv=64, d_ff=11 * words // 4, num_layers=text_layers,
        num_heads=words // 64,
        feed_forward_proj="gated-gelu", decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return StableDiffusion3Pipeline(
        transformer=transformer, scheduler=parts.flow(shift=3.0), tokenizer=first, tokenizer_2=second,
        tokenizer_3=third, vae=_autoencoder(16, shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=_clip(first, 384, 12, projects=True), text_encoder_2=_clip(second, clip, 8, projects=True),
        text_encoder_3=T5EncoderModel(config),
    )  # fmt: skip


MODELS: dict[str, Callable[[], Any]] = {
    "wide-unet": wide_unet,
    "joint-dit": joint_dit,
    "full-unet": partial(wide_unet, 320, 768, 1280, 32),
    "full-dit": partial(joint_dit, 24, 24, 4096, 24, 1280),
}
