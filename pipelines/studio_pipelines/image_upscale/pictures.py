"""Looking at a picture: its size by its header, and what is refused and why. Light: no numpy, no torch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from studio.plugin import BadRequest

if TYPE_CHECKING:
    from PIL import Image

MAX_OUTPUT_PIXELS = 16_000_000


@dataclass(frozen=True)
class Shape:
    """What a picture's header tells, upright."""

    width: int
    height: int
    alpha: bool = False


def look(path: Path, scale: int) -> Shape:
    """The size of a picture that may be enlarged ``scale`` times. ``BadRequest`` says why it may not."""
    with opened(path, scale) as image:
        return shape_of(image)


def check(path: Path, scale: int) -> None:
    """As ``look``, and every pixel can be read. A picture within the limit decodes in a moment."""
    with opened(path, scale) as image:
        decode(image, path)


@contextmanager
def opened(path: Path, scale: int) -> Iterator[Image.Image]:
    """The opened file, its header checked and nothing decoded."""
    from PIL import Image, UnidentifiedImageError

    name = repr(path.name)
    too_large = BadRequest(f"image: {name} is far too large to enlarge.", "Scale it down first.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            image = Image.open(path)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise too_large from None
        except FileNotFoundError:
            raise BadRequest(f"image: there is no file {name}.", "Give the path of an existing file.") from None
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
            raise BadRequest(f"image: {name} is a broken picture.", "Give a picture that opens.") from error
        with image:
            _check_header(image, name, scale)
            yield image


def _check_header(image: Image.Image, name: str, scale: int) -> None:
    width, height = image.size
    if not width or not height:
        raise BadRequest(f"image: {name} has no pixels ({width} × {height}).", "Give another picture.")
    # A JPEG may hold a second view (MPO); only what is meant to move is refused.
    frames = getattr(image, "n_frames", 1)
    if image.format in ("PNG", "WEBP") and frames > 1:
        raise BadRequest(f"image: {name} is animated ({frames} pictures).", "Give a single picture.")
    made = width * height * scale**2
    if made > MAX_OUTPUT_PIXELS:
        smaller = [fit for fit in (3, 2) if fit < scale and width * height * fit**2 <= MAX_OUTPUT_PIXELS]
        most = MAX_OUTPUT_PIXELS // scale**2
        raise BadRequest(
            f"image: {name} has {width} × {height} pixels, {made / 1e6:.1f} megapixels at scale {scale}; "
            f"the limit is {MAX_OUTPUT_PIXELS // 1_000_000}.",
            f"Give scale {smaller[0]}." if smaller else f"Scale it down first, to {most / 1e6:.1f} megapixels.",
        )


def shape_of(image: Image.Image) -> Shape:
    """The size once it is turned as its camera noted, and whether it can be transparent anywhere."""
    turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    width, height = image.size[::-1] if turned else image.size
    alpha = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    return Shape(width, height, alpha)


def decode(image: Image.Image, path: Path) -> None:
    """Read all pixels. ``BadRequest`` for a file that ends too early or is damaged."""
    try:
        image.load()
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise BadRequest(f"image: {path.name!r} is cut off or damaged.", "Give a picture that opens.") from error
