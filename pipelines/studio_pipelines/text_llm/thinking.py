"""Splits what a model writes into its thinking and its answer while it streams.

Reasoning models mark their thinking in a dozen ways; each is one row of ``FORMATS``. Tags arrive in pieces, so
text that may yet become a tag is held back, and given out unchanged when it does not. An opening tag counts only
at the very start: an answer *about* ``<think>`` stays an answer. Formats as documented in the models' own chat
templates (Qwen 3, DeepSeek R1, Magistral, Gemma, gpt-oss, Command A Reasoning, Seed-OSS, Kimi, Granite, EXAONE).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Channel = Literal["answer", "thinking"]
State = Literal["start", "thinking", "after", "answer", "header"]
Piece = tuple[Channel, str]


@dataclass(frozen=True)
class Format:
    """``drops`` are wrappers around the answer that nobody wants to see. ``signs`` in a chat template tell the
    format (default: the tags). ``harmony`` formats name the channel in a header before every part."""

    open: str
    close: str
    drops: tuple[str, ...] = ()
    signs: tuple[str, ...] = ()
    harmony: bool = False

    @property
    def markers(self) -> tuple[str, ...]:
        return (*_HARMONY, _MESSAGE) if self.harmony else (self.open, self.close, *self.drops)


_MESSAGE = "<|message|>"
_HARMONY = ("<|start|>", "<|channel|>", "<|end|>", "<|return|>", "<|call|>")

# In the order of detection: the more particular first.
FORMATS: dict[str, Format] = {
    "harmony": Format("", "", harmony=True, signs=("<|channel|>",)),
    "gemma": Format("<|channel>thought", "<channel|>", signs=("<|channel>",)),
    "cohere": Format("<|START_THINKING|>", "<|END_THINKING|>", ("<|START_RESPONSE|>", "<|END_RESPONSE|>")),
    "seed": Format("<seed:think>", "</seed:think>"),
    "kimi": Format("◁think▷", "◁/think▷"),
    "mistral": Format("[THINK]", "[/THINK]"),
    "apriel": Format("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]", ("[END FINAL RESPONSE]",)),
    "granite": Format("Here is my thought process:", "Here is my response:"),
    "hunyuan": Format("<think>", "</think>", ("<answer>", "</answer>"), signs=("</think>\\n<answer>", "<answer>\\n")),
    "think": Format("<think>", "</think>"),
    "thinking": Format("<thinking>", "</thinking>"),
    "thought": Format("<thought>", "</thought>"),
    "reasoning": Format("<reasoning>", "</reasoning>"),
}


def detect(template: str) -> str:
    """The name of the format that a chat template speaks of, or ``"none"``."""
    for name, fmt in FORMATS.items():
        if any(sign in template for sign in fmt.signs or (fmt.open, fmt.close)):
            return name
    return "none"


def state_after(fmt: Format | None, prompt: str) -> State:
    """Where the model starts to write: many templates open the thinking in the prompt itself."""
    if fmt is None:
        return "answer"
    tail = prompt.rstrip()
    if fmt.harmony:
        return "header" if not tail.endswith(_MESSAGE) else "answer"
    if tail.endswith(fmt.open):
        return "thinking"
    return "after" if tail.endswith(fmt.close) else "start"


class Splitter:
    """Feed it text in any pieces; it gives out ``(channel, text)``. ``fmt`` None passes everything through."""

    def __init__(self, fmt: Format | None, state: State = "start") -> None:
        self._fmt = fmt
        self._state: State = "answer" if fmt is None else state
        self._buffer = ""
        self._header = ""
        self._channel: Channel = "thinking" if state == "thinking" else "answer"
        self._strip = state in ("thinking", "after")
        self._any = False

    @property
    def answering(self) -> bool:
        """Whether what comes next belongs to the answer, unless it opens the thinking."""
        return self._state in ("start", "answer", "after")

    def opens(self, text: str) -> bool:
        """Whether ``text`` begins an opening tag here, beyond doubt (``[`` alone may begin JSON, too)."""
        if self._state != "start" or self._fmt is None:
            return False
        said, tag = (self._buffer + text).lstrip(), self._fmt.open
        return len(said) >= 3 and (tag.startswith(said) or said.startswith(tag))

    def feed(self, text: str) -> list[Piece]:
        self._buffer += text
        out: list[Piece] = []
        while self._step(out):
            pass
        return out

    def finish(self) -> list[Piece]:
        """What was held back; a header that never became a message was an answer after all."""
        out: list[Piece] = []
        if self._state == "header":
            if not self._any:
                self._emit(out, self._header + self._buffer)
        else:
            self._emit(out, self._buffer)
        self._buffer = ""
        return out

    def _emit(self, out: list[Piece], text: str) -> None:
        if self._strip:
            text = text.lstrip()
        if text:
            self._strip = False
            self._any = True
            out.append((self._channel, text))

    def _step(self, out: list[Piece]) -> bool:
        """One transition; False when more text is needed."""
        if self._fmt is None:
            self._emit(out, self._buffer)
            self._buffer = ""
            return False
        if self._state == "start":
            return self._start(self._fmt.open)
        return self._scan(out, self._fmt)

    def _start(self, tag: str) -> bool:
        text = self._buffer.lstrip()
        if text.startswith(tag):
            self._buffer = text[len(tag) :]
            self._switch("thinking")
            return True
        if tag.startswith(text):
            return False
        self._state = "answer"
        return True

    def _scan(self, out: list[Piece], fmt: Format) -> bool:
        markers = self._watched(fmt)
        found = [(at, marker) for marker in markers if (at := self._buffer.find(marker)) >= 0]
        if not found:
            keep = _held_back(self._buffer, markers)
            self._give(out, self._buffer[: len(self._buffer) - keep])
            self._buffer = self._buffer[len(self._buffer) - keep :]
            return False
        at, marker = min(found)
        self._give(out, self._buffer[:at])
        self._buffer = self._buffer[at + len(marker) :]
        self._pass(fmt, marker)
        return bool(self._buffer)

    def _watched(self, fmt: Format) -> tuple[str, ...]:
        if fmt.harmony:
            return fmt.markers
        return (fmt.close,) if self._state == "thinking" else fmt.drops

    def _give(self, out: list[Piece], text: str) -> None:
        if self._state == "header":
            self._header += text
        else:
            self._emit(out, text)

    def _pass(self, fmt: Format, marker: str) -> None:
        """What a marker means in the present state."""
        if fmt.harmony and marker == _MESSAGE:
            said = "final" in self._header or "<|channel|>" not in self._header
            self._switch("answer" if said else "thinking")
            self._strip, self._any = False, True
        elif fmt.harmony:
            self._header = (self._header if self._state == "header" else "") + marker
            self._state = "header"
        elif self._state == "thinking":
            self._switch("after")
        else:
            self._strip = self._strip or marker == fmt.drops[0]

    def _switch(self, state: State) -> None:
        self._state = state
        self._channel = "thinking" if state == "thinking" else "answer"
        self._strip = True


def _held_back(text: str, markers: tuple[str, ...]) -> int:
    """The length of the longest end of ``text`` that begins one of ``markers``."""
    longest = min(len(text), max((len(marker) for marker in markers), default=1) - 1)
    for count in range(longest, 0, -1):
        if any(marker.startswith(text[-count:]) for marker in markers):
            return count
    return 0


class StopFilter:
    """Ends the answer before the first stop text; holds back what may become one."""

    def __init__(self, stops: list[str]) -> None:
        self._stops = tuple(stops)
        self._buffer = ""
        self.hit = ""

    def feed(self, text: str) -> str:
        if self.hit:
            return ""
        self._buffer += text
        found = [(at + len(stop), at, stop) for stop in self._stops if (at := self._buffer.find(stop)) >= 0]
        if found:
            # The one that ends first, however the text was cut; the longer of two that end together.
            _, at, self.hit = min(found)
            return self._buffer[:at]
        keep = _held_back(self._buffer, self._stops)
        ready, self._buffer = self._buffer[: len(self._buffer) - keep], self._buffer[len(self._buffer) - keep :]
        return ready

    def finish(self) -> str:
        return "" if self.hit else self._buffer


def without_thinking(fmt: Format | None, text: str) -> str:
    """The answer alone of an earlier turn: thinking never goes back into a prompt."""
    if fmt is None:
        return text
    start: State = "start"
    if fmt.harmony:
        start = "header" if any(marker in text for marker in fmt.markers) else "answer"
    elif fmt.open not in text and fmt.close in text:
        start = "thinking"  # the template had opened it
    splitter = Splitter(fmt, start)
    return "".join(part for channel, part in [*splitter.feed(text), *splitter.finish()] if channel == "answer")
