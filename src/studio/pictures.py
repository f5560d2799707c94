"""Pictures that a request brings: whether they open, how large they are, their pixels. Pillow is imported when used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from studio.errors import BadRequest

if TYPE_CHECKING:
    from PIL import Image

_ORIENTATION = 0x0112
"""The EXIF tag; from 5 on, width and height change places when the picture is shown."""


def check_whole(path: Path | None, option: str) -> None:
    """Raises ``BadRequest`` for a picture that can only be read in part: its pixels are decoded once."""
    from PIL import Image

    if path is None or not path.is_file():
        return  # the output of an earlier step, which does not exist yet
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, ValueError, SyntaxError, EOFError) as error:  # Pillow's decoders raise all of these
        raise BadRequest(f"{option}: {path.name} is a broken picture.", "Give a picture that opens.") from error


def shown_size(path: Path) -> tuple[int, int] | None:
    """(width, height) of the picture as it is shown, by its header; ``None`` for one that does not exist yet."""
    if not path.is_file():
        return None
    from PIL import Image

    with Image.open(path) as image:
        turned = image.getexif().get(_ORIENTATION, 1) >= 5
        return (image.height, image.width) if turned else image.size


def read_upright(path: Path) -> Image.Image:
    """The picture as it is shown, its EXIF orientation applied, in RGB."""
    from PIL import Image, ImageOps

    return ImageOps.exif_transpose(Image.open(path)).convert("RGB")
