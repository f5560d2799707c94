"""What a request to enlarge a picture may say."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from studio.plugin import Params, Picture

SMALLEST_TILE, LARGEST_TILE = 32, 2048


class UpscaleParams(Params):
    """The parameters of an upscaler."""

    image: Picture = Field(description="The picture to enlarge (PNG, JPEG, WebP); transparency is kept.")
    scale: Literal[2, 3, 4] = Field(
        default=4,
        description="How many times wider and higher; the result may have 16 megapixels.",
        json_schema_extra={"label": "Enlargement", "group": "size"},
    )
    tile: int | None = Field(
        default=None,
        ge=SMALLEST_TILE,
        le=LARGEST_TILE,
        description="The picture is enlarged in squares of this size; left out, what the memory allows.",
        json_schema_extra={"label": "Tile size", "group": "memory", "unit": "px", "advanced": True},
    )
