"""The planner finds a network's blocks by the names in its files, the engine by its modules: they must be the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from streaming_models import MODELS
from torch import nn

from studio.memory.stream_blocks import find_blocks
from studio.shapes import SPLIT_ABOVE, Shapes, blocks_by_name, read_shape
from studio_pipelines import image_diffusion, video_diffusion

FOLDERS = [Path(str(package.__file__)).parent / "shapes" for package in (image_diffusion, video_diffusion)]
SHIPPED = {
    f"{folder.parent.name}/{name}": read_shape(folder, name) for folder in FOLDERS for name in Shapes(folder).names()
}
DENOISERS = {
    name: one for name, one in SHIPPED.items() if one.class_name.startswith("UNet") or "Transformer" in one.class_name
}


def assert_same(module: nn.Module, split_above: int) -> None:
    shapes = {name: tuple(one.shape) for name, one in module.named_parameters()}
    found = dict(blocks_by_name(shapes, split_above=split_above))
    assert list(found) == find_blocks(module, split_above=split_above)
    for name, inside in found.items():
        assert inside == [tuple(one.shape) for one in module.get_submodule(name).parameters()]


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("split_above", [SPLIT_ABOVE, 20_000, 1_000])
def test_tiny_networks(name: str, split_above: int) -> None:
    build: Callable[[], nn.Module] = MODELS[name][0]
    with torch.device("meta"):
        module = build()
    assert_same(module, split_above)


@pytest.mark.parametrize("name", sorted(DENOISERS))
@pytest.mark.filterwarnings("ignore:.FluxPosEmbed:FutureWarning")
def test_shipped_networks_at_full_size(name: str) -> None:
    """Built from the shape's configuration, without weights."""
    import diffusers

    shape = DENOISERS[name]
    with torch.device("meta"):
        module: nn.Module = getattr(diffusers, shape.class_name).from_config(shape.config)
    assert_same(module, SPLIT_ABOVE)
