"""What a request for pictures takes: networks, stages and probes, before the download and by a model's own files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from image_models import MODELS, catalogue_entry, write
from PIL import Image
from test_image_catalogue import SPECS

from studio.memory.activations import Make, made_by, measure
from studio.memory.footprint import network_bytes
from studio.memory.plan_machine import card_rates
from studio.memory.planner import plan
from studio.plugin import (
    GIB,
    MIB,
    BadRequest,
    Budget,
    Footprint,
    ModelSpec,
    NetworkShape,
    Probe,
    Stage,
    text_bytes,
    tile_px,
)
from studio_pipelines.image_diffusion import probes
from studio_pipelines.image_diffusion.catalogued import settings_of, shape_of
from studio_pipelines.image_diffusion.footprint import footprint
from studio_pipelines.image_diffusion.params import ImageParams

each = pytest.mark.parametrize("name", SPECS)


def of(name: str, **params: Any) -> Footprint:
    spec = SPECS[name]
    return footprint(spec, None, ImageParams(prompt="x", **{**spec.defaults, **params}))


def stage(made: Footprint, name: str) -> Stage:
    [found] = [one for one in made.stages if one.name == name]
    return found


def arguments(made: Footprint, name: str = "denoise") -> dict[str, Any]:
    return stage(made, name).variants[0].probes[0].arguments


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.new("RGB", (1024, 1024)).save(path)
    return path


@each
def test_networks_are_as_large_as_their_parameters(name: str) -> None:
    made = of(name)
    shapes = [shape_of(shape) for shape in settings_of(SPECS[name]).networks.values()]
    whole = sum(component.params for component in SPECS[name].components.values()) + sum(one.buffers for one in shapes)
    assert sum(network.params for network in made.networks) == whole
    assert sum(network_bytes(network, "bf16") for network in made.networks) == 2 * whole
    assert made.disk_bytes == 2 * whole
    [vae] = [network for network in made.networks if network.name == "vae"]
    assert not vae.streams and not vae.quantises
    assert all(network.blocks for network in made.networks if network is not vae)


@each
def test_stages_run_in_order_and_every_network_has_one(name: str) -> None:
    made = of(name)
    names = [one.name for one in made.stages]
    texts = [f"encode-{number}" if number > 1 else "encode" for number in range(1, len(made.networks) - 1)]
    pictures = ["encode-image"] if settings_of(SPECS[name]).class_name == "QwenImageEditPlusPipeline" else []
    assert names == [*texts, *pictures, "denoise", "decode"]
    assert {one.network for one in made.stages} == {network.name for network in made.networks}
    assert all(one.held_bytes > 0 for one in made.stages[-2:])
    whole, *tiled = stage(made, "decode").variants
    assert (whole.name, whole.loss) == ("whole", 0)
    longest = max(settings_of(SPECS[name]).size)
    assert [tile_px(variant.name) for variant in tiled] == [size for size in (512, 256) if size < longest]
    assert tile_px("whole") is None


@pytest.mark.parametrize(
    ("name", "params", "calls", "batch"),
    [
        ("starter-image", {}, 20, 2),
        ("starter-image", {"guidance_scale": 1.0}, 20, 1),
        ("starter-image", {"scheduler": "heun", "num_images": 3}, 40, 6),
        ("flux.2-klein-4b", {}, 4, 1),
        ("z-image-turbo", {"num_images": 2}, 9, 2),
        ("flux.1-schnell", {"steps": 2}, 2, 1),
        ("sdxl", {}, 50, 2),
        ("stable-diffusion-3.5-medium", {"num_images": 8}, 40, 16),
        ("qwen-image-2512", {}, 100, 1),  # the negative prompt has a call of its own
        ("qwen-image-2512", {"guidance_scale": 1.0}, 50, 1),
        ("qwen-image-edit-2511", {}, 80, 1),
        ("chroma1-hd", {}, 80, 1),
        ("sana-sprint-1.6b", {}, 2, 1),  # guidance is a number that it reads
    ],
)
def test_calls_and_batches(name: str, params: dict[str, Any], calls: int, batch: int) -> None:
    made = of(name, **params)
    assert stage(made, "denoise").calls == calls
    assert arguments(made)["batch"] == batch
    guided = batch > params.get("num_images", 1) or calls in (80, 100)
    assert stage(made, "encode").calls == (2 if guided else 1)
    assert stage(made, "decode").variants[0].probes[0].count == params.get("num_images", 1)


def test_tokens_follow_the_size(picture: Path) -> None:
    assert arguments(of("flux.1-schnell"))["image"] == 4096
    assert arguments(of("flux.1-schnell", width=2048, height=512))["image"] == 4096
    assert arguments(of("flux.1-schnell"))["text"] == 256
    assert arguments(of("stable-diffusion-3.5-medium"))["text"] == 77 + 256
    assert arguments(of("sdxl"))["rows"] == 128 and arguments(of("sdxl"))["text"] == 77
    assert arguments(of("sana-sprint-1.6b"))["rows"] == 32
    assert arguments(of("starter-image")) | {"config": {}} == {
        "config": {}, "rows": 16, "columns": 16, "text": 32, "batch": 2,
    }  # fmt: skip
    # The picture to edit is as many tokens again, at one megapixel.
    assert arguments(of("flux.2-klein-4b", image=picture))["image"] == 2 * 4096
    assert arguments(of("qwen-image-edit-2511", image=picture))["image"] == 2 * 4096


def test_a_given_picture_is_read_first_and_shortens_the_way(picture: Path) -> None:
    made = of("sdxl", image=picture, strength=0.5)
    assert [one.name for one in made.stages] == ["encode", "encode-2", "encode-image", "denoise", "decode"]
    assert stage(made, "denoise").calls == 25
    assert arguments(made, "encode-image") | {"config": {}} == {
        "config": {}, "class_name": "AutoencoderKL", "width": 1024, "height": 1024, "dtype": "bfloat16",
    }  # fmt: skip
    assert stage(of("sdxl", image=picture, strength=0.02), "denoise").calls == 1


def test_what_a_model_cannot_do_is_refused(picture: Path) -> None:
    for name, params in (
        ("flux.2-klein-4b", {"steps": 30}), ("flux.2-klein-4b", {"width": 1000}),
        ("z-image-turbo", {"guidance_scale": 5.0}), ("sana-sprint-1.6b", {"mode": "inpaint", "image": picture}),
    ):  # fmt: skip
        with pytest.raises(BadRequest) as caught:
            of(name, **params)
        assert caught.value.hint


def test_an_unknown_model_is_planned_once_its_files_are_here(tmp_path: Path) -> None:
    folder = write("flux", tmp_path / "flux")
    spec = ModelSpec.model_validate(catalogue_entry("flux", folder))
    with pytest.raises(BadRequest, match=r"The size of tiny-flux.s transformer is not known before it is here\."):
        footprint(spec, None, ImageParams(prompt="x"))
    files = {part.name: part for part in folder.iterdir() if part.is_dir()}
    made = footprint(spec, {"config": folder / "model_index.json", **files}, ImageParams(prompt="x"))
    pipe = MODELS["flux"].build()
    for network in made.networks:
        module = getattr(pipe, network.name)
        assert network.params == sum(one.numel() for one in module.parameters()), network.name
        assert network.class_name == type(module).__name__
    [transformer] = [network for network in made.networks if network.name == "transformer"]
    blocks = {block.kind: block.count for block in transformer.blocks}
    assert blocks == {"transformer_blocks": 2, "single_transformer_blocks": 2}
    assert [one.name for one in made.stages] == ["encode", "encode-2", "denoise", "decode"]
    for probe in stage(made, "denoise").variants[0].probes:
        assert measure(made_by(probe)).flops > 0
    (files["vae"] / "diffusion_pytorch_model.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(BadRequest):
        footprint(spec, files, ImageParams(prompt="x"))


# -- probes ------------------------------------------------------------------------------------------------------

_JOINT = {"num_attention_heads": 2, "attention_head_dim": 16}
_SIZES = {"image": 20, "text": 12, "batch": 2}
_KL = {
    "down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2,
    "block_out_channels": [8, 16], "norm_num_groups": 4,
}  # fmt: skip
TINY: dict[str, Make] = {
    "flux double": partial(probes.flux_block, _JOINT, "double", **_SIZES),
    "flux single": partial(probes.flux_block, _JOINT, "single", **_SIZES),
    "flux2 double": partial(probes.flux2_block, _JOINT, "double", **_SIZES),
    "flux2 single": partial(probes.flux2_block, _JOINT, "single", **_SIZES),
    "chroma double": partial(probes.chroma_block, _JOINT, "double", **_SIZES),
    "chroma single": partial(probes.chroma_block, _JOINT, "single", **_SIZES),
    "sd3": partial(probes.sd3_block, _JOINT, False, **_SIZES),
    "sd3 dual": partial(probes.sd3_block, {**_JOINT, "qk_norm": "rms_norm"}, True, **_SIZES),
    "qwen": partial(probes.qwen_block, _JOINT, **_SIZES),
    "qwen edit": partial(probes.qwen_block, {**_JOINT, "zero_cond_t": True}, **_SIZES),
    "z-image": partial(probes.z_image_block, {"dim": 32, "n_heads": 2}, **_SIZES),
    "sana": partial(
        probes.sana_block,
        {
            **_JOINT, "num_cross_attention_heads": 2, "cross_attention_head_dim": 16, "cross_attention_dim": 32,
            "qk_norm": "rms_norm_across_heads",
        },
        rows=4, columns=5, text=12, batch=2,
    ),
    "unet": partial(probes.unet, shape_of("starter-unet").config, rows=8, columns=8, text=8, batch=2),
    "decode": partial(probes.decode, _KL, "AutoencoderKL", 32, 32, "bfloat16"),
    "encode": partial(probes.encode, _KL, "AutoencoderKL", 32, 32, "float32"),
}  # fmt: skip


@pytest.mark.parametrize("name", TINY)
@pytest.mark.filterwarnings("ignore")
def test_a_probe_without_weights_finds_what_a_real_run_takes(name: str) -> None:
    fake, real = measure(TINY[name]), measure(TINY[name], fake=False)
    assert fake == real
    assert fake.peak_bytes > 0 and fake.flops > 0


def test_the_work_of_a_block_is_two_operations_a_weight_and_token() -> None:
    [probe] = stage(of("z-image-turbo"), "denoise").variants[0].probes
    found, [*_, block] = measure(made_by(probe)), shape_of("z-image").blocks
    tokens = 4096 + 512
    attention = 4.0 * 3840 * tokens**2
    assert found.flops == pytest.approx(2.0 * (block.params - block.plain) * tokens + attention, rel=0.02)
    assert probe.count == 32


def test_activations_grow_with_the_size_and_shrink_in_tiles() -> None:
    small, large = (
        [measure(made_by(probe)) for probe in stage(made, "denoise").variants[0].probes]
        for made in (of("flux.1-schnell", width=512, height=512), of("flux.1-schnell"))
    )
    for one, other in zip(small, large, strict=True):
        assert 2 * one.peak_bytes < other.peak_bytes < 5 * one.peak_bytes
        assert 3 * one.flops < other.flops
    whole, *tiled = (measure(made_by(variant.probes[0])) for variant in stage(of("flux.1-schnell"), "decode").variants)
    assert [round(whole.peak_bytes / tile.peak_bytes) for tile in tiled] == [4, 16]
    assert 1.2 * GIB < whole.peak_bytes < 2 * GIB


def test_batches_take_more() -> None:
    one, eight = (arguments(of("starter-image", num_images=count)) for count in (1, 8))
    found = [measure(partial(probes.unet, **each)) for each in (one, eight)]
    assert found[1].flops == pytest.approx(8 * found[0].flops, rel=0.01)
    assert found[1].peak_bytes > 5 * found[0].peak_bytes


@pytest.mark.parametrize(
    ("class_name", "config"),
    [
        (
            "CLIPTextModel",
            {"vocab_size": 500, "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 6,
             "num_attention_heads": 4, "max_position_embeddings": 77},
        ),
        ("T5EncoderModel", {"vocab_size": 500, "d_model": 64, "d_kv": 16, "d_ff": 160, "num_layers": 6, "num_heads": 4,
                            "feed_forward_proj": "gated-gelu"}),
        (
            "Qwen3ForCausalLM",
            {"vocab_size": 2000, "hidden_size": 64, "intermediate_size": 240, "num_hidden_layers": 6,
             "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16},
        ),
    ],
)  # fmt: skip
def test_text_encoders_take_no_more_than_is_reckoned(class_name: str, config: dict[str, Any]) -> None:
    tokens = 77

    def make() -> tuple[Any, tuple[Any, ...]]:
        import torch
        import transformers
        from torch import nn

        kind = getattr(transformers, class_name)
        network = kind(kind.config_class(**config)).to(torch.bfloat16).eval()

        class Reads(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.network = network

            def forward(self, ids: torch.Tensor) -> Any:
                return tuple(self.network(ids, output_hidden_states=True).hidden_states)

        return Reads(), (torch.zeros(1, tokens, dtype=torch.long),)

    shape = NetworkShape(class_name=class_name, source="a test", config=config, params=1)
    found = measure(make, fake=False).peak_bytes
    assert found <= text_bytes(shape, tokens) < 4 * found


# -- plans -------------------------------------------------------------------------------------------------------


def test_a_large_picture_is_decoded_in_tiles_on_a_small_card() -> None:
    """2,048 × 2,048 pixels take 6 GiB to decode whole."""
    made = of("flux.2-klein-4b", width=2048, height=2048)
    known = tuple(one.model_copy(update={"variants": tuple(map(_measured, one.variants))}) for one in made.stages)
    found = made.model_copy(update={"stages": known})
    budgets = [Budget(vram_bytes=size * GIB, ram_bytes=32 * GIB, rates=card_rates(size * GIB)) for size in (6, 24)]
    small, large = (plan(found, each, "quality") for each in budgets)
    assert tile_px(small.settings["variants"]["decode"]) in (512, 256)
    assert large.settings["variants"]["decode"] == "whole"
    assert small.peak_vram_bytes <= 6 * GIB
    assert small.settings["networks"]["transformer"]["blocks"] == 25


def _measured(variant: Any) -> Any:
    found = [(probe, measure(made_by(probe))) for probe in variant.probes]
    update = {
        "flops": variant.flops + sum(probe.count * one.flops for probe, one in found),
        "activation_bytes": max([variant.activation_bytes, MIB, *(one.peak_bytes for _, one in found)]),
        "probes": (),
    }
    return variant.model_copy(update=update)


def test_a_probe_is_plain_data() -> None:
    for name in SPECS:
        for one in of(name).stages:
            for variant in one.variants:
                assert all(Probe.model_validate_json(probe.model_dump_json()) == probe for probe in variant.probes)
