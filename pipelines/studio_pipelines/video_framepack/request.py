"""A request for a film made definite: its sections, its size, a prompt for each section. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from studio.plugin import BadRequest

from .catalogued import MULTIPLE, Sampler
from .sections import Schedule

if TYPE_CHECKING:
    from PIL import Image

StepCache = Literal["off", "balanced", "fast"]


@dataclass(frozen=True)
class FilmRequest:
    """What the loop needs. ``prompts``: one a section in the order of the film, whatever order they are made in.

    ``guidance_scale`` is a number that the distilled model reads; ``true_cfg_scale`` above 1 computes each step for
    ``negative_prompt`` as well. ``image`` is the first frame and ``last_image`` the last one, of any size: they are cut
    to ``width`` × ``height`` pixels. Both may be ``None`` while a plan is made. ``sampler``: ``None`` is the model's
    own. Raises ``BadRequest`` for what no model of this family can do.
    """

    schedule: Schedule
    width: int
    height: int
    prompts: tuple[str, ...]
    seed: int
    steps: int
    guidance_scale: float
    image: Image.Image | None = None
    last_image: Image.Image | None = None
    negative_prompt: str = ""
    true_cfg_scale: float = 1.0
    step_cache: StepCache = "off"
    sampler: Sampler | None = None

    def __post_init__(self) -> None:
        if len(self.prompts) != self.schedule.sections:
            raise BadRequest(
                f"There are {len(self.prompts)} prompts for {self.schedule.sections} sections.",
                "Give one prompt for the whole film, or one for each section.",
            )
        if self.width % MULTIPLE or self.height % MULTIPLE:
            raise BadRequest(f"{self.width}×{self.height} pixels: films need multiples of {MULTIPLE}.", "Change it.")
        if self.last_image is not None and self.schedule.sampling != "inverted":
            raise BadRequest(
                "A last picture needs a model that makes the end first, and this one makes the beginning first.",
                "Leave it out, or use a model with inverted sampling such as framepack-i2v-hy.",
            )

    @property
    def guided(self) -> bool:
        """Whether each step is computed for the negative prompt, too."""
        return self.true_cfg_scale > 1

    @property
    def caches(self) -> int:
        """How many step caches there are: one for each prompt that a step is computed for."""
        return 0 if self.step_cache == "off" else 1 + self.guided


def fitted(image: Image.Image, width: int, height: int) -> Image.Image:
    """The picture as it was meant to be looked at, scaled and cut at its middle to ``width`` × ``height``, in RGB."""
    from PIL import Image, ImageOps

    upright = ImageOps.exif_transpose(image).convert("RGB")
    return (
        upright if upright.size == (width, height) else ImageOps.fit(upright, (width, height), Image.Resampling.LANCZOS)
    )
