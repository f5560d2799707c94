"""Bytes by arithmetic, against the bytes that the storages really take."""

from __future__ import annotations

import pytest
from planning_models import DUAL, FRAMEPACK, SINGLE, hunyuan_block

from studio.memory.footprint import LOSS, Stored, block_bytes, network_bytes, pinned, precisions
from studio.memory.storage import Storage, lay_out
from studio.pipeline import Block, Network, Precision
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
