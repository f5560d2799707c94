"""From the files of a film model to diffusers' pipelines over networks that the engine brings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from studio.torch_plugin import Loaded, Networks, computing_dtype, pipeline_over, planned_tiles, read_components

from .catalogued import FilmSettings
from .classes import Task


class Assembled(Loaded[FilmSettings]):
    """A loaded model; a pipeline is made for each film."""

    def pipeline(self, task: Task) -> Any:
        """diffusers' pipeline for this task over the same networks, with a scheduler that has not run yet."""
        own = self.components["scheduler"]
        fresh = type(own).from_config(own.config)
        return pipeline_over(getattr(self.settings.row, task), {**self.components, "scheduler": fresh})


def assemble(
    files: Mapping[str, Path],
    settings: FilmSettings,
    plan: Mapping[str, Any],
    device: torch.device,
    *,
    cache: Path | None = None,
) -> Assembled:
    """Read a model as its plan says. Raises ``BadWeights`` for files that do not belong together."""
    parts, components = read_components(files, lambda name: computing_dtype(name, plan, settings.fp32, device))
    networks = Networks(parts, plan, device, tiles=planned_tiles(plan), cache=cache)
    return Assembled(settings, networks, {**components, **networks})
