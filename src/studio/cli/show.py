"""Events for people (a bar and the text as it comes) or for programs (JSON lines)."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

import typer

from studio.events import Artefact, Event, Failed, Note, Preview, Progress, Queued, Token
from studio.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

_BETWEEN = 3
"""Columns between two of a table."""
DIM, PLAIN = "\x1b[2m", "\x1b[0m"


class Listener(Protocol):
    """Shows events as they come; ``close`` tidies the terminal."""

    def take(self, event: Event) -> None: ...

    def close(self) -> None: ...


class JsonLines:
    """One object a line, flushed at once."""

    def take(self, event: Event) -> None:
        typer.echo(event.model_dump_json())

    def close(self) -> None:
        pass


class Terminal:
    """The answer goes to standard output as it is written; everything else to standard error."""

    def __init__(self, *, title: str = "", quiet: bool = False) -> None:
        self._title = title
        self._quiet = quiet
        self._colour = sys.stderr.isatty()
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}
        self._thinking = False
        self._wrote_text = False
        self._played = (-1, 0)
        self._part = (0, 0)  # this and the next are of the last progress
        self._eta_s: float | None = None

    def take(self, event: Event) -> None:
        if isinstance(event, Progress):
            self._progress(event)
        elif isinstance(event, Token):
            self._end_bars()
            self._token(event)
        elif isinstance(event, Artefact):
            self._end_bars()
            self._artefact(event)
        elif isinstance(event, Preview):
            self._preview(event)
        elif isinstance(event, Note):
            self._end_bars()
            self._end_text()
            typer.echo(f"{self._title or 'studio'}: {event.text}", err=True)
        elif isinstance(event, Failed):
            self._end_bars()
            self._end_text()
            typer.echo(f"{self._title or 'studio'}: {event.error} {event.hint}".rstrip(), err=True)
        elif isinstance(event, Queued) and event.attempt > 1 and not self._quiet:
            self._end_text()
            typer.echo(f"{self._title} attempt {event.attempt}".strip(), err=True)

    def close(self) -> None:
        self._end_bars()
        self._end_text()

    def _progress(self, event: Progress) -> None:
        self._part, self._eta_s = (event.part, event.parts), event.eta_s
        if not self._colour or self._quiet:
            return
        if self._bars is None:
            self._bars = _bars()
            self._bars.start()
        name = f"{event.part}/{event.parts} {event.phase}" if event.parts else event.phase
        if event.parts and name not in self._tasks:  # what earlier parts did is over
            self._end_bars()
            self._bars = _bars()
            self._bars.start()
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=event.total or None)
        self._bars.update(self._tasks[name], completed=event.done, total=event.total or None)

    def _preview(self, event: Preview) -> None:
        """A part of a film can be played while the next one is made; unfinished pictures are for the page."""
        if event.media_type.startswith("video/") and not self._quiet and self._part != self._played:
            self._end_bars()
            self._played = self._part  # once a section, though it may come in several pieces
            left = f" (about {format_seconds(self._eta_s)} to go)" if self._eta_s else ""
            which = f"section {self._part[0]} of {self._part[1]}" if self._part[1] else "a part"
            typer.echo(f"{self._title or 'studio'}: {which} can be played: {event.path}{left}", err=True)

    def _token(self, event: Token) -> None:
        thinking = event.channel == "thinking"
        stream = sys.stderr if thinking else sys.stdout
        if thinking != self._thinking and self._colour:
            sys.stderr.write(DIM if thinking else PLAIN + "\n")
            sys.stderr.flush()
        self._thinking = thinking
        self._wrote_text = self._wrote_text or not thinking
        stream.write(event.text)
        stream.flush()

    def _artefact(self, event: Artefact) -> None:
        streamed = self._wrote_text
        self._end_text()
        if not streamed:
            typer.echo(event.path)
        if not self._quiet:
            typer.echo(_line([*facts(event), f"saved as {event.path}"], self._colour), err=True)

    def _end_bars(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
            self._tasks.clear()

    def _end_text(self) -> None:
        if self._thinking and self._colour:
            sys.stderr.write(PLAIN)
        if self._wrote_text:
            sys.stdout.write("\n")
            sys.stdout.flush()
        self._wrote_text = self._thinking = False


def _bars() -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    return Bars(*columns, console=Console(stderr=True), transient=True)


def facts(event: Artefact) -> list[str]:
    """What was measured, in a few words: only what the family reported."""
    info = event.info
    found = []
    if "completion_tokens" in info:
        found.append(f"{info['completion_tokens']} tokens")
    if "tokens_per_s" in info:
        found.append(f"{info['tokens_per_s']:.1f} tokens/s")
    if "ttft_s" in info:
        found.append(f"first after {format_seconds(info['ttft_s'])}")
    if "frames" in info and "seconds" in info:
        found.append(f"{info['frames']} frames, {format_seconds(info['seconds'])}")
    if info.get("finish_reason") == "length":
        found.append("cut at max_tokens")
    return found or [format_bytes(event.bytes)]


def _line(parts: list[str], colour: bool) -> str:
    text = " · ".join(parts)
    return f"{DIM}{text}{PLAIN}" if colour else text


def table(headers: Iterable[str], rows: Iterable[Iterable[Any]], *, wraps: str = "", least: int = 0) -> None:
    """A plain table on standard output, as wide as the terminal; in a pipe every value is whole on one line.

    ``wraps``: the column that gives way in a narrow terminal, while all others stay on one line; where it would be
    narrower than ``least`` it is left out, and a line says so.
    """
    import io

    from rich import box
    from rich.console import Console
    from rich.table import Table

    terminal = sys.stdout.isatty()
    buffer = io.StringIO()
    width = shutil.get_terminal_size().columns if terminal else 400
    console = Console(file=buffer, width=width, force_terminal=terminal)
    names, lines = list(headers), [[str(value) for value in row] for row in rows]
    without = bool(wraps) and _left(names, lines, wraps, width) < least
    kept = [number for number, name in enumerate(names) if not (without and name == wraps)]
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number in kept:
        shown.add_column(names[number], overflow="fold", no_wrap=bool(wraps) and names[number] != wraps)
    for line in lines:
        shown.add_row(*(line[number] for number in kept))
    console.print(shown)
    typer.echo("\n".join(line.rstrip() for line in buffer.getvalue().splitlines()))
    if without:
        typer.echo(f"({wraps}: in a wider terminal, or in a pipe.)")


def paragraph(text: str, indent: str = "  ") -> None:
    """A text on standard output; in a terminal its lines end between words, in a pipe it is one line."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        begin = "\n" * (len(text) - len(text.lstrip("\n")))
        text = begin + textwrap.fill(
            text.strip(), width, initial_indent=indent, subsequent_indent=2 * indent, break_long_words=False,
            break_on_hyphens=False,
        )  # fmt: skip
        typer.echo(text)
    else:
        typer.echo(f"{indent}{text}")


def _left(names: list[str], lines: list[list[str]], wraps: str, width: int) -> int:
    """The columns that a table of this width leaves to ``wraps``."""
    widest = (max(map(len, column)) for column in zip(names, *lines, strict=True) if column[0] != wraps)
    return width - sum(one + _BETWEEN for one in widest)
