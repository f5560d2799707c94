"""The safety check with its own weights: plain pictures are harmless, and what is not is hidden as asked."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw, ImageFilter

from studio.download.lock import read_lock
from studio.plugin import Artefact, BadRequest, BadWeights, Context, ModelSpec, Plan
from studio_pipelines.image_diffusion.checking import family as checking
from studio_pipelines.image_diffusion.checking.family import ImageSafety, SafetyParams
from studio_pipelines.image_diffusion.safety import UNSAFE, SafetyCheck, apply, prepared


@pytest.fixture(scope="session")
def model() -> Path:
    """The check's file, which ``make test`` gets once for all tests."""
    models = Path(os.environ["STUDIO_TEST_MODELS"]).absolute()
    lock = read_lock(models / "locks" / "open-nsfw.json")
    if lock is None:
        pytest.fail(f"The safety check is not in {models}: run make test, which gets it.", pytrace=False)
    return Path(lock.roles["model"])


@pytest.fixture(scope="session")
def check(model: Path) -> SafetyCheck:
    return SafetyCheck(model)


def scene() -> Image.Image:
    """A house under a blue sky."""
    image = Image.new("RGB", (320, 240), (120, 180, 240))
    draw = ImageDraw.Draw(image)
    draw.rectangle([0, 160, 320, 240], fill=(80, 150, 70))
    draw.rectangle([110, 100, 210, 190], fill=(200, 180, 150))
    draw.polygon([(100, 100), (160, 50), (220, 100)], fill=(150, 60, 50))
    return image


def plain() -> dict[str, Image.Image]:
    y, x = np.mgrid[0:200, 0:300]
    waves = np.stack([x % 256, y % 256, (x + y) % 256], axis=2).astype(np.uint8)
    return {
        "white": Image.new("RGB", (300, 300), "white"),
        "black": Image.new("RGB", (64, 512), "black"),
        "scene": scene(),
        "waves": Image.fromarray(waves),
        "grey": scene().convert("L"),
        "palette": scene().quantize(16),
        "transparent": Image.new("RGBA", (100, 100)),
        "one pixel": Image.new("RGB", (1, 1), "green"),
    }


@pytest.mark.parametrize("name", plain())
def test_plain_pictures_are_harmless_and_score_the_same_twice(check: SafetyCheck, name: str) -> None:
    image = plain()[name]
    score = check.score(image)
    assert 0 <= score < 0.2
    assert check.score(image) == score
    assert apply(image, "block", score) is image and apply(image, "blur", score) is image


def test_the_score_depends_on_the_picture(check: SafetyCheck) -> None:
    assert len({check.score(image) for image in plain().values()}) >= 5


def test_pictures_are_fed_as_the_makers_did() -> None:
    """256×256, the middle 224, blue first, less the mean; transparency over white."""
    found = prepared(Image.new("RGB", (50, 90), (200, 100, 10)))
    assert found.shape == (224, 224, 3) and found.dtype == np.float32
    assert np.abs(found - (10 - 104, 100 - 117, 200 - 123)).max() <= 2  # a JPEG of one colour is nearly exact
    clear = prepared(Image.new("RGBA", (9, 9), (0, 0, 0, 0)))
    assert np.abs(clear - (255 - 104, 255 - 117, 255 - 123)).max() <= 1
    frame = Image.new("RGB", (256, 256), "red")
    frame.paste("blue", (16, 16, 240, 240))
    middle = prepared(frame)
    assert (middle[4:-4, 4:-4, 0] > 100).all(), "the outer 16 pixels are cut off"


def test_what_is_not_harmless_is_hidden_as_asked() -> None:
    image = scene()
    assert apply(image, "off", 1.0) is image
    assert apply(image, "blur", UNSAFE - 0.001) is image
    blurred, blocked = apply(image, "blur", UNSAFE), apply(image, "block", UNSAFE)
    assert blurred.size == blocked.size == image.size
    edges = [np.asarray(one.convert("L").filter(ImageFilter.FIND_EDGES))[2:-2, 2:-2].max() for one in (image, blurred)]
    assert edges[0] > 100 and edges[1] < 30, "no outline is left"
    assert np.asarray(blurred).std() > 5, "but its colours are"
    assert np.asarray(blocked).min() == np.asarray(blocked).max()


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07" * 500])
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "broken.onnx"
    file.write_bytes(content)
    with pytest.raises(BadWeights, match=r"broken\.onnx is no model") as caught:
        SafetyCheck(file)
    assert "\n" not in caught.value.what and caught.value.hint


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadWeights, match="is no model that can be used"):
        SafetyCheck(tmp_path / "none.onnx")
    with pytest.raises(BadWeights, match="studio models pull open-nsfw"):
        ImageSafety(ModelSpec(id="open-nsfw", pipeline="image-safety")).load(Plan(model="open-nsfw"))


def test_it_runs_as_a_model_of_its_own(model: Path, tmp_path: Path) -> None:
    family = ImageSafety(ModelSpec(id="open-nsfw", pipeline="image-safety"), {"model": model})
    family.load(Plan(model="open-nsfw"))
    image = tmp_path / "scene.png"
    scene().save(image)
    *_, made = family.generate(SafetyParams.model_validate({"image": image}), Context(tmp_path))
    assert isinstance(made, Artefact) and made.media_type == "application/json"
    told = json.loads(made.text)
    assert told == {"score": made.info["score"], "unsafe": False} and told["score"] < 0.2
    image.write_bytes(image.read_bytes()[:-300])
    with pytest.raises(BadRequest, match="is cut off or damaged"):
        list(family.generate(SafetyParams.model_validate({"image": image}), Context(tmp_path)))
    family.unload()
    family.unload()


def test_every_field_has_its_french_words() -> None:
    words = yaml.safe_load(Path(checking.__file__).with_name("fr.yaml").read_text(encoding="utf-8"))
    assert set(words) == set(SafetyParams.model_fields)
    assert all(set(word) == {"label", "description"} and all(word.values()) for word in words.values())
