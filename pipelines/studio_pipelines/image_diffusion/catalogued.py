"""What a catalogue entry says of an image model under ``settings``, and the shapes of networks before a download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from studio.plugin import MAX_STEPS, BadRequest, ModelSpec, Shapes

from .classes import CLASSES

MAX_PIXELS = 16_777_216
"""16 megapixels, 4096 × 4096: more is refused whatever the model."""

SHAPES = Shapes(Path(__file__).parent / "shapes")
shape_of, shape_names = SHAPES.named, SHAPES.names
Side = Annotated[int, Field(ge=16, le=8192)]


class ImageSettings(BaseModel):
    """The constants of one image model. Sizes are (width, height) in pixels.

    ``networks`` names the shape (a file of ``shapes/``) of each network, in the order in which they run. ``guided``
    says how guidance works: ``cfg`` runs the denoiser for the negative prompt too, ``distilled`` is a number that the
    model reads, ``none`` is a model that knows one value only. ``fp32`` are networks that 16 bits would spoil,
    ``fp16`` those that are known to be right also in fp16, whose range is small: on a card without bf16 all others are
    computed in 32 bits. ``binning``: diffusers may replace the size by one of its own. ``styles``: whether forms offer
    the family's own styles, for which a model that follows instructions, or knows few things, has no use.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    class_name: str = Field(alias="class")
    networks: dict[str, str] = Field(default_factory=dict)
    size: tuple[Side, Side] = (1024, 1024)
    multiple: int = Field(default=16, ge=1, le=256)
    min_side: int = Field(default=64, ge=16)
    max_side: int = Field(default=8192, ge=16, le=8192)
    max_pixels: int = Field(default=MAX_PIXELS, ge=256, le=MAX_PIXELS)
    buckets: tuple[tuple[Side, Side], ...] = ()
    steps: int = Field(default=30, ge=1, le=MAX_STEPS)
    min_steps: int = Field(default=1, ge=1, le=MAX_STEPS)
    max_steps: int = Field(default=MAX_STEPS, ge=1, le=MAX_STEPS)
    guidance: float | None = Field(default=None, ge=0, le=50)
    guided: Literal["cfg", "distilled", "none"] = "cfg"
    max_sequence_length: int | None = Field(default=None, ge=16)
    fp32: tuple[str, ...] = ()
    fp16: tuple[str, ...] = ()
    binning: bool = False
    styles: bool = True

    def steps_of(self, asked: int | None, model: str) -> int:
        """The steps of a request. Raises ``BadRequest`` for a number that this model was not made for."""
        if asked is None:
            return self.steps
        if not self.min_steps <= asked <= self.max_steps:
            limits = f"{self.min_steps} to {self.max_steps}" if self.min_steps < self.max_steps else f"{self.min_steps}"
            raise BadRequest(f"--steps is {asked}; {model} takes {limits}.", f"Leave it out for {self.steps}.")
        return asked

    def guidance_of(self, asked: float | None, model: str) -> float | None:
        """The guidance of a request. Raises ``BadRequest`` where the model knows another single value."""
        if asked is None:
            return self.guidance
        if self.guided == "none" and self.guidance is not None and asked != self.guidance:
            raise BadRequest(
                f"--guidance-scale is {asked:g}; {model} is distilled and only works with {self.guidance:g}.",
                "Leave it out.",
            )
        return asked


def settings_of(spec: ModelSpec) -> ImageSettings:
    """The checked settings of an entry; steps and guidance are those of its defaults where it names no others."""
    return spec.checked_settings(ImageSettings, _problem, steps="steps", guidance="guidance_scale")


def _problem(settings: ImageSettings) -> str:
    """What contradicts itself in settings that are each well-formed."""
    if settings.class_name not in CLASSES:
        return f"settings.class: {settings.class_name!r} is none of {', '.join(CLASSES)}"
    if not settings.min_steps <= settings.steps <= settings.max_steps:
        return f"settings.steps: {settings.steps} is not from {settings.min_steps} to {settings.max_steps}"
    least = -(-settings.min_side // settings.multiple) * settings.multiple
    if least > settings.max_side or least**2 > settings.max_pixels:
        return f"settings.min_side: {settings.min_side} leaves no size within max_side and max_pixels"
    for width, height in (settings.size, *settings.buckets):
        if width % settings.multiple or height % settings.multiple or width * height > settings.max_pixels:
            return f"settings.size: {width}×{height} is not allowed by its own multiple or max_pixels"
    return SHAPES.problem(settings.networks)
