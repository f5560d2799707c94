"""What a request for a film may say. Every face (command line, YAML, page, HTTP) derives from this class.

``None`` leaves a value to the model. What only the model can tell is checked in ``request.check``, before it is queued.
"""

from __future__ import annotations

from pydantic import Field

from studio.film_plugin import FilmFormat, FilmSound, FramesPerSecond
from studio.plugin import MAX_STEPS, PROMPT_MAX, Params, Picture, Steps

MAX_SECONDS = 60
MAX_SIDE = 2048


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
        json_schema_extra={"label": "First image", "group": "source"},
    )
    seconds: float | None = Field(
        default=None,
        gt=0,
        le=MAX_SECONDS,
        description="How long the film is, to the nearest number of frames that the model can make; its own when left "
        "out.",
        json_schema_extra={"label": "Length", "unit": "s"},
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
    fps: FramesPerSecond = None
    steps: Steps = None
    guidance_scale: float | None = Field(
        default=None,
        ge=0,
        le=50,
        description="How closely to follow the prompt; above 1 each step takes twice as long.",
        json_schema_extra={"label": "Guidance", "group": "sampling"},
    )
    max_sequence_length: int | None = Field(
        default=None,
        ge=16,
        le=512,
        description="The longest prompt that the text encoder reads; the model's own when left out.",
        json_schema_extra={"label": "Longest prompt", "group": "sampling", "unit": "tokens", "advanced": True},
    )
    sound: FilmSound = None
    format: FilmFormat = "mp4"
    preview_every: int = Field(
        default=5,
        ge=0,
        le=MAX_STEPS,
        description="Show the middle of the unfinished film every so many steps; 0 shows none.",
        json_schema_extra={"group": "output", "unit": "steps", "advanced": True},
    )
