"""What CLIP makes of prompts with weights, and of prompts longer than it reads in one go.

Long prompts are read in chunks of 75 tokens, each between its own begin and end, and the chunks' hidden states stand
side by side. Weights multiply the hidden states of their tokens, whose mean is then put back to what it was before.
Both are the ways of AUTOMATIC1111's stable-diffusion-webui (its wiki, "Attention/emphasis" and "Infinite prompt
length"); the pooled state of SDXL is that of the first chunk, without weights. Which hidden state a model wants is
taken from ``encode_prompt`` of diffusers' Stable Diffusion and Stable Diffusion XL pipelines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .prompts import Words

Prompt = Sequence[Words]


@dataclass(frozen=True)
class _Encoder:
    """One text encoder of the pipeline and its tokenizer. ``room``: tokens in one chunk besides begin and end."""

    tokenizer: Any
    model: Any
    penultimate: bool

    @property
    def room(self) -> int:
        return int(self.tokenizer.model_max_length) - 2

    def tokens(self, prompt: Prompt) -> list[tuple[int, float]]:
        """Each token with its weight."""
        found: list[tuple[int, float]] = []
        for words in prompt:
            ids = self.tokenizer(words.text, add_special_tokens=False, truncation=False, verbose=False).input_ids
            found += [(token, words.weight) for token in ids]
        return found

    def encode(self, prompt: Prompt, chunks: int, device: Any) -> tuple[Tensor, Tensor | None]:
        """(1, chunks · length, width), and the pooled state (1, width) where the encoder has one."""
        tokens, room = self.tokens(prompt), self.room
        begin, end, pad = (getattr(self.tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad"))
        ids, weights = [], []
        for start in range(0, chunks * room, room):
            part = tokens[start : start + room]
            rest = room - len(part)
            ids.append([begin, *(token for token, _ in part), end, *[pad] * rest])
            weights.append([1.0, *(weight for _, weight in part), 1.0, *[1.0] * rest])
        out = self.model(torch.tensor(ids, device=device), output_hidden_states=True)
        hidden: Tensor = out.hidden_states[-2] if self.penultimate else out[0]  # (chunks, length, width)
        pooled = out[0][:1] if out[0].ndim == 2 else None
        return _scaled(hidden, torch.tensor(weights)).reshape(1, -1, hidden.shape[-1]), pooled


def embedded(
    pipeline: Any, arguments: dict[str, Any], prompts: list[list[Words]], negatives: list[list[Words]]
) -> dict[str, Any]:
    """``arguments`` with embeddings in the place of prompts, if any prompt has weights or is too long."""
    encoders = _encoders(pipeline)
    if all(_is_plain(prompt, encoders) for prompt in (*prompts, *negatives)):
        plain = {"prompt": _texts(prompts, arguments["prompt"])}
        if negatives:
            plain["negative_prompt"] = _texts(negatives, arguments["negative_prompt"])
        return {**arguments, **plain}
    device = pipeline._execution_device
    zeros = not negatives and bool(getattr(pipeline.config, "force_zeros_for_empty_prompt", False))
    against = list(negatives or [[Words("")]])
    against = against * len(prompts) if len(against) == 1 else against
    chunks = max(_chunks(prompt, encoder) for prompt in (*prompts, *against) for encoder in encoders)
    with torch.no_grad():
        embeds, pooled = _encoded(prompts, encoders, chunks, device)
        negative, negative_pooled = (
            (torch.zeros_like(embeds), None if pooled is None else torch.zeros_like(pooled))
            if zeros
            else _encoded(against, encoders, chunks, device)
        )
    rest = {name: value for name, value in arguments.items() if name not in ("prompt", "negative_prompt")}
    return {
        **rest,
        "prompt_embeds": embeds,
        "negative_prompt_embeds": negative,
        "pooled_prompt_embeds": pooled,
        "negative_pooled_prompt_embeds": negative_pooled,
    }


def _encoders(pipeline: Any) -> list[_Encoder]:
    both = hasattr(pipeline, "text_encoder_2")
    pairs = [(pipeline.tokenizer, pipeline.text_encoder)]
    if both:
        pairs.append((pipeline.tokenizer_2, pipeline.text_encoder_2))
    return [_Encoder(tokenizer, model, both) for tokenizer, model in pairs if model is not None]


def _is_plain(prompt: Prompt, encoders: list[_Encoder]) -> bool:
    if any(words.weight != 1 for words in prompt):
        return False
    return all(len(encoder.tokens(prompt)) <= encoder.room for encoder in encoders)


def _texts(prompts: list[list[Words]], asked: str | list[str]) -> str | list[str]:
    """The prompts in words, in the form in which they were asked."""
    texts = ["".join(words.text for words in prompt) for prompt in prompts]
    return texts[0] if isinstance(asked, str) else texts


def _chunks(prompt: Prompt, encoder: _Encoder) -> int:
    return max(1, -(-len(encoder.tokens(prompt)) // encoder.room))


def _encoded(
    prompts: list[list[Words]], encoders: list[_Encoder], chunks: int, device: Any
) -> tuple[Tensor, Tensor | None]:
    """(prompts, chunks · length, width of all encoders together), and the last encoder's pooled state."""
    rows, pooled_rows = [], []
    for prompt in prompts:
        found = [encoder.encode(prompt, chunks, device) for encoder in encoders]
        rows.append(torch.cat([hidden for hidden, _ in found], dim=-1))
        pooled_rows.append(next((pooled for _, pooled in reversed(found) if pooled is not None), None))
    pooled = [row for row in pooled_rows if row is not None]
    return torch.cat(rows), torch.cat(pooled) if len(pooled) == len(rows) else None


def _scaled(hidden: Tensor, weights: Tensor) -> Tensor:
    """``hidden`` (chunks, length, width) times ``weights`` (chunks, length), with the mean that it had before."""
    if bool((weights == 1).all()):
        return hidden
    before = hidden.float()
    after = before * weights.to(hidden.device)[..., None]
    mean = after.mean()
    if float(mean) != 0:
        after = after * (before.mean() / mean)
    return after.to(hidden.dtype)
