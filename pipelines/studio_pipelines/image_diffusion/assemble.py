"""From the files of a model to one of diffusers' pipelines whose networks the engine brings.

The layout is diffusers' own: ``model_index.json`` names a class for each sub-folder. Networks are built empty from
their configuration; tokenizers, processors and schedulers are read as they are. Only classes of diffusers and
transformers are made, by name, and nothing is ever fetched.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from studio.plugin import BadWeights
from studio.torch_plugin import Networks, component_class, part_of, read_index

from .catalogued import ImageSettings
from .classes import CLASSES, Task
from .footprint import tile_px
from .lora_attach import Attached
from .processors import without_films
from .single_file import ROLE
from .single_file_weights import SingleFile

_UNUSED = ("safety_checker", "feature_extractor", "image_encoder")
"""What Stable Diffusion 1's index names beside the model, the first of no library at all: not needed for a picture."""


class Assembled:
    """A loaded model: its networks under the engine, and a pipeline for each task, made when first asked for."""

    def __init__(self, settings: ImageSettings, networks: Networks, components: dict[str, Any]) -> None:
        self.settings = settings
        self.networks = networks
        self.components = components
        self.row = CLASSES[settings.class_name]
        self.own_scheduler = components["scheduler"]
        self.attached = Attached()
        self._pipelines: dict[str, Any] = {}

    def pipeline(self, task: Task) -> Any:
        """diffusers' pipeline for this task, over the same networks."""
        import diffusers

        name = getattr(self.row, task)
        if name not in self._pipelines:
            kind = getattr(diffusers, name)
            wanted = inspect.signature(kind.__init__).parameters
            given = {key: value for key, value in self.components.items() if key in wanted}
            missing = {
                key: None
                for key, parameter in wanted.items()
                if key not in given and key != "self" and parameter.default is inspect.Parameter.empty
            }
            pipeline = kind(**given, **missing)
            pipeline.set_progress_bar_config(disable=True)
            self._pipelines[name] = pipeline
        found = self._pipelines[name]
        found.scheduler = self.components["scheduler"]
        return found

    def adapt(self, plan: Mapping[str, Any]) -> bool:
        """Follow another plan without reading weights again, if that is possible."""
        return self.networks.adapt(plan, _tiles(plan))

    def close(self) -> None:
        self._pipelines.clear()
        self.components.clear()
        self.networks.close()


def assemble(
    files: Mapping[str, Path],
    settings: ImageSettings,
    plan: Mapping[str, Any],
    device: torch.device,
    *,
    cache: Path | None = None,
) -> Assembled:
    """Read a model as its plan says. Raises ``BadWeights`` for files that do not belong together."""
    index, single = read_index(files.get("config")), SingleFile(files[ROLE]) if ROLE in files else None
    parts, components = [], dict[str, Any]()
    for name, value in index.items():
        if not isinstance(value, list):
            if not name.startswith("_"):
                components[name] = value  # an option of the pipeline
            continue
        if name in _UNUSED and name not in files:
            components[name] = None
            continue
        kind = component_class(name, value)
        if kind is None:
            components[name] = None
        elif name not in files:
            raise BadWeights(f"model_index.json names {name}, which this model's entry has no files for.")
        elif issubclass(kind, nn.Module):
            weights = partial(single.weights_of, name) if single is not None else None
            parts.append(part_of(name, kind, files[name], _dtype(name, settings, device), weights=weights))
        else:
            components[name] = without_films(kind).from_pretrained(str(files[name]), local_files_only=True)
    networks = Networks(parts, plan, device, tiles=_tiles(plan), cache=cache)
    components.update(networks)
    return Assembled(settings, networks, components)


def _tiles(plan: Mapping[str, Any]) -> dict[str, int | None]:
    """The tiles that the plan's variants mean; the smallest, where reading and making a picture differ."""
    sizes = [tile_px(str(variant)) for variant in plan.get("variants", {}).values()]
    return {"vae": min((size for size in sizes if size is not None), default=None)}


def _dtype(name: str, settings: ImageSettings, device: torch.device) -> torch.dtype:
    """16 bits on a card, except where the model wants 32; 32 on a processor, whose 16-bit arithmetic is slow."""
    if device.type != "cuda" or name in settings.fp32:
        return torch.float32
    return torch.bfloat16
