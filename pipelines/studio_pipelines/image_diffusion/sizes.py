"""Widths and heights: what a model can make, and the nearest to what is wanted. Sizes are (width, height) in pixels."""

from __future__ import annotations

from math import log, sqrt

from studio.plugin import BadRequest

from .catalogued import ImageSettings

Size = tuple[int, int]

RATIOS = ((1, 1), (5, 4), (4, 3), (3, 2), (16, 9), (2, 1), (21, 9))
"""Width to height; each also upright."""


def check_size(width: int, height: int, settings: ImageSettings, model: str) -> None:
    """Raises ``BadRequest`` with the nearest sizes that are allowed, where this one is not."""
    if width * height > settings.max_pixels:
        limit = settings.max_pixels / 1e6
        what = f"{width}×{height} pixels are {width * height / 1e6:.1f} megapixels; {model} makes {limit:.1f} at most."
    elif max(width, height) > settings.max_side:
        what = f"{width}×{height} pixels: {model} makes {settings.max_side} at most on each side."
    elif min(width, height) < settings.min_side:
        what = f"{width}×{height} pixels: {model} makes {settings.min_side} at least on each side."
    elif width % settings.multiple or height % settings.multiple:
        what = f"{width}×{height} pixels: {model} needs multiples of {settings.multiple}."
    else:
        return
    near = " or ".join(f"--width {w} --height {h}" for w, h in nearest_sizes(width, height, settings))
    raise BadRequest(what, f"Nearest: {near}.")


def nearest_sizes(width: int, height: int, settings: ImageSettings) -> list[Size]:
    """One or two allowed sizes near this one, the nearest first: its sides rounded down and up."""
    scale = min(1.0, sqrt(settings.max_pixels / (width * height)))
    wide, high = min(width * scale, settings.max_side), min(height * scale, settings.max_side)
    step = settings.multiple
    low = -(-settings.min_side // step) * step
    down = (max(low, int(wide // step) * step), max(low, int(high // step) * step))
    up = (max(low, -int(-wide // step) * step), max(low, -int(-high // step) * step))
    found = [size for size in dict.fromkeys((down, up)) if _possible(size, settings)]
    while not found and down != (low, low):  # a strip: its longer side gives way
        down = (max(low, down[0] - step), down[1]) if down[0] >= down[1] else (down[0], max(low, down[1] - step))
        found = [down] if _possible(down, settings) else []
    return sorted(found, key=lambda size: abs(size[0] - wide) + abs(size[1] - high))


def _possible(size: Size, settings: ImageSettings) -> bool:
    return max(size) <= settings.max_side and size[0] * size[1] <= settings.max_pixels


def size_like(width: int, height: int, settings: ImageSettings) -> Size:
    """The size to make of a picture of this one: its shape, at half to all of the pixels that the model is best at."""
    own = settings.size[0] * settings.size[1]
    target = min(max(width * height, own / 2), own)
    scale = sqrt(target / (width * height))
    step, low = settings.multiple, -(-settings.min_side // settings.multiple) * settings.multiple
    size = max(low, round(width * scale / step) * step), max(low, round(height * scale / step) * step)
    return nearest_sizes(*size, settings)[0]


def buckets(settings: ImageSettings) -> tuple[Size, ...]:
    """The sizes that the model is best at: its own list, or usual shapes at its own number of pixels."""
    if settings.buckets:
        return settings.buckets
    pixels = settings.size[0] * settings.size[1]
    found = [settings.size]
    for across, down in (*RATIOS, *((down, across) for across, down in RATIOS)):
        width, height = sqrt(pixels * across / down), sqrt(pixels * down / across)
        size = (round(width / settings.multiple), round(height / settings.multiple))
        wide, high = size[0] * settings.multiple, size[1] * settings.multiple
        if min(wide, high) >= settings.min_side and wide * high <= settings.max_pixels:
            found.append((wide, high))
    return tuple(dict.fromkeys(found))


def nearest_bucket(width: int, height: int, settings: ImageSettings) -> Size:
    """The one of ``buckets`` whose shape is nearest: by the logarithm of width to height, so that both ways count
    the same."""
    wanted = log(width / height)
    return min(buckets(settings), key=lambda size: abs(log(size[0] / size[1]) - wanted))
