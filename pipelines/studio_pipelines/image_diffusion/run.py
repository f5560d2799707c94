"""One request over a loaded model: arguments for diffusers' pipeline, and pictures from what it decodes."""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image, ImageFilter

from studio.torch_plugin import DiffusersRun

from .assemble import Assembled
from .classes import DIFFUSION_SCHEDULERS, FLOW_SCHEDULERS
from .lora import Adapter
from .lora_attach import attach
from .params import ImageParams
from .preview import unpacked
from .prompt_cut import cut_notes
from .prompts import weighted
from .request import Request

Pictures = list[Image.Image]


@dataclass
class Run(DiffusersRun[Pictures]):
    """One request at work: ``result()`` is the finished pictures, in the order of their seeds."""

    model: Assembled
    params: ImageParams
    request: Request
    prompts: tuple[list[str], list[str]]
    adapters: list[Adapter]
    lora: list[dict[str, Any]] = field(default_factory=list, kw_only=True)

    def result(self) -> Pictures:
        """With the adapters attached; what a mask keeps of the given picture is put back."""
        self.lora = attach(self.pipeline, self.model.attached, self.adapters, self.model.networks.on_device)
        return [self._composed(image) for image in super().result()]

    def made(self) -> Pictures:
        """Run diffusers' pipeline."""
        self._schedule()
        arguments = self._arguments()
        with self.decoding_kept():
            images: Pictures = self.pipeline(**self._read(arguments), output_type="pil").images
        self.learn(images[0])
        return images

    def decoded(self, held: Mapping[str, torch.Tensor]) -> Pictures:
        """Only the decoding, of latents as they were kept."""
        latents = held["latents"].to(self.model.networks.device)
        with torch.no_grad():
            vae: Any = self.model.networks["vae"]
            samples = vae.decode(latents, return_dict=False)[0]
        samples = samples[:, :, 0] if samples.ndim == 5 else samples  # (batch, rgb, frame, height, width)
        images: Pictures = self.pipeline.image_processor.postprocess(samples, output_type="pil")
        return images

    def carried(self) -> Hashable:
        """The adapters, some of which change text encoders."""
        return tuple((one["sha256"], one["weight"]) for one in self.lora)

    def grid(self, latents: torch.Tensor) -> torch.Tensor | None:
        """The first picture's latents, (C, h, w)."""
        return unpacked(latents, self.request)

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
            "callback_on_step_end": self.on_step,
            "callback_on_step_end_tensor_inputs": ["latents"],
        }
        if params.num_images == 1:
            known["generator"] = known["generator"][0]
        if request.guidance_scale is not None and row.guidance:
            known[row.guidance] = request.guidance_scale
        if row.negative and (any(negatives) or row.guidance == "true_cfg_scale"):
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
        cut = cut_notes(self.pipeline, read, request.max_sequence_length)
        self.usual.update(cut)
        self.model.networks.notes.extend(cut)
        given = {name: value for name, value in known.items() if name in taken and value is not None}
        if "intermediate_timesteps" in taken and request.steps != 2:
            given["intermediate_timesteps"] = None  # its default is for two steps and refused for others
        return given

    def _read(self, given: dict[str, Any]) -> dict[str, Any]:
        """Prompts with weights, and those longer than CLIP reads in one go, as embeddings; each is read once."""
        if getattr(self.pipeline, "unet", None) is None:
            return given
        words = [given["prompt"], given.get("negative_prompt")]
        asked = tuple(tuple(one) if isinstance(one, list) else one for one in words)
        key = (type(self.pipeline).__name__, self.carried(), asked, self.params.prompt_weighting)
        found = self.model.remembered.get(key, self.model.networks.device)
        self.words_known = found is not None
        if found is None:
            read = weighted(self.pipeline, given, weights=self.params.prompt_weighting)
            found = {name: value for name, value in read.items() if name.endswith("_embeds") and value is not None}
            if not found:
                return read  # plain words: the pipeline's own method reads them
            self.model.remembered.keep(key, found)
        rest = {name: value for name, value in given.items() if name not in ("prompt", "negative_prompt")}
        return {**rest, **found}
