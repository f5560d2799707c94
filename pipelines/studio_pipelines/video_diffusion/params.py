"""What a request for a film may say. Every face (command line, YAML, page, HTTP) derives from this class.

``None`` leaves a value to the model. What only the model can tell is checked in ``request.check``, before it is queued.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from studio.plugin import Params, input_file

Picture = Annotated[Path, input_file("image/png", "image/jpeg", "image/webp")]
Sound = Annotated[Path, input_file("audio/wav", "audio/flac", "audio/mpeg", "audio/ogg", "audio/mp4")]

PROMPT_MAX = 20_000
MAX_SECONDS = 60
MAX_SIDE = 2048
MAX_STEPS = 150


class FilmParams(Params):
    """The parameters of a model that makes a whole film at once."""

    prompt: str = Field(
        min_length=1,
        max_length=PROMPT_MAX,
        description="What happens in the film.",
        json_schema_extra={"widget": "text"},
    )
    negative_prompt: str = Field(
        default="",
        max_length=PROMPT_MAX,
        description="What should not happen; only with guidance above 1.",
        json_schema_extra={"widget": "text"},
    )
    image: Picture | None = Field(
        default=None,
        description="A picture that the film begins with (PNG, JPEG, WebP); only for models that take one.",
        json_schema_extra={"group": "source"},
    )
    seconds: float | None = Field(
        default=None,
        gt=0,
        le=MAX_SECONDS,
        description="How long the film is, to the nearest number of frames that the model can make; its own when left "
        "out.",
        json_schema_extra={"unit": "s"},
    )
    width: int | None = Field(
        default=None,
        ge=32,
        le=MAX_SIDE,
        description="Width; the model's own when left out.",
        json_schema_extra={"group": "size", "unit": "px"},
    )
    height: int | None = Field(
        default=None,
        ge=32,
        le=MAX_SIDE,
        description="Height; the model's own when left out.",
        json_schema_extra={"group": "size", "unit": "px"},
    )
    fps: int | None = Field(
        default=None,
        ge=1,
        le=60,
        description="Frames a second; the model's own when left out.",
        json_schema_extra={"unit": "frames/s", "advanced": True},
    )
    steps: int | None = Field(
        default=None,
        ge=1,
        le=MAX_STEPS,
        description="Denoising steps; more take longer and are finer up to a point.",
        json_schema_extra={"group": "sampling"},
    )
    guidance_scale: float | None = Field(
        default=None,
        ge=0,
        le=50,
        description="How closely to follow the prompt; above 1 each step takes twice as long.",
        json_schema_extra={"group": "sampling"},
    )
    max_sequence_length: int | None = Field(
        default=None,
        ge=16,
        le=512,
        description="The longest prompt that the text encoder reads; the model's own when left out.",
        json_schema_extra={"group": "sampling", "unit": "tokens", "advanced": True},
    )
    sound: Sound | None = Field(
        default=None,
        description="Sound to lay under the film (WAV, FLAC, MP3, OGG, M4A); cut or padded with silence to its length.",
        json_schema_extra={"group": "output"},
    )
    format: Literal["mp4", "webm", "gif"] = Field(
        default="mp4",
        description="mp4 (H.264, the recipe inside), webm (VP9), or gif (256 colours, no sound).",
        json_schema_extra={"group": "output"},
    )
    preview_every: int = Field(
        default=5,
        ge=0,
        le=MAX_STEPS,
        description="Show the middle of the unfinished film every so many steps; 0 shows none.",
        json_schema_extra={"group": "output", "unit": "steps", "advanced": True},
    )
