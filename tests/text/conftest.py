"""Models for the tests of the text family: tiny ones made here, and the starter where it is installed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import text_models

from studio.plugin import GIB, Artefact, Budget, Context, Event, ModelSpec, Token
from studio_pipelines.text_llm.family import TextLLM
from studio_pipelines.text_llm.params import TextParams

BUDGET = Budget(ram_bytes=4 * GIB, threads=1)


@pytest.fixture(scope="session")
def starter_gguf() -> Path:
    """The starter's file, in the folder that STUDIO_TEST_MODELS names."""
    folder = os.environ.get("STUDIO_TEST_MODELS", "")
    found = sorted(Path(folder, "starter-text").glob("*.gguf")) if folder else []
    if not found:
        pytest.skip("the starter model is not installed: STUDIO_TEST_MODELS has no starter-text/*.gguf")
    return found[0]


@dataclass
class Answer:
    """What one request gave."""

    events: list[Event] = field(default_factory=list)

    @property
    def artefact(self) -> Artefact:
        [artefact] = [event for event in self.events if isinstance(event, Artefact)]
        assert artefact is self.events[-1]
        return artefact

    def said(self, channel: str) -> str:
        return "".join(e.text for e in self.events if isinstance(e, Token) and e.channel == channel)

    @property
    def text(self) -> str:
        saved = Path(self.artefact.path).read_bytes().decode()
        assert saved == self.said("answer"), "what streamed is not what was saved"
        return saved

    @property
    def info(self) -> dict[str, Any]:
        return self.artefact.info


class Loaded:
    """A loaded pipeline that answers in one call."""

    def __init__(self, files: dict[str, Path], folder: Path, thinking: str = "auto", **params: Any) -> None:
        spec = ModelSpec(id="tiny", pipeline="text-llm", settings={"thinking": thinking})
        self.folder = folder
        self.pipeline = TextLLM(spec, files)
        self.plan = self.pipeline.plan(TextParams(prompt="x", **params), BUDGET)
        self.pipeline.load(self.plan)

    def ask(self, prompt: str, *, ctx: Context | None = None, **params: Any) -> Answer:
        request = TextParams(prompt=prompt, **{"seed": 1, "max_tokens": 40, **params})
        answer = Answer()
        for event in self.pipeline.generate(request, ctx or Context(Path(tempfile.mkdtemp(dir=self.folder)))):
            answer.events.append(event)
        return answer


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
