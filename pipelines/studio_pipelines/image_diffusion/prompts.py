"""Prompts: words at random, words out of files, and words with weight. What the text encoder makes of weights is in
``prompt_clip``.

``{a|b}`` takes one of its parts and ``__colours__`` a line of ``wildcards/colours.txt`` in the home folder, drawn by
the picture's seed. ``(word)`` and ``[word]`` multiply and divide the weight of words by 1.1, ``(word:1.3)`` sets it, a
backslash makes a bracket plain: the notation of AUTOMATIC1111's stable-diffusion-webui (its wiki,
"Attention/emphasis"), which most published prompts use. A bracket without its partner is text.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.plugin import PROMPT_MAX, BadRequest, nearest

from .params import ImageParams

STEP = 1.1
WEIGHT_MAX = 3.0

_CHOICE = re.compile(r"\{([^{}]*\|[^{}]*)\}")
_WILDCARD = re.compile(r"(?<![A-Za-z0-9_])__([A-Za-z0-9](?:[A-Za-z0-9_/-]*?[A-Za-z0-9])?)__(?![A-Za-z0-9_])")
_MAX_FILE_BYTES = 10_000_000
_MAX_DRAWS = 1000
_MARKS = re.compile(r"\\[\\()\[\]]|:\s*([0-9]*\.?[0-9]+)\s*\)|[()\[\]]|[^\\()\[\]:]+|[\\:]")
_EDITING = re.compile(r":\s*[0-9]*\.?[0-9]+\s*$")
_LORA = re.compile(r"<(?:lora|lyco):([^:<>]+)(?::([^<>]*))?>")


@dataclass(frozen=True)
class Words:
    """A piece of a prompt and how strongly it counts; 1 is as written."""

    text: str
    weight: float = 1.0


def prompts_of(
    prompt: str, negative: str, seed: int, count: int, wildcards: Path | None = None
) -> tuple[list[str], list[str]]:
    """One prompt and one negative for each picture, drawn by that picture's seed. Raises as ``chosen`` does."""
    return (
        [chosen(prompt, seed + number, wildcards) for number in range(count)],
        [chosen(negative, seed + number, wildcards) for number in range(count)],
    )


def chosen(prompt: str, seed: int, wildcards: Path | None = None) -> str:
    """``prompt`` with every ``{a|b|c}`` and ``__name__`` replaced, inner ones first; the same seed draws the same.

    A line of a file may name other files. Raises ``BadRequest`` for a file that is not in ``wildcards``, and where
    files name each other without end.
    """
    draw = random.Random(seed)  # noqa: S311 - no secret
    draws = 0
    while True:
        if (found := _WILDCARD.search(prompt)) is not None:
            word = draw.choice(_lines(found[1], wildcards))
        elif (found := _CHOICE.search(prompt)) is not None:
            word = draw.choice(found[1].split("|"))
        else:
            return prompt
        draws += 1
        prompt = prompt[: found.start()] + word + prompt[found.end() :]
        if draws > _MAX_DRAWS or len(prompt) > PROMPT_MAX:
            raise BadRequest(
                f"The prompt's random words do not come to an end: {draws} were drawn, {len(prompt):,} characters.",
                "See whether the wildcard files name each other.",
            )


def _lines(name: str, folder: Path | None) -> list[str]:
    """The lines to draw from; empty ones and those that begin with # do not count."""
    path = folder / f"{name}.txt" if folder is not None else None
    if folder is None or path is None or not path.is_file():
        place = "there is no home folder" if folder is None else f"there is no {name}.txt in {folder}"
        raise BadRequest(f"The prompt has the wildcard __{name}__, but {place}.", nearest(name, _names(folder)))
    size = path.stat().st_size
    if size > _MAX_FILE_BYTES:
        raise BadRequest(f"{path} has {size:,} bytes; a wildcard file has at most {_MAX_FILE_BYTES:,}.", "Split it.")
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRequest(f"{path} is not text in UTF-8.", "Save it as UTF-8.") from error
    lines = [line for raw in text.splitlines() if (line := raw.strip()) and not line.startswith("#")]
    if not lines:
        raise BadRequest(f"{path} has no line to draw from.", "Write one choice a line.")
    return lines


def _names(folder: Path | None) -> list[str]:
    files = folder.rglob("*.txt") if folder is not None and folder.is_dir() else ()
    return [file.relative_to(folder or file).with_suffix("").as_posix() for file in files]


def check_prompts(
    texts: tuple[str, str], params: ImageParams, *, weights: bool, wildcards: Path | None, model: str
) -> None:
    """Refuse what cannot be drawn or weighed in ``texts``, the prompt and the negative prompt in their styles.
    ``weights``: whether the model's text encoder takes weights.

    Where the seed is not drawn yet, seed 0 stands for it. Raises ``BadRequest``.
    """
    for name, text in zip(("prompt", "negative prompt"), texts, strict=True):
        drawn = chosen(text, params.seed or 0, wildcards)
        if (found := _LORA.search(drawn)) is not None:
            asked = ":".join(part for part in found.groups() if part)
            raise BadRequest(f"The {name} names an adapter: {found[0]}.", f"Take it out and add: --lora {asked}")
        if not params.prompt_weighting:
            continue
        words = parsed(drawn)
        if not weights and re.search(r"\([^()]*:\s*[0-9.]+\s*\)", drawn) and any(one.weight != 1 for one in words):
            raise BadRequest(
                f"The {name} sets the weight of words, which {model} does not know: it reads sentences.",
                "Say it in words, or take brackets as they are: --no-prompt-weighting",
            )


def parsed(prompt: str) -> list[Words]:
    """The pieces of a prompt with their weights, neighbours of one weight joined; without brackets one piece.

    Raises ``BadRequest`` for a weight above ``WEIGHT_MAX`` and for prompts that change while they are sampled.
    """
    pieces: list[tuple[str, float]] = []
    opened: list[tuple[str, int]] = []
    for mark in _MARKS.finditer(prompt):
        word, number = mark[0], mark[1]
        closes = {")": "(", "]": "["}.get(word[-1]) if number is not None or len(word) == 1 else None
        if word in ("(", "["):
            opened.append((word, len(pieces)))
            pieces.append((word, 1.0))  # text, unless its partner comes
        elif closes is not None and any(kind == closes for kind, _ in opened):
            while opened[-1][0] != closes:
                opened.pop()
            _, start = opened.pop()
            inside = "".join(text for text, _ in pieces[start + 1 :])
            if closes == "[" and _EDITING.search(inside):
                raise BadRequest(
                    f"The prompt has [{inside[:60]}]: words that change from step to step are not known here.",
                    "Leave out the colon, or take brackets as they are: --no-prompt-weighting",
                )
            factor = float(number) if number is not None else STEP if closes == "(" else 1 / STEP
            pieces[start:] = [(text, weight * factor) for text, weight in pieces[start + 1 :]]
        else:
            pieces.append((word[1:] if len(word) == 2 and word[0] == "\\" else word, 1.0))
    return _joined(pieces)


def _joined(pieces: list[tuple[str, float]]) -> list[Words]:
    found: list[Words] = []
    for text, weight in pieces:
        if weight > WEIGHT_MAX:
            raise BadRequest(
                f"The prompt gives {text.strip()[:60]!r} the weight {weight:.4g}; the limit is {WEIGHT_MAX:g}.",
                "Use weights from 0.5 to 1.5.",
            )
        if found and found[-1].weight == weight:
            found[-1] = Words(found[-1].text + text, weight)
        elif text:
            found.append(Words(text, weight))
    return found


def weighted(pipeline: Any, arguments: dict[str, Any], *, weights: bool = True) -> dict[str, Any]:
    """The arguments of a pipeline whose text encoders are CLIP, with what cannot be said in words as embeddings.

    That is prompts with weights, and those longer than CLIP reads in one go (which diffusers would cut). Any other
    prompt goes its usual way, and so do all arguments of another pipeline. Without ``weights`` brackets are text.
    """
    if getattr(pipeline, "unet", None) is None:
        return arguments
    from .prompt_clip import embedded

    def pieces(text: str) -> list[Words]:
        return parsed(text) if weights else [Words(text)]

    prompts, negatives = _listed(arguments["prompt"]), _listed(arguments.get("negative_prompt"))
    return embedded(pipeline, arguments, [pieces(text) for text in prompts], [pieces(text) for text in negatives])


def _listed(value: str | list[str] | None) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)
