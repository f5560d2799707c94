"""A request made definite: which class, at what size, how many frames. Checked before it is queued. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from studio.film_plugin import MAX_GIF_FRAMES
from studio.plugin import BadRequest

from .catalogued import FilmSettings
from .classes import Task
from .params import FilmParams


@dataclass(frozen=True)
class Request:
    """What one film is. Sizes in pixels; ``frames`` is one more than a multiple of what a latent stands for."""

    task: Task
    width: int
    height: int
    frames: int
    fps: int
    steps: int
    guidance_scale: float
    max_sequence_length: int

    @property
    def guided(self) -> bool:
        return self.guidance_scale > 1


def check(params: FilmParams, settings: FilmSettings, model: str) -> Request:
    """The definite request. Raises ``BadRequest`` for what this model cannot do."""
    row = settings.row
    if params.image is not None and not row.image:
        raise BadRequest(f"{model} takes no picture to begin with.", "Leave out --image, or use another model.")
    width, height = _size(params, settings, model)
    fps = params.fps or settings.fps
    frames = settings.frames if params.seconds is None else frames_of(params.seconds * fps, row.frames)
    if frames > settings.max_frames:
        raise BadRequest(
            f"--seconds {params.seconds:g} at {fps} frames/s are {frames} frames; {model} makes {settings.max_frames} "
            "at most.",
            f"Ask for {settings.max_frames / fps:.1f} seconds or less.",
        )
    if params.format == "gif" and params.sound is not None:
        raise BadRequest("A GIF has no sound.", "Leave out --sound, or take --format mp4.")
    if params.format == "gif" and frames > MAX_GIF_FRAMES:
        raise BadRequest(f"A GIF has at most {MAX_GIF_FRAMES} frames; these are {frames}.", "Take --format mp4.")
    longest = params.max_sequence_length or settings.max_sequence_length
    if longest > settings.max_sequence_length:
        raise BadRequest(
            f"--max-sequence-length is {longest}; {model} reads at most {settings.max_sequence_length} tokens.",
            "Leave it out.",
        )
    guidance = settings.guidance if params.guidance_scale is None else params.guidance_scale
    task: Task = "text" if params.image is None else "image"
    return Request(task, width, height, frames, fps, params.steps or settings.steps, guidance, longest)


def frames_of(wanted: float, each: int) -> int:
    """The number of frames nearest to this that latents of ``each`` frames can make: one more than a multiple."""
    return max(0, round((wanted - 1) / each)) * each + 1


def _size(params: FilmParams, settings: FilmSettings, model: str) -> tuple[int, int]:
    width, height = params.width or settings.size[0], params.height or settings.size[1]
    step = settings.row.multiple
    if width * height > settings.max_pixels:
        what = f"{width}×{height} pixels; {model} makes {settings.max_pixels:,} pixels a frame at most."
    elif width % step or height % step:
        what = f"{width}×{height} pixels; {model} needs multiples of {step}."
    else:
        return width, height
    scale = min(1.0, (settings.max_pixels / (width * height)) ** 0.5)
    near = [max(step, int(side * scale) // step * step) for side in (width, height)]
    raise BadRequest(what, f"Nearest: --width {near[0]} --height {near[1]}.")
