"""Streaming with everything at once: compiled blocks, adapters and fewer bits; and copies that come as late as may be.

On a card a copy is made some time between its being asked for and the event that the computation waits for.
``LateLane`` makes each one at the last moment, on the processor: whatever reads a slot before it waited, or overwrites
what is still to be copied, gives other numbers than the resident model.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from streaming_models import Chain, Tiny, X, assert_equal
from test_stream_storage import there_and_back
from torch import Tensor

from studio.memory import streaming
from studio.memory.slab_memory import Slab
from studio.memory.slabs import load_slabs
from studio.memory.storage import Storage
from studio.memory.stream_blocks import empty_module
from studio.memory.stream_lanes import Slot
from studio.memory.streaming import streamed


@pytest.mark.parametrize("storage", ["plain", "fp8", "int8", "nf4"])
def test_compiled_blocks_in_every_storage(storage: Storage) -> None:
    """One graph for all blocks, resident or streamed, unpacked or as stored, and none anew when streamed again."""
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    torch.manual_seed(0)
    made, x, order = Chain(6, 128).eval().requires_grad_(False), X.repeat(1, 2), [0, 1, 2, 3, 4, 5]
    eager, compiled = (empty_module(lambda: Chain(6, 128)) for _ in range(2))
    captured = CompileCounterWithBackend("aot_eager")
    for block in compiled.blocks:  # type: ignore[union-attr]
        block.forward = torch.compile(block.forward, backend=captured)  # type: ignore[method-assign]
    with load_slabs(made.state_dict(), eager, storage=storage) as slabs:
        for resident in (0, 2, 6):
            with streamed(eager, slabs=slabs, device="cpu", resident=resident):
                wanted = [eager(x, order) for _ in range(2)]
            with streamed(compiled, slabs=slabs, device="cpu", resident=resident):
                assert_equal([compiled(x, order) for _ in range(2)], wanted)
        assert torch.equal(wanted[0], made(x, order)) == (storage == "plain")
    assert captured.frame_count == 1
    torch._dynamo.reset()


@pytest.mark.parametrize(("storage", "compiled"), [("plain", False), ("int8", False), ("int8", True), ("nf4", False)])
def test_an_adapter_over_blocks_in_fewer_bits(tiny: dict[str, Tiny], storage: Storage, compiled: bool) -> None:
    """The adapter's own weights are never rounded: what comes out is that of rounded weights with the same adapter."""
    from peft import LoraConfig

    model = tiny["framepack"]
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["to_q", "to_k", "proj_mlp"], init_lora_weights=False)
    rounded, module = model.resident(torch.float32), model.empty(torch.float32)
    with load_slabs(model.folder, module, storage=storage) as slabs:
        kinds = {entry.name: entry.storage for name in slabs.blocks for entry in slabs.layouts[name].entries}
        for name, parameter in rounded.named_parameters():
            if kinds.get(name, "plain") != "plain":
                parameter.data = there_and_back(parameter.data, kinds[name], torch.float32)
        plain = model.run(rounded)
        rounded.add_adapter(config, adapter_name="style")
        adapter = {name: value for name, value in rounded.state_dict().items() if "lora_" in name}
        wanted = model.run(rounded)
        assert not torch.equal(plain[0], wanted[0])
        module.add_adapter(config, adapter_name="style")
        missing, unexpected = module.load_state_dict(adapter, strict=False, assign=True)
        assert not unexpected and not any("lora_" in name for name in missing)
        if compiled:
            torch._dynamo.reset()
            for name in ("transformer_blocks.0", "single_transformer_blocks.1"):
                block = module.get_submodule(name)
                block.forward = torch.compile(block.forward, backend="aot_eager")
        for resident in (0, 2):
            with streamed(module, slabs=slabs, device="cpu", resident=resident):
                assert_equal(model.run(module, 2), wanted[:2])
    torch._dynamo.reset()


class LateLane:
    """Each copy at the last moment that is allowed: when its bytes, its source or the end are waited for.

    ``faults`` are copies into a slot whose last computation was not yet said to be over.
    """

    faults = 0

    def __init__(self, device: torch.device) -> None:
        self._waiting: list[tuple[Slot, Callable[[], object]]] = []
        self._used: set[int] = set()

    def copy(self, slot: Slot, source: Tensor) -> None:
        LateLane.faults += id(slot) in self._used
        slot.data.fill_(255)  # nothing of what was there may be needed any more: NaN in every float type
        self._waiting.append((slot, lambda: slot.data[: source.numel()].copy_(source)))

    def await_staging(self, slot: Slot) -> None:
        self._until(slot)

    def before_use(self, slot: Slot) -> None:
        self._until(slot)
        self._used.add(id(slot))

    def after_use(self, slot: Slot) -> None:
        self._used.discard(id(slot))

    def finish(self) -> None:
        self._until(None)

    def _until(self, slot: Slot | None) -> None:
        """Copies are made in order: all up to the slot's last one."""
        numbers = [number for number, (one, _) in enumerate(self._waiting) if slot is None or one is slot]
        for _, copy in self._waiting[: max(numbers, default=-1) + 1]:
            copy()
        del self._waiting[: max(numbers, default=-1) + 1]


class StagedSlot(Slot):
    """What comes from a file passes through memory that is used again for the next block, as on a card."""

    def __init__(self, size_bytes: int, device: torch.device, *, staging_bytes: int = 0) -> None:
        super().__init__(size_bytes, device)
        self.staging = Slab(staging_bytes) if staging_bytes else None


@pytest.mark.parametrize("memory", [None, (), ("", "blocks.0", "blocks.3", "blocks.4")], ids=["ram", "files", "both"])
@pytest.mark.parametrize("slots", [1, 2, 3])
def test_copies_that_come_late(
    slots: int, memory: tuple[str, ...] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import save_file

    monkeypatch.setattr(streaming, "Lane", LateLane)
    monkeypatch.setattr(streaming, "Slot", StagedSlot)
    monkeypatch.setattr(LateLane, "faults", 0)
    torch.manual_seed(1)
    made = Chain().eval().requires_grad_(False)
    state = {name: value.clone() for name, value in made.state_dict().items()}
    save_file({name: value for name, value in state.items() if name != "blocks.1.0.weight"}, tmp_path / "x.safetensors")
    orders = [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [0, 2, 4], [3, 3, 3, 1], [0, 1, 2, 3, 4, 5]]
    module = empty_module(Chain)
    with load_slabs(tmp_path, module, memory=memory) as slabs:
        for resident in (0, 1, 4):
            with streamed(module, slabs=slabs, device="cpu", resident=resident, slots=slots) as stream:
                for order in orders:
                    assert torch.equal(module(X, order), made(X, order)), (resident, order)
                assert stream.hits + stream.misses > 0
    assert LateLane.faults == 0


@pytest.mark.parametrize("storage", ["plain", "int8"])
def test_copies_that_come_late_in_a_real_model(
    tiny: dict[str, Tiny], storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny["framepack"]
    module: Any = model.empty(torch.bfloat16)
    with load_slabs(model.folder, module, dtype=torch.bfloat16, storage=storage) as slabs:
        with streamed(module, slabs=slabs, device="cpu", resident=len(slabs.blocks)):
            wanted = model.run(module)
        monkeypatch.setattr(streaming, "Lane", LateLane)
        monkeypatch.setattr(LateLane, "faults", 0)
        for resident in (0, 2):
            with streamed(module, slabs=slabs, device="cpu", resident=resident):
                assert_equal(model.run(module), wanted)
    assert LateLane.faults == 0
