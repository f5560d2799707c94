"""The content hash: sha256 over what was made, without metadata, so that a recipe can be checked by repeating it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from studio.errors import BadRequest
from studio.files import sha256_of
from studio.film.packets import packets_sha256
from studio.media import check_input, sniff

FILMS = ("video/mp4", "video/webm")


def content_sha256(path: Path, media_type: str) -> str:
    """Text: its UTF-8 bytes. Pictures: mode, size and pixels of every frame. Films: the packets of pictures and sound.
    Anything else: the file's bytes."""
    if media_type.startswith("image/"):
        return _pixels(path)
    if media_type in FILMS:
        return packets_sha256(path)
    return sha256_of(path)


def content_of(path: Path) -> str:
    """The content hash of a file of unknown origin; one that only looks like a picture or a film is hashed as bytes."""
    media_type = sniff(path)
    if media_type.startswith("image/") or media_type in FILMS:
        try:
            check_input(path, (), "file")
            return content_sha256(path, media_type)
        except (BadRequest, OSError, ValueError, SyntaxError, ArithmeticError, LookupError):
            pass
    return sha256_of(path)


def _pixels(path: Path) -> str:
    from PIL import Image, ImageSequence

    with Image.open(path) as image:
        digest = hashlib.sha256(f"{image.mode} {image.width} {image.height}\n".encode())
        for frame in ImageSequence.Iterator(image):
            # Indices into a palette say nothing without the palette.
            digest.update((frame.convert("RGBA") if frame.mode == "P" else frame).tobytes())
    return digest.hexdigest()
