"""Quantised weights kept on disk, so that they are quantised once: one safetensors file for each model and storage.

A file holds every group of blocks as one uint8 tensor, exactly the bytes that lie in a slab, and says in its metadata
what they are. Its name is a hash of all that they depend on, so a file is never out of date, only unused. It appears
whole or not at all (written beside its place, flushed, renamed), and two processes that make the same one do no harm.
What cannot be read or written is a line in the log: the weights are then quantised anew.

The file is written here rather than by the safetensors library, whose ``save_file`` wants all tensors in memory at
once. Format: https://github.com/huggingface/safetensors (README, "Format").
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from studio.errors import BadWeights
from studio.files import sweep, sync_folder
from studio.memory.slab_files import StoredTensor, read_headers, read_metadata
from studio.memory.storage import ALIGNMENT, Layout, Storage, lay_out
from studio.units import format_bytes

log = logging.getLogger(__name__)

FORMAT = 1
"""Raised whenever a codec or a layout changes: older files are then not found any more."""

_SUFFIX = ".slabs.safetensors"
_GROUP = "group."  # begins the names of tensors, because the group of what is in no block has an empty name


class Damaged(Exception):
    """A cache file does not hold what it says."""


@dataclass(frozen=True)
class CacheEntry:
    """The cache file of one model and storage: its place, and what its groups are if it is whole.

    ``plain`` names the parameters of each group that are never quantised; groups are in order.
    """

    path: Path
    key: str
    storage: Storage
    plain: Mapping[str, tuple[str, ...]]
    made_from: str


@dataclass(frozen=True)
class Cached:
    """An opened cache file: layouts and bytes by group, and the sum of each group's bytes as 64-bit words."""

    path: Path
    layouts: dict[str, Layout]
    groups: dict[str, StoredTensor]
    sums: dict[str, str]

    def check(self, name: str, data: Tensor) -> None:
        """Raise ``Damaged`` if these are not the bytes that were written."""
        if _sum(data) != self.sums[name]:
            raise Damaged(f"the bytes of {name or 'the rest'} are not those that were written")


@dataclass(frozen=True)
class CacheFile:
    """A file in the cache's folder. ``used_ns`` is when it was last made or opened."""

    path: Path
    size_bytes: int
    used_ns: int


def cache_entry(
    folder: Path, class_name: str, storage: Storage, facts: object, plain: Mapping[str, tuple[str, ...]], made_from: str
) -> CacheEntry:
    """The place of a model's cache file. ``facts``: all that its bytes depend on, as plain data."""
    key = hashlib.sha256(json.dumps([FORMAT, class_name, storage, facts]).encode()).hexdigest()
    name = f"{class_name.rpartition('.')[2]}-{storage}-{key[:32]}{_SUFFIX}"
    return CacheEntry(folder / name, key, storage, plain, made_from)


def open_cached(entry: CacheEntry) -> Cached | None:
    """The cache file, marked as used now; ``None`` if there is none, or a damaged or foreign one, which is removed."""
    try:
        if not entry.path.is_file():
            return None
        cached = _opened(entry)
        os.utime(entry.path)
    except (BadWeights, Damaged) as error:
        discard(entry, error)
        return None
    except OSError as error:
        log.warning("%s cannot be read: %s; the weights are quantised anew", entry.path, error)
        return None
    return cached


def discard(entry: CacheEntry, why: Exception) -> None:
    """Say why a cache file is of no use, and remove it."""
    log.warning("%s is of no use: %s; the weights are quantised anew", entry.path, why)
    with suppress(OSError):
        entry.path.unlink(missing_ok=True)


def _opened(entry: CacheEntry) -> Cached:
    """Layouts are worked out again from names, shapes and types, so a file of another layout cannot pass."""
    said, tensors = read_metadata(entry.path), read_headers(entry.path)
    if said.get("format") != str(FORMAT) or said.get("key") != entry.key:
        raise Damaged("it is not the file that its name promises")
    try:
        layouts = {
            name: lay_out([(n, tuple(shape), dtype) for n, shape, dtype in items], _storage(entry, name), plain=kept)
            for name, kept in entry.plain.items()
            for items in [json.loads(said["layout"])[name]]
        }
        sums = {name: str(value) for name, value in json.loads(said["sums"]).items()}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        raise Damaged("its metadata is not whole") from None
    groups = {name: tensors.get(_GROUP + name) for name in layouts}
    whole = {name: found for name, found in groups.items() if found is not None and found.dtype == "uint8"}
    if any(name not in sums or layouts[name].stored_bytes != whole[name].size_bytes for name in whole):
        raise Damaged("its blocks have other sizes than they should")
    if len(whole) < len(layouts):
        raise Damaged("it lacks blocks")
    return Cached(entry.path, layouts, whole, sums)


def write_cached(entry: CacheEntry, layouts: Mapping[str, Layout], bring: Callable[[str], Tensor]) -> Cached | None:
    """Write a cache file, whole or not at all. ``bring`` returns a group's bytes (uint8, host), valid until the next.

    Returns it opened; ``None``, with a line in the log, if the disk is full or cannot be written.
    """
    if made := open_cached(entry):
        return made  # another process was quicker
    part = entry.path.with_name(f".{entry.path.name}.{os.getpid()}.{threading.get_ident()}.part")
    size = sum(layout.stored_bytes for layout in layouts.values())
    try:
        entry.path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(entry.path.parent).free
        if free < size:
            log.warning("no quantised copy at %s: it needs %s of %s", part, format_bytes(size), format_bytes(free))
            return None
        with part.open("wb") as file:
            _write(file, entry, layouts, bring)
            file.flush()
            os.fsync(file.fileno())
        part.replace(entry.path)
        sync_folder(entry.path.parent)
        return _opened(entry)
    except (OSError, Damaged) as error:
        log.warning("no quantised copy at %s: %s", entry.path, error)
        return None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _write(file: BinaryIO, entry: CacheEntry, layouts: Mapping[str, Layout], bring: Callable[[str], Tensor]) -> None:
    """The header first without sums, to be written again with them: they are as long, and known only at the end."""
    sums = dict.fromkeys(layouts, "0" * 16)
    file.write(_header(entry, layouts, sums))
    for name, layout in layouts.items():
        data = bring(name)[: layout.stored_bytes]
        sums[name] = _sum(data)
        file.write(memoryview(data.numpy().data))
    file.seek(0)
    file.write(_header(entry, layouts, sums))


def _header(entry: CacheEntry, layouts: Mapping[str, Layout], sums: Mapping[str, str]) -> bytes:
    parts = {name: [(e.name, e.shape, e.dtype) for e in layout.entries] for name, layout in layouts.items()}
    said = {
        "format": str(FORMAT), "key": entry.key, "storage": entry.storage, "made_from": entry.made_from,
        "layout": json.dumps(parts), "sums": json.dumps(sums),
    }  # fmt: skip
    header: dict[str, object] = {"__metadata__": said}
    end = 0
    for name, layout in layouts.items():
        begin, end = end, end + layout.stored_bytes
        header[_GROUP + name] = {"dtype": "U8", "shape": [layout.stored_bytes], "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def _storage(entry: CacheEntry, name: str) -> Storage:
    return entry.storage if name else "plain"


def _sum(data: Tensor) -> str:
    """The bytes as 64-bit words, added up: quick enough for each reading, and zeroed or torn pages show."""
    return f"{int(data.view(torch.int64).sum()) % 2**64:016x}"


def list_cache(folder: Path) -> list[CacheFile]:
    """The cache files in ``folder``, least recently used first."""
    found = []
    for path in folder.glob(f"*{_SUFFIX}"):
        with suppress(OSError):  # somebody removed it meanwhile
            facts = path.stat()
            found.append(CacheFile(path, facts.st_size, facts.st_mtime_ns))
    return sorted(found, key=lambda file: file.used_ns)


def trim_cache(folder: Path, max_bytes: int) -> list[Path]:
    """Remove cache files, least recently used first, until they take at most ``max_bytes``; returns the removed ones.

    Also removes what processes that were killed left half written. A file that is mapped now stays readable for who
    has mapped it; where the system does not allow its removal it stays, with a line in the log.
    """
    sweep(folder)
    files = list_cache(folder)
    total, removed = sum(file.size_bytes for file in files), []
    for file in files:
        if total <= max_bytes:
            break
        try:
            file.path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s cannot be removed: %s", file.path, error)
            continue
        total -= file.size_bytes
        removed.append(file.path)
    return removed
