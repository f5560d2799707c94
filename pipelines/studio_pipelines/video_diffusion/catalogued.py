"""What a catalogue entry says of a film model under ``settings``, and the shapes of networks before a download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from studio.plugin import MAX_STEPS, ModelSpec, Shapes

from .classes import CLASSES, PipelineClass
from .params import MAX_SIDE

SHAPES = Shapes(Path(__file__).parent / "shapes")
shape_of, shape_names = SHAPES.named, SHAPES.names
Side = Annotated[int, Field(ge=32, le=MAX_SIDE)]
Size = tuple[int, int]


class FilmSettings(BaseModel):
    """The constants of one film model. Sizes are (width, height) in pixels.

    ``networks`` names the shape (a file of ``shapes/``) of each network. ``frames`` is the length that the model was
    made for, ``max_frames`` the longest that it is asked for, ``fps`` the frames a second of its training. ``fp32``
    are networks that 16 bits would spoil, ``fp16`` those that are known to be right also in fp16, whose range is small:
    on a card without bf16 all others are computed in 32 bits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    class_name: str = Field(alias="class")
    networks: dict[str, str] = Field(default_factory=dict)
    size: tuple[Side, Side] = (832, 480)
    buckets: tuple[tuple[Side, Side], ...] = ()
    max_pixels: int = Field(default=1280 * 720, ge=1024, le=MAX_SIDE**2)
    frames: int = Field(default=81, ge=1, le=1001)
    max_frames: int = Field(default=161, ge=1, le=1001)
    fps: int = Field(default=16, ge=1, le=60)
    steps: int = Field(default=50, ge=1, le=MAX_STEPS)
    guidance: float = Field(default=5, ge=0, le=50)
    max_sequence_length: int = Field(default=512, ge=16, le=512)
    fp32: tuple[str, ...] = ()
    fp16: tuple[str, ...] = ()

    @property
    def row(self) -> PipelineClass:
        return CLASSES[self.class_name]


def settings_of(spec: ModelSpec) -> FilmSettings:
    """The checked settings of an entry; steps and guidance are those of its defaults where it names no others."""
    return spec.checked_settings(FilmSettings, _problem, steps="steps", guidance="guidance_scale")


def _problem(settings: FilmSettings) -> str:
    """What contradicts itself in settings that are each well-formed."""
    if settings.class_name not in CLASSES:
        return f"settings.class: {settings.class_name!r} is none of {', '.join(CLASSES)}"
    row = settings.row
    for width, height in (settings.size, *settings.buckets):
        if width % row.multiple or height % row.multiple or width * height > settings.max_pixels:
            return f"settings.size: {width}×{height} is no multiple of {row.multiple} or above max_pixels"
    if settings.frames % row.frames != 1 or settings.frames > settings.max_frames:
        return (
            f"settings.frames: {settings.frames} is not one more than a multiple of {row.frames}, or above max_frames"
        )
    return SHAPES.problem(settings.networks)
