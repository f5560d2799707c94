"""A model's weights in host memory, one contiguous stretch per block, read straight from safetensors.

In RAM, blocks lie in slabs of up to 256 MB (a larger block has a slab of its own), each a mapping of exactly the bytes
needed (``slab_memory.py``). Files are read into that memory directly; only what is cast or quantised passes through a
buffer. Any of the blocks may be left on disk instead: nothing of them is copied or locked, they are gathered from
mapped files when they are needed, and the page cache keeps what it can. A mapped file must not be shortened while it
is in use (the system ends the process). Quantised blocks may be kept in a file of their own (``slab_cache.py``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import torch
from torch import Tensor, nn

from studio.errors import BadRequest, BadWeights, nearest
from studio.memory.slab_cache import Cached, CacheEntry, Damaged, cache_entry, discard, open_cached, write_cached
from studio.memory.slab_files import StoredTensor, fingerprints, read_headers
from studio.memory.slab_memory import Slab, packed
from studio.memory.slab_reading import ModelReader, Reader, StoredReader
from studio.memory.storage import HALVES, Layout, Storage, lay_out, portions, spread
from studio.memory.stream_blocks import Block, Split, Tensors, kept_in_fp32, never_quantised, split

REST = ""
"""The name of the group that holds what belongs to no block: it is always resident."""

_FLOATS = ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")

Source = Path | Iterable[Path] | Mapping[str, Tensor]


def load_slabs(
    source: Source,
    module: nn.Module,
    *,
    blocks: Sequence[str] | None = None,
    dtype: torch.dtype | None = None,
    storage: Storage | Literal["half"] = "plain",
    mapped: bool = False,
    memory: Collection[str] | None = None,
    pinned: bool | None = None,
    rename: Callable[[str], str] | None = None,
    threads: int = 2,
    cache: Path | None = None,
    revision: str | None = None,
) -> Slabs:
    """Read the weights of ``module`` (its names and shapes; its own values are not looked at) for streaming.

    ``source`` is a safetensors file, a folder, an index, several files, or a state dict. ``blocks`` as in ``split``.
    ``dtype`` is the type to compute with (``None``: as stored; parts that the class wants in fp32 are kept so).
    ``memory`` names the groups (blocks, and ``REST``) that are kept in RAM, ``None`` all of them; ``mapped`` is none
    of them. The others are read from the source whenever they are wanted. ``rename`` turns a parameter's name into the
    file's. ``pinned`` defaults to whether there is a CUDA device. ``storage="half"``: in the 16 bits of the source.

    ``cache`` is a folder for quantised weights: made there once, read from there the next time without a look at the
    source if ``revision`` and the source's last name (a folder's or file's) tell its content, else with a look at its
    headers. A state dict is cached only under a ``revision``, which must then be its alone.

    Raises ``BadWeights`` if the source lacks a parameter, has another shape, or is damaged; ``BadRequest`` for a name
    that is no group; ``DoesNotFit`` if the memory cannot be had or locked.
    """
    if not isinstance(source, Path | Mapping):
        source = list(source)
    parts = split(module, blocks)
    kept = _kept(parts, memory, mapped)
    pinned = torch.cuda.is_available() if pinned is None else pinned
    rename = rename or (lambda name: name)
    fp32 = [] if dtype is None else kept_in_fp32(module, dtype)
    place = None
    stored: Mapping[str, StoredTensor | Tensor] | None = None
    if storage == "half":
        stored = _held(source)
        kinds = {str(one.dtype).removeprefix("torch.") for one in stored.values()}
        storage = "fp16" if "float16" in kinds and "bfloat16" not in kinds else "bf16"  # whose range holds both
    if cache is not None and storage != "plain" and storage not in HALVES:
        facts = [str(dtype), fp32, _names(parts, rename)]
        place = _place(cache, source, revision, module, parts, storage, facts)
    if place is not None and (slabs := _from_cache(place, kept, pinned, threads)):
        return slabs
    groups, sources = _assign(parts, stored or _held(source), dtype, fp32, storage, rename)
    slabs = Slabs(groups, storage, kept, ModelReader(groups, sources))
    try:
        slabs._fill(pinned, threads)
        if place is not None:
            slabs._save(place)
        slabs._map()
    except BaseException:
        slabs.close()
        raise
    return slabs


def _held(source: Source) -> dict[str, StoredTensor | Tensor]:
    """The tensors of a source by name."""
    return dict(source) if isinstance(source, Mapping) else dict(read_headers(source))


def streamed_names(module: nn.Module, resident: int, blocks: Sequence[str] | None = None) -> list[str]:
    """The blocks that do not stay on the device when ``resident`` of them do: what must be in RAM to stream from it.

    ``blocks`` as in ``split``. With these as ``memory``, slabs hold what the planner counts for a network that does
    not take turns: what stays on the device is brought there from its files.
    """
    names = [block.name for block in split(module, blocks).blocks]
    kept = set(spread(len(names), resident))
    return [name for number, name in enumerate(names) if number not in kept]


def _from_cache(place: CacheEntry, kept: Collection[str], pinned: bool, threads: int) -> Slabs | None:
    """Slabs from the cache file alone, ``None`` if there is none that is whole."""
    cached = open_cached(place)
    if cached is None:
        return None
    slabs = Slabs(cached.layouts, place.storage, kept, StoredReader(cached.groups))
    try:
        slabs._fill(pinned, threads, cached)
        slabs._map()
    except (Damaged, BadWeights, OSError) as error:
        slabs.close()
        discard(place, error)
        return None
    except BaseException:
        slabs.close()
        raise
    return slabs


class Slabs:
    """The blocks of one model in host memory, or on disk. A context manager; ``close`` frees exactly ``size_bytes``.

    Independent of the module it was read for: any module with the same names can be streamed from it, which is how a
    model stays parked in RAM while another one works.
    """

    def __init__(
        self, layouts: Mapping[str, Layout], storage: Storage, memory: Collection[str], reader: Reader
    ) -> None:
        self.layouts = dict(layouts)
        self.storage: Storage = storage
        self.pinned = False
        self.size_bytes = 0
        self._memory = frozenset(memory)
        self._reader = reader
        self._slabs: list[Slab] = []
        self._place: dict[str, Tensor] = {}

    @property
    def blocks(self) -> list[str]:
        """Names of the blocks, in order of definition."""
        return [name for name in self.layouts if name != REST]

    @property
    def mapped(self) -> bool:
        """Whether nothing is kept in RAM."""
        return not self._memory

    def in_memory(self, name: str) -> bool:
        """Whether a group (a block, or ``REST``) is kept in RAM; if not, it is read from a file when it is wanted."""
        return name in self._memory

    def stored(self, name: str) -> Tensor:
        """The bytes of a group in RAM: uint8 of (``stored_bytes``,), a view of its slab. Only if ``in_memory``."""
        return self._place[name]

    def read_into(self, name: str, out: Tensor, begin: int = 0) -> None:
        """Copy a group's bytes from ``begin`` on into ``out``: uint8 of (n,) in host memory.

        For a part of a group, ``begin`` and ``begin + n`` are cuts as ``portions`` gives them.
        """
        if self.in_memory(name):
            out.copy_(self._place[name][begin : begin + out.numel()])
        else:
            self._reader.read(name, out, begin)

    def portions(self, name: str, limit: int) -> Iterator[tuple[int, int]]:
        """The ``[begin, end)`` in which a group can be read through a buffer of about ``limit`` bytes."""
        return portions(self.layouts[name], limit)

    def close(self) -> None:
        """Give the memory back. May be called twice."""
        self._place.clear()
        self._reader.close()
        for slab in self._slabs:
            slab.close()
        self._slabs.clear()
        self.size_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fill(self, pinned: bool, threads: int, cached: Cached | None = None) -> None:
        """Allocate, lock and read, some slabs at a time: one waits for the disk while another is being locked."""
        members = packed({name: layout for name, layout in self.layouts.items() if self.in_memory(name)})
        for names in members:
            slab = Slab(sum(self.layouts[name].stored_bytes for name in names))
            self._slabs.append(slab)
            self.size_bytes += slab.size_bytes
            begin = 0
            for name in names:
                end = begin + self.layouts[name].stored_bytes
                self._place[name] = slab.data[begin:end]
                begin = end
        with ThreadPoolExecutor(max_workers=max(1, threads), thread_name_prefix="slabs") as pool:
            jobs = zip(self._slabs, members, strict=True)
            work = [pool.submit(self._fill_slab, *job, pinned, cached) for job in jobs]
            try:
                for future in work:
                    future.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        self.pinned = pinned and bool(members)

    def _fill_slab(self, slab: Slab, names: list[str], pinned: bool, cached: Cached | None) -> None:
        if pinned:
            slab.pin()
        for name in names:
            self._reader.read(name, self._place[name])
            if cached is not None:
                cached.check(name, self._place[name])

    def _save(self, place: CacheEntry) -> None:
        """Write the groups into the cache; those that are not in RAM are from now on read from there."""
        sizes = [layout.stored_bytes for name, layout in self.layouts.items() if not self.in_memory(name)]
        buffer = torch.empty(max(sizes, default=0), dtype=torch.uint8)

        def bring(name: str) -> Tensor:
            if self.in_memory(name):
                return self._place[name]
            self._reader.read(name, buffer.zero_()[: self.layouts[name].stored_bytes])
            return buffer

        cached = write_cached(place, self.layouts, bring)
        if cached is not None and cached.layouts == self.layouts:
            self._reader.close()
            self._reader = StoredReader(cached.groups)

    def _map(self) -> None:
        """Keep hold of the files of what is not in RAM, and of no others."""
        self._reader.map([name for name in self.layouts if not self.in_memory(name)])


def _kept(parts: Split, memory: Collection[str] | None, mapped: bool) -> list[str]:
    """The names of the groups that are kept in RAM."""
    names = [REST, *(block.name for block in parts.blocks)]
    if mapped and memory is not None:
        raise ValueError("mapped means that nothing is kept in memory: leave one of the two out")
    if isinstance(memory, str):
        raise TypeError("memory is a collection of names, not one name")
    for name in memory or ():
        if name not in names:
            raise BadRequest(f"There is no block {name!r}.", nearest(name, names))
    return [name for name in names if not mapped and (memory is None or name in memory)]


def _place(
    folder: Path,
    source: Path | list[Path] | Mapping[str, Tensor],
    revision: str | None,
    module: nn.Module,
    parts: Split,
    storage: Storage,
    facts: Sequence[object],
) -> CacheEntry | None:
    """Where these weights are cached; ``None`` for a state dict without a revision, which nothing tells from others."""
    if revision is None and isinstance(source, Mapping):
        return None
    # A repository may hold two networks of one class under one revision, in folders of their own.
    paths = [] if isinstance(source, Mapping) else [source] if isinstance(source, Path) else source
    origin: list[object] = [[path.name for path in paths], revision]
    if revision is None and not isinstance(source, Mapping):
        origin.append(fingerprints(source))
    name = f"{type(module).__module__}.{type(module).__name__}"
    return cache_entry(folder, name, storage, [*facts, origin], _plain(parts), json.dumps(origin))


def _names(parts: Split, rename: Callable[[str], str]) -> list[object]:
    """What of a module decides which bytes its slabs hold: groups, names here and in the files, shapes."""
    return [
        (block.name, [(t.names, [rename(n) for n in file_names(t)], list(t.value.shape)) for t in block.parameters])
        for block in _groups(parts)
    ]


def _plain(parts: Split) -> dict[str, tuple[str, ...]]:
    """The parameters of each group that are never quantised."""
    return {block.name: tuple(never_quantised(block)) for block in _groups(parts)}


def _groups(parts: Split) -> tuple[Block, ...]:
    """What belongs to no block as if it were one, then the blocks."""
    return Block(REST, nn.Module(), (*parts.rest, *parts.buffers)), *parts.blocks


def _assign(
    parts: Split,
    stored: Mapping[str, StoredTensor | Tensor],
    dtype: torch.dtype | None,
    fp32: Sequence[str],
    storage: Storage,
    rename: Callable[[str], str],
) -> tuple[dict[str, Layout], dict[str, dict[str, StoredTensor | Tensor]]]:
    """The layout of every group and where each of its parameters comes from."""
    groups: dict[str, Layout] = {}
    sources: dict[str, dict[str, StoredTensor | Tensor]] = {}
    buffers = {tensors.names[0] for tensors in parts.buffers}
    for block in _groups(parts):
        found: dict[str, StoredTensor | Tensor] = {}
        for tensors in block.parameters:
            source = next((stored[name] for name in map(rename, file_names(tensors)) if name in stored), None)
            if source is not None:
                found[tensors.names[0]] = _checked(source, tensors)
            elif tensors.value.is_meta and tensors.names[0] not in buffers:
                raise BadWeights(f"The weights lack {tensors.names[0]}.", "Get the files of this very model.")
        wanted = [
            (name, tuple(source.shape), _compute_dtype(name, source, dtype, fp32)) for name, source in found.items()
        ]
        groups[block.name] = lay_out(wanted, storage if block.name else "plain", plain=never_quantised(block))
        sources[block.name] = found
    return groups, sources


def file_names(tensors: Tensors) -> list[str]:
    """Names under which a file may hold a parameter: peft puts ``base_layer`` into those of layers that it wraps."""
    return [name.replace(".base_layer.", ".") for name in tensors.names]


def _checked(source: StoredTensor | Tensor, tensors: Tensors) -> StoredTensor | Tensor:
    if tuple(source.shape) != tuple(tensors.value.shape):
        raise BadWeights(
            f"{tensors.names[0]} has shape {list(source.shape)} in the file, {list(tensors.value.shape)} in the model.",
            "Get the files of this very model.",
        )
    return source


def _compute_dtype(name: str, source: StoredTensor | Tensor, dtype: torch.dtype | None, fp32: Sequence[str]) -> str:
    held = str(source.dtype).removeprefix("torch.")
    if dtype is None or held not in _FLOATS:
        return held
    return "float32" if any(part in name.split(".") for part in fp32) else str(dtype).removeprefix("torch.")
