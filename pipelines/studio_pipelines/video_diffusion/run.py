"""One film over a loaded model: arguments for diffusers' pipeline, and frames from what it decodes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from studio.plugin import read_upright
from studio.torch_plugin import DiffusersRun

from .assemble import Assembled
from .params import FilmParams
from .request import Request

Frames = NDArray[np.uint8]  # (frames, height, width, rgb)


@dataclass
class Run(DiffusersRun[Frames]):
    """One request at work: ``result()`` is the finished film."""

    model: Assembled
    params: FilmParams
    request: Request

    def made(self) -> Frames:
        """Run diffusers' pipeline; the middle of the film is what previews learn from."""
        self.ctx.keep()
        arguments = self._arguments()
        with self.decoding_kept():
            film = _in_bytes(self.pipeline(**arguments, output_type="np").frames[0])
        self.learn(Image.fromarray(film[len(film) // 2]))
        return film

    def decoded(self, held: Mapping[str, torch.Tensor]) -> Frames:
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
            "callback_on_step_end": self.on_step,
            "callback_on_step_end_tensor_inputs": ["latents"],
        }
        if row.rate:
            known[row.rate] = request.fps
        if params.image is not None:
            size = (request.width, request.height)
            known["image"] = read_upright(params.image).resize(size, Image.Resampling.LANCZOS)
        taken = inspect.signature(self.pipeline.__call__).parameters
        return {name: value for name, value in known.items() if name in taken and value is not None}

    def grid(self, latents: torch.Tensor) -> torch.Tensor | None:
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
