"""Tokenizers of a few hundred tokens, made without training and without the hub: single letters and the words below.

Byte-pair merges are derived from the words themselves, each grown from its left (``c a`` then ``ca t``), so the ids
are the same wherever and whenever they are made.
"""

from __future__ import annotations

import string
from collections.abc import Iterable
from typing import Any

WORDS = (
    "a", "the", "of", "on", "in", "with", "red", "blue", "green", "cat", "dog", "boat", "star", "tree", "house", "sea",
)  # fmt: skip
QWEN_SPECIALS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>",
)  # fmt: skip
CHAT = (
    "{%- for turn in messages -%}"
    "{{ '<|im_start|>' + turn.role + '\\n' + turn.content + '<|im_end|>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and not enable_thinking -%}{{ '<think>\\n\\n</think>\\n\\n' }}{%- endif -%}"
    "{%- endif -%}"
)


def _byte_letters() -> list[str]:
    """The 256 letters that stand for bytes in byte-level tokenizers, in an order that never changes."""
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _grow(start: Iterable[str], words: Iterable[list[str]]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary that begins with ``start``, and the merges that make each word (given as symbols) one token."""
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(start))}
    merges: list[tuple[str, str]] = []
    for symbols in words:
        grown = symbols[0]
        for symbol in symbols[1:]:
            if (grown, symbol) not in merges:
                merges.append((grown, symbol))
            grown += symbol
            vocabulary.setdefault(grown, len(vocabulary))
    return vocabulary, merges


def clip_tokenizer(length: int = 77) -> Any:
    """CLIP's: bytes, the last one of a word marked ``</w>``."""
    from transformers import CLIPTokenizer

    letters = _byte_letters()
    start = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    vocabulary, merges = _grow(start, [[*word[:-1], word[-1] + "</w>"] for word in WORDS])
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=length)


def qwen_tokenizer(length: int = 4096) -> Any:
    """Qwen's: bytes, a word with the space before it, and a chat template."""
    from transformers import Qwen2Tokenizer

    vocabulary, merges = _grow([*QWEN_SPECIALS, *_byte_letters()], [list("Ġ" + word) for word in WORDS])
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=merges, model_max_length=length)
    tokenizer.add_special_tokens({"additional_special_tokens": list(QWEN_SPECIALS[1:])})
    tokenizer.chat_template = CHAT
    return tokenizer


def gemma_tokenizer(length: int = 4096) -> Any:
    """Gemma's: letters, ``▁`` for a space, padding on the left."""
    from transformers import GemmaTokenizer

    start = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", "\n", *string.printable.strip()]
    vocabulary, merges = _grow(start, [list("▁" + word) for word in WORDS])
    return GemmaTokenizer(vocab=vocabulary, merges=merges, model_max_length=length)


def t5_tokenizer(length: int = 512) -> Any:
    """T5's: pieces with their log-probabilities, of which the likeliest sequence is taken."""
    from transformers import T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [("▁" + word, -4.0) for word in WORDS]
    pieces += [(letter, -6.0) for letter in string.printable.strip()]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=length)
