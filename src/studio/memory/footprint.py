"""What the networks of a model take in bytes, by arithmetic over their parameters: no torch, nothing is loaded.

A network's blocks may be stored in fewer bits and streamed; the rest of it (embeddings, norms, projections) stays as it
is and on the device. The figures of the storages are those of ``storage.py``: 1 byte a weight and 4 a row at 8 bits,
half a byte a weight and 4 bytes for each 64 at 4 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from studio.memory.storage import NF4_BLOCK, scratch_bytes, spread
from studio.plans import Block, Network, Precision

PAGE_BYTES = 4096
"""Host memory is pinned in slabs of whole pages: pinning tensor by tensor would round each up to a power of two."""

SLOTS = 2
"""Device buffers for streamed blocks: one is computed with while the next is copied."""

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8", "fp8", "nf4")
LOSS: dict[Precision, float] = {"fp32": 0.0, "bf16": 0.0, "int8": 1.0, "fp8": 3.0, "nf4": 11.0}
"""How much worse than its best a network gets, in units of int8: the root mean square errors of normally distributed
weights in rows of 3,072, which are 0.0085, 0.0265 and 0.0919 of their deviation (a test repeats this)."""

_SCALE_BYTES = 4
_USUAL_ROW = 2048


def block_bytes(block: Block, precision: Precision, stored: Precision = "bf16") -> int:
    """Bytes of one block of this kind, scales included; alignment (a few KB a block) not. What stays plain is kept as
    it is computed with: in 32 bits where ``stored`` is fp32."""
    plain = (4 if stored == "fp32" else 2) * block.plain
    weights = max(0, block.params - block.plain)
    if precision == "fp32":
        return 4 * block.params
    if precision == "bf16":
        return 2 * weights + plain
    rows = block.rows or weights // _USUAL_ROW
    if precision == "nf4":
        return (weights + 1) // 2 + _SCALE_BYTES * -(-weights // NF4_BLOCK) + plain
    return weights + _SCALE_BYTES * rows + plain


def work_bytes(block: Block, precision: Precision, stored: Precision) -> int:
    """What one block that is kept in fewer bits takes once it can be computed with; 0 for one that is computed with as
    it is."""
    if precision == "fp32" or (precision == "bf16" and stored != "fp32"):
        return 0
    return (block.params - block.plain) * (4 if stored == "fp32" else 2)


def precisions(network: Network, card: bool = True) -> tuple[Precision, ...]:
    """How the network may be stored, best first: as it is computed with, or in fewer bits. On a card that computes it
    in 32 bits also in the 16 of its files; a processor is not made to unpack those in every pass."""
    if not network.quantises or not network.blocks:
        return (network.stored,)
    order = PRECISIONS.index(network.stored)
    smaller = [one for one in PRECISIONS[order + 1 :] if one != "bf16" or (card and network.filed == "bf16")]
    if network.stored in ("int8", "fp8"):
        smaller = [one for one in smaller if one == "nf4"]
    return (network.stored, *smaller)


def loss(network: Network, precision: Precision) -> float:
    """What this precision costs in quality, against the network's own files."""
    return max(0.0, LOSS[precision] - LOSS[network.stored])


def network_bytes(network: Network, precision: Precision) -> int:
    """All bytes of a network at this precision: its blocks, and the rest at 16 or 32 bits."""
    return Stored(network, precision).total


def as_filed(network: Network) -> Network:
    """The network as its files hold it."""
    return network if network.filed is None else network.model_copy(update={"stored": network.filed, "filed": None})


def pinned(size_bytes: int) -> int:
    """Host bytes that are taken to pin ``size_bytes``: a slab holds exactly its blocks, in whole pages."""
    return -(-size_bytes // PAGE_BYTES) * PAGE_BYTES


@dataclass(frozen=True)
class Stored:
    """A network at one precision: bytes by block, in order."""

    network: Network
    precision: Precision

    @cached_property
    def blocks(self) -> tuple[int, ...]:
        kinds = self.network.blocks if self.network.streams else ()
        return tuple(size for kind in kinds for size in [self._block(kind)] * kind.count)

    @cached_property
    def rest(self) -> int:
        """What always lies on the device: all that is no block, and blocks that cannot be streamed."""
        inside = sum(block.params * block.count for block in self.network.blocks)
        plain = (self.network.params - inside) * (4 if self.network.stored == "fp32" else 2)
        fixed = () if self.network.streams else self.network.blocks
        return plain + sum(self._block(block) * block.count for block in fixed)

    def _block(self, kind: Block) -> int:
        return block_bytes(kind, self.precision, self.network.stored)

    @cached_property
    def work(self) -> int:
        """Bytes of the workspace into which a quantised block is unpacked, and of what unpacking takes for a moment."""
        kinds = self.network.blocks
        workspace = max((work_bytes(kind, self.precision, self.network.stored) for kind in kinds), default=0)
        if self.precision != "nf4":
            return workspace
        return workspace + max((scratch_bytes(kind.params - kind.plain, "nf4") for kind in kinds), default=0)

    @cached_property
    def total(self) -> int:
        return self.rest + sum(self.blocks)

    def resident(self, count: int) -> int:
        """Bytes of ``count`` blocks that are evenly spread, and of the rest."""
        return self.rest + sum(self.blocks[index] for index in spread(len(self.blocks), count))

    def slots(self, count: int) -> int:
        """Bytes of the device buffers for the other blocks: as many as there are, two at most, of the largest."""
        kept = set(spread(len(self.blocks), count))
        streamed = [size for index, size in enumerate(self.blocks) if index not in kept]
        return min(SLOTS, len(streamed)) * max(streamed, default=0)
