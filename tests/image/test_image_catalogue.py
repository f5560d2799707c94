"""The image entries of ``models.yaml``: their settings are sound, and their numbers are those of the real classes."""

from __future__ import annotations

from typing import Any

import image_models
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shape_numbers import counted, in_buffers

from studio.catalogue import builtin_file, read_models
from studio.plugin import BadRequest, ModelSpec
from studio_pipelines.image_diffusion.catalogued import (
    MAX_PIXELS,
    ImageSettings,
    settings_of,
    shape_names,
    shape_of,
)  # fmt: skip
from studio_pipelines.image_diffusion.classes import CLASSES
from studio_pipelines.image_diffusion.sizes import (
    buckets,
    check_size,
    nearest_bucket,
    nearest_sizes,
    size_like,
)  # fmt: skip

SPECS = {spec.id: spec for spec in read_models(builtin_file()) if spec.pipeline == "image-diffusion"}
each = pytest.mark.parametrize("spec", SPECS.values(), ids=lambda spec: spec.id)


def entry(settings: dict[str, Any], defaults: dict[str, Any] | None = None) -> ModelSpec:
    return ModelSpec(id="a-model", pipeline="image-diffusion", settings=settings, defaults=defaults or {})


@pytest.mark.parametrize("name", shape_names())
def test_a_shape_is_that_of_its_class(name: str) -> None:
    shape = shape_of(name)
    params, blocks = counted(shape.class_name, shape.config, streams=shape.streams)
    assert shape.params == params
    assert shape.blocks == blocks
    assert shape.buffers == in_buffers(shape.class_name, shape.config)
    assert sum(block.params * block.count for block in blocks) <= params
    assert shape.source


def test_every_shape_is_used() -> None:
    used = {name for spec in SPECS.values() for name in settings_of(spec).networks.values()}
    assert used == set(shape_names())


@each
def test_what_is_said_to_be_shown_is(spec: ModelSpec) -> None:
    """An entry whose class runs in ``test_parity.py``, against the bare pipeline, is shown at tiny size."""
    if spec.proof != "weights":
        ran = settings_of(spec).class_name in {model.pipeline for model in image_models.MODELS.values()}
        assert spec.proof == ("tiny" if ran else "none")


@each
def test_an_entry_is_sound(spec: ModelSpec) -> None:
    made = settings_of(spec)
    assert spec.defaults["steps"] == made.steps
    assert spec.defaults["guidance_scale"] == made.guidance
    assert CLASSES[made.class_name].denoiser in made.networks
    assert made.networks["vae"]
    check_size(*made.size, made, spec.id)
    for size in buckets(made):
        check_size(*size, made, spec.id)
        assert size[0] * size[1] == pytest.approx(made.size[0] * made.size[1], rel=0.15)
    assert made.steps_of(None, spec.id) == made.steps
    assert made.guidance_of(spec.defaults["guidance_scale"], spec.id) == made.guidance


@each
def test_components_are_those_of_the_shapes(spec: ModelSpec) -> None:
    shapes = {name: shape_of(shape) for name, shape in settings_of(spec).networks.items()}
    assert list(spec.components) == list(shapes)
    for name, component in spec.components.items():
        assert (component.class_name, component.params) == (shapes[name].class_name, shapes[name].params)
        assert list(component.bytes.values()) == [2 * component.params]


@each
def test_every_folder_of_a_network_is_asked_for(spec: ModelSpec) -> None:
    assert spec.source is not None
    assert {"config", "scheduler", *spec.components} <= set(spec.source.files)
    texts = [name for name in spec.components if name.startswith("text_encoder")]
    assert {name.replace("text_encoder", "tokenizer") for name in texts} <= set(spec.source.files)
    for role, file in spec.source.files.items():
        folder = role.removesuffix("_weights")  # files of our own are pinned one by one beside their folder
        assert role == "config" or file.path.rsplit("/", 1)[0].endswith(folder)


def test_published_sizes() -> None:
    """Parameters that the makers or the papers name, in billions."""
    known = {
        "flux-1": 11.9, "t5-xxl": 4.76, "sdxl": 2.567, "qwen-image": 20.4, "chroma": 8.9, "z-image": 6.15,
        "sana-sprint-1.6b": 1.6, "gemma-2-2b": 2.61, "qwen3-4b": 4.02, "qwen2.5-vl-7b": 8.29, "sd3.5-medium": 2.24,
        "sd1.5": 0.8595,
    }  # fmt: skip
    for name, billions in known.items():
        assert shape_of(name).params / 1e9 == pytest.approx(billions, rel=0.01), name


def test_16_bit_files_are_chosen_where_both_precisions_lie_there() -> None:
    from studio.download.choose import choose

    source = SPECS["sdxl"].source
    assert source is not None
    there = [f"{folder}/{name}" for folder in ("unet", "vae", "text_encoder", "text_encoder_2") for name in (
        "config.json", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors",
        "model.safetensors", "model.fp16.safetensors", "model.onnx", "flax_model.msgpack",
    )]  # fmt: skip
    rest = ["model_index.json", "tokenizer/vocab.json", "tokenizer_2/vocab.json", "scheduler/scheduler_config.json"]
    unet = [one.path for one in choose(source, [*there, *rest], "the page") if one.role == "unet"]
    names = ["config.json", "diffusion_pytorch_model.fp16.safetensors", "model.fp16.safetensors"]
    assert unet == [f"unet/{name}" for name in names]


def test_of_stable_diffusion_1_5_neither_pickles_nor_other_averages_are_taken() -> None:
    from studio.download.choose import choose

    source = SPECS["stable-diffusion-1.5"].source
    assert source is not None
    kinds = ("bin", "fp16.bin", "fp16.safetensors", "non_ema.bin", "non_ema.safetensors", "safetensors")
    there = [f"unet/diffusion_pytorch_model.{kind}" for kind in kinds]
    there += [
        f"{folder}/{name}" for folder in ("vae", "text_encoder") for name in ("config.json", "x.fp16.safetensors")
    ]
    there += ["model_index.json", "unet/config.json", "tokenizer/vocab.json", "scheduler/scheduler_config.json"]
    unet = [one.path for one in choose(source, there, "the page") if one.role == "unet"]
    assert sorted(unet) == ["unet/config.json", "unet/diffusion_pytorch_model.fp16.safetensors"]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"colour": "red"}, "settings.colour"),
        ({"class": "NoSuchPipeline"}, "settings.class"),
        ({"class": 7}, "settings.class"),
        ({"multiple": 0}, "settings.multiple"),
        ({"size": [1000, 1000]}, "settings.size"),
        ({"min_side": 5000}, "settings.min_side"),
        ({"size": [1024]}, "settings.size"),
        ({"buckets": [[8192, 8192]]}, "settings.size"),
        ({"steps": 9, "max_steps": 8}, "settings.steps"),
        ({"guided": "maybe"}, "settings.guided"),
        ({"networks": {"vae": "no-such-shape"}}, "settings.networks"),
        ({"networks": {"vae": "../../secret"}}, "settings.networks"),
    ],
)
def test_a_bad_entry_is_named_in_one_line(change: dict[str, Any], place: str) -> None:
    good = {"class": "FluxPipeline", "size": [1024, 1024], "multiple": 16, "steps": 4, "guidance": 0.0}
    assert settings_of(entry(good)).steps == 4
    with pytest.raises(BadRequest) as caught:
        settings_of(entry({**good, **change}))
    assert caught.value.what.startswith("The catalogue entry a-model: ")
    assert place in caught.value.what
    assert "\n" not in caught.value.what


def test_an_entry_may_leave_out_nearly_all() -> None:
    made = settings_of(entry({"class": "FluxPipeline"}, {"steps": 7, "guidance_scale": 2.5}))
    assert (made.steps, made.guidance, made.size) == (7, 2.5, (1024, 1024))
    with pytest.raises(BadRequest, match=r"a-model: settings.class: Field required"):
        settings_of(entry({}))


def test_a_distilled_model_refuses_other_steps_and_guidance() -> None:
    made = settings_of(SPECS["flux.2-klein-4b"])
    assert made.steps_of(8, "klein") == 8
    with pytest.raises(BadRequest, match=r"--steps is 50; klein takes 1 to 8\.") as caught:
        made.steps_of(50, "klein")
    assert caught.value.hint == "Leave it out for 4."
    with pytest.raises(BadRequest, match=r"--guidance-scale is 3.5; klein is distilled and only works with 1\."):
        made.guidance_of(3.5, "klein")
    free = settings_of(SPECS["sdxl"])
    assert (free.steps_of(150, "sdxl"), free.guidance_of(9.0, "sdxl")) == (150, 9.0)


# -- sizes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "line"),
    [
        (
            (1000, 600),
            "1000×600 pixels: m needs multiples of 16. Nearest: --width 992 --height 592 or --width 1008 --height 608.",
        ),
        (
            (8192, 4096),
            "8192×4096 pixels are 33.6 megapixels; m makes 16.8 at most. Nearest: --width 5792 --height 2896.",
        ),
        ((32, 512), "32×512 pixels: m makes 64 at least on each side. Nearest: --width 64 --height 512."),
    ],
)
def test_a_size_that_cannot_be_made_is_answered_with_the_nearest(size: tuple[int, int], line: str) -> None:
    with pytest.raises(BadRequest) as caught:
        check_size(*size, ImageSettings(class_name="FluxPipeline"), "m")
    assert f"{caught.value.what} {caught.value.hint}" == line


def test_the_longest_side_is_the_models_own() -> None:
    with pytest.raises(BadRequest, match=r"8000×512 pixels: sd makes 6144 at most on each side\.") as caught:
        check_size(8000, 512, settings_of(SPECS["stable-diffusion-3.5-medium"]), "sd")
    assert caught.value.hint == "Nearest: --width 6144 --height 512."


@st.composite
def models(draw: st.DrawFn) -> ImageSettings:
    multiple = draw(st.sampled_from([1, 8, 16, 32, 64]))
    side = multiple * draw(st.integers(max(1, 64 // multiple), 2048 // multiple))
    return ImageSettings(
        class_name="FluxPipeline", size=(max(64, side), max(64, side)), multiple=multiple,
        min_side=draw(st.sampled_from([16, 64, 256])), max_pixels=draw(st.sampled_from([2**21, MAX_PIXELS])),
        max_side=draw(st.sampled_from([1000, 6144, 8192])),
    )  # fmt: skip


@settings(max_examples=300, deadline=None, database=None)
@given(model=models(), width=st.integers(16, 8192), height=st.integers(16, 8192))
def test_whatever_is_proposed_can_be_made(model: ImageSettings, width: int, height: int) -> None:
    for size in (*nearest_sizes(width, height, model), size_like(width, height, model)):
        check_size(*size, model, "m")
    try:
        check_size(width, height, model, "m")
    except BadRequest:
        return
    assert nearest_sizes(width, height, model) == [(width, height)]


def test_a_picture_keeps_its_shape_at_the_models_own_number_of_pixels() -> None:
    made = settings_of(SPECS["flux.1-schnell"])
    assert size_like(4000, 3000, made) == (1184, 880)  # a photograph of 12 megapixels
    assert size_like(1024, 768, made) == (1024, 768)  # within what the model is good at
    assert size_like(100, 100, made) == (720, 720)  # half of its pixels
    assert size_like(64, 64, settings_of(SPECS["starter-image"])) == (64, 64)


def test_the_nearest_bucket_is_the_one_of_the_same_shape() -> None:
    sdxl, flux = settings_of(SPECS["sdxl"]), settings_of(SPECS["flux.1-schnell"])
    assert nearest_bucket(1920, 1080, sdxl) == (1344, 768)
    assert nearest_bucket(1080, 1920, sdxl) == (768, 1344)
    assert nearest_bucket(500, 500, flux) == (1024, 1024)
    wide, high = nearest_bucket(16, 9, flux)
    assert wide / high == pytest.approx(16 / 9, rel=0.02)
