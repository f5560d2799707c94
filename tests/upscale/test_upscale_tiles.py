"""Tiles: they cover the picture exactly, and nobody can tell from the result where it was cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from upscale_files import SMALL, Loaded, drawing, furthest, noise_db, saved, wave

from studio.plugin import Cancelled, Context, Progress, StudioError
from studio_pipelines.image_upscale.enlarge import _area, _reduced
from studio_pipelines.image_upscale.params import UpscaleParams
from studio_pipelines.image_upscale.tiles import Tile, grid

sides = st.integers(1, 300)


@settings(deadline=None)
@given(width=sides, height=sides, size=st.integers(1, 400))
def test_a_grid_covers_every_pixel_once(width: int, height: int, size: int) -> None:
    seen = np.zeros((height, width), int)
    for tile in grid(width, height, size):
        assert 1 <= tile.width <= size and 1 <= tile.height <= size
        seen[tile.top : tile.bottom, tile.left : tile.right] += 1
    assert (seen == 1).all()


@settings(deadline=None)
@given(width=sides, height=sides)
def test_a_tile_splits_into_what_it_was(width: int, height: int) -> None:
    parts = Tile(5, 7, 5 + width, 7 + height).split()
    assert sum(part.width * part.height for part in parts) == (width * height if width * height > 1 else 0)
    assert all(part.width < width or part.height < height for part in parts)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_starter_makes_the_same_in_tiles_of_any_size(
    starter: Callable[..., Loaded], tmp_path: Path, scale: int
) -> None:
    file = saved(Image.fromarray(wave(75, 50)), tmp_path / "in.png")
    whole = starter(128).make(file, scale)
    assert whole.size == (75 * scale, 50 * scale)
    assert np.asarray(whole).std() > 30
    assert furthest(starter(32).make(file, scale), whole) <= 1


@pytest.mark.parametrize("name", SMALL)
def test_both_networks_make_the_same_in_tiles(
    small_files: dict[str, dict[str, Path]], tmp_path: Path, name: str
) -> None:
    file = saved(Image.fromarray(wave(70, 45)), tmp_path / "in.png")
    whole, cut = (Loaded(small_files[name], SMALL[name], tmp_path, tile).make(file) for tile in (128, 24))
    assert furthest(whole, cut) <= 1
    assert np.asarray(whole).std() > 5


class ShortOfMemory:
    """Lets a network run out of memory for anything larger than ``most`` pixels, as a small card would."""

    def __init__(self, network: torch.nn.Module, most: int) -> None:
        self.most = most
        self.calls: list[int] = []
        network.register_forward_pre_hook(self)

    def __call__(self, _module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        pixels = args[0].shape[-2] * args[0].shape[-1]
        self.calls.append(pixels)
        if pixels > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def test_without_memory_that_tile_alone_becomes_smaller(
    small_files: dict[str, dict[str, Path]], tmp_path: Path
) -> None:
    # Overlap 3: the tile at the left has the margin of 10 beside it only as far as it reaches, 3 pixels.
    file = saved(Image.fromarray(wave(120, 40)), tmp_path / "in.png")
    loaded = Loaded(small_files["compact"], SMALL["compact"], tmp_path, 60)
    wanted = loaded.make(file)
    assert loaded.pipeline._enlarger.splits == 0
    room = ShortOfMemory(loaded.pipeline._enlarger._network, most=2500)
    events = loaded.events(file)
    assert [(event.done, event.total) for event in events[:-1] if isinstance(event, Progress)] == [(1, 2), (2, 2)]
    assert loaded.pipeline._enlarger.splits == 2 and len(room.calls) == 2 * (1 + 4)
    with Image.open(events[-1].path) as made:  # type: ignore[union-attr]
        assert furthest(made, wanted) <= 1
    room.most = 10
    with pytest.raises(StudioError, match="does not fit into the memory") as caught:
        loaded.events(file)
    assert caught.value.hint


def test_another_error_is_not_taken_for_a_lack_of_memory(
    small_files: dict[str, dict[str, Path]], tmp_path: Path
) -> None:
    loaded = Loaded(small_files["compact"], SMALL["compact"], tmp_path)

    def fail(*_: object) -> None:
        raise RuntimeError("shapes do not match")

    loaded.pipeline._enlarger._network.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        loaded.make(saved(drawing(16), tmp_path / "in.png"))


def test_cancelling_ends_it_between_tiles(small_files: dict[str, dict[str, Path]], tmp_path: Path) -> None:
    loaded = Loaded(small_files["compact"], SMALL["compact"], tmp_path, 32)
    file, seen = saved(Image.fromarray(wave(96, 64)), tmp_path / "in.png"), []
    ctx = Context(tmp_path, cancelled=lambda: len(seen) == 2)
    with pytest.raises(Cancelled):
        for event in loaded.pipeline.generate(_params(file), ctx):
            seen.append(event)
    assert [event.done for event in seen] == [1, 2] and seen[0].total == 6
    assert not list(tmp_path.glob("output-*"))


def _params(file: Path) -> Any:
    return UpscaleParams.model_validate({"image": file, "scale": 2})


@pytest.mark.parametrize("scale", [2, 3])
def test_smaller_scales_are_means_over_areas(scale: int) -> None:
    large = torch.rand(1, 3, 24, 36)
    assert torch.allclose(_area(scale, large).sum(dim=1), torch.ones(scale))
    found = _reduced(large, scale)
    assert found.shape == (1, 3, 24 // 4 * scale, 36 // 4 * scale)
    # Every pixel in ``scale`` parts and then means over 4 of them: the same areas, counted out.
    parts = large.repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3)
    assert torch.allclose(found, torch.nn.functional.avg_pool2d(parts, 4), atol=1e-6)
    assert torch.allclose(found.mean(), large.mean(), atol=1e-6)


def test_a_drawing_comes_out_clearer_than_by_interpolation(starter: Callable[..., Loaded], tmp_path: Path) -> None:
    truth = drawing(256)
    small = truth.resize((64, 64), Image.Resampling.BICUBIC)
    made = starter().make(saved(small, tmp_path / "small.png"))
    bicubic = small.resize((256, 256), Image.Resampling.BICUBIC)
    assert noise_db(made, truth) > noise_db(bicubic, truth) + 1
