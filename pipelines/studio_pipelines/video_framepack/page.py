"""What this family brings to the page: a time line of sections for its prompts, and a film again from a section on.

Found through the entry point ``studio.widgets``; nothing else imports it. ``assets/sections.js`` draws the time line.
"""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

from studio.plugin import Artefact, ModelSpec

from .catalogued import settings_of
from .sections import Schedule

_WORDS = {
    "en": {
        "title": "Time line",
        "section": "Section {n}",
        "same": "as the prompt",
        "count": "{n} sections, {s} s of film",
        "again": "A part of a film is made again, beginning with section {n}.",
        "drop": "Make a new film instead",
        "from": "Again from section {n}",
        "to": "Again up to section {n}",
    },
    "fr": {
        "title": "Déroulement",
        "section": "Section {n}",
        "same": "comme la description",
        "count": "{n} sections, {s} s de film",
        "again": "Une partie d'un film est refaite, en commençant par la section {n}.",
        "drop": "Faire plutôt un nouveau film",
        "from": "Refaire à partir de la section {n}",
        "to": "Refaire jusqu'à la section {n}",
    },
}


class Sections:
    """The widget ``sections``: one prompt for each section, on a line of the length of the film."""

    widget = "sections"
    follows = ("seconds", "fps")
    keeps = ("film", "from_section")
    folder = Path(__file__).parent / "assets"

    def picker(self, field: Any, model: ModelSpec, language: str) -> str:
        """The time line; how many sections there are follows from seconds and frames a second in the script."""
        settings = settings_of(model)
        words = escape(json.dumps(_WORDS[language], ensure_ascii=False))
        frames = Schedule(1, settings.sampling, settings.window).new_frames
        data = f'data-field="{escape(field.name)}" data-fps="{settings.fps:g}" data-frames="{frames}"'
        return f'<section-line {data} data-words="{words}"></section-line>'

    def again(self, made: Artefact, language: str) -> list[tuple[str, dict[str, Any]]]:
        """A film from each of its sections on: those before it stay, or those after it where the end is made first."""
        count, sampling = made.info.get("sections"), made.info.get("sampling")
        if made.media_type != "video/mp4" or not isinstance(count, int) or sampling not in ("forward", "inverted"):
            return []
        numbers = range(2, count + 1) if sampling == "forward" else range(1, count)
        word = _WORDS[language]["from" if sampling == "forward" else "to"]
        return [(word.format(n=n), {"film": made.path, "from_section": n}) for n in numbers]
