"""The film family: diffusers' pipelines under the engine. This module is light; torch is imported by ``load``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from studio.film_plugin import FILM_MEDIA, join, write_gif, write_segment, write_webm
from studio.plugin import BadRequest, Context, Event, Footprint, Progress, TorchFamily, check_whole

from .catalogued import settings_of
from .footprint import footprint
from .params import FilmParams
from .request import Request, check

if TYPE_CHECKING:
    import torch

    from .assemble import Assembled


class VideoDiffusion(TorchFamily[FilmParams]):
    """Short films from words, and from a first picture where the model takes one."""

    task = "text->video"
    Params = FilmParams
    libraries = ("torch", "diffusers", "transformers", "av")

    def offers(self) -> Mapping[str, Sequence[Any]]:
        """The sizes that the model was made for, its own first."""
        settings = settings_of(self.spec)
        return {"width": tuple(dict.fromkeys((settings.size, *settings.buckets)))}

    def preflight(self, params: FilmParams) -> None:
        """Size, length and picture are such as this model can use."""
        request = check(params, settings_of(self.spec), self.spec.id)
        check_whole(params.image, "--image")
        if params.negative_prompt and not request.guided:
            raise BadRequest(
                f"A negative prompt needs guidance above 1; it is {request.guidance_scale:g}.",
                "Leave out --negative-prompt, or give --guidance-scale.",
            )

    def footprint(self, params: FilmParams) -> Footprint:
        """Bytes and operations of encoding, denoising and decoding at the asked size and length."""
        return footprint(self.spec, self.files, check(params, settings_of(self.spec), self.spec.id))

    def assemble(self, settings: Mapping[str, Any], device: torch.device) -> Assembled:
        """Read the networks as planned."""
        from .assemble import assemble

        return assemble(self.files, settings_of(self.spec), settings, device, cache=self.cache)

    def generate(self, params: FilmParams, ctx: Context) -> Iterator[Event]:
        """Progress and previews while it denoises, then the film."""
        from studio.torch_plugin import live

        model = self.model
        request = check(params, settings_of(self.spec), self.spec.id)
        made: list[Any] = []
        try:
            yield from live(self._work(params, request, ctx, made))
        finally:
            model.networks.settle()
        yield from self._saved(params, request, ctx, made[0])

    def _work(
        self, params: FilmParams, request: Request, ctx: Context, made: list[Any]
    ) -> Callable[[Callable[[Event], None]], None]:
        """The request as a function of where its events go; it runs in a thread of its own."""
        from studio.torch_plugin import Previewer

        from .run import Run

        model = self.model
        previewer = Previewer.of(self.spec.id, self.cache, self.files.get("config"))
        model.networks.notes.clear()

        def work(emit: Callable[[Event], None]) -> None:
            made.append(Run(model, params, request, ctx, emit, previewer).result())

        return work

    def _saved(self, params: FilmParams, request: Request, ctx: Context, frames: Any) -> Iterator[Event]:
        """The film as a file. MP4 and GIF are made of a segment, so that every family's films are alike."""
        yield Progress(phase="join", done=0, total=1)
        path = ctx.new_file(FILM_MEDIA[params.format])
        if params.format == "webm":
            written = write_webm(path, iter(frames), request.fps, params.sound)
        else:
            segment = write_segment(ctx.workdir / "film.mp4", iter(frames), request.fps)
            if params.format == "mp4":
                written = join([segment.path], path, request.fps, params.sound)
            else:
                written = write_gif(path, [segment.path], segment.frames, request.fps)
        yield Progress(phase="join", done=1, total=1)
        info: dict[str, Any] = {
            "width": request.width,
            "height": request.height,
            "frames": written.frames,
            "fps": request.fps,
            "seconds": round(written.frames / request.fps, 3),
            "seed": params.seed or 0,
        }
        notes = list(self.model.networks.notes)
        yield ctx.made(path, FILM_MEDIA[params.format], **info, **({"notes": notes} if notes else {}))
