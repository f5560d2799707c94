"""The tiny models, saved once for all tests: ``tiny["framepack"]`` in one file, ``sharded["framepack"]`` in several."""

from __future__ import annotations

import os
from collections.abc import Iterator

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from streaming_models import KINDS, WIDE, Tiny, save


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models gain nothing from more, and threads that wait for each other make a busy machine ten times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tiny]:
    folder = tmp_path_factory.mktemp("tiny")
    return {name: save(name, folder / name) for name in KINDS}


@pytest.fixture(scope="session")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tiny]:
    folder = tmp_path_factory.mktemp("sharded")
    return {name: save(name, folder / name, "200KB") for name in KINDS}


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tiny]:
    folder = tmp_path_factory.mktemp("wide")
    return {name: save(name, folder / name, "500KB", wide=True) for name in WIDE}
