"""The networks of the tiny models: diffusers' and transformers' own classes at widths of 16 to 32.

Every weight is drawn here, from a seed of its own: some classes leave parameters as ``torch.empty`` found them, and a
picture would then depend on what was in memory before.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

SIZE = 64
"""Width and height in pixels: the smallest that all classes take (FLUX.2 refuses smaller pictures to edit)."""


def seeded(make: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """``make(...)`` with every parameter drawn anew: norms around 1, biases around 0, matrices by their inputs."""
    import torch

    module = make(*args, **kwargs).eval()
    generator = torch.Generator().manual_seed(zlib.crc32(type(module).__name__.encode()))
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("bias"):
                parameter.copy_(0.1 * noise)
            elif parameter.ndim == 1 or name.endswith("gamma"):
                parameter.copy_(1 + 0.1 * noise)
            else:  # (out, in, ...): inputs of variance 1 give outputs of variance 1
                parameter.copy_(noise * (parameter.shape[0] / parameter.numel()) ** 0.5)
    return module


def clip_text(tokenizer: Any, *, projects: bool = False, width: int = 32) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=2 * width, projection_dim=width,
        num_attention_heads=2, num_hidden_layers=3, max_position_embeddings=77, hidden_act="gelu",
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    return seeded(CLIPTextModelWithProjection if projects else CLIPTextModel, config)


def t5_encoder(tokenizer: Any) -> Any:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, decoder_start_token_id=0,
        feed_forward_proj="gated-gelu", pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return seeded(T5EncoderModel, config)


def qwen3(tokenizer: Any, *, layers: int = 3, head: bool = False) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3Model

    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=layers, head_dim=16,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=4096, tie_word_embeddings=True,
        pad_token_id=0, eos_token_id=2, bos_token_id=None,
    )  # fmt: skip
    return seeded(Qwen3ForCausalLM if head else Qwen3Model, config)


def qwen_vision(tokenizer: Any) -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
        "pad_token_id": 0, "eos_token_id": 2, "bos_token_id": None,
    }  # fmt: skip
    eyes = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32,
        "fullatt_block_indexes": [1],
    }  # fmt: skip
    ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>")
        for name, token in (
            ("image", "image_pad"), ("video", "video_pad"),
            ("vision_start", "vision_start"), ("vision_end", "vision_end"),
        )
    }  # fmt: skip
    config = Qwen2_5_VLConfig(text_config=text, vision_config=eyes, **ids)
    return seeded(Qwen2_5_VLForConditionalGeneration, config)


def gemma2(tokenizer: Any) -> Any:
    from transformers import Gemma2Config, Gemma2Model

    config = Gemma2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, head_dim=16, num_attention_heads=2,
        num_hidden_layers=2, num_key_value_heads=1, max_position_embeddings=4096, attn_implementation="eager",
        pad_token_id=0, eos_token_id=1, bos_token_id=2,
    )  # fmt: skip
    return seeded(Gemma2Model, config)


WIDTHS = (8, 8, 8, 8)
"""Four levels: a factor of 8 between pixels and latents, as in the big models."""


def kl_autoencoder(latent: int = 4, **more: Any) -> Any:
    from diffusers import AutoencoderKL

    return seeded(
        AutoencoderKL, latent_channels=latent, block_out_channels=WIDTHS, norm_num_groups=4, sample_size=SIZE,
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4, **more,
    )  # fmt: skip


def bare_kl(latent: int = 4) -> Any:
    """Without the 1x1 convolutions around the latents, shifted: the form that the flow models use."""
    shape: dict[str, Any] = {"use_quant_conv": False, "use_post_quant_conv": False}
    return kl_autoencoder(latent, scaling_factor=0.8, shift_factor=0.1, **shape)


def flow(**more: Any) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(**more)


def unet(*, context: int, depth: int, linear: bool, **more: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return seeded(
        UNet2DConditionModel, sample_size=SIZE // 8, in_channels=4, out_channels=4, block_out_channels=(16, 32),
        layers_per_block=1, norm_num_groups=8, attention_head_dim=(2, 4), cross_attention_dim=context,
        transformer_layers_per_block=depth, use_linear_projection=linear,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), **more,
    )  # fmt: skip
