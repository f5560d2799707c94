"""The engine changes where weights lie and nothing else: every pixel is that of the bare diffusers pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import image_models
import numpy as np
import pytest
import torch
import yaml
from image_harness import PROMPT, SEED, Loaded, bare, half_mask, request_of, source_picture
from PIL import Image

from studio import Studio
from studio.memory import networks
from studio_pipelines.image_diffusion.classes import CLASSES
from studio_pipelines.image_diffusion.params import SchedulerName

TinyImage = Callable[[str], Path]
Load = Callable[..., Loaded]

FROM_WORDS = [kind for kind, model in image_models.MODELS.items() if CLASSES[model.pipeline].text]
FROM_PICTURE = [kind for kind, model in image_models.MODELS.items() if CLASSES[model.pipeline].image]
FILLING_IN = [kind for kind, model in image_models.MODELS.items() if CLASSES[model.pipeline].inpaint]
EDITING = [kind for kind, model in image_models.MODELS.items() if CLASSES[model.pipeline].edit]


def streamed_settings(folder: Path, resident: int) -> dict[str, Any]:
    """A plan's settings by which every network stays on the disk, but for ``resident`` of its blocks."""
    network = {"precision": "fp32", "blocks": 2, "resident": resident, "disk_bytes": 1}
    parts = [path.name for path in folder.iterdir() if list(path.glob("*.safetensors"))]
    return {"networks": dict.fromkeys(parts, network), "free_after_use": True}


PLANS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "resident": lambda folder: {},
    "one at a time": lambda folder: {"free_after_use": True},
    "no block resident": lambda folder: streamed_settings(folder, 0),
    "one block resident": lambda folder: streamed_settings(folder, 1),
    "all blocks resident": lambda folder: streamed_settings(folder, 1000),
}


@pytest.fixture
def load(tiny_image: TinyImage, tmp_path: Path) -> Iterator[Load]:
    """Load a kind as one of ``PLANS`` says; everything is unloaded after the test."""
    loaded: list[Loaded] = []

    def do(kind: str, plan: str = "resident", **more: Any) -> Loaded:
        folder = tiny_image(kind)
        loaded.append(Loaded(kind, folder, tmp_path, PLANS[plan](folder), **more))
        return loaded[-1]

    yield do
    for one in loaded:
        one.pipeline.unload()


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every stream that the engine opened, with what it copied."""
    streams: list[Any] = []
    real = networks.streamed

    class Watched:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.manager = real(*args, **kwargs)

        def __enter__(self) -> Any:
            streams.append(self.manager.__enter__())
            return streams[-1]

        def __exit__(self, *error: Any) -> Any:
            return self.manager.__exit__(*error)

    monkeypatch.setattr(networks, "streamed", Watched)
    return streams


def generators(count: int) -> list[torch.Generator]:
    """One for each picture of a batch, each seed one more than the last."""
    return [torch.Generator("cpu").manual_seed(SEED + number) for number in range(count)]


FEW = ("resident", "no block resident")
PLANNED = [(kind, plan) for kind in FROM_WORDS for plan in (PLANS if kind in ("sdxl", "flux", "z-image") else FEW)]
"""Every plan for a UNet, for two kinds of blocks and for one; the two ends for the rest."""


@pytest.mark.parametrize(("kind", "plan"), PLANNED)
def test_from_words(kind: str, plan: str, load: Load, tiny_image: TinyImage, copied: list[Any]) -> None:
    [wanted] = bare(image_models.load(tiny_image(kind)), kind)
    loaded = load(kind, plan)
    [made] = loaded.make().pictures
    assert np.array_equal(made, wanted)
    streams = plan in ("no block resident", "one block resident")
    assert (sum(stream.copied_bytes for stream in copied) > 0) is streams, "streaming did not happen as planned"
    [again] = loaded.make().pictures
    assert np.array_equal(again, wanted), "the second picture of a loaded model differs"


@pytest.mark.parametrize("kind", FROM_WORDS)
def test_the_same_words_with_another_seed(kind: str, load: Load, tiny_image: TinyImage) -> None:
    """No text encoder is asked again, and the picture is the one that it would have been; other words are read."""
    pipe = image_models.load(tiny_image(kind))
    wanted = [bare(pipe, kind, generator=torch.Generator("cpu").manual_seed(seed))[0] for seed in (SEED, SEED + 1)]
    loaded = load(kind, "no block resident")
    asked = watch_encoders(loaded)
    made = [loaded.make(seed=seed) for seed in (SEED, SEED + 1)]
    assert all(np.array_equal(one.pictures[0], picture) for one, picture in zip(made, wanted, strict=True))
    first = dict(asked)
    assert first and all(first.values()), "a text encoder was never asked"
    told = [[event.remembered for event in one.events if event.event == "progress" and event.done] for one in made]
    assert not any(told[0]) and told[1][0] and not any(told[1][2:])
    loaded.make(prompt=f"{PROMPT} and a dog")
    assert all(asked[name] > count for name, count in first.items())


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
@pytest.mark.parametrize("prompt", ["a (red:1.4) cat", "a red cat on the sea " * 40])
def test_words_with_weight_and_long_ones_are_remembered_too(kind: str, prompt: str, load: Load) -> None:
    wanted = [load(kind).make(prompt=prompt, seed=seed).pictures[0] for seed in (SEED, SEED + 1)]
    loaded = load(kind, "no block resident")
    asked = watch_encoders(loaded)
    first, second = (loaded.make(prompt=prompt, seed=seed) for seed in (SEED, SEED + 1))
    assert np.array_equal(first.pictures[0], wanted[0]) and np.array_equal(second.pictures[0], wanted[1])
    assert first.artefacts and asked and all(asked.values())
    calls = dict(asked)
    told = [
        [event.remembered for event in one.events if event.event == "progress" and event.done]
        for one in (first, second)
    ]
    assert not any(told[0]) and told[1][0]
    loaded.make(prompt=prompt, prompt_weighting=False, seed=SEED + 2)
    assert (asked == calls) is False, "without weights the words are others"
    calls = dict(asked)
    loaded.make(prompt=prompt, seed=SEED + 3)
    assert asked == calls


def watch_encoders(loaded: Loaded) -> dict[str, int]:
    """How often each text encoder is called from now on."""
    networks = loaded.pipeline.model.networks
    calls = {name: 0 for name in networks if name.startswith("text_encoder")}
    for name in calls:
        networks[name].register_forward_pre_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    return calls


@pytest.mark.parametrize("plan", ["resident", "no block resident"])
@pytest.mark.parametrize("kind", FROM_WORDS)
def test_a_batch_of_two(kind: str, plan: str, load: Load, tiny_image: TinyImage) -> None:
    wanted = bare(image_models.load(tiny_image(kind)), kind, num_images_per_prompt=2, generator=generators(2))
    made = load(kind, plan).make(num_images=2)
    assert np.array_equal(made.pictures, wanted)
    assert [artefact.info["seed"] for artefact in made.artefacts] == [SEED, SEED + 1]
    assert not np.array_equal(*made.pictures)


@pytest.mark.parametrize("plan", ["resident", "one block resident"])
@pytest.mark.parametrize("kind", FROM_PICTURE)
def test_from_a_picture(kind: str, plan: str, load: Load, tiny_image: TinyImage, tmp_path: Path) -> None:
    source = source_picture(tmp_path / "source.png")
    pipe = image_models.load(tiny_image(kind), CLASSES[image_models.MODELS[kind].pipeline].image)
    [wanted] = bare(pipe, kind, image=Image.open(source), strength=0.7)
    [made] = load(kind, plan).make(image=source, strength=0.7, mode="image").pictures
    assert np.array_equal(made, wanted)


@pytest.mark.parametrize("plan", ["resident", "one block resident"])
@pytest.mark.parametrize("kind", FILLING_IN)
def test_filling_in(kind: str, plan: str, load: Load, tiny_image: TinyImage, tmp_path: Path) -> None:
    """What is new is diffusers' own picture; what was to stay is the given picture, to the bit."""
    source, mask = source_picture(tmp_path / "source.png"), half_mask(tmp_path / "mask.png")
    pipe = image_models.load(tiny_image(kind), CLASSES[image_models.MODELS[kind].pipeline].inpaint)
    given = {"image": Image.open(source), "mask_image": Image.open(mask), "strength": 0.9}
    [wanted] = bare(pipe, kind, **given)
    [made] = load(kind, plan).make(image=source, mask_image=mask, strength=0.9).pictures
    middle, seam = image_models.SIZE // 2, 4
    assert np.array_equal(made[:, middle + seam :], wanted[:, middle + seam :])
    assert np.array_equal(made[:, : middle - seam], np.asarray(Image.open(source))[:, : middle - seam])


@pytest.mark.parametrize("plan", ["resident", "one block resident"])
@pytest.mark.parametrize("kind", EDITING)
def test_editing(kind: str, plan: str, load: Load, tiny_image: TinyImage, tmp_path: Path) -> None:
    source = source_picture(tmp_path / "source.png")
    [wanted] = bare(image_models.load(tiny_image(kind)), kind, image=Image.open(source))
    [made] = load(kind, plan).make(image=source).pictures
    assert np.array_equal(made, wanted)


@pytest.mark.parametrize("kind", FILLING_IN)
def test_outpainting(kind: str, load: Load, tiny_image: TinyImage, tmp_path: Path) -> None:
    """To the right and above: the picture on a larger canvas, its edge drawn outward, and a mask of what is new."""
    size = image_models.SIZE
    source = source_picture(tmp_path / "source.png")
    canvas = np.pad(np.asarray(Image.open(source)), ((size, 0), (0, size), (0, 0)), mode="edge")
    mask = np.full((2 * size, 2 * size), 255, np.uint8)
    mask[size:, :size] = 0
    pipe = image_models.load(tiny_image(kind), CLASSES[image_models.MODELS[kind].pipeline].inpaint)
    given = {"image": Image.fromarray(canvas), "mask_image": Image.fromarray(mask), "strength": 1.0}
    [wanted] = bare(pipe, kind, **given, width=2 * size, height=2 * size)
    asked = {"image": source, "expand_right": size, "expand_top": size, "width": 2 * size, "height": 2 * size}
    [made] = load(kind, "no block resident").make(**asked, strength=1.0).pictures
    seam = 4
    assert np.array_equal(made[: size - seam], wanted[: size - seam])
    assert np.array_equal(made[:, size + seam :], wanted[:, size + seam :])
    assert np.array_equal(made[size + seam :, : size - seam], canvas[size + seam :, : size - seam])


@pytest.mark.parametrize("kind", ["sd", "sdxl", "sd3", "chroma", "qwen-image"])
def test_a_negative_prompt(kind: str, load: Load, tiny_image: TinyImage) -> None:
    """Guided by what not to see; Qwen-Image calls it true classifier-free guidance."""
    pipe = image_models.load(tiny_image(kind))
    wanted = bare(pipe, kind, negative_prompt="the sea", num_images_per_prompt=2, generator=generators(2))
    loaded = load(kind, "no block resident")
    assert np.array_equal(loaded.make(negative_prompt="the sea", num_images=2).pictures, wanted)
    assert not np.array_equal(loaded.make().pictures[0], wanted[0])


SCHEDULERS = {
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "ddim": ("DDIMScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "dpm++-sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
}


def test_every_scheduler(load: Load, tiny_image: TinyImage) -> None:
    """One loaded model, from one sampler to the next and back to its own."""
    import diffusers

    pipe = image_models.load(tiny_image("sd"))
    own = pipe.scheduler.config
    loaded = load("sd")
    assert {"auto", *SCHEDULERS} == set(get_args(SchedulerName))
    found = {}
    for name, (kind, options) in SCHEDULERS.items():
        pipe.scheduler = getattr(diffusers, kind).from_config(own, **options)
        [wanted] = bare(pipe, "sd", num_inference_steps=5)
        [made] = loaded.make(scheduler=name, steps=5).pictures
        assert np.array_equal(made, wanted), name
        found[name] = made.tobytes()
    assert len(set(found.values())) == len(found)
    assert loaded.make(steps=5).pictures[0].tobytes() == found["ddim"], "the model's own"


def test_the_scheduler_of_a_flow_model(load: Load) -> None:
    loaded = load("flux")
    assert np.array_equal(loaded.make(scheduler="euler").pictures[0], loaded.make().pictures[0])


@pytest.mark.parametrize("plan", ["resident", "no block resident"])
@pytest.mark.parametrize("kind", FROM_WORDS)
def test_a_lora_and_none_after_it(kind: str, plan: str, load: Load, tiny_image: TinyImage, tmp_path: Path) -> None:
    folder, adapters = tiny_image(kind), tmp_path / "loras"
    adapters.mkdir()
    file = image_models.write_lora(kind, folder, adapters / "style.safetensors")
    pipe = image_models.load(folder)
    [plain] = bare(pipe, kind)
    pipe.load_lora_weights(file, adapter_name="style")
    pipe.set_adapters(["style"], [0.5])
    [half] = bare(pipe, kind)
    pipe.set_adapters(["style"], [1.0])
    [whole] = bare(pipe, kind)
    assert len({picture.tobytes() for picture in (plain, half, whole)}) == 3

    loaded = load(kind, plan, adapters=adapters)
    for names, wanted in ((["style"], whole), ([], plain), (["style:0.5"], half), (["style:1"], whole)):
        [made] = loaded.make(lora=names).pictures
        assert np.array_equal(made, wanted), f"other pixels with the adapters {names}"


@pytest.mark.parametrize("kind", FROM_WORDS)
def test_through_the_whole_engine(kind: str, home: Path, tiny_image: TinyImage) -> None:
    """Catalogue entry, planner, queue and store, with the plan that the engine itself makes for this machine."""
    folder = tiny_image(kind)
    (home / "models.yaml").write_text(yaml.safe_dump([image_models.catalogue_entry(kind, folder)]))
    [wanted] = bare(image_models.load(folder), kind)
    with Studio(home, executor="inline") as studio:
        [artefact] = studio.run(f"tiny-{kind}", **request_of(kind))
        assert np.array_equal(np.asarray(Image.open(artefact.path)), wanted)
    assert artefact.recipe["params"]["prompt"] == PROMPT
