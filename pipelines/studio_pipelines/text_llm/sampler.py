"""Choosing the next token: llama.cpp's sampler chain, held to a grammar where one is given.

The grammar is tried on the chosen token first, and on the whole vocabulary only when it refuses that one (as
llama.cpp's common/sampling.cpp does): checking 150,000 tokens against a grammar costs more than evaluating one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from studio.plugin import BadRequest

from .llama import Llama
from .params import TextParams

LAST_TOKENS = 64
_ANY_SEED = 2**32 - 1  # LLAMA_DEFAULT_SEED: llama.cpp would draw one


class Sampler:
    """One request's sampler; ``close`` frees it."""

    def __init__(self, llama: Llama, params: TextParams, grammar: str | None) -> None:
        lib = self._lib = llama.lib
        self._llama = llama
        self._grammar: Any = None
        self._chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        for part in self._parts(params):
            lib.llama_sampler_chain_add(self._chain, part)
        if grammar is not None:
            self._grammar = lib.llama_sampler_init_grammar(llama.vocab, grammar.encode(), b"root")
            if not self._grammar:
                self.close()
                raise BadRequest("llama.cpp refuses the grammar of this json_schema.", "Use a simpler schema.")
            self._room = (lib.llama_token_data * llama.n_vocab)()

    def _parts(self, params: TextParams) -> list[Any]:
        """In llama.cpp's usual order. What is switched off is left out."""
        lib, parts = self._lib, []
        if params.repeat_penalty != 1:
            repeat = params.repeat_penalty
            parts.append(lib.llama_sampler_init_penalties(self._llama.n_vocab, LAST_TOKENS, repeat, 0.0, 0.0))
        if params.temperature == 0:
            return [*parts, lib.llama_sampler_init_greedy()]
        if params.top_k:
            parts.append(lib.llama_sampler_init_top_k(params.top_k))
        if params.top_p < 1:
            parts.append(lib.llama_sampler_init_top_p(params.top_p, 1))
        if params.min_p > 0:
            parts.append(lib.llama_sampler_init_min_p(params.min_p, 1))
        parts.append(lib.llama_sampler_init_temp(params.temperature))
        return [*parts, lib.llama_sampler_init_dist((params.seed or 0) % _ANY_SEED)]

    def next(self, held: bool, exempt: Callable[[int], bool]) -> int:
        """Sample after the last evaluated token; ``held`` applies the grammar, but not to an ``exempt`` token."""
        lib = self._lib
        if not (held and self._grammar):
            return int(lib.llama_sampler_sample(self._chain, self._llama.ctx, -1))
        token = self._choose(False)
        if exempt(token):
            lib.llama_sampler_accept(self._chain, token)
            return token
        if not self._allowed(token):
            token = self._choose(True)
        lib.llama_sampler_accept(self._chain, token)
        if not self._llama.is_end(token):
            lib.llama_sampler_accept(self._grammar, token)
        return token

    def _choose(self, held: bool) -> int:
        import numpy as np

        lib, count = self._lib, self._llama.n_vocab
        scores = np.ctypeslib.as_array(lib.llama_get_logits_ith(self._llama.ctx, -1), shape=(count,))
        room = np.frombuffer(self._room, dtype=[("id", "i4"), ("logit", "f4"), ("p", "f4")])
        room["id"], room["logit"], room["p"] = np.arange(count), scores, 0
        array = lib.llama_token_data_array(data=self._room, size=count, selected=-1, sorted=False)
        if held:
            lib.llama_sampler_apply(self._grammar, ctypes.byref(array))
        lib.llama_sampler_apply(self._chain, ctypes.byref(array))
        return int(array.data[array.selected].id)

    def _allowed(self, token: int) -> bool:
        lib = self._lib
        one = (lib.llama_token_data * 1)(lib.llama_token_data(token, 1.0, 0.0))
        array = lib.llama_token_data_array(data=one, size=1, selected=-1, sorted=False)
        lib.llama_sampler_apply(self._grammar, ctypes.byref(array))
        return bool(one[0].logit > float("-inf"))

    def close(self) -> None:
        """Free everything. May be called twice."""
        for part in (self._chain, self._grammar):
            if part:
                self._lib.llama_sampler_free(part)
        self._chain = self._grammar = None
