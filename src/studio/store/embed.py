"""The recipe inside the file itself, where the format has a place for text. Pixels are not touched.

PNG: an ``iTXt`` chunk with the keyword ``studio`` before the first ``IDAT`` (PNG specification, 3rd edition, 11.3.3.4).
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from studio.files import write_whole

KEYWORD = b"studio"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_RECIPE_BYTES = 512 * 1024
"""Pillow refuses to open a picture with more than 1 MiB of text in one chunk; a longer recipe stays beside it only."""


def embed(path: Path, media_type: str, recipe: dict[str, Any]) -> None:
    """Write ``recipe`` into the file, whole or not at all; formats without a place for it stay as they are."""
    if media_type != "image/png":
        return
    text = json.dumps(recipe, ensure_ascii=False, separators=(",", ":")).encode()
    if len(text) > _MAX_RECIPE_BYTES:
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
            bodies = list(_texts(file))
    except (OSError, struct.error):
        return None
    for body in bodies:
        keyword, _, rest = body.partition(b"\0")
        if keyword != KEYWORD or len(rest) < 4:
            continue
        _language, _, rest_of = rest[2:].partition(b"\0")
        _translated, _, text = rest_of.partition(b"\0")
        try:
            found = json.loads(_inflated(text) if rest[0] else text)
        except (ValueError, zlib.error, RecursionError):
            return None
        return found if isinstance(found, dict) else None
    return None


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
