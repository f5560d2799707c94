"""What a request for a film may say. Every face (command line, YAML, page, HTTP) derives from this class.

``None`` leaves a value to the model. What only the model can tell (its order of sections, its sizes, how many prompts
there must be) is checked in ``asked``, before the request is queued.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from studio.film_plugin import FilmFormat, FilmSound, FramesPerSecond
from studio.plugin import MAX_STEPS, PROMPT_MAX, Params, Picture, input_file

Film = Annotated[Path, input_file("video/mp4")]

MAX_SECONDS = 600
MAX_SECTIONS = 600
MAX_SIDE = 2048


class VideoParams(Params):
    """The parameters of a model that makes films in sections."""

    prompt: str = Field(
        default="",
        max_length=PROMPT_MAX,
        description="What happens in the film.",
        json_schema_extra={"widget": "text"},
    )
    section_prompts: list[Annotated[str, Field(max_length=PROMPT_MAX)]] = Field(
        default=[],
        max_length=MAX_SECTIONS,
        description="What happens in each section, in the order of the film: as many as there are sections, or none; "
        "an empty one stands for the prompt.",
        json_schema_extra={"label": "Prompts of the sections", "widget": "sections"},
    )
    image: Picture = Field(
        description="The picture that the film begins with (PNG, JPEG, WebP).",
        json_schema_extra={"label": "First image", "group": "source"},
    )
    last_image: Picture | None = Field(
        default=None,
        description="The picture that the film ends with; only for models that make the end first.",
        json_schema_extra={"group": "source"},
    )
    seconds: float = Field(
        default=5,
        ge=0.1,
        le=MAX_SECONDS,
        description="How long the film is, to the nearest whole section.",
        json_schema_extra={"label": "Length", "unit": "s"},
    )
    fps: FramesPerSecond = None
    width: int | None = Field(
        default=None,
        ge=32,
        le=MAX_SIDE,
        description="Width; with the height, the model's own size that is most like the picture when left out.",
        json_schema_extra={"group": "size", "unit": "px"},
    )
    height: int | None = Field(
        default=None,
        ge=32,
        le=MAX_SIDE,
        description="Height; to be given with the width, or not at all.",
        json_schema_extra={"group": "size", "unit": "px"},
    )
    steps: int | None = Field(
        default=None,
        ge=1,
        le=MAX_STEPS,
        description="Denoising steps for each section; more is slower and finer, up to a point.",
        json_schema_extra={"group": "sampling"},
    )
    guidance_scale: float | None = Field(
        default=None,
        ge=0,
        le=50,
        description="How closely to follow the prompt, as a number that the model reads (distilled guidance).",
        json_schema_extra={"label": "Guidance", "group": "sampling", "advanced": True},
    )
    true_cfg_scale: float = Field(
        default=1,
        ge=1,
        le=20,
        description="True guidance: above 1 each step is computed for the negative prompt as well, in twice the time.",
        json_schema_extra={"label": "True guidance", "group": "sampling", "advanced": True},
    )
    negative_prompt: str = Field(
        default="",
        max_length=PROMPT_MAX,
        description="What should not happen; only with true guidance above 1.",
        json_schema_extra={"widget": "text", "group": "sampling", "advanced": True},
    )
    scheduler: Literal["auto", "euler", "unipc"] = Field(
        default="auto",
        description="The sampling method; auto is the model's own.",
        json_schema_extra={"group": "sampling", "advanced": True},
    )
    step_cache: Literal["off", "balanced", "fast"] = Field(
        default="off",
        description="Pass over steps that would change little: quicker, and no longer the same film.",
        json_schema_extra={"label": "Skip steps", "group": "sampling"},
    )
    sound: FilmSound = None
    format: FilmFormat = "mp4"
    film: Film | None = Field(
        default=None,
        description="A finished MP4 of this model in this home, of which a part is made again: see from_section.",
        json_schema_extra={"label": "Film to change", "group": "again", "advanced": True},
    )
    from_section: int | None = Field(
        default=None,
        ge=1,
        le=MAX_SECTIONS,
        description="Make the film again from this section on, counted from 1 as the film is played; what was made "
        "before it stays: the sections before, or those after for a model that makes the end first.",
        json_schema_extra={"label": "Again from section", "group": "again", "advanced": True},
    )
