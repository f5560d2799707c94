"""From the files of a FramePack model to its networks under the engine. The classes are diffusers' and transformers'.

The published models lie in three repositories, none of which has a ``model_index.json`` for all of it, so the classes
are named here: those of ``HunyuanVideoFramepackPipeline`` (diffusers 0.42).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from studio.plugin import BadWeights
from studio.torch_plugin import Loaded, Networks, Part, part_of, planned_dtype, planned_tiles

from .catalogued import VideoSettings
from .stepcache import CachingTransformer

NETWORKS = {
    "text_encoder": "transformers.LlamaModel",
    "text_encoder_2": "transformers.CLIPTextModel",
    "image_encoder": "transformers.SiglipVisionModel",
    "vae": "diffusers.AutoencoderKLHunyuanVideo",
}
"""By role; the transformer is ``stepcache.CachingTransformer``."""
OTHERS = ("tokenizer", "tokenizer_2", "feature_extractor", "scheduler")


class Assembled(Loaded[VideoSettings]):
    """A loaded model: its networks under the engine, and what needs no engine (tokenizers, scheduler)."""

    def __init__(self, settings: VideoSettings, networks: Networks, components: Mapping[str, Any]) -> None:
        super().__init__(settings, networks, components)
        self.scheduler = components["scheduler"]
        self.crops_words = networks.device.type == "cuda"
        """Whether prompts are cut to their own length instead of padded and masked, as the reference does: the quickest
        kernels of torch's attention take no mask. On a processor nothing is gained, and the sums are diffusers' own."""

    @property
    def device(self) -> torch.device:
        return self.networks.device

    @property
    def transformer(self) -> Any:
        """A ``CachingTransformer``."""
        return self.networks["transformer"]

    @property
    def vae(self) -> Any:
        return self.networks["vae"]

    @property
    def notes(self) -> list[str]:
        """What the engine had to change for want of memory, in words."""
        return self.networks.notes

    def pipeline(self, *names: str) -> Any:
        """diffusers' pipeline over these components alone, for its methods that encode."""
        from diffusers import HunyuanVideoFramepackPipeline

        roles = (*NETWORKS, "transformer", *OTHERS)
        known = {**self.components, **self.networks}
        return HunyuanVideoFramepackPipeline(**{role: known[role] if role in names else None for role in roles})


def assemble(
    files: Mapping[str, Path],
    settings: VideoSettings,
    plan: Mapping[str, Any],
    device: torch.device,
    *,
    cache: Path | None = None,
) -> Assembled:
    """Read a model as its plan says. Raises ``BadWeights`` for files that do not belong together."""
    missing = [role for role in (*NETWORKS, "transformer", *OTHERS) if role not in files]
    if missing:
        raise BadWeights(f"This model's entry has no files for {', '.join(missing)}.", "Mend its catalogue entry.")
    parts = [_network(role, files[role], dtype_of(role, device, plan)) for role in (*NETWORKS, "transformer")]
    networks = Networks(parts, plan, device, tiles=planned_tiles(plan), cache=cache)
    try:
        made = Assembled(settings, networks, {role: _other(role, files[role]) for role in OTHERS})
        _check(made)
    except BaseException:
        networks.close()
        raise
    return made


def _network(role: str, folder: Path, dtype: torch.dtype) -> Part:
    import importlib

    kind: type[nn.Module] = CachingTransformer
    if role != "transformer":
        library, _, name = NETWORKS[role].partition(".")
        kind = getattr(importlib.import_module(library), name)
    return part_of(role, kind, folder, dtype)


def dtype_of(role: str, device: torch.device, plan: Mapping[str, Any]) -> torch.dtype:
    """As the reference computes: the transformer in bf16, the rest in fp16, on a card that has bf16; all in fp32 on a
    processor, whose 16-bit arithmetic is slow."""
    if (planned := planned_dtype(role, plan)) is not None:
        return planned
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if role == "transformer" else torch.float16


def _other(role: str, folder: Path) -> Any:
    """A tokenizer, image processor or scheduler, of the class that its own configuration names."""
    from diffusers import FlowMatchEulerDiscreteScheduler
    from transformers import AutoTokenizer, CLIPTokenizer, SiglipImageProcessorPil

    kinds: dict[str, Any] = {
        # Padding behind the prompt, which Llama's tokenizer does not do by itself: the template is cut off in front.
        "tokenizer": partial(AutoTokenizer.from_pretrained, trust_remote_code=False, padding_side="right"),
        "tokenizer_2": CLIPTokenizer.from_pretrained,
        # Pillow's, whatever is installed: with torchvision another one would scale the picture to other values.
        "feature_extractor": SiglipImageProcessorPil.from_pretrained,
        "scheduler": FlowMatchEulerDiscreteScheduler.from_pretrained,
    }
    return kinds[role](str(folder), local_files_only=True)


def _check(model: Assembled) -> None:
    """Raises ``BadWeights`` where a network is not of the kind that the rest of this family counts on."""
    vae, transformer = model.vae.config, model.transformer.config
    factor = model.settings.factor
    if vae.spatial_compression_ratio != factor or vae.temporal_compression_ratio != 4:
        what = f"The autoencoder does not make {factor} × {factor} pixels and 4 frames of a latent."
        raise BadWeights(what, "Mend settings.factor of its catalogue entry.")
    if not (transformer.has_clean_x_embedder and transformer.has_image_proj):
        raise BadWeights("The transformer is not FramePack's: it takes no history or no picture.", "Pull it again.")
    if transformer.in_channels != vae.latent_channels:
        raise BadWeights("The transformer and the autoencoder have latents of different sizes.", "Pull it again.")
