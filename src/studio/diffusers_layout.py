"""From a folder in diffusers' layout to parts for ``Networks``: what every family over diffusers needs. Imports torch.

``model_index.json`` names a class for each sub-folder. Networks are built empty from their configuration; only classes
of diffusers and transformers are made, by name, and nothing is ever fetched.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from studio.errors import BadWeights
from studio.memory.networks import Part
from studio.memory.slab_files import read_headers
from studio.memory.slabs import Source

LIBRARIES = ("diffusers", "transformers")

Build = Callable[[], nn.Module]
Weights = Callable[[Build], Source | None]
"""Where a network's weights lie if not in its folder, asked with how it is built; ``None``: in its folder."""


def read_index(path: Path | None) -> dict[str, Any]:
    """The content of ``model_index.json``. Raises ``BadWeights`` if there is none that can be read."""
    try:
        index = json.loads(path.read_text("utf-8")) if path is not None else None
    except (OSError, ValueError) as error:
        raise BadWeights("The model has no readable model_index.json.", "Pull it again.") from error
    if index is None:
        raise BadWeights("The model has no readable model_index.json.", "Pull it again.")
    if not isinstance(index, dict):
        raise BadWeights("model_index.json is not a table.", "Pull it again.")
    return index


def component_class(name: str, value: list[Any]) -> type[Any] | None:
    """The class that the index names for a component; ``None`` for one that the model does without.

    Raises ``BadWeights`` for anything but a class of diffusers or transformers.
    """
    if len(value) != 2 or not all(isinstance(word, str | None) for word in value):
        raise BadWeights(f"model_index.json: the entry of {name} is no [library, class].", "Pull it again.")
    library, kind = value
    if library is None or kind is None:
        return None
    if library not in LIBRARIES or not kind.isidentifier() or kind.startswith("_"):
        raise BadWeights(f"model_index.json asks for {library}.{kind}; only diffusers and transformers are used.")
    import importlib

    found = getattr(importlib.import_module(library), kind, None)
    if not isinstance(found, type):
        raise BadWeights(f"model_index.json asks for {library}.{kind}, which the installed {library} does not have.")
    return found


def read_components(
    files: Mapping[str, Path],
    dtype: Callable[[str], torch.dtype],
    *,
    unused: Collection[str] = (),
    single: Callable[[str], Weights] | None = None,
    reader: Callable[[type[Any]], type[Any]] = lambda kind: kind,
) -> tuple[list[Part], dict[str, Any]]:
    """What ``model_index.json`` names: networks as parts for ``Networks``, all the rest read from its folders.

    ``dtype`` says by its name what a network computes in. ``unused`` may be missing. ``single`` gives the weights of a
    network where they lie in one file for all; ``reader`` the class that reads the files of another one.
    Raises ``BadWeights`` for files that do not belong together.
    """
    parts, components = [], dict[str, Any]()
    for name, value in read_index(files.get("config")).items():
        if not isinstance(value, list):
            if not name.startswith("_"):
                components[name] = value  # an option of the pipeline
            continue
        kind = None if name in unused and name not in files else component_class(name, value)
        if kind is None:
            components[name] = None
        elif name not in files:
            raise BadWeights(f"model_index.json names {name}, which this model's entry has no files for.")
        elif issubclass(kind, nn.Module):
            weights = single(name) if single is not None else None
            parts.append(part_of(name, kind, files[name], dtype(name), weights=weights))
        else:
            components[name] = reader(kind).from_pretrained(str(files[name]), local_files_only=True)
    return parts, components


def pipeline_over(class_name: str, components: Mapping[str, Any]) -> Any:
    """diffusers' pipeline of that class over these components; what it wants and a model does not have is ``None``."""
    import diffusers

    kind = getattr(diffusers, class_name)
    wanted = inspect.signature(kind.__init__).parameters
    given = {name: value for name, value in components.items() if name in wanted}
    missing = {
        name: None
        for name, parameter in wanted.items()
        if name not in given and name != "self" and parameter.default is inspect.Parameter.empty
    }
    pipeline = kind(**given, **missing)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def part_of(name: str, kind: type[Any], folder: Path, dtype: torch.dtype, *, weights: Weights | None = None) -> Part:
    """One network of a folder: how to build it and where its weights are. A VAE's ``encode`` and ``decode`` are what
    pipelines call; of any other network it is ``forward``."""
    from diffusers import ModelMixin

    if issubclass(kind, ModelMixin):
        config = kind.load_config(str(folder), local_files_only=True)
        methods = ("encode", "decode") if hasattr(kind, "decode") else ("forward",)
        build = partial(kind.from_config, config)
        held = weights(build) if weights is not None else None
        return Part(name, build, folder if held is None else held, dtype, methods)
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    build = partial(kind._from_config, config, dtype=dtype)
    if weights is not None and (held := weights(build)) is not None:
        return Part(name, build, held, dtype)
    return Part(name, build, folder, dtype, names=partial(_names_in_file, held=tuple(read_headers(folder))))


def _names_in_file(module: nn.Module, held: tuple[str, ...]) -> Mapping[str, str]:
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
