"""A model in one file: what it is, by the names of its tensors, and the catalogue entry to run it by.

Such a file (a checkpoint of Stable Diffusion or SDXL as their authors' code writes it, or only the network that
denoises, as safetensors or GGUF) has no configurations and no tokenizers. Those, and the components that it lacks,
come from an entry of the catalogue of the same architecture, its base. Headers only; the weights are
``single_file_weights``. The signs of each architecture are those of diffusers' ``loaders/single_file_utils.py``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.plugin import BadRequest, BadWeights, ModelSpec

from .catalogued import shape_of
from .lora import Shape, read_header

ROLE = "checkpoint"
"""The role of a single file among a model's files."""

_INSIDE = "model.diffusion_model."
_WIDTH = f"{_INSIDE}input_blocks.{{}}.1.transformer_blocks.0.attn2.to_k.weight"
# The first whose tensor is there; with and without the prefix of what denoises.
_SIGNS = {
    "StableDiffusionXLPipeline": "conditioner.embedders.1.model.token_embedding.weight",
    "StableDiffusionPipeline": "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
    "StableDiffusion3Pipeline": "joint_blocks.0.context_block.adaLN_modulation.1.bias",
    "ChromaPipeline": "distilled_guidance_layer.in_proj.bias",
    "Flux2KleinPipeline": "single_stream_modulation.lin.weight",
    "FluxPipeline": "double_blocks.0.img_attn.norm.key_norm.scale",
    "ZImagePipeline": "layers.0.adaLN_modulation.0.weight",
    "QwenImagePipeline": "transformer_blocks.0.img_mod.1.weight",
}
# Classes over one and the same network.
_SAME = {"QwenImageEditPlusPipeline": "QwenImagePipeline"}
_IMAGE_GGUF = ("flux", "flux2", "sd1", "sdxl", "sd3", "lumina2", "qwen_image", "chroma", "z_image", "zimage")


@dataclass(frozen=True)
class Recognised:
    """A single file: the architecture's class, and the shapes of its tensors."""

    class_name: str
    shapes: Mapping[str, Shape]

    @property
    def text_width(self) -> int | None:
        """The width of the text states that a UNet reads; ``None`` for other architectures."""
        keys = (_WIDTH.format(number) for number in range(1, 12))
        return next((self.shapes[key][1] for key in keys if key in self.shapes), None)


def recognised(path: Path) -> Recognised | None:
    """What a ``.safetensors`` or ``.gguf`` file is; ``None`` for a GGUF of another kind, such as a chat model.

    Raises ``BadWeights`` for a broken file, ``BadRequest`` for one whose architecture is not known here.
    """
    shapes = _gguf_shapes(path) if path.suffix == ".gguf" else read_header(path)[0]
    if shapes is None:
        return None
    for class_name, sign in _SIGNS.items():
        if sign in shapes or _INSIDE + sign in shapes:
            return Recognised(class_name, shapes)
    if any(".lora_" in name or "lora_" in name for name in shapes):
        raise BadRequest(f"{path.name} is an adapter, not a model.", "Put it into the folder loras; add it by --lora.")
    raise BadRequest(
        f"{path.name} is of no architecture that is run from one file.",
        f"Known: {', '.join(name.removesuffix('Pipeline') for name in _SIGNS)}.",
    )


def entry_for(path: Path, known: Mapping[str, ModelSpec]) -> ModelSpec | None:
    """An entry for a file that is run by its path, over the first of ``known`` that has its architecture.

    ``None`` if it is no image model's file. Raises ``BadRequest`` where no entry has its architecture.
    """
    found = recognised(path)
    if found is None:
        return None
    base = next((spec for spec in known.values() if _lends(spec, found)), None)
    if base is None:
        width = f" with text states of width {found.text_width}" if found.text_width else ""
        raise BadRequest(
            f"{path.name} is a {found.class_name.removesuffix('Pipeline')} model{width}; no entry of the catalogue"
            " can lend it configuration and tokenizer.",
            f"Add an entry of the class {found.class_name} to models.yaml in the home folder and pull it.",
        )
    stat = path.stat()
    stamp = hashlib.sha256(f"{path} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:8]
    name = "-".join(re.findall(r"[a-z0-9]+", path.stem.lower())) or "model"
    file = {"path": path.name, "bytes": stat.st_size or None}
    return ModelSpec.model_validate(
        {
            "id": f"local.{name}.{stamp}",
            "pipeline": base.pipeline,
            "base": base.id,
            "source": {"folder": str(path.parent), "files": {ROLE: file}, "licence": "unknown"},
        }
    )


def check_single_file(files: Mapping[str, Path], class_name: str, model: str) -> None:
    """The single file of a model, if it has one, is of its class. Raises ``BadRequest`` or ``BadWeights``."""
    path = files.get(ROLE)
    if path is None:
        return
    found, wanted = recognised(path), _SAME.get(class_name, class_name)
    if found is None or found.class_name != wanted:
        kind = "no image model" if found is None else f"a {found.class_name.removesuffix('Pipeline')} model"
        raise BadRequest(
            f"{path.name} is {kind}; the base of {model} is a {class_name.removesuffix('Pipeline')} model.",
            "Give it another base.",
        )


def _lends(spec: ModelSpec, found: Recognised) -> bool:
    """Whether an entry has the architecture of a file, as far as headers and shapes tell."""
    if spec.base is not None or spec.source is None or ROLE in spec.source.files:
        return False
    if spec.settings.get("class") != found.class_name:
        return False
    name = spec.settings.get("networks", {}).get("unet")
    if found.text_width is None or name is None:
        return True
    return shape_of(str(name)).config.get("cross_attention_dim") == found.text_width


def _gguf_shapes(path: Path) -> dict[str, Shape] | None:
    """Shapes of a GGUF's tensors as torch has them; ``None`` if it says that it is no image model."""
    from gguf import GGUFReader

    if _gguf_architecture(path) not in _IMAGE_GGUF:
        return None
    try:
        tensors: list[Any] = GGUFReader(str(path)).tensors  # mapped; only the header is read
        shapes = {tensor.name: tuple(int(side) for side in reversed(tensor.shape)) for tensor in tensors}
        end = max((int(tensor.data_offset + tensor.n_bytes) for tensor in tensors), default=0)
    except (ValueError, IndexError, KeyError, OSError, OverflowError, MemoryError) as error:
        reason = " ".join(str(error).split())[:120]
        raise BadWeights(f"{path.name} is not a whole GGUF file: {reason}.", "Get the file again.") from error
    if end > path.stat().st_size:
        raise BadWeights(f"{path.name} is cut short: {path.stat().st_size:,} of {end:,} bytes.", "Get the rest of it.")
    return shapes


def _gguf_architecture(path: Path) -> str:
    """``general.architecture``, which GGUF files begin with; "" where it is not found.

    Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
    """
    with path.open("rb") as file:
        head = file.read(1024)
    key = b"general.architecture"
    place = head.find(key)
    if not head.startswith(b"GGUF") or place < 0:
        return ""
    begin = place + len(key) + 4  # the value's type, then its length in 8 bytes
    length = int.from_bytes(head[begin : begin + 8], "little")
    return head[begin + 8 : begin + 8 + min(length, 64)].decode("utf-8", "replace")
