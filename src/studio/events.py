"""What happens to a job, in order. The same objects are yielded by pipelines, stored, and sent to every face."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True)


class Queued(_Event):
    """The job was accepted and is on disk. A second one means a new attempt: what came before it is void."""

    event: Literal["queued"] = "queued"
    job: str
    model: str
    attempt: int = 1


class Progress(_Event):
    """``done`` of ``total`` units of ``phase``; ``total`` 0 means that the end is not known.

    Work that is kept part by part (the sections of a film) says which ``part`` of ``parts`` this is about, from 1 in
    the order of making: ``done`` and ``part_eta_s`` are then of the part, and ``eta_s`` is of the whole. ``backwards``:
    the last part of the result is made first.
    ``remembered``: nothing had to be done, because an earlier request had made the same.
    """

    event: Literal["progress"] = "progress"
    phase: str
    done: float = 0
    total: float = 0
    eta_s: float | None = None
    part: int = 0
    parts: int = 0
    part_eta_s: float | None = None
    backwards: bool = False
    remembered: bool = False


class Token(_Event):
    """A piece of text as it is written. ``thinking`` is what a reasoning model says to itself."""

    event: Literal["token"] = "token"
    text: str
    channel: Literal["answer", "thinking"] = "answer"


class Preview(_Event):
    """A file that shows the state of things and will be replaced.

    Where it is a piece of something that is made part by part, it says which it shows: ``part`` to ``last_part`` of
    ``parts``, from 1 in the order of the result.
    """

    event: Literal["preview"] = "preview"
    path: str
    media_type: str
    part: int = 0
    last_part: int = 0
    parts: int = 0


class Note(_Event):
    """A sentence for whoever waits: what is done otherwise than a person would expect. ``usual``: the job goes as
    planned all the same, so that forecasts may learn from it."""

    event: Literal["note"] = "note"
    text: str
    usual: bool = False


class Artefact(_Event):
    """Something that was made.

    A pipeline yields it with ``path`` in its working folder (``Context.save`` does); the store moves the
    file, and fills in ``id``, ``recipe``, ``content_sha256`` and ``bytes``; what the pipeline puts into ``recipe`` (the
    sha256 of a file that it read, say) stays there. ``info`` holds what was measured
    while it was made (tokens per second, say) and is no part of the recipe.
    """

    event: Literal["artefact"] = "artefact"
    path: str
    media_type: str
    id: str = ""
    recipe: dict[str, Any] = Field(default_factory=dict)
    content_sha256: str = ""
    bytes: int = 0
    info: dict[str, Any] = Field(default_factory=dict)

    @property
    def text(self) -> str:
        """The content of a text artefact (UTF-8), line ends as they are."""
        return Path(self.path).read_bytes().decode()


class Done(_Event):
    """The job ended well. ``seconds`` maps each phase (load, generate, ...) to its duration; ``energy_j`` is what
    the card used meanwhile, ``None`` where it cannot tell."""

    event: Literal["done"] = "done"
    seconds: dict[str, float] = Field(default_factory=dict)
    energy_j: float | None = None


class Failed(_Event):
    """The job ended otherwise; ``state`` says how."""

    event: Literal["failed"] = "failed"
    error: str
    hint: str = ""
    state: Literal["failed", "cancelled", "quarantined"] = "failed"


Event = Queued | Progress | Token | Preview | Note | Artefact | Done | Failed

_adapter: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


def parse_event(line: str | bytes) -> Event:
    """The event of one JSON line (``event.model_dump_json()`` writes it)."""
    return _adapter.validate_json(line)


def is_last(event: Event) -> bool:
    """Whether nothing follows this event (unless the job is retried)."""
    return isinstance(event, Done | Failed)
