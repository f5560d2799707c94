"""What a request for pictures may say. Every face (command line, YAML, page, HTTP) derives from this class.

``None`` leaves a value to the model: its own size, steps, guidance. What only the model can tell (its size's multiple,
the steps of a distilled one, whether it edits) is checked in ``family.ImageDiffusion.preflight``, before it is queued.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from studio.plugin import MAX_STEPS, PROMPT_MAX, Params, Picture, Steps

MAX_SIDE = 8192
MAX_IMAGES = 8
MAX_LORAS = 8
MAX_STYLES = 5

Mode = Literal["auto", "text", "image", "inpaint", "outpaint", "edit"]
SchedulerName = Literal["auto", "euler", "euler-a", "heun", "ddim", "dpm++", "dpm++-sde", "unipc", "lcm", "pndm"]


class ImageParams(Params):
    """The parameters of an image model."""

    prompt: str = Field(
        min_length=1,
        max_length=PROMPT_MAX,
        description="What to see in the picture; {a|b} takes one of the words at random, __name__ a line of the file "
        "wildcards/name.txt, (word:1.3) stresses it.",
        json_schema_extra={"widget": "text"},
    )
    negative_prompt: str = Field(
        default="",
        max_length=PROMPT_MAX,
        description="What not to see; only for models that are guided (guidance above 1).",
        json_schema_extra={"widget": "text"},
    )
    style: list[str] = Field(
        default=[],
        max_length=MAX_STYLES,
        description="Words put around the prompt, by name: watercolour, pixel-art …, or those of your folder styles.",
        json_schema_extra={"label": "Styles", "group": "style", "widget": "styles"},
    )
    image: Picture | None = Field(
        default=None,
        description="A picture to start from (PNG, JPEG, WebP): to change, to fill in, to extend or to edit.",
        json_schema_extra={"label": "Starting image", "group": "source"},
    )
    mask_image: Picture | None = Field(
        default=None,
        description="As large as the picture: white is made anew, black stays.",
        json_schema_extra={"label": "Mask", "group": "source", "widget": "mask"},
    )
    mode: Mode = Field(
        default="auto",
        description="What to do with the picture; auto: fill in with a mask, edit where the model can, else change it.",
        json_schema_extra={"group": "source"},
    )
    strength: float = Field(
        default=0.7,
        gt=0,
        le=1,
        description="How far from the picture to start: near 0 keeps it, 1 starts from noise.",
        json_schema_extra={"group": "source"},
    )
    width: int | None = Field(
        default=None,
        ge=16,
        le=MAX_SIDE,
        description="Width; the model's own when left out.",
        json_schema_extra={"group": "size", "unit": "px"},
    )
    height: int | None = Field(
        default=None,
        ge=16,
        le=MAX_SIDE,
        description="Height; the model's own when left out.",
        json_schema_extra={"group": "size", "unit": "px"},
    )
    num_images: int = Field(
        default=1,
        ge=1,
        le=MAX_IMAGES,
        description="How many pictures; each has a seed of its own, counted up from the first.",
        json_schema_extra={"label": "Number of images", "group": "size"},
    )
    steps: Steps = None
    guidance_scale: float | None = Field(
        default=None,
        ge=0,
        le=50,
        description="How closely to follow the prompt.",
        json_schema_extra={"label": "Guidance", "group": "sampling"},
    )
    scheduler: SchedulerName = Field(
        default="auto",
        description="The sampler; auto is the model's own.",
        json_schema_extra={"group": "sampling", "advanced": True},
    )
    lora: list[str] = Field(
        default=[],
        max_length=MAX_LORAS,
        description="LoRA adapters of the folder loras, as name or name:weight (safetensors only).",
        json_schema_extra={"label": "LoRA", "group": "style", "widget": "lora"},
    )
    expand_left: int = Field(
        default=0,
        ge=0,
        le=4096,
        description="Outpainting: pixels to add on the left.",
        json_schema_extra={"label": "Extend left", "group": "outpaint", "unit": "px", "advanced": True},
    )
    expand_top: int = Field(
        default=0,
        ge=0,
        le=4096,
        description="Outpainting: pixels to add above.",
        json_schema_extra={"label": "Extend above", "group": "outpaint", "unit": "px", "advanced": True},
    )
    expand_right: int = Field(
        default=0,
        ge=0,
        le=4096,
        description="Outpainting: pixels to add on the right.",
        json_schema_extra={"label": "Extend right", "group": "outpaint", "unit": "px", "advanced": True},
    )
    expand_bottom: int = Field(
        default=0,
        ge=0,
        le=4096,
        description="Outpainting: pixels to add below.",
        json_schema_extra={"label": "Extend below", "group": "outpaint", "unit": "px", "advanced": True},
    )
    prompt_weighting: bool = Field(
        default=True,
        description="Whether (word:1.3), ((word)) and [word] weigh words, which Stable Diffusion and SDXL know; off "
        "takes brackets as they are.",
        json_schema_extra={"group": "sampling", "advanced": True},
    )
    max_sequence_length: int | None = Field(
        default=None,
        ge=16,
        le=2048,
        description="The longest prompt that the text encoder reads; the model's own when left out.",
        json_schema_extra={"label": "Longest prompt", "group": "sampling", "unit": "tokens", "advanced": True},
    )
    preview_every: int = Field(
        default=5,
        ge=0,
        le=MAX_STEPS,
        description="Show the unfinished picture every so many steps; 0 shows none.",
        json_schema_extra={"group": "output", "unit": "steps", "advanced": True},
    )
    safety: Literal["off", "blur", "block"] = Field(
        default="off",
        description="What to do with pictures that the safety check finds unsafe.",
        json_schema_extra={"label": "Safety check", "group": "output", "advanced": True},
    )
