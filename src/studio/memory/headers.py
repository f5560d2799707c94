"""What is in safetensors files, by their headers: exact bytes per type and per block, and the ``Network`` they make.

Nothing is loaded; ``slab_files`` checks every header against its file. A block is one entry of a list of modules:
``transformer_blocks.7.attn.to_q.weight`` belongs to block 7 of ``transformer_blocks``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from studio.memory.footprint import PRECISIONS
from studio.memory.slab_files import StoredTensor, read_headers
from studio.memory.storage import quantisable
from studio.pipeline import Block, Network, Precision

_BLOCK = re.compile(r"^(?P<list>(?:[A-Za-z_]\w*\.)*?[A-Za-z_]\w*)\.(?P<number>\d+)\.")
_PRECISION: dict[str, Precision] = {
    "float32": "fp32", "bfloat16": "bf16", "float16": "bf16", "float8_e4m3fn": "fp8", "int8": "int8",
}  # fmt: skip
FEWEST_BLOCKS = 2
"""A list of fewer modules is no list of blocks worth streaming."""


@dataclass
class Group:
    """Tensors that go together: bytes by type (torch's names), parameters, and of these what 8 bits would cover."""

    size_bytes: int = 0
    params: int = 0
    quantised: int = 0
    rows: int = 0
    by_dtype: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, name: str, tensor: StoredTensor) -> None:
        count = prod(tensor.shape)
        self.size_bytes += tensor.size_bytes
        self.params += count
        self.by_dtype[tensor.dtype] += tensor.size_bytes
        if quantisable(name, tensor.shape, tensor.dtype):
            self.quantised += count
            self.rows += tensor.shape[0]


@dataclass(frozen=True)
class Contents:
    """One network's files: the whole, its blocks by ``(list, number)``, and what is in no block."""

    whole: Group
    blocks: dict[tuple[str, int], Group]
    rest: Group


def read_contents(source: Path | Iterable[Path]) -> Contents:
    """What is in a file, a folder, an index or several files. Raises ``BadWeights`` or ``MissingWeights``."""
    return contents_of(read_headers(source))


def contents_of(tensors: Mapping[str, StoredTensor]) -> Contents:
    """The same from headers that were read. The block lists are the outermost ones of at least two modules."""
    numbers: dict[str, set[int]] = defaultdict(set)
    for name in tensors:
        if found := _BLOCK.match(name):
            numbers[found["list"]].add(int(found["number"]))
    lists = {name for name, seen in numbers.items() if len(seen) >= FEWEST_BLOCKS}
    whole, rest, blocks = Group(), Group(), defaultdict[tuple[str, int], Group](Group)
    for name, tensor in tensors.items():
        found = _BLOCK.match(name)
        whole.add(name, tensor)
        group = blocks[found["list"], int(found["number"])] if found and found["list"] in lists else rest
        group.add(name, tensor)
    return Contents(whole, dict(blocks), rest)


def network_of_files(
    name: str, source: Path | Iterable[Path], *, class_name: str = "", lists: Iterable[str] | None = None
) -> Network:
    """A network by its files. ``lists`` names the block lists that stream, in the order in which they run (default:
    all of them, by name); the rest stays put.

    Neighbours of the same size are one kind. A file in several types counts as the type that most bytes have.
    """
    contents = read_contents(source)
    order = list(lists) if lists is not None else sorted({place for place, _ in contents.blocks})
    inside = [(key, group) for key, group in contents.blocks.items() if key[0] in order]
    kinds: list[Block] = []
    for (place, _), group in sorted(inside, key=lambda item: (order.index(item[0][0]), item[0][1])):
        plain = group.params - group.quantised
        last = kinds[-1] if kinds else None
        if last and (last.kind, last.params, last.rows, last.plain) == (place, group.params, group.rows, plain):
            kinds[-1] = last.model_copy(update={"count": last.count + 1})
        else:
            kinds.append(Block(kind=place, params=group.params, rows=group.rows, plain=plain))
    return Network(
        name=name,
        params=max(1, contents.whole.params),
        class_name=class_name,
        blocks=tuple(kinds),
        stored=stored_precision(contents.whole),
    )


def stored_precision(group: Group) -> Precision:
    """The precision in which most bytes of the group are; other types (4-bit packings, integers) count as bf16."""
    best = max(group.by_dtype.items(), key=lambda item: item[1], default=("bfloat16", 0))[0]
    return _PRECISION.get(best, PRECISIONS[1])
