"""Networks under a plan: what runs where, and what happens when memory runs out."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import T5Config, T5EncoderModel

from studio.errors import BadWeights
from studio.memory.networks import Networks, Part, is_out_of_memory


def unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8,
        norm_num_groups=4,
        attention_head_dim=4,
    )


def vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        sample_size=16,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both networks with seeded weights, as safetensors files in diffusers' layout."""
    root = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    unet().save_pretrained(root / "unet")
    vae().save_pretrained(root / "vae")
    return root


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in one order: a repeated call gives the same bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def quick_collections() -> Iterator[None]:
    """Each time memory runs out all garbage is collected: without this, through everything that the tests imported."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def parts(folder: Path) -> list[Part]:
    return [
        Part("unet", unet, folder / "unet", torch.float32),
        Part("vae", vae, folder / "vae", torch.float32, methods=("encode", "decode")),
    ]


def planned(*, resident: int, disk: bool = False, alone: bool = False, precision: str = "fp32") -> dict[str, Any]:
    one = {"precision": precision, "blocks": 6, "resident": resident, "disk_bytes": int(disk)}
    return {"networks": {"unet": one, "vae": {"precision": "fp32", "blocks": 0}}, "free_after_use": alone}


def inputs() -> tuple[Tensor, int, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(1, 4, 8, 8, generator=draw), 5, torch.randn(1, 3, 8, generator=draw)


INPUTS = inputs()


def picture(networks: Networks) -> Tensor:
    """A denoising step and a decoding: what a pipeline does, in short."""
    sample, step, words = INPUTS
    latents = networks["unet"](sample, step, words, return_dict=False)[0]
    return networks["vae"].decode(latents, return_dict=False)[0]


def bare(kind: Any, folder: Path) -> Any:
    """diffusers' own, its weights in memory of their own: in the mapped file they lie at odd addresses, for which the
    processor's libraries take other kernels with other sums."""
    module = kind.from_pretrained(folder)
    for parameter in module.parameters():
        parameter.data = parameter.data.clone()
    return module


def reference(folder: Path) -> Tensor:
    sample, step, words = INPUTS
    with torch.no_grad():
        latents = bare(UNet2DConditionModel, folder / "unet")(sample, step, words, return_dict=False)[0]
        return bare(AutoencoderKL, folder / "vae").decode(latents, return_dict=False)[0]


class Exhausted(TorchDispatchMode):
    """Raises torch's own out-of-memory error at the ``nth`` operation that makes new storage; counts them."""

    def __init__(self, nth: int, *, times: int = 1) -> None:
        super().__init__()
        self.count = 0
        self.nth = nth
        self.times = times

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result._base is None:
            self.count += 1
            if self.nth <= self.count < self.nth + self.times:
                raise torch.OutOfMemoryError("CUDA out of memory. (raised by the test)")
        return result


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize(("resident", "disk"), [(6, False), (2, True), (0, True)])
def test_equals_the_bare_networks(folder: Path, resident: int, disk: bool, alone: bool) -> None:
    with Networks(parts(folder), planned(resident=resident, disk=disk, alone=alone), "cpu") as networks:
        for _ in range(2):
            assert torch.equal(picture(networks), reference(folder))
        assert networks.on_device == (["vae"] if alone else ["unet", "vae"])
        networks.settle()
        assert networks.on_device == ([] if alone else ["unet", "vae"])


def test_what_the_plan_keeps_on_the_device_stays_there_until_memory_runs_out(folder: Path) -> None:
    settings = planned(resident=2, disk=True, alone=True)
    settings["networks"]["vae"] = {**settings["networks"]["vae"], "stays": True}
    with Networks(parts(folder), settings, "cpu") as networks:
        for _ in range(2):
            assert torch.equal(picture(networks), reference(folder))
            assert networks.on_device == ["vae"]
            networks["unet"](*INPUTS)
            assert networks.on_device == ["unet", "vae"]
            networks.settle()
            assert networks.on_device == ["vae"]
        with Exhausted(3):
            networks["unet"](*INPUTS)
        assert networks.on_device == ["unet"]
        assert torch.equal(picture(networks), reference(folder))
        assert networks.on_device == ["vae"], "the unet gave way, as it would before"
        networks.settle()
        assert networks.on_device == []
        assert networks.adapt(settings), "another plan begins anew"
        picture(networks)
        networks["unet"](*INPUTS)
        assert networks.on_device == ["unet", "vae"]


def test_between_calls_there_is_nothing_on_the_device_and_then_it_works_again(folder: Path) -> None:
    with Networks(parts(folder), planned(resident=0, disk=True), "cpu") as networks:
        first = picture(networks)
        networks.release()
        assert networks.on_device == []
        assert all(parameter.is_meta for parameter in networks["unet"].parameters())
        assert torch.equal(picture(networks), first)
    assert len(networks) == 0


def test_another_network_does_not_take_the_place_of_one_in_use(folder: Path) -> None:
    with Networks(parts(folder), planned(resident=0, disk=True, alone=True), "cpu") as networks:
        with networks.use("unet"):
            picture(networks)
            assert "unet" in networks.on_device
        picture(networks)
        assert networks.on_device == ["vae"]


def small() -> T5EncoderModel:
    config = T5Config(vocab_size=16, d_model=8, d_kv=4, d_ff=8, num_layers=2, num_heads=2, feed_forward_proj="relu")
    return T5EncoderModel(config)


@pytest.mark.parametrize("disk", [False, True])
def test_out_of_memory_at_any_allocation_costs_one_call(tmp_path: Path, disk: bool) -> None:
    """At the n-th allocation, for every n until none is hit, streaming included: the same result, and it is said."""
    torch.manual_seed(0)
    model = small().eval()
    model.save_pretrained(tmp_path / "words")
    words = torch.tensor([[3, 1, 2]])
    with torch.no_grad():
        wanted = model(words).last_hidden_state
    part = Part("words", small, tmp_path / "words", torch.float32)
    one = {"precision": "fp32", "blocks": 2, "resident": 1, "disk_bytes": int(disk)}
    with Networks([part], {"networks": {"words": one}}, "cpu") as networks:
        nth = 0
        while True:
            nth += 1
            networks.release()
            with Exhausted(nth) as exhausted:
                made = networks["words"](words).last_hidden_state
            assert torch.equal(made, wanted)
            if exhausted.count < nth:
                break
            assert len(networks.notes) == 1, f"at allocation {nth}"
            assert "words ran out of memory and went on with" in networks.notes.pop()
        assert networks.notes == []
    assert nth > 100


def test_out_of_memory_in_a_denoiser_and_in_a_decoder(folder: Path) -> None:
    """Every 131st of some two thousand allocations of a UNet and a decoder, which then works in tiles."""
    wanted, nth, hits = reference(folder), 1, 0
    with Networks(parts(folder), planned(resident=3, disk=True), "cpu") as networks:
        while True:
            networks.release()
            with Exhausted(nth) as exhausted:
                made = picture(networks)
            if exhausted.count < nth:
                break
            assert torch.equal(made, wanted) or networks["vae"].use_tiling
            [note] = networks.notes
            assert "ran out of memory and went on with" in note
            networks.notes.clear()
            networks["vae"].disable_tiling()
            hits, nth = hits + 1, nth + 131
    assert hits > 10


def test_a_call_that_never_fits_ends_in_a_plain_memory_error_and_the_next_one_works(folder: Path) -> None:
    with Networks(parts(folder), planned(resident=6, disk=True), "cpu") as networks:
        networks["unet"]  # loaded
        with Exhausted(3, times=10**9), pytest.raises(MemoryError, match="unet ran out of memory"):
            picture(networks)
        assert any("0 of " in note for note in networks.notes)
        assert torch.equal(picture(networks), reference(folder))


def test_tiles_go_down_when_decoding_runs_out_of_memory(folder: Path) -> None:
    with Networks(parts(folder), planned(resident=6), "cpu") as networks:
        latents = torch.zeros(1, 4, 128, 128)
        count = Exhausted(10**9)
        with count:
            networks["vae"].decode(latents, return_dict=False)
        networks.release()
        with Exhausted(count.count):
            tiled = networks["vae"].decode(latents, return_dict=False)[0]
        assert tiled.shape == (1, 3, 256, 256)
        assert networks.notes == ["vae ran out of memory and went on with tiles of 512 pixels."]


def test_other_errors_are_not_taken_for_a_lack_of_memory(folder: Path) -> None:
    with Networks(parts(folder), planned(resident=6), "cpu") as networks:
        with pytest.raises(RuntimeError, match=r"expected|shape|size"):
            networks["unet"](torch.zeros(1, 3, 8, 8), 1, torch.zeros(1, 3, 8))
        assert networks.notes == []
    assert is_out_of_memory(RuntimeError("CUDNN_STATUS_ALLOC_FAILED"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(ValueError("out of memory"))


def test_files_of_another_model_are_refused_and_nothing_stays(folder: Path) -> None:
    swapped = [Part("unet", unet, folder / "vae", torch.float32)]
    with pytest.raises(BadWeights):
        Networks(swapped, planned(resident=0), "cpu")
