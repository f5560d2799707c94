"""From the files of a film model to diffusers' pipelines over networks that the engine brings."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from studio.plugin import BadWeights
from studio.torch_plugin import Networks, component_class, part_of, read_index

from .catalogued import FilmSettings
from .classes import Task
from .footprint import tile_px


class Assembled:
    """A loaded model: its networks under the engine, and a pipeline for each task, made when first asked for."""

    def __init__(self, settings: FilmSettings, networks: Networks, components: dict[str, Any]) -> None:
        self.settings = settings
        self.networks = networks
        self.components = components
        self.own_scheduler = components["scheduler"]

    def pipeline(self, task: Task) -> Any:
        """diffusers' pipeline for this task over the same networks, with a scheduler that has not run yet."""
        import diffusers

        kind = getattr(diffusers, getattr(self.settings.row, task))
        fresh = type(self.own_scheduler).from_config(self.own_scheduler.config)
        wanted = inspect.signature(kind.__init__).parameters
        given = {name: value for name, value in self.components.items() if name in wanted}
        pipeline = kind(**{**given, "scheduler": fresh})
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def adapt(self, plan: Mapping[str, Any]) -> bool:
        """Follow another plan without reading weights again, if that is possible."""
        return self.networks.adapt(plan, _tiles(plan))

    def close(self) -> None:
        self.components.clear()
        self.networks.close()


def assemble(
    files: Mapping[str, Path],
    settings: FilmSettings,
    plan: Mapping[str, Any],
    device: torch.device,
    *,
    cache: Path | None = None,
) -> Assembled:
    """Read a model as its plan says. Raises ``BadWeights`` for files that do not belong together."""
    parts, components = [], dict[str, Any]()
    for name, value in read_index(files.get("config")).items():
        if not isinstance(value, list):
            if not name.startswith("_"):
                components[name] = value  # an option of the pipeline
            continue
        kind = component_class(name, value)
        if kind is None:
            components[name] = None
        elif name not in files:
            raise BadWeights(f"model_index.json names {name}, which this model's entry has no files for.")
        elif issubclass(kind, nn.Module):
            parts.append(part_of(name, kind, files[name], _dtype(name, settings, device)))
        else:
            components[name] = kind.from_pretrained(str(files[name]), local_files_only=True)
    networks = Networks(parts, plan, device, tiles=_tiles(plan), cache=cache)
    components.update(networks)
    return Assembled(settings, networks, components)


def _tiles(plan: Mapping[str, Any]) -> dict[str, int | None]:
    """The tiles that the plan's variants mean; the smallest, where reading and making frames differ."""
    sizes = [tile_px(str(variant)) for variant in plan.get("variants", {}).values()]
    return {"vae": min((size for size in sizes if size is not None), default=None)}


def _dtype(name: str, settings: FilmSettings, device: torch.device) -> torch.dtype:
    """16 bits on a card, except where the model wants 32; 32 on a processor, whose 16-bit arithmetic is slow."""
    if device.type != "cuda" or name in settings.fp32:
        return torch.float32
    return torch.bfloat16
