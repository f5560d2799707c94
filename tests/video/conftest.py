"""A tiny FramePack, made once for all tests, and homes that know it in both orders of sections."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import framepack_models
import pytest
from PIL import Image, ImageDraw

from studio import Studio


@pytest.fixture(scope="session")
def tiny_framepack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny model."""
    return framepack_models.write(tmp_path_factory.mktemp("video-models") / "framepack")


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is measured of this machine and of the tiny model's activations: once for all homes."""
    cache = tmp_path_factory.mktemp("video-cache")
    for name in ("activations", "calibration"):
        (cache / name).mkdir()
    return cache


def make_home(home: Path, folder: Path, cache: Path) -> Path:
    """A home with the models ``tiny-forward`` and ``tiny-inverted``."""
    (home / "cache").mkdir(parents=True)
    for part in cache.iterdir():
        (home / "cache" / part.name).symlink_to(part, target_is_directory=True)
    framepack_models.write_models(home, folder)
    return home


@pytest.fixture
def film_home(home: Path, tiny_framepack: Path, shared_cache: Path) -> Path:
    """A home of its own, which commands of the test use as well."""
    return make_home(home, tiny_framepack, shared_cache)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory, tiny_framepack: Path, shared_cache: Path) -> Iterator[Studio]:
    """The engine in this process, with a home for all tests of a module: the model is loaded once."""
    with Studio(make_home(tmp_path_factory.mktemp("films") / "home", tiny_framepack, shared_cache), "inline") as studio:
        yield studio


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A red disc on paper."""
    image = Image.new("RGB", (64, 64), (240, 230, 200))
    ImageDraw.Draw(image).ellipse((12, 20, 36, 44), fill=(220, 30, 40))
    image.save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small gain nothing from threads, and threads that wait for a busy core cost seconds."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
