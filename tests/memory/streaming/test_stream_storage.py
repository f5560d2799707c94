"""Fewer bits: exact bytes, bounded errors, and a stream that equals a model whose weights were rounded beforehand."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from math import prod
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from streaming_models import Chain, Tiny, X
from torch import Tensor

from studio.memory.slabs import REST, load_slabs
from studio.memory.storage import (
    ALIGNMENT,
    HALVES,
    STORAGES,
    DeviceBytes,
    Storage,
    device_bytes,
    lay_out,
    quantisable,
    spread,
    stored_bytes,
)
from studio.memory.stream_blocks import empty_module, never_quantised, split
from studio.memory.stream_codecs import NF4_VALUES, Decoder, encode
from studio.memory.streaming import streamed

QUANTISED: tuple[Storage, ...] = tuple(storage for storage in STORAGES if storage not in ("plain", *HALVES))
SHAPES = ((128, 128), (3, 7), (1, 1), (257, 129), (64, 3, 3, 3), (300, 70))


def there_and_back(weight: Tensor, storage: Storage, dtype: torch.dtype = torch.float32) -> Tensor:
    stored = torch.zeros(stored_bytes(weight.shape, dtype, storage), dtype=torch.uint8)
    encode(weight, storage, stored)
    out = torch.full(weight.shape, float("nan"), dtype=dtype)
    Decoder(torch.device("cpu")).decode(stored, storage, out)
    return out


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("storage", QUANTISED)
def test_error_bounds(storage: Storage, shape: tuple[int, ...]) -> None:
    """No weight is off by more than its storage allows, at any size of row and also among very large and small ones."""
    torch.manual_seed(0)
    weight = torch.randn(shape) * torch.logspace(-4, 2, shape[0]).view(-1, *[1] * (len(shape) - 1))
    error = (there_and_back(weight, storage) - weight).abs()
    top = weight.flatten(1).abs().amax(1).view(-1, *[1] * (len(shape) - 1))
    if storage == "int8":  # half a step
        assert (error <= top / 127 * 0.5001).all()
    elif storage == "fp8":  # half of the last of 3 bits, or half of the smallest subnormal step, 2^-9
        assert (error <= torch.maximum(weight.abs() * 2**-4, top / 448 * 2**-10) * 1.001).all()
    else:  # half of the widest gap of the table, of the block's maximum; its 8 bits add half a step of the group
        numel = weight.numel()
        blocks = torch.nn.functional.pad(weight.flatten(), (0, -numel % 64)).view(-1, 64).abs().amax(1)
        gap = max(b - a for a, b in pairwise(NF4_VALUES)) / 2
        step = 0.0 if storage == "nf4" else float((blocks - blocks.mean()).abs().max()) / 127 * 0.5001
        bound = (blocks * gap * 1.001 + step * 1.2).repeat_interleave(64)[:numel].view(shape)
        assert (error <= bound).all()


@pytest.mark.parametrize("storage", QUANTISED)
def test_typical_error(storage: Storage) -> None:
    """For normally distributed weights, relative to their spread; 4 bits are worse than 8, bf16 hides neither."""
    torch.manual_seed(0)
    weight = torch.randn(256, 3072) * 0.02
    limit = {"int8": 0.010, "fp8": 0.028, "nf4": 0.096, "nf4-dq": 0.097}[storage]
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        error = (there_and_back(weight, storage, dtype).float() - weight).square().mean().sqrt() / weight.std()
        assert 0.5 * limit < error < limit


@pytest.mark.parametrize("storage", QUANTISED)
def test_zeros_and_what_is_no_number(storage: Storage) -> None:
    """All-zero rows stay zero, denormal ones do not become NaN; NaN and infinity are refused."""
    assert torch.equal(there_and_back(torch.zeros(4, 64), storage), torch.zeros(4, 64))
    assert torch.isfinite(there_and_back(torch.full((4, 64), 1e-42), storage)).all()
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not a finite number"):
            there_and_back(torch.full((4, 64), value), storage)


def test_nf4_table_and_packing() -> None:
    """The 16 values come back exactly; two to a byte, the earlier in the high half, as bitsandbytes packs them."""
    weight = torch.tensor(NF4_VALUES).repeat(4)[None]
    assert torch.equal(there_and_back(weight, "nf4"), weight)
    stored = torch.zeros(stored_bytes((1, 64), "float32", "nf4"), dtype=torch.uint8)
    encode(weight, "nf4", stored)
    assert stored[:8].tolist() == [0x01, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD, 0xEF]


def test_bytes_are_exact() -> None:
    """Worked by hand, in text or torch's own types; and a layout is aligned and adds up."""
    assert stored_bytes((3072, 3072), "bfloat16", "plain") == 2 * 3072**2
    assert stored_bytes((3072, 3072), torch.bfloat16, "int8") == 3072**2 + 4 * 3072
    assert stored_bytes((3072, 3072), "bfloat16", "fp8") == 3072**2 + 4 * 3072
    assert stored_bytes((3072, 3072), "float32", "nf4") == 3072**2 // 2 + 3072**2 // 64 * 4
    assert (
        stored_bytes((3072, 3072), "float32", "nf4-dq") == 3072**2 // 2 + 3072**2 // 64 + 3072**2 // 64 // 256 * 4 + 4
    )
    assert stored_bytes((3, 7), "bfloat16", "int8") == 24 + 12
    layout = lay_out([("a.weight", (128, 128), "bfloat16"), ("a.bias", (128,), "bfloat16")], "int8")
    assert [entry.storage for entry in layout.entries] == ["int8", "plain"]
    assert all(entry.offset % ALIGNMENT == 0 for entry in layout.entries)
    assert layout.stored_bytes == 16_896 + 256
    assert layout.work_bytes == 2 * 128 * 128
    with pytest.raises(ValueError, match="no such element type"):
        stored_bytes((1,), "complex64", "plain")


def test_what_is_quantised() -> None:
    """Large matrices of linear layers and convolutions; no norms, biases, tables or embeddings."""
    assert quantisable("attn.to_q.weight", (128, 128), "bfloat16")
    assert quantisable("conv.weight", (64, 64, 3, 3), "float16")
    assert not quantisable("attn.to_q.weight", (64, 64), "bfloat16")
    assert not quantisable("norm.weight", (100_000,), "bfloat16")
    assert not quantisable("scale_shift_table", (6, 30_000), "bfloat16")
    assert not quantisable("index.weight", (128, 128), "int64")


def test_spread() -> None:
    """Evenly, also when few or many stay; and the device's bytes follow."""
    assert spread(60, 2) == (15, 45)
    assert spread(4, 4) == (0, 1, 2, 3)
    assert spread(5, 0) == ()
    for count in range(1, 40):
        for resident in range(count + 1):
            kept = spread(count, resident)
            assert len(set(kept)) == resident
            gaps = [b - a for a, b in pairwise(kept)]
            assert not gaps or max(gaps) - min(gaps) <= 1
    blocks = [lay_out([("w.weight", (128, width), "bfloat16")], "int8") for width in (128, 256, 384)]
    rest = lay_out([("x.weight", (128, 128), "bfloat16")], "plain")
    held = device_bytes(blocks, rest, [2])
    assert held.slots == 2 * blocks[1].stored_bytes
    assert held.workspace == 2 * 128 * 384
    assert held.total == held.resident + held.slots + held.workspace
    with pytest.raises(ValueError, match="6 of 5 blocks"):
        spread(5, 6)


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("storage", ("plain", *QUANTISED))
def test_streamed_equals_rounded(tiny: dict[str, Tiny], storage: Storage, mapped: bool) -> None:
    """Streaming quantised blocks gives bit for bit what resident weights do that went there and back beforehand."""
    model = tiny["framepack"]
    module = model.empty(torch.bfloat16)
    rounded = model.resident(torch.float32)
    with load_slabs(model.folder, module, dtype=torch.bfloat16, storage=storage, mapped=mapped) as slabs:
        kinds = {entry.name: entry.storage for name in slabs.blocks for entry in slabs.layouts[name].entries}
        assert storage == "plain" or sum(kind != "plain" for kind in kinds.values()) >= 20
        assert all(entry.storage == "plain" for entry in slabs.layouts[REST].entries)
        for name, parameter in rounded.named_parameters():
            kind = kinds.get(name, "plain")
            new = parameter.data.bfloat16()
            parameter.data = new if kind == "plain" else there_and_back(parameter.data, kind, torch.bfloat16)
        wanted = model.run(rounded)
        # Out of files each block is quantised anew in each step, so a few must do.
        steps, counts = (1, (2,)) if mapped and storage != "plain" else (3, (0, 2, len(slabs.blocks)))
        for resident in counts:
            with streamed(module, slabs=slabs, device="cpu", resident=resident) as stream:
                found = model.run(module, steps)
                assert all(torch.equal(one, other) for one, other in zip(found, wanted[:steps], strict=True))
                assert (stream.device_bytes.workspace == 0) == (storage == "plain")
        written = sum(layout.stored_bytes for layout in slabs.layouts.values())
        assert mapped or slabs.size_bytes == written
        if storage != "plain":
            entries = [entry for name in slabs.blocks for entry in slabs.layouts[name].entries]
            shrunk = sum(entry.size_bytes for entry in entries if entry.storage != "plain")
            full = sum(2 * prod(entry.shape) for entry in entries if entry.storage != "plain")
            assert shrunk < full * (0.55 if storage in ("int8", "fp8") else 0.30)


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_16_bits_of_a_file_computed_in_32(tiny: dict[str, Tiny], kind: str, mapped: bool, tmp_path: Path) -> None:
    """Nothing is lost, and the blocks take half of what they are computed with, in the file's own 16 bits."""
    model, dtype = tiny["framepack"], getattr(torch, kind)
    state = {name: value.to(dtype) for name, value in model.resident(torch.float32).state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    module, wanted = model.empty(torch.float32), model.resident(torch.float32)
    wanted.load_state_dict({name: value.float() for name, value in state.items()})
    expected = model.run(wanted)
    args = {"dtype": torch.float32, "mapped": mapped, "cache": tmp_path / "cache"}
    with load_slabs(tmp_path / "model.safetensors", module, storage="half", **args) as slabs:
        entries = [entry for name in slabs.blocks for entry in slabs.layouts[name].entries]
        packed = [entry for entry in entries if entry.storage != "plain"]
        assert {entry.storage for entry in packed} == {{"bfloat16": "bf16", "float16": "fp16"}[kind]}
        assert len(packed) >= 20 and all(2 * entry.size_bytes == entry.work_bytes for entry in packed)
        for resident in (0, 2, len(slabs.blocks)):
            with streamed(module, slabs=slabs, device="cpu", resident=resident):
                assert all(map(torch.equal, model.run(module), expected))
    assert not (tmp_path / "cache").exists(), "what the files hold anyway is not written once more"


def test_what_is_computed_in_16_bits_is_not_unpacked() -> None:
    layout = lay_out([("a.weight", (128, 128), "bfloat16"), ("b.weight", (128, 128), "float32")], "bf16")
    assert [entry.storage for entry in layout.entries] == ["plain", "bf16"]


def test_files_of_both_kinds_of_16_bits_are_kept_in_the_one_that_holds_both(tiny: dict[str, Tiny]) -> None:
    model = tiny["framepack"]
    values = enumerate(model.resident(torch.float32).state_dict().items())
    state = {name: value.half() if number % 2 else value.bfloat16() for number, (name, value) in values}
    with load_slabs(state, model.empty(torch.float32), dtype=torch.float32, storage="half") as slabs:
        kinds = {entry.storage for name in slabs.blocks for entry in slabs.layouts[name].entries}
    assert kinds == {"bf16", "plain"}


def test_quantised_blocks_within_blocks() -> None:
    """Two quantised blocks at work at once do not share the workspace."""
    torch.manual_seed(0)
    module = Chain(4, 128).eval().requires_grad_(False)
    module.blocks[1][0].weight = torch.nn.Parameter(torch.randn(128, 128), requires_grad=False)
    inner = module.blocks[0].forward
    module.blocks[0].forward = lambda x: inner(x) + inner(module.blocks[2](x))  # type: ignore[method-assign]
    x = X.repeat(1, 2)
    with load_slabs(module.state_dict(), module, storage="int8") as slabs:
        exact = module(x, [0, 1, 2, 3])
        with streamed(module, slabs=slabs, device="cpu", slots=1):
            first = module(x, [0, 1, 2, 3])
        with streamed(module, slabs=slabs, device="cpu", resident=4):
            assert torch.equal(module(x, [0, 1, 2, 3]), first)
    assert not torch.equal(first, exact)
    assert (first - exact).abs().max() < 0.1


def test_framepack_at_full_size() -> None:
    """The real transformer, built empty: its size, and what it takes on the device with none or two blocks resident."""
    from diffusers import HunyuanVideoFramepackTransformer3DModel

    full = {"has_image_proj": True, "has_clean_x_embedder": True}
    module = empty_module(lambda: HunyuanVideoFramepackTransformer3DModel(**full), torch.bfloat16)
    assert round(sum(value.numel() for value in module.parameters()) / 1e9, 3) == 12.874
    parts = split(module)
    assert len(parts.blocks) == 62

    def held(storage: Storage, resident: int) -> DeviceBytes:
        shapes = [[(t.names[0], t.value.shape, "bfloat16") for t in block.parameters] for block in parts.blocks]
        plain = [never_quantised(block) for block in parts.blocks]
        blocks = [lay_out(s, storage, plain=p) for s, p in zip(shapes, plain, strict=True)]
        rest = lay_out([(t.names[0], t.value.shape, "bfloat16") for t in parts.rest], "plain")
        return device_bytes(blocks, rest, spread(len(blocks), resident))

    assert round(held("plain", 0).total / 2**30, 2) == 1.54
    assert round(held("plain", 2).total / 2**30, 2) == 2.44
    assert round(held("int8", 5).total / 2**30, 2) == 2.58
    assert held("int8", 0).workspace > held("int8", 0).slots / 2


def test_arithmetic_needs_no_torch() -> None:
    """The planner's half, in the control process."""
    code = "import sys, studio.memory.storage, studio.memory.slab_files; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
