"""Every word of the page, in English and French. Families bring the words of their own parameters (``fr.yaml``)."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from studio.units import french_spaces

LANGUAGES = ("en", "fr")
DAYS_FROM_H = 48
"""From so many hours on, a time is told in days."""

_FOLDER = Path(__file__).parent


class Words:
    """``say("jobs.cancel")``; values are filled in by name: ``say("chat.thought", time="3 s")``."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._table = table(language)

    def __call__(self, key: str, **values: Any) -> str:
        return self._table[key].format(**values) if values else self._table[key]

    def has(self, key: str) -> bool:
        return key in self._table

    def size(self, count: int | None) -> str:
        """Bytes for people: ``1536`` -> ``1.5 KiB``, in French ``1,5 Kio``."""
        if count is None:
            return self("unit.unknown")
        value = float(count)
        for unit in ("b", "k", "m", "g"):
            if abs(value) < 1024:
                return self.number(value, 0 if unit == "b" or value >= 100 else 1) + " " + self(f"unit.{unit}")
            value /= 1024
        return f"{self.number(value, 1)} {self('unit.t')}"

    def time(self, seconds: float | None) -> str:
        """Seconds for people: ``75`` -> ``1 min 15 s``."""
        if seconds is None:
            return self("unit.unknown")
        if seconds < 10:
            return f"{self.number(seconds, 1)} s"
        if seconds < 60:
            return f"{seconds:.0f} s"
        minutes, rest = divmod(round(seconds), 60)
        if minutes < 60:
            return f"{minutes} min {rest} s" if rest else f"{minutes} min"
        hours, minutes = divmod(minutes, 60)
        return f"{hours} h {minutes} min" if hours < DAYS_FROM_H else self.about(seconds)

    def about(self, seconds: float | None) -> str:
        """A long time, roughly: ``70 000`` -> ``19 h``."""
        if seconds is None or seconds < 3600:
            return self.time(seconds)
        hours = seconds / 3600
        if hours < DAYS_FROM_H:
            return f"{self.number(hours, 1 if hours < 10 else 0)} h"
        return f"{self.number(hours / 24)} {self('unit.d')}"

    def number(self, value: float, digits: int = 0) -> str:
        text = f"{value:,.{digits}f}"
        return text if self.language == "en" else text.replace(",", "\u202f").replace(".", ",")


@lru_cache
def table(language: str) -> dict[str, str]:
    """The flat table of a language: ``{"jobs.cancel": "Cancel"}``."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it was compiled
    nested = yaml.load((_FOLDER / f"{language}.yaml").read_text(encoding="utf-8"), Loader=loader)  # noqa: S506
    spaced = french_spaces if language == "fr" else str
    return {f"{group}.{name}": spaced(text) for group, words in nested.items() for name, text in words.items()}


def choices_of(language: str) -> dict[str, str]:
    """What a form calls the values of parameters that are chosen from a few."""
    return {key.removeprefix("choice."): text for key, text in table(language).items() if key.startswith("choice.")}


@lru_cache
def words_of(language: str) -> Words:
    return Words(language)
