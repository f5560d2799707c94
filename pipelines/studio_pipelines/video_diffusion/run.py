"""One film over a loaded model: arguments for diffusers' pipeline, previews, and latents that are not lost.

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

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from studio.plugin import Context, Event, Note, Preview, Progress
from studio.torch_plugin import Previewer

from .assemble import Assembled
from .params import FilmParams
from .request import Request

Emit = Callable[[Event], None]
Frames = NDArray[np.uint8]  # (frames, height, width, rgb)
LATENTS = "latents.safetensors"


@dataclass
class Run:
    """One request at work: ``frames()`` does it. ``notes``: what had to be changed for want of memory."""

    model: Assembled
    params: FilmParams
    request: Request
    ctx: Context
    emit: Emit
    previewer: Previewer
    started: float = field(default_factory=time.perf_counter)
    notes: list[str] = field(default_factory=list)
    _last: torch.Tensor | None = None

    def frames(self) -> Frames:
        """The finished film."""
        kept = self.ctx.workdir / LATENTS
        self.ctx.keep()
        if (held := _read(kept)) is not None:
            self.emit(Progress(phase="decode", done=0, total=1))
            found = self._decode(held)
        else:
            found = self._made(kept)
        self._tell()
        kept.unlink(missing_ok=True)
        self.emit(Progress(phase="decode", done=1, total=1))
        return found

    @cached_property
    def pipeline(self) -> Any:
        return self.model.pipeline(self.request.task)

    def _made(self, kept: Path) -> Frames:
        """Run diffusers' pipeline, with the last call, the decoding, made safe."""
        arguments = self._arguments()
        vae: Any = self.model.networks["vae"]
        decode = vae.decode

        def safe(latents: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            _write(kept, latents, next((one for one in args if isinstance(one, torch.Tensor)), None))
            self.emit(Progress(phase="decode", done=0, total=1))
            self.ctx.check()
            return decode(latents, *args, **kwargs)

        vae.decode = safe
        try:
            self.emit(Progress(phase="encode", done=0, total=1))
            film = _in_bytes(self.pipeline(**arguments, output_type="np").frames[0])
        finally:
            vae.decode = decode
        if self._last is not None and (grid := self._middle(self._last)) is not None:
            self.previewer.learn(grid, Image.fromarray(film[len(film) // 2]))
        return film

    def _decode(self, held: dict[str, torch.Tensor]) -> Frames:
        """Only the decoding, of latents as they were kept."""
        vae: Any = self.model.networks["vae"]
        device = self.model.networks.device
        times = [held["timestep"].to(device)] if "timestep" in held else []
        with torch.no_grad():
            video = vae.decode(held["latents"].to(device), *times, return_dict=False)[0]
        return _in_bytes(self.pipeline.video_processor.postprocess_video(video, output_type="np")[0])

    def _arguments(self) -> dict[str, Any]:
        """What diffusers' pipeline is called with."""
        params, request, row = self.params, self.request, self.model.settings.row
        known: dict[str, Any] = {
            "prompt": params.prompt,
            "negative_prompt": params.negative_prompt or None,
            "width": request.width,
            "height": request.height,
            "num_frames": request.frames,
            "num_inference_steps": request.steps,
            "guidance_scale": request.guidance_scale,
            "max_sequence_length": request.max_sequence_length,
            "generator": torch.Generator("cpu").manual_seed(params.seed or 0),
            "callback_on_step_end": self._step,
            "callback_on_step_end_tensor_inputs": ["latents"],
        }
        if row.rate:
            known[row.rate] = request.fps
        if params.image is not None:
            with Image.open(params.image) as image:
                size = (request.width, request.height)
                known["image"] = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        taken = inspect.signature(self.pipeline.__call__).parameters
        return {name: value for name, value in known.items() if name in taken and value is not None}

    def _tell(self) -> None:
        """What the engine had to change, as it happens and for the film's record."""
        fresh = self.model.networks.notes[len(self.notes) :]
        self.notes.extend(fresh)
        for sentence in fresh:
            self.emit(Note(text=sentence))

    def _step(self, pipeline: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        """After each step: stop if somebody cancelled, say how far it is, and now and then show the middle frame."""
        self.ctx.check()
        self._tell()
        self._last = values.get("latents")
        done, total = step + 1, int(getattr(pipeline, "num_timesteps", 0) or self.request.steps)
        took = time.perf_counter() - self.started
        self.emit(Progress(phase="denoise", done=done, total=total, eta_s=took / done * (total - done)))
        every = self.params.preview_every
        if every and done % every == 0 and done < total and self._last is not None:
            grid, file = self._middle(self._last), self.ctx.workdir / f"preview-{done}.jpg"
            longest = max(self.request.width, self.request.height)
            if grid is not None and (path := self.previewer.save(grid, longest, file)) is not None:
                self.emit(Preview(path=str(path), media_type="image/jpeg"))
        return {}

    def _middle(self, latents: torch.Tensor) -> torch.Tensor | None:
        """The latents of the middle of the film, (C, h, w), on the processor."""
        row, request = self.model.settings.row, self.request
        count = (request.frames - 1) // row.frames + 1
        if row.packed:  # (1, tokens, C): frame by frame, row by row, as LTXPipeline._pack_latents with patches of one
            latents = latents.reshape(1, count, request.height // row.factor, request.width // row.factor, -1)
            latents = latents.permute(0, 4, 1, 2, 3)
        return latents[0, :, count // 2].float().cpu() if latents.ndim == 5 else None


def _in_bytes(film: NDArray[np.float32]) -> Frames:
    """(frames, height, width, rgb) in 0..1 to 8 bits, a frame at a time, as ``VaeImageProcessor.numpy_to_pil``."""
    found = np.empty(film.shape, np.uint8)
    for number, frame in enumerate(film):
        found[number] = (frame * 255).round().astype(np.uint8)
    return found


def _write(path: Path, latents: torch.Tensor, timestep: torch.Tensor | None) -> None:
    """Whole or not at all: a crash may come at any moment."""
    from safetensors.torch import save_file

    part = path.with_suffix(".part")
    held = {"latents": latents, **({"timestep": timestep} if timestep is not None else {})}
    save_file({name: value.detach().to("cpu").contiguous() for name, value in held.items()}, str(part))
    part.replace(path)


def _read(path: Path) -> dict[str, torch.Tensor] | None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(str(path))
    except (SafetensorError, OSError):
        return None
    return found if "latents" in found else None
