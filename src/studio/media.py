"""What a file really is: decided by its first bytes, never by its name."""

from __future__ import annotations

import codecs
import json
import warnings
from pathlib import Path

from studio.containers import check_media, is_media
from studio.errors import BadRequest

MAX_PIXELS = 40_000_000

# (offset, bytes, media type); the first that matches wins.
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF8", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (8, b"AVI ", "video/x-msvideo"),
    (8, b"WAVE", "audio/wav"),
    (0, b"fLaC", "audio/flac"),
    (0, b"OggS", "audio/ogg"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"\xff\xfb", "audio/mpeg"),
    (0, b"\xff\xfa", "audio/mpeg"),
    (0, b"\xff\xf3", "audio/mpeg"),
    (0, b"\xff\xf2", "audio/mpeg"),
    (0, b"glTF", "model/gltf-binary"),
    (4, b"ftypM4A", "audio/mp4"),
    (4, b"ftypqt", "video/quicktime"),
    (4, b"ftypheic", "image/heic"),
    (4, b"ftypavif", "image/avif"),
    (4, b"ftyp", "video/mp4"),
    (0, b"\x1aE\xdf\xa3", "video/webm"),
    (0, b"GGUF", "application/x-gguf"),
    (0, b"%PDF", "application/pdf"),
    (0, b"PK\x03\x04", "application/zip"),
    (0, b"\x80\x02", "application/x-pickle"),
    (0, b"\x80\x04", "application/x-pickle"),
)

# Python's own table differs between platforms; these are the extensions that Studio writes.
EXTENSIONS = {
    "text/plain": ".txt",
    "application/json": ".json",
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/webp": ".webp",
    "image/gif": ".gif",
    "audio/wav": ".wav",
    "audio/flac": ".flac",
    "audio/ogg": ".ogg",
    "audio/mpeg": ".mp3",
    "audio/mp4": ".m4a",
    "video/mp4": ".mp4",
    "video/webm": ".webm",
    "model/gltf-binary": ".glb",
    "application/pdf": ".pdf",
}


def extension(media_type: str) -> str:
    """``"image/png"`` -> ``".png"``; ``".bin"`` for a type that Studio does not know."""
    return EXTENSIONS.get(media_type, ".bin")


def sniff(path: Path) -> str:
    """The media type of a file. Text is what decodes as UTF-8 without a NUL; the rest is ``octet-stream``."""
    with path.open("rb") as file:
        head = file.read(4096)
    for offset, magic, media_type in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return "video/x-matroska" if media_type == "video/webm" and b"webm" not in head[:64] else media_type
    try:
        # A multi-byte character may be cut at the end of the window.
        codecs.getincrementaldecoder("utf-8")().decode(head, final=len(head) < 4096)
    except UnicodeDecodeError:
        return "application/octet-stream"
    return "application/octet-stream" if b"\0" in head else "text/plain"


def check_input(path: Path, accept: tuple[str, ...], name: str) -> str:
    """The media type of an input file, or ``BadRequest``: missing, of another type, broken, or too large."""
    try:
        if not path.is_file():
            raise BadRequest(f"{name}: there is no file {str(path)!r}.", "Give the path of an existing file.")
        media_type = sniff(path)
        if media_type == "text/plain" and "application/json" in accept and _is_json(path):
            media_type = "application/json"
    except OSError as error:  # not readable, or a name that no system would take
        what = f"{name}: {str(path)[:200]!r} cannot be read: {error.strerror}."
        raise BadRequest(what, "Give the path of an existing file.") from error
    if accept and media_type not in accept:
        raise BadRequest(
            f"{name}: {path.name!r} is {media_type} by its content.", f"Accepted here: {', '.join(accept)}."
        )
    if media_type.startswith("image/"):
        _check_pixels(path, name)
    elif is_media(media_type):
        check_media(path, media_type, name)
    return media_type


def _is_json(path: Path) -> bool:
    """JSON has no first bytes of its own: it is text that parses."""
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return False
    return True


def _check_pixels(path: Path, name: str) -> None:
    """Read the size from the header only: decoding a bomb would be too late."""
    from PIL import Image, UnidentifiedImageError

    limit = f"{MAX_PIXELS // 1_000_000} megapixels"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                width, height = image.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadRequest(f"{name}: {path.name!r} has more than {limit}.", "Scale it down first.") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise BadRequest(f"{name}: {path.name!r} is a broken picture.", "Give a picture that opens.") from error
    if width * height > MAX_PIXELS:
        raise BadRequest(
            f"{name}: {path.name!r} has {width} × {height} pixels; the limit is {limit}.", "Scale it down first."
        )
