"""Films of Wan and LTX-Video: every frame is the bare diffusers pipeline's, wherever the weights lie."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import film_models
import image_models
import numpy as np
import pytest
import torch
import yaml
from film_models import HEIGHT, PROMPT, SEED, WIDTH
from PIL import Image
from shape_numbers import counted

from studio import Studio
from studio.catalogue import builtin_file, read_models
from studio.film_plugin import facts
from studio.memory import networks
from studio.plugin import Artefact, BadRequest, Context, ModelSpec, Plan, Preview, Progress
from studio.torch_plugin import LATENTS
from studio_pipelines.video_diffusion import family, probes
from studio_pipelines.video_diffusion.catalogued import settings_of, shape_names, shape_of
from studio_pipelines.video_diffusion.family import VideoDiffusion
from studio_pipelines.video_diffusion.params import FilmParams

KINDS = tuple(film_models.MODELS)


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = film_models.write(kind, tmp_path_factory.mktemp("films") / kind)
        return made[kind]

    return folder


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The frames as they go to the encoder, which is not lossless."""
    frames: list[np.ndarray] = []
    real = family.write_segment

    def watched(path: Path, film: Iterator[np.ndarray], fps: int) -> Any:
        frames.extend(film)
        return real(path, iter(frames), fps)

    monkeypatch.setattr(family, "write_segment", watched)
    return frames


@pytest.fixture
def loaded(folder_of: Callable[[str], Path], tmp_path: Path) -> Iterator[Callable[..., VideoDiffusion]]:
    made: list[VideoDiffusion] = []

    def load(kind: str, settings: dict[str, Any] | None = None) -> VideoDiffusion:
        folder = folder_of(kind)
        spec = ModelSpec.model_validate(film_models.entry(kind, folder))
        files = {path.name: path for path in folder.iterdir() if path.is_dir()}
        one = VideoDiffusion(spec, {**files, "config": folder / "model_index.json"})
        one.cache = tmp_path / "cache"
        one.load(Plan(model=spec.id, settings=settings or {}))
        made.append(one)
        return one

    yield load
    for one in made:
        one.unload()


def make(one: VideoDiffusion, folder: Path, **params: Any) -> list[Any]:
    asked = FilmParams(**{"prompt": PROMPT, "seed": SEED, **params})
    one.preflight(asked)
    return list(one.generate(asked, Context(Path(tempfile.mkdtemp(dir=folder)))))


def bare(kind: str, folder: Path, pipeline: str | None = None, **more: Any) -> np.ndarray:
    model = film_models.MODELS[kind]
    pipe = image_models.load(folder, pipeline or model.pipeline)
    call = {
        "prompt": PROMPT, "width": WIDTH, "height": HEIGHT, "num_frames": model.frames, "num_inference_steps": 3,
        "max_sequence_length": 32, **model.call, **more,
    }  # fmt: skip
    film = pipe(**call, generator=torch.Generator("cpu").manual_seed(SEED), output_type="np").frames[0]
    return (film * 255).round().astype(np.uint8)


STREAMED = {"precision": "fp32", "blocks": 2, "resident": 0, "disk_bytes": 1}


def test_what_is_said_to_be_shown_is() -> None:
    """An entry whose class runs here, against the bare pipeline, is shown at tiny size."""
    ran = {model.pipeline for model in film_models.MODELS.values()}
    for spec in read_models(builtin_file()):
        if spec.pipeline == "video-diffusion":
            assert spec.proof == ("tiny" if settings_of(spec).class_name in ran else "none")


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_those_of_the_bare_pipeline(
    kind: str,
    streams: bool,
    loaded: Callable[..., VideoDiffusion],
    folder_of: Callable[[str], Path],
    written: list[np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copied = 0
    real = networks.streamed

    @contextmanager
    def watched(*args: Any, **more: Any) -> Iterator[Any]:
        nonlocal copied
        with real(*args, **more) as stream:
            yield stream
            copied += stream.copied_bytes

    monkeypatch.setattr(networks, "streamed", watched)
    wanted = bare(kind, folder_of(kind), negative_prompt="the sea")
    plan = {"networks": {"transformer": STREAMED, "text_encoder": STREAMED}, "free_after_use": True}
    one = loaded(kind, plan if streams else None)
    events = make(one, tmp_path, negative_prompt="the sea")
    assert (copied > 0) is streams, "streaming did not happen as planned"
    assert wanted.shape == (film_models.MODELS[kind].frames, HEIGHT, WIDTH, 3)
    assert np.array_equal(np.stack(written), wanted)
    [artefact] = [event for event in events if isinstance(event, Artefact)]
    found = facts(Path(artefact.path))
    assert (found.frames, found.width, found.height, found.fps) == (len(wanted), WIDTH, HEIGHT, 8)
    told = [event for event in events if isinstance(event, Progress)]
    assert [event.phase for event in told[:3]] == ["encode", "encode", "denoise"] and not told[1].remembered
    again = make(one, tmp_path, negative_prompt="the sea")
    assert [event.remembered for event in again if isinstance(event, Progress) and event.phase == "encode"][-1]
    assert np.array_equal(np.stack(written[len(wanted) :]), wanted), "words that are remembered make the same film"
    written.clear()
    make(one, tmp_path, negative_prompt="the sea")
    assert np.array_equal(np.stack(written), wanted), "the second film of a loaded model differs"


def test_a_film_that_begins_with_a_picture(
    loaded: Callable[..., VideoDiffusion],
    folder_of: Callable[[str], Path],
    written: list[np.ndarray],
    tmp_path: Path,
) -> None:
    upright = Image.fromarray(np.random.default_rng(3).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8))
    picture, exif = tmp_path / "first.png", Image.Exif()
    exif[0x0112] = 6  # as a telephone keeps it: on its side, with a note of how to turn it
    upright.transpose(Image.Transpose.ROTATE_90).save(picture, exif=exif)
    wanted = bare("ltx", folder_of("ltx"), "LTXImageToVideoPipeline", image=upright)
    make(loaded("ltx"), tmp_path, image=picture)
    assert np.array_equal(np.stack(written), wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_crash_only_the_decoding_is_repeated(
    kind: str, loaded: Callable[..., VideoDiffusion], written: list[np.ndarray], tmp_path: Path
) -> None:
    one = loaded(kind)
    make(one, tmp_path)
    wanted = np.stack(written)
    written.clear()
    vae = one._model.networks["vae"]
    decode = vae.decode

    def crash(*args: Any, **more: Any) -> Any:
        raise RuntimeError("the driver died")

    vae.decode = crash
    asked, folder = FilmParams(prompt=PROMPT, seed=SEED), tmp_path / "job"
    folder.mkdir()
    with pytest.raises(RuntimeError, match="the driver died"):
        list(one.generate(asked, Context(folder)))
    assert (folder / LATENTS).is_file()
    vae.decode = decode
    events = list(one.generate(asked, Context(folder, attempt=2)))
    assert "denoise" not in [event.phase for event in events if isinstance(event, Progress)]
    assert np.array_equal(np.stack(written), wanted)
    assert not (folder / LATENTS).exists()


@pytest.mark.parametrize("kind", KINDS)
def test_previews_from_the_second_film_on(kind: str, loaded: Callable[..., VideoDiffusion], tmp_path: Path) -> None:
    one = loaded(kind)
    shown = [
        [event for event in make(one, tmp_path, preview_every=1, seed=seed) if isinstance(event, Preview)]
        for seed in (1, 2)
    ]
    assert [len(previews) for previews in shown] == [0, 2]
    with Image.open(shown[1][-1].path) as image:
        assert image.size == (WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("kind", "params", "says"),
    [
        ("wan", {"width": 72}, "72×64 pixels; tiny-wan needs multiples of 16"),
        ("ltx", {"height": 80}, "64×80 pixels; tiny-ltx needs multiples of 32"),
        ("wan", {"width": 2048, "height": 2048}, "makes 921,600 pixels a frame at most"),
        ("wan", {"seconds": 30}, "are 241 frames; tiny-wan makes 33 at most"),
        ("wan", {"image": "first.png"}, "takes no picture to begin with"),
        ("ltx", {"image": "first.png"}, "first.png is a broken picture"),
        ("wan", {"max_sequence_length": 64}, "reads at most 32 tokens"),
        ("wan", {"guidance_scale": 1.0, "negative_prompt": "x"}, "needs guidance above 1"),
    ],
)
def test_what_a_model_cannot_do_is_refused(
    kind: str, params: dict[str, Any], says: str, loaded: Callable[..., VideoDiffusion], tmp_path: Path
) -> None:
    (tmp_path / "first.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    if "image" in params:
        params = {**params, "image": tmp_path / params["image"]}
    with pytest.raises(BadRequest, match=says) as caught:
        make(loaded(kind), tmp_path, **params)
    assert "\n" not in str(caught.value)


def test_seconds_become_the_nearest_number_of_frames(loaded: Callable[..., VideoDiffusion], tmp_path: Path) -> None:
    events = make(loaded("wan"), tmp_path, seconds=0.6, steps=1, format="gif")
    [artefact] = [event for event in events if isinstance(event, Artefact)]
    assert (artefact.info["frames"], artefact.info["fps"], artefact.media_type) == (5, 8, "image/gif")


def test_through_the_whole_engine(home: Path, folder_of: Callable[[str], Path]) -> None:
    """Catalogue entry, planner, queue and store, with the plan that the engine itself makes for this machine."""
    (home / "models.yaml").write_text(yaml.safe_dump([film_models.entry("wan", folder_of("wan"))]))
    with Studio(home, executor="inline") as studio:
        [made] = studio.run("tiny-wan", prompt=PROMPT, seed=SEED)
        assert facts(Path(made.path)).frames == 9
        again = studio.run("tiny-wan", **made.recipe["params"])
        assert again[0].content_sha256 == made.content_sha256


def test_every_parameter_is_named_in_french() -> None:
    words = yaml.safe_load(Path(family.__file__).with_name("fr.yaml").read_text(encoding="utf-8"))
    assert set(words) == set(FilmParams.model_fields)
    assert all(set(word) == {"label", "description"} for word in words.values())


SPECS = {spec.id: spec for spec in read_models(builtin_file()) if spec.pipeline == "video-diffusion"}


def test_every_shape_is_used_and_is_that_of_its_class() -> None:
    assert {name for spec in SPECS.values() for name in settings_of(spec).networks.values()} == set(shape_names())
    for name in shape_names():
        shape = shape_of(name)
        assert (shape.params, shape.blocks) == counted(shape.class_name, shape.config, streams=shape.streams)
    billions = {"wan2.1-1.3b": 1.42, "umt5-xxl": 5.68, "t5-xxl": 4.76, "ltx-video": 1.92}  # as published
    assert {name: shape_of(name).params / 1e9 for name in billions} == pytest.approx(billions, rel=0.01)


@pytest.mark.parametrize("name", SPECS)
def test_an_entry_is_sound_and_planned(name: str) -> None:
    spec = SPECS[name]
    settings = settings_of(spec)
    shapes = {part: shape_of(shape) for part, shape in settings.networks.items()}
    assert {part: (found.class_name, found.params) for part, found in spec.components.items()} == {
        part: (shape.class_name, shape.params) for part, shape in shapes.items()
    }
    assert spec.source is not None and {"config", "scheduler", "tokenizer", *shapes} == set(spec.source.files)
    made = VideoDiffusion(spec, None).footprint(FilmParams(prompt="x"))
    assert [stage.name for stage in made.stages] == ["encode", "denoise", "decode"]
    denoise = made.stages[1]
    assert denoise.calls == settings.steps * (2 if not settings.row.together else 1)
    [block] = denoise.variants[0].probes
    count, down, across = (settings.frames - 1) // settings.row.frames + 1, settings.size[1], settings.size[0]
    assert block.arguments["seen"] == count * (down // settings.row.multiple) * (across // settings.row.multiple)
    assert [variant.name for variant in made.stages[2].variants] == [
        "whole",
        "tiles of 512",
        "tiles of 256",
        "tiles of 128",
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_probes_are_of_the_shapes_that_the_networks_get(
    kind: str, folder_of: Callable[[str], Path], loaded: Callable[..., VideoDiffusion], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    """What a block of the tiny model is really called with, against what its probe says."""
    one = loaded(kind)
    network: Any = one._model.networks["transformer"]
    seen: list[Any] = []
    blocks = network.blocks if hasattr(network, "blocks") else network.transformer_blocks
    blocks[0].register_forward_pre_hook(lambda _, args, more: seen.append((*args, *more.values())), with_kwargs=True)
    make(one, tmp_path, steps=1)
    denoise = one.footprint(FilmParams(prompt=PROMPT)).stages[1]
    [probe] = denoise.variants[0].probes
    _, wanted = getattr(probes, probe.make.rpartition(":")[2])(**probe.arguments)
    real = [tuple(value.shape) for value in seen[0][:3]]
    assert real == [tuple(value.shape) for value in wanted[:3]]
    assert [tuple(t.shape) for t in seen[0][3]] == [tuple(t.shape) for t in wanted[3]]
