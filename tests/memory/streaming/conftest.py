"""The tiny models, saved once for all tests: ``tiny["framepack"]`` in one file, ``sharded["framepack"]`` in several."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest

from streaming_models import KINDS, Tiny, save


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tiny]:
    folder = tmp_path_factory.mktemp("tiny")
    return {name: save(name, folder / name) for name in KINDS}


@pytest.fixture(scope="session")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tiny]:
    folder = tmp_path_factory.mktemp("sharded")
    return {name: save(name, folder / name, "200KB") for name in KINDS}
