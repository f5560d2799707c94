"""Networks as a planner sees them before a download or by their own files: class, configuration, parameters, blocks.

Headers only, and no torch: this runs in the control process. The engine checks the files thoroughly when it loads them;
here a file that cannot be read is as good as none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from studio.errors import BadRequest
from studio.pipeline import Block

_LONGEST_HEADER = 100_000_000
_BLOCK = re.compile(r"^((?:[A-Za-z_]\w*\.)*?[A-Za-z_]\w*)\.(\d+)\.")
_SMALLEST_QUANTISED = 16_384
"""As in ``studio.memory.storage``: smaller matrices stay as they are."""


class NetworkShape(BaseModel):
    """One network before its download: its class, the configuration to build it, and what it consists of.

    ``source`` says where the configuration is known from. ``tokens``: what a text encoder reads at most; ``None``:
    as the request says. ``blocks`` are those that the engine streams, in order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    class_name: str = Field(alias="class")
    source: str
    config: dict[str, Any] = Field(default_factory=dict)
    tokens: int | None = Field(default=None, ge=1)
    params: int = Field(ge=1)
    blocks: tuple[Block, ...] = ()

    @property
    def streams(self) -> bool:
        """An autoencoder is small and is run in tiles, each of which would bring it anew."""
        return not self.class_name.startswith("Autoencoder")


def _shape_names(folder: Path) -> list[str]:
    """The shapes that a family's folder holds."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


@lru_cache(maxsize=128)
def read_shape(folder: Path, name: str) -> NetworkShape:
    """The shape of that name. Raises ``BadRequest`` if there is none."""
    import yaml

    path = folder / f"{name}.yaml"
    if not path.is_file():
        raise BadRequest(f"There is no network shape {name!r}.", f"Known: {', '.join(_shape_names(folder))}.")
    return NetworkShape.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


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


def text_bytes(shape: NetworkShape, tokens: int) -> int:
    """The most bytes of a text encoder's activations for one prompt, in 16 bits: an upper bound.

    The states after each layer, which pipelines ask for; in a layer some eight widths and three of the MLP; where the
    attention is not fused (T5) or has a mask, its matrices, three times over in 16 and 32 bits; the words' scores of a
    class that has them.
    """
    config: Mapping[str, Any] = {**shape.config, **shape.config.get("text_config", {})}

    def number(*names: str) -> int:
        return next((int(config[name]) for name in names if config.get(name)), 0)

    width, inner = number("hidden_size", "d_model"), number("intermediate_size", "d_ff")
    layers, heads = number("num_hidden_layers", "num_layers"), number("num_attention_heads", "num_heads")
    states = 2 * tokens * ((layers + 1) * width + 8 * width + 3 * inner)
    speaks = shape.class_name.endswith(("ForCausalLM", "ForConditionalGeneration"))
    scores = 2 * tokens * number("vocab_size") if speaks else 0
    return states + 8 * heads * tokens**2 + scores
