"""A tiny image model under the engine, and the same request given to the bare diffusers pipeline."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import image_models
import numpy as np
from PIL import Image, ImageDraw

from studio.plugin import Artefact, Context, Event, ModelSpec, Plan
from studio_pipelines.image_diffusion.family import ImageDiffusion
from studio_pipelines.image_diffusion.params import ImageParams

PROMPT = "a red cat on the sea"
SEED = 11


@dataclass
class Made:
    """What one request gave: its events, and its pictures as (height, width, rgb) in 8 bits."""

    events: list[Event] = field(default_factory=list)

    @property
    def artefacts(self) -> list[Artefact]:
        return [event for event in self.events if isinstance(event, Artefact)]

    @property
    def pictures(self) -> list[np.ndarray]:
        return [np.asarray(Image.open(artefact.path)) for artefact in self.artefacts]


class Loaded:
    """A tiny model that the family has loaded with the settings of a plan."""

    def __init__(
        self, kind: str, folder: Path, workdir: Path, settings: Mapping[str, Any], adapters: Path | None = None
    ) -> None:
        self.kind, self.workdir = kind, workdir
        spec = ModelSpec.model_validate(image_models.catalogue_entry(kind, folder))
        files = {path.name: path for path in folder.iterdir() if path.is_dir()}
        self.pipeline = ImageDiffusion(spec, {**files, "config": folder / "model_index.json"})
        self.pipeline.adapters = adapters
        self.pipeline.load(Plan(model=spec.id, settings=dict(settings)))

    def make(self, **params: Any) -> Made:
        """The request of these parameters at the smallest size, checked as the engine would and made."""
        request = ImageParams(**{**request_of(self.kind), **params})
        self.pipeline.preflight(request)
        context = Context(Path(tempfile.mkdtemp(dir=self.workdir)))
        return Made(list(self.pipeline.generate(request, context)))


def request_of(kind: str) -> dict[str, Any]:
    """The parameters of the smallest picture of a kind. T5 pads to the whole length, so a short one is quicker."""
    call = image_models.MODELS[kind].call
    length = {name: value for name, value in call.items() if name == "max_sequence_length"}
    size = {"width": image_models.SIZE, "height": image_models.SIZE}
    return {"prompt": PROMPT, "seed": SEED, "preview_every": 0, **size, **length}


def bare(pipe: Any, kind: str, **more: Any) -> list[np.ndarray]:
    """The pictures that diffusers' own pipeline makes of the same request."""
    arguments = image_models.picture_arguments(kind, SEED, prompt=PROMPT, **more)
    taken = inspect.signature(pipe.__call__).parameters
    arguments = {name: value for name, value in arguments.items() if name in taken}
    return [np.asarray(image) for image in pipe(**{**arguments, "output_type": "pil"}).images]


def source_picture(path: Path, size: int = image_models.SIZE) -> Path:
    """A picture with something in it, as PNG."""
    rng = np.random.default_rng(3)
    image = Image.fromarray(rng.integers(60, 200, (size, size, 3), np.uint8))
    draw = ImageDraw.Draw(image)
    draw.ellipse((size // 4, size // 4, size * 3 // 4, size * 3 // 4), fill=(220, 30, 30))
    image.save(path)
    return path


def half_mask(path: Path, size: int = image_models.SIZE) -> Path:
    """White, where something new is made, on the right half."""
    mask = Image.new("L", (size, size), 0)
    mask.paste(255, (size // 2, 0, size, size))
    mask.save(path)
    return path
