"""How the weights of a block are kept, and exactly how many bytes that takes. Arithmetic only: no torch.

Kinds of storage:

- ``plain``    as computed with, for example bf16: 2 bytes per weight, exact
- ``bf16``, ``fp16``  in 16 bits, computed with in 32: 2 bytes per weight, exact where the files have no more
- ``fp8``      float8 e4m3 with one fp32 scale per row: 1 byte per weight
- ``int8``     symmetric, -127 to 127, with one fp32 scale per row: 1 byte per weight
- ``nf4``      4-bit NormalFloat in blocks of 64 with one fp32 absolute maximum each: 0.5625 bytes per weight
- ``nf4-dq``   the same with the maxima themselves in 8 bits ("double quantisation"): about 0.516 bytes per weight

NormalFloat and double quantisation: Dettmers et al., "QLoRA", 2023, https://arxiv.org/abs/2305.14314, sections 3 and
appendix E. Only the large weight matrices of linear layers and convolutions are quantised; norms, biases, embeddings
and small tables stay as they are. A row is everything that feeds one output: ``weight[o].flatten()``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, get_args

Storage = Literal["plain", "bf16", "fp16", "fp8", "int8", "nf4", "nf4-dq"]
STORAGES: tuple[Storage, ...] = get_args(Storage)
HALVES: dict[Storage, str] = {"bf16": "bfloat16", "fp16": "float16"}
"""Storages that are a type of their own, by its name."""

ALIGNMENT = 256
"""Every tensor in a slab or slot begins at a multiple of this, as CUDA's own allocations do."""

SMALLEST_QUANTISED = 16_384
"""Weight matrices with fewer elements stay plain: they are a few per mille of a model and the most sensitive."""

NF4_BLOCK = 64
"""Weights per absolute maximum (QLoRA, section 3)."""

NF4_GROUP = 256
"""Absolute maxima per second-level scale (QLoRA, section 3)."""

NF4_CHUNK = 4 * 1024 * 1024
"""Bytes of 4-bit pairs that are read back at once."""

_SCALE_BYTES = 4
_ITEM_BYTES = {
    "float64": 8, "int64": 8, "uint64": 8, "float32": 4, "int32": 4, "uint32": 4,
    "float16": 2, "bfloat16": 2, "int16": 2, "uint16": 2,
    "int8": 1, "uint8": 1, "bool": 1, "float8_e4m3fn": 1, "float8_e5m2": 1,
}  # fmt: skip
_QUANTISED_FROM = ("float32", "bfloat16", "float16")


def item_bytes(dtype: object) -> int:
    """Bytes per element of ``"bfloat16"`` or ``torch.bfloat16``. Raises ``ValueError`` for a type not held here."""
    name = str(dtype).removeprefix("torch.")
    if name not in _ITEM_BYTES:
        raise ValueError(f"no such element type here: {name}")
    return _ITEM_BYTES[name]


def aligned(size_bytes: int) -> int:
    """``size_bytes`` rounded up to ``ALIGNMENT``."""
    return -(-size_bytes // ALIGNMENT) * ALIGNMENT


def quantisable(name: str, shape: Sequence[int], dtype: object) -> bool:
    """Whether a parameter of this name, shape and compute type is quantised at all (embeddings must be left out)."""
    return (
        name.rpartition(".")[2] == "weight"
        and len(shape) >= 2
        and prod(shape) >= SMALLEST_QUANTISED
        and str(dtype).removeprefix("torch.") in _QUANTISED_FROM
    )


def stored_bytes(shape: Sequence[int], dtype: object, storage: Storage) -> int:
    """Bytes of one tensor of ``shape`` kept as ``storage``, its scales included, alignment not.

    ``dtype`` is the type to compute with (``"bfloat16"`` or ``torch.bfloat16``). Equal to what the codec writes.
    """
    numel = prod(shape)
    match storage:
        case "plain":
            return numel * item_bytes(dtype)
        case "bf16" | "fp16":
            return numel * 2
        case "fp8" | "int8":
            return scales_at(numel) + _SCALE_BYTES * shape[0]
        case "nf4":
            return scales_at(nf4_packed_bytes(numel)) + _SCALE_BYTES * nf4_blocks(numel)
        case "nf4-dq":
            blocks = nf4_blocks(numel)
            groups = -(-blocks // NF4_GROUP)
            return scales_at(scales_at(nf4_packed_bytes(numel)) + blocks) + _SCALE_BYTES * (groups + 1)
    raise ValueError(f"no such storage: {storage}")


def nf4_blocks(numel: int) -> int:
    """Blocks of 64 that hold ``numel`` weights; the last one may be padded."""
    return -(-numel // NF4_BLOCK)


def nf4_packed_bytes(numel: int) -> int:
    """Bytes of the 4-bit indices, two to a byte, of ``numel`` weights padded to whole blocks."""
    return nf4_blocks(numel) * NF4_BLOCK // 2


def scales_at(size_bytes: int) -> int:
    """Where the scales begin after ``size_bytes`` of codes: the next multiple of 4."""
    return -(-size_bytes // _SCALE_BYTES) * _SCALE_BYTES


@dataclass(frozen=True)
class Entry:
    """One parameter of a block: where it lies in the stored block, and where once it can be computed with.

    ``work_offset`` is its place in the workspace if it is quantised, else ``None``: it is used where it is stored.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    storage: Storage
    offset: int
    size_bytes: int
    work_offset: int | None = None

    @property
    def work_bytes(self) -> int:
        """Bytes in the compute type."""
        return prod(self.shape) * item_bytes(self.dtype)


@dataclass(frozen=True)
class Layout:
    """Where the parameters of one block lie in its one contiguous stretch of memory.

    ``stored_bytes`` is that stretch (in RAM, over the bus and in a device slot); ``work_bytes`` what its quantised
    parameters take once dequantised, 0 for plain storage.
    """

    entries: tuple[Entry, ...]
    stored_bytes: int
    work_bytes: int


def lay_out(
    parameters: Iterable[tuple[str, Sequence[int], object]], storage: Storage, *, plain: Iterable[str] = ()
) -> Layout:
    """The layout of a block from ``(name, shape, compute dtype)``; those named in ``plain`` are never quantised."""
    if storage not in STORAGES:
        raise ValueError(f"no such storage: {storage}")
    kept, entries, offset, work = set(plain), [], 0, 0
    for name, shape, dtype in parameters:
        packs = quantisable(name, shape, dtype) and name not in kept
        if storage in HALVES and item_bytes(dtype) == 2:
            packs = False  # it is computed with as it is kept
        kind: Storage = storage if packs else "plain"
        size = stored_bytes(shape, dtype, kind)
        place = None if kind == "plain" else work
        entry = Entry(name, tuple(shape), str(dtype).removeprefix("torch."), kind, offset, size, place)
        entries.append(entry)
        offset += aligned(size)
        work += 0 if place is None else aligned(entry.work_bytes)
    return Layout(tuple(entries), offset, work)


def portions(layout: Layout, limit: int) -> Iterator[tuple[int, int]]:
    """A block cut into ``[begin, end)`` of at most ``limit`` bytes, a multiple of ``ALIGNMENT``.

    A quantised parameter is never cut, so a portion that holds one may be larger.
    """
    if limit < ALIGNMENT or limit % ALIGNMENT:
        raise ValueError(f"{limit} is not a multiple of {ALIGNMENT}")
    begin = end = 0
    for cut in _cuts(layout, limit):
        if cut - begin > limit and end > begin:
            yield begin, end
            begin = end
        end = cut
    if end > begin:
        yield begin, end


def _cuts(layout: Layout, limit: int) -> Iterator[int]:
    """Where a block may be cut, in order."""
    for entry in layout.entries:
        end = entry.offset + aligned(entry.size_bytes)
        if entry.storage == "plain":
            yield from range(entry.offset + limit, end, limit)
        yield end


def spread(count: int, resident: int) -> tuple[int, ...]:
    """Which of ``count`` blocks stay resident, evenly spread among the streamed ones.

    The bus then never has to bring two blocks in the time that one computes. Idea: mmgp's interleaved residents.
    """
    if not 0 <= resident <= count:
        raise ValueError(f"{resident} of {count} blocks cannot be resident")
    return tuple((2 * number + 1) * count // (2 * resident) for number in range(resident))


@dataclass(frozen=True)
class DeviceBytes:
    """What ``streamed`` holds on the device with these blocks resident, in bytes; activations not included."""

    resident: int
    slots: int
    workspace: int
    scratch: int = 0
    """What reading 4-bit weights back takes for a moment, besides the workspace."""

    @property
    def total(self) -> int:
        return self.resident + self.slots + self.workspace + self.scratch


def device_bytes(blocks: Sequence[Layout], rest: Layout, resident: Iterable[int], slots: int = 2) -> DeviceBytes:
    """Resident blocks and the rest, ``slots`` of the largest streamed block, one workspace for quantised blocks."""
    kept = set(resident)
    streamed = [block.stored_bytes for number, block in enumerate(blocks) if number not in kept]
    return DeviceBytes(
        resident=rest.stored_bytes + sum(blocks[number].stored_bytes for number in kept),
        slots=min(slots, len(streamed)) * max(streamed, default=0),
        workspace=max((block.work_bytes for block in blocks), default=0),
        scratch=max((scratch_bytes(prod(e.shape), e.storage) for block in blocks for e in block.entries), default=0),
    )


def scratch_bytes(numel: int, storage: Storage) -> int:
    """The most that reading ``numel`` weights back takes besides the result: 4-bit pairs become 32-bit numbers a
    chunk at a time (an index and two values each), and 8-bit maxima become 32-bit ones (scales, then maxima)."""
    if storage not in ("nf4", "nf4-dq"):
        return 0
    chunk = min(nf4_packed_bytes(numel), NF4_CHUNK) * 3 * _SCALE_BYTES
    if storage == "nf4":
        return chunk
    maxima = _SCALE_BYTES * -(-nf4_blocks(numel) // NF4_GROUP) * NF4_GROUP
    return maxima + max(maxima, chunk)
