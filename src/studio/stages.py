"""How families over torch describe their networks and stages to the planner, where they do it alike. No torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from math import ceil

from studio.plans import Network, Probe, Variant
from studio.shapes import NetworkShape, text_bytes

TILE_OVERLAP = 0.75
"""How far a tile is from the next, in tiles: the engine keeps diffusers' own quarter of overlap."""


def network_of(name: str, shape: NetworkShape, fp32: Collection[str] = (), fp16: Collection[str] = ()) -> Network:
    """A network as the planner sees it; ``fp32`` are those that 16 bits would spoil, ``fp16`` those that fp16 is known
    not to."""
    return Network(
        name=name,
        params=shape.values,
        class_name=shape.class_name,
        blocks=shape.blocks,
        stored="fp32" if name in fp32 else "bf16",
        streams=shape.streams,
        quantises=shape.streams,
        fp16=name in fp16,
    )


def reading(shape: NetworkShape, tokens: int) -> Variant:
    """An encoder reads so many tokens: small against its weights, so it is reckoned and not measured."""
    return Variant(flops=2.0 * shape.params * tokens, activation_bytes=text_bytes(shape, tokens))


def whole_or_tiles(
    probe: Callable[[int, int, int], Probe], width: int, height: int, losses: Mapping[int, float]
) -> tuple[Variant, ...]:
    """An autoencoder's ways to work on pixels: on all at once, or in tiles, for which ``losses`` says by their size
    what the seams cost in quality. ``probe`` is asked by width, height and how often."""
    variants = [Variant(name="whole", probes=(probe(width, height, 1),))]
    for size, loss in losses.items():
        if max(width, height) > size:
            count = ceil(width / (TILE_OVERLAP * size)) * ceil(height / (TILE_OVERLAP * size))
            tile = probe(min(size, width), min(size, height), count)
            variants.append(Variant(name=f"tiles of {size}", loss=loss, probes=(tile,)))
    return tuple(variants)


def tile_px(variant: str) -> int | None:
    """The tiles, in pixels, that a plan's variant of a stage means; ``None``: whole."""
    words = variant.split()
    return int(words[2]) if len(words) == 3 and words[2].isdecimal() else None
