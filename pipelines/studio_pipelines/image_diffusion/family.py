"""The image family: diffusers' pipelines under the engine. This module is light; torch is imported by ``load``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.plugin import BadRequest, Context, Event, Footprint, ModelSpec, Progress, TorchFamily, check_whole

from .catalogued import settings_of
from .classes import CLASSES
from .footprint import footprint
from .lora import adapter_bytes, adapters_of, check_adapters, names_in
from .params import ImageParams
from .prompts import check_prompts, prompts_of
from .request import check
from .single_file import check_single_file, entry_for
from .sizes import buckets
from .styles import names_of, styled

if TYPE_CHECKING:
    import torch

    from .assemble import Assembled

SAFETY_MODEL = "open-nsfw"


class ImageDiffusion(TorchFamily[ImageParams]):
    """Pictures from words, from pictures, and in parts of pictures."""

    task = "text->image"
    makes = ("image/png",)
    Params = ImageParams
    libraries = ("torch", "diffusers", "transformers")

    @classmethod
    def entry_for(cls, path: Path, known: Mapping[str, ModelSpec]) -> ModelSpec | None:
        """An entry for a checkpoint or a GGUF that is run by its path, over one of its architecture."""
        return entry_for(path, known)

    def offers(self) -> Mapping[str, Sequence[Any]]:
        """The shapes that the model is best at, styles, and the adapters in the user's folder."""
        settings = settings_of(self.spec)
        styles = names_of(self._folder("styles"), with_ours=settings.styles)
        return {"width": buckets(settings), "style": styles, "lora": names_in(self.adapters)}

    def preflight(self, params: ImageParams) -> None:
        """Steps, guidance, size, pictures and adapters are such as this model can use."""
        settings = settings_of(self.spec)
        check_whole(params.image, "--image")
        check_whole(params.mask_image, "--mask-image")
        check(params, settings, self.spec.id)
        check_single_file(self.files, settings.class_name, self.spec.id)
        denoiser = CLASSES[settings.class_name].denoiser
        clip = denoiser == "unet"  # the models whose text encoders are CLIP alone
        texts = styled(params, self._folder("styles"))
        check_prompts(texts, params, weights=clip, wildcards=self._folder("wildcards"), model=self.spec.id)
        check_adapters(params.lora, self.adapters, self.files, denoiser)
        if params.safety != "off" and self.beside(SAFETY_MODEL) is None:
            raise BadRequest(
                f"--safety {params.safety} needs the model {SAFETY_MODEL}, which is not on this machine.",
                f"Run: studio models pull {SAFETY_MODEL}",
            )

    def footprint(self, params: ImageParams) -> Footprint:
        """Bytes and operations of encoding, denoising and decoding at the asked size."""
        found = footprint(self.spec, self.files, params)
        extra = adapter_bytes(params.lora, self.adapters)  # adapters stay on the card
        stages = (stage.model_copy(update={"held_bytes": stage.held_bytes + extra}) for stage in found.stages)
        return found.model_copy(update={"stages": tuple(stages)}) if extra else found

    def assemble(self, settings: Mapping[str, Any], device: torch.device) -> Assembled:
        """Read the networks as planned."""
        from .assemble import assemble

        return assemble(self.files, settings_of(self.spec), settings, device, cache=self.cache)

    def generate(self, params: ImageParams, ctx: Context) -> Iterator[Event]:
        """Progress and previews while it denoises, then one PNG for each picture."""
        from studio.torch_plugin import live

        model = self.model
        made: list[Any] = []
        told: dict[str, Any] = {}
        try:
            yield from live(self._work(params, ctx, made, told))
            yield from self._saved(params, ctx, made, told)
        finally:
            model.networks.settle()

    def _work(
        self, params: ImageParams, ctx: Context, made: list[Any], told: dict[str, Any]
    ) -> Callable[[Callable[[Event], None]], None]:
        """The request as a function of where its events go; it runs in a thread of its own."""
        from studio.torch_plugin import Previewer

        from .request import ready
        from .run import Run

        settings, model = settings_of(self.spec), self.model
        request = ready(params, settings, self.spec.id)
        previewer = Previewer.of(self.spec.id, self.cache, self.files.get("config"))
        texts = styled(params, self._folder("styles"))
        prompts = prompts_of(*texts, params.seed or 0, params.num_images, self._folder("wildcards"))
        adapters = adapters_of(params.lora, self.adapters)

        model.networks.notes.clear()

        def work(emit: Callable[[Event], None]) -> None:
            run = Run(model, params, request, ctx, emit, previewer, prompts, adapters)
            made.extend(run.result())
            told.update(prompts=prompts[0], lora=run.lora)

        return work

    def _folder(self, name: str) -> Path | None:
        """A folder of the home, beside that of the adapters."""
        return self.adapters.with_name(name) if self.adapters is not None else None

    def _saved(self, params: ImageParams, ctx: Context, made: list[Any], told: dict[str, Any]) -> Iterator[Event]:
        notes, checked = list(self.model.networks.notes), self._checked(params)
        for number, picture in enumerate(made):
            path = ctx.new_file("image/png")
            image, found = checked(picture)
            image.save(path, compress_level=4)
            info: dict[str, Any] = {
                "width": image.width,
                "height": image.height,
                "seed": ((params.seed or 0) + number) % 2**32,
            }
            if told["prompts"][number] != params.prompt:
                info["prompt"] = told["prompts"][number]  # as it was drawn, in its styles
            info |= found
            if told["lora"]:
                info["lora"] = told["lora"]
            yield Progress(phase="save", done=number + 1, total=len(made))
            artefact = ctx.made(path, "image/png", **info, **({"notes": notes} if notes else {}))
            # Which adapters, by content: the name alone says little once the folder has changed.
            yield artefact.model_copy(update={"recipe": {"lora": told["lora"]}}) if told["lora"] else artefact

    def _checked(self, params: ImageParams) -> Callable[[Any], tuple[Any, dict[str, Any]]]:
        """What the safety check makes of a picture, and what it says of it."""
        files = self.beside(SAFETY_MODEL) if params.safety != "off" else None
        if params.safety == "off" or files is None:
            return lambda picture: (picture, {})
        from .safety import SafetyCheck, apply

        check, mode = SafetyCheck(files["model"]), params.safety

        def judged(picture: Any) -> tuple[Any, dict[str, Any]]:
            score = check.score(picture)
            return apply(picture, mode, score), {"safety_score": round(score, 3)}

        return judged
