"""Conversations: a tree of turns in one JSON file each, ``chats/ID.json`` in the home folder.

Editing a turn or asking for another answer adds a branch; nothing that was said is lost. A turn of the model names its
job, so an answer that was being written when the page was closed is found again through the job.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from studio.errors import NotFound
from studio.files import write_whole

TITLE_MAX = 60


class Turn(BaseModel):
    """One thing said. ``parent`` is "" for the first. ``settled``: the text is final, whatever its job does."""

    id: str = Field(default_factory=lambda: secrets.token_hex(4))
    parent: str = ""
    role: Literal["user", "assistant"]
    text: str = ""
    images: list[str] = Field(default_factory=list)
    model: str = ""
    job: str = ""
    settled: bool = True
    thinking: str = ""
    info: dict[str, Any] = Field(default_factory=dict)
    error: str = ""
    created: float = Field(default_factory=time.time)


class Chat(BaseModel):
    """A conversation. ``leaf`` is the last turn of the branch that is shown."""

    id: str = Field(default_factory=lambda: secrets.token_hex(6))
    title: str = ""
    model: str = ""
    settings: dict[str, Any] = Field(default_factory=dict)
    leaf: str = ""
    turns: list[Turn] = Field(default_factory=list)
    changed: float = Field(default_factory=time.time)

    def turn(self, turn_id: str) -> Turn:
        found = next((turn for turn in self.turns if turn.id == turn_id), None)
        if found is None:
            raise NotFound(f"There is no turn {turn_id!r} in this conversation.", "Reload the page.")
        return found

    def path(self, leaf: str | None = None) -> list[Turn]:
        """The turns from the first to ``leaf`` (default: the one that is shown)."""
        by_id = {turn.id: turn for turn in self.turns}
        turns: list[Turn] = []
        here = by_id.get(self.leaf if leaf is None else leaf)
        while here is not None:
            turns.append(here)
            here = by_id.get(here.parent)
        return turns[::-1]

    def siblings(self, turn: Turn) -> list[Turn]:
        """The turns that were said at the same place, oldest first; the turn itself is one of them."""
        return [other for other in self.turns if other.parent == turn.parent and other.role == turn.role]

    def add(self, turn: Turn) -> Turn:
        """Say it, and show the branch that it ends."""
        self.turns.append(turn)
        self.leaf = turn.id
        if not self.title and turn.role == "user":
            words = " ".join(turn.text.split()) or "…"
            self.title = words if len(words) <= TITLE_MAX else words[: TITLE_MAX - 1] + "…"
        return turn

    def show(self, turn_id: str) -> None:
        """Show the branch of a turn, down to what was said last in it."""
        here = self.turn(turn_id)
        while below := [turn for turn in self.turns if turn.parent == here.id]:
            here = below[-1]
        self.leaf = here.id

    def messages(self, before: str) -> list[dict[str, Any]]:
        """What the model is told of the branch that ends with ``before``. An exchange without an answer is left out."""
        told: list[dict[str, Any]] = []
        turns = self.path(before)
        for asked, answer in zip(turns[::2], turns[1::2], strict=False):
            if asked.role == "user" and answer.role == "assistant" and answer.text:
                images = {"images": asked.images} if asked.images else {}
                told.append({"role": "user", "content": asked.text, **images})
                told.append({"role": "assistant", "content": answer.text})
        return told


class ChatStore:
    """All conversations of a home. One page server works in a home, so a lock of this process is enough."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._known: dict[str, tuple[int, Chat]] = {}

    def get(self, chat_id: str) -> Chat:
        """``NotFound`` if there is none; a file that cannot be read counts as none and is left alone."""
        file = self.folder / f"{chat_id}.json"
        if not chat_id.isalnum() or not file.is_file():
            raise NotFound(f"There is no conversation {chat_id!r}.", "It may have been deleted.")
        with self._lock:
            changed = file.stat().st_mtime_ns
            known = self._known.get(chat_id)
            if known is None or known[0] != changed:
                try:
                    chat = Chat.model_validate_json(file.read_bytes())
                except ValidationError as error:
                    raise NotFound(f"The conversation {chat_id} cannot be read.", f"See {file}.") from error
                self._known[chat_id] = known = (changed, chat)
            return known[1].model_copy(deep=True)

    @contextmanager
    def change(self, chat_id: str | None) -> Iterator[Chat]:
        """The conversation, or a new one, to be changed; it is on disk when the block ends."""
        with self._lock:
            chat = self.get(chat_id) if chat_id else Chat()
            yield chat
            chat.changed = time.time()
            write_whole(self.folder / f"{chat.id}.json", chat.model_dump_json(indent=1).encode())

    def delete(self, chat_id: str) -> None:
        with self._lock:
            self.get(chat_id)
            (self.folder / f"{chat_id}.json").unlink()
            self._known.pop(chat_id, None)

    def newest(self, search: str = "", limit: int = 100) -> list[Chat]:
        """The last changed first; with ``search`` those that hold all its words."""
        words = search.casefold().split()
        found = []
        with self._lock:
            for file in self.folder.glob("*.json"):
                try:
                    chat = self.get(file.stem)
                except NotFound:
                    continue
                if words:
                    text = " ".join([chat.title, *(turn.text for turn in chat.turns)]).casefold()
                    if not all(word in text for word in words):
                        continue
                found.append(chat)
        return sorted(found, key=lambda chat: chat.changed, reverse=True)[:limit]
