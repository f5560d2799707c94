"""llama.cpp by its C interface: one loaded model with one context.

``llama_cpp.Llama`` is not used: its constructor compiles every chat template of the file in this process, it
allocates a score for each token of a batch, takes seed 0 for "any seed", and prints its log. The C functions that
the package exports (the bindings of include/llama.h) have none of that. Tokens are evaluated with explicit
positions, because a picture may take fewer positions than cells.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from studio.plugin import BadWeights, Cancelled, StudioError

log = logging.getLogger(__name__)
Check = Callable[[], None]

_TYPES = {"f16": 1, "q8_0": 8, "q4_0": 2}  # enum ggml_type
_LEVELS = {1: logging.DEBUG, 2: logging.INFO, 3: logging.ERROR, 4: logging.DEBUG}
_keep_alive: list[Any] = []
last_errors: list[str] = []


def library() -> Any:
    """The bindings, imported on first use, with llama.cpp's log going to Python's.

    llama.cpp has one log callback per process. Its warnings are notes to developers, so they become INFO.
    """
    import llama_cpp

    if not _keep_alive:
        from llama_cpp import mtmd_cpp

        pending = {"level": logging.DEBUG, "text": ""}

        def route(level: int, text: bytes, _user: object) -> None:
            if level != 5:  # 5 continues the line before
                pending["level"] = _LEVELS.get(level, logging.DEBUG)
            pending["text"] = str(pending["text"]) + text.decode(errors="replace")
            if str(pending["text"]).endswith("\n"):
                line, pending["text"] = str(pending["text"]).strip(), ""
                if line and pending["level"] == logging.ERROR:
                    last_errors[:] = [*last_errors[-7:], line]
                if line:
                    log.log(int(str(pending["level"])), "%s", line)

        callback = llama_cpp.llama_log_callback(route)
        _keep_alive.append(callback)
        none = ctypes.c_void_p(0)
        for put in (llama_cpp.llama_log_set, mtmd_cpp.mtmd_log_set, mtmd_cpp.mtmd_helper_log_set):
            put(callback, none)
        llama_cpp.llama_backend_init()
    return llama_cpp


class Llama:
    """A model and its context; ``close`` frees both. ``kept`` are the tokens evaluated as whole prompt chunks."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.lib = library()
        self.n_ctx = int(settings["n_ctx"])
        self.chunk = int(settings["n_batch"])
        self.batch_max = max(self.chunk, int(settings["n_ubatch"]))
        self.threads = int(settings["n_threads"])
        self.model: Any = None
        self.ctx: Any = None
        self.batch: Any = None
        self.kept: list[int] = []
        self.cells = 0
        self.position = 0
        last_errors.clear()
        try:
            self._load(path, settings)
        except BaseException:
            self.close()
            raise

    def _load(self, path: Path, settings: dict[str, Any]) -> None:
        lib = self.lib
        model_params = lib.llama_model_default_params()
        model_params.n_gpu_layers = int(settings["n_gpu_layers"])
        self.model = lib.llama_model_load_from_file(str(path).encode(), model_params)
        if not self.model:
            why = last_errors[0] if last_errors else "it gave no reason"
            raise BadWeights(
                f"llama.cpp cannot load {path.name}: {why[:200]}.",
                "The architecture may be newer than the installed llama-cpp-python; else fetch the file again.",
            )
        params = lib.llama_context_default_params()
        params.n_ctx, params.n_seq_max = self.n_ctx, 1
        params.n_batch = params.n_ubatch = self.batch_max
        params.n_outputs_max = 1  # only the last token's scores are ever read: a small buffer for large vocabularies
        params.n_threads = params.n_threads_batch = self.threads
        params.type_k, params.type_v = _TYPES[settings["type_k"]], _TYPES[settings["type_v"]]
        # On, not "auto": a quantised V cache needs it, and results must not depend on what llama.cpp picks.
        params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_ENABLED
        # A window's worth of cache, as `sizing` counted; the price is that such models re-read their prompt.
        params.swa_full = False
        params.no_perf = True
        self.ctx = lib.llama_init_from_model(self.model, params)
        if not self.ctx:
            why = last_errors[0] if last_errors else "out of memory?"
            raise StudioError(
                f"llama.cpp cannot set up a context of {self.n_ctx:,} tokens: {why[:200]}.",
                "Try a smaller --context, or --kv-cache f16.",
            )
        self.batch = lib.llama_batch_init(self.chunk, 0, 1)
        self.vocab = lib.llama_model_get_vocab(self.model)
        self.n_vocab = int(lib.llama_vocab_n_tokens(self.vocab))
        self.memory = lib.llama_get_memory(self.ctx)
        if not self.memory or lib.llama_model_has_encoder(self.model):
            raise BadWeights(f"{path.name} does not write text by itself.", "Choose a model for chat or completion.")
        self.windowed = lib.llama_model_n_swa(self.model) > 0

    def close(self) -> None:
        """Free everything. May be called twice."""
        lib = self.lib
        if self.batch is not None:
            lib.llama_batch_free(self.batch)
        if self.ctx:
            lib.llama_free(self.ctx)
        if self.model:
            lib.llama_model_free(self.model)
        self.batch = self.ctx = self.model = self.vocab = self.memory = None

    def token_text(self, token: int) -> str:
        """How the vocabulary spells a token; empty for "no such token" (-1)."""
        return str(self.lib.llama_vocab_get_text(self.vocab, token).decode(errors="replace")) if token >= 0 else ""

    @property
    def bos(self) -> str:
        return self.token_text(int(self.lib.llama_vocab_bos(self.vocab)))

    @property
    def eos(self) -> str:
        return self.token_text(int(self.lib.llama_vocab_eos(self.vocab)))

    def tokenize(self, text: str, add_special: bool) -> list[int]:
        """Tokens of ``text``, control tokens included; ``add_special`` lets the vocabulary add its BOS."""
        data = text.encode()
        room = len(data) + 16
        tokens = (self.lib.llama_token * room)()
        count = self.lib.llama_tokenize(self.vocab, data, len(data), tokens, room, add_special, True)
        if count < 0:
            raise StudioError(f"The prompt of {len(data):,} bytes cannot be turned into tokens.")
        return list(tokens[:count])

    def piece(self, token: int, special: bool) -> bytes:
        """The bytes of one token: possibly a part of a character."""
        buffer = ctypes.create_string_buffer(256)
        count = self.lib.llama_token_to_piece(self.vocab, token, buffer, 256, 0, special)
        if count < 0:
            buffer = ctypes.create_string_buffer(-count)
            count = self.lib.llama_token_to_piece(self.vocab, token, buffer, -count, 0, special)
        return buffer.raw[:count]

    def is_control(self, token: int) -> bool:
        return bool(self.lib.llama_vocab_is_control(self.vocab, token))

    def is_end(self, token: int) -> bool:
        return bool(self.lib.llama_vocab_is_eog(self.vocab, token))

    def clear(self) -> None:
        """Forget everything that was evaluated."""
        self.lib.llama_memory_clear(self.memory, False)
        self.kept, self.cells, self.position = [], 0, 0

    def evaluate(self, tokens: list[int]) -> None:
        """Evaluate up to one chunk after what is there; the scores of the last token are then ready."""
        batch, count = self.batch, len(tokens)
        batch.n_tokens = count
        for index, token in enumerate(tokens):
            batch.token[index] = token
            batch.pos[index] = self.position + index
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = 0
            batch.logits[index] = index == count - 1
        result = self.lib.llama_decode(self.ctx, batch)
        if result == 2:
            raise Cancelled
        if result:
            raise StudioError(f"llama.cpp failed to evaluate {count} tokens (code {result}).", "Try again.")
        self.cells += count
        self.position += count

    def reuse(self, tokens: list[int]) -> int:
        """Keep the longest run of whole chunks that an earlier prompt shares with this one; gives its length.

        Only whole chunks, evaluated as chunks of a prompt: floating point sums depend on how many tokens are
        evaluated together, so any other rule would make an answer depend on what was asked before.
        """
        size, same = self.chunk, 0
        whole = min((len(tokens) - 1) // size * size, len(self.kept))  # the last token is always evaluated
        while same < whole and self.kept[same : same + size] == tokens[same : same + size]:
            same += size
        # A sliding window has dropped what a shorter prompt needs; a recurrent state cannot be turned back.
        if self.windowed or not same or not self.lib.llama_memory_seq_rm(self.memory, 0, same, -1):
            self.clear()
            return 0
        self.kept = self.kept[:same]
        self.cells = self.position = same
        return same

    def read_prompt(self, tokens: list[int], check: Check) -> Iterator[int]:
        """Evaluate a prompt chunk by chunk, reusing what can be; yields the tokens done, the reused ones first."""
        start = self.reuse(tokens)
        yield start
        for at in range(start, len(tokens), self.chunk):
            check()
            part = tokens[at : at + self.chunk]
            with self.abort_when(check):
                self.evaluate(part)
            if len(part) == self.chunk:
                self.kept += part
            yield at + len(part)

    def abort_when(self, check: Check) -> Abort:
        """While open, ``check`` is asked between the steps of an evaluation, so a slow chunk can be cancelled."""
        return Abort(self, check)


class Abort:
    """llama.cpp's abort callback for the time of a ``with``; only the processor's backend asks it."""

    def __init__(self, llama: Llama, check: Check) -> None:
        self._llama, self._check = llama, check

    def __enter__(self) -> None:
        from llama_cpp.llama_cpp import ggml_abort_callback

        def asked(_data: object) -> bool:
            try:
                self._check()
            except Cancelled:  # an exception cannot pass through C
                return True
            return False

        self._callback = ggml_abort_callback(asked)
        self._llama.lib.llama_set_abort_callback(self._llama.ctx, self._callback, None)

    def __exit__(self, *_: object) -> None:
        from llama_cpp.llama_cpp import ggml_abort_callback

        self._llama.lib.llama_set_abort_callback(self._llama.ctx, ggml_abort_callback(), None)
