"""Tiny models with random weights, one of each pipeline class of the image family, in diffusers' folder layout.

They are diffusers' own classes with two or more blocks of each kind, so whatever runs them runs what the big models
run. ``MODELS[kind]`` names all of a kind; ``write(kind, folder)`` makes its files; ``load(folder)`` reads them with
nothing but diffusers, for comparison.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from image_parts import (
    SIZE,
    WIDTHS,
    bare_kl,
    clip_text,
    flow,
    gemma2,
    kl_autoencoder,
    qwen3,
    qwen_vision,
    seeded,
    t5_encoder,
    unet,
)  # fmt: skip
from image_tokenizers import clip_tokenizer, gemma_tokenizer, qwen_tokenizer, t5_tokenizer


@dataclass(frozen=True)
class TinyModel:
    """``build`` makes a ``pipeline``; ``call`` are the arguments beside prompt, size and steps that make a picture with
    it. The rest are settings of the catalogue entry, and which part denoises.
    """

    pipeline: str
    build: Callable[[], Any]
    multiple: int = 16
    steps: int = 2
    guidance: float = 0.0
    guided: str = "cfg"
    call: Mapping[str, Any] = field(default_factory=dict)
    denoiser: str = "transformer"


def write(kind: str, folder: Path) -> Path:
    """Build the tiny model of this kind and save it in ``folder`` as ``from_pretrained`` reads it."""
    MODELS[kind].build().save_pretrained(folder, safe_serialization=True)
    if (folder / "processor").is_dir():  # as the published models have it
        index = json.loads((folder / "model_index.json").read_text())
        index["processor"] = ["transformers", "Qwen2VLProcessor"]
        (folder / "model_index.json").write_text(json.dumps(index, indent=2))
    return folder


def load(folder: Path, pipeline: str = "DiffusionPipeline", **options: Any) -> Any:
    """The bare pipeline of the model in ``folder``, or another class of diffusers over the same parts.

    Pictures of a batch are decoded one at a time, by diffusers' own switch, as the engine does to save memory. Two
    things that say nothing about the model change the last bits on a processor, so they are made alike here: torch
    multiplies in another order by a matrix that is to be trained (``should_fold`` in ATen's LinearAlgebra.cpp), and
    by one whose first byte lies askew, as in a mapped safetensors file, than by one in memory of its own.
    """
    import diffusers
    import torch

    if (folder / "processor").is_dir():
        options["processor"] = picture_processor().from_pretrained(folder / "processor")
    pipe = getattr(diffusers, pipeline).from_pretrained(folder, local_files_only=True, **options)
    pipe.set_progress_bar_config(disable=True)
    for part in pipe.components.values():
        if hasattr(part, "enable_slicing"):
            part.enable_slicing()
        if isinstance(part, torch.nn.Module):
            for parameter in part.requires_grad_(False).parameters():
                parameter.data = parameter.data.clone()
    return pipe


def picture_processor() -> Any:
    """Qwen's processor of text and pictures. Its own class also wants one of films, which needs torchvision."""
    from transformers import Qwen2VLProcessor
    from transformers.processing_utils import ProcessorMixin

    class PictureProcessor(Qwen2VLProcessor):  # type: ignore[misc]
        def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None) -> None:
            self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
            ids = tokenizer.convert_tokens_to_ids([self.image_token, self.video_token])
            self.image_token_id, self.video_token_id = ids
            ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    return PictureProcessor


def picture_arguments(kind: str, seed: int = 1, **more: Any) -> dict[str, Any]:
    """The arguments of a small picture for the bare pipeline: a prompt, a seeded generator on CPU, numpy out."""
    import torch

    model = MODELS[kind]
    common = {"prompt": "a red cat on the sea", "width": SIZE, "height": SIZE, "num_inference_steps": model.steps}
    generator = torch.Generator("cpu").manual_seed(seed)
    return {**common, "generator": generator, "output_type": "np", **model.call, **more}


def source_of(folder: Path) -> dict[str, Any]:
    """The ``source`` of a model in diffusers' layout: one role for each sub-folder."""
    parts = sorted(path.name for path in folder.iterdir() if path.is_dir())
    files = {"config": {"path": "model_index.json"}, **{part: {"path": f"{part}/*"} for part in parts}}
    return {"folder": str(folder), "files": files, "licence": "Apache-2.0"}


def catalogue_entry(kind: str, folder: Path) -> dict[str, Any]:
    """The entry of ``models.yaml`` by which Studio runs the model in ``folder``."""
    model = MODELS[kind]
    return {
        "id": f"tiny-{kind}",
        "pipeline": "image-diffusion",
        "source": source_of(folder),
        "settings": {
            "class": model.pipeline, "size": [SIZE, SIZE], "multiple": model.multiple, "steps": model.steps,
            "guidance": model.guidance, "guided": model.guided,
        },
    }  # fmt: skip


def write_lora(kind: str, folder: Path, file: Path, *, rank: int = 4, seed: int = 5) -> Path:
    """A LoRA for the attention of the denoiser of the model in ``folder``, with random weights in both factors."""
    import torch
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    pipe = load(folder)
    denoiser = getattr(pipe, MODELS[kind].denoiser)
    denoiser.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    layers = get_peft_model_state_dict(denoiser)
    generator = torch.Generator().manual_seed(seed)
    layers = {name: torch.randn(value.shape, generator=generator) * 0.3 for name, value in sorted(layers.items())}
    name = "unet_lora_layers" if MODELS[kind].denoiser == "unet" else "transformer_lora_layers"
    type(pipe).save_lora_weights(file.parent, weight_name=file.name, safe_serialization=True, **{name: layers})
    return file


_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def stable_diffusion() -> Any:
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    tokenizer = clip_tokenizer()
    return StableDiffusionPipeline(
        vae=kl_autoencoder(), unet=unet(context=32, depth=1, linear=False), tokenizer=tokenizer,
        text_encoder=clip_text(tokenizer), scheduler=DDIMScheduler(**_BETAS, clip_sample=False),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def stable_diffusion_xl() -> Any:
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    first, second = clip_tokenizer(), clip_tokenizer()
    # 6 sizes (original, crop, target) of 8 numbers each, and the second encoder's pooled text of 32.
    adds = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8}
    return StableDiffusionXLPipeline(
        vae=kl_autoencoder(), tokenizer=first, tokenizer_2=second, text_encoder=clip_text(first),
        text_encoder_2=clip_text(second, projects=True), add_watermarker=False,
        unet=unet(context=64, depth=2, linear=True, projection_class_embeddings_input_dim=6 * 8 + 32, **adds),
        scheduler=EulerDiscreteScheduler(**_BETAS, timestep_spacing="leading"),
    )  # fmt: skip


def stable_diffusion_3() -> Any:
    from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline

    first, second, third = clip_tokenizer(), clip_tokenizer(), t5_tokenizer()
    transformer = seeded(
        SD3Transformer2DModel, sample_size=SIZE // 8, in_channels=16, out_channels=16, num_layers=3,
        attention_head_dim=16, num_attention_heads=2, joint_attention_dim=32, caption_projection_dim=32,
        pooled_projection_dim=32, pos_embed_max_size=16, qk_norm="rms_norm", dual_attention_layers=(0, 1),
    )  # fmt: skip
    return StableDiffusion3Pipeline(
        transformer=transformer, scheduler=flow(shift=3.0), vae=bare_kl(16), tokenizer=first, tokenizer_2=second,
        tokenizer_3=third, text_encoder=clip_text(first, projects=True, width=16),
        text_encoder_2=clip_text(second, projects=True, width=16), text_encoder_3=t5_encoder(third),
    )  # fmt: skip


_JOINT = {
    "num_layers": 2, "num_single_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2,
    "joint_attention_dim": 32,
}  # fmt: skip


def flux() -> Any:
    from diffusers import FluxPipeline, FluxTransformer2DModel

    first, second = clip_tokenizer(), t5_tokenizer()
    # A width of its own, 7 x 16, so that an adapter for it fits no other model, as with the big ones.
    shape = {**_JOINT, "num_attention_heads": 7}
    transformer = seeded(
        FluxTransformer2DModel, **shape, in_channels=16, pooled_projection_dim=32, axes_dims_rope=(4, 6, 6),
        guidance_embeds=False,
    )  # fmt: skip
    return FluxPipeline(
        scheduler=flow(), vae=bare_kl(), tokenizer=first, text_encoder=clip_text(first), tokenizer_2=second,
        text_encoder_2=t5_encoder(second), transformer=transformer,
    )  # fmt: skip


def chroma() -> Any:
    from diffusers import ChromaPipeline, ChromaTransformer2DModel

    tokenizer = t5_tokenizer()
    transformer = seeded(
        ChromaTransformer2DModel, **_JOINT, in_channels=16, axes_dims_rope=(4, 6, 6),
        approximator_num_channels=16, approximator_hidden_dim=32, approximator_layers=2,
    )  # fmt: skip
    # Not a parameter of the class, but in the published configurations, and ChromaInpaintPipeline reads it.
    transformer.register_to_config(guidance_embeds=False)
    return ChromaPipeline(
        scheduler=flow(), vae=bare_kl(), tokenizer=tokenizer, text_encoder=t5_encoder(tokenizer),
        transformer=transformer,
    )  # fmt: skip


def flux2_klein() -> Any:
    import torch
    from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline, Flux2Transformer2DModel

    tokenizer = qwen_tokenizer()
    vae = seeded(
        AutoencoderKLFlux2, latent_channels=4, block_out_channels=WIDTHS, layers_per_block=1, norm_num_groups=4,
        sample_size=SIZE,
    )  # fmt: skip
    vae.bn.running_mean.copy_(torch.linspace(-0.2, 0.2, 16))
    vae.bn.running_var.copy_(torch.linspace(0.5, 1.5, 16))
    # The prompt is what layers 9, 18 and 27 of the text encoder say, side by side.
    transformer = seeded(
        Flux2Transformer2DModel, **{**_JOINT, "joint_attention_dim": 3 * 32}, in_channels=16,
        timestep_guidance_channels=16, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=False,
    )  # fmt: skip
    return Flux2KleinPipeline(
        scheduler=flow(use_dynamic_shifting=True), vae=vae, tokenizer=tokenizer, transformer=transformer,
        text_encoder=qwen3(tokenizer, layers=28, head=True), is_distilled=True,
    )  # fmt: skip


def z_image() -> Any:
    from diffusers import ZImagePipeline, ZImageTransformer2DModel

    tokenizer = qwen_tokenizer()
    transformer = seeded(
        ZImageTransformer2DModel, in_channels=16, dim=32, n_layers=2, n_refiner_layers=2, n_heads=2, n_kv_heads=2,
        cap_feat_dim=32, axes_dims=[8, 4, 4], axes_lens=[1024, 64, 64],
    )  # fmt: skip
    return ZImagePipeline(
        scheduler=flow(shift=3.0), vae=bare_kl(16), tokenizer=tokenizer, text_encoder=qwen3(tokenizer),
        transformer=transformer,
    )  # fmt: skip


def sana_sprint() -> Any:
    from diffusers import AutoencoderDC, SanaSprintPipeline, SanaTransformer2DModel, SCMScheduler

    tokenizer = gemma_tokenizer()
    blocks = ["ResBlock"] * 4 + ["EfficientViTBlock"] * 2  # six levels: a factor of 32
    scales = ((), (), (), (), (5,), (5,))
    vae = seeded(
        AutoencoderDC, latent_channels=8, attention_head_dim=4, encoder_block_types=blocks,
        decoder_block_types=blocks, encoder_block_out_channels=(8,) * 6, decoder_block_out_channels=(8,) * 6,
        encoder_layers_per_block=(1,) * 6, decoder_layers_per_block=(1,) * 6, encoder_qkv_multiscales=scales,
        decoder_qkv_multiscales=scales, scaling_factor=0.8,
    )  # fmt: skip
    transformer = seeded(
        SanaTransformer2DModel, patch_size=1, in_channels=8, out_channels=8, num_layers=2, num_attention_heads=2,
        attention_head_dim=16, num_cross_attention_heads=2, cross_attention_head_dim=16, cross_attention_dim=32,
        caption_channels=32, sample_size=32, qk_norm="rms_norm_across_heads", guidance_embeds=True,
    )  # fmt: skip
    return SanaSprintPipeline(
        tokenizer=tokenizer, text_encoder=gemma2(tokenizer), vae=vae, transformer=transformer,
        scheduler=SCMScheduler(),
    )  # fmt: skip


def _qwen_parts() -> dict[str, Any]:
    from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel

    tokenizer = qwen_tokenizer()
    vae = seeded(
        AutoencoderKLQwenImage, base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
        temperal_downsample=[False, True, True], latents_mean=[0.1] * 4, latents_std=[0.9] * 4,
    )  # fmt: skip
    transformer = seeded(
        QwenImageTransformer2DModel, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=32, guidance_embeds=False, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    return {
        "scheduler": flow(use_dynamic_shifting=True), "vae": vae, "tokenizer": tokenizer, "transformer": transformer,
        "text_encoder": qwen_vision(tokenizer),
    }  # fmt: skip


def qwen_image() -> Any:
    from diffusers import QwenImagePipeline

    return QwenImagePipeline(**_qwen_parts())


def qwen_image_edit() -> Any:
    from diffusers import QwenImageEditPlusPipeline
    from transformers import Qwen2VLImageProcessorPil

    parts = _qwen_parts()
    processor = picture_processor()(Qwen2VLImageProcessorPil(), parts["tokenizer"])
    return QwenImageEditPlusPipeline(**parts, processor=processor)


MODELS: dict[str, TinyModel] = {
    "sd": TinyModel(
        "StableDiffusionPipeline", stable_diffusion, multiple=8, guidance=5.0, call={"guidance_scale": 5.0},
        denoiser="unet",
    ),
    "sdxl": TinyModel(
        "StableDiffusionXLPipeline", stable_diffusion_xl, multiple=8, guidance=5.0, call={"guidance_scale": 5.0},
        denoiser="unet",
    ),
    "sd3": TinyModel(
        "StableDiffusion3Pipeline", stable_diffusion_3, guidance=4.0, call={"guidance_scale": 4.0},
    ),
    "flux": TinyModel(
        "FluxPipeline", flux, guided="none", call={"guidance_scale": 0.0, "max_sequence_length": 64},
    ),
    "flux2-klein": TinyModel(
        "Flux2KleinPipeline", flux2_klein, guidance=1.0, guided="none",
        call={"guidance_scale": 1.0, "max_sequence_length": 64},
    ),
    "chroma": TinyModel(
        "ChromaPipeline", chroma, guidance=3.0, call={"guidance_scale": 3.0, "max_sequence_length": 64},
    ),
    "z-image": TinyModel(
        "ZImagePipeline", z_image, guided="none", call={"guidance_scale": 0.0, "max_sequence_length": 64},
    ),
    "sana-sprint": TinyModel(
        "SanaSprintPipeline", sana_sprint, multiple=32, guidance=4.5, guided="distilled",
        call={"guidance_scale": 4.5, "use_resolution_binning": False},
    ),
    "qwen-image": TinyModel(
        "QwenImagePipeline", qwen_image, guidance=2.0, call={"true_cfg_scale": 2.0, "negative_prompt": " "},
    ),
    "qwen-image-edit": TinyModel(
        "QwenImageEditPlusPipeline", qwen_image_edit, guidance=2.0,
        call={"true_cfg_scale": 2.0, "negative_prompt": " "},
    ),
}  # fmt: skip
