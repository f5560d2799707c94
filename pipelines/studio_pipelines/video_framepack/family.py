"""The FramePack family: films in sections. This module is light; torch is imported by ``load`` and ``generate``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from studio.film_plugin import FILM_MEDIA, frames_of, join, write_gif, write_webm
from studio.plugin import (
    BadRequest,
    Context,
    Event,
    Footprint,
    ModelSpec,
    NoSpace,
    Progress,
    TorchFamily,
)

from .again import About, beginning, lay_out, put_away
from .asked import asked, check_pictures, fps_of, pictured, without_words
from .catalogued import settings_of
from .footprint import footprint
from .kept import Kept
from .params import VideoParams
from .request import FilmRequest
from .space import check_space, no_space

if TYPE_CHECKING:
    import torch

    from .assemble import Assembled


class VideoFramepack(TorchFamily[VideoParams]):
    """Films from a picture and words, as long as one likes in constant memory; each section is kept when it is made."""

    task = "image->video"
    Params = VideoParams
    libraries = ("torch", "diffusers", "transformers", "av")

    def offers(self) -> Mapping[str, Sequence[Any]]:
        """The sizes that the model was made for, its own first."""
        settings = settings_of(self.spec)
        return {"width": tuple(dict.fromkeys((settings.size, *settings.buckets)))}

    def preflight(self, params: VideoParams) -> None:
        """The pictures open, there are as many prompts as sections, and there is room for the film on the disk."""
        settings = settings_of(self.spec)
        check_pictures(params)
        request = asked(params, settings, self.spec.id)
        beginning(params, request, self.cache, self.spec.id)
        if self.cache is not None:
            check_space(request, self.cache.parent)

    def footprint(self, params: VideoParams) -> Footprint:
        """Bytes and operations of encoding, denoising and decoding, section by section."""
        settings = settings_of(self.spec)
        return footprint(self.spec, self.files, asked(without_words(params), settings, self.spec.id))

    def assemble(self, settings: Mapping[str, Any], device: torch.device) -> Assembled:
        """Read the networks as planned."""
        from .assemble import assemble

        return assemble(self.files, settings_of(self.spec), settings, device, cache=self.cache)

    def generate(self, params: VideoParams, ctx: Context) -> Iterator[Event]:
        """Progress and a preview for each section, then the film. What an earlier attempt finished stays."""
        from studio.torch_plugin import live

        model = self.model
        settings = settings_of(self.spec)
        request = pictured(params, asked(params, settings, self.spec.id))
        kept = Kept(ctx.workdir, request.schedule, _identity(self.spec, params))
        ctx.keep()
        whole = 0
        if params.film is not None and kept.state() is None:
            stays = beginning(params, request, self.cache, self.spec.id)
            if stays is None:
                raise BadRequest("--film needs a home whose cache holds the film's sections.", "Leave it out.")
            whole = lay_out(stays, params.film, kept, request.schedule, fps_of(params, settings))
        notes: list[str] = []
        try:
            yield from live(self._work(params, request, kept, ctx, notes, whole))
        finally:
            model.settle()
        yield from self._joined(params, request, kept, ctx, notes)

    def _work(
        self, params: VideoParams, request: FilmRequest, kept: Kept, ctx: Context, notes: list[str], whole: int
    ) -> Callable[[Callable[[Event], None]], None]:
        """The sections as a function of where their events go; it runs in a thread of its own."""
        from .filming import film

        model, fps = self.model, fps_of(params, settings_of(self.spec))
        decode_s, denoise_s = self.planned_s("decode"), self.planned_s("denoise")
        decoding = decode_s / denoise_s if decode_s and denoise_s else 0.0

        def work(emit: Callable[[Event], None]) -> None:
            notes.extend(film(model, request, kept, fps, ctx, emit, whole, decoding))

        return work

    def _joined(
        self, params: VideoParams, request: FilmRequest, kept: Kept, ctx: Context, notes: list[str]
    ) -> Iterator[Event]:
        """The segments as one film, and what it takes to make a part of it again."""
        schedule, fps = request.schedule, fps_of(params, settings_of(self.spec))
        yield Progress(phase="join", done=0, total=1)
        path, segments = ctx.new_file(FILM_MEDIA[params.format]), kept.segments()
        try:
            if params.format == "mp4":
                made = join(segments, path, fps, params.sound)
                about = About(self.spec.id, request.width, request.height, schedule.sections, schedule.sampling)
                put_away(path, kept, about, self.cache)
            elif params.format == "webm":
                made = write_webm(path, frames_of(segments), fps, params.sound)
            else:
                made = write_gif(path, segments, schedule.frames, fps)
        except NoSpace as error:
            raise no_space(request, schedule.sections, ctx.workdir) from error
        yield Progress(phase="join", done=1, total=1)
        info: dict[str, Any] = {
            "width": request.width,
            "height": request.height,
            "frames": made.frames,
            "fps": fps,
            "seconds": round(made.frames / fps, 3),
            "sections": schedule.sections,
            "sampling": schedule.sampling,
            "seed": request.seed,
        }
        yield ctx.made(path, FILM_MEDIA[params.format], **info, **({"notes": notes} if notes else {}))


def _identity(spec: ModelSpec, params: VideoParams) -> str:
    """The request as one number: a state of another request, or of another release of the model, is passed over."""
    said = {"model": spec.id, "revision": spec.source.revision if spec.source else None}
    text = json.dumps({**said, "params": params.model_dump(mode="json")}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
