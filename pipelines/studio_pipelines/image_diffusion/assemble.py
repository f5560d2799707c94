"""From the files of a model to diffusers' pipelines over networks that the engine brings."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from studio.torch_plugin import Loaded, Networks, computing_dtype, pipeline_over, planned_tiles, read_components

from .catalogued import ImageSettings
from .classes import CLASSES, Task
from .lora_attach import Attached, send_home
from .processors import without_films
from .single_file import ROLE
from .single_file_weights import SingleFile

_UNUSED = ("safety_checker", "feature_extractor", "image_encoder")
"""What Stable Diffusion 1's index names beside the model, the first of no library at all: not needed for a picture."""


class Assembled(Loaded[ImageSettings]):
    """A loaded model: its networks under the engine, and a pipeline for each task, made when first asked for."""

    def __init__(self, settings: ImageSettings, networks: Networks, components: Mapping[str, Any]) -> None:
        super().__init__(settings, networks, components)
        self.row = CLASSES[settings.class_name]
        self.own_scheduler = components["scheduler"]
        self.attached = Attached()
        self._pipelines: dict[str, Any] = {}

    def pipeline(self, task: Task) -> Any:
        """diffusers' pipeline for this task, over the same networks."""
        name = getattr(self.row, task)
        if name not in self._pipelines:
            self._pipelines[name] = pipeline_over(name, self.components)
        found = self._pipelines[name]
        found.scheduler = self.components["scheduler"]
        return found

    def park(self) -> None:
        """Give the device back, the adapters' part of it as well."""
        send_home(self.networks)
        super().park()

    def close(self) -> None:
        self._pipelines.clear()
        super().close()


def assemble(
    files: Mapping[str, Path],
    settings: ImageSettings,
    plan: Mapping[str, Any],
    device: torch.device,
    *,
    cache: Path | None = None,
) -> Assembled:
    """Read a model as its plan says. Raises ``BadWeights`` for files that do not belong together."""
    single = SingleFile(files[ROLE]) if ROLE in files else None
    parts, components = read_components(
        files,
        lambda name: computing_dtype(name, plan, settings.fp32, device),
        unused=_UNUSED,
        single=None if single is None else lambda name: partial(single.weights_of, name),
        reader=without_films,
    )
    networks = Networks(parts, plan, device, tiles=planned_tiles(plan), cache=cache)
    return Assembled(settings, networks, {**components, **networks})
