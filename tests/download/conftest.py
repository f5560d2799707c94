"""A loopback hub, a home of its own for each test, and an environment without anything of the real user's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_hub import COMMIT, REPO, FakeHub, MakeSpec

from studio.download import ModelStore, hub_api
from studio.spec import ModelSpec


@pytest.fixture(autouse=True)
def quiet_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    # Written by the code under test; set here so that they are taken back afterwards.
    for name in ("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_XET"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(hub_api, "FIRST_WAIT_S", 0.01)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    server = FakeHub().start()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    yield server
    server.stop()


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


@pytest.fixture
def make_spec() -> MakeSpec:
    def make(files: dict[str, Any], *, id: str = "tiny", **source: Any) -> ModelSpec:
        if not {"repo", "pypi", "folder", "package"} & source.keys():
            source = {"repo": REPO, "revision": COMMIT} | source
        asked = {role: {"path": file} if isinstance(file, str) else file for role, file in files.items()}
        return ModelSpec.model_validate(
            {"id": id, "pipeline": "text-llm", "source": {"files": asked, "licence": "Apache-2.0"} | source}
        )

    return make
