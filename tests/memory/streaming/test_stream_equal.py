"""A streamed model gives what the resident one gives, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from streaming_models import KINDS, Tiny, assert_equal

from studio.memory.slabs import load_slabs
from studio.memory.stream_blocks import find_blocks
from studio.memory.streaming import streamed

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_streamed_equals_resident(tiny: dict[str, Tiny], kind: str, dtype: torch.dtype) -> None:
    """At no, some and all blocks resident, with one to three slots, from fp32 files cast on the way."""
    model = tiny[kind]
    wanted = model.run(model.resident(dtype))
    module = model.empty(dtype)
    with load_slabs(model.folder, module, dtype=dtype) as slabs:
        count = len(slabs.blocks)
        assert count >= 3
        for resident, slots in ((0, 2), (1, 2), (count // 2, 1), (0, 3), (count, 2)):
            with streamed(module, slabs=slabs, device="cpu", resident=resident, slots=slots) as stream:
                assert_equal(model.run(module), wanted)
                assert len(stream.resident) == resident
            assert all(parameter.is_meta for parameter in module.parameters())


@pytest.mark.parametrize("stored", DTYPES, ids=str)
def test_weights_are_taken_as_stored(tiny: dict[str, Tiny], stored: torch.dtype, tmp_path: Path) -> None:
    """Files in bf16, fp16 and fp32, computed with in their own type."""

    model, folder = tiny["framepack"], tmp_path / "stored"
    module = model.resident(torch.float32).to(stored)
    module.save_pretrained(folder)  # type: ignore[operator]
    empty = model.empty(stored)
    with load_slabs(folder, empty) as slabs, streamed(empty, slabs=slabs, device="cpu", resident=1):
        assert next(empty.parameters()).dtype == stored
        assert_equal(model.run(empty), model.run(module))


@pytest.mark.parametrize("kind", KINDS)
def test_disk_backed_and_sharded(sharded: dict[str, Tiny], kind: str) -> None:
    """Straight from several mapped files through the feeder's thread, with and without a cast; and read into RAM."""
    model = sharded[kind]
    assert len(list(model.folder.glob("*.safetensors"))) > 1 or kind in ("t5", "qwen")
    for dtype in (torch.float32, torch.bfloat16):
        wanted = model.run(model.resident(dtype))
        module = model.empty(dtype)
        for mapped in (True, False):
            with load_slabs(model.folder, module, dtype=dtype, mapped=mapped) as slabs:
                assert (slabs.size_bytes == 0) == mapped
                for resident in (0, 2):
                    with streamed(module, slabs=slabs, device="cpu", resident=resident):
                        assert_equal(model.run(module), wanted)


def test_from_a_state_dict_and_over_a_module_with_weights(tiny: dict[str, Tiny]) -> None:
    """Weights that are in RAM already; the module has its own back afterwards."""
    model = tiny["unet"]
    module = model.resident(torch.float32)
    wanted, before = model.run(module), [parameter.data_ptr() for parameter in module.parameters()]
    with load_slabs(module.state_dict(), module) as slabs, streamed(module, slabs=slabs, device="cpu"):
        assert_equal(model.run(module), wanted)
    assert [parameter.data_ptr() for parameter in module.parameters()] == before
    assert_equal(model.run(module), wanted)


def test_named_and_nested_blocks(tiny: dict[str, Tiny]) -> None:
    """Blocks by name, finer than those that are found; and a UNet's stages taken apart."""
    model = tiny["unet"]
    module = model.empty(torch.float32)
    wanted = model.run(model.resident(torch.float32))
    assert "down_blocks.1" in find_blocks(module)
    fine = find_blocks(module, split_above=1000)
    assert "down_blocks.1.attentions.0.transformer_blocks.0" in fine
    assert "mid_block.resnets.1" in fine
    for blocks in (fine, ["up_blocks.0", "mid_block"], []):
        with load_slabs(model.folder, module, blocks=blocks) as slabs:
            assert slabs.blocks == blocks
            with streamed(module, slabs=slabs, device="cpu", resident=blocks[:1]) as stream:
                assert_equal(model.run(module), wanted)
                if len(blocks) > 2:
                    first = stream.misses
                    model.run(module, 2)
                    assert stream.misses == first, "the order of execution was learned in the first pass"


def test_framepack_blocks(tiny: dict[str, Tiny]) -> None:
    """Both kinds of blocks are found, in order, and the steady state has no miss."""
    model = tiny["framepack"]
    module = model.empty(torch.bfloat16)
    assert [name for name in find_blocks(module) if "refiner" not in name] == [
        "transformer_blocks.0", "transformer_blocks.1",
        "single_transformer_blocks.0", "single_transformer_blocks.1", "single_transformer_blocks.2",
    ]  # fmt: skip
    with load_slabs(model.folder, module) as slabs, streamed(module, slabs=slabs, device="cpu") as stream:
        model.run(module, 4)
        assert stream.misses <= 1
        assert stream.hits + stream.misses == 4 * len(slabs.blocks)
        largest = max(slabs.layouts[name].stored_bytes for name in slabs.blocks)
        assert stream.device_bytes.slots == 2 * largest
        assert slabs.size_bytes == sum(layout.stored_bytes for layout in slabs.layouts.values())
