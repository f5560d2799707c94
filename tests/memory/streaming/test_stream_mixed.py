"""Some blocks in RAM, others in files, whatever stays on the device: the result is the same, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from streaming_models import WIDE, Chain, Tiny, X, assert_equal
from torch.utils._python_dispatch import TorchDispatchMode

from studio.errors import BadRequest, BadWeights
from studio.memory.footprint import PAGE_BYTES, pinned
from studio.memory.slabs import REST, Slabs, load_slabs, streamed_names
from studio.memory.storage import Storage, scratch_bytes, stored_bytes
from studio.memory.stream_blocks import empty_module
from studio.memory.stream_codecs import Decoder, encode
from studio.memory.streaming import streamed


def mixtures(names: list[str]) -> Iterator[list[str] | None]:
    """Everything in RAM, nothing, every other group without the rest, and the blocks without it."""
    yield None
    yield []
    yield names[1::2]
    yield names[1:]


@pytest.mark.parametrize("storage", ["plain", "int8", "nf4"])
@pytest.mark.parametrize("kind", WIDE)
def test_any_mixture_is_equal(wide: dict[str, Tiny], kind: str, storage: Storage) -> None:
    """At none, some and all resident; from several fp32 files, cast and quantised as they are read."""
    model = wide[kind]
    module = model.empty(torch.bfloat16)
    plain = model.run(model.resident(torch.bfloat16), 2)
    with load_slabs(model.folder, module, dtype=torch.bfloat16, storage=storage) as slabs:
        groups = [REST, *slabs.blocks]
        with streamed(module, slabs=slabs, device="cpu"):
            wanted = model.run(module, 2)
    assert torch.equal(wanted[0], plain[0]) == (storage == "plain"), "quantising changes something, streaming nothing"
    for memory in mixtures(groups):
        with load_slabs(model.folder, module, dtype=torch.bfloat16, storage=storage, memory=memory) as slabs:
            kept = groups if memory is None else memory
            assert [name for name in groups if slabs.in_memory(name)] == kept
            assert slabs.size_bytes == sum(slabs.layouts[name].stored_bytes for name in kept)
            for resident in (0, groups[2::3], len(groups) - 1):
                with streamed(module, slabs=slabs, device="cpu", resident=resident):
                    assert_equal(model.run(module, 2), wanted)


def test_slabs_hold_what_the_planner_counts(wide: dict[str, Tiny]) -> None:
    """What is streamed is in RAM, to the byte; what is resident is on the device only."""
    model = wide["framepack"]
    module = model.empty(torch.bfloat16)
    with load_slabs(model.folder, module, dtype=torch.bfloat16) as slabs:
        whole, count = slabs.size_bytes, len(slabs.blocks)
    for resident in (0, 2, count):
        names = streamed_names(module, resident)
        with load_slabs(model.folder, module, dtype=torch.bfloat16, memory=names) as slabs:
            with streamed(module, slabs=slabs, device="cpu", resident=resident) as stream:
                assert len(names) == count - resident
                assert slabs.size_bytes == whole - stream.device_bytes.resident
            assert slabs.size_bytes <= pinned(slabs.size_bytes) < slabs.size_bytes + PAGE_BYTES


def test_names_that_are_none(wide: dict[str, Tiny]) -> None:
    model = wide["t5"]
    module = model.empty(torch.float32)
    with pytest.raises(BadRequest, match=r"no block 'encoder\.block\.9'"):
        load_slabs(model.folder, module, memory=["encoder.block.9"])
    with pytest.raises(TypeError, match="collection of names"):
        load_slabs(model.folder, module, memory="encoder.block.1")
    with pytest.raises(ValueError, match="leave one of the two out"):
        load_slabs(model.folder, module, memory=[], mapped=True)


@pytest.mark.parametrize("memory", [None, ()], ids=["ram", "files"])
@pytest.mark.parametrize("storage", ["plain", "int8"])
def test_read_in_portions(tmp_path: Path, storage: Storage, memory: tuple[str, ...] | None) -> None:
    """A block larger than a buffer, put together again: with and without a cast, from a file and from a state dict."""
    torch.manual_seed(0)
    state = {name: value for name, value in Chain(4, 160).state_dict().items() if name != "blocks.1.0.weight"}
    save_file(state, tmp_path / "chain.safetensors")
    module = empty_module(lambda: Chain(4, 160))
    for source in (tmp_path, state):
        for dtype in (None, torch.bfloat16):
            with load_slabs(source, module, storage=storage, dtype=dtype, memory=memory) as slabs:
                for name in [REST, *slabs.blocks]:
                    for limit in (256, 1024, 30_720, 1 << 20):
                        whole = _whole(slabs, name)
                        parts = list(slabs.portions(name, limit))
                        assert [begin for begin, _ in parts] == [0, *(end for _, end in parts[:-1])]
                        assert parts[-1][1] == whole.numel()
                        assert storage != "plain" or max(end - begin for begin, end in parts) <= limit
                        found = torch.zeros_like(whole)
                        for begin, end in parts:
                            slabs.read_into(name, found[begin:end], begin)
                        assert torch.equal(found, whole)


def _whole(slabs: Slabs, name: str) -> torch.Tensor:
    out = torch.zeros(slabs.layouts[name].stored_bytes, dtype=torch.uint8)
    slabs.read_into(name, out)
    return out


def test_part_of_a_quantised_matrix_is_not_read() -> None:
    module = Chain(3, 128)
    slabs = load_slabs(module.state_dict(), module, storage="int8", memory=())
    with slabs, pytest.raises(ValueError, match="only be read as a whole"):
        slabs.read_into("blocks.2", torch.zeros(256, dtype=torch.uint8), 256)
    module.blocks[2][0].weight.data[3, 4] = float("nan")
    with pytest.raises(BadWeights, match=r"blocks\.2\.0\.weight cannot be kept as int8: .* not a finite number"):
        load_slabs(module.state_dict(), module, storage="int8")


def test_a_file_that_cannot_be_read_while_it_streams(tmp_path: Path) -> None:
    """The failure shows in the call that needs the block, and the next call works again."""
    module = Chain(4, 128).eval().requires_grad_(False)
    state = module.state_dict()
    x = X.repeat(1, 2)
    with load_slabs(state, module, memory=["", "blocks.0", "blocks.1"]) as slabs:
        inner = slabs.read_into
        with streamed(module, slabs=slabs, device="cpu") as stream:
            wanted = module(x, [0, 1, 2, 3])

            def fail(name: str, out: torch.Tensor, begin: int = 0) -> None:
                raise OSError(5, "Input/output error")

            slabs.read_into = fail  # type: ignore[method-assign]
            for _ in range(2):
                with pytest.raises(OSError, match="Input/output"):
                    module(x, [0, 1, 3, 2])
            slabs.read_into = inner  # type: ignore[method-assign]
            assert torch.equal(module(x, [0, 1, 2, 3]), wanted)
            assert stream.misses > 0


class Peak(TorchDispatchMode):
    """The most bytes that live tensors made within it take at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        import weakref

        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            storage = result.untyped_storage()
            known = {one.untyped_storage().data_ptr() for one in args if isinstance(one, torch.Tensor)}
            if storage.data_ptr() not in known | self._seen and storage.nbytes():
                self._seen.add(storage.data_ptr())
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._gone, storage.data_ptr(), storage.nbytes())
        return result

    def _gone(self, address: int, size_bytes: int) -> None:
        self._seen.discard(address)
        self.now -= size_bytes


@pytest.mark.parametrize("storage", ["int8", "nf4", "nf4-dq"])
def test_the_scratch_of_reading_back_is_counted(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than two chunks of 4-bit pairs: the chunks follow one another in the same memory."""
    for module in ("storage", "stream_codecs"):
        monkeypatch.setattr(f"studio.memory.{module}.NF4_CHUNK", 256 * 1024)
    shape = (1280, 1024)
    stored = torch.zeros(stored_bytes(shape, "bfloat16", storage), dtype=torch.uint8)
    encode(torch.randn(shape), storage, stored)
    out = torch.empty(shape, dtype=torch.bfloat16)
    decoder = Decoder(torch.device("cpu"))
    with Peak() as peak:
        decoder.decode(stored, storage, out)
    counted = scratch_bytes(out.numel(), storage)
    assert 0.9 * counted <= peak.most <= counted
    assert (counted == 0) == (storage == "int8")
