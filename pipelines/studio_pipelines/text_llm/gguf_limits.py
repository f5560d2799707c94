"""What a GGUF header may ask for at most, and names for the files that are mistaken for one.

The limits are far above any published model (the largest have some 2,000 tensors, 60 keys and 800,000 strings);
they bound the time that a hostile header can cost to about a second.
"""

from __future__ import annotations

WINDOW_BYTES = 1024 * 1024
COUNT_MAX = 65_536
KEY_BYTES_MAX = 65_535  # the format's own limit
TENSOR_NAME_MAX = 63  # ggml: GGML_MAX_NAME is 64 with its NUL
DIMENSIONS_MAX = 4  # ggml: GGML_MAX_DIMS
ARRAY_DEPTH_MAX = 4
STRINGS_MAX = 4_000_000
KEEP_ITEMS = 1024
KEEP_STRING_BYTES = 1024 * 1024
ALIGNMENT_MAX = 65_536


def what_it_is(magic: bytes) -> str:
    """Why bytes that do not begin with ``GGUF`` are not a model: what they begin with instead."""
    start = magic.lstrip().lower()
    if not magic:
        return "it is empty"
    if magic.startswith(b"version https://git-lfs"):
        return "it is a git-lfs pointer, not the file it points to"
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page, probably an error page of a download"
    if magic.startswith(b"PK\x03\x04"):
        return "it is a ZIP archive (a PyTorch checkpoint?)"
    if magic[:1] == b"\x80" and magic[1:2] in b"\x02\x03\x04\x05":
        return "it is a Python pickle, which can run code"
    if magic[8:10] == b'{"':
        return "it is a safetensors file"
    if magic[:4] in (b"lmgg", b"fmgg", b"tjgg", b"algg"):
        return "it is in GGML's format from before GGUF"
    return f"it begins with {magic[:4]!r} instead of b'GGUF'"
