"""Whatever a model does with its blocks, the stream keeps up; and it leaves nothing behind."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from streaming_models import Chain, Tiny, X, assert_equal
from torch import Tensor

from studio.errors import BadRequest
from studio.memory.slabs import load_slabs
from studio.memory.stream_blocks import empty_module
from studio.memory.streaming import streamed


@pytest.fixture
def chain() -> Chain:
    torch.manual_seed(1)
    module = Chain().eval().requires_grad_(False)
    for block in module.blocks:
        block[1].running_mean.normal_()
    return module


def meta_chain() -> Chain:
    return empty_module(Chain)  # type: ignore[return-value]


@pytest.mark.parametrize("memory", [None, (), ("", "blocks.0", "blocks.3", "blocks.4")], ids=["ram", "files", "both"])
@pytest.mark.parametrize("slots", [1, 2, 3])
def test_any_order(chain: Chain, slots: int, memory: tuple[str, ...] | None, tmp_path: Path) -> None:
    """Backwards, jumping, some left out, some twice: the guess may be wrong, the result may not."""
    from safetensors.torch import save_model

    save_model(chain, str(tmp_path / "chain.safetensors"))
    module = meta_chain()
    orders = [
        [0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [0], [0, 5, 0, 5], [3, 3, 3], [2, 4], [0, 1, 2, 3, 4, 5], [5, 0, 1],
    ]  # fmt: skip
    with load_slabs(tmp_path, module, memory=memory) as slabs:
        for resident in (0, 2):
            with streamed(module, slabs=slabs, device="cpu", slots=slots, resident=resident) as stream:
                for order in orders:
                    assert torch.equal(module(X, order), chain(X, order)), order
                assert stream.misses > 0


def test_skipped_blocks_cost_nothing(chain: Chain) -> None:
    """A step cache that runs one block over and over: it stays in its slot."""
    module = meta_chain()
    with load_slabs(chain.state_dict(), module) as slabs, streamed(module, slabs=slabs, device="cpu") as stream:
        module(X, [0, 1, 2, 3, 4, 5])
        module(X, [0])
        before = stream.copied_bytes
        for _ in range(5):
            assert torch.equal(module(X, [0]), chain(X, [0]))
        assert stream.copied_bytes - before <= 2 * slabs.layouts["blocks.2"].stored_bytes


def test_step_cache_of_diffusers_on_top(tiny: dict[str, Tiny]) -> None:
    """FirstBlockCache, attached after entering, decides outside of the stream: blocks it skips are not run."""
    from diffusers import FirstBlockCacheConfig, FluxTransformer2DModel
    from diffusers.hooks import HookRegistry

    torch.manual_seed(0)
    flux = FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=2, num_single_layers=3, attention_head_dim=16, num_attention_heads=4,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8),
    ).eval()  # fmt: skip
    empty = empty_module(lambda: FluxTransformer2DModel.from_config(flux.config))
    inputs = {
        "hidden_states": torch.randn(1, 16, 16), "encoder_hidden_states": torch.randn(1, 8, 32),
        "pooled_projections": torch.randn(1, 32), "timestep": torch.tensor([0.5]), "img_ids": torch.zeros(16, 3),
        "txt_ids": torch.zeros(8, 3),
    }  # fmt: skip

    def run(module: Any) -> list[Tensor]:
        module.enable_cache(FirstBlockCacheConfig(threshold=0.5))
        with torch.no_grad(), module.cache_context("test"):
            found = [module(**inputs).sample for _ in range(3)]
        module.disable_cache()
        return found

    wanted = run(flux)
    with load_slabs(flux.state_dict(), empty) as slabs:
        with streamed(empty, slabs=slabs, device="cpu") as stream:
            assert_equal(run(empty), wanted)
            assert stream.hits + stream.misses == 5 + 1 + 1
        assert HookRegistry.check_if_exists_or_initialize(empty) is not None
        with streamed(empty, slabs=slabs, device="cpu"):
            assert_equal([empty(**inputs).sample], [flux(**inputs).sample])


def test_exception_in_the_middle(tiny: dict[str, Tiny]) -> None:
    """A forward that fails within a block: the next one works, and leaving restores the module."""
    model = tiny["framepack"]
    module: Any = model.empty(torch.float32)
    wanted = model.run(model.resident(torch.float32))
    with load_slabs(model.folder, module) as slabs:
        with streamed(module, slabs=slabs, device="cpu", resident=1):
            inner = module.single_transformer_blocks[1].proj_mlp
            handle = inner.register_forward_pre_hook(_fail)
            with pytest.raises(ArithmeticError):
                model.run(module)
            assert module.single_transformer_blocks[1].proj_mlp.weight.isnan().all()
            handle.remove()
            assert_equal(model.run(module), wanted)
        with pytest.raises(ArithmeticError), streamed(module, slabs=slabs, device="cpu"):
            inner.register_forward_pre_hook(_fail)
            model.run(module)
        assert all(parameter.is_meta for parameter in module.parameters())
        assert "forward" not in module.transformer_blocks[0].__dict__


def _fail(*_: object) -> None:
    raise ArithmeticError


def test_blocks_within_blocks(chain: Chain) -> None:
    """A block whose forward calls other blocks, more of them than there are slots, and itself."""

    def nest(module: Chain) -> None:
        first, second, third = module.blocks[0], module.blocks[2], module.blocks[3]
        inner = [first.forward, second.forward]
        first.forward = lambda x: inner[0](second(x)) + x  # type: ignore[method-assign]
        second.forward = lambda x: inner[1](third(x)) + third(third(x))  # type: ignore[method-assign]

    module = meta_chain()
    state = chain.state_dict()
    nest(chain)
    nest(module)
    with load_slabs(state, module) as slabs, streamed(module, slabs=slabs, device="cpu", slots=1):
        for _ in range(2):
            assert torch.equal(module(X, [0, 4, 2, 0]), chain(X, [0, 4, 2, 0]))


@pytest.mark.parametrize("when", ["before", "after"])
def test_lora(tiny: dict[str, Tiny], when: str) -> None:
    """A peft adapter with weights of its own, attached to the empty module or while it streams."""
    from peft import LoraConfig

    model = tiny["framepack"]
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["to_q", "to_k", "proj_mlp"], init_lora_weights=False)
    resident: Any = model.resident(torch.float32)
    plain = model.run(resident)
    resident.add_adapter(config, adapter_name="style")
    adapter = {name: value for name, value in resident.state_dict().items() if "lora_" in name}
    wanted = model.run(resident)
    assert not torch.equal(plain[0], wanted[0])

    def attach(module: Any) -> None:
        module.add_adapter(config, adapter_name="style")
        missing, unexpected = module.load_state_dict(adapter, strict=False, assign=True)
        assert not unexpected and not any("lora_" in name for name in missing)

    module: Any = model.empty(torch.float32)
    if when == "before":
        attach(module)
    with load_slabs(model.folder, module) as slabs:
        for _ in range(2):
            with streamed(module, slabs=slabs, device="cpu", resident=1):
                if when == "after":
                    attach(module)
                assert_equal(model.run(module), wanted)
                module.disable_adapters()
                assert_equal(model.run(module), plain)
                module.enable_adapters()
            if when == "after":
                module.delete_adapters("style")


def test_compiled_blocks(chain: Chain) -> None:
    """Each block's forward compiled before entering: one graph serves all, and parameters may move between calls.

    With ``aot_eager`` (the graph is captured and guarded as with the default compiler, its operations stay torch's
    own), because compiling to C++ takes longer than a test may.
    """
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    module = meta_chain()
    captured = CompileCounterWithBackend("aot_eager")
    for block in module.blocks:
        block.forward = torch.compile(block.forward, backend=captured)  # type: ignore[method-assign]
    order = [0, 1, 2, 3, 4, 5]
    with load_slabs(chain.state_dict(), module) as slabs:
        for resident in (0, 2):
            with streamed(module, slabs=slabs, device="cpu", resident=resident):
                for _ in range(3):
                    assert torch.equal(module(X, order), chain(X, order))
    assert captured.frame_count == 1
    torch._dynamo.reset()


def test_outside_of_its_forward_a_block_shows_nan(chain: Chain) -> None:
    """Whoever looks at streamed weights from outside sees their shape and type, and no other block's numbers."""
    module = meta_chain()
    with load_slabs(chain.state_dict(), module, dtype=torch.bfloat16) as slabs:
        with streamed(module, slabs=slabs, device="cpu"):
            weight = module.blocks[3][0].weight
            assert (weight.shape, weight.dtype, weight.device.type) == ((64, 64), torch.bfloat16, "cpu")
            assert weight.isnan().all() and weight.untyped_storage().nbytes() == 2
        assert module.blocks[3][0].weight.is_meta


def test_misuse_is_refused(chain: Chain) -> None:
    """Two streams at once, another model's slabs, blocks that are none."""
    module = meta_chain()
    with load_slabs(chain.state_dict(), module) as slabs:
        with streamed(module, slabs=slabs, device="cpu"):
            with pytest.raises(ValueError, match="being streamed already"), streamed(module, slabs=slabs, device="cpu"):
                pass
            assert torch.equal(module(X, [0, 5]), chain(X, [0, 5]))
        with pytest.raises(ValueError, match="another model"), streamed(Chain(6, 32), slabs=slabs, device="cpu"):
            pass
        named = streamed(module, slabs=slabs, device="cpu", resident=["head"])
        with pytest.raises(ValueError, match="no such blocks: head"), named:
            pass
    for blocks in (["blocks.9"], ["blocks", "blocks.1"], ["blocks.1", "blocks.1"]):
        with pytest.raises(BadRequest):
            load_slabs(chain.state_dict(), module, blocks=blocks)


def test_nothing_leaks(tmp_path: Path) -> None:
    """50 times in and out of a model of 50 MB; then everything that was made is gone."""
    from safetensors.torch import save_file

    big = Chain(6, 1448)
    save_file({name: value for name, value in big.state_dict().items() if name != "blocks.1.0.weight"},
              tmp_path / "big.safetensors")  # fmt: skip
    del big
    module = empty_module(lambda: Chain(6, 1448))
    x, process = torch.ones(1, 1448), psutil.Process()
    sizes, died = [], []
    for number in range(50):
        with load_slabs(tmp_path, module, mapped=number % 5 == 4) as slabs:
            assert slabs.mapped or slabs.size_bytes > 40e6
            with streamed(module, slabs=slabs, device="cpu", resident=number % 3) as stream:
                module(x, [0, 1, 2, 3, 4, 5])
                died += [weakref.ref(stream), weakref.ref(slabs)]
        del stream, slabs
        sizes.append(process.memory_info().rss)
    gc.collect()
    assert not any(ref() for ref in died)
    grown = sum(sizes[40:]) / 10 - sum(sizes[5:15]) / 10  # malloc keeps some MB now and then: compare means
    assert grown < 10e6, [size >> 20 for size in sizes]


def test_slabs_outlive_the_module(tiny: dict[str, Tiny]) -> None:
    """A parked model: a new module of the class is streamed from the same slabs, without its files."""
    model = tiny["t5"]
    module = model.empty(torch.float32)
    wanted = model.run(model.resident(torch.float32))
    with load_slabs(model.folder, module) as slabs:
        with streamed(module, slabs=slabs, device="cpu"):
            assert_equal(model.run(module), wanted)
        del module
        other = model.empty(torch.float32)
        with streamed(other, slabs=slabs, device="cpu", resident=2):
            assert_equal(model.run(other), wanted)
