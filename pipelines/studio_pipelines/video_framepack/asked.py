"""Parameters to a ``FilmRequest``: what the model leaves open is filled in, what it cannot do is refused. No torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from studio.film_plugin import MAX_GIF_FRAMES
from studio.plugin import BadRequest, check_whole, read_upright, shown_size

from .catalogued import MULTIPLE, VideoSettings, size_for
from .params import VideoParams
from .request import FilmRequest
from .sections import Schedule


def fps_of(params: VideoParams, settings: VideoSettings) -> int:
    """Frames a second of the finished film."""
    return params.fps or round(settings.fps)


def schedule_of(params: VideoParams, settings: VideoSettings, model: str) -> Schedule:
    """The sections of the film. Raises ``BadRequest`` for one that is longer than the model makes."""
    if params.seconds > settings.max_seconds:
        raise BadRequest(
            f"seconds is {params.seconds:g}; {model} makes films of at most {settings.max_seconds:g} seconds.",
            "Ask for less.",
        )
    return Schedule.of(params.seconds, fps_of(params, settings), settings.sampling, window=settings.window)


def asked(params: VideoParams, settings: VideoSettings, model: str) -> FilmRequest:
    """The request without its pictures. Raises ``BadRequest`` for what this model cannot do."""
    schedule = schedule_of(params, settings, model)
    _check_guidance(params)
    _check_output(params, schedule)
    if params.last_image is not None and settings.sampling == "forward":
        raise BadRequest(
            f"{model} makes the beginning first, so it cannot be told the last picture.",
            "Leave out --last-image, or use a model that makes the end first, such as framepack-i2v-hy.",
        )
    steps = params.steps or settings.steps
    if steps > settings.max_steps:
        raise BadRequest(f"steps is {steps}; {model} takes at most {settings.max_steps}.", "Ask for fewer.")
    width, height = _size(params, settings, model)
    return FilmRequest(
        schedule,
        width,
        height,
        _prompts(params, schedule),
        seed=params.seed or 0,
        steps=steps,
        guidance_scale=settings.guidance if params.guidance_scale is None else params.guidance_scale,
        negative_prompt=params.negative_prompt,
        true_cfg_scale=params.true_cfg_scale,
        step_cache=params.step_cache,
        sampler=None if params.scheduler == "auto" else params.scheduler,
    )


def without_words(params: VideoParams) -> VideoParams:
    """The same for a plan, which may be made before anything is written: words do not change what a film takes."""
    negative = "-" if params.true_cfg_scale > 1 else ""
    left_out: dict[str, Any] = {"section_prompts": [], "film": None, "from_section": None}
    return params.model_copy(update={"prompt": "-", "negative_prompt": negative, **left_out})


def check_pictures(params: VideoParams) -> None:
    """Raises ``BadRequest`` for a picture that can only be read in part."""
    check_whole(params.image, "--image")
    check_whole(params.last_image, "--last-image")


def _prompts(params: VideoParams, schedule: Schedule) -> tuple[str, ...]:
    """One for each section in the order of the film."""
    count, given = schedule.sections, [prompt.strip() for prompt in params.section_prompts]
    if given and len(given) != count:
        raise BadRequest(
            f"There are {len(given)} section prompts, but a film of {params.seconds:g} s has "
            f"{count} section{'s' if count > 1 else ''}.",
            f"Give {count}, or one --prompt for the whole film.",
        )
    prompts = tuple(prompt or params.prompt.strip() for prompt in given or [""] * count)
    if not all(prompts):
        missing = prompts.index("") + 1
        what = f"Section {missing} has no prompt, and the film has none." if given else "There is no prompt."
        raise BadRequest(what, "Say what happens: --prompt TEXT")
    return prompts


def _check_guidance(params: VideoParams) -> None:
    if params.negative_prompt.strip() and params.true_cfg_scale <= 1:
        raise BadRequest(
            f"A negative prompt needs true guidance above 1; --true-cfg-scale is {params.true_cfg_scale:g}.",
            "Give --true-cfg-scale (twice the time), or leave out --negative-prompt.",
        )


def _check_output(params: VideoParams, schedule: Schedule) -> None:
    if params.format == "gif":
        if params.sound is not None:
            raise BadRequest("A GIF has no sound.", "Choose --format mp4 or webm, or leave out --sound.")
        if schedule.frames > MAX_GIF_FRAMES:
            raise BadRequest(
                f"The film has {schedule.frames} frames; a GIF has at most {MAX_GIF_FRAMES}.", "Choose --format mp4."
            )
    if (params.film is None) != (params.from_section is None):
        there, missing = ("film", "from_section") if params.from_section is None else ("from_section", "film")
        raise BadRequest(f"There is {there}, but no {missing}.", "Give both to make a part again, or neither.")


def _size(params: VideoParams, settings: VideoSettings, model: str) -> tuple[int, int]:
    """(width, height) as asked, else the model's own that is most like the picture."""
    if params.width is None and params.height is None:
        found = shown_size(params.image)
        return size_for(*found, settings) if found is not None else settings.size
    if params.width is None or params.height is None:
        raise BadRequest("Width and height belong together.", "Give both, or neither for a size like the picture's.")
    width, height = params.width, params.height
    if width % MULTIPLE or height % MULTIPLE:
        better = (max(32, round(side / MULTIPLE) * MULTIPLE) for side in (width, height))
        raise BadRequest(
            f"{width}×{height} pixels: both sides must be multiples of {MULTIPLE}.",
            "The nearest are --width {} --height {}.".format(*better),
        )
    most = max(wide * high for wide, high in settings.buckets or (settings.size,))
    if width * height > most:
        own = ", ".join(f"{wide}×{high}" for wide, high in settings.buckets or (settings.size,))
        raise BadRequest(f"{width}×{height} pixels are more than {model} makes well.", f"Its own sizes: {own}.")
    return width, height


def pictured(params: VideoParams, request: FilmRequest) -> FilmRequest:
    """The request with its pictures, upright and in RGB."""
    last = None if params.last_image is None else read_upright(params.last_image)
    return replace(request, image=read_upright(params.image), last_image=last)
