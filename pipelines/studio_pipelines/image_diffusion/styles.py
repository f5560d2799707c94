"""Styles: words that are put around a prompt. Ours lie in ``styles.yaml``; a person's own in the folder ``styles``.

A file there is YAML as ours, the JSON list of Fooocus (``[{"name": …, "prompt": …, "negative_prompt": …}]``), or the
``styles.csv`` of AUTOMATIC1111's stable-diffusion-webui (columns ``name,prompt,negative_prompt``): what people have
collected elsewhere goes on working. ``{prompt}`` is what was written; a style without it is added at the end.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from studio.plugin import PROMPT_MAX, BadRequest, nearest

from .params import ImageParams

HERE = "{prompt}"
_MAX_FILE_BYTES = 2_000_000
_OURS = Path(__file__).with_name("styles.yaml")
_KINDS = (".yaml", ".yml", ".json", ".csv")


@dataclass(frozen=True)
class Style:
    """``prompt`` and ``negative_prompt`` as they are put around the words; ``label`` by language."""

    name: str
    prompt: str = ""
    negative_prompt: str = ""
    label: Mapping[str, str] = field(default_factory=dict, hash=False)

    def around(self, prompt: str, negative: str) -> tuple[str, str]:
        """Both prompts in this style."""
        if HERE in self.prompt:
            prompt = self.prompt.replace(HERE, prompt)
        elif self.prompt:
            prompt = f"{prompt}, {self.prompt}"
        own = self.negative_prompt.replace(HERE, negative)
        return prompt, own if HERE in self.negative_prompt else ", ".join(filter(None, (negative, own)))


@lru_cache(maxsize=1)
def ours() -> Mapping[str, Style]:
    """The styles that come with the family, by name."""
    return {style.name: style for style in _read(_OURS)}


def styles_in(folder: Path | None) -> dict[str, Style]:
    """A person's own styles. Raises ``BadRequest`` with the file and its fault."""
    if folder is None or not folder.is_dir():
        return {}
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in _KINDS)
    return {style.name: style for file in files for style in _read(file)}


def names_of(folder: Path | None, *, with_ours: bool) -> list[str]:
    """What a form offers: one's own first. Files that cannot be read offer nothing; a request with a style says why."""
    try:
        own = list(styles_in(folder))
    except BadRequest:
        own = []
    return own + [name for name in ours() if with_ours and name not in own]


def styled(params: ImageParams, folder: Path | None) -> tuple[str, str]:
    """The prompt and the negative prompt of a request in its styles, one after the other.

    Raises ``BadRequest`` for a style that nobody knows and for words that become too many.
    """
    prompt, negative = params.prompt, params.negative_prompt
    if not params.style:
        return prompt, negative
    known = {**ours(), **styles_in(folder)}
    for name in params.style:
        if name not in known:
            raise BadRequest(
                f"There is no style {name!r}, neither with Studio nor in {folder}.", nearest(name, list(known))
            )
        prompt, negative = known[name].around(prompt, negative)
    longest = max(len(prompt), len(negative))
    if longest > PROMPT_MAX:
        raise BadRequest(
            f"The prompt in its styles has {longest:,} characters; the limit is {PROMPT_MAX:,}.", "Take fewer styles."
        )
    return prompt, negative


def _read(file: Path) -> list[Style]:
    size = file.stat().st_size
    if size > _MAX_FILE_BYTES:
        raise BadRequest(f"{file} has {size:,} bytes; a file of styles has at most {_MAX_FILE_BYTES:,}.", "Split it.")
    try:
        text = file.read_text("utf-8-sig")
        return list(_parsed(text, file.suffix.lower()))
    except (UnicodeDecodeError, ValueError, yaml.YAMLError, csv.Error, TypeError, AttributeError) as error:
        raise BadRequest(
            f"{file} is no file of styles: {' '.join(str(error).split())[:200]}.",
            "Write it as YAML with a prompt for each name, or take it out of the folder.",
        ) from error


def _parsed(text: str, kind: str) -> Iterable[Style]:
    rows: Sequence[Mapping[str, Any]]
    if kind == ".csv":
        rows = [{key: one.get(key) for key in ("name", "prompt", "negative_prompt")} for one in _table(text)]
    else:
        found = json.loads(text) if kind == ".json" else yaml.safe_load(text)
        rows = [{"name": key, **one} for key, one in found.items()] if isinstance(found, dict) else found or []
    for row in rows:
        name, words = str(row.get("name") or "").strip(), [row.get("prompt"), row.get("negative_prompt")]
        if not all(one is None or isinstance(one, str) for one in words):
            raise ValueError(f"the words of {name or 'a style'} are no text")
        if name and any(words):
            label = row.get("label") or {}
            yield Style(name, words[0] or "", words[1] or "", label if isinstance(label, dict) else {"en": str(label)})


def _table(text: str) -> list[dict[str, Any]]:
    found = list(csv.DictReader(io.StringIO(text)))
    if found and "name" not in found[0]:
        raise ValueError("its first line does not name the columns name, prompt and negative_prompt")
    return found
