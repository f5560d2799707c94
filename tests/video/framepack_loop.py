"""A tiny FramePack that is loaded, and films of it, for the tests of the loop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import framepack_models
import numpy as np
import torch
from PIL import Image

from studio.plugin import ModelSpec
from studio_pipelines.video_framepack.assemble import Assembled, assemble
from studio_pipelines.video_framepack.catalogued import settings_of
from studio_pipelines.video_framepack.request import FilmRequest
from studio_pipelines.video_framepack.sampling import Loop, Section, State
from studio_pipelines.video_framepack.sections import Sampling, Schedule

SIZE = framepack_models.SIZE
SEED, STEPS = 11, 2


def moving(folder: Path) -> Path:
    """A model whose every part tells in its films: random layers of these sizes hardly move anything by themselves."""
    pipe = framepack_models.framepack()
    with torch.no_grad():
        for parameter in pipe.transformer.parameters():
            parameter.mul_(2.0)
    pipe.save_pretrained(folder)
    return folder


def loaded(folder: Path, plan: Mapping[str, Any], **settings: Any) -> Assembled:
    entry = framepack_models.catalogue_entry(folder)
    entry["settings"] = {**entry["settings"], **settings}
    files = {path.name: path for path in folder.iterdir() if path.is_dir()}
    return assemble(files, settings_of(ModelSpec.model_validate(entry)), plan, torch.device("cpu"))


def picture(seed: int = 3, size: int = SIZE) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), np.uint8)
    return Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)


def asked(sampling: Sampling, sections: int, **more: Any) -> FilmRequest:
    values: dict[str, Any] = {
        "schedule": Schedule(sections, sampling), "width": SIZE, "height": SIZE, "prompts": ("a red cat",) * sections,
        "seed": SEED, "steps": STEPS, "guidance_scale": 10.0, "image": picture(),
    }  # fmt: skip
    return FilmRequest(**{**values, **more})


def film(loop: Loop, state: State | None = None) -> list[Section]:
    """All sections that are left."""
    state, made = state or loop.begin(), []
    while state.section < loop.request.schedule.sections:
        made.append(loop.section(state))
        state = made[-1].state
    return made


class Undecoded(Loop):
    """A loop whose latents alone are looked at: its frames are grey."""

    def _decoded(self, number: int, history: torch.Tensor) -> torch.Tensor:
        count = (self.request.schedule.decoded(number) - 1) * self.request.schedule.factor + 1
        return torch.zeros(1, 3, count, self.request.height, self.request.width)


def frames_of(made: list[Section], schedule: Schedule) -> np.ndarray:
    return np.concatenate([made[number].settled for number in schedule.in_time()])


def latents_of(made: list[Section], schedule: Schedule) -> torch.Tensor:
    """All latents of a film in time order, its first frame's in front."""
    start = made[0].state.tensors["start"]
    return torch.cat([start, *(made[number].latents for number in schedule.in_time())], dim=2)
