"""The numbers of a shape file from the classes themselves, at full size and without memory for their weights.

    python tests/image/shape_numbers.py flux-1

prints what ``shapes/flux-1.yaml`` must say: how many parameters the network has, and the
blocks that the engine streams, as it finds them in the module.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from math import prod
from typing import Any

from studio.memory.storage import quantisable
from studio.memory.stream_blocks import never_quantised, split
from studio.plugin import Block


def built(class_name: str, config: Mapping[str, Any]) -> Any:
    """The network with its parameters on the meta device."""
    import torch

    for library in ("diffusers", "transformers"):
        kind = getattr(importlib.import_module(library), class_name, None)
        if kind is not None:
            break
    else:
        raise LookupError(f"neither diffusers nor transformers has {class_name}")
    with torch.device("meta"):
        made = kind(**config) if library == "diffusers" else kind(kind.config_class(**config))
        if library == "transformers":
            made.tie_weights()
    return made


def counted(class_name: str, config: Mapping[str, Any], *, streams: bool = True) -> tuple[int, tuple[Block, ...]]:
    """Parameters of the whole, and its blocks: neighbours of the same class and size are one kind."""
    module = built(class_name, config)
    whole = sum(parameter.numel() for parameter in module.parameters())
    kinds: list[Block] = []
    for block in split(module).blocks if streams else ():
        never = set(never_quantised(block))
        shapes = {tensors.names[0]: tuple(tensors.value.shape) for tensors in block.parameters}
        matrices = [
            shape for name, shape in shapes.items() if name not in never and quantisable(name, shape, "bfloat16")
        ]
        params = sum(prod(shape) for shape in shapes.values())
        rows, plain = sum(shape[0] for shape in matrices), params - sum(prod(shape) for shape in matrices)
        kind = Block(kind=type(block.module).__name__, params=params, rows=rows, plain=plain)
        if kinds and kinds[-1].model_copy(update={"count": 1}) == kind:
            kinds[-1] = kinds[-1].model_copy(update={"count": kinds[-1].count + 1})
        else:
            kinds.append(kind)
    return whole, tuple(kinds)


LARGE = 1_000_000
"""Fewer values in buffers are left out."""


def in_buffers(class_name: str, config: Mapping[str, Any]) -> int:
    """How many values of large buffers the network's files hold."""
    module = built(class_name, config)
    held = module.state_dict()
    sizes = [buffer.numel() for name, buffer in module.named_buffers() if name in held]
    return sum(size for size in sizes if size >= LARGE)


def written(blocks: tuple[Block, ...]) -> str:
    """Blocks as lines of YAML."""
    return "\n".join(
        f"  - {{kind: {block.kind}, params: {block.params}, count: {block.count}, "
        f"rows: {block.rows}, plain: {block.plain}}}"
        for block in blocks
    )


def main(name: str) -> None:
    from studio_pipelines.image_diffusion.catalogued import shape_of

    shape = shape_of(name)
    params, blocks = counted(shape.class_name, shape.config, streams=shape.streams)
    print(f"params: {params}")
    if buffers := in_buffers(shape.class_name, shape.config):
        print(f"buffers: {buffers}")
    if blocks:
        print(f"blocks:\n{written(blocks)}")


if __name__ == "__main__":
    main(sys.argv[1])
