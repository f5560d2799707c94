"""Where the bytes of a block come from: a model's own safetensors, cast or quantised on the way, or a cache file.

A reader fills any stretch of a block, as ``storage.portions`` cuts it, so that a block larger than a buffer passes
through that buffer. Files are read, or mapped copy-on-write and copied from (a read-only mapping cannot become a
tensor); nothing ever writes to them.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from studio.errors import BadWeights
from studio.memory.slab_files import StoredTensor
from studio.memory.storage import Entry, Layout, item_bytes
from studio.memory.stream_codecs import encode

_READ_BYTES = 64 * 1024**2
_CAST_BYTES = 16 * 1024**2
"""What is cast passes through a buffer of this size, one for each thread that reads."""


class Reader(Protocol):
    """Brings the bytes of groups into host memory."""

    def read(self, name: str, out: Tensor, begin: int = 0) -> None:
        """Fill ``out`` (uint8, contiguous, host) with the group's bytes from ``begin`` on. Padding is left alone."""

    def map(self, names: Iterable[str]) -> None:
        """From now on copy these groups out of mapped files; others cannot be read any more."""

    def close(self) -> None:
        """Let the files go. May be called twice."""


class ModelReader:
    """From the files of a model, or from a state dict: ``sources`` says where each parameter of a group comes from."""

    def __init__(
        self, layouts: Mapping[str, Layout], sources: Mapping[str, Mapping[str, StoredTensor | Tensor]]
    ) -> None:
        self._layouts = layouts
        self._sources = dict(sources)
        self._files: dict[Path, Tensor] = {}

    def read(self, name: str, out: Tensor, begin: int = 0) -> None:
        end = begin + out.numel()
        with torch.no_grad():
            for entry in self._layouts[name].entries:
                first, last = max(begin, entry.offset), min(end, entry.offset + entry.size_bytes)
                if first < last:
                    place = out[first - begin : last - begin]
                    self._bring(self._sources[name][entry.name], entry, first - entry.offset, place)

    def map(self, names: Iterable[str]) -> None:
        self._sources = {name: self._sources[name] for name in names}
        for group in self._sources.values():
            for source in group.values():
                if isinstance(source, StoredTensor) and source.path not in self._files and source.size_bytes:
                    self._files[source.path] = map_file(source.path)

    def close(self) -> None:
        self._sources.clear()
        self._files.clear()

    def _bring(self, source: StoredTensor | Tensor, entry: Entry, skip: int, place: Tensor) -> None:
        """Fill ``place`` with a parameter as it is stored, from its byte ``skip`` on."""
        if entry.storage != "plain":
            if place.numel() != entry.size_bytes:
                raise ValueError(f"{entry.name} is quantised, so it can only be read as a whole")
            self._encode(source, entry, place)
            return
        dtype: torch.dtype = getattr(torch, entry.dtype)
        first, count = skip // dtype.itemsize, place.numel() // dtype.itemsize
        if isinstance(source, Tensor):
            place.view(dtype).copy_(source.detach().flatten()[first : first + count])
        elif source.path in self._files:
            begin, width = source.offset + first * item_bytes(source.dtype), item_bytes(source.dtype)
            data = self._files[source.path][begin : begin + count * width]
            if source.dtype == entry.dtype:
                place.copy_(data)
            else:
                place.view(dtype).copy_(_typed(data, source.dtype))
        elif source.dtype == entry.dtype:
            read_exactly(source, skip, place)
        else:
            _read_cast(source, first, place.view(dtype))

    def _encode(self, source: StoredTensor | Tensor, entry: Entry, place: Tensor) -> None:
        if isinstance(source, StoredTensor):
            if source.path in self._files:
                data = self._files[source.path][source.offset : source.offset + source.size_bytes]
            else:
                data = torch.empty(source.size_bytes, dtype=torch.uint8)
                read_exactly(source, 0, data)
            weight = _typed(data, source.dtype).view(source.shape)
        else:
            weight = source
        try:
            encode(weight, entry.storage, place)
        except ValueError as error:
            raise BadWeights(
                f"{entry.name} cannot be kept as {entry.storage}: {error}.", "Use plain storage."
            ) from error


class StoredReader:
    """From a file that holds every group exactly as it lies in memory: one contiguous stretch each."""

    def __init__(self, groups: Mapping[str, StoredTensor]) -> None:
        self._groups = dict(groups)
        self._files: dict[Path, Tensor] = {}

    def read(self, name: str, out: Tensor, begin: int = 0) -> None:
        group = self._groups[name]
        if group.path in self._files:
            out.copy_(self._files[group.path][group.offset + begin : group.offset + begin + out.numel()])
        else:
            read_exactly(group, begin, out)

    def map(self, names: Iterable[str]) -> None:
        self._groups = {name: self._groups[name] for name in names}
        self._files = {path: map_file(path) for path in {group.path for group in self._groups.values()}}

    def close(self) -> None:
        self._groups.clear()
        self._files.clear()


def map_file(path: Path) -> Tensor:
    """The file's bytes, uint8, as the page cache holds them. It must not be shortened while it is mapped."""
    with path.open("rb") as file:
        view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    return torch.frombuffer(view, dtype=torch.uint8)


def read_exactly(source: StoredTensor, begin: int, out: Tensor) -> None:
    """Fill ``out`` (uint8, contiguous, host) with the tensor's bytes from ``begin`` on."""
    place = memoryview(out.numpy().data)
    with source.path.open("rb", buffering=0) as file:
        file.seek(source.offset + begin)
        while place:
            count = file.readinto(place[:_READ_BYTES])
            if not count:
                raise BadWeights(f"{source.path.name} became shorter while it was read.", "Get the file again.")
            place = place[count:]


def _read_cast(source: StoredTensor, first: int, out: Tensor) -> None:
    """Read elements from ``first`` on in portions and cast into ``out`` (flat, compute type)."""
    width, numel = item_bytes(source.dtype), prod(out.shape)
    step = _CAST_BYTES // width
    portion = torch.empty(min(step, numel) * width, dtype=torch.uint8)
    for done in range(0, numel, step):
        count = min(step, numel - done)
        read_exactly(source, (first + done) * width, portion[: count * width])
        out[done : done + count].copy_(portion[: count * width].view(getattr(torch, source.dtype)))


def _typed(data: Tensor, dtype: str) -> Tensor:
    """``data`` (uint8) as elements of its type, copied if a tensor of that type cannot begin at its address."""
    if data.data_ptr() % item_bytes(dtype) or data.storage_offset() % item_bytes(dtype):
        data = data.clone()
    return data.view(getattr(torch, dtype))
