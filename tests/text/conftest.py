"""Models for the tests of the text family: tiny ones made here, and the starter where it is installed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import text_models
from text_harness import Loaded


@pytest.fixture(scope="session")
def starter_gguf() -> Path:
    """The starter's file, in the folder that STUDIO_TEST_MODELS names."""
    folder = os.environ.get("STUDIO_TEST_MODELS", "")
    found = sorted(Path(folder, "starter-text").rglob("*.gguf")) if folder else []
    if not found:
        pytest.fail(f"The starter model is not in {folder!r}: run make test, which gets it.", pytrace=False)
    return found[0]


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Callable[..., Loaded]]:
    """Load a model by its file; everything is unloaded after the test."""
    loaded: list[Loaded] = []

    def do(model: Path, *, mmproj: Path | None = None, thinking: str = "auto", **params: Any) -> Loaded:
        files = {"model": model} | ({"mmproj": mmproj} if mmproj else {})
        loaded.append(Loaded(files, tmp_path, thinking, **params))
        return loaded[-1]

    yield do
    for one in loaded:
        one.pipeline.unload()


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_models.random_model(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture(scope="session")
def tiny_mmproj(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_models.tiny_mmproj(tmp_path_factory.mktemp("eyes") / "mmproj.gguf")


@pytest.fixture
def say(tmp_path: Path, load: Callable[..., Loaded]) -> Callable[..., Loaded]:
    """A loaded model that says a script."""

    def do(script: str, *, thinking: str = "auto", **made: Any) -> Loaded:
        path = tmp_path / f"script-{len(list(tmp_path.iterdir()))}.gguf"
        return load(text_models.scripted_model(path, script, **made), thinking=thinking)

    return do
