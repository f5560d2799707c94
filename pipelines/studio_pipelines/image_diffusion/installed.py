"""Networks by their own files, for models that no shape is known of: the configuration and the safetensors headers.

Headers only, and no torch: this runs in the control process. The engine checks the files thoroughly when it loads them;
here a file that cannot be read is as good as none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from studio.plugin import Block

from .catalogued import NetworkShape

_LONGEST_HEADER = 100_000_000
_BLOCK = re.compile(r"^((?:[A-Za-z_]\w*\.)*?[A-Za-z_]\w*)\.(\d+)\.")
_SMALLEST_QUANTISED = 16_384
"""As in ``studio.memory.storage``: smaller matrices stay as they are."""


def networks_of_files(files: Mapping[str, Path]) -> dict[str, NetworkShape]:
    """Every folder of a model's files that holds weights: text encoders first, then what denoises, then the rest."""
    found = {name: shape for name, folder in files.items() if (shape := _network(folder)) is not None}
    order = ("text_encoder", "text_encoder_2", "text_encoder_3", "unet", "transformer")
    return dict(sorted(found.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))


def _network(folder: Path) -> NetworkShape | None:
    if not folder.is_dir():
        return None
    tensors = {name: shape for file in sorted(folder.glob("*.safetensors")) for name, shape in _header(file).items()}
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
        kind = config["_class_name"] if "_class_name" in config else config["architectures"][0]
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None
    if not tensors:
        return None
    public = {key: value for key, value in config.items() if not key.startswith("_")}
    params = max(1, sum(map(prod, tensors.values())))
    shape = NetworkShape.model_validate({"class": str(kind), "source": "its files", "config": public, "params": params})
    return shape.model_copy(update={"blocks": _blocks(tensors)}) if shape.streams else shape


def _header(file: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor in a safetensors file: 8 bytes of length, then JSON."""
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            content = json.loads(opened.read(min(length, _LONGEST_HEADER)))
        return {name: tuple(value["shape"]) for name, value in content.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _blocks(tensors: Mapping[str, tuple[int, ...]]) -> tuple[Block, ...]:
    """The members of the outermost lists of at least two, in the order of their numbers."""
    groups: dict[tuple[str, int], list[tuple[int, ...]]] = {}
    for name, shape in tensors.items():
        if found := _BLOCK.match(name):
            groups.setdefault((found[1], int(found[2])), []).append(shape)
    members = [place for place, _ in groups]
    blocks: list[Block] = []
    for (place, _), shapes in sorted(groups.items()):
        if members.count(place) < 2:
            continue
        matrices = [shape for shape in shapes if len(shape) >= 2 and prod(shape) >= _SMALLEST_QUANTISED]
        params = max(1, sum(map(prod, shapes)))
        rows, plain = sum(shape[0] for shape in matrices), params - sum(map(prod, matrices))
        block = Block(kind=place.rpartition(".")[2], params=params, rows=rows, plain=plain)
        if blocks and blocks[-1].model_copy(update={"count": 1}) == block:
            blocks[-1] = blocks[-1].model_copy(update={"count": blocks[-1].count + 1})
        else:
            blocks.append(block)
    return tuple(blocks)
