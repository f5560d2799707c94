"""What a film takes: its networks, and the stages encode, denoise and decode, by arithmetic and probes.

Text and picture are encoded once; the transformer and the autoencoder then take turns, section after section, so
their ``rounds`` are the sections. What a section takes does not depend on how many there are: frames leave for the
disk as soon as they are settled, and the history is always 19 latents.

Shapes of networks are known before a download (``shapes/``) or read from the model's own files. One block of each kind
and the autoencoder, whole and in tiles, are measured without weights at the request's real size (``probes.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from pathlib import Path

from studio.plugin import (
    MIB,
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

from .catalogued import CACHE_SHARE, SHAPES, VideoSettings, settings_of
from .request import FilmRequest
from .sections import HISTORY, KEPT

TILES = {512: 0.01, 256: 0.03, 128: 0.06}
"""The tiles in which the autoencoder may run, in pixels, and what their seams cost in quality."""
LATENTS_AT_ONCE, LATENTS_APART = 5, 3
"""In time the autoencoder always works in pieces: five latents at once, the next five three latents on (diffusers:
``tile_sample_min_num_frames`` 16 and a stride of 12, in frames)."""
TEMPLATE_TOKENS = 95
"""What HunyuanVideo's own template puts before a prompt."""

NETWORKS = ("text_encoder", "text_encoder_2", "image_encoder", "transformer", "vae")
"""In the order in which they run."""
FP16 = ("text_encoder", "text_encoder_2", "image_encoder", "vae")
"""What the reference computes in fp16 (lllyasviel/FramePack, ``demo_gradio.py``); the transformer it does in bf16."""
WRITER_BYTES = 42 * MIB
"""What the first section leaves in memory besides networks, from the second one's decoding on: PyAV with its encoder
(27 to 28 MiB alone, at 64 to 640 pixels), and what the first decoding brought. Measured with ``starter-video``."""
_PROBES = "studio_pipelines.video_framepack.probes:"


def footprint(spec: ModelSpec, files: Mapping[str, Path] | None, request: FilmRequest) -> Footprint:
    """Networks and stages of a request. Raises ``BadRequest`` where the networks' sizes are not known."""
    settings = settings_of(spec)
    shapes = SHAPES.of(spec, settings.networks, files, NETWORKS)
    stages = (
        *_words(request, settings, shapes),
        _picture(shapes["image_encoder"]),
        _first_frame(request, shapes["vae"]),
        _denoise(request, settings, shapes),
        _decode(request, shapes["vae"]),
    )
    return Footprint(
        networks=tuple(network_of(name, shapes[name], fp16=FP16) for name in NETWORKS),
        stages=stages,
        disk_bytes=spec.download_bytes or sum(2 * shapes[name].params for name in NETWORKS),
    )


# -- encoding, once ----------------------------------------------------------------------------------------------


def _words(request: FilmRequest, settings: VideoSettings, shapes: Mapping[str, NetworkShape]) -> tuple[Stage, Stage]:
    """Each distinct prompt once, padded to the longest that is read."""
    prompts = len({*request.prompts, *([request.negative_prompt] if request.guided else [])})
    template = TEMPLATE_TOKENS if settings.prompt_template is None else settings.prompt_template.crop_start
    lengths = {"text_encoder": settings.max_sequence_length + template, "text_encoder_2": 77}
    first, second = (
        Stage(
            name="encode" if name == "text_encoder" else "encode-2",
            network=name,
            calls=prompts,
            variants=(reading(shapes[name], tokens),),
        )
        for name, tokens in lengths.items()
    )
    return first, second


def _picture(shape: NetworkShape) -> Stage:
    """What the image encoder sees: one picture, scaled to its own size, in patches."""
    return Stage(name="encode-image", network="image_encoder", variants=(reading(shape, _patches(shape)),))


def _patches(shape: NetworkShape) -> int:
    """The tokens of a picture. A SigLIP's defaults are 224 pixels in patches of 16."""
    return (int(shape.config.get("image_size", 224)) // int(shape.config.get("patch_size", 16))) ** 2


def _first_frame(request: FilmRequest, shape: NetworkShape) -> Stage:
    """The autoencoder reads the first frame, and the last one where there is one."""
    width, height = request.width, request.height

    def probe(across: int, down: int, count: int) -> Probe:
        arguments = {"config": shape.config, "width": across, "height": down}
        return Probe(make=_PROBES + "encode", arguments=arguments, count=count)

    return Stage(
        name="encode-frame",
        network="vae",
        calls=1 if request.last_image is None else 2,
        variants=whole_or_tiles(probe, width, height, TILES),
        held_bytes=2 * 3 * width * height * 2,
    )


# -- the sections ------------------------------------------------------------------------------------------------


def tokens_of(request: FilmRequest, factor: int = 8) -> int:
    """What the transformer sees of the film at once: a section, the first frame and the history, which is put into
    fewer tokens the longer ago it is. Latents are joined by 2 × 2, the history's also over time."""
    width, height = request.width // factor, request.height // factor
    _, two, four = HISTORY
    fine = (request.schedule.window + 2) * (width // 2) * (height // 2)
    return fine + _patched(two, width, height, 2) + _patched(four, width, height, 4)


def _patched(latents: int, width: int, height: int, times: int) -> int:
    return ceil(latents / times) * ceil(width / (2 * times)) * ceil(height / (2 * times))


def _denoise(request: FilmRequest, settings: VideoSettings, shapes: Mapping[str, NetworkShape]) -> Stage:
    """Each step is one call of all blocks for each prompt that counts. How many a cache passes over depends on the
    film; taken off is what is known of such films (``CACHE_SHARE``)."""
    shape, seen = shapes["transformer"], tokens_of(request, settings.factor)
    config = shape.config
    words = settings.max_sequence_length + _patches(shapes["image_encoder"])
    probes = tuple(
        Probe(
            make=_PROBES + "block",
            count=int(config.get(number, 1)),
            arguments={"config": config, "kind": kind, "seen": seen, "words": words},
        )
        for kind, number in (("dual", "num_layers"), ("single", "num_single_layers"))
    )
    width = int(config.get("num_attention_heads", 24)) * int(config.get("attention_head_dim", 128))
    latent = request.width * request.height // settings.factor**2 * int(config.get("in_channels", 16))
    prompts = len(set(request.prompts)) + request.guided
    held = 4 * latent * (KEPT + 2 + 8 * request.schedule.window)  # history in fp32, and what a sampler remembers
    held += 2 * prompts * settings.max_sequence_length * int(config.get("text_embed_dim", 4096))
    held += 2 * seen * width  # the embedded film, while the first block makes a new one of it
    held += request.caches * 2 * 2 * seen * width
    return Stage(
        name="denoise",
        network="transformer",
        calls=computed_steps(request) * (2 if request.guided else 1),
        rounds=request.schedule.sections,
        variants=(Variant(probes=probes),),
        held_bytes=held,
    )


def computed_steps(request: FilmRequest) -> int:
    """The steps of a section in which all blocks run; the first and the last one always do."""
    if request.step_cache == "off":
        return request.steps
    return min(request.steps, max(2, ceil(CACHE_SHARE[request.step_cache] * request.steps)))


def _decode(request: FilmRequest, shape: NetworkShape) -> Stage:
    """Two sections' latents to frames, in pieces of time, and each piece whole or in tiles. All pieces are held until
    they are joined; then the frames go to the processor, where they are blended and written to the disk."""
    width, height, schedule = request.width, request.height, request.schedule
    latents = max(schedule.decoded(section) for section in range(schedule.sections))
    pieces = ceil(latents / LATENTS_APART)
    at_once = min(LATENTS_AT_ONCE, latents)

    def probe(across: int, down: int, count: int) -> Probe:
        arguments = {"config": shape.config, "width": across, "height": down, "latents": at_once}
        return Probe(make=_PROBES + "decode", arguments=arguments, count=pieces * count)

    frame = 3 * width * height * 2
    piece = (at_once - 1) * schedule.factor + 1
    frames = (latents - 1) * schedule.factor + 1
    # The pieces, all of them joined, and one piece's tiles (which overlap) before and after they are joined.
    held = frame * (pieces * piece + frames + 4 * piece)
    # On the processor: as decoded and as blended, the frames that wait, before and after, and all in 8 bits.
    ram = frame * (2 * frames + 2 * schedule.overlap) + frame // 2 * (frames + schedule.overlap)
    ram += WRITER_BYTES if schedule.sections > 1 else 0
    return Stage(
        name="decode",
        network="vae",
        rounds=schedule.sections,
        variants=whole_or_tiles(probe, width, height, TILES),
        held_bytes=held,
        ram_bytes=ram,
    )
