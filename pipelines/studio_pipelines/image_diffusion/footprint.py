"""What a request for pictures takes: its networks, and the stages encode, denoise and decode, by arithmetic and probes.

The shapes of networks are known before a download (``shapes/``) or read from the model's own files. One block of the
denoiser and the autoencoder, whole and in tiles, are measured without weights at the request's real size
(``probes.py``); text encoders are small against their weights and are reckoned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

from studio.plugin import (
    Footprint,
    ModelSpec,
    NetworkShape,
    Probe,
    Stage,
    Variant,
    network_of,
    reading,
    whole_or_tiles,
)

from .catalogued import SHAPES, ImageSettings, settings_of
from .classes import CLASSES
from .params import ImageParams
from .request import Request, check

TILES = {512: 0.01, 256: 0.03}
"""The tiles in which an autoencoder may run, in pixels, and what their seams cost in quality."""
REFERENCE_PIXELS = 1024 * 1024
"""To what a picture to edit is scaled down by the pipelines that edit."""
TEMPLATE_TOKENS = 64
"""What the chat templates of language models that read prompts add at most."""
SEEN_TOKENS = 256
"""What a text encoder that sees reads of one picture: 384 × 384 pixels in patches of 28."""

_APART = ("QwenImagePipeline", "QwenImageEditPlusPipeline", "ChromaPipeline")
"""Pipelines that run the negative prompt in a call of its own instead of as a second half of the batch."""
_TWICE = ("heun",)
_PROBES = "studio_pipelines.image_diffusion.probes:"


@dataclass(frozen=True)
class Scene:
    """A request in the units of its networks. ``batch`` counts pictures, ``guided``: there is a negative prompt."""

    settings: ImageSettings
    request: Request
    pictures: int
    guided: bool
    calls: int
    text: int = 0
    factor: int = 8

    @property
    def batch(self) -> int:
        """What the denoiser gets in one call."""
        return self.pictures * (2 if self.guided and self.settings.class_name not in _APART else 1)

    @property
    def edits(self) -> bool:
        return self.request.task == "edit"

    def tokens(self, patch: int) -> int:
        """Tokens of the picture, and of the one to edit, in patches of ``patch`` latents a side."""
        side = self.factor * patch
        own = ceil(self.request.width / side) * ceil(self.request.height / side)
        if self.request.task == "inpaint" and self.settings.class_name == "Flux2KleinPipeline":
            return 2 * own  # the picture that is filled in is given as it is, too
        return own + (REFERENCE_PIXELS // side**2 if self.edits else 0)


def footprint(spec: ModelSpec, files: Mapping[str, Path] | None, params: ImageParams) -> Footprint:
    """Networks and stages of a request. Raises ``BadRequest`` for what this model cannot do."""
    settings = settings_of(spec)
    row = CLASSES[settings.class_name]
    shapes = SHAPES.of(spec, settings.networks, files, (row.denoiser, "vae"))
    scene = _scene(params, settings, shapes, spec.id)
    texts = [name for name in shapes if name not in (row.denoiser, "vae")]
    stages = [_encode(number, name, shapes[name], scene) for number, name in enumerate(texts, 1)]
    if scene.request.task != "text":
        stages.append(_autoencode("encode-image", shapes["vae"], scene))
    stages.append(_denoise(row.denoiser, shapes[row.denoiser], scene))
    stages.append(_autoencode("decode", shapes["vae"], scene))
    return Footprint(
        networks=tuple(network_of(name, shape, settings.fp32, settings.fp16) for name, shape in shapes.items()),
        stages=tuple(stages),
        disk_bytes=spec.download_bytes or sum(2 * shape.values for shape in shapes.values()),
    )


def _scene(params: ImageParams, settings: ImageSettings, shapes: Mapping[str, NetworkShape], model: str) -> Scene:
    row = CLASSES[settings.class_name]
    if "text" not in row.tasks and params.image is None:  # a plan without a picture yet: as if there were one
        steps, guidance = settings.steps_of(params.steps, model), settings.guidance_of(params.guidance_scale, model)
        width, height = params.width or settings.size[0], params.height or settings.size[1]
        request = Request(row.tasks[0], width, height, steps, guidance, settings.max_sequence_length)
    else:
        request = check(params, settings, model)
    guided = settings.guided == "cfg" and row.negative and (request.guidance_scale or 0) > 1
    steps = request.steps
    if request.task in ("image", "inpaint"):
        steps = max(1, min(steps, round(steps * params.strength)))
    steps *= 2 if params.scheduler in _TWICE else 1
    scene = Scene(settings, request, params.num_images, guided, steps, factor=_factor(shapes["vae"]))
    calls = steps * (2 if guided and settings.class_name in _APART else 1)
    return replace(scene, calls=calls, text=_text_tokens(scene, row.denoiser, shapes))


def _factor(vae: NetworkShape) -> int:
    """Pixels a latent, on each side."""
    widths = vae.config.get("encoder_block_out_channels") or vae.config.get("block_out_channels") or (0,) * 4
    return 8 if vae.class_name == "AutoencoderKLQwenImage" else 2 ** (len(widths) - 1)


def _channels(vae: NetworkShape) -> int:
    return int(vae.config.get("latent_channels") or vae.config.get("z_dim") or 32)


def _prompt_tokens(name: str, shape: NetworkShape, scene: Scene) -> int:
    """What one text encoder reads of a prompt."""
    clip = shape.tokens or (77 if shape.class_name.startswith("CLIP") else None)
    if clip is not None:
        return min(clip, int(shape.config.get("max_position_embeddings", clip)))
    return scene.request.max_sequence_length or 512


def _text_tokens(scene: Scene, denoiser: str, shapes: Mapping[str, NetworkShape]) -> int:
    """What the denoiser reads of a prompt, by how its pipeline joins several encoders."""
    lengths = [_prompt_tokens(name, shape, scene) for name, shape in shapes.items() if name not in (denoiser, "vae")]
    if scene.settings.class_name == "StableDiffusion3Pipeline":
        return max(lengths[:2], default=77) + (lengths[2] if len(lengths) > 2 else 0)
    longest = max(lengths, default=77)
    if scene.edits and scene.settings.class_name.startswith("QwenImageEdit"):
        longest += SEEN_TOKENS
    return ceil(longest / 32) * 32 if scene.settings.class_name == "ZImagePipeline" else longest


# -- stages ------------------------------------------------------------------------------------------------------


def _encode(number: int, name: str, shape: NetworkShape, scene: Scene) -> Stage:
    tokens = _prompt_tokens(name, shape, scene)
    if not shape.class_name.startswith(("CLIP", "T5")):
        tokens += TEMPLATE_TOKENS + (SEEN_TOKENS if "VL" in shape.class_name and scene.edits else 0)
    return Stage(
        name="encode" if number == 1 else f"encode-{number}",
        network=name,
        calls=2 if scene.guided else 1,
        variants=(reading(shape, tokens),),
    )


def _denoise(name: str, shape: NetworkShape, scene: Scene) -> Stage:
    """Each step is one call of all blocks; latents, the last steps' predictions and the text stay beside it."""
    latents = (scene.request.width // scene.factor) * (scene.request.height // scene.factor)
    words = scene.text * int(shape.config.get("joint_attention_dim") or shape.config.get("cross_attention_dim") or 4096)
    held = scene.batch * (6 * 4 * 32 * latents + 2 * 2 * words)
    variant = Variant(probes=tuple(_ARCHITECTURES[shape.class_name](shape, scene)))
    return Stage(name="denoise", network=name, calls=scene.calls, variants=(variant,), held_bytes=held)


def _autoencode(stage: str, shape: NetworkShape, scene: Scene) -> Stage:
    """The autoencoder reads or makes one picture at a time, whole or in tiles, which are held until they are joined."""
    width, height = scene.request.width, scene.request.height
    if stage == "encode-image" and scene.edits:
        shrink = min(1.0, (REFERENCE_PIXELS / (width * height)) ** 0.5)
        width, height = round(width * shrink), round(height * shrink)
    dtype = "float32" if "vae" in scene.settings.fp32 else "bfloat16"
    probe = _vae_probe("decode" if stage == "decode" else "encode", shape, dtype, scene.pictures)
    item = 4 if dtype == "float32" else 2
    picture = 3 * width * height * item
    latents = _channels(shape) * (width // scene.factor) * (height // scene.factor) * item
    # Tiles with their overlap are 1.8 pictures; then rows are joined, then all: two pictures more.
    held = scene.pictures * (picture + latents) + 4 * picture
    return Stage(name=stage, network="vae", variants=whole_or_tiles(probe, width, height, TILES), held_bytes=held)


def _vae_probe(what: str, shape: NetworkShape, dtype: str, pictures: int) -> Callable[[int, int, int], Probe]:
    """A probe of the autoencoder by width, height and how often for each picture."""

    def probe(width: int, height: int, count: int) -> Probe:
        factor = _factor(shape)
        size = {"width": ceil(width / factor) * factor, "height": ceil(height / factor) * factor}
        arguments = {"config": shape.config, "class_name": shape.class_name, **size, "dtype": dtype}
        return Probe(make=_PROBES + what, arguments=arguments, count=count * pictures)

    return probe


# -- the denoisers, one block of each kind ------------------------------------------------------------------------


def _probe(make: str, count: int, shape: NetworkShape, **arguments: Any) -> Probe:
    return Probe(make=_PROBES + make, count=max(1, count), arguments={"config": shape.config, **arguments})


def _double_single(make: str) -> Callable[[NetworkShape, Scene], list[Probe]]:
    """Transformers of double and single blocks, two latents a side to a token."""

    def probes(shape: NetworkShape, scene: Scene) -> list[Probe]:
        sizes = {"image": scene.tokens(2), "text": scene.text, "batch": scene.batch}
        kinds = (("double", "num_layers"), ("single", "num_single_layers"))
        return [_probe(make, int(shape.config.get(number, 1)), shape, kind=kind, **sizes) for kind, number in kinds]

    return probes


def _sd3(shape: NetworkShape, scene: Scene) -> list[Probe]:
    sizes = {"image": scene.tokens(int(shape.config.get("patch_size", 2))), "text": scene.text, "batch": scene.batch}
    dual = len(shape.config.get("dual_attention_layers") or ())
    plain = int(shape.config.get("num_layers", 1)) - dual
    counts = ((True, dual), (False, plain))
    return [_probe("sd3_block", count, shape, dual=kind, **sizes) for kind, count in counts if count]


def _qwen(shape: NetworkShape, scene: Scene) -> list[Probe]:
    sizes = {"image": scene.tokens(2), "text": scene.text, "batch": scene.batch}
    return [_probe("qwen_block", int(shape.config.get("num_layers", 1)), shape, **sizes)]


def _z_image(shape: NetworkShape, scene: Scene) -> list[Probe]:
    """The refiners, of picture and of text, are blocks of about the same size."""
    sizes = {"image": ceil(scene.tokens(2) / 32) * 32, "text": scene.text, "batch": scene.batch}
    blocks = int(shape.config.get("n_layers", 1)) + int(shape.config.get("n_refiner_layers", 2))
    return [_probe("z_image_block", blocks, shape, **sizes)]


def _sana(shape: NetworkShape, scene: Scene) -> list[Probe]:
    side = scene.factor * int(shape.config.get("patch_size", 1))
    rows, columns = ceil(scene.request.height / side), ceil(scene.request.width / side)
    sizes = {"rows": rows, "columns": columns, "text": scene.text, "batch": scene.batch}
    return [_probe("sana_block", int(shape.config.get("num_layers", 1)), shape, **sizes)]


def _unet(shape: NetworkShape, scene: Scene) -> list[Probe]:
    rows, columns = ceil(scene.request.height / scene.factor), ceil(scene.request.width / scene.factor)
    return [_probe("unet", 1, shape, rows=rows, columns=columns, text=scene.text, batch=scene.batch)]


_ARCHITECTURES: dict[str, Callable[[NetworkShape, Scene], list[Probe]]] = {
    "FluxTransformer2DModel": _double_single("flux_block"),
    "Flux2Transformer2DModel": _double_single("flux2_block"),
    "ChromaTransformer2DModel": _double_single("chroma_block"),
    "SD3Transformer2DModel": _sd3,
    "QwenImageTransformer2DModel": _qwen,
    "ZImageTransformer2DModel": _z_image,
    "SanaTransformer2DModel": _sana,
    "UNet2DConditionModel": _unet,
}
