"""The starter upscaler with its own weights, and small networks with random ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from upscale_files import COMPACT, SMALL, Loaded, write_ncnn

from studio.download.lock import read_lock


@pytest.fixture(scope="session")
def starter_files() -> dict[str, Path]:
    """The starter's two files, which ``make test`` gets once for all tests."""
    models = Path(os.environ["STUDIO_TEST_MODELS"]).absolute()
    lock = read_lock(models / "locks" / "starter-upscale.json")
    if lock is None:
        pytest.fail(f"The starter upscaler is not in {models}: run make test, which gets it.", pytrace=False)
    return {role: Path(path) for role, path in lock.roles.items()}


@pytest.fixture(scope="session")
def small_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    """Both networks at depth 1 with random weights, in 16 bits."""
    folder = tmp_path_factory.mktemp("upscalers")
    return {name: write_ncnn(folder / name, architecture) for name, architecture in SMALL.items()}


@pytest.fixture
def starter(starter_files: dict[str, Path], tmp_path: Path) -> Iterator[Callable[..., Loaded]]:
    """``starter(tile)``: the starter upscaler, loaded."""
    loaded: list[Loaded] = []

    def load(tile: int = 512) -> Loaded:
        loaded.append(Loaded(starter_files, COMPACT, tmp_path, tile))
        return loaded[-1]

    yield load
    for one in loaded:
        one.pipeline.unload()
