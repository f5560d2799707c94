"""For every network of the catalogue: the bytes that the planner counts are those that the engine lays out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from studio.memory.footprint import Stored
from studio.memory.storage import Layout, Storage, lay_out
from studio.plans import Network, Precision
from studio.shapes import NetworkShape
from studio.stages import network_of
from studio_pipelines.image_diffusion.catalogued import SHAPES as PICTURES
from studio_pipelines.video_diffusion.catalogued import SHAPES as FILMS
from studio_pipelines.video_framepack.catalogued import SHAPES as SECTIONS

pytestmark = pytest.mark.filterwarnings("ignore:.FluxPosEmbed. is deprecated:FutureWarning")

STREAMED: dict[str, NetworkShape] = {
    name: shape
    for family in (PICTURES, FILMS, SECTIONS)
    for name in family.names()
    if not name.startswith("starter") and (shape := family.named(name)).streams and shape.blocks
}
# How a network is computed, and the ways to keep it: on a card, and on a card without bf16.
COMPUTED: dict[str, tuple[dict[str, Any], tuple[Precision, ...]]] = {
    "bfloat16": ({}, ("bf16", "int8", "nf4")),
    "float32": ({"stored": "fp32", "filed": "bf16"}, ("fp32", "bf16", "int8", "nf4")),
}


def builder(shape: NetworkShape) -> Callable[[], Any]:
    import diffusers
    import transformers

    if (kind := getattr(diffusers, shape.class_name, None)) is not None:
        return lambda: kind.from_config(dict(shape.config))
    kind = getattr(transformers, shape.class_name)
    return lambda: kind._from_config(kind.config_class(**shape.config))


@pytest.mark.parametrize("name", STREAMED)
def test_the_engine_lays_out_what_the_planner_counts(name: str) -> None:
    import torch

    from studio.memory.slabs import REST, _compute_dtype, _groups
    from studio.memory.stream_blocks import empty_module, kept_in_fp32, never_quantised, split

    shape = STREAMED[name]
    module = empty_module(builder(shape), torch.bfloat16)
    held, parts = set(module.state_dict()), split(module)
    for kind, (update, precisions) in COMPUTED.items():
        dtype = getattr(torch, kind)
        fp32, network = kept_in_fp32(module, dtype), network_of(name, shape).model_copy(update=update)
        for precision in precisions:
            layouts: dict[str, Layout] = {}
            for block in _groups(parts):
                tensors = {one.names[0]: one.value for one in block.parameters if one.names[0] in held}
                wanted = [
                    (key, tuple(value.shape), _compute_dtype(key, value, dtype, fp32)) for key, value in tensors.items()
                ]
                storage = stored_as(network, precision) if block.name else "plain"
                layouts[block.name] = lay_out(wanted, storage, plain=never_quantised(block))
            rest, counted = layouts.pop(REST), Stored(network, precision)
            blocks = [layout.stored_bytes for layout in layouts.values()]
            assert blocks == pytest.approx(list(counted.blocks), rel=0.02), f"{kind}, {precision}"
            assert rest.stored_bytes + sum(blocks) == pytest.approx(counted.total, rel=0.01), f"{kind}, {precision}"
            if precision != "nf4":  # which takes something to unpack besides
                assert max(layout.work_bytes for layout in layouts.values()) == pytest.approx(counted.work, rel=0.01)


def stored_as(network: Network, precision: Precision) -> Storage:
    kinds: dict[Precision, Storage] = {"fp32": "plain", "bf16": "plain" if network.stored == "bf16" else "bf16"}
    return kinds.get(precision, precision)  # type: ignore[arg-type]
