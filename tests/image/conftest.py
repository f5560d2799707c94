"""Tiny models of the image family, each made once for all tests."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import image_models
import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """diffusers' own Chroma uses a name that diffusers calls deprecated."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore:.FluxPosEmbed. is deprecated:FutureWarning"))


@pytest.fixture(scope="session")
def tiny_image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """The folder of the tiny model of a kind: ``tiny_image("sdxl")``."""
    made: dict[str, Path] = {}
    patch = pytest.MonkeyPatch()

    def folder(kind: str) -> Path:
        if kind == "qwen-image-edit":  # it encodes a megapixel, however small the picture: seconds on a processor
            patch.setattr("diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus.VAE_IMAGE_SIZE", 128 * 128)
        if kind not in made:
            made[kind] = image_models.write(kind, tmp_path_factory.mktemp("image-models") / kind)
        return made[kind]

    yield folder
    patch.undo()


@pytest.fixture(autouse=True)
def quick_collections() -> None:
    """A model that is unloaded has Python look through all objects; those of the libraries, which live for ever, take
    most of a second each time. They are set aside."""
    gc.freeze()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small gain nothing from threads, and threads that wait for a busy core cost seconds."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
