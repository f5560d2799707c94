"""Parameters that several families declare alike: their type, bounds and words. A family adds the default.

``steps: Steps = None`` is a parameter of a family as any other; its French label stands in the family's ``fr.yaml``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from studio.pipeline import input_file

PROMPT_MAX = 20_000
MAX_STEPS = 150

Picture = Annotated[Path, input_file("image/png", "image/jpeg", "image/webp")]
Sound = Annotated[Path, input_file("audio/wav", "audio/flac", "audio/mpeg", "audio/ogg", "audio/mp4")]

Steps = Annotated[
    int | None,
    Field(
        ge=1,
        le=MAX_STEPS,
        description="Denoising steps; more take longer and are finer up to a point.",
        json_schema_extra={"group": "sampling"},
    ),
]

# -- of films ----------------------------------------------------------------------------------------------------

FramesPerSecond = Annotated[
    int | None,
    Field(
        ge=1,
        le=60,
        description="Frames a second; the model's own when left out.",
        json_schema_extra={"label": "Frame rate", "unit": "frames/s", "advanced": True},
    ),
]
FilmSound = Annotated[
    Sound | None,
    Field(
        description="Sound to lay under the film (WAV, FLAC, MP3, OGG, M4A); cut or padded with silence to its length.",
        json_schema_extra={"group": "output"},
    ),
]
FilmFormat = Annotated[
    Literal["mp4", "webm", "gif"],
    Field(
        description="mp4 (H.264, the recipe inside), webm (VP9), or gif (256 colours, no sound).",
        json_schema_extra={"label": "File format", "group": "output"},
    ),
]
FILM_MEDIA = {"mp4": "video/mp4", "webm": "video/webm", "gif": "image/gif"}
"""The media type of each ``FilmFormat``."""
