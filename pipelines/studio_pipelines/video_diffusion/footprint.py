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
    Network,
    NetworkShape,
    Probe,
    Stage,
    Variant,
    networks_of_files,
    text_bytes,
)

from .catalogued import FilmSettings, settings_of, shape_of
from .request import Request

NETWORKS = ("text_encoder", "transformer", "vae")
"""In the order in which they run."""
TILES = {512: 0.01, 256: 0.03, 128: 0.06}
"""The tiles in which the autoencoder may run, in pixels, and what their seams cost in quality."""
OVERLAP = 0.75
"""How far a tile is from the next, in tiles."""
_AT_ONCE = {"AutoencoderKLWan": 2}
"""How many latents an autoencoder makes into frames at once, in time; the first and one more stand for all. The others
make all of them at once."""
_PROBES = "studio_pipelines.video_diffusion.probes:"
_BLOCKS = {"WanTransformer3DModel": "wan_block", "LTXVideoTransformer3DModel": "ltx_block"}


def tile_px(variant: str) -> int | None:
    """The tiles, in pixels, that a plan's variant of a stage means; ``None``: whole."""
    words = variant.split()
    return int(words[2]) if len(words) == 3 and words[2].isdecimal() else None


def footprint(spec: ModelSpec, files: Mapping[str, Path] | None, request: Request) -> Footprint:
    """Networks and stages of a request. Raises ``BadRequest`` where the networks' sizes are not known."""
    settings = settings_of(spec)
    shapes = {name: shape_of(shape) for name, shape in settings.networks.items()} or networks_of_files(files or {})
    if missing := [name for name in NETWORKS if name not in shapes]:
        hint = f"Run: studio models pull {spec.id}"
        raise BadRequest(f"The size of {spec.id}'s {missing[0]} is not known before it is here.", hint)
    words, transformer, vae = (shapes[name] for name in NETWORKS)
    tokens = request.max_sequence_length
    read = Variant(flops=2.0 * words.params * tokens, activation_bytes=text_bytes(words, tokens))
    twice = 2 if request.guided else 1
    stages = [Stage(name="encode", network="text_encoder", calls=twice, variants=(read,))]
    if request.task == "image":
        stages.append(_autoencode("encode-image", vae, settings, request))
    stages += [_denoise(transformer, settings, request), _autoencode("decode", vae, settings, request)]
    return Footprint(
        networks=tuple(_network(name, shapes[name], settings) for name in NETWORKS),
        stages=tuple(stages),
        disk_bytes=spec.download_bytes or sum(2 * shapes[name].params for name in NETWORKS),
    )


def _network(name: str, shape: NetworkShape, settings: FilmSettings) -> Network:
    return Network(
        name=name,
        params=shape.params,
        class_name=shape.class_name,
        blocks=shape.blocks,
        stored="fp32" if name in settings.fp32 else "bf16",
        streams=shape.streams,
        quantises=shape.streams,
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

    step = settings.row.factor
    variants = [Variant(name="whole", probes=(probe(width, height, 1),))]
    for size, loss in TILES.items():
        if max(width, height) > size:
            tiles = ceil(width / (OVERLAP * size)) * ceil(height / (OVERLAP * size))
            across, down = (min(size, ceil(side / step) * step) for side in (width, height))
            variants.append(Variant(name=f"tiles of {size}", loss=loss, probes=(probe(across, down, tiles),)))
    item = 4 if dtype == "float32" else 2
    film = 3 * width * height * (request.frames if stage == "decode" else 1) * item
    # Frames as they come, joined, and as tiles with their overlap; on the processor in 32 bits and in 8.
    return Stage(
        name=stage, network="vae", variants=tuple(variants), held_bytes=3 * film, ram_bytes=2 * film * 4 // item
    )
