"""A request made definite: which task, at what size, with which picture and mask. Checked before it is queued."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from studio.plugin import BadRequest, read_upright, shown_size

from .catalogued import ImageSettings
from .classes import CLASSES, DIFFUSION_SCHEDULERS, FLOW_SCHEDULERS, Task
from .params import ImageParams
from .sizes import check_size, size_like

if TYPE_CHECKING:
    from PIL import Image

_TASK_WORDS = {"image": "start from a picture", "inpaint": "fill in parts of a picture", "edit": "edit by instruction"}


@dataclass(frozen=True)
class Request:
    """What one run needs besides the prompt. ``source`` and ``mask`` are (width, height) already; sizes in pixels."""

    task: Task
    width: int
    height: int
    steps: int
    guidance_scale: float | None
    max_sequence_length: int | None = None
    source: Image.Image | None = None
    mask: Image.Image | None = None


def task_of(params: ImageParams, tasks: tuple[Task, ...]) -> Task:
    """What a request asks for: by its ``mode``, or by what it brings and what the model can do."""
    if params.mode in ("inpaint", "outpaint") or (params.mode == "auto" and params.mask_image is not None):
        return "inpaint"
    if params.mode == "auto" and any(expansion_of(params)):
        return "inpaint"
    if params.mode == "edit" or (params.mode == "auto" and params.image is not None and "edit" in tasks):
        return "edit"
    if params.mode == "image" or (params.mode == "auto" and params.image is not None):
        return "image"
    return "text"


def expansion_of(params: ImageParams) -> tuple[int, int, int, int]:
    """Pixels to add on the left, above, on the right and below."""
    return params.expand_left, params.expand_top, params.expand_right, params.expand_bottom


def check(params: ImageParams, settings: ImageSettings, model: str) -> Request:
    """The request without its pictures' pixels. Raises ``BadRequest`` for what this model cannot do."""
    row = CLASSES[settings.class_name]
    task = task_of(params, row.tasks)
    if task not in row.tasks:
        able = ", ".join(row.tasks)
        what = "make a picture from words alone" if task == "text" else _TASK_WORDS[task]
        raise BadRequest(f"{model} cannot {what}.", f"It can do: {able}. Choose another model or mode.")
    _check_pictures(params, task)
    if params.negative_prompt and not row.negative:
        raise BadRequest(f"{model} takes no negative prompt.", "Leave out --negative-prompt.")
    schedulers = FLOW_SCHEDULERS if row.flow else DIFFUSION_SCHEDULERS
    if params.scheduler != "auto" and params.scheduler not in schedulers:
        raise BadRequest(
            f"{model} cannot use the scheduler {params.scheduler}.", f"Choose one of: auto, {', '.join(schedulers)}."
        )
    steps, guidance = settings.steps_of(params.steps, model), settings.guidance_of(params.guidance_scale, model)
    if task in ("image", "inpaint") and not row.flow and int(steps * params.strength) < 1:  # as diffusers rounds
        raise BadRequest(
            f"--strength {params.strength:g} of {steps} steps leaves none to do.",
            f"Give --steps {ceil(1 / params.strength)} or more, or more strength.",
        )
    width, height = _size(params, settings, task)
    check_size(width, height, settings, model)
    longest = params.max_sequence_length
    if longest is not None and settings.max_sequence_length is not None and longest > settings.max_sequence_length:
        raise BadRequest(
            f"--max-sequence-length is {longest}; {model} reads at most {settings.max_sequence_length} tokens.",
            "Leave it out.",
        )
    return Request(task, width, height, steps, guidance, longest or settings.max_sequence_length)


def ready(params: ImageParams, settings: ImageSettings, model: str) -> Request:
    """The request with its pictures, at the size that is made."""
    from PIL import Image

    checked = check(params, settings, model)
    if params.image is None:
        return checked
    source = read_upright(params.image)
    mask = None if params.mask_image is None else Image.open(params.mask_image).convert("L")
    if checked.task == "inpaint":
        source, mask = _expanded(source, mask, params)
    size = (checked.width, checked.height)
    source = source if source.size == size else source.resize(size, Image.Resampling.LANCZOS)
    mask = mask if mask is None or mask.size == size else mask.resize(size, Image.Resampling.NEAREST)
    return Request(
        checked.task, *size, checked.steps, checked.guidance_scale, checked.max_sequence_length, source, mask
    )


def _check_pictures(params: ImageParams, task: Task) -> None:
    """The pictures belong together; only their headers are read."""
    grows = any(expansion_of(params))
    if params.image is None:
        given = "mask" if params.mask_image is not None else f"mode {params.mode}"
        if task != "text" or params.mask_image is not None or grows:
            raise BadRequest(
                f"There is no picture for the {'outpainting' if grows else given}.", "Give one: --image FILE."
            )
        return
    if task == "text":
        raise BadRequest("The mode is text, but there is a picture.", "Leave out --image or --mode.")
    if params.mask_image is not None and task != "inpaint":
        raise BadRequest(f"The mode {params.mode} takes no mask.", "Leave out --mask-image or --mode.")
    if task == "inpaint" and params.mask_image is None and not grows:
        raise BadRequest("Filling in needs a mask.", "Give one: --mask-image FILE, white where something new is made.")
    mask = None if params.mask_image is None else shown_size(params.mask_image)
    if mask is not None and (size := shown_size(params.image)) is not None and mask != size:
        raise BadRequest(
            f"The mask is {mask[0]}×{mask[1]} pixels, the picture {size[0]}×{size[1]}.", "Give a mask of that size."
        )


def _size(params: ImageParams, settings: ImageSettings, task: Task) -> tuple[int, int]:
    """The size that is made: as asked, else that of the picture as near as the model can, else the model's own.

    Where parts of a picture are to stay, its size stays as well, as long as the model can still make sense of it.
    """
    own = settings.size
    if params.image is not None and (params.width is None or params.height is None):
        found = shown_size(params.image)
        if found is not None:
            left, top, right, bottom = expansion_of(params)
            width, height = found[0] + left + right, found[1] + top + bottom
            own = size_like(width, height, settings)
            best = settings.size[0] * settings.size[1]
            if task == "inpaint" and best / 2 <= width * height <= min(2.25 * best, settings.max_pixels):
                step = settings.multiple
                own = max(step, round(width / step) * step), max(step, round(height / step) * step)
    return params.width or own[0], params.height or own[1]


def _expanded(
    source: Image.Image, mask: Image.Image | None, params: ImageParams
) -> tuple[Image.Image, Image.Image | None]:
    """Outpainting: the picture on a larger canvas, its edge pixels drawn outward, and the mask of what is new."""
    from PIL import Image

    left, top, right, bottom = expansion_of(params)
    if not any((left, top, right, bottom)):
        return source, mask
    width, height = source.size
    size = (width + left + right, height + top + bottom)
    canvas = source.transform(size, Image.Transform.AFFINE, (1, 0, -left, 0, 1, -top), Image.Resampling.NEAREST)
    for box, place in _bands(width, height, left, top, right, bottom):
        band = source.crop(box)
        target = (place[2] - place[0], place[3] - place[1])
        if all(target):
            canvas.paste(band.resize(target, Image.Resampling.NEAREST), place[:2])
    fresh = Image.new("L", size, 255)
    fresh.paste(mask if mask is not None else Image.new("L", source.size, 0), (left, top))
    return canvas, fresh


def _bands(
    width: int, height: int, left: int, top: int, right: int, bottom: int
) -> list[tuple[tuple[int, int, int, int], tuple[int, int, int, int]]]:
    """For each side and corner: which strip of the picture is stretched to which part of the canvas."""
    columns = [(0, 1, 0, left), (0, width, left, left + width), (width - 1, width, left + width, left + width + right)]
    rows = [(0, 1, 0, top), (0, height, top, top + height), (height - 1, height, top + height, top + height + bottom)]
    return [
        ((x0, y0, x1, y1), (u0, v0, u1, v1))
        for x0, x1, u0, u1 in columns
        for y0, y1, v0, v1 in rows
        if (u0, v0) != (left, top) and u1 > u0 and v1 > v0
    ]
