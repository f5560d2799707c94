"""Bytes by arithmetic, against the bytes that the storages really take; and networks by the headers of real files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from planning_models import DUAL, FRAMEPACK, SINGLE, hunyuan_block

from studio.errors import BadWeights, MissingWeights
from studio.memory.footprint import LOSS, Stored, block_bytes, network_bytes, network_of, pinned, precisions
from studio.memory.headers import network_of_files, read_contents
from studio.memory.storage import Storage, lay_out
from studio.pipeline import Block, Network, Precision
from studio.spec import Component
from studio.units import MIB


@pytest.mark.parametrize(("kind", "block"), [("dual", DUAL), ("single", SINGLE)])
@pytest.mark.parametrize("precision", ["bf16", "int8", "fp8", "nf4"])
def test_a_block_takes_what_its_storage_takes(kind: str, block: Block, precision: Precision) -> None:
    import torch

    with torch.device("meta"):
        module, _ = hunyuan_block(kind, 2)
    storage: Storage = "plain" if precision == "bf16" else precision
    layout = lay_out([(name, tuple(one.shape), one.dtype) for name, one in module.named_parameters()], storage)
    # The slab aligns every tensor to 256 bytes, which the arithmetic leaves out.
    assert block_bytes(block, precision) == pytest.approx(layout.stored_bytes, rel=1e-3)
    assert sum(one.numel() for one in module.parameters()) == block.params


def test_framepack_is_as_large_as_it_is() -> None:
    assert network_bytes(FRAMEPACK, "bf16") == 25_748_000_000
    assert network_bytes(FRAMEPACK, "int8") == pytest.approx(12.874e9 + 0.41e9, rel=0.01)  # the rest stays bf16
    assert network_bytes(FRAMEPACK, "nf4") == pytest.approx(12.46e9 * 0.5625 + 2 * 0.41e9, rel=0.01)
    # Pinned in slabs; tensor by tensor it would be 40.3 GB.
    assert 25_748_000_000 <= pinned(25_748_000_000) < 25_748_000_000 + 256 * MIB


def test_the_losses_are_the_errors_of_normal_weights() -> None:
    import torch

    torch.manual_seed(0)
    weights = torch.randn(256, 3072)
    rows = weights.abs().amax(1, keepdim=True)
    int8 = (weights / rows * 127).round() * rows / 127
    fp8 = (weights / rows * 448).to(torch.float8_e4m3fn).float() * rows / 448
    errors = [float((each - weights).pow(2).mean().sqrt()) for each in (int8, fp8)]
    assert errors[1] / errors[0] == pytest.approx(LOSS["fp8"] / LOSS["int8"], rel=0.1)
    assert LOSS["bf16"] < LOSS["int8"] < LOSS["fp8"] < LOSS["nf4"]


def test_residents_slots_and_the_rest_are_the_whole() -> None:
    for precision in precisions(FRAMEPACK):
        stored = Stored(FRAMEPACK, precision)
        assert len(stored.blocks) == 60
        assert stored.resident(60) == stored.total == network_bytes(FRAMEPACK, precision)
        assert stored.resident(0) == stored.rest
        assert stored.slots(60) == 0
        assert stored.slots(0) == 2 * block_bytes(DUAL, precision)
        assert all(stored.resident(count) < stored.resident(count + 1) for count in range(60))


def test_which_precisions_are_open() -> None:
    assert precisions(FRAMEPACK) == ("bf16", "int8", "fp8", "nf4")
    assert precisions(FRAMEPACK.model_copy(update={"quantises": False})) == ("bf16",)
    assert precisions(FRAMEPACK.model_copy(update={"stored": "fp8"})) == ("fp8", "nf4")
    assert precisions(Network(name="vae", params=10)) == ("bf16",)


def test_a_network_of_the_catalogue() -> None:
    component = Component.model_validate({"params": 12_874_000_000, "class": "X", "bytes": {"bf16": 25_748_000_000}})
    made = network_of("transformer", component, FRAMEPACK.blocks)
    assert (made.params, made.class_name, made.stored) == (12_874_000_000, "X", "bf16")
    assert network_bytes(made, "bf16") == component.bytes["bf16"]


# -- headers -----------------------------------------------------------------------------------------------------


def tiny(folder: Path, parts: int = 1) -> dict[str, int]:
    """A transformer of diffusers at tiny size, saved by diffusers itself; returns parameters by name."""
    import torch
    from diffusers import FluxTransformer2DModel

    model = FluxTransformer2DModel(
        num_layers=3, num_single_layers=4, attention_head_dim=32, num_attention_heads=4, in_channels=16,
        joint_attention_dim=64, pooled_projection_dim=32, axes_dims_rope=(8, 12, 12),
    ).to(torch.bfloat16)  # fmt: skip
    size = sum(one.nbytes for one in model.parameters())
    model.save_pretrained(folder, max_shard_size=f"{size // parts // 1000 + 200}KB")
    return {name: one.numel() for name, one in model.named_parameters()}


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.filterwarnings("ignore")
def test_files_are_counted_exactly_and_by_block(tmp_path: Path, parts: int) -> None:
    names = tiny(tmp_path, parts)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (parts > 1)
    contents = read_contents(tmp_path)
    assert contents.whole.params == sum(names.values())
    assert dict(contents.whole.by_dtype) == {"bfloat16": 2 * sum(names.values())}
    assert {place for place, _ in contents.blocks} == {"transformer_blocks", "single_transformer_blocks"}
    for (place, number), group in contents.blocks.items():
        expected = sum(count for name, count in names.items() if name.startswith(f"{place}.{number}."))
        assert (group.params, group.size_bytes) == (expected, 2 * expected)
    assert contents.rest.params + sum(group.params for group in contents.blocks.values()) == sum(names.values())
    network = network_of_files("t", tmp_path, lists=["transformer_blocks", "single_transformer_blocks"])
    assert [(block.kind, block.count) for block in network.blocks] == [
        ("transformer_blocks", 3), ("single_transformer_blocks", 4),
    ]  # fmt: skip
    assert network_bytes(network, "bf16") == contents.whole.size_bytes
    assert network.stored == "bf16"
    only = network_of_files("t", tmp_path, lists=["transformer_blocks"])
    assert [block.kind for block in only.blocks] == ["transformer_blocks"]
    assert only.params == network.params


def test_broken_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingWeights):
        read_contents(tmp_path / "none.safetensors")
    file = tmp_path / "cut.safetensors"
    header = json.dumps({"a.0.w": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}}).encode()
    for content in (b"", b"\xff" * 16, len(header).to_bytes(8, "little") + header + b"\0" * 7):
        file.write_bytes(content)
        with pytest.raises(BadWeights):
            network_of_files("x", file)


def test_the_precision_of_a_file_is_that_of_most_bytes(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    for dtype, precision in ((torch.float32, "fp32"), (torch.float16, "bf16"), (torch.float8_e4m3fn, "fp8")):
        tensors = {f"layers.{number}.weight": torch.zeros(256, 256).to(dtype) for number in range(3)}
        save_file({**tensors, "norm": torch.zeros(8, dtype=torch.float32)}, tmp_path / "x.safetensors")
        network = network_of_files("x", tmp_path / "x.safetensors")
        assert network.stored == precision
        assert [(block.kind, block.count) for block in network.blocks] == [("layers", 3)]
