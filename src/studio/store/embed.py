"""The recipe inside the file itself, where the format has a place for text. Pixels and packets are not touched.

PNG: an ``iTXt`` chunk with the keyword ``studio`` before the first ``IDAT`` (PNG specification, 3rd edition, 11.3.3.4).
MP4: a box ``uuid`` of our own behind the last one (ISO/IEC 14496-12, 4.2 and 11.1); players pass over it.
"""

from __future__ import annotations

import errno
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from studio.files import write_whole

KEYWORD = b"studio"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BOX_ID = bytes.fromhex("9b5ad1c8f4a34e0fae10c6e7c1d0b7f2")
"""Drawn once at random: the ``uuid`` box that holds a recipe of Studio."""
_MAX_BOXES = 1000
_MAX_RECIPE_BYTES = 512 * 1024
"""Pillow refuses to open a picture with more than 1 MiB of text in one chunk; a longer recipe stays beside it only."""


def embed(path: Path, media_type: str, recipe: dict[str, Any]) -> None:
    """Write ``recipe`` into the file, whole or not at all; formats without a place for it stay as they are."""
    if media_type not in ("image/png", "video/mp4"):
        return
    text = json.dumps(recipe, ensure_ascii=False, separators=(",", ":")).encode()
    if len(text) > _MAX_RECIPE_BYTES:
        return
    if media_type == "video/mp4":
        _append_box(path, zlib.compress(text))
        return
    data = path.read_bytes()
    # keyword, 0, compressed, method, language, 0, translated keyword, 0, text
    body = KEYWORD + b"\0" + b"\1\0" + b"\0" + b"\0" + zlib.compress(text)
    chunk = struct.pack(">I", len(body)) + b"iTXt" + body + struct.pack(">I", zlib.crc32(b"iTXt" + body))
    place = data.find(b"IDAT") - 4
    if not data.startswith(_SIGNATURE) or place < len(_SIGNATURE):
        return
    write_whole(path, data[:place] + chunk + data[place:])


def embedded(path: Path) -> dict[str, Any] | None:
    """The recipe that is in a file; ``None`` where there is none, or none that can be read."""
    try:
        with path.open("rb") as file:
            text = _text(file)
        found = json.loads(text) if text is not None else None
    except (OSError, struct.error, ValueError, zlib.error, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _text(file: BinaryIO) -> bytes | None:
    """The recipe as it was written, of a PNG or an MP4."""
    for body in list(_texts(file)):
        keyword, _, rest = body.partition(b"\0")
        if keyword != KEYWORD or len(rest) < 4:
            continue
        _language, _, rest_of = rest[2:].partition(b"\0")
        _translated, _, text = rest_of.partition(b"\0")
        return _inflated(text) if rest[0] else text
    for kind, start, end in _boxes(file):
        length = end - start - 16
        if kind == b"uuid" and 0 < length <= _MAX_RECIPE_BYTES:
            file.seek(start)
            if file.read(16) == _BOX_ID:
                return _inflated(file.read(length))
    return None


def _append_box(path: Path, body: bytes) -> None:
    """One box more at the end; one that is there from an earlier attempt goes. A full disk leaves the film whole."""
    with path.open("rb+") as file:
        end = max((end for kind, start, end in _boxes(file) if not _ours(file, kind, start)), default=0)
        if not end:
            return
        try:
            file.seek(end)
            file.write(struct.pack(">I4s", 24 + len(body), b"uuid") + _BOX_ID + body)
            file.flush()
            file.truncate()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            file.truncate(end)


def _ours(file: BinaryIO, kind: bytes, start: int) -> bool:
    file.seek(start)
    return kind == b"uuid" and file.read(16) == _BOX_ID


def _boxes(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the content of each outermost box of an MP4; none of a file that is none."""
    size = file.seek(0, 2)
    place = 0
    for number in range(_MAX_BOXES):
        file.seek(place)
        head = file.read(16)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head[:8])
        start = place + 8
        if length == 1 and len(head) == 16:  # the length did not fit into 32 bits
            length, start = struct.unpack(">Q", head[8:])[0], place + 16
        elif length == 0:  # to the end of the file
            length = size - place
        if (number == 0 and kind != b"ftyp") or length < start - place or place + length > size:
            return
        place += length
        yield kind, start, place


def _inflated(text: bytes) -> bytes:
    """Never more than a recipe can be: a small file may claim to hold gigabytes."""
    reader = zlib.decompressobj()
    found = reader.decompress(text, _MAX_RECIPE_BYTES)
    if reader.unconsumed_tail:
        raise ValueError("too long for a recipe")
    return found


def _texts(file: BinaryIO) -> Iterator[bytes]:
    """The bodies of all ``iTXt`` chunks before the pixels."""
    if file.read(8) != _SIGNATURE:
        return
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind in (b"IDAT", b"IEND") or length > _MAX_RECIPE_BYTES:
            return
        body = file.read(length)
        file.seek(4, 1)
        if kind == b"iTXt":
            yield body
