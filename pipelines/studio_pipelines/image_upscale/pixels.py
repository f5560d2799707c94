"""The pixels of a picture in the one form that is enlarged, and back into a file."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from .pictures import decode, opened, shape_of

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Picture:
    """``colours`` (height, width, 3) and ``alpha`` (height, width) or ``None`` where nothing shines through; 8 bits."""

    colours: Array
    alpha: Array | None
    profile: bytes | None = None


def read(path: Path, scale: int) -> Picture:
    """The pixels, upright, in 8 bits. Raises ``BadRequest``."""
    with opened(path, scale) as image:
        decode(image, path)
        profile = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA", "P", "PA") else None
        upright = ImageOps.exif_transpose(image)
        has_alpha = shape_of(image).alpha
        eight = _eight_bits(upright)
        colours = np.asarray(eight.convert("RGBA" if has_alpha else "RGB"))
    alpha = colours[:, :, 3] if has_alpha else None
    if alpha is None or bool((alpha == 255).all()):
        return Picture(colours[:, :, :3], None, profile)
    return Picture(_filled(colours), alpha, profile)


def write(colours: Array, profile: bytes | None) -> bytes:
    """A PNG file of (height, width, 3 or 4)."""
    file = io.BytesIO()
    Image.fromarray(colours).save(file, "PNG", compress_level=6, icc_profile=profile)
    return file.getvalue()


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey in 16 bits would be clipped at 255, not scaled, by Pillow's own conversion."""
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image, dtype=np.float32) / 257
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _filled(picture: Array) -> Array:
    """The colours of (height, width, 4) with those of fully transparent pixels, which files leave black or anything,
    taken from their neighbours: the network would otherwise draw that black into the outline.

    Push and pull (Gortler et al., "The Lumigraph", 1996): means of 2×2 pixels weighted by alpha, again and again until
    all are known, then back up into the holes.
    """
    weight = picture[:, :, 3:].astype(np.float32)
    levels = [(picture[:, :, :3] * weight, weight)]
    while not bool((levels[-1][1] > 0).all()) and max(levels[-1][1].shape[:2]) > 1:
        levels.append((_halved(levels[-1][0]), _halved(levels[-1][1])))
    total, weight = levels.pop()
    known = total / np.maximum(weight, 1e-6)
    for total, weight in reversed(levels):
        height, width = weight.shape[:2]
        doubled = known.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
        known = np.where(weight > 0, total / np.maximum(weight, 1e-6), doubled)
    return np.where(picture[:, :, 3:] > 0, picture[:, :, :3], np.rint(known).astype(np.uint8))


def _halved(values: Array) -> Array:
    """Sums of 2×2, an odd row or column filled up with nothing."""
    height, width = values.shape[:2]
    even = np.pad(values, ((0, height % 2), (0, width % 2), (0, 0)))
    summed: Array = even[0::2, 0::2] + even[1::2, 0::2] + even[0::2, 1::2] + even[1::2, 1::2]
    return summed
