"""What cannot work is refused in one clear line, before anything is queued or kept."""

from __future__ import annotations

import pickle
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import image_models
import pytest
import yaml
from image_harness import half_mask, request_of, source_picture
from PIL import Image
from safetensors.numpy import save_file

from studio import Studio
from studio.errors import JobFailed, StudioError
from toolbox import files_in

TinyImage = Callable[[str], Path]
KINDS = ("sdxl", "flux", "sana-sprint", "qwen-image-edit")


class Refused:
    """A home with tiny models, in which a request is expected to be refused."""

    def __init__(self, studio: Studio, home: Path) -> None:
        self.studio, self.home = studio, home

    def __call__(self, kind: str, *words: str, **params: Any) -> str:
        """The one line; ``words`` must be in it, whatever their case. Nothing of the request may be left."""
        before = self._left()
        with pytest.raises(StudioError) as caught:
            self.studio.submit(f"tiny-{kind}", **{**request_of(kind), **params})
        line = f"{caught.value}"
        assert "\n" not in line
        assert len(line) < 400, "too long to be read"
        assert not [word for word in ("Traceback", "pydantic", "torch.", "Errno") if word in line], line
        assert all(word.lower() in line.lower() for word in words), line
        assert caught.value.hint, f"no way out: {line}"
        assert self._left() == before, "something of a refused request was kept"
        return line

    def _left(self) -> tuple[int, list[Path]]:
        return len(list(self.studio.jobs)), files_in(self.home / "inputs")


@pytest.fixture
def refused(home: Path, tiny_image: TinyImage) -> Iterator[Refused]:
    entries = [image_models.catalogue_entry(kind, tiny_image(kind)) for kind in KINDS]
    for entry in entries:
        if entry["id"] == "tiny-sana-sprint":
            entry["settings"] |= {"min_steps": 1, "max_steps": 4}
    (home / "models.yaml").write_text(yaml.safe_dump(entries))
    (home / "loras").mkdir()
    with Studio(home, executor="inline") as studio:
        yield Refused(studio, home)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return source_picture(tmp_path / "source.png")


def test_a_size_that_is_no_multiple_names_the_nearest_ones(refused: Refused) -> None:
    refused("sdxl", "65×64", "multiples of 8", "--width 64 --height 64", width=65)
    refused("flux", "72×64", "multiples of 16", width=72)


@pytest.mark.parametrize(("width", "height"), [(31_623, 31_623), (8192, 8192), (1_000_000_000, 1), (8, 8), (-64, 64)])
def test_a_size_beyond_all_bounds(refused: Refused, width: int, height: int) -> None:
    refused("sdxl", "width" if width not in (8192,) else "megapixels", width=width, height=height)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 51.0])
def test_guidance_that_is_no_number_or_out_of_range(refused: Refused, value: float) -> None:
    refused("sdxl", "guidance_scale", guidance_scale=value)


@pytest.mark.parametrize("value", [-1, 0, 151, 2.5, True, "4"])
def test_steps_that_are_no_positive_whole_number(refused: Refused, value: Any) -> None:
    refused("sdxl", "steps", steps=value)


@pytest.mark.parametrize("value", [0.0, -0.1, 1.1, float("nan")])
def test_strength_out_of_range(refused: Refused, picture: Path, value: float) -> None:
    refused("sdxl", "strength", image=str(picture), strength=value)


@pytest.mark.parametrize("value", [0, 9, -1])
def test_a_number_of_pictures_out_of_range(refused: Refused, value: int) -> None:
    refused("sdxl", "num_images", num_images=value)


def test_so_little_strength_that_no_step_is_left(refused: Refused, picture: Path) -> None:
    refused("sdxl", "strength", "steps", image=str(picture), strength=0.1, steps=4)


def test_steps_that_only_part_of_a_class_takes(refused: Refused) -> None:
    """Sana-Sprint's own time steps are made for two; any other number is refused or done, but never fails later."""
    params = {**request_of("sana-sprint"), "steps": 3}
    assert len(refused.studio.run("tiny-sana-sprint", **params)) == 1


def test_a_mask_of_another_size(refused: Refused, picture: Path, tmp_path: Path) -> None:
    mask = half_mask(tmp_path / "mask.png", 32)
    refused("sdxl", "32×32", "64×64", image=str(picture), mask_image=str(mask))


def test_a_mask_without_a_picture(refused: Refused, tmp_path: Path) -> None:
    refused("sdxl", "picture", "mask", mask_image=str(half_mask(tmp_path / "mask.png")))


def test_what_the_model_cannot_do(refused: Refused, picture: Path, tmp_path: Path) -> None:
    refused("qwen-image-edit", "words")
    refused("sdxl", "edit", image=str(picture), mode="edit")
    mask = half_mask(tmp_path / "mask.png")
    refused("sana-sprint", "fill in", image=str(picture), mask_image=str(mask))
    refused("flux", "negative prompt", negative_prompt="blue")
    refused("flux", "scheduler", scheduler="ddim")
    refused("sdxl", "picture", mode="outpaint", expand_left=16)
    refused("sdxl", "mode", "picture", mode="text", image=str(picture))


def png(width: int, height: int, data: bytes) -> bytes:
    """A PNG of 8-bit RGB with this size in its header and this content, compressed."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_pictures_that_are_none(refused: Refused, picture: Path, tmp_path: Path) -> None:
    whole = picture.read_bytes()
    contents = {
        "header": (whole[:20], "broken"),
        "cut": (whole[: len(whole) // 2], "broken"),
        "flipped": (whole[:60] + bytes(byte ^ 255 for byte in whole[60:120]) + whole[120:], "broken"),
        "short": (png(64, 64, bytes(100)), "broken"),
        "text": (b"not a picture", "text/plain"),
        "empty": (b"", ""),
        "bomb": (png(50_000, 50_000, b""), "megapixels"),
        "gif": (b"GIF89a" + bytes(40), "image/gif"),
    }
    for name, (content, word) in contents.items():
        path = tmp_path / f"{name}.png"
        path.write_bytes(content)
        refused("sdxl", f"{name}.png", word, image=str(path))
        refused("sdxl", f"{name}.png", word, image=str(picture), mask_image=str(path))


def test_a_picture_that_is_not_there(refused: Refused, tmp_path: Path) -> None:
    refused("sdxl", "no file", image=str(tmp_path / "missing.png"))
    refused("sdxl", "image", image=str(tmp_path))


class TestAdapters:
    """LoRA files are looked at by their headers when the request is made."""

    def test_a_pickle_under_another_name(self, refused: Refused) -> None:
        (refused.home / "loras" / "evil.safetensors").write_bytes(pickle.dumps({"weights": [1.0]}))
        refused("sdxl", "evil", "pickle", lora=["evil"])

    def test_a_pickle_under_its_own_name(self, refused: Refused) -> None:
        (refused.home / "loras" / "evil.ckpt").write_bytes(pickle.dumps({}))
        refused("sdxl", "evil", "pickle", lora=["evil"])

    @pytest.mark.parametrize("content", [b"", b"\xff" * 64, struct.pack("<Q", 10**12) + b"{}", b"\x10" + bytes(40)])
    def test_no_safetensors(self, refused: Refused, content: bytes) -> None:
        (refused.home / "loras" / "broken.safetensors").write_bytes(content)
        refused("sdxl", "broken", lora=["broken"])

    def test_cut_short(self, refused: Refused, tiny_image: TinyImage) -> None:
        file = refused.home / "loras" / "style.safetensors"
        image_models.write_lora("sdxl", tiny_image("sdxl"), file)
        file.write_bytes(file.read_bytes()[:-100])
        refused("sdxl", "style", lora=["style"])

    @pytest.mark.parametrize(("kind", "other"), [("sdxl", "flux"), ("flux", "sdxl"), ("sana-sprint", "flux")])
    def test_made_for_another_model(self, refused: Refused, tiny_image: TinyImage, kind: str, other: str) -> None:
        image_models.write_lora(other, tiny_image(other), refused.home / "loras" / "style.safetensors")
        refused(kind, "style", lora=["style"])

    def test_made_for_another_model_of_the_same_width(self, refused: Refused, tiny_image: TinyImage) -> None:
        """Only when it is attached does it show: one clear line then, and the model goes on without it."""
        image_models.write_lora("sana-sprint", tiny_image("sana-sprint"), refused.home / "loras" / "style.safetensors")
        with pytest.raises(JobFailed, match="The adapter style is not made for this model"):
            refused.studio.run("tiny-sdxl", **request_of("sdxl"), lora=["style"])
        assert len(refused.studio.run("tiny-sdxl", **request_of("sdxl"))) == 1

    def test_no_lora_at_all(self, refused: Refused) -> None:
        import numpy as np

        save_file({"some.weight": np.zeros((4, 4), np.float32)}, refused.home / "loras" / "other.safetensors")
        refused("sdxl", "other", lora=["other"])

    @pytest.mark.parametrize(
        "asked", ["missing", "../style", "/etc/passwd", "style:nan", "style:1e9", "style:x", ":1", ""]
    )
    def test_a_name_or_a_weight_that_cannot_be(self, refused: Refused, tiny_image: TinyImage, asked: str) -> None:
        image_models.write_lora("sdxl", tiny_image("sdxl"), refused.home / "loras" / "style.safetensors")
        refused("sdxl", lora=[asked])

    def test_the_same_twice_and_too_many(self, refused: Refused, tiny_image: TinyImage) -> None:
        image_models.write_lora("sdxl", tiny_image("sdxl"), refused.home / "loras" / "style.safetensors")
        refused("sdxl", "twice", lora=["style", "style:0.5"])
        refused("sdxl", "lora", lora=["style"] * 9)


@pytest.mark.parametrize("prompt", ["", "x" * 20_001])
def test_a_prompt_that_is_none_or_a_book(refused: Refused, prompt: str) -> None:
    refused("sdxl", "prompt", prompt=prompt)


def test_what_was_refused_leaves_the_model_usable(refused: Refused, picture: Path) -> None:
    """After all of that the same engine makes a picture."""
    refused("sdxl", "steps", steps=-1)
    [artefact] = refused.studio.run("tiny-sdxl", **request_of("sdxl"))
    with Image.open(artefact.path) as image:
        assert image.size == (64, 64)
