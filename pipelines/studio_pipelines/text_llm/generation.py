"""One answer, token by token: read the prompt, write until the end, tell thinking from answer, measure."""

from __future__ import annotations

import codecs
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from studio.plugin import BadRequest, Context, Event, Progress, StudioError, Token

from .json_schema import grammar_of
from .llama import Llama
from .params import TextParams
from .sampler import Sampler
from .thinking import Format, Piece, Splitter, State, StopFilter


@dataclass
class Measures:
    """What is known of an answer when it is done; ``info`` is what the artefact carries."""

    started: float = field(default_factory=time.perf_counter)
    prompt_tokens: int = 0
    reused_tokens: int = 0
    prompt_s: float = 0.0
    completion_tokens: int = 0
    thinking_tokens: int = 0
    ttft_s: float = 0.0
    write_s: float = 0.0
    finish_reason: str = "stop"
    context: int = 0

    def info(self) -> dict[str, Any]:
        read, later = self.prompt_tokens - self.reused_tokens, max(0, self.completion_tokens - 1)
        return {
            "finish_reason": self.finish_reason,
            "prompt_tokens": self.prompt_tokens,
            "reused_tokens": self.reused_tokens,
            "completion_tokens": self.completion_tokens,
            "thinking_tokens": self.thinking_tokens,
            "context": self.context,
            "ttft_s": round(self.ttft_s, 4) or None,
            "prompt_tokens_per_s": round(read / self.prompt_s, 1) if self.prompt_s else None,
            "tokens_per_s": round(later / self.write_s, 1) if self.write_s and later else None,
        }


def prompt_tokens(llama: Llama, text: str) -> list[int]:
    """The tokens of a prompt, with the BOS that its template may have written not added twice."""
    bos = llama.bos
    tokens = llama.tokenize(text, add_special=not (bos and text.startswith(bos)))
    if not tokens:
        raise BadRequest("The prompt has no tokens.", "Say something.")
    return tokens


def check_length(count: int, context: int) -> None:
    """Refuse a prompt that leaves no room for an answer, before anything is evaluated."""
    if count >= context:
        raise StudioError(
            f"The prompt is {count:,} tokens; the context holds {context:,}.",
            "Ask for a larger --context, or shorten the prompt or the conversation.",
        )


def read_prompt(llama: Llama, tokens: list[int], ctx: Context, measures: Measures) -> Iterator[Event]:
    """Evaluate a prompt of text, telling how far it is when it takes more than one chunk."""
    began, total = time.perf_counter(), len(tokens)
    steps = llama.read_prompt(tokens, ctx.check)
    measures.reused_tokens = next(steps)
    for done in steps:
        if total - measures.reused_tokens > llama.chunk:
            pace = (time.perf_counter() - began) / (done - measures.reused_tokens)
            yield Progress(phase="prompt", done=done, total=total, eta_s=round(pace * (total - done), 2))
    measures.prompt_s = time.perf_counter() - began


class Writer:
    """Writes the answer to a prompt that ``llama`` has read. ``answer`` holds the text when ``events`` is done."""

    def __init__(self, llama: Llama, params: TextParams, fmt: Format | None, state: State, stops: list[str]) -> None:
        self._llama, self._params = llama, params
        self._fmt = fmt
        self._splitter = Splitter(fmt, state)
        self._stop = StopFilter(stops)
        self._parts: list[str] = []
        self._plain: dict[int, bytes] = {}

    @property
    def answer(self) -> str:
        return "".join(self._parts)

    def events(self, ctx: Context, measures: Measures) -> Iterator[Event]:
        """The tokens as they come. A character or a tag that spans tokens comes with the last of them."""
        llama, params = self._llama, self._params
        grammar = None if params.json_schema is None else _grammar(params.json_schema)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        room = llama.n_ctx - llama.cells
        limit = min(params.max_tokens, room)
        sampler = Sampler(llama, params, grammar)
        first = 0.0
        try:
            while True:
                ctx.check()
                token = sampler.next(self._splitter.answering, self._opens)
                now = time.perf_counter()
                first = first or now
                if llama.is_end(token):
                    break
                measures.completion_tokens += 1
                for event in self._pieces(self._splitter.feed(decoder.decode(self._bytes(token))), measures):
                    measures.ttft_s = measures.ttft_s or time.perf_counter() - measures.started
                    yield event
                if self._stop.hit:
                    break
                if measures.completion_tokens >= limit:
                    measures.finish_reason = "length"
                    break
                llama.evaluate([token])
        finally:
            sampler.close()
        rest = self._splitter.feed(decoder.decode(b"", True)) + self._splitter.finish()
        yield from self._pieces(rest, measures, count=False)
        if last := self._stop.finish():
            self._parts.append(last)
            yield Token(text=last)
        measures.write_s = time.perf_counter() - first

    def _pieces(self, pieces: list[Piece], measures: Measures, count: bool = True) -> Iterator[Event]:
        if count and not self._splitter.answering:
            measures.thinking_tokens += 1
        for channel, text in pieces:
            if channel == "thinking":
                yield Token(text=text, channel="thinking")
            elif shown := self._stop.feed(text):
                self._parts.append(shown)
                yield Token(text=shown)

    def _opens(self, token: int) -> bool:
        """A thought may come before JSON: an opening tag is no part of the answer."""
        return self._splitter.opens(self._bytes(token).decode(errors="replace"))

    def _bytes(self, token: int) -> bytes:
        """The bytes of a token. Of the control tokens only those are text that the thinking format reads."""
        known = self._plain.get(token)
        if known is None:
            known = self._llama.piece(token, special=True)
            if self._llama.is_control(token):
                text = known.decode(errors="replace")
                if not (self._fmt and any(text in marker for marker in self._fmt.markers)):
                    known = b""
            self._plain[token] = known
        return known


def _grammar(schema: dict[str, Any]) -> str:
    try:
        return grammar_of(schema)
    except (ValueError, KeyError, AssertionError, RecursionError, TypeError, AttributeError) as error:
        raise BadRequest(f"This json_schema cannot be made a grammar: {str(error)[:200]}.", "Simplify it.") from error


def checked_json(text: str, measures: Measures) -> None:
    """Refuse an answer that is no JSON, which only a limit can have caused."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        if measures.finish_reason == "length":
            raise StudioError(
                f"The JSON was cut off after {measures.completion_tokens:,} tokens.",
                "Give a larger --max-tokens or --context, or a smaller schema.",
            ) from None
        raise StudioError("The answer is not JSON.", "Leave out --stop, or try another --seed.") from None
