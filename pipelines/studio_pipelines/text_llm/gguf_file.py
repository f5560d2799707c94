"""The header of a GGUF file, read with every length checked against the bytes that are there.

llama.cpp parses GGUF in C++ and has had memory errors in that parser, so it never sees a file that did not pass
this reader first. The reader looks through a window of at most one mebibyte and keeps only small values: the
vocabulary is walked, not stored. Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (v2 and v3).
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from studio.plugin import BadWeights

from .gguf_limits import (
    ALIGNMENT_MAX,
    ARRAY_DEPTH_MAX,
    COUNT_MAX,
    DIMENSIONS_MAX,
    KEEP_ITEMS,
    KEEP_STRING_BYTES,
    KEY_BYTES_MAX,
    STRINGS_MAX,
    TENSOR_NAME_MAX,
    WINDOW_BYTES,
    what_it_is,
)

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY, _BOOL = 8, 9, 7
_INT63 = 2**63 - 1


@dataclass(frozen=True)
class Skipped:
    """A value that was checked and not kept: an array of ``count`` items of GGUF type ``kind``, or a long string."""

    kind: int
    count: int


Value = int | float | bool | str | list["Value"] | Skipped


@dataclass(frozen=True)
class Tensor:
    """One tensor: ``dims`` fastest first, ``kind`` a ggml type, ``offset`` from the start of the data."""

    name: str
    dims: tuple[int, ...]
    kind: int
    offset: int
    nbytes: int


@dataclass(frozen=True)
class GgufFile:
    """What a GGUF header says, after every check."""

    path: Path
    version: int
    metadata: dict[str, Value]
    tensors: tuple[Tensor, ...]
    data_offset: int
    file_bytes: int

    @property
    def architecture(self) -> str:
        return str(self.metadata["general.architecture"])

    def chat_templates(self) -> dict[str, str]:
        """Every chat template in the file by its metadata key."""
        found = {k: v for k, v in self.metadata.items() if k.startswith("tokenizer.chat_template")}
        return {key: value for key, value in found.items() if isinstance(value, str)}


class _Header:
    """A bounded, forward-only view of the file. Every ``take`` is checked against the file's true size."""

    def __init__(self, file: BinaryIO, path: Path, size: int) -> None:
        self.file, self.path, self.size = file, path, size
        self._buffer, self._start, self._pos = b"", 0, 0
        self.strings_left = STRINGS_MAX

    @property
    def tell(self) -> int:
        return self._start + self._pos

    def bad(self, what: str) -> NoReturn:
        raise BadWeights(
            f"{self.path.name} is not a usable GGUF file: {what}.",
            "It is damaged or incomplete; fetch it again with `studio models pull`.",
        )

    def need(self, count: int, what: str) -> None:
        left = self.size - self.tell
        if count > left:
            self.bad(f"{what} needs {count:,} bytes at byte {self.tell:,}, but only {left:,} are left")

    def take(self, count: int, what: str) -> bytes:
        self.need(count, what)
        if self._pos + count > len(self._buffer):
            self._refill(max(count, WINDOW_BYTES))
        piece = self._buffer[self._pos : self._pos + count]
        if len(piece) < count:
            self.bad(f"{what} ends early at byte {self.tell:,}")
        self._pos += count
        return piece

    def skip(self, count: int, what: str) -> None:
        self.need(count, what)
        self._pos += count

    def _refill(self, count: int) -> None:
        self._start, self._pos = self.tell, 0
        self.file.seek(self._start)
        self._buffer = self.file.read(count)

    def number(self, code: str, what: str) -> int:
        value: int = struct.unpack("<" + code, self.take(struct.calcsize("<" + code), what))[0]
        return value

    def text(self, limit: int, what: str) -> str:
        length = self.number("Q", f"the length of {what}")
        if length > limit:
            self.bad(f"{what} is {length:,} bytes long, more than {limit:,}")
        try:
            return self.take(length, what).decode()
        except UnicodeDecodeError:
            self.bad(f"{what} is not UTF-8")

    def skip_strings(self, count: int, what: str) -> None:
        """Walk over ``count`` strings. The inner loop is local because vocabularies have 300,000 of them."""
        self.strings_left -= count
        if self.strings_left < 0:
            self.bad(f"{what} holds {count:,} strings, more than {STRINGS_MAX:,} in one file")
        unpack = struct.Struct("<Q").unpack_from
        while count:
            self.need(8, what)
            if self._pos + 8 > len(self._buffer):
                self._refill(WINDOW_BYTES)
            buffer, pos, end = self._buffer, self._pos, len(self._buffer) - 8
            if end < 0:
                self.bad(f"{what} ends early at byte {self.tell:,}")
            while count and pos <= end:
                pos += 8 + unpack(buffer, pos)[0]
                count -= 1
            self._pos = pos
            if self.tell > self.size:
                self.bad(f"a string in {what} reaches past the end of the file")


def _scalar(head: _Header, kind: int, what: str) -> Value:
    code = _SCALARS[kind]
    raw = head.take(struct.calcsize("<" + code), what)
    if kind == _BOOL and raw not in (b"\0", b"\1"):
        head.bad(f"{what} is neither true nor false")
    value: int | float | bool = struct.unpack("<" + code, raw)[0]
    return value


def _array(head: _Header, what: str, depth: int) -> Value:
    if depth > ARRAY_DEPTH_MAX:
        head.bad(f"{what} nests arrays more than {ARRAY_DEPTH_MAX} deep")
    kind, count = head.number("I", what), head.number("Q", what)
    if kind == _STRING:
        head.need(min(count * 8, _INT63), what)
        if count <= KEEP_ITEMS:
            return [_string_value(head, what) for _ in range(count)]
        head.skip_strings(count, what)
    elif kind == _ARRAY:
        head.need(min(count * 12, _INT63), what)
        if count > KEEP_ITEMS:
            head.bad(f"{what} holds {count:,} arrays, more than {KEEP_ITEMS}")
        return [_array(head, what, depth + 1) for _ in range(count)]
    elif kind in _SCALARS:
        nbytes = count * struct.calcsize("<" + _SCALARS[kind])
        head.need(nbytes, what)
        if count <= KEEP_ITEMS:
            return [_scalar(head, kind, what) for _ in range(count)]
        head.skip(nbytes, what)
    else:
        head.bad(f"{what} has items of the unknown type {kind}")
    return Skipped(kind, count)


def _string_value(head: _Header, what: str) -> Value:
    length = head.number("Q", f"the length of {what}")
    if length > KEEP_STRING_BYTES:
        head.skip(length, what)
        return Skipped(_STRING, length)
    # Values may hold single bytes of a broken merge; names may not.
    return head.take(length, what).decode(errors="replace")


def _value(head: _Header, kind: int, what: str) -> Value:
    if kind == _STRING:
        return _string_value(head, what)
    if kind == _ARRAY:
        return _array(head, what, 1)
    if kind in _SCALARS:
        return _scalar(head, kind, what)
    head.bad(f"{what} has the unknown type {kind}")


def _metadata(head: _Header, count: int) -> dict[str, Value]:
    metadata: dict[str, Value] = {}
    for index in range(count):
        key = head.text(KEY_BYTES_MAX, f"key {index + 1} of {count:,}")
        if not key:
            head.bad(f"key {index + 1} of {count:,} is empty")
        shown = f"the key {key[:60]!r}"
        if key in metadata:
            head.bad(f"{shown} occurs twice")
        metadata[key] = _value(head, head.number("I", shown), shown)
    return metadata


def _tensor(head: _Header, index: int, sizes: dict[int, tuple[int, int]]) -> Tensor:
    name = head.text(TENSOR_NAME_MAX, f"the name of tensor {index + 1}")
    if not name:
        head.bad(f"tensor {index + 1} has no name")
    what = f"tensor {name!r}"
    n_dims = head.number("I", what)
    if not 1 <= n_dims <= DIMENSIONS_MAX:
        head.bad(f"{what} has {n_dims:,} dimensions, not 1 to {DIMENSIONS_MAX}")
    dims = tuple(head.number("Q", what) for _ in range(n_dims))
    kind, offset = head.number("I", what), head.number("Q", what)
    if kind not in sizes:
        head.bad(f"{what} has the unknown type {kind}")
    items = 1
    for dim in dims:
        items *= dim
    if not 1 <= items <= _INT63 or max(dims) > _INT63:
        head.bad(f"{what} has the impossible shape {dims}")
    block, block_bytes = sizes[kind]
    if dims[0] % block:
        head.bad(f"{what} has rows of {dims[0]:,}, not a multiple of its block of {block}")
    return Tensor(name, dims, kind, offset, items // block * block_bytes)


def _tensors(head: _Header, count: int) -> tuple[Tensor, ...]:
    from gguf.constants import GGML_QUANT_SIZES  # numpy comes with it, so not at import

    sizes = {int(kind): size for kind, size in GGML_QUANT_SIZES.items()}
    tensors = tuple(_tensor(head, index, sizes) for index in range(count))
    if len({tensor.name for tensor in tensors}) != count:
        head.bad("two tensors have the same name")
    return tensors


def _check_data(head: _Header, tensors: tuple[Tensor, ...], alignment: int) -> int:
    """Every tensor lies inside the file, aligned, and no two share a byte; gives the start of the data."""
    start = -(-head.tell // alignment) * alignment
    room, end = head.size - start, 0
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        what = f"tensor {tensor.name!r}"
        if tensor.offset % alignment:
            head.bad(f"{what} starts at {tensor.offset:,}, not a multiple of {alignment}")
        if tensor.offset < end:
            head.bad(f"{what} overlaps the tensor before it")
        end = tensor.offset + tensor.nbytes
        if end > room:
            head.bad(f"{what} ends at byte {start + end:,} of a file of {head.size:,}")
    return start


def _check_vocabulary(head: _Header, metadata: dict[str, Value]) -> None:
    """llama.cpp reads scores and types by the token's number: the arrays must be as long as the vocabulary."""
    lengths = {}
    for name, kinds in (("tokens", {_STRING}), ("scores", {6}), ("token_type", {4, 5})):
        value = metadata.get(f"tokenizer.ggml.{name}")
        if value is None:
            continue
        if isinstance(value, Skipped) and value.kind in kinds:
            lengths[name] = value.count
        elif isinstance(value, list):
            lengths[name] = len(value)
        else:
            head.bad(f"tokenizer.ggml.{name} is not an array of the right type")
    if len(set(lengths.values())) > 1:
        head.bad("the vocabulary's arrays differ in length: " + ", ".join(f"{k} {v:,}" for k, v in lengths.items()))


def _parse(head: _Header) -> GgufFile:
    magic = head.take(min(64, head.size), "the magic number")
    if magic[:4] != b"GGUF":
        head.bad(what_it_is(magic))
    head._pos = 4
    version = head.number("I", "the version")
    if version not in (2, 3):
        swapped = version & 0xFFFF == 0 and version != 0
        head.bad("it is big-endian" if swapped else f"its version is {version:,}; 2 and 3 are known")
    n_tensors, n_keys = head.number("Q", "the number of tensors"), head.number("Q", "the number of keys")
    for count, name in ((n_tensors, "tensors"), (n_keys, "keys")):
        if count > COUNT_MAX:
            head.bad(f"the header says {count:,} {name}, more than {COUNT_MAX:,}")
    metadata = _metadata(head, n_keys)
    tensors = _tensors(head, n_tensors)
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or not 8 <= alignment <= ALIGNMENT_MAX or alignment & (alignment - 1):
        head.bad(f"its alignment is {alignment!r}, not a power of two from 8 to {ALIGNMENT_MAX:,}")
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or not architecture:
        head.bad("it does not name its architecture")
    parts = metadata.get("split.count", 0)
    if parts not in (0, 1):
        # llama.cpp would open the sibling files by itself, and they have passed no check.
        head.bad(f"it is split into {parts} files; join them with llama-gguf-split --merge")
    _check_vocabulary(head, metadata)
    start = _check_data(head, tensors, alignment)
    return GgufFile(head.path, version, metadata, tensors, start, head.size)


def read_gguf(path: Path) -> GgufFile:
    """Read and check the header of ``path``; raises ``BadWeights`` with one clear line, and nothing else."""
    try:
        with path.open("rb") as file:
            return _parse(_Header(file, path, os.fstat(file.fileno()).st_size))
    except OSError as error:
        raise BadWeights(
            f"{path.name} cannot be read: {error.strerror}.", "Fetch it with `studio models pull`."
        ) from error
