"""A GGUF file is data: whatever its header says, reading it ends quickly in a parse or in one clear line."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studio.plugin import BadWeights
from studio_pipelines.text_llm.gguf_file import Skipped, read_gguf

QUICK = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def string(text: str | bytes) -> bytes:
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(data)) + data


def pair(key: str, kind: int, value: bytes) -> bytes:
    return string(key) + struct.pack("<I", kind) + value


ARCH = pair("general.architecture", 8, string("llama"))


def tensor(name: str = "t", dims: tuple[int, ...] = (32,), kind: int = 0, offset: int = 0) -> bytes:
    sizes = struct.pack(f"<{len(dims)}Q", *dims)
    return string(name) + struct.pack("<I", len(dims)) + sizes + struct.pack("<IQ", kind, offset)


def gguf(
    *pairs: bytes, tensors: tuple[bytes, ...] = (), data: bytes = b"", counts: tuple[int, int] | None = None
) -> bytes:
    n_tensors, n_keys = counts or (len(tensors), len(pairs))
    head = b"GGUF" + struct.pack("<IQQ", 3, n_tensors, n_keys) + b"".join(pairs) + b"".join(tensors)
    return head + b"\0" * (-len(head) % 32) + data


def read(folder: Path, content: bytes, name: str = "m.gguf"):
    path = folder / name
    path.write_bytes(content)
    return read_gguf(path)


def test_a_sound_file_is_read(tiny_gguf: Path) -> None:
    found = read_gguf(tiny_gguf)
    assert found.architecture == "llama"
    assert found.metadata["llama.block_count"] == 2
    assert "<|im_start|>" in found.chat_templates()["tokenizer.chat_template"]
    last = max(found.tensors, key=lambda one: one.offset)
    assert found.data_offset + last.offset + last.nbytes <= found.file_bytes
    assert {one.name for one in found.tensors} >= {"token_embd.weight", "blk.1.ffn_down.weight", "output.weight"}


def test_the_vocabulary_of_the_starter_is_checked_and_not_kept(starter_gguf: Path) -> None:
    found = read_gguf(starter_gguf)
    assert found.metadata["tokenizer.ggml.tokens"] == Skipped(8, 49152)
    assert (
        sum(one.nbytes for one in found.tensors) < found.file_bytes < sum(one.nbytes for one in found.tensors) + 2**21
    )


BAD = {
    "count": (gguf(counts=(2**63, 0)), "9,223,372,036,854,775,808 tensors"),
    "keys": (gguf(ARCH, counts=(0, 2**63 - 1)), "9,223,372,036,854,775,807 keys"),
    "past the end": (gguf(ARCH, tensors=(tensor(dims=(64,)),), data=b"\0" * 128), "ends at byte"),
    "offset": (gguf(ARCH, tensors=(tensor(offset=2**63),), data=b"\0" * 128), "ends at byte"),
    "unaligned": (gguf(ARCH, tensors=(tensor(offset=8),), data=b"\0" * 256), "not a multiple of 32"),
    "overlap": (gguf(ARCH, tensors=(tensor("a"), tensor("b")), data=b"\0" * 256), "overlaps"),
    "same names": (gguf(ARCH, tensors=(tensor("a"), tensor("a", offset=128)), data=b"\0" * 256), "same name"),
    "no name": (gguf(ARCH, tensors=(tensor(""),), data=b"\0" * 128), "no name"),
    "overflow": (gguf(ARCH, tensors=(tensor(dims=(2**33, 2**33)),), data=b"\0" * 128), "impossible shape"),
    "zero": (gguf(ARCH, tensors=(tensor(dims=(0,)),), data=b"\0" * 128), "impossible shape"),
    "5 dimensions": (gguf(ARCH, tensors=(tensor(dims=(1,) * 5),), data=b"\0" * 128), "5 dimensions"),
    "type": (gguf(ARCH, tensors=(tensor(kind=99),), data=b"\0" * 128), "unknown type 99"),
    "block": (gguf(ARCH, tensors=(tensor(dims=(33,), kind=2),), data=b"\0" * 128), "multiple of its block"),
    "empty key": (gguf(ARCH, pair("", 4, b"\0" * 4)), "is empty"),
    "key twice": (gguf(ARCH, ARCH), "occurs twice"),
    "key type": (gguf(ARCH, pair("a", 77, b"")), "unknown type 77"),
    "long string": (gguf(ARCH, pair("a", 8, struct.pack("<Q", 2**62))), "only"),
    "long array": (gguf(ARCH, pair("a", 9, struct.pack("<IQ", 4, 2**62))), "only"),
    "many strings": (gguf(ARCH, pair("a", 9, struct.pack("<IQ", 8, 2**61))), "only"),
    "string in array": (gguf(ARCH, pair("a", 9, struct.pack("<IQ", 8, 2000) + b"\xff" * 16000)), "past the end"),
    "nested": (gguf(ARCH, pair("a", 9, struct.pack("<IQ", 9, 1) * 9 + b"\0" * 64)), "deep"),
    "bool": (gguf(ARCH, pair("a", 7, b"\x07")), "neither true nor false"),
    "alignment": (gguf(ARCH, pair("general.alignment", 4, struct.pack("<I", 3))), "power of two"),
    "alignment 0": (gguf(ARCH, pair("general.alignment", 4, struct.pack("<I", 0))), "power of two"),
    "no architecture": (gguf(pair("a", 4, b"\0" * 4)), "architecture"),
    "split": (gguf(ARCH, pair("split.count", 2, struct.pack("<H", 3))), "split into 3"),
    "vocabulary": (
        gguf(
            ARCH,
            pair("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 2) + string("a") + string("b")),
            pair("tokenizer.ggml.token_type", 9, struct.pack("<IQi", 5, 1, 1)),
        ),
        "differ in length",
    ),
    "version": (b"GGUF" + struct.pack("<IQQ", 4, 0, 0), "version is 4"),
    "version 1": (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version is 1"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "empty": (b"", "empty"),
    "html": (b"<!DOCTYPE html><html>404</html>", "web page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git-lfs pointer"),
    "pickle": (pickle.dumps({"a": 1}), "pickle"),
    "zip": (b"PK\x03\x04" + b"\0" * 60, "ZIP"),
    "safetensors": (struct.pack("<Q", 64) + b'{"a":{}}', "safetensors"),
    "noise": (b"\x13\x37" * 40, "begins with"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_with_one_clear_line(tmp_path: Path, case: str) -> None:
    content, expected = BAD[case]
    with pytest.raises(BadWeights) as caught:
        read(tmp_path, content)
    assert expected in caught.value.what
    assert caught.value.what.startswith("m.gguf is not a usable GGUF file: ")
    assert "\n" not in caught.value.what
    assert caught.value.hint


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadWeights, match=r"gone\.gguf cannot be read"):
        read_gguf(tmp_path / "gone.gguf")


def test_version_2_and_nested_arrays_are_read(tmp_path: Path) -> None:
    nested = struct.pack("<IQ", 9, 2) + 2 * struct.pack("<IQHH", 2, 2, 3, 4)
    content = bytearray(gguf(ARCH, pair("a", 9, nested), tensors=(tensor(),), data=b"\0" * 128))
    content[4] = 2
    found = read(tmp_path, bytes(content))
    assert found.version == 2
    assert found.metadata["a"] == [[3, 4], [3, 4]]


def test_hostile_counts_are_bounded(tmp_path: Path) -> None:
    """A file whose strings are all empty is the dearest to walk; the limit on strings bounds it."""
    dear = gguf(ARCH, pair("a", 9, struct.pack("<IQ", 8, 5_000_000) + bytes(40_000_000)))
    with pytest.raises(BadWeights, match="more than 4,000,000"):
        read(tmp_path, dear)


@pytest.fixture(scope="session")
def sound(tiny_gguf: Path) -> bytes:
    return tiny_gguf.read_bytes()


def attempt(folder: Path, content: bytes) -> bool:
    try:
        read(folder, content)
    except BadWeights:
        return False
    return True


def test_cut_anywhere_it_is_refused(tmp_path: Path, sound: bytes) -> None:
    header = read(tmp_path, sound).data_offset
    for end in [*range(64), *range(64, header, 41), header, len(sound) - 200]:
        assert not attempt(tmp_path, sound[:end]), end


@QUICK
@given(data=st.data())
def test_flipped_bytes_give_a_parse_or_one_line(tmp_path: Path, sound: bytes, data: st.DataObject) -> None:
    content = bytearray(sound)
    places = st.tuples(st.integers(0, 12_000), st.integers(0, 255))
    for place, byte in data.draw(st.lists(places, min_size=1, max_size=8)):
        content[place] = byte
    attempt(tmp_path, bytes(content))


@QUICK
@given(noise=st.binary(max_size=400))
def test_noise_after_the_magic_gives_a_parse_or_one_line(tmp_path: Path, noise: bytes) -> None:
    attempt(tmp_path, b"GGUF\x03\0\0\0" + noise)
