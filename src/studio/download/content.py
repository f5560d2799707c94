"""What may be a model file: by its name, by its first bytes, by its hash.

A name proves nothing and a scanner for bad pickles can be fooled, so nothing that can hold a pickle is accepted
at all: the name must be on the list, and the content must be what the name says.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path, PurePosixPath

from studio.errors import BadWeights
from studio.units import format_bytes

# A chat template (.jinja) is a program, but one that only runs in a sandbox, as those inside of other files do.
ALLOWED_SUFFIXES = frozenset({".safetensors", ".gguf", ".json", ".jinja", ".txt", ".model"})

# Other formats of weights, which hold no code either; their first bytes tell too little, so only where the catalogue
# pins the file's sha256.
PINNED_SUFFIXES = frozenset({".bin", ".onnx", ".param"})

_HEAD_BYTES = 512
_READ_BYTES = 1024 * 1024
# The format itself allows a header of 100 MB; more is an attempt to exhaust memory.
_MAX_SAFETENSORS_HEADER = 100_000_000
# A tensor's entry in a GGUF file takes at least 24 bytes, a key with its value at least 13.
_GGUF_MIN_TENSOR, _GGUF_MIN_KEY = 24, 13


def is_allowed(path: str) -> bool:
    """Whether the file's type is one that Studio downloads."""
    return PurePosixPath(path).suffix.lower() in ALLOWED_SUFFIXES


def check_path(path: str) -> str:
    """``path`` if it stays inside its source; raises ``BadWeights`` for ``..``, absolute paths and the like."""
    parts = path.split("/")
    outside = path.startswith("/") or "\\" in path or ":" in path or "\0" in path
    if outside or any(part in ("", ".", "..") for part in parts):
        raise BadWeights(
            f"The file path {path!r} points outside its source; it must be relative, without '..'.",
            "Correct the path in the catalogue entry.",
        )
    return path


def check_type(path: str, *, pinned: bool = False) -> None:
    """Raises ``BadWeights`` unless the file's type may be downloaded. ``pinned``: its sha256 is known."""
    if not is_allowed(path) and not (pinned and PurePosixPath(path).suffix.lower() in PINNED_SUFFIXES):
        raise BadWeights(
            f"{path!r} is refused: model files may only be {' '.join(sorted(ALLOWED_SUFFIXES))}, "
            "because other types can run code.",
            "Choose a safetensors or GGUF version of this model.",
        )


def fault_in(path: Path, name: str) -> str | None:
    """Why the content of ``path`` is not what ``name`` says, or ``None``. Reads the first bytes only."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head and not name.endswith(".txt"):
        return "it is empty"
    suffix = PurePosixPath(name).suffix.lower()
    return _disguise(suffix, head) or _wrong_format(suffix, head, size)


def _disguise(suffix: str, head: bytes) -> str | None:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(b"PK\x03\x04"):
        return "it is a zip archive (as PyTorch checkpoints are), which can run code"
    # A safetensors header may by chance have a length that begins like a pickle; its brace tells them apart.
    by_chance = suffix == ".safetensors" and head[8:9] == b"{"
    if head[:1] == b"\x80" and head[1:2] <= b"\x05" and not by_chance:
        return "it is a pickle, which can run code"
    if head.startswith(b"version https://git-lfs"):
        return "it is a git-lfs pointer, not the file itself"
    if start.startswith((b"<!doctype html", b"<html")):
        return "it is an HTML page, not the file itself"
    return None


def _wrong_format(suffix: str, head: bytes, size: int) -> str | None:
    if suffix == ".safetensors":
        return _wrong_safetensors(head, size)
    if suffix == ".gguf":
        return _wrong_gguf(head, size)
    if suffix == ".json" and head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] not in (b"{", b"["):
        return "it does not begin like JSON"
    return None


def _wrong_safetensors(head: bytes, size: int) -> str | None:
    if len(head) < 10:
        return f"it is too short for safetensors ({size} bytes)"
    (length,) = struct.unpack_from("<Q", head)
    limit = min(size - 8, _MAX_SAFETENSORS_HEADER)
    if not 2 <= length <= limit:
        return f"its safetensors header claims {length} bytes, the limit here is {limit}"
    return None if head[8:9] == b"{" else "its safetensors header is not JSON"


def _wrong_gguf(head: bytes, size: int) -> str | None:
    if len(head) < 24 or head[:4] != b"GGUF":
        return "it does not begin like GGUF"
    version, tensors, keys = struct.unpack_from("<IQQ", head, 4)
    if version not in (2, 3):
        return f"its GGUF version is {version}, supported are 2 and 3"
    if tensors * _GGUF_MIN_TENSOR > size or keys * _GGUF_MIN_KEY > size:
        return f"its GGUF header claims {tensors} tensors and {keys} keys, more than its {size} bytes hold"
    return None


def git_blob_id_of(path: Path) -> str:
    """The name that git gives to this content; the hub lists it for files that are not in LFS."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def mismatch(name: str, path: Path, *, size: int | None, expected: int | None) -> str | None:
    """One line when a size is not the expected one (``None``: not known)."""
    actual = path.stat().st_size if size is None else size
    if expected is None or actual == expected:
        return None
    return f"{name} has {actual} bytes ({format_bytes(actual)}), expected {expected}"
