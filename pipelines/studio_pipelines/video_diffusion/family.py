"""The film family: diffusers' pipelines under the engine. This module is light; torch is imported by ``load``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from studio.film_plugin import join, write_gif, write_segment, write_webm
from studio.plugin import BadRequest, Context, Event, Footprint, Pipeline, Plan, Progress, StudioError

from .catalogued import settings_of
from .footprint import footprint
from .params import FilmParams
from .request import Request, check, check_picture

MEDIA = {"mp4": "video/mp4", "webm": "video/webm", "gif": "image/gif"}


class VideoDiffusion(Pipeline[FilmParams]):
    """Short films from words, and from a first picture where the model takes one."""

    task = "text->video"
    Params = FilmParams
    libraries = ("torch", "diffusers", "transformers", "av")

    _model: Any = None

    def offers(self) -> Mapping[str, Sequence[Any]]:
        """The sizes that the model was made for, its own first."""
        settings = settings_of(self.spec)
        return {"width": tuple(dict.fromkeys((settings.size, *settings.buckets)))}

    def preflight(self, params: FilmParams) -> None:
        """Size, length and picture are such as this model can use."""
        request = check(params, settings_of(self.spec), self.spec.id)
        check_picture(params.image)
        if params.negative_prompt and not request.guided:
            raise BadRequest(
                f"A negative prompt needs guidance above 1; it is {request.guidance_scale:g}.",
                "Leave out --negative-prompt, or give --guidance-scale.",
            )

    def footprint(self, params: FilmParams) -> Footprint:
        """Bytes and operations of encoding, denoising and decoding at the asked size and length."""
        return footprint(self.spec, self.files, check(params, settings_of(self.spec), self.spec.id))

    def load(self, plan: Plan) -> None:
        """Read the networks as planned; nothing is on the card before it is called."""
        import torch

        from .assemble import assemble

        self.unload()
        device = torch.device(plan.device)
        self._model = assemble(self.files, settings_of(self.spec), plan.settings, device, cache=self.cache)

    def generate(self, params: FilmParams, ctx: Context) -> Iterator[Event]:
        """Progress and previews while it denoises, then the film."""
        from studio.torch_plugin import live

        model = self._model
        if model is None:
            raise StudioError(f"{self.spec.id} is not loaded.", "Call load() first.")
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

        model = self._model
        kept = self.cache / "preview" / f"{self.spec.id}.json" if self.cache else None
        config = self.files.get("config")
        previewer = Previewer(kept, config.with_name("preview.json") if config is not None else None)
        model.networks.notes.clear()

        def work(emit: Callable[[Event], None]) -> None:
            made.append(Run(model, params, request, ctx, emit, previewer).frames())

        return work

    def _saved(self, params: FilmParams, request: Request, ctx: Context, frames: Any) -> Iterator[Event]:
        """The film as a file. MP4 and GIF are made of a segment, so that every family's films are alike."""
        yield Progress(phase="join", done=0, total=1)
        path = ctx.new_file(MEDIA[params.format])
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
        notes = list(self._model.networks.notes)
        yield ctx.made(path, MEDIA[params.format], **info, **({"notes": notes} if notes else {}))

    def adapt(self, plan: Plan) -> bool:
        """Other sizes need other numbers of resident blocks, or tiles: the weights stay where they are."""
        return self._model is not None and bool(self._model.adapt(plan.settings))

    def park(self) -> bool:
        """Give the card back; the weights stay in memory."""
        if self._model is None:
            return False
        self._model.networks.release()
        return True

    def unload(self) -> None:
        """Free all networks."""
        model, self._model = self._model, None
        if model is not None:
            model.close()
