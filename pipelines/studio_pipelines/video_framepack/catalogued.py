"""What a catalogue entry says of a FramePack model under ``settings``, and the shapes of networks before a download."""

from __future__ import annotations

from math import log
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from studio.plugin import ModelSpec, Shapes

from .sections import Sampling

SHAPES = Shapes(Path(__file__).parent / "shapes")
shape_of, shape_names = SHAPES.named, SHAPES.names

MULTIPLE = 16
"""Sides are multiples of 16 pixels: 8 to a latent of the published models, and 2 latents to a token."""

Side = Annotated[int, Field(ge=32, le=2048, multiple_of=MULTIPLE)]
Size = tuple[int, int]
Sampler = Literal["euler", "unipc"]

BUCKETS_640: tuple[Size, ...] = (
    (416, 960), (448, 864), (480, 832), (512, 768), (544, 704), (576, 672), (608, 640),
    (640, 608), (672, 576), (704, 544), (768, 512), (832, 480), (864, 448), (960, 416),
)  # fmt: skip
"""The sizes, (width, height), that the published models were made for: ``bucket_tools.py`` of lllyasviel/FramePack."""

TEACACHE = (7.33226126e02, -4.01131952e02, 6.75869174e01, -3.14987800e00, 9.61237896e-02)
"""How much HunyuanVideo's output changes by how much its first block's input does: a polynomial, highest power first.
From TeaCache (arXiv 2411.19108), as lllyasviel/FramePack uses it."""


CACHE_SHARE: dict[Literal["balanced", "fast"], float] = {"balanced": 0.7, "fast": 0.6}
"""The share of steps that is computed with a step cache, as forecasts take it. FramePack's own README has 1.5 s instead
of 2.5 s a frame on an RTX 4090 at the threshold of ``fast``. TeaCache's has HunyuanVideo 1.6 times as quick at that of
``balanced`` and 2.1 times at that of ``fast``, so the former passes over 0.72 as much as the latter. Not measured
here."""


class PromptTemplate(BaseModel):
    """What the language model reads around a prompt (``{}``), and how many of its tokens before the prompt are left
    out of what it says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    template: str = "{}"
    crop_start: int = Field(default=0, ge=0)

    @field_validator("template")
    @classmethod
    def _one_place(cls, template: str) -> str:
        if template.count("{}") != 1 or template.count("{") != 1 or template.count("}") != 1:
            raise ValueError("a template holds {} once and no other braces")
        return template


class VideoSettings(BaseModel):
    """The constants of one FramePack model. Sizes are (width, height) in pixels.

    ``networks`` names the shape (a file of ``shapes/``) of each network. ``sampling`` is the order of sections that the
    model was trained for, ``window`` how many latents a section makes, ``fps`` the frames a second that it was trained
    on, ``factor`` how many pixels there are to a latent on each side (in time it is always 4 frames).
    ``prompt_template``: ``None`` is HunyuanVideo's own. ``step_cache`` says how much change may be passed over
    before a step is computed again, ``cache_rescale`` how change is read (see ``stepcache``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    networks: dict[str, str] = Field(default_factory=dict)
    sampling: Sampling = "forward"
    window: int = Field(default=9, ge=2, le=33)
    factor: Literal[4, 8] = 8
    fps: float = Field(default=30, gt=0, le=120)
    size: tuple[Side, Side] = (640, 608)
    buckets: tuple[tuple[Side, Side], ...] = ()
    max_seconds: float = Field(default=120, gt=0, le=600)
    steps: int = Field(default=25, ge=1, le=150)
    max_steps: int = Field(default=100, ge=1, le=150)
    guidance: float = Field(default=10, ge=0, le=50)
    sampler: Sampler = "euler"
    prompt_template: PromptTemplate | None = None
    max_sequence_length: int = Field(default=256, ge=16, le=512)
    step_cache: dict[Literal["balanced", "fast"], Annotated[float, Field(gt=0)]] = {"balanced": 0.1, "fast": 0.15}
    cache_rescale: tuple[float, ...] = (1.0, 0.0)


def settings_of(spec: ModelSpec) -> VideoSettings:
    """The checked settings of an entry; steps and guidance are those of its defaults where it names no others."""
    return spec.checked_settings(VideoSettings, _problem, steps="steps", guidance="guidance_scale")


def _problem(settings: VideoSettings) -> str:
    return SHAPES.problem(settings.networks)


def size_for(width: int, height: int, settings: VideoSettings) -> Size:
    """The size of the model's own whose shape is nearest to this one: by the logarithm of width to height, so that
    both ways count the same."""
    wanted = log(width / height)
    sizes = settings.buckets or (settings.size,)
    return min(sizes, key=lambda size: abs(log(size[0] / size[1]) - wanted))
