"""What may be asked of a film model, and what is refused before anything is queued, in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import framepack_models
import pytest
from PIL import Image

from studio.errors import BadRequest
from studio.forms import field_specs, validate
from studio.plugin import ModelSpec
from studio_pipelines.video_framepack.asked import asked, check_pictures, fps_of, pictured, without_words
from studio_pipelines.video_framepack.catalogued import BUCKETS_640, VideoSettings
from studio_pipelines.video_framepack.params import VideoParams
from studio_pipelines.video_framepack.request import FilmRequest
from studio_pipelines.video_framepack.sections import Sampling, Schedule
from studio_pipelines.video_framepack.space import no_space

FORWARD = VideoSettings(sampling="forward", buckets=BUCKETS_640)
INVERTED = VideoSettings(sampling="inverted", buckets=BUCKETS_640)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (90, 160), (200, 60, 60)).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def request(picture: Path, settings: VideoSettings = FORWARD, **params: Any) -> FilmRequest:
    values = {"prompt": "slides right", "image": str(picture), "seed": 3, **params}
    return asked(validate(VideoParams, values, model="m"), settings, "m")


def test_a_request_is_made_definite(picture: Path) -> None:
    made = request(picture, seconds=6)
    assert (made.schedule.sections, made.schedule.frames) == (5, 181)
    assert made.prompts == ("slides right",) * 5
    assert (made.width, made.height) == (480, 832), "the model's size that is most like the picture"
    assert (made.steps, made.guidance_scale, made.true_cfg_scale, made.step_cache) == (25, 10, 1, "off")
    assert made.image is None, "pictures are read when it is made"
    params = VideoParams(prompt="x", image=picture)
    shown = pictured(params, made).image
    assert shown is not None and shown.size == (90, 160) and shown.mode == "RGB"


def test_a_minute_is_fifty_sections(picture: Path) -> None:
    made = request(picture, seconds=60)
    assert (made.schedule.sections, made.schedule.frames) == (50, 1801)


def test_frames_a_second(picture: Path) -> None:
    assert request(picture, seconds=6, fps=24).schedule.sections == 4
    assert fps_of(VideoParams(prompt="x", image=picture, fps=24), FORWARD) == 24
    assert fps_of(VideoParams(prompt="x", image=picture), FORWARD) == 30


def test_a_prompt_for_each_section(picture: Path) -> None:
    made = request(picture, seconds=3.6, section_prompts=["goes up", "", "spins"])
    assert made.prompts == ("goes up", "slides right", "spins")
    assert request(picture, seconds=1.2, prompt="", section_prompts=["goes up"]).prompts == ("goes up",)


@pytest.mark.parametrize(
    ("params", "line"),
    [
        ({"seconds": 0}, "seconds is 0; the limit is at least 0.1. Give a number from 0.1 to 600."),
        ({"seconds": 10_000}, "seconds is 10000; the limit is at most 600.0. Give a number from 0.1 to 600."),
        ({"seconds": 300}, "seconds is 300; m makes films of at most 120 seconds. Ask for less."),
        ({"seconds": -1}, "seconds is -1; the limit is at least 0.1. Give a number from 0.1 to 600."),
        ({"seconds": True}, "seconds is true"),
        (
            {"seconds": 6, "section_prompts": ["up", "down"]},
            "There are 2 section prompts, but a film of 6 s has 5 sections. Give 5, or one --prompt for",
        ),
        (
            {"seconds": 1, "section_prompts": ["up", "down"]},
            "There are 2 section prompts, but a film of 1 s has 1 section. Give 1, or one --prompt for the whole film.",
        ),
        ({"prompt": " "}, "There is no prompt. Say what happens: --prompt TEXT"),
        (
            {"prompt": "", "seconds": 2.4, "section_prompts": ["up", ""]},
            "Section 2 has no prompt, and the film has none. Say what happens: --prompt TEXT",
        ),
        ({"width": 640}, "Width and height belong together."),
        ({"width": 640, "height": 500}, "The nearest are --width 640 --height 496."),
        ({"width": 1280, "height": 720}, "1280×720 pixels are more than m makes well."),
        ({"fps": 0}, "fps is 0; the limit is at least 1."),
        ({"steps": 101}, "steps is 101; m takes at most 100."),
        ({"negative_prompt": "blur"}, "A negative prompt needs true guidance above 1"),
        ({"step_cache": "yes"}, "Choose one of: off, balanced, fast."),
        ({"format": "gif", "seconds": 60}, "The film has 1801 frames; a GIF has at most 900."),
        ({"from_section": 2}, "There is from_section, but no film."),
    ],
)
def test_what_is_refused(picture: Path, params: dict[str, Any], line: str) -> None:
    with pytest.raises(BadRequest) as caught:
        request(picture, **params)
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_the_last_picture_needs_a_model_that_makes_the_end_first(picture: Path) -> None:
    assert request(picture, INVERTED, last_image=str(picture)).schedule.sampling == "inverted"
    with pytest.raises(BadRequest, match="m makes the beginning first, so it cannot be told the last picture"):
        request(picture, last_image=str(picture))


@pytest.mark.parametrize("which", ["image", "last_image"])
def test_a_broken_picture(picture: Path, tmp_path: Path, which: str) -> None:
    Image.effect_noise((64, 64), 50).convert("RGB").save(tmp_path / "whole.png")
    broken = tmp_path / "broken.png"
    broken.write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    params = VideoParams(**{"prompt": "x", "image": picture, which: broken})
    with pytest.raises(BadRequest, match=f"--{which.replace('_', '-')}: broken.png is a broken picture"):
        check_pictures(params)


def test_a_plan_needs_no_words(picture: Path) -> None:
    params = VideoParams(image=Path("${picture.path}"), section_prompts=["one"], seconds=6, true_cfg_scale=2)
    made = asked(without_words(params), FORWARD, "m")
    assert made.schedule.sections == 5 and made.guided and (made.width, made.height) == FORWARD.size


def test_every_field_has_french_words() -> None:
    for field in field_specs(VideoParams, "fr"):
        english = next(one for one in field_specs(VideoParams) if one.name == field.name)
        assert field.description != english.description, field.name


def test_the_tiny_entry_is_a_whole_one(tmp_path: Path) -> None:
    (tmp_path / "transformer").mkdir()
    spec = ModelSpec.model_validate(framepack_models.catalogue_entry(tmp_path))
    assert spec.pipeline == "video-framepack"


@pytest.mark.parametrize(("sampling", "told"), [("forward", ("1", "3")), ("inverted", ("3", "1"))])
def test_a_full_disk_names_the_section_by_its_place_in_the_film(
    sampling: Sampling, told: tuple[str, str], tmp_path: Path
) -> None:
    request = FilmRequest(Schedule(3, sampling), 64, 64, ("a cat",) * 3, seed=1, steps=4, guidance_scale=10.0)
    first, last, joining = (no_space(request, section, tmp_path).what for section in (0, 2, 3))
    assert f"No space for section {told[0]} of 3: " in first and first.endswith("None is kept.")
    assert f"No space for section {told[1]} of 3: " in last and last.endswith("The 2 finished ones are kept.")
    assert "No space for joining the sections: " in joining
