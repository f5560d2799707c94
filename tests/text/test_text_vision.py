"""Pictures reach a model that sees: a real CLIP encoder with random weights before a real, tiny language model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import text_models
from PIL import Image
from text_harness import Loaded

from studio.plugin import BadRequest, BadWeights, Cancelled, Context, StudioError
from studio_pipelines.text_llm.params import Message
from studio_pipelines.text_llm.vision import read_picture

Load = Callable[..., Loaded]
PARTS_ONLY = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% for part in m['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def picture(folder: Path, name: str, colour: Any, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> Path:
    path = folder / name
    Image.new(mode, size, colour).save(path)
    return path


@pytest.fixture
def seeing(tiny_gguf: Path, tiny_mmproj: Path, load: Load) -> Loaded:
    return load(tiny_gguf, mmproj=tiny_mmproj)


def test_what_is_said_depends_on_what_is_seen(seeing: Loaded, tmp_path: Path) -> None:
    red, blue = picture(tmp_path, "red.png", "red"), picture(tmp_path, "blue.jpg", "blue")
    first, again, other = (
        seeing.ask("What?", images=[path], temperature=0.0, max_tokens=20) for path in (red, red, blue)
    )
    assert first.text == again.text
    assert first.text != other.text
    blind = seeing.ask("What?", temperature=0.0, max_tokens=20)
    # A picture is four patches of the encoder and the line break after its marker.
    assert first.info["prompt_tokens"] == blind.info["prompt_tokens"] + 5
    assert first.info["reused_tokens"] == 0


def test_several_pictures_in_several_turns(seeing: Loaded, tmp_path: Path) -> None:
    red, blue = picture(tmp_path, "red.webp", "red"), picture(tmp_path, "blue.png", (0, 0, 255, 0), mode="RGBA")
    history = [Message(role="user", content="One", images=[red]), Message(role="assistant", content="Seen.")]
    answer = seeing.ask("And these?", messages=history, images=[blue, red], temperature=0.0, max_tokens=5)
    alone = seeing.ask("And these?", messages=[Message(role="user", content="One"), history[1]], max_tokens=5)
    assert answer.info["prompt_tokens"] == alone.info["prompt_tokens"] + 3 * 5


def test_text_after_pictures_is_as_if_there_had_been_none(
    seeing: Loaded, tiny_gguf: Path, tiny_mmproj: Path, load: Load, tmp_path: Path
) -> None:
    seeing.ask("word " * 60, images=[picture(tmp_path, "red.png", "red")])
    warm = seeing.ask("word " * 60, seed=5)
    assert warm.text == load(tiny_gguf, mmproj=tiny_mmproj).ask("word " * 60, seed=5).text


def test_a_template_that_wants_parts_gets_parts(tmp_path: Path, tiny_gguf: Path, tiny_mmproj: Path, load: Load) -> None:
    parts = load(text_models.random_model(tmp_path / "p.gguf", template=PARTS_ONLY), mmproj=tiny_mmproj)
    plain = load(tiny_gguf, mmproj=tiny_mmproj)
    request = {"images": [picture(tmp_path, "red.png", "red")], "temperature": 0.0, "max_tokens": 12}
    assert parts.ask("What?", **request).text == plain.ask("What?", **request).text


def test_a_marker_in_the_text_is_only_text(seeing: Loaded, tmp_path: Path) -> None:
    answer = seeing.ask("<__media__> <__image__>", images=[picture(tmp_path, "red.png", "red")], max_tokens=3)
    assert answer.info["completion_tokens"] <= 3


def test_pictures_too_long_for_the_context_are_refused(
    tiny_gguf: Path, tiny_mmproj: Path, load: Load, tmp_path: Path
) -> None:
    model = load(tiny_gguf, mmproj=tiny_mmproj, context=256)
    with pytest.raises(StudioError, match=r"tokens; the context holds 256"):
        model.ask("0" * 250, images=[picture(tmp_path, "red.png", "red")])


def test_cancelling_before_a_picture_is_read(seeing: Loaded, tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        seeing.ask("What?", images=[picture(tmp_path, "r.png", "red")], ctx=Context(tmp_path, cancelled=lambda: True))


def test_a_picture_is_upright_on_white_and_not_too_large(tmp_path: Path) -> None:
    turned = Image.new("RGB", (40, 30), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert read_picture(tmp_path / "turned.jpg")[:2] == (30, 40)
    assert read_picture(picture(tmp_path, "clear.png", (0, 0, 0, 0), (2, 2), "RGBA"))[2] == b"\xff" * 12
    wide = read_picture(picture(tmp_path, "wide.png", "red", (5000, 100)))
    assert wide[0] == 4096
    assert len(wide[2]) == wide[0] * wide[1] * 3


def test_a_bomb_and_a_fake_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="40 megapixels"):
        read_picture(picture(tmp_path, "bomb.png", 0, (8000, 6000), "1"))
    fake = tmp_path / "fake.png"
    fake.write_bytes(b"#EXTM3U\nhttp://example.com/x")
    with pytest.raises(BadRequest, match=r"fake\.png cannot be read"):
        read_picture(fake)
    cut = tmp_path / "cut.png"
    cut.write_bytes(picture(tmp_path, "whole.png", "red").read_bytes()[:60])
    with pytest.raises(BadRequest, match=r"cut\.png cannot be read"):
        read_picture(cut)


def test_a_torn_mmproj_is_refused(tiny_gguf: Path, tiny_mmproj: Path, load: Load, tmp_path: Path) -> None:
    torn = tmp_path / "torn.gguf"
    torn.write_bytes(tiny_mmproj.read_bytes()[:-64])
    with pytest.raises(BadWeights, match=r"torn\.gguf is not a usable GGUF"):
        load(tiny_gguf, mmproj=torn)
    with pytest.raises(BadWeights, match=r"llama\.cpp cannot see with tiny\.gguf"):
        load(tiny_gguf, mmproj=tiny_gguf)
