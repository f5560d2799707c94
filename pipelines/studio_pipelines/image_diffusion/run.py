"""One request over a loaded model: arguments for diffusers' pipeline, previews, and pictures that are not lost.

The latents are written to the job's folder before they are decoded: an attempt that follows a crash only decodes.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageFilter

from studio.plugin import Context, Event, Note, Preview, Progress
from studio.torch_plugin import Previewer

from .assemble import Assembled
from .classes import DIFFUSION_SCHEDULERS, FLOW_SCHEDULERS
from .lora import Adapter
from .lora_attach import attach
from .params import ImageParams
from .preview import unpacked
from .prompt_cut import cut_notes
from .prompts import weighted
from .request import Request

Emit = Callable[[Event], None]
LATENTS = "latents.safetensors"


@dataclass
class Run:
    """One request at work: ``pictures()`` does it. ``notes``: what had to be changed for want of memory."""

    model: Assembled
    params: ImageParams
    request: Request
    ctx: Context
    emit: Emit
    previewer: Previewer
    prompts: tuple[list[str], list[str]]
    adapters: list[Adapter]
    lora: list[dict[str, Any]] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)
    notes: list[str] = field(default_factory=list)
    _last: torch.Tensor | None = None

    def pictures(self) -> list[Image.Image]:
        """The finished pictures, in the order of their seeds."""
        self.lora = attach(self.pipeline, self.model.attached, self.adapters, self.model.networks.on_device)
        kept = self.ctx.workdir / LATENTS
        if kept.exists() and (latents := _read(kept)) is not None:
            self.emit(Progress(phase="decode", done=0, total=1))
            found = self._decode(latents)
        else:
            found = self._made(kept)
        self._tell()
        kept.unlink(missing_ok=True)
        self.emit(Progress(phase="decode", done=1, total=1))
        return [self._composed(image) for image in found]

    @cached_property
    def pipeline(self) -> Any:
        return self.model.pipeline(self.request.task)

    def _made(self, kept: Path) -> list[Image.Image]:
        """Run diffusers' pipeline, with the last call, the decoding, made safe."""
        self._schedule()
        arguments = self._arguments()
        vae: Any = self.model.networks["vae"]
        decode = vae.decode

        def safe(latents: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            _write(kept, latents)
            self.emit(Progress(phase="decode", done=0, total=1))
            self.ctx.check()
            return decode(latents, *args, **kwargs)

        vae.decode = safe
        try:
            self.emit(Progress(phase="encode", done=0, total=1))
            images: list[Image.Image] = self.pipeline(**arguments, output_type="pil").images
        finally:
            vae.decode = decode
        if self._last is not None and (grid := unpacked(self._last, self.request)) is not None:
            self.previewer.learn(grid, images[0])
        return images

    def _decode(self, latents: torch.Tensor) -> list[Image.Image]:
        """Only the decoding, of latents as they were kept."""
        latents = latents.to(self.model.networks.device)
        with torch.no_grad():
            vae: Any = self.model.networks["vae"]
            samples = vae.decode(latents, return_dict=False)[0]
        samples = samples[:, :, 0] if samples.ndim == 5 else samples  # (batch, rgb, frame, height, width)
        images: list[Image.Image] = self.pipeline.image_processor.postprocess(samples, output_type="pil")
        return images

    def _composed(self, image: Image.Image) -> Image.Image:
        """Where the mask is black, the given picture's own pixels; the seam is blended over a few pixels."""
        request = self.request
        if request.mask is None or request.source is None:
            return image
        soft = request.mask.filter(ImageFilter.BoxBlur(max(1, min(image.size) // 128)))
        size = image.size
        return Image.composite(image, request.source.convert("RGB").resize(size), soft.resize(size))

    def _schedule(self) -> None:
        """The scheduler that was asked for, over the model's own configuration."""
        import diffusers

        own = self.model.own_scheduler
        table = FLOW_SCHEDULERS if self.model.row.flow else DIFFUSION_SCHEDULERS
        if self.params.scheduler == "auto":
            scheduler = type(own).from_config(own.config)
        else:
            name, options = table[self.params.scheduler]
            scheduler = getattr(diffusers, name).from_config(own.config, **options)
        self.model.components["scheduler"] = self.pipeline.scheduler = scheduler

    def _arguments(self) -> dict[str, Any]:
        """What diffusers' pipeline is called with: of all that we know, what its class takes."""
        params, request, row = self.params, self.request, self.model.row
        seed = params.seed or 0
        prompts, negatives = self.prompts
        same = len(set(zip(prompts, negatives, strict=True))) == 1
        taken = inspect.signature(self.pipeline.__call__).parameters
        known: dict[str, Any] = {
            "prompt": prompts[0] if same else prompts,
            "num_images_per_prompt": params.num_images if same else 1,
            "generator": [torch.Generator("cpu").manual_seed((seed + n) % 2**32) for n in range(params.num_images)],
            "num_inference_steps": request.steps,
            "width": request.width,
            "height": request.height,
            "callback_on_step_end": self._step,
            "callback_on_step_end_tensor_inputs": ["latents"],
        }
        if params.num_images == 1:
            known["generator"] = known["generator"][0]
        if request.guidance_scale is not None and row.guidance:
            known[row.guidance] = request.guidance_scale
        if row.negative and (params.negative_prompt or row.guidance == "true_cfg_scale"):
            known["negative_prompt"] = (negatives[0] or " ") if same else negatives
        if request.max_sequence_length:
            known["max_sequence_length"] = request.max_sequence_length
        if request.source is not None:
            known["image"] = request.source
            known["strength"] = params.strength
            known["mask_image"] = request.mask
        if not self.model.settings.binning:
            known["use_resolution_binning"] = False
        if request.task == "edit":
            known.pop("strength", None)
        read = [*prompts, *(negatives if "negative_prompt" in known else ())]
        self.model.networks.notes.extend(cut_notes(self.pipeline, read, request.max_sequence_length))
        known = weighted(self.pipeline, known, weights=params.prompt_weighting)
        given = {name: value for name, value in known.items() if name in taken and value is not None}
        if "intermediate_timesteps" in taken and request.steps != 2:
            given["intermediate_timesteps"] = None  # its default is for two steps and refused for others
        return given

    def _tell(self) -> None:
        """What the engine had to change, as it happens and for the picture's record."""
        fresh = self.model.networks.notes[len(self.notes) :]
        self.notes.extend(fresh)
        for sentence in fresh:
            self.emit(Note(text=sentence))

    def _step(self, pipeline: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        """After each step: stop if somebody cancelled, say how far it is, and now and then show a preview."""
        self.ctx.check()
        self._tell()
        self._last = values.get("latents")
        done, total = step + 1, int(getattr(pipeline, "num_timesteps", 0) or self.request.steps)
        took = time.perf_counter() - self.started
        self.emit(Progress(phase="denoise", done=done, total=total, eta_s=took / done * (total - done)))
        every = self.params.preview_every
        if every and done % every == 0 and done < total and "latents" in values:
            self._show(values["latents"], done)
        return {}

    def _show(self, latents: torch.Tensor, done: int) -> None:
        """The unfinished picture after ``done`` steps, once the model's factors are known."""
        grid, file = unpacked(latents, self.request), self.ctx.workdir / f"preview-{done}.jpg"
        longest = max(self.request.width, self.request.height)
        if grid is not None and (path := self.previewer.save(grid, longest, file)) is not None:
            self.emit(Preview(path=str(path), media_type="image/jpeg"))


def _write(path: Path, latents: torch.Tensor) -> None:
    """Whole or not at all: a crash may come at any moment."""
    from safetensors.torch import save_file

    part = path.with_suffix(".part")
    save_file({"latents": latents.detach().to("cpu").contiguous()}, str(part))
    part.replace(path)


def _read(path: Path) -> torch.Tensor | None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(str(path))["latents"]
    except (SafetensorError, OSError, KeyError):
        return None
