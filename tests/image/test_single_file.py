"""Models in one file: the original layout and GGUF give the pictures of the same model in diffusers' folders."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import image_models
import numpy as np
import original_layout
import pytest
import torch
import yaml
from image_harness import Loaded, bare, request_of
from PIL import Image
from safetensors.torch import load_file, save_file

from studio import Studio
from studio.catalogue import Catalogue
from studio.errors import BadRequest, BadWeights, MissingWeights, NotFound
from studio.registry import Registry
from studio_pipelines.image_diffusion.single_file import ROLE, recognised
from studio_pipelines.image_diffusion.single_file_weights import SingleFile

TinyImage = Callable[[str], Path]


def without_weights(folder: Path, target: Path, *names: str) -> Path:
    """A copy of a model with nothing but configuration in the folders of these components."""
    shutil.copytree(folder, target)
    for name in names:
        for file in (target / name).glob("*.safetensors"):
            file.unlink()
    return target


def picture(kind: str, folder: Path, checkpoint: Path, workdir: Path, **settings: Any) -> np.ndarray:
    loaded = Loaded.__new__(Loaded)  # the harness takes its files from the folder; here one more is added
    loaded.kind, loaded.workdir = kind, workdir
    from studio.plugin import ModelSpec, Plan
    from studio_pipelines.image_diffusion.family import ImageDiffusion

    spec = ModelSpec.model_validate(image_models.catalogue_entry(kind, folder))
    files = {path.name: path for path in folder.iterdir() if path.is_dir()}
    loaded.pipeline = ImageDiffusion(spec, {**files, "config": folder / "model_index.json", ROLE: checkpoint})
    loaded.pipeline.load(Plan(model=spec.id, settings=settings))
    try:
        [made] = loaded.make().pictures
        return made
    finally:
        loaded.pipeline.unload()


ON_DISK = {"precision": "fp32", "blocks": 2, "resident": 0, "disk_bytes": 1}


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_the_original_layout_is_the_same_model(kind: str, tiny_image: TinyImage, tmp_path: Path) -> None:
    """Every component of the checkpoint is used: its base has none of their weights."""
    parts = ("unet", "vae", "text_encoder", "text_encoder_2")
    base = without_weights(tiny_image(kind), tmp_path / "base", *(p for p in parts if (tiny_image(kind) / p).exists()))
    if kind == "sd":  # as the published index has it: two components that are not needed, one of no library
        index = json.loads((base / "model_index.json").read_text())
        index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
        index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
        (base / "model_index.json").write_text(json.dumps(index))
    file = original_layout.write_single(kind, tiny_image(kind), tmp_path / "model.safetensors")
    state = load_file(file)
    state["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None].half() + 0.5
    save_file(state, file)
    [wanted] = bare(image_models.load(tiny_image(kind)), kind)
    assert np.array_equal(picture(kind, base, file, tmp_path), wanted)
    assert np.array_equal(picture(kind, base, file, tmp_path, networks={"unet": ON_DISK}, free_after_use=True), wanted)


GGUF = {"z-image": ("lumina2", "Q8_0"), "qwen-image": ("qwen_image", "Q4_0")}
"""By the kind of model: the architecture that its GGUF files name, and a way of quantising."""


def authors_names(kind: str, transformer: Any) -> dict[str, torch.Tensor]:
    """Qwen-Image's authors wrote diffusers' own class."""
    return original_layout.z_image(transformer) if kind == "z-image" else dict(transformer.state_dict())


@pytest.fixture
def gguf_of(tiny_image: TinyImage, tmp_path: Path) -> Callable[[str], Path]:
    def write(kind: str) -> Path:
        from gguf import GGMLQuantizationType

        state = authors_names(kind, image_models.load(tiny_image(kind)).transformer)
        architecture, quantised = GGUF[kind]
        file = tmp_path / f"{kind}.gguf"
        return original_layout.write_gguf(state, file, architecture=architecture, kind=GGMLQuantizationType[quantised])

    return write


@pytest.fixture
def gguf_file(gguf_of: Callable[[str], Path]) -> Path:
    return gguf_of("z-image")


@pytest.mark.parametrize("kind", GGUF)
def test_a_gguf_network_is_what_its_numbers_say(
    kind: str, tiny_image: TinyImage, gguf_of: Callable[[str], Path], tmp_path: Path
) -> None:
    """Compared with the bare pipeline whose matrices went through the same 8 or 4 bits, and then 16."""
    from gguf import GGMLQuantizationType, quants

    pipe, quantised = image_models.load(tiny_image(kind)), GGMLQuantizationType[GGUF[kind][1]]
    own = authors_names(kind, pipe.transformer)
    [exact] = bare(pipe, kind)
    changed = 0
    for name, value in own.items():
        if value.ndim == 2 and value.shape[-1] % 32 == 0 and "norm" not in name:
            rounded = torch.from_numpy(quants.dequantize(quants.quantize(value.float().numpy(), quantised), quantised))
            own[name] = rounded.to(torch.bfloat16).float()
            changed += 1
    if kind == "z-image":
        from diffusers.loaders.single_file_utils import convert_z_image_transformer_checkpoint_to_diffusers as converted

        own = converted(own)
    pipe.transformer.load_state_dict(own)
    [wanted] = bare(pipe, kind)
    assert changed > 10
    base, file = without_weights(tiny_image(kind), tmp_path / "base", "transformer"), gguf_of(kind)
    made = picture(kind, base, file, tmp_path)
    assert np.array_equal(made, wanted)
    assert not np.array_equal(made, exact)
    streamed = picture(kind, base, file, tmp_path, networks={"transformer": ON_DISK})
    assert np.array_equal(streamed, wanted)


def test_numbers_of_a_gguf_are_made_one_tensor_at_a_time(
    tiny_image: TinyImage, gguf_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from studio_pipelines.image_diffusion import single_file_weights

    calls: list[int] = []
    real = single_file_weights._Dequantised._numbers
    monkeypatch.setattr(
        single_file_weights._Dequantised, "_numbers", lambda self: calls.append(self.numel()) or real(self)
    )
    transformer = image_models.load(tiny_image("z-image")).transformer
    found = SingleFile(gguf_file).weights_of("transformer", lambda: type(transformer).from_config(transformer.config))
    assert found is not None
    assert calls == []
    name = "layers.0.attention.to_k.weight"
    assert found[name].shape == (32, 32)
    assert torch.allclose(found[name].float(), transformer.state_dict()[name], atol=0.02)
    assert calls == [32 * 32]


def home_with(home: Path, *entries: dict[str, Any]) -> None:
    (home / "models.yaml").write_text(yaml.safe_dump(list(entries)))


def test_by_its_path_through_the_whole_engine(tiny_image: TinyImage, home: Path, tmp_path: Path) -> None:
    folder = tiny_image("sdxl")
    file = original_layout.write_single("sdxl", folder, tmp_path / "My Model v2.safetensors")
    [wanted] = bare(image_models.load(folder), "sdxl")
    entry = image_models.catalogue_entry("sdxl", folder)
    source = {"folder": str(tmp_path), "files": {"checkpoint": {"path": file.name}}, "licence": "unknown"}
    own = {"id": "mine", "pipeline": "image-diffusion", "base": "tiny-sdxl", "settings": {"steps": 2}, "source": source}
    home_with(home, entry, own)
    with Studio(home, executor="inline") as studio:
        spec = studio.catalogue.get(str(file))
        assert spec.id.startswith("local.my-model-v2.")
        assert spec.settings["class"] == "StableDiffusionXLPipeline"
        for model in (str(file), "mine"):
            [artefact] = studio.run(model, **request_of("sdxl"))
            assert np.array_equal(np.asarray(Image.open(artefact.path)), wanted)
            assert artefact.recipe["model"] == model


def text_gguf(path: Path) -> Path:
    from gguf import GGUFWriter

    writer = GGUFWriter(str(path), "llama")
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_chat_model_stays_one(tmp_path: Path) -> None:
    assert recognised(text_gguf(tmp_path / "chat.gguf")) is None
    assert Catalogue(Registry()).get(str(tmp_path / "chat.gguf")).pipeline == "text-llm"


def refused(catalogue: Catalogue, path: Path, says: str) -> None:
    with pytest.raises((BadRequest, BadWeights, NotFound), match=says) as caught:
        catalogue.get(str(path))
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_run_are_refused_in_one_line(
    tiny_image: TinyImage, gguf_file: Path, tmp_path: Path
) -> None:
    catalogue = Catalogue(Registry())
    image_models.write_lora("sd", tiny_image("sd"), tmp_path / "style.safetensors")
    refused(catalogue, tmp_path / "style.safetensors", "is an adapter")
    save_file({"some.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    refused(catalogue, tmp_path / "other.safetensors", "no architecture that is run from one file")
    (tmp_path / "torn.safetensors").write_bytes(struct.pack("<Q", 10**15) + b"{}")
    refused(catalogue, tmp_path / "torn.safetensors", "not a whole safetensors file")
    gguf_file.write_bytes(gguf_file.read_bytes()[:-4000])
    refused(catalogue, gguf_file, "cut short|not a whole GGUF")
    gguf_file.write_bytes(gguf_file.read_bytes()[:300])
    refused(catalogue, gguf_file, "not a whole GGUF")
    (tmp_path / "model.ckpt").write_bytes(b"\x80\x04")
    refused(catalogue, tmp_path / "model.ckpt", "no model")
    single = original_layout.write_single("sd", tiny_image("sd"), tmp_path / "odd.safetensors")
    refused(catalogue, single, "StableDiffusion model with text states of width 32; no entry .* can lend")


def test_a_base_that_is_missing_or_another_model_is_named(tiny_image: TinyImage, home: Path, tmp_path: Path) -> None:
    file = original_layout.write_single("sd", tiny_image("sd"), tmp_path / "model.safetensors")
    source = {"folder": str(tmp_path), "files": {"checkpoint": {"path": file.name}}, "licence": "unknown"}
    entry = image_models.catalogue_entry("sd", tiny_image("sd"))
    gone = {**entry, "id": "not-here", "source": {**entry["source"], "folder": str(tmp_path / "nowhere")}}
    own = {"pipeline": "image-diffusion", "source": source}
    home_with(
        home,
        image_models.catalogue_entry("sdxl", tiny_image("sdxl")),
        gone,
        {"id": "on-xl", "base": "tiny-sdxl", **own},
        {"id": "on-missing", "base": "not-here", **own},
        {"id": "on-nothing", "base": "no-such-entry", **own},
        {"id": "on-one-with-base", "base": "on-xl", **own},
    )
    with Studio(home, executor="inline") as studio:
        with pytest.raises(BadRequest, match="is a StableDiffusion model; the base of on-xl is a StableDiffusionXL"):
            studio.submit("on-xl", prompt="a cat", width=64, height=64)
        for model in ("on-missing", str(file)):  # by its path, over the only entry of its class
            with pytest.raises(MissingWeights, match="'not-here'"):
                studio.submit(model, prompt="a cat", width=64, height=64)
        for model in ("on-nothing", "on-one-with-base"):
            with pytest.raises(NotFound, match=f"The entry {model}: its base .* is no image-diffusion model by itself"):
                studio.submit(model, prompt="a cat")
        assert studio.jobs.find() == []
