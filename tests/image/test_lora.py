"""LoRA adapters: which file is meant, whether it belongs to the model, and what it does to pixels and recipe."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import image_models
import numpy as np
import pytest
import torch
from image_harness import Loaded, bare
from safetensors.torch import load_file, save_file

from studio.errors import BadRequest, BadWeights, StudioError
from studio_pipelines.image_diffusion.lora import METADATA_KEY, adapters_of, check_adapters

TinyImage = Callable[[str], Path]
_ADAPTED = ("to_q", "to_v", "q_proj", "v_proj", "out_proj")


@pytest.fixture
def adapters(tmp_path: Path) -> Path:
    (tmp_path / "loras").mkdir()
    return tmp_path / "loras"


@pytest.fixture
def load(tiny_image: TinyImage, tmp_path: Path, adapters: Path) -> Iterator[Callable[[str], Loaded]]:
    loaded: list[Loaded] = []

    def do(kind: str, **settings: Any) -> Loaded:
        loaded.append(Loaded(kind, tiny_image(kind), tmp_path, settings, adapters=adapters))
        return loaded[-1]

    yield do
    for one in loaded:
        one.pipeline.unload()


def files_of(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in folder.iterdir() if path.is_dir()}


def kohya(kind: str, folder: Path, file: Path, *, te: str = "", alpha: float = 2.0, seed: int = 9) -> Path:
    """An adapter as kohya's scripts write it: flattened names and an alpha for each matrix; ``te`` of text encoders."""
    generator = torch.Generator().manual_seed(seed)
    pipe = image_models.load(folder)
    parts = {"lora_unet": pipe.unet, **({te: pipe.text_encoder} if te else {})}
    state = {}
    for prefix, network in parts.items():
        text = "" if prefix == "lora_unet" or hasattr(network, "text_model") else "text_model."
        for name, module in network.named_modules():
            if isinstance(module, torch.nn.Linear) and name.rsplit(".", 1)[-1] in _ADAPTED:
                key = f"{prefix}_{(text + name).replace('.', '_')}"
                outputs, inputs = module.weight.shape
                state[f"{key}.lora_down.weight"] = torch.randn(4, inputs, generator=generator) * 0.5
                state[f"{key}.lora_up.weight"] = torch.randn(outputs, 4, generator=generator) * 0.5
                state[f"{key}.alpha"] = torch.tensor(alpha)
    save_file(state, file)
    return file


@pytest.mark.parametrize(("kind", "te"), [("sd", "lora_te"), ("sdxl", "lora_te1")])
def test_names_of_kohya_and_text_encoders(
    kind: str, te: str, load: Callable[..., Loaded], tiny_image: TinyImage, adapters: Path
) -> None:
    file = kohya(kind, tiny_image(kind), adapters / "painted.safetensors", te=te)
    pipe = image_models.load(tiny_image(kind))
    [plain] = bare(pipe, kind)
    pipe.load_lora_weights(load_file(file), adapter_name="painted")
    pipe.set_adapters(["painted"], [0.8])
    [wanted] = bare(pipe, kind)
    assert not np.array_equal(plain, wanted)
    for settings in ({}, {"free_after_use": True}):
        loaded = load(kind, **settings)
        [made] = loaded.make(lora=["painted:0.8"]).pictures
        assert np.array_equal(made, wanted)
        [again] = loaded.make().pictures
        assert np.array_equal(again, plain)


@pytest.mark.filterwarnings("ignore:Already found a .peft_config.")  # of diffusers itself, at the second adapter
def test_several_with_weights_parked_and_replaced(
    load: Callable[..., Loaded], tiny_image: TinyImage, adapters: Path
) -> None:
    folder = tiny_image("sd")
    first = image_models.write_lora("sd", folder, adapters / "first.safetensors", seed=1)
    second = image_models.write_lora("sd", folder, adapters / "second.safetensors", seed=2)
    pipe = image_models.load(folder)
    for name, file in (("first", first), ("second", second)):
        pipe.load_lora_weights(file, adapter_name=name)
    pipe.set_adapters(["first", "second"], [0.5, -0.25])
    [both] = bare(pipe, "sd")
    pipe.set_adapters(["second"], [1.0])
    [alone] = bare(pipe, "sd")

    loaded = load("sd")
    made = loaded.make(lora=["first:0.5", "second:-0.25"])
    assert np.array_equal(made.pictures[0], both)
    assert loaded.pipeline.park()
    [again] = loaded.make(lora=["first:0.5", "second:-0.25"]).pictures
    assert np.array_equal(again, both)
    [replaced] = loaded.make(lora=["second"]).pictures
    assert np.array_equal(replaced, alone)
    assert made.artefacts[0].info["lora"] == [
        {"name": name, "weight": weight, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        for name, weight, file in (("first", 0.5, first), ("second", -0.25, second))
    ]


def test_another_file_under_the_same_name_is_another_adapter(
    load: Callable[..., Loaded], tiny_image: TinyImage, adapters: Path
) -> None:
    folder, loaded = tiny_image("sd"), load("sd")
    pictures, hashes = [], []
    for seed in (1, 2):
        image_models.write_lora("sd", folder, adapters / "style.safetensors", seed=seed)
        made = loaded.make(lora=["style"])
        pictures.append(made.pictures[0].tobytes())
        hashes.append(made.artefacts[0].info["lora"][0]["sha256"])
    assert pictures[0] != pictures[1]
    assert hashes[0] != hashes[1]


def with_metadata(file: Path, said: dict[str, Any]) -> None:
    save_file(load_file(file), file, metadata={METADATA_KEY: json.dumps(said), "format": "pt"})


def test_scales_in_the_metadata_count_and_nothing_else(
    load: Callable[..., Loaded], tiny_image: TinyImage, adapters: Path
) -> None:
    """diffusers keeps ``lora_alpha`` there; peft would import what ``megatron_core`` names."""
    folder = tiny_image("sd")
    file = image_models.write_lora("sd", folder, adapters / "style.safetensors")
    loaded = load("sd")
    [half] = loaded.make(lora=["style:0.5"]).pictures
    with_metadata(file, {"unet.lora_alpha": 2, "unet.r": 4, "unet.megatron_core": "antigravity", "unet.bias": "all"})
    [scaled] = loaded.make(lora=["style"]).pictures  # alpha 2 of rank 4
    assert np.array_equal(scaled, half)
    for lie in ({"unet.lora_alpha": "2"}, {"unet.alpha_pattern": {"a": []}}, {"unet.lora_alpha": 1e99}, [1]):
        with_metadata(file, lie)  # type: ignore[arg-type]
        with pytest.raises(BadWeights, match="cannot be"):
            loaded.make(lora=["style"])


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("stlye", "Did you mean style"),
        ("style:loud", "not a number from -4 to 4"),
        ("style:", "not a number from -4 to 4"),
        ("style:nan", "not a number from -4 to 4"),
        ("style:9", "not a number from -4 to 4"),
        ("../secret", "no name of an adapter"),
        ("/etc/passwd", "no name of an adapter"),
        ("", "no name of an adapter"),
        ("old", "is a pickle"),
        ("twin", "Name one of: a/twin, b/twin"),
    ],
)
def test_a_name_that_means_no_file_is_refused_in_one_line(asked: str, says: str, adapters: Path) -> None:
    for name in ("style", "a/twin", "b/twin"):
        (adapters / name).parent.mkdir(exist_ok=True)
        (adapters / f"{name}.safetensors").write_bytes(b"")
    (adapters / "old.ckpt").write_bytes(b"")
    with pytest.raises(BadRequest, match=says) as caught:
        adapters_of([asked], adapters)
    assert "\n" not in str(caught.value)


def test_names_that_mean_a_file(adapters: Path) -> None:
    (adapters / "a").mkdir()
    for name in ("style", "a/other"):
        (adapters / f"{name}.safetensors").write_bytes(b"")
    found = adapters_of(["style:0.25", "other.safetensors", "a/other:1"][:2], adapters)
    assert [(one.name, one.weight) for one in found] == [("style", 0.25), ("other", 1.0)]
    assert adapters_of(["a/other"], adapters)[0].path == adapters / "a" / "other.safetensors"
    with pytest.raises(BadRequest, match="twice"):
        adapters_of(["other", "a/other:0.5"], adapters)


def broken(adapters: Path, folder: Path) -> dict[str, tuple[bytes, str]]:
    """Files that are no adapter for the tiny Stable Diffusion, with what is said of each."""
    good = image_models.write_lora("sd", folder, adapters / "good.safetensors").read_bytes()
    (adapters / "good.safetensors").unlink()
    header = json.dumps({"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    return {
        "cut": (good[:-7], "not a whole safetensors file"),
        "empty": (b"", "not a whole safetensors file"),
        "pickled": (b"\x80\x04K\x01." * 20, "not a whole safetensors file"),
        "huge-header": (struct.pack("<Q", 2**60) + good, "not a whole safetensors file"),
        "no-pairs": (struct.pack("<Q", len(header)) + header + bytes(16), "holds no LoRA"),
    }


def test_files_that_are_no_adapter_are_refused_in_one_line(tiny_image: TinyImage, adapters: Path) -> None:
    folder = tiny_image("sd")
    for name, (content, says) in broken(adapters, folder).items():
        (adapters / f"{name}.safetensors").write_bytes(content)
        with pytest.raises((BadRequest, BadWeights), match=says) as caught:
            check_adapters([name], adapters, files_of(folder), "unet")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sign", ["hada_w1_a", "lokr_w1", "dora_scale"])
def test_other_kinds_of_adapters_are_named(sign: str, tiny_image: TinyImage, adapters: Path) -> None:
    save_file({f"lora_unet_x.{sign}": torch.zeros(4, 4)}, adapters / "other.safetensors")
    with pytest.raises(BadRequest, match=r"is a Lo\w+|is a DoRA"):
        check_adapters(["other"], adapters, files_of(tiny_image("sd")), "unet")


def test_an_adapter_of_another_model_is_refused_before_it_is_queued(tiny_image: TinyImage, adapters: Path) -> None:
    """SDXL's text is twice as wide here as Stable Diffusion's, as it is in the big models."""
    image_models.write_lora("sdxl", tiny_image("sdxl"), adapters / "xl.safetensors")
    kohya("sdxl", tiny_image("sdxl"), adapters / "xl-kohya.safetensors")
    files = files_of(tiny_image("sd"))
    for name in ("xl", "xl-kohya"):
        with pytest.raises(BadRequest, match=r"not made for this model: .*×.* in it and .* in the model") as caught:
            check_adapters([name], adapters, files, "unet")
        assert "\n" not in str(caught.value)
        check_adapters([name], adapters, files_of(tiny_image("sdxl")), "unet")
    save_file(
        {"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": torch.zeros(4, 3072),
         "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight": torch.zeros(9216, 4)},
        adapters / "flux.safetensors",
    )  # fmt: skip
    with pytest.raises(BadRequest, match="3072 inputs"):
        check_adapters(["flux"], adapters, files, "unet")


def test_what_only_the_converter_can_tell_fails_the_job_and_leaves_the_model_whole(
    load: Callable[..., Loaded], tiny_image: TinyImage, adapters: Path
) -> None:
    loaded = load("sd")
    [plain] = loaded.make().pictures
    state = load_file(image_models.write_lora("sd", tiny_image("sd"), adapters / "odd.safetensors"))
    some = next(key for key in state if "lora_A" in key)
    odd = {key.replace("attn1", "attn7") if key.split(".lora_")[0] == some.split(".lora_")[0] else key: value
           for key, value in state.items()}  # fmt: skip
    save_file(odd, adapters / "odd.safetensors")
    with pytest.raises(StudioError, match="not made for this model") as caught:
        loaded.make(lora=["odd"])
    assert "\n" not in str(caught.value)
    [after] = loaded.make().pictures
    assert np.array_equal(after, plain)


def test_adapters_count_in_the_plan(tiny_image: TinyImage, adapters: Path) -> None:
    from studio.plugin import ModelSpec
    from studio_pipelines.image_diffusion.family import ImageDiffusion
    from studio_pipelines.image_diffusion.params import ImageParams

    folder = tiny_image("sd")
    file = image_models.write_lora("sd", folder, adapters / "style.safetensors")
    spec = ModelSpec.model_validate(image_models.catalogue_entry("sd", folder))
    pipeline = ImageDiffusion(spec, {**files_of(folder), "config": folder / "model_index.json"})
    pipeline.adapters = adapters
    request = ImageParams(prompt="a cat", width=64, height=64)
    plain = pipeline.footprint(request).stages
    styled = pipeline.footprint(request.model_copy(update={"lora": ["style:0.5"]})).stages
    assert len(plain) >= 3
    assert [b.held_bytes - a.held_bytes for a, b in zip(plain, styled, strict=True)] == [file.stat().st_size] * len(
        plain
    )
