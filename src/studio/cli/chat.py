"""``studio chat``: a conversation in the terminal. Every turn is a job like any other."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

import typer

from studio.cli.show import DIM, PLAIN, Terminal
from studio.core import Studio
from studio.errors import BadRequest, StudioError
from studio.events import Artefact
from studio.spec import ModelSpec

_HELP = """\
/help         this list
/system TEXT  tell the model what to be (alone: show it)
/again        another answer to your last message
/undo         forget the last exchange
/clear        begin anew
/quit         leave (Ctrl-D too)
Ctrl-C stops an answer. End a line with \\ to go on in the next."""


def chat_command(model: str | None, system: str) -> int:
    """Talk until the person leaves. Raises ``BadRequest`` for an unknown or missing model."""
    with Studio() as studio:
        spec = studio.catalogue.get(model) if model else _default(studio)
        studio.weights.require(spec)
        name = model or spec.id
        if "messages" not in studio.family(spec).Params.model_fields:
            raise BadRequest(f"{name} cannot chat: it makes {studio.family(spec).task}.", "See: studio models list")
        with suppress(ImportError):
            import readline  # noqa: F401 - gives input() its line editing
        if sys.stdin.isatty():
            typer.echo(f"{name}. /help lists the commands.", err=True)
        Chat(studio, name, system).talk()
    return 0


def _default(studio: Studio) -> ModelSpec:
    """The largest chat model that is installed."""
    found = [
        spec for spec in studio.models
        if spec.pipeline == "text-llm" and studio.weights.installed(spec) is not None
    ]  # fmt: skip
    if not found:
        raise BadRequest("No text model is installed.", "Run: studio models pull starter-text")
    return max(found, key=lambda spec: spec.download_bytes or 0)


class Chat:
    """The turns so far, and the loop."""

    def __init__(self, studio: Studio, model: str, system: str) -> None:
        self._studio = studio
        self._model = model
        self._system = system
        self._turns: list[dict[str, Any]] = []

    def talk(self) -> None:
        while (line := _read()) is not None:
            if not line.strip():
                continue
            if not line.startswith("/"):
                self._say(line)
            elif not self._command(*line[1:].split(maxsplit=1)):
                return

    def _command(self, name: str = "help", rest: str = "") -> bool:
        """Obey a slash command; ``False`` to leave."""
        if name in ("quit", "exit", "q"):
            return False
        if name == "system":
            self._system = rest or self._system
            typer.echo(f"system: {self._system or '(none)'}", err=True)
        elif name == "clear":
            self._turns.clear()
        elif name in ("undo", "again"):
            asked = self._forget()
            if name == "again" and asked:
                self._say(asked)
        else:
            typer.echo(_HELP, err=True)
        return True

    def _forget(self) -> str:
        """Take the last exchange away and return what was asked."""
        asked = self._turns[-2]["content"] if len(self._turns) >= 2 else ""
        del self._turns[-2:]
        return str(asked)

    def _say(self, text: str) -> None:
        params: dict[str, Any] = {"prompt": text, "messages": list(self._turns)}
        if self._system:
            params["system"] = self._system
        shown = Terminal(title=self._model)
        answer = ""
        try:
            job = self._studio.submit(self._model, priority=10, **params)
            try:
                for event in job.events():
                    shown.take(event)
                    if isinstance(event, Artefact):
                        answer = event.text
            except KeyboardInterrupt:
                job.cancel()
                typer.echo(f"\n{DIM}stopped{PLAIN}", err=True)
        except StudioError as error:
            typer.echo(f"studio: {error}", err=True)
        finally:
            shown.close()
        if answer:
            self._turns += [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]


def _read() -> str | None:
    """One message, which may span lines; ``None`` at the end."""
    parts: list[str] = []
    prompt = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            line = input("  " if parts and prompt else prompt)
        except (EOFError, KeyboardInterrupt):
            return None
        if not line.endswith("\\"):
            return "\n".join([*parts, line])
        parts.append(line[:-1])
