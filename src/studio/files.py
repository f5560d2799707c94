"""Files that are whole or absent: written beside their place, flushed to the disk, then renamed."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from studio.errors import NoSpace
from studio.units import format_bytes

_BLOCK = 1 << 20


def sha256_of(path: Path, tick: Callable[[], None] = lambda: None) -> str:
    """The sha256 of a file, in hex. ``tick`` is called for each mebibyte read, so a face can stay alive."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            tick()
    return digest.hexdigest()


@contextmanager
def _room_for(path: Path, size_bytes: int) -> Iterator[Path]:
    """A temporary name beside ``path``; a full disk becomes one clear line and leaves nothing behind."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        yield temporary
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        free = shutil.disk_usage(path.parent).free
        raise NoSpace(
            f"No space for {path.name}: {format_bytes(size_bytes)} are needed, {format_bytes(free)} are free.",
            f"Free some space on the disk of {path.parent}, then run it again.",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole(path: Path, expected_bytes: int = 0) -> Iterator[Path]:
    """A name beside ``path`` to write to; the file gets its place when the block ends well, and none otherwise.

    ``expected_bytes`` is said to the person if the disk is full.
    """
    with _room_for(path, expected_bytes) as temporary:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    sync_folder(path.parent)


def write_whole(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``: after a crash the old file or the new one is there, never a part."""
    with _room_for(path, len(content)) as temporary:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    sync_folder(path.parent)


def copy_whole(source: Path, path: Path) -> None:
    """Copy a file so that ``path`` is whole or absent."""
    with _room_for(path, source.stat().st_size) as temporary:
        with source.open("rb") as reader, temporary.open("wb") as writer:
            shutil.copyfileobj(reader, writer, _BLOCK)
            writer.flush()
            os.fsync(writer.fileno())
        temporary.replace(path)
    sync_folder(path.parent)


def move_whole(source: Path, path: Path) -> None:
    """Move a file of the same disk to where others see it: flushed first, then by one rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb+") as file:
        os.fsync(file.fileno())
    source.replace(path)
    sync_folder(path.parent)


def sweep(folder: Path) -> None:
    """Remove the temporary files of processes that were killed while they wrote."""
    import psutil

    for part in folder.rglob(".*.part"):
        writer = part.name.split(".")[-3]
        if writer.isdigit() and not psutil.pid_exists(int(writer)):
            part.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename last. Windows has no such call and does not need it."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
