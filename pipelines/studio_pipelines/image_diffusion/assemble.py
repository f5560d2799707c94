"""From the files of a model to one of diffusers' pipelines whose networks the engine brings.

The layout is diffusers' own: ``model_index.json`` names a class for each sub-folder. Networks are built empty from
their configuration; tokenizers, processors and schedulers are read as they are. Only classes of diffusers and
transformers are made, by name, and nothing is ever fetched.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from studio.plugin import BadWeights
from studio.torch_plugin import Networks, Part, read_headers

from .catalogued import ImageSettings
from .classes import CLASSES, Task
from .footprint import tile_px
from .lora_attach import Attached
from .processors import without_films
from .single_file import ROLE
from .single_file_weights import SingleFile

_LIBRARIES = ("diffusers", "transformers")


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
    index, single = _index(files), SingleFile(files[ROLE]) if ROLE in files else None
    parts, components = [], dict[str, Any]()
    for name, value in index.items():
        if not isinstance(value, list):
            if not name.startswith("_"):
                components[name] = value  # an option of the pipeline
            continue
        kind = _kind(name, value)
        if kind is None or name == "safety_checker":
            components[name] = None
        elif name not in files:
            raise BadWeights(f"model_index.json names {name}, which this model's entry has no files for.")
        elif issubclass(kind, nn.Module):
            parts.append(_part(name, kind, files[name], _dtype(name, settings, device), single))
        else:
            components[name] = without_films(kind).from_pretrained(str(files[name]), local_files_only=True)
    networks = Networks(parts, plan, device, tiles=_tiles(plan), cache=cache)
    components.update(networks)
    return Assembled(settings, networks, components)


def _tiles(plan: Mapping[str, Any]) -> dict[str, int | None]:
    """The tiles that the plan's variants mean; the smallest, where reading and making a picture differ."""
    sizes = [tile_px(str(variant)) for variant in plan.get("variants", {}).values()]
    return {"vae": min((size for size in sizes if size is not None), default=None)}


def _index(files: Mapping[str, Path]) -> dict[str, Any]:
    try:
        index = json.loads(files["config"].read_text("utf-8"))
    except (KeyError, OSError, ValueError) as error:
        raise BadWeights("The model has no readable model_index.json.", "Pull it again.") from error
    if not isinstance(index, dict):
        raise BadWeights("model_index.json is not a table.", "Pull it again.")
    return index


def _kind(name: str, value: list[Any]) -> type[Any] | None:
    """The class that the index names; ``None`` for a component that the model does without."""
    if len(value) != 2 or not all(isinstance(word, str | None) for word in value):
        raise BadWeights(f"model_index.json: the entry of {name} is no [library, class].", "Pull it again.")
    library, kind = value
    if library is None or kind is None:
        return None
    if library not in _LIBRARIES or not kind.isidentifier() or kind.startswith("_"):
        raise BadWeights(f"model_index.json asks for {library}.{kind}; only diffusers and transformers are used.")
    import importlib

    found = getattr(importlib.import_module(library), kind, None)
    if not isinstance(found, type):
        raise BadWeights(f"model_index.json asks for {library}.{kind}, which the installed {library} does not have.")
    return found


def _dtype(name: str, settings: ImageSettings, device: torch.device) -> torch.dtype:
    """16 bits on a card, except where the model wants 32; 32 on a processor, whose 16-bit arithmetic is slow."""
    if device.type != "cuda" or name in settings.fp32:
        return torch.float32
    return torch.bfloat16


def _part(name: str, kind: type[Any], folder: Path, dtype: torch.dtype, single: SingleFile | None) -> Part:
    from diffusers import ModelMixin

    if issubclass(kind, ModelMixin):
        config = kind.load_config(str(folder), local_files_only=True)
        methods = ("encode", "decode") if hasattr(kind, "decode") else ("forward",)
        build = partial(kind.from_config, config)
        held = single.weights_of(name, build) if single is not None else None
        return Part(name, build, folder if held is None else held, dtype, methods)
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    build = partial(kind._from_config, config, dtype=dtype)
    if single is not None and (held := single.weights_of(name, build)) is not None:
        return Part(name, build, held, dtype)
    return Part(name, build, folder, dtype, names=partial(_names_in_file, held=tuple(read_headers(folder))))


def _names_in_file(module: nn.Module, held: tuple[str, ...]) -> dict[str, str]:
    """The file's name of each parameter, where another version of transformers wrote it under another one."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    model: Any = module
    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    state = model.state_dict()
    pairs = ((rename_source_key(key, renamings, converters, model.base_model_prefix, state)[0], key) for key in held)
    return {name: key for name, key in pairs if name != key}
