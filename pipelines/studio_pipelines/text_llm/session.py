"""What is alive between ``load`` and ``unload``: the model, its template's process, and its eyes if it has any."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

from studio.plugin import Context, Event, Progress, StudioError

from .conversation import Prompt, Words, build_prompt, thinking_format
from .generation import Measures, Writer, check_length, checked_json, prompt_tokens, read_prompt
from .gguf_file import GgufFile
from .llama import Llama
from .params import TextParams
from .template import TemplateProcess
from .vision import Eyes


class Session:
    """Made from checked files only; ``close`` frees everything."""

    def __init__(self, files: dict[str, GgufFile], settings: dict[str, Any], thinking: str) -> None:
        model = files["model"]
        templates = model.chat_templates()
        self._process: TemplateProcess | None = None
        self._llama: Llama | None = None
        self._eyes: Eyes | None = None
        # Not guessable, so that no text in a conversation is taken for the place of a picture.
        self._marker = f"<__media_{secrets.token_hex(8)}__>"
        self._format = thinking_format(thinking, templates)
        try:
            if templates:
                self._process = TemplateProcess(templates, model.path.name)
                self._process.compile()
            self._llama = Llama(model.path, settings)
            if "mmproj" in files:
                self._eyes = Eyes(files["mmproj"].path, self._llama, self._marker, bool(settings["n_gpu_layers"]))
            chatml = len(self._llama.tokenize("<|im_start|>", False)) == 1
            self._words = Words(self._llama.bos, self._llama.eos, chatml)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Free everything. May be called twice."""
        for part in (self._eyes, self._llama, self._process):
            if part is not None:
                part.close()
        self._eyes = self._llama = self._process = None

    def run(self, params: TextParams, ctx: Context) -> Iterator[Event]:
        """One request: read, write, save."""
        llama = self._llama
        if llama is None:
            raise StudioError("The model was unloaded.", "Load it again.")
        measures = Measures(context=llama.n_ctx)
        ctx.check()
        process = None if params.completion else self._process
        prompt = build_prompt(params, process, self._words, self._format, self._marker if self._sees(params) else "")
        yield from self._read(llama, prompt, ctx, measures)
        fmt = None if params.completion else self._format
        writer = Writer(llama, params, fmt, prompt.state, [*params.stop, *prompt.stops])
        yield from writer.events(ctx, measures)
        media_type = "text/plain"
        if params.json_schema is not None:
            checked_json(writer.answer, measures)
            media_type = "application/json"
        dated = {"date": prompt.day} if prompt.day else {}  # give it as --date to get the same prompt on another day
        yield ctx.save(writer.answer, media_type, **measures.info(), **dated)

    @staticmethod
    def _sees(params: TextParams) -> bool:
        return bool(params.images) or any(turn.images for turn in params.messages)

    def _read(self, llama: Llama, prompt: Prompt, ctx: Context, measures: Measures) -> Iterator[Event]:
        if prompt.pictures and self._eyes is not None:
            for done, total in self._eyes.read_prompt(prompt.text, prompt.pictures, ctx, measures):
                yield Progress(phase="prompt", done=done, total=total)
            return
        tokens = prompt_tokens(llama, prompt.text)
        measures.prompt_tokens = len(tokens)
        check_length(len(tokens), llama.n_ctx)
        yield from read_prompt(llama, tokens, ctx, measures)
