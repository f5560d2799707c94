"""What is refused, in one line and before anything is queued, and every kind of picture that is taken."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageDraw
from upscale_files import SMALL, Loaded, saved, spec_of, wave

from studio.core import Studio
from studio.plugin import BadRequest
from studio_pipelines.image_upscale import pictures, pixels
from studio_pipelines.image_upscale.family import ImageUpscale
from studio_pipelines.image_upscale.params import UpscaleParams
from studio_pipelines.image_upscale.tiles import grid


def png_header(width: int, height: int) -> bytes:
    """A PNG of that size that holds a few bytes of pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


def png(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def animated(kind: str) -> bytes:
    file = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    return file.getvalue()


WAVE = Image.fromarray(wave(40, 30))
REFUSED = {
    "text": (b"just words\n", "is text/plain by its content"),
    "nothing": (b"", "is text/plain by its content"),
    "gif": (animated("GIF"), "is image/gif by its content"),
    "a bomb": (png_header(13_000, 13_000), r"has more than 40 megapixels|the limit is 40 megapixels"),
    "more than the output": (png_header(2000, 1000), r"2000 × 1000 pixels, 32\.0 megapixels .* Give scale 2"),
    "more at any scale": (png_header(6000, 1000), r"96\.0 megapixels at scale 4; .* to 1\.0 megapixels"),
    "no width": (png_header(0, 10), "broken picture|has no pixels"),
    "cut off": (png(WAVE)[:-60], "is cut off or damaged"),
    "cut early": (png(WAVE)[:30], "broken picture|is cut off or damaged"),
    "too few pixels": (png_header(50, 50), "is cut off or damaged"),
    "animated png": (animated("PNG"), r"is animated \(3 pictures\)"),
    "animated webp": (animated("WEBP"), r"is animated \(3 pictures\)"),
}  # fmt: skip


@pytest.fixture
def asked(inline: Studio, small_files: dict[str, dict[str, Path]]) -> Callable[[Path], None]:
    """Checks a request for ×4 as Studio does before it is queued, with the small network."""
    family = ImageUpscale(spec_of(SMALL["compact"]), small_files["compact"])

    def ask(image: Path) -> None:
        family.preflight(inline.check("starter-upscale", {"image": image, "scale": 4}).given)  # type: ignore[arg-type]

    return ask


@pytest.mark.parametrize("kind", REFUSED)
def test_a_bad_picture_is_refused_in_one_line(asked: Callable[[Path], None], tmp_path: Path, kind: str) -> None:
    data, words = REFUSED[kind]
    file = tmp_path / "picture.png"
    file.write_bytes(data)
    with pytest.raises(BadRequest, match=words) as caught:
        asked(file)
    assert "\n" not in str(caught.value) and "image: " in caught.value.what and caught.value.hint


@pytest.mark.parametrize("kind", ["a bomb", "cut off", "animated png", "more than the output"])
def test_a_job_whose_picture_came_later_fails_as_plainly(
    small_files: dict[str, dict[str, Path]], tmp_path: Path, kind: str
) -> None:
    """A step of a batch gets its picture from an earlier one, so it is looked at again."""
    file = tmp_path / "picture.png"
    file.write_bytes(REFUSED[kind][0])
    loaded = Loaded(small_files["compact"], SMALL["compact"], tmp_path)
    with pytest.raises(BadRequest) as caught:
        loaded.make(file)
    assert "\n" not in str(caught.value)


def test_a_plan_for_a_picture_uses_its_size(small_files: dict[str, dict[str, Path]], tmp_path: Path) -> None:
    family = ImageUpscale(spec_of(SMALL["compact"]), small_files["compact"])

    def tiles(**values: object) -> dict[str, int]:
        [stage] = family.footprint(UpscaleParams.model_validate(values)).stages
        return {variant.name: variant.probes[0].count for variant in stage.variants}

    small, wide = saved(WAVE, tmp_path / "small.png"), saved(Image.new("RGB", (600, 100)), tmp_path / "wide.png")
    clear = saved(Image.new("RGBA", (600, 100)), tmp_path / "clear.png")
    assert tiles(image=small) == {"tiles of 64": 1}
    assert list(tiles(image=wide)) == ["tiles of 512", "tiles of 256", "tiles of 128", "tiles of 64"]
    assert list(tiles(image=wide, tile=100)) == ["tiles of 100"]
    # At depth 1 a tile is read with 3 pixels on each side.
    cuts = grid(600, 100, 64)
    area = sum((cut.width + 6) * (cut.height + 6) for cut in cuts)
    assert len(cuts) == 20 and tiles(image=wide)["tiles of 64"] == round(area / 70**2)
    assert tiles(image=clear)["tiles of 64"] == round(2 * area / 70**2), "transparency goes through the network as well"
    assert list(tiles(image=Path("${step.path}"))) == ["tiles of 512", "tiles of 256", "tiles of 128", "tiles of 64"]


# -- every kind that is taken ------------------------------------------------------------------------------------


def colours(path: Path) -> pixels.Picture:
    pictures.check(path, 4)
    return pixels.read(path, 4)


def test_colour_forms_are_read_as_they_look(tmp_path: Path) -> None:
    truth = np.asarray(WAVE)
    cmyk = colours(saved(WAVE.convert("CMYK"), tmp_path / "cmyk.jpg", quality=95))
    assert cmyk.alpha is None and np.abs(cmyk.colours.astype(int) - truth).mean() < 12
    palette = WAVE.quantize(200)
    assert (colours(saved(palette, tmp_path / "p.png")).colours == np.asarray(palette.convert("RGB"))).all()
    grey = colours(saved(WAVE.convert("L"), tmp_path / "l.png")).colours
    assert (grey == np.asarray(WAVE.convert("L"))[:, :, None]).all()
    black = colours(saved(WAVE.convert("1"), tmp_path / "1.png")).colours
    assert set(np.unique(black)) == {0, 255}
    webp = colours(saved(WAVE, tmp_path / "w.webp", lossless=True)).colours
    assert (webp == truth).all()


def test_sixteen_bits_are_scaled_not_cut(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    read = colours(saved(Image.fromarray(ramp), tmp_path / "16.png")).colours
    assert (read[:, :, 0].ravel() == np.arange(256)).all()


def test_a_photograph_is_turned_as_the_camera_noted(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    file = saved(WAVE, tmp_path / "turned.jpg", exif=exif, quality=95)
    assert pictures.look(file, 4) == pictures.Shape(30, 40)
    assert colours(file).colours.shape == (40, 30, 3)


def test_a_second_view_in_a_jpeg_is_no_animation(tmp_path: Path) -> None:
    file = tmp_path / "two.jpg"
    WAVE.save(file, "MPO", save_all=True, append_images=[WAVE])
    assert colours(file).colours.shape == (30, 40, 3)


def test_a_colour_profile_stays_with_the_picture(tmp_path: Path, small_files: dict[str, dict[str, Path]]) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    file = saved(WAVE, tmp_path / "profile.png", icc_profile=profile)
    made = Loaded(small_files["compact"], SMALL["compact"], tmp_path).make(file, 2)
    assert made.info["icc_profile"] == profile


# -- transparency ------------------------------------------------------------------------------------------------


def icon(side: int) -> Image.Image:
    """A red disc; what is transparent is black underneath, as most programs leave it."""
    large = Image.new("RGBA", (4 * side, 4 * side), (0, 0, 0, 0))
    ImageDraw.Draw(large).ellipse([side, side, 3 * side, 3 * side], fill=(220, 30, 40, 255))
    return large.resize((side, side), Image.Resampling.BOX)


def test_transparency_is_kept_and_no_black_comes_into_the_outline(
    starter: Callable[..., Loaded], tmp_path: Path
) -> None:
    made = starter().make(saved(icon(48), tmp_path / "icon.png"))
    assert made.mode == "RGBA" and made.size == (192, 192)
    values = np.asarray(made, int)
    alpha = values[:, :, 3]
    assert alpha[:8, :8].max() <= 2 and alpha[90:102, 90:102].min() >= 253
    truth = np.asarray(icon(192), int)[:, :, 3]
    assert np.abs(alpha - truth).mean() < 3
    outline = values[(alpha > 30) & (alpha < 225)]
    assert len(outline) > 50 and np.abs(outline[:, :3] - (220, 30, 40)).max() < 40


@pytest.mark.parametrize("mode", ["LA", "P"])
def test_transparency_in_other_forms(small_files: dict[str, dict[str, Path]], tmp_path: Path, mode: str) -> None:
    if mode == "LA":
        file = saved(icon(20).convert("LA"), tmp_path / "la.png")
    else:
        file = saved(icon(20).convert("RGB").quantize(8), tmp_path / "p.png", transparency=0)
    assert pictures.look(file, 2).alpha
    assert Loaded(small_files["compact"], SMALL["compact"], tmp_path).make(file, 2).mode == "RGBA"


def test_an_alpha_channel_that_hides_nothing_is_dropped(tmp_path: Path) -> None:
    read = colours(saved(WAVE.convert("RGBA"), tmp_path / "full.png"))
    assert read.alpha is None and (read.colours == np.asarray(WAVE)).all()


def test_what_is_wholly_transparent_takes_the_colours_around_it(tmp_path: Path) -> None:
    read = colours(saved(icon(33), tmp_path / "icon.png"))
    assert read.alpha is not None and (read.alpha == 0).any()
    assert np.abs(read.colours.astype(int) - (220, 30, 40)).max() <= 8
    empty = colours(saved(Image.new("RGBA", (5, 7)), tmp_path / "empty.png"))
    assert empty.alpha is not None and not empty.colours.any()


def test_a_single_pixel_is_a_picture(small_files: dict[str, dict[str, Path]], tmp_path: Path) -> None:
    file = saved(Image.new("RGB", (1, 1), (9, 99, 199)), tmp_path / "one.png")
    for name in SMALL:
        assert Loaded(small_files[name], SMALL[name], tmp_path).make(file, 3).size == (3, 3)
