"""A tiny FramePack of the real classes with random weights, as diffusers would save it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from image_parts import clip_text, seeded
from image_tokenizers import WORDS, clip_tokenizer

SIZE = 32
"""Width and height in pixels: 4 latents, 2 tokens on each side."""
TEMPLATE = {"template": "{}", "crop_start": 0}


def llama_tokenizer(length: int = 512) -> Any:
    """Llama's: letters, ``▁`` for a space, a token at the beginning."""
    import string

    from transformers import LlamaTokenizer

    vocabulary = {token: number for number, token in enumerate(("<unk>", "<s>", "</s>", "<pad>", "▁"))}
    merges: list[tuple[str, str]] = []
    for letter in string.printable.strip():
        vocabulary.setdefault(letter, len(vocabulary))
    for word in WORDS:
        grown = "▁"
        for letter in word:
            if (grown, letter) not in merges:
                merges.append((grown, letter))
            grown += letter
            vocabulary.setdefault(grown, len(vocabulary))
    return LlamaTokenizer(
        vocab=vocabulary, merges=merges, pad_token="<pad>", model_max_length=length, padding_side="right"
    )


def framepack() -> Any:
    """The whole pipeline, in fp32."""
    from diffusers import (
        AutoencoderKLHunyuanVideo,
        FlowMatchEulerDiscreteScheduler,
        HunyuanVideoFramepackPipeline,
        HunyuanVideoFramepackTransformer3DModel,
    )
    from transformers import LlamaConfig, LlamaModel, SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

    words, clip_words = llama_tokenizer(), clip_tokenizer()
    llama = LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=48, num_attention_heads=2, num_hidden_layers=4,
        max_position_embeddings=1024, pad_token_id=words.pad_token_id, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    siglip = SiglipVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )
    transformer = seeded(
        HunyuanVideoFramepackTransformer3DModel, in_channels=4, out_channels=4, num_attention_heads=2,
        attention_head_dim=16, num_layers=2, num_single_layers=2, num_refiner_layers=1, patch_size=2, patch_size_t=1,
        guidance_embeds=True, text_embed_dim=32, pooled_projection_dim=32, rope_axes_dim=(4, 6, 6),
        image_condition_type=None, has_image_proj=True, image_proj_dim=32, has_clean_x_embedder=True,
    )  # fmt: skip
    vae = seeded(
        AutoencoderKLHunyuanVideo, latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1,
        norm_num_groups=4, scaling_factor=0.476986, spatial_compression_ratio=8, temporal_compression_ratio=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4, up_block_types=("HunyuanVideoUpBlock3D",) * 4,
    )  # fmt: skip
    return HunyuanVideoFramepackPipeline(
        text_encoder=seeded(LlamaModel, llama), tokenizer=words, transformer=transformer, vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0), text_encoder_2=clip_text(clip_words),
        tokenizer_2=clip_words, image_encoder=seeded(SiglipVisionModel, siglip),
        feature_extractor=SiglipImageProcessor(size={"height": 32, "width": 32}),
    )  # fmt: skip


def write(folder: Path) -> Path:
    """Save it to ``folder`` in 16 bits and return the folder."""
    import torch

    framepack().to(torch.bfloat16).save_pretrained(folder)
    return folder


def catalogue_entry(folder: Path, *, sampling: str = "forward", name: str = "tiny-framepack") -> dict[str, Any]:
    """The entry of a model in ``folder`` for a ``models.yaml``: one role for each sub-folder."""
    parts = sorted(path.name for path in folder.iterdir() if path.is_dir())
    files = {"config": {"path": "model_index.json"}, **{part: {"path": f"{part}/*"} for part in parts}}
    return {
        "id": name,
        "pipeline": "video-framepack",
        "source": {"folder": str(folder), "files": files, "licence": "Apache-2.0"},
        "settings": {
            "sampling": sampling, "size": [SIZE, SIZE], "steps": 2, "guidance": 10, "prompt_template": TEMPLATE,
            "max_sequence_length": 64,
        },
        "card": {"languages": ["en"], "good_at": "Tests.", "limits": "Random weights."},
        "proof": "tiny",
    }  # fmt: skip


SECTION_S = 0.4
"""The seconds of a section of ``write_models``: 3 latents, 12 frames; quicker to make than FramePack's own 36."""


def write_models(home: Path, folder: Path) -> None:
    """A ``models.yaml`` with the model in ``folder`` in both orders: ``tiny-forward`` and ``tiny-inverted``."""
    orders = ("forward", "inverted")
    entries = [catalogue_entry(folder, sampling=sampling, name=f"tiny-{sampling}") for sampling in orders]
    for entry in entries:
        entry["settings"]["window"] = 3
    (home / "models.yaml").write_text(yaml.safe_dump(entries))


def config_of(folder: Path, network: str) -> dict[str, Any]:
    """The configuration of one network in a model's folder."""
    found: dict[str, Any] = json.loads((folder / network / "config.json").read_text())
    return found


def frames(film: Path) -> Any:
    """All frames of a film as numbers, (frames, height, width, rgb)."""
    import numpy as np

    from studio.film.joined import frames_of

    return np.stack(list(frames_of([film]))).astype(int)
