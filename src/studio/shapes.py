"""Networks as a planner sees them before a download or by their own files: class, configuration, parameters, blocks.

Headers only, and no torch: this runs in the control process. The engine checks the files thoroughly when it loads them;
here a file that cannot be read is as good as none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from studio.errors import BadRequest
from studio.plans import Block
from studio.spec import ModelSpec

_LONGEST_HEADER = 100_000_000
_Tensors = Mapping[tuple[str, ...], tuple[int, ...]]
"""A module: shapes by the parts of the tensors' names below it."""
SPLIT_ABOVE = 64 * 1024**2
"""A block of more weights than this is split into the blocks that it consists of, if it consists of little else."""
MOST = 0.9
"""Of its weights, what the blocks inside must hold then."""
FEW = 0.01
"""A list that holds less of a network's weights than this stays in place."""
_SMALLEST_QUANTISED = 16_384
"""As in ``studio.memory.storage``: smaller matrices stay as they are."""


class NetworkShape(BaseModel):
    """One network before its download: its class, the configuration to build it, and what it consists of.

    ``source`` says where the configuration is known from. ``tokens``: what a text encoder reads at most; ``None``:
    as the request says. ``blocks`` are those that the engine streams, in order. ``buffers``: how many values its files
    hold besides, in large tables that are no parameters and lie on the card like them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    class_name: str = Field(alias="class")
    source: str
    config: dict[str, Any] = Field(default_factory=dict)
    tokens: int | None = Field(default=None, ge=1)
    params: int = Field(ge=1)
    blocks: tuple[Block, ...] = ()
    buffers: int = Field(default=0, ge=0)

    @property
    def values(self) -> int:
        """All that the network's files hold."""
        return self.params + self.buffers

    @property
    def streams(self) -> bool:
        """An autoencoder is small and is run in tiles, each of which would bring it anew."""
        return not self.class_name.startswith("Autoencoder")


class Shapes:
    """The shapes of a family's networks: a folder of YAML files, one for each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """The shapes that there are."""
        return sorted(path.stem for path in self._folder.glob("*.yaml"))

    def named(self, name: str) -> NetworkShape:
        """The shape of that name. Raises ``BadRequest`` if there is none."""
        return read_shape(self._folder, name)

    def problem(self, networks: Mapping[str, str]) -> str:
        """What is wrong with an entry's table of networks, by the names of their shapes; "" where nothing is."""
        unknown = [name for name in networks.values() if not (self._folder / f"{name}.yaml").is_file()]
        return f"settings.networks: there is no shape {unknown[0]!r}" if unknown else ""

    def of(
        self, spec: ModelSpec, networks: Mapping[str, str], files: Mapping[str, Path] | None, needed: Iterable[str]
    ) -> dict[str, NetworkShape]:
        """The shapes that the entry names; where it names none, those of the installed files.

        Raises ``BadRequest`` where one of those ``needed`` is not known.
        """
        shapes = {name: self.named(shape) for name, shape in networks.items()} or networks_of_files(files or {})
        if missing := [name for name in needed if name not in shapes]:
            hint = f"Run: studio models pull {spec.id}"
            raise BadRequest(f"The size of {spec.id}'s {missing[0]} is not known before it is here.", hint)
        return shapes


@lru_cache(maxsize=128)
def read_shape(folder: Path, name: str) -> NetworkShape:
    """The shape of that name. Raises ``BadRequest`` if there is none."""
    import yaml

    path = folder / f"{name}.yaml"
    if not path.is_file():
        raise BadRequest(f"There is no network shape {name!r}.", f"Known: {', '.join(Shapes(folder).names())}.")
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


def blocks_by_name(
    tensors: Mapping[str, tuple[int, ...]], *, split_above: int = SPLIT_ABOVE
) -> Iterator[tuple[str, list[tuple[int, ...]]]]:
    """The blocks that the engine will stream, with the shapes of their tensors, by nothing but the tensors' names.

    The same rule as ``studio.memory.stream_blocks.find_blocks`` has for modules: the members of lists (names that are
    numbers) that hold 1 % of the weights, and where such a member is large, the blocks that it consists of.
    """
    tree = {tuple(name.split(".")): shape for name, shape in tensors.items()}
    yield from _inner("", tree, max(1, _weights(tree) * FEW), split_above)


def _children(tree: _Tensors) -> Mapping[str, _Tensors]:
    """The modules directly inside, each with its tensors; a tensor of the module's own is none."""
    found: dict[str, dict[tuple[str, ...], tuple[int, ...]]] = {}
    for (first, *rest), shape in tree.items():
        if rest:
            found.setdefault(first, {})[tuple(rest)] = shape
    return found


def _is_list(children: Mapping[str, _Tensors]) -> bool:
    return bool(children) and all(name.isdecimal() for name in children)


def _weights(tree: _Tensors) -> int:
    return sum(map(prod, tree.values()))


def _inner(prefix: str, tree: _Tensors, few: float, split_above: int) -> Iterator[tuple[str, list[tuple[int, ...]]]]:
    """The blocks of the lists within a module."""
    for name, child in _children(tree).items():
        full, members = f"{prefix}{name}", _children(child)
        if not _is_list(members):
            yield from _inner(f"{full}.", child, few, split_above)
        elif _weights(child) >= few:
            for number in sorted(members, key=int):
                yield from _member(f"{full}.{number}", members[number], few, split_above)


def _member(name: str, member: _Tensors, few: float, split_above: int) -> Iterator[tuple[str, list[tuple[int, ...]]]]:
    """A member of a list: itself, or what it consists of."""
    weights, children = _weights(member), _children(member)
    if _is_list(children):  # a list of lists has no forward of its own
        for number in sorted(children, key=int):
            yield from _member(f"{name}.{number}", children[number], few, split_above)
        return
    if weights > split_above:
        inside = list(_inner(f"{name}.", member, 1, split_above))
        if len(inside) > 1 and sum(sum(map(prod, shapes)) for _, shapes in inside) >= MOST * weights:
            yield from inside
            return
    yield name, list(member.values())


def _blocks(tensors: Mapping[str, tuple[int, ...]]) -> tuple[Block, ...]:
    """The blocks of a network, neighbours that are alike as one kind, by the name of their list."""
    blocks: list[Block] = []
    for name, shapes in blocks_by_name(tensors):
        matrices = [shape for shape in shapes if len(shape) >= 2 and prod(shape) >= _SMALLEST_QUANTISED]
        params = max(1, sum(map(prod, shapes)))
        rows, plain = sum(shape[0] for shape in matrices), params - sum(map(prod, matrices))
        kind = next((part for part in reversed(name.split(".")) if not part.isdecimal()), name)
        block = Block(kind=kind, params=params, rows=rows, plain=plain)
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
