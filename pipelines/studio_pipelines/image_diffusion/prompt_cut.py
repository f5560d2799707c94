"""What of a prompt is not read. diffusers' pipelines of transformers cut prompts at a number of tokens and say nothing.

Where each cuts is taken from ``encode_prompt`` and its helpers in diffusers 0.42: T5 keeps one place for its end mark,
chat models read the head of their template first, SANA-Sprint puts an instruction before the prompt and takes two
places off, Qwen-Image cuts what it has read. CLIP in FLUX.1 and SD 3 reads 77 tokens beside T5, which reads all.
"""

from __future__ import annotations

import inspect
from typing import Any

_SHOWN = 160


def cut_notes(pipeline: Any, prompts: list[str], limit: int | None) -> list[str]:
    """A sentence for each of ``prompts`` of which the end is not read. ``limit``: tokens, else the pipeline's own."""
    if getattr(pipeline, "unet", None) is not None or type(pipeline).__name__.startswith("QwenImageEdit"):
        return []  # CLIP reads long prompts in chunks (``prompt_clip``), the editor cuts nothing
    default = inspect.signature(pipeline.__call__).parameters.get("max_sequence_length")
    most = limit or (int(default.default) if default is not None and default.default else 512)
    found = []
    for prompt in dict.fromkeys(prompts):
        lost = unread(pipeline, prompt, most)
        if lost:
            shown = lost if len(lost) <= _SHOWN else f"{lost[:_SHOWN]}…"
            found.append(f"The prompt is longer than the {most} tokens that are read. Not read: {shown!r}")
    return found


def unread(pipeline: Any, prompt: str, limit: int) -> str:
    """The end of ``prompt`` that is cut at ``limit`` tokens; "" where all is read."""
    tokenizer, kind = _reader(pipeline), type(pipeline).__name__
    plain = {"add_special_tokens": False, "truncation": False, "verbose": False}
    if kind.startswith("Sana"):
        lines = inspect.signature(pipeline.__call__).parameters["complex_human_instruction"].default or ()
        before = "\n".join(lines)
        # Counted with the mark of the beginning, and together, as a space between the two joins the first word.
        ids = tokenizer(before + prompt, **plain).input_ids
        kept = len(tokenizer(before, **plain).input_ids) + limit - 2 if before else limit - 1
    else:
        ids = tokenizer(prompt, **plain).input_ids
        kept = max(0, limit - _taken(kind, tokenizer))
    return str(tokenizer.decode(ids[kept:], skip_special_tokens=True)).strip()


def _reader(pipeline: Any) -> Any:
    """The tokenizer of the encoder that reads most."""
    names = ("tokenizer_3", "tokenizer_2", "tokenizer")
    return next(found for name in names if (found := getattr(pipeline, name, None)) is not None)


def _taken(kind: str, tokenizer: Any) -> int:
    """Places among those of the limit that are not the prompt's."""
    if kind.startswith("QwenImage"):
        return 0
    if kind.startswith(("ZImage", "Flux2")):
        template: dict[str, Any] = {"tokenize": False, "add_generation_prompt": True}
        mark = "\N{SNOWMAN}"
        text = tokenizer.apply_chat_template([{"role": "user", "content": mark}], **template)
        return len(tokenizer(str(text).split(mark)[0], add_special_tokens=False).input_ids)
    return 1
