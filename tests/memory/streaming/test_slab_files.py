"""Files that are not what they say are refused in one line, before anything is loaded."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from streaming_models import Chain

from studio.errors import BadWeights, MissingWeights, StudioError
from studio.memory.slab_files import read_headers
from studio.memory.slabs import load_slabs
from studio.memory.stream_blocks import empty_module


def write(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(shape: list[Any], begin: Any, end: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


BROKEN: dict[str, tuple[Any, bytes]] = {
    "not JSON": (b"{nothing", b""),
    "not UTF-8": (b"\xff\xfe", b""),
    "nested without end": (b"[" * 100_000, b""),
    "a list": ([], b""),
    "an entry that is no table": ({"a": 3}, b""),
    "an unknown type": ({"a": entry([1], 0, 4, "F5")}, bytes(4)),
    "a type that is a list": ({"a": entry([1], 0, 4, ["F32"])}, bytes(4)),
    "a negative size": ({"a": entry([-1], 0, 4)}, bytes(4)),
    "a size that is true": ({"a": entry([True], 0, 4)}, bytes(4)),
    "a fraction": ({"a": entry([1.0], 0, 4)}, bytes(4)),
    "shape and bytes that differ": ({"a": entry([2], 0, 4)}, bytes(4)),
    "an enormous shape": ({"a": entry([2**62, 2**62], 0, 4)}, bytes(4)),
    "an end before its begin": ({"a": entry([0], 4, 0)}, bytes(4)),
    "data that is missing": ({"a": entry([2], 0, 8)}, bytes(4)),
    "data that nobody owns": ({"a": entry([1], 0, 4)}, bytes(8)),
    "a hole": ({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, bytes(12)),
    "an overlap": ({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, bytes(4)),
    "three offsets": ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}, bytes(4)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_headers(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "model.safetensors", *BROKEN[name])
    with pytest.raises(BadWeights, match=r"^model\.safetensors is ") as caught:
        read_headers(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("keep", [0, 3, 8, 40, 200, -1])
def test_cut_short(keep: int, tmp_path: Path) -> None:
    """A download that ended early, wherever it ended; the model is not touched."""
    module = empty_module(Chain)
    torch.manual_seed(0)
    save_file(_state(), tmp_path / "model.safetensors")
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:keep])
    for mapped in (False, True):
        with pytest.raises(BadWeights, match=r"model\.safetensors is (cut short|not a whole safetensors file)"):
            load_slabs(tmp_path, module, mapped=mapped)


def _state() -> dict[str, torch.Tensor]:
    state = Chain().state_dict()
    state["blocks.1.0.weight"] = state["blocks.1.0.weight"].clone()
    return state


def test_shorter_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The header was whole; then somebody cut the file."""
    save_file(_state(), tmp_path / "model.safetensors")
    module = empty_module(Chain)
    stored = read_headers(tmp_path)
    path = tmp_path / "model.safetensors"
    monkeypatch.setattr("studio.memory.slabs.read_headers", lambda source: stored)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BadWeights, match="became shorter"):
        load_slabs(tmp_path, module)


def test_lacking_and_misshapen(tmp_path: Path) -> None:
    """A tensor that the model needs and the file lacks, and one of another shape; more than is needed is fine."""
    module, state = empty_module(Chain), _state()
    save_file({**state, "more": torch.zeros(3)}, tmp_path / "model.safetensors")
    load_slabs(tmp_path, module).close()
    save_file({**state, "blocks.4.1.bias": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(BadWeights, match=r"blocks\.4\.1\.bias has shape \[3\] in the file, \[64\] in the model"):
        load_slabs(tmp_path, module)
    del state["blocks.4.1.bias"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(BadWeights, match=r"The weights lack blocks\.4\.1\.bias"):
        load_slabs(tmp_path, module)


def test_other_names(tmp_path: Path) -> None:
    """A file that calls everything otherwise."""
    save_file({f"model.{name}": value for name, value in _state().items()}, tmp_path / "model.safetensors")
    with load_slabs(tmp_path, empty_module(Chain), rename=lambda name: f"model.{name}") as slabs:
        assert len(slabs.blocks) == 6
        assert slabs.layouts[""].entries[0].name == "blocks.0.0.weight", "tied between two blocks: in neither"


def test_indexes(tmp_path: Path) -> None:
    """An index names files beside it, all of them there, with what it promises; two files do not hold the same."""
    with pytest.raises(MissingWeights):
        read_headers(tmp_path)
    save_file({"a": torch.zeros(2)}, tmp_path / "one.safetensors")
    save_file({"b": torch.zeros(2)}, tmp_path / "two.safetensors")
    assert set(read_headers([tmp_path / "one.safetensors", tmp_path / "two.safetensors"])) == {"a", "b"}
    index = tmp_path / "model.safetensors.index.json"
    for content, error in (
        ({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}, None),
        ({"weight_map": {"a": "../one.safetensors"}}, BadWeights),
        ({"weight_map": {"a": "/etc/passwd"}}, BadWeights),
        ({"weight_map": {"a": "three.safetensors"}}, MissingWeights),
        ({"weight_map": {"c": "one.safetensors"}}, BadWeights),
        ({"weight_map": ["a"]}, BadWeights),
        ({}, BadWeights),
        ([], BadWeights),
    ):
        index.write_text(json.dumps(content))
        if error is None:
            assert set(read_headers(tmp_path)) == set(read_headers(index)) == {"a", "b"}
        else:
            with pytest.raises(error):
                read_headers(tmp_path)
    save_file({"a": torch.zeros(2)}, tmp_path / "three.safetensors")
    with pytest.raises(BadWeights, match=r"a is both in one\.safetensors and in three\.safetensors"):
        read_headers([tmp_path / "one.safetensors", tmp_path / "three.safetensors"])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_anywhere(data: st.DataObject, tmp_path: Path) -> None:
    """Any byte changed, any cut: read whole, or refused as what it is; never another exception."""
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(3, 5), "b": torch.ones(7, dtype=torch.bfloat16)}, path)
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        tensors = read_headers(path)
    except StudioError as error:
        assert "\n" not in str(error)
    else:
        assert all(tensor.offset + tensor.size_bytes <= path.stat().st_size for tensor in tensors.values())
