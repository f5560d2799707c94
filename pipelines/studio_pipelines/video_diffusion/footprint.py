"""What a film takes: its networks, and the stages encode, denoise and decode, by arithmetic and probes.

Shapes of networks are known before a download (``shapes/``) or read from the model's own files. One block of the
transformer and the autoencoder, whole and in tiles, are measured without weights at the request's real size
(``probes.py``); the text encoder is small against its weights and is reckoned.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from pathlib import Path

from studio.plugin import (
    BadRequest,
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

from .catalogued import SHAPES, FilmSettings, settings_of
from .request import Request

NETWORKS = ("text_encoder", "transformer", "vae")
"""In the order in which they run."""
TILES = {512: 0.01, 256: 0.03, 128: 0.06}
"""The tiles in which the autoencoder may run, in pixels, and what their seams cost in quality."""
_AT_ONCE = {"AutoencoderKLWan": 2}
"""How many latents an autoencoder makes into frames at once, in time; the first and one more stand for all. The others
make all of them at once."""
_PROBES = "studio_pipelines.video_diffusion.probes:"
_BLOCKS = {"WanTransformer3DModel": "wan_block", "LTXVideoTransformer3DModel": "ltx_block"}


def footprint(spec: ModelSpec, files: Mapping[str, Path] | None, request: Request) -> Footprint:
    """Networks and stages of a request. Raises ``BadRequest`` where the networks' sizes are not known."""
    settings = settings_of(spec)
    shapes = SHAPES.of(spec, settings.networks, files, NETWORKS)
    words, transformer, vae = (shapes[name] for name in NETWORKS)
    read, twice = reading(words, request.max_sequence_length), 2 if request.guided else 1
    stages = [Stage(name="encode", network="text_encoder", calls=twice, variants=(read,))]
    if request.task == "image":
        stages.append(_autoencode("encode-image", vae, settings, request))
    stages += [_denoise(transformer, settings, request), _autoencode("decode", vae, settings, request)]
    return Footprint(
        networks=tuple(network_of(name, shapes[name], settings.fp32, settings.fp16) for name in NETWORKS),
        stages=tuple(stages),
        disk_bytes=spec.download_bytes or sum(2 * shapes[name].params for name in NETWORKS),
    )


def _latents(settings: FilmSettings, request: Request) -> tuple[int, int, int]:
    """Of the film: in time, down and across."""
    row = settings.row
    return (request.frames - 1) // row.frames + 1, request.height // row.factor, request.width // row.factor


def _denoise(shape: NetworkShape, settings: FilmSettings, request: Request) -> Stage:
    """Each step is one call of all blocks, two for guidance; latents, the last predictions and words stay beside it."""
    row, (count, down, across) = settings.row, _latents(settings, request)
    batch = 2 if row.together and request.guided else 1
    tokens = count * ceil(down / row.patch) * ceil(across / row.patch)
    if shape.class_name not in _BLOCKS:
        raise BadRequest(f"Films by a {shape.class_name} are not known here.", f"Known: {', '.join(_BLOCKS)}.")
    arguments = {"config": shape.config, "seen": tokens, "words": request.max_sequence_length, "batch": batch}
    probe = Probe(
        make=_PROBES + _BLOCKS[shape.class_name],
        arguments=arguments,
        count=max(1, int(shape.config.get("num_layers", 1))),
    )
    channels = int(shape.config.get("in_channels", 16))
    text = int(shape.config.get("text_dim") or shape.config.get("caption_channels") or 4096)
    held = 6 * 4 * channels * count * down * across + 2 * 2 * 2 * text * request.max_sequence_length
    calls = request.steps * (2 if request.guided and not row.together else 1)
    return Stage(
        name="denoise", network="transformer", calls=calls, variants=(Variant(probes=(probe,)),), held_bytes=held
    )


def _autoencode(stage: str, shape: NetworkShape, settings: FilmSettings, request: Request) -> Stage:
    """The autoencoder reads a first frame, or makes the film, whole or in tiles, which are held until joined."""
    count = _latents(settings, request)[0] if stage == "decode" else 1
    at_once = min(count, _AT_ONCE.get(shape.class_name, count))
    pieces = ceil(count / at_once)
    dtype = "float32" if "vae" in settings.fp32 else "bfloat16"
    width, height = request.width, request.height

    def probe(across: int, down: int, times: int) -> Probe:
        arguments = {
            "config": shape.config, "class_name": shape.class_name, "width": across, "height": down,
            "latents": at_once, "dtype": dtype,
        }  # fmt: skip
        make = _PROBES + ("decode" if stage == "decode" else "encode")
        return Probe(make=make, arguments=arguments, count=times * pieces)

    variants = whole_or_tiles(probe, width, height, TILES)
    item = 4 if dtype == "float32" else 2
    film = 3 * width * height * (request.frames if stage == "decode" else 1) * item
    # Frames as they come, joined, and as tiles with their overlap; on the processor in 32 bits and in 8.
    return Stage(name=stage, network="vae", variants=variants, held_bytes=3 * film, ram_bytes=2 * film * 4 // item)
