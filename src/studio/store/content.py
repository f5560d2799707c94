"""The content hash: sha256 over what was made, without metadata, so that a recipe can be checked by repeating it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from studio.store.files import sha256_of


def content_sha256(path: Path, media_type: str) -> str:
    """Text: its UTF-8 bytes. Pictures: mode, size and pixels. Anything else: the file's bytes."""
    if media_type.startswith("image/"):
        return _pixels(path)
    return sha256_of(path)


def _pixels(path: Path) -> str:
    from PIL import Image

    with Image.open(path) as image:
        digest = hashlib.sha256(f"{image.mode} {image.width} {image.height}\n".encode())
        digest.update(image.tobytes())
    return digest.hexdigest()
