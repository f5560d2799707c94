"""The headers of safetensors files, checked against the file before anything is read. No torch.

Format: https://github.com/huggingface/safetensors (README, "Format"): 8 bytes of length, a JSON header, then the data;
every tensor gives its type, shape and ``[begin, end)`` within the data, without holes or overlaps.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePath
from typing import Any, BinaryIO

from studio.errors import BadWeights, MissingWeights
from studio.memory.storage import item_bytes

_MAX_HEADER_BYTES = 100 * 1000 * 1000
_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool", "U16": "uint16", "U32": "uint32", "U64": "uint64",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
}  # fmt: skip
_HINT = "Get the file again."


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file: its type as torch names it, and its bytes as ``[offset, offset + size_bytes)``."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int


def read_headers(source: Path | Iterable[Path]) -> dict[str, StoredTensor]:
    """Every tensor of a safetensors file, of a folder, of a ``*.safetensors.index.json``, or of several files.

    Raises ``MissingWeights`` if there is nothing, ``BadWeights`` in one line if a file is not what its header says.
    """
    tensors: dict[str, StoredTensor] = {}
    for path in _files(source):
        for name, tensor in _read_header(path).items():
            if name in tensors:
                raise BadWeights(f"{name} is both in {tensors[name].path.name} and in {path.name}.", _HINT)
            tensors[name] = tensor
    return tensors


def read_metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself. Raises ``BadWeights`` as ``read_headers`` does."""
    with path.open("rb") as file:
        said = _parse(file, path, path.stat().st_size)[0].get("__metadata__", {})
    return {str(name): str(value) for name, value in said.items()} if isinstance(said, dict) else {}


def fingerprints(source: Path | Iterable[Path]) -> list[tuple[str, int, int, str]]:
    """What tells the files of ``source`` from others: name, bytes, time of change in ns, and sha256 of the header."""
    found = []
    for path in _files(source):
        with path.open("rb") as file:
            _, start = _parse(file, path, path.stat().st_size)
            file.seek(0)
            header = hashlib.sha256(file.read(start)).hexdigest()
        facts = path.stat()
        found.append((path.name, facts.st_size, facts.st_mtime_ns, header))
    return found


def _files(source: Path | Iterable[Path]) -> list[Path]:
    if not isinstance(source, Path):
        return [file for path in source for file in _files(path)]
    if source.is_dir():
        found = sorted(source.glob("*.safetensors.index.json")) or sorted(source.glob("*.safetensors"))
        if not found:
            raise MissingWeights(f"There is no safetensors file in {source}.", "Pull the model.")
        if len(found) > 1 and found[0].suffix == ".json":
            raise BadWeights(f"{source} has {len(found)} indexes: {', '.join(p.name for p in found)}.", "Name one.")
        source = found[0] if found[0].suffix == ".json" else source
        return _sharded(source) if source.suffix == ".json" else found
    if not source.is_file():
        raise MissingWeights(f"There is no file {source}.", "Pull the model.")
    return _sharded(source) if source.suffix == ".json" else [source]


def _sharded(index: Path) -> list[Path]:
    """The files of an index, which must lie beside it and hold what it says."""
    try:
        content = json.loads(index.read_text("utf-8"))
        placed = {str(tensor): str(file) for tensor, file in content["weight_map"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadWeights(f"{index.name} is not an index of safetensors files.", _HINT) from None
    for file in set(placed.values()):
        if PurePath(file).name != file or not file.endswith(".safetensors"):
            raise BadWeights(f"{index.name} names a file outside its folder: {file!r}.", _HINT)
        if not (index.parent / file).is_file():
            raise MissingWeights(f"{file}, which {index.name} names, is missing.", "Pull the model.")
    held = {file: _read_header(index.parent / file).keys() for file in set(placed.values())}
    for tensor, file in placed.items():
        if tensor not in held[file]:
            raise BadWeights(f"{file} lacks {tensor}, which {index.name} promises.", _HINT)
    return [index.parent / file for file in sorted(held)]


def _read_header(path: Path) -> dict[str, StoredTensor]:
    size = path.stat().st_size
    with path.open("rb") as file:
        header, start = _parse(file, path, size)
    header.pop("__metadata__", None)
    tensors = {name: _tensor(path, name, value, start, size) for name, value in header.items()}
    end = start
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].size_bytes)):
        if tensor.offset != end:
            raise BadWeights(f"{path.name} is corrupt: a hole or overlap before {name}.", _HINT)
        end += tensor.size_bytes
    if end != size:
        raise BadWeights(f"{path.name} is corrupt: {size:,} bytes long where its header says {end:,}.", _HINT)
    return tensors


def _parse(file: BinaryIO, path: Path, size: int) -> tuple[dict[str, Any], int]:
    """The JSON header and where the data begins."""
    head = file.read(8)
    length = struct.unpack("<Q", head)[0] if len(head) == 8 else size
    if length > min(_MAX_HEADER_BYTES, size - 8):
        raise BadWeights(f"{path.name} is not a whole safetensors file: its header does not fit in it.", _HINT)
    try:
        header = json.loads(file.read(length).decode("utf-8"))
    except (ValueError, RecursionError):
        raise BadWeights(f"{path.name} is not a safetensors file: its header is not JSON.", _HINT) from None
    if not isinstance(header, dict):
        raise BadWeights(f"{path.name} is not a safetensors file: its header is not a table.", _HINT)
    return header, 8 + length


def _tensor(path: Path, name: str, value: Any, start: int, size: int) -> StoredTensor:
    try:
        dtype, shape, (begin, end) = _DTYPES[value["dtype"]], tuple(value["shape"]), value["data_offsets"]
        numbers = (*shape, begin, end)
        fits = all(type(number) is int and number >= 0 for number in numbers) and (
            begin <= end and end - begin == prod(shape) * item_bytes(dtype)
        )
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise BadWeights(f"{path.name} is corrupt: the entry of {name[:200]} contradicts itself.", _HINT)
    if start + end > size:
        raise BadWeights(
            f"{path.name} is cut short: {name[:200]} ends at byte {start + end:,} of {size:,}.", "Get the rest of it."
        )
    return StoredTensor(path, dtype, shape, start + begin, end - begin)
