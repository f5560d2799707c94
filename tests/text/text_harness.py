"""One call from a request to its answer, for the tests of the text family."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio.plugin import GIB, Artefact, Budget, Context, Event, ModelSpec, Token
from studio_pipelines.text_llm.family import TextLLM
from studio_pipelines.text_llm.params import TextParams

BUDGET = Budget(ram_bytes=4 * GIB, threads=1)


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
