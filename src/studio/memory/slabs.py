"""A model's weights in host memory, one contiguous stretch per block, read straight from safetensors.

In RAM, blocks lie in slabs of up to 256 MB (a larger block has a slab of its own), each an anonymous mapping of exactly
the bytes needed, which CUDA locks in place with ``cudaHostRegister``: ``pin_memory()`` would round every allocation up
to a power of two. Files are read into that memory directly; only what is cast or quantised passes through a buffer.
On disk (``mapped``), nothing is copied or locked: blocks are gathered from the mapped files when they are needed, and
the page cache keeps what it can. A mapped file must not be shortened while it is in use (the system ends the process).
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn

from studio.errors import BadWeights, DoesNotFit
from studio.memory.slab_files import StoredTensor, read_headers
from studio.memory.storage import Entry, Layout, Storage, item_bytes, lay_out
from studio.memory.stream_blocks import Block, Split, Tensors, kept_in_fp32, never_quantised, split
from studio.memory.stream_codecs import encode
from studio.units import format_bytes

SLAB_BYTES = 256 * 1024**2
REST = ""
"""The name of the group that holds what belongs to no block: it is always resident."""

_READ_BYTES = 64 * 1024**2
_FLOATS = ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")

Source = Path | Iterable[Path] | Mapping[str, Tensor]


def load_slabs(
    source: Source,
    module: nn.Module,
    *,
    blocks: Sequence[str] | None = None,
    dtype: torch.dtype | None = None,
    storage: Storage = "plain",
    mapped: bool = False,
    pinned: bool | None = None,
    rename: Callable[[str], str] | None = None,
    threads: int = 2,
) -> Slabs:
    """Read the weights of ``module`` (its names and shapes; its own values are not looked at) for streaming.

    ``source`` is a safetensors file, a folder, an index, several files, or a state dict. ``blocks`` as in ``split``.
    ``dtype`` is the type to compute with (``None``: as stored; parts that the class wants in fp32 are kept so).
    ``rename`` turns a parameter's name into the file's. ``pinned`` defaults to whether there is a CUDA device.
    Raises ``BadWeights`` if the source lacks a parameter, has another shape, or is damaged; ``DoesNotFit`` if the
    memory cannot be had or locked.
    """
    stored = dict(source) if isinstance(source, Mapping) else read_headers(source)
    parts = split(module, blocks)
    fp32 = [] if dtype is None else kept_in_fp32(module, dtype)
    groups, sources = _assign(parts, stored, dtype, fp32, storage, rename or (lambda name: name))
    slabs = Slabs(groups, sources, storage)
    try:
        if mapped:
            slabs._map()
        else:
            slabs._fill(torch.cuda.is_available() if pinned is None else pinned, threads)
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
        self, groups: dict[str, Layout], sources: dict[str, dict[str, StoredTensor | Tensor]], storage: Storage
    ) -> None:
        self.layouts = groups
        self.storage: Storage = storage
        self.mapped = False
        self.pinned = False
        self.size_bytes = 0
        self._sources = sources
        self._files: dict[Path, Tensor] = {}
        self._slabs: list[_Slab] = []
        self._place: dict[str, Tensor] = {}

    @property
    def blocks(self) -> list[str]:
        """Names of the blocks, in order of definition."""
        return [name for name in self.layouts if name != REST]

    def stored(self, name: str) -> Tensor:
        """The bytes of a block in RAM: uint8 of (``stored_bytes``,), a view of its slab. Not for mapped weights."""
        return self._place[name]

    def read_into(self, name: str, out: Tensor) -> None:
        """Copy a block's bytes into ``out``: uint8 of (``stored_bytes``,) in host memory."""
        if not self.mapped:
            out.copy_(self._place[name])
            return
        for entry in self.layouts[name].entries:
            self._write(name, entry, out)

    def close(self) -> None:
        """Give the memory back. May be called twice."""
        self._place.clear()
        self._files.clear()
        self._sources.clear()
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

    def _map(self) -> None:
        """Map the files copy-on-write (a read-only mapping cannot become a tensor); nothing ever writes to them."""
        self.mapped = True
        if self.storage != "plain":
            raise ValueError("weights on disk are kept as they are: use storage='plain'")
        for group in self._sources.values():
            for source in group.values():
                if isinstance(source, StoredTensor) and source.path not in self._files and source.size_bytes:
                    with source.path.open("rb") as file:
                        view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
                    self._files[source.path] = torch.frombuffer(view, dtype=torch.uint8)

    def _fill(self, pinned: bool, threads: int) -> None:
        """Allocate, lock and read, some slabs at a time: one waits for the disk while another is being locked."""
        members = _packed(self.layouts)
        for names in members:
            slab = _Slab(sum(self.layouts[name].stored_bytes for name in names))
            self._slabs.append(slab)
            self.size_bytes += slab.size_bytes
            begin = 0
            for name in names:
                end = begin + self.layouts[name].stored_bytes
                self._place[name] = slab.data[begin:end]
                begin = end
        with ThreadPoolExecutor(max_workers=max(1, threads), thread_name_prefix="slabs") as pool:
            work = [pool.submit(self._fill_slab, *item, pinned) for item in zip(self._slabs, members, strict=True)]
            try:
                for future in work:
                    future.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        self.pinned = pinned
        self._sources.clear()

    def _fill_slab(self, slab: _Slab, names: list[str], pinned: bool) -> None:
        if pinned:
            slab.pin()
        with torch.no_grad():
            for name in names:
                for entry in self.layouts[name].entries:
                    self._write(name, entry, self._place[name])

    def _write(self, group: str, entry: Entry, out: Tensor) -> None:
        """Bring one parameter from its source to its place in ``out``, the bytes of its block."""
        source = self._sources[group][entry.name]
        place = out[entry.offset : entry.offset + entry.size_bytes]
        if entry.storage != "plain":
            encode(source if isinstance(source, Tensor) else _read(source), entry.storage, place)
        elif isinstance(source, Tensor):
            place.view(_dtype(entry.dtype)).copy_(source.detach().flatten())
        elif source.path in self._files:
            _from_file(self._files[source.path], source, entry, place)
        elif source.dtype == entry.dtype:
            _read_exactly(source, 0, place)
        else:
            _read_cast(source, place.view(_dtype(entry.dtype)))


class _Slab:
    """An anonymous mapping of ``size_bytes``, as a uint8 tensor; given back to the system when its last view goes."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._locked_at: int | None = None
        try:
            if sys.platform == "win32":
                memory = mmap.mmap(-1, max(1, size_bytes))
            else:
                memory = mmap.mmap(-1, max(1, size_bytes), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, ValueError, OverflowError):
            raise DoesNotFit(f"{format_bytes(size_bytes)} of RAM cannot be had.", _LESS) from None
        self.data: Tensor = torch.frombuffer(memory, dtype=torch.uint8)[:size_bytes]

    def pin(self) -> None:
        """Lock the pages, so that CUDA copies from them at the full speed of the bus and without waiting."""
        if not self.size_bytes:
            return
        code = torch.cuda.cudart().cudaHostRegister(self.data.data_ptr(), self.size_bytes, _PORTABLE)  # type: ignore[no-untyped-call]
        if int(code) != 0:
            raise DoesNotFit(f"The system does not lock {format_bytes(self.size_bytes)} of RAM (CUDA {code}).", _LESS)
        self._locked_at = self.data.data_ptr()

    def close(self) -> None:
        if self._locked_at is not None:
            torch.cuda.cudart().cudaHostUnregister(self._locked_at)  # type: ignore[no-untyped-call]
            self._locked_at = None
        self.data = torch.empty(0, dtype=torch.uint8)


_LESS = "Use 8-bit storage, or leave the weights on disk."
_PORTABLE = 1  # cudaHostRegisterPortable: locked for every device


def _packed(layouts: Mapping[str, Layout]) -> list[list[str]]:
    """Which blocks share a slab: neighbours, up to ``SLAB_BYTES`` together."""
    slabs: list[list[str]] = []
    held = SLAB_BYTES
    for name, layout in layouts.items():
        if not slabs or held + layout.stored_bytes > SLAB_BYTES:
            slabs.append([])
            held = 0
        slabs[-1].append(name)
        held += layout.stored_bytes
    return slabs


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
    rest = Block(REST, nn.Module(), (*parts.rest, *parts.buffers))
    buffers = {tensors.names[0] for tensors in parts.buffers}
    for block in (rest, *parts.blocks):
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
        groups[block.name] = lay_out(wanted, "plain" if block is rest else storage, plain=never_quantised(block))
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


def _dtype(name: str) -> torch.dtype:
    found: torch.dtype = getattr(torch, name)
    return found


def _read_exactly(source: StoredTensor, begin: int, out: Tensor) -> None:
    """Fill ``out`` (uint8, contiguous, host) with the tensor's bytes from ``begin`` on."""
    place = memoryview(out.numpy().data)
    with source.path.open("rb", buffering=0) as file:
        file.seek(source.offset + begin)
        while place:
            count = file.readinto(place[:_READ_BYTES])
            if not count:
                raise BadWeights(f"{source.path.name} became shorter while it was read.", "Get the file again.")
            place = place[count:]


def _read(source: StoredTensor) -> Tensor:
    """The whole tensor in memory of its own, as stored."""
    data = torch.empty(source.size_bytes, dtype=torch.uint8)
    _read_exactly(source, 0, data)
    return data.view(_dtype(source.dtype)).view(source.shape)


def _read_cast(source: StoredTensor, out: Tensor) -> None:
    """Read in portions and cast into ``out`` (flat, compute type)."""
    width, numel = item_bytes(source.dtype), prod(source.shape)
    step = _READ_BYTES // width
    portion = torch.empty(min(step, numel) * width, dtype=torch.uint8)
    for first in range(0, numel, step):
        count = min(step, numel - first)
        _read_exactly(source, first * width, portion[: count * width])
        out[first : first + count].copy_(portion[: count * width].view(_dtype(source.dtype)))


def _from_file(file: Tensor, source: StoredTensor, entry: Entry, out: Tensor) -> None:
    """Copy, and cast if asked, from a mapped file (uint8) to ``out`` (uint8)."""
    data = file[source.offset : source.offset + source.size_bytes]
    if source.dtype == entry.dtype:
        out.copy_(data)
        return
    if source.offset % item_bytes(source.dtype):
        data = data.clone()  # a tensor of this type cannot begin here
    out.view(_dtype(entry.dtype)).copy_(data.view(_dtype(source.dtype)))
