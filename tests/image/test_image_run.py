"""What a request does besides its pixels: nothing is lost, cancelling works, previews come, the recipe is inside."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import image_models
import numpy as np
import pytest
import torch
import yaml
from image_harness import Loaded, half_mask, request_of, source_picture
from PIL import Image

from studio import Studio
from studio.errors import Cancelled
from studio.plugin import Context, Note, Preview, Progress
from studio.store.artefacts import recipe_path
from studio.store.embed import embed, embedded
from studio.torch_plugin import LATENTS
from studio_pipelines.image_diffusion.params import ImageParams

TinyImage = Callable[[str], Path]


@pytest.fixture
def loaded(tiny_image: TinyImage, tmp_path: Path) -> Any:
    one = Loaded("sd", tiny_image("sd"), tmp_path, {"free_after_use": True})
    one.pipeline.cache = tmp_path / "cache"
    yield one
    one.pipeline.unload()


def phases(events: list[Any]) -> list[str]:
    return [event.phase for event in events if isinstance(event, Progress)]


def test_after_a_crash_in_the_decoder_only_the_decoding_is_repeated(loaded: Loaded, tmp_path: Path) -> None:
    """Also for a batch, and the pictures are those of an undisturbed run."""
    request = ImageParams(**{**request_of("sd"), "num_images": 2})
    wanted = loaded.make(num_images=2).pictures
    context = Context(tmp_path)
    vae = loaded.pipeline._model.networks["vae"]
    decode = vae.decode

    def crash(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("the driver died")

    vae.decode = crash
    with pytest.raises(RuntimeError, match="the driver died"):
        list(loaded.pipeline.generate(request, context))
    assert (tmp_path / LATENTS).is_file()
    vae.decode = decode

    events = list(loaded.pipeline.generate(request, Context(tmp_path, attempt=2)))
    assert "denoise" not in phases(events)
    made = [np.asarray(Image.open(event.path)) for event in events if event.event == "artefact"]
    assert np.array_equal(made, wanted)
    assert not (tmp_path / LATENTS).exists()


def test_latents_that_cannot_be_read_are_made_again(loaded: Loaded, tmp_path: Path) -> None:
    (tmp_path / LATENTS).write_bytes(b'\x08\0\0\0\0\0\0\0{"a": 1')
    events = list(loaded.pipeline.generate(ImageParams(**request_of("sd")), Context(tmp_path)))
    assert "denoise" in phases(events)
    assert events[-1].event == "artefact"


def test_cancelled_between_steps_nothing_stays_on_the_device(loaded: Loaded, tmp_path: Path) -> None:
    steps: list[float] = []
    context = Context(tmp_path, cancelled=lambda: len(steps) >= 2)
    with pytest.raises(Cancelled):
        for event in loaded.pipeline.generate(ImageParams(**{**request_of("sd"), "steps": 10}), context):
            if isinstance(event, Progress) and event.phase == "denoise":
                steps.append(event.done)
    assert len(steps) < 10
    assert loaded.pipeline._model.networks.on_device == []
    assert loaded.make().pictures


def test_out_of_memory_in_a_step_repeats_that_step_and_says_so(loaded: Loaded) -> None:
    wanted = loaded.make(steps=3).pictures
    block = loaded.pipeline._model.networks["unet"].mid_block
    forward, calls = block.forward, list[int]()

    def short(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. (raised by the test)")
        return forward(*args, **kwargs)

    block.forward = short
    made = loaded.make(steps=3)
    assert np.array_equal(made.pictures, wanted)
    assert len(calls) == 4, "three steps, one of them twice"
    [note] = [event.text for event in made.events if isinstance(event, Note)]
    assert note.startswith("unet ran out of memory and went on with")
    assert made.artefacts[0].info["notes"] == [note]


def test_previews_come_from_the_second_picture_on(loaded: Loaded) -> None:
    first = loaded.make(steps=4, preview_every=1)
    assert not [event for event in first.events if isinstance(event, Preview)]
    second = loaded.make(steps=4, preview_every=1, seed=12)
    shown = [event for event in second.events if isinstance(event, Preview)]
    assert len(shown) == 3
    with Image.open(shown[-1].path) as image:
        assert max(image.size) == image_models.SIZE, "never larger than the picture"
        assert len(image.getcolors(maxcolors=2**24) or []) > 4
    assert not [event for event in loaded.make(preview_every=0).events if isinstance(event, Preview)]


def test_previews_resemble_the_picture_whose_latents_they_were_learned_from(loaded: Loaded) -> None:
    """The last preview of a picture correlates with the picture more than with another one."""
    from studio.torch_plugin import Previewer

    torch.manual_seed(0)
    colours = torch.rand(3, 8, 8)
    grid = torch.einsum("oc,chw->ohw", torch.randn(4, 3), colours)
    pixels = (colours.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    file = loaded.workdir / "preview.json"
    Previewer(file).learn(grid, Image.fromarray(pixels))
    path = Previewer(file).save(grid, 64, loaded.workdir / "preview.png")
    assert path is not None
    shown = np.asarray(Image.open(path).resize((8, 8), Image.Resampling.BOX)).astype(float)
    assert np.corrcoef(shown.ravel(), pixels.astype(float).ravel())[0, 1] > 0.9


def test_outpainting_grows_the_picture_and_keeps_what_was_there(loaded: Loaded, tmp_path: Path) -> None:
    source = source_picture(tmp_path / "source.png")
    size = image_models.SIZE
    made = loaded.make(image=source, expand_right=size, width=None, height=None, strength=1.0)
    [picture] = made.pictures
    assert picture.shape[1] == 2 * picture.shape[0]
    given = np.asarray(Image.open(source).resize((picture.shape[0], picture.shape[0]), Image.Resampling.LANCZOS))
    kept = picture[:, : picture.shape[0] - 4].astype(int)
    assert np.abs(kept - given[:, : kept.shape[1]]).mean() < 12
    assert picture[:, picture.shape[0] + 4 :].std() > 1


@pytest.mark.parametrize("turned", [False, True])
def test_a_picture_gives_its_size_as_it_is_shown(loaded: Loaded, tmp_path: Path, turned: bool) -> None:
    source = tmp_path / "wide.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6 if turned else 1
    Image.new("RGB", (128, 64), (200, 30, 30)).save(source, exif=exif)
    mask = half_mask(tmp_path / "mask.png", 64)
    Image.open(mask).resize((64, 128) if turned else (128, 64)).save(mask)
    [picture] = loaded.make(image=source, mask_image=mask, width=None, height=None).pictures
    assert (picture.shape[0] > picture.shape[1]) is turned


def test_the_recipe_is_inside_the_picture_and_makes_it_again(home: Path, tiny_image: TinyImage) -> None:
    (home / "models.yaml").write_text(yaml.safe_dump([image_models.catalogue_entry("sd", tiny_image("sd"))]))
    with Studio(home, executor="inline") as studio:
        [made] = studio.run("tiny-sd", **request_of("sd"))
        path = Path(made.path)
        inside = embedded(path)
        assert inside == json.loads(recipe_path(path).read_text())
        assert inside["content_sha256"] == made.content_sha256
        recipe_path(path).unlink()
        found = studio.artefacts.recipe_of(path)
        [again] = studio.run(found["model"], **found["params"])
        assert again.content_sha256 == made.content_sha256


@pytest.mark.parametrize(
    "damage", [b"", b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n\xff\xff\xff\xffiTXtstudio\0\1\0\0\0"]
)
def test_a_damaged_file_has_no_recipe(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "damaged.png"
    path.write_bytes(damage)
    assert embedded(path) is None


def test_a_recipe_too_long_for_other_programs_stays_beside_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "long.png"
    Image.new("RGB", (4, 4)).save(path)
    before = path.read_bytes()
    embed(path, "image/png", {"model": "x", "params": {"prompt": " " * 2_000_000}})
    assert path.read_bytes() == before


def test_a_text_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    body = b"studio\0\1\0\0\0" + zlib.compress(b'{"a": "' + b" " * 20_000_000 + b'"}')
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(body)) + b"iTXt" + body + b"\0\0\0\0")
    assert embedded(path) is None
